"""Windows to learn from or to predict for, from CSV, TSV, BED or FASTA, as base codes with what they are labelled."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
from numpy.typing import NDArray

from genebert.console import say
from genebert.errors import Problems, UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.intervals import check_intervals, columns_of, open_text, read_bed, read_table, readable
from genebert.schema import SPLITS, N, encode
from genebert.shared_words import groups
from genebert.target import check_target, target_columns
from genebert.tasks.on_genome import oriented_codes

COORDINATES = ("chrom", "start", "end")
LABELS_FILE = "labels.tsv"
LONGEST = 10
"""Length of the longest region of windows that overlap, in windows."""
FEW_REGIONS = 20
"""With fewer regions of test rows, intervals say little."""
_STRANDS = {"+", "-", "."}
_RECORD = ("sequence_id", "sequence")


@dataclass(frozen=True)
class Windows:
    """Windows of equal length; shorter ones are filled with N on the right.

    Attributes:
        table: DataFrame, n rows; chrom, start, end, or sequence_id and where it is known chrom; where given strand,
            name, cell_type, split and the target's columns (see `genebert.target`).
        codes: base codes, uint8, shape (n, length); of the minus strand where `strand` says so.
        path: the file they came from.
        ambiguous: number of IUPAC letters that were read as N.
        repeats: number of labelled rows left out because an earlier row of the file says the same.
    """

    table: pd.DataFrame
    codes: NDArray[np.uint8]
    path: Path
    ambiguous: int = 0
    repeats: int = 0

    def __len__(self) -> int:
        return len(self.table)

    @property
    def on_genome(self) -> bool:
        """Whether it is known on which chromosome each window lies."""
        return "chrom" in self.table

    @property
    def located(self) -> bool:
        """Whether it is known where on its chromosome each window lies."""
        return set(COORDINATES) <= set(self.table)

    @property
    def per_cell_type(self) -> bool:
        """Whether the windows name a cell type each."""
        return "cell_type" in self.table

    def regions(self) -> NDArray[np.int64]:
        """Return the region that each window belongs to, int64, shape (n,), for intervals of measures.

        Windows that overlap, directly or through others, lie in one region, as far as it is not too long; of sequences,
        those that share 32 bases.
        """
        return overlapping_groups(self.table) if self.located else groups(self.codes)

    def rows(self, chosen: NDArray[np.bool_]) -> "Windows":
        """Return some of the windows; chosen: bool, shape (n,)."""
        return replace(self, table=self.table[chosen].reset_index(drop=True), codes=self.codes[chosen])


def overlapping_groups(table: pd.DataFrame) -> NDArray[np.int64]:
    """Return a number for each interval: those that overlap, directly or through others, have the same one.

    Where windows slide along a chromosome, all of it is one chain, of which nothing could be drawn: a chain is cut into
    stretches `LONGEST` times as long as its first interval. Only intervals beside a cut then are parted from some that
    they overlap.

    Args:
        table: chrom, start, end (0-based, half-open).
    """
    order = np.lexsort((table["start"], table["chrom"]))
    ranked = table.iloc[order]
    start = ranked["start"].to_numpy()
    reach = ranked.groupby("chrom", sort=False)["end"].cummax().shift(fill_value=-1).to_numpy()
    new = (start >= reach) | (ranked["chrom"] != ranked["chrom"].shift()).to_numpy()
    first = np.flatnonzero(new)[np.cumsum(new) - 1]
    stretch = (start - start[first]) // (LONGEST * (ranked["end"].to_numpy() - start)[first])
    new[1:] |= stretch[1:] != stretch[:-1]
    found = np.empty(len(table), dtype=np.int64)
    found[order] = np.cumsum(new)
    return found


def table_of(path: Path) -> Path:
    """Return the table of a folder made by `genebert labels`, or the path itself, if it is another.

    What is made from labels depends on this file: rows of it may have been removed since the folder was made.
    """
    return table if (table := path / LABELS_FILE).is_file() else path


def read_windows(path: Path, genome: Genome | None, *, labelled: bool, width: int | None = None) -> Windows:
    """Read windows.

    Args:
        path: CSV or TSV with a header (see `windows_of`), a folder made by `genebert labels`, and without labels also
            BED or FASTA. Coordinates are 0-based, half-open. Rows with labels that repeat another are left out.
        genome: needed for coordinates.
        labelled: whether target columns are needed.
        width: windows on the genome are widened or narrowed to it around their centre; if None, they have to be of one
            width.

    Raises:
        UserError: the file cannot be used; all problems are listed.
    """
    path = table_of(path)
    kind = _kind(path, labelled)
    if kind == "fasta":
        return _from_records(read_fasta(path), path)
    if kind == "bed":
        found = read_bed(path, _need(genome, path).lengths, keep_repeats=True)
        return _from_genome(found.table, _need(genome, path), path, width)
    return windows_of(read_table(path), path, genome, labelled=labelled, width=width)


def window_chunks(
    path: Path, genome: Genome | None, *, width: int, rows: int, check: Callable[[pd.DataFrame], None], times: int = 1
) -> Iterator[Windows]:
    """Yield windows to predict for, some at a time; their files are those that `read_windows` takes without labels.

    Records of a FASTA are read chunk by chunk. Tables are read and checked whole, before the first chunk, and the bases
    at coordinates chunk by chunk.

    Args:
        path, genome: see `read_windows`.
        width: length of every chunk's base codes: windows on the genome are widened or narrowed to it around their
            centre, shorter sequences are filled with N on the right.
        rows: most windows of a chunk, after those that name no cell type are repeated.
        times: how often these will be repeated.
        check: is shown the `Windows.table` of all windows with coordinates, and may refuse it.

    Raises:
        UserError: the file cannot be used; a sequence is longer than `width`, or, at the end, all are shorter.
    """
    path = table_of(path)
    longest = 0
    for windows in _chunks(path, genome, width, rows, check, max(1, times)):
        length = windows.codes.shape[1]
        if length > width:
            raise wrong_length(windows, length, width)
        longest = max(longest, length)
        filled = np.pad(windows.codes, ((0, 0), (0, width - length)), constant_values=N)
        yield replace(windows, codes=filled)
    if longest < width:
        raise wrong_length(windows, longest, width)


def _not_longer(records: Iterable[tuple[str, str]], path: Path, width: int) -> Iterator[tuple[str, str]]:
    """Yield records, and refuse a long one before others are filled up to its length."""
    for name, sequence in records:
        if len(sequence) > width:
            raise UserError(_wrong_length(path, f"its window {name} has {len(sequence)} bp", width))
        yield name, sequence


def wrong_length(windows: Windows, longest: int, width: int) -> UserError:
    """Return what to say of windows whose longest one, of `longest` bp, is not of the width that a model reads.

    Args:
        windows: of a file; those that hold the longest one, where that is too long.
        longest, width: bp.
    """
    full = np.flatnonzero(windows.codes[:, -1] != N)
    named = f", that of {windows.table['sequence_id'].iloc[full[0]]}" if longest > width and len(full) else ""
    return UserError(_wrong_length(windows.path, f"its longest window has {longest} bp{named}", width))


def _wrong_length(path: Path, what: str, width: int) -> str:
    what = f"{what}, and the model was fine-tuned on windows of {width} bp"
    return problem(path, what, f"Give windows of {width} bp.")


def _chunks(
    path: Path, genome: Genome | None, width: int, rows: int, check: Callable[[pd.DataFrame], None], times: int
) -> Iterator[Windows]:
    kind, repeated = _kind(path, labelled=False), max(1, rows // times)
    if kind == "fasta":
        records = _not_longer(_records(path), path, width)
        while chunk := list(islice(records, repeated)):
            yield _from_records(pd.DataFrame(chunk, columns=list(_RECORD)), path)
        return
    if kind == "bed" and genome is None:
        what = "its windows are neither FASTA nor in a column `sequence`, and for coordinates no genome is given"
        remedy = "Add --genome FASTA, for BED or columns chrom, start, end; or name the column of sequences `sequence`."
        raise UserError(problem(path, what, remedy))
    table = read_bed(path, _need(genome, path).lengths, keep_repeats=True).table if kind == "bed" else read_table(path)
    if kind == "table" and "sequence" not in table:
        _check_columns(table, path, labelled=False)
        table, kind = check_intervals(table, path, _need(genome, path).lengths, keep_repeats=True).table, "bed"
    size = rows if "cell_type" in table else repeated
    if kind == "table":
        whole = windows_of(table, path, genome, labelled=False)
        if (longest := whole.codes.shape[1]) != width:
            raise wrong_length(whole, longest, width)
        for start in range(0, len(table), size):
            some = slice(start, start + size)
            yield replace(whole, table=whole.table.iloc[some].reset_index(drop=True), codes=whole.codes[some])
        return
    check(table)
    for start in range(0, len(table), size):
        part = table.iloc[start : start + size].reset_index(drop=True)
        yield _from_genome(part, _need(genome, path), path, width)


def _from_records(records: pd.DataFrame, path: Path) -> Windows:
    codes, ambiguous = encode_all(records["sequence"], [f"record {name}" for name in records["sequence_id"]], path)
    return Windows(records[["sequence_id"]], codes, path, ambiguous)


def _kind(path: Path, labelled: bool) -> str:
    with open_text(path) as handle, readable(path):
        first = next((line for line in handle if line.strip()), "")
    if not first:
        raise UserError(problem(path, "the file is empty", "Give a file with at least one record."))
    if first.startswith(">") and labelled:
        remedy = "Make labels of it with `genebert labels custom --positives FASTA --negatives FASTA`."
        raise UserError(problem(path, "it is FASTA, which says no labels", remedy))
    if first.startswith(">"):
        return "fasta"
    names = columns_of(first.strip())
    header = "sequence" in names or set(COORDINATES) <= set(names)
    return "table" if header or labelled else "bed"


def windows_of(
    table: pd.DataFrame, path: Path, genome: Genome | None, *, labelled: bool, width: int | None = None
) -> Windows:
    """Return the windows that a table of texts describes.

    Args:
        table: `line`; `sequence`, or chrom, start, end; optionally strand, cell_type, split, and target columns (see
            `genebert.target`). Where there are sequences, they are taken as they are, and of their coordinates only
            the chromosome is kept.
        path: the file that the table is from, for errors.
        genome, labelled, width: as for `read_windows`.

    Raises:
        UserError: the table cannot be used; all problems are listed with their lines.
    """
    _check_columns(table, path, labelled)
    if "sequence" in table:
        return _from_sequences(table, path)
    checked = check_intervals(table, path, _need(genome, path).lengths, keep_repeats=not labelled)
    windows = _from_genome(checked.table, _need(genome, path), path, width)
    return replace(windows, repeats=checked.duplicates)


def say_repeats(windows: Sequence[Windows]) -> None:
    """Say of each file how many rows were left out because they repeat another, and how many places have several."""
    each = {id(one): one for one in windows}.values()  # a file may be given twice
    for path, count in {one.path: one.repeats for one in each}.items():
        if count:
            say(f"{path}: rows left out, since they repeat another: {count:,}")
        contradicting = sum(_contradicting(one.table) for one in each if one.path == path and one.located)
        if contradicting:
            say(f"warning: {path}: places with rows that are labelled differently: {contradicting:,}")


def _contradicting(table: pd.DataFrame) -> int:
    """Return how many places have rows that are labelled differently."""
    place = [name for name in (*COORDINATES, "strand", "cell_type") if name in table]
    said = table[[*place, *target_columns(table)]].drop_duplicates()
    return len(said[said.duplicated(place)].drop_duplicates(place))


def say_few_regions(region: NDArray[np.int64]) -> None:
    """Warn where test rows lie in so few regions that intervals of measures are not to be trusted.

    Args:
        region: of each row; see `Windows.regions`.
    """
    count = len(np.unique(region))
    if count < FEW_REGIONS:
        what = f"{len(region):,} test rows lie in {count} regions (they overlap, or share 32 bases)"
        say(f"warning: {what}: intervals of their measures say little")


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
    if labelled:
        check_target(table, found)
    _check_values(table, "strand", _STRANDS, found)
    _check_values(table, "split", set(SPLITS), found)
    if "cell_type" in table:
        for line in table["line"][table["cell_type"] == ""]:
            found.add(f"line {line}", "cell_type is empty", "Fill it in, or remove the line.")
    found.raise_any()


def _check_values(table: pd.DataFrame, name: str, allowed: set[str], found: Problems) -> None:
    if name not in table:
        return
    for line, value in table.loc[~table[name].isin(allowed), ["line", name]].itertuples(index=False):
        found.add(f"line {line}", f"{name} is {value!r}", f"Use one of {' '.join(sorted(allowed))}.")


def _from_sequences(table: pd.DataFrame, path: Path) -> Windows:
    number = table["line"].astype(str)
    codes, ambiguous = encode_all(table["sequence"], ("line " + number).tolist(), path)
    unused = [name for name in ("sequence", "line", "start", "end") if name in table]
    named = table.drop(columns=unused).assign(sequence_id="line_" + number)
    return Windows(named, codes, path, ambiguous)


def read_fasta(path: Path) -> pd.DataFrame:
    """Return the records of a FASTA, plain or gzip: DataFrame with sequence_id and sequence.

    Raises:
        UserError: it cannot be read, or holds no record.
    """
    named = list(_records(path))
    if not named:
        raise UserError(problem(path, "the FASTA holds no sequence", "Give a file with at least one record."))
    return pd.DataFrame(named, columns=list(_RECORD))


def _records(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the sequence of each record of a FASTA."""
    try:
        with pysam.FastxFile(str(path)) as records:
            for record in records:
                yield record.name, record.sequence or ""
    except (OSError, ValueError) as error:
        raise UserError(problem(path, f"the FASTA cannot be read ({error})", "Check the file.")) from None


