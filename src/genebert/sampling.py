"""Counter-based randomness: a random number is a hash of what it is for, not of what was drawn before it.

Everything random about an example depends on the seed and on its position in the endless stream of examples alone.
So the size of batches, the number of processes and loader workers, and resuming change nothing. The hash is the
finaliser of splitmix64 (Steele, Lea and Flood 2014, OOPSLA); the idea is that of Salmon et al. 2011 (SC).
"""

from collections.abc import Sequence
from enum import IntEnum, auto

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_WORD = (1 << 64) - 1
_ROUNDS = 12
"""With 8, permutations of five things are not yet equally frequent."""


class Stream(IntEnum):
    """What random numbers of an example are for; numbers of different streams are independent."""

    ADJACENT = auto()
    CANDIDATES = auto()
    MASKS = auto()
    REPLACEMENTS = auto()
    KMERS = auto()
    MOTIF_GROUPS = auto()
    COLUMNS = auto()
    CELL_TYPE = auto()


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finaliser of splitmix64 of each word: a bijection of 64 bits."""
    words = words ^ (words >> np.uint64(30))
    words *= _FIRST
    words ^= words >> np.uint64(27)
    words *= _SECOND
    words ^= words >> np.uint64(31)
    return words


def keys(seed: int, *parts: int | NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a hash of integers: uint64, of the common shape of the parts, at least (1,).

    With s the seed, it is the first output of a splitmix64 generator in the state s; with a further part p, that
    of one in the state (hash so far) + p.
    """
    state = _mix(np.array([seed & _WORD], dtype=np.uint64) + _GAMMA)
    for part in parts:
        state = _mix(state + np.asarray(part).astype(np.uint64) + _GAMMA)
    return state


def _words(key: NDArray[np.uint64], count: int, stream: int) -> NDArray[np.uint64]:
    """Return the first outputs of splitmix64 generators in the states hash(key, stream): uint64, shape (b, count)."""
    start = _mix(key + np.uint64(stream) + _GAMMA)
    return _mix(start[:, None] + _GAMMA * np.arange(1, count + 1, dtype=np.uint64))


