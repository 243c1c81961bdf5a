from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit, softmax
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from genebert.calibration import (
    Calibration,
    calibration_error,
    events,
    reliability,
    wilson,
)
from genebert.target import Target

TWO = Target("classes", ("no", "yes"))
FOUR = Target("classes", ("a", "b", "c", "d"))
LABELS = Target("labels", ("a", "b", "c"))
NUMBER = Target("value", ("value",), 5.0, 2.0)
CALIBRATED = [TWO, FOUR, LABELS]


def rows_of(target: Target, temperature: float, n: int = 4000, seed: int = 0) -> tuple[Any, Any]:
    """Truth, and predictions whose log-odds are so many times as large as those that it was drawn with."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, len(target.names))) * 1.5
    if target.kind == "labels":
        truth = (generator.random(logits.shape) < expit(logits)).astype(float)
        return np.where(generator.random(logits.shape) < 0.2, np.nan, truth), expit(logits * temperature)
    truth = (softmax(logits, axis=1).cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
    return truth, softmax(logits * temperature, axis=1)


@pytest.mark.parametrize("target", CALIBRATED)
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_predictions_were_made_with_is_found(target: Target, temperature: float) -> None:
    truth, predicted = rows_of(target, temperature)
    found = Calibration.fit(target, truth, predicted).temperature
    assert found == pytest.approx(temperature, rel=0.1)
    others = [found, 1.0, *np.geomspace(0.1, 10, 200)]
    losses = [target.loss(truth, Calibration(other).apply(target, predicted)) for other in others]
    assert losses[0] <= min(losses) + 1e-9
    if temperature != 1:
        after = calibration_error(target, truth, Calibration(found).apply(target, predicted))
        assert after < calibration_error(target, truth, predicted) / 2


@pytest.mark.parametrize("target", CALIBRATED)
@given(temperature=st.floats(0.05, 20), seed=st.integers(0, 100))
def test_log_odds_are_divided_and_nothing_changes_places(target: Target, temperature: float, seed: int) -> None:
    _, predicted = rows_of(target, 1.0, n=20, seed=seed)
    found = Calibration(temperature).apply(target, predicted)
    if target.kind == "labels":
        np.testing.assert_allclose(found, expit(logit(predicted) / temperature), atol=1e-9)
        assert ((found > 0.5) == (predicted > 0.5)).all()
    else:
        np.testing.assert_allclose(found, softmax(np.log(predicted) / temperature, axis=1), atol=1e-9)
        assert (found.argmax(axis=1) == predicted.argmax(axis=1)).all()
    if target.is_binary:
        order = predicted[:, 1].argsort()
        assert (np.diff(found[order, 1]) >= 0).all()


@pytest.mark.parametrize("target", CALIBRATED)
@pytest.mark.parametrize("temperature", [0.05, 20.0])
def test_certainty_stays_a_number(target: Target, temperature: float) -> None:
    predicted = np.eye(len(target.names))
    found = Calibration(temperature).apply(target, predicted)
    assert np.isfinite(found).all() and (found.argmax(axis=1) == np.arange(len(found))).all()
    truth = np.arange(len(found)) if target.kind == "classes" else 1 - predicted
    assert np.isfinite(Calibration.fit(target, truth, predicted).temperature)


def test_numbers_are_not_calibrated() -> None:
    truth, predicted = np.array([[1.0], [9.0]]), np.array([[2.0], [3.0]])
    assert Calibration.fit(NUMBER, truth, predicted) == Calibration()
    assert Calibration(2.0).apply(NUMBER, predicted) is predicted
    assert Calibration(1.0).apply(TWO, predicted) is predicted


@pytest.mark.parametrize("target", CALIBRATED)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_search_that_ends_at_a_bound_is_told(target: Target, weighted: bool) -> None:
    """Nobody was told that a temperature of 20, or 0.05, is where the search ends, and not what the rows say."""
    weighted = weighted and target.kind == "classes"
    truth, predicted = rows_of(target, 1.0)
    assert Calibration.fit(target, truth, predicted, weighted=weighted).at_bounds(target) == []
    shuffled = np.random.default_rng(1).permutation(predicted)
    (no_better,) = Calibration.fit(target, truth, shuffled, weighted=weighted).at_bounds(target)
    assert "the temperature is 20.0, the highest" in no_better and "no better than chance" in no_better
    right = predicted.argmax(axis=1) if target.kind == "classes" else np.rint(predicted)
    (sure,) = Calibration.fit(target, right, predicted, weighted=weighted).at_bounds(target)
    assert "the temperature is 0.05, the lowest" in sure and "more validation rows" in sure


# Offsets ----------------------------------------------------------------------------------------------------


def weighed(target: Target, temperature: float, weights: list[float], seed: int = 0) -> tuple[Any, Any]:
    """Truth, and predictions as `rows_of` has them, but with the odds of each class times a weight before that."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(4000, len(weights))) * 1.5 - np.log(weights)
    truth = (softmax(logits, axis=1).cumsum(axis=1) < generator.random((4000, 1))).sum(axis=1)
    return truth, softmax((logits + np.log(weights)) * temperature, axis=1)


