import pickle
from itertools import groupby
from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genebert.sampling import BalancedShuffle, RunShuffle, Shuffle, Stream, below, bits, keys, permuted, uniform

WORD = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


class SplitMix64:
    """The published generator in Python's integers: a counter, and a finaliser of it."""

    def __init__(self, state: int) -> None:
        self.state = state & WORD

    def next(self) -> int:
        self.state = (self.state + GAMMA) & WORD
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
        return z ^ (z >> 31)


def key_of(*parts: int) -> int:
    state = 0
    for part in parts:
        state = SplitMix64(state + part).next()
    return state


words = st.integers(0, WORD)


def test_published_outputs_of_splitmix64() -> None:
    assert keys(1234567).tolist() == [6457827717110365317]
    generator = SplitMix64(1234567)
    assert [generator.next() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(seed=words, parts=st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=4))
def test_keys_are_those_of_python_integers(seed: int, parts: list[int]) -> None:
    assert keys(seed, *parts).tolist() == [key_of(seed, *parts)]
    assert keys(seed, *(np.array([part, 7]) for part in parts)).tolist()[0] == key_of(seed, *parts)


def test_keys_of_arrays_are_those_of_their_elements() -> None:
    positions = np.arange(5)
    assert keys(3, 1, positions).tolist() == [key_of(3, 1, position) for position in range(5)]
    assert keys(3, positions, 1).tolist() == [key_of(3, position, 1) for position in range(5)]


@given(key=words, draws=st.integers(1, 11), stream=st.sampled_from(Stream))
def test_draws_are_the_parts_of_a_generator_s_outputs(key: int, draws: int, stream: Stream) -> None:
    generator = SplitMix64(SplitMix64(key + stream).next())
    outputs = [generator.next() for _ in range(draws)]
    halves = [word >> shift & 0xFFFFFFFF for word in outputs for shift in (0, 32)][:draws]
    quarters = [word >> shift & 0xFFFF for word in outputs for shift in (0, 16, 32, 48)][:draws]
    of = np.array([key], dtype=np.uint64)
    assert uniform(of, draws, stream).tolist() == [[(half >> 8) / (1 << 24) for half in halves]]
    assert bits(of, draws, stream).tolist() == [quarters]
    for bound in (0, 1, 1000, (1 << 31) - 1):
        assert below(np.array([bound]), of, draws, stream).tolist() == [[half * bound >> 32 for half in halves]]


def test_types_and_ranges() -> None:
    key = keys(0, np.arange(1000))
    assert (key.dtype, bits(key, 3, 0).dtype) == (np.uint64, np.uint16)
    drawn = uniform(key, 100, Stream.MASKS)
    assert drawn.dtype == np.float32
    assert drawn.shape == (1000, 100)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    numbers = below(np.full(1000, 7), key, 100, Stream.MASKS)
    assert numbers.dtype == np.int64
    assert np.bincount(numbers.ravel()).tolist() == pytest.approx([1e5 / 7] * 7, rel=0.05)


