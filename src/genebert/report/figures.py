"""What figures show. Every function takes arrays or tables and returns panels; none reads a file."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from genebert.calibration import CALIBRATED, reliability
from genebert.metrics import Estimate
from genebert.report.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    HALF,
    ORANGE,
    PALE,
    PALE_LINE,
    PURPLE,
    RED,
    SKY,
    THIRD,
    WIDE,
    annotate_cells,
    heat_map,
    panel,
    sequential,
    shorten,
    thousands,
)
from genebert.report.compare import Curve, Scores, precision_recall, roc
from genebert.report.content import Panel
from genebert.schema import SPLITS

MODEL_COLOUR = BLUE
OTHER_COLOURS = (RED, GREEN, PURPLE, ORANGE, SKY, BLACK)
SPLIT_COLOURS = dict(zip(SPLITS, (BLACK, SKY, PURPLE), strict=True))
CROWDED = 36
"""From here on, names of cell types are set smaller."""
MOST_ANNOTATED = 10
"""Matrices of at most 10 rows carry their numbers."""
Dots = Mapping[str, Estimate]
"""method -> estimate."""


def colours_of(methods: Sequence[str]) -> dict[str, str]:
    """Return a colour for each method of a section: blue for the first, which is the model, and others in order.

    What the predictor says, calibrated, is black.
    """
    others = {name: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, name in enumerate(methods[1:])}
    return {methods[0]: MODEL_COLOUR, **others, CALIBRATED: BLACK}


# ----------------------------------------------------------------------------------------------------- corpus


def regions_per_cell_type(names: Sequence[str], only_here: NDArray[Any], shared: NDArray[Any]) -> Panel:
    """Draw the accessible regions of each cell type: those accessible nowhere else, and the shared ones."""

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        place = np.arange(len(names))
        axes.barh(place, only_here, color=RED, height=0.72, label="accessible only there")
        axes.barh(place, shared, left=only_here, color="#b9cfe0", height=0.72, label="shared with another")
        axes.set_yticks(place, [shorten(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(thousands)
        axes.set_xlabel("Accessible regions")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, columnspacing=1)

    height = max(2.3, 0.7 + 0.15 * len(names))
    return panel(
        "Bars: number of accessible regions of each cell type, those accessible only there and those shared.",
        (HALF, height),
        draw,
    )


def sharing(cell_types_per_region: NDArray[np.int64], cell_types: int) -> Panel:
    """Draw how many regions are accessible in 1, 2, ... cell types."""

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        counts = np.bincount(cell_types_per_region, minlength=cell_types + 1)[1:]
        axes.bar(np.arange(1, cell_types + 1), counts, color="#b9cfe0", width=0.8)
        axes.patches[0].set_facecolor(RED)
        axes.set_xticks(np.arange(1, cell_types + 1, -(-cell_types // 16)))
        axes.set_xlim(0.4, cell_types + 0.6)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(thousands)
        axes.set_xlabel("Cell types in which a region is accessible")
        axes.set_ylabel("Regions")

    return panel("Bars: number of regions by the number of cell types in which they are accessible.", (HALF, 2.3), draw)


def gc_content(gc: NDArray[np.float64], split: NDArray[np.uint8]) -> Panel:
    """Draw the distribution of GC content in each split, as a percentage of its regions."""

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        bins = np.linspace(0, 100, 41)
        for i, name in enumerate(SPLITS):
            part = 100 * gc[split == i]
            if len(part):
                axes.hist(
                    part,
                    bins=bins.tolist(),
                    weights=np.full(len(part), 100 / len(part)),
                    histtype="step",
                    color=SPLIT_COLOURS[name],
                    label=f"{name} (n = {len(part):,})",
                    linewidth=1.1,
                )
        axes.set_xlim(max(0, 100 * gc.min() - 5), min(100, 100 * gc.max() + 5))
        axes.set_xlabel("GC content of a region (%)")
        axes.set_ylabel("Regions of the split (%)")
        axes.legend(loc="upper right")

    return panel("Histograms: GC content of regions in the training, validation and test split.", (HALF, 2.3), draw)


def overlap(names: Sequence[str], jaccard: NDArray[np.float64]) -> Panel:
    """Draw the overlap between cell types' accessible regions, shape (cell types, cell types)."""
    size = min(WIDE, max(HALF, 1.6 + 0.1 * len(names)))

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        off_diagonal = jaccard[~np.eye(len(names), dtype=bool)]
        low, high = (float(off_diagonal.min()), float(off_diagonal.max())) if len(off_diagonal) else (0.0, 1.0)
        shown = np.where(np.eye(len(names), dtype=bool), np.nan, jaccard)
        heat_map(axes, shown, names, names, sequential(BLUE).with_extremes(bad=PALE), (low, high), "Jaccard index")
        if len(names) > CROWDED:
            axes.tick_params(labelsize=5)
        if len(names) <= MOST_ANNOTATED:
            annotate_cells(
                axes,
                shown,
                [["" if np.isnan(value) else f"{value:.2f}" for value in line] for line in shown],
                low + 0.35 * (high - low),
            )

    return panel(
        "Heat map: Jaccard index of the accessible regions of each pair of cell types.",
        (size, size * 0.8),
        draw,
    )


