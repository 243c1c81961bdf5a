"""Ensembles of methods and baselines: how much each member counts, and what they predict together.

What the labels of known cell types say of a window is hard to beat, and says nothing of the new cell type; methods say
less of the window, and more of the cell type. So a user who has such labels does best to put both together.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genebert.cross_validation.baselines import mean_of_known, nearest_known, training_mean
from genebert.cross_validation.folds import Fold
from genebert.cross_validation.grid import Grid
from genebert.cross_validation.protocol import MEAN, NEAREST, WeighedEnsembleEntry
from genebert.stacking import stacking_weights
from genebert.target import Target

Numbers = NDArray[np.float64]
LEAST = 1e-4
"""Of probabilities, so that their log-odds are finite."""


@dataclass(frozen=True)
class Member:
    """What a method or a baseline predicts in a fold.

    Attributes:
        valid: of the validation rows, float64, shape (rows,).
        test: of the test windows, float64, shape (windows, c).
    """

    valid: Numbers
    test: Numbers


def baselines_as_members(grid: Grid, fold: Fold) -> dict[str, Member]:
    """Return the baselines, as if the mean of the training rows were the label of one more known cell type.

    A single label, and labels that are all alike, would else be certain. A validation row's own cell type is among the
    known ones, and is not looked at for this row.
    """
    prior, known = training_mean(grid, fold), len(fold.known)
    return {
        MEAN: Member(
            _towards(_mean_without_own(grid, fold), prior, known), _towards(mean_of_known(grid, fold), prior, known)
        ),
        NEAREST: Member(
            _towards(_of_valid_rows(nearest_known(grid, fold, fold.valid_windows), grid, fold), prior, 1),
            _towards(nearest_known(grid, fold), prior, 1),
        ),
    }


def _mean_without_own(grid: Grid, fold: Fold) -> Numbers:
    """Return of each validation row the mean over the other known cell types: float64, shape (rows,)."""
    columns = np.empty((int(fold.valid_windows.sum()), len(grid.cell_types)))
    for own in fold.valid.tolist():
        columns[:, own] = mean_of_known(grid, fold, fold.valid_windows, without=own)[:, own]
    return _of_valid_rows(columns, grid, fold)


def _of_valid_rows(predicted: Numbers, grid: Grid, fold: Fold) -> Numbers:
    """Return what is predicted of the validation rows, of what is of their windows, shape (windows, c)."""
    window, cell_type = fold.rows(grid)["valid"]
    place = np.cumsum(fold.valid_windows) - 1  # of each window among them
    found: Numbers = predicted[place[window], cell_type]
    return found


def _towards(predicted: Numbers, prior: float, labels: int) -> Numbers:
    return (labels * predicted + prior) / (labels + 1)


def weights_of(entry: WeighedEnsembleEntry, members: Mapping[str, Member], grid: Grid, fold: Fold) -> Numbers:
    """Return how much each member counts: float64, shape (members,), not negative, together 1.

    Those of a stacked ensemble have the lowest loss on the validation rows; see `stacking_weights`.
    """
    if not entry.stacked:
        return np.full(len(entry.of), 1 / len(entry.of))
    target = _target(grid, fold)
    truth = grid.as_target(grid.truth[fold.rows(grid)["valid"]])
    logits = np.stack([_logits(members[name].valid, target) for name in entry.of])
    return stacking_weights(target, truth, logits[:, None])


def together(
    entry: WeighedEnsembleEntry, members: Mapping[str, Member], weights: Numbers, grid: Grid, fold: Fold
) -> Numbers:
    """Return what an ensemble predicts: float64, shape (test windows, c).

    It is the mean of predictions or, of a stacked ensemble, what the weighted mean of log-odds (or numbers) says.
    """
    tests = [members[name].test for name in entry.of]
    if not entry.stacked:
        return np.average(tests, axis=0, weights=weights)
    target = _target(grid, fold)
    logits = np.stack([_logits(test, target) for test in tests])
    return grid.predicted(target.from_logits((weights[:, None, None, None] * logits).sum(axis=0)))


def _target(grid: Grid, fold: Fold) -> Target:
    return grid.target(grid.truth[fold.rows(grid)["train"]])


def _logits(predicted: Numbers, target: Target) -> Numbers:
    """Return what `Target.from_logits` makes these predictions of: float64, shape (..., outputs)."""
    if target.kind == "value":
        return target.standardised(predicted)[..., None]
    kept = np.clip(predicted, LEAST, 1 - LEAST)
    return np.stack([np.zeros_like(kept), np.log(kept) - np.log1p(-kept)], axis=-1)
