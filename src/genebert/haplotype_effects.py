"""What haplotypes change: a predictor's log-odds, its network's states, and the motifs near each variant."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.corpus.parallel import ThisProcess
from genebert.corpus.store import Corpus
from genebert.corpus.work import Arrays, Work
from genebert.errors import UserError, problem
from genebert.haplotypes import CohortHaplotypes
from genebert.inputs.genome import Genome
from genebert.inputs.motif_changes import motif_changes
from genebert.inputs.scan import Scanner
from genebert.methods.base import Examples, Place, Reading
from genebert.predictor import Predictor
from genebert.schema import Variant
from genebert.target import second_log_odds
from genebert.variants.scorer import SEQUENCE_ONLY

BLOCK = 128
"""Sequences read together, and kept together for resuming."""
_ROWS = 1 << 10  # looked at together


@dataclass(frozen=True)
class HaplotypeEffects:
    """Changes that the haplotypes of a cohort make, each against the reference of its region.

    Attributes:
        change: of the log-odds (natural) of the second class, per haplotype and cell type, float32, shape (haplotypes,
            cell types).
        embedding: change of the pooled states that the classifiers read, all networks of the ensemble side by side,
            averaged over the cell types and both strands, float32, shape (haplotypes, width); None where the predictor
            has no network with encoders, or there are no haplotypes.
        cell_types: names; "all" for a predictor without cell types.
    """

    change: NDArray[np.float32]
    embedding: NDArray[np.float32] | None
    cell_types: list[str]


def haplotype_effects(
    predictor: Predictor,
    cohort: CohortHaplotypes,
    corpus: Corpus | None,
    cell_types: list[str],
    scratch: Path | None = None,
) -> HaplotypeEffects:
    """Score every haplotype of a cohort against the reference of its region, whatever the number of individuals.

    Both modalities follow the haplotype: its sequence is encoded on both strands, its motifs are scanned, and they
    replace the region's own column of the region matrix. The reference of a region is scored once.

    Args:
        predictor: of two classes.
        cohort: haplotypes of regions as wide as the predictor's windows.
        corpus: for a predictor per cell type, else None; see `Predictor.need_corpus`.
        cell_types: names; all of the corpus if empty.
        scratch: folder for what is finished, so that a later call with the same arguments goes on there; it need not
            exist. None: nothing is kept.

    Raises:
        UserError: the predictor does not score alleles, or the cell types are not there.
        ValueError: the regions are of another width.
    """
    predictor.check_two_alleles()
    if cohort.reference.shape[1] != predictor.width:
        raise ValueError(f"The regions have {cohort.reference.shape[1]} bp, and the model reads {predictor.width} bp.")
    sequences = _Sequences.of(predictor, cohort, corpus, cell_types)
    with ExitStack() as stack:
        folder = scratch or Path(stack.enter_context(TemporaryDirectory(prefix="genebert-")))
        blocks = -(-len(sequences.codes) // BLOCK)
        work = Work(folder, ThisProcess())
        results = work.map("effects", "scoring haplotypes", _read_block, sequences, blocks, _rows_of_block)
        return _changes(list(results), sequences)


@dataclass(frozen=True)
class _Sequences:
    """What is to be read.

    Attributes:
        predictor: reads them.
        corpus: whose regions surround them, or None.
        cell_types, indices: their names, and in the corpus their indices, int64, shape (cell types,).
        codes: base codes of references, then of haplotypes, uint8, shape (n, width).
        position: of the centre of each, as `Corpus.line_positions` gives it, int64, shape (n,); 0 without a corpus.
        reference: row of each haplotype's reference, int64, shape (haplotypes,).
    """

    predictor: Predictor
    corpus: Corpus | None
    cell_types: list[str]
    indices: NDArray[np.int64]
    codes: NDArray[np.uint8]
    position: NDArray[np.int64]
    reference: NDArray[np.int64]

    @classmethod
    def of(
        cls, predictor: Predictor, cohort: CohortHaplotypes, corpus: Corpus | None, cell_types: list[str]
    ) -> "_Sequences":
        used, reference = np.unique(cohort.haplotypes["region"].to_numpy(np.int64), return_inverse=True)
        codes = np.concatenate([cohort.reference[used], cohort.codes])
        if corpus is None:
            if cell_types:
                what = f"cell types {', '.join(cell_types)} are asked for, and the model knows none"
                raise UserError(problem(predictor.manifest.folder, what, "Leave them out."))
            nowhere = np.zeros(len(codes), dtype=np.int64)
            return cls(predictor, None, [SEQUENCE_ONLY], np.zeros(1, np.int64), codes, nowhere, reference)
        names = list(dict.fromkeys(cell_types)) or corpus.cell_types
        centres = cohort.regions["start"].to_numpy(np.int64) + predictor.width // 2
        position = corpus.line_positions(cohort.regions["chrom"].tolist(), centres)[np.append(used, used[reference])]
        return cls(predictor, corpus, names, corpus.cell_type_indices(names), codes, position, reference)

    def readings(self, rows: slice) -> list[Reading]:
        """Return what the predictor makes of some of the sequences, in each cell type."""
        ensemble, scanner, codes = self.predictor.ensemble, self.predictor.scanner, self.codes[rows]
        if self.corpus is None:
            return [ensemble.read(Examples(codes, scanner))]
        place = Place(self.corpus, self.position[rows], scanner.scan(codes))
        return list(ensemble.read_in_cell_types(codes, place, self.indices))


def _rows_of_block(number: int) -> slice:
    return slice(number * BLOCK, (number + 1) * BLOCK)


def _read_block(sequences: _Sequences, rows: slice) -> Arrays:
    """Return log-odds, float64, shape (b, cell types), and the mean states, float32, shape (b, width), if any."""
    readings = sequences.readings(rows)
    odds = [second_log_odds(one.predictions) for one in readings]
    states = [one.states for one in readings if one.states is not None]
    return {"odds": np.stack(odds, axis=1)} | ({"states": np.mean(states, axis=0)} if states else {})


def _changes(results: list[Arrays], sequences: _Sequences) -> HaplotypeEffects:
    """Return what haplotypes change, of what was read of references, then haplotypes, block by block."""
    if not results:
        return HaplotypeEffects(np.empty((0, len(sequences.cell_types)), np.float32), None, sequences.cell_types)
    found = {name: np.concatenate([block[name] for block in results]) for name in results[0]}
    references = len(found["odds"]) - len(sequences.reference)
    for values in found.values():
        changed = values[references:]
        for begin in range(0, len(changed), _ROWS):
            rows = slice(begin, begin + _ROWS)
            changed[rows] -= values[sequences.reference[rows]]
    states = found.get("states")
    return HaplotypeEffects(
        found["odds"][references:].astype(np.float32),
        None if states is None else states[references:],
        sequences.cell_types,
    )


def tf_changes(scanner: Scanner, genome: Genome, cohort: CohortHaplotypes) -> NDArray[np.float32]:
    """Return the change of -log10 p of each motif's best hit near each variant, alternate allele minus reference.

    Args:
        scanner: of the motif collection.
        genome: the genome.
        cohort: whose variants.

    Returns:
        float32, shape (rows of `cohort.variants`, motifs); see `motif_changes`.
    """
    rows, _ = pd.factorize(cohort.variants["name"])  # one variant may lie in several regions
    columns = cohort.variants.drop_duplicates("name")[["chrom", "position", "ref", "alt"]]
    variants = [Variant(chrom, position - 1, ref, alt) for chrom, position, ref, alt in columns.itertuples(index=False)]
    changes = np.empty((len(variants), len(scanner.motifs)), dtype=np.float32)
    for begin in range(0, len(variants), _ROWS):
        block = slice(begin, begin + _ROWS)
        changes[block] = motif_changes(genome, scanner, variants[block])
    return changes[rows] if len(variants) < len(rows) else changes
