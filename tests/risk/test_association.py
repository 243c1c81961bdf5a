from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import false_discovery_control, kstest
from toy_risk import individuals_of, toy_cohort

from genebert.errors import Problems
from genebert.risk.association import LEAST_CARRIERS, associate, false_discovery
from genebert.risk.covariates import Covariates
from genebert.risk.design import Individuals, region_effects


def test_p_is_uniform_where_nothing_is_associated() -> None:
    toy = toy_cohort(n=400, regions=300, causal=1, heritability=0.0, frequency=(0.01, 0.3))
    age = np.random.default_rng(3).standard_normal((400, 1))
    ill = (toy.liability + 2 * age[:, 0] > 0).astype(float)
    found = associate(individuals_of(toy, ill, age), region_effects(toy.cohort, toy.change), 10_000, seed=0)
    assert np.isfinite(found.p).all()
    assert kstest(found.p, "uniform").pvalue > 0.05
    assert (found.q > 0.05).all()


def test_the_statistic_is_the_partial_correlation_and_p_that_of_all_permutations() -> None:
    generator = np.random.default_rng(0)
    toy = toy_cohort(n=60, regions=3, frequency=(0.1, 0.3))
    age = generator.standard_normal((60, 1))
    people = individuals_of(toy, covariates=age)
    effects = region_effects(toy.cohort, toy.change)
    found = associate(people, effects, 20_000, seed=0)
    projection = np.eye(60) - people.covariates @ np.linalg.pinv(people.covariates)
    y = projection @ people.phenotype
    for i, x in enumerate((projection @ effects.toarray()).T):
        assert np.isclose(found.correlation[i], np.corrcoef(x, y)[0, 1])
        drawn = [abs(np.corrcoef(x, projection @ generator.permutation(y))[0, 1]) for _ in range(4000)]
        wanted = (np.array(drawn) >= abs(found.correlation[i])).mean()
        assert abs(found.p[i] - wanted) < 4 * np.sqrt(wanted * (1 - wanted) * 2 / 1000) + 1e-3


def test_sparse_or_not_is_the_same_and_the_same_seed_gives_the_same_p() -> None:
    toy = toy_cohort(n=200, regions=20)
    people, effects = individuals_of(toy), region_effects(toy.cohort, toy.change)
    first, second, third = (associate(people, table, 5000, 1) for table in (effects, effects, effects.toarray()))
    assert np.array_equal(first.p, second.p, equal_nan=True)
    assert np.array_equal(first.p, third.p, equal_nan=True)


def test_strong_effects_get_as_small_a_p_as_there_are_permutations() -> None:
    people = individuals_of(toy_cohort(n=200, regions=2))
    effects = csr_matrix(np.stack([people.phenotype, np.tile([0.0, 1.0, 1.0, 0.0], 50)], axis=1))
    found = associate(people, effects, 20_000, seed=0)
    assert found.p[0] == 1 / 20_001
    assert found.p[1] > 0.01


def test_effects_of_few_carriers_or_known_from_covariates_are_not_tested() -> None:
    people = individuals_of(toy_cohort(n=100, regions=2), covariates=np.arange(100.0)[:, None])
    few = np.zeros(100)
    few[: LEAST_CARRIERS - 1] = 1
    found = associate(people, csr_matrix(np.stack([few, np.arange(100.0), np.arange(100) % 3], axis=1)), 1000, seed=0)
    assert np.isnan(found.p).tolist() == [True, True, False]
    assert found.q[2] == found.p[2]


def test_the_mean_of_a_trait_does_not_matter() -> None:
    people = individuals_of(toy_cohort(n=100, regions=3))
    effects = np.random.default_rng(0).integers(0, 2, (100, 3)).astype(float)
    moved = replace(people, trait="quantitative", phenotype=1e5 + people.phenotype)
    assert np.allclose(associate(moved, effects, 1000, 0).p, associate(people, effects, 1000, 0).p, atol=0.01)


def test_nothing_is_tested_where_covariates_say_all() -> None:
    """What was left was rounding, and regions were associated with it."""
    batch = np.repeat([0, 1, 2], 20)
    covariates = np.column_stack([np.ones(60), batch == 1, batch == 2]).astype(float)
    ill, everyone = (batch > 0).astype(float), np.arange(60)
    people = Individuals([str(i) for i in everyone], "binary", ill, covariates, everyone, everyone)
    carriers = (np.random.default_rng(0).random((60, 200)) < 0.3).astype(float)
    assert np.isnan(associate(people, carriers, 1000, 0).p).all()
    found = Problems("They cannot be used:")
    Covariates(("b2", "b3"), covariates[:, 1:]).check(people.phenotype, found)
    assert found.lines == [
        "covariates b2, b3: together they say the same as the phenotype, so that nothing is left to explain."
        " Leave some of them out."
    ]


def test_false_discovery_rates_are_those_of_scipy() -> None:
    p = np.random.default_rng(0).random(50) ** 3
    assert np.allclose(false_discovery(p), false_discovery_control(p))
    assert np.allclose(false_discovery(np.array([0.01, np.nan, 0.5])), [0.02, np.nan, 0.5], equal_nan=True)


@pytest.mark.slow
def test_causal_regions_come_first() -> None:
    toy = toy_cohort(frequency=(0.01, 0.1))
    found = associate(individuals_of(toy), region_effects(toy.cohort, toy.change), 10_000, seed=0)
    assert np.isin(np.argsort(found.p, kind="stable")[:5], toy.causal).all()
