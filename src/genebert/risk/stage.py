"""The stage `risk`: from a cohort's genotypes and phenotypes to each individual's risk, and what it comes from."""

from pathlib import Path
from typing import Any

import pandas as pd

from genebert.console import say
from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.genotypes import GenotypeReader
from genebert.metrics import Estimate
from genebert.predictor import Predictor
from genebert.risk.association import associate
from genebert.risk.contributions import individuals_table, region_weights
from genebert.risk.convergence import (
    CarriedVariants,
    convergence_table,
    convergence_tfs_table,
    regions_table,
    tfs_table,
)
from genebert.risk.design import COMMON, Genotypes, Individuals, components, region_effects
from genebert.risk.elastic_net import check_memory
from genebert.risk.folds import folds_of
from genebert.risk.measures import calibration_table, comparisons_table, metrics_table, resampled
from genebert.risk.missingness import Missingness
from genebert.risk.phenotypes import Columns, Phenotypes, check_variety, match_samples, read_phenotypes
from genebert.risk.relatives import group_of, read_kinship
from genebert.risk.source import Source, corpus_of, read_cohort, score
from genebert.risk.validation import ATTENTION, GENEBERT, STACKED, TABLES, Validated, validate
from genebert.settings import RiskSettings
from genebert.stage import StageRun, open_stage

INPUTS = ("vcf", "phenotypes", "model", "genome", "corpus", "regions", "kinship")
CAVEAT = (
    "For research only. These risks are no medical advice: they hold for individuals like those of the cohort, and"
    " where cases and controls differ in ancestry, family or how they were sequenced, that passes for disease."
)


def risk(settings: RiskSettings) -> Path:
    """Estimate the risk of each individual of a cohort by models that have not seen it, and compare them.

    Writes predictions.tsv, metrics.tsv, comparisons.tsv, calibration.tsv, regions.tsv, attention.tsv, tfs.tsv,
    convergence.tsv, convergence_tfs.tsv, individuals.tsv and the manifest; see docs/risk.md for their columns. What
    haplotypes change is kept while it works, so that an interrupted run need not compute it again.

    Raises:
        UserError: an input cannot be used, inputs do not belong together, or there is too little to learn from.
    """
    inputs = {name: getattr(settings, name) for name in INPUTS}
    with open_stage("risk", settings, inputs, resumable=True) as run:
        if run.finished:
            return run.out
        predictor = Predictor.open(settings.model, settings.device)
        predictor.check_two_alleles()
        with Genome(settings.genome) as genome:
            phenotypes = _phenotypes(settings, genome)
            pairs = _related(settings, phenotypes)
            group = group_of(phenotypes.samples, phenotypes.family, pairs)
            fold = folds_of(phenotypes, group, settings.folds, settings.seed)
            corpus = corpus_of(settings, predictor, genome)
            cohort = read_cohort(settings, corpus, genome, predictor.width, phenotypes.samples)
            check_memory(cohort.haplotypes["region"].nunique(), len(TABLES), settings.folds)
            if settings.components:
                phenotypes = _with_components(settings, Genotypes.of(cohort), phenotypes)
            design = phenotypes.covariates.design
            individuals = Individuals(phenotypes.samples, phenotypes.trait, phenotypes.numbers, design, fold, group)
            missing = Missingness.of(Genotypes.of(cohort), individuals)
            missing.warn()
            source = score(settings, predictor, corpus, genome, cohort, run.scratch)
        facts = {"related_pairs": len(pairs), "missing_calls": missing.facts}
        return _finish(settings, source, individuals, phenotypes, facts, run)


def _phenotypes(settings: RiskSettings, genome: Genome) -> Phenotypes:
    """Return what is known of the individuals that have genotypes."""
    columns = Columns(settings.phenotype, settings.covariates, settings.family, settings.trait)
    reader = GenotypeReader(settings.vcf, genome, settings.max_indel)
    reader.close()
    table = read_phenotypes(settings.phenotypes, columns, reader.samples)
    phenotypes = match_samples(table, settings.vcf, reader.samples)
    check_variety(phenotypes, settings.folds)
    return phenotypes


def _related(settings: RiskSettings, phenotypes: Phenotypes) -> list[tuple[str, str]]:
    """Return the related pairs of the table of kinship, if there is one."""
    if settings.kinship is None:
        return []
    return read_kinship(settings.kinship).among(phenotypes.samples, settings.kinship, settings.vcf)


