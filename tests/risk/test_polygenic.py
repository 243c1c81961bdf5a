"""The polygenic score is scikit-learn's ridge, or logistic regression, on explicit dosages."""

import numpy as np
import pytest
from scipy.sparse import csc_matrix
from sklearn.linear_model import LogisticRegression, Ridge

from genebert.risk.design import Genotypes, Standardised
from genebert.risk.polygenic import HERITABILITIES, LOGISTIC_VARIANCE, ridge_path


def genotypes_of(n: int = 120, variants: int = 200) -> Genotypes:
    generator = np.random.default_rng(0)
    dosage = generator.binomial(2, generator.uniform(0.02, 0.4, variants), size=(n, variants)).astype(float)
    missing = generator.random((n, variants)) < 0.05
    dosage[missing] = 0
    known = 2.0 * (n - missing.sum(axis=0))
    return Genotypes(np.arange(variants), csc_matrix(dosage), csc_matrix(missing.astype(float)), known)


def explicit(genotypes: Genotypes, train: np.ndarray) -> np.ndarray:
    """Standardise on training individuals, missing ones at their mean."""
    dosage, missing = genotypes.dosage.toarray(), genotypes.missing.toarray() > 0
    known = np.where(missing, np.nan, dosage)
    filled = np.where(missing, np.nanmean(known[train], axis=0), dosage)
    spread = filled[train].std(axis=0)
    return (filled - filled[train].mean(axis=0)) / np.where(spread > 0, spread, np.inf)


def test_dosages_are_standardised_on_training_individuals_without_being_dense() -> None:
    genotypes = genotypes_of()
    train = np.arange(120) < 90
    wanted = explicit(genotypes, train)
    found = Standardised.of(genotypes, train)
    generator = np.random.default_rng(1)
    weights, values = generator.standard_normal(200), generator.standard_normal(120)
    assert np.allclose(found.times(weights), wanted @ weights)
    assert np.allclose(found.transposed_times(values), wanted.T @ values)
    assert np.allclose(found.rows(~train).times(weights), wanted[~train] @ weights)


@pytest.mark.parametrize("index", [1, 4, len(HERITABILITIES)])
def test_a_number_is_predicted_as_by_ridge_regression(index: int) -> None:
    genotypes = genotypes_of()
    everyone = np.ones(120, dtype=bool)
    x = explicit(genotypes, everyone)
    generator = np.random.default_rng(2)
    y = x[:, :5].sum(axis=1) + 2 * generator.standard_normal(120) + 7
    weights, bases = ridge_path(Standardised.of(genotypes, everyone), np.ones((120, 1)), y, "quantitative")
    h = HERITABILITIES[index - 1]
    wanted = Ridge(alpha=200 * (1 - h) / h).fit(x, y)
    assert np.allclose(weights[:, index], wanted.coef_, atol=1e-3 * np.abs(wanted.coef_).max())
    assert np.isclose(bases[0, index], wanted.intercept_)


@pytest.mark.parametrize("index", [1, 4, len(HERITABILITIES)])
def test_cases_are_predicted_as_by_logistic_regression(index: int) -> None:
    genotypes = genotypes_of()
    everyone = np.ones(120, dtype=bool)
    x = explicit(genotypes, everyone)
    y = (x[:, :5].sum(axis=1) + np.random.default_rng(2).standard_normal(120) > 0).astype(float)
    weights, bases = ridge_path(Standardised.of(genotypes, everyone), np.ones((120, 1)), y, "binary")
    h = HERITABILITIES[index - 1]
    penalty = 200 * (1 - h) / h / LOGISTIC_VARIANCE
    wanted = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10_000).fit(x, y)
    assert np.allclose(weights[:, index], wanted.coef_[0], atol=1e-3 * np.abs(wanted.coef_).max())
    assert np.isclose(bases[0, index], wanted.intercept_[0], atol=1e-3)


def test_the_first_candidate_has_no_score() -> None:
    genotypes = genotypes_of()
    y = np.tile([0.0, 1.0], 60)
    weights, bases = ridge_path(Standardised.of(genotypes, np.ones(120, dtype=bool)), np.ones((120, 1)), y, "binary")
    assert not weights[:, 0].any()
    assert np.isclose(bases[0, 0], 0, atol=1e-6)
