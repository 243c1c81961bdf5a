"""How good out-of-fold predictions are: measures, differences and calibration with intervals."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.calibration import mean_of_ties, reliability
from genebert.metrics import Estimate
from genebert.resampling import auprc, auroc, estimate, mean, pearson, weight_blocks
from genebert.risk.design import Individuals, Numbers

Measure = Callable[[Numbers, Numbers, Numbers], Numbers]
"""Of weights, shape (resamples, m), values and predictions, shape (m,), the measure in each resample."""
BINS = 10
LOWEST = {"AUROC": 0.0, "AUPRC": 0.0, "Brier": 0.0, "Pearson": -1.0}
"""The least that a measure can be; the most is 1."""


def _brier(weights: Numbers, values: Numbers, predicted: Numbers) -> Numbers:
    return mean(weights, (predicted - values) ** 2)


def _r2(weights: Numbers, values: Numbers, predicted: Numbers) -> Numbers:
    centre = mean(weights, values)
    spread = mean(weights, values**2) - centre**2
    error = mean(weights, (predicted - values) ** 2)
    return 1 - np.divide(error, spread, out=np.full_like(error, np.nan), where=spread > 0)


MEASURES: dict[str, dict[str, Measure]] = {
    "binary": {
        "AUROC": lambda weights, values, predicted: auroc(weights, values == 1, predicted),
        "AUPRC": lambda weights, values, predicted: auprc(weights, values == 1, predicted),
        "Brier": _brier,
    },
    "quantitative": {"Pearson": pearson, "R2": _r2},
}


def resampled(individuals: Individuals, predictions: Mapping[str, Numbers]) -> dict[tuple[str, str], Numbers]:
    """Return each measure of each method, of the individuals as they are and in 1,000 resamples.

    A measure is that within each fold, averaged over folds by their size: between folds, models differ, and their
    intercepts go against the phenotypes of those whom they have not seen, which would put a useless model below chance
    (Airola et al. 2011). Families are drawn as a whole, and all methods share the resamples.

    Args:
        individuals: n of them.
        predictions: method -> out-of-fold predictions, shape (n,).

    Returns:
        (method, measure) -> shape (1 + 1,000,); NaN where it is not defined.
    """
    parts = [individuals.fold == k for k in range(individuals.folds)]
    blocks: dict[tuple[str, str], list[Numbers]] = {}
    for weights in weight_blocks(individuals.group):
        for method, predicted in predictions.items():
            for name, measure in MEASURES[individuals.trait].items():
                each = [measure(weights[:, rows], individuals.phenotype[rows], predicted[rows]) for rows in parts]
                size = np.array([rows.sum() for rows in parts], dtype=np.float64)[:, None]
                defined = np.isfinite(each)
                total = (np.where(defined, each, 0) * size).sum(axis=0)
                whole = (defined * size).sum(axis=0)
                found = np.divide(total, whole, out=np.full(len(total), np.nan), where=whole > 0)
                blocks.setdefault((method, name), []).append(found)
    return {key: np.concatenate(found) for key, found in blocks.items()}


def interval(values: Numbers, folds: int) -> Estimate:
    """Return a measure, or a difference of two, with its 95% interval.

    Resamples of individuals do not tell how much models would differ that are fitted to others, nor that those of
    several folds share most of theirs: on null cohorts, their intervals miss chance too often. For measures averaged
    over K folds of equal size, Nadeau and Bengio (2003) multiply the variance by 1 + K / (K - 1); so the bootstrap's
    interval is widened by the root of that, on both sides.

    Args:
        values: see `resampled`.
        folds: K.
    """
    found, wider = estimate(values), np.sqrt(1 + folds / (folds - 1))
    low, high = (found.value + wider * (end - found.value) for end in (found.low, found.high))
    return Estimate(found.value, float(low), float(high))


def metrics_table(values: Mapping[tuple[str, str], Numbers], individuals: Individuals) -> pd.DataFrame:
    """Return method, measure, value, low, high, n; values: see `resampled`."""
    rows = []
    for (method, measure), value in values.items():
        found = interval(value, individuals.folds)
        low, high = max(found.low, LOWEST.get(measure, -np.inf)), min(found.high, 1.0)
        rows.append((method, measure, found.value, low, high, len(individuals)))
    return pd.DataFrame(rows, columns=["method", "measure", "value", "low", "high", "n"])


def comparisons_table(
    values: Mapping[tuple[str, str], Numbers], methods: Sequence[str], individuals: Individuals
) -> pd.DataFrame:
    """Return method, against, measure, difference (paired), low, high.

    Args:
        values: see `resampled`.
        individuals: whose values they are.
        methods: those to compare, each with every other method.
    """
    names = list(dict.fromkeys(method for method, _ in values))
    rows = []
    for method in methods:
        for against in names:
            for measure in dict.fromkeys(measure for _, measure in values):
                if against != method:
                    found = interval(values[method, measure] - values[against, measure], individuals.folds)
                    rows.append((method, against, measure, found.value, found.low, found.high))
    return pd.DataFrame(rows, columns=["method", "against", "measure", "difference", "low", "high"])


def calibration_table(individuals: Individuals, predictions: Mapping[str, Numbers]) -> pd.DataFrame:
    """Return method, bin, predicted, observed, low, high, n, in ten bins of equally many individuals by prediction.

    Of cases and controls, observed is the share of cases, with its Wilson interval; of a number, its mean, with 1.96
    standard errors.
    """
    tables = []
    for method, predicted in predictions.items():
        if individuals.trait == "binary":
            table = reliability(individuals.phenotype.astype(np.int64), predicted, BINS)
        else:
            table = _mean_by_bin(individuals.phenotype, predicted)
        table.insert(0, "bin", np.arange(1, len(table) + 1))
        table.insert(0, "method", method)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _mean_by_bin(values: Numbers, predicted: Numbers) -> pd.DataFrame:
    rows = []
    parts: list[NDArray[np.int64]] = np.array_split(np.argsort(predicted, kind="stable"), min(BINS, len(values)))
    observed = mean_of_ties(predicted, values)
    for part in parts:
        centre, half = observed[part].mean(), 1.96 * values[part].std() / np.sqrt(len(part))
        rows.append((predicted[part].mean(), centre, centre - half, centre + half, len(part)))
    return pd.DataFrame(rows, columns=["predicted", "observed", "low", "high", "n"])
