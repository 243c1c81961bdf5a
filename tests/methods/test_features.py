from collections import Counter
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from numpy.typing import NDArray
from toys import reverse_complement as reverse_letters

from genebert.errors import UserError
from genebert.inputs.scan import Scanner
from genebert.methods.base import Examples
from genebert.methods.features import DenseFeatures, composition, gapped_kmer_counts, kmer_counts
from genebert.schema import decode, encode, reverse_complement
from genebert.tokens import VOCABULARY_BASES

CODES = np.random.default_rng(0).integers(0, 4, size=(5, 30), dtype=np.uint8)
SEQUENCES = ["AATAAGATTCCGGA", "ANTAATTNACGTAC"]


def gapped_words(letters: str, length: int, informative: int, both_strands: bool) -> Counter[str]:
    """Gapped k-mers; on both strands, each is named by the smaller of itself and its reverse complement."""
    found: Counter[str] = Counter()
    for start in range(len(letters) - length + 1):
        for pattern in combinations(range(length), informative):
            word = "".join(letters[start + i] if i in pattern else "-" for i in range(length))
            if "N" not in word:
                found[min(word, reverse_letters(word)) if both_strands else word] += 1
    return found


def codes_of(*sequences: str) -> NDArray[np.uint8]:
    return np.stack([encode(letters).codes for letters in sequences])


def test_kmer_counts_by_hand() -> None:
    counts = kmer_counts(codes_of("AATAA", "ANTAA"), 2).toarray()
    kmers = ["".join(pair) for pair in product(VOCABULARY_BASES, repeat=2)]
    named = [{kmer: int(n) for kmer, n in zip(kmers, row, strict=True) if n} for row in counts]
    assert named == [{"AA": 2, "AT": 1, "TA": 1}, {"TA": 1, "AA": 1}]
    both = kmer_counts(codes_of("AATAA", "TTATT"), 2, both_strands=True).toarray()
    assert sorted(both[0][both[0] > 0]) == [1, 1, 2] and (both[0] == both[1]).all()  # AT, TA and AA, which is TT


@pytest.mark.parametrize("both_strands", [False, True])
@pytest.mark.parametrize(("length", "informative"), [(1, 1), (4, 4), (4, 2), (5, 3), (6, 5)])
def test_gapped_kmers_are_those_that_brute_force_counts(length: int, informative: int, both_strands: bool) -> None:
    counts = gapped_kmer_counts(codes_of(*SEQUENCES), length, informative, both_strands=both_strands).toarray()
    expected = [gapped_words(letters, length, informative, both_strands) for letters in SEQUENCES]
    for row, words in zip(counts, expected, strict=True):
        assert sorted(row[row > 0]) == sorted(words.values())
    shared = sum(expected[0][word] * expected[1][word] for word in expected[0])
    assert counts[0] @ counts[1] == shared


def test_kmers_of_both_strands_are_as_many_as_known() -> None:
    assert [gapped_kmer_counts(CODES, k, k).shape[1] for k in (1, 2, 3, 4)] == [2, 10, 32, 136]
    assert gapped_kmer_counts(CODES, 7, 5).shape[1] == comb(7, 5) * 4**5 // 2
    assert gapped_kmer_counts(CODES, 7, 5, both_strands=False).shape[1] == comb(7, 5) * 4**5


def test_both_strands_have_the_same_gapped_kmers() -> None:
    here, there = gapped_kmer_counts(CODES, 6, 4), gapped_kmer_counts(reverse_complement(CODES), 6, 4)
    np.testing.assert_array_equal(here.toarray(), there.toarray())


def test_gapped_kmers_give_the_kernel_of_ghandi_et_al() -> None:
    """Two words of l bases that differ at m share C(l - m, k) gapped k-mers (k odd: none is its own complement)."""
    length, informative = 6, 3
    counts = gapped_kmer_counts(CODES, length, informative).toarray()
    words = [[decode(row[i : i + length]) for i in range(len(row) - length + 1)] for row in CODES]
    kernel = np.zeros((len(CODES), len(CODES)))
    for i, j in product(range(len(CODES)), repeat=2):
        for first, second in product(words[i], words[j]):
            for strand in (second, reverse_letters(second)):
                same = sum(a == b for a, b in zip(first, strand, strict=True))
                kernel[i, j] += comb(same, informative)
    np.testing.assert_array_equal(counts @ counts.T, kernel)


def test_windows_shorter_than_a_word_are_refused() -> None:
    with pytest.raises(UserError, match="they have 30 bp, and words of 31 bp are to be counted"):
        gapped_kmer_counts(CODES, 31, 2)
    with pytest.raises(UserError, match="words of 31 bp"):
        kmer_counts(CODES, 31)


def test_bases_at_positions_by_hand() -> None:
    examples = Examples(codes_of("ACNT"), Scanner([]))
    seen = DenseFeatures(motifs=False, kmers=(), both_strands=False, bases=True).of(examples)
    assert seen.reshape(4, 4).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_features_of_both_strands_are_the_same_on_either() -> None:
    features = DenseFeatures(motifs=False, kmers=(4, 5), both_strands=True, bases=False, composition=True)
    other = Examples(reverse_complement(CODES), Scanner([]))
    np.testing.assert_array_equal(features.of(Examples(CODES, Scanner([]))), features.of(other))


def test_composition_by_hand() -> None:
    """CpG and GpC of the same bases are told apart, whatever the GC content."""
    island, other = composition(codes_of("ACGCGCGT", "AGCGGCCT"))
    assert island[:3].tolist() == [0.75, 0, 0] and other[:3].tolist() == pytest.approx([0.75, 0, 0])
    pairs = [(x, y) for x, y in product(range(4), repeat=2) if (x, y) <= (3 - y, 3 - x)]
    place = {"ACGT"[x] + "ACGT"[y]: 3 + i for i, (x, y) in enumerate(pairs)}
    # each strand of the island has 3 CG, and 3 C and 3 G in 8 bases: 2 * 9 / 8 expected on both
    assert island[place["CG"]] == pytest.approx(np.log((6 + 1) / (18 / 8 + 1)))
    assert other[place["CG"]] == pytest.approx(np.log((2 + 1) / (18 / 8 + 1)))
