"""Elastic net on sums over regions, with unpenalised covariates (Zou and Hastie 2005).

By the theorem of Frisch, Waugh and Lovell, the penalised weights are those of the same regression after covariates are
projected out of the regions and of the phenotype. What that takes are sums of products over individuals, which are made
once for each fold and added up for each set of training folds. Squared loss also for cases and controls: near a
probability of 0.5 it is the logistic one but for a factor, and calibration, which is logistic, takes care of the rest.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import enet_path

from genebert.risk.design import Individuals, Numbers
from genebert.risk.models import Candidates, Fitted, Method

RATIOS = (0.1, 0.5, 0.95)
"""Shares of the L1 penalty that are tried."""
FRACTIONS = np.geomspace(1, 0.02, 15)
"""Penalties that are tried, as fractions of the least one at which all weights are 0."""
SCALES = (0.0, 1.0)
"""Powers of a region's standard deviation that it is divided by before: it is penalised as it is, or standardised."""
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Moments:
    """Sums of products over individuals, of covariates c, regions x and the phenotype y; they add up over folds."""

    cc: Numbers
    cx: Numbers
    cy: Numbers
    xx: Numbers
    xy: Numbers
    yy: float

    @classmethod
    def of(cls, c: Numbers, x: Numbers, y: Numbers) -> "Moments":
        """Return the sums of m individuals; c: shape (m, covariates), x: shape (m, regions), y: shape (m,)."""
        return cls(c.T @ c, c.T @ x, c.T @ y, x.T @ x, x.T @ y, float(y @ y))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


class RegionNet(Method):
    """Elastic net on one of several tables of region effects, whichever predicts best within the training folds.

    Args:
        individuals: n of them.
        tables: name -> float64, shape (n, regions).
    """

    def __init__(self, individuals: Individuals, tables: Mapping[str, csr_matrix]) -> None:
        self.individuals = individuals
        self.tables = tables
        parts = [individuals.fold == k for k in range(individuals.folds)]
        self._moments = [
            [
                Moments.of(individuals.covariates[rows], table[rows].toarray(), individuals.phenotype[rows])
                for rows in parts
            ]
            for table in tables.values()
        ]

    def fit(self, held_out: frozenset[int]) -> "FittedRegionNet":
        """Fit all candidates: each table, scale, share of L1 and penalty."""
        kept = [k for k in range(self.individuals.folds) if k not in held_out]
        sums = [reduce(Moments.__add__, [each[k] for k in kept]) for each in self._moments]
        inverse = np.linalg.pinv(sums[0].cc, hermitian=True)  # a covariate may not vary in these folds
        bases = [inverse @ one.cx for one in sums]
        weights = [_paths(one, base) for one, base in zip(sums, bases, strict=True)]
        return FittedRegionNet(self, weights, bases, inverse @ sums[0].cy)


@dataclass(frozen=True)
class FittedRegionNet(Fitted):
    """Weights of regions for every candidate; candidates of the first table come first.

    Attributes:
        method: with the tables.
        weights: per table, shape (regions, its candidates).
        bases: coefficients of covariates for the regions of each table, shape (covariates, regions).
        base: coefficients of covariates for the phenotype, shape (covariates,).
    """

    method: RegionNet
    weights: Sequence[Numbers]
    bases: Sequence[Numbers]
    base: Numbers

    def candidates(self, rows: NDArray[np.bool_]) -> Candidates:
        """Return scores and squared errors."""
        c = self.method.individuals.covariates[rows]
        parts = [
            table[rows] @ weights - c @ (base @ weights)
            for table, weights, base in zip(self.method.tables.values(), self.weights, self.bases, strict=True)
        ]
        score = np.concatenate(parts, axis=1)
        rest = self.method.individuals.phenotype[rows] - c @ self.base
        return Candidates(score, (rest[:, None] - score) ** 2)

    def chosen(self, candidate: int) -> tuple[str, Numbers]:
        """Return the table that a candidate takes, and its weights, shape (regions,)."""
        names, per = list(self.method.tables), self.weights[0].shape[1]
        return names[candidate // per], self.weights[candidate // per][:, candidate % per]


def _paths(sums: Moments, base: Numbers) -> Numbers:
    """Return the weights of one table's candidates: shape (regions, scales x ratios x fractions)."""
    gram = sums.xx - sums.cx.T @ base
    target = sums.xy - base.T @ sums.cy
    size = max(sums.yy - float(sums.cy @ np.linalg.pinv(sums.cc, hermitian=True) @ sums.cy), 0.0)
    spread = np.sqrt(np.maximum(np.diagonal(gram), 0))
    varies = spread > 1e-6 * max(float(spread.max(initial=0)), 1e-12)
    found = []
    for scale in SCALES:
        factor = np.where(varies, 1 / np.where(varies, spread, 1) ** scale, 0)
        scaled = gram * factor[:, None] * factor
        found += [factor[:, None] * elastic_net(scaled, target * factor, size, ratio) for ratio in RATIOS]
    return np.concatenate(found, axis=1)


def elastic_net(
    gram: Numbers, target: Numbers, size: float, ratio: float, fractions: Numbers = FRACTIONS, tol: float = _TOLERANCE
) -> Numbers:
    """Return the w that minimise |y - X w|^2 / 2 + a (ratio |w|_1 + (1 - ratio) |w|^2 / 2): shape (p, penalties).

    Args:
        gram: X'X, shape (p, p).
        target: X'y, shape (p,).
        size: y'y.
        ratio: share of the L1 penalty.
        fractions: penalties a, over the least one at which all weights are 0; descending.
        tol: of the duality gap, over y'y.
    """
    most = float(np.abs(target).max(initial=0)) / ratio
    if most == 0:
        return np.zeros((len(target), len(fractions)))
    stand_in = np.zeros(
        (1, len(target))
    )  # given the products, of X only the shape is read: one row, so that a is as is
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at weak penalties, which cross-validation judges anyway
        return enet_path(
            stand_in,
            np.array([np.sqrt(size)]),
            l1_ratio=ratio,
            alphas=most * fractions,
            precompute=np.ascontiguousarray(gram),
            Xy=np.ascontiguousarray(target),
            check_input=False,
            tol=tol,
        )[1]
