import gzip
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import toys
from Bio import motifs as biopython_motifs
from hypothesis import given, settings
from hypothesis import strategies as st
from pyjaspar import jaspardb

from genebert.errors import UserError
from genebert.inputs.motifs import Scanner, evidence_table, log_odds, order_by_similarity, read_motifs
from genebert.schema import Motif, decode, encode

PSEUDOCOUNT = 0.01


def site_scores(motif: Motif) -> list[dict[str, int]]:
    """Rounded log2 odds by position and base, in 1/100 bit, from their definition."""
    return [
        {
            base: round(100 * np.log2((p + PSEUDOCOUNT / 4) / (1 + PSEUDOCOUNT) / 0.25))
            for base, p in zip("ACGT", row, strict=True)
        }
        for row in motif.probabilities / motif.probabilities.sum(axis=1, keepdims=True)
    ]


def exhaustive_evidence(scores: list[dict[str, int]]) -> dict[int, int]:
    """Score -> evidence, by enumeration of all sites of the motif's width."""
    found = [
        sum(row[base] for row, base in zip(scores, site, strict=True)) for site in product("ACGT", repeat=len(scores))
    ]
    values, counts = np.unique(found, return_counts=True)
    tail = np.cumsum(counts[::-1])[::-1] / len(found)
    return {int(s): min(255, round(float(-16 * np.log10(p)))) for s, p in zip(values, tail, strict=True)}


def naive_scan(motif: Motif, letters: str) -> int:
    """Evidence of a motif in one sequence, by looking at every site of both strands."""
    scores, table = site_scores(motif), exhaustive_evidence(site_scores(motif))
    hits = [0]
    for strand in (letters, toys.reverse_complement(letters)):
        for start in range(len(letters) - motif.width + 1):
            site = strand[start : start + motif.width]
            if "N" not in site:
                hits.append(table[sum(row[base] for row, base in zip(scores, site, strict=True))])
    return max(hits)


def scan(motifs: list[Motif], *sequences: str) -> list[list[int]]:
    return Scanner(motifs, PSEUDOCOUNT).scan(np.stack([encode(letters).codes for letters in sequences])).tolist()


@settings(max_examples=40)
@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    sequences=st.integers(1, 30).flatmap(
        lambda length: st.lists(st.text("ACGTN", min_size=length, max_size=length), min_size=1, max_size=5)
    ),
    seed=st.integers(0, 1000),
)
def test_scan_is_that_of_a_loop_over_sites(widths: list[int], sequences: list[str], seed: int) -> None:
    generator = np.random.default_rng(seed)
    motifs = [toys.random_motif(f"m{i}", width, generator) for i, width in enumerate(widths)]
    assert scan(motifs, *sequences) == [[naive_scan(motif, letters) for motif in motifs] for letters in sequences]


@pytest.mark.parametrize(
    "letters",
    [
        "ACGTACGTACGT",  # palindromes
        "NNNNNNNNNNNN",
        "AAAAAAAAAAAA",
        "ACGTNACGTNAC",
        "NNNNNNNNACGT",  # the last site
        "ACGTNNNNNNNN",  # the first
        "ACG",  # shorter than the motif
    ],
)
@pytest.mark.parametrize("consensus", ["ACGT", "AAAA", "GATTA", "C"])
def test_scan_of_awkward_sequences(letters: str, consensus: str) -> None:
    motif = toys.consensus_motif("m", consensus, 0.85)
    assert scan([motif], letters) == [[naive_scan(motif, letters)]]


def test_evidence_of_a_perfect_hit_by_hand() -> None:
    motif = toys.consensus_motif(
        "m", "ACGGT", 0.9
    )  # one site of 4^5 is best: p = 1 / 1024, -log10 p = 3.0103, times 16
    assert scan([motif], "TTACGGTTT", "TTACCGTTT", "TTACTTTTN")[:2] == [
        [48],
        [48],
    ]  # ACCGT is its reverse complement


def test_hits_do_not_cross_from_one_sequence_into_the_next() -> None:
    motif = toys.consensus_motif("m", "GGGGGG", 0.9)
    split = scan([motif], "AAAGGG", "GGGAAA", "GGGGGG")
    assert split == [[naive_scan(motif, letters)] for letters in ("AAAGGG", "GGGAAA", "GGGGGG")]
    assert split[0] < split[2]


