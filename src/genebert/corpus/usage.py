"""TF usage of cell types: how much evidence of each motif their accessible regions hold, on average.

A region must not tell of itself. So the usage that goes with a window is that of the accessible regions on other
chromosomes: the training chromosomes are divided into parts of similar length, and the part in which a window lies
is left out, whether the window is accessible or not. Where all training regions lie in one part, nothing would be left
for windows in it, and no usage can be told: it is the same then for all cell types and windows.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genebert.schema import parent_of

if TYPE_CHECKING:
    from genebert.corpus.store import Corpus

PARTS = 8
_ROWS = 1 << 13
"""Regions looked at together; so few that sums of evidence are exact in float32."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Usage:
    """TF usage of the cell types of a corpus; c of them, m motifs.

    Attributes:
        part: of each chromosome, in the order of `Corpus.chromosome_index`: int64; `PARTS` for those that are held out,
            which are in no usage.
        mean: mean evidence of each motif over the accessible regions outside of each part, and last outside of none:
            float32, shape (PARTS + 1, c, m). Where there are none, it is `everywhere`.
        everywhere: the same over all training regions: float32, shape (PARTS + 1, m). Regions that cell types bring
            along that join the corpus later are none of them, so that what is known of the others stays as it is.
    """

    part: NDArray[np.int64]
    mean: NDArray[np.float32]
    everywhere: NDArray[np.float32]

    @classmethod
    def of(cls, corpus: "Corpus") -> "Usage":
        """Measure the cell types of a corpus."""
        part = _parts(corpus)
        chromosome = np.array([corpus.chromosome_index[chrom] for chrom in corpus.regions["chrom"]], dtype=np.int64)
        member = np.zeros((len(corpus.cell_types) + 1, len(chromosome)), dtype=bool)
        for i in range(len(corpus.cell_types)):
            member[i, corpus.accessible(i)] = True
        member[-1] = corpus.split == 0
        total, count = np.zeros((PARTS, len(member), len(corpus.motifs))), np.zeros((PARTS, len(member)))
        for i in range(PARTS):
            total[i], count[i] = evidence_sums(corpus, member & (part[chromosome] == i))
        total = np.concatenate([total.sum(axis=0) - total, total.sum(axis=0)[None]])
        count = np.concatenate([count.sum(axis=0) - count, count.sum(axis=0)[None]])[..., None]
        mean = (total / np.maximum(count, 1)).astype(np.float32)
        if not count[:, -1].all():
            mean[:] = mean[PARTS, -1]
        return cls(part, np.where(count > 0, mean, mean[:, -1:])[:, :-1], mean[:, -1])

    def at(self, corpus: "Corpus", cell_type: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the usage that goes with windows in cell types: float32, shape (b, m).

        Args:
            corpus: whose usage this is.
            cell_type: cell type index of each window, int64, shape (b,).
            position: place of each window's centre, as `Corpus.line_positions` gives it, int64, shape (b,).
        """
        return self.mean[self.part[corpus.chromosomes_at(position)], cell_type]


def evidence_sums(corpus: "Corpus", member: NDArray[np.bool_]) -> tuple[Numbers, NDArray[np.int64]]:
    """Return the summed evidence of groups of regions, float64, shape (groups, m), and their sizes, int64, (groups,).

    Args:
        corpus: the corpus.
        member: which regions are in which group: bool, shape (groups, n).
    """
    total = np.zeros((len(member), corpus.evidence.shape[1]))
    for begin in range(0, member.shape[1], _ROWS):
        block = slice(begin, begin + _ROWS)
        if member[:, block].any():
            total += member[:, block].astype(np.float32) @ corpus.evidence[block].astype(np.float32)
    return total, member.sum(axis=1)


def _parts(corpus: "Corpus") -> NDArray[np.int64]:
    """Return the part of each chromosome; see `Usage`. It depends on lengths alone, not on what is accessible.

    Alternative sequences of a chromosome, which hold what it holds, are in its part.
    """
    part = np.full(len(corpus.lengths), PARTS, dtype=np.int64)
    filled = [0] * PARTS
    of_chromosome: dict[str, int] = {}
    names = sorted(corpus.lengths, key=lambda name: (-corpus.lengths[name], name))
    for name, split in zip(names, corpus.split_of(names), strict=True):
        if split == "train":
            own = of_chromosome.setdefault(parent_of(name), int(np.argmin(filled)))
            part[corpus.chromosome_index[name]] = own
            filled[own] += corpus.lengths[name]
    return part
