"""Which regions an individual's risk comes from."""

import numpy as np
import pandas as pd

from genebert.risk.design import Individuals, Numbers
from genebert.risk.elastic_net import FittedRegionNet
from genebert.risk.models import Scores, coefficients
from genebert.risk.outcome import Outcome, outcome_of

SHOWN = 5
"""Regions that are listed for each individual, at most."""


def region_weights(individuals: Individuals, scores: Scores, final: FittedRegionNet) -> tuple[str, Numbers]:
    """Return the table that a model of all individuals takes, and what each region adds to the log-odds of the disease,
    or to the number, per unit: shape (regions,).

    Args:
        individuals: n of them.
        scores: of the elastic net, out of fold, which calibrate it.
        final: the elastic net, fitted to all of them.
    """
    table, weight = final.chosen(scores.best)
    c = individuals.covariates
    outcome = Outcome.fit(individuals.trait, c, scores.outer[:, None], individuals.phenotype)
    return table, weight * outcome.coefficients[-1]


def individuals_table(individuals: Individuals, scores: Scores, regions: list[str]) -> pd.DataFrame:
    """Return sample, rank, region, change, contribution, of the regions that contribute most to each individual's risk.

    A contribution is the weight of the region times the individual's change, less what covariates tell about that
    change in those whom the model was fitted to (without covariates, their mean): what the region adds to the log-odds
    of the disease, or to the number, by the model that has not seen the individual. Those of all regions add up to what
    the individual's score adds.

    Args:
        individuals: n of them.
        scores: of the elastic net.
        regions: names of the columns of its tables.
    """
    rows = []
    for k, (fitted, candidate) in enumerate(zip(scores.fitted, scores.chosen, strict=True)):
        assert isinstance(fitted, FittedRegionNet)
        name, weight = fitted.chosen(candidate)
        used = np.flatnonzero(weight)
        slope = outcome_of(individuals, [scores], k).coefficients[-1]
        effects = fitted.tables[name][:, used]
        own = individuals.fold == k
        change, c = effects[own].toarray(), individuals.covariates
        expected = c[own] @ coefficients(c[~own], effects[~own].toarray())
        contribution = (change - expected) * weight[used] * slope
        first = np.argsort(-np.abs(contribution), axis=1, kind="stable")[:, :SHOWN]
        for i, person in enumerate(np.flatnonzero(own)):
            rows += [
                (person, rank, regions[used[j]], change[i, j], contribution[i, j])
                for rank, j in enumerate(first[i], 1)
                if contribution[i, j] != 0
            ]
    table = pd.DataFrame(rows, columns=["sample", "rank", "region", "change", "contribution"])
    table = table.sort_values(["sample", "rank"], kind="stable", ignore_index=True)
    return table.assign(sample=np.array(individuals.samples, dtype=object)[table["sample"].to_numpy(np.int64)])
