from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr
from sklearn import metrics
from sklearn.metrics import matthews_corrcoef as mcc
from toy_suites import sequences, write_rows
from toys import consensus_motif, random_bases, reverse_complement

from genebert.benchmark.cells import read_task
from genebert.benchmark.entries import EnsembleEntry, MethodEntry
from genebert.benchmark.results import (
    NOT_SHARED,
    Truth,
    average,
    facts_of,
    measured,
    published_results,
    results_of,
)
from genebert.benchmark.suite import Published, Suite, TaskEntry
from genebert.errors import UserError
from genebert.inputs.scan import Scanner
from genebert.labelled import Labelled
from genebert.report.benchmark import ALL_ROWS
from genebert.schema import decode
from genebert.target import Target, best_threshold
from genebert.tasks.windows import Windows

BINARY = Target("classes", ("no", "yes"))
SCANNER = Scanner([consensus_motif("GATA", "GATAAG")])
Numbers = NDArray[np.float64]


def binary(score: Numbers) -> Numbers:
    return np.stack([1 - score, score], axis=1)


def test_thresholds_are_as_good_as_any() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        truth = np.append(generator.integers(0, 2, 30), [0, 1])
        score = np.round(np.clip(generator.normal(0.3 + 0.2 * truth, 0.2), 0, 1), 1)
        every = [mcc(truth, (score >= limit).astype(int)) for limit in np.linspace(-0.05, 1.05, 23)]
        found = best_threshold(truth, score)
        assert mcc(truth, (score >= found).astype(int)) == pytest.approx(max(every))
        assert found not in score  # it lies between two of them, so that rounding changes nothing
    assert best_threshold(np.array([0, 1]), np.zeros(2)) == 0  # nothing tells them apart


def test_members_of_an_ensemble_count_the_same_whatever_their_seeds() -> None:
    a, b, c = (np.array([[0.0, value]]) for value in (0.2, 0.4, 0.9))
    one = [{"valid": a, "test": a}, {"valid": b, "test": b}]
    other = [{"valid": c, "test": c}]
    assert average([one, other])["test"] == pytest.approx(np.array([[0, 0.6]]))


def suite_of(*methods: str, **changes: Any) -> Suite:
    task = TaskEntry.model_construct(name="task", measure=None, threshold="half", methods=None, options={})
    entries = [MethodEntry.model_construct(name=name, method=name, options={}, seeds=None) for name in methods]
    values: dict[str, Any] = {"methods": entries, "tasks": [task], "ensembles": [], "compare": []}
    return Suite.model_construct(**(values | changes))


