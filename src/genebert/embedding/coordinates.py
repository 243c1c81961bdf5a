"""Few coordinates of many states: principal components of rows that come in blocks, and UMAP of these."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from genebert.errors import UserError, problem

COMPONENTS = 50
NEIGHBOURS = 15
LEAST_ROWS = 5
"""Fewer rows have no neighbourhoods to speak of: their UMAP is the first two principal components."""
Blocks = Callable[[], Iterable[NDArray[np.float32]]]
"""Begins anew to yield the rows of a matrix in blocks."""


class Components(NamedTuple):
    """The first principal components of n rows.

    Attributes:
        scores: of the rows, float32, shape (n, at most `most`, d and n - 1, at least 2).
        shares: of the variance of the rows, float64, one for each component.
    """

    scores: NDArray[np.float32]
    shares: NDArray[np.float64]


def principal_components(blocks: Blocks, most: int = COMPONENTS) -> Components:
    """Return the first principal components of rows.

    Memory grows with d squared, and with n only by the result. What a component lacks (there are fewer than two) is 0.
    The largest loading of each is positive, so that signs do not depend on the solver.

    Args:
        blocks: yields float32, shape (b, d).
        most: number of components.
    """
    count, total, products = 0, np.zeros(()), np.zeros(())
    for block in blocks():
        rows = block.astype(np.float64)
        count, total, products = count + len(rows), total + rows.sum(axis=0), products + rows.T @ rows
    mean = total / max(count, 1)
    kept = max(0, min(most, len(mean), count - 1))
    squares, axes = np.linalg.eigh(products - count * np.outer(mean, mean))
    axes = axes[:, ::-1][:, :kept]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(kept)])
    scores = np.zeros((count, max(kept, 2)), dtype=np.float32)
    start = 0
    for block in blocks():
        scores[start : start + len(block), :kept] = (block - mean) @ axes
        start += len(block)
    shares = np.zeros(scores.shape[1])
    shares[:kept] = squares[::-1][:kept].clip(min=0) / (squares.sum() if squares.sum() > 0 else 1.0)
    return Components(scores, shares)


def umap_of(components: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return UMAP coordinates (McInnes, Healy and Melville 2018) of principal components: float32, shape (n, 2).

    Args:
        components: float32, shape (n, c); it starts from the first two.
        seed: of the sampling of pairs.

    Raises:
        UserError: umap-learn is not installed.
    """
    umap = umap_module()
    start = components[:, :2].astype(np.float64)
    start *= 10 / (np.abs(start).max() or 1.0)
    if len(components) < LEAST_ROWS:
        return start.astype(np.float32)
    neighbours = min(NEIGHBOURS, len(components) - 1)
    with warnings.catch_warnings(), _threads_of_torch_kept():
        warnings.simplefilter("ignore")  # of numba's, about its threads and its cache
        model = umap.UMAP(n_neighbors=neighbours, min_dist=0.3, init=start, random_state=seed, n_jobs=1)
        return np.asarray(model.fit_transform(components), dtype=np.float32)


@contextmanager
def _threads_of_torch_kept() -> Iterator[None]:
    """Give torch its number of threads back: UMAP's numba sets it for all that uses OpenMP in this process."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def umap_module() -> Any:
    """Import umap, whose compiled functions are kept on disk: else each process compiles them anew, for half a minute.

    Raises:
        UserError: umap-learn is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it would like to have tensorflow
            import umap
    except ImportError:
        remedy = "Install it: pip install 'genebert[umap]'; or do without: --no-umap."
        raise UserError(problem("--umap", "umap-learn is not installed", remedy)) from None
    with suppress(RuntimeError):  # there is no folder that numba could write to
        for function in [*vars(umap.umap_).values(), *vars(umap.layouts).values()]:
            if hasattr(function, "enable_caching"):
                function.enable_caching()
    return umap
