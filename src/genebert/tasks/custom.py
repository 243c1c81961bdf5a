"""Your own labels: a table, FASTA files of two classes, or BED files, checked and divided into splits."""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from genebert.errors import Problems, UserError, problem
from genebert.inputs.accessibility import PEAK_SUFFIXES, cell_type_of
from genebert.inputs.genome import Genome
from genebert.inputs.intervals import read_bed, read_table, repeats_of
from genebert.schema import Split
from genebert.shared_words import LENGTH, divided, groups
from genebert.target import CLASS, LABEL_PREFIX, VALUE, check_target, target_columns
from genebert.tasks.base import LabelTable, Note, Sources, Task
from genebert.tasks.on_genome import inside
from genebert.tasks.windows import encode_all, of_one_width, read_fasta, windows_of

_KEPT = ("line", "chrom", "start", "end", "strand", "sequence", "name", "cell_type", "split")
"""Columns of a table that are of use beside the target's."""
_BY_CHROMOSOME = "--valid-chromosomes and --test-chromosomes"
_BY_FRACTION = "--valid-fraction and --test-fraction"
_REPEATS = "rows left out, since they repeat another"
Rows = tuple[pd.DataFrame, NDArray[np.uint8] | None]
"""Labelled rows, and their base codes if they are sequences, shape (n, length)."""