def test_an_uninformative_motif_has_no_evidence() -> None:
    assert scan([Motif("flat", "flat", np.full((6, 4), 0.25))], "ACGTACGTGGAT") == [[0]]


def test_both_strands_count_alike() -> None:
    generator = np.random.default_rng(3)
    motifs = [toys.random_motif(f"m{i}", 8, generator) for i in range(4)]
    sequences = [toys.random_bases(60, generator) for _ in range(20)]
    assert scan(motifs, *sequences) == scan(motifs, *map(toys.reverse_complement, sequences))


def test_scan_is_the_same_however_sequences_are_batched() -> None:
    generator = np.random.default_rng(4)
    scanner = Scanner([toys.random_motif(f"m{i}", 7 + i, generator) for i in range(3)], PSEUDOCOUNT)
    codes = generator.integers(0, 5, size=(700, 512), dtype=np.uint8)  # more than one block of the scanner
    assert (scanner.scan(codes) == np.concatenate([scanner.scan(codes[i : i + 1]) for i in range(700)])).all()
    assert scanner.scan(codes[:0]).shape == (0, 3)


@pytest.mark.parametrize("width", [1, 2, 5, 7])
def test_p_values_are_those_of_enumeration(width: int) -> None:
    motif = toys.random_motif("m", width, np.random.default_rng(width))
    scores = log_odds(motif, PSEUDOCOUNT)
    assert scores.tolist() == [[row[base] for base in "ACGT"] for row in site_scores(motif)]
    table, lowest = evidence_table(scores), int(scores.min(axis=1).sum())
    assert len(table) == int(scores.max(axis=1).sum()) - lowest + 1
    for score, evidence in exhaustive_evidence(site_scores(motif)).items():
        assert table[score - lowest] == evidence
    assert (np.diff(table.astype(int)) >= 0).all()


def test_evidence_is_clipped() -> None:
    assert evidence_table(log_odds(toys.consensus_motif("m", "ACGTACGT" * 4), PSEUDOCOUNT))[-1] == 255


# Reading ----------------------------------------------------------------------------------------------------

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
    path = tmp_path / "motifs.meme"
    path.write_text(MEME)
    motifs = read_motifs(str(path))
    assert [(m.id, m.name) for m in motifs] == [
        ("MA0001.1", "AGL3"),
        ("CTCF.H12CORE.0.P.B", "CTCF"),
        ("plain", "plain"),
    ]
    # Biopython's reader multiplies by nsites and rounds: with nsites= 1 this row became 1 0 0 0.
    assert motifs[0].probabilities.tolist() == [[0.9, 0.05, 0.03, 0.02], [0, 1, 0, 0]]
    assert motifs[2].probabilities.tolist() == [[0, 0, 1, 0]]


