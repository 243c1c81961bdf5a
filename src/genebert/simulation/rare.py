"""Rare variants: many in each of some regions, with few carriers each; siblings and populations among these."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import sparse

from genebert.errors import Problems, UserError, problem
from genebert.settings import SimulateSettings
from genebert.simulation.cohort import CohortModel, score_variants, shift_occupancy, spots
from genebert.simulation.genome import BASES, Ints, records
from genebert.simulation.world import World

POPULATIONS = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
"""Ancestry components of the four populations."""
RARE_ONLY = ("effects", "cohort_regions", "siblings", "structure")
"""Settings that say nothing of a cohort with common variants."""


@dataclass(frozen=True)
class RareModel:
    """Constants of a cohort with rare variants."""

    shared: CohortModel = field(default_factory=CohortModel)  # what motifs, disease and trait have in common with those
    motif_fraction: float = 0.5  # variants that are aimed at planted motifs; the others lie anywhere in the cores
    most_per_region: int = 80  # variants, on average
    most_frequent: float = 0.01  # greatest frequency of the alternate allele
    least_variants: int = 3  # of a causal region, that change its log-odds by `least_delta` or more
    weights: tuple[float, float] = (0.5, 1.5)  # least and greatest size of a causal region's weight, before scaling
    age: tuple[float, float] = (55.0, 12.0)  # mean and standard deviation, years
    age_variance: float = 0.03  # variance of the liability that age explains
    ancestry_variance: float = 0.02  # variance of the liability that the first ancestry component explains
    ancestry_noise: float = 0.3  # standard deviation of the ancestry components within a population


@dataclass(frozen=True)
class Relations:
    """Who is related to whom: the first individuals are siblings, two by two.

    Attributes:
        family: number of each individual's family, shape (n,).
        population: row of `POPULATIONS` of each individual, shape (n,).
        siblings: number of pairs.
    """

    family: Ints
    population: Ints
    siblings: int


@dataclass(frozen=True)
class RareCohort:
    """Variants and who carries them.

    Attributes:
        regions: rows of the elements that the variants lie in, rising.
        variants: one row each, by position, as `score_variants` gives them, with occupancy_<TF>: the change of the
            occupancy of the element by each TF.
        region: of each variant, an index into `regions`.
        carriers: 1 where a haplotype is alternate, int8, shape (variants, 2n), an individual's haplotypes side by side;
            each variant has a carrier.
        relations: of the individuals.
    """

    regions: Ints
    variants: pd.DataFrame
    region: Ints
    carriers: sparse.csr_matrix
    relations: Relations

    @property
    def copies(self) -> Ints:
        """Number of alternate alleles of each variant."""
        return np.diff(self.carriers.indptr)


def check_rare(settings: SimulateSettings) -> None:
    """Raise a `UserError` if settings contradict each other."""
    problems = Problems("the cohort cannot be drawn")
    if settings.architecture == "common":
        default = type(settings).model_fields
        for name in RARE_ONLY:
            if getattr(settings, name) != default[name].default:
                problems.add(name, "it is about rare variants, and these are common", "Set architecture to rare.")
    if 2 * settings.siblings > settings.individuals:
        what = f"{settings.siblings} pairs of siblings are more than {settings.individuals} individuals"
        problems.add("siblings", what, f"Set siblings to at most {settings.individuals // 2}.")
    problems.raise_any()


def draw_rare(
    rngs: Mapping[str, np.random.Generator], world: World, settings: SimulateSettings, model: RareModel
) -> RareCohort:
    """Draw a cohort: its regions, variants in them, and their carriers.

    Raises:
        UserError: the genome has too few regions, or these too little room.
    """
    regions = _choose_regions(rngs["regions"], world, settings, model)
    variants = _place(rngs["variants"], world, regions, settings.variants, model)
    relations = _relate(rngs["families"], settings)
    chromosome = variants.position.to_numpy() // world.genome.length
    carriers = _draw_carriers(rngs["genotypes"], chromosome, relations, settings.structure, model)
    carried = np.diff(carriers.indptr) > 0  # siblings need not inherit what their parents have
    variants, carriers = variants[carried].reset_index(drop=True), carriers[carried]
    variants.insert(0, "id", [f"var{i + 1:06d}" for i in range(len(variants))])
    home, shift = shift_occupancy(variants, world.genome, world.elements, world.regulome)
    variants = score_variants(variants, home, shift, world.elements, world.instances, world.regulome)
    names = [f"occupancy_{tf.name}" for tf in world.regulome.tfs]
    variants = variants.join(pd.DataFrame(shift[:, : len(names)], columns=names))
    return RareCohort(regions, variants, np.searchsorted(regions, home), carriers, relations)


def _choose_regions(rng: np.random.Generator, world: World, settings: SimulateSettings, model: RareModel) -> Ints:
    """Choose among the elements that have a peak in some cell type: a study knows no others."""
    with_peak = np.flatnonzero(world.access.called.any(axis=1))
    n = len(with_peak) if settings.cohort_regions is None else settings.cohort_regions
    if n > len(with_peak):
        what = f"{n} regions are more than the {len(with_peak)} that have a peak in some cell type"
        raise UserError(problem("cohort_regions", what, f"Set it to at most {len(with_peak)}, or raise regions."))
    if settings.variants > model.most_per_region * n:
        what = f"{settings.variants} variants are too many for {n} regions"
        raise UserError(problem("variants", what, f"Set variants to at most {model.most_per_region * n}."))
    return np.sort(rng.permutation(with_peak)[:n])


def _place(rng: np.random.Generator, world: World, regions: Ints, n: int, model: RareModel) -> pd.DataFrame:
    """Choose n SNVs in the cores of regions, at most one at each position; return position, ref, alt."""
    planted = world.instances[world.instances.element.isin(regions)]
    tfs = world.regulome.tfs
    found = [spot for row in records(planted) for spot in spots(world.genome, row, tfs[row.tf], model.shared)]
    candidates = pd.DataFrame(found, columns=["position", "ref", "alt"])
    shuffled = candidates.iloc[rng.permutation(len(candidates))].drop_duplicates("position")
    aimed = shuffled.iloc[: round(model.motif_fraction * n)]
    starts, width = world.elements.start.to_numpy()[regions], int(world.elements.end[0] - world.elements.start[0])
    free = np.setdiff1d(starts[:, None] + np.arange(width), aimed.position)
    position = rng.choice(free, n - len(aimed), replace=False)
    rest = pd.DataFrame({"position": position, "ref": world.genome.codes[position].astype(int)})
    rest["alt"] = (rest.ref + rng.integers(1, 4, len(rest))) % 4
    table = pd.concat([aimed, rest]).sort_values("position", ignore_index=True)
    return table.assign(**{name: [BASES[code] for code in table[name]] for name in ("ref", "alt")})


def _relate(rng: np.random.Generator, settings: SimulateSettings) -> Relations:
    """Divide individuals into families and populations."""
    n, siblings = settings.individuals, settings.siblings
    family = np.concatenate([np.repeat(np.arange(siblings), 2), np.arange(siblings, n - siblings)])
    return Relations(family, rng.integers(len(POPULATIONS), size=n - siblings)[family], siblings)


def _draw_carriers(
    rng: np.random.Generator, chromosome: Ints, relations: Relations, structure: float, model: RareModel
) -> sparse.csr_matrix:
    """Draw which haplotypes carry each variant.

    A variant has x copies with a probability proportional to 1/x, as in a population of constant size (Fu 1995, Theor
    Popul Biol 48:172), on haplotypes drawn at random among all, or among those of one population if it is private.
    These are the haplotypes of unrelated people; of siblings, those of their parents.

    Args:
        chromosome: number of each variant's chromosome, rising.
        structure: fraction of the variants that are private.
    """
    haplotypes = 2 * len(relations.population)
    counts = np.arange(1, max(1, int(model.most_frequent * haplotypes)) + 1)
    copies = rng.choice(counts, len(chromosome), p=(1 / counts) / (1 / counts).sum())
    pools = [np.flatnonzero(np.repeat(relations.population == one, 2)) for one in range(len(POPULATIONS))]
    private = rng.random(len(chromosome)) < structure
    home = np.where(private, rng.integers(len(pools), size=len(chromosome)), len(pools))
    pools.append(np.arange(haplotypes))
    columns = [
        np.sort(rng.choice(pools[pool], min(count, len(pools[pool])), replace=False))
        for pool, count in zip(home, copies, strict=True)
    ]
    edges = np.cumsum([0, *map(len, columns)])
    ones = np.ones(edges[-1], np.int8)
    founders = sparse.csr_matrix((ones, np.concatenate(columns), edges), (len(chromosome), haplotypes))
    return _transmit(rng, founders, chromosome, relations.siblings) if relations.siblings else founders


def _transmit(rng: np.random.Generator, founders: sparse.csr_matrix, chromosome: Ints, pairs: int) -> sparse.csr_matrix:
    """Give siblings their haplotypes, chromosome by chromosome, without recombination.

    Of the four haplotypes in the places of two siblings, the first two are their mother's, the others their father's.
    Each sibling gets one of either.
    """
    parts = []
    for rows in np.split(np.arange(len(chromosome)), np.flatnonzero(np.diff(chromosome)) + 1):
        source = np.arange(founders.shape[1])
        first = 4 * np.arange(pairs)[:, None] + np.array([0, 2, 0, 2])
        source[: 4 * pairs] = (first + rng.integers(0, 2, first.shape)).ravel()
        parts.append(founders[rows][:, source])
    return sparse.vstack(parts, format="csr")
