"""AnnData of cells x peaks (.h5ad), read from disk piece by piece, becomes counts per cell type.

Files as SnapATAC2, scanpy, muon, ArchR and Signac exports write them: X holds raw or binarised counts, as CSR, CSC or
dense; a column of obs names each cell's cell type; peaks are named chr:start-end, chr-start-end or chr_start_end, or
var has columns for chromosome, start and end. Starts are taken as 0-based and ends as exclusive, as in BED. (R packages
may write 1-based starts: peaks are then 1 bp off, which moves no peak to another region but at its border.)

`anndata.read_h5ad(backed="r")` keeps X on disk, but loads layers, obsm and obsp, where SnapATAC2 keeps all fragments.
Only what is needed is read here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from genebert.errors import Problems, UserError, listed, problem
from genebert.inputs.fragments import MISSING
from genebert.inputs.genome import match_chromosomes, spelled_chromosomes
from genebert.inputs.intervals import Intervals
from genebert.inputs.pseudobulk import Pseudobulk, Tally

_PEAK_NAME = r"^(?P<chrom>.+?)[:_-](?P<start>[0-9]{1,12})[-_](?P<end>[0-9]{1,12})$"
_COLUMNS = {
    "chrom": ("chrom", "chr", "chromosome", "seqnames", "seqname"),
    "start": ("start", "chromstart"),
    "end": ("end", "chromend", "stop"),
}
"""Names, in lower case, under which tools keep coordinates in var."""
_MAKE_PEAKS = "Make the matrix of cells x peaks first (in SnapATAC2, snap.pp.make_peak_matrix)."
_PIECE = 1 << 21  # values of X in memory at once
_MOST = 1 << 53  # a larger count is no whole number that a float could hold
_DAMAGE = (OSError, KeyError, ValueError, IndexError, TypeError, AttributeError, RuntimeError)
"""What h5py and anndata raise over a file of another structure than AnnData's, or with damaged content."""

Piece = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]
"""Cells, peaks and values of some entries of X; all of shape (p,)."""


def read_h5ad_peaks(
    path: Path, lengths: Mapping[str, int], *, skip_unknown: bool = False, lenient: bool = False
) -> Intervals:
    """Read the peaks of an h5ad, which may lack X.

    Args:
        path: h5ad file.
        lengths: chromosome -> length of the genome in bp.
        skip_unknown: leave out and count peaks on chromosomes that the genome lacks, instead of raising.
        lenient: take peaks that are there more than once, or end beyond their chromosome's end, as they are, instead of
            raising.

    Returns:
        intervals whose table has the columns of `genebert.inputs.intervals.read_peaks`, and `column`, the peak's
        0-based place in var (`line` is that plus 1). A peak's summit is its middle; all have one score, 0, and
        one signal, 1.

    Raises:
        UserError: the file is no h5ad, or has no peaks, or they are not named by coordinates, repeat, or are not on the
            genome.
    """
    with _opened(path, needs=("var",)) as file:
        var = _frame(path, file, "var")
    if not len(var):
        raise UserError(problem(path, "it has no peaks", _MAKE_PEAKS))
    table, skipped = _on_genome(path, _coordinates(path, var, lengths), lengths, skip_unknown)
    _check_peaks(path, table, lengths, lenient)
    middle = (table["start"] + table["end"]) // 2
    table = table.assign(line=table["column"] + 1, score=0.0, signal=1.0, summit=middle)
    return Intervals(table, path, 0, skipped)


def h5ad_counts(path: Path, column: str) -> Pseudobulk:
    """Sum the counts of each cell type in each peak.

    Args:
        path: h5ad file.
        column: of obs, names each cell's cell type; cells without one (NaN, NA, empty) are left out and counted.

    Returns:
        counts of shape (cell types, peaks), peaks in the order of var; `fragments` are sums of counts, `unassigned`
        are cells.

    Raises:
        UserError: the file is no h5ad, has no such column, is damaged, or X holds anything but whole numbers from 0
            on.
    """
    with _opened(path) as file:
        cell_type, names = _cell_types(path, _frame(path, file, "obs"), column)
        peaks = _frame(path, file, "var").index
        tally = Tally(len(names), len(peaks))
        for rows, columns, values in _checked_pieces(path, file, peaks, len(cell_type)):
            kept = cell_type[rows] >= 0
            tally.add(cell_type[rows][kept], columns[kept], values[kept].astype(np.int64))
    counts = tally.to_csr()
    cells = np.bincount(cell_type[cell_type >= 0], minlength=len(names)).tolist()
    return Pseudobulk(
        names,
        counts,
        dict(zip(names, cells, strict=True)),
        dict(zip(names, counts.sum(axis=1).tolist(), strict=True)),
        int((cell_type < 0).sum()),
    )


