"""The page of the stage `embed`: maps of cell types, and of regions coloured by their strongest TF."""

from typing import NamedTuple

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
_INK = 6000
"""Sum of the areas of dots, in square points: of few regions they are larger."""
UMAP = "UMAP"


class Map(NamedTuple):
    """Where things lie.

    Attributes:
        table: DataFrame with x, y and what the things are.
        axes: what x and y are called; "UMAP 1" and "UMAP 2", or principal components.
    """

    table: pd.DataFrame
    axes: tuple[str, str]

    @property
    def is_umap(self) -> bool:
        """Whether it is of UMAP."""
        return self.axes[0].startswith(UMAP)


def embedding_page(cell_types: Map, regions: Map, what: str, which: str = "") -> str:
    """Return the page.

    Args:
        cell_types: with cell_type.
        regions: with strongest_tf.
        what: the states of regions in cell types, in words.
        which: regions these are, if not all.
    """
    every = len(regions.table)
    drawn = regions.table.iloc[np.unique(np.linspace(0, every - 1, min(MOST_DRAWN, every)).astype(int))]
    parts = (
        f"Cell types: the mean of their regions' states ({what}), less each region's mean over the cell types that it"
        f" is accessible in; {_way(cell_types)}.",
        f"{len(drawn):,} of {every:,} regions{f' ({which})' if which else ''}, by the pooled states of their sequences;"
        " the colour is the TF whose motif evidence is most standard deviations above its mean, with the number of its"
        f" regions; {_way(regions)}.",
    )
    umap = cell_types.is_umap or regions.is_umap
    caption = "In UMAP, only what is near means something: distances between groups and axes do not." * umap
    panels = [cell_type_map(*cell_types), region_map(drawn, regions.axes)]
    figure = Figure("Maps.", panels, parts, caption, columns=2)
    tiles = [Tile(f"{every:,}", "regions", which), Tile(f"{len(cell_types.table):,}", "cell types")]
    lead = (
        "What a network makes of regions and cell types. The coordinates, and the states themselves, are in the h5ad."
    )
    return render("GeneBERT embedding", lead, tiles, [Section("Maps", [figure])])


def _way(shown: Map) -> str:
    if shown.is_umap:
        return "UMAP of principal components"
    return "the first two principal components, with their shares of the variance"


def cell_type_map(table: pd.DataFrame, axes: tuple[str, str]) -> Panel:
    """Draw cell types with their names; `table` has x, y, cell_type."""

    def draw(figure: Canvas) -> None:
        frame = figure.subplots()
        frame.scatter(table["x"], table["y"], s=24, color=BLUE, linewidths=0)
        for x, y, name in table[["x", "y", "cell_type"]].itertuples(index=False):
            frame.annotate(shorten(name, 18), (x, y), (3, 3), textcoords="offset points", fontsize=6)
        _frame(frame, axes)

    return panel("Map of cell types, named.", (HALF, 3.0), draw)


def region_map(table: pd.DataFrame, axes: tuple[str, str]) -> Panel:
    """Draw regions in the colours of the most frequent strongest TFs; `table` has x, y, strongest_tf."""
    alt = "Map of regions, coloured by the TF of their strongest motif."
    return panel(alt, (HALF, 3.7), lambda figure: draw_regions(figure, table, axes))


def draw_regions(figure: Canvas, table: pd.DataFrame, axes: tuple[str, str]) -> None:
    """Draw what `region_map` shows on an empty figure."""
    frequent = table["strongest_tf"].value_counts().head(NAMED_TFS).index.tolist()
    group = table["strongest_tf"].where(table["strongest_tf"].isin(frequent), OTHERS)
    frame = figure.subplots()
    size = float(np.clip(_INK / max(len(table), 1), 3, 14))
    for name, colour in {OTHERS: _PALE, **dict(zip(frequent, _COLOURS, strict=False))}.items():
        rows = table[group == name]
        look = {"s": size, "color": colour, "linewidths": 0, "rasterized": True}
        frame.scatter(rows["x"], rows["y"], label=f"{shorten(name, 16)} ({len(rows):,})", **look)
    _frame(frame, axes)
    figure.legend(loc="outside lower center", ncols=2, markerscale=(24 / size) ** 0.5, handletextpad=0.1)


def _frame(frame: Axes, axes: tuple[str, str]) -> None:
    frame.set(xlabel=axes[0], ylabel=axes[1], xticks=[], yticks=[])
    frame.margins(0.12)
