import math
import pickle
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from genebert.errors import UserError
from genebert.inputs.scan import Scanner, evidence_table, log_odds, parse_background
from genebert.schema import Motif, N, encode, reverse_complement

PSEUDOCOUNT = 0.01
LETTERS = "ACGT"

# A reference from the definitions alone: Python numbers, exact fractions, one site at a time -------------------


def background(gc: float) -> dict[str, Fraction]:
    strong = Fraction(str(gc)) / 2
    return {"A": Fraction(1, 2) - strong, "C": strong, "G": strong, "T": Fraction(1, 2) - strong}


def naive_scores(motif: Motif, gc: float = 0.5) -> list[dict[str, int]]:
    """Rounded log2 odds by position and base, in 1/100 bit."""
    return [
        {
            base: round(100 * math.log2((p + PSEUDOCOUNT * q) / (1 + PSEUDOCOUNT) / q))
            for (base, q), p in zip(((b, float(f)) for b, f in background(gc).items()), row, strict=True)
        }
        for row in (motif.probabilities / motif.probabilities.sum(axis=1, keepdims=True)).tolist()
    ]


def naive_evidence(scores: list[dict[str, int]], gc: float = 0.5) -> dict[int, int]:
    """Score -> evidence, by enumeration of all sites of the motif's width."""
    probability: dict[int, Fraction] = {}
    for site in product(LETTERS, repeat=len(scores)):
        score = sum(row[base] for row, base in zip(scores, site, strict=True))
        weight = math.prod((background(gc)[base] for base in site), start=Fraction(1))
        probability[score] = probability.get(score, Fraction(0)) + weight
    tail, found = Fraction(0), {}
    for score in sorted(probability, reverse=True):
        tail += probability[score]
        found[score] = min(255, round(-16 * math.log10(tail)))
    return found


def naive_scan(motif: Motif, *sequences: str, gc: float = 0.5) -> list[int]:
    """Evidence of a motif in each sequence, by looking at every site of both strands."""
    scores = naive_scores(motif, gc)
    table = naive_evidence(scores, gc)
    found = []
    for letters in sequences:
        both = (letters, toys.reverse_complement(letters))
        places = range(len(letters) - motif.width + 1)
        sites = [strand[start : start + motif.width] for strand in both for start in places]
        known = [site for site in sites if "N" not in site]
        found.append(max([0, *(table[sum(map(dict.__getitem__, scores, site))] for site in known)]))
    return found


def scan(motifs: list[Motif], *sequences: str, gc: float = 0.5) -> list[list[int]]:
    codes = np.stack([encode(letters).codes for letters in sequences])
    return Scanner(motifs, PSEUDOCOUNT, gc).scan(codes).tolist()


COLUMNS = [
    [1.0, 0.0, 0.0, 0.0],  # zero probabilities
    [0.0, 0.0, 1.0, 0.0],
    [0.5, 0.5, 0.0, 0.0],  # ties
    [0.0, 0.5, 0.5, 0.0],  # its own reverse complement
    [0.25, 0.25, 0.25, 0.25],  # no information
    [0.4, 0.1, 0.1, 0.4],
    [0.7, 0.1, 0.15, 0.05],
    [0.05, 0.15, 0.1, 0.7],
]


@settings(max_examples=60, deadline=None)
@given(
    columns=st.lists(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4), min_size=1, max_size=3),
    sequences=st.integers(1, 40).flatmap(
        lambda length: st.lists(st.text("ACGTN", min_size=length, max_size=length), min_size=1, max_size=4)
    ),
    gc=st.sampled_from([0.5, 0.3, 0.6]),
)
def test_scan_is_that_of_a_loop_over_sites(columns: list[list[list[float]]], sequences: list[str], gc: float) -> None:
    motifs = [Motif(f"m{i}", "m", np.array(rows)) for i, rows in enumerate(columns)]
    found = np.array(scan(motifs, *sequences, gc=gc))
    assert found.T.tolist() == [naive_scan(motif, *sequences, gc=gc) for motif in motifs]