class Custom(Task):
    """Label sequences or windows as a table, FASTA files or BED files say.

    Columns: chrom, start, end, strand, sequence, name and cell_type, as far as they are given; label (classes), value
    (a number), or label:NAME (0, 1, or empty if unknown) of each of several labels; split.

    Windows on the genome are divided by chromosome. Sequences are divided at random, but those that share 32 bases
    on either strand, directly or through others, stay together. A column split of the table comes before both.
    """

    table: Path | None = Field(None, description="CSV or TSV with a header (gzip allowed)")
    sequence_column: str | None = Field(None, description="column of --table with sequences (default: sequence)")
    label_column: str | None = Field(None, description="column of --table with classes (default: label)")
    value_column: str | None = Field(None, description="column of --table with numbers (default: value)")
    label_columns: list[str] = Field(
        [], description="columns of --table with 0, 1 or nothing, one per label (default: those named label:NAME)"
    )
    positives: Path | None = Field(None, description="FASTA of sequences labelled 1, instead of --table")
    negatives: Path | None = Field(None, description="FASTA of sequences labelled 0, with --positives")
    bed: list[Path] = Field(
        [],
        description="BED or narrowPeak files, instead of --table: one per class, whose file name without "
        "its ending names the class; or a single one, whose --bed-column tells",
    )
    bed_column: Literal["name", "score"] = Field(
        "name", description="what tells in a single BED: name (column 4, a class) or score (column 5, a number)"
    )
    width: int | None = Field(
        None, ge=1, description="bp to which windows on the genome are resized (default: as they are)"
    )
    valid_fraction: float = Field(0.0, ge=0, lt=1, description="fraction of the sequences for validation")
    test_fraction: float = Field(0.0, ge=0, lt=1, description="fraction of the sequences held out for testing")

    @property
    def by_chromosome(self) -> bool:
        """Whether rows are to be divided by chromosome."""
        return bool(self.corpus or self.valid_chromosomes or self.test_chromosomes)

    @property
    def by_fraction(self) -> bool:
        """Whether rows are to be divided at random."""
        return bool(self.valid_fraction or self.test_fraction)

    def check_division(self) -> None:
        """Check that the options do not divide in two ways; whether one is needed, the rows tell.

        Raises:
            UserError: they do.
        """
        if self.by_chromosome and self.by_fraction:
            what = "they divide by chromosome and at random"
            raise UserError(problem("--valid-fraction, --test-fraction", what, "Give one way."))
        if self.by_chromosome:
            super().check_division()

    def windows(self, sources: Sources) -> LabelTable:
        """Return the labelled rows; see the class."""
        readers = {"table": self._from_table, "positives": self._from_fasta, "bed": self._from_bed}
        notes: dict[str, Note] = {}
        table, codes = readers[self.one_of(*readers)](sources, notes)
        self._check_rows(table, codes)
        if codes is None or not self.by_fraction:
            return LabelTable(table, notes)
        group = groups(codes)
        size = np.bincount(group)
        table = table.assign(split=self._divided(group))
        return LabelTable(
            table,
            {
                f"rows that share {LENGTH} bases with others and stay with them": int(size[size > 1].sum()),
                "most rows that stay together": int(size.max()),
            },
        )

    def _divided(self, group: NDArray[np.int64]) -> list[str]:
        fractions: dict[Split, float] = {"test": self.test_fraction, "valid": self.valid_fraction}
        split = divided(group, fractions, np.random.default_rng(self.seed))
        most = int(np.bincount(group).max())
        if most > len(group) / 2 and any(part not in split for part, fraction in fractions.items() if fraction):
            what = f"{most:,} of {len(group):,} sequences share {LENGTH} bases or are equal, and may not be divided"
            remedy = "Cut off what they have in common, such as adapters, or give a column `split`."
            raise UserError(problem("--valid-fraction, --test-fraction", what, remedy))
        return split

    def _check_rows(self, table: pd.DataFrame, codes: NDArray[np.uint8] | None) -> None:
        """Check that one thing says how rows are divided, and that it can."""
        found = Problems("The rows cannot be labelled and divided into training, validation and test:")
        if self.width is not None and codes is not None:
            found.add("--width", "it is for windows on the genome, and these are sequences", "Leave it out.")
        if "bed_column" in self.model_fields_set and len(self.bed) > 1:
            found.add("--bed-column", "it is for a single BED, and several name a class each", "Leave it out.")
        if "split" in table:
            if self.by_chromosome or self.by_fraction:
                found.add(self.table, "its column `split` divides the rows already", "Leave the options out.")
        elif self.by_fraction and codes is None:
            found.add("--valid-fraction, --test-fraction", "these are no sequences", f"Give {_BY_CHROMOSOME}.")
        elif self.by_chromosome and "chrom" not in table:
            found.add("--valid-chromosomes, --test-chromosomes", "there is no column `chrom`", f"Give {_BY_FRACTION}.")
        elif not self.by_chromosome and not self.by_fraction:
            remedy = f"Give {_BY_CHROMOSOME}; for sequences, {_BY_FRACTION}; or a column `split`."
            found.add("rows", "nothing says which are for what", remedy)
        found.raise_any()

    def _from_table(self, sources: Sources, notes: dict[str, Note]) -> Rows:
        assert self.table is not None
        table = self._with_standard_names(read_table(self.table), self.table)
        windows = windows_of(table, self.table, sources.genome, labelled=True, width=self.width)
        if "sequence" in table:
            return table.drop(columns="line"), windows.codes
        notes[_REPEATS] = windows.repeats
        return self._on_genome(windows.table, sources.need_genome(), notes), None

    def _with_standard_names(self, table: pd.DataFrame, path: Path) -> pd.DataFrame:
        """Return the columns of use, under the names that they have everywhere."""
        asked = [
            (self.sequence_column, "sequence"),
            (self.label_column, CLASS),
            (self.value_column, VALUE),
            *((name, LABEL_PREFIX + name.removeprefix(LABEL_PREFIX)) for name in self.label_columns),
        ]
        given = {str(name).lower(): name for name in table}
        found = Problems(f"The table {path} cannot be used:")
        chosen = {}
        for name, standard in asked:
            if name is not None and name.lower() not in given:
                has = ", ".join(table.columns.drop("line"))
                found.add("line 1", f"there is no column {name!r}; there are {has}", "Correct the name.")
            elif name is not None:
                chosen[standard] = given[name.lower()]
        found.raise_any()
        if not set(chosen) - {"sequence"}:
            chosen |= {name: name for name in target_columns(table)}
        columns = {name: name for name in _KEPT if name in table} | chosen
        return pd.DataFrame({standard: table[name] for standard, name in columns.items()})

    def _from_fasta(self, sources: Sources, notes: dict[str, Note]) -> Rows:
        if self.positives is None or self.negatives is None:
            raise UserError(problem("--negatives", "it goes with --positives", "Give both."))
        tables = []
        for path, label in ((self.positives, "1"), (self.negatives, "0")):
            records = read_fasta(path)
            tables.append(records.assign(label=label, where=f"{path.name}, record " + records["sequence_id"]))
        table = pd.concat(tables, ignore_index=True).rename(columns={"sequence_id": "name"})
        codes, _ = encode_all(table["sequence"], table["where"].tolist(), self.positives.parent)
        return table[["name", "sequence", CLASS]], codes

    def _from_bed(self, sources: Sources, notes: dict[str, Note]) -> Rows:
        genome = sources.need_genome()
        files = {cell_type_of(path, PEAK_SUFFIXES): path for path in self.bed}
        if len(files) < len(self.bed):
            raise UserError(problem("--bed", "two files name one class", "Give each class one file."))
        tables = [self._read_bed(path, name if len(files) > 1 else None, genome) for name, path in files.items()]
        widths = sorted({int(width) for table in tables for width in (table["end"] - table["start"]).unique()})
        if len(widths) > 1:
            what = f"the windows of one have {widths[0]} bp, and those of another {widths[1]} bp"
            raise UserError(problem("--bed", what, "Give --width."))
        table = pd.concat(tables, ignore_index=True)
        table = table.fillna({"strand": "."}) if "strand" in table else table
        return self._on_genome(table, genome, notes), None

    def _read_bed(self, path: Path, label: str | None, genome: Genome) -> pd.DataFrame:
        """Return the windows of a BED; all have the label, or if that is None, what a column says."""
        table = read_bed(path, genome.lengths, keep_repeats=True).table  # rows may differ in their name alone, a class
        target = CLASS if label is not None or self.bed_column == "name" else VALUE
        if label is None:
            if self.bed_column not in table:
                what = f"it has no {self.bed_column}, on which a single BED depends"
                raise UserError(problem(path, what, "Add the column, or give a BED per class."))
            label = table[self.bed_column].astype(str)
        table = of_one_width(table.assign(**{target: label}), path, self.width)
        found = Problems(f"The windows of {path} cannot be used:")
        check_target(table, found)
        found.raise_any()
        return table[[name for name in ("chrom", "start", "end", "strand", target) if name in table]]

    def _on_genome(self, table: pd.DataFrame, genome: Genome, notes: dict[str, Note]) -> pd.DataFrame:
        """Return the windows that lie inside their chromosome as they are now wide, each once, as they will be read."""
        known, repeated = inside(table, genome), repeats_of(table)
        if not known.any():
            what = f"no window of {self.width} bp lies inside its chromosome"
            raise UserError(problem("--width", what, "Give a smaller one."))
        notes["windows left out, beyond an end of their chromosome"] = int((~known).sum())
        notes[_REPEATS] = int(notes.get(_REPEATS, 0)) + int((known & repeated).sum())
        return table[known & ~repeated].reset_index(drop=True)
