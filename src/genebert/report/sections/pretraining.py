"""The section about pre-training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from genebert.metrics import Estimate
from genebert.report import figures, tables
from genebert.report.canvas import HALF, WIDE
from genebert.report.compare import PARTS, by_part, estimate, verdict
from genebert.report.content import Block, Figure, Panel, Prose, Section, Verdicts
from genebert.stage import Manifest

PUBLISHED = "MGM (DNABERT masking)"


@dataclass(frozen=True)
class Curve:
    """What is drawn by step.

    Attributes:
        column: in curves.tsv; with the prefix valid_, on validation examples.
        title, label: of the panel and of its axis.
        ignorance: value without knowledge and its label.
    """

    column: str
    title: str
    label: str = "Loss (nats)"
    ignorance: tuple[float, str] | None = None


LOSSES = (
    Curve("mgm", "MGM", ignorance=(float(np.log(4)), "ignorance, ln 4")),
    Curve("ngsp", "NGSP", ignorance=(float(np.log(2)), "ignorance, ln 2")),
    Curve("srm", "SRM"),
    Curve("mrm", "Masked region modelling", "Smooth L1 (SD)"),
    Curve("rc", "Reverse complement", "1 − cosine"),
    Curve("accessibility", "Accessibility", "Smooth L1 (SD)"),
)
MEASURES = (
    Curve("mgm_accuracy", "MGM", "Accuracy on hidden bases"),
    Curve("mgm_token_accuracy", PUBLISHED, "Accuracy on masked tokens"),
    Curve("ngsp_auroc", "NGSP", "AUROC", (0.5, "chance")),
    Curve("srm_retrieval", "SRM", "Retrieval at 1 of 64", (1 / 64, "chance, 1 of 64")),
)
TRAINING_LOSS = "Light lines, training loss (means over 10 steps; fewer at the end are not drawn)"
BASELINES = {
    "majority base": "the most frequent base",
    "order-5 Markov": "the base that most often follows the five before it, which it is shown even where they are "
    "hidden from the model",
    "visible flanking bases": "the most probable base between the bases within four on either side that the model can "
    "see, by counts of both strands of training regions",
    "read off the neighbours": "k-mers put together from the bases that tokens beside them show, the rest guessed from "
    "the flanks",
    "GC content only": "logistic regression on the GC content of both segments (NGSP) or of the region (probe), or "
    "matching by the GC content that ridge regression reads from motif evidence (SRM)",
    "untrained network": "the same probe of a network of the same shape that was not trained",
    "matrix summary": "the same probe of the matrix's mean motif evidence, mean and quantiles of accessibility, and "
    "number of columns",
    "own motifs and matrix summary": "that with the region's own motif evidence",
}
"""What a baseline knows; baselines are fitted on training regions."""


def pretraining_section(manifest: Manifest) -> Section:
    """Describe pre-training: curves, and each task against its baselines."""
    metrics = manifest.metrics
    parts = by_part(metrics["evaluation"])
    said = (
        f"A network of {metrics['parameters']:,} parameters saw {metrics['examples_seen']:,} examples of"
        f" {', '.join(metrics['train_chromosomes'])} in {metrics['steps']:,} steps. It was then measured on"
        f" {'; on '.join(parts)}."
    )
    curves = pd.read_csv(manifest.folder / "curves.tsv", sep="\t")
    return Section(
        "Pre-training",
        [
            Prose(said),
            *(block for measured_on, rows in parts.items() for block in _measures(measured_on, rows)),
            *_during_training(curves, metrics),
        ],
    )


def _measures(measured_on: str, rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Show the measures on some examples: in sentences, drawn, and listed."""
    verdicts = [
        verdict(f"{row['task']}, {row['metric']}", "the model", estimate(row["model"]), _estimates(row["baselines"]))
        for row in rows
    ]
    title = f"Pre-training tasks on {measured_on}."
    blocks: list[Block] = [Prose(title), Verdicts(verdicts), _results(rows, title), tables.pretraining(rows, title)]
    return blocks + [_confusion(row) for row in rows if "confusion" in row]


