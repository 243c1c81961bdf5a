"""Ensembles of methods and baselines: the mean of what they predict, or of its log-odds.

What the labels of known cell types say of a window is hard to beat, and says nothing of the new cell type; methods say
less of the window, and more of the cell type. So a user who has such labels does best to put both together.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from genebert.cross_validation.baselines import Indices, mean_of_known, nearest_known, training_mean
from genebert.cross_validation.folds import Fold
from genebert.cross_validation.grid import Grid
from genebert.cross_validation.protocol import MEAN, NEAREST, CellTypeEnsembleEntry
from genebert.known_labels import mean_of_said, pooled, softened

Numbers = NDArray[np.float64]


def baselines_as_members(grid: Grid, fold: Fold, known: Indices | None = None) -> dict[str, Numbers]:
    """Return name -> what baselines predict of the test windows, float64, shape (windows, c).

    It is as if the mean of the training rows were the label of one more known cell type; see `softened`. NaN where no
    known cell type tells anything of a window.

    Args:
        grid, fold, known: see `mean_of_known`.
    """
    prior = training_mean(grid, fold)
    told = grid.truth[fold.test_windows][:, fold.known if known is None else known]
    count = np.isfinite(told).sum(axis=1)[:, None]
    found = {
        MEAN: softened(mean_of_known(grid, fold, known), count, prior),
        NEAREST: softened(nearest_known(grid, fold, known), 1, prior),
    }
    return {name: np.where(count > 0, predicted, np.nan) for name, predicted in found.items()}


def together(entry: CellTypeEnsembleEntry, members: Mapping[str, Numbers], grid: Grid, fold: Fold) -> Numbers:
    """Return the mean of what the members of an ensemble predict, or what the mean of their log-odds says.

    Numbers have no log-odds, and are averaged. Where a member says nothing, the others count alone; where none says
    anything, the mean of the training rows is predicted.

    Args:
        entry: the ensemble.
        members: of it and others, float64, shape (windows, c) each.
        grid, fold: what they are of.
    """
    own = np.stack([members[name] for name in entry.of])
    found = pooled(own) if entry.log_odds and grid.kind == "classes" else mean_of_said(own)
    return np.where(np.isfinite(found), found, training_mean(grid, fold))
