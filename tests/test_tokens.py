from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genebert.schema import N, decode, encode
from genebert.tokens import (
    CLS,
    MASK,
    PAD,
    SEP,
    SPECIAL_TOKENS,
    UNK,
    VOCABULARY_BASES,
    assemble,
    hide_bases,
    sequence_tokens,
    tokenize,
    vocabulary_size,
)

KMER_LENGTHS = (1, 3, 4, 5, 6)


def vocabulary(k: int) -> dict[str, int]:
    """DNABERT's vocabulary, in the order of its published vocab.txt."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map("".join, product("ATCG", repeat=k))]
    return {word: i for i, word in enumerate(words)}


def tokens_of_string(letters: str, k: int) -> list[int]:
    words = vocabulary(k)
    return [words.get(letters[i : i + k], words["[UNK]"]) for i in range(len(letters) - k + 1)]


def random_codes(generator: np.random.Generator, rows: int, length: int, unknown: float = 0.0) -> np.ndarray:
    codes = generator.integers(0, 4, size=(rows, length), dtype=np.uint8)
    codes[generator.random(codes.shape) < unknown] = N
    return codes


def test_special_tokens() -> None:
    assert [SPECIAL_TOKENS[i] for i in (PAD, UNK, CLS, SEP, MASK)] == [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
    ]


@pytest.mark.parametrize("k", KMER_LENGTHS)
def test_vocabulary_size(k: int) -> None:
    assert vocabulary_size(k) == len(vocabulary(k))


def test_first_tokens_of_dnabert_by_hand() -> None:
    assert tokenize(encode("AAATC").codes, 3).tolist() == [5, 6, 5 + 4 * 1 + 2]  # AAA, AAT, ATC


@pytest.mark.parametrize("k", KMER_LENGTHS)
def test_tokens_are_those_of_a_dictionary_over_strings(k: int) -> None:
    codes = random_codes(np.random.default_rng(k), 20, 50, unknown=0.05)
    tokens = tokenize(codes, k)
    assert tokens.shape == (20, 50 - k + 1)
    assert tokens.tolist() == [tokens_of_string(decode(row), k) for row in codes]


@pytest.mark.parametrize("k", KMER_LENGTHS)
def test_every_kmer_has_its_own_token(k: int) -> None:
    kmers = np.stack([encode("".join(word)).codes for word in product("ATCG", repeat=k)])
    assert tokenize(kmers, k)[:, 0].tolist() == list(range(5, 5 + 4**k))


def test_tokenize_takes_any_leading_shape() -> None:
    codes = random_codes(np.random.default_rng(0), 6, 12)
    assert (tokenize(codes.reshape(2, 3, 12), 4).reshape(6, -1) == tokenize(codes, 4)).all()
    assert (tokenize(codes[0], 4) == tokenize(codes, 4)[0]).all()


def test_assemble_by_hand() -> None:
    ids, segments = assemble(np.array([[7, 8]]), np.array([[9]]))
    assert ids.tolist() == [[CLS, 7, 8, SEP, 9, SEP]]
    assert segments.tolist() == [[0, 0, 0, 0, 1, 1]]


@pytest.mark.parametrize(("k", "length"), [(1, 10), (3, 11), (6, 40)])
def test_sequence_tokens_are_the_two_halves(k: int, length: int) -> None:
    codes = random_codes(np.random.default_rng(1), 3, length)
    ids, segments = sequence_tokens(codes, k)
    assert ids.shape == segments.shape == (3, length - 2 * k + 5)
    for row, letters in zip(ids.tolist(), map(decode, codes), strict=True):
        first, second = (tokens_of_string(half, k) for half in (letters[: length // 2], letters[length // 2 :]))
        assert row == [CLS, *first, SEP, *second, SEP]


@given(
    k=st.sampled_from(KMER_LENGTHS),
    length=st.integers(6, 60),
    fraction=st.floats(0.01, 0.6),
    unknown=st.sampled_from([0.0, 0.1, 0.9]),
    seed=st.integers(0, 10_000),
)
def test_no_visible_token_covers_a_scored_base(k: int, length: int, fraction: float, unknown: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    codes = random_codes(generator, 4, length, unknown)
    hidden = hide_bases(codes, k, fraction, generator)
    assert hidden.masked.shape == (4, length - k + 1)
    scored = set()
    for row, token, digit in zip(hidden.row, hidden.token, hidden.digit, strict=True):
        base = token + k // 2
        scored.add((row, base))
        assert codes[row, base] != N
        assert "ACGTN"[codes[row, base]] == VOCABULARY_BASES[digit]
        covering = range(max(0, base - k + 1), min(base, length - k) + 1)
        assert hidden.masked[row, covering].all()
    assert len(scored) == len(hidden.row)  # no base is scored twice
    for row, token in zip(*np.nonzero(hidden.masked), strict=True):  # and no token is masked for nothing
        assert any((row, base) in scored for base in range(token, token + k))


@pytest.mark.parametrize("k", KMER_LENGTHS)
def test_what_is_visible_does_not_depend_on_the_hidden_bases(k: int) -> None:
    generator = np.random.default_rng(k)
    codes = random_codes(generator, 8, 100)
    hidden = hide_bases(codes, k, 0.15, generator)
    changed = codes.copy()
    changed[hidden.row, hidden.token + k // 2] = (changed[hidden.row, hidden.token + k // 2] + 1) % 4
    before, after = (np.where(hidden.masked, MASK, tokenize(c, k)) for c in (codes, changed))
    assert len(hidden.row) > 0
    assert (before == after).all()


@pytest.mark.parametrize("k", KMER_LENGTHS)
@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.3])
def test_about_the_asked_fraction_is_hidden(k: int, fraction: float) -> None:
    generator = np.random.default_rng(0)
    codes = random_codes(generator, 200, 256)
    found = len(hide_bases(codes, k, fraction, generator).row) / codes.size
    assert 0.8 * fraction < found <= 1.05 * fraction


def test_nothing_is_hidden_at_fraction_zero() -> None:
    codes = random_codes(np.random.default_rng(0), 3, 30)
    hidden = hide_bases(codes, 3, 0.0, np.random.default_rng(0))
    assert not hidden.masked.any()
    assert len(hidden.row) == 0


def test_hiding_is_seeded() -> None:
    codes = random_codes(np.random.default_rng(0), 3, 60)
    first, second, other = (hide_bases(codes, 5, 0.2, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert not (first.masked == other.masked).all()
