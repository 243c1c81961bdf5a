import json
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit, softmax
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics as sklearn_metrics

from genebert.errors import Problems, UserError
from genebert.objectives import prediction_loss
from genebert.resampling import estimate, region_weights
from genebert.target import (
    Kind,
    Target,
    best_threshold,
    check_target,
    class_names,
    label_names,
    mean_over_methods,
    second_log_odds,
)

TWO = Target("classes", ("no", "yes"))
THREE = Target("classes", ("a", "b", "c"))
LABELS = Target("labels", ("K562", "A549"))
NUMBER = Target("value", ("value",), 5.0, 2.0)


def table(**columns: list[str]) -> pd.DataFrame:
    """Rows of a table as they are read: texts, and their lines."""
    rows = pd.DataFrame(columns, dtype=object)
    return rows.assign(line=range(2, len(rows) + 2))


def labels_of(*columns: list[str]) -> pd.DataFrame:
    return table(**{f"label:{name}": column for name, column in zip(("K562", "A549"), columns, strict=True)})


# What the columns of a table tell ---------------------------------------------------------------------------


def test_classes_are_in_the_order_of_numbers_or_else_of_names() -> None:
    assert class_names(pd.Series(["10", "9", "-1", "9"])) == ["-1", "9", "10"]
    assert class_names(pd.Series(["10", "9", "x"])) == ["10", "9", "x"]
    rows = table(label=["10", "9", "10"])
    target = Target.of(rows, rows)
    assert (target.kind, target.names, target.columns, target.is_binary) == ("classes", ("9", "10"), ["label"], True)
    assert target.truth(rows).tolist() == [1, 0, 1] and target.truth(rows).dtype == np.int64


def test_labels_keep_the_order_of_their_columns_and_are_nan_where_they_are_not_known() -> None:
    rows = labels_of(["1", "", "0"], ["", "0", "1"])
    target = Target.of(rows, rows)
    assert target == LABELS and not target.is_binary
    assert target.columns == ["label:K562", "label:A549"] and label_names(rows) == ["K562", "A549"]
    np.testing.assert_array_equal(target.truth(rows), [[1, np.nan], [np.nan, 0], [0, 1]])
    with warnings.catch_warnings(action="error"):  # pandas once warned of columns that turn into another type
        assert np.isnan(target.truth(labels_of(["", ""], ["", ""]))).all()


def test_mean_and_deviation_of_a_number_are_those_of_the_training_rows() -> None:
    """Those of all rows would tell about the rows that are held out."""
    rows = table(value=["1", "3", "5", "1e6"])
    target = Target.of(rows, rows[:3])
    assert (target.kind, target.names, target.columns) == ("value", ("value",), ["value"])
    assert (target.centre, target.scale) == pytest.approx((3, np.sqrt(8 / 3)))
    assert target.truth(rows).tolist() == [[1], [3], [5], [1e6]]
    assert target.standardised(np.array([[1.0], [3.0], [5.0]])).std() == pytest.approx(1)
    constant = table(value=["7", "7"])
    assert Target.of(constant, constant).scale == 1


@pytest.mark.parametrize("target", [TWO, THREE, LABELS, NUMBER])
def test_a_target_survives_json(target: Target) -> None:
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target


