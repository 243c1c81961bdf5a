import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from toy_grids import CELL_TYPES, long, protocol_of, settings_of, wide, write_labels, write_protocol
from toy_suites import toy_methods

from genebert.cli import main
from genebert.cross_validation import run
from genebert.cross_validation.baselines import mean_of_known, nearest_known
from genebert.cross_validation.folds import Fold, folds_of
from genebert.cross_validation.grid import Grid
from genebert.cross_validation.measures import measure
from genebert.cross_validation.protocol import COLUMNS, MEAN, NEAREST
from genebert.cross_validation.run import MEASURED, cross_validate
from genebert.errors import UserError

HOSTILE = "<script>alert(1)</script>"
FOLDS = 9


@pytest.fixture
def toy() -> Iterator[ModuleType]:
    """The module of the toy method that notes its fits."""
    with toy_methods() as found:
        yield found


def facts(out: Path) -> dict[str, Any]:
    """What results.json holds, without what no two runs share."""
    found = json.loads((out / "results.json").read_text())
    del found["costs"], found["protocol"]
    return found


def test_every_cell_is_computed_once_and_measured(toy: ModuleType, atlas: Path, tmp_path: Path) -> None:
    out = cross_validate(settings_of(atlas, protocol_of(label_fractions=[0.5, 1]), tmp_path / "out"))
    assert len(toy.calls) == len(set(toy.calls)) == FOLDS * 2 * 2  # of the other method there is no note
    table = pd.read_parquet(out / "results.parquet")
    assert list(table) == list(MEASURED)
    names = {"G", "flat", "both", MEAN, NEAREST}
    assert set(zip(table["method"], table["label_fraction"], strict=True)) == {(n, f) for n in names for f in (0.5, 1)}
    assert set(CELL_TYPES) < set(table["cell_type"])
    found = facts(out)
    assert len(found["results"]) == len(table) and not found["missing"]
    assert {(row["first"], row["second"]) for row in found["comparisons"]} == {("G", "flat"), ("G", MEAN)}
    assert [row["test_windows"] for row in found["cell_types"]] == [48] * len(CELL_TYPES)
    assert found["cell_types"][0]["positives"] == wide()["label:A"].sum()
    assert [method["seen"] for method in found["methods"]] == [[], []]
    assert (out / "cross_validation.html").read_text().startswith("<!DOCTYPE html>")
    assert not list(out.glob(".*draft")) and not list(out.rglob("*.partial"))


def test_what_does_not_depend_on_the_cell_type_has_nothing_specific(
    toy: ModuleType, atlas: Path, tmp_path: Path
) -> None:
    out = cross_validate(settings_of(atlas, protocol_of(), tmp_path / "out"))
    table = pd.read_parquet(out / "results.parquet")
    specific = table[table["measure"] == "specific"]
    nothing = specific[specific["method"].isin(["G", "flat", "both", MEAN])]
    assert len(nothing) == 4 * (len(CELL_TYPES) + 1)
    assert (nothing[["value", "low", "high"]] == 0).all(axis=None)
    nearest = specific[specific["method"] == NEAREST].set_index("cell_type")["value"]
    assert nearest["B"] > 0.5  # A is like B, and B is tested on while A is known


def test_predictions_stand_beside_the_truth(toy: ModuleType, atlas: Path, tmp_path: Path) -> None:
    table = wide().astype({f"label:{name}": "Int64" for name in CELL_TYPES})
    table.loc[5, "label:B"] = pd.NA
    write_labels(atlas, table)
    out = cross_validate(settings_of(atlas, protocol_of(label_fractions=[1, 0.5]), tmp_path / "out"))
    found = pd.read_parquet(out / "predictions.parquet")
    assert list(found) == [*COLUMNS, "G", "flat", "both", MEAN, NEAREST]
    known = long(table).rename(columns={"label": "truth"})
    both = found.merge(known, on=["chrom", "start", "end", "cell_type"], how="outer", suffixes=("", "_given"))
    assert len(both) == len(found) == len(known)  # each known cell once
    np.testing.assert_array_equal(both["truth"], both["truth_given"])
    np.testing.assert_allclose(found["both"], (found["G"] + found["flat"]) / 2)
    fold = "cell types 1, chromosomes 1"
    own = found[(found["fold"] == fold) & (found["cell_type"] == "C")]
    seeds = [np.load(out / "runs" / fold / "G" / "1" / str(seed) / "test.npy")[:, 2] for seed in (0, 1)]
    np.testing.assert_allclose(own["G"], np.mean(seeds, axis=0))


def test_the_same_call_computes_nothing_and_finds_the_same(toy: ModuleType, atlas: Path, tmp_path: Path) -> None:
    settings = settings_of(atlas, protocol_of(), tmp_path / "out")
    cross_validate(settings)
    names = "results.json", "results.parquet", "predictions.parquet", "cross_validation.html"
    before = [(settings.out / name).read_bytes() for name in names]
    toy.calls.clear()
    cross_validate(settings)
    assert toy.calls == []
    assert [(settings.out / name).read_bytes() for name in names] == before


