from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pytest

from genebert.errors import UserError
from genebert.settings import SimulateSettings
from genebert.simulate import simulate
from genebert.simulation.cohort_files import Drawn, draw_of_rare, model_of
from genebert.simulation.genome import GenomeModel
from genebert.simulation.rare import RareCohort, RareModel, draw_rare
from genebert.simulation.world import World, generators, make_world

SETTINGS = SimulateSettings(
    out=Path(),
    genome_mb=2,
    regions=800,
    genes=80,
    architecture="rare",
    cohort_regions=100,
    variants=2000,
    individuals=1000,
    causal=12,
)
CELL_TYPE = "Mono"


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(generators(SETTINGS), SETTINGS, GenomeModel())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(changed(out=tmp_path_factory.mktemp("rare") / "a", individuals=300, siblings=20))


def changed(**changes: object) -> SimulateSettings:
    return SETTINGS.model_copy(update=changes)


def draw(world: World, **changes: object) -> Drawn:
    settings = changed(**changes)
    return draw_of_rare(generators(settings), world, CELL_TYPE, settings)


def cohort_of(world: World, **changes: object) -> RareCohort:
    settings = changed(**changes)
    return draw_rare(generators(settings), world, settings, RareModel(shared=model_of(settings)))


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_variants_lie_in_the_cores_of_as_many_regions_as_asked_for(world: World) -> None:
    cohort = cohort_of(world)
    position = cohort.variants.position.to_numpy()
    assert len(cohort.regions) == 100 and len(position) == 2000 == len(np.unique(position))
    elements = world.elements.iloc[cohort.regions[cohort.region]]
    assert (position >= elements.start.to_numpy()).all() and (position < elements.end.to_numpy()).all()
    assert (cohort.variants.element == elements.element.to_numpy()).all()
    assert world.access.called[cohort.regions].any(axis=1).all()
    letters = np.array(list("ACGT"))
    assert (cohort.variants.ref == letters[world.genome.codes[position]]).all()
    assert (cohort.variants.ref != cohort.variants.alt).all()
    assert 0.5 < cohort.variants.in_motif.mean() < 0.7  # half of them are aimed, others hit by chance
    assert min(np.diff(np.sort(position))) == 1  # closer than common variants may be


def test_copies_follow_the_spectrum(world: World) -> None:
    """20 of 2,000 haplotypes at most, and x copies as often as 1 / x says."""
    copies = cohort_of(world).copies
    assert copies.min() == 1 and copies.max() == 20
    share = 1 / np.arange(1, 21)
    expected = 2000 * share / share.sum()
    found = np.bincount(copies, minlength=21)[1:]
    assert (np.abs(found - expected) < 4 * np.sqrt(expected)).all()


@pytest.mark.parametrize("effects", ["converge", "scatter"])
@pytest.mark.parametrize("heritability", [0.1, 0.5])
def test_the_causal_part_explains_the_variance_asked_for(world: World, effects: str, heritability: float) -> None:
    drawn = draw(world, effects=effects, heritability=heritability, individuals=4000)
    truth = drawn.truth["individuals"]
    assert truth.genetic.var() == pytest.approx(heritability, rel=0.01)
    assert truth.liability.var() == pytest.approx(1, abs=0.08)
    assert abs(np.corrcoef(truth.genetic, truth.liability - truth.genetic)[0, 1]) < 4 / np.sqrt(4000)
    regions = drawn.truth["regions"]
    assert regions.causal.sum() == 12 and (regions.variance[regions.causal == 0] == 0).all()
    assert regions.variance.sum() == pytest.approx(heritability, rel=0.2)  # regions are nearly independent
    assert truth.liability[drawn.people.disease == 1].min() > truth.liability[drawn.people.disease == 0].max()


def test_covariates_explain_what_the_model_says(world: World) -> None:
    drawn = draw(world, individuals=4000, heritability=0.1, case_fraction=0.2)
    people, liability = drawn.people, drawn.truth["individuals"].liability
    assert people.disease.sum() == 800
    for name, variance in {"sex": 0.05, "age": 0.03, "ancestry1": 0.02, "ancestry2": 0.0}.items():
        assert np.corrcoef(people[name], liability)[0, 1] ** 2 == pytest.approx(variance, abs=0.02)
    assert people.age.mean() == pytest.approx(55, abs=1) and people.age.std() == pytest.approx(12, abs=1)


