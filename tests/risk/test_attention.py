import numpy as np
from scipy.optimize import check_grad
from toy_risk import individuals_of, toy_cohort

from genebert.risk.attention import PENALTIES, STEPS, AttentionPooling, Pooled
from genebert.risk.design import region_effects
from genebert.risk.models import basis_of


def pooling(embedding: np.ndarray | None = None, **options: int) -> tuple[AttentionPooling, np.ndarray]:
    toy = toy_cohort(n=300, regions=20, causal=3, frequency=(0.05, 0.3), **options)
    return AttentionPooling(individuals_of(toy), toy.cohort, toy.change, embedding), toy.causal


def pooled_of(method: AttentionPooling) -> Pooled:
    people = method.individuals
    rest = people.phenotype - people.phenotype.mean()
    features = method._features(np.ones(len(people), dtype=bool))
    return Pooled.of(method.copies, method.region_of, features, basis_of(people.covariates), rest)


def test_the_gradient_is_that_of_the_loss() -> None:
    embedding = np.random.default_rng(0).standard_normal((240, 7)).astype(np.float32)
    pooled = pooled_of(pooling(embedding)[0])
    at = np.random.default_rng(1).standard_normal(pooled.regions + pooled.features.shape[1])
    difference = check_grad(lambda p: pooled.loss(p, 0.3)[0], lambda p: pooled.loss(p, 0.3)[1], at)
    assert difference < 1e-5 * np.linalg.norm(pooled.loss(at, 0.3)[1])


def test_with_even_attention_the_score_is_the_sum_over_regions() -> None:
    method, _ = pooling()
    pooled = pooled_of(method)
    parameters = np.concatenate([np.zeros(pooled.regions), [2.0, 0.0]])
    toy = toy_cohort(n=300, regions=20, causal=3, frequency=(0.05, 0.3))
    effects = np.asarray(region_effects(toy.cohort, toy.change).sum(axis=1)).ravel()
    found = method.copies @ pooled.values(parameters)
    assert np.allclose(found / found[0], effects / effects[0])


def test_it_attends_to_the_regions_that_matter() -> None:
    method, causal = pooling()
    fitted = method.fit(frozenset())
    best = 1 + len(STEPS) - 1  # the least penalty, all steps
    attention = fitted.attention(best)
    assert np.isclose(attention.mean(), 1)
    assert set(np.argsort(-attention)[:3]) == set(causal)
    assert fitted.score.shape == (300, 1 + len(PENALTIES) * len(STEPS))


def test_nothing_of_held_out_individuals_is_fitted_to() -> None:
    embedding = np.random.default_rng(0).standard_normal((240, 300)).astype(np.float32)
    method, _ = pooling(embedding)
    people = method.individuals
    before = method.fit(frozenset({2})).candidates(people.fold == 2).score
    changed = people.phenotype.copy()
    changed[people.fold == 2] = 1 - changed[people.fold == 2]
    object.__setattr__(people, "phenotype", changed)
    after = method.fit(frozenset({2})).candidates(people.fold == 2).score
    assert np.array_equal(before, after)
