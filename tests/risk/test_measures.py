import numpy as np
import pytest
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from genebert.resampling import estimate
from genebert.risk.design import Individuals
from genebert.risk.measures import calibration_table, comparisons_table, interval, metrics_table, resampled
from genebert.risk.phenotypes import Trait


def individuals_of(values: np.ndarray, trait: Trait, group: np.ndarray | None = None) -> Individuals:
    n = len(values)
    everyone = np.arange(n)
    return Individuals(
        [str(i) for i in everyone], trait, values, np.ones((n, 1)), everyone % 4, everyone if group is None else group
    )


def test_measures_are_those_of_scikit_learn_within_folds() -> None:
    generator = np.random.default_rng(0)
    ill = generator.integers(0, 2, 200).astype(float)
    risk = np.clip(0.2 + 0.2 * ill + 0.5 * generator.random(200), 0, 1)
    people = individuals_of(ill, "binary")
    found = metrics_table(resampled(people, {"a": risk}), people).set_index("measure")
    folds = [people.fold == k for k in range(4)]
    assert np.isclose(found["value"]["AUROC"], np.mean([roc_auc_score(ill[k], risk[k]) for k in folds]))
    assert np.isclose(found["value"]["AUPRC"], np.mean([average_precision_score(ill[k], risk[k]) for k in folds]))
    assert np.isclose(found["value"]["Brier"], ((ill - risk) ** 2).mean())
    assert (found["low"] < found["value"]).all()
    assert (found["value"] < found["high"]).all()


def test_numbers_are_measured_by_correlation_and_explained_variance() -> None:
    generator = np.random.default_rng(0)
    truth = generator.standard_normal(200)
    guess = 0.5 * truth + 0.5 * generator.standard_normal(200)
    people = individuals_of(truth, "quantitative")
    found = metrics_table(resampled(people, {"a": guess}), people).set_index("measure")["value"]
    folds = [people.fold == k for k in range(4)]
    assert np.isclose(found["Pearson"], np.mean([np.corrcoef(truth[k], guess[k])[0, 1] for k in folds]))
    assert np.isclose(found["R2"], np.mean([r2_score(truth[k], guess[k]) for k in folds]))


def test_the_mean_of_the_other_folds_predicts_nothing() -> None:
    """Pooled over folds, such a prediction goes against the phenotype: it would look worse than chance."""
    ill = np.random.default_rng(1).integers(0, 2, 200).astype(float)
    people = individuals_of(ill, "binary")
    risk = np.array([ill[people.fold != k].mean() for k in people.fold])
    assert roc_auc_score(ill, risk) < 0.5
    found = metrics_table(resampled(people, {"a": risk}), people).set_index("measure")
    assert found["value"]["AUROC"] == found["low"]["AUROC"] == found["high"]["AUROC"] == 0.5


def test_families_make_intervals_wider() -> None:
    generator = np.random.default_rng(0)
    ill = np.repeat(generator.integers(0, 2, 50), 8).astype(float)
    risk = np.repeat(generator.random(50), 8) + 0.3 * ill
    alone, families = individuals_of(ill, "binary"), individuals_of(ill, "binary", np.repeat(np.arange(50), 8))
    wide = [np.ptp(metrics_table(resampled(p, {"a": risk}), p).loc[0, ["low", "high"]]) for p in (alone, families)]
    assert wide[1] > 1.5 * wide[0]


def test_intervals_are_wider_than_the_bootstrap_says_as_folds_share_training_individuals() -> None:
    values = np.concatenate([[0.6], np.linspace(0.5, 0.7, 1000)])
    found, plain = interval(values, folds=5), estimate(values)
    assert np.isclose(found.high - 0.6, 1.5 * (plain.high - 0.6))
    assert np.isclose(0.6 - found.low, 1.5 * (0.6 - plain.low))


def test_intervals_of_measures_end_where_measures_do_and_those_of_differences_do_not() -> None:
    people = individuals_of(np.tile([0.0, 1.0], 20), "binary")
    spread = np.concatenate([[0.5], np.linspace(0, 1, 1000)])
    found = {(method, "AUROC"): value for method, value in (("a", spread), ("b", 1 - spread))}
    assert (metrics_table(found, people)[["low", "high"]] == [0, 1]).all(axis=None)
    difference = comparisons_table(found, ["a"], people).iloc[0]
    assert difference["low"] < -1
    assert difference["high"] > 1


def test_differences_are_paired() -> None:
    generator = np.random.default_rng(0)
    ill = generator.integers(0, 2, 400).astype(float)
    risk = 0.5 * ill + generator.random(400)
    people = individuals_of(ill, "binary")
    values = resampled(people, {"a": risk, "b": risk + 0.05 * generator.random(400), "c": 1 - risk})
    table = comparisons_table(values, ["a"], people).set_index(["against", "measure"])
    assert set(table["method"]) == {"a"}
    near, far = table.loc[("b", "AUROC")], table.loc[("c", "AUROC")]
    assert near["low"] < 0.05
    assert near["high"] - near["low"] < 0.05
    assert far["low"] > 0.2


@pytest.mark.parametrize("trait", ["binary", "quantitative"])
def test_calibration_compares_means_in_bins(trait: Trait) -> None:
    generator = np.random.default_rng(0)
    risk = generator.random(1000)
    values = (
        (generator.random(1000) < risk).astype(float) if trait == "binary" else risk + generator.standard_normal(1000)
    )
    table = calibration_table(individuals_of(values, trait), {"a": risk, "b": np.full(1000, 0.5)})
    first = table[table["method"] == "a"]
    assert first["bin"].tolist() == list(range(1, 11))
    assert (first["n"] == 100).all()
    assert first["predicted"].is_monotonic_increasing
    assert ((first["low"] <= first["predicted"]) & (first["predicted"] <= first["high"])).sum() >= 8


def test_high_values_are_above_the_median_or_at_it_if_that_is_the_highest() -> None:
    """Where most had the highest value, nobody was high, and the run ended in a traceback after all its work."""
    plain, capped = np.array([1.0, 2, 3, 4]), np.array([30.0, 12, 30, 30, 9])
    assert individuals_of(plain, "quantitative").high.tolist() == [False, False, True, True]
    assert individuals_of(capped, "quantitative").high.tolist() == [True, False, True, True, False]


def test_calibration_does_not_depend_on_the_order_of_equal_predictions() -> None:
    """Cases listed before controls once were whole bins of them."""
    ill = np.repeat([1.0, 0.0], 100)
    table = calibration_table(individuals_of(ill, "binary"), {"a": np.full(200, 0.5)})
    assert np.allclose(table["observed"], 0.5)
    numbers = calibration_table(individuals_of(ill + 1, "quantitative"), {"a": np.ones(200)})
    assert np.allclose(numbers["observed"], 1.5)


def test_a_measure_of_a_fold_that_is_not_drawn_is_left_out() -> None:
    values = np.arange(12.0)
    people = individuals_of(values, "quantitative", np.arange(12) % 4)  # a family is a fold
    found = metrics_table(resampled(people, {"a": values}), people).set_index("measure")
    assert found["low"]["Pearson"] == found["value"]["Pearson"] == pytest.approx(1)
