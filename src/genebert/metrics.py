"""Measures with confidence intervals (numpy and scikit-learn)."""

from collections.abc import Callable
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
    n = len(arrays[0])
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        rows = generator.integers(0, n, size=n)
        value = measure(*(array[rows] for array in arrays))
        if np.isfinite(value):
            values.append(value)
    point = measure(*arrays)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail]) if values else (point, point)
    return Estimate(float(point), float(low), float(high))


def auroc(label: NDArray[Any], score: NDArray[Any]) -> float:
    """Return the area under the ROC curve of binary labels (NaN if one class is absent)."""
    return float(sklearn_metrics.roc_auc_score(label, score)) if 0 < label.sum() < len(label) else float("nan")


def log_loss(label: NDArray[Any], probability: NDArray[Any], weights: NDArray[Any] | None = None) -> float:
    """Return the mean negative log-likelihood in nats.

    Args:
        label: int64, shape (n,).
        probability: shape (n, classes).
        weights: of the rows, shape (n,); only their ratios matter.
    """
    chosen = probability[np.arange(len(label)), label]
    return float(-np.average(np.log(np.clip(chosen, 1e-12, 1)), weights=weights))
