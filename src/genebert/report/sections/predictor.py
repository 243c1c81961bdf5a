"""The section about a predictor."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.calibration import CALIBRATED, events
from genebert.metrics import Estimate
from genebert.report import figures, tables
from genebert.report.canvas import HALF, THIRD
from genebert.report.compare import Scores, auroc_by_cell_type, estimate, verdict
from genebert.report.content import Figure, Prose, Section, Verdict, Verdicts
from genebert.report.sections.pretraining import TRAINING_LOSS
from genebert.stage import Manifest
from genebert.target import Target

NETWORK = "genebert"
"""The member of a predictor that is a network; a predictor may have none."""
_EXPLAINED = {
    "from scratch": " From scratch: the same network without pre-training.",
    "without encoders": " Without encoders: nothing of the network is pre-trained.",
    "k-mer regression": " k-mer regression: on counts of short words of the same windows.",
}
"""What the figure says of methods that are in it."""


def predictor_section(manifest: Manifest, name: str) -> Section:
    """Describe a predictor: methods compared on the test rows, curves, cell types."""
    metrics, target = manifest.metrics, Target.from_json(manifest.metrics["target"])
    methods = list(dict.fromkeys(row["method"] for row in metrics["results"]))
    predictions = read_predictions(manifest)
    truth = target.truth(predictions)
    chance = chance_levels(truth) if target.kind == "classes" else {}
    headline = [row for row in metrics["results"] if ":" not in row["metric"]]  # not those of single labels
    section = Section(
        f"Predictor {name}",
        [
            _predictor_prose(manifest, target),
            Verdicts(
                [
                    _method_verdict(headline, metric, methods, chance, metrics["members"])
                    for metric in dict.fromkeys(row["metric"] for row in headline)
                ]
            ),
            _method_dots(metrics, headline, methods, chance),
            tables.methods(metrics),
        ],
    )
    if metrics.get("cell_type_distances"):
        section.blocks.append(tables.cell_type_distances(metrics["cell_type_distances"]))
    section.blocks += _figures_of(target, predictions, truth, methods, metrics)
    curves = _finetuning_curves(manifest, target, methods)
    section.blocks += [curves] if curves.panels else []  # a predictor may have no network
    return section


def _figures_of(
    target: Target, predictions: pd.DataFrame, truth: NDArray[Any], methods: Sequence[str], metrics: Mapping[str, Any]
) -> list[Figure]:
    if target.is_binary:
        return _binary_figures(predictions, truth, methods, metrics)
    if target.kind == "classes":
        return [
            _confusions(predictions, truth, methods, target.names),
            _reliability(target, predictions, truth, metrics),
        ]
    if target.kind == "labels":
        return [_reliability(target, predictions, truth, metrics)]
    return [_scatters(predictions, truth[:, 0], methods)]


def read_predictions(manifest: Manifest) -> pd.DataFrame:
    """Return the test rows with each method's probabilities; names are text even if they look numeric."""
    path = manifest.folder / "test_predictions.tsv"
    words = {"label": str, "value": str, "chrom": str, "cell_type": str, "split": str, "strand": str, "sequence": str}
    words |= {name: str for name in pd.read_csv(path, sep="\t", nrows=0) if str(name).startswith("label:")}
    return pd.read_csv(path, sep="\t", dtype=words, keep_default_na=False)


def _predictor_prose(manifest: Manifest, target: Target) -> Prose:
    metrics = manifest.metrics
    rows = metrics["rows"]
    others = ", ".join(dict.fromkeys(name for name in metrics["members"] if name != NETWORK))
    if NETWORK in metrics["members"]:
        together = f", averaged with {others}" if others else ""
        context = f"from {_what_is_read(manifest)}{together}. The epoch"
    else:
        context = f"without a network, by {others}. What is chosen there"
    shared = metrics["test_rows_sharing_32_bases"]
    kind = {"classes": "classes", "labels": "labels", "value": "a number:"}[target.kind]
    return Prose(
        f"{rows['train']:,} training, {rows['valid']:,} validation and {rows['test']:,} test windows of"
        f" {metrics['window_width']:,} bp, {kind} {', '.join(target.names)}; predicted {context}"
        " was chosen on the validation rows; everything below is measured on the test rows, of which"
        f" {shared:,} share 32 bases or more with a training or validation row, and"
        f" {_shared_with_pretraining(metrics)}."
        f"{_calibrated(metrics['calibration'])}"
    )


