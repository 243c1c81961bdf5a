import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from toy_suites import settings_of, suite_of, toy_methods, write_rows, write_suite
from toys import World

from genebert.benchmark.output import check_folder
from genebert.benchmark.run import COLUMNS, benchmark
from genebert.cli import main
from genebert.errors import UserError

HOSTILE = "<script>alert(1)</script>"
CELLS = [("g/1, G, seed 0", 0), ("g/1, G, seed 1", 1), ("g/2, G, seed 0", 0), ("g/2, G, seed 1", 1)]


@pytest.fixture
def toy() -> Iterator[ModuleType]:
    """The module of the toy method that notes its fits."""
    with toy_methods() as found:
        yield found


def facts(out: Path) -> dict[str, Any]:
    """What results.json holds, without what no two runs share."""
    found = json.loads((out / "results.json").read_text())
    del found["costs"], found["suite"]
    return found


def test_every_cell_is_computed_once_and_measured(toy: ModuleType, tmp_path: Path) -> None:
    out = benchmark(settings_of(write_suite(tmp_path, suite_of()), tmp_path / "out"))
    assert toy.calls == CELLS
    table = pd.read_parquet(out / "results.parquet")
    assert list(table) == list(COLUMNS)
    assert set(zip(table["task"], table["method"], strict=True)) == {
        (task, method) for task in ("g/1", "g/2") for method in ("G", "flat", "both")
    }
    assert set(table.loc[table["task"] == "g/1", "rows"]) == {"all", "no shared 32-mer"}
    assert set(table.loc[table["task"] == "g/2", "rows"]) == {"all"}
    found = facts(out)
    assert [task["test_rows_that_share_32_bases"]["with either"] for task in found["tasks"]] == [3, 0]
    assert len(found["results"]) == len(table) and not found["missing"]
    assert {(row["first"], row["second"]) for row in found["comparisons"]} == {("G", "flat")}
    page = (out / "benchmark.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "Toy" in page
    assert not list(out.glob(".*draft")) and not list(out.rglob("*.partial"))


def test_the_options_of_methods_are_told(toy: ModuleType, tmp_path: Path) -> None:
    suite = suite_of()
    suite["methods"][0]["options"] = {"noise": 0.2, "base": 2}
    suite["tasks"][1]["options"] = {"G": {"base": 1}}
    first, second = facts(benchmark(settings_of(write_suite(tmp_path, suite), tmp_path / "out")))["methods"]
    assert first == {
        "name": "G",
        "method": "composition",
        "title": "base composition",
        "seeds": [0, 1],
        "options": {"base": 2, "noise": 0.2, "weights": None},
        "changed": {"noise": 0.2},
        "on_tasks": {"g/2": {"base": 1}},
    }
    assert (second["seeds"], second["on_tasks"]) == ([0], {})


def test_the_same_call_computes_nothing_and_finds_the_same(toy: ModuleType, tmp_path: Path) -> None:
    settings = settings_of(write_suite(tmp_path, suite_of()), tmp_path / "out")
    benchmark(settings)
    names = "results.json", "results.parquet"
    before = [(settings.out / name).read_bytes() for name in names]
    toy.calls.clear()
    benchmark(settings)
    assert toy.calls == []
    assert [(settings.out / name).read_bytes() for name in names] == before


def test_a_killed_benchmark_goes_on_where_it_was(toy: ModuleType, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, suite_of())
    whole = benchmark(settings_of(suite, tmp_path / "whole"))
    toy.calls.clear()
    toy.interrupt.add(("g/1, G", 1))
    settings = settings_of(suite, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        benchmark(settings)
    assert toy.calls == CELLS[:1]
    assert not (settings.out / "results.json").exists()
    toy.interrupt.clear()
    benchmark(settings)
    assert toy.calls == CELLS
    assert facts(settings.out) == facts(whole)
    pd.testing.assert_frame_equal(*(pd.read_parquet(out / "results.parquet") for out in (settings.out, whole)))
    for path in (whole / "runs").rglob("*.npy"):
        other = settings.out / path.relative_to(whole)
        np.testing.assert_array_equal(np.load(path), np.load(other))


def test_a_changed_option_computes_only_what_it_concerns(toy: ModuleType, tmp_path: Path) -> None:
    suite = suite_of()
    settings = settings_of(write_suite(tmp_path, suite), tmp_path / "out")
    benchmark(settings)
    before = facts(settings.out)["results"]
    toy.calls.clear()
    suite["tasks"][1]["options"] = {"G": {"base": 1}}
    benchmark(settings_of(write_suite(tmp_path, suite), tmp_path / "out"))
    assert toy.calls == CELLS[2:]
    after = facts(settings.out)["results"]
    changed = {(old["task"], old["method"]) for old, new in zip(before, after, strict=True) if old != new}
    assert changed == {("g/2", "G"), ("g/2", "both")}


def test_what_was_computed_stays_until_there_is_something_in_its_place(toy: ModuleType, tmp_path: Path) -> None:
    """A bad option once cost the results of the good one."""
    good = write_suite(tmp_path / "good", suite_of())
    benchmark(settings_of(good, tmp_path / "out"))
    bad = suite_of()
    bad["tasks"][1]["options"] = {"G": {"noise": -1}}
    with pytest.raises(UserError, match="failed"):
        benchmark(settings_of(write_suite(tmp_path / "bad", bad), tmp_path / "out"))
    toy.calls.clear()
    benchmark(settings_of(good, tmp_path / "out"))
    assert toy.calls == []
    (tmp_path / "out" / "runs" / "g%2F1" / "G" / "0" / "manifest.json").unlink()  # as one that was killed may leave it
    benchmark(settings_of(good, tmp_path / "out"))
    assert toy.calls == CELLS[:1]


def test_changed_rows_of_a_folder_of_labels_are_computed_anew(toy: ModuleType, tmp_path: Path) -> None:
    """They once were measured against predictions for others."""
    suite = suite_of()
    benchmark(settings_of(write_suite(tmp_path, suite), tmp_path / "out"))
    folder = tmp_path / "labels"
    folder.mkdir()
    table = pd.read_csv(tmp_path / suite["tasks"][0]["labels"])
    table.to_csv(folder / "labels.tsv", sep="\t", index=False)
    (folder / "manifest.json").write_text("{}")
    suite["tasks"][0]["labels"] = str(folder)
    benchmark(settings_of(write_suite(tmp_path, suite), tmp_path / "other"))
    toy.calls.clear()
    table[::-1].to_csv(folder / "labels.tsv", sep="\t", index=False)
    benchmark(settings_of(write_suite(tmp_path, suite), tmp_path / "other"))
    assert toy.calls == CELLS[:2]


def test_results_of_another_kind_are_left_alone(toy: ModuleType, tmp_path: Path) -> None:
    out = benchmark(settings_of(write_suite(tmp_path, suite_of()), tmp_path / "out"))
    check_folder(out, "benchmark", "suite")
    with pytest.raises(UserError, match="was not made by genebert cross-validate"):
        check_folder(out, "cross-validate", "protocol")
    for text in ('{"suite"', "5"):
        (out / "results.json").write_text(text)
        with pytest.raises(UserError, match="was not made by genebert benchmark"):
            check_folder(out, "benchmark", "suite")


def test_only_some_tasks_and_methods(toy: ModuleType, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, suite_of())
    out = benchmark(settings_of(suite, tmp_path / "out", only=["g/2", "G"]))
    assert toy.calls == CELLS[2:]
    found = facts(out)
    assert {(row["task"], row["method"]) for row in found["results"]} == {("g/2", "G")}
    assert {(row["task"], row["method"], row["reason"]) for row in found["missing"]} == {
        ("g/1", "G", "not computed yet"),
        ("g/1", "flat", "not computed yet"),
        ("g/2", "flat", "not computed yet"),
    }
    benchmark(settings_of(suite, tmp_path / "out", only=["g/1"]))
    assert toy.calls == [*CELLS[2:], *CELLS[:2]]
    assert {row["method"] for row in facts(out)["results"] if row["task"] == "g/2"} == {"G"}
    with pytest.raises(UserError, match=r"--only: 'H'\. Choose among G, flat, g/1, g/2\."):
        benchmark(settings_of(suite, tmp_path / "out", only=["H"]))


def test_what_fails_is_reported_and_the_others_go_on(toy: ModuleType, tmp_path: Path) -> None:
    suite = suite_of()
    suite["methods"].insert(0, {"name": HOSTILE, "method": "composition", "options": {"noise": -1}})
    suite["tasks"].insert(0, {"name": "broken", "labels": "broken.csv"})
    write_rows(tmp_path / "broken.csv", [("ACGT" * 10, 0)])
    settings = settings_of(write_suite(tmp_path, suite), tmp_path / "out")
    for _ in range(2):  # a failure is no result, and is tried again
        with pytest.raises(UserError) as raised:
            benchmark(settings)
        said = str(raised.value)
        assert said.count("noise: -1 is negative") == 2 and said.count("broken, ") == 3
    found = facts(settings.out)
    assert {row["method"] for row in found["results"]} == {"G", "flat", "both"}
    assert sum(row["failed"] for row in found["missing"]) == 5
    assert [task["task"] for task in found["tasks"]] == ["g/1", "g/2"]
    page = (settings.out / "benchmark.html").read_text()
    assert "(failed: noise: -1 is negative" in page and "<script" not in page


def test_a_method_that_cannot_predict_such_a_target_is_no_failure(toy: ModuleType, tmp_path: Path) -> None:
    suite = suite_of()
    for task in suite["tasks"]:
        task["methods"] = ["flat"]
    suite["methods"][0]["name"] = "G"
    suite["tasks"][0]["methods"] = None
    settings = settings_of(write_suite(tmp_path, suite), tmp_path / "out")
    toy.Composition.kinds = frozenset({"value"})
    try:
        benchmark(settings)
    finally:
        toy.Composition.kinds = frozenset({"classes"})
    (row,) = facts(settings.out)["missing"]
    assert row["reason"] == "base composition predicts value, and this is classes"
    assert not row["failed"]


@pytest.mark.parametrize(("chrom", "seen"), [("chr1", ["chr1"]), ("chr3", [])])
def test_what_a_pretrained_model_has_seen_of_the_test_rows_is_said(
    chrom: str,
    seen: list[str],
    toy: ModuleType,
    toy_model: Path,
    toy_world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The toy model was pre-trained on chr1. Nothing said so of rows that a benchmark tests on."""
    places = {"train": "chr2", "valid": "chr2", "test": chrom}
    rows = [
        f"{where},{start},{start + 40},{start // 60 % 2},{split}"
        for split, where in places.items()
        for start in range(0 if split == "train" else 6000, 6600 if split != "train" else 1200, 60)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["chrom,start,end,label,split", *rows]) + "\n")
    write_suite(tmp_path, suite_of())
    shutil.copy(toy_world.genome, tmp_path / "genome.fa")
    methods = [
        {"name": "G", "method": "composition"},
        *(
            {"name": initial, "method": "genebert", "options": {"model": str(toy_model), "initial": initial}}
            for initial in ("pre-trained", "random")
        ),
    ]
    tasks = [{"name": "t", "labels": "rows.csv", "genome": "genome.fa"}]
    changes = {"tasks": tasks, "methods": methods, "ensembles": [], "compare": []}
    out = benchmark(settings_of(write_suite(tmp_path, suite_of(**changes)), tmp_path / "out", only=["G"]))
    (task,) = facts(out)["tasks"]
    said = f"pre-trained, without labels, on chromosomes that are tested on: {', '.join(seen)}"
    assert task["seen"] == ({"pre-trained": [said]} if seen else {})
    assert (f"t, pre-trained: {said}" in capsys.readouterr().err.replace("\n", " ")) is bool(seen)
    assert (f"pre-trained is {said}." in (out / "benchmark.html").read_text()) is bool(seen)
    methods[1]["options"]["model"] = str(tmp_path)
    with pytest.raises(UserError, match="not a finished result of genebert pretrain"):
        benchmark(settings_of(write_suite(tmp_path, suite_of(**changes)), tmp_path / "out", only=["G"]))


def test_published_numbers_stand_beside_ours(toy: ModuleType, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, suite_of(published="published.csv", title=HOSTILE))
    header = "task,metric,model,parameters,value,setting,source"
    lines = [f"g/1,mcc,{HOSTILE},1e9,0.61,fine-tuned,{HOSTILE} 2024", "g/3,mcc,NT,,0.5,,elsewhere"]
    (tmp_path / "published.csv").write_text("\n".join([header, *lines]) + "\n")
    out = benchmark(settings_of(suite, tmp_path / "out"))
    table = pd.read_parquet(out / "results.parquet")
    (theirs,) = table[table["source"] == "theirs"].to_dict("records")
    assert (theirs["task"], theirs["measure"], theirs["value"], theirs["parameters"]) == ("g/1", "MCC", 0.61, 1e9)
    assert pd.isna(theirs["low"]) and pd.isna(theirs["seeds"])
    page = (out / "benchmark.html").read_text()
    assert "<script" not in page
    assert "theirs: &lt;script&gt;alert(1)&lt;/script&gt; 2024, fine-tuned, 1,000 million parameters" in page


def test_predictions_do_not_depend_on_the_truth_of_test_rows(toy: ModuleType, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, suite_of())
    out = benchmark(settings_of(suite, tmp_path / "out"))
    before = [np.load(path) for path in sorted(out.rglob("*.npy"))]
    for path in (tmp_path / "one" / "test.csv", tmp_path / "two" / "test.csv"):
        header, *lines = path.read_text().splitlines()
        path.write_text("\n".join([header, *(f"{line[:-1]}{1 - int(line[-1])}" for line in lines)]) + "\n")
    toy.calls.clear()
    benchmark(settings_of(suite, tmp_path / "out"))
    assert toy.calls == CELLS
    for old, path in zip(before, sorted(out.rglob("*.npy")), strict=True):
        np.testing.assert_array_equal(old, np.load(path))


def test_a_folder_of_something_else_is_left_alone(toy: ModuleType, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, suite_of())
    with pytest.raises(UserError, match="was not made by genebert benchmark"):
        benchmark(settings_of(suite, tmp_path))
    with pytest.raises(UserError, match="was not made by genebert benchmark"):
        benchmark(settings_of(suite, suite))
    assert toy.calls == []


def test_a_benchmark_of_which_everything_fails_is_written_too(toy: ModuleType, tmp_path: Path) -> None:
    suite = suite_of(
        ensembles=[], compare=[], methods=[{"name": "G", "method": "composition", "options": {"noise": -1}}]
    )
    with pytest.raises(UserError, match="noise: -1 is negative"):
        benchmark(settings_of(write_suite(tmp_path, suite), tmp_path / "out"))
    assert len(pd.read_parquet(tmp_path / "out" / "results.parquet")) == 0
    assert "(failed: noise: -1 is negative" in (tmp_path / "out" / "benchmark.html").read_text()


def test_models_are_kept_on_demand(toy: ModuleType, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, suite_of())
    out = benchmark(settings_of(suite, tmp_path / "out"))
    assert not list(out.rglob("model"))
    benchmark(settings_of(suite, tmp_path / "out", keep_models=True))
    assert len(list(out.rglob("model/numbers.npy"))) == 4
    assert toy.calls == [*CELLS, *CELLS]


def test_on_the_command_line(toy: ModuleType, tmp_path: Path) -> None:
    suite = suite_of()
    path = write_suite(tmp_path, suite)
    words = ["benchmark", str(path), "--out", str(tmp_path / "out")]
    listed = CliRunner().invoke(main, [*words, "--dry-run"], catch_exceptions=False)
    assert listed.exit_code == 0 and not (tmp_path / "out").exists()
    assert [line.split()[1:] for line in listed.output.splitlines() if "g/1" in line] == [
        ["g/1", "│", "G", "│", "2", "│", "2", "│", "unknown", "│"],
        ["g/1", "│", "flat", "│", "1", "│", "1", "│", "unknown", "│"],
    ]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "6 of 6: g/2, flat, seed 0" in done.stderr
    listed = CliRunner().invoke(main, [*words, "--dry-run"], catch_exceptions=False)
    assert "unknown" not in listed.output
    suite["methods"][0]["options"] = {"noise": -1}
    failed = CliRunner().invoke(main, ["benchmark", str(write_suite(tmp_path, suite)), *words[2:]])
    assert failed.exit_code == 2 and "g/1, G: noise: -1 is negative" in failed.stderr
