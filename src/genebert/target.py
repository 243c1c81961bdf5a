"""What is to be predicted: one of several classes, several labels at once, or a number (numpy only)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.errors import Problems
from genebert.metrics import Estimate, log_loss
from genebert.resampling import auprc, auroc, estimate, macro_f1, mcc, mean, pearson, spearman, weight_blocks
from genebert.schema import Split

Kind = Literal["classes", "labels", "value"]
CLASS, VALUE, LABEL_PREFIX = "label", "value", "label:"
"""Columns of a table: `label` names a class, `value` is a number, and each `label:NAME` is 0, 1 or empty (unknown)."""
HALF = 0.5
_TINY = 1e-15
Numbers = NDArray[np.float64]
Threshold = float | tuple[float, ...]
"""Of two classes, the second is predicted from this probability on. Of several, the class whose probability is the
largest multiple of its threshold is predicted; one number stands for equal ones."""


def second_log_odds(predictions: Numbers) -> Numbers:
    """Return the log-odds of the second of two classes, shape (n,), from the probabilities of both, shape (n, 2)."""
    return np.log(predictions[:, 1]) - np.log(predictions[:, 0])


def mean_over_methods(predictions: Sequence[Sequence[Numbers]]) -> Numbers:
    """Return the mean of the predictions of several methods, each the mean over its own seeds; all of one shape."""
    return np.mean([np.mean(seeds, axis=0) for seeds in predictions], axis=0)


@dataclass(frozen=True)
class Target:
    """What the rows of a table are to be predicted as.

    Predictions are float64, shape (n, len(names)): probabilities of classes, which sum to 1; probabilities of labels,
    each by itself; or the number, in the table's unit. Truth is int64, shape (n,), for classes; float64, shape
    (n, len(names)), for labels, NaN where unknown; float64, shape (n, 1), for a number.

    Attributes:
        kind: "classes" (two or more, of which a row has one), "labels" (a row has any number), "value" (a number).
        names: of classes or labels; of a number, ("value",).
        centre, scale: mean and standard deviation of a number in the training rows, else 0 and 1.
    """

    kind: Kind
    names: tuple[str, ...]
    centre: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, table: pd.DataFrame, train: pd.DataFrame) -> Self:
        """Return the target that the columns of a table tell.

        Args:
            table: all rows, with a column `label` or `value`, or columns `label:NAME`; texts.
            train: the training rows, from which mean and standard deviation of a number are taken.
        """
        if CLASS in table:
            return cls("classes", tuple(class_names(table[CLASS])))
        if VALUE in table:
            numbers = train[VALUE].astype(float)
            return cls("value", (VALUE,), float(numbers.mean()), float(numbers.std(ddof=0)) or 1.0)
        return cls("labels", tuple(label_names(table)))

    @property
    def columns(self) -> list[str]:
        """Columns of a table that tell the truth."""
        if self.kind == "labels":
            return [LABEL_PREFIX + name for name in self.names]
        return [CLASS if self.kind == "classes" else VALUE]

    @property
    def is_binary(self) -> bool:
        """Whether there are two classes, of which the second counts as positive."""
        return self.kind == "classes" and len(self.names) == 2

    def truth(self, table: pd.DataFrame) -> NDArray[Any]:
        """Return what the rows of a table are; see the class for shape and type."""
        if self.kind == "classes":
            index = {name: i for i, name in enumerate(self.names)}
            return table[CLASS].map(index).to_numpy(np.int64)
        return table[self.columns].mask(table[self.columns] == "").to_numpy(np.float64)

    def standardised(self, truth: NDArray[Any]) -> NDArray[Any]:
        """Return truth as networks learn it: a number in standard deviations from its mean, else as it is."""
        return (truth - self.centre) / self.scale if self.kind == "value" else truth

    def from_logits(self, logits: Numbers) -> Numbers:
        """Return predictions of a network's outputs, float64, shape (..., len(names)) both; of infinite ones, NaN."""
        if self.kind == "value":
            return logits * self.scale + self.centre
        if self.kind == "labels":
            return np.exp(-np.logaddexp(0, -logits))
        with np.errstate(invalid="ignore"):  # training that diverges may end in infinite outputs
            shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return shifted / shifted.sum(axis=-1, keepdims=True)

    def loss(self, truth: NDArray[Any], predicted: Numbers, weights: Numbers | None = None) -> float:
        """Return what is to be low on validation rows: nats per row or label, or squared standard deviations.

        Args:
            truth, predicted: see the class.
            weights: of the rows of each class, shape (classes,); by default, they are equal.
        """
        if self.kind == "classes":
            return log_loss(truth, predicted, None if weights is None else weights[truth])
        known = np.isfinite(truth)
        if self.kind == "value":
            return float((((predicted - truth)[known] / self.scale) ** 2).mean())
        chosen = np.where(truth[known] == 1, predicted[known], 1 - predicted[known])
        return float(-np.log(np.clip(chosen, 1e-12, 1)).mean())

    def measures(
        self,
        truth: NDArray[Any],
        runs: Sequence[Numbers],
        thresholds: Sequence[Threshold] | None = None,
        region: NDArray[np.int64] | None = None,
    ) -> dict[str, Estimate]:
        """Return measures with 95% bootstrap intervals, averaged over runs, which share the resamples.

        Two classes: AUROC, AUPRC, accuracy, macro-F1, MCC; several: accuracy, macro-F1, MCC; labels: means of AUROC and
        AUPRC over the labels, then those of each; a number: Pearson's and Spearman's correlation.

        Args:
            truth: see the class.
            runs: the predictions of each run (seed).
            thresholds: of each run, for classes, see `Threshold`; by default 0.5.
            region: rows of one region are drawn together, int64, shape (n,); by default each row by itself.
        """
        limits: Sequence[Threshold] = thresholds or [HALF] * len(runs)
        blocks = [
            [self.values(weights, truth, run, limit) for run, limit in zip(runs, limits, strict=True)]
            for weights in weight_blocks(np.arange(len(truth)) if region is None else region)
        ]
        names = blocks[0][0]
        values = {n: np.concatenate([np.mean([run[n] for run in block], axis=0) for block in blocks]) for n in names}
        return {name: replace(estimate(value), seeds=len(runs)) for name, value in values.items()}

    def values(self, weights: Numbers, truth: NDArray[Any], run: Numbers, limit: Threshold) -> dict[str, Numbers]:
        """Return the measures of one run in each resample."""
        if self.kind == "value":
            numbers = truth[:, 0], run[:, 0]
            return {"Pearson": pearson(weights, *numbers), "Spearman": spearman(weights, *numbers)}
        if self.kind == "labels":
            return self._label_values(weights, truth, run)
        guess = self.guesses(run, limit)
        found = {}
        if self.is_binary:
            positive = truth == 1
            found = {"AUROC": auroc(weights, positive, run[:, 1]), "AUPRC": auprc(weights, positive, run[:, 1])}
        return found | {
            "accuracy": mean(weights, truth == guess),
            "macro-F1": macro_f1(weights, truth, guess),
            "MCC": mcc(weights, truth, guess),
        }

    def _label_values(self, weights: Numbers, truth: NDArray[Any], run: Numbers) -> dict[str, Numbers]:
        found: dict[str, Numbers] = {}
        for name, measure in (("AUROC", auroc), ("AUPRC", auprc)):
            each = {}
            for i, label in enumerate(self.names):
                known = np.isfinite(truth[:, i])
                each[f"{name}: {label}"] = measure(weights[:, known], truth[known, i] == 1, run[known, i])
            stacked = np.array(list(each.values()))
            defined = np.isfinite(stacked)  # a label may have one value only in a resample
            total, count = np.where(defined, stacked, 0).sum(axis=0), defined.sum(axis=0)
            found |= {name: np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0), **each}
        return found

    def guesses(self, run: Numbers, threshold: Threshold = HALF) -> NDArray[np.int64]:
        """Return the predicted classes, int64, shape (n,); see `Threshold`."""
        if self.is_binary:
            return (run[:, 1] >= threshold).astype(np.int64)
        return (run / np.array(threshold)).argmax(axis=1).astype(np.int64)

    def to_json(self) -> dict[str, Any]:
        """Return the target as JSON values."""
        return {"kind": self.kind, "names": list(self.names), "centre": self.centre, "scale": self.scale}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Build a target from what `to_json` returned."""
        return cls(value["kind"], tuple(value["names"]), value["centre"], value["scale"])


def class_names(labels: pd.Series) -> list[str]:
    """Return the classes in order: as numbers if all are numbers, else by name."""
    names = sorted(set(labels))
    try:
        return sorted(names, key=float)
    except ValueError:
        return names


def target_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of a table that say what its rows are labelled."""
    return [name for name in (CLASS, VALUE) if name in table] + [LABEL_PREFIX + name for name in label_names(table)]


