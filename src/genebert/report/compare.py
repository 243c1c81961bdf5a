"""The numbers behind figures and sentences: verdicts, curves, calibration, intervals per cell type."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from genebert.metrics import Estimate
from genebert.report.content import Standing, Verdict

Numbers = NDArray[np.float64]
Scores = Mapping[str, Numbers]
"""method -> probability of the second class for each test row."""
FEWEST = 5
"""Rows of a class that DeLong's interval needs: of fewer, their variance is hardly known."""
STANDINGS: dict[Standing, str] = {"below": "is below", "level": "overlaps with", "above": "is above"}
"""What is said of a model and a baseline; the first that holds for any baseline is how the model stands."""
PARTS = {"train": "training", "valid": "validation", "test": "test"}


def estimate(row: Mapping[str, Any]) -> Estimate:
    """Return the estimate in a row of a manifest."""
    return Estimate(row["value"], row["low"], row["high"], row["seeds"])


def by_part(evaluation: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Group the measures of pre-training by what they were measured on, in words."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in evaluation:
        found.setdefault(_measured_on(row), []).append(row)
    return found


def _measured_on(row: Mapping[str, Any]) -> str:
    if not row.keys() >= {"regions", "cell_types"}:
        return "held-out examples (an earlier version of genebert did not note which)"
    words = f"{PARTS[row['regions']]} chromosomes, {PARTS[row['cell_types']]} cell types"
    if row["regions"] == "train":
        words += " (seen in training)" if row["cell_types"] == "train" else " (regions seen in training)"
    return words


def verdict(what: str, subject: str, own: Estimate, others: Mapping[str, Estimate]) -> Verdict:
    """Say in a sentence which baselines a model beats, and which beat it.

    Two differ where their intervals do not overlap.

    Args:
        what: the measure, such as "NGSP, AUROC".
        subject: the model's name.
        own: its estimate; larger is better.
        others: baseline -> estimate.
    """
    standings = {name: _standing(own, other) for name, other in others.items()}
    found = [(one, [name for name in others if standings[name] == one]) for one in STANDINGS]
    said = [
        f"{STANDINGS[one]} {' and '.join(f'{name} ({others[name].value:.3f})' for name in names)}"
        for one, names in found
        if names
    ]
    worst: Standing = next((one for one, names in found if names), "level")
    return Verdict(worst, f"{what[:1].upper()}{what[1:]}: {subject} ({own.value:.3f}) {'; '.join(said)}.")


def _standing(own: Estimate, other: Estimate) -> Standing:
    """Return "above" or "below" where the intervals do not overlap."""
    return "above" if own.low > other.high else "below" if own.high < other.low else "level"


class Curve(NamedTuple):
    """Points of a curve and the area that goes with it."""

    x: Numbers
    y: Numbers
    area: float


def roc(label: NDArray[np.int64], score: Numbers) -> Curve:
    """Return false positive rate, true positive rate and AUROC; label: 0 or 1, score: both of shape (n,)."""
    false_positive, true_positive, _ = roc_curve(label, score)
    return Curve(false_positive, true_positive, float(roc_auc_score(label, score)))


def precision_recall(label: NDArray[np.int64], score: Numbers) -> Curve:
    """Return recall, precision and average precision; label: 0 or 1, score: both of shape (n,)."""
    precision, recall, _ = precision_recall_curve(label, score)
    return Curve(recall[::-1], precision[::-1], float(average_precision_score(label, score)))


def auroc_interval(label: NDArray[np.int64], score: Numbers) -> Estimate:
    """Return AUROC with the 95% interval of DeLong, DeLong and Clarke-Pearson, which needs no resampling."""
    positive = label == 1
    ranks = rankdata(score)
    n, m = int(positive.sum()), int((~positive).sum())
    above = (ranks[positive] - rankdata(score[positive])) / m
    below = 1 - (ranks[~positive] - rankdata(score[~positive])) / n
    area = float(above.mean())
    spread = sum(part.var(ddof=1) / len(part) for part in (above, below) if len(part) > 1)
    half = 1.96 * float(np.sqrt(spread))
    return Estimate(area, max(0.0, area - half), min(1.0, area + half))


def auroc_by_cell_type(
    cell_type: NDArray[Any], label: NDArray[np.int64], scores: Scores
) -> dict[str, dict[str, Estimate]]:
    """Return method -> cell type -> AUROC, for the cell types with `FEWEST` rows or more of each class."""
    members = {str(name): cell_type == name for name in np.unique(cell_type)}
    counts = {name: np.bincount(label[rows] == 1, minlength=2) for name, rows in members.items()}
    usable = {name: rows for name, rows in members.items() if counts[name].min() >= FEWEST}
    return {
        method: {name: auroc_interval(label[rows], score[rows]) for name, rows in usable.items()}
        for method, score in scores.items()
    }