def bits(key: NDArray[np.uint64], draws: int, stream: int) -> NDArray[np.uint16]:
    """Return random 16-bit integers: uint16, shape (b, draws); see `uniform`."""
    return _words(key, -(-draws // 4), stream).view(np.uint16)[:, :draws]


def uniform(key: NDArray[np.uint64], draws: int, stream: int) -> NDArray[np.float32]:
    """Return random numbers in [0, 1), multiples of 2^-24: float32, shape (b, draws).

    Args:
        key: uint64, shape (b,); a row depends on its key alone.
        draws: numbers per key.
        stream: what they are for.
    """
    words = _words(key, -(-draws // 2), stream).view(np.uint32)[:, :draws]
    return (words >> 8).astype(np.float32) * np.float32(2**-24)


def below(bound: NDArray[np.int64], key: NDArray[np.uint64], draws: int, stream: int) -> NDArray[np.int64]:
    """Return random integers in [0, bound) of each row: int64, shape (b, draws).

    Args:
        bound: int64, shape (b,), less than 2^31; 0 gives 0.
        key, draws, stream: see `uniform`.
    """
    words = _words(key, -(-draws // 2), stream).view(np.uint32)[:, :draws]
    return (words.astype(np.int64) * bound[:, None]) >> 32


def permuted(place: NDArray[np.int64], size: int | NDArray[np.int64], key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return where keyed permutations of [0, size) move places to, without storing a permutation.

    An alternating Feistel network over a grid of about sqrt(size) rows and columns (Black and Rogaway 2002,
    CT-RSA) permutes the grid; a place that falls on one of the grid's few cells outside [0, size) is moved again.

    Args:
        place: int64, shape (b,), in [0, size).
        size: of each permutation, at least 1; an int or int64, shape (b,).
        key: of each permutation, uint64, shape (b,) or (1,).

    Returns:
        int64, shape (b,).
    """
    sizes = np.broadcast_to(size, place.shape).astype(np.uint64)
    key = np.broadcast_to(key, place.shape)
    rows = np.ceil(np.sqrt(sizes)).astype(np.uint64)
    columns = (sizes + rows - np.uint64(1)) // rows
    found = _feistel(place.astype(np.uint64), rows, columns, key)
    while len(outside := np.flatnonzero(found >= sizes)):
        found[outside] = _feistel(found[outside], rows[outside], columns[outside], key[outside])
    return found.astype(np.int64)


def _feistel(
    cell: NDArray[np.uint64], rows: NDArray[np.uint64], columns: NDArray[np.uint64], key: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    row, column = np.divmod(cell, columns)
    for turn in range(_ROUNDS):
        shift = _mix(key + _GAMMA * (column + np.uint64((turn << 32) + 1))) >> 32
        moved = row + (shift * rows >> 32)
        row, rows, column, columns = column, columns, moved - rows * (moved >= rows), rows
    return row * columns + column


class Shuffle:
    """Shuffles an endless stream of passes over n things: each pass is another permutation, which is not stored.

    Args:
        n: number of things, at least 1.
        seed: of the permutations.
    """

    def __init__(self, n: int, seed: int) -> None:
        self.n = n
        self.seed = seed

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which thing is at each position of the stream: int64, in [0, n), shape (b,)."""
        turn, place = np.divmod(positions, self.n)
        return permuted(place, self.n, keys(self.seed, turn))


class RunShuffle:
    """Shuffles an endless stream of passes over things of which alike ones come together, some at a time.

    Things of a group are divided into runs, at random, but the same in each pass; each pass has the runs in another
    order.

    Args:
        group: which things are alike, int64, shape (n,).
        most: things in a run.
        seed: of the division and of the orders.
    """

    def __init__(self, group: NDArray[np.int64], most: int, seed: int) -> None:
        self.seed = seed
        self._things = np.lexsort((keys(seed, 0, np.arange(len(group))), group))
        begins = np.diff(group[self._things], prepend=group.min() - 1) != 0
        rank = np.arange(len(group)) - np.maximum.accumulate(np.where(begins, np.arange(len(group)), 0))
        self._first = np.flatnonzero(rank % most == 0)
        self._size = np.diff(self._first, append=len(group))
        self._orders: dict[int, NDArray[np.int64]] = {}  # of the passes last asked for: one, or also the next

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which thing is at each position of the stream: int64, in [0, n), shape (b,)."""
        turn, place = np.divmod(positions, len(self._things))
        found = np.empty(len(positions), dtype=np.int64)
        self._orders = {i: self._orders[i] if i in self._orders else self._order(i) for i in np.unique(turn).tolist()}
        for number, order in self._orders.items():
            found[turn == number] = order[place[turn == number]]
        return found

    def _order(self, turn: int) -> NDArray[np.int64]:
        """Return all things in the order of one pass."""
        runs = len(self._first)
        chosen = permuted(np.arange(runs), runs, keys(self.seed, 1, turn))
        size = self._size[chosen]
        within = np.arange(len(self._things)) - np.repeat(np.cumsum(size) - size, size)
        return self._things[np.repeat(self._first[chosen], size) + within]


class BalancedShuffle:
    """Shuffles an endless stream in which groups of things come equally often, each in turns of its own.

    Any stretch of as many positions as there are groups that begins at a multiple of this number has one thing of
    each group, the groups in random order. A group's things are shuffled as by `Shuffle`; those of small groups come
    more often.

    Args:
        sizes: number of things in each group; they are numbered through. Empty groups are passed over.
        seed: of the permutations.
    """

    def __init__(self, sizes: Sequence[int] | NDArray[np.int64], seed: int) -> None:
        counts = np.asarray(sizes, dtype=np.int64)
        self._first = (np.cumsum(counts) - counts)[counts > 0]
        self._sizes = counts[counts > 0]
        self.seed = seed

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which thing is at each position of the stream: int64, in [0, sum of sizes), shape (b,)."""
        turn, place = np.divmod(positions, len(self._sizes))
        group = permuted(place, len(self._sizes), keys(self.seed, 0, turn))
        again, place = np.divmod(turn, self._sizes[group])
        return self._first[group] + permuted(place, self._sizes[group], keys(self.seed, 1, group, again))
