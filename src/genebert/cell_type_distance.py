"""How far a cell type's use of TFs is from that of known ones: a warning where predictions extrapolate.

TF usage of a cell type is the mean evidence of each motif over its accessible regions, standardised over all training
regions: how much richer in the motif they are than regions at large. A cell type that mixes what known ones do is no
extrapolation, so that its distance is that from the nearest mixture: from the convex hull of their usages, found by
non-negative least squares (Lawson & Hanson 1974, Solving Least Squares Problems, ch. 23). It is calibrated by leaving
out each known cell type in turn, and measuring its distance from the others.

Few regions are noisy: the mean of n regions scatters by a variance of 1 / n about the usage of the cell type. To a
left-out cell type with more regions than the one in question, the difference is added twice, since it varies itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from genebert.console import say
from genebert.corpus.store import Corpus
from genebert.corpus.training import evidence_moments
from genebert.corpus.usage import evidence_sums
from genebert.errors import UserError, problem

FILE = "cell_types.npz"
LEVEL = 0.05
FEWEST = 3
"""With fewer known cell types there is no telling how far they are from each other."""
COARSE = 10
"""With fewer known cell types, their distances are a coarse scale."""

_SAME = 1e-6
"""A cell type that is nearer is one of those that are known."""
_SCATTER = 2
_ARRAYS = ("usage", "regions", "mean", "deviation")

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Distance:
    """How far a cell type is from known ones.

    Attributes:
        cell_type: its name.
        distance: root mean square over the motifs, in standard deviations of their evidence over training regions.
        p: fraction of the known cell types and itself that are at least as far from the others, 1 / (known + 1) or
            more; None if fewer than 3 are known.
        nearest: the known cell type that is nearest by itself.
        known: number of known cell types.
    """

    cell_type: str
    distance: float
    p: float | None
    nearest: str
    known: int

    @property
    def unlike(self) -> bool:
        """Whether it is unlike the known ones: p is at most 0.05, or as low as it gets with few of them."""
        return self.p is not None and self.p <= max(LEVEL, 1 / (self.known + 1))

    def __str__(self) -> str:
        said = f"{self.cell_type}: its TF usage is {self.distance:.3f} from the {self.known} cell types trained on"
        if self.p is None:
            return f"{said}; they, or its own regions, are too few to say whether that is far"
        said += f" (p = {self.p:.2g}, nearest {self.nearest})"
        if not self.unlike:
            return f"{said}, as they are from each other"
        few = "" if self.known >= COARSE else "; they are few, so that this says little"
        return f"warning: {said}, farther than they are from each other: predictions may be wrong{few}"

    def to_json(self) -> dict[str, Any]:
        """Return the attributes, and whether it is unlike the known ones."""
        return {**vars(self), "unlike": self.unlike}


@dataclass(frozen=True)
class KnownCellTypes:
    """The TF usage of the cell types that a model was trained in; k of them, m motifs.

    Attributes:
        names: of the cell types.
        usage: float64, shape (k, m).
        regions: how many regions each is the mean of: int64, shape (k,).
        mean, deviation: of each motif's evidence over the training regions: float64, shape (m,).
    """

    names: list[str]
    usage: Numbers
    regions: NDArray[np.int64]
    mean: Numbers
    deviation: Numbers

    @classmethod
    def of(cls, corpus: Corpus, names: Sequence[str]) -> Self:
        """Measure cell types of a corpus, in its regions on training chromosomes; of no region, one tells nothing.

        Raises:
            UserError: the corpus has no such cell type.
        """
        mean, deviation = evidence_moments(corpus)
        deviation = np.where(deviation > 0, deviation, 1.0)
        usage, regions = _usage(corpus, corpus.cell_type_indices(names))
        some = regions > 0
        kept = [name for name, has in zip(names, some, strict=True) if has]
        return cls(kept, (usage[some] - mean) / deviation, regions[some], mean, deviation)

    @cached_property
    def left_out(self) -> Numbers:
        """Distance of each known cell type from the others: float64, shape (k,)."""
        rest = [np.arange(len(self.names)) != i for i in range(len(self.names))]
        return np.array([_distance(self.usage[i], self.usage[others]) for i, others in enumerate(rest)])

    def distances(self, corpus: Corpus, names: Sequence[str]) -> list[Distance]:
        """Return how far cell types of a corpus are from the known ones.

        Args:
            corpus: scanned for the same motifs in the same way.
            names: of cell types in it; one that is known has the distance 0.

        Raises:
            UserError: the corpus has no such cell type.
        """
        usage, regions = _usage(corpus, corpus.cell_type_indices(names))
        usage = (usage - self.mean) / self.deviation
        return [self._judge(name, usage[i], int(regions[i])) for i, name in enumerate(names)]

    def _judge(self, name: str, usage: Numbers, regions: int) -> Distance:
        distance = _distance(usage, self.usage)
        nearest = self.names[int(((self.usage - usage) ** 2).sum(axis=1).argmin())]
        known = len(self.names)
        if known < FEWEST or not regions:
            return Distance(name, distance, None, nearest, known)
        scatter = _SCATTER * np.maximum(1 / regions - 1 / self.regions, 0)
        as_far = int((self.left_out**2 + scatter >= distance**2).sum())
        return Distance(name, distance, (1 + as_far) / (1 + known), nearest, known)

    def save(self, folder: Path) -> None:
        """Write cell_types.npz."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez(folder / FILE, names=np.array(self.names, dtype=str), **arrays)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read what `save` wrote, or return None if that is not there.

        Raises:
            UserError: the file is damaged.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
                return cls(arrays["names"].tolist(), *(arrays[name] for name in _ARRAYS))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise UserError(problem(path, f"it is damaged ({error})", "Fine-tune again.")) from None


def new_cell_types(distances: Sequence[Distance]) -> list[dict[str, Any]]:
    """Say how far cell types are from the known ones, and return it as JSON values; known ones are left out."""
    found = [one for one in distances if one.distance > _SAME]
    for one in found:
        say(str(one))
    return [one.to_json() for one in found]


def _distance(usage: Numbers, known: Numbers) -> float:
    """Return the distance of a usage, shape (m,), from the nearest mixture of others, shape (k, m).

    The least |Ax - b| for x >= 0, where A has the differences from the usage as columns, and 1 below each, and b is 0
    but for a 1 below, is where x is proportional to the weights of that mixture.
    """
    motifs = len(usage)
    differences = (known - usage) / np.sqrt(motifs)
    weights, _ = nnls(np.vstack([differences.T, np.ones(len(known))]), np.append(np.zeros(motifs), 1.0))
    return float(np.linalg.norm(weights @ differences) / weights.sum())


def _usage(corpus: Corpus, cell_types: NDArray[np.int64]) -> tuple[Numbers, NDArray[np.int64]]:
    """Return the mean evidence over the accessible regions of some cell types, and how many regions these are.

    Regions on training chromosomes are taken, whichever cell types they are there for; where there are none, all.

    Args:
        corpus: the corpus.
        cell_types: their indices, int64, shape (c,).

    Returns:
        float64, shape (c, m); int64, shape (c,).
    """
    training = np.array(corpus.split_of(corpus.regions["chrom"].tolist())) == "train"
    member = np.zeros((len(cell_types), len(training)), dtype=bool)
    for i, cell_type in enumerate(cell_types.tolist()):
        rows = corpus.accessible(cell_type)
        kept = rows[training[rows]]
        member[i, kept if len(kept) else rows] = True
    total, regions = evidence_sums(corpus, member)
    return total / np.maximum(regions, 1)[:, None], regions
