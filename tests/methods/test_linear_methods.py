from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, normalize
from sklearn.svm import LinearSVC

from genebert.methods.features import gapped_kmer_counts, kmer_counts
from genebert.methods.gkm_svm import GkmSvm, platt_scale
from genebert.methods.kmer_regression import KmerRegression
from genebert.methods.one_vs_rest import joined_logits, questions
from genebert.target import Target


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_kmer_regression_is_that_of_sklearn(task: Callable[..., Any], classes: int, oriented: bool) -> None:
    toy = task("classes", classes)
    count = partial(kmer_counts, k=4) if oriented else partial(gapped_kmer_counts, length=4, informative=4)
    reference = make_pipeline(MaxAbsScaler(), LogisticRegression(C=0.1, max_iter=2000))
    reference.fit(count(toy.train.codes), toy.train.truth)
    method = KmerRegression(lengths=(4,), strengths=(0.1,), oriented=oriented)
    expected = reference.predict_proba(count(toy.test.codes))
    fitted = method.fit(toy.train, toy.valid, toy.target, 0)
    np.testing.assert_allclose(fitted.predict(toy.test), expected, atol=1e-10)


@pytest.mark.parametrize("kind", ["classes", "labels", "value"])
def test_the_k_and_penalty_of_lowest_validation_loss_are_taken(task: Callable[..., Any], kind: str) -> None:
    toy = task(kind)
    losses = {}
    for k in (3, 4):
        for strength in (0.01, 1.0):
            one = KmerRegression(lengths=(k,), strengths=(strength,)).fit(toy.train, toy.valid, toy.target, 0)
            losses[k, strength] = toy.target.loss(toy.valid.truth, one.predict(toy.valid))
    chosen = KmerRegression(lengths=(3, 4), strengths=(0.01, 1.0)).fit(toy.train, toy.valid, toy.target, 0)
    assert toy.target.loss(toy.valid.truth, chosen.predict(toy.valid)) == pytest.approx(min(losses.values()))


def test_longer_words_than_trees_count_are_refused() -> None:
    """Of 16 bases there are 4^16, which once exhausted the memory."""
    assert KmerRegression(lengths=(1, 7)).lengths == (1, 7)
    with pytest.raises(ValueError, match="less than or equal to 7"):
        KmerRegression(lengths=(4, 16))


def test_margins_are_those_of_liblinear_on_cosines(task: Callable[..., Any]) -> None:
    toy = task("classes")
    features = [normalize(gapped_kmer_counts(rows.codes, 5, 4)) for rows in (toy.train, toy.test)]
    margin = LinearSVC(C=0.3, dual=False).fit(features[0], toy.train.truth).decision_function(features[1])
    method = GkmSvm(length=5, informative=4, strengths=(0.3,))
    probability = method.fit(toy.train, toy.valid, toy.target, 0).predict(toy.test)[:, 1]
    log_odds = np.log(probability / (1 - probability))
    assert np.corrcoef(margin, log_odds)[0, 1] == pytest.approx(1)


def test_words_with_more_informative_positions_than_bases_are_refused() -> None:
    with pytest.raises(ValueError, match="informative is 6, more than length, 5"):
        GkmSvm(length=5, informative=6)


def test_platt_scaling_minimises_what_platt_says() -> None:
    generator = np.random.default_rng(0)
    margin = generator.normal(size=60)
    answers = (generator.random(60) < 1 / (1 + np.exp(1 - 2 * margin))).astype(float)
    answers[:10] = np.nan
    yes, no = (answers == 1).sum(), (answers == 0).sum()
    known = np.isfinite(answers)
    drawn_in = np.where(answers == 1, (yes + 1) / (yes + 2), 1 / (no + 2))[known]

    def loss(parameters: np.ndarray[Any, Any]) -> float:
        logit = parameters[0] * margin[known] + parameters[1]
        return float((np.logaddexp(0, logit) - drawn_in * logit).sum())

    np.testing.assert_allclose(platt_scale(margin, answers), minimize(loss, [1.0, 0.0]).x, atol=1e-4)


@pytest.mark.parametrize("answer", [0.0, 1.0])
def test_platt_scaling_of_a_single_answer_is_finite(answer: float) -> None:
    slope, offset = platt_scale(np.array([-1.0, 0.0, 2.0]), np.full(3, answer))
    assert np.isfinite([slope, offset]).all() and (offset > 0) == (answer == 1)


def test_questions_by_hand() -> None:
    two, three = Target("classes", ("a", "b")), Target("classes", ("a", "b", "c"))
    assert [q.tolist() for q in questions(np.array([0, 1]), two)] == [[0, 1]]
    assert [q.tolist() for q in questions(np.array([2, 0]), three)] == [[0, 1], [0, 0], [1, 0]]
    known = questions(np.array([[1.0, np.nan], [0.0, 1.0]]), Target("labels", ("a", "b")))
    np.testing.assert_array_equal(known, [[1, 0], [np.nan, 1]])


def test_answers_become_probabilities_by_hand() -> None:
    odds = np.array([[1.0, 3.0, 1.0]])  # probabilities 1/2, 3/4, 1/2
    three, labels = Target("classes", ("a", "b", "c")), Target("labels", ("a", "b", "c"))
    scores = np.log(odds)
    np.testing.assert_allclose(three.from_logits(joined_logits(scores, three)), [[2 / 7, 3 / 7, 2 / 7]])
    np.testing.assert_allclose(labels.from_logits(joined_logits(scores, labels)), [[0.5, 0.75, 0.5]])
    two = Target("classes", ("a", "b"))
    np.testing.assert_allclose(two.from_logits(joined_logits(scores[:, 1:2], two)), [[0.25, 0.75]])
