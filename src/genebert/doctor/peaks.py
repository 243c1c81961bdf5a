"""Peaks: each file by itself, and against the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.doctor.finding import Finding, judge, percent
from genebert.doctor.sequence import SAMPLE, Composition, composition, fitting_assemblies
from genebert.errors import listed
from genebert.inputs.accessibility import overlapping
from genebert.inputs.genome import Genome
from genebert.inputs.intervals import Intervals

PLACE = 1000
"""Peaks whose summits share a stretch of so many bp are at one place."""
COLUMNS = 32
"""Regions per region matrix in the presets small and paper."""
_FEW, _MANY = 1000, 500_000
_BROAD, _NARROW = 2000, 50  # bp, of a median width
_MUCH_LISTED = 0.1
_FEW_AGAINST_OTHERS = 0.2
_LEAST_GC_EXCESS = 0.01
_LEAST_AGREEMENT = 0.1
_ALIKE = 0.95


@dataclass(frozen=True)
class Reference:
    """What peaks are held against.

    Attributes:
        genome: the genome.
        sample: composition of random windows of it.
        blacklist: DataFrame with chrom, start, end.
        width: of a region, in bp.
        max_n_fraction: a region with a larger fraction of N is dropped.
        skip_unknown: whether `prepare` will leave out peaks on chromosomes that the genome lacks.
    """

    genome: Genome
    sample: Composition
    blacklist: pd.DataFrame
    width: int
    max_n_fraction: float
    skip_unknown: bool


@dataclass(frozen=True)
class PeakSet:
    """What is kept of a file of peaks to hold it against others.

    Attributes:
        name: the cell type or peak set.
        digest: equal for equal sets of intervals.
        number: of peaks.
        places: the distinct places on the genome, ascending, as the numbers of `place_offsets`: int64.
    """

    name: str
    digest: int
    number: int
    places: NDArray[np.int64]


def place_offsets(lengths: Mapping[str, int]) -> pd.Series:
    """Return the number of the first place of each chromosome, and after the last ("") that of all places."""
    numbers = [length // PLACE + 1 for length in lengths.values()]
    return pd.Series(np.cumsum([0, *numbers]), index=[*lengths, ""])


def places_per_chromosome(places: NDArray[np.int64], lengths: Mapping[str, int]) -> NDArray[np.int64]:
    """Return the number of the places on each chromosome: int64, in the order of `lengths`."""
    return np.diff(np.searchsorted(places, place_offsets(lengths)))


def summarise(name: str, peaks: pd.DataFrame, lengths: Mapping[str, int]) -> PeakSet:
    """Return what is kept of peaks."""
    rows = pd.util.hash_pandas_object(peaks[["chrom", "start", "end"]], index=False)
    first = peaks["chrom"].map(place_offsets(lengths)).to_numpy(np.int64)
    inside = np.minimum(peaks["summit"].to_numpy(np.int64), peaks["chrom"].map(dict(lengths)).to_numpy(np.int64))
    return PeakSet(name, int(rows.sum()), len(peaks), np.unique(first + inside // PLACE))


def examine_peaks(subject: str, peaks: Intervals, reference: Reference) -> Iterator[Finding]:
    """Look at one file of peaks.

    Args:
        subject: what findings are about.
        peaks: as `read_peaks` returns them, with what lies beyond the genome.
        reference: what they are held against.
    """
    table = peaks.table
    yield _names(subject, peaks, reference)
    yield _ends(subject, table, reference.genome.lengths)
    yield judge(
        subject,
        "number",
        f"{len(table):,}",
        [
            (len(table) < _FEW, "look", "So few say little of a cell type: check that the file is whole."),
            (len(table) > _MANY, "look", "So many are rarely real: filter by q-value, or check the peak caller."),
        ],
    )
    yield _repeats(subject, peaks)
    yield _order(subject, table)
    yield _widths(subject, table)
    yield _scores(subject, table)
    if len(reference.blacklist):
        share = float(overlapping(table, reference.blacklist).mean())
        remedy = "They are left out. Real peaks seldom lie there: check the assembly of peaks and blacklist."
        found = f"{percent(share)} of the peaks overlap it"
        yield judge(subject, "blacklist", found, [(share > _MUCH_LISTED, "look", remedy)])
    yield from _sequence(subject, table, reference)


def _names(subject: str, peaks: Intervals, reference: Reference) -> Finding:
    skipped = sum(peaks.skipped.values())
    if not skipped:
        return Finding(subject, "chromosome names", "all are in the genome")
    share = skipped / (skipped + len(peaks.table))
    return judge(
        subject,
        "chromosome names",
        f"the genome lacks {listed(peaks.skipped)}, with {skipped:,} peaks ({percent(share)})",
        [
            (
                not reference.skip_unknown,
                "wrong",
                "Use one naming (chr1 or 1) throughout a file, and the assembly of the genome; "
                "or leave these peaks out by --skip-unknown-chromosomes.",
            ),
            (share > 0.02, "look", "Check that genome and peaks are of the same assembly."),
        ],
    )


def _ends(subject: str, peaks: pd.DataFrame, lengths: Mapping[str, int]) -> Finding:
    beyond = (peaks["end"] > peaks["chrom"].map(dict(lengths))).to_numpy()
    if not beyond.any():
        return Finding(subject, "chromosome ends", "no peak lies beyond one")
    fitting = fitting_assemblies(peaks.groupby("chrom")["end"].max().to_dict())
    which = f"; the peaks fit {' or '.join(fitting)}" if fitting else ""
    found = f"{int(beyond.sum()):,} peaks ({percent(beyond.mean())}) lie beyond one{which}"
    return Finding(subject, "chromosome ends", found, "wrong", "Use the genome that the peaks were called on.")


def _repeats(subject: str, peaks: Intervals) -> Finding:
    share = peaks.duplicates / (peaks.duplicates + len(peaks.table))
    remedy = "They count once; check how the file was put together."
    return judge(subject, "repeats", f"{peaks.duplicates:,} rows repeat another", [(share > 0.01, "look", remedy)])


def _order(subject: str, peaks: pd.DataFrame) -> Finding:
    chrom, _ = pd.factorize(peaks["chrom"])  # numbered as they appear
    step = np.diff(chrom)
    unsorted = (step < 0) | ((step == 0) & (np.diff(peaks["start"]) < 0))
    remedy = "No order is needed; but files that were lifted over or edited lose it: check the assembly."
    found = "not sorted by chromosome and start" if unsorted.any() else "sorted"
    return judge(subject, "order", found, [(bool(unsorted.any()), "look", remedy)])


def _widths(subject: str, peaks: pd.DataFrame) -> Finding:
    widths = (peaks["end"] - peaks["start"]).to_numpy()
    low, median, high = np.quantile(widths, [0.05, 0.5, 0.95])
    one = len(widths) > 1 and widths.min() == widths.max()
    return judge(
        subject,
        "width",
        f"{widths[0]:,} bp each" if one else f"median {median:,.0f} bp, 90 % in {low:,.0f} to {high:,.0f}",
        [
            (
                bool(median > _BROAD),
                "look",
                "These are broad or merged peaks, of which a region covers only the middle; call narrow peaks.",
            ),
            (bool(median < _NARROW), "look", "These are rather summits or sites; give the peaks themselves."),
            (
                bool(one),
                "look",
                "Peaks of one width were resized, as ArchR does, which is fine; bins of a genome are no peaks.",
            ),
        ],
    )


def examine_summits(subject: str, peaks: pd.DataFrame) -> Finding:
    """Look at the summits of peaks."""
    width = peaks["end"] - peaks["start"]
    given = bool((peaks["summit"] != peaks["start"] + width // 2).any())
    resized = bool(width.min() == width.max())
    found = "given" if given else "not given: the middle stands in"
    remedy = "Regions are centred on summits; narrowPeak files of MACS give them."
    return judge(subject, "summits", found, [(not given and not resized, "look", remedy)])


def examine_signal(subject: str, peaks: pd.DataFrame) -> Finding:
    """Look at the signal of peaks."""
    signal = peaks["signal"].to_numpy(np.float64)
    highest = float(signal.max())
    flat = len(signal) > 1 and bool(signal.min() == highest)
    return judge(
        subject,
        "signal",
        f"all {highest:g}" if flat else f"median {np.median(signal):.3g}, highest {highest:.3g}",
        [
            (flat, "look", "All regions of the cell type will look alike; narrowPeak and BED scores tell them apart."),
            (
                len(signal) > 100 and highest > 0.05 * float(signal.sum()),
                "look",
                "One peak has more than 5 % of all signal: it is likely an artefact; give a --blacklist.",
            ),
        ],
    )


def _scores(subject: str, peaks: pd.DataFrame) -> Finding:
    """Look at what ranks peaks."""
    score, width = peaks["score"], peaks["end"] - peaks["start"]
    within = len(score) > 20 and bool(((score % 1 == 0) & (score >= 0) & (score < width)).all())
    offsets = within and score.nunique() > 10 and bool(0.3 < (score / width).median() < 0.7)
    found = f"median {score.median():.3g}, highest {score.max():.3g}"
    remedy = (
        "Column 5 of a BED file is the score, and this one looks like the offset of the summit; "
        "write a narrowPeak file, with the signal in column 7 and the offset in column 10."
    )
    where = ", whole numbers inside each peak's width" if offsets else ""
    return judge(subject, "score", found + where, [(offsets, "wrong", remedy)])


def _sequence(subject: str, peaks: pd.DataFrame, reference: Reference) -> Iterator[Finding]:
    """Look at the sequence of a sample of peaks."""
    chosen = peaks.iloc[np.sort(np.random.default_rng(0).permutation(len(peaks))[:SAMPLE])]
    starts = (chosen["summit"] - reference.width // 2).to_numpy(np.int64)
    made = composition(reference.genome.fetch_all(chosen["chrom"], starts, reference.width))
    empty = float((made.n > reference.max_n_fraction).mean())
    yield judge(
        subject,
        "N",
        f"{percent(empty)} of {len(chosen):,} peaks have more than {percent(reference.max_n_fraction)} N around them",
        [
            (empty > 0.5, "wrong", "The genome has no sequence there: use the assembly of the peaks, unmasked."),
            (empty > 0.05, "look", "They are left out; check that the genome is that of the peaks, and unmasked."),
        ],
    )
    if made.known and reference.sample.known:
        excess = made.gc - reference.sample.gc
        remedy = (
            "Accessible DNA is richer in GC than the rest in most species. If it is in this one, "
            "the peaks may be of another assembly, or not of ATAC-seq."
        )
        found = f"{percent(made.gc)}, and {percent(reference.sample.gc)} in the genome"
        yield judge(subject, "GC", found, [(excess < _LEAST_GC_EXCESS, "look", remedy)])


def examine_sets(sets: Sequence[PeakSet], lengths: Mapping[str, int]) -> Iterator[Finding]:
    """Hold the peaks of two or more cell types against each other."""
    shared = _shared_places(sets, int(place_offsets(lengths).iloc[-1]))
    agreement = _agreement(shared, int(place_offsets(lengths).iloc[-1]))
    apart = agreement[~np.eye(len(sets), dtype=bool)]
    yield Finding("cell types", "overlap of two", f"{percent(apart.min())} to {percent(apart.max())} beyond chance")
    typical = float(np.median([one.number for one in sets]))
    for row, one in enumerate(sets):
        twins = [other.name for other in sets if other.digest == one.digest and other.name != one.name]
        alike = [sets[i].name for i in np.flatnonzero(_jaccard(shared, row) > _ALIKE).tolist() if i != row]
        best = float(np.delete(agreement[row], row).max())
        yield judge(
            f"peaks: {one.name}",
            "against others",
            f"{one.number / typical:.2g} times the median number; {percent(best)} overlap at most, beyond chance"
            + (
                f"; the same peaks as {listed(twins)}"
                if twins
                else f"; nearly those of {listed(alike)}"
                if alike
                else ""
            ),
            [
                (bool(twins), "wrong", "The same file is given twice: leave one out, or give the right one."),
                (bool(alike), "look", "Check that these are not the same sample."),
                (
                    best < _LEAST_AGREEMENT,
                    "look",
                    "The cell type shares hardly a place with any other: check assembly and file.",
                ),
                (
                    one.number < _FEW_AGAINST_OTHERS * typical,
                    "look",
                    "Its sequencing may be shallow: what is missing is learnt as closed.",
                ),
            ],
        )


def _shared_places(sets: Sequence[PeakSet], total: int) -> NDArray[np.float64]:
    """Return the number of places that each two sets share: float64, shape (sets, sets)."""
    shared = np.zeros((len(sets), len(sets)))
    step = 1 << 18
    for begin in range(0, total, step):
        held = np.zeros((len(sets), step), dtype=np.float32)
        for row, one in enumerate(sets):
            inside = slice(*np.searchsorted(one.places, [begin, begin + step]))
            held[row, one.places[inside] - begin] = 1
        shared += held @ held.T
    return shared


def _agreement(shared: NDArray[np.float64], total: int) -> NDArray[np.float64]:
    """Return how far each two sets overlap beyond chance: 0 as random places would, 1 if one holds the other."""
    number = np.diag(shared)
    chance = np.outer(number, number) / total
    most = np.minimum.outer(number, number)
    return np.where(most > chance, (shared - chance) / np.maximum(most - chance, 1e-9), 1.0)


def _jaccard(shared: NDArray[np.float64], row: int) -> NDArray[np.float64]:
    number = np.diag(shared)
    return np.asarray(shared[row] / (number + number[row] - shared[row]))


def padded_fraction(regions_per_chromosome: NDArray[np.int64]) -> float:
    """Return the fraction of a region matrix's columns that are padding, on average over a cell type's regions."""
    number = regions_per_chromosome
    return float((number * np.maximum(COLUMNS - number, 0)).sum() / (COLUMNS * max(number.sum(), 1)))
