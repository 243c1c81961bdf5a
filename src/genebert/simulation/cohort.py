"""Variants, individuals and a disease, all through the regulome of the simulation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from genebert.errors import UserError, problem
from genebert.settings import SimulateSettings
from genebert.simulation.genome import BASES, CODE_OF, Codes, Floats, Genome, Ints, Motif, records, text
from genebert.simulation.regulation import Regulome

Genotypes = npt.NDArray[np.int8]


@dataclass(frozen=True)
class CohortModel:
    """Constants of variants and the disease."""

    motif_fraction: float = 0.4  # variants that are aimed at a planted motif, one per element at most
    break_bits: float = -3.0  # a variant aimed at an intact motif lowers its score by 3 bits or more, where one can
    make_bits: float = 3.0  # a variant aimed at a spoilt motif raises its score by 3 bits or more, where one can
    indel_fraction: float = 0.1  # variants that are insertions or deletions
    longest_indel: int = 6  # bp
    cell: int = 40  # at most one variant in each stretch of this many bp
    spacing: int = 20  # least distance of two variants, bp
    least_frequency: float = 0.05  # frequencies of the alternate allele are log-uniform from here to 1 - it
    block: int = 50000  # haplotype block, bp
    linkage: float = 0.6  # share of an allele's latent value that its haplotype block decides
    causal: int = 20  # variants that act on the disease
    least_delta: float = 0.3  # least change of the log-odds of accessibility, in the disease's cell type, of those
    heritability: float = 0.5  # variance of the liability that the causal variants explain
    sex_variance: float = 0.05  # variance of the liability that sex explains; males have the greater liability
    trait_mean: float = 100.0  # quantitative trait, arbitrary units
    trait_sd: float = 15.0  # its standard deviation
    trait_heritability: float = 0.4  # its variance that the same causal variants explain
    disease_cell_type: int = 2  # number of the cell type (0-based) that the disease acts in, or the last


def check_variants(settings: SimulateSettings, model: CohortModel) -> None:
    """Raise a `UserError` if there are more variants than the genome has room for."""
    most = round(settings.genome_mb * 1e6) // (3 * model.cell)
    if settings.variants > most:
        what = f"{settings.variants} variants are too many for {settings.genome_mb} Mb"
        raise UserError(problem("variants, genome_mb", what, f"Set variants to at most {most}, or raise genome_mb."))


def place_variants(
    rng: np.random.Generator,
    genome: Genome,
    elements: pd.DataFrame,
    instances: pd.DataFrame,
    regulome: Regulome,
    settings: SimulateSettings,
    model: CohortModel,
) -> pd.DataFrame:
    """Choose variants: some aimed at planted motifs, the rest anywhere.

    Returns:
        one row each, by position: id, position (of the first base of the reference allele), ref, alt.
        Indels are anchored at the base on their left, cannot be shifted further left, and never reach into
        an element's core from its left.
    """
    aimed = _aim(rng, instances, regulome, round(model.motif_fraction * settings.variants), genome, model)
    free = _free_positions(rng, genome, aimed.position.to_numpy(), settings.variants - len(aimed), model)
    rest = pd.DataFrame({"position": free, "ref": genome.codes[free]})
    rest["alt"] = (rest.ref + rng.integers(1, 4, len(rest))) % 4
    table = pd.concat([aimed, rest]).sort_values("position", ignore_index=True)
    alleles = [(BASES[ref], BASES[alt]) for ref, alt in zip(table.ref, table.alt, strict=True)]
    following = np.append(elements.start, 10**12)[np.searchsorted(elements.start, table.position, "right")]
    clear = np.flatnonzero(following - table.position > model.longest_indel + 1)
    for i in rng.permutation(clear)[: round(model.indel_fraction * len(table))]:
        alleles[i] = _indel(rng, genome, int(table.position[i]), model) or alleles[i]
    table[["ref", "alt"]] = alleles
    table.insert(0, "id", [f"var{i + 1:06d}" for i in range(len(table))])
    return table


def _aim(
    rng: np.random.Generator,
    instances: pd.DataFrame,
    regulome: Regulome,
    n: int,
    genome: Genome,
    model: CohortModel,
) -> pd.DataFrame:
    """Choose one SNV in one motif of each of at most n elements."""
    shuffled = instances.iloc[rng.permutation(len(instances))]
    chosen = shuffled.drop_duplicates("element").iloc[:n]
    found = (spots(genome, row, regulome.tfs[row.tf], model) for row in records(chosen))
    rows = [each[rng.integers(len(each))] for each in found]
    return pd.DataFrame(rows, columns=["position", "ref", "alt"])


def spots(genome: Genome, row: Any, motif: Motif, model: CohortModel) -> list[tuple[int, int, int]]:
    """Return position, base and alternate base of the SNVs that break a motif, or that mend a weak one.

    Where no SNV does, it is the one that comes nearest.

    Args:
        row: of the planted motif, in the table of instances.
    """
    start, strand, weak = int(row.start), int(row.strand), bool(row.weak)
    site = genome.sites(np.array([start]), np.array([strand]), motif.length)[0]
    change = motif.scores - motif.scores[np.arange(motif.length), site][:, None]
    change[np.arange(motif.length), site] = np.nan
    hits = np.argwhere(change >= model.make_bits if weak else change <= model.break_bits)
    if not len(hits):
        extreme = np.nanargmax(change) if weak else np.nanargmin(change)
        hits = np.array([np.unravel_index(extreme, change.shape)])
    if strand > 0:
        return [(start + int(column), int(site[column]), int(base)) for column, base in hits]
    last = start + motif.length - 1
    return [(last - int(column), 3 - int(site[column]), 3 - int(base)) for column, base in hits]


def _free_positions(rng: np.random.Generator, genome: Genome, aimed: Ints, n: int, model: CohortModel) -> Ints:
    """Choose n places that keep their distance from Ns, the aimed variants, and one another."""
    cells = rng.permutation(len(genome.codes) // model.cell)
    found = cells * model.cell + rng.integers(0, model.cell - model.spacing, len(cells))
    taken = np.sort(np.concatenate([aimed, [-(10**9), 10**12]]))
    nearest = np.searchsorted(taken, found)
    apart = np.minimum(taken[nearest] - found, found - taken[nearest - 1]) >= model.spacing
    known = (genome.codes[np.maximum(found - model.spacing, 0)] < 4) & (
        genome.codes[np.minimum(found + model.spacing, len(genome.codes) - 1)] < 4
    )
    return np.asarray(found[apart & known & (genome.codes[found] < 4)][:n])


def _indel(rng: np.random.Generator, genome: Genome, position: int, model: CohortModel) -> tuple[str, str] | None:
    """Return the alleles of an indel after the base at `position`, or None if it could be shifted left."""
    size = int(rng.integers(1, model.longest_indel, endpoint=True))
    here = genome.codes[position : position + size + 1]
    if rng.random() < 0.5:
        return None if here[-1] == here[0] else (text(here), text(here[:1]))
    extra = rng.integers(0, 4, size).astype(np.uint8)
    extra[-1] = (here[0] + rng.integers(1, 4)) % 4
    return text(here[:1]), text(np.concatenate([here[:1], extra]))


def shift_occupancy(
    variants: pd.DataFrame, genome: Genome, elements: pd.DataFrame, regulome: Regulome
) -> tuple[Ints, Floats]:
    """Scan the elements that variants lie in with both alleles.

    Returns:
        row of the element whose core holds the variant's position, or -1; and the occupancies with the alternate
        allele less those with the reference allele, shape (variants, TFs + pairs), 0 outside elements.
    """
    position, starts, ends = (column.to_numpy() for column in (variants.position, elements.start, elements.end))
    row = np.maximum(np.searchsorted(starts, position, "right") - 1, 0)
    inside = np.flatnonzero((position >= starts[row]) & (position < ends[row]))
    width = int(ends[0] - starts[0])
    places = zip(starts[row[inside]], position[inside], variants.ref[inside], variants.alt[inside], strict=True)
    alternate = np.array([_alternate(genome, width, *place) for place in places], np.uint8).reshape(-1, width)
    owners, owner = np.unique(row[inside], return_inverse=True)
    shift = np.zeros((len(variants), len(regulome.tfs) + len(regulome.pairs)))
    shift[inside] = regulome.occupancy(alternate) - regulome.occupancy(genome.windows(starts[owners], width))[owner]
    home = np.full(len(variants), -1)
    home[inside] = row[inside]
    return home, shift


def score_variants(
    variants: pd.DataFrame,
    home: Ints,
    shift: Floats,
    elements: pd.DataFrame,
    instances: pd.DataFrame,
    regulome: Regulome,
) -> pd.DataFrame:
    """Say what variants do, given what `shift_occupancy` returns.

    Returns:
        `variants` with in_motif (the variant touches a planted motif), element and tf ("." without), change
        ("gained", "lost" or "none", of that TF's occupancy), and delta_<cell type>: the log-odds of
        accessibility of the element with the alternate allele, less that with the reference allele; 0
        outside elements.
    """
    n_tfs = len(regulome.tfs)
    top = np.abs(shift[:, :n_tfs]).argmax(1)
    size = shift[np.arange(len(variants)), top]
    names = np.array([tf.name for tf in regulome.tfs])
    scored = variants.copy()
    scored["in_motif"] = _touches(variants, instances)
    scored["element"] = np.where(home >= 0, elements.element.to_numpy()[home], ".")
    scored["tf"] = np.where(np.abs(size) > 1e-9, names[top], ".")
    scored["change"] = np.select([size > 1e-9, size < -1e-9], ["gained", "lost"], "none")
    delta = regulome.log_odds(shift) - regulome.model.baseline
    return scored.join(pd.DataFrame(delta, columns=[f"delta_{name}" for name in regulome.cell_types]))


def _alternate(genome: Genome, width: int, start: int, position: int, ref: str, alt: str) -> Codes:
    """Return `width` bases from `start` on a genome with the alternate allele."""
    window = genome.codes[start : start + width + len(ref)]
    allele = CODE_OF[np.frombuffer(alt.encode(), np.uint8)]
    at = position - start
    return np.concatenate([window[:at], allele, window[at + len(ref) :]])[:width]


def _touches(variants: pd.DataFrame, instances: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Tell which variants change bases of a planted motif, or insert between two of them."""
    size = variants.ref.str.len().to_numpy()
    anchored = size + variants.alt.str.len().to_numpy() > 2
    low = variants.position.to_numpy() + anchored
    high = variants.position.to_numpy() + size
    near = np.searchsorted(instances.start.to_numpy(), high) - 1  # the last motif that starts before the change ends
    ends = instances.end.to_numpy()[np.maximum(near, 0)]
    return np.asarray((near >= 0) & (ends > low))


def draw_genotypes(rng: np.random.Generator, positions: Ints, individuals: int, model: CohortModel) -> Genotypes:
    """Draw phased genotypes, shape (variants, 2 * individuals), an individual's haplotypes side by side.

    Each haplotype has a latent value per block and one per variant; an allele is alternate on the
    haplotypes where their sum is lowest, as many as its frequency asks for.
    """
    low = np.log(model.least_frequency)
    frequency = np.exp(rng.uniform(low, np.log(1 - model.least_frequency), len(positions)))
    genotypes = np.zeros((len(positions), 2 * individuals), np.int8)
    blocks = np.asarray(positions) // model.block
    for rows in np.split(np.arange(len(positions)), np.flatnonzero(np.diff(blocks)) + 1):
        shared = rng.normal(size=2 * individuals) * rng.choice([-1, 1], (len(rows), 1))
        own = rng.normal(size=(len(rows), 2 * individuals))
        rank = (np.sqrt(model.linkage) * shared + np.sqrt(1 - model.linkage) * own).argsort(1).argsort(1)
        genotypes[rows] = rank < np.maximum(1, np.rint(frequency[rows] * 2 * individuals))[:, None]
    return genotypes


def afflict(
    rng: np.random.Generator,
    variants: pd.DataFrame,
    genotypes: Genotypes,
    cell_type: str,
    case_fraction: float,
    model: CohortModel,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose causal variants, and draw the liability of each individual; those with the greatest are cases.

    Returns:
        `variants` with causal and disease_effect (liability per alternate allele, in standard deviations),
        and one row per individual: sample, sex (1 male, 2 female, as in PED files), disease, trait.
    """
    delta = variants[f"delta_{cell_type}"].to_numpy()
    eligible = np.flatnonzero(variants.in_motif.to_numpy() & (np.abs(delta) >= model.least_delta))
    causal = np.sort(rng.permutation(eligible)[: model.causal])
    dosage = genotypes[:, ::2] + genotypes[:, 1::2]
    n = dosage.shape[1]
    genetic, scale = standard(delta[causal] @ dosage[causal])
    male = rng.permutation(n) < n // 2
    rest = 1 - model.heritability - model.sex_variance
    liability = (
        np.sqrt(model.heritability) * genetic
        + np.sqrt(model.sex_variance) * np.where(male, 1, -1)
        + np.sqrt(rest) * rng.normal(size=n)
    )
    variants = variants.assign(causal=False, disease_effect=0.0)
    variants.loc[causal, "causal"] = True
    variants.loc[causal, "disease_effect"] = np.sqrt(model.heritability) * scale * delta[causal]
    people = pd.DataFrame(
        {
            "sample": names_of(n),
            "sex": np.where(male, 1, 2),
            "disease": cases(liability, case_fraction),
            "trait": draw_trait(rng, genetic, model),
        }
    )
    return variants, people


def names_of(individuals: int) -> list[str]:
    """Return the names of the samples."""
    return [f"P{i + 1:05d}" for i in range(individuals)]


def cases(liability: Floats, fraction: float) -> Ints:
    """Return 1 for the given fraction of the individuals, those with the greatest liability, else 0."""
    n = len(liability)
    return (liability.argsort().argsort() >= n - round(n * fraction)).astype(int)


def draw_trait(rng: np.random.Generator, genetic: Floats, model: CohortModel) -> Floats:
    """Draw a quantitative trait that shares the causal variants; `genetic` is what these add up to, standardised."""
    noise = np.sqrt(1 - model.trait_heritability) * rng.normal(size=len(genetic))
    return np.asarray(model.trait_mean + model.trait_sd * (np.sqrt(model.trait_heritability) * genetic + noise))


def standard(values: Floats) -> tuple[Floats, float]:
    """Return values with mean 0 and variance 1, and the factor applied; zeros if they do not vary."""
    spread = float(values.std()) if len(values) else 0.0
    scale = 1 / spread if spread > 0 else 0.0
    return (values - values.mean()) * scale, scale
