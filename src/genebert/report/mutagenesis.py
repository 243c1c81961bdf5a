"""In-silico mutagenesis around a variant: which bases of each allele matter, as logos and substitutions."""

import logomaker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from genebert.report.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    PALE,
    RED,
    WIDE,
    diverging,
    minus,
    panel,
    shorten,
    symmetric,
)
from genebert.report.content import Panel

BASES = "ACGT"
BASE_COLOURS = {"A": GREEN, "C": BLUE, "G": ORANGE, "T": RED}
ALLELES = ("reference", "alternate")


def allele_lengths(variant: str) -> tuple[int, int]:
    """Return the lengths in bp of the reference and the alternate allele of chrom:position:ref>alt."""
    reference, alternate = variant.rsplit(":", 1)[1].split(">")
    return len(reference), len(alternate)


def aligned(offsets: NDArray[np.int64], own: int, other: int) -> NDArray[np.int64]:
    """Place the bases of an allele's window on columns that both alleles share.

    Both alleles begin at column 0; behind the shorter one a gap opens, so that what follows is aligned again.

    Args:
        offsets: bp from the variant in the allele's own window, int64, shape (n,).
        own, other: lengths of this and of the other allele in bp.
    """
    return np.where(offsets < own, offsets, offsets + max(0, other - own))


def letter_heights(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how much a mutation of each base lowers the log-odds, on average over the three substitutions.

    Args:
        rows: offset, base and difference of one allele.

    Returns:
        DataFrame with the columns A C G T, indexed by offset; a row holds its base's value and 0 elsewhere.
    """
    table = -rows.pivot_table(index="offset", columns="base", values="difference", aggfunc="mean")
    return table.reindex(columns=list(BASES)).fillna(0.0)


def substitutions(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the difference of log-odds of each substitution; NaN for the base itself.

    Returns:
        DataFrame with rows A C G T (mutated to), and the offsets as columns.
    """
    return rows.pivot_table(index="mutated_to", columns="offset", values="difference").reindex(index=list(BASES))


def mutagenesis_panel(variant: str, cell_type: str, rows: pd.DataFrame) -> Panel:
    """Draw logo and substitutions of the reference above those of the alternate allele.

    Args:
        variant: chrom:position:ref>alt.
        cell_type: the cell type looked at.
        rows: allele, offset, base, mutated_to, difference of this variant.
    """
    lengths = allele_lengths(variant)
    tables = [rows[rows["allele"] == allele] for allele in ALLELES]
    places = [_places(table, own, other) for table, own, other in zip(tables, lengths, lengths[::-1], strict=True)]
    limits = symmetric(rows["difference"].to_numpy())
    heights = [letter_heights(table) for table in tables]
    stacked = np.concatenate([table.to_numpy() for table in heights])
    room = 0.08 * (stacked.max() - stacked.min()) or 1.0

    def draw(figure: Canvas) -> None:
        grid = figure.subplots(4, 1, sharex=True, height_ratios=[2, 1.1, 2, 1.1])
        for i, table in enumerate(tables):
            logo, heat = grid[2 * i], grid[2 * i + 1]
            draw_logo(logo, heights[i].rename(index=places[i]), f"{ALLELES[i].capitalize()}\nimportance (nats)")
            logo.set_ylim(stacked.min() - room, stacked.max() + room)
            draw_substitutions(figure, heat, substitutions(table).rename(columns=places[i]), limits)
            for axes in (logo, heat):
                axes.axvspan(-0.5, max(lengths) - 0.5, color=PALE, zorder=-5, linewidth=0)
        first, last = (extreme(column for found in places for column in found.values()) for extreme in (min, max))
        grid[-1].set_xlim(first - 0.6, last + 0.6)
        ticks = np.arange(-(-first // 5) * 5, last + 1, 5)
        grid[-1].set_xticks(ticks, [minus(f"{tick:+d}") if tick else "0" for tick in ticks])
        grid[-1].set_xlabel("Aligned position (bp from the variant)")
        grid[0].set_title(f"{shorten(variant, 60)} in {shorten(cell_type)}", loc="left")

    alt = f"In-silico mutagenesis of both alleles of {variant} in {cell_type}: logos and substitutions."
    return panel(alt, (WIDE, 4.3), draw)


def _places(table: pd.DataFrame, own: int, other: int) -> dict[int, int]:
    """Return the shared column of each offset of an allele."""
    offsets = np.unique(table["offset"].to_numpy(np.int64))
    return dict(zip(offsets.tolist(), aligned(offsets, own, other).tolist(), strict=True))


def draw_logo(axes: Axes, heights: pd.DataFrame, label: str) -> None:
    """Draw letters as high as `letter_heights` says; `label` is that of the axis."""
    logomaker.Logo(
        heights,
        ax=axes,
        color_scheme=BASE_COLOURS,
        font_name="DejaVu Sans",
        font_weight="bold",
        show_spines=False,
        baseline_width=0.5,
    )
    axes.spines["left"].set_visible(True)
    axes.set_ylabel(label)


def draw_substitutions(figure: Canvas, axes: Axes, values: pd.DataFrame, limits: tuple[float, float]) -> None:
    """Draw `substitutions` as a heat map with colours from the first to the second limit."""
    known = values.columns.to_numpy(np.int64)
    columns = np.arange(known.min(), known.max() + 1)
    shown = values.reindex(columns=columns)
    left, right = float(columns[0]) - 0.5, float(columns[-1]) + 0.5
    image = axes.imshow(
        shown.to_numpy(),
        cmap=diverging().with_extremes(bad=(0, 0, 0, 0)),
        vmin=limits[0],
        vmax=limits[1],
        aspect="auto",
        interpolation="none",
        extent=(left, right, 3.5, -0.5),
    )
    own = shown.isna() & shown.notna().any(axis=0)
    row, column = np.nonzero(own.to_numpy())
    axes.plot(columns[column], row, ".", color="#888888", markersize=1.8)
    axes.set_yticks(range(4), list(BASES))
    axes.set_ylabel("Mutated to")
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01, aspect=8)
    bar.set_label("Δ log-odds")
    bar.outline.set_visible(False)
