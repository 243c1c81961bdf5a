import json

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from genebert import metrics
from genebert.metrics import Estimate, bootstrap


@pytest.fixture(params=range(5))
def generator(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def test_binary_measures_are_those_of_sklearn(generator: np.random.Generator) -> None:
    label, score = generator.integers(0, 2, size=80), generator.random(80).round(1)
    assert metrics.auroc(label, score) == pytest.approx(sklearn_metrics.roc_auc_score(label, score))
    probability = np.column_stack([1 - score, score]).clip(0.05, 0.95)
    probability /= probability.sum(1, keepdims=True)
    assert metrics.log_loss(label, probability) == pytest.approx(sklearn_metrics.log_loss(label, probability))


@pytest.mark.parametrize("label", [[0, 0, 0], [1, 1, 1]])
def test_ranking_measures_need_both_classes(label: list[int]) -> None:
    assert np.isnan(metrics.auroc(np.array(label), np.arange(3)))


def test_log_loss_of_a_certain_mistake_is_finite() -> None:
    assert metrics.log_loss(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(-np.log(1e-12))


def test_bootstrap_interval_of_a_mean_is_the_analytic_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=400)
    estimate = bootstrap(lambda v: float(v.mean()), values)
    error = values.std() / np.sqrt(len(values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert bootstrap(lambda v: float(v.mean()), values) == estimate  # seeded


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        estimate = bootstrap(lambda v: float(v.mean()), generator.random(50) < 0.7)
        covered += estimate.low <= 0.7 <= estimate.high
    assert covered >= 51


def test_bootstrap_resamples_arrays_together() -> None:
    label = np.random.default_rng(2).integers(0, 2, size=50)
    assert bootstrap(sklearn_metrics.accuracy_score, label, label) == Estimate(1.0, 1.0, 1.0)


def test_bootstrap_leaves_out_undefined_resamples() -> None:
    label, score = (
        np.array([0, 0, 0, 1]),
        np.array([0.1, 0.2, 0.3, 0.4]),
    )  # many resamples have one class only
    assert bootstrap(metrics.auroc, label, score) == Estimate(1.0, 1.0, 1.0)


def test_bootstrap_of_an_undefined_measure_is_undefined() -> None:
    estimate = bootstrap(metrics.auroc, np.zeros(4), np.arange(4))
    assert np.isnan([estimate.value, estimate.low, estimate.high]).all()


def test_estimate_is_written_for_people_and_machines() -> None:
    estimate = Estimate(0.5, 0.25, 0.75, 3)
    assert str(estimate) == "0.500 [0.250, 0.750]"
    assert Estimate(**json.loads(json.dumps(estimate.to_json()))) == estimate
