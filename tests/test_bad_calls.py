"""Mistakes in calls of the later stages: exit code 2, a message with the remedy, no traceback, no output."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from toys import World

from genebert.cli import main

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    def invoke(*words: object) -> Result:
        return CliRunner().invoke(main, [*map(str, words), "--out", str(tmp_path / "out")])

    return invoke


def check_refused(result: Result, tmp_path: Path, *fragments: object) -> None:
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    for fragment in fragments:
        assert str(fragment) in result.output
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_pretraining_without_any_task(call: Call, toy_folder: Path, tmp_path: Path) -> None:
    weights = [word for task in ("mgm", "ngsp", "srm") for word in (f"--{task}-weight", "0")]
    check_refused(call("pretrain", "--corpus", toy_folder, *weights), tmp_path, "--mgm-weight", "all are 0")


@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_a_gpu_that_is_not_there(
    verb: str,
    call: Call,
    toy_folder: Path,
    toy_model: Path,
    toy_sequences: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    inputs = {"pretrain": ["--corpus", toy_folder], "finetune": ["--labels", toy_sequences, "--model", toy_model]}
    check_refused(call(verb, "--device", "cuda", *inputs[verb]), tmp_path, "no CUDA device", "Use --device cpu")


@pytest.mark.parametrize("verb", ["pretrain", "labels accessibility", "report"])
def test_a_folder_that_is_no_corpus(verb: str, call: Call, toy_model: Path, toy_world: World, tmp_path: Path) -> None:
    more = ["--genome", toy_world.genome] if "labels" in verb else []
    result = call(*verb.split(), "--corpus", toy_model, *more)
    check_refused(result, tmp_path, toy_model, "made by `genebert pretrain`", "`genebert prepare` is needed")


def test_labels_of_another_genome_with_the_same_chromosomes(
    call: Call, world: World, toy_folder: Path, tmp_path: Path
) -> None:
    text = world.genome.read_text()
    world.genome.write_text(text.translate(str.maketrans("ACGT", "CGTA")))
    result = call("labels", "accessibility", "--corpus", toy_folder, "--genome", world.genome)
    check_refused(result, tmp_path, world.genome, "do not belong together", "another sequence")


def test_promoters_without_start_sites(call: Call, toy_world: World, toy_folder: Path, tmp_path: Path) -> None:
    result = call("labels", "promoter", "--corpus", toy_folder, "--genome", toy_world.genome)
    check_refused(result, tmp_path, "--tss, --gtf: none of them is given", "Give one of them")


def test_an_unknown_task(call: Call, toy_world: World, toy_folder: Path, tmp_path: Path) -> None:
    result = call("labels", "enhancer", "--corpus", toy_folder, "--genome", toy_world.genome)
    check_refused(result, tmp_path, "No such command 'enhancer'")


def test_labels_that_nothing_divides(call: Call, toy_world: World, tmp_path: Path) -> None:
    result = call("labels", "tf-binding", "--peaks", toy_world.peaks, "--genome", toy_world.genome)
    check_refused(result, tmp_path, "none of them says which chromosomes are held out", "Give --corpus, or else")


@pytest.mark.parametrize("task", ["promoter", "splice"])
def test_an_annotation_with_a_bad_line(task: str, call: Call, toy_world: World, tmp_path: Path) -> None:
    gtf = tmp_path / "genes.gtf"
    gtf.write_text("# genes\nchr1\tx\texon\t1\t9\n")
    words = ["--gtf", gtf, "--valid-chromosomes", "chr2", "--test-chromosomes", "chr3"]
    result = call("labels", task, "--genome", toy_world.genome, *words)
    check_refused(result, tmp_path, "genes.gtf", "line 2: it has 5 tab-separated columns")


@pytest.mark.parametrize("option", ["--genome", "--introns"])
def test_inputs_of_a_task_that_are_absent(option: str, call: Call, toy_world: World, tmp_path: Path) -> None:
    files = {"--genome": toy_world.genome, "--introns": toy_world.genome} | {option: tmp_path / "absent"}
    words = [word for pair in files.items() for word in pair]
    result = call("labels", "splice", *words, "--valid-chromosomes", "chr2", "--test-chromosomes", "chr3")
    check_refused(result, tmp_path, "absent", f"given as {option[2:]}")


def test_finetuning_on_labels_that_are_absent(call: Call, toy_model: Path, tmp_path: Path) -> None:
    result = call("finetune", "--labels", tmp_path / "none.csv", "--model", toy_model)
    check_refused(result, tmp_path, "none.csv", "no such file")


def test_a_class_that_no_training_row_has(call: Call, toy_model: Path, tmp_path: Path) -> None:
    rows = [
        f"{'ACGTA' * 12},{label},{split}"
        for split, labels in (("train", "ac"), ("valid", "ac"), ("test", "abc"))
        for label in labels
    ]
    path = tmp_path / "labels.csv"
    path.write_text("sequence,label,split\n" + "\n".join(rows) + "\n")
    result = call("finetune", "--labels", path, "--model", toy_model)
    check_refused(result, tmp_path, "labels.csv", "test: it has labels that no training row has: b")


def test_windows_of_different_widths_are_named_by_line(
    call: Call, toy_world: World, toy_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("chrom,start,end,label\nchr1,0,100,1\nchr1,200,290,0\n")
    result = call("finetune", "--labels", path, "--model", toy_model, "--genome", toy_world.genome)
    check_refused(result, tmp_path, "labels.csv", "line 3: it has 90 bp, and the first has 100 bp")


def test_a_learning_rate_that_diverges(call: Call, toy_model: Path, toy_sequences: Path, tmp_path: Path) -> None:
    words = [
        "finetune",
        "--labels",
        toy_sequences,
        "--model",
        toy_model,
        "--learning-rate",
        "1e30",
        "--no-scratch",
        "--baselines",
        "",
    ]
    check_refused(call(*words, "--epochs", 1, "--device", "cpu"), tmp_path, "--learning-rate", "Choose a lower one")


def test_evaluation_on_chromosomes_of_training_is_refused(
    call: Call, toy_world: World, toy_folder: Path, toy_predictor: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("chrom,start,end,cell_type,label\nchr1,0,128,B,1\n2,0,128,B,0\nchr3,0,128,B,0\n")
    result = call(
        "evaluate", "--labels", path, "--model", toy_predictor, "--genome", toy_world.genome, "--corpus", toy_folder
    )
    check_refused(result, tmp_path, "labels.csv", "rows on chr1, chr2")


def test_evaluation_on_one_class(call: Call, sequence_predictor: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"sequence,label\n{'ACGTA' * 12},1\n{'GCGTA' * 12},1\n")
    result = call("evaluate", "--labels", path, "--model", sequence_predictor)
    check_refused(result, tmp_path, "labels.csv", "fewer than two classes")


def test_prediction_without_the_genome_and_with_useless_cell_types(
    call: Call, sequence_predictor: Path, tmp_path: Path
) -> None:
    bed = tmp_path / "windows.bed"
    bed.write_text("chr1\t0\t60\n")
    check_refused(call("predict", bed, "--model", sequence_predictor), tmp_path, "windows.bed", "Add --genome")
    table = tmp_path / "windows.csv"
    table.write_text(f"seq,name\n{'ACGTA' * 12},a\n")
    result = call("predict", table, "--model", sequence_predictor)
    check_refused(result, tmp_path, "windows.csv", "nor in a column `sequence`", "name the column of sequences")
    fasta = tmp_path / "windows.fa"
    fasta.write_text(f">a\n{'ACGTA' * 12}\n")
    result = call("predict", fasta, "--model", sequence_predictor, "--cell-types", "B")
    check_refused(result, tmp_path, "--cell-types", "knows no cell types")


def test_a_bad_letter_in_fasta_is_named_by_its_record(call: Call, sequence_predictor: Path, tmp_path: Path) -> None:
    fasta = tmp_path / "windows.fa"
    fasta.write_text(">good\nACGT\n>bad\nACGJ\n")
    result = call("predict", fasta, "--model", sequence_predictor)
    check_refused(result, tmp_path, "windows.fa", "record bad", "'J' at position 4")


def test_bed_windows_of_any_width_are_fitted_around_their_centre(
    call: Call, toy_world: World, toy_folder: Path, toy_predictor: Path, tmp_path: Path
) -> None:
    bed = tmp_path / "windows.bed"
    bed.write_text("chr3\t1000\t1010\nchr3\t4000\t5000\n")
    words = [
        "--model",
        toy_predictor,
        "--genome",
        toy_world.genome,
        "--corpus",
        toy_folder,
        "--cell-types",
        "B",
        "--device",
        "cpu",
    ]
    assert call("predict", bed, *words).exit_code == 0
    rows = [line.split("\t")[:3] for line in (tmp_path / "out" / "predictions.tsv").read_text().splitlines()[1:]]
    assert rows == [["chr3", "941", "1069"], ["chr3", "4436", "4564"]]


def test_a_full_disk_while_weights_are_written(
    call: Call, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: No space left on device")

    monkeypatch.setattr("genebert.model.genebert.GeneBertForPreTraining.save_pretrained", fail)
    result = call("pretrain", "--corpus", toy_folder, "--batch-size", 16, "--epochs", 1, "--device", "cpu")
    assert result.exit_code == 2 and "No space left" in result.output and "Traceback" not in result.output
    assert not (tmp_path / "out").exists()  # out.partial stays: pre-training resumes
