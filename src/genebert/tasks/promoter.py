"""Promoters: windows around transcription start sites against windows of the same GC content elsewhere."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.intervals import read_annotation
from genebert.schema import N, gc_fraction
from genebert.settings import LabelsSettings

DISTANCE = 1000
"""A negative window keeps this distance in bp from every transcription start site."""
CANDIDATES_PER_POSITIVE = 40
_MOST_N = 0.1


def promoter_windows(settings: LabelsSettings, corpus: Corpus, genome: Genome) -> pd.DataFrame:
    """Return windows from `upstream` bp before to `downstream` bp after transcription start sites, and as many
    negatives.

    A negative is drawn at random from the same chromosome, on a random strand, at least 1,000 bp from any start site,
    with the GC content of a positive; without that match the task would be one of GC content.

    Returns:
        DataFrame with chrom, start, end (0-based, half-open), strand, label (1 promoter, 0 not), split.

    Raises:
        UserError: no start sites are given or left.
    """
    if settings.tss is None:
        raise UserError(
            problem("--tss", "the task promoter needs transcription start sites", "Give a BED with strand.")
        )
    sites = read_annotation(settings.tss, genome.lengths).table
    if "strand" not in sites or not set(sites["strand"]) <= {"+", "-"}:
        raise UserError(problem(settings.tss, "transcription start sites need a strand in column 6, + or -", "Add it."))
    sites = sites.assign(site=np.where(sites["strand"] == "+", sites["start"], sites["end"] - 1))
    generator = np.random.default_rng(settings.seed)
    positives = _around(sites, settings, genome)
    negatives = [
        _matched_negatives(chrom, rows, sites, genome, generator)
        for chrom, rows in positives.groupby("chrom", sort=True)
    ]
    table = pd.concat([positives.assign(label=1), *negatives], ignore_index=True)
    return (
        table.assign(split=corpus.split_of(table["chrom"]))
        .sort_values(["chrom", "start", "label"])
        .reset_index(drop=True)
    )


def _around(sites: pd.DataFrame, settings: LabelsSettings, genome: Genome) -> pd.DataFrame:
    plus = sites["strand"] == "+"
    start = sites["site"] + np.where(plus, -settings.upstream, 1 - settings.downstream)
    width = settings.upstream + settings.downstream
    windows = pd.DataFrame({"chrom": sites["chrom"], "start": start, "end": start + width, "strand": sites["strand"]})
    windows = windows.drop_duplicates().reset_index(drop=True)
    inside = (windows["start"] >= 0) & (windows["end"] <= windows["chrom"].map(genome.lengths))
    windows = windows[inside].reset_index(drop=True)
    codes = genome.fetch_all(windows["chrom"], windows["start"].to_numpy(np.int64), width)
    known = (codes == N).mean(axis=1) <= _MOST_N
    if not known.any():
        raise UserError(
            problem(
                settings.tss,
                "no window around a start site lies on known sequence of the genome",
                "Check that the start sites and the genome are of the same assembly.",
            )
        )
    return windows[known].reset_index(drop=True)


def _matched_negatives(
    chrom: object, positives: pd.DataFrame, sites: pd.DataFrame, genome: Genome, generator: np.random.Generator
) -> pd.DataFrame:
    """Return one window per positive, of the candidate that is nearest in GC content; none is taken twice."""
    name = str(chrom)
    width = int(positives["end"].iloc[0] - positives["start"].iloc[0])
    starts = generator.integers(0, genome.lengths[name] - width + 1, size=CANDIDATES_PER_POSITIVE * len(positives))
    centres = np.sort(sites.loc[sites["chrom"] == name, "site"].to_numpy())
    starts = np.unique(starts[_distance(starts + width // 2, centres) >= DISTANCE + width // 2])
    starts = starts[np.concatenate([[True], np.diff(starts) >= width])] if len(starts) else starts
    codes = genome.fetch_all([name] * len(starts), starts, width)
    known = (codes == N).mean(axis=1) <= _MOST_N
    starts, gc = starts[known], gc_fraction(codes[known])
    wanted = gc_fraction(genome.fetch_all(positives["chrom"], positives["start"].to_numpy(np.int64), width))
    chosen = starts[_nearest_unused(gc, wanted)]
    strand = generator.choice(np.array(["+", "-"]), size=len(chosen))
    return pd.DataFrame({"chrom": name, "start": chosen, "end": chosen + width, "strand": strand, "label": 0})


def _distance(points: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distance of each point to the nearest target; targets ascend."""
    after = np.searchsorted(targets, points)
    left = np.abs(points - targets[np.clip(after - 1, 0, len(targets) - 1)])
    return np.minimum(left, np.abs(points - targets[np.clip(after, 0, len(targets) - 1)]))


def _nearest_unused(values: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each wanted value the index of the nearest value that no earlier one has taken."""
    free = np.ones(len(values), dtype=bool)
    chosen = []
    for value in wanted[: len(values)]:
        gap = np.where(free, np.abs(values - value), np.inf)
        best = int(gap.argmin())
        free[best] = False
        chosen.append(best)
    return np.array(chosen, dtype=np.int64)
