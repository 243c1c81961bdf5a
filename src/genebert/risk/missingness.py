"""Missing calls: who has many, and whether cases have more of them than controls."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu

from genebert.console import say
from genebert.risk.design import Genotypes, Individuals, Numbers

MANY = 0.05
"""Individuals without a call at a larger share of the variants are told."""
DIFFERENT = 0.001
"""From this p down, cases and controls are said to differ."""


@dataclass(frozen=True)
class Missingness:
    """Missing calls of n individuals.

    Attributes:
        individuals: n of them.
        share: of the variants at which each has no call, shape (n,).
        p: of the Mann-Whitney test that shares of cases and controls (or of high values and the others) differ.
    """

    individuals: Individuals
    share: Numbers
    p: float

    @classmethod
    def of(cls, genotypes: Genotypes, individuals: Individuals) -> "Missingness":
        """Count the missing calls."""
        share = np.asarray(genotypes.missing.mean(axis=1), dtype=np.float64).ravel()
        high = individuals.high
        varies = np.ptp(share) > 0
        return cls(individuals, share, float(mannwhitneyu(share[high], share[~high]).pvalue) if varies else 1.0)

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says."""
        high = self.individuals.high
        return {
            "share": float(self.share.mean()),
            "share_cases": float(self.share[high].mean()),
            "share_controls": float(self.share[~high].mean()),
            "p_of_difference": self.p,
            "individuals_above_5_percent": int((self.share > MANY).sum()),
        }

    def warn(self) -> None:
        """Say who has many missing calls, and whether cases and controls differ."""
        many = int((self.share > MANY).sum())
        if many:
            most = int(self.share.argmax())
            say(
                f"warning: {many:,} of {len(self.share):,} individuals have no call at more than {MANY:.0%} of the"
                f" variants, most of all {self.individuals.samples[most]} ({self.share[most]:.1%}). Missing calls count"
                " as the reference for GeneBERT and burden, and as the mean for the polygenic score"
            )
        if self.p < DIFFERENT:
            first, second = self.facts["share_cases"], self.facts["share_controls"]
            names = ("cases", "controls")
            if self.individuals.trait == "quantitative":
                names = ("individuals with high values", "the others")
            say(
                f"warning: {names[0]} have no call at {first:.2%} of the variants, and {names[1]} at {second:.2%}"
                f" (p = {self.p:.1g}): that alone can tell them apart, and pass for risk"
            )
