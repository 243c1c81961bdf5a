"""Scores windows of both alleles in all chosen cell types."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from genebert.cell_type_distance import Distance
from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.motif_changes import motif_changes
from genebert.inputs.scan import Scanner
from genebert.methods.base import Examples, Place
from genebert.predictor import Predictor
from genebert.schema import EVIDENCE_STEPS, Variant, gc_fraction
from genebert.stage import Manifest
from genebert.target import second_log_odds
from genebert.variants.windows import Pair, VariantWindows

CHUNK = 128
"""Windows scored at a time; memory does not grow with the number of variants."""
TOP_MOTIFS = 3
"""So many motifs gained, and as many lost, are named."""
HIT = 4 * EVIDENCE_STEPS
"""Motif evidence of a hit with p = 1e-4, from which on it counts for a window's motif density."""
Numbers = NDArray[np.float64]
OfBatch = Callable[[NDArray[np.uint8], NDArray[np.int64]], Numbers]
OfWindows = Callable[[NDArray[np.uint8], list[str], NDArray[np.int64]], Numbers]
TopMotifs = tuple[NDArray[np.int64], NDArray[np.float32]]
SEQUENCE_ONLY = "all"
"""Stands in the cell type column for a model that knows no cell types."""


@dataclass(frozen=True)
class Scores:
    """Scores of n variants.

    Attributes:
        reference, alternate: log-odds (natural), averaged over shifts, float64, shape (n, cell types).
        gained, lost: the motifs that the alternate allele strengthens and weakens most, in this order, int64, shape
            (n, TOP_MOTIFS); -1 where there are no more.
        gained_by, lost_by: the changes of -log10 p of their best hits, float32, same shape; 0 where there are no more.
        gc: fraction of G and C in the reference window, float64, shape (n,).
        density: fraction of the motifs that have a hit (p <= 1e-4) in it, float64, shape (n,).
    """

    reference: NDArray[np.float64]
    alternate: NDArray[np.float64]
    gained: NDArray[np.int64]
    gained_by: NDArray[np.float32]
    lost: NDArray[np.int64]
    lost_by: NDArray[np.float32]
    gc: NDArray[np.float64]
    density: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.gc)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the scores of several parts as one."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    @property
    def difference(self) -> NDArray[np.float64]:
        """Alternate minus reference, float64, shape (n, cell types)."""
        return self.alternate - self.reference

    @property
    def further(self) -> dict[str, NDArray[np.float64]]:
        """Name -> scores that are the same in all cell types, float64, shape (n,); see `WindowScorer.further`."""
        return {}

    @property
    def effects(self) -> NDArray[np.float64]:
        """The differences, and beside them the further scores, float64, shape (n, cell types + further scores)."""
        return np.column_stack([self.difference, *self.further.values()])


class WindowModel(Protocol):
    """What windows are scored with: a predictor, or a pre-trained model."""

    @property
    def manifest(self) -> Manifest:
        """Of the stage that made it."""

    @property
    def scanner(self) -> Scanner:
        """Of its motif collection."""

    @property
    def width(self) -> int:
        """Length of the windows that it was trained on, in bp."""


