"""What neighbouring 128 bp of a genome have in common: how near a simulated genome is to a real one.

    python benchmarks/composition.py simulated/genome.fa hg19.fa

Next genome segment prediction lives on what two neighbours share beyond their GC content; a genome whose windows are
drawn independently holds nothing to be learned.
"""

from pathlib import Path

import click
import numpy as np
from common import finish
from numpy.typing import NDArray

from genebert.inputs.genome import Genome
from genebert.schema import N

WIDTH = 128
Codes = NDArray[np.uint8]
Floats = NDArray[np.float64]


@click.command()
@click.argument("genomes", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--windows", default=20_000, help="pairs of neighbours, at random")
@click.option("--seed", default=0, help="seed of their choice")
def main(genomes: tuple[Path, ...], windows: int, seed: int) -> None:
    """Describe random pairs of neighbours: mean and standard deviation of each measure, and their correlation."""
    finish({"width": WIDTH, **{str(path): facts(pairs(path, windows, seed)) for path in genomes}})


def facts(both: Codes) -> dict[str, object]:
    first, second = (measures(both[:, half : half + WIDTH]) for half in (0, WIDTH))
    return {
        "pairs": len(both),
        **{
            name: {
                "mean": round(float(values.mean()), 3),
                "standard_deviation": round(float(values.std()), 3),
                "correlation_of_neighbours": round(float(np.corrcoef(values, second[name])[0, 1]), 3),
            }
            for name, values in first.items()
        },
    }


def measures(codes: Codes) -> dict[str, Floats]:
    """Return composition and dinucleotides, observed over expected, of windows of base codes, shape (n, WIDTH)."""
    a, c, g, t = ((codes == base).sum(axis=1) for base in range(4))

    def over(first: int, second: int) -> Floats:
        observed = ((codes[:, :-1] == first) & (codes[:, 1:] == second)).sum(axis=1)
        counts = a, c, g, t
        return np.asarray((observed + 0.5) / (counts[first] * counts[second] / WIDTH + 0.5))

    return {
        "GC content": (c + g) / WIDTH,
        "AT skew": (a - t) / (a + t + 1),
        "GC skew": (g - c) / (g + c + 1),
        "CpG": over(1, 2),
        "TpA": over(3, 0),
        "ApA or TpT": (over(0, 0) + over(3, 3)) / 2,
    }


def pairs(path: Path, count: int, seed: int) -> Codes:
    """Return windows of two neighbours, without N: uint8, shape (at most count, 2 * WIDTH)."""
    rng = np.random.default_rng(seed)
    with Genome(path) as genome:
        edges = np.concatenate([[0], np.cumsum(list(genome.lengths.values()))])
        places = np.sort(rng.integers(0, edges[-1], count))
        parts = []
        for (name, length), first in zip(genome.lengths.items(), edges, strict=False):
            starts = places[(places >= first) & (places <= first + length - 2 * WIDTH)] - first
            parts.append(genome.read_windows(name, starts, 2 * WIDTH))
    found = np.concatenate(parts)
    return found[(found < N).all(axis=1)]


if __name__ == "__main__":
    main()