def label_names(table: pd.DataFrame) -> list[str]:
    """Return the NAMEs of the columns `label:NAME`, in their order."""
    return [str(name).removeprefix(LABEL_PREFIX) for name in table if str(name).startswith(LABEL_PREFIX)]


def best_threshold(truth: NDArray[np.int64], probability: Numbers) -> float:
    """Return the probability from which on the second class is to be predicted so that MCC is highest.

    Its log-odds lie halfway between those of the lowest probability that is to be predicted so and of the next lower
    one, so that calibration by a temperature moves it along.

    Args:
        truth: 0 or 1, of validation rows, shape (n,).
        probability: of the second class, shape (n,).
    """
    limits, place = np.unique(probability, return_inverse=True)
    guessed, right = (
        np.cumsum(np.bincount(place, counts)[::-1])[::-1] for counts in (None, truth)
    )  # from each limit on
    actual, rows = float(truth.sum()), len(truth)
    scale = np.sqrt(actual * (rows - actual) * guessed * (rows - guessed))
    scores = np.divide(right * rows - guessed * actual, scale, out=np.zeros(len(limits)), where=scale > 0)
    best = int(scores.argmax())
    lower, upper = limits[max(best - 1, 0)], limits[best]
    near = np.clip([lower, upper], _TINY, 1 - _TINY)
    halfway = 1 / (1 + np.exp(-np.log(near / (1 - near)).mean()))
    return float(min(halfway, upper) if halfway > lower else upper)


