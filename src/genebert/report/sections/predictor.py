"""The section about a predictor."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.metrics import Estimate
from genebert.report import figures, tables
from genebert.report.canvas import HALF, THIRD
from genebert.report.compare import Scores, auroc_by_cell_type, estimate, verdict
from genebert.report.content import Figure, Panel, Prose, Section, Verdict, Verdicts
from genebert.stage import Manifest


def predictor_section(manifest: Manifest, name: str) -> Section:
    """Describe a predictor: methods compared on the test rows, curves, cell types."""
    metrics = manifest.metrics
    methods = list(dict.fromkeys(row["method"] for row in metrics["results"]))
    predictions = read_predictions(manifest)
    codes = {name: i for i, name in enumerate(metrics["classes"])}
    label = predictions["label"].map(codes).to_numpy(np.int64)
    chance = chance_levels(label)
    section = Section(
        f"Predictor {name}",
        [
            _predictor_prose(metrics),
            Verdicts(
                [
                    _method_verdict(metrics["results"], metric, methods, chance)
                    for metric in dict.fromkeys(row["metric"] for row in metrics["results"])
                ]
            ),
            _method_dots(metrics, methods, chance),
            tables.methods(metrics),
        ],
    )
    if len(metrics["classes"]) == 2:
        section.blocks += _binary_figures(predictions, label, methods, metrics)
    else:
        section.blocks.append(_confusions(predictions, label, methods, metrics["classes"]))
    section.blocks.append(_finetuning_curves(manifest, methods))
    return section


def read_predictions(manifest: Manifest) -> pd.DataFrame:
    """Return the test rows with each method's probabilities; names are text even if they look numeric."""
    words = {"label": str, "chrom": str, "cell_type": str, "split": str, "strand": str, "sequence": str}
    return pd.read_csv(manifest.folder / "test_predictions.tsv", sep="\t", dtype=words, keep_default_na=False)


def _predictor_prose(metrics: Mapping[str, Any]) -> Prose:
    rows = metrics["rows"]
    neighbourhood = "accessible regions nearby in the row's cell type"
    columns = neighbourhood if metrics["per_cell_type"] else "tiles of the sequence itself"
    context = f"from the sequence and a region matrix whose columns are {columns}"
    return Prose(
        f"{rows['train']:,} training, {rows['valid']:,} validation and {rows['test']:,} test windows of"
        f" {metrics['window_width']:,} bp, classes {', '.join(metrics['classes'])}; predicted {context}. The"
        " epoch was chosen on the validation rows; everything below is measured on the test rows."
    )


def _of(results: Sequence[Mapping[str, Any]], metric: str, method: str) -> Estimate:
    return next(estimate(row) for row in results if row["metric"] == metric and row["method"] == method)


def chance_levels(label: NDArray[np.int64]) -> dict[str, float]:
    """Return what a method that knows nothing but the share of each class would reach, by metric."""
    share = np.bincount(label) / len(label)
    return {"AUROC": 0.5, "AUPRC": float(share[-1]), "accuracy": float(share.max()), "MCC": 0.0}


def _method_verdict(
    results: Sequence[Mapping[str, Any]], metric: str, methods: Sequence[str], chance: Mapping[str, float]
) -> Verdict:
    others = {name: _of(results, metric, name) for name in methods[1:]}
    if metric in chance:
        others["chance"] = Estimate(chance[metric], chance[metric], chance[metric])
    return verdict(metric, f"the {methods[0]} model", _of(results, metric, methods[0]), others)


def _method_dots(metrics: Mapping[str, Any], methods: Sequence[str], chance: Mapping[str, float]) -> Figure:
    results = metrics["results"]
    colours = figures.colours_of(methods)
    panels = [
        figures.dots("", metric, {name: _of(results, metric, name) for name in methods}, chance.get(metric), colours)
        for metric in dict.fromkeys(row["metric"] for row in results)
    ]
    seeds = ", ".join(f"{name} {_of(results, results[0]['metric'], name).seeds}" for name in methods)
    return Figure(
        "Methods compared on the test rows.",
        panels,
        caption=(
            f"Dots, mean over seeds; bars, 95% bootstrap interval over the n = {metrics['rows']['test']:,}"
            f" test rows. Seeds: {seeds}. Dashed: chance, which for accuracy is the share of the largest"
            f" class, and for AUPRC that of class {metrics['classes'][-1]}. From scratch: the same network"
            " without pre-training. k-mer logistic regression: counts of short words of the same windows."
        ),
        columns=2,
    )


