"""Windows to batches, for networks that predict a target: in order or shuffled, on either strand."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from genebert.region_matrix import NOTHING_SHOWN, Context, RegionMatrix, Shown, in_cell_type, neighbourhood, tiles
from genebert.sampling import RunShuffle, Shuffle, keys
from genebert.schema import reverse_complement
from genebert.tensors import Tensors
from genebert.tokens import sequence_tokens

_STRAND = 2
"""What the strand of a training row is drawn for; see `sampling.keys`."""


@dataclass
class WindowBatch(Tensors):
    """A batch of windows for a classifier; windows that are looked at in several cell types share a sequence.

    Attributes:
        input_ids, segment_ids: of the different sequences, int64, shape (s, tokens).
        sequence: which of these each window has, int64, shape (b,).
        codes: base codes of the windows, uint8, shape (b, length).
        matrix: region matrices; None if motifs are not read.
        truth: what is to be predicted, as a network learns it; None if it is not known.
    """

    input_ids: torch.Tensor
    segment_ids: torch.Tensor
    sequence: torch.Tensor
    codes: torch.Tensor
    matrix: RegionMatrix | None = None
    truth: torch.Tensor | None = None


Batch = TypeVar("Batch")


class StrandedData(ABC, Generic[Batch]):
    """Makes batches of windows; a training batch depends on the seed and the step alone.

    Args:
        codes: base codes, uint8, shape (n, length).
        truth: what is to be predicted, as a network learns it, shape (n,) or (n, outputs), or None.
        batch_size: rows per batch.
        seed: of order and strands.
        either_strand: read each window of a training batch on a random strand.
        window: which rows are the same window, int64, shape (n,), if some are: they come together in training, on the
            same strand.
        together: how many rows of a window come together, at most.
    """

    def __init__(
        self,
        codes: NDArray[np.uint8],
        truth: NDArray[Any] | None = None,
        *,
        batch_size: int = 64,
        seed: int = 0,
        either_strand: bool = False,
        window: NDArray[np.int64] | None = None,
        together: int = 1,
    ) -> None:
        self.codes = codes
        self.truth = truth
        self.batch_size = min(batch_size, len(codes))
        self.seed = seed
        self.either_strand = either_strand
        self.window = np.arange(len(codes)) if window is None else window
        self._order = Shuffle(len(codes), seed) if window is None else RunShuffle(window, together, seed)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in one pass."""
        return len(self.codes) // self.batch_size

    def batch(self, step: int) -> Batch:
        """Return the training batch of one step, counted over all passes."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        rows, turn = self._order(positions), positions // len(self.codes)
        reverse = (keys(self.seed, _STRAND, turn, self.window[rows]) & np.uint64(1)).astype(bool) & self.either_strand
        return self.collate(rows, reverse)

    def in_order(self, *, reverse: bool = False) -> Iterator[Batch]:
        """Yield all windows in order, the last batch being what is left; `reverse`: the other strand of each."""
        for start in range(0, len(self.codes), self.batch_size):
            rows = np.arange(start, min(start + self.batch_size, len(self.codes)))
            yield self.collate(rows, np.full(len(rows), reverse))

    @abstractmethod
    def collate(self, rows: NDArray[np.int64], reverse: NDArray[np.bool_]) -> Batch:
        """Make a batch.

        Args:
            rows: of the windows, int64, shape (b,).
            reverse: which of them to read on the other strand, bool, shape (b,).
        """

    def codes_of(self, rows: NDArray[np.int64], reverse: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return the bases of some windows as they are read, uint8, shape (b, length); for the arguments see above."""
        codes = self.codes[rows]
        codes[reverse] = reverse_complement(codes[reverse])
        return codes


def rows_of(array: NDArray[Any] | None, rows: NDArray[np.int64]) -> torch.Tensor | None:
    """Return some rows of an array, if there is one, as a tensor."""
    return None if array is None else torch.from_numpy(array[rows])


class WindowData(StrandedData[WindowBatch]):
    """Makes batches of both modalities of windows.

    Args:
        codes: base codes, uint8, shape (n, length).
        k: length of a k-mer.
        evidence: motif evidence of tiles of the windows, uint8, shape (n, tiles, motifs); one tile if there is a
            context; None if motifs are not read.
        context: for region matrices of a cell type's neighbourhood; without it, tiles of the window are its columns.
        columns: R, the columns of a neighbourhood.
        shown: what is shown of the cell type, if there is a context.
        options: see `StrandedData`.
    """

    def __init__(
        self,
        codes: NDArray[np.uint8],
        *,
        k: int,
        evidence: NDArray[np.uint8] | None = None,
        context: Context | None = None,
        columns: int = 1,
        shown: Shown = NOTHING_SHOWN,
        **options: Any,
    ) -> None:
        super().__init__(codes, **options)
        self.k = k
        self.evidence = evidence
        self.context = context
        self.columns = columns
        self.shown = shown

    def collate(self, rows: NDArray[np.int64], reverse: NDArray[np.bool_]) -> WindowBatch:
        """See `StrandedData`."""
        codes = self.codes_of(rows, reverse)
        different, sequence = np.unique(codes, axis=0, return_inverse=True)
        ids, segments = map(torch.from_numpy, sequence_tokens(different, self.k))
        own = torch.from_numpy(sequence.reshape(-1)), torch.from_numpy(codes)
        return WindowBatch(ids, segments, *own, self._matrix(rows, reverse), rows_of(self.truth, rows))

    def _matrix(self, rows: NDArray[np.int64], reverse: NDArray[np.bool_]) -> RegionMatrix | None:
        """Return region matrices: tiles in the order in which a window is read; a neighbourhood has no direction."""
        if self.evidence is None:
            return None
        own = self.evidence[rows]
        if self.context is None:
            own[reverse] = own[reverse, ::-1]
            return tiles(own)
        where, width = self.context.rows(rows), self.codes.shape[1]
        matrix = neighbourhood(where.corpus, where.cell_type, where.position, own[:, 0], self.columns, width)
        return in_cell_type(matrix, where, width, self.shown)
