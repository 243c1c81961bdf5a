"""Windows on the genome: which of them can be used, and others to set against them.

Windows are DataFrames with chrom, start, end (0-based, half-open) and where it matters strand.
"""

from bisect import bisect_left

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.corpus.consensus import remove_overlapping
from genebert.inputs.accessibility import overlapping
from genebert.inputs.genome import Genome
from genebert.schema import N, gc_fraction, reverse_complement

MOST_N = 0.1
"""A window with a larger fraction of N is not used."""
CANDIDATES, LEAST_CANDIDATES = 100, 10_000
"""So many windows are looked at for each that is wanted, and at least so many of a chromosome."""
_ORDER = ("chrom", "start", "strand", "cell_type", "label")


def sort_windows(windows: pd.DataFrame) -> pd.DataFrame:
    """Return windows by chromosome and start."""
    by = [name for name in _ORDER if name in windows]
    return windows.sort_values(by, kind="stable", ignore_index=True)


def oriented_codes(genome: Genome, windows: pd.DataFrame) -> NDArray[np.uint8]:
    """Return the base codes of windows of one width, of the minus strand where `strand` is "-": uint8, (n, width).

    Raises:
        UserError: as `Genome.fetch`.
    """
    width = int((windows["end"] - windows["start"]).iloc[0]) if len(windows) else 0
    codes = genome.fetch_all(windows["chrom"], windows["start"].to_numpy(np.int64), width)
    if "strand" in windows:
        minus = (windows["strand"] == "-").to_numpy()
        codes[minus] = reverse_complement(codes[minus])
    return codes


def usable(windows: pd.DataFrame, genome: Genome, most_n: float = MOST_N) -> NDArray[np.bool_]:
    """Return which windows of one width lie inside their chromosome, with at most a fraction of N: bool, shape (n,)."""
    found = inside(windows, genome)
    known = windows[found]
    unknown = (oriented_codes(genome, known) == N).sum(axis=1)
    found[found] = unknown <= most_n * (known["end"] - known["start"])
    return found


def inside(windows: pd.DataFrame, genome: Genome) -> NDArray[np.bool_]:
    """Return which windows lie inside their chromosome: bool, shape (n,)."""
    found = (windows["start"] >= 0) & (windows["end"] <= windows["chrom"].map(genome.lengths))
    return found.to_numpy(copy=True)


def matched_windows(
    genome: Genome,
    windows: pd.DataFrame,
    avoid: pd.DataFrame,
    generator: np.random.Generator,
    *,
    ratio: float = 1.0,
    pool: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return other windows of the same chromosomes, alike in GC content; no two of them overlap.

    Without that likeness a task would be one of GC content, which differs between promoters, bound sites and the rest.

    Args:
        genome: where they lie.
        windows: of one width, n rows.
        avoid: intervals that none may overlap.
        generator: decides which windows are looked at.
        ratio: how many for each of the windows.
        pool: windows of that width, inside their chromosomes, to choose from; by default, the whole genome.

    Returns:
        DataFrame with chrom, start, end; on each chromosome `ratio` times as many as there are windows, or as many as
        can be had.
    """
    if windows.empty:
        return windows[["chrom", "start", "end"]]
    width = int((windows["end"] - windows["start"]).iloc[0])
    tables = []
    for name, rows in windows.groupby("chrom", sort=True):
        chrom, count = str(name), round(ratio * len(rows))
        if pool is None:
            starts = _tiles(genome.lengths[chrom], width, generator)
        else:
            starts = generator.permutation(pool.loc[pool["chrom"] == chrom, "start"].to_numpy(np.int64))
        starts = starts[~overlapping(_windows_at(chrom, starts, width), avoid[avoid["chrom"] == chrom])]
        if pool is not None:
            starts = remove_overlapping(starts, width)
        enough = max(CANDIDATES * count, LEAST_CANDIDATES)
        starts, gc = _known(genome, chrom, generator.permutation(starts), width, enough)
        of_windows = gc_fraction(genome.read_windows(chrom, rows["start"].to_numpy(np.int64), width))
        wanted = np.resize(generator.permutation(of_windows), count)
        tables.append(_windows_at(chrom, starts[nearest_unused(gc, wanted)], width))
    return pd.concat(tables, ignore_index=True)


def _windows_at(chrom: str, starts: NDArray[np.int64], width: int) -> pd.DataFrame:
    return pd.DataFrame({"chrom": chrom, "start": starts, "end": starts + width})


def _tiles(length: int, width: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the starts of windows side by side over a chromosome; where the first one lies is drawn at random."""
    first = int(generator.integers(0, min(width, max(length - width, 0) + 1)))
    return np.arange(first, length - width + 1, width, dtype=np.int64)


def _known(
    genome: Genome, chrom: str, starts: NDArray[np.int64], width: int, enough: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the first windows with little N, `enough` or a few more, and the GC content of each."""
    kept, gc = [np.empty(0, dtype=np.int64)], [np.empty(0)]
    for begin in range(0, len(starts), enough):
        part = starts[begin : begin + enough]
        codes = genome.read_windows(chrom, part, width)
        known = (codes == N).mean(axis=1) <= MOST_N
        kept.append(part[known])
        gc.append(gc_fraction(codes[known]))
        if sum(map(len, kept)) >= enough:
            break
    return np.concatenate(kept), np.concatenate(gc)


def nearest_unused(values: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each wanted value the index of the nearest value that no earlier one has taken: int64.

    Where values run out, the result is shorter.
    """
    order = np.argsort(values, kind="stable")
    free, index = values[order].tolist(), order.tolist()
    chosen = []
    for value in wanted[: len(values)].tolist():
        place = bisect_left(free, value)
        if place == len(free) or (place and value - free[place - 1] <= free[place] - value):
            place -= 1
        free.pop(place)
        chosen.append(index.pop(place))
    return np.array(chosen, dtype=np.int64)
