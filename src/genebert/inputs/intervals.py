"""Intervals from BED, narrowPeak and labelled tables, plain or gzip, checked line by line."""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray
from pyarrow import compute

from genebert.errors import Problems, UserError, listed, problem
from genebert.inputs.genome import GZIP_MAGIC, match_chromosomes, other_genome, spelled_chromosomes

NARROW_PEAK = ("chrom", "start", "end", "name", "score", "strand", "signal", "p", "q", "summit")
BED = ("chrom", "start", "end", "name", "score", "strand")
_HEADER_WORDS = ("#", "track", "browser")
_TYPES = {
    "start": pa.int64(),
    "end": pa.int64(),
    "score": pa.float64(),
    "signal": pa.float64(),
    "p": pa.float64(),
    "q": pa.float64(),
    "summit": pa.int64(),
}
"""Columns that are numbers; all others are text."""
_NEEDED = {"start", "end", "signal", "p", "summit"}
"""Columns of numbers of which no value may be missing."""
_NO_SCORE = ("", ".", "nan")
_LARGEST = 1 << 53  # up to here, floating point numbers hold every whole number


@dataclass(frozen=True)
class Intervals:
    """Intervals of one file.

    Attributes:
        table: DataFrame; chrom, start, end (int64, 0-based, half-open), the file's further columns, and
            `line`, the 1-based line of the file.
        path: the file.
        duplicates: number of rows left out because an earlier row says the same (coordinates, and summit,
            strand or label).
        skipped: chromosome -> number of rows left out because the genome lacks it.
    """

    table: pd.DataFrame
    path: Path
    duplicates: int
    skipped: dict[str, int]


def read_peaks(
    path: Path, lengths: Mapping[str, int], *, skip_unknown: bool = False, beyond_end: bool = False
) -> Intervals:
    """Read narrowPeak (10 columns, or more in a file that is named so), broadPeak or BED (3 or more) as peaks.

    Args:
        path: file, plain or gzip.
        lengths: chromosome -> length of the genome in bp.
        skip_unknown: leave out and count rows on chromosomes that the genome lacks, instead of raising.
        beyond_end: keep what lies beyond the end of its chromosome, instead of raising.

    Returns:
        intervals whose table has the columns chrom, start, end, score, signal, summit, line. `summit` is an
        absolute position, the interval's middle where the file gives none. `score` ranks peaks: the
        narrowPeak's -log10 p, else its signal, else the BED score, else 0. `signal` is the narrowPeak's
        signal, else the score, else 1. Where a column is 0 throughout, it says nothing.

    Raises:
        UserError: the file cannot be read, or rows are malformed (all problems are listed with their lines).
    """
    found = Problems(f"The peaks of {path} cannot be used:")
    rows = _read_rows(path, without=["name"])
    intervals = _checked(rows, path, lengths, found, skip_unknown=skip_unknown, beyond_end=beyond_end)
    table = intervals.table
    middle = (table["start"] + table["end"]) // 2
    rank = scores = pd.Series(0.0, index=table.index)
    signal = pd.Series(1.0, index=table.index)
    if "score" in table:
        rank = scores = _number(table["score"]).fillna(0.0)
        signal = rank if rank.gt(0).any() else signal
    if "signal" in table:
        _check_numbers(table, found)
        given, p = _number(table["signal"]), _number(table["p"])
        signal = given if given.ne(0).any() or not rank.gt(0).any() else rank
        rank = p if p.gt(0).any() else signal
    if "summit" in table:
        _check_summits(table, found)
        summit = _number(table["summit"])
        middle = (table["start"] + summit).where(summit >= 0, middle)
    if signal is scores:
        _check_scores(table, found)
    _check_signal(table, signal, found)
    found.raise_any()
    peaks = table[["chrom", "start", "end", "line"]].assign(score=rank, signal=signal, summit=middle.astype(np.int64))
    return Intervals(peaks, path, intervals.duplicates, intervals.skipped)


def _number(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column, errors="coerce")


def _check_numbers(table: pd.DataFrame, found: Problems) -> None:
    for number, name in ((7, "signal"), (8, "p")):
        column = table[name]
        wrong = _number(column).isna()
        for line, value in zip(table["line"][wrong], column[wrong].astype(str), strict=True):
            found.add(f"line {line}", f"column {number} ({name}) is {value!r}, not a number", "Correct it.")


