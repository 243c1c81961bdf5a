"""Consensus regions over cell types: fixed width, summit-centred, without overlaps.

The iterative overlap removal is that of ArchR (Granja et al. 2021, Nat Genet 53:403) and Corces et al. (2018,
Science 362:eaav1898): peaks of all cell types become windows of one width around their summits; the window
with the best score is kept, all that overlap it are removed, and so on. Scores of different cell types differ
in scale (depth), so that each peak is ranked by its quantile within its cell type, chromosome by chromosome:
no peak of a held-out chromosome has a say in which training regions are kept. Ties go to the earlier cell
type (by name), then to the lower coordinate.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.inputs.accessibility import overlapping
from genebert.inputs.genome import Genome
from genebert.schema import N


def candidate_windows(peaks: Mapping[str, pd.DataFrame], width: int) -> pd.DataFrame:
    """Return the windows that compete to become regions.

    Args:
        peaks: cell type -> DataFrame as `read_peaks` returns it.
        width: of a window, in bp.

    Returns:
        DataFrame with chrom, start, end, quantile (0 to 1, of the score within cell type and chromosome) and
        cell_type (its index).
    """
    tables = []
    for index, table in enumerate(peaks.values()):
        start = table["summit"] - width // 2
        quantile = table.groupby("chrom")["score"].rank(method="max", pct=True)
        tables.append(
            pd.DataFrame(
                {
                    "chrom": table["chrom"],
                    "start": start,
                    "end": start + width,
                    "quantile": quantile,
                    "cell_type": index,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def filter_windows(
    windows: pd.DataFrame, genome: Genome, blacklist: pd.DataFrame, max_n_fraction: float
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Drop windows that cross a chromosome's end, overlap the blacklist or hold too many N.

    Returns:
        the windows kept, and reason -> number dropped.
    """
    length = windows["chrom"].map(genome.lengths)
    crossing = ((windows["start"] < 0) | (windows["end"] > length)).to_numpy()
    listed = overlapping(windows, blacklist) & ~crossing
    unknown = (n_fraction(windows, genome) > max_n_fraction) & ~crossing & ~listed
    dropped = {
        "crossing a chromosome's end": int(crossing.sum()),
        "overlapping the blacklist": int(listed.sum()),
        "too many N": int(unknown.sum()),
    }
    return windows[~(crossing | listed | unknown)].reset_index(drop=True), dropped


def n_fraction(windows: pd.DataFrame, genome: Genome) -> NDArray[np.float64]:
    """Return the fraction of N in each window: float64, shape (n,); beyond a chromosome's end all is N."""
    fraction = np.ones(len(windows))
    for chrom, rows in windows.groupby("chrom", sort=True).indices.items():
        length = genome.lengths[str(chrom)]
        counts = np.concatenate([[0], np.cumsum(genome.fetch(str(chrom), 0, length) != N, dtype=np.int32)])
        start = windows["start"].to_numpy()[rows]
        end = windows["end"].to_numpy()[rows]
        known = counts[np.clip(end, 0, length)] - counts[np.clip(start, 0, length)]
        fraction[rows] = 1 - known / (end - start)
    return fraction


def remove_overlaps(windows: pd.DataFrame, width: int) -> pd.DataFrame:
    """Keep the best window, remove all that overlap it, and repeat.

    Args:
        windows: DataFrame as `candidate_windows` returns it; all of one width.
        width: that width, in bp.

    Returns:
        DataFrame with chrom, start, end of the windows kept, sorted by chromosome and start, index 0 .. n -
        1.
    """
    ranked = windows.sort_values(
        ["quantile", "cell_type", "chrom", "start"], ascending=[False, True, True, True], kind="stable"
    )
    kept: list[bool] = []
    starts_in_bin: dict[tuple[str, int], int] = {}  # bins as wide as a window hold at most one kept start each
    for chrom, start in zip(ranked["chrom"], ranked["start"], strict=True):
        place = start // width
        near = (starts_in_bin.get((chrom, place + step)) for step in (-1, 0, 1))
        free = all(other is None or abs(other - start) >= width for other in near)
        if free:
            starts_in_bin[chrom, place] = start
        kept.append(free)
    result = ranked.loc[np.array(kept, dtype=bool), ["chrom", "start", "end"]]
    return result.sort_values(["chrom", "start"]).reset_index(drop=True)
