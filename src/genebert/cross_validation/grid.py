"""Labels as a grid of windows x cell types, of which methods are given any part."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.errors import Problems, UserError, listed, problem
from genebert.inputs.genome import Genome
from genebert.methods.base import Examples
from genebert.pretrained import context_of
from genebert.region_matrix import Context
from genebert.report.cross_validation import MEAN
from genebert.schema import parent_of
from genebert.target import CLASS, LABEL_PREFIX, VALUE, Target, class_names, label_names, target_columns
from genebert.tasks.labels import check_genome
from genebert.tasks.windows import COORDINATES, Windows, read_windows, say_repeats

Numbers = NDArray[np.float64]
Cells = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Windows and cell types, indices, shape (rows,) each."""
Kind = Literal["classes", "value"]


@dataclass(frozen=True)
class Grid:
    """What is known of n windows in c cell types.

    Attributes:
        windows: the n windows, without cell types.
        cell_types: names, in the order of the corpus.
        truth: float64, shape (n, c): 0 or 1 for two classes, or the number; NaN where it is not known.
        kind: "classes" (two of them), or "value".
        names: of the two classes, or ("value",).
        corpus: that knows the cell types, and what surrounds the windows.
    """

    windows: Windows
    cell_types: list[str]
    truth: Numbers
    kind: Kind
    names: tuple[str, ...]
    corpus: Corpus

    @classmethod
    def read(cls, labels: Path, genome: Path, corpus: Path) -> Self:
        """Read labels; a column `split` is not looked at.

        Args:
            labels: table with columns chrom, start, end (0-based, half-open), optionally strand, and either columns
                `label:CELLTYPE` (0, 1 or empty), or `cell_type` and `label` (two classes) or `value`; or a folder made
                by `genebert labels`.
            genome: FASTA or 2bit.
            corpus: folder made by `prepare` or `add-cell-type`.

        Raises:
            UserError: a file cannot be used, files do not belong together, or the corpus lacks a cell type; all
                problems of a kind are listed.
        """
        opened = Corpus.open(corpus)
        with Genome(genome) as sequences:
            check_genome(sequences, opened)
            windows = read_windows(labels, sequences, labelled=True)
        say_repeats([windows])
        _check_shape(windows)
        per_cell_type = windows.table["cell_type"] if windows.per_cell_type else label_names(windows.table)
        cell_types = _known(sorted(set(per_cell_type)), opened, windows.path)
        made = _from_rows if windows.per_cell_type else _from_columns
        return cls(*made(windows, cell_types), opened)

    def __len__(self) -> int:
        return len(self.windows)

    @cached_property
    def region(self) -> NDArray[np.int64]:
        """The region that each window belongs to, int64, shape (n,); see `Windows.regions`."""
        return self.windows.regions()

    @cached_property
    def chromosome(self) -> NDArray[Any]:
        """The chromosome of each window, as the genome names it: str, shape (n,); see `parent_of`."""
        return self.windows.table["chrom"].map(parent_of).to_numpy(str)

    @cached_property
    def _sequences(self) -> Examples:
        """The windows without cell types; their motifs are scanned once, for all parts of the grid."""
        return Examples(self.windows.codes, self.corpus.scanner)

    @cached_property
    def _context(self) -> Context:
        """Where the windows lie; the cell types are to be replaced."""
        return context_of(self.windows, self.corpus, np.zeros(len(self), dtype=np.int64))

    @cached_property
    def _corpus_index(self) -> NDArray[np.int64]:
        return self.corpus.cell_type_indices(self.cell_types)

    def known(self, windows: NDArray[np.bool_], cell_types: NDArray[np.int64]) -> Cells:
        """Return the cells of a part of the grid that are known: windows and cell types, int64, shape (rows,) each.

        Args:
            windows: bool, shape (n,).
            cell_types: indices, int64.
        """
        rows = np.flatnonzero(windows)
        window, cell_type = np.nonzero(np.isfinite(self.truth[np.ix_(rows, cell_types)]))
        return rows[window], cell_types[cell_type]

    def examples(self, windows: NDArray[np.int64], cell_types: NDArray[np.int64], *, truth: bool = True) -> Examples:
        """Return windows as methods take them, each in one cell type.

        Args:
            windows, cell_types: indices, int64, shape (rows,).
            truth: give it too; all of these cells are then known.
        """
        _ = self._sequences.evidence  # before rows are taken, so that they have it
        context = replace(
            self._context, cell_type=self._corpus_index[cell_types], position=self._context.position[windows]
        )
        return replace(
            self._sequences.rows(windows),
            truth=self._as_target(self.truth[windows, cell_types]) if truth else None,
            context=context,
            cell_types=len(self.corpus.cell_types),
        )

    def _as_target(self, truth: Numbers) -> NDArray[Any]:
        return truth.astype(np.int64) if self.kind == "classes" else truth[:, None]

    def target(self, truth: Numbers) -> Target:
        """Return what is predicted; truth: that of the training rows, shape (rows,)."""
        if self.kind == "classes":
            return Target("classes", self.names)
        return Target("value", self.names, float(truth.mean()), float(truth.std()) or 1.0)

    def predicted(self, output: Numbers) -> Numbers:
        """Return of a method's predictions what is compared with the truth: float64, shape (rows,)."""
        return output[:, -1]  # of two classes the second, of a number itself


