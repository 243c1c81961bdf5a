import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score, f1_score, matthews_corrcoef, roc_auc_score

from genebert import metrics
from genebert.resampling import (
    auprc,
    auroc,
    estimate,
    macro_f1,
    mcc,
    mean,
    pearson,
    ratio,
    region_weights,
    spearman,
    weight_blocks,
)


@pytest.fixture(params=range(4))
def generator(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def test_a_region_is_drawn_with_all_of_its_rows(generator: np.random.Generator) -> None:
    region = generator.integers(100, 130, size=80)
    weights = region_weights(region)
    names, first, size = np.unique(region, return_index=True, return_counts=True)
    assert weights.shape == (1001, 80)
    assert (weights[0] == 1).all()
    for name, place in zip(names, first, strict=True):
        assert (weights[:, region == name] == weights[:, [place]]).all()
    assert (weights[:, first].sum(axis=1) == len(names)).all()
    assert weights[1:] @ (1 / size[np.searchsorted(names, region)]) == pytest.approx(len(names))


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
def test_weights_are_the_same_however_many_are_drawn_at_once(rows_at_once: int, generator: np.random.Generator) -> None:
    region = generator.integers(0, 20, size=30)
    expected = region_weights(region, seed=3)
    blocks = list(weight_blocks(region, seed=3, at_once=30 * rows_at_once))
    assert len(blocks) == 1 + -(-1000 // rows_at_once)
    assert (np.concatenate(blocks) == expected).all()
    assert (region_weights(region, seed=4) != expected).any()


def test_measures_are_those_of_the_rows_that_were_drawn(generator: np.random.Generator) -> None:
    region, label, guess = generator.integers(0, (25, 4, 4), size=(60, 3)).T
    positive, score, counted = generator.random(60) < 0.4, generator.random(60).round(1), generator.integers(1, 5, 60)
    number = score + generator.normal(scale=0.3, size=60).round(1)
    weights = region_weights(region)[:20]
    found = (
        auroc(weights, positive, score),
        macro_f1(weights, label, guess),
        mean(weights, label == guess),
        ratio(weights, score, counted.astype(float)),
        auprc(weights, positive, score),
        mcc(weights, label, guess),
        pearson(weights, number, score),
        spearman(weights, number, score),
    )
    for i, times in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(60), times)
        assert [values[i] for values in found] == pytest.approx(
            [
                roc_auc_score(positive[rows], score[rows]),
                f1_score(label[rows], guess[rows], average="macro"),
                (label == guess)[rows].mean(),
                score[rows].sum() / counted[rows].sum(),
                average_precision_score(positive[rows], score[rows]),
                matthews_corrcoef(label[rows], guess[rows]),
                pearsonr(number[rows], score[rows]).statistic,
                spearmanr(number[rows], score[rows]).statistic,
            ]
        )


def test_counts_may_be_integers(generator: np.random.Generator) -> None:
    label, score, number = generator.random(60) < 0.4, generator.random(60).round(1), generator.normal(size=60)
    weights = region_weights(np.arange(60))[:20]
    counts = weights.astype(np.int32)
    for measure, truth in ((auroc, label), (auprc, label), (pearson, number), (spearman, number)):
        assert (measure(counts, truth, score) == measure(weights, truth, score)).all()


def test_auroc_by_hand() -> None:
    label, score = np.array([True, False, True, False]), np.array([2.0, 1.0, 1.0, 0.0])
    weights = np.array([[1.0, 1, 1, 1], [1, 1, 0, 1], [0, 2, 1, 1], [1, 0, 1, 0]])
    assert auroc(weights, label, score)[:3] == pytest.approx([(4 - 0.5) / 4, 1, (2 * 0.5 + 1) / 3])
    assert np.isnan(auroc(weights, label, score)[3])


def test_auprc_by_hand() -> None:
    label, score = np.array([True, False, True, False]), np.array([3.0, 2.0, 1.0, 1.0])
    weights = np.array([[1.0, 1, 1, 1], [0, 1, 2, 0], [2, 1, 0, 1], [0, 1, 0, 1]])
    # Precision at the rank of each positive, ties together: 1 and 2 / 4; 2 / 3 twice; 1 twice; none
    assert auprc(weights, label, score)[:3] == pytest.approx([(1 + 2 / 4) / 2, 2 / 3, 1])
    assert np.isnan(auprc(weights, label, score)[3])


def test_mcc_of_one_class_or_one_guess_is_0() -> None:
    label, guess = np.array([0, 0, 1]), np.array([1, 1, 1])
    assert mcc(np.array([[1.0, 1, 1], [1, 1, 0]]), label, guess).tolist() == [0, 0]
    assert mcc(np.ones((1, 3)), label, label) == pytest.approx(1)
    assert mcc(np.ones((1, 3)), label, 1 - label) == pytest.approx(-1)


def test_correlations_by_hand() -> None:
    first, second = np.array([1.0, 2, 3, 3]), np.array([1.0, 4, 9, 16])
    weights = np.array([[1.0, 1, 1, 0], [2, 1, 1, 0], [0, 0, 1, 3], [0, 2, 0, 0]])
    # The ranks of 1, 1, 2, 3 are 1.5, 1.5, 3, 4, on both sides
    assert spearman(weights, first, second)[:2] == pytest.approx([1, 1])
    assert pearson(weights, first, second)[0] == pytest.approx(8 / np.sqrt(2 * 98 / 3))
    for measure in (pearson, spearman):
        found = measure(weights, second, first)
        assert found[2] == 0  # predictions do not vary
        assert np.isnan(found[3]) and np.isnan(measure(weights, first, second)[2:]).all()  # the truth does not
        assert np.isnan(measure(np.zeros((2, 4)), first, second)).all()  # nothing is drawn
        assert measure(weights, first, -first)[0] == pytest.approx(-1)


def test_measures_of_no_rows_are_not_defined() -> None:
    nothing, empty = np.ones((3, 0)), np.empty(0)
    for measure in (auroc, auprc):
        assert np.isnan(measure(nothing, empty.astype(bool), empty)).all()


def test_the_correlation_with_what_is_constant_is_0_and_not_rounding(generator: np.random.Generator) -> None:
    first, second = np.full(50, 0.1), generator.normal(size=50)
    first[0] = 7e5  # in most resamples it is not drawn
    weights = region_weights(np.arange(50))
    found = pearson(weights, second, first)
    assert (found[weights[:, 0] == 0] == 0).all()
    assert (found[weights[:, 0] > 0] != 0).all()
    assert (np.isnan(pearson(weights, first, second)) == (weights[:, 0] == 0)).all()


def test_resamples_without_a_measure_are_left_out_and_a_measure_that_is_not_defined_stays_so() -> None:
    found = estimate(np.array([0.5, np.nan, *np.linspace(0, 1, 1001), np.nan]))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.025, 0.975))
    assert np.isnan(estimate(np.full(5, np.nan)).value)


def test_rows_that_repeat_a_region_add_no_certainty(generator: np.random.Generator) -> None:
    """A bootstrap over rows would shrink the interval of ten equal rows per region by the root of ten."""
    right = generator.random(200) < 0.6
    once = estimate(mean(region_weights(np.arange(200)), right))
    tenfold = estimate(mean(region_weights(np.repeat(np.arange(200), 10)), np.repeat(right, 10)))
    assert tenfold == once
    plain = metrics.bootstrap(lambda values: float(values.mean()), right)
    assert (once.low, once.high) == pytest.approx((plain.low, plain.high), abs=0.015)
