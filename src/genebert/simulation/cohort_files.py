"""The cohort, drawn and written: genotypes, phenotypes, and the truth about both."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pysam
from scipy import sparse

from genebert.errors import UserError, problem
from genebert.settings import SimulateSettings
from genebert.simulation import cohort
from genebert.simulation.cohort import CohortModel
from genebert.simulation.genome import Genome, records
from genebert.simulation.liability import fall_ill, find_causes
from genebert.simulation.rare import RareModel, check_rare, draw_rare
from genebert.simulation.tables import write_table
from genebert.simulation.world import World

Generators = Mapping[str, np.random.Generator]


class Drawn(NamedTuple):
    """A cohort.

    variants: one row each, with the truth about them.
    carriers: 1 where a haplotype is alternate, shape (variants, 2n), an individual's haplotypes side by side.
    people: phenotypes.
    truth: further tables, by name.
    facts: numbers for the manifest.
    """

    variants: pd.DataFrame
    carriers: sparse.csr_matrix
    people: pd.DataFrame
    truth: Mapping[str, pd.DataFrame]
    facts: Mapping[str, int]


def model_of(settings: SimulateSettings) -> CohortModel:
    """Return the constants of variants and disease."""
    return replace(CohortModel(), causal=settings.causal, heritability=settings.heritability)


def constants_of(settings: SimulateSettings) -> dict[str, Any]:
    """Return all constants of the cohort, as truth/model.json has them."""
    shared = {CohortModel.__name__: asdict(model_of(settings))}
    if settings.architecture == "common":
        return shared
    own = asdict(RareModel())
    del own["shared"]
    return shared | {RareModel.__name__: own}


def check_cohort(settings: SimulateSettings) -> None:
    """Raise a `UserError` if there cannot be such a cohort; what depends on the genome is checked later."""
    check_rare(settings)
    if not 0 < round(settings.individuals * settings.case_fraction) < settings.individuals:
        what = f"of {settings.individuals} individuals, none would be a case, or all"
        raise UserError(
            problem(f"--case-fraction {settings.case_fraction:g}", what, "Give another, or more individuals.")
        )
    if settings.architecture == "common":
        cohort.check_variants(settings, model_of(settings))


def disease_cell_type(world: World, settings: SimulateSettings) -> str:
    """Return the cell type that the disease acts in."""
    return world.regulome.cell_types[: model_of(settings).disease_cell_type + 1][-1]


def write_cohort(folder: Path, rngs: Generators, world: World, settings: SimulateSettings) -> dict[str, object]:
    """Draw and write variants, genotypes and phenotypes, and return their numbers."""
    draw = draw_common if settings.architecture == "common" else draw_of_rare
    cell_type = disease_cell_type(world, settings)
    drawn = draw(rngs, world, cell_type, settings)
    people = drawn.people
    if settings.shuffled:
        phenotypes = ["disease", "trait"]
        people[phenotypes] = people[phenotypes].to_numpy()[rngs["shuffle"].permutation(len(people))]
        people = people.astype({"disease": int})
    write_vcf(folder / "cohort.vcf.gz", world.genome, drawn.variants, drawn.carriers, list(people["sample"]))
    write_table(folder / "phenotypes.tsv", people)
    for name, table in {**drawn.truth, "variants": localised(drawn.variants, world.genome)}.items():
        write_table(folder / f"truth/{name}.tsv", table)
    return {
        "variants": len(drawn.variants),
        "motif_variants": int(drawn.variants.in_motif.sum()),
        "causal_variants": int(drawn.variants.causal.sum()),
        **drawn.facts,
        "individuals": len(people),
        "cases": int(people.disease.sum()),
        "disease_cell_type": cell_type,
    }


def draw_common(rngs: Generators, world: World, cell_type: str, settings: SimulateSettings) -> Drawn:
    """Draw a cohort with common variants."""
    model = model_of(settings)
    variants = cohort.place_variants(
        rngs["variants"], world.genome, world.elements, world.instances, world.regulome, settings, model
    )
    home, shift = cohort.shift_occupancy(variants, world.genome, world.elements, world.regulome)
    variants = cohort.score_variants(variants, home, shift, world.elements, world.instances, world.regulome)
    genotypes = cohort.draw_genotypes(rngs["genotypes"], variants.position.to_numpy(), settings.individuals, model)
    fraction = settings.case_fraction
    variants, people = cohort.afflict(rngs["disease"], variants, genotypes, cell_type, fraction, model)
    return Drawn(variants, sparse.csr_matrix(genotypes), people, {}, {})


def draw_of_rare(rngs: Generators, world: World, cell_type: str, settings: SimulateSettings) -> Drawn:
    """Draw a cohort with rare variants."""
    model = RareModel(shared=model_of(settings))
    drawn = draw_rare(rngs, world, settings, model)
    causes = find_causes(rngs["disease"], world, drawn, cell_type, settings, model)
    people, liability = fall_ill(rngs["disease"], causes.genetic, drawn.relations, settings.case_fraction, model)
    truth = {"regions": causes.regions, "individuals": liability}
    facts = {
        "cohort_regions": len(causes.regions),
        "causal_regions": int(causes.regions.causal.sum()),
        "singletons": int((drawn.copies == 1).sum()),
    }
    return Drawn(causes.variants, drawn.carriers, people, truth, facts)


def localised(variants: pd.DataFrame, where: Genome) -> pd.DataFrame:
    """Return variants with positions on their chromosomes, and 0 and 1 for what is true of them or not."""
    position = variants.position.to_numpy()
    flags = {name: variants[name].astype(int) for name in ("causal", "in_motif")}
    table = variants.assign(position=position % where.length, **flags)
    table.insert(1, "chrom", where.chromosome_of(position))
    return table


def write_vcf(
    path: Path, where: Genome, variants: pd.DataFrame, carriers: sparse.csr_matrix, samples: list[str]
) -> None:
    """Write phased genotypes as bgzip VCF 4.2 with a tabix index.

    Args:
        carriers: 1 where a haplotype is alternate, shape (variants, 2 * samples).
    """
    header = ["##fileformat=VCFv4.2", '##FILTER=<ID=PASS,Description="All filters passed">']
    header += [f"##contig=<ID={name},length={where.length}>" for name in where.chromosomes]
    header += [
        '##INFO=<ID=AC,Number=A,Type=Integer,Description="Alternate allele count">',
        '##INFO=<ID=AN,Number=1,Type=Integer,Description="Number of alleles">',
        '##INFO=<ID=AF,Number=A,Type=Float,Description="Alternate allele frequency">',
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Phased genotype">',
        "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *samples]),
    ]
    chromosomes = where.chromosome_of(variants.position.to_numpy())
    nobody = np.frombuffer(b"\t0|0" * len(samples) + b"\n", np.uint8)
    with pysam.BGZFile(str(path), "w") as handle:
        handle.write(("\n".join(header) + "\n").encode())
        for number, (row, chrom) in enumerate(zip(records(variants), chromosomes, strict=True)):
            alternate = carriers.indices[carriers.indptr[number] : carriers.indptr[number + 1]]
            info = f"AC={len(alternate)};AN={carriers.shape[1]};AF={len(alternate) / carriers.shape[1]:.4g}"
            position = row.position % where.length + 1
            calls = nobody.copy()
            calls[1 + 2 * alternate] = ord("1")  # each haplotype is one letter, after a tab or a bar
            handle.write(f"{chrom}\t{position}\t{row.id}\t{row.ref}\t{row.alt}\t.\tPASS\t{info}\tGT".encode())
            handle.write(calls.tobytes())
    pysam.tabix_index(str(path), preset="vcf", force=True)
