"""Cells become measures with intervals: of methods and ensembles, beside what others report, and in pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genebert.benchmark.cells import PREDICTED, Predictions
from genebert.benchmark.entries import EnsembleEntry
from genebert.benchmark.output import Row
from genebert.benchmark.suite import Published, Suite, TaskEntry
from genebert.errors import Problems
from genebert.labelled import Labelled
from genebert.report.benchmark import ALL_ROWS, OURS
from genebert.resampling import estimated, number, weight_blocks
from genebert.schema import SPLITS
from genebert.shared_words import sharing
from genebert.target import HALF, Target, best_threshold, mean_over_methods

THEIRS, NOT_SHARED = "theirs", "no shared 32-mer"
HEADLINES = {"classes": "MCC", "labels": "AUROC", "value": "Pearson"}
Numbers = NDArray[np.float64]
Measured = dict[str, dict[str, Numbers]]
"""Method -> measure -> its value for the rows as they are and in each resample, shape (1 + resamples, seeds)."""


@dataclass(frozen=True)
class Truth:
    """What the rows are that methods are compared on.

    Attributes:
        valid, test: see `Target`.
        shared: which test rows share 32 bases with a training or validation row, on either strand, bool, shape (n,).
        region: the region that each test row belongs to, int64, shape (n,); see `Windows.regions`.
    """

    valid: NDArray[Any]
    test: NDArray[Any]
    shared: NDArray[np.bool_]
    region: NDArray[np.int64]

    def sets(self, target: Target) -> dict[str, NDArray[np.bool_]]:
        """Return which test rows to measure on: all, and without the shared ones if there are any and the rest will do.

        Returns:
            name -> bool, shape (n,).
        """
        found = {ALL_ROWS: np.ones(len(self.test), dtype=bool)}
        if self.shared.any() and _can_be_measured(target, self.test[~self.shared]):
            found[NOT_SHARED] = ~self.shared
        return found


def _can_be_measured(target: Target, truth: NDArray[Any]) -> bool:
    if target.kind == "classes":
        return len(np.unique(truth)) > 1
    return len(truth) > 1 and all(len(np.unique(column[np.isfinite(column)])) > 1 for column in truth.T)


def facts_of(task: TaskEntry, labelled: Labelled) -> tuple[Row, Truth]:
    """Return what a task consists of, for the record, and what its rows are.

    Raises:
        UserError: the task's threshold or headline measure cannot be used with its target.
    """
    target = labelled.target
    codes = {split: labelled.windows[split].codes for split in SPLITS}
    truth = {split: target.truth(labelled.windows[split].table) for split in SPLITS}
    shared = {split: sharing(codes["test"], codes[split]) for split in ("train", "valid")}
    either = shared["train"] | shared["valid"]
    measures = _names(target, truth["test"])
    _check(task, target, measures)
    facts = {
        "task": task.name,
        "measure": task.measure or HEADLINES[target.kind],
        "measures": measures,
        "threshold": task.threshold,
        "length": codes["test"].shape[1],
        "target": target.to_json(),
        "rows": {split: len(codes[split]) for split in SPLITS},
        "balance": {split: _balance(target, truth[split]) for split in SPLITS},
        "test_rows_that_share_32_bases": {
            "with training": int(shared["train"].sum()),
            "with validation": int(shared["valid"].sum()),
            "with either": int(either.sum()),
        },
    }
    return facts, Truth(truth["valid"], truth["test"], either, labelled.test_regions)


def _names(target: Target, truth: NDArray[Any]) -> list[str]:
    """Return the names of the measures of a target."""
    return list(target.values(np.ones((1, len(truth))), truth, np.zeros((len(truth), len(target.names))), HALF))


def _check(task: TaskEntry, target: Target, measures: Sequence[str]) -> None:
    found = Problems(f"The task {task.name} cannot be measured as the suite says:")
    if task.threshold == "valid" and not target.is_binary:
        found.add("threshold", "`valid` needs two classes", "Leave it out.")
    if task.measure is not None and task.measure not in measures:
        found.add("measure", f"{task.measure!r} is none of these rows", f"Choose one of {', '.join(measures)}.")
    found.raise_any()


def _balance(target: Target, truth: NDArray[Any]) -> dict[str, float]:
    """Return the fraction of rows of each class, or of each label among those where it is known, or mean and spread."""
    if target.kind == "classes":
        return {name: float((truth == i).mean()) for i, name in enumerate(target.names)}
    if target.kind == "labels":
        return dict(zip(target.names, map(float, np.nanmean(truth, axis=0)), strict=True))
    return {"mean": float(truth.mean()), "standard deviation": float(truth.std())}


def average(members: Sequence[Sequence[Predictions]]) -> Predictions:
    """Return the mean of the predictions of several methods, each the mean over its own seeds."""
    return {split: mean_over_methods([[run[split] for run in runs] for runs in members]) for split in PREDICTED}


def with_ensembles(
    runs: Mapping[str, Sequence[Predictions]], ensembles: Sequence[EnsembleEntry]
) -> dict[str, Sequence[Predictions]]:
    """Return the runs of methods, and as one run each those ensembles all of whose members are there."""
    whole = [ensemble for ensemble in ensembles if set(ensemble.of) <= runs.keys()]
    return {**runs, **{one.name: [average([runs[name] for name in one.of])] for one in whole}}


def measured(
    target: Target,
    truth: NDArray[Any],
    region: NDArray[np.int64],
    runs: Mapping[str, Sequence[Numbers]],
    limits: Mapping[str, Sequence[float]],
) -> Measured:
    """Measure methods in the same resamples of the same rows.

    Args:
        target: what is predicted.
        truth: see `Target`.
        region: the region that each row belongs to; the rows of one are drawn together.
        runs: method -> the predictions of each seed.
        limits: method -> the threshold of each seed.
    """
    blocks: dict[str, list[list[dict[str, Numbers]]]] = {name: [] for name in runs}
    for weights in weight_blocks(region):
        for name, own in runs.items():
            pairs = zip(own, limits[name], strict=True)
            blocks[name].append([target.values(weights, truth, run, limit) for run, limit in pairs])
    return {
        name: {
            measure: np.concatenate([np.stack([run[measure] for run in block], axis=1) for block in own])
            for measure in own[0][0]
        }
        for name, own in blocks.items()
    }


def results_of(
    suite: Suite, task: TaskEntry, target: Target, truth: Truth, runs: Mapping[str, Sequence[Predictions]]
) -> tuple[list[Row], list[Row]]:
    """Measure methods and ensembles on a task, and compare them.

    Args:
        suite: the suite.
        task: the task.
        target: what is predicted.
        truth: what the rows are.
        runs: method -> the predictions of each seed.

    Returns:
        results and comparisons, as they are kept.
    """
    every = with_ensembles(runs, suite.ensembles)
    limits = {
        name: [best_threshold(truth.valid, run["valid"][:, 1]) if task.threshold == "valid" else HALF for run in own]
        for name, own in every.items()
    }
    members = {one.name: f"mean of {', '.join(one.of)}" for one in suite.ensembles}
    results, comparisons = [], []
    for which, chosen in truth.sets(target).items():
        predicted = {name: [run["test"][chosen] for run in own] for name, own in every.items()}
        found = measured(target, truth.test[chosen], truth.region[chosen], predicted, limits)
        keys = {"task": task.name, "rows": which, "n": int(chosen.sum())}
        for name, values in found.items():
            results += _results({**keys, "method": name, "setting": members.get(name)}, values)
        pairs = [pair for pair in suite.compare if set(pair) <= found.keys()]
        comparisons += [row for pair in pairs for row in _differences(keys, pair, found)]
    return results, comparisons


def _results(keys: Row, found: Mapping[str, Numbers]) -> list[Row]:
    return [
        {
            **keys,
            "measure": measure,
            **estimated(values.mean(axis=1)),
            "seeds": values.shape[1],
            "lowest_seed": number(values[0].min()),
            "highest_seed": number(values[0].max()),
            "source": OURS,
        }
        for measure, values in found.items()
    ]


def _differences(keys: Row, pair: tuple[str, str], found: Measured) -> list[Row]:
    first, second = (found[name] for name in pair)
    return [
        {
            **keys,
            "first": pair[0],
            "second": pair[1],
            "measure": measure,
            **estimated(first[measure].mean(axis=1) - second[measure].mean(axis=1)),
        }
        for measure in first
    ]


def published_results(published: Sequence[Published], task: TaskEntry, measures: Sequence[str]) -> list[Row]:
    """Return what others report for a task, in the form of our results; measures are named as ours where we have them.

    Args:
        published: what others report.
        task: the task.
        measures: names of our measures.
    """
    ours = {name.lower(): name for name in measures}
    return [
        {
            "task": task.name,
            "rows": ALL_ROWS,
            "method": one.model,
            "measure": ours.get(one.metric.lower(), one.metric),
            "value": one.value,
            "source": THEIRS,
            "citation": one.source,
            "setting": one.setting,
            "parameters": one.parameters,
        }
        for one in published
        if one.task == task.name
    ]
