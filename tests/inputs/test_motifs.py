import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import toys
from Bio import motifs as biopython_motifs
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyjaspar import jaspardb

from genebert.errors import UserError
from genebert.inputs.motifs import read_motifs, write_meme
from genebert.schema import Motif


def read(folder: Path, text: str) -> list[Motif]:
    path = folder / "motifs.txt"
    path.write_text(text)
    return read_motifs(str(path))


def columns_of(motif: Motif) -> list[list[float]]:
    return motif.probabilities.tolist()


def biopython_columns(text: str, form: str) -> dict[str, NDArray[np.float64]]:
    """Probabilities by matrix, as Biopython reads them."""
    found = {}
    for motif in biopython_motifs.parse(io.StringIO(text), form):
        counts = np.array([motif.counts[base] for base in "ACGT"]).T
        found[motif.get("AC", motif.get("ID")) if form == "transfac" else getattr(motif, "matrix_id", motif.name)] = (
            counts / counts.sum(axis=1, keepdims=True)
        )
    return found


# MEME -------------------------------------------------------------------------------------------------------

MEME = """MEME version 4

ALPHABET= ACGT

strands: + -

Background letter frequencies
A 0.25 C 0.25 G 0.25 T 0.25

MOTIF MA0001.1 AGL3
letter-probability matrix: alength= 4 w= 2 nsites= 1 E= 0
 0.900000  0.050000  0.030000  0.020000
 0.000000  1.000000  0.000000  0.000000
URL http://jaspar.genereg.net/matrix/MA0001.1

MOTIF CTCF.H12CORE.0.P.B
letter-probability matrix: alength= 4 w= 1
0.25 0.25 0.25 0.25

MOTIF plain

letter-probability matrix: alength= 4 w= 1 nsites= 20 E= 0

0 0 1 0
"""


def test_meme(tmp_path: Path) -> None:
    motifs = read(tmp_path, MEME)
    assert [(m.id, m.name) for m in motifs] == [
        ("MA0001.1", "AGL3"),
        ("CTCF.H12CORE.0.P.B", "CTCF"),
        ("plain", "plain"),
    ]
    # Biopython's reader multiplies by nsites and rounds: with nsites= 1 this row became 1 0 0 0.
    assert columns_of(motifs[0]) == [[0.9, 0.05, 0.03, 0.02], [0, 1, 0, 0]]
    assert columns_of(motifs[2]) == [[0, 0, 1, 0]]


