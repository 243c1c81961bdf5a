"""The stage `variants`: the effect of SNVs and short indels on a predictor's log-odds, per cell type.

For every alternate allele the reference and the alternate window are built, and both modalities follow: the sequence is
encoded, the motifs are scanned again, and the window's own column of the region matrix is replaced. A variant inside a
region of the corpus is seen in that region's window, as the predictor was trained; elsewhere the window is centred on
the variant.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from genebert.batches import Context, WindowData
from genebert.console import progress_bar, say
from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.vcf import Record, VcfReader, VcfWriter, info_text
from genebert.predictor import Predictor
from genebert.schema import EVIDENCE_STEPS, Variant, encode
from genebert.settings import VariantsSettings
from genebert.stage import StageRun, open_stage
from genebert.tasks.labels import check_genome

CHUNK = 128
"""Records scored at a time; memory does not grow with the number of variants."""
MOTIF_FLANK = 30
"""Motifs gained and lost are sought within 30 bp of the variant."""
MUTAGENESIS_FLANK = 20
"""In-silico mutagenesis covers 20 bp on either side of the variant."""
SEQUENCE_ONLY = "all"
"""Stands in the cell type column for a predictor that knows no cell types."""
INFO = {
    "GENEBERT": (
        ".",
        "String",
        "Effect per allele and cell type: Allele|CellType|ReferenceLogOdds|AlternateLogOdds|Difference",
    ),
    "GENEBERT_MAX": (
        "A",
        "Float",
        "Difference of log-odds, alternate minus reference, in the cell type where it is largest by size",
    ),
    "GENEBERT_GAINED": ("A", "String", "Motif whose best hit near the variant the alternate allele strengthens most"),
    "GENEBERT_LOST": ("A", "String", "Motif whose best hit near the variant the alternate allele weakens most"),
}


def variants(settings: VariantsSettings) -> Path:
    """Score the variants of a VCF.

    Writes variants.vcf.gz (INFO fields as in `INFO`), variants.tsv (one row per alternate allele and cell type),
    skipped.tsv (what was not scored, and why), mutagenesis.tsv (in-silico mutagenesis of the variants with the largest
    effects) and the manifest.

    Raises:
        UserError: an input cannot be used, inputs do not belong together, or no variant can be scored.
    """
    inputs = {name: getattr(settings, name) for name in ("vcf", "model", "genome", "corpus")}
    with open_stage("variants", settings, inputs) as run:
        if run.finished:
            say(f"{run.out} is already there, made with these settings.")
            return run.out
        predictor = Predictor.open(settings.model, settings.device)
        if len(predictor.classes) != 2:
            raise UserError(
                problem(
                    settings.model,
                    f"the model has the classes {', '.join(predictor.classes)}, and variants are scored by the "
                    "log-odds of two",
                    "Fine-tune on labels of two classes.",
                )
            )
        corpus = predictor.need_corpus(settings.corpus)
        with Genome(settings.genome) as genome:
            if corpus is not None:
                check_genome(genome, corpus)
            scorer = Scorer(predictor, genome, corpus, settings.cell_types)
            return _score_all(settings, scorer, run)


@dataclass(frozen=True)
class Pair:
    """A reference window and its alternate.

    Attributes:
        variant: the variant.
        start: of the window on the genome, 0-based.
        reference, alternate: base codes, uint8, shape (width,).
    """

    variant: Variant
    start: int
    reference: NDArray[np.uint8]
    alternate: NDArray[np.uint8]


class Scorer:
    """Scores windows with a predictor, in all chosen cell types.

    Args:
        predictor: a binary predictor.
        genome: the genome.
        corpus: for a predictor per cell type, else None.
        cell_types: names; all of the corpus if empty.
    """

    def __init__(self, predictor: Predictor, genome: Genome, corpus: Corpus | None, cell_types: list[str]) -> None:
        self.predictor = predictor
        self.genome = genome
        self.corpus = corpus
        self.cell_types = (cell_types or corpus.cell_types) if corpus is not None else [SEQUENCE_ONLY]
        self._indices = corpus.cell_type_indices(self.cell_types) if corpus is not None else np.zeros(1, dtype=np.int64)
        self.motif_names = [motif.name for motif in predictor.scanner.motifs]

    def region_start(self, variant: Variant) -> int | None:
        """Return the start of the corpus region that holds a variant, or None."""
        if self.corpus is None:
            return None
        position = self.corpus.line_positions([variant.chrom], np.array([variant.position]))[0]
        nearest = np.searchsorted(self.corpus.region_positions, position - self.corpus.width // 2)
        for index in (nearest - 1, nearest):
            if 0 <= index < len(self.corpus.regions):
                region = self.corpus.regions.iloc[index]
                if region["chrom"] == variant.chrom and region["start"] <= variant.position < region["end"]:
                    return int(region["start"]) + (self.corpus.width - self.predictor.width) // 2
        return None

    def pair(self, variant: Variant) -> Pair:
        """Return the windows of a variant."""
        width = self.predictor.width
        start = self.region_start(variant)
        if start is None or not start <= variant.position < start + width:
            start = variant.position - width // 2
        reference = self.genome.fetch(variant.chrom, start, start + width)
        return Pair(variant, start, reference, self._alternate(variant, start, width))

    def _alternate(self, variant: Variant, start: int, width: int) -> NDArray[np.uint8]:
        before = self.genome.fetch(variant.chrom, start, variant.position)
        after_start = variant.position + len(variant.ref)
        after = self.genome.fetch(variant.chrom, after_start, after_start + width)
        return np.concatenate([before, encode(variant.alt).codes, after])[:width]

    def log_odds(self, codes: NDArray[np.uint8], chroms: list[str], starts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the log-odds (natural) of the second class, float64, shape (n, cell types).

        Each sequence is encoded once, and paired with its region matrix in each cell type.

        Args:
            codes: base codes of windows, uint8, shape (n, width).
            chroms, starts: where the (reference) windows lie.
        """
        model = self.predictor.model
        device = next(model.parameters()).device
        result = np.empty((len(codes), len(self.cell_types)))
        batches = [self._data(codes, chroms, starts, int(index)) for index in self._indices]
        with torch.no_grad():
            for begin in range(0, len(codes), CHUNK):
                rows = np.arange(begin, min(begin + CHUNK, len(codes)))
                first = batches[0].collate(rows).to(device)
                encoded = model.genebert.sequence_encoder(first.input_ids, first.segment_ids).pooled
                for column, data in enumerate(batches):
                    matrix = (first if column == 0 else data.collate(rows).to(device)).matrix
                    logits = model.classify(encoded, model.genebert.region_encoder(matrix)).double()
                    result[rows, column] = (logits[:, 1] - logits[:, 0]).cpu().numpy()
        return result

    def _data(
        self, codes: NDArray[np.uint8], chroms: list[str], starts: NDArray[np.int64], cell_type: int
    ) -> WindowData:
        if self.corpus is None:
            return self.predictor.data(codes, None)
        position = self.corpus.line_positions(chroms, starts + self.predictor.width // 2)
        return self.predictor.data(codes, Context(self.corpus, np.full(len(codes), cell_type), position))

    def score(self, pairs: list[Pair]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return log-odds of the reference and of the alternate windows: float64, shape (n, cell types) each."""
        codes = np.stack([pair.reference for pair in pairs] + [pair.alternate for pair in pairs])
        chroms = [pair.variant.chrom for pair in pairs] * 2
        starts = np.array([pair.start for pair in pairs] * 2, dtype=np.int64)
        both = self.log_odds(codes, chroms, starts)
        return both[: len(pairs)], both[len(pairs) :]

    def motif_changes(self, variant: Variant) -> tuple[tuple[str, float], tuple[str, float]]:
        """Return the motifs that the alternate allele strengthens and weakens most, each with its change.

        The change is that of -log10 p of the motif's best hit near the variant.
        """
        start = variant.position - MOTIF_FLANK
        end = variant.position + len(variant.ref) + MOTIF_FLANK
        reference = self.genome.fetch(variant.chrom, start, end)
        alternate = np.concatenate(
            [reference[:MOTIF_FLANK], encode(variant.alt).codes, reference[MOTIF_FLANK + len(variant.ref) :]]
        )
        before, after = (self.predictor.scanner.scan(codes[None])[0].astype(int) for codes in (reference, alternate))
        change = (after - before) / EVIDENCE_STEPS
        gained, lost = int(change.argmax()), int(change.argmin())
        return (self.motif_names[gained], float(change[gained])), (self.motif_names[lost], float(change[lost]))


def _score_all(settings: VariantsSettings, scorer: Scorer, run: StageRun) -> Path:
    reader = VcfReader(settings.vcf, scorer.genome, settings.max_indel)
    writer = VcfWriter(run.folder / "variants.vcf.gz", reader.header_lines, scorer.genome.lengths, INFO)
    tables: list[pd.DataFrame] = []
    scored = 0
    with (
        progress_bar() as progress,
        (run.folder / "variants.tsv").open("w") as rows,
        (run.folder / "skipped.tsv").open("w") as skipped,
    ):
        skipped.write("chrom\tposition\tid\tref\talt\treason\n")
        task = progress.add_task("scoring variants", total=None, note="")
        for chunk in _chunks(reader):
            table = _score_chunk(chunk, scorer, writer, settings.everywhere, reader, skipped)
            table.to_csv(rows, sep="\t", index=False, header=not scored and rows.tell() == 0, float_format="%.6g")
            scored += len(table) // len(scorer.cell_types)
            tables = [_strongest([*tables, table], settings.mutagenesis)]
            progress.update(task, completed=reader.read, note=f"{scored:,} scored")
    reader.close()
    writer.close()
    if not scored:
        raise UserError(_nothing_scored(settings, reader))
    mutagenesis(scorer, tables[0]).to_csv(run.folder / "mutagenesis.tsv", sep="\t", index=False, float_format="%.6g")
    metrics = {
        "records": reader.read,
        "alleles_scored": scored,
        "alleles_skipped": dict(sorted(reader.skipped.counts.items())),
        "ref_mismatches": reader.skipped.examples,
        "cell_types": scorer.cell_types,
        "class": scorer.predictor.classes[1],
        "window_width": scorer.predictor.width,
    }
    out = run.finish(metrics)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reader.skipped.counts.items())) or "none"
    say(f"{out}: {scored:,} alleles of {reader.read:,} records scored in {len(scorer.cell_types)} cell types")
    say(f"  skipped: {reasons}")
    for name, found in reader.skipped.examples.items():
        say(f"  REF mismatch {name}: the genome has {found}")
    return out


def _nothing_scored(settings: VariantsSettings, reader: VcfReader) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in reader.skipped.counts.items()) or "it has no records"
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


def _score_chunk(
    records: list[Record], scorer: Scorer, writer: VcfWriter, everywhere: bool, reader: VcfReader, skipped: Any
) -> pd.DataFrame:
    """Score a chunk, write its VCF records and skipped alleles, and return its rows."""
    wanted: list[Variant] = []
    for record in records:
        for allele in record.alleles:
            reason = allele.reason
            if allele.variant is not None:
                inside = everywhere or scorer.corpus is None or scorer.region_start(allele.variant) is not None
                if inside:
                    wanted.append(allele.variant)
                    continue
                reason = "outside the corpus' regions"
                reader.skipped.counts[reason] += 1
            skipped.write(f"{record.chrom}\t{record.position + 1}\t{record.id}\t{record.ref}\t{allele.alt}\t{reason}\n")
    table = _table(wanted, scorer)
    by_name = dict(tuple(table.groupby("variant"))) if len(table) else {}
    for record in records:
        found = [by_name.get(allele.variant.name) if allele.variant else None for allele in record.alleles]
        writer.write(record, _info(record, found))
    return table


def _table(wanted: list[Variant], scorer: Scorer) -> pd.DataFrame:
    columns = [
        "variant",
        "id",
        "chrom",
        "position",
        "ref",
        "alt",
        "cell_type",
        "reference",
        "alternate",
        "difference",
        "gained",
        "gained_by",
        "lost",
        "lost_by",
    ]
    if not wanted:
        return pd.DataFrame(columns=columns)
    reference, alternate = scorer.score([scorer.pair(variant) for variant in wanted])
    rows = []
    for i, variant in enumerate(wanted):
        (gained, gain), (lost, loss) = scorer.motif_changes(variant)
        for j, cell_type in enumerate(scorer.cell_types):
            before, after = reference[i, j], alternate[i, j]
            rows.append(
                (
                    variant.name,
                    variant.id,
                    variant.chrom,
                    variant.position + 1,
                    variant.ref,
                    variant.alt,
                    cell_type,
                    before,
                    after,
                    after - before,
                    gained if gain > 0 else ".",
                    gain,
                    lost if loss < 0 else ".",
                    loss,
                )
            )
    return pd.DataFrame(rows, columns=columns)


def _info(record: Record, found: list[pd.DataFrame | None]) -> dict[str, Any]:
    if all(table is None for table in found):
        return {}
    effects: list[str] = []
    most: list[float | None] = []
    gained: list[str] = []
    lost: list[str] = []
    for allele, table in zip(record.alleles, found, strict=True):
        if table is None:
            most.append(None)
            gained.append(".")
            lost.append(".")
            continue
        for row in table.itertuples():
            effects.append(
                f"{allele.alt}|{info_text(row.cell_type)}|{row.reference:.4f}|{row.alternate:.4f}|{row.difference:.4f}"
            )
        most.append(float(table["difference"].iloc[table["difference"].abs().to_numpy().argmax()]))
        gained.append(info_text(table["gained"].iloc[0]))
        lost.append(info_text(table["lost"].iloc[0]))
    return {"GENEBERT": effects, "GENEBERT_MAX": most, "GENEBERT_GAINED": gained, "GENEBERT_LOST": lost}


def _strongest(tables: list[pd.DataFrame], count: int) -> pd.DataFrame:
    """Return the row with the largest effect of each of the `count` variants whose effects are largest."""
    table = pd.concat([found for found in tables if len(found)] or tables, ignore_index=True)
    order = table["difference"].astype(float).abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].drop_duplicates("variant").head(count)


def mutagenesis(scorer: Scorer, strongest: pd.DataFrame) -> pd.DataFrame:
    """Mutate every base near variants to each other base, on the reference and on the alternate allele.

    Args:
        scorer: the scorer.
        strongest: one row per variant, as `_table` makes them; its cell type is the one looked at.

    Returns:
        DataFrame with variant, cell_type, allele (reference or alternate), offset (bp from the window's base at the
        variant's position), base, mutated_to, difference (of log-odds, mutated minus not).
    """
    rows: list[tuple[Any, ...]] = []
    for row in strongest.itertuples():
        variant = Variant(row.chrom, int(row.position) - 1, row.ref, row.alt, row.id)
        pair = scorer.pair(variant)
        column = scorer.cell_types.index(row.cell_type)
        for allele, codes in (("reference", pair.reference), ("alternate", pair.alternate)):
            rows += [(row.variant, row.cell_type, allele, *found) for found in _mutate(scorer, pair, codes, column)]
    return pd.DataFrame(rows, columns=["variant", "cell_type", "allele", "offset", "base", "mutated_to", "difference"])


def _mutate(scorer: Scorer, pair: Pair, codes: NDArray[np.uint8], column: int) -> list[tuple[int, str, str, float]]:
    centre = pair.variant.position - pair.start
    places = [
        p
        for p in range(centre - MUTAGENESIS_FLANK, centre + MUTAGENESIS_FLANK + 1)
        if 0 <= p < len(codes) and codes[p] < 4
    ]
    changes = [(place, base) for place in places for base in range(4) if base != codes[place]]
    mutated = np.repeat(codes[None], len(changes) + 1, axis=0)
    for i, (place, base) in enumerate(changes, 1):
        mutated[i, place] = base
    count = len(mutated)
    odds = scorer.log_odds(mutated, [pair.variant.chrom] * count, np.full(count, pair.start))[:, column]
    return [
        (place - centre, "ACGT"[codes[place]], "ACGT"[base], float(odds[i] - odds[0]))
        for i, (place, base) in enumerate(changes, 1)
    ]
