"""The stage `variants`: the effect of SNVs and short indels per cell type.

That is the effect on a predictor's log-odds, or, with a pre-trained model, what that model makes of them (`zero_shot`).

For every alternate allele the reference and the alternate window are built, and both modalities follow: the sequence is
encoded, the motifs are scanned again, and the window's own column of the region matrix is replaced. A variant inside a
region of the corpus is seen in that region's window, as the model was trained; elsewhere the window is centred on
the variant.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from genebert.cell_type_distance import new_cell_types
from genebert.console import progress_bar, say
from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.sites import SiteReader, read_regions
from genebert.inputs.vcf import Record, VcfWriter
from genebert.predictor import Predictor
from genebert.schema import Variant
from genebert.settings import VariantsSettings, region_file
from genebert.stage import MANIFEST, StageRun, open_stage, read_manifest, write_json
from genebert.tasks.labels import check_genome
from genebert.variants.motif_sites import motif_sites, variants_of
from genebert.variants.mutagenesis import mutagenesis
from genebert.variants.null import Null, Reservoir, draw
from genebert.variants.parts import Parts
from genebert.variants.scorer import CHUNK, Scorer, WindowScorer
from genebert.variants.tables import (
    COLUMNS,
    OUTSIDE,
    TABLES,
    Effect,
    effects_of,
    info_of,
    info_values,
    rows_of,
    skipped_lines,
    strongest_of,
    with_p,
)
from genebert.variants.zero_shot import Pretrained, ZeroShotScorer

_SAMPLE, _DRAW = range(2)
"""What a random generator is for, beside the seed."""


def variants(settings: VariantsSettings) -> Path:
    """Score the variants of a VCF.

    Writes variants.vcf.gz (the records as they were, without samples, and the INFO fields of `tables.info_of`),
    variants.tsv or variants.parquet (one row per record, alternate allele and cell type), skipped.tsv (what was not
    scored, and why), mutagenesis.tsv and motif_sites.json (in-silico mutagenesis of the variants with the largest
    effects, and where the motifs lie that they gain and lose) and the manifest. The VCF is read twice: what is wrong
    with it is found before anything is scored. An interrupted run resumes.

    Raises:
        UserError: an input cannot be used, inputs do not belong together, or no variant can be scored.
    """
    inputs = {name: getattr(settings, name) for name in ("vcf", "model", "genome", "corpus")}
    inputs["regions"] = region_file(settings.regions)
    with open_stage("variants", settings, inputs, resumable=True) as run:
        if run.finished:
            return run.out
        with Genome(settings.genome) as genome:
            return _Stage(settings, _scorer(settings, genome), run).complete()


def _scorer(settings: VariantsSettings, genome: Genome) -> WindowScorer:
    """Return what scores windows, as the model asks for it."""
    scorer: WindowScorer
    if (settings.model / MANIFEST).exists() and read_manifest(settings.model).stage == "pretrain":
        pretrained = Pretrained.open(settings.model, settings.corpus, settings.device)
        scorer = ZeroShotScorer(pretrained, genome, settings.cell_types, settings.shifts)
    else:
        predictor = Predictor.open(settings.model, settings.device)
        predictor.check_two_alleles()
        corpus = predictor.need_corpus(settings.corpus)
        scorer = Scorer(predictor, genome, corpus, settings.cell_types, settings.shifts)
    if scorer.corpus is not None:
        check_genome(genome, scorer.corpus)
    return scorer


class _Stage:
    """The stage at work."""

    def __init__(self, settings: VariantsSettings, scorer: WindowScorer, run: StageRun) -> None:
        self.settings = settings
        self.scorer = scorer
        self.regions = read_regions(settings.regions, scorer.genome) if settings.regions else None
        self.run = run
        self.distances = new_cell_types(scorer.distances)
        self.parts = Parts(run.scratch / "parts", scorer.kind)

    def complete(self) -> Path:
        """Read, score random variants, score and write; return the finished folder."""
        sample, total = self.survey()
        null = self.null(sample)
        return self.score(total, null)

    def reader(self) -> SiteReader:
        """Open the VCF from its beginning."""
        return SiteReader(self.settings.vcf, self.scorer.genome, self.settings.max_indel, self.regions)

    def wanted(self, records: list[Record]) -> Iterator[Variant]:
        """Yield the variants of records that are to be scored."""
        everywhere = self.settings.everywhere or self.scorer.corpus is None
        for record in records:
            for allele in record.alleles:
                if allele.variant and (everywhere or self.scorer.windows.region_start(allele.variant) is not None):
                    yield allele.variant

    def survey(self) -> tuple[Reservoir, int]:
        """Read all that is to be scored; return a random sample of it, and the number of records.

        Raises:
            UserError: too many alleles mismatch the genome, or none can be scored.
        """
        sample = Reservoir(self.settings.null, np.random.default_rng([self.settings.seed, _SAMPLE]))
        reader = self.reader()
        with progress_bar() as progress:
            task = progress.add_task("reading variants", total=None, note="")
            for chunk in _chunks(reader):
                for variant in self.wanted(chunk):
                    sample.add(variant)
                progress.update(task, completed=reader.taken, note=f"{sample.seen:,} to score")
        reader.close()
        reader.check_assembly(self.settings.max_mismatches)
        if not sample.seen:
            reader.skipped.counts += Counter({OUTSIDE: reader.matched})
            raise UserError(_nothing_to_score(reader))
        return sample, reader.taken

    def null(self, sample: Reservoir) -> Null | None:
        """Score random variants like those of a sample; return None if there are to be none, or there is no place."""
        scorer, generator = self.scorer, np.random.default_rng([self.settings.seed, _DRAW])
        if not self.settings.null:
            return None
        drawn = draw(sample.kept, self.settings.null, scorer.windows.room, scorer.genome, generator)
        found = []
        with progress_bar() as progress:
            task = progress.add_task("scoring random variants", total=len(drawn), note="")
            for begin in range(0, len(drawn), CHUNK):
                some = drawn[begin : begin + CHUNK]
                found.append(self.parts.get(f"null-{begin // CHUNK:06d}", partial(scorer.scores, some)))
                progress.advance(task, len(some))
        return Null(drawn, found[0].joined(found)) if found else None

    def score(self, total: int, null: Null | None) -> Path:
        """Score all variants, chunk by chunk, and write them."""
        reader, scorer, folder = self.reader(), self.scorer, self.run.folder
        further = with_p(scorer.further)
        writer = VcfWriter(folder / "variants.vcf.gz", reader.meta_lines, info_of(further))
        strongest = pd.DataFrame(columns=COLUMNS)
        scored = 0
        with (
            progress_bar() as progress,
            TABLES[self.settings.format](folder, further) as table,
            (folder / "skipped.tsv").open("w") as skipped,
        ):
            skipped.write("chrom\tposition\tid\tref\talt\treason\n")
            task = progress.add_task("scoring variants", total=total, note="")
            for number, chunk in enumerate(_chunks(reader)):
                effects = self.effects(number, chunk, null)
                for record in chunk:
                    writer.write(record, info_values(record, effects, scorer.cell_types))
                for reason, line in skipped_lines(chunk, effects):
                    reader.skipped.counts[OUTSIDE] += reason == OUTSIDE
                    skipped.write(line)
                rows = rows_of(chunk, effects, scorer.cell_types, further)
                table.write(rows)
                scored += len(rows) // len(scorer.cell_types)
                strongest = strongest_of([strongest, rows], self.settings.mutagenesis)
                progress.update(task, completed=reader.taken, note=f"{scored:,} scored")
        reader.close()
        writer.close()
        found = mutagenesis(scorer, strongest)
        found.to_csv(folder / "mutagenesis.tsv", sep="\t", index=False, float_format="%.6g")
        write_json(folder / "motif_sites.json", motif_sites(scorer, variants_of(strongest)))
        return self.finish(scored, reader, null)

    def effects(self, number: int, records: list[Record], null: Null | None) -> dict[str, Effect]:
        """Return name -> effect of the variants of a chunk; one that is there twice is scored once."""
        unique = {variant.name: variant for variant in self.wanted(records)}
        if not unique:
            return {}
        several = [*unique.values()]
        scores = self.parts.get(f"scored-{number:06d}", partial(self.scorer.scores, several))
        p = None if null is None else null.p_values(several, scores)
        return dict(zip(unique, effects_of(scores, p, self.scorer.motif_names), strict=True))

    def finish(self, scored: int, reader: SiteReader, null: Null | None) -> Path:
        """Finish the stage, and say what was scored and what not."""
        scorer = self.scorer
        skipped = {reason: count for reason, count in sorted(reader.skipped.counts.items()) if count}
        metrics = {
            "records": reader.taken,
            "alleles_scored": scored,
            "alleles_skipped": skipped,
            "ref_mismatches": reader.skipped.examples,
            "cell_types": scorer.cell_types,
            "cell_type_distances": self.distances,
            "score": scorer.what,
            "window_width": scorer.model.width,
            "random_variants": 0 if null is None else len(null),
        }
        out = self.run.finish(metrics)
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in skipped.items()) or "none"
        say(f"{out}: {scored:,} alleles of {reader.taken:,} records scored in {len(scorer.cell_types)} cell types")
        say(f"  skipped: {reasons}")
        for name, found in reader.skipped.examples.items():
            say(f"  REF mismatch {name}: the genome has {found}")
        return out


def _nothing_to_score(reader: SiteReader) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in reader.skipped.counts.items())
    reasons = reasons or ("they have no alternate alleles" if reader.taken else "it has no records")
    mismatches = "".join(f"; {name} where the genome has {found}" for name, found in reader.skipped.examples.items())
    return problem(
        reader.path,
        f"none of its {reader.taken} records can be scored: {reasons}{mismatches}",
        "Check that VCF and genome are of the same assembly; --everywhere scores variants outside regions too.",
    )


def _chunks(reader: SiteReader) -> Iterator[list[Record]]:
    records = iter(reader)
    while chunk := list(islice(records, CHUNK)):
        yield chunk
