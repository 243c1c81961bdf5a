"""ATAC-seq per cell type: which file belongs to which, and which regions are accessible with what signal.

Peaks make a region accessible by where they lie (`accessible_regions`), counts by how many there are
(`count_signal`). Both give values per million of the cell type's signal in training regions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import bioframe
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.errors import Problems, UserError, problem
from genebert.inputs.windows import WindowIndex

_ENDINGS = tuple(f"{kind}{packed}" for kind in (".narrowPeak", ".broadPeak", ".bed") for packed in ("", ".gz"))
PEAK_SUFFIXES = (*_ENDINGS, *(f"{macs}{ending}" for macs in ("_peaks", "_summits") for ending in _ENDINGS))
"""MACS adds its own words to the names that it is given; they are no part of a cell type."""
BIGWIG_SUFFIXES = (".bw", ".bigWig")


def find_files(paths: Sequence[Path], suffixes: Sequence[str], option: str) -> dict[str, Path]:
    """Name the cell types of files.

    Args:
        paths: files, or folders of which the files with one of the suffixes are taken.
        suffixes: how such files end, in any case.
        option: where the user named the paths, for errors.

    Returns:
        cell type -> file, sorted by name; see `cell_type_of`.

    Raises:
        UserError: a path does not exist, a folder holds no such file, a file names no cell type, or two the
            same.
    """
    found = Problems(f"The files of {option} cannot be used:")
    files: dict[str, Path] = {}
    for path in paths:
        for member in _members(path, suffixes, option, found):
            name = cell_type_of(member, suffixes)
            if not name.strip():
                found.add(member, "its name leaves none for a cell type", f"Name it CELLTYPE{member.name}.")
            if name in files:
                what = f"cell type {name!r} is already given by {files[name]}"
                found.add(member, what, "Give each cell type one file.")
            files[name] = member
    found.raise_any()
    if not files:
        raise UserError(problem(option, "no cell type is given", f"Give at least one {_kinds(suffixes)} file."))
    return dict(sorted(files.items()))


def _members(path: Path, suffixes: Sequence[str], option: str, found: Problems) -> list[Path]:
    """Return a file itself, or the files of a folder."""
    if not path.exists():
        found.add(path, "no such file or folder", f"Check {option}.")
        return []
    if not path.is_dir():
        return [path]
    endings = tuple(suffix.lower() for suffix in suffixes)
    members = sorted(member for member in path.iterdir() if member.name.lower().endswith(endings))
    if not members:
        found.add(path, f"the folder holds no {_kinds(suffixes)} file", "Put one file per cell type there.")
    return members


def _kinds(suffixes: Sequence[str]) -> str:
    return " or ".join(f"*{suffix}" for suffix in suffixes if not suffix.endswith(".gz"))


def cell_type_of(path: Path, suffixes: Sequence[str]) -> str:
    """Return the cell type that a file's name stands for: the name up to its suffix."""
    for suffix in sorted(suffixes, key=len, reverse=True):
        if path.name.lower().endswith(suffix.lower()):
            return path.name[: -len(suffix)]
    return path.stem


