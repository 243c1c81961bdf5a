"""Scored variants as rows of a table, and as INFO fields of a VCF."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genebert.inputs.vcf import Allele, Record, info_text
from genebert.schema import Variant
from genebert.settings import VariantFormat
from genebert.variants.scorer import Scores

OUTSIDE = "outside the corpus' regions"
_TEXT, _NUMBER = pa.string(), pa.float64()
SCHEMA = pa.schema(
    {
        "variant": _TEXT,
        "given": _TEXT,
        "id": _TEXT,
        "chrom": _TEXT,
        "position": pa.int64(),
        "ref": _TEXT,
        "alt": _TEXT,
        "cell_type": _TEXT,
        "reference": _NUMBER,
        "alternate": _NUMBER,
        "difference": _NUMBER,
        "p": _NUMBER,
        "gained": _TEXT,
        "gained_by": _TEXT,
        "lost": _TEXT,
        "lost_by": _TEXT,
    }
)
"""Columns of variants.tsv and variants.parquet; further scores follow."""
COLUMNS = tuple(SCHEMA.names)
_MOTIFS = "Motifs whose best hits near the variant the alternate allele {} most: Allele|Motif|ChangeOfMinusLog10P"
INFO = {
    "GENEBERT": (
        ".",
        "String",
        "Effect per allele and cell type: Allele|CellType|ReferenceLogOdds|AlternateLogOdds|Difference|P",
    ),
    "GENEBERT_MAX": (
        "A",
        "Float",
        "Difference of log-odds, alternate minus reference, in the cell type where it is largest by size",
    ),
    "GENEBERT_GAINED": (".", "String", _MOTIFS.format("strengthens")),
    "GENEBERT_LOST": (".", "String", _MOTIFS.format("weakens")),
    "GENEBERT_AS": ("A", "String", "The variant as it was scored, left-aligned and trimmed, where that differs"),
}
FURTHER_INFO = {
    "likelihood_ratio": (
        "GENEBERT_RATIO",
        "log p of the alternate minus log p of the reference bases, hidden",
    ),
    "likelihood_ratio_p": ("GENEBERT_RATIO_P", "Empirical p of GENEBERT_RATIO"),
    "embedding_distance": ("GENEBERT_DISTANCE", "Distance of the pooled states of both alleles' windows"),
    "embedding_distance_p": ("GENEBERT_DISTANCE_P", "Empirical p of GENEBERT_DISTANCE"),
}
"""Scores that are the same in all cell types, and their p -> INFO field and its description."""


def with_p(further: Sequence[str]) -> list[str]:
    """Return the columns of scores that are the same in all cell types: the p of each follows it."""
    return [column for name in further for column in (name, f"{name}_p")]


def info_of(further: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """Return the INFO fields of scores, with those of further columns: field -> (number, type, description)."""
    fields = dict(FURTHER_INFO[name] for name in further)
    return INFO | {field: ("A", "Float", description) for field, description in fields.items()}


@dataclass(frozen=True)
class Effect:
    """What an alternate allele does.

    Attributes:
        reference, alternate: log-odds, float64, shape (cell types,).
        p: empirical p-values, float64, shape (cell types,); NaN if there are none.
        gained, lost: the motifs that it strengthens and weakens most, each with the change of -log10 p, in this order.
        further: what is the same in all cell types: the columns of `with_p`, p NaN if there are none.
    """

    reference: NDArray[np.float64]
    alternate: NDArray[np.float64]
    p: NDArray[np.float64]
    gained: list[tuple[str, float]]
    lost: list[tuple[str, float]]
    further: Mapping[str, float] = field(default_factory=dict)

    @property
    def difference(self) -> NDArray[np.float64]:
        """Alternate minus reference."""
        return self.alternate - self.reference

    @property
    def largest(self) -> float:
        """The difference that is largest by size."""
        return float(self.difference[np.abs(self.difference).argmax()])


def effects_of(scores: Scores, p: NDArray[np.float64] | None, motif_names: list[str]) -> list[Effect]:
    """Return the scores variant by variant; p: as `Null.p_values` returns them, None if there are none."""
    cell_types = scores.reference.shape[1]
    known = np.full_like(scores.effects, np.nan) if p is None else p
    further = dict(scores.further)
    further |= {f"{name}_p": known[:, cell_types + i] for i, name in enumerate(scores.further)}
    return [
        Effect(
            scores.reference[row],
            scores.alternate[row],
            known[row, :cell_types],
            _named(scores.gained[row], scores.gained_by[row], motif_names),
            _named(scores.lost[row], scores.lost_by[row], motif_names),
            {name: float(values[row]) for name, values in further.items()},
        )
        for row in range(len(scores))
    ]


def _named(motifs: NDArray[np.int64], by: NDArray[np.float32], names: list[str]) -> list[tuple[str, float]]:
    return [(names[i], float(change)) for i, change in zip(motifs, by, strict=True) if i >= 0]


def skipped_lines(records: list[Record], effects: Mapping[str, Effect]) -> Iterator[tuple[str, str]]:
    """Yield why each allele is not scored, and its line of skipped.tsv."""
    for record in records:
        for allele in record.alleles:
            if not (allele.variant and allele.variant.name in effects):
                reason = allele.reason or OUTSIDE
                where = f"{record.chrom}\t{record.position + 1}\t{record.id}\t{record.ref}"
                yield reason, f"{where}\t{allele.alt}\t{reason}\n"


def rows_of(
    records: list[Record], effects: Mapping[str, Effect], cell_types: list[str], further: Sequence[str] = ()
) -> pd.DataFrame:
    """Return rows of the table: one per record, scored allele and cell type; see `COLUMNS`.

    Args:
        records, effects: of a chunk.
        cell_types: in the order of the effects.
        further: names of further columns.
    """
    rows: list[tuple[Any, ...]] = []
    for allele in (allele for record in records for allele in record.alleles):
        variant = allele.variant
        if variant is None or variant.name not in effects:
            continue
        effect = effects[variant.name]
        what = (variant.name, allele.given or variant.name, *_fields(variant))
        motifs = (*_joined(effect.gained), *_joined(effect.lost))
        odds = zip(cell_types, effect.reference, effect.alternate, effect.difference, effect.p, strict=True)
        others = [effect.further[name] for name in further]
        rows += [(*what, *found, *motifs, *others) for found in odds]
    return pd.DataFrame(rows, columns=[*COLUMNS, *further])


def _fields(variant: Variant) -> tuple[str, str, int, str, str]:
    return variant.id, variant.chrom, variant.position + 1, variant.ref, variant.alt


def _joined(motifs: list[tuple[str, float]]) -> tuple[str, str]:
    """Return names and changes, each separated by commas; "." for none."""
    names = ",".join(name.replace(",", "%2C") for name, _ in motifs)
    return names or ".", ",".join(f"{change:+.4g}" for _, change in motifs) or "."


def info_values(record: Record, effects: Mapping[str, Effect], cell_types: list[str]) -> dict[str, list[str]]:
    """Return the values of the fields of `info_of`; none if no allele of the record is scored."""
    found = [(allele, effects.get(allele.variant.name) if allele.variant else None) for allele in record.alleles]
    scored = [(allele, effect) for allele, effect in found if effect]
    if not scored:
        return {}
    entries = [
        f"{allele.alt}|{info_text(cell_type)}|{before:.4f}|{after:.4f}|{after - before:.4f}|{_number(p, 4)}"
        for allele, effect in scored
        for cell_type, before, after, p in zip(cell_types, effect.reference, effect.alternate, effect.p, strict=True)
    ]
    values = {"GENEBERT": entries, "GENEBERT_MAX": [f"{effect.largest:.6g}" if effect else "." for _, effect in found]}
    for name, motifs in (
        ("GENEBERT_GAINED", [(allele, *one) for allele, effect in scored for one in effect.gained]),
        ("GENEBERT_LOST", [(allele, *one) for allele, effect in scored for one in effect.lost]),
    ):
        values[name] = [f"{allele.alt}|{info_text(motif)}|{change:+.4g}" for allele, motif, change in motifs]
    for name in scored[0][1].further:
        values[FURTHER_INFO[name][0]] = [_number(effect.further[name], 6) if effect else "." for _, effect in found]
    values["GENEBERT_AS"] = [_scored_as(allele) if effect else "." for allele, effect in found]
    return {name: entries for name, entries in values.items() if set(entries) - {"."}}


def _number(value: float, digits: int) -> str:
    return "." if np.isnan(value) else f"{value:.{digits}g}"


def _scored_as(allele: Allele) -> str:
    """Return the name of the variant that was scored if the record writes it otherwise, else "."."""
    name = allele.variant.name if allele.variant else "."
    return info_text(name) if allele.given not in ("", name) else "."


def strongest_of(tables: list[pd.DataFrame], count: int) -> pd.DataFrame:
    """Return the row with the largest effect of each of the `count` variants whose effects are largest."""
    table = pd.concat([found for found in tables if len(found)] or tables, ignore_index=True)
    order = table["difference"].astype(float).abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].drop_duplicates("variant").head(count)


class TableFile(AbstractContextManager["TableFile"], ABC):
    """Takes rows chunk by chunk, and writes them to a file.

    Args:
        folder: where to.
        further: names of the columns that follow those of `COLUMNS`.
    """

    def __init__(self, folder: Path, further: Sequence[str]) -> None:
        self._open(folder, further)

    @abstractmethod
    def _open(self, folder: Path, further: Sequence[str]) -> None:
        """Open the file."""

    @abstractmethod
    def write(self, rows: pd.DataFrame) -> None:
        """Add rows, as `rows_of` returns them."""

    @abstractmethod
    def __exit__(self, *exception: object) -> None:
        """Close the file."""


class TsvTable(TableFile):
    """variants.tsv: numbers with six digits."""

    def _open(self, folder: Path, further: Sequence[str]) -> None:
        self._handle = (folder / "variants.tsv").open("w")
        self._handle.write("\t".join((*COLUMNS, *further)) + "\n")

    def write(self, rows: pd.DataFrame) -> None:
        """See `TableFile`."""
        rows.to_csv(self._handle, sep="\t", index=False, header=False, float_format="%.6g", na_rep="NA")

    def __exit__(self, *exception: object) -> None:
        """See `TableFile`."""
        self._handle.close()


class ParquetTable(TableFile):
    """variants.parquet: the same columns, numbers as they are."""

    def _open(self, folder: Path, further: Sequence[str]) -> None:
        self._schema = pa.schema([*SCHEMA, *(pa.field(name, _NUMBER) for name in further)])
        self._writer = pq.ParquetWriter(folder / "variants.parquet", self._schema)

    def write(self, rows: pd.DataFrame) -> None:
        """See `TableFile`."""
        self._writer.write_table(pa.Table.from_pandas(rows, self._schema, preserve_index=False))

    def __exit__(self, *exception: object) -> None:
        """See `TableFile`."""
        self._writer.close()


TABLES: Mapping[VariantFormat, type[TsvTable] | type[ParquetTable]] = {"tsv": TsvTable, "parquet": ParquetTable}
