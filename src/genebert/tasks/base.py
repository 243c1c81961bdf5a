"""Windows to learn from or to predict for, from CSV, TSV, BED or FASTA, as base codes with their labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
from numpy.typing import NDArray

from genebert.errors import Problems, UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.intervals import check_intervals, read_bed, read_table, read_text
from genebert.schema import SPLITS, N, encode, reverse_complement

COORDINATES = ("chrom", "start", "end")
LABELS_FILE = "labels.tsv"
_STRANDS = {"+", "-", "."}


@dataclass(frozen=True)
class Windows:
    """Windows of equal length; shorter ones are filled with N on the right.

    Attributes:
        table: DataFrame, n rows; `sequence_id` or chrom, start, end, and where given strand, cell_type, label, split.
        codes: base codes, uint8, shape (n, length); of the minus strand where `strand` says so.
        path: the file they came from.
        ambiguous: number of IUPAC letters that were read as N.
    """

    table: pd.DataFrame
    codes: NDArray[np.uint8]
    path: Path
    ambiguous: int = 0

    def __len__(self) -> int:
        return len(self.table)

    @property
    def on_genome(self) -> bool:
        """Whether the windows have coordinates."""
        return "chrom" in self.table

    @property
    def per_cell_type(self) -> bool:
        """Whether the windows name a cell type each."""
        return "cell_type" in self.table

    def rows(self, chosen: NDArray[np.bool_]) -> "Windows":
        """Return some of the windows; chosen: bool, shape (n,)."""
        return replace(self, table=self.table[chosen].reset_index(drop=True), codes=self.codes[chosen])


def read_windows(path: Path, genome: Genome | None, *, labelled: bool, width: int | None = None) -> Windows:
    """Read windows.

    Args:
        path: CSV or TSV with a header (`sequence`, or `chrom`, `start`, `end`; optionally `strand`, `cell_type`,
            `label`, `split`), a folder made by `genebert labels`, and without labels also BED or FASTA. Coordinates are
            0-based, half-open.
        genome: needed for coordinates; where a table has sequences, its coordinates are passed over.
        labelled: whether a `label` column is needed.
        width: windows on the genome are widened or narrowed to it around their centre; if None, they have to be of one
            width.

    Raises:
        UserError: the file cannot be used; all problems are listed.
    """
    if path.is_dir():
        path = path / LABELS_FILE
    kind = _kind(path, labelled)
    if kind == "fasta":
        return _read_fasta(path)
    if kind == "bed":
        found = read_bed(path, _need(genome, path).lengths)
        return _from_genome(found.table, _need(genome, path), path, width)
    table = read_table(path)
    _check_columns(table, path, labelled)
    if "sequence" in table:
        return _from_sequences(table, path)
    checked = check_intervals(table, path, _need(genome, path).lengths)
    return _from_genome(checked.table, _need(genome, path), path, width)


def _kind(path: Path, labelled: bool) -> str:
    first = next(line for line in read_text(path).splitlines() if line.strip())
    if first.startswith(">") and not labelled:
        return "fasta"
    words = first.replace(",", "\t").lower().lstrip("#").split("\t")
    header = "sequence" in words or set(COORDINATES) <= set(words)
    return "table" if header or labelled else "bed"


def _need(genome: Genome | None, path: Path) -> Genome:
    if genome is None:
        raise UserError(problem(path, "its windows are coordinates, and no genome is given", "Add --genome FASTA."))
    return genome


def _check_columns(table: pd.DataFrame, path: Path, labelled: bool) -> None:
    found = Problems(f"The table {path} cannot be used:")
    if "sequence" not in table and not set(COORDINATES) <= set(table):
        found.add(
            "line 1",
            f"the header is {', '.join(table.columns.drop('line'))}",
            "Name a column `sequence`, or columns `chrom`, `start` and `end`.",
        )
    if labelled and "label" not in table:
        found.add("line 1", "there is no column `label`", "Add it.")
    _check_values(table, "strand", _STRANDS, found)
    _check_values(table, "split", set(SPLITS), found)
    for name in ("label", "cell_type"):
        if name in table:
            for line in table["line"][table[name].str.strip() == ""]:
                found.add(f"line {line}", f"{name} is empty", "Fill it in, or remove the line.")
    found.raise_any()


def _check_values(table: pd.DataFrame, name: str, allowed: set[str], found: Problems) -> None:
    if name not in table:
        return
    for line, value in table.loc[~table[name].isin(allowed), ["line", name]].itertuples(index=False):
        found.add(f"line {line}", f"{name} is {value!r}", f"Use one of {' '.join(sorted(allowed))}.")


def _from_sequences(table: pd.DataFrame, path: Path) -> Windows:
    where = [f"line {line}" for line in table["line"]]
    codes, ambiguous = _encode_all(table["sequence"], where, path)
    unused = [name for name in ("sequence", "line", *COORDINATES) if name in table]
    named = table.drop(columns=unused).assign(sequence_id=[name.replace(" ", "_") for name in where])
    return Windows(named, codes, path, ambiguous)


def _read_fasta(path: Path) -> Windows:
    try:
        with pysam.FastxFile(str(path)) as records:
            named = [(record.name, record.sequence or "") for record in records]
    except (OSError, ValueError) as error:
        raise UserError(problem(path, f"the FASTA cannot be read ({error})", "Check the file.")) from None
    names = [name for name, _ in named]
    codes, ambiguous = _encode_all([letters for _, letters in named], [f"record {name}" for name in names], path)
    return Windows(pd.DataFrame({"sequence_id": names}), codes, path, ambiguous)


def _encode_all(sequences: Iterable[str], where: Sequence[str], path: Path) -> tuple[NDArray[np.uint8], int]:
    """Return the base codes of sequences, filled with N, and how many IUPAC letters were read as N."""
    found = Problems(f"The sequences of {path} cannot be used:")
    every = [encode(sequence.strip()) for sequence in sequences]
    for place, encoded in zip(where, every, strict=True):
        if not len(encoded.codes):
            found.add(place, "the sequence is empty", "Fill it in, or remove it.")
        if encoded.invalid:
            position, letter = encoded.invalid
            found.add(place, f"letter {letter!r} at position {position + 1} is no nucleotide", "Use ACGTN.")
    found.raise_any()
    return _fill([encoded.codes for encoded in every]), sum(encoded.ambiguous for encoded in every)


def _from_genome(table: pd.DataFrame, genome: Genome, path: Path, width: int | None) -> Windows:
    table = _of_one_width(table, path, width)
    before = genome.ambiguous
    stretches = table[list(COORDINATES)].itertuples(index=False)
    codes = np.stack([genome.fetch(chrom, start, end) for chrom, start, end in stretches])
    if "strand" in table:
        minus = (table["strand"] == "-").to_numpy()
        codes[minus] = reverse_complement(codes[minus])
    unused = [name for name in ("line", "name", "score") if name in table]
    return Windows(table.drop(columns=unused), codes, path, genome.ambiguous - before)


def _of_one_width(table: pd.DataFrame, path: Path, width: int | None) -> pd.DataFrame:
    if width is not None:
        start = (table["start"] + table["end"]) // 2 - width // 2
        return table.assign(start=start, end=start + width)
    widths = table["end"] - table["start"]
    found = Problems(f"The windows of {path} cannot be used:")
    for line, other in zip(table["line"], widths, strict=True):
        if other != widths.iloc[0]:
            found.add(
                f"line {line}", f"it has {other} bp, and the first has {widths.iloc[0]} bp", "Make them equally wide."
            )
    found.raise_any()
    return table


def _fill(codes: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    filled = np.full((len(codes), max(map(len, codes))), N, dtype=np.uint8)
    for row, one in zip(filled, codes, strict=True):
        row[: len(one)] = one
    return filled


def class_names(labels: pd.Series) -> list[str]:
    """Return the classes in order: as numbers if all are numbers, else by name."""
    names = sorted(set(labels))
    try:
        return sorted(names, key=float)
    except ValueError:
        return names