def test_numbers_are_uniform_and_independent() -> None:
    drawn = uniform(keys(5, np.arange(4000)), 50, Stream.MASKS).astype(np.float64)
    counts = np.histogram(drawn, bins=100, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 160  # chi-squared with 99 degrees of freedom: p = 1e-4
    other = uniform(keys(5, np.arange(4000)), 50, Stream.COLUMNS)
    pairs = {
        "draw and the next": (drawn[:, :-1], drawn[:, 1:]),
        "key and the next": (drawn[:-1], drawn[1:]),
        "seed and the next": (drawn, uniform(keys(6, np.arange(4000)), 50, Stream.MASKS)),
        "stream and another": (drawn, other),
    }
    for name, (a, b) in pairs.items():
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.012, name  # 5 standard errors


@given(seed=st.integers(0, 1000), rows=st.integers(1, 20), draws=st.integers(1, 9), more=st.integers(0, 9))
def test_a_row_depends_on_its_key_alone(seed: int, rows: int, draws: int, more: int) -> None:
    key = keys(seed, np.arange(rows))
    together = uniform(key, draws + more, Stream.MASKS)
    apart = [uniform(key[i : i + 1], draws, Stream.MASKS)[0] for i in reversed(range(rows))]
    assert (together[::-1, :draws] == np.stack(apart)).all()


# Shuffles ---------------------------------------------------------------------------------------------------


@given(n=st.one_of(st.integers(1, 12), st.integers(1, 3000)), turn=st.integers(0, 1 << 30), seed=words)
def test_a_pass_shows_everything_once(n: int, turn: int, seed: int) -> None:
    assert sorted(Shuffle(n, seed)(turn * n + np.arange(n)).tolist()) == list(range(n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 11, 13, 97, 101, 997, 7919, 1 << 16, (1 << 16) + 1])
def test_permutations_of_primes_and_powers(n: int) -> None:
    assert (np.sort(permuted(np.arange(n), n, keys(n))) == np.arange(n)).all()


def test_seventeen_million() -> None:
    n, some = 17_000_000, 200_000
    positions = 3 * n + np.arange(n - some, n + some)  # the end of a pass and the beginning of the next
    shown = Shuffle(n, 0)(positions)
    for part in (shown[:some], shown[some:]):
        assert len(np.unique(part)) == some
        assert part.min() >= 0
        assert part.max() < n
        assert np.histogram(part, bins=20, range=(0, n))[0].tolist() == pytest.approx([some / 20] * 20, rel=0.05)
        assert abs(np.corrcoef(np.arange(some), part)[0, 1]) < 0.012
        assert abs(np.corrcoef(part[:-1], part[1:])[0, 1]) < 0.012
    assert (Shuffle(n, 0)(positions[::-1]) == shown[::-1]).all()


def test_no_permutation_is_stored() -> None:
    shown = Shuffle(1 << 40, 0)(np.arange(1000))
    assert len(np.unique(shown >> 20)) > 990
    assert shown.max() < 1 << 40


def test_passes_and_seeds_differ() -> None:
    n = 500
    shown = [Shuffle(n, seed)(turn * n + np.arange(n)) for seed in range(4) for turn in range(4)]
    agreeing = [(a == b).sum() for i, a in enumerate(shown) for b in shown[:i]]
    assert max(agreeing) < 10  # 1 is expected
    assert Shuffle(n, 0)(np.array([7, 507])).tolist() == [shown[0][7], shown[1][7]]


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_permutations_of_few_things_are_about_equally_frequent(n: int) -> None:
    passes = 200 * factorial(n)
    shown = Shuffle(n, 1)(np.arange(passes * n)).reshape(passes, n)
    counts = np.unique(shown, axis=0, return_counts=True)[1]
    assert len(counts) == factorial(n)
    assert counts.tolist() == pytest.approx([200] * factorial(n), abs=100)


def test_every_thing_is_at_every_place_equally_often() -> None:
    n, passes = 30, 3000
    shown = Shuffle(n, 2)(np.arange(passes * n)).reshape(passes, n)
    counts = np.array([np.bincount(shown[:, place], minlength=n) for place in range(n)])
    assert ((counts - passes / n) ** 2 / (passes / n)).sum() < 1070  # chi-squared, 29 * 29 degrees: p = 1e-7


sizes = st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any)


@given(sizes=sizes, seed=st.integers(0, 1000), start=st.integers(0, 10_000))
def test_groups_come_equally_often(sizes: list[int], seed: int, start: int) -> None:
    filled = [i for i, size in enumerate(sizes) if size]
    group = np.repeat(np.arange(len(sizes)), sizes)
    positions = start * len(filled) + np.arange(5 * len(filled))
    shown = group[BalancedShuffle(sizes, seed)(positions)].reshape(5, -1)
    assert all(sorted(turn) == filled for turn in shown.tolist())