def accessible_regions(
    regions: pd.DataFrame | WindowIndex, peaks: pd.DataFrame
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the regions that are accessible in one cell type, and their signal.

    A region is accessible if a peak has its summit in it, or covers its centre. Its signal is the highest of
    these peaks.

    Args:
        regions: n windows that do not overlap, or their DataFrame with chrom, start, end.
        peaks: DataFrame as `read_peaks` returns it, of one cell type; each summit lies in its peak.

    Returns:
        rows of the accessible regions, int64, ascending, shape (m,); their signal, float64, shape (m,).
    """
    index = WindowIndex.of(regions)
    codes = index.codes(peaks["chrom"])
    starts, ends, summits = (peaks[name].to_numpy(np.int64) for name in ("start", "end", "summit"))
    signal = peaks["signal"].to_numpy(np.float64)
    at_summit = index.locate_codes(codes, summits)
    peak, centred = index.centres_in(codes, starts, ends)
    highest = np.full(len(index), -np.inf)
    inside = at_summit >= 0
    np.maximum.at(highest, at_summit[inside], signal[inside])
    np.maximum.at(highest, centred, signal[peak])
    accessible = np.flatnonzero(highest > -np.inf)
    return accessible, highest[accessible]


def peaks_to_regions(peaks: pd.DataFrame, regions: pd.DataFrame | WindowIndex) -> NDArray[np.int64]:
    """Return the region that holds the centre of each peak, or -1: int64, shape (p,).

    The counts of a peak go to that one region, so that none counts twice.

    Args:
        peaks: DataFrame with chrom, start, end; p rows.
        regions: windows that do not overlap, or their DataFrame with chrom, start, end.
    """
    index = WindowIndex.of(regions)
    centres = (peaks["start"].to_numpy(np.int64) + peaks["end"].to_numpy(np.int64)) // 2
    return index.locate_codes(index.codes(peaks["chrom"]), centres)


def count_signal(
    counts: NDArray[np.float64] | NDArray[np.int64],
    training: NDArray[np.bool_],
    *,
    min_count: int = 0,
    min_cpm: float | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the regions that are accessible in one cell type by their counts (or coverage), and their values.

    A region is accessible if its counts are more than 0, at least `min_count`, and at least `min_cpm` per
    million (CPM). The million is of the cell type's counts in training regions: neither the threshold nor the
    values depend on held-out regions. Where there are none there, all regions stand in.

    Args:
        counts: of each region, not negative, shape (n,).
        training: bool, shape (n,): the region is on a training chromosome.
        min_count: fewest counts; leave it at 0 for coverage, whose scale says nothing.
        min_cpm: fewest counts per million; by default, the mean over the cell type's training regions.

    Returns:
        rows of the accessible regions, int64, ascending, shape (m,); log1p of their CPM, float32, shape (m,).
    """
    measured = training if counts[training].sum() > 0 else np.ones_like(training)
    cpm = 1e6 * counts / (counts[measured].sum() or 1)
    lowest = 1e6 / max(measured.sum(), 1) if min_cpm is None else min_cpm
    accessible = np.flatnonzero((counts > 0) & (counts >= min_count) & (cpm >= lowest))
    return accessible, np.log1p(cpm[accessible]).astype(np.float32)


def per_million(signal: NDArray[np.float64], training: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return log1p of signal per million of a cell type's signal in training regions.

    The total is taken over training regions only, so that nothing of a held-out chromosome enters a
    normaliser. Where there is none, all regions stand in.

    Args:
        signal: float64, shape (m,), of the accessible regions of one cell type.
        training: bool, shape (m,): the region is on a training chromosome.
    """
    total = signal[training].sum() if signal[training].sum() > 0 else max(signal.sum(), 1.0)
    scaled: NDArray[np.float32] = np.log1p(1e6 * signal / total).astype(np.float32)
    return scaled


def drop_small(
    cells: Mapping[str, int], fragments: Mapping[str, int], min_cells: int, min_fragments: int
) -> tuple[list[str], dict[str, str]]:
    """Tell which cell types have enough cells and fragments.

    Args:
        cells: cell type -> number of its cells.
        fragments: cell type -> number of its fragments (of an h5ad, counts).
        min_cells: fewest cells.
        min_fragments: fewest fragments.

    Returns:
        cell types that have, sorted; and cell type -> what it has too few of, in words.
    """
    dropped: dict[str, str] = {}
    for name in sorted(cells):
        short = [
            f"{number[name]:,} {what} of at least {least:,}"
            for what, number, least in (("cells", cells, min_cells), ("fragments", fragments, min_fragments))
            if number[name] < least
        ]
        if short:
            dropped[name] = " and ".join(short)
    return [name for name in sorted(cells) if name not in dropped], dropped


def overlapping(windows: pd.DataFrame, intervals: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which windows overlap any of the intervals: bool, shape (n,)."""
    if len(intervals) == 0 or windows.empty:
        return np.zeros(len(windows), dtype=bool)
    counted = bioframe.count_overlaps(windows[["chrom", "start", "end"]].reset_index(drop=True), intervals)
    return np.asarray(counted["count"] > 0)
