"""What is left out together: cell types and chromosomes, each in turn to test on and to choose on.

A test row is new in both respects: no training row is in its cell type, and none on its chromosome. The same holds for
validation rows, so that what is chosen on them is chosen for what is new, and no validation row is in the cell type or
on the chromosome of a test row. Of training rows there is what is left of either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genebert.cross_validation.grid import Cells, Grid
from genebert.errors import Problems
from genebert.inputs.genome import spelled_chromosomes
from genebert.methods.base import Examples
from genebert.schema import SPLITS

PARTS = ("test_cell_types", "valid_cell_types", "test_chromosomes", "valid_chromosomes")
Names = Sequence[str]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fold:
    """A division of a grid of n windows.

    Attributes:
        name: of the fold.
        test, valid, train: cell types, indices, int64; no two share one.
        test_windows, valid_windows, train_windows: bool, shape (n,); no two share a chromosome.
        parts: the names of the cell types and chromosomes of `PARTS`.
    """

    name: str
    test: Indices
    valid: Indices
    train: Indices
    test_windows: NDArray[np.bool_]
    valid_windows: NDArray[np.bool_]
    train_windows: NDArray[np.bool_]
    parts: dict[str, list[str]]

    @classmethod
    def of(cls, grid: Grid, name: str, parts: Mapping[str, Names]) -> "Fold":
        """Return the fold that leaves out some cell types and chromosomes of a grid."""
        cell_type = np.array(grid.cell_types)
        test, valid = (np.isin(cell_type, parts[part]) for part in PARTS[:2])
        test_windows, valid_windows = (np.isin(grid.chromosome, parts[part]) for part in PARTS[2:])
        return cls(
            name,
            np.flatnonzero(test),
            np.flatnonzero(valid),
            np.flatnonzero(~test & ~valid),
            test_windows,
            valid_windows,
            ~test_windows & ~valid_windows,
            {part: list(parts[part]) for part in PARTS},
        )

    @property
    def known(self) -> Indices:
        """The cell types that methods may learn from or choose on: int64, ascending."""
        return np.union1d(self.train, self.valid)

    def rows(self, grid: Grid, fraction: float = 1.0, seed: int = 0) -> dict[str, Cells]:
        """Return which cells are in which split: windows and cell types, int64, shape (rows,) each.

        Args:
            grid: the grid.
            fraction: of the training windows to use. What is drawn for a smaller one is part of that for a larger one.
            seed: of the draw.
        """
        train = np.random.default_rng(seed).permutation(np.flatnonzero(self.train_windows))
        drawn = np.zeros(len(grid), dtype=bool)
        drawn[train[: int(np.ceil(fraction * len(train)))]] = True
        chosen = (drawn, self.train), (self.valid_windows, self.valid), (self.test_windows, self.test)
        return {split: grid.known(*part) for split, part in zip(SPLITS, chosen, strict=True)}

    def examples(self, grid: Grid, fraction: float, seed: int) -> tuple[Examples, Examples]:
        """Return the rows to learn from, and those to choose on; for the arguments see `rows`."""
        rows = self.rows(grid, fraction, seed)
        return grid.examples(*rows["train"]), grid.examples(*rows["valid"])

    def flaw(self, grid: Grid, fraction: float, seed: int) -> str | None:
        """Return why nothing can be learned, chosen or tested here, or None; for the arguments see `rows`."""
        truth = {split: grid.truth[own] for split, own in self.rows(grid, fraction, seed).items()}
        flaws = [f"no {split} row is known" for split, own in truth.items() if not len(own)]
        alike = [split for split in SPLITS[:2] if len(np.unique(truth[split])) == 1]
        flaws += [f"all {split} rows are alike" for split in alike]
        return " and ".join(flaws) or None


def folds_of(grid: Grid, cell_types: Any, chromosomes: Any) -> list[Fold]:
    """Return a fold for each group of cell types and each group of chromosomes.

    It tests on both, and chooses on the next group of either.

    Args:
        grid: the grid.
        cell_types, chromosomes: "each", a number of groups, or the names in each; what is in none is always for
            training.

    Raises:
        UserError: the grid has no such cell type or chromosome, or too few of them; all are listed.
    """
    count = {str(name): int(n) for name, n in zip(*np.unique(grid.chromosome, return_counts=True), strict=True)}
    found = Problems(f"The labels {grid.windows.path} cannot be divided:")
    known = dict(zip(grid.cell_types, np.isfinite(grid.truth).sum(axis=0).tolist(), strict=True))
    types = _groups(cell_types, known, {name: name for name in known}, "cell types", found)
    spelled = _spelled(chromosomes, count) if isinstance(chromosomes, list) else {}
    chroms = _groups(chromosomes, count, spelled, "chromosomes", found)
    found.raise_any()
    return [
        Fold.of(
            grid,
            f"{_short(types[i], 'cell types', i)}, {_short(chroms[j], 'chromosomes', j)}",
            dict(zip(PARTS, (types[i], _next(types, i), chroms[j], _next(chroms, j)), strict=True)),
        )
        for i in range(len(types))
        for j in range(len(chroms))
    ]


def given_folds(grid: Grid, folds: Sequence[Mapping[str, Names]]) -> list[Fold]:
    """Return folds as they are given.

    Args:
        grid: the grid.
        folds: the names of the cell types and chromosomes of each of `PARTS`.

    Raises:
        UserError: the grid has no such cell type or chromosome, one is named twice in a fold, or a fold has nothing to
            learn from; all are listed.
    """
    found = Problems("The folds cannot be used:")
    made = []
    before: set[tuple[str, str]] = set()  # cell types and chromosomes that are tested on
    for i, given in enumerate(folds):
        groups = {
            what: [given[part] for part in PARTS if part.endswith(what)] for what in ("cell_types", "chromosomes")
        }
        known = {
            "cell_types": {name: name for name in grid.cell_types},
            "chromosomes": _spelled(groups["chromosomes"], dict.fromkeys(grid.chromosome.tolist(), 0)),
        }
        named: list[list[str]] = []
        for what, own in groups.items():
            divided = _named(own, known[what], what.replace("_", " "), found, f"folds[{i}]: ")
            if set(known[what].values()) <= set().union(*divided):
                found.add(f"folds[{i}]", f"it leaves no {what.replace('_', ' ')} to learn from", "Leave fewer out.")
            named += divided
        made.append(Fold.of(grid, f"fold {i + 1}", dict(zip(PARTS, named, strict=True))))
        tested = {(cell_type, chrom) for cell_type in named[0] for chrom in named[2]}
        for cell_type, chrom in sorted(tested & before):
            what = f"{cell_type} is tested on {chrom} in an earlier fold too, so that its windows would count twice"
            found.add(f"folds[{i}]", what, "Test each cell type once on each chromosome.")
        before |= tested
    found.raise_any()
    return made


def _next(groups: Sequence[list[str]], i: int) -> list[str]:
    return groups[(i + 1) % len(groups)]


def _short(names: Sequence[str], what: str, i: int) -> str:
    return names[0] if len(names) == 1 else f"{what} {i + 1}"


def _spelled(groups: Sequence[Names], known: Mapping[str, int]) -> dict[str, str]:
    """Return a chromosome as it is given (chr1 or 1), or as the grid has it -> as the grid has it."""
    return {name: name for name in known} | spelled_chromosomes((name for group in groups for name in group), known)


def _named(
    groups: Sequence[Names], known: Mapping[str, str], what: str, found: Problems, where: str = ""
) -> list[list[str]]:
    """Return groups by name, and note names that are unknown or in two groups."""
    taken: set[str] = set()
    for name in (name for group in groups for name in group):
        if name not in known:
            found.add(
                f"{where}{what}: {name!r}", f"there is no such name; there are {', '.join(known)}", "Correct the name."
            )
        elif known[name] in taken:
            found.add(f"{where}{what}: {name!r}", "it is named twice", "Name it once.")
        else:
            taken.add(known[name])
    return [[known[name] for name in group if name in known] for group in groups]


def _groups(
    division: Any, sizes: Mapping[str, int], known: Mapping[str, str], what: str, found: Problems
) -> list[list[str]]:
    """Return the groups that a protocol asks for, and note what is wrong with it."""
    if isinstance(division, list):
        return _named(division, known, what, found)
    return _balanced(sizes, len(sizes) if division == "each" else division, what, found)


def _balanced(sizes: Mapping[str, int], number: int, what: str, found: Problems) -> list[list[str]]:
    """Divide names into groups of about the same size: the largest first, each into the group that is smallest yet."""
    if len(sizes) < max(number, len(SPLITS)):
        few = f"there are {len(sizes)}, and {max(number, len(SPLITS))} groups are wanted"
        fewer = ", or ask for fewer groups" if number > len(SPLITS) else ""
        found.add(what, few, f"Give labels of more{fewer}.")
    groups: list[list[str]] = [[] for _ in range(number)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        min(groups, key=lambda group: (sum(sizes[one] for one in group), len(group))).append(name)
    place = {name: i for i, name in enumerate(sizes)}
    return sorted(
        (sorted(group, key=place.__getitem__) for group in groups if group), key=lambda group: place[group[0]]
    )
