import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from genebert.batches import PretrainingData
from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.model.genebert import GeneBertForPreTraining
from genebert.pretrain import new_model, pretrain, resolve
from genebert.settings import PretrainSettings, load_preset
from genebert.stage import MANIFEST, read_manifest
from genebert.tasks.base import read_windows


def settings(corpus: Path, out: Path, **changes: object) -> PretrainSettings:
    return PretrainSettings(**{"corpus": corpus, "out": out, "batch_size": 16, "epochs": 2, "device": "cpu", **changes})


def test_makes_a_hugging_face_folder_with_provenance_and_metrics_on_held_out_chromosomes(
    toy_model: Path, toy: Corpus
) -> None:
    assert {"config.json", "model.safetensors", "motifs.json", "curves.tsv", MANIFEST} == {
        p.name for p in toy_model.iterdir()
    }
    metrics = read_manifest(toy_model, "pretrain", verify=True).metrics
    assert metrics["train_chromosomes"] == ["chr1"]
    assert metrics["evaluated_on"] == "test"
    assert {row["task"] for row in metrics["evaluation"]} >= {"MGM", "NGSP"}
    for row in metrics["evaluation"]:
        assert row["model"]["low"] <= row["model"]["value"] <= row["model"]["high"]
        assert row["baselines"] and row["n"] > 0
    curves = pd.read_csv(toy_model / "curves.tsv", sep="\t")
    assert {"mgm", "ngsp", "srm", "valid_mgm", "valid_srm"} <= set(curves)
    assert GeneBertForPreTraining.from_pretrained(toy_model).config.motifs == len(toy.motifs)


def test_the_normaliser_is_fitted_on_training_regions_alone(toy: Corpus) -> None:
    encoder = new_model(load_preset("tiny").model, toy, 0).genebert.region_encoder
    training = np.asarray(toy.evidence)[toy.regions["chrom"].to_numpy() == "chr1"].astype(float)
    assert np.allclose(encoder.evidence_mean.numpy(), training.mean(0))
    assert np.allclose(encoder.evidence_std.numpy(), np.maximum(training.std(0), 1))


def test_training_batches_hold_no_region_of_a_held_out_chromosome(toy: Corpus) -> None:
    data = PretrainingData(toy, "train", k=3, columns=8, batch_size=16, mask_fraction=0.15, seed=0)
    chroms = toy.regions["chrom"].to_numpy()
    held_out = {toy.evidence[i].tobytes() for i in np.flatnonzero(chroms != "chr1")} - {
        toy.evidence[i].tobytes() for i in np.flatnonzero(chroms == "chr1")
    }
    for step in range(3 * data.steps_per_epoch):
        batch = data.batch(step)
        assert set(chroms[batch.region.numpy()]) | set(chroms[batch.second_region.numpy()]) == {"chr1"}
        columns = batch.matrix.evidence[batch.matrix.present].numpy()
        assert not {row.tobytes() for row in columns} & held_out


def test_the_same_command_again_does_nothing_and_the_same_seed_gives_the_same_weights(
    toy_folder: Path, toy_model: Path, tmp_path: Path
) -> None:
    before = (toy_model / MANIFEST).stat().st_mtime_ns
    pretrain(settings(toy_folder, toy_model))
    assert (toy_model / MANIFEST).stat().st_mtime_ns == before
    again = pretrain(settings(toy_folder, tmp_path / "again"))
    for name in ("model.safetensors", "curves.tsv"):
        assert (again / name).read_bytes() == (toy_model / name).read_bytes()
    assert read_manifest(again).metrics == read_manifest(toy_model).metrics


@pytest.mark.slow
def test_a_run_killed_with_sigkill_resumes_to_identical_bytes(
    toy_folder: Path, toy_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "genebert.cli",
        "pretrain",
        "--corpus",
        str(toy_folder),
        "--out",
        str(out),
        "--batch-size",
        "16",
        "--epochs",
        "2",
        "--device",
        "cpu",
        "--checkpoint-steps",
        "1",
    ]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    checkpoint = Path(f"{out}.partial") / "last.ckpt"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not out.exists()
    assert torch.load(checkpoint, weights_only=True)["global_step"] >= 1
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    for name in ("model.safetensors", "curves.tsv"):
        assert (out / name).read_bytes() == (toy_model / name).read_bytes()


def test_a_task_of_weight_0_is_off(toy_folder: Path, tmp_path: Path) -> None:
    out = pretrain(settings(toy_folder, tmp_path / "mgm", ngsp_weight=0, srm_weight=0))
    curves = pd.read_csv(out / "curves.tsv", sep="\t").dropna(subset=["loss"])
    assert np.allclose(curves["loss"], curves["mgm"])


def test_the_users_values_win_over_the_presets() -> None:
    chosen = resolve(PretrainSettings(corpus=Path("c"), out=Path("o"), epochs=7, srm_weight=0)).training
    preset = load_preset("tiny").training
    assert (chosen.epochs, chosen.srm_weight, chosen.batch_size) == (7, 0, preset.batch_size)


def test_a_damaged_corpus_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    facts = json.loads((toy_folder / MANIFEST).read_text())
    broken = tmp_path / "corpus"
    broken.mkdir()
    for path in toy_folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "evidence.npy").write_bytes(b"short")
    with pytest.raises(UserError, match=r"evidence\.npy.* 5 bytes where the manifest says"):
        pretrain(settings(broken, tmp_path / "out"))
    assert facts["files"]["evidence.npy"]["bytes"] > 5
    assert not (tmp_path / "out").exists()


def test_labels_on_pretraining_chromosomes_cannot_be_tested_on(toy_labels: Path, toy_world: object) -> None:
    from genebert.inputs.genome import Genome

    with Genome(toy_world.genome) as genome:
        windows = read_windows(toy_labels, genome, labelled=True)
    assert set(windows.table.loc[windows.table["split"] == "test", "chrom"]) == {"chr3"}