def test_meme_of_biopython_agrees(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = toys.write_meme(tmp_path / "m.meme", [toys.random_motif(f"m{i}", 5 + i, generator) for i in range(3)])
    with path.open() as handle:
        expected = biopython_motifs.parse(handle, "minimal")
    for motif, other in zip(read_motifs(str(path)), expected, strict=True):
        assert motif.id == other.name
        assert motif.probabilities == pytest.approx(np.array([other.pwm[b] for b in "ACGT"]).T, abs=0.06)


def test_the_report_of_the_program_meme(tmp_path: Path) -> None:
    report = f"""{"*" * 80}
MEME - Motif discovery tool
{"*" * 80}
MEME version 5.5.5 (Release date: Thu Sep 14 08:48:04 2023 +1000)

{"*" * 80}
MOTIF ACW MEME-1\twidth =   3  sites =  18  llr = 193  E-value = 2.1e-012
{"*" * 80}
{"-" * 80}
\tMotif ACW MEME-1 Description
{"-" * 80}
Simplified        A  ::5
{"-" * 80}
\tMotif ACW MEME-1 position-specific probability matrix
{"-" * 80}
letter-probability matrix: alength= 4 w= 3 nsites= 18 E= 2.1e-012
 1.000000  0.000000  0.000000  0.000000
 0.000000  1.000000  0.000000  0.000000
 0.500000  0.000000  0.000000  0.500000
{"-" * 80}
\tMotif ACW MEME-1 regular expression
{"-" * 80}
AC[AT]
"""
    (motif,) = read(tmp_path, report)
    assert (motif.id, motif.name) == ("ACW", "MEME-1")
    assert columns_of(motif) == [[1, 0, 0, 0], [0, 1, 0, 0], [0.5, 0, 0, 0.5]]


# JASPAR -----------------------------------------------------------------------------------------------------

JASPAR = """>MA0004.1\tArnt
A  [ 4 19  0 ]
C  [16  0 20 ]
G  [ 0  1  0 ]
T  [ 0  0  0 ]
>MA0006.1 Ahr::Arnt
A [ 3 0 ]
C [ 0 0 ]
G [ 1 2 ]
T [ 0 2 ]
"""
RAW = """>MA0004.1\tArnt
4\t19\t0
16\t0\t20
0\t1\t0
0\t0\t0

>MA0006.1\tAhr::Arnt
   3.0    0.0
   0.0    0.0
   1.0    2.0
   0.0    2.0
"""


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("text", [JASPAR, RAW, JASPAR.replace("[", "").replace("]", ""), RAW.replace("\n", "\r\n")])
def test_jaspar_file(tmp_path: Path, text: str, compressed: bool) -> None:
    path = tmp_path / "motifs.txt"
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    first, second = read_motifs(str(path))
    assert (first.id, first.name, second.id, second.name) == ("MA0004.1", "Arnt", "MA0006.1", "Ahr::Arnt")
    assert columns_of(first) == [[0.2, 0.8, 0, 0], [0.95, 0, 0.05, 0], [0, 1, 0, 0]]
    assert columns_of(second) == [[0.75, 0, 0.25, 0], [0, 0, 0.5, 0.5]]


def test_rows_with_letters_come_in_any_order(tmp_path: Path) -> None:
    (motif,) = read(tmp_path, ">m\nT [ 1 0 ]\nG [ 0 3 ]\nA [ 3 0 ]\nC [ 0 1 ]\n")
    assert columns_of(motif) == [[0.75, 0, 0, 0.25], [0, 0.25, 0.75, 0]]


def test_jaspar_core_comes_without_download() -> None:
    motifs = read_motifs("jaspar:fungi")
    assert len(motifs) > 100
    assert [m.id for m in motifs] == sorted({m.id for m in motifs})
    assert all(m.probabilities.sum(axis=1) == pytest.approx(1) for m in motifs)
    reference = jaspardb(release="JASPAR2026").fetch_motif_by_id(motifs[0].id)
    counts = np.array([reference.counts[base] for base in "ACGT"]).T
    assert motifs[0].probabilities == pytest.approx(counts / counts.sum(1, keepdims=True))
    assert motifs[0].name == reference.name


def test_unknown_jaspar_group() -> None:
    with pytest.raises(UserError, match=r"jaspar:mammals: there is no such group\. Choose one of vertebrates"):
        read_motifs("jaspar:mammals")


# HOCOMOCO ---------------------------------------------------------------------------------------------------

PCM = """>AHR_HUMAN.H11MO.0.B
40.5\t18.0\t56.5\t39.0
11.0\t12.0\t35.0\t96.0
22.0\t44.0\t21.0\t67.0
3.0\t1.0\t146.0\t4.0
1.0\t150.0\t1.0\t2.0
>CTCF.H12CORE.0.P.B
0.0\t0.0\t500.0\t0.0
"""


@pytest.mark.parametrize("digits", [None, 3, 10])
def test_hocomoco_pcm_and_ppm(tmp_path: Path, digits: int | None) -> None:
    """`digits` None is the pcm; else the ppm, written with so many digits."""
    rows = [line.split("\t") for line in PCM.splitlines()]
    counts = [[float(word) for word in row] for row in rows if len(row) == 4]
    expected = [[value / sum(row) for value in row] for row in counts]
    text = PCM
    if digits is not None:
        written = iter(["\t".join(f"{value:.{digits}f}" for value in row) for row in expected])
        text = "".join(f"{line if line.startswith('>') else next(written)}\n" for line in PCM.splitlines())
    first, second = read(tmp_path, text)
    assert (first.id, first.name) == ("AHR_HUMAN.H11MO.0.B", "AHR")
    assert (second.id, second.name) == ("CTCF.H12CORE.0.P.B", "CTCF")
    assert columns_of(first) == [
        pytest.approx(row, abs=1e-12 if digits is None else 10**-digits) for row in expected[:5]
    ]
    assert columns_of(second) == [[0, 0, 1, 0]]


def test_hocomoco_pwm_is_refused(tmp_path: Path) -> None:
    pwm = ">AHR_HUMAN.H11MO.0.B\n0.05\t-0.74\t0.38\t0.01\n-1.2\t-1.1\t-0.1\t0.9\n>CTCF\n-4.3\t-4.3\t1.3\t-4.3\n"
    with pytest.raises(UserError) as error:
        read(tmp_path, pwm)
    assert "line 2, motif AHR_HUMAN.H11MO.0.B: -0.74 is no count or probability, but may be a log-odds" in str(
        error.value
    )
    assert "line 5, motif CTCF" in str(error.value)
    assert "of HOCOMOCO, download pcm, pfm (ppm) or MEME instead of pwm" in str(error.value)


SQUARE = np.array([[9, 1, 0, 0], [0, 10, 0, 0], [2, 2, 2, 4], [0, 0, 10, 0]])
"""Counts of four positions (rows) of A C G T; positions have the sum 10, bases have 11, 13, 12 and 4."""


def matrix_text(name: str, rows: NDArray[np.int64]) -> str:
    return f">{name}\n" + "".join("\t".join(map(str, row)) + "\n" for row in rows.tolist())


@pytest.mark.parametrize("by_base", [False, True])
@pytest.mark.parametrize("others", [False, True])
def test_a_square_matrix_is_told_by_its_sums_or_by_the_others(tmp_path: Path, by_base: bool, others: bool) -> None:
    wide = np.array([[5, 5, 0, 0], [0, 5, 5, 0], [1, 2, 3, 4], [10, 0, 0, 0], [0, 0, 0, 10]])
    text = matrix_text("m", SQUARE.T if by_base else SQUARE)
    if others:
        text += matrix_text("wide", wide.T if by_base else wide)
    assert columns_of(read(tmp_path, text)[0]) == (SQUARE / 10).tolist()


def test_a_square_matrix_whose_sums_tell_nothing(tmp_path: Path) -> None:
    both = np.array([[7, 1, 1, 1], [1, 7, 1, 1], [1, 1, 5, 3], [1, 1, 3, 5]])  # rows and columns have the sum 10
    with pytest.raises(UserError, match="line 1, motif m: it has 4 x 4 numbers, and nothing tells whether"):
        read(tmp_path, matrix_text("m", both))
    uneven = np.array([[7, 1, 1, 1], [1, 9, 1, 1], [1, 1, 4, 3], [1, 1, 3, 5]])
    longer = np.array([[5, 5, 0, 0]] * 3)
    motifs = read(tmp_path, matrix_text("m", uneven) + matrix_text("longer", longer))
    assert columns_of(motifs[0]) == (uneven / uneven.sum(axis=1, keepdims=True)).tolist()
    motifs = read(tmp_path, matrix_text("m", uneven) + matrix_text("longer", longer.T))
    assert columns_of(motifs[0]) == (uneven.T / uneven.T.sum(axis=1, keepdims=True)).tolist()


# TRANSFAC ---------------------------------------------------------------------------------------------------

TRANSFAC = """VV  TRANSFAC MATRIX TABLE, Release 9.1
XX
//
AC  M00001
XX
ID  V$MYOD_01
XX
DT  19.10.1992 (created); ewi.
NA  MyoD
XX
BF  T00526; MyoD; Species: mouse, Mus musculus.
P0      A      C      G      T
01      1      2      2      0      S
02      2      1      2      0      R
03      3      0      1      1      A
04      0      5      0      0      C
XX
BA  5 functional elements in 3 genes
XX
RN  [1]; RE0000231.
RX  PUBMED: 1846704.
XX
//
AC MA0004.1
XX
ID Arnt
XX
DE MA0004.1 Arnt ; From JASPAR
PO\tA\tC\tG\tT
01\t4.0\t16.0\t0.0\t0.0
02\t19.0\t0.0\t1.0\t0.0
XX
CC tax_group:vertebrates
XX
//
ID  AHR.H12CORE.0.P.B
BF  Homo sapiens
P0  A  C  G  T
1  0.5  0.5  0  0
2  1  0  0  0
XX
//
"""


def test_transfac(tmp_path: Path) -> None:
    motifs = read(tmp_path, TRANSFAC)
    assert [(m.id, m.name) for m in motifs] == [
        ("M00001", "MyoD"),
        ("MA0004.1", "Arnt"),
        ("AHR.H12CORE.0.P.B", "AHR"),
    ]
    assert columns_of(motifs[0]) == [[0.2, 0.4, 0.4, 0], [0.4, 0.2, 0.4, 0], [0.6, 0, 0.2, 0.2], [0, 1, 0, 0]]
    assert columns_of(motifs[1]) == [[0.2, 0.8, 0, 0], [0.95, 0, 0.05, 0]]
    assert columns_of(motifs[2]) == [[0.5, 0.5, 0, 0], [1, 0, 0, 0]]


def test_a_record_without_matrix_is_no_motif(tmp_path: Path) -> None:
    # Biopython's reader gave such a record the matrix of the one before it.
    text = "ID  a\nP0  A  C  G  T\n01  1  0  0  0\nXX\n//\nID  b\nXX\n//\n"
    assert [m.id for m in read(tmp_path, text)] == ["a"]


# All formats alike ------------------------------------------------------------------------------------------


def as_jaspar(name: str, counts: NDArray[np.int64]) -> str:
    rows = [f"{base} [ {' '.join(map(str, row))} ]\n" for base, row in zip("ACGT", counts.T.tolist(), strict=True)]
    return f">{name} {name}\n" + "".join(rows)


def as_transfac(name: str, counts: NDArray[np.int64]) -> str:
    rows = [f"{i:02d}  {'  '.join(map(str, row))}  N\n" for i, row in enumerate(counts.tolist(), 1)]
    return f"ID  {name}\nP0  A  C  G  T\n{''.join(rows)}XX\n//\n"


@settings(max_examples=25, deadline=None)
@given(widths=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_formats_agree_with_each_other_and_with_biopython(
    tmp_path_factory: pytest.TempPathFactory, widths: list[int], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    counts = {f"m{i}": generator.multinomial(50, [0.4, 0.3, 0.2, 0.1], size=width) for i, width in enumerate(widths)}
    texts = {
        "jaspar": "".join(as_jaspar(*item) for item in counts.items()),
        "transfac": "".join(as_transfac(*item) for item in counts.items()),
        "pfm-four-columns": "".join(matrix_text(*item) for item in counts.items()),  # HOCOMOCO
        "pfm-four-rows": "".join(matrix_text(name, values.T) for name, values in counts.items()),  # raw JASPAR
    }
    folder = tmp_path_factory.mktemp("formats")
    for form, text in texts.items():
        motifs = read(folder, text)
        others = biopython_columns(text, form)
        assert [m.id for m in motifs] == list(counts)
        for motif in motifs:
            assert motif.probabilities.tolist() == (counts[motif.id] / 50).tolist()
            assert motif.probabilities == pytest.approx(others[motif.id])


# What is refused --------------------------------------------------------------------------------------------


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (
            changed(MEME, "0.900000", "0.500000"),
            ["line 10, motif MA0001.1, position 1", "0.5 0.05 0.03 0.02 have the sum 0.6", "that sum to 1"],
        ),
        (changed(MEME, "0.900000", "2"), ["motif MA0001.1, position 1", "the sum 2.1"]),  # no counts in MEME
        (changed(MEME, "0.050000", "-0.050000"), ["line 12, motif MA0001.1", "-0.050000 is no count or probability"]),
        (changed(MEME, "0.900000", "nan"), ["line 12, motif MA0001.1", "nan is no count or probability"]),
        (changed(MEME, "0.900000", "high"), ["line 12", "'high 0.050000 0.030000 0.020000' is no row of numbers"]),
        (changed(MEME, " 0.900000", ""), ["line 12", "it has 3 numbers, where 4 are expected", "A C G T"]),
        (changed(MEME, "0 0 1 0", "0 0 1 0 0"), ["line 24", "it has 5 numbers, where 4 are expected"]),
        (changed(MEME, "MOTIF plain", "MOTIF"), ["line 20", "MOTIF has no name"]),
        (changed(MEME, "MOTIF plain", "MOTIF MA0001.1"), ["line 20", "motif MA0001.1", "first in line 10"]),
        (changed(MEME, "0 0 1 0\n", ""), ["line 20", "'MOTIF plain' has no letter-probability matrix"]),
        (changed(MEME, "w= 2", "w= 3"), ["line 10", "2 rows", "w= 3", "download the file again"]),  # cut short
        ("MEME version 4\n", ["no motif was found"]),
        ("", ["the file is empty"]),
        ("chr1\t10\t20\n", ["no MEME, JASPAR, HOCOMOCO or TRANSFAC file", "'chr1\\t10\\t20'", "'P0 A C G T'"]),
        ("4 19 0\n16 0 20\n0 1 0\n0 0 0\n", ["no MEME, JASPAR", "a line '>ID NAME' before every matrix"]),
        ("# only\n# remarks\n", ["no MEME, JASPAR", "'# only'"]),
        (changed(JASPAR, "T  [ 0  0  0 ]\n", ""), ["line 1, motif MA0004.1", "its rows begin with A, C, G", "each of"]),
        (changed(JASPAR, "T [ 0 2 ]\n", ""), ["line 6, motif MA0006.1", "its rows begin with A, C, G"]),  # cut short
        (changed(JASPAR, "G  [", "A  ["), ["line 1, motif MA0004.1", "its rows begin with A, C, A, T"]),
        (changed(JASPAR, "19", "x"), ["line 2, motif MA0004.1", "'4 x 0' is no row of numbers"]),
        (changed(JASPAR, "[ 3 0 ]", "[ 3 0 4 ]"), ["line 7, motif MA0006.1", "it has 3 numbers, where 2 are expected"]),
        (changed(JASPAR, "[ 3 0 ]", "[ 3 -1 ]"), ["line 7, motif MA0006.1", "-1 is no count or probability"]),
        (
            changed(changed(JASPAR, "16", " 0"), "[ 4 ", "[ 0 "),
            ["line 1, motif MA0004.1, position 1", "0 0 0 0 have the sum 0"],
        ),
        (changed(JASPAR, "MA0006.1", "MA0004.1"), ["line 6", "motif MA0004.1", "occurs more than once"]),
        (changed(RAW, "0\t0\t0\n", ""), ["line 1, motif MA0004.1", "it has 3 rows of 3 numbers"]),
        (changed(PCM, "11.0\t12.0\t", "11.0\t"), ["line 3, motif AHR_HUMAN.H11MO.0.B", "3 numbers, where 4"]),
        (changed(PCM, "11.0\t12.0\t", "0.11\t0.12\t").replace("40.5", "inf"), ["line 2", "inf is no count"]),
        (changed(PCM, ">CTCF.H12CORE.0.P.B", ">"), ["line 7", "'>' has no name"]),
        (PCM + ">empty\n", ["line 9", "'>empty' has no matrix"]),
        (">ppm\n0.5 0.5 0 0\n0.5 0.1 0 0\n", ["line 1, motif ppm, position 2", "the sum 0.6"]),
        (">chr1\nACGTNACGTACGT\nACGT\n", ["line 2, motif chr1", "'ACGTNACGTACGT' is no row of numbers"]),  # FASTA
        (changed(TRANSFAC, "NA  MyoD", "NA").rstrip("/\n"), ["line 38", "the end of the record (//) is missing"]),
        (changed(TRANSFAC, "03      3", "03      x"), ["line 15, motif M00001", "'x 0 1 1' is no row of numbers"]),
        (changed(TRANSFAC, "03      3      0", "03      3"), ["line 15, motif M00001", "'3 1 1 A' is no row"]),
        (changed(TRANSFAC, "03      3      0      1      1      A\n", ""), ["line 15", "row 04 follows row 02"]),
        (changed(TRANSFAC, "PO\tA\tC\tG\tT", "PO\tA\tC\tT\tG"), ["line 29", "does not name A C G T"]),
        (changed(TRANSFAC, "ID  AHR.H12CORE.0.P.B\n", ""), ["line 37", "the matrix has no name"]),
        ("ID  m\nP0  A  C  G  T\nXX\n//\n", ["line 2", "the matrix has no rows"]),
    ],
)
def test_malformed_collections(tmp_path: Path, text: str, fragments: list[str]) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    found = str(error.value)
    assert [fragment for fragment in [str(tmp_path / "motifs.txt"), *fragments] if fragment not in found] == []


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    text = changed(changed(JASPAR, "19", "x"), "[ 3 0 ]", "[ 3 y ]")
    with pytest.raises(UserError, match=r"(?s)line 2, .*line 7, "):
        read(tmp_path, text)


def test_an_archive_is_no_collection(tmp_path: Path) -> None:
    member = tmp_path / "CTCF.pcm"
    member.write_text(PCM)
    with tarfile.open(tmp_path / "pcm.tar.gz", "w:gz") as archive:
        archive.add(member, "CTCF.pcm")
    with pytest.raises(UserError, match=r"a binary file or an archive\. Unpack archives, and join the motifs"):
        read_motifs(str(tmp_path / "pcm.tar.gz"))


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\xff\xfe", gzip.compress(JASPAR.encode(), mtime=0)[:40]])
def test_files_that_are_no_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"m\.txt: "):
        read_motifs(str(tmp_path / "m.txt"))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.meme: it cannot be read"):
        read_motifs(str(tmp_path / "none.meme"))