def _check_scores(table: pd.DataFrame, found: Problems) -> None:
    """Note scores that are text, of a file of which others are numbers."""
    unread = table[_number(table["score"]).isna()]
    wrong = unread[~unread["score"].astype(str).str.lower().isin(_NO_SCORE)]
    for line, value in wrong[["line", "score"]].itertuples(index=False):
        remedy = "Correct it; a dot stands for none."
        found.add(f"line {line}", f"column 5 (score) is {value!r}, not a number", remedy)


def _check_summits(table: pd.DataFrame, found: Problems) -> None:
    summit = _number(table["summit"])
    wrong = summit.isna() | (summit % 1 != 0) | (summit < -1) | (summit >= table["end"] - table["start"])
    for line, value in zip(table["line"][wrong], table["summit"][wrong].astype(str), strict=True):
        found.add(
            f"line {line}",
            f"column 10 (summit) is {value!r}, and not an offset inside the peak",
            "Give the offset from start, or -1 if there is none.",
        )


def _check_signal(table: pd.DataFrame, signal: pd.Series, found: Problems) -> None:
    wrong = np.isinf(signal) | (signal < 0)
    for line, value in zip(table["line"][wrong], signal[wrong], strict=True):
        found.add(
            f"line {line}",
            f"its signal is {value}, and not an amount",
            "Give a number from 0 on in column 7 of a narrowPeak file, or in column 5 of a BED file.",
        )


def read_bed(
    path: Path, lengths: Mapping[str, int], *, skip_unknown: bool = False, keep_repeats: bool = False
) -> Intervals:
    """Read BED with 3 to 6 columns, or narrowPeak with 10; further columns of other files are ignored.

    Raises:
        UserError: as `read_peaks`.
    """
    return check_intervals(_read_rows(path), path, lengths, skip_unknown=skip_unknown, keep_repeats=keep_repeats)


def read_annotation(path: Path, lengths: Mapping[str, int]) -> Intervals:
    """Read BED that covers a whole assembly, such as a blacklist or transcription start sites.

    What lies beyond the genome at hand (on other chromosomes, which are counted, or past an end) is no mistake.

    Raises:
        UserError: as `read_peaks`, but for that; and if no chromosome is in the genome.
    """
    return check_intervals(_read_rows(path), path, lengths, skip_unknown=True, beyond_end=True)


def check_intervals(
    rows: pd.DataFrame,
    path: Path,
    lengths: Mapping[str, int],
    *,
    skip_unknown: bool = False,
    beyond_end: bool = False,
    keep_repeats: bool = False,
) -> Intervals:
    """Check a table of text with chrom, start, end and line; map chromosome names; drop rows that repeat another.

    Raises:
        UserError: as `read_peaks`.
    """
    found = Problems(f"The intervals of {path} cannot be used:")
    intervals = _checked(
        rows, path, lengths, found, skip_unknown=skip_unknown, beyond_end=beyond_end, keep_repeats=keep_repeats
    )
    found.raise_any()
    return intervals


def _checked(
    rows: pd.DataFrame,
    path: Path,
    lengths: Mapping[str, int],
    found: Problems,
    *,
    skip_unknown: bool,
    beyond_end: bool,
    keep_repeats: bool = False,
) -> Intervals:
    """Return what can be used of a table of text, and note what cannot; see `check_intervals`.

    Raises:
        UserError: no chromosome is in the genome.
    """
    table = _parse_coordinates(rows, found)
    table, skipped = _map_chromosomes(table, path, lengths, found, skip_unknown)
    beyond = (table["end"] > table["chrom"].map(dict(lengths)).astype("int64")) & (not beyond_end)
    for line, chrom, end in table.loc[beyond, ["line", "chrom", "end"]].itertuples(index=False):
        found.add(
            f"line {line}",
            f"end {end} lies beyond the end of {chrom}, which has {lengths[chrom]} bp in the genome",
            "Use the genome assembly that the intervals were called on, or cut them.",
        )
    repeated = np.zeros(len(table), dtype=bool) if keep_repeats else repeats_of(table)
    if repeated.any():
        table = table[~repeated].reset_index(drop=True)
    return Intervals(table, path, int(repeated.sum()), skipped)


