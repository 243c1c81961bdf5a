from pathlib import Path

import numpy as np
import pytest

from genebert.errors import UserError
from genebert.risk.covariates import Covariates
from genebert.risk.folds import folds_of
from genebert.risk.phenotypes import Phenotypes, Trait


def phenotypes_of(values: np.ndarray, trait: Trait) -> Phenotypes:
    n = len(values)
    return Phenotypes(
        Path("p.tsv"), [f"s{i}" for i in range(n)], "y", trait, values, Covariates((), np.empty((n, 0))), [""] * n, 0
    )


@pytest.mark.parametrize("trait", ["binary", "quantitative"])
def test_families_are_never_divided_and_phenotypes_are_spread(trait: Trait) -> None:
    generator = np.random.default_rng(0)
    group = np.sort(generator.integers(0, 120, 300))
    values = generator.integers(0, 2, 300).astype(float) if trait == "binary" else generator.standard_normal(300)
    fold = folds_of(phenotypes_of(values, trait), group, 5, seed=1)
    assert set(fold.tolist()) == set(range(5))
    assert all(len(set(fold[group == family].tolist())) == 1 for family in np.unique(group))
    means = [values[fold == k].mean() for k in range(5)]
    assert np.ptp(means) < (0.1 if trait == "binary" else 0.25)
    assert np.array_equal(fold, folds_of(phenotypes_of(values, trait), group, 5, seed=1))


def test_too_large_families_are_refused() -> None:
    values = np.repeat([0.0, 1.0], 20)
    with pytest.raises(UserError, match="its individuals belong to 2 families, of which not every fold gets cases"):
        folds_of(phenotypes_of(values, "binary"), np.repeat([0, 1], 20), 5, seed=0)
