"""The section about scored variants."""

import json
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genebert.report import tables, variant_figures
from genebert.report.canvas import symmetric
from genebert.report.content import Figure, Prose, Section
from genebert.report.mutagenesis import mutagenesis_panel
from genebert.stage import Manifest

TOP_VARIANTS = 20
BINS = 61
"""Bins of the histogram of differences; the one in the middle holds 0."""
FINE = 64
"""Each of them is divided into so many, from which quantiles are taken."""
QUANTILES = (0.5, 0.9, 0.99)
SEQUENCE_ONLY = "all"
"""Stands in the cell type column for a predictor that knows no cell types."""
_ROWS = 1 << 15
_TEXT = ("variant", "id", "chrom", "ref", "alt", "cell_type", "gained", "gained_by", "lost", "lost_by")
_NUMBERS = ("position", "reference", "alternate", "difference", "p")
_MUTAGENESIS = dict.fromkeys(("variant", "cell_type", "allele", "base", "mutated_to"), str)
SITES_CAPTION = (
    "Logos of the motifs lost stand above the reference, those gained above the alternate allele, each where its best"
    " hit lies (+ or −: its strand), with the change of −log₁₀ p of that hit. Grey band: the variant, with the base"
    " before it if it is an insertion or deletion; behind the shorter allele a gap opens."
)
SITE_COLUMNS = ["variant", "change", "by", "offset", "reverse", "motif"]
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
        counts: of differences of log-odds, of all alleles and cell types, in bins of one width from -most to most,
            int64, shape (BINS,).
        most: the largest absolute difference; 1 if all are 0.
        p: their distinct p-values, ascending, float32; empty if there are none.
        p_counts: how often each occurs, int64.
        top: all rows of the alleles with the largest effects, largest first.
        spread: quantiles of absolute differences (median, 90%, 99%, largest), shape (cell types, 4); the first three to
            within a bin of `FINE`.
    """

    counts: NDArray[np.int64]
    most: float
    p: NDArray[np.float32]
    p_counts: NDArray[np.int64]
    top: pd.DataFrame
    spread: NDArray[np.float64]


def variants_section(manifest: Manifest) -> Section:
    """Describe scored variants: sizes of effects, the strongest ones, and their in-silico mutagenesis."""
    metrics = manifest.metrics
    effects = read_effects(manifest)
    rows = effects.top.groupby("variant", sort=False)["difference"].apply(lambda found: found.abs().idxmax())
    largest = effects.top.loc[rows]
    found, distances = metrics["ref_mismatches"], metrics["cell_type_distances"]
    return Section(
        "Variants",
        [
            _scope(metrics),
            tables.scored(metrics),
            *([tables.cell_type_distances(distances)] if distances else []),
            *([tables.mismatches(found)] if found else []),
            _sizes(effects, metrics["cell_types"]),
            *_p_values(effects, metrics),
            _strongest(effects.top, largest["variant"].tolist(), metrics),
            tables.top_variants(largest),
            *_motif_sites(manifest),
            *_mutagenesis(manifest),
        ],
    )


def _scope(metrics: dict[str, Any]) -> Prose:
    named = metrics["cell_types"] != [SEQUENCE_ONLY]
    where = f" in {tables.counted(len(metrics['cell_types']), 'cell type')}" if named else ""
    again = "sequence, motif evidence and the window's column of the region matrix are"
    return Prose(
        f"{tables.counted(metrics['alleles_scored'], 'alternate allele')} of"
        f" {tables.counted(metrics['records'], 'record')} were scored{where} by the"
        f" {metrics['score']} in a window of {metrics['window_width']:,} bp:"
        f" {again if named else 'sequence and motif evidence are'} computed again for the alternate allele."
    )


def _sizes(effects: Effects, cell_types: list[str]) -> Figure:
    panels = [
        variant_figures.effect_distribution(effects.counts, effects.most),
        variant_figures.largest_per_cell_type(cell_types, effects.spread),
    ]
    said = [
        (
            f"Differences of log-odds of {effects.counts.sum():,} pairs of allele and cell type, on a"
            " logarithmic scale of counts."
        ),
        "Quantiles of their absolute size in each cell type.",
    ]
    return Figure("Sizes of effects.", panels, said, columns=2)


def _p_values(effects: Effects, metrics: dict[str, Any]) -> list[Figure]:
    if not len(effects.p):
        return []
    panels = [draw(effects.p, effects.p_counts) for draw in (variant_figures.p_histogram, variant_figures.p_quantiles)]
    said = ["How often p-values occur.", "The same, ordered, against uniform ones."]
    caption = (
        f"Empirical p-values of the effects, two-sided. In all, {metrics['random_variants']:,} random variants were"
        f" scored; {tables.NULL_OF_ONE} They would be uniform if the variants had no larger effects than random ones."
    )
    return [Figure("Effects against those of random variants.", panels, said, caption=caption, columns=2)]


def _strongest(top: pd.DataFrame, names: list[str], metrics: dict[str, Any]) -> Figure:
    grid = top.pivot_table(index="variant", columns="cell_type", values="difference")
    values = grid.reindex(index=names, columns=metrics["cell_types"]).to_numpy(np.float64)
    caption = (
        f"Difference of the {metrics['score']}, alternate minus reference, of the"
        f" {tables.counted(len(names), 'allele')} with the largest effect in any cell type. Orange: the alternate"
        " allele raises it; blue: lowers it."
    )
    return Figure(
        "The strongest variants.",
        [variant_figures.variant_heat_map(names, metrics["cell_types"], values)],
        caption=caption,
    )


def read_effects(manifest: Manifest) -> Effects:
    """Read variants.tsv in pieces, twice; memory does not grow with its length.

    There are no more distinct p-values than ranks among the random variants, so that they are counted as they are.
    """
    cell_types = manifest.metrics["cell_types"]
    largest, p = np.zeros(len(cell_types)), pd.Series(dtype=np.float64)
    strongest = pd.Series(dtype=np.float64)
    for piece in _pieces(manifest):
        sizes = piece["difference"].abs()
        np.maximum.at(largest, _owners(piece, cell_types), sizes)
        p = p.add(piece["p"].astype(np.float32).value_counts(), fill_value=0)
        sizes = pd.concat([strongest, sizes.groupby(piece["variant"]).max()])
        strongest = sizes.groupby(level=0).max().sort_values(ascending=False, kind="stable").head(TOP_VARIANTS)
    most = symmetric(largest)[1]
    fine, top = np.zeros((len(cell_types), BINS * FINE), dtype=np.int64), []
    for piece in _pieces(manifest):
        fine += _binned(piece, cell_types, most)
        top.append(piece[piece["variant"].isin(strongest.index)])
    p = p.sort_index()
    return Effects(
        fine.sum(axis=0).reshape(BINS, FINE).sum(axis=1),
        most,
        p.index.to_numpy(np.float32),
        p.to_numpy(np.int64),
        _by_rank(pd.concat(top, ignore_index=True), strongest.index),
        np.column_stack([_quantiles(fine, most).clip(max=largest[:, None]), largest]),
    )


def _owners(piece: pd.DataFrame, cell_types: list[str]) -> NDArray[np.int64]:
    """Return the number of each row's cell type."""
    return pd.Categorical(piece["cell_type"], categories=cell_types).codes.astype(np.int64)


