"""Attention over regions: one direction of change that matters, and how much each region's change counts.

The score of an individual is the sum over its haplotypes h of a[region of h] (E[h] . w): E[h] is what h changes in the
network's states and log-odds, w the direction that matters, the same in all regions, and a = regions x softmax(logits)
the attention, 1 on average. This is attention pooling with a learned logit per region (Ilse et al. 2018), of sums
instead of means, as to carry nothing is to score 0. Against a free weight per region and state, it has regions + states
parameters, and says which regions count. Where logits are held near 0, all regions count alike, and what matters is
learned from all of them together.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import softmax

from genebert.haplotypes import CohortHaplotypes
from genebert.risk.design import Individuals, Numbers, one_hot
from genebert.risk.models import Candidates, Fitted, Method, basis_of, coefficients

STATES = 16
"""Most dimensions that changes of the network's states are reduced to."""
PENALTIES = (0.03, 0.3, 3.0)
"""Penalties on the logits that are tried."""
STEPS = (3, 10, 40)
"""Numbers of steps that are tried: early stopping, judged within the training folds."""
_DIRECTION_PENALTY = 0.01
_PROJECTED = 256


class AttentionPooling(Method):
    """Attention pooling of haplotype changes over regions.

    Args:
        individuals: n of them.
        cohort: their haplotypes.
        change: of log-odds, of each haplotype, float64, shape (haplotypes,).
        embedding: change of the network's states, float32, shape (haplotypes, width), or None; where it is wide, a
            random projection of it, which looks at no individual, stands for it.
    """

    def __init__(
        self, individuals: Individuals, cohort: CohortHaplotypes, change: Numbers, embedding: NDArray[np.float32] | None
    ) -> None:
        self.individuals = individuals
        self.copies = csr_matrix(cohort.copies, dtype=np.float64)
        region = cohort.haplotypes["region"].to_numpy(np.int64)
        self.region_of = one_hot(region, np.ones(len(region)), len(cohort.regions))
        self.change = np.stack([change, np.abs(change)], axis=1)
        self.states = None if embedding is None else _narrowed(embedding)

    def fit(self, held_out: frozenset[int]) -> "FittedAttention":
        """Fit all candidates: no score at all, then each penalty with each number of steps."""
        people = self.individuals
        train = people.outside(held_out)
        c, base = people.covariates[train], coefficients(people.covariates[train], people.phenotype[train])
        rest = people.phenotype[train] - c @ base
        pooled = Pooled.of(self.copies[train], self.region_of, self._features(train), basis_of(c), rest)
        logits = [np.zeros((self.region_of.shape[1], 1))]
        values = [np.zeros((self.region_of.shape[0], 1))]
        for penalty in PENALTIES:
            for parameters in pooled.steps(penalty):
                logits.append(parameters[: pooled.regions, None])
                values.append(pooled.values(parameters)[:, None])
        carried = self.copies @ np.concatenate(values, axis=1)
        score = carried - people.covariates @ coefficients(c, carried[train])
        return FittedAttention(people, score, base, np.concatenate(logits, axis=1))

    def _features(self, train: NDArray[np.bool_]) -> Numbers:
        """Return what each haplotype changes: the log-odds, their size, and the principal axes of the states.

        The axes are those of the haplotypes that training individuals carry, without centring: no change is 0.
        """
        if self.states is None:
            return self.change
        weight = np.asarray(self.copies[train].sum(axis=0)).ravel()
        _, axes = np.linalg.eigh((self.states * weight[:, None]).T @ self.states)
        return np.concatenate([self.change, self.states @ axes[:, ::-1][:, :STATES]], axis=1)


def _narrowed(embedding: NDArray[np.float32]) -> Numbers:
    width = embedding.shape[1]
    if width <= _PROJECTED:
        return embedding.astype(np.float64)
    projection = np.random.default_rng(0).standard_normal((width, _PROJECTED), dtype=np.float32)
    return (embedding @ projection).astype(np.float64)


