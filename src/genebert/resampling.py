"""Measures of rows with intervals from resampled regions (numpy only).

Rows of one region (in several cell types, say) are not independent. Regions are therefore drawn with replacement,
each with all of its rows: a cluster bootstrap. A measure takes weights, shape (resamples, n), which say how often
each row is drawn, and returns its value in each resample. So all resamples are computed at once, and all methods
share them. The first row of the weights is the rows as they are. Weights are counts, and may be int32 too.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genebert.metrics import LEVEL, RESAMPLES, Estimate

Numbers = NDArray[np.float64]
Weights = NDArray[np.float64] | NDArray[np.int32]
_WEIGHTS_AT_ONCE = 1 << 23
_ROUNDING = 1e-12
"""A variance below this part of the mean square is 0 but for rounding."""
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


def region_weights(region: NDArray[np.int64], seed: int = 0) -> Numbers:
    """Return how often each row is drawn: float64, shape (1 + 1,000, n); first once each, then in resamples.

    Args:
        region: the region that each row belongs to, int64, shape (n,).
        seed: of the resampling.
    """
    return np.concatenate(list(weight_blocks(region, seed)))


def weight_blocks(region: NDArray[np.int64], seed: int = 0, *, at_once: int = _WEIGHTS_AT_ONCE) -> Iterator[Numbers]:
    """Yield the rows of `region_weights` block by block: as many as hold `at_once` weights, 64 MiB by default."""
    _, member = np.unique(region, return_inverse=True)
    count = int(member.max()) + 1
    generator = np.random.default_rng(seed)
    step = max(1, at_once // len(region))
    yield np.ones((1, len(region)))
    for first in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - first)
        yield generator.multinomial(count, np.full(count, 1 / count), size=size)[:, member].astype(np.float64)


def estimate(values: Numbers) -> Estimate:
    """Return a measure with its 95% percentile interval.

    Args:
        values: the measure of the rows as they are, then of each resample, shape (1 + resamples,); resamples in which
            it is not defined (NaN) are left out.
    """
    known = values[1:][np.isfinite(values[1:])]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(known, [tail, 100 - tail]) if len(known) else (values[0], values[0])
    return Estimate(float(values[0]), float(low), float(high))


def estimated(values: Numbers) -> dict[str, float | None]:
    """Return what `estimate` does as JSON has it, seeds apart."""
    found = asdict(estimate(values))
    return {name: number(found[name]) for name in ("value", "low", "high")}


def number(value: float) -> float | None:
    """Return a number as JSON has it: none where it is not defined."""
    return float(value) if np.isfinite(value) else None


def mean(weights: Numbers, value: NDArray[np.float64] | NDArray[np.bool_]) -> Numbers:
    """Return the mean of a value, such as whether a row is right: shape (resamples,); value: shape (n,)."""
    return ratio(weights, value, np.ones(len(value)))


def ratio(weights: Numbers, part: NDArray[np.float64] | NDArray[np.bool_], whole: Numbers) -> Numbers:
    """Return the sum of one value over that of another, both of shape (n,): shape (resamples,)."""
    return _divided(weights @ part.astype(np.float64), weights @ whole)


def auroc(weights: Weights, label: NDArray[np.bool_], score: Numbers) -> Numbers:
    """Return the area under the ROC curve of binary labels, ties counting half: shape (resamples,).

    Args:
        weights: see the module.
        label: bool, shape (n,).
        score: larger for True, shape (n,).
    """
    positive, negative = _ascending(score, label), _ascending(score, ~label)
    drawn, before = _taken(weights, positive), _running(weights, negative)
    low, high = (np.searchsorted(score[negative], score[positive], side) for side in _SIDES)
    below = (_taken(before, low) + _taken(before, high)) / 2
    return _divided(np.einsum("ij,ij->i", drawn, below), drawn.sum(axis=1) * before[:, -1])


def auprc(weights: Weights, label: NDArray[np.bool_], score: Numbers) -> Numbers:
    """Return the average precision of binary labels, as scikit-learn defines it: shape (resamples,).

    Args:
        weights: see the module.
        label: bool, shape (n,).
        score: larger for True, shape (n,).
    """
    positive, negative = _ascending(-score, label), _ascending(-score, ~label)
    drawn = _taken(weights, positive)
    right, wrong = (
        _taken(_running(weights, order), np.searchsorted(-score[order], -score[positive], "right"))
        for order in (positive, negative)
    )
    precision = np.divide(right, right + wrong, out=np.zeros(right.shape), where=right + wrong != 0)
    return _divided(np.einsum("ij,ij->i", drawn, precision), drawn.sum(axis=1))


def mcc(weights: Numbers, label: NDArray[np.int64], guess: NDArray[np.int64]) -> Numbers:
    """Return Matthews' correlation coefficient of classes, 0 where it is not defined: shape (resamples,).

    Args:
        weights: see the module.
        label, guess: classes, shape (n,).
    """
    classes = np.union1d(label, guess)
    is_label, is_guess = (values[:, None] == classes for values in (label, guess))
    right, total = weights @ (label == guess).astype(np.float64), weights.sum(axis=1)
    actual, guessed = weights @ is_label.astype(np.float64), weights @ is_guess.astype(np.float64)
    squares = [total**2 - (counts**2).sum(axis=1) for counts in (actual, guessed)]
    scale = np.sqrt(squares[0] * squares[1])
    return np.nan_to_num(_divided(right * total - (actual * guessed).sum(axis=1), scale))


def pearson(weights: Weights, truth: Numbers, predicted: Numbers) -> Numbers:
    """Return Pearson's correlation of truth and predictions, both of shape (n,): shape (resamples,).

    It is 0 where predictions are constant, and not defined (NaN) where the truth is, or where nothing is drawn.
    """
    a, b = (values - values.mean() for values in (truth, predicted))  # so that squares are no larger than they need be
    total = weights.sum(axis=1)
    sums = _divided(weights @ np.stack([a, b, a * a, b * b, a * b], axis=1), total[:, None])
    mean_a, mean_b, square_a, square_b, product = sums.T
    variances = [square - mean**2 for square, mean in ((square_a, mean_a), (square_b, mean_b))]
    varies, guesses = (
        variance > _ROUNDING * square for variance, square in zip(variances, (square_a, square_b), strict=True)
    )
    scale = np.sqrt(np.where(varies & guesses, variances[0] * variances[1], 1))
    return np.where(varies, np.where(guesses, (product - mean_a * mean_b) / scale, 0), np.nan)


def spearman(weights: Weights, truth: Numbers, predicted: Numbers) -> Numbers:
    """Return Spearman's correlation of truth and predictions, both of shape (n,): shape (resamples,).

    Ties have their mean rank. Where it is 0 or not defined: see `pearson`.
    """
    a, b = _ranks(weights, truth), _ranks(weights, predicted)
    weighted_a, weighted_b = weights * a, weights * b
    product, square_a, square_b = (
        np.einsum("ij,ij->i", *pair) for pair in ((weighted_a, b), (weighted_a, a), (weighted_b, b))
    )
    return np.where(square_a > 0, np.nan_to_num(_divided(product, np.sqrt(square_a * square_b))), np.nan)


def _ranks(weights: Weights, value: Numbers) -> Numbers:
    """Return the rank of each row among the rows that are drawn, less the mean of the ranks: shape (resamples, n)."""
    order = np.argsort(value, kind="stable")
    before = _running(weights, order)
    low, high = (np.searchsorted(value[order], value, side) for side in _SIDES)
    return (_taken(before, low) + _taken(before, high) - before[:, -1:]) / 2


def macro_f1(weights: Numbers, label: NDArray[np.int64], guess: NDArray[np.int64]) -> Numbers:
    """Return the mean F1 of the classes that occur as label or guess, both of shape (n,): shape (resamples,)."""
    classes = np.union1d(label, guess)
    is_label, is_guess = (values[:, None] == classes for values in (label, guess))
    right = weights @ (is_label & is_guess).astype(np.float64)
    f1 = _divided(2 * right, weights @ (is_label.astype(np.float64) + is_guess))
    occurs = np.isfinite(f1)
    return np.where(occurs, f1, 0).sum(axis=1) / occurs.sum(axis=1)


def _ascending(score: Numbers, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the rows that are chosen, by score."""
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(score[rows], kind="stable")]


def _running(weights: Weights, order: NDArray[np.int64]) -> Weights:
    """Return the sums of the weights of the first 0, 1, ... k rows of an order: shape (resamples, k + 1)."""
    sums = np.zeros((len(weights), len(order) + 1), dtype=weights.dtype)
    np.cumsum(_taken(weights, order), axis=1, dtype=weights.dtype, out=sums[:, 1:])
    return sums


def _taken(values: Weights, columns: NDArray[np.int64]) -> Weights:
    """Return some columns; indexing would lay them out by columns, and what follows would be slow."""
    return values.take(columns, axis=1)


def _divided(part: Numbers, whole: NDArray[Any]) -> Numbers:
    """Divide; what is divided by 0 is NaN."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