def results(
    target: Target, truth: Truth, runs: dict[str, list[Any]], **changes: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results and comparisons; runs: predictions of the test rows, which are those of validation too."""
    task = changes.pop("task", {})
    suite = suite_of(*runs, **changes)
    entry = suite.tasks[0].model_copy(update=task)
    both = {name: [{"valid": one, "test": one} for one in own] for name, own in runs.items()}
    return tuple(pd.DataFrame(rows) for rows in results_of(suite, entry, target, truth, both))  # type: ignore[return-value]


def value(table: pd.DataFrame, **keys: Any) -> Any:
    for name, one in keys.items():
        table = table[table[name] == one]
    assert len(table) == 1
    return table.iloc[0]


@pytest.fixture
def toy() -> tuple[Truth, dict[str, list[Numbers]]]:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 2, 120)
    runs = {
        name: [binary(1 / (1 + np.exp(-generator.normal(gap * (truth - 0.5), 1)))) for _ in range(seeds)]
        for name, gap, seeds in (("good", 3, 3), ("bad", 0.5, 1))
    }
    return Truth(truth, truth, generator.random(120) < 0.2, np.arange(120)), runs


def test_measures_are_those_of_scikit_learn_averaged_over_seeds(toy: tuple[Truth, dict[str, list[Numbers]]]) -> None:
    truth, runs = toy
    found, _ = results(BINARY, truth, runs)
    assert set(found["rows"]) == {ALL_ROWS, NOT_SHARED} and set(found["source"]) == {"ours"}
    for which, chosen in ((ALL_ROWS, np.full(120, True)), (NOT_SHARED, ~truth.shared)):
        auroc = [metrics.roc_auc_score(truth.test[chosen], run[chosen, 1]) for run in runs["good"]]
        row = value(found, method="good", measure="AUROC", rows=which)
        assert row[["value", "lowest_seed", "highest_seed"]].tolist() == pytest.approx(
            [np.mean(auroc), min(auroc), max(auroc)]
        )
        assert row["low"] < row["value"] < row["high"] and (row["seeds"], row["n"]) == (3, chosen.sum())
        guess = runs["bad"][0][chosen, 1] >= 0.5
        row = value(found, method="bad", measure="MCC", rows=which)
        assert row["value"] == pytest.approx(metrics.matthews_corrcoef(truth.test[chosen], guess))


def test_differences_are_of_the_same_resamples(toy: tuple[Truth, dict[str, list[Numbers]]]) -> None:
    truth, runs = toy
    runs["copy"] = runs["bad"]
    found, pairs = results(BINARY, truth, runs, compare=[("good", "bad"), ("bad", "copy"), ("good", "absent")])
    assert set(zip(pairs["first"], pairs["second"], strict=True)) == {("good", "bad"), ("bad", "copy")}
    row = value(pairs, first="good", measure="AUROC", rows=ALL_ROWS)
    of = {name: value(found, method=name, measure="AUROC", rows=ALL_ROWS) for name in ("good", "bad")}
    assert row["value"] == pytest.approx(of["good"]["value"] - of["bad"]["value"])
    assert 0 < row["low"] < row["value"] < row["high"]
    assert row["high"] - row["low"] < sum(one["high"] - one["low"] for one in of.values())
    assert (pairs.loc[pairs["first"] == "bad", ["value", "low", "high"]] == 0).all(axis=None)


def test_an_ensemble_is_measured_as_the_average_by_hand(toy: tuple[Truth, dict[str, list[Numbers]]]) -> None:
    truth, runs = toy
    ensembles = [EnsembleEntry(name="all", of=["good", "bad"]), EnsembleEntry(name="not run", of=["good", "absent"])]
    found, _ = results(BINARY, truth, runs, ensembles=ensembles)
    assert set(found["method"]) == {"good", "bad", "all"}
    by_hand = (sum(runs["good"]) / 3 + runs["bad"][0]) / 2
    row = value(found, method="all", measure="AUPRC", rows=ALL_ROWS)
    assert row["value"] == pytest.approx(metrics.average_precision_score(truth.test, by_hand[:, 1]))
    assert (row["seeds"], row["setting"]) == (1, "mean of good, bad")


def test_the_threshold_is_that_of_the_validation_rows(toy: tuple[Truth, dict[str, list[Numbers]]]) -> None:
    truth, runs = toy
    low = {"low": [binary(run[:, 1] / 10) for run in runs["good"]]}
    half, _ = results(BINARY, truth, low)
    tuned, _ = results(BINARY, truth, low, task={"threshold": "valid"})
    assert value(half, measure="MCC", rows=ALL_ROWS)["value"] == 0
    best = [max(mcc(truth.test, (run[:, 1] >= limit).astype(int)) for limit in run[:, 1]) for run in runs["good"]]
    assert value(tuned, measure="MCC", rows=ALL_ROWS)["value"] == pytest.approx(np.mean(best))


def test_numbers_and_labels_are_measured_too() -> None:
    generator = np.random.default_rng(2)
    truth = generator.normal(size=(60, 1))
    guess = truth + generator.normal(size=(60, 1))
    none = np.zeros(60, dtype=bool)
    found, _ = results(
        Target("value", ("value",)), Truth(truth, truth, none, np.arange(60)), {"a": [guess], "flat": [0 * guess]}
    )
    assert value(found, method="a", measure="Pearson")["value"] == pytest.approx(pearsonr(truth[:, 0], guess[:, 0])[0])
    assert value(found, method="flat", measure="Pearson")["value"] == 0  # it is not defined
    known = np.where(generator.random((60, 2)) < 0.2, np.nan, (truth > 0).astype(float))
    shared = np.arange(60) < 5
    found, _ = results(
        Target("labels", ("x", "y")),
        Truth(known, known, shared, np.arange(60)),
        {"a": [np.tile(1 / (1 + np.exp(-guess)), 2)]},
    )
    each = [metrics.roc_auc_score(known[rows, i], guess[rows, 0]) for i, rows in enumerate(np.isfinite(known).T)]
    assert value(found, measure="AUROC", rows=ALL_ROWS)["value"] == pytest.approx(np.mean(each))
    assert value(found, measure="AUROC: y", rows=ALL_ROWS)["value"] == pytest.approx(each[1])
    assert value(found, measure="AUROC", rows=NOT_SHARED)["n"] == 55


def test_rows_without_shared_ones_are_left_out_where_they_cannot_be_measured() -> None:
    truth = np.array([0, 0, 1, 1])
    for shared, sets in (([0, 0, 0, 0], 1), ([1, 0, 0, 0], 2), ([1, 1, 0, 0], 1), ([1, 1, 1, 1], 1)):
        assert len(Truth(truth, truth, np.array(shared, dtype=bool), np.arange(len(truth))).sets(BINARY)) == sets


def test_all_methods_share_the_resamples() -> None:
    truth = np.random.default_rng(3).integers(0, 2, 50)
    score = binary(np.random.default_rng(4).random(50))
    found = measured(BINARY, truth, np.arange(50), {"a": [score], "b": [score, score]}, {"a": [0.5], "b": [0.5, 0.5]})
    assert found["b"]["AUROC"].shape == (1001, 2)
    np.testing.assert_array_equal(found["a"]["AUROC"][:, 0], found["b"]["AUROC"][:, 1])


# ------------------------------------------------------------------------------------------------- what a task is


@pytest.fixture
def labelled(tmp_path: Path) -> Labelled:
    """Test rows that share more and less than 32 bases with training and validation rows, on either strand."""
    generator = np.random.default_rng(5)
    rows = {split: [(one, label) for label in (0, 1) for one in sequences(label, 12, generator, 60)] for split in "abc"}
    train, valid = rows["a"], rows["b"]

    def around(stretch: str) -> str:
        return random_bases(60 - len(stretch), generator) + stretch

    shared = [train[0][0][7:39], reverse_complement(train[1][0][:40]), valid[2][0][10:45], train[3][0][20:51]]
    rows["c"] += [(around(one), i % 2) for i, one in enumerate(shared)]
    rows["c"].append((train[4][0][:40] + valid[4][0][:20], 1))
    for name, own in rows.items():
        write_rows(tmp_path / f"{name}.csv", own)
    files = {"labels": "a.csv", "valid": "b.csv", "test": "c.csv"}
    return read_task(TaskEntry.model_validate({"name": "x", **files}, context=tmp_path), SCANNER, 0)


def test_shared_stretches_are_counted_as_by_brute_force(labelled: Labelled) -> None:
    text = {split: [decode(row) for row in one.codes] for split, one in labelled.windows.items()}

    def shares(letters: str, others: list[str]) -> bool:
        both = letters, reverse_complement(letters)
        return any(one[i : i + 32] in other for one in both for i in range(29) for other in others)

    by_hand = {split: [shares(letters, text[split]) for letters in text["test"]] for split in ("train", "valid")}
    assert [sum(by_hand["train"]), sum(by_hand["valid"])] == [3, 1]  # 31 bases are not enough
    entry = TaskEntry.model_construct(name="x", measure=None, threshold="half")
    facts, truth = facts_of(entry, labelled)
    assert facts["test_rows_that_share_32_bases"] == {"with training": 3, "with validation": 1, "with either": 4}
    assert truth.shared.tolist() == np.logical_or(by_hand["train"], by_hand["valid"]).tolist()


def test_facts_of_a_task(labelled: Labelled) -> None:
    facts, truth = facts_of(TaskEntry.model_construct(name="x", measure="AUROC", threshold="half"), labelled)
    assert facts["rows"] == {"train": 24, "valid": 24, "test": 29}
    assert facts["balance"]["test"] == {"0": pytest.approx(14 / 29), "1": pytest.approx(15 / 29)}
    assert (facts["length"], facts["measure"]) == (60, "AUROC")
    assert facts["measures"] == ["AUROC", "AUPRC", "accuracy", "macro-F1", "MCC"]
    np.testing.assert_array_equal(truth.test, labelled.windows["test"].table["label"].astype(int))


def other_target(labelled: Labelled, column: str, values: list[str]) -> Labelled:
    windows = {
        split: Windows(pd.DataFrame({column: values}), one.codes[: len(values)], one.path)
        for split, one in labelled.windows.items()
    }
    return replace(labelled, windows=windows, target=Target.of(windows["train"].table, windows["train"].table))


def test_a_threshold_or_measure_that_does_not_fit_the_target(labelled: Labelled) -> None:
    numbers = other_target(labelled, "value", ["1", "2", "4"])
    facts, _ = facts_of(TaskEntry.model_construct(name="x", measure=None, threshold="half"), numbers)
    assert facts["measure"] == "Pearson"
    assert facts["balance"]["test"] == {
        "mean": pytest.approx(7 / 3),
        "standard deviation": pytest.approx(np.std([1, 2, 4])),
    }
    some = other_target(labelled, "label:K562", ["1", "0", ""])
    facts, _ = facts_of(TaskEntry.model_construct(name="x", measure=None, threshold="half"), some)
    assert (facts["measure"], facts["balance"]["train"]) == ("AUROC", {"K562": 0.5})
    with pytest.raises(UserError) as raised:
        facts_of(TaskEntry.model_construct(name="x", measure="MCC", threshold="valid"), numbers)
    assert "`valid` needs two classes" in str(raised.value)
    assert "'MCC' is none of these rows. Choose one of Pearson, Spearman." in str(raised.value)


def test_published_numbers_are_theirs_under_our_names() -> None:
    rows = [
        Published(task="task", metric="mcc", model="NT", value=0.6, source="S", parameters=1e9),
        Published(task="task", metric="F1", model="NT", value=0.7, source="S"),
        Published(task="other", metric="mcc", model="NT", value=0.8, source="S"),
    ]
    found = published_results(rows, suite_of().tasks[0], ["AUROC", "MCC"])
    assert [(row["measure"], row["value"], row["source"], row["citation"]) for row in found] == [
        ("MCC", 0.6, "theirs", "S"),
        ("F1", 0.7, "theirs", "S"),
    ]
