from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csc_matrix
from toy_risk import individuals_of, toy_cohort

from genebert.risk.design import Genotypes
from genebert.risk.missingness import Missingness


def missing_of(share: np.ndarray) -> tuple[Missingness, int]:
    """Of 40 individuals, 20 of them cases."""
    toy = toy_cohort(n=40, regions=10, frequency=(0.1, 0.3))
    genotypes = Genotypes.of(toy.cohort)
    variants = len(genotypes.rows)
    people = individuals_of(toy, np.repeat([1.0, 0.0], 20))
    gone = np.arange(variants) < np.round(share * variants)[:, None]
    return Missingness.of(replace(genotypes, missing=csc_matrix(gone.astype(float))), people), variants


def test_many_missing_calls_and_differences_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    share = np.where(np.arange(40) < 20, 0.05, 0.0)
    share[3] = 0.2
    found, variants = missing_of(share)
    assert variants == 120
    assert found.facts["share_cases"] == pytest.approx((19 * 0.05 + 0.2) / 20)
    assert found.facts["share_controls"] == 0
    assert found.facts["individuals_above_5_percent"] == 1
    assert found.p < 1e-6
    found.warn()
    told = capsys.readouterr().err
    assert "warning: 1 of 40 individuals have no call at more than 5% of the variants, most of all s3 (20.0%)" in told
    assert "warning: cases have no call at 5.75% of the variants, and controls at 0.00% (p = " in told


def test_complete_genotypes_are_not_talked_about(capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = missing_of(np.zeros(40))
    found.warn()
    assert found.p == 1
    assert not capsys.readouterr().err