@settings(max_examples=30, deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    length=st.integers(1, 40),
    count=st.integers(1, 70),  # more than lightmotif scores side by side
    seed=st.integers(0, 1000),
)
def test_scan_of_many_random_sequences(widths: list[int], length: int, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    motifs = [toys.random_motif(f"m{i}", width, generator) for i, width in enumerate(widths)]
    sequences = ["".join(row) for row in generator.choice(list("ACGTACGTACGTN"), size=(count, length))]
    assert np.array(scan(motifs, *sequences)).T.tolist() == [naive_scan(motif, *sequences) for motif in motifs]


@pytest.mark.parametrize("gc", [0.5, 0.3])
@pytest.mark.parametrize(
    "letters",
    [
        "ACGTACGTACGT",  # palindromes
        "NNNNNNNNNNNN",
        "AAAAAAAAAAAA",
        "ACGTNACGTNAC",
        "NNNNNNNNACGT",  # the last site
        "ACGTNNNNNNNN",  # the first
        "TAATC",  # as wide as the motif GATTA, and its reverse complement
        "ACG",  # shorter than the motif
        "G",
        "N",
    ],
)
@pytest.mark.parametrize("consensus", ["ACGT", "AAAA", "GATTA", "C", "GC"])
def test_scan_of_awkward_sequences(letters: str, consensus: str, gc: float) -> None:
    for strength in (0.85, 1.0):
        motif = toys.consensus_motif("m", consensus, strength)
        assert scan([motif], letters, gc=gc) == [naive_scan(motif, letters, gc=gc)]


def sliding_scores(scores: NDArray[np.int64], codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The best whole-number score on either strand per sequence; -10 ** 9 where there is no site without N."""
    width = len(scores)
    if width > codes.shape[1]:
        return np.full(len(codes), -(10**9))
    windows = np.lib.stride_tricks.sliding_window_view(codes, width, axis=1)
    table = np.concatenate([scores, np.full((width, 1), -(10**9))], axis=1)
    reverse = np.concatenate([scores[::-1, ::-1], np.full((width, 1), -(10**9))], axis=1)
    both = [matrix[np.arange(width), windows].sum(axis=2).max(axis=1) for matrix in (table, reverse)]
    return np.maximum(np.maximum(*both), -(10**9))


@pytest.mark.parametrize(("count", "length"), [(1, 512), (33, 97), (300, 512)])
def test_scan_of_wide_motifs_is_that_of_whole_numbers(count: int, length: int) -> None:
    generator = np.random.default_rng(0)
    motifs = [toys.random_motif(f"m{width}", width, generator) for width in (1, 9, 16, 17, 35, 96, 97, 98, 513)]
    codes = generator.integers(0, 4, size=(count, length), dtype=np.uint8)
    codes[:: max(2, count // 7), length // 3 : length // 2] = N
    scanner = Scanner(motifs, PSEUDOCOUNT)
    expected = np.zeros((count, len(motifs)), dtype=np.uint8)
    for i, scores in enumerate(scanner.scores):
        steps = sliding_scores(scores, codes) - scores.min(axis=1).sum()
        expected[:, i] = np.where(steps >= 0, evidence_table(scores)[np.maximum(steps, 0)], 0)
    assert (scanner.scan(codes) == expected).all()


def test_evidence_of_a_perfect_hit_by_hand() -> None:
    motif = toys.consensus_motif("m", "ACGGT", 0.9)  # one site of 4^5 is best: -log10 (1 / 1024) * 16 = 48.2
    assert scan([motif], "TTACGGTTT", "TTACCGTTT") == [[48], [48]]  # ACCGT is its reverse complement
    assert scan([motif], "TTACGGTTT", gc=0.8) == [[51]]  # p = 0.1 * 0.4 * 0.4 * 0.4 * 0.1 = 0.00064: 51.1


def test_hits_do_not_cross_from_one_sequence_into_the_next() -> None:
    motif = toys.consensus_motif("m", "GGGGGG", 0.9)
    sequences = ("AAAGGG", "GGGAAA", "GGGGGG")
    split = [row[0] for row in scan([motif], *sequences)]
    assert split == naive_scan(motif, *sequences)
    assert split[0] < split[2]


def test_an_uninformative_motif_has_no_evidence() -> None:
    assert scan([Motif("flat", "flat", np.full((6, 4), 0.25))], "ACGTACGTGGAT") == [[0]]


@pytest.mark.parametrize("gc", [0.5, 0.3, 0.6])
def test_both_strands_count_alike(gc: float) -> None:
    generator = np.random.default_rng(3)
    motifs = [toys.random_motif(f"m{i}", 8, generator) for i in range(4)]
    motifs.append(toys.consensus_motif("palindrome", "GAATTC", 0.8))
    sequences = [toys.random_bases(60, generator) for _ in range(20)]
    assert scan(motifs, *sequences, gc=gc) == scan(motifs, *map(toys.reverse_complement, sequences), gc=gc)


def naive_tiles(motif: Motif, letters: str, tiles: int) -> list[int]:
    """Evidence of a motif in each tile, by looking at every site, whose centre is an exact fraction."""
    scores = naive_scores(motif)
    table = naive_evidence(scores)
    found = [0] * tiles
    for start in range(len(letters) - motif.width + 1):
        place = (Fraction(start) + Fraction(motif.width, 2)) * tiles / len(letters)
        site = letters[start : start + motif.width]
        for strand in (site, toys.reverse_complement(site)):
            evidence = 0 if "N" in site else table[sum(map(dict.__getitem__, scores, strand))]
            for tile in range(tiles):
                if tile <= place <= tile + 1:
                    found[tile] = max(found[tile], evidence)
    return found


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 5),
    letters=st.lists(st.text("ACGTACGTN", min_size=30, max_size=30), min_size=1, max_size=3),
    length=st.integers(1, 30),
    tiles=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_tiles_are_those_of_a_loop_over_sites(
    width: int, letters: list[str], length: int, tiles: int, seed: int
) -> None:
    motif = toys.random_motif("m", width, np.random.default_rng(seed))
    cut = [row[:length] for row in letters]
    codes = np.stack([encode(row).codes for row in cut])
    found = Scanner([motif], PSEUDOCOUNT).scan_tiles(codes, tiles)
    assert found.shape == (len(cut), tiles, 1) and found.dtype == np.uint8
    assert found[..., 0].tolist() == [naive_tiles(motif, row, tiles) for row in cut]


@pytest.mark.parametrize(("length", "tiles"), [(60, 1), (60, 16), (61, 16), (97, 7), (40, 40)])
def test_tiles_of_a_reverse_complement_are_the_same_in_reverse_order(length: int, tiles: int) -> None:
    """A hit between two tiles once belonged to the right one, on either strand."""
    generator = np.random.default_rng(0)
    scanner = Scanner([toys.random_motif(f"m{width}", width, generator) for width in range(1, 12)], PSEUDOCOUNT)
    codes = generator.integers(0, 5, size=(70, length), dtype=np.uint8)
    found = scanner.scan_tiles(codes, tiles)
    assert (scanner.scan_tiles(reverse_complement(codes), tiles) == found[:, ::-1]).all()
    assert (found.max(axis=1) == scanner.scan(codes)).all()  # no hit belongs to no tile


def test_tiles_by_hand() -> None:
    """GAC begins at 3: its centre is 4.5, in the second of three tiles of 3, and where two of 4.5 meet."""
    scanner = Scanner([toys.consensus_motif("m", "GAC", 0.9)])
    perfect = scanner.scan(encode("GAC").codes[None])[0, 0]
    for letters, tiles, holding in (("AAAGACAAA", 3, [1]), ("AAAGACAAA", 2, [0, 1]), ("AAAGACAAAAAA", 6, [2])):
        found = scanner.scan_tiles(encode(letters).codes[None], tiles)[0, :, 0]
        assert np.flatnonzero(found == perfect).tolist() == holding


def test_scan_is_the_same_however_sequences_are_batched() -> None:
    generator = np.random.default_rng(4)
    scanner = Scanner([toys.random_motif(f"m{i}", 7 + i, generator) for i in range(3)], PSEUDOCOUNT)
    codes = generator.integers(0, 5, size=(700, 512), dtype=np.uint8)  # more than one block of the scanner
    assert (scanner.scan(codes) == np.concatenate([scanner.scan(codes[i : i + 1]) for i in range(700)])).all()
    tiles = scanner.scan_tiles(codes, 5)
    assert (tiles[600:] == scanner.scan_tiles(codes[600:], 5)).all()


def test_scan_of_nothing() -> None:
    motif = toys.consensus_motif("m", "ACGT")
    assert Scanner([motif]).scan(np.zeros((0, 30), dtype=np.uint8)).shape == (0, 1)
    assert Scanner([motif]).scan(np.zeros((3, 0), dtype=np.uint8)).tolist() == [[0]] * 3
    assert Scanner([]).scan(np.zeros((3, 30), dtype=np.uint8)).shape == (3, 0)
    assert Scanner([motif]).scan_tiles(np.zeros((0, 30), dtype=np.uint8), 4).shape == (0, 4, 1)
    assert Scanner([motif]).scan_tiles(np.zeros((1, 3), dtype=np.uint8), 4).tolist() == [[[0]] * 4]


@pytest.mark.parametrize("gc", [0.5, 0.3, 0.6])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_p_values_are_those_of_enumeration(width: int, gc: float) -> None:
    motif = toys.random_motif("m", width, np.random.default_rng(width))
    scores = log_odds(motif, PSEUDOCOUNT, gc)
    assert scores.tolist() == [list(row.values()) for row in naive_scores(motif, gc)]
    table, lowest = evidence_table(scores, gc), int(scores.min(axis=1).sum())
    assert len(table) == int(scores.max(axis=1).sum()) - lowest + 1
    for score, evidence in naive_evidence(naive_scores(motif, gc), gc).items():
        assert table[score - lowest] == evidence
    assert (np.diff(table.astype(int)) >= 0).all()


def test_a_background_of_half_is_the_uniform_one() -> None:
    motif = toys.random_motif("m", 8, np.random.default_rng(1))
    scores = log_odds(motif, PSEUDOCOUNT)
    assert (scores == log_odds(motif, PSEUDOCOUNT, 0.5)).all()
    assert (evidence_table(scores) == evidence_table(scores, 0.5)).all()
    assert (scores != log_odds(motif, PSEUDOCOUNT, 0.4)).any()


def test_evidence_is_clipped() -> None:
    assert evidence_table(log_odds(toys.consensus_motif("m", "ACGTACGT" * 4), PSEUDOCOUNT))[-1] == 255


def test_a_scanner_travels_to_workers_without_what_it_computed() -> None:
    generator = np.random.default_rng(0)
    scanner = Scanner([toys.random_motif(f"m{i}", 12, generator) for i in range(5)], 0.02, 0.4)
    before = pickle.dumps(scanner)
    codes = generator.integers(0, 5, size=(40, 60), dtype=np.uint8)
    expected = scanner.scan(codes)
    assert pickle.dumps(scanner) == before  # matrices of lightmotif cannot be pickled
    other = pickle.loads(before)
    assert (other.pseudocount, other.gc) == (0.02, 0.4)
    assert (other.scan(codes) == expected).all()


@pytest.mark.parametrize(("text", "gc"), [("uniform", 0.5), ("regions", None), ("0.41", 0.41), ("4e-1", 0.4)])
def test_background(text: str, gc: float | None) -> None:
    assert parse_background(text) == gc


@pytest.mark.parametrize("text", ["", "genome", "0", "1", "-0.4", "41", "nan", "inf", "0.2,0.3,0.3,0.2"])
def test_background_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match=r"--background: '.*' is no background\. Give `uniform`, `regions`, or the"):
        parse_background(text)