def test_effects_converge_through_the_sequence_that_people_have(folder: Path, world: World) -> None:
    """Read the files as anyone would: two sequences per person and region, weights from the truth, nothing else."""
    regions, people = table(folder / "truth/regions.tsv"), table(folder / "truth/individuals.tsv")
    column = world.regulome.cell_types.index(CELL_TYPE)
    total = np.zeros(len(people))
    with pysam.VariantFile(str(folder / "cohort.vcf.gz")) as vcf, pysam.FastaFile(str(folder / "genome.fa")) as fasta:
        for region in regions[regions.causal == 1].itertuples():
            reference = fasta.fetch(region.chrom, region.start, region.end).upper()
            personal = [list(reference) for _ in range(2 * len(people))]
            for record in vcf.fetch(region.chrom, region.start, region.end):
                for i, call in enumerate(record.samples.values()):
                    for j, allele in enumerate(call["GT"]):
                        personal[2 * i + j][record.start - region.start] = record.alleles[allele]
            sequences = [reference, *map("".join, personal)]
            distinct = sorted(set(sequences))
            codes = np.array([["ACGT".index(base) for base in one] for one in distinct], np.uint8)
            odds = dict(zip(distinct, world.regulome.log_odds(world.regulome.occupancy(codes))[:, column], strict=True))
            change = np.array([odds[one] for one in sequences[1:]]) - odds[reference]
            total += region.weight * (change[::2] + change[1::2])
    assert np.allclose(total - total.mean(), people.genetic, atol=2e-3)
    assert people.genetic.std() > 0.5


def test_scattered_effects_are_single_variants_that_ignore_accessibility(world: World) -> None:
    drawn = draw(world, effects="scatter", individuals=4000)
    causal = drawn.variants[drawn.variants.causal]
    assert len(causal) == 12 == causal.element.nunique()
    assert set(causal.element) == set(drawn.truth["regions"].query("causal == 1").element)
    dosage = drawn.carriers[causal.index].toarray()
    total = causal.disease_effect.to_numpy() @ (dosage[:, ::2] + dosage[:, 1::2])
    assert np.allclose(total - total.mean(), drawn.truth["individuals"].genetic)
    assert (drawn.truth["regions"].weight == 0).all()


def test_effects_of_single_variants_and_changes_per_tf_agree(world: World) -> None:
    variants = draw(world).variants
    weight = variants.disease_effect / variants[f"delta_{CELL_TYPE}"]
    for _, one in weight[variants.causal].groupby(variants.element):
        assert np.allclose(one, one.iloc[0])
    size = variants.filter(like="occupancy_")
    named = variants.tf != "."
    top = size[named].abs().idxmax(axis=1).str.removeprefix("occupancy_")
    assert (top == variants.tf[named]).all() and (size[~named].abs() < 1e-9).all().all()


def test_siblings_share_haplotypes(world: World) -> None:
    """Of each parent's two haplotypes a child has one, by chromosome; two children have the same one half the time."""
    drawn = draw(world, individuals=200, siblings=70, variants=4000)
    family = drawn.people.family.to_numpy()
    assert (family[:140:2] == family[1:140:2]).all() and len(np.unique(family)) == 130
    carriers = drawn.carriers.toarray()
    chromosome = drawn.variants.position.to_numpy() // world.genome.length
    same = []
    for rows in (chromosome == one for one in range(8)):
        for side in (0, 1):  # from the mother, from the father
            one, other = (carriers[rows][:, side + child : 280 : 4] for child in (0, 2))
            same += list((one == other).all(axis=0)[one.any(axis=0)])
    assert np.mean(same) == pytest.approx(0.5, abs=0.06)
    dosage = (carriers[:, ::2] + carriers[:, 1::2]).T.astype(float)
    siblings = np.mean([dosage[2 * i] @ dosage[2 * i + 1] for i in range(70)])
    strangers = np.mean([one @ other for one, other in pairwise(dosage[140:])])
    assert siblings > 5 * strangers


def test_a_haplotype_of_a_sibling_is_one_of_its_parents(world: World) -> None:
    """Founders are drawn alike with and without siblings, whose haplotypes are then those of their places."""
    founders, children = (cohort_of(world, siblings=pairs, cohort_seed=5) for pairs in (0, 500))
    chromosome = children.variants.position.to_numpy() // world.genome.length
    known = founders.variants.position.isin(children.variants.position).to_numpy()
    before, after = founders.carriers[known].toarray(), children.carriers.toarray()
    for one in range(8):
        rows = chromosome == one
        for side in (0, 1):
            mother = before[rows][:, 4 * 7 + 2 * side : 4 * 7 + 2 * side + 2]
            for child in (0, 1):
                own = after[rows][:, 4 * 7 + 2 * child + side]
                assert (own == mother[:, 0]).all() or (own == mother[:, 1]).all()


