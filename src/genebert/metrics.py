"""Measures with confidence intervals (numpy and scikit-learn)."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A measure, its 95% percentile bootstrap interval over examples, and the number of seeds averaged."""

    value: float
    low: float
    high: float
    seeds: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(measure: Callable[..., float], *arrays: NDArray[Any], seed: int = 0) -> Estimate:
    """Estimate a measure of arrays that share their first axis (the examples).

    Resamples on which the measure is not defined (one class only) are left out.

    Args:
        measure: function of the arrays.
        arrays: of equal length n.
        seed: of the resampling.
    """
    return bootstrap_mean(measure, [arrays], seed=seed)


def bootstrap_mean(measure: Callable[..., float], runs: Sequence[Sequence[NDArray[Any]]], *, seed: int = 0) -> Estimate:
    """Estimate the mean of a measure over runs (seeds) on the same examples; all runs share each resample.

    Args:
        measure: function of the arrays of one run.
        runs: for each run its arrays, all of equal length n.
        seed: of the resampling.
    """
    n = len(runs[0][0])
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        rows = generator.integers(0, n, size=n)
        value = float(np.mean([measure(*(array[rows] for array in run)) for run in runs]))
        if np.isfinite(value):
            values.append(value)
    point = float(np.mean([measure(*run) for run in runs]))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail]) if values else (point, point)
    return Estimate(point, float(low), float(high), len(runs))


def mean_accuracy(correct: NDArray[Any], counted: NDArray[Any]) -> float:
    """Return correct over counted; both of shape (n,), per example."""
    total = counted.sum()
    return float(correct.sum() / total) if total else float("nan")


def auroc(label: NDArray[Any], score: NDArray[Any]) -> float:
    """Return the area under the ROC curve of binary labels (NaN if one class is absent)."""
    return float(sklearn_metrics.roc_auc_score(label, score)) if 0 < label.sum() < len(label) else float("nan")


def auprc(label: NDArray[Any], score: NDArray[Any]) -> float:
    """Return the average precision of binary labels (NaN if one class is absent)."""
    return (
        float(sklearn_metrics.average_precision_score(label, score)) if 0 < label.sum() < len(label) else float("nan")
    )


def accuracy(label: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Return the fraction of classes predicted correctly."""
    return float((label == predicted).mean())


def mcc(label: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Return Matthews' correlation coefficient of classes (0 where it is not defined)."""
    classes = np.union1d(label, predicted)
    table = np.zeros((len(classes), len(classes)))
    np.add.at(table, (np.searchsorted(classes, label), np.searchsorted(classes, predicted)), 1)
    actual, guessed, right, total = table.sum(1), table.sum(0), np.trace(table), table.sum()
    scale = np.sqrt((total**2 - (guessed**2).sum()) * (total**2 - (actual**2).sum()))
    return float((right * total - (actual * guessed).sum()) / scale) if scale > 0 else 0.0


def log_loss(label: NDArray[Any], probability: NDArray[Any], weights: NDArray[Any] | None = None) -> float:
    """Return the mean negative log-likelihood in nats.

    Args:
        label: int64, shape (n,).
        probability: shape (n, classes).
        weights: of the rows, shape (n,); only their ratios matter.
    """
    chosen = probability[np.arange(len(label)), label]
    return float(-np.average(np.log(np.clip(chosen, 1e-12, 1)), weights=weights))