def repeats_of(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which rows say the same as an earlier one, whatever their lines and names: bool, shape (n,)."""
    key = [name for name in table.columns if name not in ("line", "name")]
    repeated = table.duplicated(["chrom", "start", "end"], keep=False).to_numpy()
    repeated[repeated] = table[repeated].duplicated(key)  # few rows share their place: compare no others
    return np.asarray(repeated)


def _parse_coordinates(rows: pd.DataFrame, found: Problems) -> pd.DataFrame:
    """Return the rows whose coordinates are right, as int64; note the others."""
    table = rows.copy(deep=False)
    readable = pd.Series(True, index=rows.index)
    for name in ("start", "end"):
        numbers = _number(rows[name])
        bad = numbers.isna() | (numbers % 1 != 0) | (numbers.abs() >= _LARGEST)
        readable &= ~bad
        for line, value in zip(rows["line"][bad], rows[name][bad].astype(str), strict=True):
            found.add(
                f"line {line}",
                f"{name} is {value!r}, not a whole number",
                "Write chrom, start, end separated by tabs.",
            )
        table[name] = numbers.where(~bad, 0).astype(np.int64)
    negative = readable & (table["start"] < 0)
    for line, start in table.loc[negative, ["line", "start"]].itertuples(index=False):
        found.add(f"line {line}", f"start is {start}", "Coordinates are 0-based and not negative; correct the line.")
    empty = readable & (table["end"] <= table["start"])
    for line, start, end in table.loc[empty, ["line", "start", "end"]].itertuples(index=False):
        found.add(
            f"line {line}",
            f"end {end} is not after start {start}",
            "Intervals are half-open, [start, end); correct the line.",
        )
    right = readable & ~negative & ~empty
    return table if right.all() else table[right]


def _map_chromosomes(
    table: pd.DataFrame, path: Path, lengths: Mapping[str, int], found: Problems, skip_unknown: bool
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the rows on chromosomes of the genome, by its names, and how many others there are of each name."""
    names = table["chrom"].unique()
    mapped = match_chromosomes(names, lengths)
    unknown = [str(name) for name in names if name not in mapped]
    spelled = spelled_chromosomes(unknown, lengths)
    doubtful = [name for name in unknown if name in spelled]  # another name of the file is the same chromosome
    if doubtful or (unknown and not skip_unknown):
        _note_names(table, doubtful or unknown, lengths, found)
    elif unknown and not mapped and not found.lines:  # else rows of the genome may be among those noted
        raise other_genome(path, unknown, lengths)
    skipped = {name: int((table["chrom"] == name).sum()) for name in unknown}
    table = table.copy(deep=False)
    table["chrom"] = table["chrom"].map(mapped)
    return table.dropna(subset="chrom", ignore_index=True) if unknown else table, skipped


def _note_names(table: pd.DataFrame, unknown: list[str], lengths: Mapping[str, int], found: Problems) -> None:
    line = table.loc[table["chrom"] == unknown[0], "line"].iloc[0]
    found.add(
        f"line {line}",
        f"chromosome {unknown[0]!r} cannot be matched to one of the genome without doubt; "
        f"unmatched names in the file: {listed(unknown, 12)}; names in the genome: {listed(lengths, 12)}",
        "Use one naming (chr1 or 1) throughout the file and the genome of the same assembly, or remove the rows "
        "on chromosomes that the genome lacks (--skip-unknown-chromosomes does, in `prepare` and `add-cell-type`).",
    )


def open_text(path: Path) -> IO[str]:
    """Open a text file for reading, gzip or plain by its first bytes; a byte order mark is passed over.

    Raises:
        UserError: it cannot be read.
    """
    with readable(path):
        return io.TextIOWrapper(_open_bytes(path), encoding="utf-8-sig")


def _open_bytes(path: Path) -> IO[bytes]:
    with path.open("rb") as handle:
        compressed = handle.read(2) == GZIP_MAGIC
    return cast(IO[bytes], gzip.open(path)) if compressed else path.open("rb")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say in a `UserError` why a text file cannot be read."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(problem(path, "the gzip file is truncated or damaged", "Copy or download it again.")) from None
    except UnicodeDecodeError:
        raise UserError(problem(path, "it is not a text file", "Give a text file, plain or gzip.")) from None
    except OSError as error:
        raise UserError(
            problem(path, f"it cannot be read ({error.strerror})", "Check the path and its permissions.")
        ) from None


def read_text(path: Path) -> str:
    """Return the whole text of a plain or gzip file.

    Raises:
        UserError: it cannot be read, is truncated, is empty, or is no text.
    """
    with open_text(path) as handle, readable(path):
        text = handle.read()
    if not text.strip():
        raise UserError(problem(path, "the file is empty", "Give a file with at least one record."))
    return text


def _read_rows(path: Path, without: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows of a BED-like file, columns named by their number, and the 1-based `line`.

    What is a number by the format has a numeric dtype, or is text if a value of the file is written oddly.
    """
    rows = _read_plain_rows(path, without)
    return _read_any_rows(path) if rows is None else rows


def _read_plain_rows(path: Path, without: Sequence[str]) -> pd.DataFrame | None:
    """Return the rows of a file in which nothing is odd, fast; None where something is."""
    first = _first_row(path)
    if first is None:
        return None
    before, cells = first
    width = len("\t".join(cells).rstrip().split("\t"))
    if width < 3:
        return None
    own = _column_names(path, width)
    names = [*own, *(f"cell {i}" for i in range(len(own), len(cells)))]
    beyond = names[width:]  # cells of white space that end every line
    kept = [name for name in own if name not in without]
    try:
        table, line = _parse(path, before, names, kept + beyond)
    except pa.ArrowInvalid:
        return None
    headers = any(name.startswith(_HEADER_WORDS) for name in table["chrom"].unique().to_pylist())
    missing = any(table[name].null_count for name in kept if name in _NEEDED)
    unequal = any(compute.any(compute.not_equal(table[name], "")).as_py() for name in beyond)
    if headers or missing or unequal:
        return None
    return pd.DataFrame({**{name: _values(table[name]) for name in kept}, "line": line}, copy=False)


def _first_row(path: Path) -> tuple[int, list[str]] | None:
    """Return how many lines are before the first row, and its cells; None if there is no row."""
    with open_text(path) as handle, readable(path):
        for before, text in enumerate(handle):
            if _is_row(text):
                return before, text.rstrip("\n").split("\t")
    return None


def _is_row(text: str) -> bool:
    return not text.startswith(_HEADER_WORDS) and bool(text.strip())


def _column_names(path: Path, width: int) -> list[str]:
    """Return what the first columns are: of narrowPeak, also with more of them (as of IDR), of broadPeak, or of BED."""
    name = path.name.lower()
    if width == len(NARROW_PEAK) or (".narrowpeak" in name and width > len(NARROW_PEAK)):
        return list(NARROW_PEAK)
    return list(NARROW_PEAK[:width] if ".broadpeak" in name and width == len(NARROW_PEAK) - 1 else BED[:width])


def _parse(path: Path, before: int, names: Sequence[str], kept: Sequence[str]) -> tuple[pa.Table, NDArray[np.int64]]:
    """Parse a file whose rows have one number of cells; header lines and blank lines are left out.

    Args:
        path: file, plain or gzip.
        before: number of lines before the first row.
        names: of the cells of a row.
        kept: names of those to return.

    Returns:
        the rows, and their 1-based lines in the file.

    Raises:
        pa.ArrowInvalid: a row has another number of cells, or a cell is no number where it should be.
    """
    others: list[int] = []

    def pass_over(row: pyarrow.csv.InvalidRow) -> Literal["skip", "error"]:
        others.append(row.number)
        return "error" if _is_row(row.text) else "skip"

    with readable(path), _open_bytes(path) as handle:
        table = pyarrow.csv.read_csv(
            _CheckedText(handle),
            pyarrow.csv.ReadOptions(use_threads=False, skip_rows=before, column_names=names),
            pyarrow.csv.ParseOptions(
                delimiter="\t", quote_char=False, ignore_empty_lines=False, invalid_row_handler=pass_over
            ),
            pyarrow.csv.ConvertOptions(
                column_types={name: _TYPES.get(name, pa.string()) for name in kept},
                include_columns=kept,
                null_values=["", "."],
            ),
        )
    lines = np.arange(before + 1, before + 1 + table.num_rows + len(others))
    lines = np.delete(lines, np.array(others, dtype=np.int64) - before - 1)
    if not table["start"].null_count:
        return table, lines
    written = compute.or_(compute.not_equal(table["chrom"], ""), table["start"].is_valid())
    return table.filter(written), lines[written.to_numpy()]


class _CheckedText(io.BufferedIOBase):
    """A stream of bytes that raises `UnicodeDecodeError` where it is no UTF-8: pyarrow does not for rows left out."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        block = self._handle.read(-1 if size is None else size)
        self._decoder.decode(block, final=not block)
        return block


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column as an array: numbers, NaN where there is none, or trimmed text, each word of it held once."""
    if not pa.types.is_string(column.type):
        return np.asarray(column.to_numpy())
    words = column.combine_chunks().dictionary_encode()
    trimmed = compute.utf8_trim_whitespace(words.dictionary).to_numpy(zero_copy_only=False)
    return np.asarray(trimmed[words.indices.to_numpy()])


def _read_any_rows(path: Path) -> pd.DataFrame:
    """Return the rows of a file as text, and say which of them are no rows of such a file."""
    lines = [(number, text) for number, text in enumerate(read_text(path).split("\n"), 1) if _is_row(text)]
    if not lines:
        raise UserError(problem(path, "it holds only comments", "Give a file with at least one interval."))
    columns = [line.rstrip().split("\t") for _, line in lines]
    width = min(lines[0][1].count("\t") + 1, max(map(len, columns)))  # the last cells of the first may be empty
    found = Problems(f"The intervals of {path} cannot be used:")
    if width < 3:
        found.add(
            f"line {lines[0][0]}",
            f"it has {width} tab-separated column(s), and at least 3 are needed",
            "Write chrom, start, end separated by tabs.",
        )
    for (number, text), row in zip(lines, columns, strict=True):
        row += [""] * (min(width, text.count("\t") + 1) - len(row))  # empty last cells are cells
        if len(row) != width:
            found.add(
                f"line {number}",
                f"it has {len(row)} columns, and the first line has {width}",
                "Give every line the same number of columns.",
            )
    found.raise_any()
    names = _column_names(path, width)
    cells = [[cell.strip() for cell in row[: len(names)]] for row in columns]
    return pd.DataFrame(cells, columns=names, dtype=object).assign(line=[number for number, _ in lines])


def read_table(path: Path, line: str = "line") -> pd.DataFrame:
    """Read a CSV or TSV with a header as text, without blanks around it, plus the 1-based line of each row; column
    names are as `column_name` has them.

    Args:
        path: file.
        line: name of the column of lines.

    Raises:
        UserError: it cannot be read, or rows differ in length.
    """
    lines = read_text(path).splitlines()
    try:
        rows = list(csv.reader(lines, delimiter=_delimiter(lines[0])))
    except csv.Error as error:
        raise UserError(problem(path, f"it is no CSV or TSV ({error})", "Correct it.")) from None
    header = [column_name(cell) for cell in rows[0]]
    found = Problems(f"The table {path} cannot be used:")
    if len(set(header)) != len(header):
        found.add("line 1", f"column names repeat: {', '.join(header)}", "Give every column its own name.")
    if line in header:
        found.add("line 1", f"a column is named {line!r}, as the number of each line is here", "Rename it.")
    kept = [(number, row) for number, row in enumerate(rows[1:], 2) if row]
    for number, row in kept:
        if len(row) != len(header):
            found.add(
                f"line {number}",
                f"it has {len(row)} columns, and the header has {len(header)}",
                "Give every line the header's number of columns.",
            )
    if not kept:
        found.add("line 1", "there are no rows after the header", "Give at least one row.")
    found.raise_any()
    table = pd.DataFrame([[cell.strip() for cell in row] for _, row in kept], columns=header, dtype=object)
    return table.assign(**{line: [number for number, _ in kept]})


def columns_of(header: str) -> list[str]:
    """Return the names of columns in the first line of a CSV or TSV, if it is one; see `column_name`."""
    try:
        cells = next(csv.reader([header], delimiter=_delimiter(header)), [])
    except csv.Error:
        return []
    return [column_name(cell) for cell in cells]


def _delimiter(header: str) -> str:
    return "\t" if "\t" in header else ","


def column_name(cell: str) -> str:
    """Return a column's name in lower case, but for what follows a colon (`label:K562`), without "#" before it."""
    kind, colon, name = cell.strip().lstrip("#").partition(":")
    return kind.strip().lower() + colon + name.strip()