def _what_is_read(manifest: Manifest) -> str:
    """Return in words what the network reads, by the settings that it was fine-tuned with."""
    given = {"encoders": True, "region_states": True, "summary": True, "modalities": "both", **manifest.settings}
    sequence, motifs = given["modalities"] != "motifs", given["modalities"] != "sequence"
    per_cell_type = manifest.metrics["per_cell_type"]
    read = ["the sequence"] * (sequence and given["encoders"])
    if motifs and given["encoders"] and given["region_states"]:
        columns = (
            "accessible regions nearby in the row's cell type" if per_cell_type else "tiles of the sequence itself"
        )
        read.append(f"a region matrix whose columns are {columns}")
    if given["summary"] and given.get("mode") != "linear-probe":
        read += ["counts of k-mers"] * sequence + ["the evidence of motifs"] * motifs
        read += ["the cell type's use of motifs", "what is accessible nearby"] * (motifs and per_cell_type)
    return listed_in_words(read)


def listed_in_words(words: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join([part for part in (", ".join(words[:-1]), *words[-1:]) if part])


def _shared_with_pretraining(metrics: Mapping[str, Any]) -> str:
    """Return in words how many test rows share bases with what the model was pre-trained on."""
    shared = metrics.get("test_rows_sharing_32_bases_with_pretraining")
    if shared is None:
        return "it was not checked how many do with a region that the model was pre-trained on"
    return f"{shared:,} with a region that the model was pre-trained on"


def _calibrated(calibration: Mapping[str, Any] | None) -> str:
    """Return in words what was done to probabilities; nothing for numbers."""
    if not calibration:
        return ""
    offsets = ", ".join(f"{offset:+.2f} ({name})" for name, offset in calibration["offsets"].items())
    added = f", and offsets added to the log-probabilities of classes, which training weighed: {offsets}. Both were"
    chosen = added if offsets else ", which was"
    return (
        f" Log-odds are divided by a temperature of {calibration['temperature']:.2f}{chosen}"
        f" chosen on the validation rows; that takes the calibration error of the test rows from"
        f" {calibration['error_before']:.3f} to {calibration['error_after']:.3f}."
        + "".join(f" But {line}." for line in calibration["at_bounds"])
    )


def _of(results: Sequence[Mapping[str, Any]], metric: str, method: str) -> Estimate:
    return next(estimate(row) for row in results if row["metric"] == metric and row["method"] == method)


def chance_levels(label: NDArray[np.int64]) -> dict[str, float]:
    """Return what a method that knows nothing but the share of each class would reach, by metric."""
    share = np.bincount(label) / len(label)
    return {"AUROC": 0.5, "AUPRC": float(share[-1]), "accuracy": float(share.max()), "MCC": 0.0}


def _method_verdict(
    results: Sequence[Mapping[str, Any]],
    metric: str,
    methods: Sequence[str],
    chance: Mapping[str, float],
    members: Sequence[str],
) -> Verdict:
    others = {name: _of(results, metric, name) for name in methods[1:]}
    if metric in chance:
        others["chance"] = Estimate(chance[metric], chance[metric], chance[metric])
    own = f"the {methods[0]} model" if NETWORK in members else methods[0]
    return verdict(metric, own, _of(results, metric, methods[0]), others)


def _method_dots(
    metrics: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    chance: Mapping[str, float],
) -> Figure:
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
            "Dots, mean over seeds; bars, 95% bootstrap interval over the regions of the"
            f" n = {metrics['rows']['test']:,} test rows. Seeds: {seeds}."
            " Dashed: chance, which for accuracy is the share of the largest"
            " class, and for AUPRC that of the last one."
            f"{''.join(said for name, said in _EXPLAINED.items() if name in methods)}"
        ),
        columns=2,
    )


