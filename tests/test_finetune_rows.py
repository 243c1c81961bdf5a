"""Which rows are learned from and measured on, and what a fine-tuning survives."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toys import World

from genebert.errors import ResumableError, UserError
from genebert.finetune import chromosomes_among, finetune
from genebert.methods.kmer_trees import KmerTrees
from genebert.predict import evaluate
from genebert.settings import EvaluateSettings, FinetuneSettings
from genebert.stage import read_manifest
from genebert.tasks.windows import Windows


def settings(labels: Path, model: Path, out: Path, **changes: Any) -> FinetuneSettings:
    quick = {"network": False, "ensemble": ["kmer-regression"], "baselines": [], "scratch": False, "device": "cpu"}
    return FinetuneSettings(**{"labels": labels, "model": model, "out": out, **quick, **changes})


@pytest.fixture
def neighbours(tmp_path: Path) -> Path:
    """Rows of a chromosome that pre-training held out, divided by a column."""
    rows = [f"chr3,{100 * i},{100 * i + 60},{i % 2},{('train', 'valid', 'test')[i // 2 % 3]}" for i in range(60)]
    path = tmp_path / "neighbours.csv"
    path.write_text("\n".join(["chrom,start,end,label,split", *rows]) + "\n")
    return path


def test_test_rows_beside_training_rows_are_told_and_measured_by_evaluate_too(
    neighbours: Path, toy_world: World, toy_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = finetune(settings(neighbours, toy_model, tmp_path / "out", genome=toy_world.genome))
    assert "20 test rows lie on chromosomes of training or validation rows (chr3)" in capsys.readouterr().err
    again = EvaluateSettings(labels=neighbours, model=made, genome=toy_world.genome, out=tmp_path / "again")
    results = read_manifest(evaluate(again)).metrics["results"]
    assert results == read_manifest(made).metrics["results"][: len(results)]
    other = tmp_path / "other.csv"
    other.write_text(neighbours.read_text().replace(",60,0,", ",61,0,"))
    with pytest.raises(UserError, match="rows on chr3, on which the model was trained"):
        evaluate(again.model_copy(update={"labels": other, "out": tmp_path / "other"}))


def test_a_model_of_sequences_is_not_measured_on_chromosomes_of_pretraining(
    sequence_predictor: Path, toy_world: World, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("chrom,start,end,label\nchr1,0,60,0\nchr1,100,160,1\n")
    asked = EvaluateSettings(labels=labels, model=sequence_predictor, genome=toy_world.genome, out=tmp_path / "out")
    with pytest.raises(UserError, match="rows on chr1, on which the model was trained"):
        evaluate(asked)


def test_a_method_beside_that_fails_does_not_cost_the_predictor(
    toy_sequences: Path,
    toy_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UserError("LightGBM: it cannot be loaded")

    def stop(*_: object, **__: object) -> None:
        raise ResumableError("the GPU is too small")

    monkeypatch.setattr(KmerTrees, "fit", stop)
    with pytest.raises(ResumableError):
        finetune(settings(toy_sequences, toy_model, tmp_path / "out", baselines=["kmer-trees"]))
    monkeypatch.setattr(KmerTrees, "fit", fail)
    made = finetune(settings(toy_sequences, toy_model, tmp_path / "out", baselines=["kmer-trees"]))
    metrics = read_manifest(made).metrics
    assert metrics["not_compared"] == {KmerTrees.title: "LightGBM: it cannot be loaded"}
    assert KmerTrees.title not in {row["method"] for row in metrics["results"]}
    assert f"{KmerTrees.title} is left out of the comparison: LightGBM" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match="LightGBM"):
        finetune(settings(toy_sequences, toy_model, tmp_path / "other", ensemble=["kmer-trees"]))


def test_trees_on_accessibility_are_refused_where_rows_name_no_cell_type(
    toy_sequences: Path, toy_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--baselines accessibility-trees: it sees accessibility alone"):
        finetune(settings(toy_sequences, toy_model, tmp_path / "out", baselines=["accessibility-trees"]))


def test_rows_that_were_removed_from_a_folder_of_labels_count(
    toy_labels: Path, toy_world: World, toy_folder: Path, toy_model: Path, tmp_path: Path
) -> None:
    """They once did not, so that results of all rows passed for those of fewer."""
    folder = tmp_path / "labels"
    folder.mkdir()
    for path in toy_labels.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    asked = settings(
        folder,
        toy_model,
        tmp_path / "out",
        genome=toy_world.genome,
        corpus=toy_folder,
        ensemble=["accessibility-trees"],
    )
    finetune(asked)
    lines = (folder / "labels.tsv").read_text().splitlines()
    (folder / "labels.tsv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UserError, match="with other settings or inputs"):
        finetune(asked)


def test_a_chromosome_and_its_alternative_sequences_count_as_one() -> None:
    table = pd.DataFrame({"chrom": ["chr8", "chr8_KI270821v1_alt", "chr1"], "start": 0, "end": 9})
    windows = Windows(table, np.zeros((3, 9), dtype=np.uint8), Path("w.bed"))
    assert chromosomes_among(windows, ["8"]) == ["chr8", "chr8_KI270821v1_alt"]
    assert chromosomes_among(windows, ["chr8_KI270821v1_alt"]) == ["chr8", "chr8_KI270821v1_alt"]
    assert chromosomes_among(windows, ["chr2"]) == []
