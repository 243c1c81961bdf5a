"""Which regions of a corpus, and which other intervals, overlap."""

from pathlib import Path

import bioframe
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.inputs.intervals import read_bed


def regions_in(path: Path | None, corpus: Corpus) -> NDArray[np.bool_]:
    """Return which regions of a corpus overlap intervals of a BED file; all, if there is none: bool, shape (n,).

    Raises:
        UserError: the file cannot be read, does not fit the genome, or overlaps no region.
    """
    if path is None:
        return np.ones(len(corpus.regions), dtype=bool)
    found = best_overlaps(corpus.regions, read_bed(path, corpus.lengths).table) >= 0
    if not found.any():
        what = f"none of its intervals overlaps a region of the corpus {corpus.folder}"
        raise UserError(problem(path, what, "Choose from regions.tsv in it, or leave --regions out."))
    return found


def best_overlaps(peaks: pd.DataFrame, regions: pd.DataFrame) -> NDArray[np.int64]:
    """Return for each peak the row of the region that it shares most bases with, or -1: int64, shape (peaks,).

    Args:
        peaks, regions: DataFrames with chrom, start, end (0-based, half-open).
    """
    columns = ["chrom", "start", "end"]
    named = peaks[columns].reset_index(drop=True).assign(peak=np.arange(len(peaks)))
    others = regions[columns].reset_index(drop=True).assign(region=np.arange(len(regions)))
    pairs = bioframe.overlap(named, others, how="inner", suffixes=("", "_"))
    shared = np.minimum(pairs["end"], pairs["end_"]) - np.maximum(pairs["start"], pairs["start_"])
    order = np.lexsort([pairs["region_"], -shared, pairs["peak"]])
    best = pairs.iloc[order].drop_duplicates("peak")
    found = np.full(len(peaks), -1)
    found[best["peak"].to_numpy(np.int64)] = best["region_"].to_numpy(np.int64)
    return found
