from itertools import combinations

import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from genebert import shared_words
from genebert.schema import N, encode
from genebert.shared_words import LENGTH, groups, sharing, sharing_with_any, words


def codes_of(*letters: str) -> NDArray[np.uint8]:
    return np.stack([encode(row).codes for row in letters])


def words_by_hand(letters: str) -> list[str]:
    """Words without N, each named by the smaller of itself and its reverse complement."""
    every = [letters[i : i + LENGTH] for i in range(len(letters) - LENGTH + 1)]
    return [min(word, toys.reverse_complement(word)) for word in every if "N" not in word]


def overlapping(generator: np.random.Generator, rows: int, length: int = 60) -> list[str]:
    """Stretches of few longer sequences on either strand, some with an N, so that many share words."""
    sources = [toys.random_bases(150, generator) for _ in range(3)]
    found = []
    for _ in range(rows):
        start = int(generator.integers(0, 150 - length + 1))
        row = sources[int(generator.integers(0, 3))][start : start + length]
        if generator.random() < 0.3:
            at = int(generator.integers(0, length))
            row = row[:at] + "N" + row[at + 1 :]
        found.append(toys.reverse_complement(row) if generator.random() < 0.5 else row)
    return found


@given(seed=st.integers(0, 1000), rows=st.integers(1, 12))
@settings(max_examples=25)
def test_words_are_those_of_a_loop_over_places(seed: int, rows: int) -> None:
    letters = overlapping(np.random.default_rng(seed), rows)
    row, word = words(codes_of(*letters))
    named = [(i, name) for i, one in enumerate(letters) for name in words_by_hand(one)]
    assert row.tolist() == [i for i, _ in named]
    number: dict[str, int] = {}
    for (_, name), value in zip(named, word.tolist(), strict=True):
        assert number.setdefault(name, value) == value
    assert len(set(number.values())) == len(number)


@given(seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_sharing_is_that_of_sets_of_words(seed: int) -> None:
    letters = overlapping(np.random.default_rng(seed), 12)
    here, there = letters[:7], letters[7:]
    known = {word for row in there for word in words_by_hand(row)}
    expected = [not known.isdisjoint(words_by_hand(row)) for row in here]
    assert sharing(codes_of(*here), codes_of(*there)).tolist() == expected
    blocks = iter([codes_of(*there[:2]), codes_of(there[2][:40]), codes_of(*there[2:])])
    assert sharing_with_any(codes_of(*here), blocks).tolist() == expected


@given(seed=st.integers(0, 1000), rows=st.integers(1, 15))
@settings(max_examples=25)
def test_groups_are_those_of_joining_pair_by_pair(seed: int, rows: int) -> None:
    letters = overlapping(np.random.default_rng(seed), rows)
    group = list(range(rows))
    for i, j in combinations(range(rows), 2):
        if not set(words_by_hand(letters[i])).isdisjoint(words_by_hand(letters[j])):
            group = [group[i] if one == group[j] else one for one in group]
    numbers = {one: i for i, one in enumerate(dict.fromkeys(group))}
    assert groups(codes_of(*letters)).tolist() == [numbers[one] for one in group]


def test_32_bases_are_shared_and_31_are_not() -> None:
    generator = np.random.default_rng(0)
    first = toys.random_bases(50, generator)
    for length, found in ((32, True), (31, False)):
        stretch = first[10 : 10 + length]
        for given_as in (stretch, toys.reverse_complement(stretch)):
            other = "N" * 5 + given_as + "N" * (45 - length)
            assert sharing(codes_of(first), codes_of(other)).tolist() == [found]
            assert groups(codes_of(first, other)).tolist() == ([0, 0] if found else [0, 1])
            broken = other[:20] + "N" + other[21:]
            assert not sharing(codes_of(first), codes_of(broken)).any()


def test_a_group_goes_through_others_and_is_numbered_by_its_first_member() -> None:
    generator = np.random.default_rng(1)
    long, alone = toys.random_bases(160, generator), toys.random_bases(80, generator)
    rows = [alone, long[:80], toys.reverse_complement(long[80:]), long[40:120]]
    assert groups(codes_of(*rows)).tolist() == [0, 1, 1, 1]
    assert groups(codes_of(*rows[:3])).tolist() == [0, 1, 2]
    assert groups(codes_of(*reversed(rows))).tolist() == [0, 0, 0, 1]


def test_a_word_that_recurs_in_a_sequence_counts_once() -> None:
    """A counter of eight bits would be 0 again after 256 of them."""
    length = 256 + LENGTH - 1
    rows = codes_of("A" * length, "C" * length, "T" * length, "G" * length)
    assert len(words(rows[:1])[1]) == 256
    assert groups(rows).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("rows_at_once", [1, 4])
def test_it_does_not_matter_how_many_rows_are_looked_at_together(
    rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = codes_of(*overlapping(np.random.default_rng(2), 10))
    expected = *words(codes), groups(codes), sharing(codes[:5], codes[5:])
    monkeypatch.setattr(shared_words, "_ROWS", rows_at_once)
    for found, wanted in zip((*words(codes), groups(codes), sharing(codes[:5], codes[5:])), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_sequences_that_are_too_short_or_unknown_share_nothing() -> None:
    short = codes_of("A" * 31, "C" * 31)
    unknown = codes_of("N" * 40, "N" * 40)
    for codes in (short, unknown):
        assert not sharing(codes, codes).any()
        assert groups(codes).tolist() == [0, 1]
    assert [part.dtype for part in words(short)] == [np.int64, np.uint64]


def test_nothing_shares_nothing() -> None:
    nothing, one = np.empty((0, 40), dtype=np.uint8), codes_of("ACGT" * 10)
    assert sharing(nothing, one).shape == (0,)
    assert sharing(one, nothing).tolist() == [False]
    assert groups(nothing).shape == (0,) and groups(nothing).dtype == np.int64


def test_equal_sequences_go_together_however_short() -> None:
    short = np.full((3, 40), N, dtype=np.uint8)
    short[0, :5], short[1, :5], short[2, :5] = [0, 1, 2, 3, 3], [0, 0, 1, 2, 3], [0, 1, 2, 3, 0]  # ACGTT, AACGT, ACGTA
    assert groups(short).tolist() == [0, 0, 1]  # AACGT is the reverse complement of ACGTT
