import numpy as np
import pytest

from genebert.stacking import stacking_weights
from genebert.target import Target

CLASSES = Target("classes", ("no", "yes"))
VALUE = Target("value", ("value",))


def two_classes(scores: np.ndarray) -> np.ndarray:
    """Logits of one predictor on one strand, shape (1, n, 2), of log-odds."""
    return np.stack([np.zeros_like(scores), scores], axis=-1)[None]


def test_one_predictor_has_all_the_weight() -> None:
    assert stacking_weights(CLASSES, np.array([0, 1]), two_classes(np.array([3.0, -3.0]))[None]).tolist() == [1.0]


def test_weights_are_those_of_least_squares_on_the_simplex() -> None:
    """Of uncorrelated errors, the best weights are inverse to their variances."""
    truth = np.zeros((4, 1))
    errors = np.array([[1.0, -1.0, 1.0, -1.0], [2.0, 2.0, -2.0, -2.0], [0.5, -0.5, -0.5, 0.5]])
    found = stacking_weights(VALUE, truth, errors[:, None, :, None])
    expected = 1 / np.array([1.0, 4.0, 0.25])
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-4)


def test_a_predictor_of_the_contrary_has_no_weight() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, 200)
    good = (2 * truth - 1) + generator.normal(size=200)
    found = stacking_weights(CLASSES, truth, np.stack([two_classes(good), two_classes(-good)]))
    np.testing.assert_allclose(found, [1.0, 0.0], atol=1e-6)


def test_the_loss_is_that_of_predictions_averaged_over_strands() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, 60)
    scores = (2.0 * truth - 1) * np.array([0.3, 1.0])[:, None, None] + 2 * generator.normal(size=(2, 2, 60))
    found = stacking_weights(
        CLASSES, truth, np.stack([two_classes(one)[0] for one in scores.reshape(-1, 60)]).reshape(2, 2, 60, 2)
    )
    grid = np.linspace(0, 1, 2001)
    probability = (1 / (1 + np.exp(-((1 - grid[:, None, None]) * scores[0] + grid[:, None, None] * scores[1])))).mean(
        axis=1
    )
    losses = -np.log(np.where(truth == 1, probability, 1 - probability)).mean(axis=1)
    assert 0.05 < found[1] < 0.95
    assert found[1] == pytest.approx(grid[losses.argmin()], abs=0.003)


def test_weights_of_classes_count() -> None:
    truth = np.array([0] * 10 + [1] * 10)
    to_no, to_yes = np.full(20, -1.0), np.full(20, 1.0)
    logits = np.stack([two_classes(to_no), two_classes(to_yes)])
    equal = stacking_weights(CLASSES, truth, logits, np.ones(2))
    np.testing.assert_allclose(equal, [0.5, 0.5], atol=1e-3)
    assert stacking_weights(CLASSES, truth, logits, np.array([1.0, 3.0]))[1] == pytest.approx(1.0, abs=0.05)


def test_rows_whose_truth_is_not_known_do_not_count() -> None:
    labels = Target("labels", ("A", "B"))
    truth = np.array([[1.0, np.nan], [0.0, np.nan], [1.0, 1.0], [0.0, 0.0]])
    good = np.where(truth == 1, 2.0, -2.0)
    bad = np.where(np.isnan(truth), 50.0, -good)
    found = stacking_weights(labels, truth, np.stack([good, bad])[:, None])
    np.testing.assert_allclose(found, [1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_weights_are_never_worse_than_one_predictor_alone_or_their_mean(scale: float) -> None:
    """At large scales the search once ended where it began."""
    generator = np.random.default_rng(2)
    truth = generator.integers(0, 2, 80)
    logits = np.stack([two_classes(size * generator.normal(size=80)) for size in (scale, 1.0, 0.01)])
    losses = [
        CLASSES.loss(truth, CLASSES.from_logits(np.tensordot(weights, logits[:, 0], axes=1)))
        for weights in (stacking_weights(CLASSES, truth, logits), np.full(3, 1 / 3), *np.eye(3))
    ]
    assert losses[0] <= min(losses[1:]) + 1e-12


def test_the_same_rows_give_the_same_weights() -> None:
    generator = np.random.default_rng(1)
    truth, logits = generator.integers(0, 2, 50), generator.normal(size=(3, 2, 50, 2))
    first, second = (stacking_weights(CLASSES, truth, logits) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.sum() == pytest.approx(1) and (first >= 0).all()
