"""All methods of risk prediction on one cohort, by nested cross-validation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from genebert.console import progress_bar
from genebert.risk.attention import AttentionPooling, FittedAttention
from genebert.risk.design import Genotypes, Individuals, Numbers, burden, region_effects
from genebert.risk.elastic_net import FittedRegionNet, RegionNet
from genebert.risk.models import Fitted, Method, Scores, cross_validate, fits
from genebert.risk.outcome import predictions
from genebert.risk.polygenic import PolygenicScore
from genebert.risk.source import Source

GENEBERT, ATTENTION, POLYGENIC, BURDEN = "GeneBERT", "GeneBERT attention", "polygenic score", "burden"
COVARIATES, STACKED = "covariates", "GeneBERT + polygenic score"
SIGNED, ABSOLUTE = "change", "size of change"
TABLES = (SIGNED, ABSOLUTE)
"""Tables of region effects, of which the elastic net chooses one."""


@dataclass(frozen=True)
class Validated:
    """What nested cross-validation found.

    Attributes:
        scores: method -> scores.
        predicted: method -> out-of-fold risk, or value, shape (n,).
        net: the elastic net, fitted to all individuals.
        attention: of the attention pooling, fitted to all individuals, shape (regions,).
    """

    scores: Mapping[str, Scores]
    predicted: Mapping[str, Numbers]
    net: FittedRegionNet
    attention: Numbers


def validate(source: Source, individuals: Individuals) -> Validated:
    """Fit every method within nested cross-validation, and the two of GeneBERT to all individuals."""
    cohort, change = source.cohort, source.change
    methods: dict[str, Callable[[], Method]] = {
        GENEBERT: lambda: RegionNet(
            individuals, {SIGNED: region_effects(cohort, change), ABSOLUTE: region_effects(cohort, abs(change))}
        ),
        ATTENTION: lambda: AttentionPooling(individuals, cohort, change, source.effects.embedding),
        POLYGENIC: lambda: PolygenicScore(individuals, Genotypes.of(cohort)),
        BURDEN: lambda: RegionNet(individuals, {"alternate alleles": burden(cohort)}),
    }
    scores: dict[str, Scores] = {}
    final: dict[str, Fitted] = {}
    with progress_bar() as progress:
        task = progress.add_task("cross-validation", total=len(methods) * fits(individuals.folds), note="")
        for name, make in methods.items():
            progress.update(task, note=name)
            method = make()
            scores[name] = cross_validate(method, individuals, lambda: progress.advance(task))
            if name in (GENEBERT, ATTENTION):
                final[name] = method.fit(frozenset())
    net, attention = final[GENEBERT], final[ATTENTION]
    assert isinstance(net, FittedRegionNet)
    assert isinstance(attention, FittedAttention)
    predicted = {
        GENEBERT: predictions(individuals, [scores[GENEBERT]]),
        ATTENTION: predictions(individuals, [scores[ATTENTION]]),
        STACKED: predictions(individuals, [scores[GENEBERT], scores[POLYGENIC]]),
        POLYGENIC: predictions(individuals, [scores[POLYGENIC]]),
        BURDEN: predictions(individuals, [scores[BURDEN]]),
        COVARIATES: predictions(individuals, []),
    }
    return Validated(scores, predicted, net, attention.attention(scores[ATTENTION].best))
