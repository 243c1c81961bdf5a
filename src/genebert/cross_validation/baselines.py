"""What the labels of known cell types say of a new one, without looking at any sequence.

Most windows are alike in all cell types, so that the mean over known ones is hard to beat (Schreiber, Singh, Bilmes and
Noble 2020, Genome Biol 21:282): a method that repeats it has learned nothing about the cell type. The nearest cell
type has what the mean has not: it differs between cell types.
"""

import numpy as np
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.cross_validation.folds import Fold
from genebert.cross_validation.grid import Grid
from genebert.schema import parent_of

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]


def mean_of_known(grid: Grid, fold: Fold, known: Indices | None = None) -> Numbers:
    """Return the mean label of each test window over the cell types that are not tested on.

    Args:
        grid, fold: what is predicted.
        known: the cell types whose labels are used; by default, all that are not tested on.

    Returns:
        float64, shape (test windows, c), alike in all cell types; where nothing is known of a window, the mean of the
        training rows.
    """
    truth = grid.truth[fold.test_windows][:, fold.known if known is None else known]
    told = np.isfinite(truth)
    count = told.sum(axis=1)
    total = np.where(told, truth, 0).sum(axis=1)
    mean = np.divide(total, count, out=np.full(len(truth), training_mean(grid, fold)), where=count > 0)
    return np.repeat(mean[:, None], len(grid.cell_types), axis=1)


def nearest_known(grid: Grid, fold: Fold, known: Indices | None = None) -> Numbers:
    """Return the label of each test window in the known cell type whose accessibility is most alike.

    Alike is the correlation (phi) of being accessible or not over the regions of the corpus that are not on test
    chromosomes. Where the label is not known, the next nearest cell type is taken; a known cell type is not compared
    with itself.

    Args:
        grid, fold, known: see `mean_of_known`.

    Returns:
        float64, shape (test windows, c); where nothing is known of a window, the mean of the training rows.
    """
    alike, usable = _likeness(grid, fold), fold.known if known is None else known
    truth = grid.truth[fold.test_windows]
    predicted = np.full(truth.shape, np.nan)
    for cell_type in range(truth.shape[1]):
        others = usable[usable != cell_type]
        for other in others[np.argsort(-alike[cell_type, others], kind="stable")]:
            own = predicted[:, cell_type]
            own[:] = np.where(np.isfinite(own), own, truth[:, other])
    return np.where(np.isfinite(predicted), predicted, training_mean(grid, fold))


def training_mean(grid: Grid, fold: Fold) -> float:
    """Return the mean of the training rows."""
    return float(grid.truth[fold.rows(grid)["train"]].mean())


def _likeness(grid: Grid, fold: Fold) -> Numbers:
    """Return phi of each pair of cell types: float64, shape (c, c); 0 where one is accessible everywhere or nowhere."""
    elsewhere = ~grid.corpus.regions["chrom"].map(parent_of).isin(fold.parts["test_chromosomes"]).to_numpy()
    accessible = _accessible(grid.corpus, grid.cell_types)[:, elsewhere].astype(np.float32)
    both = (accessible @ accessible.T).astype(np.float64) / max(accessible.shape[1], 1)
    share = both.diagonal()
    scale = np.sqrt(np.outer(share * (1 - share), share * (1 - share)))
    return np.divide(both - np.outer(share, share), scale, out=np.zeros_like(both), where=scale > 0)


def _accessible(corpus: Corpus, cell_types: list[str]) -> NDArray[np.bool_]:
    """Return which regions are accessible: bool, shape (c, regions)."""
    found = np.zeros((len(cell_types), len(corpus.regions)), dtype=bool)
    for row, cell_type in zip(found, corpus.cell_type_indices(cell_types).tolist(), strict=True):
        row[corpus.accessible(cell_type)] = True
    return found
