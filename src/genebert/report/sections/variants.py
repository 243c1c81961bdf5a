"""The section about scored variants."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.report import figures, tables
from genebert.report.content import Figure, Prose, Section
from genebert.report.mutagenesis import mutagenesis_panel
from genebert.stage import Manifest

TOP_VARIANTS = 20
SEQUENCE_ONLY = "all"
"""Stands in the cell type column for a predictor that knows no cell types."""
_ROWS = 1 << 15
_WORDS = dict.fromkeys(
    ("variant", "id", "chrom", "ref", "alt", "cell_type", "gained", "lost", "allele", "base", "mutated_to"),
    str,
)
MUTAGENESIS_CAPTION = (
    "Every base near the variant is replaced by each of the three others, in the reference (upper half) and"
    " in the alternate window (lower half). Letters: how much replacing that base lowers the log-odds, on"
    " average over the three substitutions; a tall letter is one that the prediction rests on, a letter below"
    " the line one that holds it back. Colours below: change of the log-odds by each substitution; dots, the"
    " base itself. Grey band: the variant, with the base before it if it is an insertion or deletion; behind"
    " the shorter allele a gap opens, so that what follows the variant is aligned."
)


class Effects(NamedTuple):
    """What variants.tsv says.

    Attributes:
        difference: of the log-odds, of all alleles and cell types, float32, shape (rows,).
        top: all rows of the alleles with the largest effects, largest first.
        spread: quantiles of absolute differences (median, 90%, 99%, largest), shape (cell types, 4).
    """

    difference: NDArray[np.float32]
    top: pd.DataFrame
    spread: NDArray[np.float64]


def variants_section(manifest: Manifest) -> Section:
    """Describe scored variants: sizes of effects, the strongest ones, and their in-silico mutagenesis."""
    metrics = manifest.metrics
    effects = read_effects(manifest)
    rows = effects.top.groupby("variant", sort=False)["difference"].apply(lambda found: found.abs().idxmax())
    largest = effects.top.loc[rows]
    found = metrics["ref_mismatches"]
    return Section(
        "Variants",
        [
            _scope(metrics),
            tables.scored(metrics),
            *([tables.mismatches(found)] if found else []),
            _sizes(effects, metrics["cell_types"]),
            _strongest(effects.top, largest["variant"].tolist(), metrics),
            tables.top_variants(largest),
            *_mutagenesis(manifest),
        ],
    )


def _scope(metrics: dict[str, Any]) -> Prose:
    named = metrics["cell_types"] != [SEQUENCE_ONLY]
    where = f" in {tables.counted(len(metrics['cell_types']), 'cell type')}" if named else ""
    again = "sequence, motif evidence and the window's column of the region matrix are"
    return Prose(
        f"{tables.counted(metrics['alleles_scored'], 'alternate allele')} of"
        f" {tables.counted(metrics['records'], 'record')} were scored{where} by the log-odds of class"
        f" {metrics['class']} in a window of {metrics['window_width']:,} bp:"
        f" {again if named else 'sequence and motif evidence are'} computed again for the alternate allele."
    )


def _sizes(effects: Effects, cell_types: list[str]) -> Figure:
    panels = [
        figures.effect_distribution(effects.difference),
        figures.largest_per_cell_type(cell_types, effects.spread),
    ]
    said = [
        (
            f"Differences of log-odds of {len(effects.difference):,} pairs of allele and cell type, on a"
            " logarithmic scale of counts."
        ),
        "Quantiles of their absolute size in each cell type.",
    ]
    return Figure("Sizes of effects.", panels, said, columns=2)


def _strongest(top: pd.DataFrame, names: list[str], metrics: dict[str, Any]) -> Figure:
    grid = top.pivot_table(index="variant", columns="cell_type", values="difference")
    values = grid.reindex(index=names, columns=metrics["cell_types"]).to_numpy(np.float64)
    caption = (
        f"Difference of log-odds, alternate minus reference, of the {tables.counted(len(names), 'allele')}"
        " with the largest effect in any cell type. Orange: the alternate allele makes class"
        f" {metrics['class']} likelier; blue: less likely."
    )
    return Figure(
        "The strongest variants.",
        [figures.variant_heat_map(names, metrics["cell_types"], values)],
        caption=caption,
    )


def read_effects(manifest: Manifest) -> Effects:
    """Read variants.tsv in pieces, however long it is."""
    cell_types = manifest.metrics["cell_types"]
    differences, owners, strongest = [], [], pd.Series(dtype=np.float64)
    for piece in _pieces(manifest):
        differences.append(piece["difference"].to_numpy(np.float32))
        owners.append(pd.Categorical(piece["cell_type"], categories=cell_types).codes)
        sizes = pd.concat([strongest, piece["difference"].abs().groupby(piece["variant"]).max()])
        strongest = sizes.groupby(level=0).max().sort_values(ascending=False, kind="stable").head(TOP_VARIANTS)
    top = pd.concat([piece[piece["variant"].isin(strongest.index)] for piece in _pieces(manifest)], ignore_index=True)
    top = top.drop_duplicates(["variant", "cell_type"])
    rank = {name: i for i, name in enumerate(strongest.index)}
    top = top.sort_values("variant", key=lambda names: names.map(rank), kind="stable").reset_index(drop=True)
    difference, owner = np.concatenate(differences), np.concatenate(owners)
    spread = [np.percentile(np.abs(difference[owner == i]), [50, 90, 99, 100]) for i in range(len(cell_types))]
    return Effects(difference, top, np.array(spread))


def _pieces(manifest: Manifest) -> Iterator[pd.DataFrame]:
    path = manifest.folder / "variants.tsv"
    yield from pd.read_csv(path, sep="\t", dtype=_WORDS, keep_default_na=False, chunksize=_ROWS)


def _mutagenesis(manifest: Manifest) -> list[Figure]:
    table = pd.read_csv(manifest.folder / "mutagenesis.tsv", sep="\t", dtype=_WORDS, keep_default_na=False)
    panels = [
        mutagenesis_panel(str(name), str(cell_type), rows)
        for (name, cell_type), rows in table.groupby(["variant", "cell_type"], sort=False)
    ]
    return (
        [Figure("In-silico mutagenesis of the strongest variants.", panels, caption=MUTAGENESIS_CAPTION)]
        if panels
        else []
    )