@given(sizes=sizes, seed=st.integers(0, 1000))
def test_each_group_is_shuffled_in_passes_of_its_own(sizes: list[int], seed: int) -> None:
    filled = [size for size in sizes if size]
    group = np.repeat(np.arange(len(sizes)), sizes)
    shown = BalancedShuffle(sizes, seed)(np.arange(3 * max(sizes) * len(filled)))
    for i, size in enumerate(sizes):
        own = shown[group[shown] == i]
        for turn in range(len(own) // max(1, size)):
            assert sorted(own[turn * size : (turn + 1) * size]) == np.flatnonzero(group == i).tolist()


def test_balanced_passes_and_seeds_differ() -> None:
    positions = np.arange(4000)
    shown = BalancedShuffle([500, 500], 0)(positions)
    assert (shown[:1000] != shown[1000:2000]).mean() > 0.9
    assert (shown != BalancedShuffle([500, 500], 1)(positions)).mean() > 0.9
    first, second = (shown[shown // 500 == group][:500] % 500 for group in (0, 1))
    assert (first != second).mean() > 0.9  # groups of equal size are shuffled differently
    assert 800 < (shown[::2] < 500).sum() < 1200  # the order of the groups is random too


# Runs -------------------------------------------------------------------------------------------------------

GROUP = np.random.default_rng(0).integers(-3, 9, size=100)


@pytest.mark.parametrize("most", [1, 3, 8, 200])
def test_a_pass_over_runs_has_everything_once(most: int) -> None:
    shuffle = RunShuffle(GROUP, most, 5)
    for turn in range(3):
        assert sorted(shuffle(turn * 100 + np.arange(100)).tolist()) == list(range(100))


@pytest.mark.parametrize("most", [3, 8, 200])
def test_alike_things_come_together_so_many_at_a_time(most: int) -> None:
    """There are as few runs as there can be: all of a group are full but for one."""
    shown = GROUP[RunShuffle(GROUP, most, 5)(np.arange(100, 200))]
    stretches = [len(list(members)) for _, members in groupby(shown.tolist())]
    fewest = sum(-(-count // most) for count in np.unique(GROUP, return_counts=True)[1])
    assert sum(-(-length // most) for length in stretches) <= fewest
    assert len(stretches) < 60


def test_runs_come_in_another_order_in_each_pass_and_for_each_seed() -> None:
    first, second = (RunShuffle(GROUP, 3, 0)(turn * 100 + np.arange(100)) for turn in (0, 1))
    assert (first != second).mean() > 0.8
    assert (first != RunShuffle(GROUP, 3, 1)(np.arange(100))).mean() > 0.8


def test_what_comes_does_not_depend_on_what_came_before() -> None:
    positions = np.array([250, 3, 199, 200, 101, 3])
    shuffle = RunShuffle(GROUP, 4, 2)
    shown = shuffle(positions)
    assert [RunShuffle(GROUP, 4, 2)(np.array([position])).item() for position in positions] == shown.tolist()
    assert shuffle(positions[::-1]).tolist() == shown[::-1].tolist()


def test_each_run_is_as_often_first() -> None:
    group = np.repeat(np.arange(5), 3)
    shuffle = RunShuffle(group, 3, 0)
    first = np.bincount([group[shuffle(np.array([15 * turn]))].item() for turn in range(2000)], minlength=5)
    assert first / 2000 == pytest.approx([0.2] * 5, abs=0.04)


def test_runs_and_their_orders_are_drawn_from_hashes_of_their_own() -> None:
    """Once a thing's rank in its group and the order of the pass of the same number were drawn from one hash."""
    ranked = sorted(range(100), key=lambda thing: (GROUP[thing], key_of(5, 0, thing)))
    members = [list(found) for _, found in groupby(ranked, key=GROUP.__getitem__)]
    runs = [found[i : i + 3] for found in members for i in range(0, len(found), 3)]
    shuffle = RunShuffle(GROUP, 3, 5)
    for turn in range(3):
        order = permuted(np.arange(len(runs)), len(runs), keys(5, 1, turn))
        assert shuffle(turn * 100 + np.arange(100)).tolist() == [thing for run in order for thing in runs[run]]


def test_a_copy_in_another_process_shows_the_same() -> None:
    """Once it held a wrapped method, which could not be pickled."""
    positions = np.arange(150, 250)
    shuffle = RunShuffle(GROUP, 4, 2)
    for copy in (pickle.loads(pickle.dumps(shuffle)), shuffle, pickle.loads(pickle.dumps(shuffle))):
        assert copy(positions).tolist() == RunShuffle(GROUP, 4, 2)(positions).tolist()
