from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from toys import World, write_fasta

from genebert.corpus.store import Corpus
from genebert.inputs.genome import Genome
from genebert.predictor import Predictor
from genebert.schema import Variant, decode
from genebert.variants.null import ENOUGH, Null, Reservoir, draw, kind_of
from genebert.variants.scorer import TOP_MOTIFS, Scorer, Scores
from genebert.variants.tables import effects_of
from genebert.variants.zero_shot import ZeroShotScores

WIDTH = 60
CLASSES = (("C", "A"), ("C", "T"), ("T", "G"))


def scores_of(difference: np.ndarray, gc: np.ndarray, density: np.ndarray) -> Scores:
    n = len(difference)
    motifs, changes = np.full((n, TOP_MOTIFS), -1), np.zeros((n, TOP_MOTIFS), dtype=np.float32)
    return Scores(np.zeros_like(difference), difference, motifs, changes, motifs, changes, gc, density)


def rows_of(scores: Scores, rows: np.ndarray) -> Scores:
    return Scores(**{field.name: getattr(scores, field.name)[rows] for field in fields(Scores)})


def made(n: int, generator: np.random.Generator) -> tuple[list[Variant], Scores]:
    """Variants whose effects in two cell types depend on substitution, GC content and motif density."""
    kinds = generator.integers(0, len(CLASSES), n)
    variants = [Variant("chr1", i, *CLASSES[kind]) for i, kind in enumerate(kinds)]
    gc, density = generator.random(n), generator.random(n)
    scale = (1 + 3 * kinds) * (1 + 4 * (gc > 2 / 3)) * (1 + 2 * (density > 2 / 3))
    return variants, scores_of(scale[:, None] * generator.normal(size=(n, 2)), gc, density)


def test_p_values_of_variants_drawn_like_the_null_are_uniform_within_each_stratum() -> None:
    """An unmatched null would make all substitutions of one kind significant."""
    generator = np.random.default_rng(0)
    null = Null(*made(6000, generator))
    variants, scores = made(1500, generator)
    p = null.p_values(variants, scores)
    assert ((p > 0) & (p <= 1)).all()
    kinds = np.array([kind_of(variant)[1] for variant in variants])
    for column in range(2):
        assert stats.kstest(p[:, column], "uniform").pvalue > 0.01
        for kind in np.unique(kinds):
            for rows in (scores.gc > 2 / 3, scores.gc < 1 / 3):
                assert stats.kstest(p[(kinds == kind) & rows, column], "uniform").pvalue > 0.005
    pooled = np.abs(scores.difference) >= np.median(np.abs(scores.difference))
    assert pooled[kinds == "T>G"].mean() > 1.5 * pooled[kinds == "C>A"].mean()


def test_planted_effects_have_small_p_values() -> None:
    generator = np.random.default_rng(1)
    null = Null(*made(3000, generator))
    variants, scores = made(50, generator)
    strong = scores_of(np.sign(scores.difference) * 500.0, scores.gc, scores.density)
    assert (null.p_values(variants, strong) <= 1 / (1 + ENOUGH)).all()


def test_scores_that_are_the_same_in_all_cell_types_have_p_values_of_their_own() -> None:
    generator = np.random.default_rng(0)
    variants, scores = made(50, generator)
    further = {"likelihood_ratio": generator.normal(size=50), "embedding_distance": generator.random(50)}
    beside = ZeroShotScores(**{field.name: getattr(scores, field.name) for field in fields(Scores)}, **further)
    p = Null(variants, beside).p_values(variants, beside)  # fewer than enough: all of them are the null
    np.testing.assert_array_equal(p[:, :-2], Null(variants, scores).p_values(variants, scores))
    for column, values in zip(p.T[-2:], further.values(), strict=True):
        at_least = [sum(abs(other) >= abs(value) for other in values) for value in values]
        np.testing.assert_allclose(column, (1 + np.array(at_least)) / 51)
    (first, *_) = effects_of(beside, p, [])
    assert first.p.tolist() == p[0, :-2].tolist()
    assert [first.further[f"{name}_p"] for name in further] == p[0, -2:].tolist()
    (first, *_) = effects_of(beside, None, [])
    assert first.further["likelihood_ratio"] == further["likelihood_ratio"][0]
    assert np.isnan(first.further["likelihood_ratio_p"])


def test_p_is_counted_in_the_finest_stratum_that_holds_enough() -> None:
    """150 C>T of effects 1 to 150 in one GC bin, 60 T>G of effect 1000: the latter fall back to all substitutions."""
    few, many = [Variant("chr1", i, "T", "G") for i in range(60)], [Variant("chr1", i, "C", "T") for i in range(150)]
    sizes = np.concatenate([np.arange(1, 151), np.full(60, 1000)]).astype(float)[:, None]
    same = np.full(210, 0.5)
    null = Null([*many, *few], scores_of(sizes, same, same))
    one = scores_of(np.array([[-100.0]]), same[:1], same[:1])
    assert null.p_values(many[:1], one)[0, 0] == (1 + 51) / (1 + 150)
    assert null.p_values(few[:1], one)[0, 0] == (1 + 51 + 60) / (1 + 210)
    assert null.p_values([Variant("chr1", 1, "C", "CA")], one)[0, 0] == (1 + 51 + 60) / (1 + 210)


@pytest.mark.parametrize(
    ("ref", "alt", "kind"),
    [
        ("C", "A", ("substitution", "C>A")),
        ("G", "T", ("substitution", "C>A")),
        ("A", "G", ("substitution", "T>C")),
        ("AC", "GT", ("substitution", "of several bases")),
        ("A", "AC", ("insertion", "up to 1 bp")),
        ("ACC", "A", ("deletion", "up to 3 bp")),
        ("A", "A" + "C" * 11, ("insertion", "longer")),
    ],
)
def test_kinds_fold_strands_and_class_indels_by_length(ref: str, alt: str, kind: tuple[str, str]) -> None:
    assert kind_of(Variant("chr1", 5, ref, alt)) == kind