WRONG: dict[str, tuple[pd.DataFrame, tuple[str, ...]]] = {
    "none": (table(strand=["+"]), ("line 1", "tells no kind of target", "Name one column `label`")),
    "two": (table(label=["1"], value=["2"]), ("line 1", "tells more than one kind of target")),
    "empty class": (table(label=["a", ""]), ("line 3", "label is empty")),
    "no number": (table(value=["1", "x", "nan", "inf"]), ("line 3", "value is 'x'", "line 4", "'nan'", "line 5")),
    "no answer": (
        labels_of(["1", "2"], ["yes", "0"]),
        ("line 3", "label:K562 is '2'", "line 2", "label:A549 is 'yes'", "Give 0, 1, or nothing"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_columns_that_tell_no_target_are_named(case: str) -> None:
    rows, fragments = WRONG[case]
    found = Problems("The table cannot be used:")
    check_target(rows, found)
    with pytest.raises(UserError) as error:
        found.raise_any()
    assert [fragment for fragment in fragments if fragment not in str(error.value)] == []


def test_columns_that_tell_a_target_are_accepted() -> None:
    found = Problems("The table cannot be used:")
    for rows in (table(label=["a"]), table(value=["-1e-3"]), labels_of(["1", ""], ["0", "1"])):
        check_target(rows, found)
    found.raise_any()


# Outputs and losses of networks -----------------------------------------------------------------------------

logits = st.lists(st.tuples(*[st.floats(-2000, 2000)] * 3), min_size=1, max_size=5).map(np.array)


@given(logits=logits)
def test_outputs_of_networks_become_probabilities(logits: Any) -> None:
    np.testing.assert_allclose(THREE.from_logits(logits), softmax(logits, axis=1), atol=1e-12)
    labels = Target("labels", ("a", "b", "c"))
    np.testing.assert_allclose(labels.from_logits(logits), expit(logits), atol=1e-12)


def test_a_number_is_learned_in_deviations_and_predicted_in_its_unit() -> None:
    truth = np.array([[5.0], [9.0], [-1.0]])
    assert NUMBER.standardised(truth).tolist() == [[0], [2], [-3]]
    np.testing.assert_array_equal(NUMBER.from_logits(NUMBER.standardised(truth)), truth)
    for target in (TWO, LABELS):
        assert target.standardised(truth) is truth


def some_of(kind: Kind, generator: np.random.Generator, n: int = 30) -> tuple[Target, Any, Any]:
    """A target, truth and outputs of a network."""
    outputs = generator.normal(size=(n, 3)) * 3
    if kind == "classes":
        return THREE, generator.integers(0, 3, n), outputs
    if kind == "labels":
        truth = generator.integers(0, 2, (n, 3)).astype(float)
        return Target("labels", ("a", "b", "c")), np.where(generator.random((n, 3)) < 0.3, np.nan, truth), outputs
    return NUMBER, generator.normal(5, 2, size=(n, 1)), outputs[:, :1]


@pytest.mark.parametrize("kind", ["classes", "labels", "value"])
def test_the_loss_on_validation_rows_is_the_one_that_networks_learn_with(kind: Kind) -> None:
    target, truth, outputs = some_of(kind, np.random.default_rng(0))
    learned = target.standardised(truth)
    tensor = torch.from_numpy(learned if kind == "classes" else learned.astype(np.float32))
    expected = prediction_loss(kind, torch.from_numpy(outputs), tensor).item()
    assert target.loss(truth, target.from_logits(outputs)) == pytest.approx(expected, rel=1e-5)


def test_log_odds_and_means_by_hand() -> None:
    assert second_log_odds(np.array([[0.5, 0.5], [0.2, 0.8]])) == pytest.approx([0, np.log(4)])
    few, many = [np.array([[1.0]])], [np.array([[0.0]]), np.array([[0.5]])]
    assert mean_over_methods([few, many]).tolist() == [[0.625]]  # each method counts once, whatever its seeds


def test_losses_by_hand() -> None:
    rows = np.array([[0.2, 0.8], [0.5, 0.5]])
    assert TWO.loss(np.array([1, 0]), rows) == pytest.approx(-(np.log(0.8) + np.log(0.5)) / 2)
    truth = np.array([[1, np.nan], [np.nan, 0]])
    assert LABELS.loss(truth, rows) == pytest.approx(-(np.log(0.2) + np.log(0.5)) / 2)
    assert NUMBER.loss(np.array([[1.0], [3.0]]), np.array([[5.0], [3.0]])) == pytest.approx((2**2 + 0) / 2)
    certain = np.array([[1.0, 0.0]])
    assert np.isfinite(TWO.loss(np.array([1]), certain)) and np.isfinite(LABELS.loss(np.array([[0.0, 1.0]]), certain))


# Measures ---------------------------------------------------------------------------------------------------


def probabilities(generator: np.random.Generator, n: int, names: int) -> Any:
    return softmax(generator.normal(size=(n, names)), axis=1).round(2)  # rounded: with ties


def test_measures_of_two_classes_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 2, 80), probabilities(generator, 80, 2)
    for threshold in (0.5, 0.3):
        found = {name: one.value for name, one in TWO.measures(truth, [predicted], [threshold]).items()}
        guess = predicted[:, 1] >= threshold
        assert found == pytest.approx(
            {
                "AUROC": sklearn_metrics.roc_auc_score(truth, predicted[:, 1]),
                "AUPRC": sklearn_metrics.average_precision_score(truth, predicted[:, 1]),
                "accuracy": sklearn_metrics.accuracy_score(truth, guess),
                "macro-F1": sklearn_metrics.f1_score(truth, guess, average="macro"),
                "MCC": sklearn_metrics.matthews_corrcoef(truth, guess),
            }
        )
    assert TWO.measures(truth, [predicted]) == TWO.measures(truth, [predicted], [0.5])


def test_measures_of_several_classes_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    truth, predicted = generator.integers(0, 3, 80), probabilities(generator, 80, 3)
    guess = predicted.argmax(axis=1)
    assert {name: one.value for name, one in THREE.measures(truth, [predicted]).items()} == pytest.approx(
        {
            "accuracy": sklearn_metrics.accuracy_score(truth, guess),
            "macro-F1": sklearn_metrics.f1_score(truth, guess, average="macro"),
            "MCC": sklearn_metrics.matthews_corrcoef(truth, guess),
        }
    )


def test_measures_of_labels_are_those_of_the_rows_where_each_is_known_and_their_means() -> None:
    generator = np.random.default_rng(2)
    predicted = probabilities(generator, 80, 2)
    truth = np.where(generator.random((80, 2)) < 0.3, np.nan, generator.integers(0, 2, (80, 2)))
    found = {name: one.value for name, one in LABELS.measures(truth, [predicted]).items()}
    for name, measure in (
        ("AUROC", sklearn_metrics.roc_auc_score),
        ("AUPRC", sklearn_metrics.average_precision_score),
    ):
        known = np.isfinite(truth)
        each = [measure(truth[known[:, i], i], predicted[known[:, i], i]) for i in range(2)]
        assert [found[f"{name}: K562"], found[f"{name}: A549"], found[name]] == pytest.approx([*each, np.mean(each)])
    assert list(found) == ["AUROC", "AUROC: K562", "AUROC: A549", "AUPRC", "AUPRC: K562", "AUPRC: A549"]


@pytest.mark.parametrize("column", [[1.0] * 6, [np.nan] * 6])
def test_a_label_without_two_answers_is_left_out_of_the_mean(column: list[float]) -> None:
    generator = np.random.default_rng(3)
    truth = np.stack([np.array([1.0, 0, 1, 0, 1, 0]), column], axis=1)
    found = LABELS.measures(truth, [probabilities(generator, 6, 2)])
    assert np.isnan(found["AUROC: A549"].value)
    assert found["AUROC"].value == found["AUROC: K562"].value
    assert np.isfinite([found["AUROC"].low, found["AUROC"].high]).all()


def test_measures_of_a_number_are_those_of_scipy() -> None:
    generator = np.random.default_rng(4)
    truth = generator.normal(size=(60, 1)).round(1)
    predicted = (truth + generator.normal(size=(60, 1))).round(1)
    found = {name: one.value for name, one in NUMBER.measures(truth, [predicted]).items()}
    pairs = truth[:, 0], predicted[:, 0]
    assert found == pytest.approx({"Pearson": pearsonr(*pairs).statistic, "Spearman": spearmanr(*pairs).statistic})


@pytest.mark.parametrize("kind", ["classes", "labels", "value"])
def test_measures_of_runs_are_means_over_the_same_resamples(kind: Kind) -> None:
    generator = np.random.default_rng(5)
    target, truth, outputs = some_of(kind, generator)
    runs = [target.from_logits(outputs + generator.normal(size=outputs.shape)) for _ in range(3)]
    region = generator.integers(0, 12, len(truth))
    found = target.measures(truth, runs, region=region)
    weights = region_weights(region)
    for name, one in found.items():
        expected = estimate(np.mean([target.values(weights, truth, run, 0.5)[name] for run in runs], axis=0))
        assert (one.value, one.low, one.high) == pytest.approx((expected.value, expected.low, expected.high))
        assert one.seeds == 3
    assert target.measures(truth, [runs[0]] * 2, region=region)[name].low == pytest.approx(
        target.measures(truth, [runs[0]], region=region)[name].low
    )


def test_resamples_with_one_class_are_left_out() -> None:
    """Of two rows, half of the resamples hold one of them twice: there, AUROC is not defined."""
    found = TWO.measures(np.array([0, 1]), [np.array([[0.9, 0.1], [0.2, 0.8]])])
    assert (found["AUROC"].value, found["AUROC"].low, found["AUROC"].high) == (1, 1, 1)
    assert (found["accuracy"].low, found["MCC"].low) == (1, 0)


def test_rows_of_a_region_are_drawn_together() -> None:
    generator = np.random.default_rng(6)
    truth, predicted = generator.integers(0, 2, 50), probabilities(generator, 50, 2)
    once = TWO.measures(truth, [predicted])
    tenfold = TWO.measures(np.tile(truth, 10), [np.tile(predicted, (10, 1))], region=np.tile(np.arange(50), 10))
    for name, one in once.items():
        assert (one.low, one.high) == pytest.approx((tenfold[name].low, tenfold[name].high))


def test_of_two_classes_the_second_is_predicted_from_the_threshold_on() -> None:
    rows = np.array([[0.5, 0.5], [0.51, 0.49], [0.2, 0.8]])
    assert TWO.guesses(rows).tolist() == [1, 0, 1]
    assert TWO.guesses(rows, 0.8).tolist() == [0, 0, 1]
    assert THREE.guesses(np.array([[0.1, 0.2, 0.7], [0.4, 0.4, 0.2]]), 0.9).tolist() == [2, 0]
    limits = 0.8, 0.1, 0.1
    rows = np.array([[0.7, 0.2, 0.1], [0.85, 0.05, 0.1], [0.9, 0.05, 0.05]])
    assert THREE.guesses(rows, limits).tolist() == [1, 0, 0]  # 0.7 is 0.875 of 0.8, and 0.2 twice 0.1


def test_the_best_threshold_by_hand() -> None:
    truth = np.array([0, 0, 0, 1, 0, 1, 1])
    score = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    limit = best_threshold(truth, score)  # 0.4 gives MCC 0.75, all others less
    assert limit == pytest.approx(expit(np.log([0.3 / 0.7, 0.4 / 0.6]).mean()))
    assert best_threshold(truth, 1 - score) <= 0.9  # nothing is right, but all are compared


@pytest.mark.parametrize(("temperature", "shift"), [(0.3, 0), (5, 0), (2, -1.5)])
def test_calibration_moves_the_best_threshold_along(temperature: float, shift: float) -> None:
    """Else rows between the two would be decided otherwise by what was calibrated."""
    truth, score = np.array([0, 0, 1, 0, 1, 1]), np.array([0.0, 0.2, 0.5, 0.45, 0.9, 1.0])

    def calibrated(probability: Any) -> Any:
        return expit(logit(probability) / temperature + shift)

    limit = best_threshold(truth, score)
    assert 0.45 < limit < 0.5
    assert best_threshold(truth, calibrated(score)) == pytest.approx(calibrated(limit))
    assert best_threshold(np.array([1, 0]), np.array([0.2, 0.7])) == 0.2
    assert best_threshold(np.array([0, 1]), np.array([0.0, 1e-300])) == 1e-300


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("positive", [0.5, 0.004])
def test_no_threshold_is_better(seed: int, positive: float) -> None:
    """Thresholds were once percentiles: where less than a hundredth is positive, most guesses of it were wrong."""
    generator = np.random.default_rng(seed)
    truth = (generator.random(1000) < positive).astype(np.int64)
    truth[:2] = 0, 1
    score = expit(generator.normal(truth * 3, 1)).round(3)
    found = sklearn_metrics.matthews_corrcoef(truth, (score >= best_threshold(truth, score)).astype(np.int64))
    limits = np.unique(score)[1:]  # from the first on, all are guessed to be positive, and MCC is 0
    others = [np.corrcoef(truth, score >= limit)[0, 1] for limit in limits]  # of two classes, that is MCC
    assert found == pytest.approx(max(others))


def test_no_measure_depends_on_the_order_of_rows() -> None:
    generator = np.random.default_rng(7)
    for kind in ("classes", "labels", "value"):
        target, truth, outputs = some_of(kind, generator)
        predicted = target.from_logits(outputs).round(1)
        order = generator.permutation(len(truth))
        one, other = target.measures(truth, [predicted]), target.measures(truth[order], [predicted[order]])
        assert {name: e.value for name, e in one.items()} == pytest.approx({n: e.value for n, e in other.items()})