def _with_components(settings: RiskSettings, genotypes: Genotypes, phenotypes: Phenotypes) -> Phenotypes:
    """Add principal components to the covariates, and check these again."""
    names, values = components(genotypes, settings.components)
    if not names:
        what = f"the {len(genotypes.rows):,} variants in the regions have no principal components: too few of them have"
        what += f" a frequency of {COMMON:.0%} or more"
        remedy = "Leave it out, or give components of the whole genome with --covariates."
        raise UserError(problem("--components", what, remedy))
    warning = "warning: " if len(names) < settings.components else ""
    say(f"{warning}{len(names)} of {settings.components} principal components were found, and are covariates")
    joined = phenotypes.with_covariates(names, values)
    check_variety(joined, settings.folds)
    return joined


def _finish(
    settings: RiskSettings,
    source: Source,
    individuals: Individuals,
    phenotypes: Phenotypes,
    facts: dict[str, Any],
    run: StageRun,
) -> Path:
    found = validate(source, individuals)
    values = resampled(individuals, found.predicted)
    measured = metrics_table(values, individuals)
    tables = {
        "predictions": _predictions_table(individuals, found),
        "metrics": measured,
        "comparisons": comparisons_table(values, [GENEBERT, ATTENTION, STACKED], individuals),
        "calibration": calibration_table(individuals, found.predicted),
        **_explained(settings, source, individuals, found),
    }
    for name, table in tables.items():
        table.to_csv(run.folder / f"{name}.tsv", sep="\t", index=False, float_format="%.6g", na_rep=".")
    metrics = _facts(source, individuals, phenotypes, found) | facts | {"measures": measured.to_dict("records")}
    out = run.finish(metrics)
    _tell(metrics, tables, out)
    return out


def _predictions_table(individuals: Individuals, found: Validated) -> pd.DataFrame:
    known = {"sample": individuals.samples, "fold": individuals.fold + 1, "phenotype": individuals.phenotype}
    return pd.DataFrame({**known, **found.predicted})


def _explained(
    settings: RiskSettings, source: Source, individuals: Individuals, found: Validated
) -> dict[str, pd.DataFrame]:
    """Return the tables of regions, TFs, variants and individuals."""
    cohort, names = source.cohort, source.cohort.regions["name"].tolist()
    variants = CarriedVariants.of(individuals, cohort, source.change, source.motifs, source.motif_changes)
    say(f"testing {len(names):,} regions and {len(source.motifs):,} TFs")
    effects = region_effects(cohort, source.change)
    tested = associate(individuals, effects, settings.permutations, settings.seed)
    _, weight = region_weights(individuals, found.scores[GENEBERT], found.net)
    regions = regions_table(variants, effects, weight, tested)
    attention = pd.DataFrame({"region": names, "attention": found.attention})
    genotypes = Genotypes.of(cohort)
    tfs = tfs_table(variants, genotypes, settings.permutations, settings.seed)
    return {
        "regions": regions,
        "attention": attention.sort_values("attention", ascending=False, kind="stable"),
        "tfs": tfs,
        "convergence": convergence_table(variants, regions["region"].head(settings.top).tolist()),
        "convergence_tfs": convergence_tfs_table(variants, genotypes, tfs),
        "individuals": individuals_table(individuals, found.scores[GENEBERT], names),
    }


def _facts(source: Source, individuals: Individuals, phenotypes: Phenotypes, found: Validated) -> dict[str, Any]:
    """Return what is to be known about the cohort and the models."""
    high = int(individuals.high.sum())
    scores = found.scores[GENEBERT]
    return {
        "phenotype": phenotypes.name,
        "trait": individuals.trait,
        "individuals": len(individuals),
        "cases" if individuals.trait == "binary" else "above_median": high,
        "without_phenotype": phenotypes.missing,
        "families": len(set(individuals.group.tolist())),
        "folds": individuals.folds,
        "covariates": list(phenotypes.covariates.names),
        "regions": len(source.cohort.regions),
        "haplotypes": len(source.cohort.haplotypes),
        "variants": int(source.cohort.variants["name"].nunique()),
        "genotypes": source.cohort.counts,
        "cell_types": source.effects.cell_types,
        "embedding": source.effects.embedding is not None,
        "region_effects": found.net.chosen(scores.best)[0],
        "caveat": CAVEAT,
    }


def _tell(metrics: dict[str, Any], tables: dict[str, pd.DataFrame], out: Path) -> None:
    counts = ", ".join(f"{metrics[name]:,} {name}" for name in ("individuals", "regions", "variants", "haplotypes"))
    say(f"{out}: {counts}")
    first = metrics["measures"][0]["measure"]
    for row in metrics["measures"]:
        if row["measure"] == first:
            say(f"  {row['method']}: {first} {Estimate(row['value'], row['low'], row['high'])}")
    for name, what in (("regions", "regions"), ("tfs", "TFs, gained or lost,")):
        tested = tables[name]["q"].dropna()
        say(f"  {(tested <= 0.1).sum():,} of {len(tested):,} {what} at a false discovery rate of 10%")
    say(f"  {CAVEAT}")
