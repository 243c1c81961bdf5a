"""Elastic net on sums over regions, with unpenalised covariates (Zou and Hastie 2005).

By the theorem of Frisch, Waugh and Lovell, the penalised weights are those of the same regression after covariates are
projected out of the regions and of the phenotype. What that takes are sums of products over individuals, which are made
once for each fold and added up for each set of training folds. Squared loss also for cases and controls: near a
probability of 0.5 it is the logistic one but for a factor, and calibration, which is logistic, takes care of the rest.
What covariates leave of the phenotype counts in its standard deviations, so that weights do not depend on its unit.
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

from genebert.errors import UserError, problem
from genebert.risk.design import Individuals, Numbers
from genebert.risk.models import Candidates, Fitted, Method, coefficients

RATIOS = (0.1, 0.5, 0.95)
"""Shares of the L1 penalty that are tried."""
FRACTIONS = np.geomspace(1, 0.02, 15)
"""Penalties that are tried, as fractions of the least one at which all weights are 0."""
SCALES = (0.0, 1.0)
"""Powers of a region's standard deviation that it is divided by before: it is penalised as it is, or standardised."""
MOST_GB = 16.0
"""The most memory that the elastic net may take, in 10^9 bytes."""
_TOLERANCE = 1e-3
_SUMS = 4  # matrices of regions x regions that a fit holds beside those of the folds


@dataclass(frozen=True)
class Moments:
    """Sums of products over individuals, of covariates c and regions x; they add up over folds."""

    cc: Numbers
    cx: Numbers
    xx: Numbers

    @classmethod
    def of(cls, c: Numbers, x: Numbers) -> "Moments":
        """Return the sums of m individuals; c: shape (m, covariates), x: shape (m, regions)."""
        return cls(c.T @ c, c.T @ x, x.T @ x)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


class RegionNet(Method):
    """Elastic net on one of several tables of region effects, whichever predicts best within the training folds.

    Regions that nobody carries take no part, and have weight 0.

    Args:
        individuals: n of them.
        tables: name -> float64, shape (n, regions).
    """

    def __init__(self, individuals: Individuals, tables: Mapping[str, csr_matrix]) -> None:
        self.individuals = individuals
        self.tables = tables
        self._carried = [np.unique(table.nonzero()[1]) for table in tables.values()]
        parts = [individuals.fold == k for k in range(individuals.folds)]
        self._moments = [
            [Moments.of(individuals.covariates[rows], table[rows][:, carried].toarray()) for rows in parts]
            for table, carried in zip(tables.values(), self._carried, strict=True)
        ]

    def fit(self, held_out: frozenset[int]) -> "FittedRegionNet":
        """Fit all candidates: each table, scale, share of L1 and penalty."""
        people = self.individuals
        train = people.outside(held_out)
        base = coefficients(people.covariates[train], people.phenotype[train])
        rest = people.phenotype[train] - people.covariates[train] @ base
        kept = [k for k in range(people.folds) if k not in held_out]
        weights, told = [], []
        for table, carried, moments in zip(self.tables.values(), self._carried, self._moments, strict=True):
            sums = reduce(Moments.__add__, [moments[k] for k in kept])
            near = np.linalg.pinv(sums.cc, hermitian=True) @ sums.cx  # a covariate may not vary in these folds
            found = _paths(sums.xx - sums.cx.T @ near, (table[train].T @ rest)[carried], rest)
            told.append(near @ found)
            weights.append(np.zeros((table.shape[1], found.shape[1])))
            weights[-1][carried] = found
        return FittedRegionNet(people, self.tables, weights, told, base)


@dataclass(frozen=True)
class FittedRegionNet(Fitted):
    """Weights of regions for every candidate; candidates of the first table come first.

    Attributes:
        individuals, tables: see `RegionNet`, whose sums of products are not kept.
        weights: per table, shape (regions, its candidates).
        told: what covariates tell about the scores, per table, shape (covariates, its candidates).
        base: coefficients of covariates for the phenotype, shape (covariates,).
    """

    individuals: Individuals
    tables: Mapping[str, csr_matrix]
    weights: Sequence[Numbers]
    told: Sequence[Numbers]
    base: Numbers

    def candidates(self, rows: NDArray[np.bool_]) -> Candidates:
        """Return scores and squared errors."""
        c = self.individuals.covariates[rows]
        parts = [
            table[rows] @ weights - c @ told
            for table, weights, told in zip(self.tables.values(), self.weights, self.told, strict=True)
        ]
        score = np.concatenate(parts, axis=1)
        rest = self.individuals.phenotype[rows] - c @ self.base
        return Candidates(score, (rest[:, None] - score) ** 2)

    def chosen(self, candidate: int) -> tuple[str, Numbers]:
        """Return the table that a candidate takes, and its weights, shape (regions,)."""
        names, per = list(self.tables), self.weights[0].shape[1]
        return names[candidate // per], self.weights[candidate // per][:, candidate % per]


def check_memory(regions: int, tables: int, folds: int) -> None:
    """Check that sums of products of regions fit into memory.

    Args:
        regions: those that anybody carries.
        tables: of effects.
        folds: of individuals.

    Raises:
        UserError: they would take more than `MOST_GB`.
    """
    needed = 8e-9 * (tables * folds + _SUMS) * regions**2
    if needed > MOST_GB:
        what = f"the elastic net on {regions:,} regions that individuals carry changes in would take {needed:,.0f} GB"
        what += f" of memory, and may take {MOST_GB:g}"
        remedy = "Give fewer regions with --regions, or fewer --cell-types, whose accessible regions are read."
        raise UserError(problem("regions", what, remedy))


def _paths(gram: Numbers, target: Numbers, rest: Numbers) -> Numbers:
    """Return the weights of one table's candidates: shape (regions, scales x ratios x fractions).

    Args:
        gram: X'X, covariates projected out, shape (regions, regions).
        target: X'y, shape (regions,).
        rest: what covariates leave of the phenotype y, shape (individuals,).
    """
    size, n = float(rest @ rest), len(rest)
    unit = np.sqrt(size / n) or 1.0
    spread = np.sqrt(np.maximum(np.diagonal(gram), 0))
    varies = spread > 1e-6 * max(float(spread.max(initial=0)), 1e-12)
    found = []
    for scale in SCALES:
        factor = np.where(varies, 1 / np.where(varies, spread, 1) ** scale, 0)
        scaled, along = gram * factor[:, None] * factor, target * factor / unit
        found += [unit * factor[:, None] * elastic_net(scaled, along, float(n), ratio) for ratio in RATIOS]
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
