import gzip
import os
import pickle
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pysam
import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st

from genebert.errors import UserError
from genebert.inputs import faidx
from genebert.inputs import genome as module
from genebert.inputs.genome import Genome, chromosomes_known, match_chromosomes, spelled_chromosomes
from genebert.schema import decode

SEQUENCES = {"chr1": toys.random_bases(150, np.random.default_rng(0)), "chr2": "acgtNNRYacg", "chrM": "A"}
UPPER = {name: letters.upper().replace("R", "N").replace("Y", "N") for name, letters in SEQUENCES.items()}


def runs(letters: str, kind: str) -> list[tuple[int, int]]:
    """(start, size) of the runs of N, or of lower case."""
    inside = [letter in "Nn" if kind == "N" else letter.islower() for letter in letters]
    starts = [i for i in range(len(inside)) if inside[i] and not (i and inside[i - 1])]
    return [(start, [*inside[start:], False].index(False)) for start in starts]


def write_2bit(path: Path, sequences: Mapping[str, str], order: str = "<", version: int = 0) -> Path:
    """Write 2bit as https://genome.ucsc.edu/FAQ/FAQformat.html#format7 has it: T 0, C 1, A 2, G 3."""

    def integers(*values: int) -> bytes:
        return struct.pack(f"{order}{len(values)}I", *values)

    def blocks(found: list[tuple[int, int]]) -> bytes:
        return integers(len(found), *(start for start, _ in found), *(size for _, size in found))

    records = []
    for letters in sequences.values():
        codes = ["TCAG".find(letter) % 4 for letter in letters.upper()]
        codes += [0] * (-len(codes) % 4)
        packed = bytes(a << 6 | b << 4 | c << 2 | d for a, b, c, d in zip(*[iter(codes)] * 4, strict=True))
        masks = blocks(runs(letters, "N")) + blocks(runs(letters, "mask")) + integers(0)
        records.append(integers(len(letters)) + masks + packed)
    offset = 16 + sum(5 + len(name) for name in sequences)
    content = integers(0x1A412743, version, len(sequences), 0)
    for name, record in zip(sequences, records, strict=True):
        content += bytes([len(name)]) + name.encode() + integers(offset)
        offset += len(record)
    path.write_bytes(content + b"".join(records))
    return path


