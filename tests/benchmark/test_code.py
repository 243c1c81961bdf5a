from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_suites import change_source, toy_methods

from genebert.benchmark.code import NEUTRAL, code_of, deciding, source_of
from genebert.methods import method_class, method_keys

OF_ROWS = ("labelled", "tasks.windows", "shared_words", "target", "schema", "inputs.genome", "inputs.intervals")
OF_ALL = (*OF_ROWS, "methods.base", "metrics", "inputs.scan", "corpus.store", "pretrained")
OWN = {
    "kmer-regression": ("methods.kmer_regression", "methods.features", "methods.linear", "tokens"),
    "motif-trees": ("methods.motif_trees", "methods.boosting", "methods.features", "tokens"),
    "deepbind": ("methods.networks", "training", "objectives", "sampling", "window_data"),
    "genebert": ("methods.genebert", "model.genebert", "model.region_encoder", "model.summary", "model.config"),
}

NOTHING = ("report.benchmark", "cli", "console", "settings", "demo", "resampling", "benchmark.results", "doctor")


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with toy_methods():
        yield


@pytest.mark.parametrize("key", OWN)
def test_code_that_decides_what_is_predicted_is_told(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once how rows are read, set aside and scanned did not count, nor constants that a module imports."""
    before = code_of(key)
    for name in (*OF_ALL, *OWN[key]):
        with monkeypatch.context() as here:
            change_source(f"genebert.{name}", tmp_path, here)
            assert code_of(key) != before, name


def test_code_that_decides_nothing_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {key: code_of(key) for key in method_keys()}
    for name in NOTHING:
        with monkeypatch.context() as here:
            change_source(f"genebert.{name}", tmp_path, here)
            assert {key: code_of(key) for key in method_keys()} == before, name


def test_a_method_does_not_depend_on_another() -> None:
    for key in method_keys():
        own = method_class(key).__module__
        others = {method_class(other).__module__ for other in method_keys()} - {own}
        assert deciding(own).isdisjoint(others)
    assert not any(name.startswith("genebert.model.") for name in deciding("genebert.methods.motif_trees"))


def test_what_is_called_neutral_is_there() -> None:
    assert all(source_of(name).is_file() for name in NEUTRAL)
