"""The stage `variants`: the effect of SNVs and short indels on a predictor's log-odds, per cell type.

For every alternate allele the reference and the alternate window are built, and both modalities follow: the sequence is
encoded, the motifs are scanned again, and the window's own column of the region matrix is replaced. A variant inside a
region of the corpus is seen in that region's window, as the predictor was trained; elsewhere the window is centred on
the variant.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd

from genebert.console import progress_bar, say
from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.vcf import MISMATCH, Record, VcfReader, VcfWriter
from genebert.predictor import Predictor
from genebert.schema import Variant
from genebert.settings import VariantsSettings
from genebert.stage import StageRun, open_stage
from genebert.tasks.labels import check_genome
from genebert.variants.mutagenesis import mutagenesis
from genebert.variants.scorer import CHUNK, Scorer
from genebert.variants.tables import COLUMNS, INFO, info_values, rows_of, skipped_lines, strongest_of

FEW_ALLELES = 20
"""From this number of alleles on, a warning is given if more than half mismatch the genome."""


def variants(settings: VariantsSettings) -> Path:
    """Score the variants of a VCF.

    Writes variants.vcf.gz (the records as they were, without samples, and the INFO fields of `INFO`), variants.tsv (one
    row per record, alternate allele and cell type), skipped.tsv (what was not scored, and why), mutagenesis.tsv
    (in-silico mutagenesis of the variants with the largest effects) and the manifest.

    Raises:
        UserError: an input cannot be used, inputs do not belong together, or no variant can be scored.
    """
    inputs = {name: getattr(settings, name) for name in ("vcf", "model", "genome", "corpus")}
    with open_stage("variants", settings, inputs) as run:
        if run.finished:
            return run.out
        predictor = Predictor.open(settings.model, settings.device)
        if not predictor.target.is_binary:
            predicted = ", ".join(predictor.target.names)
            what = f"the model predicts {predicted}, and variants are scored by the log-odds of two classes"
            raise UserError(problem(settings.model, what, "Fine-tune on labels of two classes."))
        if predictor.oriented:
            what = "the model is of oriented windows, which are aligned at a base, and windows around variants are not"
            raise UserError(problem(settings.model, what, "Fine-tune without --oriented."))
        corpus = predictor.need_corpus(settings.corpus)
        with Genome(settings.genome) as genome:
            if corpus is not None:
                check_genome(genome, corpus)
            scorer = Scorer(predictor, genome, corpus, settings.cell_types)
            return _score_all(settings, scorer, run)


def _score_all(settings: VariantsSettings, scorer: Scorer, run: StageRun) -> Path:
    reader = VcfReader(settings.vcf, scorer.genome, settings.max_indel)
    writer = VcfWriter(run.folder / "variants.vcf.gz", reader.meta_lines, INFO)
    strongest = pd.DataFrame(columns=COLUMNS)
    scored = 0
    with (
        progress_bar() as progress,
        (run.folder / "variants.tsv").open("w") as rows,
        (run.folder / "skipped.tsv").open("w") as skipped,
    ):
        rows.write("\t".join(COLUMNS) + "\n")
        skipped.write("chrom\tposition\tid\tref\talt\treason\n")
        task = progress.add_task("scoring variants", total=None, note="")
        for chunk in _chunks(reader):
            effects = scorer.effects(_wanted(chunk, scorer, settings.everywhere))
            for record in chunk:
                writer.write(record, info_values(record, effects, scorer.cell_types))
            skipped.writelines(skipped_lines(chunk, effects, reader))
            table = rows_of(chunk, effects, scorer.cell_types)
            table.to_csv(rows, sep="\t", index=False, header=False, float_format="%.6g")
            scored += len(table) // len(scorer.cell_types)
            strongest = strongest_of([strongest, table], settings.mutagenesis)
            progress.update(task, completed=reader.read, note=f"{scored:,} scored")
    reader.close()
    writer.close()
    if not scored:
        raise UserError(_nothing_scored(settings, reader))
    mutagenesis(scorer, strongest).to_csv(run.folder / "mutagenesis.tsv", sep="\t", index=False, float_format="%.6g")
    return _finish(scored, scorer, reader, run)


def _finish(scored: int, scorer: Scorer, reader: VcfReader, run: StageRun) -> Path:
    metrics = {
        "records": reader.read,
        "alleles_scored": scored,
        "alleles_skipped": dict(sorted(reader.skipped.counts.items())),
        "ref_mismatches": reader.skipped.examples,
        "cell_types": scorer.cell_types,
        "class": scorer.predictor.target.names[1],
        "window_width": scorer.predictor.width,
    }
    out = run.finish(metrics)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reader.skipped.counts.items())) or "none"
    say(f"{out}: {scored:,} alleles of {reader.read:,} records scored in {len(scorer.cell_types)} cell types")
    say(f"  skipped: {reasons}")
    for name, found in reader.skipped.examples.items():
        say(f"  REF mismatch {name}: the genome has {found}")
    _warn_of_mismatches(reader)
    return out


def _warn_of_mismatches(reader: VcfReader) -> None:
    mismatched = reader.skipped.counts[MISMATCH]
    compared = mismatched + reader.matched
    if compared >= FEW_ALLELES and mismatched > compared / 2:
        found = f"the REF of {mismatched:,} of {compared:,} alleles is not what the genome {reader.genome.path} has"
        remedy = "Check that VCF and genome are of the same assembly; the scores of the others may be by chance."
        say(f"warning: {problem(reader.path, found, remedy)}")


def _nothing_scored(settings: VariantsSettings, reader: VcfReader) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in reader.skipped.counts.items())
    reasons = reasons or ("they have no alternate alleles" if reader.read else "it has no records")
    mismatches = "".join(f"; {name} where the genome has {found}" for name, found in reader.skipped.examples.items())
    return problem(
        settings.vcf,
        f"none of its {reader.read} records can be scored: {reasons}{mismatches}",
        "Check that VCF and genome are of the same assembly; --everywhere scores variants outside regions too.",
    )


def _chunks(reader: VcfReader) -> Iterator[list[Record]]:
    records = iter(reader)
    while chunk := list(islice(records, CHUNK)):
        yield chunk


def _wanted(records: list[Record], scorer: Scorer, everywhere: bool) -> Iterator[Variant]:
    """Yield the variants of records that are to be scored."""
    for record in records:
        for allele in record.alleles:
            variant = allele.variant
            if variant and (everywhere or scorer.corpus is None or scorer.windows.region_start(variant) is not None):
                yield variant