def test_ids_with_spaces_stay_apart_in_meme(tmp_path: Path) -> None:
    motifs = read(tmp_path, "".join(f"ID  motif {i}\nP0 A C G T\n01 {i} 1 1 1\n02 1 1 {i} 1\n//\n" for i in (2, 3)))
    assert [motif.id for motif in motifs] == ["motif 2", "motif 3"]
    write_meme(tmp_path / "some.meme", motifs)
    assert [motif.id for motif in read_motifs(str(tmp_path / "some.meme"))] == ["motif_2", "motif_3"]


def test_what_is_written_as_meme_is_read_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    written = [toys.random_motif(f"m{i}", 5 + i, generator) for i in range(3)]
    write_meme(tmp_path / "some.meme", written, gc=0.42)
    found = read_motifs(str(tmp_path / "some.meme"))
    assert [(motif.id, motif.name) for motif in found] == [("m0", "M0"), ("m1", "M1"), ("m2", "M2")]
    for ours, theirs in zip(written, found, strict=True):
        assert np.allclose(ours.probabilities, theirs.probabilities, atol=1e-7)
    text = (tmp_path / "some.meme").read_text()
    assert "A 0.2900 C 0.2100 G 0.2100 T 0.2900" in text
    assert [motif.name for motif in biopython_motifs.parse(io.StringIO(text), "minimal")] == ["m0", "m1", "m2"]
