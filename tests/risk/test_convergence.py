"""Tables of regions, TFs, variants and individuals on a cohort that a hand can follow."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from toy_risk import cohort_of, individuals_of, toy_cohort

from genebert.risk.association import Association
from genebert.risk.contributions import individuals_table, region_weights
from genebert.risk.convergence import (
    CarriedVariants,
    convergence_table,
    convergence_tfs_table,
    regions_table,
    tf_names,
    tfs_table,
)
from genebert.risk.design import Genotypes, Individuals, region_effects
from genebert.risk.elastic_net import RegionNet
from genebert.risk.models import cross_validate
from genebert.risk.outcome import outcome_of
from genebert.schema import Motif

CHANGE = np.array([2.0, 1.0, -1.0, 0.5])
"""Of the log-odds: of three variants in region r0, then one in r1."""
MOTIFS = [Motif(id, name, np.full((4, 4), 0.25)) for id, name in (("M1", "GATA1"), ("M2", "CTCF"), ("M3", "CTCF"))]
TF_CHANGES = np.array([[-3, 0, 0], [-2, 0.5, 0], [0, 4, 0], [0, 0, 0]], dtype=np.float32)


@pytest.fixture
def variants() -> CarriedVariants:
    """Eight individuals, of whom the first four are cases, carry four variants in two regions."""
    copies = np.array(
        [[1, 0, 0, 1], [0, 1, 0, 1], [2, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]]
    )
    cohort = cohort_of(copies, np.array([0, 0, 0, 1]))
    people = Individuals(
        cohort.samples, "binary", np.repeat([1.0, 0.0], 4), np.ones((8, 1)), np.arange(8) % 4, np.arange(8)
    )
    return CarriedVariants.of(people, cohort, CHANGE, MOTIFS, TF_CHANGES)


def test_motifs_of_one_name_are_told_apart() -> None:
    assert tf_names(MOTIFS) == ["GATA1", "CTCF (M2)", "CTCF (M3)"]


def test_regions_come_by_p_with_their_carriers_and_their_tf(variants: CarriedVariants) -> None:
    effects = region_effects(variants.cohort, CHANGE)
    found = Association(np.array([0.6, np.nan]), np.array([0.01, np.nan]), np.array([0.01, np.nan]))
    table = regions_table(variants, effects, np.array([0.3, 0.0]), found)
    assert table["region"].tolist() == ["r0", "r1"]
    first = table.iloc[0]
    assert first[["rank", "carriers_cases", "carriers_controls", "variants"]].tolist() == [1, 3, 2, 3]
    assert first["mean_change_cases"] == pytest.approx((2 + 1 + 4) / 3)
    assert first["mean_change_controls"] == pytest.approx((-1 + 1) / 2)
    assert first["top_tf"] == "GATA1"
    assert first["top_tf_change"] == pytest.approx((3 * -3 + 2 * -2 + 0) / 6)
    assert table.iloc[1][["top_tf", "carriers_cases", "carriers_controls"]].tolist() == [".", 4, 3]
    assert np.isnan(table["top_tf_change"][1])


def test_ties_of_p_are_broken_by_the_correlation(variants: CarriedVariants) -> None:
    found = Association(np.array([0.2, -0.6]), np.array([0.01, 0.01]), np.array([0.01, 0.01]))
    table = regions_table(variants, region_effects(variants.cohort, CHANGE), np.zeros(2), found)
    assert table["region"].tolist() == ["r1", "r0"]


def test_a_tf_is_tested_by_the_sum_of_what_is_carried(variants: CarriedVariants) -> None:
    table = tfs_table(variants, Genotypes.of(variants.cohort), 1000, seed=0).set_index(["tf", "direction"])
    lost, gained = table.loc[("GATA1", "lost")], table.loc[("CTCF (M2)", "gained")]
    assert lost[["carriers_cases", "carriers_controls", "variants", "regions"]].tolist() == [3, 1, 2, 1]
    assert gained[["carriers_cases", "carriers_controls", "variants", "regions"]].tolist() == [0, 1, 1, 1]
    assert table.loc[("CTCF (M3)", "lost"), "variants"] == 0
    assert table["p"].isna().all()  # fewer carriers than are tested


def test_a_tf_that_cases_lose_comes_first() -> None:
    toy = toy_cohort(n=400, regions=40, causal=40, frequency=(0.01, 0.05), heritability=0.8)
    people = individuals_of(toy)
    changes = np.random.default_rng(0).normal(0, 2, size=(len(toy.change), 3)).astype(np.float32)
    changes[:, 0] = -2 * toy.change
    variants = CarriedVariants.of(people, toy.cohort, toy.change, MOTIFS, changes)
    table = tfs_table(variants, Genotypes.of(toy.cohort), 10_000, seed=0)
    assert table.iloc[:2][["tf", "direction"]].to_numpy().tolist() in (
        [["GATA1", "lost"], ["GATA1", "gained"]],
        [["GATA1", "gained"], ["GATA1", "lost"]],
    )
    assert (table["q"][:2] < 0.01).all()
    assert (table["p"][2:] > 0.001).all()


def test_variants_of_ranked_regions_stand_side_by_side(variants: CarriedVariants) -> None:
    table = convergence_table(variants, ["r0"])
    assert table["variant"].tolist() == ["chr1:1:A>T", "chr1:2:A>T", "chr1:3:A>T"]
    assert table["tf"].tolist() == ["GATA1", "GATA1", "CTCF (M2)"]
    assert table["direction"].tolist() == ["lost", "lost", "gained"]
    assert table["change"].tolist() == [2, 1, -1]
    assert table["carriers_cases"].tolist() == [2, 1, 0]
    assert table["carriers_controls"].tolist() == [0, 1, 1]
    assert convergence_table(variants, ["r1", "r0"])["region"].tolist() == ["r1", "r0", "r0", "r0"]


def test_a_tf_is_named_only_where_a_variant_hits_it(variants: CarriedVariants) -> None:
    weaker = replace(variants, changes=variants.changes * np.float32(0.4))  # -1.2, -0.8 and 1.6
    table = convergence_table(weaker, ["r0"])
    assert table["tf"].tolist() == ["GATA1", ".", "CTCF (M2)"]
    assert table["direction"].tolist() == ["lost", ".", "gained"]


def test_variants_that_hit_a_tf_stand_side_by_side(variants: CarriedVariants) -> None:
    genotypes = Genotypes.of(variants.cohort)
    tfs = pd.DataFrame({"tf": ["CTCF (M2)", "GATA1", "GATA1"], "direction": ["gained", "gained", "lost"]})
    table = convergence_tfs_table(variants, genotypes, tfs)
    assert list(table) == [
        *("tf", "direction", "region", "variant", "id", "tf_change", "carriers_cases", "carriers_controls")
    ]
    assert table["tf"].tolist() == ["CTCF (M2)", "GATA1", "GATA1"]
    assert table["variant"].tolist() == ["chr1:3:A>T", "chr1:1:A>T", "chr1:2:A>T"]
    assert table["tf_change"].tolist() == [4, -3, -2]
    assert table["carriers_cases"].tolist() == [0, 2, 1]
    assert table["carriers_controls"].tolist() == [1, 0, 1]
    assert list(convergence_tfs_table(variants, genotypes, tfs.head(0))) == list(table)


def test_contributions_add_up_to_the_log_odds_of_the_model_that_has_not_seen_the_individual() -> None:
    toy = toy_cohort(n=300, regions=5, causal=2, frequency=(0.05, 0.2))
    age = toy.cohort.dosage[:, :3].sum(axis=1) + np.random.default_rng(0).standard_normal((300, 1))
    people = individuals_of(toy, covariates=np.asarray(age))
    effects = region_effects(toy.cohort, toy.change)
    scores = cross_validate(RegionNet(people, {"change": effects}), people)
    names = toy.cohort.regions["name"].tolist()
    table = individuals_table(people, scores, names)
    total = table.groupby("sample")["contribution"].sum().reindex(people.samples, fill_value=0).to_numpy()
    slope = np.array([outcome_of(people, [scores], k).coefficients[-1] for k in people.fold])
    assert np.allclose(total, scores.outer * slope)
    assert (table.groupby("sample")["contribution"].apply(lambda c: c.abs().is_monotonic_decreasing)).all()
    row = table.iloc[0]
    index = people.samples.index(row["sample"])
    assert row["change"] == pytest.approx(effects[index, names.index(row["region"])])


def test_weights_are_in_log_odds_per_unit_of_change() -> None:
    toy = toy_cohort(n=2000, regions=3, causal=1, heritability=0.5, frequency=(0.05, 0.2))
    people = individuals_of(toy)
    net = RegionNet(people, {"change": region_effects(toy.cohort, toy.change)})
    scores = cross_validate(net, people)
    table, weight = region_weights(people, scores, net.fit(frozenset()))
    effects = region_effects(toy.cohort, toy.change).toarray()
    wanted = LogisticRegression(C=1e6).fit(effects, people.phenotype).coef_[0]
    assert table == "change"
    assert np.allclose(weight, wanted, atol=0.1 * np.abs(wanted).max())
