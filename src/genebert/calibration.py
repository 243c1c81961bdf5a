"""Calibration: does a probability of 0.8 come true in 8 of 10 cases? (numpy and scipy only)."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from genebert.target import HALF, Numbers, Target, Threshold

CALIBRATED = "calibrated"
"""Names the predictor's own columns in a table of predictions, after calibration."""
BINS = 10
_LEAST = 1e-12
_RANGE = 0.05, 20.0
"""Temperatures that are searched."""
_MOST_OFFSET = float(np.log(1e4))
_NEAR = 1e-3


@dataclass(frozen=True)
class Calibration:
    """What makes probabilities come true.

    Attributes:
        temperature: by which log-odds are divided.
        offsets: of classes, in nats, added to the log-probabilities after that; 0 for the class with most validation
            rows; empty for none.
    """

    temperature: float = 1.0
    offsets: tuple[float, ...] = ()

    @classmethod
    def fit(cls, target: Target, truth: NDArray[Any], predicted: Numbers, *, weighted: bool = False) -> Self:
        """Return the calibration with the lowest loss; of a number, the one that changes nothing.

        A temperature alone (Guo et al. 2017), or where classes were weighed, which shifts all probabilities of a class
        alike, a temperature and an offset per class (Alexandari et al. 2020).

        Args:
            target: what is predicted.
            truth: of validation rows; see `Target`.
            predicted: their predictions, before calibration.
            weighted: whether classes were weighed in training.
        """
        if target.kind == "value":
            return cls()
        if weighted:
            return cls(*_temperature_and_offsets(truth, _logs(predicted)))
        found = minimize_scalar(
            lambda log: target.loss(truth, cls(float(np.exp(log))).apply(target, predicted)),
            bounds=tuple(np.log(_RANGE)),
            method="bounded",
        )
        return cls(float(np.exp(found.x)))

    def apply(self, target: Target, predicted: Numbers) -> Numbers:
        """Return calibrated predictions; without offsets, which class or label is likeliest stays the same."""
        if target.kind == "value" or self == UNCALIBRATED:
            return predicted
        logs = _logs(predicted) / self.temperature
        if target.kind == "classes":
            return target.from_logits(logs + np.array(self.offsets or 0.0))
        return target.from_logits(logs - _logs(1 - predicted) / self.temperature)

    def threshold(self, target: Target) -> Threshold:
        """Return the threshold that leaves decisions as they were before calibration.

        It is what a row gets that was undecided: of two classes, the probability of the second, of several, that of
        each; 0.5 without offsets.
        """
        if not self.offsets:
            return HALF
        undecided = self.apply(target, np.full((1, len(target.names)), 1 / len(target.names)))[0].tolist()
        return undecided[1] if target.is_binary else tuple(undecided)

    def at_bounds(self, target: Target) -> list[str]:
        """Return in words what ended at a bound of its search, and what that means; nothing if all is well."""
        lowest, highest = (abs(np.log(self.temperature / bound)) < _NEAR for bound in _RANGE)
        found = []
        if lowest:
            found.append(
                f"the temperature is {_RANGE[0]}, the lowest that is tried: predictions are right on (almost) every"
                " validation row, which does not tell how sure they may be; do not take probabilities near 0 and 1 at"
                " their word, or give more validation rows"
            )
        if highest:
            found.append(
                f"the temperature is {_RANGE[1]}, the highest that is tried: on the validation rows, predictions are no"
                " better than chance, and calibrated ones hardly differ from row to row"
            )
        for name, offset in zip(target.names, self.offsets, strict=False):  # there may be no offsets
            if abs(offset) > _MOST_OFFSET - _NEAR:
                found.append(
                    f"the offset of class {name} is {offset:.1f}, the largest that is tried: the validation rows do not"
                    " tell how frequent it is; give some of this class"
                )
        return found


UNCALIBRATED = Calibration()


def _logs(predicted: Numbers) -> Numbers:
    return np.log(np.clip(predicted, _LEAST, 1))


def _temperature_and_offsets(truth: NDArray[np.int64], logs: Numbers) -> tuple[float, tuple[float, ...]]:
    """Return the temperature and the offsets with the lowest loss, which is convex in 1 / temperature and in these.

    Args:
        truth: classes, shape (n,).
        logs: of their probabilities, shape (n, classes).
    """
    actual = np.eye(logs.shape[1])[truth]

    def loss(parameters: Numbers) -> tuple[float, Numbers]:
        found = log_softmax(parameters[0] * logs + parameters[1:], axis=1)
        excess = (np.exp(found) - actual) / len(truth)
        return -(actual * found).sum() / len(truth), np.array([(excess * logs).sum(), *excess.sum(axis=0)])

    bounds = [(1 / _RANGE[1], 1 / _RANGE[0]), *[(-_MOST_OFFSET, _MOST_OFFSET)] * logs.shape[1]]
    bounds[1 + int(np.bincount(truth).argmax())] = 0.0, 0.0  # only differences matter, and a bound is to be one of them
    start = np.array([1.0, *np.zeros(logs.shape[1])])
    options = {"ftol": 1e-12, "gtol": 1e-8, "maxiter": 1000}
    inverse, *offsets = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x.tolist()
    return 1 / inverse, tuple(offsets)


def events(
    target: Target, truth: NDArray[Any], predicted: Numbers, threshold: Threshold = HALF
) -> tuple[NDArray[np.int64], Numbers]:
    """Return what came true (0 or 1) and its probability, both of shape (events,).

    Of two classes, that is the second; of several, the one that is predicted; of labels, each that is known.

    Args:
        target: classes or labels.
        truth: see `Target`.
        predicted: float64, shape (n, names).
        threshold: by which one of several classes is predicted.
    """
    if target.is_binary:
        return truth.astype(np.int64), predicted[:, 1]
    if target.kind == "classes":
        guess = target.guesses(predicted, threshold)
        return (guess == truth).astype(np.int64), predicted[np.arange(len(guess)), guess]
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
    rows = []
    observed = mean_of_ties(score, label)
    for part in np.array_split(np.argsort(score, kind="stable"), min(bins, len(score))):
        fraction = float(observed[part].mean())
        rows.append((score[part].mean(), fraction, *wilson(fraction, len(part)), len(part)))
    return pd.DataFrame(rows, columns=["predicted", "observed", "low", "high", "n"])


def mean_of_ties(score: Numbers, outcome: NDArray[Any]) -> Numbers:
    """Return the mean outcome of the rows with the same score, for each row: bins may part these, in whatever order.

    Args:
        score, outcome: shape (n,).
    """
    place = np.unique(score, return_inverse=True)[1]
    means: Numbers = (np.bincount(place, outcome) / np.bincount(place))[place]
    return means


def wilson(fraction: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95% Wilson interval of a fraction of n."""
    centre = (fraction + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(fraction * (1 - fraction) / n + z**2 / (4 * n**2))
    return max(0.0, min(float(centre - half), fraction)), min(1.0, max(float(centre + half), fraction))


def calibration_error(target: Target, truth: NDArray[Any], predicted: Numbers, threshold: Threshold = HALF) -> float:
    """Return the expected calibration error (Naeini et al. 2015): mean |predicted - observed| over bins by rows.

    Args:
        target, truth, predicted, threshold: see `events`.
    """
    bins = reliability(*events(target, truth, predicted, threshold))
    return float(np.average((bins["predicted"] - bins["observed"]).abs(), weights=bins["n"]))