@pytest.fixture(params=["plain", "bgzip", "crlf", "indexed", "2bit"])
def fasta(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "2bit":  # knows no IUPAC letters but N; its name tells nothing
        sequences = {name: letters.replace("R", "N").replace("Y", "N") for name, letters in SEQUENCES.items()}
        return write_2bit(tmp_path / "genome.fa", sequences)
    path = toys.write_fasta(tmp_path / "genome.fa", SEQUENCES)
    if request.param == "bgzip":
        pysam.tabix_compress(str(path), f"{path}.gz")
        return Path(f"{path}.gz")
    if request.param == "crlf":
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    if request.param == "indexed":
        pysam.faidx(str(path))
    return path


def test_fetch_is_slicing_of_strings(fasta: Path) -> None:
    beside = sorted(fasta.parent.iterdir())
    with Genome(fasta) as genome:
        assert genome.lengths == {name: len(letters) for name, letters in SEQUENCES.items()}
        for chrom, start, end in [
            ("chr1", 0, 150),
            ("chr1", 55, 65),
            ("chr1", 149, 150),
            ("chr2", 0, 11),
            ("chrM", 0, 1),
        ]:
            assert decode(genome.fetch(chrom, start, end)) == UPPER[chrom][start:end]
        assert genome.ambiguous == (0 if fasta.read_bytes().startswith(b"C\x27") else 2)
    assert sorted(fasta.parent.iterdir()) == beside  # the folder of the genome may be read-only


def test_beyond_the_ends_there_is_n(fasta: Path) -> None:
    with Genome(fasta) as genome:
        assert decode(genome.fetch("chr2", -3, 2)) == "NNNAC"
        assert decode(genome.fetch("chr2", 9, 14)) == "CGNNN"
        assert decode(genome.fetch("chr2", -2, 13)) == f"NN{UPPER['chr2']}NN"
        assert decode(genome.fetch("chr2", 20, 23)) == "NNN"
        assert decode(genome.fetch("chr2", -5, -2)) == "NNN"


def test_fetch_all_stacks_windows(fasta: Path) -> None:
    with Genome(fasta) as genome:
        windows = genome.fetch_all(["chr1", "chr2", "chr1"], np.array([5, 8, 145]), 6)
        assert [decode(row) for row in windows] == [UPPER["chr1"][5:11], "ACGNNN", UPPER["chr1"][145:] + "N"]
        assert genome.fetch_all([], np.array([], dtype=np.int64), 6).shape == (0, 6)


def test_masks_and_runs_of_n_in_2bit(tmp_path: Path) -> None:
    letters = "nnACgtacNNNNgtTTTnaaN"
    with Genome(write_2bit(tmp_path / "genome.2bit", {"a": letters, "empty": "", "b": "N", "c": "t"})) as genome:
        assert genome.lengths == {"a": 21, "empty": 0, "b": 1, "c": 1}
        assert [decode(genome.fetch("a", i, j)) for i in range(22) for j in range(i, 22)] == [
            letters.upper()[i:j] for i in range(22) for j in range(i, 22)
        ]
        assert [decode(genome.fetch(name, 0, 2)) for name in ("empty", "b", "c")] == ["NN", "NN", "TN"]


@pytest.mark.parametrize(
    ("order", "version", "fault"),
    [("<", 1, "version 1, little-endian"), (">", 0, "version 0, big-endian")],
)
def test_other_kinds_of_2bit(tmp_path: Path, order: str, version: int, fault: str) -> None:
    path = write_2bit(tmp_path / "genome.2bit", {"a": "ACGT"}, order, version)
    with pytest.raises(UserError, match=f"{fault}.*twoBitToFa {path} genome.fa"):
        Genome(path)


def test_no_truncated_2bit_is_read(tmp_path: Path) -> None:
    """py2bit reads T past the end of the file."""
    content = write_2bit(tmp_path / "whole.2bit", {"chr1": "ACGNNNaaTT", "chr2": "ACGTA"}).read_bytes()
    path = tmp_path / "genome.2bit"
    for size in range(4, len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match="the 2bit file is truncated or damaged"):
            Genome(path)


def test_2bit_without_usable_sequences(tmp_path: Path) -> None:
    path = write_2bit(tmp_path / "genome.2bit", {})
    with pytest.raises(UserError, match="holds no sequence"):
        Genome(path)
    path.write_bytes(write_2bit(path, {"a": "ACGT", "b": "ACGT"}).read_bytes().replace(b"\x01b", b"\x01a"))
    with pytest.raises(UserError, match="gives two sequences one name"):
        Genome(path)


LONG = {
    "chr1": "NNN" + toys.random_bases(3000, np.random.default_rng(1)) + "NNNNN",
    "chr2": toys.random_bases(70, np.random.default_rng(2)) + "NRYN",
}


@pytest.fixture(scope="module")
def long_fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.write_fasta(tmp_path_factory.mktemp("long") / "genome.fa", LONG)


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small genomes be read in several stretches."""
    monkeypatch.setattr(module, "_STRETCH", 400)
    monkeypatch.setattr(module, "_GAP", 50)


def naive(chrom: str, start: int, end: int) -> str:
    """The letters of a window, N where there is no base."""
    letters = LONG[chrom].replace("R", "N").replace("Y", "N")
    return "".join(letters[i] if 0 <= i < len(letters) else "N" for i in range(start, end))


CHROMS = st.sampled_from(["chr1", "chr2"])


@given(st.lists(st.tuples(CHROMS, st.integers(-700, 3700))), st.sampled_from([1, 30, 399, 500]))
def test_windows_are_those_that_are_fetched_one_by_one(
    long_fasta: Path, windows: list[tuple[str, int]], width: int
) -> None:
    with Genome(long_fasta) as genome:
        starts = np.array([start for _, start in windows], dtype=np.int64)
        found = genome.fetch_all([chrom for chrom, _ in windows], starts, width)
        assert (found.shape, found.dtype) == ((len(windows), width), np.uint8)
        assert [decode(row) for row in found] == [naive(chrom, start, start + width) for chrom, start in windows]
        counted = sum(
            start <= place < start + width for chrom, start in windows for place in (71, 72) if chrom[3] == "2"
        )
        assert genome.ambiguous == counted  # only inside windows, once for each


@given(CHROMS, st.lists(st.tuples(st.integers(-700, 3700), st.integers(0, 900))))
def test_n_is_counted_in_windows_of_any_width(long_fasta: Path, chrom: str, windows: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in windows], dtype=np.int64)
    ends = starts + np.array([width for _, width in windows], dtype=np.int64)
    with Genome(long_fasta) as genome:
        found = genome.count_n(chrom, starts, ends)
        assert genome.ambiguous == 0
    assert found.tolist() == [naive(chrom, start, start + width).count("N") for start, width in windows]


class Reads:
    """What is read of a genome: (chromosome, start, end)."""

    def __init__(self, genome: Genome) -> None:
        self._read = genome._letters
        self.found: list[tuple[str, int, int]] = []
        genome._letters = self

    def __call__(self, chrom: str, start: int, end: int) -> str:
        self.found.append((chrom, start, end))
        return self._read(chrom, start, end)


def test_near_windows_are_read_together_and_what_lies_between_far_ones_is_not(long_fasta: Path) -> None:
    with Genome(long_fasta) as genome:
        reads = Reads(genome)
        genome.read_windows("chr1", np.array([2000, 10, 60, 2061, 300, 700]), 10)
        assert reads.found == [
            ("chr1", 10, 70),
            ("chr1", 300, 310),
            ("chr1", 700, 710),
            ("chr1", 2000, 2010),
            ("chr1", 2061, 2071),
        ]


def test_no_stretch_is_longer_than_its_limit(long_fasta: Path) -> None:
    with Genome(long_fasta) as genome:
        reads = Reads(genome)
        genome.read_windows("chr1", np.arange(0, 2900), 100)
        genome.count_n("chr1", np.array([10, 1500]), np.array([1100, 1501]))
        assert max(end - start for _, start, end in reads.found) == 400
        assert [start for _, start, _ in reads.found[-4:]] == [0, 400, 800, 1200]


def test_a_bad_letter_counts_only_inside_windows(tmp_path: Path) -> None:
    path = toys.write_fasta(tmp_path / "genome.fa", {"chr1": "ACGTACGTEACGT"}, line=5)
    with Genome(path) as genome:
        assert [decode(row) for row in genome.read_windows("chr1", np.array([9, 0]), 4)] == ["ACGT", "ACGT"]
        with pytest.raises(UserError, match=r"genome\.fa, chr1:9: 'E' is no nucleotide"):
            genome.read_windows("chr1", np.array([0, 5]), 4)
        with pytest.raises(UserError, match=r"genome\.fa, chr1:9: 'E' is no nucleotide"):
            genome.fetch("chr1", -3, 12)


def test_a_pickled_genome_uses_the_same_index(fasta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Genome(fasta) as genome:
        pickled = pickle.dumps(genome)
        monkeypatch.setattr(pysam, "faidx", None)
        with pickle.loads(pickled) as copy, Genome(fasta, genome.index) as again:
            assert copy.index == again.index == genome.index
            assert decode(copy.fetch("chr1", 0, 150)) == decode(again.fetch("chr1", 0, 150)) == UPPER["chr1"]


def test_a_genome_pickled_for_another_machine_makes_its_own_index(fasta: Path) -> None:
    with Genome(fasta) as genome:
        pickled = pickle.dumps(genome)
    with pickle.loads(pickled) as copy:
        assert decode(copy.fetch("chr1", 5, 9)) == UPPER["chr1"][5:9]


def written(folder: Path, sequences: Mapping[str, str], kind: str, line: int = 60) -> Path:
    """Write a FASTA of a kind: plain, crlf or bgzip; its headers have a description."""
    described = {f"{name} of a toy": letters for name, letters in sequences.items()}
    path = toys.write_fasta(folder / "genome.fa", described, line)
    if kind == "crlf":
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    if kind == "bgzip":
        pysam.tabix_compress(str(path), f"{path}.gz", force=True)
        path = Path(f"{path}.gz")
    return path


OTHERS = {
    "a record before": {"chr0": "G" * 30, **SEQUENCES},
    "a record between": {"chr1": SEQUENCES["chr1"], "chr1b": "ACG", "chr2": SEQUENCES["chr2"], "chrM": "A"},
    "a record after": {**SEQUENCES, "chrX": "ACGT"},
    "one less": {"chr1": SEQUENCES["chr1"], "chr2": SEQUENCES["chr2"]},
    "longer": {**SEQUENCES, "chrM": "AC"},
    "shorter": {**SEQUENCES, "chr1": SEQUENCES["chr1"][:-1]},
    "another name": {"chr1": SEQUENCES["chr1"], "chr3": SEQUENCES["chr2"], "chrM": "A"},
    "another order": dict(reversed(SEQUENCES.items())),
}


@pytest.mark.parametrize("kind", ["plain", "crlf", "bgzip"])
@pytest.mark.parametrize("other", OTHERS)
def test_an_index_of_another_file_is_not_used_whatever_its_time(tmp_path: Path, kind: str, other: str) -> None:
    pysam.faidx(str(written(tmp_path, OTHERS[other], kind)))
    stale = {path: path.read_bytes() for path in tmp_path.glob("*i")}
    path = written(tmp_path, SEQUENCES, kind)
    for index, content in stale.items():
        index.write_bytes(content)
        os.utime(index, (2**31, 2**31))
    with Genome(path) as genome:
        assert not set(genome.index) & set(stale)
        assert list(genome.lengths) == list(SEQUENCES)
        for name, letters in UPPER.items():
            assert decode(genome.fetch(name, 0, len(letters))) == letters
    assert {path: path.read_bytes() for path in tmp_path.glob("*i")} == stale


@pytest.mark.parametrize("kind", ["plain", "crlf", "bgzip"])
@pytest.mark.parametrize("line", [1, 7, 50, 1000])
def test_an_index_that_fits_is_used(tmp_path: Path, kind: str, line: int) -> None:
    """Also if its rows are in another order, and lines of records lie across the blocks of bgzip."""
    generator = np.random.default_rng(0)
    sequences = {f"c{i}": toys.random_bases(length, generator) for i, length in enumerate([1, 7, 50, 90_000, 140, 350])}
    path = written(tmp_path, sequences, kind, line)
    pysam.faidx(str(path))
    with Genome(path) as genome:
        assert set(genome.index) == set(tmp_path.glob("*i"))
    index = Path(f"{path}.fai")
    index.write_text("".join(reversed(index.read_text().splitlines(keepends=True))))
    with Genome(path) as genome:
        assert index in genome.index
        assert decode(genome.fetch("c3", 70_000, 70_100)) == sequences["c3"][70_000:70_100]


@pytest.mark.parametrize("kind", ["plain", "crlf", "bgzip"])
@pytest.mark.parametrize("index", ["none", "of htslib", "with both"])
@pytest.mark.parametrize("last", ["chr1", "chr2"])
def test_two_sequences_of_one_name_are_refused(
    tmp_path: Path, kind: str, index: str, last: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The second was once left out with a line on stderr, and the rest read."""
    other = written(tmp_path, {**SEQUENCES, "chrX again": "GGA"}, kind)
    pysam.faidx(str(other))
    both = Path(f"{other}.fai").read_text().replace("chrX", last)
    path = written(tmp_path, {**SEQUENCES, f"{last} again": "GGA"}, kind)
    pysam.faidx(str(path))
    if index == "with both":
        Path(f"{path}.fai").write_text(both)
    if index == "none":
        Path(f"{path}.fai").unlink()
    with pytest.raises(UserError, match=f"it gives two sequences one name: {last}. Rename"):
        Genome(path)


@pytest.mark.parametrize("content", ["", "junk", "chr1\t150\n", "chr1\tx\t6\t60\t61\n", "chr1\t150\t-6\t60\t61\n"])
@pytest.mark.parametrize("suffix", [".fai", ".gzi"])
def test_damaged_indices_are_not_used(tmp_path: Path, content: str, suffix: str) -> None:
    path = written(tmp_path, SEQUENCES, "bgzip")
    pysam.faidx(str(path))
    Path(f"{path}{suffix}").write_text(content)
    with Genome(path) as genome:
        assert decode(genome.fetch("chr1", 0, 150)) == UPPER["chr1"]
        assert not set(genome.index) & set(tmp_path.iterdir())


def test_of_very_many_records_some_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = {f"scaffold_{i}": "ACGT" for i in range(300)}
    path = written(tmp_path, sequences, "plain")
    pysam.faidx(str(path))
    monkeypatch.setattr(faidx, "_MOST_CHECKED", 5)
    places: list[str] = []
    is_header = faidx._is_header
    monkeypatch.setattr(faidx, "_is_header", lambda name, *rest: [places.append(name), is_header(name, *rest)][1])
    with Genome(path) as genome:
        assert genome.index == (Path(f"{path}.fai"),)
    assert places == ["scaffold_0", "scaffold_74", "scaffold_149", "scaffold_224", "scaffold_299"]


def test_many_names_are_matched_in_time() -> None:
    names = [f"scaffold_{i}" for i in range(200_000)]
    began = time.perf_counter()
    assert len(match_chromosomes(names, dict.fromkeys(names, 1))) == len(names)
    assert time.perf_counter() - began < 10  # it took hours when it looked through all for each


def test_plain_gzip_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "genome.fa.gz"
    path.write_bytes(gzip.compress(b">chr1\nACGT\n"))
    with pytest.raises(UserError) as error:
        Genome(path)
    assert f"gunzip -c {path} | bgzip > genome.fa.bgz" in str(error.value)


def test_a_letter_that_is_no_nucleotide_is_placed(tmp_path: Path) -> None:
    path = toys.write_fasta(tmp_path / "genome.fa", {"chr1": "ACGTACGTEACGT"}, line=5)
    with Genome(path) as genome:
        assert decode(genome.fetch("chr1", 0, 8)) == "ACGTACGT"
        with pytest.raises(UserError, match=r"genome\.fa, chr1:9: 'E' is no nucleotide"):
            genome.fetch("chr1", 4, 12)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "the file is empty"),
        (b"chr1\t0\t100\n", "line 1: a FASTA starts with '>'"),
        (b">chr1\n>chr2\n", "cannot be indexed"),
        (b">chr1\nACGT\nACGTACGT\nAC\n", "cannot be indexed"),
    ],
)
def test_malformed_files(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "genome.fa"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        Genome(path)
    assert str(path) in str(error.value)
    assert fault in str(error.value)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.fa: the genome cannot be read \(No such file"):
        Genome(tmp_path / "nothing.fa")


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Is a directory"):
        Genome(tmp_path)


@pytest.mark.parametrize(
    ("names", "genome", "mapped"),
    [
        (["chr1", "chr2"], ["chr1", "chr2", "chr3"], {"chr1": "chr1", "chr2": "chr2"}),
        (["1", "X"], ["chr1", "chrX"], {"1": "chr1", "X": "chrX"}),
        (["chr1", "chrX"], ["1", "X"], {"chr1": "1", "chrX": "X"}),
        (["MT"], ["chrM"], {"MT": "chrM"}),
        (["chrM"], ["MT"], {"chrM": "MT"}),
        (["chr1", "chr9"], ["chr1"], {"chr1": "chr1"}),
        (["chr1", "1"], ["chr1"], {}),  # mixed naming
        (["chr1", "1"], ["chr1", "1"], {"chr1": "chr1", "1": "1"}),
        (["chr1", "1", "chr2"], ["chr1", "chr2"], {"chr2": "chr2"}),
        (["chromosome1"], ["chr1"], {}),
        ([], ["chr1"], {}),
    ],
)
def test_match_chromosomes(names: list[str], genome: list[str], mapped: dict[str, str]) -> None:
    assert match_chromosomes(names, dict.fromkeys(genome, 10)) == mapped


def test_names_that_are_spelled_in_two_ways_are_known_in_either() -> None:
    assert spelled_chromosomes(["chr8", "8", "1", "M", "x"], ["chr8", "MT"]) == {"chr8": "chr8", "8": "chr8", "M": "MT"}


def test_other_sequences_of_a_known_chromosome_are_its() -> None:
    names = ["8", "chr8_KI270821v1_alt", "chr9", "chr9_x_alt", "chrUn_y", "8"]
    assert chromosomes_known(names, ["chr8"]) == {"8": "chr8", "chr8_KI270821v1_alt": "chr8"}
    assert chromosomes_known(names, ["8", "chr9_x_alt"]) == {
        "8": "8",
        "chr8_KI270821v1_alt": "8",
        "chr9_x_alt": "chr9_x_alt",
    }
