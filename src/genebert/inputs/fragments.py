"""Fragments of single-cell ATAC-seq (10x format) become counts per cell type; memory does not grow with their number.

A line is chrom, start, end, barcode (tab-separated; 0-based, half-open); what follows (duplicate count, strand) is
not used: each line is one fragment, and counts once. Its two ends are where Tn5 inserted, at start and at end - 1;
files of this format are already shifted for the 9 bp that Tn5 duplicates. Lines may come in any order, without an
index, plain, gzip or bgzip.
"""

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from genebert.errors import Problems, UserError, listed, problem
from genebert.inputs.genome import BGZF_SUBFIELD, GZIP_MAGIC, match_chromosomes, other_genome
from genebert.inputs.intervals import read_table
from genebert.inputs.pseudobulk import Pseudobulk, Tally
from genebert.inputs.windows import WindowIndex

COLUMNS = ("chrom", "start", "end", "barcode")
MISSING = ("", "na", "nan")
"""Cell types, in lower case, that stand for none."""
_BLOCK = 4 << 20  # bytes of text read at once; some ten blocks are read ahead
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


class Windows(Sized, Protocol):
    """What fragments can be counted in: a `WindowIndex`, or a `genebert.inputs.enrichment.BinIndex`."""

    def codes(self, chroms: Sequence[str]) -> NDArray[np.int64]:
        """Return the code of each chromosome name, -1 where it has no window."""
        ...

    def locate_codes(self, codes: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the window that holds each position of the chromosomes with these codes, or -1."""
        ...


def read_barcodes(path: Path) -> pd.DataFrame:
    """Read the table of barcodes and their cell types: CSV or TSV whose header has barcode and cell_type.

    Args:
        path: the table; further columns are kept. Rows without a cell type (empty, NA, NaN) are left out, so
            that their fragments are not counted.

    Returns:
        DataFrame of text with barcode, cell_type, file (if the table has it), and `line`, the 1-based line.

    Raises:
        UserError: the table cannot be read, lacks a column, or gives a barcode of a file several cell types.
    """
    table = read_table(path)
    found = Problems(f"The barcodes of {path} cannot be used:")
    for name in ("barcode", "cell_type"):
        if name not in table:
            found.add("line 1", f"there is no column {name!r} among {', '.join(table.columns[:-1])}", "Name it so.")
    found.raise_any()
    for line in table["line"][table["barcode"] == ""]:
        found.add(f"line {line}", "the barcode is empty", "Give it, or remove the line.")
    table = table[~table["cell_type"].str.lower().isin(MISSING)]
    key = [name for name in ("file", "barcode") if name in table]
    table = table.drop_duplicates([*key, "cell_type"])
    for barcode, group in table[table.duplicated(key, keep=False)].groupby("barcode"):
        lines, names = ", ".join(map(str, group["line"])), ", ".join(group["cell_type"])
        found.add(f"lines {lines}", f"barcode {barcode} has several cell types, {names}", "Give it one.")
    if table.empty:
        found.add("cell_type", "no barcode has a cell type", "Fill the column.")
    found.raise_any()
    return table.reset_index(drop=True)


def count_fragments(
    path: Path, cell_type_of: Mapping[str, str], windows: Windows | pd.DataFrame, lengths: Mapping[str, int]
) -> Pseudobulk:
    """Count the Tn5 insertions of each cell type in each window.

    Args:
        path: fragments file.
        cell_type_of: barcode -> cell type.
        windows: n windows that do not overlap, or their DataFrame with chrom, start, end.
        lengths: chromosome -> length of the genome in bp.

    Returns:
        counts of both ends of each fragment, shape (cell types, n).

    Raises:
        UserError: the file cannot be read, a line is malformed or lies beyond its chromosome's end, or no
            chromosome or no barcode of it is known.
    """
    index = WindowIndex(windows) if isinstance(windows, pd.DataFrame) else windows
    comments, columns = _check_head(path)
    counter = _Counter(path, comments, cell_type_of, index, lengths)
    for batch in _read_batches(path, comments, columns):
        counter.add(batch)
    return counter.result()


def _open(path: Path) -> pa.NativeFile:
    """Open a file for reading, decompressed if it is gzip or bgzip by its first bytes."""
    raw = pa.OSFile(str(path))
    compressed = raw.read(2) == GZIP_MAGIC
    raw.seek(0)
    return pa.CompressedInputStream(raw, "gzip") if compressed else raw


def _check_head(path: Path) -> tuple[int, int]:
    """Return the number of comment lines before the first fragment, and its number of columns.

    Raises:
        UserError: the file cannot be read, is cut short, or its first line is no fragment.
    """
    try:
        _check_complete(path)
        with io.BufferedReader(_open(path)) as stream:
            comments, line = 0, stream.readline(_BLOCK)
            while line.startswith(b"#"):
                comments, line = comments + 1, stream.readline(_BLOCK)
    except OSError as error:
        raise _unreadable(path, error) from None
    if not line:
        raise UserError(problem(path, "it holds no fragment", "Give a fragments file with at least one line."))
    columns = line.count(b"\t") + 1
    if columns < len(COLUMNS):
        shown = line[:40].decode("latin-1").rstrip()
        what = f"{shown!r} has {columns} tab-separated column(s), and at least 4 are needed"
        raise UserError(problem(f"{path}, line {comments + 1}", what, "Write chrom, start, end and barcode."))
    return comments, columns


def _check_complete(path: Path) -> None:
    """Refuse a bgzip file that was cut between two of its blocks, which decompresses without an error."""
    with path.open("rb") as handle:
        head = handle.read(14)
        if not head.startswith(GZIP_MAGIC) or head[12:14] != BGZF_SUBFIELD:
            return
        handle.seek(-min(len(_BGZF_END), path.stat().st_size), os.SEEK_END)
        if handle.read() != _BGZF_END:
            what = "the bgzip file is cut short (it lacks the block that marks its end)"
            raise UserError(problem(path, what, "Copy or download it again."))


def _unreadable(path: Path, error: OSError) -> UserError:
    if error.errno is not None:
        what, remedy = f"it cannot be read ({os.strerror(error.errno)})", "Check the path and its permissions."
    else:
        what, remedy = "the gzip file is truncated or damaged", "Copy or download it again."
    return UserError(problem(path, what, remedy))


def _read_batches(path: Path, comments: int, columns: int) -> Iterator[pa.RecordBatch]:
    names = [*COLUMNS, *(f"column {i}" for i in range(len(COLUMNS) + 1, columns + 1))]
    words = pa.dictionary(pa.int32(), pa.string())
    types = {"chrom": words, "start": pa.int64(), "end": pa.int64(), "barcode": words}
    try:
        with _open(path) as stream:
            yield from pyarrow.csv.open_csv(
                stream,
                # Without threads, errors name the row; decompressing and parsing are serial anyway.
                pyarrow.csv.ReadOptions(use_threads=False, block_size=_BLOCK, skip_rows=comments, column_names=names),
                pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
                pyarrow.csv.ConvertOptions(column_types=types, include_columns=COLUMNS, null_values=[]),
            )
    except pa.ArrowInvalid as error:
        raise _malformed(path, str(error)) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _malformed(path: Path, message: str) -> UserError:
    """Put a parser's message about a line into words."""
    line = re.search(r"Row #(\d+)", message)
    if line is None:
        return UserError(problem(path, "its lines cannot be told apart", "Give a fragments file, which is text."))
    if value := re.search(r"column #(\d+):.* invalid value '(.*)'", message):
        what = f"{COLUMNS[int(value[1])]} is {value[2]!r}, not a whole number"
    elif columns := re.search(r"Expected (\d+) columns, got (\d+)", message):
        what = f"it has {columns[2]} column(s), and the first line has {columns[1]}"
    else:
        what = "it is no text"
    remedy = "Write chrom, start, end and barcode, separated by tabs, in every line; comments (#) may only come first."
    return UserError(problem(f"{path}, line {line[1]}", what, remedy))


class _Counter:
    """Counts batch by batch.

    Args:
        path: fragments file.
        comments: number of lines before the first fragment.
        cell_type_of, index, lengths: see `count_fragments`.
    """

    def __init__(
        self,
        path: Path,
        comments: int,
        cell_type_of: Mapping[str, str],
        index: Windows,
        lengths: Mapping[str, int],
    ) -> None:
        self._path = path
        self._line = comments + 1
        self._index = index
        self._lengths = lengths
        self._cell_types = sorted(set(cell_type_of.values()))
        self._barcodes = pd.Index(list(cell_type_of), dtype=object)
        # One more, for the number -1: barcodes that the table lacks.
        self._type_of = np.array([*np.searchsorted(self._cell_types, list(cell_type_of.values())), -1])
        self._seen = np.zeros(len(self._type_of), dtype=bool)
        self._tally = Tally(len(self._cell_types), len(index))
        self._fragments = np.zeros(len(self._cell_types), dtype=np.int64)
        self._unassigned = 0
        self._chroms: dict[str, str | None] = {}
        self._unknown: dict[str, int] = {}
        self._examples: NDArray[Any] | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the fragments of a batch with the columns `COLUMNS`."""
        start, end = batch["start"].to_numpy(), batch["end"].to_numpy()
        names, place = _words(batch["chrom"])
        chroms = self._match(names)
        known = np.array([name is not None for name in chroms], dtype=bool)[place]
        self._check(batch, chroms, known)
        for name, number in zip(names, np.bincount(place[~known], minlength=len(names)).tolist(), strict=True):
            if number:
                self._unknown[name] = self._unknown.get(name, 0) + number
        cell = self._cells(batch["barcode"])
        cell_type = self._type_of[cell]
        counted = known & (cell_type >= 0)
        self._unassigned += int(known.sum() - counted.sum())
        self._seen[cell[counted]] = True
        cell_type = cell_type[counted]
        self._fragments += np.bincount(cell_type, minlength=len(self._fragments))
        codes = self._index.codes([name or "" for name in chroms])[place[counted]]
        for position in (start[counted], end[counted] - 1):
            window = self._index.locate_codes(codes, position)
            inside = window >= 0
            self._tally.add(cell_type[inside], window[inside], np.ones(inside.sum(), dtype=np.uint32))
        self._line += len(batch)

    def _match(self, names: NDArray[Any]) -> list[str | None]:
        """Return the genome's name of each chromosome of a batch, or None."""
        for name in names:
            if name not in self._chroms:
                target = match_chromosomes([name], self._lengths).get(name)
                other = next((n for n, t in self._chroms.items() if t is not None and t == target), None)
                if other is not None:
                    what = f"chromosome {target} is written {other!r} in some lines and {name!r} in others"
                    raise UserError(problem(self._path, what, "Use one naming."))
                self._chroms[name] = target
        return [self._chroms[name] for name in names]

    def _check(self, batch: pa.RecordBatch, chroms: list[str | None], known: NDArray[np.bool_]) -> None:
        start, end = batch["start"].to_numpy(), batch["end"].to_numpy()
        length = np.array([self._lengths.get(name or "", 0) for name in chroms])[_words(batch["chrom"])[1]]
        wrong = known & ((start < 0) | (end <= start) | (end > length))
        if not wrong.any():
            return
        row = int(np.flatnonzero(wrong)[0])
        chrom, first, last, barcode = (batch[name][row].as_py() for name in COLUMNS)
        if last > length[row] and last > first >= 0:
            what = f"the end, {last}, lies beyond the end of {chrom}, which has {length[row]} bp in the genome"
            remedy = "Use the genome assembly that the reads were mapped to."
        else:
            what = f"[{first}, {last}) is no interval"
            remedy = "Coordinates are 0-based and half-open, with start before end; correct the file."
        raise UserError(problem(f"{self._path}, line {self._line + row} (barcode {barcode})", what, remedy))

    def _cells(self, barcodes: pa.DictionaryArray) -> NDArray[np.int64]:
        """Return each fragment's number of its barcode in the table, or -1."""
        names, place = _words(barcodes)
        if self._examples is None:
            self._examples = names
        return self._barcodes.get_indexer(names)[place]

    def result(self) -> Pseudobulk:
        """Return the counts.

        Raises:
            UserError: no chromosome or no barcode was known.
        """
        if not any(self._chroms.values()):
            raise other_genome(self._path, self._chroms, self._lengths)
        if not self._seen.any():
            assert self._examples is not None
            raise UserError(_barcode_problem(self._path, self._barcodes.tolist(), self._examples.tolist()))
        cells = np.bincount(self._type_of[self._seen], minlength=len(self._cell_types))
        return Pseudobulk(
            self._cell_types,
            self._tally.to_csr(),
            dict(zip(self._cell_types, cells.tolist(), strict=True)),
            dict(zip(self._cell_types, self._fragments.tolist(), strict=True)),
            self._unassigned,
            self._unknown,
        )


def _words(column: pa.DictionaryArray) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return the distinct words of a column, and the index of each row's word among them."""
    return column.dictionary.to_numpy(zero_copy_only=False), column.indices.to_numpy()


def _barcode_problem(path: Path, table: list[str], file: list[str]) -> str:
    """Say why no barcode of a table occurs in a file: another spelling of the same, or others altogether."""
    in_file = {_core(barcode): barcode for barcode in file}
    alike = next((barcode for barcode in table if _core(barcode) in in_file), None)
    what = f"none of the table's {len(table)} barcodes occurs in it; "
    if alike is None:
        what += f"the file has {listed(file, 3)}, the table {listed(table, 3)}"
        return problem(path, what, "Give the table of the cells of this file.")
    what += f"the file writes {in_file[_core(alike)]!r} where the table writes {alike!r}"
    return problem(path, what, "Add or remove the suffix or sample prefix in the table, so that both are the same.")


def _core(barcode: str) -> str:
    """Return a barcode without what tools add: a suffix such as -1, or a prefix such as SAMPLE# or sample_."""
    bases = re.search(r"[ACGT]{8,}", barcode)
    return bases[0] if bases else re.sub(r"^.*#|-\d+$", "", barcode)
