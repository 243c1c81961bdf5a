from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_suites import change_source, sequences, suite_of, toy_methods, write_rows, write_suite
from toys import reverse_complement

from genebert.benchmark.cells import Cell, cells_of, open_scanner, read_task
from genebert.benchmark.fits import MODEL
from genebert.benchmark.suite import TaskEntry, read_suite
from genebert.errors import UserError
from genebert.schema import decode
from genebert.settings import load_preset
from genebert.stage import write_json


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with toy_methods():
        yield


def cells(folder: Path, suite: dict[str, Any], data: Path | None = None) -> list[Cell]:
    read = read_suite(write_suite(folder, suite), data)
    return cells_of(read, open_scanner(read), folder / "out")


def identities(found: list[Cell]) -> list[dict[str, Any]]:
    return [cell.settings.identity() for cell in found]


def test_cells_come_in_the_order_of_the_suite_and_have_folders_of_their_own(tmp_path: Path) -> None:
    suite = suite_of()
    suite["tasks"][1]["name"] = "a/../b"
    found = cells(tmp_path, suite)
    assert [cell.name for cell in found] == [
        "g/1, G, seed 0",
        "g/1, G, seed 1",
        "g/1, flat, seed 0",
        "a/../b, G, seed 0",
        "a/../b, G, seed 1",
        "a/../b, flat, seed 0",
    ]
    assert found[0].folder == tmp_path / "out" / "runs" / "g%2F1" / "G" / "0"
    assert found[3].folder == tmp_path / "out" / "runs" / "a%2F..%2Fb" / "G" / "0"


def test_a_cell_depends_on_content_and_not_on_names(tmp_path: Path) -> None:
    first = cells(tmp_path, suite_of())
    other = suite_of(title="Other", published=None, compare=[], ensembles=[])
    other["tasks"][0] |= {"name": "G1", "measure": "AUROC", "threshold": "valid"}
    other["methods"][0]["options"] = {"base": 2}  # the default
    assert identities(cells(tmp_path, other)) == identities(first)


def changed(before: list[Cell], after: list[Cell]) -> list[str]:
    pairs = zip(before, after, strict=True)
    return [new.name for old, new in pairs if old.settings.identity() != new.settings.identity()]


def test_what_has_changed_concerns_only_what_depends_on_it(tmp_path: Path) -> None:
    before = cells(tmp_path, suite_of())
    other = suite_of()
    other["methods"][0]["options"] = {"noise": 0.2}
    of_method = ["g/1, G, seed 0", "g/1, G, seed 1", "g/2, G, seed 0", "g/2, G, seed 1"]
    assert changed(before, cells(tmp_path, other)) == of_method
    other = suite_of()
    other["tasks"][1]["options"] = {"G": {"noise": 0.2}}
    assert changed(before, cells(tmp_path, other)) == of_method[2:]
    path = tmp_path / "two" / "valid.csv"
    path.write_text(path.read_text() + "ACGTACGTACGT,0\n")
    assert changed(before, cells(tmp_path, suite_of())) == ["g/2, G, seed 0", "g/2, G, seed 1", "g/2, flat, seed 0"]
    motifs = tmp_path / "motifs.meme"
    motifs.write_text(motifs.read_text().replace("MOTIF GATA", "MOTIF GATA2"))
    assert len(changed(before, cells(tmp_path, suite_of()))) == 6


def test_a_path_among_the_options_counts_by_its_content(tmp_path: Path) -> None:
    suite = suite_of()
    suite["methods"][0]["options"] = {"weights": "weights.txt"}
    (tmp_path / "weights.txt").write_text("1")
    first = cells(tmp_path, suite)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "weights.txt").write_text("1")
    for name in ("one", "two", "motifs.meme"):
        (copy / name).symlink_to(tmp_path / name)
    assert changed(first, cells(tmp_path, suite, copy)) == []
    (tmp_path / "weights.txt").write_text("2")
    assert len(changed(first, cells(tmp_path, suite))) == 4


def test_other_code_is_another_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cells(tmp_path, suite_of())
    change_source("genebert.methods.constant", tmp_path, monkeypatch)
    assert changed(before, cells(tmp_path, suite_of())) == ["g/1, flat, seed 0", "g/2, flat, seed 0"]


