"""Ensembles, against the labels of the toy atlas: of A to D, A and B are alike, and so are C and D."""

from pathlib import Path

import numpy as np
import pytest
from toy_grids import CELL_TYPES, long, read_grid, wide

from genebert.cross_validation.ensembles import Member, baselines_as_members, together, weights_of
from genebert.cross_validation.folds import Fold, folds_of
from genebert.cross_validation.grid import Grid
from genebert.cross_validation.protocol import MEAN, NEAREST, WeighedEnsembleEntry

STACK = WeighedEnsembleEntry(name="stack", of=["method", MEAN], stacked=True)


def fold_of(grid: Grid) -> Fold:
    """Tests A on chr1 and chooses on B on chr2."""
    return next(fold for fold in folds_of(grid, "each", "each") if fold.name == "A, chr1")


def prior_of(grid: Grid) -> float:
    """Mean label of C, D and E on chr3 and chr4."""
    return float(grid.truth[np.isin(grid.chromosome, ["chr3", "chr4"])][:, 2:].mean())


def test_baselines_as_if_the_training_mean_were_one_more_label(grid: Grid) -> None:
    found, prior = baselines_as_members(grid, fold_of(grid)), prior_of(grid)
    # of B, C, D and E: all are 1 at places 0, B at places 1, the others at places 2
    of_test = (4 * np.resize([1, 0.25, 0.75, 0], 12) + prior) / 5
    np.testing.assert_allclose(found[MEAN].test, np.repeat(of_test[:, None], len(CELL_TYPES), axis=1))
    # a validation row is of B, whose own label is not looked at
    np.testing.assert_allclose(found[MEAN].valid, (4 * np.resize([1, 0, 1, 0], 12) + prior) / 5)
    np.testing.assert_allclose(found[NEAREST].valid, (np.resize([1, 0, 1, 0], 12) + prior) / 2)  # that of E
    np.testing.assert_allclose(found[NEAREST].test[:, 0], (np.resize([1, 1, 0, 0], 12) + prior) / 2)  # that of B


def test_the_truth_of_a_validation_row_is_not_seen_by_it_and_that_of_test_cell_types_by_none(
    grid: Grid, atlas: Path
) -> None:
    before = baselines_as_members(grid, fold_of(grid))
    other = read_grid(atlas, wide().assign(**{"label:A": 1, "label:B": lambda table: 1 - table["label:B"]}))
    after = baselines_as_members(other, fold_of(other))
    for name in (MEAN, NEAREST):
        np.testing.assert_array_equal(before[name].valid, after[name].valid)
    changed = read_grid(atlas, wide().assign(**{"label:A": 1}))
    for name, member in baselines_as_members(changed, fold_of(changed)).items():
        np.testing.assert_array_equal(before[name].test, member.test)


def members_of(grid: Grid, fold: Fold, method: Member) -> dict[str, Member]:
    return baselines_as_members(grid, fold) | {"method": method}


def test_a_method_that_knows_has_all_the_weight_and_one_that_does_not_has_none(grid: Grid) -> None:
    fold = fold_of(grid)
    truth = grid.truth[fold.rows(grid)["valid"]]
    shape = int(fold.test_windows.sum()), len(CELL_TYPES)
    for probability, expected in ((np.where(truth == 1, 0.999, 0.001), [1, 0]), (1 - truth, [0, 1])):
        members = members_of(grid, fold, Member(probability, np.full(shape, 0.3)))
        weights = weights_of(STACK, members, grid, fold)
        np.testing.assert_allclose(weights, expected, atol=1e-3)
        chosen = members[STACK.of[expected.index(1)]].test
        np.testing.assert_allclose(together(STACK, members, np.array(expected), grid, fold), chosen)


def test_log_odds_are_averaged_if_members_are_stacked_and_else_predictions(grid: Grid) -> None:
    fold, rows = fold_of(grid), len(fold_of(grid).rows(grid)["valid"][0])
    members = {
        name: Member(np.full(rows, p), np.full((int(fold.test_windows.sum()), len(CELL_TYPES)), p))
        for name, p in {"method": 0.9, MEAN: 0.2}.items()
    }
    stacked = together(STACK, members, np.array([0.75, 0.25]), grid, fold)
    odds = 9**0.75 * 0.25**0.25
    np.testing.assert_allclose(stacked, odds / (1 + odds))
    plain = STACK.model_copy(update={"stacked": False})
    assert weights_of(plain, members, grid, fold).tolist() == [0.5, 0.5]
    np.testing.assert_allclose(together(plain, members, np.array([0.5, 0.5]), grid, fold), 0.55)


def test_numbers_are_weighed_as_by_least_squares(atlas: Path) -> None:
    grid = read_grid(atlas, long(wide()).rename(columns={"label": "value"}))
    fold = fold_of(grid)
    truth = grid.truth[fold.rows(grid)["valid"]]
    error = np.resize([1.0, -1.0], len(truth))
    shape = int(fold.test_windows.sum()), len(CELL_TYPES)
    members = {
        "method": Member(truth + error, np.full(shape, 2.0)),
        MEAN: Member(truth - 0.5 * error, np.full(shape, 8.0)),
    }
    weights = weights_of(STACK, members, grid, fold)
    np.testing.assert_allclose(weights, [1 / 3, 2 / 3], atol=1e-3)  # errors of 1 and -1/2 cancel
    np.testing.assert_allclose(together(STACK, members, weights, grid, fold), 6.0, atol=0.01)


def test_members_are_methods_and_baselines() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        WeighedEnsembleEntry(name="alone", of=[MEAN], stacked=True)
