"""What users get wrong, and what they are told: the place, the value and the remedy; nothing is harmed."""

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import toys
from click.testing import CliRunner
from toys import Peak, World

from genebert.cli import main
from genebert.stage import MANIFEST

GOOD = Peak("chr1", 1000, 1200, 80)


def peaks(*lines: Peak | str) -> Callable[[World], list[str]]:
    """Give the cell type B these lines."""
    return lambda world: toys.write_peaks(world.peaks / "B.narrowPeak", lines) and []


def narrow(chrom: str = "chr1", start: object = 10, end: object = 60, summit: object = 7) -> str:
    return f"{chrom}\t{start}\t{end}\tpeak\t0\t.\t1.0\t5.0\t-1\t{summit}"


def genome(content: bytes, name: str = "genome.fa") -> Callable[[World], list[str]]:
    def change(world: World) -> list[str]:
        (world.folder / name).write_bytes(content)
        return ["--genome", str(world.folder / name)]

    return change


def motifs(old: str, new: str) -> Callable[[World], list[str]]:
    def change(world: World) -> list[str]:
        text = world.motifs.read_text()
        assert old in text
        world.motifs.write_text(text.replace(old, new, 1))
        return []

    return change


def option(*words: str) -> Callable[[World], list[str]]:
    """Add words to the command; {folder} is the folder of the inputs."""
    return lambda world: [word.format(folder=world.folder) for word in words]


def spoil_probabilities(world: World, word: str) -> None:
    lines = world.motifs.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("letter-probability")) + 1
    lines[row] = f"{word} 0.5 0.25 0.25"
    world.motifs.write_text("\n".join(lines))


def all_n(world: World) -> None:
    toys.write_fasta(world.genome, {name: "N" * length for name, length in toys.CHROMOSOMES.items()})


