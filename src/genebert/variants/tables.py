"""Scored variants as rows of a table, and as INFO fields of a VCF."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from genebert.inputs.vcf import Record, VcfReader, info_text
from genebert.variants.scorer import Effect

OUTSIDE = "outside the corpus' regions"
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


def skipped_lines(records: list[Record], effects: Mapping[str, Effect], reader: VcfReader) -> Iterator[str]:
    """Yield the lines of skipped.tsv, and count the variants that lie outside regions."""
    for record in records:
        for allele in record.alleles:
            if allele.variant:
                if allele.variant.name in effects:
                    continue
                reader.skipped.counts[OUTSIDE] += 1
            where = f"{record.chrom}\t{record.position + 1}\t{record.id}\t{record.ref}"
            yield f"{where}\t{allele.alt}\t{allele.reason or OUTSIDE}\n"


def rows_of(records: list[Record], effects: Mapping[str, Effect], cell_types: list[str]) -> pd.DataFrame:
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


def info_values(record: Record, effects: Mapping[str, Effect], cell_types: list[str]) -> dict[str, list[str]]:
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


def strongest_of(tables: list[pd.DataFrame], count: int) -> pd.DataFrame:
    """Return the row with the largest effect of each of the `count` variants whose effects are largest."""
    table = pd.concat([found for found in tables if len(found)] or tables, ignore_index=True)
    order = table["difference"].astype(float).abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].drop_duplicates("variant").head(count)