def _binned(piece: pd.DataFrame, cell_types: list[str], most: float) -> NDArray[np.int64]:
    """Count differences in fine bins: int64, shape (cell types, BINS * FINE)."""
    count = BINS * FINE
    bins = ((piece["difference"].to_numpy(np.float64) / most + 1) / 2 * count).astype(np.int64).clip(0, count - 1)
    found = np.bincount(_owners(piece, cell_types) * count + bins, minlength=len(cell_types) * count)
    return found.reshape(len(cell_types), count)


def _quantiles(fine: NDArray[np.int64], most: float) -> NDArray[np.float64]:
    """Return the quantiles of absolute differences from counts in fine bins: shape (cell types, 3)."""
    half = fine.shape[1] // 2
    sizes = fine[:, half:] + fine[:, half - 1 :: -1]
    edges = np.linspace(0, most, half + 1)
    ends = np.cumsum(np.pad(sizes, ((0, 0), (1, 0))), axis=1)
    return np.array([np.interp(np.multiply(QUANTILES, row[-1]), row, edges) for row in ends])


def _by_rank(top: pd.DataFrame, names: pd.Index) -> pd.DataFrame:
    """Return rows, each once, in the order of their variants' names."""
    rank = {name: i for i, name in enumerate(names)}
    top = top.drop_duplicates(["variant", "cell_type"])
    return top.sort_values("variant", key=lambda found: found.map(rank), kind="stable").reset_index(drop=True)


def _pieces(manifest: Manifest) -> Iterator[pd.DataFrame]:
    columns, path = [*_TEXT, *_NUMBERS], manifest.folder / "variants.parquet"
    if path.exists():
        yield from (batch.to_pandas() for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=columns))
        return
    words: dict[Hashable, type] = dict.fromkeys(_TEXT, str)
    absent: dict[Hashable, list[str]] = {name: ["NA"] for name in _NUMBERS}  # a cell type may be called NA
    yield from pd.read_csv(
        path.with_suffix(".tsv"),
        sep="\t",
        usecols=columns,
        dtype=words,
        na_values=absent,
        keep_default_na=False,
        chunksize=_ROWS,
    )


def _letters(manifest: Manifest) -> pd.DataFrame:
    return pd.read_csv(manifest.folder / "mutagenesis.tsv", sep="\t", dtype=_MUTAGENESIS, keep_default_na=False)


def _motif_sites(manifest: Manifest) -> list[Figure]:
    letters = _letters(manifest)
    sites = pd.DataFrame(json.loads((manifest.folder / "motif_sites.json").read_text()), columns=SITE_COLUMNS)
    panels = [
        variant_figures.motif_sites_panel(
            str(name), letters[letters["variant"] == name], sites[sites["variant"] == name].to_dict("records")
        )
        for name in letters["variant"].unique()
    ]
    return [Figure("Motifs of the strongest variants.", panels, caption=SITES_CAPTION)] if panels else []


def _mutagenesis(manifest: Manifest) -> list[Figure]:
    table = _letters(manifest)
    panels = [
        mutagenesis_panel(str(name), str(cell_type), rows)
        for (name, cell_type), rows in table.groupby(["variant", "cell_type"], sort=False)
    ]
    return (
        [Figure("In-silico mutagenesis of the strongest variants.", panels, caption=MUTAGENESIS_CAPTION)]
        if panels
        else []
    )
