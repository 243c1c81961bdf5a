"""Figures of scored variants: sizes of effects, p-values, and motifs over both alleles."""

from collections.abc import Sequence
from typing import Any

import logomaker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from genebert.report.canvas import (
    BLACK,
    BLUE,
    GREY,
    HALF,
    PALE,
    PALE_LINE,
    RED,
    SKY,
    WIDE,
    diverging,
    heat_map,
    minus,
    panel,
    shorten,
    symmetric,
    thousands,
)
from genebert.report.content import Panel
from genebert.report.mutagenesis import ALLELES, BASE_COLOURS, BASES, aligned, allele_lengths
from genebert.schema import Motif

MOST_POINTS = 2000
"""A QQ plot shows so many quantiles at most."""


def effect_distribution(counts: NDArray[np.int64], most: float) -> Panel:
    """Draw how large the differences of log-odds are, on a logarithmic scale of counts.

    Args:
        counts: of differences in bins of one width.
        most: where the last bin ends; the first one begins at -most.
    """
    edges = np.linspace(-most, most, len(counts) + 1).tolist()

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        axes.hist(edges[:-1], bins=edges, weights=counts, color=BLUE, log=True)
        axes.axvline(0, color=GREY, linestyle="--", linewidth=0.8)
        axes.yaxis.set_major_formatter(thousands)
        axes.yaxis.set_minor_formatter("")
        axes.set_ylim(bottom=0.7)
        axes.set_xlabel("Difference of log-odds, alternate − reference (nats)")
        axes.set_ylabel("Allele and cell type pairs")

    return panel("Histogram: differences of log-odds between alternate and reference allele.", (HALF, 2.3), draw)


