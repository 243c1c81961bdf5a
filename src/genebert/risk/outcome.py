"""From scores to calibrated risk, or to predicted values: regression on covariates and out-of-fold scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from genebert.risk.design import Individuals, Numbers
from genebert.risk.models import Scores
from genebert.risk.phenotypes import Trait

_RIDGE = 1e-6
"""Keeps coefficients finite where covariates separate cases from controls."""


@dataclass(frozen=True)
class Outcome:
    """A regression of the phenotype, logistic for cases and controls.

    Attributes:
        trait: whether they are cases and controls.
        coefficients: of covariates, then of scores, which are not negative: shape (c + s,).
    """

    trait: Trait
    coefficients: Numbers

    @classmethod
    def fit(cls, trait: Trait, covariates: Numbers, scores: Numbers, values: Numbers) -> "Outcome":
        """Fit it to m individuals.

        Cases and controls count as a little less than 1 and more than 0, as Platt (1999) has it, so that probabilities
        do not become 0 and 1 where scores happen to divide these individuals without error.

        Args:
            trait: whether they are cases and controls.
            covariates: with a column of ones, shape (m, c).
            scores: of models that saw neither these individuals nor those to be predicted, shape (m, s).
            values: phenotypes, shape (m,).
        """
        size = scores.std(axis=0)
        unit = np.concatenate([np.ones(covariates.shape[1]), np.where(size > 0, size, 1)])
        centre, scale = (0.0, 1.0) if trait == "binary" else (float(values.mean()), float(values.std()) or 1.0)
        x, y = np.concatenate([covariates, scores], axis=1) / unit, (values - centre) / scale
        if trait == "binary":
            cases = values.sum()
            y = np.where(values == 1, (cases + 1) / (cases + 2), 1 / (len(values) - cases + 2))

        def loss(b: Numbers) -> tuple[float, Numbers]:
            linear = x @ b
            binary = trait == "binary"
            each = np.logaddexp(0, linear) - y * linear if binary else (y - linear) ** 2 / 2
            slope = (expit(linear) if binary else linear) - y
            return float(each.mean() + _RIDGE * b @ b / 2), x.T @ slope / len(y) + _RIDGE * b

        bounds = [(None, None)] * covariates.shape[1] + [(0.0, None)] * scores.shape[1]
        options = {"ftol": 1e-13, "gtol": 1e-9, "maxiter": 1000}
        found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
        found = found * scale / unit
        found[0] += centre
        return cls(trait, found)

    def predict(self, covariates: Numbers, scores: Numbers) -> Numbers:
        """Return probabilities of being a case, or values: shape (m,); see `fit`."""
        linear = np.concatenate([covariates, scores], axis=1) @ self.coefficients
        return expit(linear) if self.trait == "binary" else linear


def outcome_of(individuals: Individuals, methods: Sequence[Scores], fold: int) -> Outcome:
    """Return the regression of an outer fold, fitted to the other folds, with scores of models that saw neither."""
    rows = individuals.fold != fold
    scores = _columns([one.inner[fold] for one in methods], len(individuals))
    return Outcome.fit(individuals.trait, individuals.covariates[rows], scores[rows], individuals.phenotype[rows])


def predictions(individuals: Individuals, methods: Sequence[Scores]) -> Numbers:
    """Return out-of-fold risks, or values, by covariates and the scores of methods together: shape (n,).

    Args:
        individuals: n of them.
        methods: none, for covariates only; one, to calibrate it; or several, to stack them (Wolpert 1992), with weights
            that are not negative (Breiman 1996).
    """
    found = np.empty(len(individuals))
    scores = _columns([one.outer for one in methods], len(individuals))
    for k in range(individuals.folds):
        rows = individuals.fold == k
        found[rows] = outcome_of(individuals, methods, k).predict(individuals.covariates[rows], scores[rows])
    return found


def _columns(scores: Sequence[Numbers], n: int) -> Numbers:
    return np.stack(scores, axis=1) if scores else np.empty((n, 0))
