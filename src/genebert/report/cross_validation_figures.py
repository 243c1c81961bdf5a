"""Figures of a cross-validation: methods side by side, single cell types, and what more labels bring."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from genebert.report.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    HALF,
    ORANGE,
    PALE_LINE,
    PURPLE,
    RED,
    SKY,
    WIDE,
    panel,
    shorten,
)
from genebert.report.content import Panel

LOOKS = [(colour, line) for line in ("-", "--", ":") for colour in (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK)]
"""Colour and line of each method; so many can be told apart."""
_MOST_NAMED = 12
"""Of more cell types than these, only the unlike ones have their names beside the dots."""
Row = Mapping[str, Any]


def side_by_side(
    methods: Sequence[str], measures: Sequence[str], rows: Mapping[tuple[str, str], Row], baselines: Sequence[str]
) -> Panel:
    """Draw measures of methods as dots with 95% intervals, a column for each measure.

    Args:
        methods: names, in the order to draw them in.
        measures: names.
        rows: (method, measure) -> result.
        baselines: those of the methods that nothing is fitted for; they are drawn in another colour.
    """

    def draw(figure: Canvas) -> None:
        grid = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
        for axes, measure in zip(grid, measures, strict=True):
            for place, method in enumerate(methods):
                row = rows.get((method, measure))
                if row and row["value"] is not None:
                    colour = ORANGE if method in baselines else BLUE
                    axes.hlines(place, row["low"], row["high"], color=colour, linewidth=1.3)
                    axes.plot(row["value"], place, "o", color=colour, markersize=4.2)
            _lines_between(axes, len(methods))
            axes.margins(x=0.12)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.set_xlabel(_folded(measure))
            if axes.get_xlim()[0] < 0 < axes.get_xlim()[1]:
                axes.axvline(0, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
        grid[0].set_yticks(range(len(methods)), [shorten(name) for name in methods])
        grid[0].set_ylim(len(methods) - 0.4, -0.6)

    alt = f"Dots with 95% intervals: {', '.join(measures)} of {', '.join(methods)}."
    return panel(alt, (WIDE, 0.85 + 0.19 * len(methods)), draw)


def _lines_between(axes: Axes, count: int) -> None:
    for edge in np.arange(0.5, count - 1):
        axes.axhline(edge, color=PALE_LINE, linewidth=0.5, zorder=0)
    axes.tick_params(axis="y", length=0)


def _folded(measure: str) -> str:
    """Return the name of a measure in lines of a column's width."""
    return measure.replace(" where ", "\nwhere ")


def by_distance(method: str, measure: str, rows: Sequence[Row], facts: Mapping[str, Row]) -> Panel:
    """Draw a measure in each cell type against the distance of its use of TFs from that of the known ones.

    Args:
        method: its name.
        measure: its name.
        rows: results of the method in single cell types; those without a value are left out.
        facts: cell type -> distance and whether it is unlike the known ones.
    """
    shown = [row for row in rows if row["value"] is not None]

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        for row in shown:
            own = facts[row["cell_type"]]
            colour = RED if own["unlike"] else BLUE
            axes.vlines(own["distance"], row["low"], row["high"], color=colour, linewidth=0.9, alpha=0.6)
            axes.plot(own["distance"], row["value"], "s" if own["unlike"] else "o", color=colour)
            if len(shown) <= _MOST_NAMED or own["unlike"]:
                place = (own["distance"], row["value"])
                axes.annotate(shorten(row["cell_type"], 14), place, (3, 2), textcoords="offset points", fontsize=5.5)
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("Distance of the TF usage from known cell types")
        axes.set_ylabel(_folded(measure))
        axes.set_title(shorten(method), loc="left")

    return panel(
        f"{measure} of {method} in each cell type against its distance from the known ones.", (HALF, 2.6), draw
    )


def learning_curves(methods: Sequence[str], measure: str, rows: Sequence[Row]) -> Panel:
    """Draw a measure against the fraction of the training windows that methods learn from.

    Args:
        methods: names, in the order of their colours.
        measure: its name.
        rows: method, label_fraction, value, low, high; of this measure.
    """

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        for method, (colour, line) in zip(methods, _cycled(len(methods)), strict=True):
            own = sorted((row for row in rows if row["method"] == method), key=lambda row: row["label_fraction"])
            fraction, value, low, high = (
                [row[name] for row in own if row["value"] is not None]
                for name in ("label_fraction", "value", "low", "high")
            )
            axes.vlines(fraction, low, high, color=colour, linewidth=0.9, alpha=0.5)
            axes.plot(fraction, value, line, marker="o", color=colour, label=shorten(method), markersize=2.8)
        fractions = sorted({row["label_fraction"] for row in rows})
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(fractions, [f"{100 * fraction:g}%" for fraction in fractions])
        axes.set_xlabel("Training windows used")
        axes.set_ylabel(_folded(measure))
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, columnspacing=1)

    alt = f"Lines with 95% intervals: {measure} of {', '.join(methods)} by the fraction of the training windows used."
    return panel(alt, (HALF, 2.3 + 0.13 * -(-len(methods) // 2)), draw)


def _cycled(count: int) -> list[tuple[str, str]]:
    return [LOOKS[i % len(LOOKS)] for i in range(count)]
