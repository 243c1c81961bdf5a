"""Scores windows of both alleles with a predictor, in all chosen cell types."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.motif_changes import motif_changes
from genebert.methods.base import Examples
from genebert.methods.genebert import Place
from genebert.predictor import Predictor
from genebert.schema import EVIDENCE_STEPS, Variant, gc_fraction
from genebert.variants.windows import Pair, VariantWindows

CHUNK = 128
"""Windows scored at a time; memory does not grow with the number of variants."""
TOP_MOTIFS = 3
"""So many motifs gained, and as many lost, are named."""
HIT = 4 * EVIDENCE_STEPS
"""Motif evidence of a hit with p = 1e-4, from which on it counts for a window's motif density."""
TopMotifs = tuple[NDArray[np.int64], NDArray[np.float32]]
SEQUENCE_ONLY = "all"
"""Stands in the cell type column for a predictor that knows no cell types."""


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


class Scorer:
    """Scores windows with a predictor, in all chosen cell types.

    Args:
        predictor: a binary predictor.
        genome: the genome.
        corpus: for a predictor per cell type, else None.
        cell_types: names; all of the corpus if empty.
        shifts: windows per allele, over which log-odds are averaged; see `windows.offsets`.

    Raises:
        UserError: the corpus has no such cell type, or the predictor knows none.
    """

    def __init__(
        self, predictor: Predictor, genome: Genome, corpus: Corpus | None, cell_types: list[str], shifts: int = 1
    ) -> None:
        self.predictor = predictor
        self.genome = genome
        self.corpus = corpus
        self.shifts = shifts
        self.windows = VariantWindows(genome, corpus, predictor.width)
        if corpus is None and cell_types:
            raise UserError(
                problem(
                    predictor.manifest.folder,
                    f"--cell-types {','.join(cell_types)} is given, and the model knows no cell types: it was "
                    "fine-tuned on labels without them",
                    "Leave --cell-types out, or give a model that was fine-tuned per cell type.",
                )
            )
        self.cell_types = (
            list(dict.fromkeys(cell_types or corpus.cell_types)) if corpus is not None else [SEQUENCE_ONLY]
        )
        self._indices = corpus.cell_type_indices(self.cell_types) if corpus is not None else np.zeros(1, dtype=np.int64)
        self.motif_names = [motif.name for motif in predictor.scanner.motifs]

    def log_odds(
        self,
        codes: NDArray[np.uint8],
        chroms: list[str],
        starts: NDArray[np.int64],
        cell_types: Sequence[str] | None = None,
    ) -> NDArray[np.float64]:
        """Return the log-odds (natural) of the second class, float64, shape (n, cell types).

        Each sequence is scanned and encoded once, and paired with its region matrix in each cell type.

        Args:
            codes: base codes of windows, uint8, shape (n, width).
            chroms, starts: where the (reference) windows lie.
            cell_types: some of `self.cell_types`; all of them if None.
        """
        chosen = self.cell_types if cell_types is None else cell_types
        indices = self._indices[[self.cell_types.index(name) for name in chosen]]
        centres = starts + self.predictor.width // 2
        position = centres if self.corpus is None else self.corpus.line_positions(chroms, centres)
        result = np.empty((len(codes), len(indices)))
        for begin in range(0, len(codes), CHUNK):
            rows = slice(begin, begin + CHUNK)
            result[rows] = self._batch(codes[rows], position[rows], indices)
        return result

    def _batch(
        self, codes: NDArray[np.uint8], position: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        ensemble, scanner = self.predictor.ensemble, self.predictor.scanner
        if self.corpus is None:
            found = [ensemble.predict(Examples(codes, scanner))]
        else:
            place = Place(self.corpus, position, scanner.scan(codes))
            found = list(ensemble.predict_in_cell_types(codes, place, indices))
        return np.stack([np.log(one[:, 1]) - np.log(one[:, 0]) for one in found], axis=1)

    def score(self, pairs: list[Pair]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return log-odds of the reference and of the alternate windows: float64, shape (n, cell types) each.

        A reference window that several variants share, as those of one region do, is scored once.
        """
        first, owner = _distinct(pairs)
        windows = [pair.reference for pair in first] + [pair.alternate for pair in pairs]
        placed = [*first, *pairs]
        chroms = [pair.variant.chrom for pair in placed]
        both = self.log_odds(np.stack(windows), chroms, np.array([pair.start for pair in placed], dtype=np.int64))
        return both[: len(first)][owner], both[len(first) :]

    def scores(self, variants: Sequence[Variant]) -> Scores:
        """Return the scores of n variants, n > 0, which depend on no others than these."""
        pairs = [pair for variant in variants for pair in self.windows.pairs(variant, self.shifts)]
        reference, alternate = (odds.reshape(len(variants), self.shifts, -1).mean(axis=1) for odds in self.score(pairs))
        (gained, gained_by), (lost, lost_by) = self.motifs(variants)
        gc, density = self._surroundings(pairs[self.shifts // 2 :: self.shifts])
        return Scores(reference, alternate, gained, gained_by, lost, lost_by, gc, density)

    def motifs(self, variants: Sequence[Variant]) -> tuple[TopMotifs, TopMotifs]:
        """Return the motifs gained and lost, and the changes of their best hits; see `Scores`."""
        changes = motif_changes(self.genome, self.predictor.scanner, variants)
        lost, size = _most(-changes)
        return _most(changes), (lost, -size)

    def _surroundings(self, pairs: list[Pair]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return GC fraction and motif density of reference windows: float64, shape (n,) each."""
        first, owner = _distinct(pairs)
        codes = np.stack([pair.reference for pair in first])
        density = (self.predictor.scanner.scan(codes) >= HIT).mean(axis=1)
        return gc_fraction(codes)[owner], density[owner]


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
