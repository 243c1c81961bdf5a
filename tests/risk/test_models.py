"""Nested cross-validation: which rows each model sees, and how well methods do on cohorts with known causes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from sklearn.linear_model import LogisticRegression
from toy_risk import ToyCohort, individuals_of, toy_cohort

from genebert.metrics import Estimate
from genebert.risk.attention import AttentionPooling
from genebert.risk.design import Genotypes, Individuals, burden, components, region_effects, variant_table
from genebert.risk.elastic_net import RegionNet
from genebert.risk.measures import interval, resampled
from genebert.risk.models import Candidates, Fitted, Method, cross_validate, fits
from genebert.risk.outcome import Outcome, predictions
from genebert.risk.phenotypes import Trait
from genebert.risk.polygenic import PolygenicScore

METHODS: dict[str, Callable[[ToyCohort, Individuals], Method]] = {
    "GeneBERT": lambda toy, people: RegionNet(
        people,
        {
            "change": region_effects(toy.cohort, toy.change),
            "size": region_effects(toy.cohort, abs(toy.change)),
        },
    ),
    "attention": lambda toy, people: AttentionPooling(people, toy.cohort, toy.change, None),
    "polygenic": lambda toy, people: PolygenicScore(people, Genotypes.of(toy.cohort)),
    "burden": lambda toy, people: RegionNet(people, {"alleles": burden(toy.cohort)}),
}


class Watcher(Method):
    """Notes what it is fitted without; scores are the folds held out, and the second candidate is always better."""

    def __init__(self) -> None:
        self.seen: list[frozenset[int]] = []

    def fit(self, held_out: frozenset[int]) -> Fitted:
        self.seen.append(held_out)
        return Watched(held_out)


class Watched(Fitted):
    def __init__(self, held_out: frozenset[int]) -> None:
        self.held_out = held_out

    def candidates(self, rows: NDArray[np.bool_]) -> Candidates:
        value = float(sum(10**k for k in self.held_out))
        return Candidates(np.tile([0.0, value], (rows.sum(), 1)), np.tile([1.0, 0.5], (rows.sum(), 1)))


def test_no_score_is_by_a_model_that_saw_the_individual() -> None:
    people = individuals_of(toy_cohort(n=20, regions=2))
    watcher = Watcher()
    found = cross_validate(watcher, people)
    assert len(watcher.seen) == fits(5) == 15
    assert found.chosen == [1] * 5
    assert np.array_equal(found.outer, 10.0**people.fold)
    for k in range(5):
        for i, own in enumerate(people.fold):
            assert np.isnan(found.inner[k, i]) if own == k else found.inner[k, i] == 10.0**k + 10.0**own


@pytest.mark.parametrize("name", METHODS)
def test_phenotypes_of_held_out_individuals_change_nothing(name: str) -> None:
    toy = toy_cohort(n=150, regions=20, frequency=(0.01, 0.2))
    people = individuals_of(toy)
    unseen = np.isin(people.fold, [1, 3])
    before = METHODS[name](toy, people).fit(frozenset({1, 3})).candidates(unseen).score
    values = np.where(unseen, 1 - people.phenotype, people.phenotype)
    other = Individuals(people.samples, "binary", values, people.covariates, people.fold, people.group)
    after = METHODS[name](toy, other).fit(frozenset({1, 3})).candidates(unseen).score
    assert np.array_equal(before, after)
    assert before.any()


def validated(toy: ToyCohort, people: Individuals) -> dict[str, NDArray[np.float64]]:
    scores = {name: cross_validate(make(toy, people), people) for name, make in METHODS.items()}
    found = {name: predictions(people, [one]) for name, one in scores.items()}
    found["stacked"] = predictions(people, [scores["GeneBERT"], scores["polygenic"]])
    found["covariates"] = predictions(people, [])
    return found


@pytest.mark.parametrize("trait", ["binary", "quantitative"])
def test_out_of_fold_predictions_do_not_depend_on_the_phenotypes_of_their_fold(trait: Trait) -> None:
    toy = toy_cohort(n=100, regions=10, frequency=(0.02, 0.2))
    age = np.random.default_rng(0).standard_normal((100, 1))
    values = toy.cases if trait == "binary" else toy.liability
    people = individuals_of(toy, values, age, trait)
    own = people.fold == 2
    other = replace(people, phenotype=np.where(own, values.max() - values, values))
    before, after = validated(toy, people), validated(toy, other)
    for name, found in before.items():
        assert found[own].tobytes() == after[name][own].tobytes(), name
        assert found[~own].tobytes() != after[name][~own].tobytes(), name


def test_predictions_are_in_the_unit_of_the_phenotype_whatever_it_is() -> None:
    toy = toy_cohort(n=100, regions=10, frequency=(0.02, 0.2), heritability=0.6)
    people = individuals_of(toy, 3 + toy.liability, trait="quantitative")
    found = validated(toy, people)
    assert found["GeneBERT"].std() > 0.1
    for unit in (1e5, 1e-6):
        other = validated(toy, replace(people, phenotype=unit * people.phenotype))
        for name, predicted in found.items():
            assert np.allclose(other[name] / unit, predicted, rtol=0, atol=1e-4), (name, unit)


def difference(people: Individuals, found: dict[str, NDArray[np.float64]], first: str, second: str) -> Estimate:
    values = resampled(people, {name: found[name] for name in (first, second)})
    return interval(values[first, "AUROC"] - values[second, "AUROC"], people.folds)


@pytest.mark.slow
def test_where_effects_converge_on_regions_genebert_is_above_the_polygenic_score() -> None:
    toy = toy_cohort()
    people = individuals_of(toy)
    found = validated(toy, people)
    assert difference(people, found, "GeneBERT", "polygenic").low > 0.02
    assert difference(people, found, "GeneBERT", "burden").low > 0.02
    assert difference(people, found, "attention", "polygenic").low > 0.02
    assert difference(people, found, "stacked", "polygenic").low > 0.02


@pytest.mark.slow
def test_where_effects_do_not_converge_the_stacked_score_is_not_worse() -> None:
    toy = toy_cohort(frequency=(0.02, 0.4), regions=60)
    generator = np.random.default_rng(1)
    genetic = toy.cohort.dosage @ generator.standard_normal(toy.cohort.dosage.shape[1])
    genetic = (genetic - genetic.mean()) / genetic.std()
    ill = np.sqrt(0.5) * genetic + np.sqrt(0.5) * generator.standard_normal(len(genetic)) > 0
    people = individuals_of(toy, ill.astype(float))
    found = validated(toy, people)
    assert difference(people, found, "polygenic", "covariates").low > 0
    assert difference(people, found, "stacked", "polygenic").high > 0


@pytest.mark.slow
def test_on_a_null_cohort_no_method_is_better_than_chance() -> None:
    toy = toy_cohort(n=800, regions=100)
    people = individuals_of(toy, np.random.default_rng(7).permutation(toy.cases))
    found = validated(toy, people)
    values = resampled(people, found)
    for name in found:
        measured = interval(values[name, "AUROC"], people.folds)
        assert measured.low <= 0.5 <= measured.high, name
    assert (np.abs(found["stacked"] - 0.5) < 0.25).all()


def test_scores_get_no_negative_weight_and_covariates_any() -> None:
    generator = np.random.default_rng(0)
    score, age = generator.standard_normal((2, 400))
    c = np.stack([np.ones(400), age], axis=1)
    ill = (score - age + generator.logistic(size=400) > 0.3).astype(float)
    found = Outcome.fit("binary", c, np.stack([score, -score], axis=1), ill).coefficients
    cases = ill.sum()  # each counts as a little less than a case, and a little as a control
    share = np.where(ill == 1, (cases + 1) / (cases + 2), 1 / (400 - cases + 2))
    both = np.tile(np.stack([age, score], axis=1), (2, 1))
    wanted = LogisticRegression(C=1e6, tol=1e-8).fit(both, np.repeat([1, 0], 400), np.concatenate([share, 1 - share]))
    assert np.allclose(found, [wanted.intercept_[0], *wanted.coef_[0], 0], atol=2e-3)
    divided = Outcome.fit("binary", c[:, :1], ill[:, None], ill).predict(np.ones((2, 1)), np.array([[0.0], [1.0]]))
    assert np.allclose(divided, [1 / (400 - cases + 2), (cases + 1) / (cases + 2)], atol=1e-3)
    number = Outcome.fit("quantitative", c, score[:, None] * 1e-4, 5 + 3 * age + 2 * score)
    assert np.allclose(number.coefficients, [5, 3, 2e4], rtol=1e-3)
    assert np.allclose(number.predict(c[:3], score[:3, None] * 1e-4), (5 + 3 * age + 2 * score)[:3], atol=1e-2)


def test_region_effects_and_burdens_are_sums_over_what_is_carried() -> None:
    toy = toy_cohort(n=50, regions=4, per_region=3, frequency=(0.1, 0.4))
    copies = toy.cohort.copies.toarray()
    effects, alleles = region_effects(toy.cohort, toy.change).toarray(), burden(toy.cohort).toarray()
    for r in range(4):
        own = toy.cohort.haplotypes["region"].to_numpy() == r
        assert np.allclose(effects[:, r], copies[:, own] @ toy.change[own])
        assert np.allclose(alleles[:, r], copies[:, own].sum(axis=1))


def test_components_tell_two_populations_apart() -> None:
    generator = np.random.default_rng(0)
    toy = toy_cohort(n=100, regions=40, frequency=(0.1, 0.4))
    dosage = toy.cohort.dosage.toarray()
    dosage[:50, :100] = generator.binomial(2, 0.8, size=(50, 100))
    object.__setattr__(toy.cohort, "dosage", type(toy.cohort.dosage)(dosage))
    names, found = components(Genotypes.of(toy.cohort), 2)
    assert names == ["PC1", "PC2"]
    assert np.isclose(abs(np.corrcoef(found[:, 0], np.arange(100) < 50)[0, 1]), 1, atol=0.02)
    assert np.array_equal(found, components(Genotypes.of(toy.cohort), 2)[1])


def test_there_are_no_more_components_than_dosages_have() -> None:
    dosage = np.tile([0.0, 1.0, 2.0, 1.0], 10)[:, None] * np.ones(6)
    dosage[:, 3:] = np.tile([1.0, 0.0], 20)[:, None]
    genotypes = Genotypes(np.arange(6), csc_matrix(dosage), csc_matrix(dosage.shape), np.full(6, 80.0))
    assert components(genotypes, 5)[0] == ["PC1", "PC2"]
    assert components(replace(genotypes, dosage=csc_matrix(dosage * 0)), 5)[0] == []


def test_a_variant_changes_what_its_haplotype_alone_does_or_else_the_mean_of_those_with_it() -> None:
    toy = toy_cohort(n=50, regions=1, per_region=3, frequency=(0.1, 0.4))
    a, b, c = toy.cohort.haplotypes["variants"]
    table = toy.cohort.haplotypes.assign(variants=[a, f"{a},{b}", f"{b},{c}"], n_variants=[1, 2, 2], copies=[1, 3, 1])
    object.__setattr__(toy.cohort, "haplotypes", table)
    assert np.allclose(variant_table(toy.cohort, np.array([2.0, 4.0, 8.0]))["change"], [2, 5, 8])