class WindowScorer(ABC):
    """Scores windows in all chosen cell types.

    Args:
        model: what they are scored with.
        genome: the genome.
        corpus: for a model that knows cell types, else None.
        cell_types: names; all of the corpus if empty.
        shifts: windows per allele, over which scores are averaged; see `windows.offsets`.

    Attributes:
        kind: of the scores.
        further: names of scores that are the same in all cell types.
        what: the scores, in words.

    Raises:
        UserError: the corpus has no such cell type, or the model knows none.
    """

    kind: ClassVar[type[Scores]] = Scores
    further: ClassVar[tuple[str, ...]] = ()
    what: str

    def __init__(
        self, model: WindowModel, genome: Genome, corpus: Corpus | None, cell_types: Sequence[str], shifts: int = 1
    ) -> None:
        self.model = model
        self.genome = genome
        self.corpus = corpus
        self.shifts = shifts
        self.windows = VariantWindows(genome, corpus, model.width)
        if corpus is None and cell_types:
            raise UserError(
                problem(
                    model.manifest.folder,
                    f"--cell-types {','.join(cell_types)} is given, and the model knows no cell types: it was "
                    "fine-tuned on labels without them",
                    "Leave --cell-types out, or give a model that was fine-tuned per cell type.",
                )
            )
        self.cell_types = (
            list(dict.fromkeys(cell_types or corpus.cell_types)) if corpus is not None else [SEQUENCE_ONLY]
        )
        self._indices = corpus.cell_type_indices(self.cell_types) if corpus is not None else np.zeros(1, dtype=np.int64)
        self.motif_names = [motif.name for motif in model.scanner.motifs]

    @property
    def distances(self) -> list[Distance]:
        """How far the cell types are from those that the model was trained in; none if that is unknown."""
        return []

    def log_odds(
        self,
        codes: NDArray[np.uint8],
        chroms: list[str],
        starts: NDArray[np.int64],
        cell_types: Sequence[str] | None = None,
    ) -> NDArray[np.float64]:
        """Return log-odds (natural), float64, shape (n, cell types).

        Each sequence is scanned and encoded once, and paired with its region matrix in each cell type.

        Args:
            codes: base codes of windows, uint8, shape (n, width).
            chroms, starts: where the (reference) windows lie.
            cell_types: some of `self.cell_types`; all of them if None.
        """
        chosen = self.cell_types if cell_types is None else cell_types
        indices = self._indices[[self.cell_types.index(name) for name in chosen]]
        return self.in_batches(codes, chroms, starts, partial(self._batch, indices=indices))

    def in_batches(
        self, codes: NDArray[np.uint8], chroms: list[str], starts: NDArray[np.int64], of: OfBatch
    ) -> Numbers:
        """Return what a function finds of windows, batch by batch: shape (n, ...).

        Args:
            codes, chroms, starts: see `log_odds`.
            of: called with the codes of some windows, and with the places of their centres on the corpus' line.
        """
        centres = starts + self.model.width // 2
        position = centres if self.corpus is None else self.corpus.line_positions(chroms, centres)
        batches = (slice(begin, begin + CHUNK) for begin in range(0, len(codes), CHUNK))
        return np.concatenate([of(codes[rows], position[rows]) for rows in batches])

    @abstractmethod
    def _batch(self, codes: NDArray[np.uint8], position: NDArray[np.int64], indices: NDArray[np.int64]) -> Numbers:
        """Return what `log_odds` does, of some windows in cell types of given indices; position: see `in_batches`."""

    def score(self, pairs: list[Pair]) -> tuple[Numbers, Numbers]:
        """Return log-odds of the reference and of the alternate windows: float64, shape (n, cell types) each."""
        return self.of_both(pairs, self.log_odds)

    def named(self, pairs: list[Pair]) -> dict[str, Numbers]:
        """Return the scores of n pairs of windows that are fields of `kind`, by name, each of shape (n, ...)."""
        reference, alternate = self.score(pairs)
        return {"reference": reference, "alternate": alternate}

    def of_both(self, pairs: list[Pair], of: OfWindows) -> tuple[Numbers, Numbers]:
        """Return what a function finds of the reference and of the alternate windows, shape (n, ...) each.

        A reference window that several variants share, as those of one region do, is looked at once.

        Args:
            pairs: n pairs of windows.
            of: called with codes, chroms and starts, as `log_odds` is.
        """
        first, owner = _distinct(pairs)
        windows = [pair.reference for pair in first] + [pair.alternate for pair in pairs]
        placed = [*first, *pairs]
        chroms = [pair.variant.chrom for pair in placed]
        both = of(np.stack(windows), chroms, np.array([pair.start for pair in placed], dtype=np.int64))
        return both[: len(first)][owner], both[len(first) :]

    def scores(self, variants: Sequence[Variant]) -> Scores:
        """Return the scores of n variants, n > 0, which depend on no others than these."""
        pairs = [pair for variant in variants for pair in self.windows.pairs(variant, self.shifts)]
        shape = len(variants), self.shifts
        scored: dict[str, Any] = {
            name: values.reshape(*shape, *values.shape[1:]).mean(axis=1) for name, values in self.named(pairs).items()
        }
        (gained, gained_by), (lost, lost_by) = self.motifs(variants)
        gc, density = self._surroundings(pairs[self.shifts // 2 :: self.shifts])
        motifs: dict[str, Any] = {"gained": gained, "gained_by": gained_by, "lost": lost, "lost_by": lost_by}
        return self.kind(**scored, **motifs, gc=gc, density=density)

    def motifs(self, variants: Sequence[Variant]) -> tuple[TopMotifs, TopMotifs]:
        """Return the motifs gained and lost, and the changes of their best hits; see `Scores`."""
        changes = motif_changes(self.genome, self.model.scanner, variants)
        lost, size = _most(-changes)
        return _most(changes), (lost, -size)

    def _surroundings(self, pairs: list[Pair]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return GC fraction and motif density of reference windows: float64, shape (n,) each."""
        first, owner = _distinct(pairs)
        codes = np.stack([pair.reference for pair in first])
        density = (self.model.scanner.scan(codes) >= HIT).mean(axis=1)
        return gc_fraction(codes)[owner], density[owner]


class Scorer(WindowScorer):
    """Scores windows by the log-odds of the second class of a binary predictor.

    Args:
        predictor: the predictor.
        genome, corpus, cell_types, shifts: see `WindowScorer`.
    """

    def __init__(
        self,
        predictor: Predictor,
        genome: Genome,
        corpus: Corpus | None,
        cell_types: Sequence[str],
        shifts: int = 1,
    ) -> None:
        super().__init__(predictor, genome, corpus, cell_types, shifts)
        self.predictor = predictor
        self.what = f"log-odds of class {predictor.target.names[1]}"

    @property
    def distances(self) -> list[Distance]:
        """See `WindowScorer`."""
        return self.predictor.distances(self.corpus, self.cell_types)

    def _batch(self, codes: NDArray[np.uint8], position: NDArray[np.int64], indices: NDArray[np.int64]) -> Numbers:
        ensemble, scanner = self.predictor.ensemble, self.predictor.scanner
        if self.corpus is None:
            found = [ensemble.predict(Examples(codes, scanner))]
        else:
            place = Place(self.corpus, position, scanner.scan(codes))
            found = list(ensemble.predict_in_cell_types(codes, place, indices))
        return np.stack([second_log_odds(one) for one in found], axis=1)


def _distinct(pairs: list[Pair]) -> tuple[list[Pair], NDArray[np.int64]]:
    """Return a pair for each reference window, and the index of each pair's own in that list: int64, shape (n,)."""
    order: dict[tuple[str, int], int] = {}
    owner = [order.setdefault((pair.variant.chrom, pair.start), len(order)) for pair in pairs]
    _, first = np.unique(owner, return_index=True)
    return [pairs[row] for row in first], np.array(owner, dtype=np.int64)


def _most(changes: NDArray[np.float32]) -> TopMotifs:
    """Return the motifs with the largest positive changes, and these, shape (n, TOP_MOTIFS); -1 and 0 for none."""
    n, motifs = changes.shape
    order = np.argsort(-changes, axis=1, kind="stable")[:, :TOP_MOTIFS]
    found = np.full((n, TOP_MOTIFS), -1, dtype=np.int64)
    by = np.zeros((n, TOP_MOTIFS), dtype=np.float32)
    by[:, : min(motifs, TOP_MOTIFS)] = np.maximum(np.take_along_axis(changes, order, axis=1), 0)
    found[:, : order.shape[1]] = order
    found[by <= 0] = -1
    return found, by
