"""Region matrices, the second modality: of windows among the accessible regions of a cell type, or of their tiles."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.corpus.surroundings import surroundings
from genebert.tensors import Tensors


@dataclass
class RegionMatrix(Tensors):
    """The second modality: TFs x regions, before normalisation.

    Attributes:
        evidence: uint8, shape (b, R, motifs): motif evidence of each column's region.
        accessibility: float32, shape (b, R): log1p signal per million; 0 for the column of the window itself,
            whose accessibility is not shown here.
        own: bool, shape (b, R): True for the column of the window itself; all columns of a tiled sequence.
        present: bool, shape (b, R): False for padding, where a chromosome has too few regions.
        usage: float32, shape (b, motifs): TF usage of the cell type, see `corpus.usage`; None if it is not read.
        surroundings: float32, shape (b, columns), see `corpus.surroundings`; None if they are not read.
        signal: float32, shape (b,): accessibility of the window itself, log1p signal per million; None if it is not
            to be shown, as it is not where accessibility is to be predicted.
    """

    evidence: torch.Tensor
    accessibility: torch.Tensor
    own: torch.Tensor
    present: torch.Tensor
    usage: torch.Tensor | None = None
    surroundings: torch.Tensor | None = None
    signal: torch.Tensor | None = None

    @property
    def own_evidence(self) -> torch.Tensor:
        """Best evidence of each motif in the columns of the windows themselves, shape (b, motifs)."""
        return (self.evidence * self.own[..., None]).amax(dim=1)


@dataclass(frozen=True)
class Context:
    """Where windows lie and in which cell type they are looked at.

    Attributes:
        corpus: whose accessible regions surround them.
        cell_type: cell type indices, int64, shape (n,).
        position: places of the windows' centres, as `Corpus.line_positions` gives them, int64, shape (n,).
    """

    corpus: Corpus
    cell_type: NDArray[np.int64]
    position: NDArray[np.int64]

    def rows(self, chosen: NDArray[Any] | slice) -> Self:
        """Return the context of some of the windows."""
        return replace(self, cell_type=self.cell_type[chosen], position=self.position[chosen])


class Shown(NamedTuple):
    """What is shown of a window's cell type, beside its neighbourhood.

    Attributes:
        cell_type: its TF usage, and how accessible the window's surroundings are.
        signal: accessibility of the window itself.
    """

    cell_type: bool = False
    signal: bool = False


NOTHING_SHOWN = Shown()


def neighbourhood(
    corpus: Corpus,
    cell_type: NDArray[np.int64],
    position: NDArray[np.int64],
    own: NDArray[np.uint8],
    columns: int,
    window: int,
) -> RegionMatrix:
    """Return the region matrices of windows on the genome in given cell types.

    The columns are the window itself and the R - 1 nearest accessible regions of the cell type on its
    chromosome that do not overlap it, in genomic order, then padding.

    Args:
        corpus: the corpus.
        cell_type: cell type index of each window, int64, shape (b,).
        position: place of each window's centre, as `Corpus.line_positions` gives it, int64, shape (b,).
        own: motif evidence of the windows themselves, uint8, shape (b, motifs).
        columns: R.
        window: width of the windows in bp.
    """
    examples, distance = corpus.nearest_examples(cell_type, position, columns - 1, window)
    rows = len(examples)
    examples = np.concatenate([np.full((rows, 1), -2), examples], axis=1)  # -2 stands for the window itself
    distance = np.concatenate([np.zeros((rows, 1), dtype=np.int64), distance], axis=1)
    order = np.argsort(np.where(examples == -1, np.iinfo(np.int64).max, distance), axis=1, kind="stable")
    examples = np.take_along_axis(examples, order, axis=1)
    known = examples >= 0
    slots = np.where(known, examples, 0)
    regions = corpus.accessible_regions[slots]
    evidence = corpus.evidence[regions]
    evidence[~known] = 0
    evidence[examples == -2] = own
    accessibility = np.where(known, corpus.accessible_values[slots], 0).astype(np.float32)
    return RegionMatrix(*map(torch.from_numpy, (evidence, accessibility, examples == -2, examples != -1)))


def region_matrix(
    corpus: Corpus, region: NDArray[np.int64], cell_type: NDArray[np.int64], columns: int
) -> RegionMatrix:
    """Return the region matrices of regions of a corpus in cell types, accessible there or not.

    Args:
        corpus: the corpus.
        region, cell_type: indices, int64, shape (b,).
        columns: see `neighbourhood`.
    """
    position, own = corpus.region_positions[region], corpus.evidence[region]
    return neighbourhood(corpus, cell_type, position, own, columns, corpus.width)


def in_cell_type(matrix: RegionMatrix, context: Context, window: int, shown: Shown) -> RegionMatrix:
    """Return region matrices with what is to be shown of the cell types.

    Args:
        matrix: of the windows.
        context: of these windows.
        window: width of the windows in bp.
        shown: what to show.
    """
    corpus, where = context.corpus, (context.cell_type, context.position)
    found: dict[str, NDArray[np.float32]] = {}
    if shown.cell_type:
        found["usage"] = corpus.usage.at(corpus, *where)
        found["surroundings"] = surroundings(corpus, *where, window)
    if shown.signal:
        found["signal"] = corpus.signal_at(*where, window)
    return replace(matrix, **{name: torch.from_numpy(values) for name, values in found.items()})


def tiles(evidence: NDArray[np.uint8]) -> RegionMatrix:
    """Return the region matrices of sequences without genomic context: the columns are tiles of the sequence.

    Args:
        evidence: motif evidence of the tiles, as `Scanner.scan_tiles` returns it, uint8, shape (b, R, motifs).
    """
    rows, columns, _ = evidence.shape
    every = torch.ones(rows, columns, dtype=torch.bool)
    return RegionMatrix(torch.from_numpy(evidence), torch.zeros(rows, columns), every, every)
