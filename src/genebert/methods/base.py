"""The interface of all methods, and what they learn from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from genebert.corpus.store import Corpus
from genebert.inputs.scan import Scanner
from genebert.region_matrix import Context, RegionMatrix, Shown, in_cell_type, neighbourhood
from genebert.settings import Device
from genebert.target import Kind, Target

MOST_IN_MEMORY = 1 << 30
"""Bytes of motif evidence; what is larger lies in a temporary file."""
_ROWS = 1 << 12  # looked at together


def blocks_of(rows: int) -> Iterator[slice]:
    """Yield slices of at most 4,096 of so many rows, for arrays that may be larger than the memory."""
    return (slice(start, start + _ROWS) for start in range(0, rows, _ROWS))


@dataclass(frozen=True)
class Examples:
    """Windows to learn from or to predict for.

    Attributes:
        codes: base codes, uint8, shape (n, length).
        scanner: of the motif collection.
        truth: as `Target.truth` gives it; None to predict only.
        context: where the windows lie and in which cell type, or None for sequences by themselves.
        cell_types: number of cell types that `context` counts with, else 0.
    """

    codes: NDArray[np.uint8]
    scanner: Scanner
    truth: NDArray[Any] | None = None
    context: Context | None = None
    cell_types: int = 0
    _tiled: dict[int, NDArray[np.uint8]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def evidence(self) -> NDArray[np.uint8]:
        """Motif evidence of the whole windows: uint8, shape (n, motifs); scanned once."""
        return self.tiled(1)[:, 0]

    def tiled(self, tiles: int) -> NDArray[np.uint8]:
        """Return motif evidence tile by tile: uint8, shape (n, tiles, motifs), not to be changed; scanned once.

        If it is large, it lies in a temporary file, and is an array that reads from there.

        Raises:
            OSError: the disk is full.
        """
        if tiles not in self._tiled:
            large = len(self) * tiles * len(self.scanner.motifs) > MOST_IN_MEMORY
            self._tiled[tiles] = self._scanned_to_file(tiles) if large else self._scanned(self.codes, tiles)
        return self._tiled[tiles]

    def _scanned(self, codes: NDArray[np.uint8], tiles: int) -> NDArray[np.uint8]:
        if self.context is None:
            return self.scanner.scan_tiles(codes, tiles)
        distinct, place = np.unique(codes, axis=0, return_inverse=True)  # a window recurs in other cell types
        return self.scanner.scan_tiles(distinct, tiles)[place.reshape(-1)]

    def _scanned_to_file(self, tiles: int) -> NDArray[np.uint8]:
        with TemporaryFile() as file:  # it has no name, and is gone when the array is
            for rows in blocks_of(len(self)):
                self._scanned(self.codes[rows], tiles).tofile(file)
            file.flush()
            shape = len(self), tiles, len(self.scanner.motifs)
            return np.memmap(file, np.uint8, "c", shape=shape)  # "c": torch refuses arrays that are not to be written

    @property
    def known_truth(self) -> NDArray[Any]:
        """Truth, which is there."""
        assert self.truth is not None
        return self.truth

    def rows(self, chosen: NDArray[Any]) -> Self:
        """Return some of the windows; chosen: indices or bool, shape (n,)."""
        return replace(
            self,
            codes=self.codes[chosen],
            truth=None if self.truth is None else self.truth[chosen],
            context=None if self.context is None else self.context.rows(chosen),
            _tiled={tiles: evidence[chosen] for tiles, evidence in self._tiled.items()},
        )


@dataclass(frozen=True)
class Place:
    """Where windows lie, and what they are made of.

    Attributes:
        corpus: whose accessible regions surround them.
        position: places of the windows' centres, as `Corpus.line_positions` gives them, int64, shape (n,).
        own: motif evidence of the windows themselves, uint8, shape (n, motifs).
    """

    corpus: Corpus
    position: NDArray[np.int64]
    own: NDArray[np.uint8]

    def matrix(self, cell_type: int, columns: int, width: int, shown: Shown) -> RegionMatrix:
        """Return the region matrices of the windows, which are so many bp wide, in a cell type."""
        where = np.full(len(self.position), cell_type)
        matrix = neighbourhood(self.corpus, where, self.position, self.own, columns, width)
        return in_cell_type(matrix, Context(self.corpus, where, self.position), width, shown)

    def examples(self, codes: NDArray[np.uint8], cell_type: int) -> Examples:
        """Return the windows in a cell type."""
        where = Context(self.corpus, np.full(len(codes), cell_type), self.position)
        known = {1: self.own[:, None]}
        return Examples(codes, self.corpus.scanner, context=where, cell_types=len(self.corpus.cell_types), _tiled=known)


@dataclass(frozen=True)
class Reading:
    """What a method makes of windows.

    Attributes:
        predictions: as `Fitted.predict` returns them.
        states: what the method's classifier reads of its encoders, averaged over strands if windows have none,
            float32, shape (n, width); None if it has no encoders.
    """

    predictions: NDArray[np.float64]
    states: NDArray[np.float32] | None = None

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return readings of windows, one after the other, as one."""
        states = [part.states for part in parts if part.states is not None]
        return cls(np.concatenate([part.predictions for part in parts]), np.concatenate(states) if states else None)


