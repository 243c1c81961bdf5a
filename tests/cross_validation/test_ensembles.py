"""Ensembles, against the labels of the toy atlas: of A to D, A and B are alike, and so are C and D."""

from pathlib import Path

import numpy as np
import pytest
from toy_grids import CELL_TYPES, long, read_grid, wide

from genebert.cross_validation.ensembles import baselines_as_members, together
from genebert.cross_validation.folds import Fold, folds_of
from genebert.cross_validation.grid import Grid
from genebert.cross_validation.protocol import MEAN, NEAREST, CellTypeEnsembleEntry


def fold_of(grid: Grid) -> Fold:
    """Tests A on chr1 and chooses on B on chr2."""
    return next(fold for fold in folds_of(grid, "each", "each") if fold.name == "A, chr1")


def test_baselines_as_if_the_training_mean_were_one_more_label(grid: Grid) -> None:
    found = baselines_as_members(grid, fold_of(grid))
    prior = grid.truth[np.isin(grid.chromosome, ["chr3", "chr4"])][:, 2:].mean()  # of C, D and E
    # of B, C, D and E: all are 1 at places 0, B at places 1, the others at places 2
    mean = (4 * np.resize([1, 0.25, 0.75, 0], 12) + prior) / 5
    np.testing.assert_allclose(found[MEAN], np.repeat(mean[:, None], len(CELL_TYPES), axis=1))
    np.testing.assert_allclose(found[NEAREST][:, 0], (np.resize([1, 1, 0, 0], 12) + prior) / 2)  # that of B


def test_the_truth_of_test_cell_types_is_not_seen(grid: Grid, atlas: Path) -> None:
    changed = read_grid(atlas, wide().assign(**{"label:A": 1}))
    after = baselines_as_members(changed, fold_of(changed))
    for name, member in baselines_as_members(grid, fold_of(grid)).items():
        np.testing.assert_array_equal(member, after[name])


def test_predictions_are_averaged_or_their_log_odds() -> None:
    members = {"G": np.array([[0.9, 0.5]]), MEAN: np.array([[0.2, 1.0]]), "other": np.array([[0.0, 0.0]])}
    plain = CellTypeEnsembleEntry(name="plain", of=["G", MEAN])
    np.testing.assert_allclose(together(plain, members, "classes"), [[0.55, 0.75]])
    pool = plain.model_copy(update={"log_odds": True})
    # odds of 9 and 1/4, whose geometric mean is 3/2; and of 1 and 9,999
    np.testing.assert_allclose(together(pool, members, "classes"), [[0.6, np.sqrt(9999) / (1 + np.sqrt(9999))]])
    numbers = {name: 10 * member for name, member in members.items()}
    np.testing.assert_allclose(together(pool, numbers, "value"), [[5.5, 7.5]])


def test_numbers_are_drawn_towards_the_training_mean(atlas: Path) -> None:
    grid = read_grid(atlas, long(wide()).rename(columns={"label": "value"}))
    found = baselines_as_members(grid, fold_of(grid))
    assert found[MEAN].max() < 1 and found[MEAN].min() > 0


def test_an_ensemble_has_two_members_at_least() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        CellTypeEnsembleEntry(name="alone", of=[MEAN])
