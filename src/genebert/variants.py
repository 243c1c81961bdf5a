"""The stage `variants`: the effect of SNVs and short indels on a predictor's log-odds, per cell type.

For every alternate allele the reference and the alternate window are built, and both modalities follow: the sequence is
encoded, the motifs are scanned again, and the window's own column of the region matrix is replaced. A variant inside a
region of the corpus is seen in that region's window, as the predictor was trained; elsewhere the window is centred on
the variant.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.console import progress_bar, say
from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.vcf import MISMATCH, Record, VcfReader, VcfWriter, info_text
from genebert.methods.base import Examples
from genebert.methods.genebert import Place
from genebert.predictor import Predictor
from genebert.schema import EVIDENCE_STEPS, N, Variant, encode
from genebert.settings import VariantsSettings
from genebert.stage import StageRun, open_stage
from genebert.tasks.labels import check_genome

CHUNK = 128
"""Records scored at a time; memory does not grow with the number of variants."""
MOTIF_FLANK = 30
"""Motifs gained and lost are sought within 30 bp of the variant."""
MUTAGENESIS_FLANK = 20
"""In-silico mutagenesis covers 20 bp on either side of the variant."""
FEW_ALLELES = 20
"""From this number of alleles on, a warning is given if more than half mismatch the genome."""
OUTSIDE = "outside the corpus' regions"
SEQUENCE_ONLY = "all"
"""Stands in the cell type column for a predictor that knows no cell types."""
COLUMNS = (
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
)
"""Columns of variants.tsv."""
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
        """Return the motifs that alternate alleles strengthen and weaken most ("." if none), each with its change.

        The change is that of -log10 p of the motif's best hit near the variant.
        """
        stretches = [self._stretches(variant) for variant in variants]
        width = max(len(codes) for pair in stretches for codes in pair)
        padded = np.full((len(variants), 2, width), N, dtype=np.uint8)  # no hit covers N
        for row, pair in zip(padded, stretches, strict=True):
            for place, codes in zip(row, pair, strict=True):
                place[: len(codes)] = codes
        hits = self.predictor.scanner.scan(padded.reshape(-1, width)).reshape(len(variants), 2, -1).astype(int)
        changes = (hits[:, 1] - hits[:, 0]) / EVIDENCE_STEPS
        return [(self._most(change, 1), self._most(change, -1)) for change in changes]

    def _stretches(self, variant: Variant) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the base codes near a variant, of both alleles."""
        after = MOTIF_FLANK + len(variant.ref)
        reference = self.genome.fetch(variant.chrom, variant.position - MOTIF_FLANK, variant.position + after)
        return reference, np.concatenate([reference[:MOTIF_FLANK], encode(variant.alt).codes, reference[after:]])

    def _most(self, change: NDArray[np.float64], sign: int) -> tuple[str, float]:
        """Return the motif that changes most in a direction, and its change."""
        index = int((sign * change).argmax())
        return self.motif_names[index] if sign * change[index] > 0 else ".", float(change[index])

    def effects(self, variants: Iterable[Variant]) -> dict[str, Effect]:
        """Return name -> effect; a variant that is given twice is scored once."""
        unique = {variant.name: variant for variant in variants}
        if not unique:
            return {}
        odds = self.score([self.pair(variant) for variant in unique.values()])
        changes = self.motif_changes(list(unique.values()))
        return {
            name: Effect(reference, alternate, gained, lost)
            for name, reference, alternate, (gained, lost) in zip(unique, *odds, changes, strict=True)
        }


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
                writer.write(record, _info(record, effects, scorer.cell_types))
            skipped.writelines(_skipped(chunk, effects, reader))
            table = _table(chunk, effects, scorer.cell_types)
            table.to_csv(rows, sep="\t", index=False, header=False, float_format="%.6g")
            scored += len(table) // len(scorer.cell_types)
            strongest = _strongest([strongest, table], settings.mutagenesis)
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
            if variant and (everywhere or scorer.corpus is None or scorer.region_start(variant) is not None):
                yield variant


def _skipped(records: list[Record], effects: Mapping[str, Effect], reader: VcfReader) -> Iterator[str]:
    """Yield the lines of skipped.tsv, and count the variants that lie outside regions."""
    for record in records:
        for allele in record.alleles:
            if allele.variant:
                if allele.variant.name in effects:
                    continue
                reader.skipped.counts[OUTSIDE] += 1
            where = f"{record.chrom}\t{record.position + 1}\t{record.id}\t{record.ref}"
            yield f"{where}\t{allele.alt}\t{allele.reason or OUTSIDE}\n"


def _table(records: list[Record], effects: Mapping[str, Effect], cell_types: list[str]) -> pd.DataFrame:
    """Return the rows of variants.tsv: one per record, scored allele and cell type."""
    rows: list[tuple[Any, ...]] = []
    for variant in (allele.variant for record in records for allele in record.alleles):
        if variant is None or variant.name not in effects:
            continue
        effect = effects[variant.name]
        what = (variant.name, variant.id, variant.chrom, variant.position + 1, variant.ref, variant.alt)
        odds = zip(cell_types, effect.reference, effect.alternate, effect.difference, strict=True)
        rows += [(*what, *found, *effect.gained, *effect.lost) for found in odds]
    return pd.DataFrame(rows, columns=COLUMNS)


def _info(record: Record, effects: Mapping[str, Effect], cell_types: list[str]) -> dict[str, list[str]]:
    """Return the values of the fields in `INFO`; none if no allele of the record is scored."""
    found = [effects.get(allele.variant.name) if allele.variant else None for allele in record.alleles]
    if not any(found):
        return {}
    entries = [
        f"{allele.alt}|{info_text(cell_type)}|{before:.4f}|{after:.4f}|{after - before:.4f}"
        for allele, effect in zip(record.alleles, found, strict=True)
        if effect
        for cell_type, before, after in zip(cell_types, effect.reference, effect.alternate, strict=True)
    ]
    return {
        "GENEBERT": entries,
        "GENEBERT_MAX": [f"{effect.largest:.6g}" if effect else "." for effect in found],
        "GENEBERT_GAINED": [info_text(effect.gained[0]) if effect else "." for effect in found],
        "GENEBERT_LOST": [info_text(effect.lost[0]) if effect else "." for effect in found],
    }


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
        for allele, codes in (("reference", pair.reference), ("alternate", pair.alternate)):
            changes = _mutate(scorer, pair, codes, row.cell_type)
            rows += [(row.variant, row.cell_type, allele, *change) for change in changes]
    return pd.DataFrame(rows, columns=["variant", "cell_type", "allele", "offset", "base", "mutated_to", "difference"])


def _mutate(scorer: Scorer, pair: Pair, codes: NDArray[np.uint8], cell_type: str) -> list[tuple[int, str, str, float]]:
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
    odds = scorer.log_odds(mutated, [pair.variant.chrom] * count, np.full(count, pair.start), [cell_type])[:, 0]
    return [
        (place - centre, "ACGT"[codes[place]], "ACGT"[base], float(odds[i] - odds[0]))
        for i, (place, base) in enumerate(changes, 1)
    ]
