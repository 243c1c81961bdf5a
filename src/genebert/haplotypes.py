"""Personal sequences: what the individuals of a cohort carry in a set of regions."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix


@dataclass(frozen=True)
class CohortHaplotypes:
    """What the individuals of a cohort carry in a set of regions: every distinct haplotype of a region once.

    Attributes:
        samples: names, n of them.
        regions: DataFrame, one row per region: name, chrom, start, end (all of one width).
        reference: base codes of the regions, uint8, shape (regions, width).
        haplotypes: DataFrame, one row per distinct haplotype that differs from the reference, by region: region (row of
            `regions`), variants (names as `schema.Variant.name` gives them, joined by ","), n_variants, copies (in the
            cohort).
        codes: base codes of the personal sequences, uint8, shape (haplotypes, width): cropped, or continued with genome
            sequence, at their right end.
        copies: float32, shape (n, haplotypes): copies of each haplotype per individual, 0, 1 or 2.
        variants: DataFrame, one row per region and variant, by region and position: name, id, region (row of
            `regions`), chrom, position (1-based, as in VCF), ref, alt, copies (in the cohort), missing (individuals
            without a call).
        dosage: float32, shape (n, rows of `variants`): alternate alleles per individual, 0 where missing.
        missing: bool, shape (n, rows of `variants`): where an individual has no call.
        counts: what was read and skipped, name -> number.
    """

    samples: list[str]
    regions: pd.DataFrame
    reference: NDArray[np.uint8]
    haplotypes: pd.DataFrame
    codes: NDArray[np.uint8]
    copies: csr_matrix
    variants: pd.DataFrame
    dosage: csc_matrix
    missing: csc_matrix
    counts: dict[str, int]
