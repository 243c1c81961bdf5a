"""Sequences that share a stretch of 32 bases, on either strand: copies, overlaps and young repeats.

A model may have seen the answer for a test sequence that shares such a stretch with a training sequence.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from genebert.schema import N, Split, decode, reverse_complement

LENGTH = 32
"""In bases; so long a word fills 64 bits, and does not recur by chance."""
_ROWS = 1 << 14  # looked at together
_PREFIX = 24  # bits that a word begins with
_REST = np.uint64(2 * LENGTH - _PREFIX)


def words(codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the words of 32 bases in sequences, a word and its reverse complement being the same.

    Args:
        codes: base codes, uint8, shape (n, length); words that cover an N are left out.

    Returns:
        rows, int64, and words, uint64, both of shape (words in all,), ascending by row.
    """
    found = [_words(codes[start : start + _ROWS], start) for start in range(0, len(codes), _ROWS)]
    rows, values = zip(*found, strict=True) if found else ((), ())
    return np.concatenate([np.empty(0, np.int64), *rows]), np.concatenate([np.empty(0, np.uint64), *values])


def _words(codes: NDArray[np.uint8], first_row: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    places = codes.shape[1] - LENGTH + 1
    if places <= 0:
        return np.empty(0, np.int64), np.empty(0, np.uint64)
    whole = np.lib.stride_tricks.sliding_window_view(codes == N, LENGTH, axis=1).any(axis=2)
    canonical = np.minimum(_packed(codes), _packed(reverse_complement(codes))[:, ::-1])
    row, place = np.nonzero(~whole)
    return row + first_row, canonical[row, place]


def _packed(codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return each word as a number, two bits a base: uint64, shape (n, length - 31)."""
    places = codes.shape[1] - LENGTH + 1
    packed = np.zeros((len(codes), places), dtype=np.uint64)
    for offset in range(LENGTH):
        packed = (packed << np.uint64(2)) | (codes[:, offset : offset + places] & 3)
    return packed


def sharing(codes: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which sequences share a word with any of the others: bool, shape (n,); both are base codes."""
    return sharing_with_any(codes, (others[start : start + _ROWS] for start in range(0, len(others), _ROWS)))


def sharing_with_any(codes: NDArray[np.uint8], blocks: Iterable[NDArray[np.uint8]]) -> NDArray[np.bool_]:
    """Return which sequences share a word with any of the others, as `sharing`.

    Args:
        codes: base codes, uint8, shape (n, length).
        blocks: the others; the words of one block at a time are held.
    """
    row, word = words(codes)
    unique, place = np.unique(word, return_inverse=True)
    begins = np.zeros(1 << _PREFIX, dtype=bool)  # of words: most of the others begin like none, and need no search
    begins[unique >> _REST] = True
    shared = np.zeros(len(unique), dtype=bool)
    for block in blocks:
        others = words(block)[1]
        others = others[begins[others >> _REST]]
        near = np.minimum(np.searchsorted(unique, others), len(unique) - 1)
        shared[near[unique[near] == others]] = True
    found = np.zeros(len(codes), dtype=bool)
    found[row[shared[place]]] = True
    return found


def groups(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return a group number for each sequence: those that share a word, directly or through others, have one.

    So have those that are equal as a whole, on either strand, however short they are.

    Args:
        codes: base codes, uint8, shape (n, length).

    Returns:
        int64, shape (n,), numbered by first appearance.
    """
    row, word = words(codes)
    unique, index = np.unique(word, return_inverse=True)
    count = len(codes)
    whole = np.unique(_names(codes), return_inverse=True)[1]
    row, index = np.concatenate([row, np.arange(count)]), np.concatenate([index, len(unique) + whole])
    size = count + len(unique) + count
    graph = sparse.coo_matrix((np.ones(len(row), dtype=np.int8), (row, count + index)), shape=(size, size))
    label = connected_components(graph, directed=False)[1][:count]
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _names(codes: NDArray[np.uint8]) -> list[str]:
    """Return what tells a sequence from all that are not equal to it, on either strand; of one of N alone, its row."""
    strands = zip(codes, reverse_complement(codes), strict=True)
    either = (min(decode(row).strip("N"), decode(other).strip("N")) for row, other in strands)
    return [name or str(row) for row, name in enumerate(either)]


def divided(group: NDArray[np.int64], fractions: Mapping[Split, float], generator: np.random.Generator) -> list[str]:
    """Return the split of each row.

    Args:
        group: from 0 on, int64, shape (n,); rows of one group go together.
        fractions: split -> fraction of all rows. Groups go there in an order drawn at random, each to the first split
            that still has room for all of it; what is left is for training.
        generator: draws.
    """
    size = np.bincount(group)
    room = {split: round(fraction * len(group)) for split, fraction in fractions.items()}
    split_of_group = np.full(len(size), "train", dtype=object)
    for chosen in generator.permutation(len(size)).tolist():
        split = next((split for split, free in room.items() if size[chosen] <= free), None)
        if split is not None:
            split_of_group[chosen] = split
            room[split] -= size[chosen]
    return split_of_group[group].tolist()
