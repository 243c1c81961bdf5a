"""What models of risk are fitted to: individuals, and sparse matrices of what they carry (numpy and scipy only)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix
from scipy.sparse.linalg import LinearOperator, svds

from genebert.haplotypes import CohortHaplotypes
from genebert.risk.phenotypes import Trait

Numbers = NDArray[np.float64]
COMMON = 0.01
"""Variants of at least this frequency tell ancestry."""
_SMALL = 1e-6  # of the largest singular value: dosages have no more components


@dataclass(frozen=True)
class Individuals:
    """The n individuals of a cohort.

    Attributes:
        samples: names.
        trait: whether they are cases and controls, or have a number.
        phenotype: 1 for cases and 0 for controls, or the number; shape (n,).
        covariates: a column of ones, then the covariates; shape (n, 1 + covariates).
        fold: of each individual, int64, shape (n,); from 0 on.
        group: relatives have the same number, int64, shape (n,).
    """

    samples: list[str]
    trait: Trait
    phenotype: Numbers
    covariates: Numbers
    fold: NDArray[np.int64]
    group: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def folds(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    @property
    def high(self) -> NDArray[np.bool_]:
        """Cases, or individuals above the median; at it or above, where it is the highest value: shape (n,)."""
        if self.trait == "binary":
            return self.phenotype > 0.5
        median = np.median(self.phenotype)
        above: NDArray[np.bool_] = self.phenotype > median
        return above if above.any() else self.phenotype >= median

    def outside(self, held_out: frozenset[int]) -> NDArray[np.bool_]:
        """Return who belongs to none of some folds: shape (n,)."""
        return ~np.isin(self.fold, list(held_out))


def one_hot(column: NDArray[np.int64], value: Numbers, columns: int) -> csr_matrix:
    """Return a matrix with one value in each row; column: of the value, shape (rows,)."""
    return csr_matrix((value, column, np.arange(len(column) + 1)), shape=(len(column), columns))


def region_effects(cohort: CohortHaplotypes, change: Numbers) -> csr_matrix:
    """Return what both haplotypes of each individual change in each region, summed: float64, shape (n, regions).

    Args:
        cohort: the haplotypes.
        change: of each haplotype, against the reference, shape (haplotypes,).
    """
    region = cohort.haplotypes["region"].to_numpy(np.int64)
    return _summed(cohort.copies, one_hot(region, change, len(cohort.regions)))


def burden(cohort: CohortHaplotypes) -> csr_matrix:
    """Return the number of alternate alleles of each individual in each region: float64, shape (n, regions)."""
    region = cohort.variants["region"].to_numpy(np.int64)
    return _summed(cohort.dosage, one_hot(region, np.ones(len(region)), len(cohort.regions)))


def _summed(carried: csr_matrix | csc_matrix, each: csr_matrix) -> csr_matrix:
    found = (csr_matrix(carried, dtype=np.float64) @ each).tocsr()
    found.eliminate_zeros()
    found.sort_indices()
    return found


@dataclass(frozen=True)
class Genotypes:
    """Every variant once, also where regions overlap.

    Attributes:
        rows: of `CohortHaplotypes.variants`, int64, shape (variants,).
        dosage: alternate alleles, 0 where missing, float64, shape (n, variants).
        missing: 1 where there is no call, float64, shape (n, variants).
        alleles: how many are known of all individuals, float64, shape (variants,).
    """

    rows: NDArray[np.int64]
    dosage: csc_matrix
    missing: csc_matrix
    alleles: Numbers

    @classmethod
    def of(cls, cohort: CohortHaplotypes) -> "Genotypes":
        """Return the genotypes of a cohort."""
        rows = np.flatnonzero(~cohort.variants["name"].duplicated().to_numpy())
        dosage, missing = (csc_matrix(one, dtype=np.float64)[:, rows] for one in (cohort.dosage, cohort.missing))
        return cls(rows, dosage, missing, cohort.variants["alleles"].to_numpy(np.float64)[rows])

    def columns(self, chosen: NDArray[np.int64] | slice) -> "Genotypes":
        """Return some of the variants."""
        return Genotypes(self.rows[chosen], self.dosage[:, chosen], self.missing[:, chosen], self.alleles[chosen])

    def frequency(self) -> Numbers:
        """Return the frequency of each alternate allele among those that are known: shape (variants,)."""
        return np.asarray(self.dosage.sum(axis=0)).ravel() / np.maximum(self.alleles, 1)


@dataclass(frozen=True)
class Standardised:
    """Dosages with mean 0 and variance 1 in training individuals, missing ones at the mean, without making them dense.

    Attributes:
        scaled: dosages over their standard deviation, float64, shape (n, variants).
        shift: their means, on that scale, shape (variants,).
    """

    scaled: csr_matrix
    shift: Numbers

    @classmethod
    def of(cls, genotypes: Genotypes, train: NDArray[np.bool_]) -> "Standardised":
        """Return the dosages of all individuals; variants that do not vary in training are 0.

        Args:
            genotypes: of n individuals.
            train: who is trained on, shape (n,).
        """
        weight = train.astype(np.float64)
        called = weight.sum() - genotypes.missing.T @ weight
        mean = (genotypes.dosage.T @ weight) / np.maximum(called, 1)
        square = (genotypes.dosage.power(2).T @ weight) + (genotypes.missing.T @ weight) * mean**2
        spread = np.sqrt(np.maximum(square / weight.sum() - mean**2, 0))
        factor = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-9)
        filled = genotypes.dosage + genotypes.missing.multiply(mean[None]).tocsc()
        return cls(filled.multiply(factor[None]).tocsr(), mean * factor)

    def rows(self, chosen: NDArray[np.bool_]) -> "Standardised":
        """Return some individuals; chosen: shape (n,)."""
        return Standardised(self.scaled[chosen], self.shift)

    def times(self, weights: Numbers) -> Numbers:
        """Return the product with weights, shape (variants,) or (variants, k)."""
        return self.scaled @ weights - self.shift @ weights

    def transposed_times(self, values: Numbers) -> Numbers:
        """Return the product of the transpose with values, shape (n,)."""
        return self.scaled.T @ values - self.shift * values.sum()


def components(genotypes: Genotypes, count: int) -> tuple[list[str], Numbers]:
    """Return principal components of the standardised dosages of common variants (Price et al. 2006).

    They are those of all individuals, of whom only genotypes are used; variants outside the regions are not read.

    Returns:
        names, PC1 and so on, at most as many as individuals and variants allow (maybe none), and float64, shape
        (n, names).
    """
    frequency = genotypes.frequency()
    common = np.flatnonzero(np.minimum(frequency, 1 - frequency) >= COMMON)
    n = genotypes.dosage.shape[0]
    count = min(count, len(common) - 1, n - 1)
    if count < 1:
        return [], np.empty((n, 0))
    table = Standardised.of(genotypes.columns(common), np.ones(n, dtype=bool))
    operator = LinearOperator(
        (n, len(common)),
        matvec=lambda weights: table.times(weights.ravel()),
        rmatvec=lambda values: table.transposed_times(values.ravel()),
        dtype=np.float64,
    )
    left, size, _ = svds(operator, k=count, v0=np.random.default_rng(0).standard_normal(min(n, len(common))))
    order = np.argsort(-size)
    left = left[:, order[size[order] > _SMALL * size.max()]]
    left = left * np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
    return [f"PC{i + 1}" for i in range(left.shape[1])], left * np.sqrt(n)


def variant_table(cohort: CohortHaplotypes, change: Numbers) -> pd.DataFrame:
    """Return the variants of a cohort with what each changes: column `change`, NaN where no haplotype carries it.

    That is the change of the haplotype with this variant alone, or, where there is none, the mean of those with it,
    weighted by copies.

    Args:
        cohort: the haplotypes.
        change: of each haplotype, shape (haplotypes,).
    """
    haplotypes = cohort.haplotypes.assign(change=change)
    each = haplotypes.assign(name=haplotypes["variants"].str.split(",")).explode("name")
    each["alone"] = each["n_variants"] == 1
    each["weighted"] = each["change"] * each["copies"]
    sums = each.groupby(["region", "name", "alone"])[["weighted", "copies"]].sum().reset_index()
    best = sums.sort_values("alone", kind="stable").drop_duplicates(["region", "name"], keep="last")
    best["change"] = best["weighted"] / best["copies"]
    return cohort.variants.merge(best[["region", "name", "change"]], on=["region", "name"], how="left")
