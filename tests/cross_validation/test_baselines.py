from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_grids import CELL_TYPES, read_grid, wide

from genebert.cross_validation.baselines import _likeness, mean_of_known, nearest_known, training_mean
from genebert.cross_validation.folds import Fold, folds_of
from genebert.cross_validation.grid import Grid


def fold_of(grid: Grid, name: str = "A, chr1") -> Fold:
    return next(fold for fold in folds_of(grid, "each", "each") if fold.name == name)


def test_the_mean_of_known_cell_types(grid: Grid) -> None:
    predicted = mean_of_known(grid, fold_of(grid))
    assert predicted.shape == (12, len(CELL_TYPES))
    # of B, C, D and E: all are 1 at places 0, B at places 1, the others at places 2
    np.testing.assert_array_equal(predicted, np.repeat(np.resize([1, 0.25, 0.75, 0], (12, 1)), len(CELL_TYPES), axis=1))


def test_likeness_is_the_correlation_of_accessibility_outside_test_chromosomes(grid: Grid) -> None:
    found = _likeness(grid, fold_of(grid))
    corpus = grid.corpus
    rows = np.flatnonzero(corpus.regions["chrom"] != "chr1")
    accessible = np.array([np.isin(rows, corpus.accessible(i)) for i in range(4)])
    np.testing.assert_allclose(found[:4, :4], np.corrcoef(accessible), atol=1e-12)
    assert (found[4] == 0).all()  # E is accessible everywhere


def test_the_nearest_known_cell_type(grid: Grid) -> None:
    fold = fold_of(grid)
    truth = grid.truth[fold.test_windows]
    predicted = nearest_known(grid, fold)
    names = {name: i for i, name in enumerate(CELL_TYPES)}
    # A is like B, C like D; for B, whose like is tested on, E (no likeness) comes before C and D (opposites)
    for own, other in (("A", "B"), ("C", "D"), ("D", "C"), ("B", "E")):
        np.testing.assert_array_equal(predicted[:, names[own]], truth[:, names[other]])


def test_where_labels_are_not_known(atlas: Path) -> None:
    table = wide().astype({f"label:{name}": "Int64" for name in CELL_TYPES})
    table.loc[1, "label:B"] = pd.NA
    table.loc[2, [f"label:{name}" for name in "BCDE"]] = pd.NA
    grid = read_grid(atlas, table)
    fold = fold_of(grid)
    mean, nearest = mean_of_known(grid, fold), nearest_known(grid, fold)
    assert mean[1, 0] == 0 and nearest[1, 0] == grid.truth[1, CELL_TYPES.index("E")]  # the next nearest
    rows = grid.truth[np.isin(grid.chromosome, ["chr3", "chr4"])][:, 2:]  # A, B, chr1 and chr2 are left out
    assert mean[2, 0] == nearest[2, 0] == pytest.approx(rows.mean())


def test_labels_of_test_cell_types_are_not_looked_at(grid: Grid, atlas: Path) -> None:
    changed = read_grid(atlas, wide().assign(**{"label:A": 1}))
    for baseline in (mean_of_known, nearest_known):
        np.testing.assert_array_equal(baseline(grid, fold_of(grid)), baseline(changed, fold_of(changed)))


def test_only_the_labels_of_the_cell_types_that_are_given_are_used(grid: Grid) -> None:
    fold = fold_of(grid)
    truth, names = grid.truth[fold.test_windows], {name: i for i, name in enumerate(CELL_TYPES)}
    some = np.array([names["C"], names["D"]])
    np.testing.assert_array_equal(mean_of_known(grid, fold, some)[:, 0], truth[:, some].mean(axis=1))
    predicted = nearest_known(grid, fold, some)
    assert all((predicted[:, [names[name]]] == truth[:, some]).all(axis=0).any() for name in "ABE")
    np.testing.assert_array_equal(predicted[:, names["C"]], truth[:, names["D"]])
    alone = nearest_known(grid, fold, np.array([names["C"]]))
    assert (alone[:, names["C"]] == training_mean(grid, fold)).all()