def h5ad_cell_types(path: Path, column: str) -> list[str]:
    """Return the names of the cell types of an h5ad, sorted; X is not read.

    Raises:
        UserError: the file is no h5ad, or has no such column.
    """
    with _opened(path) as file:
        return _cell_types(path, _frame(path, file, "obs"), column)[1]


def h5ad_variables(path: Path) -> int:
    """Return the number of variables of an h5ad; X is not read.

    Raises:
        UserError: the file is no h5ad.
    """
    with _opened(path, needs=("var",)) as file:
        return len(_frame(path, file, "var"))


@contextmanager
def _opened(path: Path, needs: Sequence[str] = ("X", "obs", "var")) -> Iterator[h5py.File]:
    """Open an h5ad file, of which parts are needed.

    Raises:
        UserError: it cannot be read, or is another kind of file.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        what = "it is no h5ad file, or is cut short" if path.is_file() else f"it cannot be read ({error.strerror})"
        raise UserError(problem(path, what, "Give AnnData as adata.write_h5ad writes it.")) from None
    with file:
        if "mod" in file:
            remedy = f"Write its ATAC part: mudata.read('{path.name}').mod['atac'].write_h5ad('atac.h5ad')."
            raise UserError(problem(path, "it is MuData, of several modalities", remedy))
        missing = [name for name in ("X", "obs", "var") if name not in file]
        if set(missing) & set(needs):
            what = f"it has no {' and no '.join(missing)}"
            remedy = "Give AnnData of cells x peaks, as adata.write_h5ad writes it."
            if missing == ["X"]:
                remedy = _MAKE_PEAKS
            raise UserError(problem(path, what, remedy))
        yield file


def _frame(path: Path, file: h5py.File, name: str) -> pd.DataFrame:
    from anndata.io import read_elem  # takes a second to import, for which other forms of input need not wait

    try:
        frame = read_elem(file[name])
    except _DAMAGE:
        frame = None
    if not isinstance(frame, pd.DataFrame):
        remedy = "Read it and write it again with a present anndata."
        raise UserError(problem(path, f"its table {name} cannot be read", remedy))
    return frame


def _coordinates(path: Path, var: pd.DataFrame, lengths: Mapping[str, int]) -> pd.DataFrame:
    """Return chrom, start, end and column of all peaks, from their names, else from columns of var.

    Names that look so without being on the genome, as peak_1_10, give way to columns.
    """
    names = pa.array(var.index.astype(str), pa.string())
    parts = compute.extract_regex(names, _PEAK_NAME)
    lower = {str(name).lower(): name for name in reversed(var.columns)}
    found = {name: next((lower[word] for word in words if word in lower), None) for name, words in _COLUMNS.items()}
    if not parts.null_count:
        table = pd.DataFrame({name: compute.struct_field(parts, name).to_pandas() for name in _COLUMNS})
        if None in found.values() or match_chromosomes(table["chrom"].unique(), lengths):
            return table.astype({"start": np.int64, "end": np.int64}).assign(column=np.arange(len(var)))
    if None in found.values():
        odd = compute.drop_null(compute.if_else(compute.is_null(parts), names, None)).slice(0, 3).to_pylist()
        what = f"{parts.null_count} of {len(var)} variables are not named by coordinates, such as {', '.join(odd)}"
        remedy = (
            "Name each chr:start-end, or give var columns chrom, start and end; leave out what is no peak "
            "(adata[:, adata.var['feature_types'] == 'Peaks'])."
        )
        raise UserError(problem(f"{path}, var", what, remedy))
    table = pd.DataFrame({name: var[source].to_numpy() for name, source in found.items()})
    return _whole_coordinates(path, table.assign(column=np.arange(len(var))))


def _whole_coordinates(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with chromosomes as text and coordinates as int64."""
    found = Problems(f"The peaks of {path} cannot be used:")
    for name in ("start", "end"):
        numbers = pd.to_numeric(table[name], errors="coerce")
        wrong = numbers.isna() | (numbers % 1 != 0)
        for column, value in table.loc[wrong, ["column", name]].itertuples(index=False):
            found.add(f"var, row {column + 1}", f"{name} is {value!r}, not a whole number", "Correct it.")
        table[name] = numbers.where(~wrong, 0).astype(np.int64)
    found.raise_any()
    return table.assign(chrom=table["chrom"].astype(str))