def locus(
    motifs: Sequence[str],
    evidence: NDArray[np.float64],
    cell_types: Sequence[str],
    access: NDArray[np.float64],
    starts: Sequence[int],
    chrom: str,
) -> Panel:
    """Draw a fragment of the region matrix: motif evidence above accessibility, over the same regions.

    Args:
        motifs, evidence: names, and -log10 p, shape (motifs, regions).
        cell_types, access: names, and log1p signal per million, shape (cell types, regions).
        starts: start of each region in bp.
        chrom: where they lie.
    """

    labels = [f"{start:,}" for start in starts]
    range_of = float(evidence.min()), float(evidence.max())

    def draw(figure: Canvas) -> None:
        ratios = [len(motifs) + 1, len(cell_types) + 1]
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
        heat_map(above, evidence, motifs, labels, sequential(BLUE), range_of, "−log₁₀ p of best hit")
        limits = 0.0, float(access.max()) or 1.0
        heat_map(below, access, cell_types, labels, sequential(GREEN), limits, "log(1 + CPM)")
        above.tick_params(labelbottom=False)
        for axes in (above, below):
            axes.tick_params(labelsize=6)
        below.set_xlabel(f"Start of the region on {chrom} (bp, 0-based)")

    height = 1.3 + 0.125 * (len(motifs) + len(cell_types))
    alt = "Two heat maps over the same regions: motif evidence, and accessibility in each cell type."
    return panel(alt, (WIDE, height), draw)


# ----------------------------------------------------------------------------------------------------- curves


def learning_curve(
    alt: str,
    title: str,
    runs: Sequence[pd.DataFrame],
    train: str,
    valid: str,
    colour: str,
    ignorance: tuple[float, str] | None,
    width: float = THIRD,
    *,
    also: str | None = None,
    label: str = "Loss (nats)",
) -> Panel:
    """Draw training and validation loss by step, or a measure that is taken on validation examples only.

    Args:
        alt: description.
        title: above the panel.
        runs: one table per seed with the columns step and, where they were recorded, `train`, `valid`, `also`.
        train, valid: names of the columns.
        colour: of the method.
        ignorance: value without knowledge and its label, drawn as a dashed line.
        width: of the panel in inches.
        also: column of the same on held-out cell types.
        label: what is drawn.
    """

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        for i, run in enumerate(runs):
            whole = _whole_records(run, train)
            _losses(axes, whole, train, "training" if i == 0 else None, color=colour, alpha=0.55)
            _losses(axes, run, valid, "validation" if i == 0 else None, color=colour, marker="o", linewidth=0.9)
            if also:
                _losses(axes, run, also, "held-out cell types", color=RED, marker="s", linewidth=0.9)
        if ignorance is not None:
            axes.axhline(ignorance[0], color=GREY, linestyle="--", linewidth=0.8, label=ignorance[1])
        axes.set_title(title, loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel("Optimiser step")
        axes.set_ylabel(label)
        axes.margins(y=0.12)
        figure.legend(loc="outside lower center", ncols=2, columnspacing=1)

    return panel(alt, (width, 2.25), draw)


def _whole_records(run: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the records of a mean over steps without a last one over fewer steps, which scatters more."""
    if column not in run:
        return run
    known = run[run[column].notna()]
    steps = np.diff(known["step"].to_numpy(), prepend=0)
    return known[:-1] if len(steps) > 1 and steps[-1] < steps[:-1].min() else known


def _losses(axes: Axes, run: pd.DataFrame, column: str, label: str | None, **look: Any) -> None:
    if column in run and run[column].notna().any():
        known = run[["step", column]].dropna()
        axes.plot(known["step"], known[column], label=label, markersize=3, **look)


# ---------------------------------------------------------------------------------------------------- results


def dots(title: str, metric: str, methods: Dots, chance: float | None, colours: Mapping[str, str]) -> Panel:
    """Draw estimates as dots with 95% intervals, one row per method, and chance as a dashed line."""

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        small: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 6}
        for row, (name, value) in enumerate(methods.items()):
            axes.hlines(row, value.low, value.high, color=colours[name], linewidth=1.3)
            axes.plot(value.value, row, marker="o", color=colours[name], markersize=4.5)
            axes.annotate(f"{value.value:.3f}", (value.value, row), (0, 4), **small)
        if chance is not None:
            axes.axvline(chance, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
            axes.annotate("chance", (chance, 1), (0, 1), xycoords=("data", "axes fraction"), color=GREY, **small)
        axes.set_yticks(range(len(methods)), list(methods))
        axes.set_ylim(len(methods) - 0.6, -0.7)
        axes.margins(x=0.1)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(metric)
        axes.set_title(title, loc="left", pad=9)

    alt = f"Dots with 95% intervals: {title} {metric} of {', '.join(methods)}."
    return panel(alt, (HALF, 0.82 + 0.19 * len(methods)), draw)


def _square(axes: Axes, x: str, y: str) -> None:
    """Make the axes those of two fractions."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, aspect="equal")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])


def curves(
    alt: str,
    label: NDArray[np.int64],
    scores: Scores,
    colours: Mapping[str, str],
    curve: Callable[[NDArray[np.int64], NDArray[np.float64]], Curve],
    axis_labels: tuple[str, str],
    ignorance: Sequence[Sequence[float]],
) -> Panel:
    """Draw a curve per method, its area in the legend, and what ignorance would give as a dashed line."""

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        axes.plot(*ignorance, color=GREY, linestyle="--", linewidth=0.8)
        for name, score in scores.items():
            found = curve(label, score)
            axes.plot(found.x, found.y, color=colours[name], label=f"{name}, {found.area:.3f}")
        _square(axes, *axis_labels)
        axes.legend(loc="upper center", bbox_to_anchor=(0.42, -0.24))

    return panel(alt, (THIRD, 2.75), draw)


def roc_curves(label: NDArray[np.int64], scores: Scores, colours: Mapping[str, str]) -> Panel:
    """Draw receiver operating characteristics."""
    return curves(
        "ROC curves of all methods, with areas.",
        label,
        scores,
        colours,
        roc,
        ("False positive rate", "True positive rate"),
        ([0, 1], [0, 1]),
    )


def precision_recall_curves(label: NDArray[np.int64], scores: Scores, colours: Mapping[str, str]) -> Panel:
    """Draw precision against recall; the dashed line is the fraction of the second class."""
    share = float(label.mean())
    return curves(
        "Precision-recall curves of all methods, with average precision.",
        label,
        scores,
        colours,
        precision_recall,
        ("Recall", "Precision"),
        ([0, 1], [share, share]),
    )


def reliability_curves(label: NDArray[np.int64], scores: Scores, colours: Mapping[str, str]) -> Panel:
    """Draw observed against predicted probability, with 95% Wilson intervals; dashed, perfect calibration."""

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.8)
        for name, score in scores.items():
            bins = reliability(label, score)
            axes.vlines(bins["predicted"], bins["low"], bins["high"], color=colours[name], linewidth=0.7, alpha=0.6)
            axes.plot(
                bins["predicted"],
                bins["observed"],
                marker="s" if name == CALIBRATED else "o",
                markersize=2.6,
                linewidth=0.9,
                color=colours[name],
                label=name,
            )
        _square(axes, "Predicted probability", "Observed fraction")
        axes.legend(loc="upper center", bbox_to_anchor=(0.42, -0.24))

    return panel("Reliability: observed fraction against predicted probability for each method.", (THIRD, 2.75), draw)


def scatter(title: str, true: NDArray[np.float64], predicted: NDArray[np.float64]) -> Panel:
    """Draw predicted against true numbers; dashed, where they are equal."""

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
        axes.plot([low, high], [low, high], color=GREY, linestyle="--", linewidth=0.8)
        axes.scatter(true, predicted, s=3, color=BLUE, alpha=0.4, linewidths=0, rasterized=True)
        axes.set_title(shorten(title))
        pad = 0.03 * ((high - low) or 1.0)
        limits = low - pad, high + pad
        axes.set(xlim=limits, ylim=limits, xlabel="True", ylabel="Predicted", aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4))

    return panel(f"Predicted against true numbers of {title}.", (THIRD, THIRD), draw)


