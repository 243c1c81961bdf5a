"""Cohorts held in memory, with known causes."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from genebert.haplotypes import CohortHaplotypes
from genebert.risk.design import Individuals, region_effects
from genebert.risk.phenotypes import Trait

WIDTH = 16


@dataclass(frozen=True)
class ToyCohort:
    """A cohort, what its haplotypes change, and what a disease comes from.

    Attributes:
        cohort: every haplotype has one variant; those of a region are alleles of one place.
        change: of each haplotype.
        causal: regions whose change makes ill.
        liability: of each individual, in standard deviations.
    """

    cohort: CohortHaplotypes
    change: NDArray[np.float64]
    causal: NDArray[np.int64]
    liability: NDArray[np.float64]

    @property
    def cases(self) -> NDArray[np.float64]:
        """1 for the upper half by liability."""
        return (self.liability > np.median(self.liability)).astype(np.float64)


def cohort_of(copies: NDArray[np.int64], region: NDArray[np.int64]) -> CohortHaplotypes:
    """A cohort whose haplotypes have one variant each; copies: shape (n, haplotypes), region: of each haplotype."""
    count = int(region.max()) + 1
    names = [f"chr1:{100 * r + j + 1}:A>T" for j, r in enumerate(region)]
    regions = pd.DataFrame({"name": [f"r{i}" for i in range(count)], "chrom": "chr1"})
    regions["start"] = np.arange(count) * 100
    regions["end"] = regions["start"] + WIDTH
    total = copies.sum(axis=0)
    haplotypes = pd.DataFrame({"region": region, "variants": names, "n_variants": 1, "copies": total})
    variants = pd.DataFrame(
        {"name": names, "id": ".", "region": region, "chrom": "chr1", "position": 100 * region + 1, "ref": "A"}
    ).assign(alt="T", copies=total, alleles=2 * len(copies), missing=0)
    carried = copies.astype(np.float32)
    return CohortHaplotypes(
        [f"s{i}" for i in range(len(copies))],
        regions,
        np.zeros((count, WIDTH), dtype=np.uint8),
        haplotypes,
        np.zeros((len(region), WIDTH), dtype=np.uint8),
        csr_matrix(carried),
        variants,
        csc_matrix(carried),
        csc_matrix(copies.shape, dtype=bool),
        {"records": len(region)},
    )


def toy_cohort(
    n: int = 1000,
    regions: int = 200,
    per_region: int = 12,
    causal: int = 10,
    heritability: float = 0.4,
    seed: int = 0,
    frequency: tuple[float, float] = (0.001, 0.01),
) -> ToyCohort:
    """Rare variants; what those in causal regions change makes ill: effects converge on regions."""
    generator = np.random.default_rng(seed)
    region = np.repeat(np.arange(regions), per_region)
    share = np.exp(generator.uniform(*np.log(frequency), size=len(region)))
    cohort = cohort_of(generator.binomial(2, share, size=(n, len(region))), region)
    change = np.where(generator.random(len(region)) < 0.5, generator.normal(0, 1.0, len(region)), 0.05)
    chosen = np.sort(generator.choice(regions, min(causal, regions), replace=False))
    genetic = np.asarray(region_effects(cohort, change)[:, chosen].sum(axis=1)).ravel()
    genetic = (genetic - genetic.mean()) / genetic.std()
    noise = generator.standard_normal(n)
    liability = np.sqrt(heritability) * genetic + np.sqrt(1 - heritability) * noise
    return ToyCohort(cohort, change, chosen, liability)


def individuals_of(
    toy: ToyCohort,
    values: NDArray[np.float64] | None = None,
    covariates: NDArray[np.float64] | None = None,
    trait: Trait = "binary",
) -> Individuals:
    """The individuals of a toy cohort, in five folds."""
    n = len(toy.cohort.samples)
    ones = np.ones((n, 1)) if covariates is None else np.concatenate([np.ones((n, 1)), covariates], axis=1)
    values = toy.cases if values is None else values
    fold = np.empty(n, dtype=np.int64)
    fold[np.argsort(values, kind="stable")] = np.arange(n) % 5
    return Individuals(toy.cohort.samples, trait, values, ones, fold, np.arange(n))