def largest_per_cell_type(names: Sequence[str], spread: NDArray[np.float64]) -> Panel:
    """Draw median, 90%, 99% and largest absolute difference of each cell type; shape (cell types, 4)."""

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        place = np.arange(len(names))
        axes.hlines(place, spread[:, 0], spread[:, 3], color=PALE_LINE, linewidth=0.8)
        looks = (
            ("median", BLACK, "|"),
            ("90th percentile", SKY, "o"),
            ("99th percentile", BLUE, "o"),
            ("largest", RED, "o"),
        )
        for column, (label, colour, marker) in enumerate(looks):
            axes.plot(spread[:, column], place, marker, color=colour, label=label)
        axes.set_yticks(place, [shorten(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("|Difference of log-odds| (nats)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1), ncols=4, columnspacing=0.8, handletextpad=0.2)

    return panel(
        "Dots: quantiles of absolute differences of log-odds in each cell type.",
        (HALF, max(2.3, 0.8 + 0.15 * len(names))),
        draw,
    )


def variant_heat_map(variants: Sequence[str], cell_types: Sequence[str], difference: NDArray[np.float64]) -> Panel:
    """Draw differences of log-odds, shape (variants, cell types)."""
    width = min(WIDE, 3.1 + 0.24 * len(cell_types))

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        heat_map(
            axes,
            difference,
            variants,
            cell_types,
            diverging(),
            symmetric(difference),
            "Difference of log-odds (nats)",
        )

    return panel(
        "Heat map: difference of log-odds of the strongest variants in each cell type.",
        (width, max(2.2, 1.2 + 0.15 * len(variants))),
        draw,
    )


def p_histogram(p: NDArray[np.float32], counts: NDArray[np.int64]) -> Panel:
    """Draw how often p-values occur, beside what they would be if no allele had an effect beyond chance.

    Args:
        p: distinct p-values.
        counts: how often each occurs.
    """

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        axes.hist(p, bins=np.linspace(0, 1, 21).tolist(), weights=counts, color=BLUE)
        axes.axhline(counts.sum() / 20, color=GREY, linestyle="--", linewidth=0.8, label="expected if uniform")
        axes.yaxis.set_major_formatter(thousands)
        axes.set_xlim(0, 1)
        axes.set_xlabel("Empirical p")
        axes.set_ylabel("Allele and cell type pairs")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1))

    return panel("Histogram: empirical p-values, with the height that uniform ones would have.", (HALF, 2.3), draw)


def p_quantiles(p: NDArray[np.float32], counts: NDArray[np.int64]) -> Panel:
    """Draw p-values against those that uniform ones would be, both as -log10.

    Args:
        p: distinct p-values, ascending.
        counts: how often each occurs.
    """
    total = int(counts.sum())
    shown = np.unique(np.geomspace(1, total, min(total, MOST_POINTS)).astype(int)) - 1
    observed = -np.log10(p[np.searchsorted(np.cumsum(counts), shown, side="right")].astype(np.float64))
    expected = -np.log10((shown + 0.5) / total)

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        axes.axline((0, 0), slope=1, color=GREY, linestyle="--", linewidth=0.8)
        axes.plot(expected, observed, ".", color=BLUE, markersize=2.5)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Expected −log₁₀ p")
        axes.set_ylabel("Observed −log₁₀ p")

    return panel("Quantiles of empirical p-values against those of uniform ones.", (HALF, 2.3), draw)


def motif_sites_panel(variant: str, letters: pd.DataFrame, sites: Sequence[dict[str, Any]]) -> Panel:
    """Draw both alleles' bases, and above each the logos of motifs where their best hits lie.

    Args:
        variant: chrom:position:ref>alt.
        letters: allele, offset, base of the bases near the variant.
        sites: motifs gained and lost; see motif_sites.json of the stage `variants`.
    """
    own, other = allele_lengths(variant)
    lengths = {"reference": (own, other), "alternate": (other, own)}
    tracks: list[tuple[str, dict[str, Any] | None]] = []
    for allele, change in zip(ALLELES, ("lost", "gained"), strict=True):
        tracks += [(allele, site) for site in sites if site["change"] == change]
        tracks.append((allele, None))
    spans = [_columns(letters[letters["allele"] == allele], *lengths[allele]) for allele in ALLELES]
    spans += [_motif_columns(site, *lengths[allele]) for allele, site in tracks if site is not None]
    limits = min(span.min() for span in spans) - 0.6, max(span.max() for span in spans) + 0.6

    def draw(figure: Canvas) -> None:
        heights = [0.45 if site is None else 1.0 for _, site in tracks]
        grid = figure.subplots(len(tracks), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        for axes, (allele, site) in zip(grid, tracks, strict=True):
            axes.axvspan(-0.5, max(own, other) - 0.5, color=PALE, zorder=-5, linewidth=0)
            axes.spines[:].set_visible(False)
            axes.tick_params(left=False, labelleft=False, bottom=False, labelbottom=False)
            if site is None:
                _draw_letters(axes, letters[letters["allele"] == allele], *lengths[allele])
                axes.set_ylabel(allele.capitalize(), rotation=0, ha="right", va="center")
            else:
                _draw_motif(axes, site, *lengths[allele])
        axes.set_xlim(*limits)
        axes.tick_params(bottom=True, labelbottom=True)
        axes.set_xlabel("Aligned position (bp from the variant)")
        grid[0].set_title(shorten(variant, 60), loc="left")

    alt = f"Sequence of both alleles of {variant} with the logos of the motifs lost and gained."
    return panel(alt, (WIDE, 0.75 + 0.42 * sum(1.0 if site else 0.5 for _, site in tracks)), draw)


def _columns(rows: pd.DataFrame, own: int, other: int) -> NDArray[np.int64]:
    return aligned(rows["offset"].to_numpy(np.int64), own, other)


def _motif_columns(site: dict[str, Any], own: int, other: int) -> NDArray[np.int64]:
    return aligned(site["offset"] + np.arange(len(site["motif"]["probabilities"])), own, other)


def _draw_letters(axes: Axes, rows: pd.DataFrame, own: int, other: int) -> None:
    bases = rows.drop_duplicates("offset")
    for column, base in zip(_columns(bases, own, other).tolist(), bases["base"], strict=True):
        axes.text(column, 0.5, base, color=BASE_COLOURS[base], ha="center", va="center", weight="bold", clip_on=True)
    axes.set_ylim(0, 1)


def _draw_motif(axes: Axes, site: dict[str, Any], own: int, other: int) -> None:
    motif = Motif.from_json(site["motif"])
    probabilities = motif.probabilities[::-1, ::-1] if site["reverse"] else motif.probabilities
    known = np.maximum(probabilities, 1e-9)
    bits = probabilities * (2 + (known * np.log2(known)).sum(axis=1, keepdims=True))
    logo = pd.DataFrame(bits, index=_motif_columns(site, own, other), columns=list(BASES))
    logomaker.Logo(
        logo, ax=axes, color_scheme=BASE_COLOURS, font_name="DejaVu Sans", font_weight="bold", show_spines=False
    )
    axes.set_ylim(0, 2)
    strand = "−" if site["reverse"] else "+"
    label = f"{shorten(motif.name, 16)} ({strand})\n{site['change']}, {minus(format(site['by'], '+.1f'))}"
    axes.set_ylabel(label, rotation=0, ha="right", va="center")