def truncate_gzip(world: World) -> None:
    (world.peaks / "B.narrowPeak").unlink()
    whole = gzip.compress("\n".join([str(GOOD)] * 500).encode(), mtime=0)
    (world.peaks / "B.narrowPeak.gz").write_bytes(whole[: len(whole) // 2])


def copy_training_chromosome(world: World) -> None:
    """Give chr3 the sequence and peaks of chr1, and no others."""
    letters = toys.read_fasta(world.genome)
    toys.write_fasta(world.genome, letters | {"chr3": letters["chr1"]})
    for path in world.peaks.iterdir():
        lines = [line for line in path.read_text().splitlines() if not line.startswith("chr3")]
        copies = [line.replace("chr1", "chr3") for line in lines if line.startswith("chr1")]
        toys.write_peaks(path, [*lines, *copies])


def new_folder(name: str, *files: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        (world.folder / name).mkdir()
        for file in files:
            (world.folder / name / file).write_text("mine")

    return change


def both(change: Callable[[World], object], *words: str) -> Callable[[World], list[str]]:
    return lambda world: (change(world), option(*words)(world))[1]


@dataclass(frozen=True)
class Case:
    """How to break the toy inputs (returns further words of the command), and what the message must hold."""

    id: str
    change: Callable[[World], list[str] | None]
    fragments: tuple[str, ...]


B = "peaks/B.narrowPeak"
CASES = [
    # Peaks
    Case("empty peak file", peaks(), (B, "the file is empty", "at least one record")),
    Case("comments only", peaks("# nothing", "track name=x"), (B, "only comments", "at least one interval")),
    Case(
        "truncated gzip",
        truncate_gzip,
        ("peaks/B.narrowPeak.gz", "truncated or damaged", "Copy or download it again"),
    ),
    Case(
        "binary",
        lambda w: (w.peaks / "B.narrowPeak").write_bytes(bytes(range(128, 250))) and None,
        (B, "not a text file", "plain or gzip"),
    ),
    Case(
        "end before start",
        peaks(GOOD, narrow(start=90, end=60)),
        (B, "line 2", "end 60 is not after start 90", "half-open"),
    ),
    Case(
        "empty interval",
        peaks(GOOD, narrow(start=60, end=60)),
        (B, "line 2", "end 60 is not after start 60", "half-open"),
    ),
    Case("negative start", peaks(narrow(start=-5)), (B, "line 1", "start is -5", "0-based")),
    Case(
        "end beyond the chromosome",
        peaks(GOOD, GOOD, narrow(end=20001)),
        (B, "line 3", "20001", "chr1, which has 20000 bp", "assembly"),
    ),
    Case("no whole number", peaks(narrow(start="ten")), (B, "line 1", "'ten'", "separated by tabs")),
    Case("header line", peaks("chrom\tstart\tend", "chr1\t1\t2"), (B, "line 1", "'start'", "separated by tabs")),
    Case("fraction", peaks(narrow(end="60.5")), (B, "line 1", "'60.5'", "not a whole number")),
    Case(
        "unknown chromosome",
        peaks(GOOD, narrow("chrUn")),
        (B, "line 2", "'chrUn'", "chr1, chr2, chr3", "--skip-unknown-chromosomes"),
    ),
    Case("mixed naming", peaks(GOOD, narrow("1")), (B, "line 1", "chr1, 1", "Use one naming")),
    Case("two columns", peaks("chr1\t10"), (B, "line 1", "it has 2 tab-separated", "chrom, start, end")),
    Case("spaces", peaks("chr1 10 60"), (B, "line 1", "it has 1 tab-separated", "separated by tabs")),
    Case(
        "ragged columns",
        peaks(GOOD, "chr1\t10\t60"),
        (B, "line 2", "it has 3 columns", "first line has 10", "same number"),
    ),
    Case("summit outside the peak", peaks(GOOD, narrow(summit=50)), (B, "line 2", "'50'", "column 10", "or -1")),
    Case("negative signal", peaks(GOOD, Peak("chr1", 5, 90, signal=-3)), (B, "line 2", "-3.0", "column 7")),
    Case(
        "folder in place of a peak file",
        new_folder("peaks/X.bed"),
        ("peaks/X.bed", "Is a directory", "permissions"),
    ),
    Case(
        "absent peaks",
        option("--peaks", "{folder}/absent"),
        ("inputs/absent", "no such file or folder", "--peaks"),
    ),
    Case(
        "folder without peaks",
        both(new_folder("other", "notes.txt"), "--peaks", "{folder}/other"),
        ("inputs/other", "no *.narrowPeak or *.broadPeak or *.bed", "one file per cell type"),
    ),
    Case(
        "no cell type",
        both(new_folder("other"), "--peaks", "{folder}/other"),
        ("inputs/other", "no *.narrowPeak or *.broadPeak or *.bed"),
    ),
    Case(
        "two files of one cell type",
        lambda w: toys.write_peaks(w.peaks / "B.bed", [GOOD]) and None,
        ("peaks/B.bed", B, "'B' is already given", "one file"),
    ),
    # Genome
    Case(
        "absent genome",
        option("--genome", "{folder}/absent.fa"),
        ("absent.fa", "no such file", "Check the path"),
    ),
    Case(
        "folder in place of the genome",
        option("--genome", "{folder}/peaks"),
        ("inputs/peaks", "Is a directory"),
    ),
    Case(
        "plain gzip",
        genome(gzip.compress(b">chr1\nACGT\n", mtime=0), "genome.fa.gz"),
        ("genome.fa.gz", "no random access", "gunzip -c", "| bgzip > genome.fa.bgz"),
    ),
    Case("empty genome", genome(b""), ("genome.fa", "the file is empty", "at least one sequence")),
    Case("no FASTA", genome(b"chr1\t0\t5\n"), ("genome.fa", "line 1", "b'chr1\\t0\\t5\\n'", "Give a FASTA")),
    Case(
        "ragged FASTA",
        genome(b">chr1\nACGT\nACGTAA\nACGT\n"),
        ("genome.fa", "cannot be indexed", "lines of one record"),
    ),
    Case(
        "protein",
        lambda w: toys.write_fasta(w.genome, dict.fromkeys(toys.CHROMOSOMES, "ACDEFG" * 4000)) and None,
        ("genome.fa", "chr1:4", "'E' is no nucleotide", "ACGTN"),
    ),
    # Motifs
    Case(
        "absent motifs",
        option("--motifs", "{folder}/absent.meme"),
        ("absent.meme", "no such file", "Check the path"),
    ),
    Case("empty motif file", lambda w: w.motifs.write_text("") and None, ("motifs.meme", "the file is empty")),
    Case(
        "no motif",
        lambda w: w.motifs.write_text("MEME version 4\n") and None,
        ("motifs.meme", "no motif was found", "Give a file with at least one"),
    ),
    Case(
        "no motif file",
        lambda w: w.motifs.write_text("chr1\t5\t9\n") and None,
        ("motifs.meme", "no MEME, JASPAR, HOCOMOCO or TRANSFAC file"),
    ),
    Case(
        "repeated name",
        motifs("MOTIF m2", "MOTIF m1"),
        ("motifs.meme", "motif m1", "more than once", "Rename"),
    ),
    Case(
        "sums",
        lambda w: spoil_probabilities(w, "0.5"),
        ("motifs.meme", "m0", "position 1", "0.5 0.5 0.25 0.25", "1.5", "sum to 1"),
    ),
    Case(
        "no number",
        lambda w: spoil_probabilities(w, "half"),
        ("motifs.meme", "line 10", "half 0.5 0.25 0.25", "A C G T"),
    ),
    Case("cut short", motifs("w= 6", "w= 9"), ("motifs.meme", "line 8", "6 rows", "w= 9")),
    Case(
        "unknown group",
        option("--motifs", "jaspar:mammals"),
        ("jaspar:mammals", "no such group", "vertebrates"),
    ),
    # Options
    Case("odd width", option("--region-width", "129"), ("--region-width", "129 is odd", "even")),
    Case("width that is no number", option("--region-width", "wide"), ("--region-width", "wide", "integer")),
    Case(
        "one chromosome in two splits",
        option("--test-chromosomes", "2"),
        ("chr2", "for validation and for testing", "once"),
    ),
    Case(
        "unknown test chromosome",
        option("--test-chromosomes", "chr9"),
        ("--test-chromosomes", "'chr9'", "chr1, chr2, chr3"),
    ),
    Case(
        "nothing to train on",
        option("--test-chromosomes", "chr1,chr3"),
        ("train", "no region lies on its chromosomes", "--test"),
    ),
    Case(
        "nothing that is accessible to train on",
        both(peaks(Peak("chr2", 900, 999), Peak("chr3", 900, 999)), "--test-cell-types", "NK,T"),
        ("train: no region on its chromosomes is accessible in a cell type that is not held out", "--min-cpm"),
    ),
    Case(
        "nothing to test on that is not similar",
        both(copy_training_chromosome, "--max-shared-kmers", "0.3"),
        ("test: all regions on its chromosomes share too much sequence", "Raise --max-shared-kmers"),
    ),
    Case(
        "held-out cell type with nothing accessible",
        both(
            lambda w: (
                toys.write_peaks(w.peaks / "Z.bed", ["chr1\t100\t200"]),
                toys.write_peaks(w.folder / "list.bed", ["chr1\t0\t300"]),
            ),
            "--blacklist",
            "{folder}/list.bed",
            "--test-cell-types",
            "Z",
        ),
        ("cannot be held out", "Z: no region is accessible in it", "--blacklist", "do not name it"),
    ),
    Case(
        "split without regions",
        lambda w: [toys.write_peaks(p, [GOOD, Peak("chr2", 900, 999)]) for p in w.peaks.iterdir()] and [],
        ("test", "no region lies on its chromosomes"),
    ),
    Case("all N", all_n, ("no region is left", "too many N", "--max-n-fraction")),
    Case(
        "blacklist over everything",
        both(
            lambda w: toys.write_peaks(w.folder / "all.bed", [f"{c}\t0\t99999" for c in toys.CHROMOSOMES]),
            "--blacklist",
            "{folder}/all.bed",
        ),
        ("no region is left", "overlapping the blacklist", "--blacklist"),
    ),
    Case(
        "malformed blacklist",
        both(
            lambda w: toys.write_peaks(w.folder / "list.bed", ["chr1\t9\t5"]),
            "--blacklist",
            "{folder}/list.bed",
        ),
        ("list.bed", "line 1", "end 5 is not after start 9"),
    ),
    # Output
    Case(
        "output in use",
        both(new_folder("taken", "thesis.txt"), "--out", "{folder}/taken"),
        ("inputs/taken", "in use and was not made by this command", "Choose another --out"),
    ),
    Case(
        "output is a file",
        option("--out", "{folder}/genome.fa"),
        ("genome.fa", "in use", "Choose another --out"),
    ),
    Case(
        "output below a file",
        option("--out", "{folder}/genome.fa/out"),
        ("genome.fa", "Not a directory", "then run"),
    ),
]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(words: list[str]) -> str:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr[result.stderr.index("error: ") :]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_prepare_refuses_what_it_cannot_use(case: Case, world: World, toy_folder: Path, tmp_path: Path) -> None:
    earlier = tree(toy_folder)
    words = case.change(world) or []
    inputs = tree(world.folder)
    message = refused([*world.arguments(tmp_path / "out"), *words])
    assert [fragment for fragment in case.fragments if fragment not in message] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs"]  # no output, and no half one
    assert tree(world.folder) == inputs
    assert tree(toy_folder) == earlier


def test_problems_of_several_files_are_reported_together(world: World, tmp_path: Path) -> None:
    toys.write_peaks(world.peaks / "B.narrowPeak", [narrow(start=-5), narrow(summit="x")])
    toys.write_peaks(world.peaks / "T.narrowPeak", [narrow("chrUn")])
    message = refused(world.arguments(tmp_path / "out"))
    assert all(fragment in message for fragment in ("B.narrowPeak", "start is -5", "T.narrowPeak", "'chrUn'"))


def test_another_result_is_kept(world: World, toy_folder: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(toy_folder, tmp_path / "out"))
    before = tree(out)
    message = refused([*world.arguments(out), "--region-width", "256"])
    assert str(out) in message
    assert "other settings or inputs" in message
    assert "Choose another --out" in message
    assert tree(out) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("target", ["numpy.save", "pandas.DataFrame.to_csv", "genebert.stage.os.fsync"])
def test_a_full_disk_leaves_nothing_half_written(
    world: World, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, number: int
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    earlier = tree(toy_folder)
    monkeypatch.setattr(target, full)
    message = refused(world.arguments(tmp_path / "out"))
    assert os.strerror(number) in message
    assert "run the same command again" in message
    assert not (tmp_path / "out").exists()
    assert tree(toy_folder) == earlier
    monkeypatch.undo()
    assert CliRunner().invoke(main, world.arguments(tmp_path / "out")).exit_code == 0
    assert not (tmp_path / "out.partial").exists()
    arrays = {path.name for path in toy_folder.glob("*.npy")}
    assert all((tmp_path / "out" / name).read_bytes() == (toy_folder / name).read_bytes() for name in arrays)


# Earlier stages ---------------------------------------------------------------------------------------------


def break_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:200])


def forget_key(folder: Path) -> None:
    value = json.loads((folder / MANIFEST).read_text())
    del value["fingerprint"]
    (folder / MANIFEST).write_text(json.dumps(value))


def other_stage(folder: Path) -> None:
    value = json.loads((folder / MANIFEST).read_text()) | {"stage": "simulate"}
    (folder / MANIFEST).write_text(json.dumps(value))


DAMAGES = {
    "damaged manifest": (break_manifest, ("manifest.json", "the manifest is damaged", "run `genebert")),
    "manifest without fingerprint": (forget_key, ("manifest.json", "'fingerprint'", "run `genebert")),
    "no manifest": (
        lambda folder: (folder / MANIFEST).unlink(),
        ("no manifest.json", "not a finished result"),
    ),
    "missing file": (
        lambda folder: (folder / "evidence.npy").unlink(),
        ("evidence.npy", "is missing", "genebert prepare"),
    ),
    "short file": (
        lambda folder: np.save(folder / "evidence.npy", np.zeros(1)),
        ("evidence.npy", "bytes where", "genebert prepare"),
    ),
    "absent folder": (shutil.rmtree, ("corpus", "there is no such folder")),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("verb", ["inspect", "pretrain"])
def test_a_damaged_corpus_is_refused(verb: str, damage: str, toy_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_folder, tmp_path / "corpus"))
    change, fragments = DAMAGES[damage]
    change(folder)
    words = (
        ["inspect", str(folder)]
        if verb == "inspect"
        else ["pretrain", "--corpus", str(folder), "--out", str(tmp_path / "out")]
    )
    message = refused(words)
    assert str(folder) in message
    assert [fragment for fragment in fragments if fragment not in message] == []
    assert not (tmp_path / "out").exists()


def test_pretrain_wants_a_corpus(toy_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_folder, tmp_path / "corpus"))
    other_stage(folder)
    message = refused(["pretrain", "--corpus", str(folder), "--out", str(tmp_path / "out")])
    assert "it was made by `genebert simulate`, and a result of `genebert prepare` is needed" in message


# From outside -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", [CASES[4], next(case for case in CASES if case.id == "plain gzip")], ids=lambda case: case.id
)
def test_the_command_exits_with_2_and_without_a_traceback(case: Case, world: World, tmp_path: Path) -> None:
    words = case.change(world) or []
    done = subprocess.run(
        [sys.executable, "-m", "genebert.cli", *world.arguments(tmp_path / "out"), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [fragment for fragment in case.fragments if fragment not in done.stderr] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs"]
