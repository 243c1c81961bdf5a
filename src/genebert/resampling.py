"""Measures of rows with intervals from resampled regions (numpy only).

Rows of one region (in several cell types, say) are not independent. Regions are therefore drawn with replacement,
each with all of its rows: a cluster bootstrap. A measure takes weights, shape (resamples, n), which say how often
each row is drawn, and returns its value in each resample. So all resamples are computed at once, and all methods
share them. The first row of the weights is the rows as they are.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from genebert.metrics import LEVEL, RESAMPLES, Estimate

Numbers = NDArray[np.float64]
_WEIGHTS_AT_ONCE = 1 << 23


def region_weights(region: NDArray[np.int64], seed: int = 0) -> Numbers:
    """Return how often each row is drawn: float64, shape (1 + 1,000, n); first once each, then in resamples.

    Args:
        region: the region that each row belongs to, int64, shape (n,).
        seed: of the resampling.
    """
    return np.concatenate(list(weight_blocks(region, seed)))


def weight_blocks(region: NDArray[np.int64], seed: int = 0) -> Iterator[Numbers]:
    """Yield the rows of `region_weights` block by block, as many at once as need not much memory."""
    _, member = np.unique(region, return_inverse=True)
    count = int(member.max()) + 1
    generator = np.random.default_rng(seed)
    step = max(1, _WEIGHTS_AT_ONCE // len(region))
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


def mean(weights: Numbers, value: NDArray[np.float64] | NDArray[np.bool_]) -> Numbers:
    """Return the mean of a value, such as whether a row is right: shape (resamples,); value: shape (n,)."""
    return ratio(weights, value, np.ones(len(value)))


def ratio(weights: Numbers, part: NDArray[np.float64] | NDArray[np.bool_], whole: Numbers) -> Numbers:
    """Return the sum of one value over that of another, both of shape (n,): shape (resamples,)."""
    return _divided(weights @ part.astype(np.float64), weights @ whole)


def auroc(weights: Numbers, label: NDArray[np.bool_], score: Numbers) -> Numbers:
    """Return the area under the ROC curve of binary labels, ties counting half: shape (resamples,).

    Args:
        weights: see the module.
        label: bool, shape (n,).
        score: larger for True, shape (n,).
    """
    order = np.argsort(score, kind="stable")
    first = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # of the rows of equal score
    sums = [np.add.reduceat(weights[:, order] * part[order], first, axis=1) for part in (label, ~label)]
    positive, negative = sums
    below = np.cumsum(negative, axis=1) - negative / 2
    return _divided((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def auprc(weights: Numbers, label: NDArray[np.bool_], score: Numbers) -> Numbers:
    """Return the average precision of binary labels, as scikit-learn defines it: shape (resamples,).

    Args:
        weights: see the module.
        label: bool, shape (n,).
        score: larger for True, shape (n,).
    """
    order = np.argsort(-score, kind="stable")
    first = np.flatnonzero(np.diff(-score[order], prepend=-np.inf))
    right = np.add.reduceat(weights[:, order] * label[order], first, axis=1)
    chosen = np.cumsum(np.add.reduceat(weights[:, order], first, axis=1), axis=1)
    found = np.cumsum(right, axis=1)
    precision = np.divide(found, chosen, out=np.zeros_like(found), where=chosen != 0)
    return _divided((right * precision).sum(axis=1), right.sum(axis=1))


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


def pearson(weights: Numbers, first: Numbers, second: Numbers) -> Numbers:
    """Return Pearson's correlation of two values, both of shape (n,), 0 where one is constant: shape (resamples,)."""
    return _correlation(weights, np.broadcast_to(first, weights.shape), np.broadcast_to(second, weights.shape))


def spearman(weights: Numbers, first: Numbers, second: Numbers) -> Numbers:
    """Return Spearman's correlation of two values, both of shape (n,), 0 where one is constant: shape (resamples,).

    Ties have their mean rank.
    """
    return _correlation(weights, _ranks(weights, first), _ranks(weights, second))


def _ranks(weights: Numbers, value: Numbers) -> Numbers:
    """Return the rank of each row among the rows that are drawn: shape (resamples, n)."""
    order = np.argsort(value, kind="stable")
    first = np.flatnonzero(np.diff(value[order], prepend=-np.inf))
    times = np.add.reduceat(weights[:, order], first, axis=1)
    rank = np.cumsum(times, axis=1) - (times - 1) / 2
    group = np.empty(len(value), dtype=np.int64)
    group[order] = np.repeat(np.arange(len(first)), np.diff(first, append=len(value)))
    return rank[:, group]


def _correlation(weights: Numbers, first: Numbers, second: Numbers) -> Numbers:
    total = weights.sum(axis=1)
    centred = [values - ((weights * values).sum(axis=1) / total)[:, None] for values in (first, second)]
    products = [(weights * a * b).sum(axis=1) for a, b in (centred, (centred[0],) * 2, (centred[1],) * 2)]
    return np.nan_to_num(_divided(products[0], np.sqrt(products[1] * products[2])))


def macro_f1(weights: Numbers, label: NDArray[np.int64], guess: NDArray[np.int64]) -> Numbers:
    """Return the mean F1 of the classes that occur as label or guess, both of shape (n,): shape (resamples,)."""
    classes = np.union1d(label, guess)
    is_label, is_guess = (values[:, None] == classes for values in (label, guess))
    right = weights @ (is_label & is_guess).astype(np.float64)
    f1 = _divided(2 * right, weights @ (is_label.astype(np.float64) + is_guess))
    occurs = np.isfinite(f1)
    return np.where(occurs, f1, 0).sum(axis=1) / occurs.sum(axis=1)


def _divided(part: Numbers, whole: Numbers) -> Numbers:
    """Divide; what is divided by 0 is NaN."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