class Fitted(ABC):
    """A method with what it has learned."""

    @abstractmethod
    def predict(self, examples: Examples) -> NDArray[np.float64]:
        """Return predictions: float64, shape (n, len(target.names)); see `Target`."""

    def read(self, examples: Examples) -> Reading:
        """Return predictions, and the states that they come from."""
        return Reading(self.predict(examples))

    def predict_in_cell_types(
        self, codes: NDArray[np.uint8], place: Place, cell_types: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float64]]:
        """Yield predictions of the same windows in one cell type after another; for the arguments see below."""
        return (reading.predictions for reading in self.read_in_cell_types(codes, place, cell_types))

    def read_in_cell_types(
        self, codes: NDArray[np.uint8], place: Place, cell_types: NDArray[np.int64]
    ) -> Iterator[Reading]:
        """Yield readings of the same windows in one cell type after another.

        Args:
            codes: base codes, uint8, shape (n, length).
            place: of the windows.
            cell_types: indices, int64, shape (c,).
        """
        return (self.read(place.examples(codes, cell_type)) for cell_type in cell_types.tolist())

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write into an empty folder; no pickle."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, target: Target, device: Device) -> Self:
        """Read what `save` wrote; device: where networks are to run.

        Raises:
            UserError: a file is damaged.
        """


class Method(BaseModel, ABC):
    """A way to predict a target from windows. The fields are its options, as a suite or a command line gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: ClassVar[str]
    """In tables."""
    kinds: ClassVar[frozenset[Kind]] = frozenset({"classes", "labels", "value"})
    """What it can predict."""
    seeded: ClassVar[bool] = True
    """Whether another seed gives another result."""
    cell_types_by_name: ClassVar[bool] = True
    """Whether rows that name cell types are told apart by the names, so that nothing is known of a new one."""
    needs_cell_types: ClassVar[bool] = False
    """Whether rows have to name a cell type each."""
    strand_as_given: ClassVar[bool] = False
    """Whether strands are told apart, whatever the options say."""
    fitted: ClassVar[type[Fitted]]

    @abstractmethod
    def fit(self, train: Examples, valid: Examples, target: Target, seed: int, description: str = "") -> Fitted:
        """Learn from the training rows; what is chosen (an epoch, a penalty) is chosen on the validation rows.

        Args:
            train, valid: both with truth.
            target: what to predict.
            seed: of everything random.
            description: for the progress bar.

        Raises:
            UserError: an option cannot be used with these rows.
        """
