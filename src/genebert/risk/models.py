"""How models of risk are fitted, and chosen among, by nested cross-validation.

The inner folds of an outer fold are the other outer folds. A model that saw neither of two folds thus serves the inner
validation of both, so that K folds take K (K - 1) / 2 fits of inner models and K of outer ones.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from genebert.risk.design import Individuals, Numbers


@dataclass(frozen=True)
class Candidates:
    """What the candidates of a method (its penalties) say about m individuals.

    Attributes:
        score: what is added to the linear predictor, free of what covariates tell, shape (m, candidates).
        loss: shape (m, candidates).
    """

    score: Numbers
    loss: Numbers


class Fitted(ABC):
    """A method, fitted with all of its candidates."""

    @abstractmethod
    def candidates(self, rows: NDArray[np.bool_]) -> Candidates:
        """Return what they say about some individuals; rows: bool, shape (n,)."""


class Method(ABC):
    """A method of risk prediction, bound to the individuals that it is fitted to."""

    @abstractmethod
    def fit(self, held_out: frozenset[int]) -> Fitted:
        """Fit it to the individuals outside some folds; the candidates are the same, and in the same order, each time.

        Args:
            held_out: the folds that are not looked at.
        """


@dataclass(frozen=True)
class Scores:
    """Scores of n individuals by models that saw neither them nor their relatives.

    Attributes:
        outer: by the model that saw all other folds, shape (n,).
        inner: `inner[k, i]` is by a model that saw neither fold k nor that of individual i; NaN in fold k itself;
            shape (folds, n).
        chosen: the candidate with the lowest inner loss, of each outer fold.
        fitted: the model of each outer fold.
        best: the candidate with the lowest loss over all folds, for a model of all individuals.
    """

    outer: Numbers
    inner: Numbers
    chosen: list[int]
    fitted: list[Fitted]
    best: int


def cross_validate(method: Method, individuals: Individuals, done: Callable[[], None] = lambda: None) -> Scores:
    """Fit a method without each fold and each pair of folds, and choose among its candidates within the other folds.

    Args:
        method: bound to the individuals.
        individuals: with their folds.
        done: called after every fit.
    """
    folds, fold = individuals.folds, individuals.fold
    inner: dict[tuple[int, int], Candidates] = {}  # (outer fold, inner fold) -> of the inner fold
    for pair in combinations(range(folds), 2):
        fitted = method.fit(frozenset(pair))
        for own, other in (pair, pair[::-1]):
            inner[own, other] = fitted.candidates(fold == other)
        done()
    outer = np.empty(len(fold))
    within = np.full((folds, len(fold)), np.nan)
    models, chosen, losses = [], [], []
    for k in range(folds):
        others = [j for j in range(folds) if j != k]
        best = int(sum(inner[k, j].loss.sum(axis=0) for j in others).argmin())
        for j in others:
            within[k, fold == j] = inner[k, j].score[:, best]
        models.append(method.fit(frozenset({k})))
        found = models[-1].candidates(fold == k)
        outer[fold == k] = found.score[:, best]
        losses.append(found.loss.sum(axis=0))
        chosen.append(best)
        done()
    return Scores(outer, within, chosen, models, int(np.sum(losses, axis=0).argmin()))


def fits(folds: int) -> int:
    """Return how many fits `cross_validate` takes."""
    return folds * (folds - 1) // 2 + folds


def basis_of(covariates: Numbers) -> Numbers:
    """Return an orthonormal basis of what covariates, shape (n, c), span: shape (n, rank)."""
    left, size, _ = np.linalg.svd(covariates, full_matrices=False)
    return left[:, size > 1e-9 * size[0]]


def coefficients(covariates: Numbers, values: Numbers) -> Numbers:
    """Return the least-squares coefficients of covariates, shape (n, c), for values, shape (n,) or (n, k)."""
    return np.asarray(np.linalg.lstsq(covariates, values, rcond=None)[0], dtype=np.float64)
