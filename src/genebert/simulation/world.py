"""The simulated world, before it is written: genome, elements, genes, and what they do in the cell types."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from genebert.settings import SimulateSettings
from genebert.simulation import genome, regulation
from genebert.simulation.genome import Genome, GenomeModel, Layout, Motif
from genebert.simulation.regulation import Accessibility, Regulome

PARTS = ("genome", "layout", "genes", "regulome", "elements", "accessibility", "peaks", "chip_seq", "decoys")
COHORT_PARTS = ("variants", "genotypes", "disease", "families", "regions", "shuffle")


@dataclass(frozen=True)
class World:
    """All that was drawn of it."""

    genome: Genome
    layout: Layout
    genes: pd.DataFrame
    regulome: Regulome
    library: list[Motif]
    elements: pd.DataFrame
    instances: pd.DataFrame
    access: Accessibility


def generators(settings: SimulateSettings) -> dict[str, np.random.Generator]:
    """Return a generator for each part, so that a change of one leaves the others as they were.

    The cohort's are of a seed of their own, if there is one.
    """
    parts = [*PARTS, *COHORT_PARTS]
    cohort_seed = settings.seed if settings.cohort_seed is None else settings.cohort_seed
    of_world, of_cohort = (np.random.SeedSequence(seed).spawn(len(parts)) for seed in (settings.seed, cohort_seed))
    seeds = [*of_world[: len(PARTS)], *of_cohort[len(PARTS) :]]
    return {part: np.random.default_rng(seed) for part, seed in zip(parts, seeds, strict=True)}


def make_world(rngs: Mapping[str, np.random.Generator], settings: SimulateSettings, sizes: GenomeModel) -> World:
    """Draw the genome and all that it does in the cell types."""
    background = genome.make_background(rngs["genome"], settings, sizes)
    layout = genome.lay_out(rngs["layout"], background, settings, sizes)
    genes = genome.make_genes(rngs["genes"], background, layout, sizes)
    regulome, library = regulation.make_regulome(rngs["regulome"], settings.cell_types, regulation.RegulationModel())
    elements, instances = regulation.populate(rngs["elements"], background, layout, genes, regulome, sizes)
    access = regulation.open_elements(rngs["accessibility"], background, elements, regulome)
    return World(background, layout, genes, regulome, library, elements, instances, access)
