"""The verb `cross-validate`: cells that are not there yet are computed, then everything that is there is measured."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.benchmark.entries import MethodEntry
from genebert.benchmark.fits import all_kept, misfit
from genebert.benchmark.output import (
    Row,
    check_folder,
    facts_of_method,
    raise_failures,
    selection,
    write_results,
    write_table,
)
from genebert.cell_type_distance import Distance, KnownCellTypes
from genebert.console import say, table
from genebert.cross_validation.baselines import mean_of_known, nearest_known
from genebert.cross_validation.cells import Cell, cells_of
from genebert.cross_validation.ensembles import baselines_as_members, together
from genebert.cross_validation.folds import Fold, folds_of, given_folds
from genebert.cross_validation.grid import Grid
from genebert.cross_validation.measures import Asked, measure
from genebert.cross_validation.protocol import COLUMNS, MEAN, NEAREST, Protocol, read_protocol
from genebert.cross_validation.seen import seen_by
from genebert.errors import Problems
from genebert.report.cross_validation import ALL, cross_validation_page
from genebert.settings import CrossValidateSettings
from genebert.stage import sha256_of, software_versions

PAGE, PREDICTIONS = "cross_validation.html", "predictions.parquet"
MEASURED = (
    "method",
    "label_fraction",
    "cell_type",
    "measure",
    "value",
    "low",
    "high",
    "seeds",
    "lowest_seed",
    "highest_seed",
    "n",
)
"""Columns of results.parquet."""
Predicted = dict[str, NDArray[np.float64]]
"""Method, ensemble or baseline -> its predictions of a fold, shape (seeds, test windows, c)."""


def cross_validate(settings: CrossValidateSettings) -> Path:
    """Compute what is missing of a cross-validation, and measure all that is there.

    Each cell (fold, method, fraction of the labels, seed) has a folder under runs/, which appears when it is complete
    and is used again as long as nothing that it depends on has changed. Writes results.json, results.parquet,
    predictions.parquet and cross_validation.html.

    Raises:
        UserError: the protocol, its files or the folder cannot be used; or, after all else is done and written,
            something failed.
    """
    protocol = read_protocol(settings.protocol, settings.data)
    chosen = selection([protocol.methods], settings.only)
    check_folder(settings.out, "cross-validate", "protocol")
    grid = Grid.read(protocol.labels, protocol.genome, protocol.corpus)
    work = _Work(protocol, grid, _folds(protocol, grid))
    _say_untested(grid, work.folds)
    seen = {entry.name: seen_by(entry, work.folds) for entry in protocol.methods}  # a wrong model is said before work
    cells = [cell for cell in cells_of(protocol, grid, work.folds, settings.out) if not work.flaw(cell)]
    to_do = [cell for cell in cells if cell.method.name in chosen and not cell.is_done()]
    if settings.dry_run:
        _show(cells, to_do)
        return settings.out
    say(f"{len(cells)} cells (fold, method, fraction of the labels, seed), {len(to_do)} of them to be computed")
    for fraction in protocol.label_fractions:
        work.measure(fraction, [cell for cell in cells if cell.settings.label_fraction == fraction], to_do)
    _write(settings, work, seen)
    say(f"{settings.out / PAGE}: open it in a browser")
    raise_failures(f"{row['method']}: {row['reason']}" for row in work.missing if row["failed"])
    return settings.out


def _folds(protocol: Protocol, grid: Grid) -> list[Fold]:
    if protocol.folds is not None:
        return given_folds(grid, [fold.model_dump() for fold in protocol.folds])
    return folds_of(grid, protocol.cell_types, protocol.chromosomes)


def _say_untested(grid: Grid, folds: Sequence[Fold]) -> None:
    every = {"cell_types": grid.cell_types, "chromosomes": sorted(set(grid.chromosome.tolist()))}
    for what, names in every.items():
        tested = {name for fold in folds for name in fold.parts[f"test_{what}"]}
        if left := [name for name in names if name not in tested]:
            say(f"in no group, so that they are learned from or chosen by, and never tested: {', '.join(left)}")


def _show(cells: Sequence[Cell], to_do: Sequence[Cell]) -> None:
    rows = []
    for name, fraction in dict.fromkeys((cell.method.name, cell.settings.label_fraction) for cell in cells):
        own = [cell for cell in cells if (cell.method.name, cell.settings.label_fraction) == (name, fraction)]
        done = [cell for cell in own if cell.is_done()]
        seconds = f"{mean(cell.cost()['seconds_to_fit'] for cell in done):,.0f}" if done else "unknown"
        rows.append((name, f"{fraction:g}", len(own), sum(cell in to_do for cell in own), seconds))
    table("Cells", ("Method", "Fraction of the labels", "Folds x seeds", "To be computed", "Seconds to fit one"), rows)


@dataclass
class _Work:
    """A cross-validation at work; lists hold rows of JSON values.

    Attributes:
        protocol: what is to be done.
        grid: the labels.
        folds: all of them.
        results: measures of methods, ensembles and baselines.
        comparisons: paired differences.
        costs: what methods took.
        missing: (method, fold) without results, why, and whether that is a failure.
        predictions: of the test cell types, as they are kept, from all labels or the largest fraction.
        flaws: (fraction, fold) -> why nothing can be learned or tested there.
    """

    protocol: Protocol
    grid: Grid
    folds: Sequence[Fold]
    results: list[Row] = field(default_factory=list)
    comparisons: list[Row] = field(default_factory=list)
    costs: list[Row] = field(default_factory=list)
    missing: list[Row] = field(default_factory=list)
    predictions: list[pd.DataFrame] = field(default_factory=list)
    flaws: dict[tuple[float, str], str] = field(init=False)

    def __post_init__(self) -> None:
        """Find the folds that cannot be used.

        Raises:
            UserError: none can be used.
        """
        seed = self.protocol.seed
        every = [(fraction, fold) for fraction in self.protocol.label_fractions for fold in self.folds]
        flaws = {(fraction, fold.name): fold.flaw(self.grid, fraction, seed) for fraction, fold in every}
        self.flaws = {key: reason for key, reason in flaws.items() if reason}
        if len(self.flaws) == len(every):
            found = Problems(f"The labels {self.grid.windows.path} cannot be cross-validated in any fold:")
            for (_, name), reason in self.flaws.items():
                found.add(name, reason, "Give more labels, or leave other cell types or chromosomes out together.")
            found.raise_any()
        for (fraction, name), reason in self.flaws.items():
            say(f"{name}: left out, since {reason} (with {fraction:g} of the labels)")
            self.miss(ALL, name, f"{reason} (with {fraction:g} of the labels)", failed=False)

    def flaw(self, cell: Cell) -> str | None:
        """Return why a cell cannot be computed, whatever the method."""
        return self.flaws.get((cell.settings.label_fraction, cell.fold.name))

    def miss(self, method: str, fold: str, reason: str, *, failed: bool = True) -> None:
        """Note that there are no results of a method."""
        self.missing.append({"method": method, "fold": fold, "reason": reason, "failed": failed})

    def measure(self, fraction: float, cells: Sequence[Cell], to_do: Sequence[Cell]) -> None:
        """Compute what is to be computed with a fraction of the labels, and measure what is there."""
        folds = [fold for fold in self.folds if (fraction, fold.name) not in self.flaws]
        if not folds:  # each was noted
            return
        runs = {}
        for entry in self.protocol.methods:
            own = [cell for cell in cells if cell.method.name == entry.name]
            if self._complete(entry, own, to_do):
                runs[entry.name] = own
                seconds = mean(cell.cost()["seconds_to_fit"] for cell in own)
                self.costs.append({"method": entry.name, "label_fraction": fraction, "seconds_to_fit": seconds})
        say(f"measuring with {fraction:g} of the labels")
        asked = [(fold, self._asked(fold), self._by_methods(fold, runs)) for fold in folds]
        parts = [(one, made | self._by_known_labels(fold, made, one.known)) for fold, one, made in asked]
        first, second = (
            [self._by_known_labels(fold, made, one.halves[half]) for fold, one, made in asked] for half in (0, 1)
        )
        pairs = [pair for pair in self.protocol.compare if set(pair) <= parts[0][1].keys()]
        found = measure(parts, self.grid.cell_types, self.grid.kind, pairs, list(zip(first, second, strict=True)))
        for rows, kept in zip(found, (self.results, self.comparisons), strict=True):
            kept += [{**row, "label_fraction": fraction} for row in rows]
        if fraction == self.protocol.label_fractions[0]:
            self.predictions = [_table(self.grid, *both) for both in zip(folds, (own for _, own in parts), strict=True)]

    def _complete(self, entry: MethodEntry, cells: Sequence[Cell], to_do: Sequence[Cell]) -> bool:
        """Compute the cells of a method, as far as they are to be; tell whether all are there."""
        what = misfit(entry, self.grid.kind)
        if what:
            self.miss(entry.name, ALL, what, failed=False)
            return False
        return all_kept(cells, to_do, lambda cell: cell.compute(self.grid), partial(self.miss, entry.name, ALL))

    def _asked(self, fold: Fold) -> Asked:
        rows = fold.test_windows
        return Asked(self.grid.truth[rows], self.grid.region[rows], fold.test, fold.known)

    def _by_methods(self, fold: Fold, runs: Mapping[str, Sequence[Cell]]) -> Predicted:
        return {
            name: np.stack([cell.predictions() for cell in cells if cell.fold is fold]) for name, cells in runs.items()
        }

    def _by_known_labels(self, fold: Fold, by_methods: Predicted, known: NDArray[np.int64]) -> Predicted:
        """Return what ensembles and baselines predict that have the labels of some known cell types."""
        members = {name: own.mean(axis=0) for name, own in by_methods.items()}
        members |= baselines_as_members(self.grid, fold, known)
        found = {
            one.name: together(one, members, self.grid, fold)
            for one in self.protocol.ensembles
            if set(one.of) <= members.keys()
        }
        found |= {MEAN: mean_of_known(self.grid, fold, known), NEAREST: nearest_known(self.grid, fold, known)}
        return {name: own[None] for name, own in found.items()}


def _table(grid: Grid, fold: Fold, predicted: Predicted) -> pd.DataFrame:
    """Return what is predicted for the known test rows of a fold, on average over seeds, beside the truth."""
    window, cell_type = fold.rows(grid)["test"]
    place = np.cumsum(fold.test_windows) - 1  # of each window among the test windows
    where = grid.windows.table[["chrom", "start", "end"]].iloc[window].reset_index(drop=True)
    own = (np.array(grid.cell_types)[cell_type], grid.truth[window, cell_type], fold.name)
    return where.assign(
        **dict(zip(COLUMNS[3:], own, strict=True)),
        **{name: runs.mean(axis=0)[place[window], cell_type] for name, runs in predicted.items()},
    )


def _facts_of_cell_types(work: _Work) -> list[Row]:
    """Return of each test cell type how far it is from the known ones, on average over folds, and its test rows."""
    grid = work.grid
    folds = [fold for fold in work.folds if (work.protocol.label_fractions[0], fold.name) not in work.flaws]
    distances: dict[str, list[Distance]] = {}
    measured: dict[tuple[int, ...], list[Distance]] = {}  # folds that leave out the same cell types share it
    for fold in folds:
        names = [[grid.cell_types[i] for i in part] for part in (fold.known, fold.test)]
        key = tuple(fold.test.tolist())
        if key not in measured:
            measured[key] = KnownCellTypes.of(grid.corpus, names[0]).distances(grid.corpus, names[1])
        for one in measured[key]:
            distances.setdefault(one.cell_type, []).append(one)
    rows = []
    for name in (name for name in grid.cell_types if name in distances):
        own, i = distances[name], grid.cell_types.index(name)
        truth = np.concatenate([grid.truth[fold.test_windows, i] for fold in folds if i in fold.test])
        p = [one.p for one in own if one.p is not None]
        rows.append(
            {
                "cell_type": name,
                "distance": mean(one.distance for one in own),
                "p": mean(p) if p else None,
                "known": min(one.known for one in own),
                "nearest": Counter(one.nearest for one in own).most_common(1)[0][0],
                "unlike": any(one.unlike for one in own),
                "test_windows": int(np.isfinite(truth).sum()),
                "positives": int((truth == 1).sum()) if grid.kind == "classes" else None,
            }
        )
    return rows


def _facts_of_fold(work: _Work, fold: Fold) -> Row:
    rows = fold.rows(work.grid)
    return {"name": fold.name, **fold.parts, **{f"{split}_rows": len(own[0]) for split, own in rows.items()}}


def _write(settings: CrossValidateSettings, work: _Work, seen: Mapping[str, list[str]]) -> None:
    protocol = work.protocol
    for name, words in seen.items():
        for one in words:
            say(f"{name}: {one}")
    document = {
        "title": protocol.title,
        "protocol": {"path": str(settings.protocol), "sha256": sha256_of(settings.protocol)},
        "software": software_versions(),
        "target": work.grid.kind,
        "cell_types": _facts_of_cell_types(work),
        "folds": [_facts_of_fold(work, fold) for fold in work.folds],
        "methods": [{**facts_of_method(protocol, one), "seen": seen[one.name]} for one in protocol.methods],
        "ensembles": {one.name: one.model_dump(exclude={"name"}) for one in protocol.ensembles},
        "results": work.results,
        "comparisons": work.comparisons,
        "costs": work.costs,
        "missing": work.missing,
    }
    settings.out.mkdir(parents=True, exist_ok=True)
    write_table(settings.out / PREDICTIONS, pd.concat(work.predictions, ignore_index=True))
    write_results(settings.out, document, work.results, MEASURED, PAGE, cross_validation_page)