def encode_all(sequences: pd.Series, where: Sequence[str], path: Path) -> tuple[NDArray[np.uint8], int]:
    """Turn sequences into base codes.

    Args:
        sequences: letters, n of them.
        where: place of each in its file, for errors.
        path: the file, for errors.

    Returns:
        uint8, shape (n, length of the longest), filled with N on the right; how many IUPAC letters were read as N.

    Raises:
        UserError: a sequence is empty, or a letter is no nucleotide.
    """
    lengths = sequences.str.len().to_numpy(np.int64)
    encoded = encode("".join(sequences))  # at once: a loop over a million sequences takes half a minute
    if encoded.invalid or not lengths.all():
        _raise_unreadable(sequences, where, path)
    codes = np.full((len(lengths), int(lengths.max())), N, dtype=np.uint8)
    codes[np.arange(codes.shape[1]) < lengths[:, None]] = encoded.codes
    return codes, encoded.ambiguous


def _raise_unreadable(sequences: pd.Series, where: Sequence[str], path: Path) -> None:
    found = Problems(f"The sequences of {path} cannot be used:")
    for place, sequence in zip(where, sequences, strict=True):
        if not sequence:
            found.add(place, "the sequence is empty", "Fill it in, or remove it.")
        invalid = encode(sequence).invalid
        if invalid:
            found.add(place, f"letter {invalid[1]!r} at position {invalid[0] + 1} is no nucleotide", "Use ACGTN.")
    found.raise_any()