def by_cell_type(methods: Mapping[str, Mapping[str, Estimate]], colours: Mapping[str, str]) -> Panel:
    """Draw AUROC with 95% intervals for each cell type and method."""
    names = list(next(iter(methods.values())))
    step = 0.62 / max(1, len(methods) - 1)

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        for i, (method, found) in enumerate(methods.items()):
            place = np.arange(len(names)) + (i - (len(methods) - 1) / 2) * step
            axes.hlines(
                place,
                [found[name].low for name in names],
                [found[name].high for name in names],
                color=colours[method],
                linewidth=1.1,
            )
            axes.plot([found[name].value for name in names], place, "o", color=colours[method], label=method)
        for edge in np.arange(0.5, len(names) - 1):
            axes.axhline(edge, color=PALE_LINE, linewidth=0.5)
        axes.axvline(0.5, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(names)), [shorten(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("AUROC")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(methods))

    return panel(
        "Dots with 95% intervals: AUROC of each method in each cell type.",
        (5.2, 0.9 + 0.11 * len(names) * (len(methods) + 0.7)),
        draw,
    )


def confusion(title: str, classes: Sequence[str], counts: NDArray[np.int64], width: float = THIRD) -> Panel:
    """Draw a confusion matrix, shape (true classes, predicted classes), as percentages of each true class."""
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        heat_map(axes, share, classes, classes, sequential(BLUE), (0, 100), "Rows of the true class (%)")
        if len(classes) <= MOST_ANNOTATED:
            annotate_cells(axes, share, [[f"{count:,}" for count in line] for line in counts], 55)
        axes.set(xlabel="Predicted class", ylabel="True class")
        axes.set_title(title, loc="left")

    return panel(f"Confusion matrix of {title}.", (width, width * 0.95), draw)
