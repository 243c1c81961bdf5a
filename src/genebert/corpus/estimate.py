"""What a corpus will take, before the work starts: disk, memory and time on the machine at hand."""

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genebert.console import duration_of, size_of
from genebert.errors import ResumableError, problem
from genebert.inputs.scan import Scanner

_SAMPLE = 64
_BYTES_PER_EXAMPLE = 8
_TSV_BYTES = 32
_RESULTS = ("signal", "blocks")
"""Names of the results (see `Work.map`) of which `Estimate.scratch` is the size."""
_PROCESS = 300 << 20
_COORDINATOR_BYTES = {"region": 200, "example": 24, "count": 24}
"""Measured with `benchmarks/corpus.py scale`: what the process that collects results holds. A count is that of a (cell
type, region): 12 bytes if it is not 0, as in deep data most are not, and two of each while files are summed."""


@dataclass(frozen=True)
class Estimate:
    """What is needed.

    Attributes:
        regions, examples, motifs, workers: what the estimate is for.
        disk: bytes of the finished corpus.
        scratch: further bytes while it is made.
        memory: bytes of all processes together.
        seconds: of the scan, which takes most of the time.
    """

    regions: int
    examples: int
    motifs: int
    workers: int
    disk: int
    scratch: int
    memory: int
    seconds: float

    def rows(self) -> list[tuple[str, str]]:
        """Return the estimate in words: what, how much."""
        return [
            ("regions, examples, motifs", f"{self.regions:,}, {self.examples:,}, {self.motifs:,}"),
            ("on disk", f"{size_of(self.disk)}, and {size_of(self.scratch)} more while it is made"),
            ("memory", f"{size_of(self.memory)} in all processes together"),
            ("motif scan", f"{duration_of(self.seconds)} on {self.workers} cores like those of this machine"),
        ]

    def check_space(self, folder: Path, scratch: Path) -> None:
        """Refuse to start what cannot end.

        Args:
            folder: where the corpus is made.
            scratch: where results are kept meanwhile. What a killed run left in either needs no room again.

        Raises:
            ResumableError: the disk that holds the folder has too little free space.
        """
        free = shutil.disk_usage(folder).free
        kept = [file for kind in _RESULTS for file in scratch.glob(f"{kind}-*/*.npy")]
        needed = max(0, self.disk - _size(folder.glob("*.npy"))) + max(0, self.scratch - _size(kept))
        if free < needed:
            raise ResumableError(
                problem(
                    folder,
                    f"{size_of(needed)} more are needed, and {size_of(free)} are free",
                    "Choose an --out on another disk, or free space; what is done is kept.",
                )
            )


def estimate(
    regions: int, examples: int, width: int, scanner: Scanner, workers: int, *, cell_types: int, counted: bool
) -> Estimate:
    """Estimate what a corpus takes; the scan is timed on random sequence.

    Args:
        regions, examples: how many there will be.
        width: of a region, in bp.
        scanner: of the collection.
        workers: that scan at a time.
        cell_types: how many there are, dropped ones included.
        counted: the signal is summed over cells, so that the counts of all cell types are in memory at once.
    """
    motifs = len(scanner.motifs)
    arrays = regions * (width + motifs)
    block = 4 * (width + motifs) * 4096
    collected = regions * _COORDINATOR_BYTES["region"] + examples * _COORDINATOR_BYTES["example"]
    collected += counted * cell_types * regions * _COORDINATOR_BYTES["count"]
    return Estimate(
        regions,
        examples,
        motifs,
        workers,
        disk=arrays + examples * _BYTES_PER_EXAMPLE + regions * _TSV_BYTES,
        scratch=arrays + examples * _BYTES_PER_EXAMPLE,
        memory=_PROCESS + collected + (workers if workers > 1 else 0) * (_PROCESS + block),
        seconds=regions * _seconds_per_region(width, scanner) / workers,
    )


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _seconds_per_region(width: int, scanner: Scanner) -> float:
    codes = np.random.default_rng(0).integers(0, 4, size=(_SAMPLE, width), dtype=np.uint8)
    scanner.scan(codes[:1])  # the tables of p-values are made once
    rows = max(1, _SAMPLE * 1000 // max(1, len(scanner.motifs)))
    sample = np.resize(codes, (min(rows, 4096), width))
    began = time.perf_counter()
    scanner.scan(sample)
    return (time.perf_counter() - began) / len(sample)
