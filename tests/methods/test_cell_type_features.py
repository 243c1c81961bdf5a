from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toys
from sklearn.metrics import roc_auc_score

from genebert.corpus.surroundings import COLUMNS, surroundings
from genebert.corpus.usage import PARTS
from genebert.errors import UserError
from genebert.methods import cell_type_features, method_class
from genebert.methods.base import Examples, Method, Place
from genebert.methods.cell_type_features import accessibility_columns, usage_products
from genebert.region_matrix import Context
from genebert.target import Target

TWO = Target("classes", ("no", "yes"))
CORPUS = toys.random_corpus(np.random.default_rng(0), regions=150, cell_types=6)
SHOWING: dict[str, dict[str, Any]] = {
    "genebert": {
        "own_accessibility": True,
        "modalities": "motifs",
        "region_states": False,
        "epochs": 12,
        "device": "cpu",
        "batch_size": 32,
    },
    "motif-trees": {"accessibility": "own", "trees": 60, "learning_rate": 0.1, "least_rows": 10},
    "accessibility-trees": {"accessibility": "own", "trees": 60, "learning_rate": 0.1, "least_rows": 10},
}


def examples(rows: int = 300, seed: int = 1) -> Examples:
    """Windows of 60 bp in random cell types, some of them in accessible regions; the truth is for the tests to set."""
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 4, size=(rows, 60), dtype=np.uint8)
    cell_type = generator.integers(0, 6, size=rows)
    position = CORPUS.line_positions(["chr1"] * rows, generator.integers(100, 7900, size=rows))
    return Examples(codes, CORPUS.scanner, None, Context(CORPUS, cell_type, position), 6)


def signal_of(some: Examples) -> np.ndarray:
    return CORPUS.signal_at(some.context.cell_type, some.context.position, 60)


def bound(some: Examples) -> Examples:
    """Bound where it is accessible, but for a fifth of the windows."""
    truth = (signal_of(some) > 0).astype(int)
    truth[::5] = 1 - truth[::5]
    return replace(some, truth=truth)


def method(key: str, **changes: Any) -> Method:
    return method_class(key)(**{**SHOWING[key], **changes})


def test_products_are_those_of_enrichments() -> None:
    some = examples(50)
    usage, where = CORPUS.usage, some.context
    everywhere = usage.everywhere[PARTS]
    enriched = usage.at(CORPUS, where.cell_type, where.position) - everywhere
    expected = (some.evidence - everywhere) * enriched
    found = usage_products(some)
    np.testing.assert_allclose(found[:, :-1], expected, rtol=1e-5)
    np.testing.assert_allclose(found[:, -1], expected.sum(axis=1), rtol=1e-3, atol=1e-3)


def test_accessibility_of_windows_is_the_last_column() -> None:
    some = examples(50)
    around, own = (accessibility_columns(some, own=shown) for shown in (False, True))
    assert np.array_equal(around, surroundings(CORPUS, some.context.cell_type, some.context.position, 60))
    assert np.array_equal(own[:, :COLUMNS], around) and np.array_equal(own[:, -1], signal_of(some))


@pytest.mark.parametrize("key", SHOWING)
def test_accessibility_of_the_window_itself_is_seen_if_it_is_shown(key: str) -> None:
    train, valid, test = (bound(examples(seed=seed)) for seed in (1, 2, 3))
    found = [
        roc_auc_score(test.truth, fitted.predict(test)[:, 1])
        for shown in (True, False)
        for fitted in [hidden_or_shown(key, shown).fit(train, valid, TWO, 0)]
    ]
    assert found[0] > 0.65 and found[0] > found[1] + 0.05


def hidden_or_shown(key: str, shown: bool) -> Method:
    if shown:
        return method(key)
    return method(key, **({"own_accessibility": False} if key == "genebert" else {"accessibility": "around"}))


@pytest.mark.parametrize("key", SHOWING)
def test_labels_that_accessibility_gives_away_are_refused(key: str) -> None:
    some = examples()
    given = replace(some, truth=(signal_of(some) > 0).astype(int))
    with pytest.raises(UserError, match="give the answer away"):
        method(key).fit(given, given, TWO, 0)
    amounts = replace(some, truth=signal_of(some)[:, None] * 3 + 1)
    with pytest.raises(UserError, match="give the answer away"):
        method(key).fit(amounts, amounts, Target("value", ("value",), 0.0, 1.0), 0)
    noise = np.random.default_rng(3).integers(0, 2, size=len(some)).astype(float)
    labels = np.stack([noise, (signal_of(some) > 0).astype(float)], axis=1)
    labels[::7, 1] = np.nan
    for chosen in ([0, 1], [1]):
        given = replace(some, truth=labels[:, chosen])
        with pytest.raises(UserError, match="give the answer away"):
            method(key).fit(given, given, Target("labels", tuple(f"l{i}" for i in chosen)), 0)
    assert not cell_type_features._is_its_own_answer(replace(some, truth=labels[:, [0]]))


@pytest.mark.parametrize("key", SHOWING)
def test_rows_without_cell_types_are_refused(key: str) -> None:
    given = replace(bound(examples()), context=None, cell_types=0)
    with pytest.raises(UserError, match="no cell types"):
        method(key).fit(given, given, TWO, 0)


@pytest.mark.parametrize("changes", [{"modalities": "sequence"}, {"summary": False, "encoders": True}])
def test_accessibility_that_is_not_read_is_not_asked_for(changes: dict[str, Any]) -> None:
    given = bound(examples())
    with pytest.raises(UserError, match="goes with the summary of the second modality"):
        method("genebert", **changes).fit(given, given, TWO, 0)


@pytest.mark.parametrize("key", SHOWING)
def test_a_new_cell_type_is_predicted_from_what_is_accessible_there(key: str) -> None:
    """The last two cell types are in no training row."""
    train, valid, test = (bound(examples(800, seed)) for seed in (1, 2, 3))
    known, others = (
        (part.rows(part.context.cell_type < 4) for part in (train, valid)),
        test.rows(test.context.cell_type >= 4),
    )
    fitted = method(key).fit(*known, TWO, 0)
    assert roc_auc_score(others.truth, fitted.predict(others)[:, 1]) > 0.75


@pytest.mark.parametrize("key", ["motif-trees", "accessibility-trees"])
def test_predictions_in_several_cell_types_are_those_of_one_at_a_time(key: str) -> None:
    fitted = method(key).fit(bound(examples(seed=1)), bound(examples(seed=2)), TWO, 0)
    some = examples(20, seed=3)
    place = Place(CORPUS, some.context.position, some.evidence)
    wanted = np.array([4, 0])
    for cell_type, found in zip(wanted, fitted.predict_in_cell_types(some.codes, place, wanted), strict=True):
        where = Context(CORPUS, np.full(20, cell_type), some.context.position)
        assert np.array_equal(found, fitted.predict(Examples(some.codes, CORPUS.scanner, None, where, 6)))
