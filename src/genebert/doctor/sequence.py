"""The genome: which assembly it is, and what its sequence is made of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import bioframe
import numpy as np
from numpy.typing import NDArray

from genebert.doctor.finding import Finding, judge, percent
from genebert.errors import UserError, listed, problem
from genebert.inputs.genome import Genome, match_chromosomes
from genebert.schema import N, gc_fraction

ASSEMBLIES = (
    *("hg19", "hg38", "hs1", "mm9", "mm10", "mm39"),
    *("dm3", "dm6", "ce10", "ce11", "danRer10", "sacCer3"),
)
"""Those whose chromosome lengths come with bioframe; hs1 is T2T-CHM13v2."""
SAMPLE = 1000
"""Windows that stand for a genome or for a set of peaks: the mean GC of so many is known to 0.3 %."""
_MANY_N = 0.3


@dataclass(frozen=True)
class Composition:
    """What windows are made of.

    Attributes:
        n: fraction of N in each, float64, shape (windows,).
        gc: mean fraction of G and C in those with known bases, NaN if there are none.
        known: number of those.
    """

    n: NDArray[np.float64]
    gc: float
    known: int


def composition(codes: NDArray[np.uint8]) -> Composition:
    """Return what windows are made of, given their base codes, shape (windows, width)."""
    n = (codes == N).mean(axis=1)
    known = n < 0.5
    return Composition(n, float(gc_fraction(codes[known]).mean()) if known.any() else np.nan, int(known.sum()))


def sample_genome(genome: Genome, width: int) -> Composition:
    """Return the composition of windows at random places.

    Raises:
        UserError: all sequences are empty, or hold letters that are no nucleotides.
    """
    generator = np.random.default_rng(0)
    names, lengths = list(genome.lengths), np.array(list(genome.lengths.values()))
    if not lengths.any():
        raise UserError(problem(genome.path, "all of its sequences are empty", "Give a genome with sequence."))
    chosen = generator.choice(len(names), size=SAMPLE, p=lengths / lengths.sum())
    starts = (generator.random(SAMPLE) * np.maximum(lengths[chosen] - width, 0)).astype(np.int64)
    return composition(genome.fetch_all([names[i] for i in chosen], starts, width))


@cache
def known_assemblies() -> dict[str, dict[str, int]]:
    """Return assembly -> chromosome -> length in bp."""
    return {
        name: {str(chrom): int(length) for chrom, length in bioframe.fetch_chromsizes(name, provider="local").items()}
        for name in ASSEMBLIES
    }


def fitting_assemblies(ends: Mapping[str, int]) -> list[str]:
    """Return the assemblies that have all these chromosomes, with room for intervals that end there."""
    found = []
    for name, lengths in known_assemblies().items():
        mapped = match_chromosomes(ends, lengths)
        if len(mapped) == len(ends) and all(end <= lengths[mapped[chrom]] for chrom, end in ends.items()):
            found.append(name)
    return found


def examine_genome(genome: Genome, sample: Composition) -> Iterator[Finding]:
    """Look at the genome."""
    total = sum(genome.lengths.values())
    yield Finding("genome", "size", f"{len(genome.lengths):,} sequences, {total / 1e6:,.1f} Mb")
    yield _assembly(genome.lengths)
    share = float(sample.n.mean())
    yield judge(
        "genome",
        "sequence",
        f"{percent(share)} N; GC {percent(sample.gc)} (of {SAMPLE:,} random windows)",
        [
            (sample.known == 0, "wrong", "Give a genome with sequence."),
            (
                share > _MANY_N,
                "look",
                "Regions in N are left out. If repeats were replaced by N, give the soft-masked genome, which keeps "
                "them in lower case; if the file holds parts of a genome only, nothing is to be done.",
            ),
        ],
    )


def _assembly(lengths: Mapping[str, int]) -> Finding:
    """Tell the assembly by the lengths of chromosomes."""
    same: dict[str, list[str]] = {}
    other: dict[str, list[str]] = {}
    for name, known in known_assemblies().items():
        mapped = match_chromosomes(lengths, known)
        same[name] = [chrom for chrom, target in mapped.items() if lengths[chrom] == known[target]]
        other[name] = [chrom for chrom, target in mapped.items() if lengths[chrom] != known[target]]
    best = max(map(len, same.values()))
    names = [name for name in same if len(same[name]) == best]
    if not best:
        return Finding("genome", "assembly", f"none of those known here ({', '.join(ASSEMBLIES)})")
    name = names[0]
    differing = [chrom for chrom in other[name] if chrom.removeprefix("chr") not in {"M", "MT"}]
    found = f"{' or '.join(names)}, by the lengths of {best} of its {len(known_assemblies()[name])} chromosomes"
    return judge(
        "genome",
        "assembly",
        found + (f"; {listed(differing)} differ" if differing else ""),
        [(bool(differing), "look", "Check that the file is complete, and of one assembly.")],
    )