def check_strands(table: pd.DataFrame, path: Path) -> None:
    """Check that oriented windows that lie on the genome name their strand; sequences are on theirs, as they are given.

    Args:
        table: of the windows; see `Windows`.
        path: the file they came from.

    Raises:
        UserError: a window names none.
    """
    if not set(COORDINATES) <= set(table):
        return
    without = ~table["strand"].isin(["+", "-"]) if "strand" in table else pd.Series(True, index=table.index)
    if without.any():
        chrom, start, end = table.loc[without, list(COORDINATES)].iloc[0]
        place = f"{chrom}:{(start + end) // 2}"
        what = f"the model is of oriented windows, and windows have no strand, such as that around {place}"
        remedy = "Give + or - (column 6 of a BED, `strand` of a table), or sequences, or fine-tune without --oriented."
        raise UserError(problem(path, what, remedy))


def say_unused(genome: Path | None, windows: Windows) -> None:
    """Say that a genome is given and not used, if windows are sequences."""
    if genome is not None and not windows.located:
        say(f"--genome {genome} is not used: {windows.path} has sequences, which are taken as they are")


def _from_genome(table: pd.DataFrame, genome: Genome, path: Path, width: int | None) -> Windows:
    table = of_one_width(table, path, width)
    before = genome.ambiguous
    codes = oriented_codes(genome, table)
    unused = [name for name in ("line", "score") if name in table]
    return Windows(table.drop(columns=unused), codes, path, genome.ambiguous - before)


def of_one_width(table: pd.DataFrame, path: Path, width: int | None) -> pd.DataFrame:
    """Return windows on the genome, resized around their centre if a width is given.

    Between odd and even widths half a base is lost, always at the same end of the strand that is read: windows that are
    aligned at one base, such as start sites of both strands, stay aligned.

    Raises:
        UserError: no width is given, and they differ in theirs.
    """
    if width is not None:
        minus = (table["strand"] == "-").astype(np.int64) if "strand" in table else 0
        start = (table["start"] + table["end"] + minus) // 2 - (width + minus) // 2
        return table.assign(start=start, end=start + width)
    widths = table["end"] - table["start"]
    first = widths.iloc[0]
    found = Problems(f"The windows of {path} cannot be used:")
    for line, other in zip(table["line"][widths != first], widths[widths != first], strict=True):
        found.add(f"line {line}", f"it has {other} bp, and the first has {first} bp", "Make them equally wide.")
    found.raise_any()
    return table