def test_a_killed_run_goes_on_where_it_was(toy: ModuleType, atlas: Path, tmp_path: Path) -> None:
    protocol = protocol_of(chromosomes=[["chr1"], ["chr2"], ["chr3"]])
    whole = cross_validate(settings_of(atlas, protocol, tmp_path / "whole"))
    calls = list(toy.calls)
    toy.calls.clear()
    toy.interrupt.add(("B, chr2, G", 1))
    settings = settings_of(atlas, protocol, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        cross_validate(settings)
    assert not (settings.out / "results.json").exists()
    toy.interrupt.clear()
    assert 0 < len(toy.calls) < len(calls)
    cross_validate(settings)
    assert toy.calls == calls
    assert facts(settings.out) == facts(whole)
    for path in whole.rglob("*.npy"):
        np.testing.assert_array_equal(np.load(path), np.load(settings.out / path.relative_to(whole)))


def test_only_some_methods(toy: ModuleType, atlas: Path, tmp_path: Path) -> None:
    out = cross_validate(settings_of(atlas, protocol_of(), tmp_path / "out", only=["flat"]))
    assert toy.calls == []
    found = facts(out)
    assert {row["method"] for row in found["results"]} == {"flat", MEAN, NEAREST}
    assert found["missing"] == [{"method": "G", "fold": "all", "reason": "not computed yet", "failed": False}]
    with pytest.raises(UserError, match=r"--only: 'H'\. Choose among G, flat\."):
        cross_validate(settings_of(atlas, protocol_of(), tmp_path / "out", only=["H"]))


def test_what_is_in_no_group_is_said_to_be_never_tested(
    toy: ModuleType, atlas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings_of(atlas, protocol_of(), tmp_path / "out")
    cross_validate(given.model_copy(update={"dry_run": True}))
    assert "in no group" not in capsys.readouterr().err
    groups = {"cell_types": [[name] for name in CELL_TYPES[:3]], "chromosomes": [["chr1"], ["chr2"], ["chr3"]]}
    fewer = settings_of(atlas, protocol_of(**groups), tmp_path / "out")
    cross_validate(fewer.model_copy(update={"dry_run": True}))
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"chosen by, and never tested: {', '.join(CELL_TYPES[3:])}" in said
    assert "in no group, so that they are learned from or chosen by, and never tested: chr4" in said


def test_methods_are_put_together_with_what_is_known_of_other_cell_types(
    toy: ModuleType, atlas: Path, tmp_path: Path
) -> None:
    ensembles = [{"name": "pool", "of": ["G", MEAN], "log_odds": True}, {"name": "plain", "of": ["G", NEAREST]}]
    out = cross_validate(settings_of(atlas, protocol_of(ensembles=ensembles), tmp_path / "out"))
    table = pd.read_parquet(out / "results.parquet")
    auroc = table[(table["measure"] == "AUROC") & (table["cell_type"] == "mean")].set_index("method")["value"]
    assert {"pool", "plain"} < set(auroc.index)
    assert auroc["pool"] > auroc["G"]
    specific = table[(table["measure"] == "specific") & (table["cell_type"] == "mean")].set_index("method")["value"]
    assert specific["pool"] == 0 and specific["plain"] > 0.1  # the nearest cell type differs between cell types
    assert "mean log-odds of G, mean of known cell types" in (out / "cross_validation.html").read_text()


def test_what_fails_is_reported_and_the_others_go_on(toy: ModuleType, atlas: Path, tmp_path: Path) -> None:
    protocol = protocol_of(title=HOSTILE)
    protocol["methods"].insert(0, {"name": HOSTILE, "method": "composition", "options": {"noise": -1}})
    settings = settings_of(atlas, protocol, tmp_path / "out")
    for _ in range(2):  # a failure is no result, and is tried again
        with pytest.raises(UserError, match="noise: -1 is negative"):
            cross_validate(settings)
    found = facts(settings.out)
    assert {row["method"] for row in found["results"]} == {"G", "flat", "both", MEAN, NEAREST}
    assert [(row["method"], row["failed"]) for row in found["missing"]] == [(HOSTILE, True)]
    assert HOSTILE not in (settings.out / "cross_validation.html").read_text()


def test_numbers_and_a_method_that_cannot_predict_them(toy: ModuleType, atlas: Path, tmp_path: Path) -> None:
    table = long(wide()).rename(columns={"label": "value"})
    write_labels(atlas, table.assign(value=table["value"] + np.arange(len(table)) % 7 / 10))
    out = cross_validate(settings_of(atlas, protocol_of(), tmp_path / "out"))
    found = facts(out)
    assert found["target"] == "value" and found["cell_types"][0]["positives"] is None
    assert {row["method"] for row in found["results"]} == {"flat", MEAN, NEAREST}
    (row,) = found["missing"]
    assert row["reason"] == "base composition predicts classes, and this is value" and not row["failed"]


def test_folds_that_cannot_be_used_are_left_out(toy: ModuleType, atlas: Path, tmp_path: Path) -> None:
    table = wide().astype({f"label:{name}": "Int64" for name in CELL_TYPES})
    table.loc[table["chrom"] == "chr1", "label:B"] = pd.NA
    write_labels(atlas, table)
    groups = [["chr1"], ["chr2"], ["chr3", "chr4"]]
    out = cross_validate(settings_of(atlas, protocol_of(chromosomes=groups), tmp_path / "out"))
    found = facts(out)
    assert {(row["method"], row["fold"]) for row in found["missing"]} == {
        ("all", "B, chr1"),
        ("all", "cell types 1, chromosomes 3"),  # it chooses on B, chr1
        ("all", "cell types 3, chr2"),  # it learns from B, chr1
    }
    assert {row["method"] for row in found["results"]} == {"G", "flat", "both", MEAN, NEAREST}
    kept = pd.read_parquet(out / "predictions.parquet")
    assert set(kept["fold"]).isdisjoint({"B, chr1", "cell types 1, chromosomes 3"})
    write_labels(atlas, wide().assign(**{f"label:{name}": 1 for name in CELL_TYPES}))
    with pytest.raises(UserError, match="cannot be cross-validated in any fold"):
        cross_validate(settings_of(atlas, protocol_of(), tmp_path / "none"))


def test_a_fraction_that_leaves_no_fold_is_left_out(
    toy: ModuleType, atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flaw = Fold.flaw
    monkeypatch.setattr(
        Fold, "flaw", lambda fold, grid, part, seed: "few" if part < 1 else flaw(fold, grid, part, seed)
    )
    out = cross_validate(settings_of(atlas, protocol_of(label_fractions=[1, 0.5]), tmp_path / "out"))
    found = facts(out)
    assert {row["label_fraction"] for row in found["results"]} == {1}
    assert {row["reason"] for row in found["missing"]} == {"few (with 0.5 of the labels)"}
    assert len(found["missing"]) == FOLDS


def test_a_folder_of_something_else_is_left_alone(toy: ModuleType, atlas: Path) -> None:
    with pytest.raises(UserError, match="was not made by genebert cross-validate"):
        cross_validate(settings_of(atlas, protocol_of(), atlas))
    assert toy.calls == []


def test_on_the_command_line(toy: ModuleType, atlas: Path, tmp_path: Path) -> None:
    protocol = protocol_of()
    words = ["cross-validate", str(write_protocol(atlas, protocol)), "--out", str(tmp_path / "out")]
    listed = CliRunner().invoke(main, [*words, "--dry-run"], catch_exceptions=False)
    assert listed.exit_code == 0 and not (tmp_path / "out").exists()
    assert [line.split()[1::2] for line in listed.output.splitlines() if "│ G" in line] == [
        ["G", "1", "18", "18", "unknown"]
    ]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "27 of 27: cell types 3, chr3, flat, seed 0" in done.stderr
    protocol["methods"][0]["options"] = {"noise": -1}
    failed = CliRunner().invoke(main, ["cross-validate", str(write_protocol(atlas, protocol)), *words[2:]])
    assert failed.exit_code == 2 and "G: noise: -1 is negative" in failed.stderr


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_wrong_model_is_refused_before_anything_is_computed(
    dry_run: bool, toy: ModuleType, atlas: Path, tmp_path: Path
) -> None:
    entries = [*protocol_of()["methods"], {"name": "N", "method": "genebert", "options": {"model": "corpus"}}]
    with pytest.raises(UserError, match="a result of `genebert pretrain` is needed"):
        cross_validate(settings_of(atlas, protocol_of(methods=entries), tmp_path / "out", dry_run=dry_run))
    assert not toy.calls


def test_alternative_sequences_are_tested_with_their_chromosome(grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    own = grid.windows.table["chrom"] == "chr3"
    grid.windows.table.loc[own, "chrom"] = ["chr3_KI270777v1_alt", "chr3"] * (own.sum() // 2)
    folds = folds_of(grid, protocol_of()["cell_types"], 3)
    run._say_untested(grid, folds)
    assert "in no group" not in capsys.readouterr().err
    run._say_untested(grid, folds[:1])
    assert "in no group" in capsys.readouterr().err


def test_what_rests_on_known_labels_is_measured_by_half(
    toy: ModuleType, atlas: Path, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def noting(*arguments: Any) -> Any:
        given.append(arguments)
        return measure(*arguments)

    monkeypatch.setattr(run, "measure", noting)
    protocol = protocol_of(seeds=1, ensembles=[{"name": "known", "of": ["G", NEAREST], "log_odds": True}])
    cross_validate(settings_of(atlas, protocol, tmp_path / "out"))
    ((parts, _, _, _, halves),) = given
    folds = folds_of(grid, protocol["cell_types"], 3)
    assert len(parts) == len(halves) == len(folds) == FOLDS
    for fold, (asked, whole), both in zip(folds, parts, halves, strict=True):
        assert set(whole) == {"G", "flat", "known", MEAN, NEAREST}
        for known, half in zip(asked.halves, both, strict=True):
            assert set(half) == {"known", MEAN, NEAREST} and 0 < len(known) < len(fold.known)
            assert np.array_equal(half[NEAREST][0], nearest_known(grid, fold, known))
            assert np.array_equal(half[MEAN][0], mean_of_known(grid, fold, known))
