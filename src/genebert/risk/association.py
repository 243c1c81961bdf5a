"""Is a region, or a TF, associated with the phenotype? A score test with p values by permutation.

The statistic is the partial correlation of the phenotype with the region's effect, covariates projected out of both:
the score test of a linear model. Where few individuals carry an effect it is far from normal, so that p comes from
permutations of the phenotype's residuals, as Freedman and Lane (1983) permute them, of all regions at once. To reach
small p at little cost, permutations go on only for those that fewer than `ENOUGH` of them have surpassed so far
(sequential Monte Carlo, Besag and Clifford 1991). Such p are uniform under the null hypothesis, but for covariates,
whose coefficients are estimated, and are at least 1 / (1 + the most permutations). An approximation by moments would be
cheaper, but is worst where it matters, at effects of few carriers. Families are not looked at: with many relatives, p
is too small.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from genebert.risk.design import Individuals, Numbers
from genebert.risk.models import basis_of

ENOUGH = 10
"""Of so many permutations that surpass it, p is known well enough (to a third of itself)."""
FIRST = 1000
"""Permutations that all regions get; the next rounds make ten times as many, each."""
LEAST_CARRIERS = 5
"""Effects that fewer individuals carry are not tested."""
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Association:
    """Tests of k effects.

    Attributes:
        correlation: partial correlation with the phenotype, shape (k,); NaN where it is not tested.
        p: shape (k,); NaN where it is not tested.
        q: by Benjamini and Hochberg (1995), over those that are tested, shape (k,).
    """

    correlation: Numbers
    p: Numbers
    q: Numbers


def associate(individuals: Individuals, effects: csr_matrix | Numbers, permutations: int, seed: int) -> Association:
    """Test each effect.

    Args:
        individuals: n of them.
        effects: shape (n, k), sparse or not.
        permutations: most of them for one effect.
        seed: of the permutations.
    """
    basis = basis_of(individuals.covariates)
    rest = individuals.phenotype - basis @ (basis.T @ individuals.phenotype)
    by_effect = csr_matrix(effects.T) if isinstance(effects, csr_matrix) else np.ascontiguousarray(effects.T)
    told = by_effect @ basis
    squares = by_effect.multiply(by_effect) if isinstance(by_effect, csr_matrix) else by_effect**2
    whole = np.asarray(squares.sum(axis=1)).ravel()
    left = whole - (told**2).sum(axis=1)
    carriers = np.asarray((by_effect != 0).sum(axis=1)).ravel()
    something = rest @ rest > 1e-9 * individuals.phenotype.var() * len(rest)  # is left to explain
    tested = np.flatnonzero((left > 1e-9 * whole) & (carriers >= LEAST_CARRIERS) & something)
    size = np.sqrt(left[tested])
    correlation, p = np.full(len(whole), np.nan), np.full(len(whole), np.nan)
    correlation[tested] = (by_effect[tested] @ rest) / size / np.linalg.norm(rest)
    generator = np.random.default_rng(seed)
    surpassed, done = np.zeros(len(tested), dtype=np.int64), 0
    open_ = np.arange(len(tested))
    while done < permutations and len(open_):
        count = min(FIRST if not done else 9 * done, permutations - done)
        rows = tested[open_]
        chosen = by_effect[rows]
        limit = np.abs(correlation[rows]) * (1 - 1e-9)  # as large but for rounding counts as surpassed
        for part in _rounds(count, max(len(rest), len(rows))):
            drawn = generator.permuted(np.broadcast_to(rest, (part, len(rest))), axis=1)
            drawn -= (drawn @ basis) @ basis.T
            drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
            found = np.abs(chosen @ np.ascontiguousarray(drawn.T)) / size[open_, None]
            surpassed[open_] += (found >= limit[:, None]).sum(axis=1)
        done += count
        p[rows] = (surpassed[open_] + 1) / (done + 1)
        open_ = open_[surpassed[open_] < ENOUGH]
    return Association(correlation, p, false_discovery(p))


def _rounds(count: int, size: int) -> list[int]:
    """Return numbers of permutations that are held at once, in sum `count`."""
    most = max(1, _AT_ONCE // size)
    return [min(most, count - start) for start in range(0, count, most)]


def false_discovery(p: Numbers) -> NDArray[np.float64]:
    """Return the least false discovery rate at which each p is called (Benjamini and Hochberg 1995); NaN stays."""
    q = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    each = p[order] * len(order) / np.arange(1, len(order) + 1)
    q[order] = np.minimum.accumulate(each[::-1])[::-1].clip(max=1)
    return q