def _on_genome(
    path: Path, table: pd.DataFrame, lengths: Mapping[str, int], skip_unknown: bool
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the peaks with the genome's chromosome names, and the number left out on each unknown one."""
    mapped = match_chromosomes(table["chrom"].unique(), lengths)
    unknown = table["chrom"][~table["chrom"].isin(list(mapped))].value_counts()
    doubtful = spelled_chromosomes(unknown.index, lengths)  # another name in the file is the same chromosome
    if doubtful or not mapped or (len(unknown) and not skip_unknown):
        names, has = listed(unknown.index), listed(lengths)
        what = f"chromosomes {names} cannot be matched without doubt to the genome's, which are {has}"
        remedy = "Use the same assembly and naming as the genome"
        remedy += ", or --skip-unknown-chromosomes." if mapped and not doubtful else "."
        raise UserError(problem(path, what, remedy))
    table = table.assign(chrom=table["chrom"].map(mapped)).dropna(subset="chrom").reset_index(drop=True)
    return table, {str(name): int(number) for name, number in unknown.items()}


def _check_peaks(path: Path, table: pd.DataFrame, lengths: Mapping[str, int], lenient: bool) -> None:
    found = Problems(f"The peaks of {path} cannot be used:")
    assembly = "Use the genome assembly of the peaks, and 0-based, half-open coordinates."
    reasons = {"it is no interval": ((table["start"] < 0) | (table["end"] <= table["start"]), assembly)}
    if not lenient:
        beyond, repeated = table["end"] > table["chrom"].map(dict(lengths)), table.duplicated(["chrom", "start", "end"])
        reasons["it ends beyond its chromosome's end in the genome"] = beyond, assembly
        reasons["the same peak is there more than once"] = repeated, "Leave out all but one of them."
    for what, (wrong, remedy) in reasons.items():
        for row in table[wrong].itertuples(index=False):
            found.add(f"var, row {row.column + 1} ({row.chrom}:{row.start}-{row.end})", what, remedy)
    found.raise_any()


def _cell_types(path: Path, obs: pd.DataFrame, column: str) -> tuple[NDArray[np.int64], list[str]]:
    """Return each cell's index into the names of the cell types, or -1, and the names, sorted."""
    if column not in obs:
        has = ", ".join(map(str, obs.columns[:20])) or "no columns"
        what = f"obs has no column {column!r}; it has {has}"
        raise UserError(problem(path, what, "Name the one with cell types by --cell-type-column."))
    if obs[column].dtype.kind == "f":
        what = f"the column {column!r} of obs holds numbers, such as {obs[column].iloc[0]}"
        raise UserError(problem(path, what, "Name the one with cell types by --cell-type-column."))
    labels = obs[column].astype(object).where(obs[column].notna(), "").astype(str).str.strip()
    labels = labels.where(~labels.str.lower().isin(MISSING))
    codes, names = pd.factorize(labels, sort=True)
    if not len(names):
        what = f"the column {column!r} of obs names the cell type of no cell"
        raise UserError(problem(path, what, "Fill it, or name another by --cell-type-column."))
    return codes.astype(np.int64), [str(name) for name in names]


def _checked_pieces(path: Path, file: h5py.File, peaks: pd.Index, cells: int) -> Iterator[Piece]:
    """Yield the entries of X that are stored (if dense: that are not 0), some at a time.

    Raises:
        UserError: X is damaged, or holds no counts.
    """
    shape = cells, len(peaks)
    try:
        for rows, columns, values in _pieces(path, file["X"], shape):
            _check_places(path, (rows, columns), shape)
            _check_counts(path, peaks, columns, values)
            yield rows, columns, values
    except _DAMAGE:  # of another structure than AnnData writes, or bytes that do not unpack
        raise _damaged(path, "it cannot be read") from None


def _damaged(path: Path, what: str) -> UserError:
    return UserError(problem(f"{path}, X", what, "The file is damaged: copy or write it again."))


def _pieces(path: Path, x: h5py.Dataset | h5py.Group, shape: tuple[int, int]) -> Iterator[Piece]:
    """Return the pieces of X, once its layout is checked."""
    dense = isinstance(x, h5py.Dataset)
    missing = [] if dense else [name for name in ("indptr", "indices", "data") if name not in x]
    if missing:
        raise _damaged(path, f"it has no {' and no '.join(missing)}")
    sizes = x.shape if dense else x.attrs.get("shape", x.attrs.get("h5sparse_shape", ()))
    if tuple(sizes) != shape:
        what = f"X has the shape {tuple(map(int, sizes))}, and obs and var have {shape[0]} and {shape[1]} rows"
        raise UserError(problem(path, what, "Write it again."))
    _check_numbers(path, x if dense else x["data"])
    if dense:
        return _dense_pieces(x)
    by_column = _is_by_column(path, x)
    _check_sparse(path, x, shape[by_column])
    pieces = _sparse_pieces(x)
    return ((rows, columns, values) for columns, rows, values in pieces) if by_column else pieces


def _is_by_column(path: Path, x: h5py.Group) -> bool:
    """Return whether a sparse matrix is CSC and not CSR."""
    kind = x.attrs.get("encoding-type", x.attrs.get("h5sparse_format", ""))
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if not kind.startswith(("csr", "csc")):
        raise _damaged(path, f"its encoding {kind!r} is neither csr_matrix nor csc_matrix")
    return kind.startswith("csc")


def _check_sparse(path: Path, x: h5py.Group, outer: int) -> None:
    """Check the parts of a sparse matrix of `outer` rows (if CSC: columns) against each other.

    Raises:
        UserError: they do not belong together.
    """
    wrong = [name for name in ("indptr", "indices") if x[name].dtype.kind not in "iu" or x[name].ndim != 1]
    if wrong or x["data"].ndim != 1:
        raise _damaged(path, f"its {' and its '.join(wrong or ['data'])} is no list of numbers")
    stored = len(x["indices"])
    if len(x["data"]) != stored:
        raise _damaged(path, f"its data holds {len(x['data'])} values, and its indices {stored}")
    offsets = x["indptr"][:].astype(np.int64)
    if len(offsets) != outer + 1 or offsets[0] != 0 or offsets[-1] > stored or (np.diff(offsets) < 0).any():
        raise _damaged(path, f"its indptr does not divide {stored} values among {outer} rows or columns")


def _check_numbers(path: Path, values: h5py.Dataset) -> None:
    if values.dtype.kind not in "biuf":
        what = f"X holds {values.dtype}, and counts are whole numbers from 0 on"
        raise UserError(problem(path, what, "Put raw counts into X and write it again."))


def _sparse_pieces(x: h5py.Group) -> Iterator[Piece]:
    """Yield outer indices (rows of CSR, columns of CSC), inner indices and values."""
    offsets = x["indptr"][:].astype(np.int64)
    outer = np.arange(len(offsets) - 1)
    for first in range(0, int(offsets[-1]), _PIECE):
        last = min(first + _PIECE, int(offsets[-1]))
        number = np.diff(np.clip(offsets, first, last))
        yield np.repeat(outer, number), x["indices"][first:last].astype(np.int64), x["data"][first:last]


def _dense_pieces(x: h5py.Dataset) -> Iterator[Piece]:
    step = max(_PIECE // max(x.shape[1], 1), x.chunks[0] if x.chunks else 1)
    for first in range(0, x.shape[0], step):
        block = x[first : first + step]
        rows, columns = np.nonzero(block)
        yield rows + first, columns, block[rows, columns]


def _check_places(path: Path, places: tuple[NDArray[np.int64], NDArray[np.int64]], shape: tuple[int, int]) -> None:
    for what, place, number in zip(("cell", "peak"), places, shape, strict=True):
        wrong = place[(place < 0) | (place >= number)]
        if len(wrong):
            raise _damaged(path, f"it has a count in {what} {wrong[0]}, and there are {number}, numbered from 0 on")


def _check_counts(path: Path, peaks: pd.Index, columns: NDArray[np.int64], values: NDArray[Any]) -> None:
    amounts = values.astype(np.float64)
    wrong = ~np.isfinite(amounts) | (amounts < 0) | (amounts > _MOST) | (amounts != np.floor(amounts))
    if wrong.any():
        first = np.flatnonzero(wrong)[0]
        what = f"X holds {values[first]} (in {peaks[columns[first]]}), and counts are whole numbers from 0 on"
        remedy = "Put raw counts into X (for example adata.X = adata.layers['counts']) and write it again."
        raise UserError(problem(path, what, remedy))