def test_a_reservoir_keeps_each_variant_equally_often() -> None:
    kept = np.zeros(40)
    for seed in range(2000):
        reservoir = Reservoir(10, np.random.default_rng(seed))
        for i in range(40):
            reservoir.add(Variant("chr1", i, "A", "C"))
        assert reservoir.seen == 40 and len({variant.position for variant in reservoir.kept}) == 10
        kept[[variant.position for variant in reservoir.kept]] += 1
    assert stats.chisquare(kept).pvalue > 0.01
    nothing = Reservoir(0, np.random.default_rng(0))
    nothing.add(Variant("chr1", 0, "A", "C"))
    assert (nothing.kept, nothing.seen) == ([], 1)


@pytest.fixture
def genome(tmp_path: Path) -> Iterator[Genome]:
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 500).tolist())
    with Genome(write_fasta(tmp_path / "genome.fa", {"chr1": letters[:200] + "NNNN" + letters[204:]})) as opened:
        yield opened


def like(genome: Genome, position: int, length: int, alt: str, chrom: str = "chr1") -> Variant:
    return Variant(chrom, position, decode(genome.fetch(chrom, position, position + length)), alt)


def test_random_variants_are_of_the_same_kind_in_the_same_window_at_another_place(genome: Genome) -> None:
    given = [
        like(genome, 190, 1, "C" if decode(genome.fetch("chr1", 190, 191)) != "C" else "T"),
        like(genome, 300, 3, decode(genome.fetch("chr1", 300, 301))),
        like(genome, 310, 1, decode(genome.fetch("chr1", 310, 311)) + "GATTACA"),
    ]
    starts = {given[0].name: 170, given[1].name: 280, given[2].name: 280}

    def room(variant: Variant) -> tuple[int, int]:
        return starts[variant.name], starts[variant.name] + WIDTH

    def run(seed: int) -> list[Variant]:
        generator = np.random.default_rng(seed)
        return draw(given, 300, room, genome, generator)

    drawn = run(0)
    assert drawn == run(0) != run(1)
    assert drawn == sorted(drawn, key=lambda variant: variant.position)
    for one in given:
        same = [variant for variant in drawn if kind_of(variant) == kind_of(one)]
        assert len(same) == 100
        for variant in same:
            assert starts[one.name] <= variant.position < starts[one.name] + WIDTH
            assert variant.position != one.position
            assert variant.ref == decode(genome.fetch("chr1", variant.position, variant.position + len(variant.ref)))
            assert "N" not in variant.ref and variant.ref != variant.alt
            assert len(variant.alt) - len(variant.ref) == len(one.alt) - len(one.ref)
    inserted = {variant.alt[1:] for variant in drawn if len(variant.alt) == 8}
    assert len(inserted) > 20 and {"".join(sorted(word)) for word in inserted} == {"AAACGTT"}


def test_a_window_without_another_place_gives_none(tmp_path: Path) -> None:
    with Genome(write_fasta(tmp_path / "poor.fa", {"chr1": "A" * 10 + "C" + "A" * 10})) as genome:
        only = Variant("chr1", 10, "C", "T")
        assert draw([only], 5, lambda variant: (0, 21), genome, np.random.default_rng(0)) == []


def test_an_allele_longer_than_the_window_gives_none(genome: Genome) -> None:
    long = like(genome, 20, 60, decode(genome.fetch("chr1", 20, 21)))
    assert draw([long], 5, lambda variant: (0, 50), genome, np.random.default_rng(0)) == []


def test_random_insertions_change_their_window(genome: Genome) -> None:
    given = like(genome, 25, 1, decode(genome.fetch("chr1", 25, 26)) + "GAT")
    drawn = draw([given], 400, lambda variant: (20, 30), genome, np.random.default_rng(0))
    assert {variant.position for variant in drawn} == set(range(20, 29)) - {25}


def test_variants_drawn_like_the_null_have_uniform_p_values_and_planted_ones_small_ones(
    toy_world: World, toy_predictor: Path, toy: Corpus
) -> None:
    """From the genome to p: windows, scores, strata. Most of the drawn variants are the null of the others, many times.

    A single division would not do: against one null of 100 variants, p-values vary by more than a test of uniformity
    of independent numbers allows for.
    """
    with Genome(toy_world.genome) as genome:
        scorer = Scorer(Predictor.open(toy_predictor, "cpu"), genome, toy, [])
        generator = np.random.default_rng(3)
        places = toy.regions.query("chrom == 'chr3'")["start"].to_numpy() + generator.integers(0, 60, 1)
        given = [like(genome, int(place), 1, "A", "chr3") for place in places]
        given = [replace(one, alt="ACGT"["ACGT".index(one.ref) - 1]) for one in given if one.ref != "N"]
        drawn = draw(given, 400, scorer.windows.room, genome, generator)
        scores = scorer.scores(drawn)
    p = []
    for _ in range(50):
        order = generator.permutation(len(drawn))
        null, others = (np.sort(rows) for rows in (order[:280], order[280:]))
        null_of = Null([drawn[i] for i in null], rows_of(scores, null))
        p.append(null_of.p_values([drawn[i] for i in others], rows_of(scores, others)))
    levels = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(
        (np.concatenate(p) <= levels[:, None, None]).mean(axis=1), np.tile(levels[:, None], 3), atol=0.03
    )
    planted = replace(scores, alternate=scores.reference + 50)
    assert (null_of.p_values(drawn, planted) < 0.01).all()
