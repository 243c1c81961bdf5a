"""One block of regions: its sequence and what is computed from sequence alone. Pure, so that any worker can do it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.corpus.splits import sketch
from genebert.corpus.work import Arrays, Results, Work
from genebert.inputs.genome import Genome
from genebert.inputs.scan import Scanner
from genebert.schema import BASES

MOST_REGIONS = 4096
FEWEST_REGIONS = 64
_BLOCKS = 32
Shared = TypeVar("Shared")


@dataclass(frozen=True)
class Windows:
    """Windows of one width on one chromosome or several, in the order of the corpus.

    Attributes:
        chroms: name of each window's chromosome, shape (n,).
        starts: int64, shape (n,).
    """

    chroms: NDArray[np.str_]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, regions: pd.DataFrame) -> Self:
        """Return regions, a DataFrame with chrom and start, as windows to read."""
        return cls(regions["chrom"].to_numpy(dtype=str), regions["start"].to_numpy(np.int64))


@dataclass(frozen=True)
class BlockInputs:
    """What all blocks of a corpus are computed from.

    Attributes:
        genome: where sequence comes from.
        width: of a region, in bp.
        scanner: of the motif collection.
    """

    genome: Genome
    width: int
    scanner: Scanner


def block_size(regions: int) -> int:
    """Return how many regions make a block; it depends on nothing but their number, so that any run can resume."""
    return int(np.clip(-(-regions // _BLOCKS), FEWEST_REGIONS, MOST_REGIONS))


def map_blocks(
    regions: pd.DataFrame,
    work: Work,
    name: str,
    description: str,
    function: Callable[[Shared, Windows], Arrays],
    shared: Shared,
) -> Results:
    """Compute something of blocks of regions, DataFrame with chrom and start; see `Work.map`."""
    size = block_size(len(regions))
    count = -(-len(regions) // size)
    return work.map(
        name,
        description,
        function,
        shared,
        count,
        lambda i: Windows.of(regions.iloc[i * size : (i + 1) * size]),
    )


def build_block(inputs: BlockInputs, windows: Windows) -> Arrays:
    """Return sequence, uint8, shape (n, width); evidence, uint8, shape (n, motifs); ambiguous, int64, shape (1,)."""
    before = inputs.genome.ambiguous
    sequence = inputs.genome.fetch_all(windows.chroms, windows.starts, inputs.width)
    return {
        "sequence": sequence,
        "evidence": inputs.scanner.scan(sequence),
        "ambiguous": np.array([inputs.genome.ambiguous - before]),
    }


def sketch_block(inputs: tuple[Genome, int], windows: Windows) -> Arrays:
    """Return the sketches of windows: hashes, uint64, and where each window's end, hash_ends, int64, shape (n,)."""
    genome, width = inputs
    hashes, ends = sketch(genome.fetch_all(windows.chroms, windows.starts, width))
    return {"hashes": hashes, "hash_ends": ends}


def base_counts(inputs: tuple[Genome, int], windows: Windows) -> Arrays:
    """Return how often each base occurs in windows: counts, int64, shape (5,), in the order of `BASES`."""
    genome, width = inputs
    sequence = genome.fetch_all(windows.chroms, windows.starts, width)
    return {"counts": np.bincount(sequence.ravel(), minlength=len(BASES))}
