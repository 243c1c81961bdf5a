"""ATAC-seq per cell type: which file belongs to which, and the signal of each region (pseudo-bulk)."""

from collections.abc import Sequence
from pathlib import Path

import bioframe
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.errors import Problems, UserError, problem

PEAK_SUFFIXES = (".narrowpeak", ".narrowpeak.gz", ".bed", ".bed.gz")


def find_cell_types(paths: Sequence[Path]) -> dict[str, Path]:
    """Name the cell types of peak files.

    Args:
        paths: files, or folders whose *.narrowPeak and *.bed files (gzip allowed) are taken.

    Returns:
        cell type -> file, sorted by name; a cell type is named by its file name up to the suffix.

    Raises:
        UserError: a path does not exist, a folder holds no peak file, or two files name the same cell type.
    """
    found = Problems("The peak files cannot be used:")
    files: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            found.add(path, "no such file or folder", "Check --peaks.")
            continue
        members = (
            sorted(p for p in path.iterdir() if p.name.lower().endswith(PEAK_SUFFIXES)) if path.is_dir() else [path]
        )
        if not members:
            found.add(path, "the folder holds no *.narrowPeak or *.bed file", "Put one file per cell type there.")
        for member in members:
            name = cell_type_of(member)
            if name in files:
                found.add(
                    member,
                    f"cell type {name!r} is already given by {files[name]}",
                    "Give each cell type one file.",
                )
            files[name] = member
    found.raise_any()
    if not files:
        raise UserError(problem("--peaks", "no cell type is given", "Give at least one narrowPeak or BED file."))
    return dict(sorted(files.items()))


def cell_type_of(path: Path) -> str:
    """Return the cell type that a peak file's name stands for."""
    for suffix in sorted(PEAK_SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def accessible_regions(regions: pd.DataFrame, peaks: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the regions that are accessible in one cell type, and their signal.

    A region is accessible if a peak has its summit in it, or covers its centre. Its signal is the highest of
    these peaks.

    Args:
        regions: DataFrame with chrom, start, end; n rows, index 0 .. n - 1.
        peaks: DataFrame as `read_peaks` returns it, of one cell type.

    Returns:
        indices of the accessible regions, int64, ascending, shape (m,); their signal, float64, shape (m,).
    """
    if peaks.empty:
        return np.empty(0, dtype=np.int64), np.empty(0)
    pairs = bioframe.overlap(
        regions[["chrom", "start", "end"]], peaks, how="inner", return_index=True, suffixes=("", "_peak")
    )
    centre = (pairs["start"] + pairs["end"]) // 2
    summit_inside = pairs["summit_peak"].between(pairs["start"], pairs["end"], inclusive="left")
    centre_covered = (pairs["start_peak"] <= centre) & (centre < pairs["end_peak"])
    kept = pairs[summit_inside | centre_covered]
    signal = kept.groupby(kept["index"].astype(np.int64))["signal_peak"].max().sort_index()
    return signal.index.to_numpy(np.int64), signal.to_numpy(np.float64)


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


def overlapping(windows: pd.DataFrame, intervals: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which windows overlap any of the intervals: bool, shape (n,)."""
    if len(intervals) == 0 or windows.empty:
        return np.zeros(len(windows), dtype=bool)
    counted = bioframe.count_overlaps(windows[["chrom", "start", "end"]].reset_index(drop=True), intervals)
    return np.asarray(counted["count"] > 0)
