import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from genebert.embedding.coordinates import principal_components, umap_of
from genebert.errors import UserError


def test_components_of_blocks_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    rows = (generator.normal(size=(500, 12)) @ generator.normal(size=(12, 12)) + 5).astype(np.float32)

    def blocks() -> Iterator[NDArray[np.float32]]:
        yield from np.split(rows, [1, 200, 200, 333])

    found, shares = principal_components(blocks, 4)
    reference = PCA(4, svd_solver="full")
    expected = reference.fit_transform(rows.astype(np.float64))
    assert np.allclose(shares, reference.explained_variance_ratio_, atol=1e-5)
    signs = np.sign((found * expected).sum(axis=0))
    assert found.dtype == np.float32
    assert np.allclose(found, expected * signs, atol=1e-3)


def test_few_rows_have_few_components_and_at_least_two_columns() -> None:
    rows = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0]], dtype=np.float32)
    assert principal_components(lambda: [rows]).scores.shape == (3, 2)
    two = principal_components(lambda: [rows[:2]]).scores
    assert np.allclose(two, [[-0.5, 0], [0.5, 0]])  # and not the other way round: the largest loading is positive
    assert all((part == 0).all() for part in principal_components(lambda: [rows[:1]]))


def test_fewer_than_five_rows_are_drawn_by_their_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """There UMAP has no neighbourhoods, and its start from eigenvectors fails."""
    monkeypatch.setattr("genebert.embedding.coordinates.umap_module", lambda: None)
    found = umap_of(np.array([[1, 0, 3], [-4, 2, 1]], dtype=np.float32), 0)
    assert np.allclose(found, [[2.5, 0], [-10, 5]])


def test_without_umap_learn_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"pip install 'genebert\[umap\]'; or do without: --no-umap"):
        umap_of(np.zeros((9, 2), dtype=np.float32), 0)


def test_torch_has_as_many_threads_afterwards_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba, which UMAP compiles with, sets the number of threads of OpenMP, which torch uses too."""

    class Umap:
        def __init__(self, **_: object) -> None:
            pass

        def fit_transform(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
            torch.set_num_threads(before + 1)
            return rows[:, :2]

    before = torch.get_num_threads()
    monkeypatch.setattr("genebert.embedding.coordinates.umap_module", lambda: SimpleNamespace(UMAP=Umap))
    umap_of(np.ones((9, 3), dtype=np.float32), 0)
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_umap_keeps_groups_apart_and_repeats() -> None:
    umap = pytest.importorskip("umap")
    generator = np.random.default_rng(0)
    rows = np.concatenate([generator.normal(centre, 0.1, size=(40, 5)) for centre in (-5, 5)]).astype(np.float32)
    first, second = (umap_of(rows, 3) for _ in range(2))
    assert np.array_equal(first, second)
    assert umap.umap_.fast_knn_indices.stats.cache_path  # which is None for what each process compiles anew
    middles = first[:40].mean(axis=0), first[40:].mean(axis=0)
    spread = max(first[:40].std(), first[40:].std())
    assert np.linalg.norm(middles[0] - middles[1]) > 2 * spread
