"""Folds of individuals for nested cross-validation: relatives are never divided."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from genebert.errors import UserError, problem
from genebert.risk.phenotypes import Phenotypes

QUANTILES = 10
"""Parts of equal size that a number is divided into, to spread it over the folds."""


def folds_of(phenotypes: Phenotypes, group: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Divide individuals into folds with the same mix of phenotypes, as far as groups allow.

    Args:
        phenotypes: of n individuals.
        group: individuals of one group stay together, int64, shape (n,).
        folds: how many.
        seed: of the division.

    Returns:
        the fold of each individual, int64, shape (n,).

    Raises:
        UserError: groups are too few or too large.
    """
    strata = phenotypes.numbers.astype(np.int64)
    if phenotypes.trait == "quantitative":
        rank = np.argsort(np.argsort(phenotypes.numbers, kind="stable"), kind="stable")
        strata = rank * min(QUANTILES, len(rank) // folds) // len(rank)
    fold = np.full(len(strata), -1, dtype=np.int64)
    if len(np.unique(group)) >= folds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a stratum has few members: checked below
            divided = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(group, strata, group)
            for k, (_, rows) in enumerate(divided):
                fold[rows] = k
    kinds = strata if phenotypes.trait == "binary" else np.zeros_like(strata)
    if any(len(np.unique(kinds[fold == k])) < len(np.unique(kinds)) for k in range(folds)):
        what = f"its individuals belong to {len(np.unique(group))} families, of which not every fold gets cases and"
        what += " controls" if phenotypes.trait == "binary" else " individuals"
        raise UserError(problem(phenotypes.path, what, f"Give fewer --folds than {folds}, or more families."))
    return fold