WEIGHED: list[tuple[Target, list[float]]] = [(TWO, [0.55, 5.0]), (FOUR, [0.3, 1.0, 2.0, 8.0])]


@pytest.mark.parametrize(("target", "weights"), WEIGHED)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_weights_of_classes_are_found_and_undone(target: Target, weights: list[float], temperature: float) -> None:
    """A temperature alone left probabilities those of equally frequent classes."""
    truth, predicted = weighed(target, temperature, weights)
    found = Calibration.fit(target, truth, predicted, weighted=True)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    shifts = np.log(weights) + found.offsets
    assert np.ptp(shifts) < 0.25
    after = found.apply(target, predicted)
    np.testing.assert_allclose(after, softmax(np.log(predicted) / found.temperature + found.offsets, axis=1))
    frequencies = np.bincount(truth) / len(truth)
    np.testing.assert_allclose(after.mean(axis=0), frequencies, atol=1e-5)  # where the loss is lowest, they agree
    alone = Calibration.fit(target, truth, predicted).apply(target, predicted)
    assert np.abs(alone.mean(axis=0) - frequencies).max() > 0.05
    assert target.loss(truth, after) < target.loss(truth, alone) - 0.02


def test_offsets_of_two_classes_are_those_of_a_logistic_regression_on_the_log_odds() -> None:
    truth, predicted = weighed(TWO, 2.0, [0.6, 3.0])
    found = Calibration.fit(TWO, truth, predicted, weighted=True)
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(predicted[:, 1:]), truth)
    assert 1 / found.temperature == pytest.approx(fitted.coef_[0, 0], rel=1e-3)
    assert found.offsets[1] - found.offsets[0] == pytest.approx(fitted.intercept_[0], abs=1e-3)


@pytest.mark.parametrize(("target", "weights"), WEIGHED)
def test_decisions_stay_those_that_the_weights_ask_for(target: Target, weights: list[float]) -> None:
    truth, predicted = weighed(target, 2.0, weights)
    found = Calibration.fit(target, truth, predicted, weighted=True)
    after = found.apply(target, predicted)
    before = target.guesses(predicted)
    np.testing.assert_array_equal(target.guesses(after, found.threshold(target)), before)
    assert (target.guesses(after) != before).any()
    assert Calibration(2.0).threshold(target) == 0.5


def test_thresholds_by_hand() -> None:
    """The odds of an undecided row are 1 before, and exp(offset) after."""
    assert Calibration(3.0, (0.0, -np.log(4))).threshold(TWO) == pytest.approx(0.2)
    three = Calibration(3.0, (np.log(5), np.log(3), np.log(2))).threshold(Target("classes", ("a", "b", "c")))
    assert three == pytest.approx((0.5, 0.3, 0.2))


