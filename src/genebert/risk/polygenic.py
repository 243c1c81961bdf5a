"""Polygenic score: L2-penalised regression on the dosages of all variants, logistic for cases and controls."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from genebert.risk.design import Genotypes, Individuals, Numbers, Standardised
from genebert.risk.models import Candidates, Fitted, Method, coefficients
from genebert.risk.phenotypes import Trait

HERITABILITIES = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
"""Penalties that are tried, as the share of variance for which they are the best ones if all variants have effects."""
LOGISTIC_VARIANCE = np.pi**2 / 3
_OPTIONS = {"maxiter": 300, "maxcor": 20, "ftol": 1e-10, "gtol": 1e-4}


class PolygenicScore(Method):
    """Ridge regression on standardised dosages, with unpenalised covariates.

    Dosages stay sparse and are centred implicitly; a missing one counts as the mean of the training individuals.

    Args:
        individuals: n of them.
        genotypes: of these.
    """

    def __init__(self, individuals: Individuals, genotypes: Genotypes) -> None:
        self.individuals = individuals
        self.genotypes = genotypes

    def fit(self, held_out: frozenset[int]) -> "FittedPolygenicScore":
        """Fit all candidates, from the strongest penalty on; the first has no score at all."""
        people = self.individuals
        train = people.outside(held_out)
        table = Standardised.of(self.genotypes, train)
        dosage, c, y = table.rows(train), people.covariates[train], people.phenotype[train]
        weights, bases = ridge_path(dosage, c, y, people.trait)
        told = coefficients(c, dosage.times(weights))
        return FittedPolygenicScore(people, table, weights, bases, told)


@dataclass(frozen=True)
class FittedPolygenicScore(Fitted):
    """Weights of variants for every candidate.

    Attributes:
        individuals: n of them.
        table: their dosages.
        weights: shape (variants, candidates).
        bases: coefficients of the covariates beside them, shape (covariates, candidates).
        told: what covariates tell about the scores, shape (covariates, candidates).
    """

    individuals: Individuals
    table: Standardised
    weights: Numbers
    bases: Numbers
    told: Numbers

    def candidates(self, rows: NDArray[np.bool_]) -> Candidates:
        """Return scores, and nats or squared errors."""
        c, y = self.individuals.covariates[rows], self.individuals.phenotype[rows, None]
        score = self.table.rows(rows).times(self.weights)
        linear = score + c @ self.bases
        loss = np.logaddexp(0, linear) - y * linear if self.individuals.trait == "binary" else (y - linear) ** 2
        return Candidates(score - c @ self.told, loss)


def ridge_path(dosage: Standardised, covariates: Numbers, values: Numbers, trait: Trait) -> tuple[Numbers, Numbers]:
    """Return the weights of variants and the coefficients of covariates for each penalty, the first without weights.

    What is minimised is the sum of nats, or of half the squared errors, and half the penalty times the squared weights,
    over weights times the root of the penalty, in which it is well conditioned, by L-BFGS. Numbers are standardised
    before, and weights scaled back, as what L-BFGS stops at is absolute.

    Args:
        dosage: of m individuals and p variants.
        covariates: a column of ones first, shape (m, c).
        values: phenotypes, shape (m,).
        trait: whether they are 0 and 1.

    Returns:
        shape (p, 1 + penalties), and shape (c, 1 + penalties).
    """
    binary, columns, variants = trait == "binary", covariates.shape[1], len(dosage.shift)
    unit = np.sqrt(len(values) * (0.25 if binary else 1.0))
    noise = 1 / LOGISTIC_VARIANCE if binary else 1.0
    centre, scale = (0.0, 1.0) if binary else (float(values.mean()), float(values.std()) or 1.0)
    values = (values - centre) / scale

    def loss(parameters: Numbers, root: float) -> tuple[float, Numbers]:
        b, u = parameters[:columns] / unit, parameters[columns:]
        linear = covariates @ b + (dosage.times(u / root) if root else 0)
        if binary:
            each, slope = np.logaddexp(0, linear) - values * linear, expit(linear) - values
        else:
            each, slope = (values - linear) ** 2 / 2, linear - values
        gradient = dosage.transposed_times(slope) / root + u if root else u
        return float(each.sum() + u @ u / 2), np.concatenate([covariates.T @ slope / unit, gradient])

    roots = [0.0, *(float(np.sqrt(max(variants, 1) * (1 - h) / h * noise)) for h in HERITABILITIES)]
    start = np.zeros(columns + variants)
    weights, bases = np.zeros((variants, len(roots))), np.zeros((columns, len(roots)))
    for i, root in enumerate(roots):
        found = minimize(loss, start, args=(root,), jac=True, method="L-BFGS-B", options=_OPTIONS).x
        bases[:, i] = found[:columns] / unit
        if root:
            weights[:, i] = found[columns:] / root
        following = roots[min(i + 1, len(roots) - 1)]
        start = np.concatenate([found[:columns], weights[:, i] * following])
    bases *= scale
    bases[0] += centre
    return weights * scale, bases
