"""The elastic net from sums over folds is scikit-learn's on residuals."""

import gc
import weakref

import numpy as np
import pytest
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import ElasticNet, LinearRegression
from toy_risk import individuals_of, toy_cohort

from genebert.errors import UserError
from genebert.risk.design import region_effects
from genebert.risk.elastic_net import FRACTIONS, RATIOS, RegionNet, check_memory, elastic_net


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.95])
def test_weights_are_those_of_scikit_learn_on_the_rows(ratio: float) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((80, 15)), generator.standard_normal(80)
    most = np.abs(x.T @ y).max() / ratio
    found = elastic_net(x.T @ x, x.T @ y, float(y @ y), ratio, np.array([1.0, 0.3, 0.05]), tol=1e-10)
    assert np.abs(found[:, 0]).max() < 1e-9
    for weights, fraction in zip(found.T[1:], (0.3, 0.05), strict=True):
        wanted = ElasticNet(most * fraction / 80, l1_ratio=ratio, fit_intercept=False, tol=1e-12, max_iter=100_000)
        assert np.allclose(weights, wanted.fit(x, y).coef_, atol=1e-6)


def test_covariates_are_projected_out_and_not_penalised() -> None:
    toy = toy_cohort(n=300, regions=30, frequency=(0.02, 0.2))
    generator = np.random.default_rng(1)
    age = generator.standard_normal((300, 1))
    people = individuals_of(toy, (toy.liability + 3 * age[:, 0] > 0).astype(float), age)
    effects = region_effects(toy.cohort, toy.change)
    fitted = RegionNet(people, {"change": effects}).fit(frozenset({4}))
    train = people.fold != 4
    c, x, y = people.covariates[train], effects[train].toarray(), people.phenotype[train]
    before = LinearRegression(fit_intercept=False)
    rest_x, rest_y = x - before.fit(c, x).predict(c), y - before.fit(c, y).predict(c)
    number = 2 * len(FRACTIONS) + 8  # a candidate of the third ratio, as it is (not standardised)
    ratio, fraction = RATIOS[2], FRACTIONS[8]
    unit = rest_y.std()
    rest_y = rest_y / unit
    alpha = np.abs(rest_x.T @ rest_y).max() / ratio * fraction / train.sum()
    wanted = ElasticNet(alpha, l1_ratio=ratio, fit_intercept=False, tol=1e-10, max_iter=100_000).fit(rest_x, rest_y)
    table, weights = fitted.chosen(number)
    assert table == "change"
    assert np.count_nonzero(wanted.coef_) > 2
    assert np.allclose(weights / unit, wanted.coef_, atol=0.01 * np.abs(wanted.coef_).max())
    unseen = people.fold == 4
    predicted = before.fit(c, y - x @ weights).predict(people.covariates[unseen]) + effects[unseen] @ weights
    error = fitted.candidates(unseen).loss[:, number]
    assert np.allclose(error, (people.phenotype[unseen] - predicted) ** 2)


def test_a_covariate_that_does_not_vary_in_training_does_no_harm() -> None:
    toy = toy_cohort(n=100, regions=10)
    people = individuals_of(toy)
    rare = (people.fold == 0).astype(float)[:, None]
    people = individuals_of(toy, covariates=rare)
    found = RegionNet(people, {"change": region_effects(toy.cohort, toy.change)}).fit(frozenset({0}))
    assert np.isfinite(found.candidates(people.fold == 0).score).all()


def test_regions_that_nobody_carries_take_no_memory_and_have_no_weight() -> None:
    toy = toy_cohort(n=100, regions=10, frequency=(0.02, 0.2))
    people = individuals_of(toy)
    effects = region_effects(toy.cohort, toy.change)
    wide = csr_matrix(hstack([csr_matrix((100, 100_000)), effects]))  # of which the products would take 80 GB
    narrow, found = (RegionNet(people, {"change": one}).fit(frozenset({1})) for one in (effects, wide))
    assert not found.weights[0][:100_000].any()
    assert np.array_equal(found.weights[0][100_000:], narrow.weights[0])
    assert narrow.weights[0].any()


def test_fitted_models_do_not_keep_the_sums_of_products() -> None:
    toy = toy_cohort(n=50, regions=5)
    net = RegionNet(individuals_of(toy), {"change": region_effects(toy.cohort, toy.change)})
    fitted, alive = net.fit(frozenset({0})), weakref.ref(net)
    del net
    gc.collect()
    assert alive() is None
    assert len(fitted.base) == 1


def test_more_regions_than_memory_allows_are_refused() -> None:
    check_memory(10_000, tables=2, folds=5)
    message = (
        r"on 50,000 regions that .* would take 280 GB of memory, and may take 16. Give fewer regions with --regions"
    )
    with pytest.raises(UserError, match=message):
        check_memory(50_000, tables=2, folds=5)
