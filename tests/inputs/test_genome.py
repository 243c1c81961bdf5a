import gzip
from pathlib import Path

import numpy as np
import pysam
import pytest
import toys

from genebert.errors import UserError
from genebert.inputs.genome import Genome, match_chromosomes
from genebert.schema import decode

SEQUENCES = {"chr1": toys.random_bases(150, np.random.default_rng(0)), "chr2": "acgtNNRYacg", "chrM": "A"}
UPPER = {name: letters.upper().replace("R", "N").replace("Y", "N") for name, letters in SEQUENCES.items()}


@pytest.fixture(params=["plain", "bgzip", "crlf", "indexed"])
def fasta(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
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
        assert genome.ambiguous == 2
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
