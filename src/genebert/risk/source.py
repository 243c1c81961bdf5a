"""What a cohort's haplotypes are, and what they change."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
from genebert.tasks.labels import check_genome
from genebert.tasks.windows import of_one_width


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


def corpus_of(settings: RiskSettings, predictor: Predictor, genome: Genome) -> Corpus | None:
    """Return the corpus that the regions are of, or that the model needs.

    Raises:
        UserError: there are no regions, or the corpus is of another genome or lacks what the model needs.
    """
    if settings.corpus is None and settings.regions is None:
        remedy = "Give --corpus, a folder made by prepare, or --regions, a BED file."
        raise UserError(problem("--corpus and --regions", "neither is given, so that there are no regions", remedy))
    if predictor.per_cell_type:
        corpus: Corpus | None = predictor.need_corpus(settings.corpus)
    else:
        corpus = Corpus.open(settings.corpus) if settings.corpus else None
    if corpus is not None:
        check_genome(genome, corpus)
    return corpus


def read_cohort(
    settings: RiskSettings, corpus: Corpus | None, genome: Genome, width: int, samples: list[str]
) -> CohortHaplotypes:
    """Read the haplotypes of individuals in windows of a width, in bp, on the regions.

    Args:
        settings: of the stage.
        corpus: whose regions they are, if no file has them.
        genome: the genome.
        width: of the windows.
        samples: the individuals, in this order.

    Raises:
        UserError: an input cannot be used, or inputs do not belong together.
    """
    regions = _regions(settings, corpus, genome, width)
    indel, mismatches = settings.max_indel, settings.max_mismatches
    return read_haplotypes(settings.vcf, genome, regions, samples, max_indel=indel, max_mismatches=mismatches)


def score(
    settings: RiskSettings,
    predictor: Predictor,
    corpus: Corpus | None,
    genome: Genome,
    cohort: CohortHaplotypes,
    scratch: Path,
) -> Source:
    """Compute what haplotypes change.

    A predictor that knows no cell types reads none; those that were asked for have then chosen the corpus' regions.

    Args:
        settings: of the stage.
        predictor: of two classes.
        corpus: see `corpus_of`.
        genome: the genome.
        cohort: the haplotypes.
        scratch: folder where effects are kept, block by block, for a run that goes on.

    Raises:
        UserError: cell types are unknown, or of no use.
    """
    known = corpus if predictor.per_cell_type else None
    chose_regions = known is None and settings.regions is None
    effects = haplotype_effects(predictor, cohort, known, [] if chose_regions else settings.cell_types, scratch)
    return Source(cohort, effects, list(predictor.scanner.motifs), tf_changes(predictor.scanner, genome, cohort))


def _regions(settings: RiskSettings, corpus: Corpus | None, genome: Genome, width: int) -> pd.DataFrame:
    """Return windows of the predictor's width on the centres of the chosen regions: name, chrom, start, end."""
    if settings.regions is not None:
        path, table = settings.regions, read_bed(settings.regions, genome.lengths).table
    else:
        assert corpus is not None  # there are regions: see `corpus_of`
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