def _check_shape(windows: Windows) -> None:
    if not windows.located:
        what = "its windows have no coordinates, and chromosomes are to be left out"
        raise UserError(problem(windows.path, what, f"Name columns {', '.join(COORDINATES)}, and no `sequence`."))
    table = windows.table
    if windows.per_cell_type and label_names(table):
        what = "it has a column `cell_type`, and columns `label:NAME`, which would name cell types too"
        raise UserError(problem(windows.path, what, "Give one or the other."))
    if not windows.per_cell_type and not label_names(table):
        what = "it names no cell types"
        raise UserError(problem(windows.path, what, "Give columns `label:CELLTYPE`, or a column `cell_type`."))
    if CLASS in table and len(classes := class_names(table[CLASS])) != 2:
        what = f"its labels are {listed(classes, 10)}, and cell types are compared in two classes"
        raise UserError(problem(windows.path, what, "Give two classes, or numbers in a column `value`."))


def _known(names: Sequence[str], corpus: Corpus, path: Path) -> list[str]:
    """Return cell types in the order of the corpus, which has them all."""
    found = Problems(f"The labels {path} are about cell types that cannot be used with the corpus {corpus.folder}:")
    for name in names:
        if name not in corpus.cell_types:
            found.add(name, "the corpus has no such cell type", "Correct the name, add its ATAC-seq, or leave it out.")
        elif name == MEAN:
            found.add(name, "the mean over cell types is called so in the results", "Give it another name.")
    found.raise_any()
    return [name for name in corpus.cell_types if name in names]


def _from_columns(windows: Windows, cell_types: list[str]) -> tuple[Windows, list[str], Numbers, Kind, tuple[str, ...]]:
    """Read a table with a row per window and a column per cell type."""
    labels = [LABEL_PREFIX + name for name in cell_types]
    windows = _each_once(windows, [*_place(windows.table), *labels])
    columns = windows.table[labels]
    _check_repeats(windows, _place(windows.table))
    truth = columns.mask(columns == "").to_numpy(np.float64)
    return _without_labels(windows), cell_types, truth, "classes", ("0", "1")


def _from_rows(windows: Windows, cell_types: list[str]) -> tuple[Windows, list[str], Numbers, Kind, tuple[str, ...]]:
    """Read a table with a row per window and cell type."""
    place = _place(windows.table)
    windows = _each_once(windows, [*place, "cell_type", *target_columns(windows.table)])
    table = windows.table
    _check_repeats(windows, [*place, "cell_type"])
    first = ~table.duplicated(place).to_numpy()
    window = table.groupby(place, sort=False).ngroup().to_numpy()
    cell_type = table["cell_type"].map({name: i for i, name in enumerate(cell_types)}).to_numpy()
    kind: Kind = "classes" if CLASS in table else "value"
    names = tuple(class_names(table[CLASS])) if kind == "classes" else (VALUE,)
    numbers = table[CLASS].map({name: i for i, name in enumerate(names)}) if kind == "classes" else table[VALUE]
    truth = np.full((int(first.sum()), len(cell_types)), np.nan)
    truth[window, cell_type] = numbers.to_numpy(np.float64)
    return _without_labels(windows.rows(first)), cell_types, truth, kind, names


def _place(table: pd.DataFrame) -> list[str]:
    return [name for name in (*COORDINATES, "strand") if name in table]


def _each_once(windows: Windows, key: Sequence[str]) -> Windows:
    """Return the rows without those that say what an earlier one does; their split, for one, is not looked at."""
    return windows.rows(~windows.table.duplicated(list(key)).to_numpy())


def _check_repeats(windows: Windows, key: Sequence[str]) -> None:
    table = windows.table
    found = Problems(f"The labels {windows.path} contradict themselves:")
    for row in table[table.duplicated(list(key))].to_dict("records"):
        where = f"{row['chrom']}:{row['start']}-{row['end']}" + (f", {row['cell_type']}" if "cell_type" in key else "")
        found.add(where, "several rows say different things", "Keep one of them.")
    found.raise_any()


def _without_labels(windows: Windows) -> Windows:
    return replace(windows, table=windows.table[_place(windows.table)])
