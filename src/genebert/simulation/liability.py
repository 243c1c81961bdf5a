"""A disease through rare variants: effects that converge on regions, or that are scattered; and covariates."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from genebert.errors import UserError, problem
from genebert.settings import SimulateSettings
from genebert.simulation.cohort import cases, draw_trait, names_of, standard
from genebert.simulation.genome import CODE_OF, Floats, Ints
from genebert.simulation.rare import POPULATIONS, RareCohort, RareModel, Relations
from genebert.simulation.tables import locate
from genebert.simulation.world import World


class Effects(NamedTuple):
    """What acts on the liability, before it is scaled.

    weights: of regions, shape (regions,): liability per log-odds of accessibility.
    variants: of variants, shape (variants,): liability per alternate allele that is alone in its region.
    haplotypes: of what each haplotype has in each causal region, shape (causal regions, 2n).
    """

    weights: Floats
    variants: Floats
    haplotypes: Floats


class Causes(NamedTuple):
    """What acts on the liability.

    genetic: the sum of all effects in each individual, standardised, shape (n,).
    regions: element, chrom, start, end (of the core), variants, causal, weight (standard deviations of the liability
        per log-odds of accessibility; 0 where effects are scattered), variance (of the liability, that it explains).
    variants: those of the cohort with causal, and disease_effect (standard deviations of the liability per alternate
        allele that is alone in its region).
    """

    genetic: Floats
    regions: pd.DataFrame
    variants: pd.DataFrame


def find_causes(
    rng: np.random.Generator,
    world: World,
    cohort: RareCohort,
    cell_type: str,
    settings: SimulateSettings,
    model: RareModel,
) -> Causes:
    """Choose causal regions, and what of them acts.

    Raises:
        UserError: too few regions have variants that do anything in the cell type.
    """
    shared = model.shared
    delta = cohort.variants[f"delta_{cell_type}"].to_numpy()
    acting = np.bincount(cohort.region[np.abs(delta) >= shared.least_delta], minlength=len(cohort.regions))
    eligible = np.flatnonzero(acting >= model.least_variants)
    if len(eligible) < shared.causal:
        what = f"{len(eligible)} regions have {model.least_variants} variants or more that act in {cell_type}"
        raise UserError(problem("causal", what, "Set it to at most as many, or raise variants or cohort_regions."))
    chosen = np.sort(rng.permutation(eligible)[: shared.causal])
    if settings.effects == "converge":
        effects = _converge(rng, world, cohort, chosen, cell_type, model)
    else:
        effects = _scatter(rng, cohort, chosen)
    each = effects.haplotypes[:, ::2] + effects.haplotypes[:, 1::2]
    genetic, scale = standard(each.sum(axis=0))
    scale *= np.sqrt(shared.heritability)
    causal, variance = np.zeros(len(cohort.regions), int), np.zeros(len(cohort.regions))
    causal[chosen], variance[chosen] = 1, (scale * each).var(axis=1)
    elements = world.elements.iloc[cohort.regions]
    regions = elements[["element"]].reset_index(drop=True)
    regions = regions.join(locate(world.genome, elements.start.to_numpy(), elements.end.to_numpy())).assign(
        variants=np.bincount(cohort.region, minlength=len(regions)),
        causal=causal,
        weight=scale * effects.weights,
        variance=variance,
    )
    variants = cohort.variants.assign(causal=effects.variants != 0, disease_effect=scale * effects.variants)
    return Causes(genetic, regions, variants)


def _converge(
    rng: np.random.Generator, world: World, cohort: RareCohort, chosen: Ints, cell_type: str, model: RareModel
) -> Effects:
    """Let all variants of a region act, through the change of its log-odds in the cell type, times a weight."""
    weights = np.zeros(len(cohort.regions))
    weights[chosen] = rng.uniform(*model.weights, len(chosen)) * rng.choice([-1, 1], len(chosen))
    variants = weights[cohort.region] * cohort.variants[f"delta_{cell_type}"].to_numpy()
    changes = [weights[one] * change_of(world, cohort, one, cell_type) for one in chosen]
    return Effects(weights, variants, np.array(changes))


def _scatter(rng: np.random.Generator, cohort: RareCohort, chosen: Ints) -> Effects:
    """Let one variant of a region act, by a normal effect; it is the likelier to be chosen the more copies it has."""
    rows = [np.flatnonzero(cohort.region == one) for one in chosen]
    picked = [int(rng.choice(row, p=cohort.copies[row] / cohort.copies[row].sum())) for row in rows]
    variants = np.zeros(len(cohort.variants))
    variants[picked] = rng.normal(size=len(picked))
    haplotypes = cohort.carriers[picked].toarray() * variants[picked, None]
    return Effects(np.zeros(len(cohort.regions)), variants, haplotypes)


def change_of(world: World, cohort: RareCohort, region: int, cell_type: str) -> Floats:
    """Return the change of a region's log-odds in a cell type that each haplotype makes, shape (2n,).

    All variants that a haplotype has in the region are put into its sequence together.
    """
    rows = cohort.region == region
    variants, carriers = cohort.variants[rows], cohort.carriers[rows]
    start, end = (int(world.elements[name][cohort.regions[region]]) for name in ("start", "end"))
    carrying = np.unique(carriers.indices)
    patterns, pattern = np.unique(carriers[:, carrying].toarray(), axis=1, return_inverse=True)
    windows = np.repeat(world.genome.windows(np.array([start]), end - start), 1 + patterns.shape[1], axis=0)
    haplotype, variant = np.nonzero(patterns.T)
    alternate = CODE_OF[np.frombuffer("".join(variants.alt).encode(), np.uint8)]
    windows[1 + haplotype, (variants.position.to_numpy() - start)[variant]] = alternate[variant]
    column = world.regulome.cell_types.index(cell_type)
    log_odds = world.regulome.log_odds(world.regulome.occupancy(windows))[:, column]
    change = np.zeros(carriers.shape[1])
    change[carrying] = (log_odds[1:] - log_odds[0])[pattern.ravel()]
    return change


def fall_ill(
    rng: np.random.Generator, genetic: Floats, relations: Relations, case_fraction: float, model: RareModel
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw covariates and the liability of each individual; those with the greatest are cases.

    Returns:
        phenotypes: sample, family, sex (1 male, 2 female, as in PED files), age (years), ancestry1, ancestry2, disease,
        trait; and the truth: sample, population, genetic (part of the liability), liability.
    """
    n, shared = len(genetic), model.shared
    samples, male, age = names_of(n), rng.permutation(n) < n // 2, rng.normal(size=n)
    ancestry = POPULATIONS[relations.population] + model.ancestry_noise * rng.normal(size=(n, 2))
    inherited = np.sqrt(shared.heritability) * genetic
    rest = 1 - shared.heritability - shared.sex_variance - model.age_variance - model.ancestry_variance
    liability = (
        inherited
        + np.sqrt(shared.sex_variance) * np.where(male, 1, -1)
        + np.sqrt(model.age_variance) * age
        + np.sqrt(model.ancestry_variance) * standard(ancestry[:, 0])[0]
        + np.sqrt(max(rest, 0)) * rng.normal(size=n)
    )
    people = pd.DataFrame(
        {
            "sample": samples,
            "family": [f"F{number + 1:05d}" for number in relations.family],
            "sex": np.where(male, 1, 2),
            "age": np.round(model.age[0] + model.age[1] * age, 1),
            "ancestry1": ancestry[:, 0],
            "ancestry2": ancestry[:, 1],
            "disease": cases(liability, case_fraction),
            "trait": draw_trait(rng, genetic, shared),
        }
    )
    truth = {"sample": samples, "population": relations.population, "genetic": inherited, "liability": liability}
    return people, pd.DataFrame(truth)
