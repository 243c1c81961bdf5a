"""What all baselines promise, whichever they are."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from genebert.errors import UserError
from genebert.methods import method_class, method_keys
from genebert.methods.base import Examples, Fitted, Method
from genebert.methods.boosting import BoostedTrees
from genebert.methods.networks import NetworkMethod
from genebert.schema import reverse_complement
from genebert.target import Kind

BASELINES = [key for key in method_keys() if key not in {"genebert", "accessibility-trees"}]
"""Those that need no cell types."""
KINDS: list[Kind] = ["classes", "labels", "value"]
SMALL_NETWORK = {"epochs": 15, "learning_rate": 0.01, "batch_size": 32, "device": "cpu"}
QUICK_LEARNERS = {key: {"epochs": 8, "learning_rate": 0.02} for key in ("basset", "deepromoter", "splice-finder")}
"""The others need what `SMALL_NETWORK` gives them."""
WIDTHS = {"deepbind": 1.0, "deepsea": 0.1, "deepromoter": 0.3, "splice-finder": 0.3}
SMALL_TREES = {"trees": 60, "learning_rate": 0.1, "least_rows": 10}
NOTHING_TO_CHOOSE = {
    "kmer-regression": {"lengths": (4,), "strengths": (1.0,)},
    "gkm-svm": {"strengths": (0.1,)},
    "kmer-trees": {"trees": 1},
    "motif-trees": {"trees": 1},
    "position-trees": {"trees": 1},
}
supports = [(key, kind) for key in BASELINES for kind in KINDS if kind in method_class(key).kinds]


def test_the_docs_list_every_option_of_every_method() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmark.md").read_text()
    table = page[page.index("## Options of methods") : page.index("## Cells")]
    groups = {
        "CNNs": ["basset", "danq", "deepbind", "deepromoter", "deepsea", "splice-finder"],
        "all trees": ["accessibility-trees", "kmer-trees", "motif-trees", "position-trees"],
    }
    listed = set()
    for line in (line for line in table.splitlines() if line.startswith("| `")):
        option, of, _, meaning = (cell.strip() for cell in line.strip("|").split(" | "))
        for name in of.split(", "):
            for key in groups.get(name, [name.strip("`")]):
                field = method_class(key).model_fields[option.strip("`")]
                assert meaning == field.description
                listed.add((key, option.strip("`")))
    assert listed == {(key, name) for key in method_keys() for name in method_class(key).model_fields}


def small(key: str, **options: Any) -> Method:
    """The method, small enough for a test."""
    kind = method_class(key)
    if issubclass(kind, NetworkMethod):
        options = SMALL_NETWORK | QUICK_LEARNERS.get(key, {}) | {"width": WIDTHS.get(key, 0.1)} | options
    if issubclass(kind, BoostedTrees):
        options = SMALL_TREES | options
    return kind(**options)


def briefly(key: str, **options: Any) -> Method:
    """The method with nothing to choose on the validation rows."""
    return small(key, **NOTHING_TO_CHOOSE.get(key, {"epochs": 1}), **options)


@pytest.fixture(scope="module")
def fit(task: Callable[..., Any]) -> Callable[..., Fitted]:
    """Fits a method to a planted task, once."""

    @cache
    def fitted(key: str, kind: Kind, classes: int = 2) -> Fitted:
        toy = task(kind, classes)
        return small(key).fit(toy.train, toy.valid, toy.target, seed=0)

    return fitted


def without_truth(examples: Examples) -> Examples:
    return replace(examples, truth=None)


def strands_are_alike(fitted: Fitted, examples: Examples) -> bool:
    other = Examples(reverse_complement(examples.codes), examples.scanner)
    return np.allclose(fitted.predict(other), fitted.predict(examples))


@pytest.mark.parametrize("key", method_keys())
def test_every_module_holds_one_method_that_says_what_it_is(key: str) -> None:
    method = method_class(key)
    assert method.title and issubclass(method.fitted, Fitted)
    assert all(field.description for field in method.model_fields.values())
    assert all(not field.is_required() for field in method.model_fields.values())


def test_titles_differ() -> None:
    titles = [method_class(key).title for key in method_keys()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("key", BASELINES)
def test_a_planted_word_is_found(key: str, task: Callable[..., Any], fit: Callable[..., Fitted]) -> None:
    toy = task("classes")
    predicted = fit(key, "classes").predict(without_truth(toy.test))
    assert predicted.dtype == np.float64 and predicted.shape == (80, 2)
    np.testing.assert_allclose(predicted.sum(axis=1), 1)
    assert roc_auc_score(toy.test.truth, predicted[:, 1]) > 0.9


@pytest.mark.parametrize("key", BASELINES)
def test_three_classes_are_told_apart(key: str, task: Callable[..., Any], fit: Callable[..., Fitted]) -> None:
    toy = task("classes", 3)
    predicted = fit(key, "classes", 3).predict(without_truth(toy.test))
    np.testing.assert_allclose(predicted.sum(axis=1), 1)
    assert accuracy_score(toy.test.truth, predicted.argmax(axis=1)) > 0.75


@pytest.mark.parametrize("key", [key for key, kind in supports if kind == "labels"])
def test_labels_are_learned_where_they_are_known(
    key: str, task: Callable[..., Any], fit: Callable[..., Fitted]
) -> None:
    toy = task("labels")
    predicted = fit(key, "labels").predict(without_truth(toy.test))
    assert np.isfinite(predicted).all() and ((predicted > 0) & (predicted < 1)).all()
    for truth, column in zip(toy.test.truth.T, predicted.T, strict=True):
        known = np.isfinite(truth)
        assert roc_auc_score(truth[known], column[known]) > 0.85


@pytest.mark.parametrize("key", [key for key, kind in supports if kind == "value"])
def test_a_number_is_predicted_in_its_unit(key: str, task: Callable[..., Any], fit: Callable[..., Fitted]) -> None:
    toy = task("value")
    predicted = fit(key, "value").predict(without_truth(toy.test))
    assert predicted.shape == (80, 1)
    assert np.corrcoef(toy.test.truth[:, 0], predicted[:, 0])[0, 1] > 0.7
    assert abs(predicted.mean() - toy.test.truth.mean()) < 0.4


@pytest.mark.parametrize(("key", "kind"), supports)
def test_what_was_saved_predicts_the_same(
    key: str, kind: Kind, task: Callable[..., Any], fit: Callable[..., Fitted], tmp_path: Path
) -> None:
    toy, fitted = task(kind), fit(key, kind)
    fitted.save(tmp_path)
    assert not {path.suffix for path in tmp_path.iterdir()} & {".pkl", ".pt", ".joblib"}
    loaded = method_class(key).fitted.load(tmp_path, toy.target, "cpu")
    np.testing.assert_array_equal(loaded.predict(toy.test), fitted.predict(toy.test))


@pytest.mark.parametrize("key", BASELINES)
def test_a_damaged_file_is_named(
    key: str, task: Callable[..., Any], fit: Callable[..., Fitted], tmp_path: Path
) -> None:
    fit(key, "classes").save(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match=str(tmp_path)):
        method_class(key).fitted.load(tmp_path, task("classes").target, "cpu")


@pytest.mark.parametrize("key", BASELINES)
def test_the_same_seed_gives_the_same_files(key: str, task: Callable[..., Any], tmp_path: Path) -> None:
    toy = task("classes")
    contents = []
    for i, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(i)
        folder.mkdir()
        briefly(key).fit(toy.train, toy.valid, toy.target, seed).save(folder)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    assert (contents[0] != contents[2]) is method_class(key).seeded


@pytest.mark.parametrize("key", BASELINES)
def test_validation_rows_are_only_chosen_on(key: str, task: Callable[..., Any]) -> None:
    """With nothing to choose, other validation rows change nothing (of the SVM, only how margins are scaled)."""
    toy = task("classes")
    others = replace(toy.valid, codes=toy.train.codes[:80], truth=toy.train.truth[:80])
    methods = [briefly(key).fit(toy.train, valid, toy.target, seed=0) for valid in (toy.valid, others)]
    first, second = (method.predict(toy.test)[:, 1] for method in methods)
    if key == "gkm-svm":
        first, second = first.argsort(), second.argsort()
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("key", [*BASELINES, "accessibility-trees"])
def test_the_cell_type_is_seen(key: str, cell_type_task: Any) -> None:
    toy = cell_type_task
    fitted = small(key).fit(toy.train, toy.valid, toy.target, seed=0)
    assert roc_auc_score(toy.test.truth, fitted.predict(toy.test)[:, 1]) > 0.8


@pytest.mark.parametrize("key", BASELINES)
def test_strands_are_alike_to_what_does_not_tell_them_apart(
    key: str, task: Callable[..., Any], fit: Callable[..., Fitted]
) -> None:
    alike = strands_are_alike(fit(key, "classes"), task("classes").test)
    assert alike is not (method_class(key).strand_as_given or key in {"deepromoter", "splice-finder"})


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("key", [key for key in BASELINES if "oriented" in method_class(key).model_fields])
def test_strands_are_told_apart_where_windows_are_oriented(
    key: str, oriented: bool, task: Callable[..., Any], tmp_path: Path
) -> None:
    """Once the k-mer regression read the strand as given, also where a motif may lie on either."""
    toy = task("classes")
    fitted = briefly(key, oriented=oriented).fit(toy.train, toy.valid, toy.target, seed=0)
    assert strands_are_alike(fitted, toy.test) is not oriented
    fitted.save(tmp_path)
    loaded = method_class(key).fitted.load(tmp_path, toy.target, "cpu")
    np.testing.assert_array_equal(loaded.predict(toy.test), fitted.predict(toy.test))


@pytest.mark.parametrize("key", BASELINES)
def test_rows_are_predicted_by_themselves(key: str, task: Callable[..., Any], fit: Callable[..., Fitted]) -> None:
    toy, fitted = task("classes"), fit(key, "classes")
    np.testing.assert_allclose(
        fitted.predict(toy.test.rows(np.array([3, 1]))), fitted.predict(toy.test)[[3, 1]], atol=1e-6
    )


@pytest.mark.parametrize("key", BASELINES)
def test_an_option_that_is_not_known_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        method_class(key)(no_such_option=1)