def test_a_class_without_validation_rows_keeps_a_probability() -> None:
    truth, predicted = weighed(FOUR, 1.0, [1.0] * 4)
    rest = truth != 2
    found = Calibration.fit(FOUR, truth[rest], predicted[rest], weighted=True)
    (told,) = found.at_bounds(FOUR)
    assert "the offset of class c is -9.2, the largest" in told and "give some of this class" in told
    after = found.apply(FOUR, predicted)
    assert np.isfinite(after).all() and (after[:, 2] > 0).all() and after[:, 2].mean() < 1e-3


def test_what_comes_true_by_hand() -> None:
    two = events(TWO, np.array([1, 0]), np.array([[0.4, 0.6], [0.3, 0.7]]))
    assert [part.tolist() for part in two] == [[1, 0], [0.6, 0.7]]
    four = events(FOUR, np.array([2, 1]), np.array([[0.1, 0.2, 0.6, 0.1], [0.7, 0.1, 0.1, 0.1]]))
    assert [part.tolist() for part in four] == [[1, 0], [0.6, 0.7]]
    # Of classes that were weighed, the likeliest was once looked at, also where another is predicted.
    rows = np.array([[0.1, 0.2, 0.6, 0.1], [0.7, 0.1, 0.1, 0.1]])
    weighed = events(FOUR, np.array([1, 1]), rows, (0.4, 0.1, 0.4, 0.1))
    assert [part.tolist() for part in weighed] == [[1, 0], [0.2, 0.7]]
    assert calibration_error(FOUR, np.array([1, 1]), rows, (0.4, 0.1, 0.4, 0.1)) == pytest.approx((0.8 + 0.7) / 2)
    truth = np.array([[1, np.nan, 0], [np.nan, np.nan, 1]])
    labels = events(LABELS, truth, np.arange(6).reshape(2, 3) / 10)
    assert [part.tolist() for part in labels] == [[1, 0, 1], [0, 0.2, 0.5]]


def test_bins_hold_equally_many_rows_in_the_order_of_their_probability() -> None:
    generator = np.random.default_rng(0)
    score, label = generator.random(103), generator.integers(0, 2, 103)
    bins = reliability(label, score)
    assert bins["n"].tolist() == [11] * 3 + [10] * 7
    by_hand = np.array_split(sorted(zip(score, label, strict=True)), 10)
    np.testing.assert_allclose(bins[["predicted", "observed"]], [part.mean(axis=0) for part in by_hand])
    for row in bins.itertuples():
        exact = binomtest(round(row.observed * row.n), row.n).proportion_ci(method="wilson")
        assert (row.low, row.high) == pytest.approx((exact.low, exact.high), abs=1e-4)
    assert reliability(label[:3], score[:3])["n"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_an_interval_holds_its_fraction(fraction: float) -> None:
    low, high = wilson(fraction, 7)
    assert low <= fraction <= high and high - low < 0.5


def test_calibration_error_by_hand() -> None:
    score = np.array([0.1] * 10 + [0.8] * 10) + 1e-9 * np.arange(20)
    predicted = np.stack([1 - score, score], axis=1)
    label = np.array([0] * 9 + [1] + [1] * 8 + [0] * 2)
    bins = np.abs(score[::2] - label.reshape(10, 2).mean(axis=1))
    assert calibration_error(TWO, label, predicted) == pytest.approx(bins.mean())
    assert calibration_error(TWO, label, predicted.round(6)) == pytest.approx(0)  # of equal predictions, 1 and 8 in ten
    assert calibration_error(TWO, (score > 0.5).astype(int), np.eye(2)[(score > 0.5).astype(int)]) == 0
    assert calibration_error(TWO, np.array([1]), np.array([[0.75, 0.25]])) == pytest.approx(0.75)


@pytest.mark.parametrize("target", CALIBRATED)
def test_predictions_that_are_right_on_average_have_little_error(target: Target) -> None:
    truth, predicted = rows_of(target, 1.0)
    assert calibration_error(target, truth, predicted) < 0.03
