import json

import numpy as np
import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st

from genebert.schema import (
    BASES,
    SPLITS,
    A,
    C,
    G,
    Motif,
    N,
    T,
    Variant,
    decode,
    encode,
    gc_fraction,
    parent_of,
    reverse_complement,
    split_of,
    substituted,
)

letters = st.text("ACGTN", max_size=60)


def test_codes_are_the_documented_ones() -> None:
    assert [BASES[code] for code in (A, C, G, T, N)] == list("ACGTN")
    assert encode("ACGTNacgtn").codes.tolist() == [0, 1, 2, 3, 4] * 2
    assert encode("Uu").codes.tolist() == [T, T]


@given(letters)
def test_decode_inverts_encode(sequence: str) -> None:
    encoded = encode(sequence.lower())
    assert encoded.codes.dtype == np.uint8
    assert (encoded.ambiguous, encoded.invalid) == (0, None)
    assert decode(encoded.codes) == sequence


def test_iupac_letters_become_n_and_are_counted() -> None:
    encoded = encode("ARyNswKmbdhvT")
    assert decode(encoded.codes) == "ANNNNNNNNNNNT"
    assert encoded.ambiguous == 10  # the N is no ambiguity letter
    assert encoded.invalid is None


@pytest.mark.parametrize(("sequence", "invalid"), [("ACE", (2, "E")), ("R-AX", (1, "-")), ("AC€E", (2, "€"))])
def test_the_first_letter_that_is_no_nucleotide_is_named(sequence: str, invalid: tuple[int, str]) -> None:
    assert encode(sequence).invalid == invalid


def test_empty_sequence() -> None:
    assert encode("").codes.shape == (0,)
    assert decode(encode("").codes) == ""


@given(letters)
def test_reverse_complement_is_that_of_strings(sequence: str) -> None:
    codes = encode(sequence).codes
    assert decode(reverse_complement(codes)) == toys.reverse_complement(sequence)
    assert (reverse_complement(reverse_complement(codes)) == codes).all()


def test_reverse_complement_works_along_the_last_axis() -> None:
    codes = np.stack([encode("AACG").codes, encode("TNNC").codes])
    assert [decode(row) for row in reverse_complement(codes)] == ["CGTT", "GNNA"]


@given(st.lists(st.text("ACGTN", min_size=7, max_size=7), min_size=1, max_size=4))
def test_gc_fraction_counts_known_bases(rows: list[str]) -> None:
    expected = [sum(b in "GC" for b in row) / known if (known := 7 - row.count("N")) else 0.5 for row in rows]
    assert gc_fraction(np.stack([encode(row).codes for row in rows])) == pytest.approx(expected)


def test_every_substitution_is_made_once() -> None:
    changes, sequences = substituted(encode("ACN").codes, [0, 1])
    assert changes == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)]
    assert [decode(codes) for codes in sequences] == ["ACN", "CCN", "GCN", "TCN", "AAN", "AGN", "ATN"]
    assert substituted(encode("NN").codes, [])[0] == []


def test_motif_survives_json() -> None:
    motif = toys.random_motif("m", 7, np.random.default_rng(0))
    again = Motif.from_json(json.loads(json.dumps(motif.to_json())))
    assert (again.id, again.name, again.width) == ("m", "M", 7)
    assert np.array_equal(again.probabilities, motif.probabilities)


def test_variant_is_named_as_in_its_vcf() -> None:
    assert Variant("chr1", 99, "A", "AT").name == "chr1:100:A>AT"


def test_split_of_chromosomes() -> None:
    split = split_of(["chr1", "chr2", "chr3", "chr1"], valid=["chr2"], test=["chr3"])
    assert split.dtype == np.uint8
    assert [SPLITS[i] for i in split] == ["train", "valid", "test", "train"]


def test_sequences_of_a_chromosome_go_with_it() -> None:
    """Alternative sequences of a held-out chromosome were once trained on."""
    names = ["chr8", "chr8_KI270821v1_alt", "chr1_KI270706v1_random", "chrUn_KI270742v1", "KI270821.1", "chr6_apd_hap1"]
    assert split_of(names, ["chr6"], ["chr8"]).tolist() == [2, 2, 0, 0, 0, 1]
    assert split_of(["chr8_KI270821v1_alt"], ["chr8_KI270821v1_alt"], ["chr8"]).tolist() == [1]  # as it is named


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("chr8", "chr8"),
        ("chr8_KI270821v1_alt", "chr8"),
        ("chr1_KI270706v1_random", "chr1"),
        ("chr1_random", "chr1"),
        ("chr6_ssto_hap7", "chr6"),
        ("chr17_ctg5_hap1", "chr17"),
        ("chr1_KZ208905v1_fix", "chr1"),
        ("chrUn_KI270302v1", "chrUn"),
        ("chromosome_1", "chromosome_1"),
        ("chr_2", "chr_2"),
        ("chr1_RagTag", "chr1_RagTag"),
        ("8_x_alt", "8_x_alt"),
    ],
)
def test_the_chromosome_of_a_sequence(name: str, parent: str) -> None:
    assert parent_of(name) == parent


@pytest.mark.parametrize(
    ("ref", "alt", "short"),
    [
        ("CACT", "GACT", (100, "C", "G")),
        ("CACT", "C", (100, "CACT", "C")),
        ("CACT", "CAGT", (102, "C", "G")),
        ("TT", "T", (100, "TT", "T")),
        ("CT", "CAT", (100, "C", "CA")),
        ("A", "A", (100, "A", "A")),
    ],
)
def test_the_shortest_way_to_write_a_variant(ref: str, alt: str, short: tuple[int, str, str]) -> None:
    found = Variant("chr1", 100, ref, alt).shortest
    assert (found.position, found.ref, found.alt) == short
