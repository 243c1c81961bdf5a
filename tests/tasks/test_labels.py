"""The stage: which rows are for what, what is refused, and what the manifest says."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from toys import World, write_fasta

from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.stage import read_manifest
from genebert.tasks.labels import _amount, check_genome, labels
from genebert.tasks.promoter import Promoter

HELD_OUT = {"valid_chromosomes": ["2"], "test_chromosomes": ["chr3"]}


@pytest.fixture
def tss(tmp_path: Path) -> Path:
    path = tmp_path / "tss.bed"
    sites = [(chrom, 2000 + 3000 * i, "+-"[i % 2]) for chrom in ("chr1", "chr2", "chr3") for i in range(4)]
    path.write_text("".join(f"{chrom}\t{at}\t{at + 1}\tgene\t0\t{strand}\n" for chrom, at, strand in sites))
    return path


def task(world: World, tss: Path, out: Path, **options: Any) -> Promoter:
    return Promoter(out=out, genome=world.genome, tss=tss, upstream=30, downstream=20, **options)


def test_a_corpus_and_the_same_chromosomes_by_name_give_the_same_labels(
    toy_world: World, toy_folder: Path, tss: Path, tmp_path: Path
) -> None:
    by_corpus = labels(task(toy_world, tss, tmp_path / "a", corpus=toy_folder))
    by_name = labels(task(toy_world, tss, tmp_path / "b", **HELD_OUT))
    assert (by_corpus / "labels.tsv").read_bytes() == (by_name / "labels.tsv").read_bytes()
    table = pd.read_csv(by_name / "labels.tsv", sep="\t")
    assert dict(zip(table["chrom"], table["split"], strict=True)) == {"chr1": "train", "chr2": "valid", "chr3": "test"}


def test_the_manifest_says_which_task_and_how_many_rows_of_what(toy_world: World, tss: Path, tmp_path: Path) -> None:
    manifest = read_manifest(labels(task(toy_world, tss, tmp_path / "out", **HELD_OUT)), "labels", verify=True)
    assert manifest.settings["task"] == "promoter" and set(manifest.inputs) == {"genome", "tss"}
    assert manifest.metrics["rows_per_split"] == {"train": 8, "valid": 8, "test": 8}
    assert manifest.metrics["rows_per_split_and_label"]["valid 1"] == 4
    assert manifest.metrics["notes"]["start sites"] == 12


def test_the_same_again_is_done_already_and_other_options_are_refused(
    toy_world: World, tss: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels(task(toy_world, tss, tmp_path / "out", **HELD_OUT))
    labels(task(toy_world, tss, tmp_path / "out", **HELD_OUT))
    assert "already there" in capsys.readouterr().err
    with pytest.raises(UserError, match="other settings or inputs"):
        labels(task(toy_world, tss, tmp_path / "out", seed=1, **HELD_OUT))


def test_chromosomes_are_held_out_in_one_way(toy_world: World, toy_folder: Path, tss: Path, tmp_path: Path) -> None:
    for options, message in (({}, "none of them says"), ({"corpus": toy_folder, **HELD_OUT}, "both of them say")):
        with pytest.raises(UserError, match=f"{message} which chromosomes are held out"):
            labels(task(toy_world, tss, tmp_path / "out", **options))


def test_empty_splits_are_named_with_the_reason(toy_world: World, tss: Path, tmp_path: Path) -> None:
    tss.write_text("\n".join(line for line in tss.read_text().splitlines() if "chr2" not in line) + "\n")
    with pytest.raises(UserError) as error:
        labels(task(toy_world, tss, tmp_path / "out", valid_chromosomes=["chr2"]))
    assert "valid: no window lies on its chromosomes" in str(error.value)
    assert "test: no chromosome is held out for it. Give --test-chromosomes" in str(error.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_unknown_chromosomes_are_named(toy_world: World, tss: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--test-chromosomes: the genome has no chromosome 'chr9'"):
        labels(task(toy_world, tss, tmp_path / "out", test_chromosomes=["chr9"]))


def test_another_genome_is_refused(toy: Corpus, tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "other.fa", {"chr1": "ACGT" * 100, "chr2": "A" * 20_000})
    with Genome(path) as genome, pytest.raises(UserError) as error:
        check_genome(genome, toy)
    assert "400 bp in the genome and 20000 bp in the corpus" in str(error.value)
    assert "chr3: only the corpus has this chromosome" in str(error.value)


def test_rows_in_several_cell_types_are_no_windows_of_their_own() -> None:
    places = pd.DataFrame({"chrom": "chr1", "start": [5, 5, 9], "end": [15, 15, 19]})
    assert _amount(places) == "3 windows"
    assert _amount(places.assign(cell_type=["B", "T", "B"])) == "3 rows of 2 windows"