def test_private_variants_stay_in_their_population(world: World) -> None:
    cohort = cohort_of(world, structure=1.0)
    population = np.repeat(cohort.relations.population, 2)
    several = [row.indices for row in cohort.carriers if row.nnz > 1]
    assert all(len(set(population[one])) == 1 for one in several)
    mixed = cohort_of(world)
    population = np.repeat(mixed.relations.population, 2)
    assert np.mean([len(set(population[row.indices])) > 1 for row in mixed.carriers if row.nnz > 1]) > 0.7


def test_ancestry_components_tell_populations_apart(world: World) -> None:
    drawn = draw(world)
    means = drawn.people[["ancestry1", "ancestry2"]].groupby(drawn.truth["individuals"].population).mean()
    assert np.allclose(means, [[-1, -1], [-1, 1], [1, -1], [1, 1]], atol=0.1)


def test_a_shuffled_cohort_is_null(folder: Path, tmp_path: Path) -> None:
    null = simulate(changed(out=tmp_path / "null", individuals=300, siblings=20, shuffled=True))
    before, after = files(folder), files(null)
    assert {name for name in before if before[name] != after[name]} == {
        "phenotypes.tsv",
        "truth/model.json",
        "manifest.json",
    }
    was, now = table(folder / "phenotypes.tsv"), table(null / "phenotypes.tsv")
    assert was.drop(columns=["disease", "trait"]).equals(now.drop(columns=["disease", "trait"]))
    pairs = [one[["trait", "disease"]].sort_values("trait", ignore_index=True) for one in (was, now)]
    assert pairs[0].equals(pairs[1])
    genetic = table(folder / "truth/individuals.tsv").genetic
    for name in ("disease", "trait"):
        assert np.corrcoef(was[name], genetic)[0, 1] > 0.4
        assert abs(np.corrcoef(now[name], genetic)[0, 1]) < 3 / np.sqrt(300)


def test_another_cohort_on_the_same_genome(folder: Path, tmp_path: Path) -> None:
    same = simulate(changed(out=tmp_path / "same", individuals=300, siblings=20, cohort_seed=0))
    other = simulate(changed(out=tmp_path / "other", individuals=300, siblings=20, cohort_seed=1))
    of_cohort = {"cohort.vcf.gz", "cohort.vcf.gz.tbi", "phenotypes.tsv"}
    of_cohort |= {f"truth/{name}" for name in ("variants.tsv", "regions.tsv", "individuals.tsv")}
    record = {"manifest.json", "truth/model.json"}  # they name the seed
    first = files(folder)
    assert {name for name, content in files(same).items() if content != first[name]} == record
    assert {name for name, content in files(other).items() if content != first[name]} == of_cohort | record


def test_vcf_has_the_copies_that_it_says(folder: Path) -> None:
    variants = table(folder / "truth/variants.tsv").set_index("id")
    with pysam.VariantFile(str(folder / "cohort.vcf.gz")) as vcf:
        records = list(vcf)
        assert [record.id for record in records] == list(variants.index)
        for record in records:
            alleles = [allele for call in record.samples.values() for allele in call["GT"]]
            assert 0 < sum(alleles) == record.info["AC"][0] and len(alleles) == 600
            assert all(call.phased for call in record.samples.values())
            row = variants.loc[record.id]
            assert (record.chrom, record.start, record.ref, record.alts[0]) == (
                row.chrom,
                row.position,
                row.ref,
                row.alt,
            )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"case_fraction": 0.0004}, "--case-fraction 0.0004: of 1000 individuals, none would be a case"),
        ({"siblings": 600}, "600 pairs of siblings are more than 1000 individuals"),
        ({"cohort_regions": 799}, "799 regions are more than the"),
        ({"variants": 9000}, "9000 variants are too many for 100 regions"),
        ({"causal": 99}, "regions have 3 variants or more that act in Mono"),
        ({"architecture": "common", "siblings": 2, "variants": 100}, "siblings: it is about rare variants"),
    ],
)
def test_impossible_cohorts_are_explained(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        simulate(changed(out=tmp_path / "x", **changes))
    assert not (tmp_path / "x").exists()