def test_meme_of_biopython_agrees(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = toys.write_meme(tmp_path / "m.meme", [toys.random_motif(f"m{i}", 5 + i, generator) for i in range(3)])
    with path.open() as handle:
        expected = biopython_motifs.parse(handle, "minimal")
    for motif, other in zip(read_motifs(str(path)), expected, strict=True):
        assert motif.id == other.name
        assert motif.probabilities == pytest.approx(np.array([other.pwm[b] for b in "ACGT"]).T, abs=0.06)


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


@pytest.mark.parametrize("compressed", [False, True])
def test_jaspar_file(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "motifs.txt"
    path.write_bytes(gzip.compress(JASPAR.encode()) if compressed else JASPAR.encode())
    first, second = read_motifs(str(path))
    assert (first.id, first.name, second.id, second.name) == ("MA0004.1", "Arnt", "MA0006.1", "Ahr::Arnt")
    assert first.probabilities.tolist() == [[0.2, 0.8, 0, 0], [0.95, 0, 0.05, 0], [0, 1, 0, 0]]
    assert second.probabilities.tolist() == [[0.75, 0, 0.25, 0], [0, 0, 0.5, 0.5]]


def test_jaspar_core_comes_without_download() -> None:
    motifs = read_motifs("jaspar:fungi")
    assert len(motifs) > 100
    assert [m.id for m in motifs] == sorted({m.id for m in motifs})
    assert all(m.probabilities.sum(axis=1) == pytest.approx(1) for m in motifs)
    reference = jaspardb(release="JASPAR2026").fetch_motif_by_id(motifs[0].id)
    counts = np.array([reference.counts[base] for base in "ACGT"]).T
    assert motifs[0].probabilities == pytest.approx(counts / counts.sum(1, keepdims=True))
    assert motifs[0].name == reference.name


def broken(old: str, new: str) -> str:
    assert old in MEME
    return MEME.replace(old, new)


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (
            broken("0.900000", "0.500000"),
            ["motif MA0001.1, row 1", "0.5 0.05 0.03 0.02", "their sum is 0.6", "sum to 1"],
        ),
        (broken("0.900000  0.050000", "1.000000 -0.050000"), ["motif MA0001.1, row 1", "-0.05"]),
        (broken("0.900000", "nan"), ["motif MA0001.1, row 1", "nan"]),
        (
            broken("0.900000", "high"),
            ["line 12", "'high  0.050000  0.030000  0.020000' is no row of probabilities"],
        ),
        (broken(" 0.900000", ""), ["line 12", "it has 3 numbers", "A C G T"]),
        (broken("MOTIF plain", "MOTIF"), ["line 20", "MOTIF has no name"]),
        (broken("MOTIF plain", "MOTIF MA0001.1"), ["motif MA0001.1", "more than once"]),
        (broken("0 0 1 0\n", ""), ["line 20", "'MOTIF plain' has no letter-probability matrix"]),
        (broken("w= 2", "w= 3"), ["line 10", "2 rows", "w= 3"]),  # a file cut short
        ("MEME version 4\n", ["no motif was found"]),
        ("", ["the file is empty"]),
        ("chr1\t10\t20\n", ["neither a MEME nor a JASPAR file", "A MEME file starts with 'MEME version'"]),
        (JASPAR.replace("T  [ 0  0  0 ]\n", ""), ["neither a MEME nor a JASPAR file"]),
        (JASPAR.replace("19", "x"), ["neither a MEME nor a JASPAR file"]),
        (JASPAR.replace("[ 3 0 ]", "[ 3 0 4 ]"), ["neither a MEME nor a JASPAR file"]),
        (JASPAR.replace("16", " 0").replace("[ 4 ", "[ 0 "), ["motif MA0004.1, row 1"]),
        (JASPAR.replace("MA0006.1", "MA0004.1"), ["motif MA0004.1", "more than once"]),
    ],
)
def test_malformed_collections(tmp_path: Path, text: str, fragments: list[str]) -> None:
    path = tmp_path / "motifs.txt"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_motifs(str(path))
    assert [fragment for fragment in [str(path), *fragments] if fragment not in str(error.value)] == []


def test_unknown_jaspar_group() -> None:
    with pytest.raises(UserError, match=r"jaspar:mammals: there is no such group\. Choose one of vertebrates"):
        read_motifs("jaspar:mammals")


# Order ------------------------------------------------------------------------------------------------------


def test_order_is_a_permutation_that_does_not_depend_on_chance() -> None:
    generator = np.random.default_rng(0)
    motifs = [toys.random_motif(f"m{i}", int(generator.integers(5, 12)), generator) for i in range(20)]
    ordered = order_by_similarity(motifs, PSEUDOCOUNT)
    assert sorted(m.id for m in ordered) == sorted(m.id for m in motifs)
    assert [m.id for m in order_by_similarity(motifs, PSEUDOCOUNT)] == [m.id for m in ordered]


def test_similar_motifs_become_neighbours() -> None:
    families = ["GATTACA", "CCGCGG", "TTTAAATT"]
    motifs = [
        toys.consensus_motif(f"{name}{strength}", name, strength) for strength in (0.97, 0.9, 0.8) for name in families
    ]
    names = [m.id[:4] for m in order_by_similarity(motifs, PSEUDOCOUNT)]
    assert sum(a != b for a, b in pairwise(names)) == 2


def test_order_of_odd_collections() -> None:
    same = [Motif(f"m{i}", "m", np.full((4, 4), 0.25)) for i in range(4)]  # constant evidence
    long = [toys.consensus_motif(f"long{i}", "ACGT" * 20, 0.9) for i in range(2)]  # longer than the sequences
    assert len(order_by_similarity([*same, *long], PSEUDOCOUNT)) == 6
    assert order_by_similarity(same[:1], PSEUDOCOUNT) == same[:1]


def test_scan_agrees_with_decoded_letters() -> None:
    codes = np.random.default_rng(5).integers(0, 5, size=(3, 20), dtype=np.uint8)
    motif = toys.consensus_motif("m", "CAG", 0.8)
    assert scan([motif], *map(decode, codes)) == Scanner([motif], PSEUDOCOUNT).scan(codes).tolist()
