"""What figures show of a cohort: variants of cases and controls in a region, and p values against their expectation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.stats import beta

from genebert.report.canvas import BLUE, GREY, HALF, diverging, panel, shorten, symmetric
from genebert.report.content import Panel


def carriers(
    name: str, variants: pd.DataFrame, span: tuple[str, int, int], groups: tuple[str, str], limits: tuple[float, float]
) -> Panel:
    """Draw the variants of one region where they lie: carriers in one group upwards, in the other downwards.

    Args:
        name: of the region.
        variants: position (1-based), change (of log-odds), carriers_cases, carriers_controls.
        span: chromosome, start and end of the region, 0-based, half-open.
        groups: what those above and those below the line are called.
        limits: of the colours of changes.
    """
    chrom, start, end = span
    change = variants["change"].to_numpy(np.float64)
    place = variants["position"].to_numpy(np.int64)
    above, below = variants["carriers_cases"].to_numpy(np.int64), variants["carriers_controls"].to_numpy(np.int64)

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        axes.vlines(place, -below, above, color=GREY, linewidth=0.8)
        look: dict[str, Any] = {"edgecolors": GREY, "linewidths": 0.5, "s": 16, "zorder": 3, "clip_on": False}
        look |= {"c": change, "cmap": diverging(), "vmin": limits[0], "vmax": limits[1]}
        axes.scatter(place, above, **look)
        points = axes.scatter(place, -below, **look)
        bar = figure.colorbar(points, ax=axes, fraction=0.05, pad=0.02)
        bar.set_label("Change (nats)")
        bar.outline.set_visible(False)
        axes.axhline(0, color="black", linewidth=0.6)
        most = max(int(above.max(initial=1)), int(below.max(initial=1)))
        axes.set_ylim(-1.25 * most, 1.25 * most)
        axes.set_xlim(start + 1, end)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
        axes.set_xlabel(f"Position on {shorten(chrom)} (bp, 1-based)")
        axes.set_ylabel(f"Carriers: {groups[1]} | {groups[0]}")
        axes.set_title(shorten(name), loc="left")

    return panel(f"Variants of region {name}: carriers among {groups[0]} and {groups[1]}.", (HALF, 1.9), draw)


def expected_against_observed(p: NDArray[np.float64], label: str) -> Panel:
    """Draw -log10 of sorted p values against what uniform ones would be; grey, the 95% band of each order statistic.

    Args:
        p: p values, float64, shape (n,).
        label: what they are of.
    """
    observed = -np.log10(np.maximum(np.sort(p), 1e-300))
    rank = np.arange(1, len(p) + 1)
    expected = -np.log10(rank / (len(p) + 1))
    band = [-np.log10(beta.ppf(level, rank, len(p) + 1 - rank)) for level in (0.975, 0.025)]

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        axes.fill_between(expected, *band, color="#ececec", linewidth=0)
        axes.plot([0, expected.max()], [0, expected.max()], color=GREY, linestyle="--", linewidth=0.8)
        axes.scatter(expected, observed, s=5, color=BLUE, linewidths=0)
        axes.set(xlabel="Expected −log₁₀ p", ylabel="Observed −log₁₀ p")
        axes.set_title(label, loc="left")

    return panel(f"Observed against expected p values of {label}.", (HALF, 2.5), draw)


def weights(names: Sequence[str], value: NDArray[np.float64], p: Sequence[str]) -> Panel:
    """Draw the weights of n regions, shape (n,), as bars, with the p value of each, as it is to be printed, beside."""

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        place = np.arange(len(names))
        low, high = symmetric(value)
        axes.barh(place, value, color=diverging()((value - low) / (high - low)), height=0.7, edgecolor=GREY)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_yticks(place, [shorten(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("Weight in the risk model")
        beside = axes.twinx()
        beside.set_yticks(place, [f"p = {one}" for one in p])
        beside.set_ylim(axes.get_ylim())
        beside.tick_params(length=0)
        beside.spines[:].set_visible(False)

    return panel("Bars: weights of the first regions, with p values.", (5.2, 0.9 + 0.16 * len(names)), draw)