def check_target(table: pd.DataFrame, found: Problems) -> None:
    """Note what is wrong with the target columns of a table of texts that has a column `line`."""
    kinds = [CLASS in table, VALUE in table, bool(label_names(table))]
    if sum(kinds) != 1:
        which = "no" if not any(kinds) else "more than one"
        remedy = "Name one column `label` (classes) or `value` (numbers), or columns `label:NAME` (0, 1 or empty)."
        found.add("line 1", f"the header tells {which} kind of target", remedy)
        return
    if CLASS in table:
        for line in table.loc[table[CLASS] == "", "line"]:
            found.add(f"line {line}", "label is empty", "Fill it in, or remove the line.")
    if VALUE in table:
        numbers = pd.to_numeric(table[VALUE], errors="coerce")
        for line, text in table.loc[~np.isfinite(numbers), ["line", VALUE]].itertuples(index=False):
            found.add(f"line {line}", f"value is {text!r}", "Give a number, or remove the line.")
    for name in label_names(table):
        column = LABEL_PREFIX + name
        for line, text in table.loc[~table[column].isin(["0", "1", ""]), ["line", column]].itertuples(index=False):
            found.add(f"line {line}", f"{column} is {text!r}", "Give 0, 1, or nothing where it is not known.")


def check_variety(tables: Mapping[Split, pd.DataFrame], target: Target, found: Problems) -> None:
    """Note for which splits a target cannot be learned or measured: all rows are alike, or are what no training row is.

    Args:
        tables: split -> rows with the target's columns, texts; at least one row each.
        target: what is to be predicted.
        found: where to note it.
    """
    for split, table in tables.items():
        if target.kind == "classes":
            _check_classes(split, set(table[CLASS]), set(tables["train"][CLASS]), found)
        elif target.kind == "labels":
            _check_labels(split, target, target.truth(table), found)
        elif table[VALUE].astype(float).nunique() < 2:
            found.add(split, f"all its values are {table[VALUE].iloc[0]}", "Give rows with different values.")


def _check_classes(split: Split, labels: set[str], known: set[str], found: Problems) -> None:
    if len(labels) == 1:
        found.add(
            split, f"all its rows have the label {next(iter(labels))}", "Give at least two classes in each split."
        )
    elif labels - known:
        unknown = ", ".join(sorted(labels - known))
        found.add(split, f"it has labels that no training row has: {unknown}", "Correct them, or add training rows.")


def _check_labels(split: Split, target: Target, truth: NDArray[np.float64], found: Problems) -> None:
    for name, column in zip(target.names, truth.T, strict=True):
        if not ((column == 1).any() and (column == 0).any()):
            found.add(split, f"label:{name} is not both 0 and 1 there", "Leave the column out, or add rows.")
