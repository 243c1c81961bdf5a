"""Ensembles of methods and baselines: the mean of what they predict, or of its log-odds.

What the labels of known cell types say of a window is hard to beat, and says nothing of the new cell type; methods say
less of the window, and more of the cell type. So a user who has such labels does best to put both together.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from genebert.cross_validation.baselines import mean_of_known, nearest_known, training_mean
from genebert.cross_validation.folds import Fold
from genebert.cross_validation.grid import Grid, Kind
from genebert.cross_validation.protocol import MEAN, NEAREST, CellTypeEnsembleEntry

Numbers = NDArray[np.float64]
LEAST = 1e-4
"""Probabilities are taken to lie so far from 0 and 1, so that their log-odds are finite."""


def baselines_as_members(grid: Grid, fold: Fold) -> dict[str, Numbers]:
    """Return name -> what baselines predict of the test windows, float64, shape (windows, c).

    It is as if the mean of the training rows were the label of one more known cell type: a single label, and labels
    that are all alike, would else be certain.
    """
    prior, known = training_mean(grid, fold), len(fold.known)
    mean, nearest = mean_of_known(grid, fold), nearest_known(grid, fold)
    return {MEAN: (known * mean + prior) / (known + 1), NEAREST: (nearest + prior) / 2}


def together(entry: CellTypeEnsembleEntry, members: Mapping[str, Numbers], kind: Kind) -> Numbers:
    """Return the mean of what the members of an ensemble predict, or what the mean of their log-odds says.

    The latter is a logarithmic opinion pool (Genest and Zidek 1986, Statist Sci 1:114) with equal weights. Numbers have
    no log-odds, and are averaged.

    Args:
        entry: the ensemble.
        members: of it and others, float64, of one shape.
        kind: of what is predicted.
    """
    own = np.stack([members[name] for name in entry.of])
    if not entry.log_odds or kind == "value":
        return own.mean(axis=0)
    kept = np.clip(own, LEAST, 1 - LEAST)
    log_odds = (np.log(kept) - np.log1p(-kept)).mean(axis=0)
    return 1 / (1 + np.exp(-log_odds))
