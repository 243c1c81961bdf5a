"""Benchmarks of two toy tasks with toy methods, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from toys import consensus_motif, random_bases, write_meme

import genebert.methods
from genebert.benchmark import code
from genebert.settings import BenchmarkSettings

TOY_METHODS = Path(__file__).parent / "toy_methods"


@contextmanager
def toy_methods() -> Iterator[Any]:
    """Let the toy methods be found like any other; yield the module of the one that is told how to behave."""
    genebert.methods.__path__.append(str(TOY_METHODS))
    try:
        from genebert.methods import composition

        composition.calls.clear()
        composition.interrupt.clear()
        yield composition
    finally:
        genebert.methods.__path__.remove(str(TOY_METHODS))


def change_source(module: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let benchmarks see other code as that of a module."""
    found = code.source_of
    other = folder / "changed.py"
    other.write_text(found(module).read_text() + "# changed\n")
    monkeypatch.setattr(code, "source_of", lambda name: other if name == module else found(name))


def sequences(label: int, count: int, generator: np.random.Generator, length: int = 40) -> list[str]:
    """Random sequences, those of label 1 with more G."""
    shares = (0.3, 0.2, 0.3, 0.2) if label else (0.3, 0.25, 0.15, 0.3)
    return ["".join(generator.choice(list("ACGT"), length, p=shares)) for _ in range(count)]


def write_rows(path: Path, rows: list[tuple[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("sequence,label\n" + "".join(f"{letters},{label}\n" for letters, label in rows))
    return path


def write_task(folder: Path, seed: int, *, copies: int = 0) -> None:
    """Write train.csv, valid.csv and test.csv; the first test rows hold 32 bases or more of training rows."""
    generator = np.random.default_rng(seed)
    rows = {
        split: [(one, label) for label in (0, 1) for one in sequences(label, count, generator)]
        for split, count in (("train", 40), ("valid", 15), ("test", 20))
    }
    for i in range(copies):
        rows["test"][i] = (random_bases(4, generator) + rows["train"][i][0][2:38], rows["test"][i][1])
    for split, own in rows.items():
        write_rows(folder / f"{split}.csv", own)


def suite_of(**changes: Any) -> dict[str, Any]:
    """Two tasks, two methods and their ensemble."""
    tasks = [
        {
            "name": name,
            "labels": f"{folder}/train.csv",
            "valid": f"{folder}/valid.csv",
            "test": f"{folder}/test.csv",
        }
        for name, folder in (("g/1", "one"), ("g/2", "two"))
    ]
    return {
        "title": "Toy",
        "motifs": "motifs.meme",
        "seeds": 2,
        "tasks": tasks,
        "methods": [{"name": "G", "method": "composition"}, {"name": "flat", "method": "constant"}],
        "ensembles": [{"name": "both", "of": ["G", "flat"]}],
        "compare": [["G", "flat"]],
    } | changes


def write_suite(folder: Path, suite: dict[str, Any]) -> Path:
    """Write a suite beside its tasks, if they are not there yet."""
    if not (folder / "one").exists():
        write_task(folder / "one", 1, copies=3)
        write_task(folder / "two", 2)
        write_meme(folder / "motifs.meme", [consensus_motif("GATA", "GATAAG")])
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(suite))
    return path


def settings_of(suite: Path, out: Path, **changes: Any) -> BenchmarkSettings:
    return BenchmarkSettings(suite=suite, out=out, **changes)