def _binary_figures(
    predictions: pd.DataFrame, label: NDArray[np.int64], methods: Sequence[str], metrics: Mapping[str, Any]
) -> list[Figure]:
    positive = metrics["target"]["names"][1]
    scores: Scores = {name: predictions[f"{name}: {positive}"].to_numpy(np.float64) for name in methods}
    calibrated = {CALIBRATED: predictions[f"{CALIBRATED}: {positive}"].to_numpy(np.float64)}
    colours = figures.colours_of(methods)
    panels = [
        figures.roc_curves(label, scores, colours),
        figures.precision_recall_curves(label, scores, colours),
        figures.reliability_curves(label, {**scores, **calibrated}, colours),
    ]
    said = [
        "Receiver operating characteristic, and its area.",
        "Precision against recall, and average precision; dashed, the share of the positive class.",
        "Reliability in ten bins of equally many rows, with 95% Wilson intervals; dashed, perfect calibration; "
        "black squares, what the predictor says, calibrated.",
    ]
    caption = (
        f"Positive class: {positive}; n = {len(label):,} test rows, {label.sum():,} positive. Probabilities"
        " are averaged over seeds, so that with several seeds the areas can differ from the means in the"
        " table."
    )
    found = [Figure("Ranking and calibration.", panels, said, caption, columns=3)]
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
            [figures.by_cell_type(by_cell_type, figures.colours_of(list(by_cell_type)))],
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


def _reliability(target: Target, predictions: pd.DataFrame, truth: NDArray[Any], metrics: Mapping[str, Any]) -> Figure:
    """Draw how far the predictor's probabilities come true; of several classes, that of the predicted one."""
    columns = [f"{CALIBRATED}: {name}" for name in target.names]
    label, score = events(target, truth, predictions[columns].to_numpy(np.float64), metrics["threshold"])
    which = (
        "of the class that the predictor decides for" if target.kind == "classes" else "of all labels that are known"
    )
    return Figure(
        "Calibration.",
        [figures.reliability_curves(label, {CALIBRATED: score}, figures.colours_of([CALIBRATED]))],
        caption=f"Probability {which} against how often it came true, in ten bins of equally many; bars, 95% Wilson"
        " intervals; dashed, perfect calibration.",
    )


def _scatters(predictions: pd.DataFrame, true: NDArray[np.float64], methods: Sequence[str]) -> Figure:
    panels = [figures.scatter(name, true, predictions[f"{name}: value"].to_numpy(np.float64)) for name in methods]
    caption = f"n = {len(true):,} test rows; dashed, where both are equal. Predictions are averaged over seeds."
    return Figure("Predicted against true numbers.", panels, caption=caption, columns=3)


def _finetuning_curves(manifest: Manifest, target: Target, methods: Sequence[str]) -> Figure:
    table = pd.read_csv(manifest.folder / "curves.tsv", sep="\t")
    colours = figures.colours_of(methods)
    ignorance = {
        "classes": (float(np.log(len(target.names))), f"ignorance, ln {len(target.names)}"),
        "labels": (float(np.log(2)), "ignorance, ln 2"),
        "value": (1.0, "the mean of the training rows"),
    }[target.kind]
    panels = []
    for name in methods:
        runs = [run for _, run in table[table["method"] == name].groupby("seed")]
        if runs:
            panels.append(
                figures.learning_curve(
                    f"Training and validation loss of {name} by step.",
                    name,
                    runs,
                    "prediction",
                    "valid_prediction",
                    colours[name],
                    ignorance,
                    HALF,
                )
            )
    return Figure(
        "Fine-tuning losses.",
        panels,
        caption=(
            f"{TRAINING_LOSS}; dots, loss on all validation rows at the end"
            " of each epoch; both are means over the network's branches, each of which keeps the epoch with its"
            " lowest loss, and of which those that have stopped are in the dots with their last one. One line per"
            " seed. Dashed: the loss of who knows nothing."
        ),
        columns=2,
    )
