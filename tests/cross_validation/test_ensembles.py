"""Ensembles, against the labels of the toy atlas: of A to D, A and B are alike, and so are C and D."""

from pathlib import Path

import numpy as np
import pandas as pd
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


def test_a_window_of_which_less_is_known_is_drawn_further_and_one_of_which_nothing_is_known_has_no_baseline(
    atlas: Path,
) -> None:
    table = wide().astype({f"label:{name}": "Int64" for name in CELL_TYPES})
    table.loc[0, [f"label:{name}" for name in "CDE"]] = pd.NA  # B alone is known, and is 1
    table.loc[3, [f"label:{name}" for name in "BCDE"]] = pd.NA
    grid = read_grid(atlas, table)
    fold = fold_of(grid)
    prior = np.nanmean(grid.truth[np.isin(grid.chromosome, ["chr3", "chr4"])][:, 2:])
    found = baselines_as_members(grid, fold)
    assert found[MEAN][0, 0] == found[NEAREST][0, 0] == pytest.approx((1 + prior) / 2)
    assert np.isnan([found[name][3] for name in (MEAN, NEAREST)]).all()
    method = np.full(found[MEAN].shape, 0.7)
    entry = CellTypeEnsembleEntry(name="pool", of=["G", MEAN], log_odds=True)
    np.testing.assert_allclose(together(entry, found | {"G": method}, grid, fold)[3], 0.7)
    of_baselines = entry.model_copy(update={"of": [MEAN, NEAREST]})
    np.testing.assert_allclose(together(of_baselines, found, grid, fold)[3], prior)


def test_the_truth_of_test_cell_types_is_not_seen(grid: Grid, atlas: Path) -> None:
    changed = read_grid(atlas, wide().assign(**{"label:A": 1}))
    after = baselines_as_members(changed, fold_of(changed))
    for name, member in baselines_as_members(grid, fold_of(grid)).items():
        np.testing.assert_array_equal(member, after[name])


def test_predictions_are_averaged_or_their_log_odds(grid: Grid) -> None:
    fold = fold_of(grid)
    members = {"G": np.array([[0.9, 0.5]]), MEAN: np.array([[0.2, 0.8]]), "other": np.array([[0.0, 0.0]])}
    plain = CellTypeEnsembleEntry(name="plain", of=["G", MEAN])
    np.testing.assert_allclose(together(plain, members, grid, fold), [[0.55, 0.65]])
    pool = plain.model_copy(update={"log_odds": True})
    # odds of 9 and 1/4, whose geometric mean is 3/2; and of 1 and 4
    np.testing.assert_allclose(together(pool, members, grid, fold), [[0.6, 2 / 3]])


def test_numbers_are_drawn_towards_the_training_mean_and_averaged(atlas: Path) -> None:
    grid = read_grid(atlas, long(wide()).rename(columns={"label": "value"}))
    fold = fold_of(grid)
    found = baselines_as_members(grid, fold)
    prior = grid.truth[np.isin(grid.chromosome, ["chr3", "chr4"])][:, 2:].mean()
    np.testing.assert_allclose(found[MEAN][:, 0], (4 * np.resize([1, 0.25, 0.75, 0], 12) + prior) / 5)
    members = {"G": np.full((12, len(CELL_TYPES)), 3.0), **found}
    entry = CellTypeEnsembleEntry(name="both", of=["G", MEAN], log_odds=True)
    np.testing.assert_allclose(together(entry, members, grid, fold), (3 + found[MEAN]) / 2)


def test_an_ensemble_has_two_members_at_least() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        CellTypeEnsembleEntry(name="alone", of=[MEAN])