def _estimates(baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
    return {name: estimate(value) for name, value in baselines.items()}


def _results(evaluation: Sequence[Mapping[str, Any]], title: str) -> Figure:
    names = list(dict.fromkeys(name for row in evaluation for name in row["baselines"] if name != "chance"))
    colours = figures.colours_of(["model", *names])
    panels = []
    for row in evaluation:
        others = _estimates(row["baselines"])
        chance = others.pop("chance", None)
        panels.append(
            figures.dots(
                row["task"],
                row["metric"],
                {"model": estimate(row["model"]), **others},
                chance.value if chance else None,
                colours,
            )
        )
    counts = ", ".join(dict.fromkeys(f"{row['task']} {row['n']:,}" for row in evaluation))
    known = " ".join(f"{name[:1].upper()}{name[1:]}: {BASELINES[name]}." for name in names if name in BASELINES)
    return Figure(
        title,
        panels,
        caption=(
            "Dots, measured value; bars, 95% bootstrap interval; dashed, chance. Examples:"
            f" {counts}. One model, one seed. Baselines, fitted on training regions. {known}"
        ),
        columns=2,
    )


def _confusion(row: Mapping[str, Any]) -> Figure:
    classes, counts = row["confusion"]["classes"], np.array(row["confusion"]["counts"], dtype=np.int64)
    size = min(WIDE, max(HALF, 1.6 + 0.1 * len(classes)))
    return Figure(
        "Cell types told from frozen region embeddings.",
        [figures.confusion(row["task"], classes, counts, size)],
        caption=(
            f"Logistic regression on the region encoder's pooled vectors, n = {row['n']:,} pairs of a cell type and a"
            " region accessible in it; colour, share of the true cell type."
        ),
    )


def _during_training(curves: pd.DataFrame, metrics: Mapping[str, Any]) -> list[Figure]:
    """Show the losses, and the measures that were taken beside them."""
    followed = _validated_on(curves, metrics)
    whole_kmers = any(row["task"] == PUBLISHED for row in metrics["evaluation"])  # their ignorance is k ln 4
    losses = [curve for curve in LOSSES if curve.column in curves]
    if whole_kmers:
        losses = [replace(curve, ignorance=None) if curve.column == "mgm" else curve for curve in losses]
    measures = [curve for curve in MEASURES if f"valid_{curve.column}" in curves]
    shown = [
        ("Pre-training losses.", losses, f"{TRAINING_LOSS}; {followed}."),
        ("Measures of the tasks during training.", measures, f"{followed[:1].upper()}{followed[1:]}."),
    ]
    return [
        Figure(
            title,
            [_panel(curves, one) for one in chosen],
            caption=caption + " Dashed: a guess without knowledge." * any(one.ignorance for one in chosen),
            columns=3,
        )
        for title, chosen, caption in shown
        if chosen
    ]


def _panel(curves: pd.DataFrame, curve: Curve) -> Panel:
    return figures.learning_curve(
        f"{curve.title}, {curve.label}, by step.",
        curve.title,
        [curves],
        curve.column,
        f"valid_{curve.column}",
        figures.MODEL_COLOUR,
        curve.ignorance,
        also=f"valid_cell_types_{curve.column}",
        label=curve.label,
    )


def _validated_on(curves: pd.DataFrame, metrics: Mapping[str, Any]) -> str:
    if not any(column.startswith("valid_") for column in curves):
        return "nothing was held out for validation"
    parts = metrics.get("validated_on") or {}
    places = [f"{PARTS[regions]} chromosomes, {PARTS[cell_types]} cell types" for regions, cell_types in parts.values()]
    where = "; squares, ".join(places) or "validation examples"
    return f"dots, {where} (the same 8 batches each time, no dropout)"