@dataclass(frozen=True)
class Pooled:
    """The training individuals, and features of haplotypes in units in which they explain the phenotype.

    Attributes:
        copies: of haplotypes, shape (m, haplotypes).
        region_of: one 1 in each row, shape (haplotypes, regions).
        features: of haplotypes, shape (haplotypes, features); their sums over an individual's haplotypes are as large
            as the phenotype is, covariates projected out of both.
        basis: of the covariates, orthonormal, shape (m, covariates).
        rest: what covariates do not explain of the phenotype, shape (m,).
    """

    copies: csr_matrix
    region_of: csr_matrix
    features: Numbers
    basis: Numbers
    rest: Numbers

    @classmethod
    def of(
        cls, copies: csr_matrix, region_of: csr_matrix, features: Numbers, basis: Numbers, rest: Numbers
    ) -> "Pooled":
        """Return them with features in these units."""
        sums = copies @ features
        size = np.linalg.norm(sums - basis @ (basis.T @ sums), axis=0)
        varies = size > 1e-9 * max(float(size.max(initial=0)), 1e-12)
        factor = np.where(varies, np.linalg.norm(rest) / np.where(varies, size, 1), 0)
        return cls(copies, region_of, features * factor, basis, rest)

    @property
    def regions(self) -> int:
        """Number of regions."""
        return self.region_of.shape[1]

    def values(self, parameters: Numbers) -> Numbers:
        """Return what each haplotype adds to the score; parameters: logits, then w."""
        attention = self.regions * softmax(parameters[: self.regions])
        return (self.region_of @ attention) * (self.features @ parameters[self.regions :])

    def loss(self, parameters: Numbers, penalty: float) -> tuple[float, Numbers]:
        """Return half the share of variance that is left, and the penalties, with the gradient."""
        logits, w = parameters[: self.regions], parameters[self.regions :]
        attention = self.regions * softmax(logits)
        near, along = self.region_of @ attention, self.features @ w
        score = self.copies @ (near * along)
        left = self.rest - (score - self.basis @ (self.basis.T @ score))
        whole = float(self.rest @ self.rest)
        loss = left @ left / whole + penalty * (logits @ logits) / self.regions + _DIRECTION_PENALTY * (w @ w)
        slope = -(self.copies.T @ left) / whole
        by_region = attention * (self.region_of.T @ (slope * along))
        by_logit = by_region - attention * by_region.sum() / self.regions + penalty * logits / self.regions
        by_w = self.features.T @ (slope * near) + _DIRECTION_PENALTY * w
        return float(loss / 2), np.concatenate([by_logit, by_w])

    def steps(self, penalty: float) -> list[Numbers]:
        """Return the parameters after each number of steps of L-BFGS from even attention, for which w is exact."""
        sums = self.copies @ self.features
        sums -= self.basis @ (self.basis.T @ sums)
        whole = float(self.rest @ self.rest)
        ridge = sums.T @ sums / whole + _DIRECTION_PENALTY * np.eye(sums.shape[1])
        start = np.concatenate([np.zeros(self.regions), np.linalg.solve(ridge, sums.T @ self.rest / whole)])
        visited: list[Numbers] = []
        options = {"maxiter": max(STEPS), "ftol": 1e-9, "gtol": 1e-7}
        minimize(
            self.loss,
            start,
            args=(penalty,),
            jac=True,
            method="L-BFGS-B",
            options=options,
            callback=lambda at: visited.append(at.copy()),
        )
        return [visited[min(steps, len(visited)) - 1] if visited else start for steps in STEPS]


@dataclass(frozen=True)
class FittedAttention(Fitted):
    """Scores of n individuals, and the logits of regions, for every candidate.

    Attributes:
        individuals: n of them.
        score: shape (n, candidates).
        base: coefficients of covariates for the phenotype, shape (covariates,).
        logits: shape (regions, candidates).
    """

    individuals: Individuals
    score: Numbers
    base: Numbers
    logits: Numbers

    def candidates(self, rows: NDArray[np.bool_]) -> Candidates:
        """Return scores and squared errors."""
        rest = self.individuals.phenotype[rows] - self.individuals.covariates[rows] @ self.base
        return Candidates(self.score[rows], (rest[:, None] - self.score[rows]) ** 2)

    def attention(self, candidate: int) -> Numbers:
        """Return the attention of regions, 1 on average, shape (regions,)."""
        return len(self.logits) * softmax(self.logits[:, candidate])
