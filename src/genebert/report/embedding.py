"""The page of the stage `embed`: maps of cell types, and of regions coloured by their strongest TF."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from genebert.report.build import render
from genebert.report.canvas import BLACK, BLUE, GREEN, HALF, ORANGE, PURPLE, RED, SKY, YELLOW, panel, shorten
from genebert.report.content import Figure, Panel, Section, Tile

PAGE = "embedding.html"
MOST_DRAWN = 5000
"""Regions, evenly spaced along the genome, so that the page stays small."""
NAMED_TFS = 8
OTHERS = "others"
_COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, YELLOW, BLACK)
_PALE = "#d4d4d4"


def embedding_page(cell_types: pd.DataFrame, regions: pd.DataFrame, what: str, *, umap: bool) -> str:
    """Return the page.

    Args:
        cell_types: DataFrame with x, y, cell_type.
        regions: DataFrame with x, y, strongest_tf.
        what: the states of regions in cell types, in words.
        umap: whether x and y are UMAP coordinates, and not the first two principal components.
    """
    drawn = regions.iloc[np.unique(np.linspace(0, len(regions) - 1, min(MOST_DRAWN, len(regions))).astype(int))]
    parts = (
        f"Cell types: the mean of their regions' states ({what}), less each region's mean over the cell types that it"
        " is accessible in.",
        f"{len(drawn):,} of {len(regions):,} regions, by the pooled states of their sequences; the colour is the TF"
        " whose motif evidence is most standard deviations above its mean.",
    )
    way = "UMAP of principal components" if umap else "The first two principal components"
    caption = f"{way}. In UMAP, only what is near means something: distances between groups and axes do not."
    axis = "UMAP" if umap else "PC"
    panels = [cell_type_map(cell_types, axis), region_map(drawn, axis)]
    figure = Figure("Maps.", panels, parts, caption if umap else f"{way}.", columns=2)
    tiles = [Tile(f"{len(regions):,}", "regions"), Tile(f"{len(cell_types):,}", "cell types")]
    lead = (
        "What a network makes of regions and cell types. The coordinates, and the states themselves, are in the h5ad."
    )
    return render("GeneBERT embedding", lead, tiles, [Section("Maps", [figure])])


def cell_type_map(table: pd.DataFrame, axis: str) -> Panel:
    """Draw cell types with their names; `table` has x, y, cell_type."""

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        axes.scatter(table["x"], table["y"], s=14, color=BLUE, linewidths=0)
        for x, y, name in table[["x", "y", "cell_type"]].itertuples(index=False):
            axes.annotate(shorten(name, 18), (x, y), (2, 2), textcoords="offset points", fontsize=6)
        _frame(axes, axis)

    return panel("Map of cell types, named.", (HALF, 3.0), draw)


def region_map(table: pd.DataFrame, axis: str) -> Panel:
    """Draw regions in the colours of the most frequent strongest TFs; `table` has x, y, strongest_tf."""
    alt = "Map of regions, coloured by the TF of their strongest motif."
    return panel(alt, (HALF, 3.7), lambda figure: draw_regions(figure, table, axis))


def draw_regions(figure: Canvas, table: pd.DataFrame, axis: str) -> None:
    """Draw what `region_map` shows on an empty figure."""
    frequent = table["strongest_tf"].value_counts().head(NAMED_TFS).index.tolist()
    group = table["strongest_tf"].where(table["strongest_tf"].isin(frequent), OTHERS)
    axes = figure.subplots()
    for name, colour in {OTHERS: _PALE, **dict(zip(frequent, _COLOURS, strict=False))}.items():
        rows = table[group == name]
        label = shorten(name, 18)
        axes.scatter(rows["x"], rows["y"], s=3, color=colour, label=label, linewidths=0, rasterized=True)
    _frame(axes, axis)
    figure.legend(loc="outside lower center", ncols=2, markerscale=2.5, handletextpad=0.1)


def _frame(axes: Axes, axis: str) -> None:
    axes.set(xlabel=f"{axis} 1", ylabel=f"{axis} 2", xticks=[], yticks=[])
    axes.margins(0.12)
