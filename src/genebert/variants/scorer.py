"""Scores windows of both alleles with a predictor, in all chosen cell types."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.motif_changes import motif_changes
from genebert.methods.base import Examples
from genebert.methods.genebert import Place
from genebert.predictor import Predictor
from genebert.schema import Variant
from genebert.variants.windows import Pair, VariantWindows

CHUNK = 128
"""Windows scored at a time; memory does not grow with the number of variants."""
SEQUENCE_ONLY = "all"
"""Stands in the cell type column for a predictor that knows no cell types."""


@dataclass(frozen=True)
class Effect:
    """What an alternate allele does.

    Attributes:
        reference, alternate: log-odds, float64, shape (cell types,).
        gained, lost: the motif that it strengthens and weakens most ("." if none), and the change.
    """

    reference: NDArray[np.float64]
    alternate: NDArray[np.float64]
    gained: tuple[str, float]
    lost: tuple[str, float]

    @property
    def difference(self) -> NDArray[np.float64]:
        """Alternate minus reference."""
        return self.alternate - self.reference

    @property
    def largest(self) -> float:
        """The difference that is largest by size."""
        return float(self.difference[np.abs(self.difference).argmax()])


class Scorer:
    """Scores windows with a predictor, in all chosen cell types.

    Args:
        predictor: a binary predictor.
        genome: the genome.
        corpus: for a predictor per cell type, else None.
        cell_types: names; all of the corpus if empty.

    Raises:
        UserError: the corpus has no such cell type, or the predictor knows none.
    """

    def __init__(self, predictor: Predictor, genome: Genome, corpus: Corpus | None, cell_types: list[str]) -> None:
        self.predictor = predictor
        self.genome = genome
        self.corpus = corpus
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
        """Return log-odds of the reference and of the alternate windows: float64, shape (n, cell types) each."""
        codes = np.stack([pair.reference for pair in pairs] + [pair.alternate for pair in pairs])
        chroms = [pair.variant.chrom for pair in pairs] * 2
        starts = np.array([pair.start for pair in pairs] * 2, dtype=np.int64)
        both = self.log_odds(codes, chroms, starts)
        return both[: len(pairs)], both[len(pairs) :]

    def motif_changes(self, variants: Sequence[Variant]) -> list[tuple[tuple[str, float], tuple[str, float]]]:
        """Return the motifs that alternate alleles strengthen and weaken most ("." if none), each with its change."""
        changes = motif_changes(self.genome, self.predictor.scanner, variants)
        return [(self._most(change, 1), self._most(change, -1)) for change in changes]

    def _most(self, change: NDArray[np.float32], sign: int) -> tuple[str, float]:
        """Return the motif that changes most in a direction, and its change."""
        index = int((sign * change).argmax())
        return self.motif_names[index] if sign * change[index] > 0 else ".", float(change[index])

    def effects(self, variants: Iterable[Variant]) -> dict[str, Effect]:
        """Return name -> effect; a variant that is given twice is scored once."""
        unique = {variant.name: variant for variant in variants}
        if not unique:
            return {}
        odds = self.score([self.windows.pair(variant) for variant in unique.values()])
        changes = self.motif_changes(list(unique.values()))
        return {
            name: Effect(reference, alternate, gained, lost)
            for name, reference, alternate, (gained, lost) in zip(unique, *odds, changes, strict=True)
        }
