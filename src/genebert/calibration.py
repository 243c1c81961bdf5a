"""Calibration: does a probability of 0.8 come true in 8 of 10 cases? (numpy and scipy only)."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from genebert.target import Numbers, Target

CALIBRATED = "calibrated"
"""Names the predictor's own columns in a table of predictions, after calibration."""
BINS = 10
_LEAST = 1e-12
_RANGE = (np.log(0.05), np.log(20.0))


def fit_temperature(target: Target, truth: NDArray[Any], predicted: Numbers) -> float:
    """Return the temperature by which to divide log-odds so that the loss is lowest (Guo et al. 2017); 1 for numbers.

    Args:
        target: what is predicted.
        truth: of validation rows; see `Target`.
        predicted: their predictions, before calibration.
    """
    if target.kind == "value":
        return 1.0
    found = minimize_scalar(
        lambda log: target.loss(truth, apply_temperature(target, predicted, float(np.exp(log)))),
        bounds=_RANGE,
        method="bounded",
    )
    return float(np.exp(found.x))


def apply_temperature(target: Target, predicted: Numbers, temperature: float) -> Numbers:
    """Return predictions with log-odds divided by a temperature; which class or label is likeliest stays the same."""
    if target.kind == "value" or temperature == 1.0:
        return predicted
    logs = np.log(np.clip(predicted, _LEAST, 1)) / temperature
    if target.kind == "classes":
        return target.from_logits(logs)
    return target.from_logits(logs - np.log(np.clip(1 - predicted, _LEAST, 1)) / temperature)


def events(target: Target, truth: NDArray[Any], predicted: Numbers) -> tuple[NDArray[np.int64], Numbers]:
    """Return what came true (0 or 1) and its probability, both of shape (events,).

    Of two classes, that is the second; of several, the one predicted; of labels, each that is known.

    Args:
        target: classes or labels.
        truth: see `Target`.
        predicted: float64, shape (n, names).
    """
    if target.is_binary:
        return truth.astype(np.int64), predicted[:, 1]
    if target.kind == "classes":
        return (predicted.argmax(axis=1) == truth).astype(np.int64), predicted.max(axis=1)
    known = np.isfinite(truth)
    return truth[known].astype(np.int64), predicted[known]


def reliability(label: NDArray[np.int64], score: Numbers, bins: int = BINS) -> pd.DataFrame:
    """Compare probabilities with what happened, in bins that hold equally many rows.

    Args:
        label: 0 or 1, shape (n,).
        score: probability of 1, shape (n,).
        bins: number of bins.

    Returns:
        DataFrame with predicted (mean probability), observed (fraction of 1), low and high (95% Wilson interval), n.
    """
    order = np.argsort(score, kind="stable")
    rows = []
    for part in np.array_split(order, min(bins, len(order))):
        low, high = wilson(float(label[part].mean()), len(part))
        rows.append((score[part].mean(), label[part].mean(), low, high, len(part)))
    return pd.DataFrame(rows, columns=["predicted", "observed", "low", "high", "n"])


def wilson(fraction: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95% Wilson interval of a fraction of n."""
    centre = (fraction + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(fraction * (1 - fraction) / n + z**2 / (4 * n**2))
    return min(float(centre - half), fraction), max(float(centre + half), fraction)


def calibration_error(target: Target, truth: NDArray[Any], predicted: Numbers) -> float:
    """Return the expected calibration error (Naeini et al. 2015): mean |predicted - observed| over bins by rows."""
    bins = reliability(*events(target, truth, predicted))
    return float(np.average((bins["predicted"] - bins["observed"]).abs(), weights=bins["n"]))