def test_other_sizes_of_a_preset_are_another_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the preset counted by its name."""
    suite = suite_of(methods=[{"name": "G", "method": "genebert"}], ensembles=[], compare=[], seeds=1)
    before = cells(tmp_path, suite)
    wider = load_preset("small")
    monkeypatch.setattr("genebert.benchmark.fits.load_preset", lambda name: wider)
    assert len(changed(before, cells(tmp_path, suite))) == 2


def test_what_a_cell_keeps(tmp_path: Path) -> None:
    suite = read_suite(write_suite(tmp_path, suite_of()))
    scanner = open_scanner(suite)
    cell = cells_of(suite, scanner, tmp_path / "out")[1]
    labelled = read_task(cell.task, scanner, 0)
    assert not cell.is_done()
    cell.compute(labelled, keep_model=False)
    assert cell.is_done() and not cell.is_done(model=True)
    assert sorted(path.name for path in cell.folder.iterdir()) == ["manifest.json", "test.npy", "valid.npy"]
    kept = cell.predictions()
    fitted = cell.method.configured.fit(labelled.examples("train"), labelled.examples("valid"), labelled.target, 1)
    for split in ("valid", "test"):
        np.testing.assert_array_equal(kept[split], fitted.predict(replace(labelled.examples(split), truth=None)))
    cell.compute(labelled, keep_model=True)
    assert (cell.folder / MODEL / "numbers.npy").is_file()
    assert cell.cost().keys() == {"seconds_to_fit", "seconds_to_predict", "machine"}
    (cell.folder / "test.npy").unlink()
    assert not cell.is_done()  # damaged
    write_json(cell.folder / "manifest.json", {})
    assert not cell.is_done()


def test_predictions_that_are_no_numbers_are_a_failure(tmp_path: Path) -> None:
    suite = suite_of()
    suite["methods"][0]["options"] = {"noise": float("nan")}
    read = read_suite(write_suite(tmp_path, suite))
    scanner = open_scanner(read)
    cell = cells_of(read, scanner, tmp_path / "out")[0]
    with pytest.raises(UserError, match="its predictions are no numbers"):
        cell.compute(read_task(cell.task, scanner, 0), keep_model=False)
    assert not cell.folder.exists()


def set_aside(folder: Path, fraction: float, seed: int = 0) -> dict[str, list[str]]:
    """The sequences of each split of a task whose validation rows are to be set aside."""
    task = TaskEntry.model_validate(
        {"name": "x", "labels": "train.csv", "test": "test.csv", "valid_fraction": fraction}, context=folder
    )
    suite = read_suite(write_suite(folder, suite_of()))
    windows = read_task(task, open_scanner(suite), seed).windows
    return {split: [decode(row) for row in one.codes] for split, one in windows.items()}


def stretches(letters: str) -> set[str]:
    found = {letters[i : i + 32] for i in range(len(letters) - 31)}
    return found | {reverse_complement(one) for one in found}


def test_rows_are_set_aside_that_share_nothing_with_the_others(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = [(letters, label) for label in (0, 1) for letters in sequences(label, 100, generator)]
    rows += [(reverse_complement(letters[4:]) + "ACGT", label) for letters, label in rows[::2]]
    write_rows(tmp_path / "train.csv", rows)
    write_rows(
        tmp_path / "test.csv", [(letters, label) for label in (0, 1) for letters in sequences(label, 9, generator)]
    )
    found = set_aside(tmp_path, 0.2)
    assert sorted(found["train"] + found["valid"]) == sorted(letters for letters, _ in rows)
    assert len(found["valid"]) == 60
    learned = set().union(*map(stretches, found["train"]))
    assert all(learned.isdisjoint(stretches(letters)) for letters in found["valid"])
    assert set_aside(tmp_path, 0.2) == found
    assert set_aside(tmp_path, 0.2, seed=1)["valid"] != found["valid"]


def test_no_more_rows_are_set_aside_than_asked_for(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = [(letters, label) for label in (0, 1) for letters in sequences(label, 5, generator) for _ in range(9)]
    rows += [(letters, label) for label in (0, 1) for letters in sequences(label, 15, generator)]
    write_rows(tmp_path / "train.csv", rows)
    write_rows(tmp_path / "test.csv", rows[-16:-14])
    assert {len(set_aside(tmp_path, 0.1, seed)["valid"]) for seed in range(20)} == {12}


def test_rows_that_cannot_be_set_aside(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (alike,) = sequences(1, 1, generator)
    write_rows(tmp_path / "train.csv", [(alike, i % 2) for i in range(20)])
    write_rows(tmp_path / "test.csv", [(alike, 0), (alike, 1)])
    with pytest.raises(UserError, match="0 of its 20 rows can be set aside"):
        set_aside(tmp_path, 0.2)
    rare = [(letters, 0) for letters in sequences(0, 30, generator)] + [(alike, 1)]
    write_rows(tmp_path / "train.csv", rare)
    with pytest.raises(UserError, match="not all classes"):
        set_aside(tmp_path, 0.2)


@pytest.mark.parametrize(
    ("target", "rows", "message"),
    [
        ("label:A,label:B", ["1,1", "0,0"] + ["1,0", "0,0"] * 9, "label:B is not both 0 and 1 there"),
        ("value", ["2"] + ["1"] * 19, "all its values are 1"),
    ],
)
def test_rows_of_one_answer_are_not_set_aside(target: str, rows: list[str], message: str, tmp_path: Path) -> None:
    """They once were, and the ValueError of a method, which is no failure of its own, ended the benchmark."""
    letters = sequences(0, len(rows), np.random.default_rng(0))
    whole = [f"{one},{row}" for one, row in zip(letters, rows, strict=True)]
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("\n".join([f"sequence,{target}", *whole]) + "\n")
    with pytest.raises(UserError, match=message) as error:
        set_aside(tmp_path, 0.2)
    assert "train.csv" in str(error.value) and "valid_fraction" in str(error.value)
