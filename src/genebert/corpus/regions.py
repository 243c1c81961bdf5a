"""From the candidate peaks of one chromosome to its regions; large chromosomes are tasks of their own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.corpus.consensus import best_windows
from genebert.corpus.work import Arrays, Results, Work
from genebert.inputs.accessibility import overlapping
from genebert.inputs.genome import Genome

DROPPED = ("crossing a chromosome's end", "overlapping the blacklist", "too many N")
"""Why a window is no candidate, in the order in which the reasons are looked at."""
PEAKS_PER_TASK = 20_000


@dataclass(frozen=True)
class Rules:
    """What makes a window a candidate.

    Attributes:
        genome: where sequence comes from.
        blacklist: DataFrame with chrom, start, end.
        width: of a region, in bp.
        max_n_fraction: a window with a larger fraction of N is dropped.
        taken: DataFrame with chrom, start, end: regions that are there already, which no window may overlap.
    """

    genome: Genome
    blacklist: pd.DataFrame
    width: int
    max_n_fraction: float
    taken: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"chrom": [], "start": [], "end": []}))


@dataclass(frozen=True)
class ChromosomePeaks:
    """Candidate peaks of all peak sets on one chromosome; n of them.

    Attributes:
        code: index of the chromosome in the sorted names.
        chrom: its name.
        summit: int64, shape (n,).
        score: float64, shape (n,); ranks peaks within their set.
        peak_set: index of each peak's set, int64, shape (n,).
        late: bool, shape (n,): only held-out cell types have the peak.
    """

    code: int
    chrom: str
    summit: NDArray[np.int64]
    score: NDArray[np.float64]
    peak_set: NDArray[np.int64]
    late: NDArray[np.bool_]


def find_regions(
    rules: Rules, peaks: Results, late: NDArray[np.bool_], work: Work
) -> tuple[pd.DataFrame, NDArray[np.bool_], dict[str, int]]:
    """Choose the regions of all chromosomes.

    Args:
        rules: what makes a window a candidate.
        peaks: one result per peak set, as `genebert.corpus.signal.Source.candidates` describes them.
        late: bool, shape (sets,): see `peaks_of_chromosome`.
        work: computes.

    Returns:
        DataFrame with chrom, start, end, sorted by chromosome and start, n rows; which of them are there for held-out
        cell types only, bool, shape (n,); and how many windows were dropped for each of `DROPPED`.
    """
    chromosomes, opened = sorted(rules.genome.lengths), list(peaks)
    groups = groups_of_chromosomes(opened, len(chromosomes))
    results = work.map(
        "regions",
        "finding regions",
        regions_of_chromosomes,
        rules,
        len(groups),
        lambda i: [peaks_of_chromosome(opened, code, chromosomes[code], late) for code in groups[i]],
    )
    dropped = dict(zip(DROPPED, np.sum([result["dropped"] for result in results], axis=0).tolist(), strict=True))
    codes, starts, late_regions = (
        np.concatenate([result[name] for result in results]) for name in ("chrom", "start", "late")
    )
    regions = pd.DataFrame({"chrom": np.array(chromosomes)[codes], "start": starts})
    return regions.assign(end=regions["start"] + rules.width), late_regions, dropped


def groups_of_chromosomes(peaks: Sequence[Arrays], chromosomes: int) -> list[list[int]]:
    """Put chromosomes together that are a task: those without peaks are left out, small scaffolds share one.

    Args:
        peaks: one result per peak set, as `genebert.corpus.signal.Source.candidates` describes them.
        chromosomes: how many the genome has.

    Returns:
        codes of the chromosomes of each task, ascending; they depend on nothing but the peaks.
    """
    counts = np.sum([np.bincount(found["chrom"], minlength=chromosomes) for found in peaks], axis=0)
    groups: list[list[int]] = []
    held = PEAKS_PER_TASK
    for code in np.flatnonzero(counts).tolist():
        if held >= PEAKS_PER_TASK:
            groups.append([])
            held = 0
        groups[-1].append(code)
        held += int(counts[code])
    return groups


def peaks_of_chromosome(peaks: Sequence[Arrays], code: int, chrom: str, late: NDArray[np.bool_]) -> ChromosomePeaks:
    """Collect the peaks on a chromosome.

    Args:
        peaks: one result per peak set, as `genebert.corpus.signal.Source.candidates` describes them.
        code: index of the chromosome in the sorted names.
        chrom: its name.
        late: bool, shape (sets,): the set is of a held-out cell type. A set may tell it peak by peak, as `late`.
    """
    summits, scores, sets, lates = [], [], [], []
    for index, found in enumerate(peaks):
        rows = slice(*np.searchsorted(found["chrom"], [code, code + 1]))
        summits.append(found["summit"][rows])
        scores.append(found["score"][rows])
        sets.append(np.full(len(summits[-1]), index))
        lates.append(found["late"][rows] if "late" in found else np.full(len(summits[-1]), late[index]))
    return ChromosomePeaks(code, chrom, *map(np.concatenate, (summits, scores, sets, lates)))


def regions_of_chromosomes(rules: Rules, group: Sequence[ChromosomePeaks]) -> Arrays:
    """Return the regions of some chromosomes, one after the other.

    Returns:
        chrom: int32, the chromosome's code; start: int64, ascending on each; late: bool, the region is there for
        held-out cell types only; dropped: int64, shape (3,), how many windows were dropped for each of `DROPPED`.
    """
    found = [regions_of_chromosome(rules, peaks) for peaks in group]
    codes = [np.full(len(one["start"]), peaks.code, dtype=np.int32) for one, peaks in zip(found, group, strict=True)]
    return {
        "chrom": np.concatenate(codes),
        "start": np.concatenate([one["start"] for one in found]),
        "late": np.concatenate([one["late"] for one in found]),
        "dropped": np.sum([one["dropped"] for one in found], axis=0),
    }


def regions_of_chromosome(rules: Rules, peaks: ChromosomePeaks) -> Arrays:
    """Return the regions of one chromosome, as `regions_of_chromosomes` does, but for its code."""
    start = peaks.summit - rules.width // 2
    reason = _reasons(rules, peaks.chrom, start)
    taken = rules.taken[rules.taken["chrom"] == peaks.chrom]
    candidate = (reason == len(DROPPED)) & ~overlapping(_windows(peaks.chrom, start, rules.width), taken)
    columns = start, peaks.score, peaks.peak_set, peaks.late
    found = best_windows(*columns, candidate, rules.width)
    early = best_windows(*columns, candidate & ~peaks.late, rules.width)
    dropped = np.bincount(reason, minlength=len(DROPPED) + 1)[: len(DROPPED)]
    return {"start": found, "late": ~np.isin(found, early), "dropped": dropped}


def _windows(chrom: str, start: NDArray[np.int64], width: int) -> pd.DataFrame:
    return pd.DataFrame({"chrom": chrom, "start": start, "end": start + width})


def _reasons(rules: Rules, chrom: str, start: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of the first of `DROPPED` that holds for each window; their number if none does."""
    end = start + rules.width
    crossing = (start < 0) | (end > rules.genome.lengths[chrom])
    listed = overlapping(_windows(chrom, start, rules.width), rules.blacklist)
    unknown = np.zeros(len(start), dtype=bool)
    rest = np.flatnonzero(~crossing & ~listed)
    unknown[rest] = rules.genome.count_n(chrom, start[rest], end[rest]) > rules.max_n_fraction * rules.width
    return np.select([crossing, listed, unknown], [0, 1, 2], default=len(DROPPED))