def _binary_figures(
    predictions: pd.DataFrame, label: NDArray[np.int64], methods: Sequence[str], metrics: Mapping[str, Any]
) -> list[Figure]:
    positive = metrics["classes"][1]
    scores: Scores = {name: predictions[f"{name}: {positive}"].to_numpy(np.float64) for name in methods}
    drawers: list[Callable[..., Panel]] = [
        figures.roc_curves,
        figures.precision_recall_curves,
        figures.reliability_curves,
    ]
    said = [
        "Receiver operating characteristic, and its area.",
        "Precision against recall, and average precision; dashed, the share of the positive class.",
        ("Reliability in ten bins of equally many rows, with 95% Wilson intervals; dashed, perfect calibration."),
    ]
    caption = (
        f"Positive class: {positive}; n = {len(label):,} test rows, {label.sum():,} positive. Probabilities"
        " are averaged over seeds, so that with several seeds the areas can differ from the means in the"
        " table."
    )
    found = [Figure("Ranking and calibration.", [draw(label, scores) for draw in drawers], said, caption, columns=3)]
    if metrics["per_cell_type"]:
        found += _cell_types(predictions["cell_type"].to_numpy(), label, scores)
    return found


def _cell_types(cell_type: NDArray[Any], label: NDArray[np.int64], scores: Scores) -> list[Figure]:
    by_cell_type = auroc_by_cell_type(cell_type, label, scores)
    names = list(next(iter(by_cell_type.values())))
    if not names:
        return []
    counts = sorted({int((cell_type == name).sum()) for name in names})
    spread = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return [
        Figure(
            "AUROC in each cell type.",
            [figures.by_cell_type(by_cell_type)],
            caption=(
                f"Test rows of one cell type at a time, {spread} of "
                "each; bars, 95% intervals (DeLong); dashed, chance. Probabilities are averaged over seeds."
            ),
        )
    ]


def _confusions(
    predictions: pd.DataFrame, label: NDArray[np.int64], methods: Sequence[str], classes: Sequence[str]
) -> Figure:
    panels = []
    for name in methods:
        guess = predictions[[f"{name}: {c}" for c in classes]].to_numpy(np.float64).argmax(axis=1)
        counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
        np.add.at(counts, (label, guess), 1)
        panels.append(figures.confusion(name, classes, counts, THIRD if len(classes) <= 4 else HALF))
    return Figure(
        "Confusion matrices.",
        panels,
        caption=(
            "Test rows by true and predicted class; colour, share of the true class; numbers, rows. n ="
            f" {len(label):,}. The class of the highest probability, averaged over seeds, is the predicted"
            " one."
        ),
        columns=3 if len(classes) <= 4 else 2,
    )


def _finetuning_curves(manifest: Manifest, methods: Sequence[str]) -> Figure:
    table = pd.read_csv(manifest.folder / "curves.tsv", sep="\t")
    colours = figures.colours_of(methods)
    classes = len(manifest.metrics["classes"])
    panels = []
    for name in methods:
        runs = [run for _, run in table[table["method"] == name].groupby("seed")]
        if runs:
            panels.append(
                figures.learning_curve(
                    f"Training and validation loss of {name} by step.",
                    name,
                    runs,
                    "cross_entropy",
                    "valid_loss",
                    colours[name],
                    (float(np.log(classes)), f"ignorance, ln {classes}"),
                    HALF,
                )
            )
    return Figure(
        "Fine-tuning losses.",
        panels,
        caption=(
            "Light lines, training loss (means over 10 steps); dots, loss on all validation rows at the end"
            " of each epoch, of which the lowest is kept; one line per seed. Dashed: the loss of a uniform"
            " guess."
        ),
        columns=2,
    )
