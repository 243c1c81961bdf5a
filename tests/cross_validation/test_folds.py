from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_grids import CELL_TYPES, read_grid, wide

from genebert.cross_validation.folds import PARTS, Fold, _balanced, folds_of, given_folds
from genebert.cross_validation.grid import Grid
from genebert.errors import Problems, UserError

GROUPS = [["A", "C"], ["B"], ["D", "E"]]


def check_apart(grid: Grid, folds: list[Fold]) -> None:
    """No two splits of a fold share a cell type or a chromosome, whatever rows are drawn."""
    for fold in folds:
        rows = fold.rows(grid, 0.5, 1)
        cell_types = {split: {grid.cell_types[i] for i in own[1]} for split, own in rows.items()}
        chromosomes = {split: set(grid.chromosome[own[0]]) for split, own in rows.items()}
        for found in (cell_types, chromosomes):
            assert all(found.values())
            assert sum(map(len, found.values())) == len(set().union(*found.values()))
        assert cell_types["test"] == set(fold.parts["test_cell_types"])
        assert chromosomes["valid"] == set(fold.parts["valid_chromosomes"])


@pytest.mark.parametrize("cell_types", ["each", 3, GROUPS])
@pytest.mark.parametrize("chromosomes", [3, "each", [["chr1"], ["2", "chr3"], ["chr4"]]])
def test_no_cell_type_and_no_chromosome_is_in_two_splits(cell_types: Any, chromosomes: Any, grid: Grid) -> None:
    folds = folds_of(grid, cell_types, chromosomes)
    check_apart(grid, folds)
    number = len(CELL_TYPES) if cell_types == "each" else 3
    assert len({fold.name for fold in folds}) == len(folds) == number * (4 if chromosomes == "each" else 3)


def test_every_cell_is_tested_once(grid: Grid) -> None:
    times = np.zeros(grid.truth.shape)
    for fold in folds_of(grid, "each", 3):
        times[fold.rows(grid)["test"]] += 1
    assert (times == 1).all()


def test_what_a_fold_leaves_out(grid: Grid) -> None:
    folds = folds_of(grid, GROUPS, [["1"], ["chr2"], ["chr4"]])
    assert [fold.name for fold in folds[:4]] == [
        "cell types 1, chr1",
        "cell types 1, chr2",
        "cell types 1, chr4",
        "B, chr1",
    ]
    last = folds[-1]
    assert last.parts == dict(zip(PARTS, [["D", "E"], ["A", "C"], ["chr4"], ["chr1"]], strict=True))
    assert (last.train.tolist(), last.known.tolist()) == ([1], [0, 1, 2])
    assert set(grid.chromosome[last.train_windows]) == {"chr2", "chr3"}  # chr3 is in no group: always to train on


def test_folds_as_they_are_given(grid: Grid) -> None:
    parts = dict(zip(PARTS, [["D"], ["A", "B"], ["4"], ["chr1"]], strict=True))
    (fold,) = given_folds(grid, [parts])
    check_apart(grid, [fold])
    assert fold.name == "fold 1" and fold.parts["test_chromosomes"] == ["chr4"]
    wrong = [
        dict(zip(PARTS, [["D", "F"], ["A", "D"], ["chr4"], ["chr9"]], strict=True)),
        dict(zip(PARTS, [["D", "E"], ["A", "B", "C"], ["chr4"], ["chr1"]], strict=True)),
    ]
    with pytest.raises(UserError) as raised:
        given_folds(grid, wrong)
    assert [line.split(". ")[0] for line in str(raised.value).splitlines()[1:]] == [
        "  - folds[0]: cell types: 'F': there is no such name; there are A, B, C, D, E",
        "  - folds[0]: cell types: 'D': it is named twice",
        "  - folds[0]: chromosomes: 'chr9': there is no such name; there are chr1, chr2, chr3, chr4",
        "  - folds[1]: it leaves no cell types to learn from",
        "  - folds[1]: D is tested on chr4 in an earlier fold too, so that its windows would count twice",
    ]


def test_names_and_numbers_that_do_not_fit_are_listed_together(grid: Grid) -> None:
    with pytest.raises(UserError) as raised:
        folds_of(grid, [["A"], ["B"], ["X", "Y"]], 5)
    said = str(raised.value)
    assert "cell types: 'X'" in said and "cell types: 'Y'" in said
    assert "chromosomes: there are 4, and 5 groups are wanted" in said


@given(st.lists(st.integers(0, 100), min_size=3, max_size=12), st.integers(3, 5))
def test_groups_are_balanced(sizes: list[int], number: int) -> None:
    found = Problems("")
    named = {f"n{i}": size for i, size in enumerate(sizes)}
    groups = _balanced(named, number, "chromosomes", found)
    assert bool(found.lines) == (len(sizes) < number)
    assert sorted(name for group in groups for name in group) == sorted(named)
    if found.lines:
        return
    assert len(groups) == number
    totals = sorted(sum(named[name] for name in group) for group in groups)
    assert totals[-1] - totals[0] <= max(sizes)  # the bound of the greedy rule
    assert all(int(first[0][1:]) < int(second[0][1:]) for first, second in pairwise(groups))


def test_smaller_fractions_of_the_windows_are_part_of_larger_ones(grid: Grid) -> None:
    fold = folds_of(grid, "each", 3)[0]
    drawn = {part: set(fold.rows(grid, part, 3)["train"][0].tolist()) for part in (0.1, 0.5, 1.0)}
    assert drawn[0.1] < drawn[0.5] < drawn[1.0] == set(np.flatnonzero(fold.train_windows).tolist())
    assert len(drawn[0.5]) == np.ceil(fold.train_windows.sum() / 2)
    assert drawn[0.5] != set(fold.rows(grid, 0.5, 4)["train"][0].tolist())
    whole, part = fold.rows(grid), fold.rows(grid, 0.1, 3)
    for split in ("valid", "test"):
        np.testing.assert_array_equal(whole[split], part[split])


def test_folds_of_which_nothing_can_be_learned_or_tested(atlas: Path) -> None:
    table = wide().astype({f"label:{name}": "Int64" for name in CELL_TYPES})
    table.loc[table["chrom"] == "chr1", "label:A"] = pd.NA
    table.loc[table["chrom"] == "chr3", "label:C"] = 0
    grid = read_grid(atlas, table)
    flaws = {fold.name: fold.flaw(grid, 1.0, 0) for fold in folds_of(grid, "each", "each")}
    assert {name: flaw for name, flaw in flaws.items() if flaw} == {
        "A, chr1": "no test row is known",
        "E, chr4": "no valid row is known",  # it chooses on A, chr1
        "B, chr2": "all valid rows are alike",
    }
