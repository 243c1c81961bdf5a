"""What a cohort's haplotypes are, and what they change."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.console import say
from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.haplotype_effects import HaplotypeEffects, haplotype_effects, tf_changes
from genebert.haplotypes import CohortHaplotypes, read_haplotypes
from genebert.inputs.genome import Genome
from genebert.inputs.intervals import read_bed
from genebert.predictor import Predictor
from genebert.risk.design import Numbers
from genebert.schema import Motif
from genebert.settings import RiskSettings
from genebert.stage import write_json
from genebert.tasks.labels import check_genome
from genebert.tasks.windows import of_one_width

_CHANGE, _EMBEDDING, _MARKER = "change.npy", "embedding.npy", "effects.json"


@dataclass(frozen=True)
class Source:
    """The haplotypes of a cohort, and what they change.

    Attributes:
        cohort: the haplotypes.
        effects: of the predictor.
        motifs: the collection that it was trained with.
        motif_changes: near each variant, float32, shape (rows of `cohort.variants`, motifs).
    """

    cohort: CohortHaplotypes
    effects: HaplotypeEffects
    motifs: list[Motif]
    motif_changes: NDArray[np.float32]

    @property
    def change(self) -> Numbers:
        """Of log-odds, averaged over cell types, float64, shape (haplotypes,)."""
        return self.effects.change.mean(axis=1, dtype=np.float64)


def read_source(
    settings: RiskSettings, predictor: Predictor, genome: Genome, samples: list[str], scratch: Path
) -> Source:
    """Read haplotypes, and compute what they change, or read it where an interrupted run has kept it.

    Args:
        settings: of the stage.
        predictor: of two classes.
        genome: the genome.
        samples: the individuals, in this order.
        scratch: folder where effects are kept.

    Raises:
        UserError: an input cannot be used, or inputs do not belong together.
    """
    corpus = _corpus(settings, predictor)
    if corpus is not None:
        check_genome(genome, corpus)
    regions = _regions(settings, corpus, genome, predictor.width)
    cohort = read_haplotypes(settings.vcf, genome, regions, samples, max_indel=settings.max_indel)
    known = corpus if predictor.per_cell_type else None
    effects = kept(scratch, lambda: haplotype_effects(predictor, cohort, known, settings.cell_types))
    return Source(cohort, effects, list(predictor.scanner.motifs), tf_changes(predictor.scanner, genome, cohort))


def _corpus(settings: RiskSettings, predictor: Predictor) -> Corpus | None:
    """Return the corpus that the regions are of, or that the model needs."""
    if settings.corpus is None and settings.regions is None:
        remedy = "Give --corpus, a folder made by prepare, or --regions, a BED file."
        raise UserError(problem("--corpus and --regions", "neither is given, so that there are no regions", remedy))
    if predictor.per_cell_type:
        return predictor.need_corpus(settings.corpus)
    return Corpus.open(settings.corpus) if settings.corpus else None


def _regions(settings: RiskSettings, corpus: Corpus | None, genome: Genome, width: int) -> pd.DataFrame:
    """Return windows of the predictor's width on the centres of the chosen regions: name, chrom, start, end."""
    if settings.regions is not None:
        path, table = settings.regions, read_bed(settings.regions, genome.lengths).table
    else:
        assert corpus is not None  # there are regions: see `_corpus`
        path, table = corpus.folder, corpus.regions
        if settings.cell_types:
            chosen = [corpus.accessible(i) for i in corpus.cell_type_indices(settings.cell_types)]
            table = table.iloc[np.unique(np.concatenate(chosen))]
    places = [
        f"{chrom}:{start}-{end}" for chrom, start, end in table[["chrom", "start", "end"]].itertuples(index=False)
    ]
    names = table["name"].tolist() if "name" in table else places
    usable = len({name for name in names if isinstance(name, str) and name != "."}) == len(names)
    windows = of_one_width(table, path, width)[["chrom", "start", "end"]]
    return windows.assign(name=names if usable else places).reset_index(drop=True)


def kept(scratch: Path, make: Callable[[], HaplotypeEffects]) -> HaplotypeEffects:
    """Return the effects that an interrupted run has kept in a folder, or make and keep them.

    The list of cell types is written last: where it is, the arrays are complete.
    """
    if (scratch / _MARKER).exists():
        say("what haplotypes change was computed before, and is read")
        facts = json.loads((scratch / _MARKER).read_text())
        embedding = np.load(scratch / _EMBEDDING, allow_pickle=False) if facts["embedding"] else None
        return HaplotypeEffects(np.load(scratch / _CHANGE, allow_pickle=False), embedding, facts["cell_types"])
    effects = make()
    scratch.mkdir(exist_ok=True)
    np.save(scratch / _CHANGE, effects.change)
    if effects.embedding is not None:
        np.save(scratch / _EMBEDDING, effects.embedding)
    write_json(scratch / _MARKER, {"cell_types": effects.cell_types, "embedding": effects.embedding is not None})
    return effects
