"""Features of windows that methods without a network of their own learn from.

Words are counted as sparse matrices: most words of a window's length do not occur in it. A word that holds an N is
not counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from itertools import combinations, product
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from genebert.errors import UserError, problem
from genebert.methods.base import Examples
from genebert.methods.cell_type_features import accessibility_columns, usage_products
from genebert.schema import N
from genebert.tokens import SPECIAL_TOKENS, UNK, tokenize

KmerLengths = tuple[Annotated[int, Field(ge=1, le=7)], ...]
"""Option of methods that count k-mers: there are up to 4^k columns."""


def kmer_counts(codes: NDArray[np.uint8], k: int, *, both_strands: bool = False) -> sparse.csr_matrix:
    """Return how often each k-mer occurs in each sequence: sparse float64, shape (n, k-mers).

    Args:
        codes: base codes, uint8, shape (n, length).
        k: length of a k-mer.
        both_strands: a k-mer and its reverse complement are one, as in `gapped_kmer_counts`; else there are 4^k, on
            the strand as given, in the order of `tokens.vocabulary`.

    Raises:
        UserError: the sequences are shorter than a k-mer.
    """
    if both_strands:
        return gapped_kmer_counts(codes, k, k)
    _check_length(codes, k)
    tokens = tokenize(codes, k)
    row, column = np.nonzero(tokens != UNK)
    index = tokens[row, column] - len(SPECIAL_TOKENS)
    return sparse.csr_matrix((np.ones(len(row)), (row, index)), shape=(len(codes), 4**k))


def gapped_kmer_counts(
    codes: NDArray[np.uint8], length: int, informative: int, *, both_strands: bool = True
) -> sparse.csr_matrix:
    """Return how often each gapped k-mer occurs in each sequence: sparse float64, shape (n, words).

    A gapped k-mer (Ghandi et al. 2014) has so many informative positions within a stretch of so many bases, and any
    base at the others. With length = informative, these are the k-mers.

    Args:
        codes: base codes, uint8, shape (n, bases).
        length: of the stretch, l.
        informative: positions whose base matters, k <= l; there are C(l, k) 4^k words, for both strands half of them
            (a few more if k is even).
        both_strands: a word and its reverse complement are one; else, the strand as given.

    Raises:
        UserError: the sequences are shorter than a stretch.
    """
    _check_length(codes, length)
    places = codes.shape[1] - length + 1
    words = _words(length, informative, both_strands)
    column = np.empty((len(codes), len(words), places), dtype=np.int32)
    known = np.empty(column.shape, dtype=bool)
    for i, pattern in enumerate(combinations(range(length), informative)):
        bases = [codes[:, offset : offset + places] for offset in pattern]
        known[:, i] = reduce(np.logical_and, (base < N for base in bases))
        column[:, i] = words[i, _numbers(bases)]
    ends = np.arange(len(codes) + 1) * column[:1].size
    shape = len(codes), int(words.max()) + 1
    counts = sparse.csr_matrix((known.reshape(-1).astype(np.float64), column.reshape(-1), ends), shape=shape)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def _numbers(bases: list[NDArray[np.uint8]]) -> NDArray[np.int32]:
    """Return words as numbers to the base of four, the first base being the highest digit (an N counts as A)."""
    return reduce(lambda number, base: number * 4 + (base & 3), bases, np.zeros(bases[0].shape, dtype=np.int32))


@cache
def _words(length: int, informative: int, both_strands: bool) -> NDArray[np.int32]:
    """Return the column of each word: int32, shape (C(length, informative), 4^informative)."""
    patterns = list(combinations(range(length), informative))
    own = np.arange(len(patterns) * 4**informative, dtype=np.int32).reshape(len(patterns), -1)
    if not both_strands:
        return own
    number = {pattern: i for i, pattern in enumerate(patterns)}
    mirrored = [number[tuple(length - 1 - offset for offset in reversed(pattern))] for pattern in patterns]
    bases = np.array(np.unravel_index(np.arange(4**informative), (4,) * informative))
    complement = _numbers(list((3 - bases[::-1]).astype(np.uint8)))
    both = np.minimum(own, own[mirrored][:, complement])
    return np.unique(both, return_inverse=True)[1].reshape(own.shape).astype(np.int32)


def base_columns(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return which base lies at each position, one column per position and base: 0 or 1, shape (n, 4 * length)."""
    return (codes[:, :, None] == np.arange(N)).reshape(len(codes), -1).astype(np.float32)


def composition(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what windows are made of, alike on both strands: float32, shape (n, 13).

    GC content, GC skew and AT skew (without their sign), as fractions of the window; then the log-odds of the ten
    dinucleotides, a dinucleotide and its reverse complement being one, against what the bases alone would give (Burge,
    Campbell and Karlin 1992, PNAS 89:1358). So CpG islands are told from what is merely rich in G and C.

    Args:
        codes: base codes, uint8, shape (n, length).
    """
    length = codes.shape[1]
    bases = np.stack([(codes == base).sum(axis=1) for base in range(N)])
    a, c, g, t = bases
    columns = [(c + g) / length, np.abs(c - g) / length, np.abs(a - t) / length]
    for first, second in product(range(N), repeat=2):
        mirrored = N - 1 - second, N - 1 - first
        if (first, second) > mirrored:
            continue
        found = sum(((codes[:, :-1] == x) & (codes[:, 1:] == y)).sum(axis=1) for x, y in ((first, second), mirrored))
        expected = (bases[first] * bases[second] + bases[mirrored[0]] * bases[mirrored[1]]) / length
        columns.append(np.log((found + 1) / (expected + 1)))
    return np.stack(columns, axis=1).astype(np.float32)


def cell_type_columns(examples: Examples) -> sparse.csr_matrix:
    """Return in which cell type each window is looked at: 0 or 1, shape (n, cell types); no column without context."""
    n = len(examples)
    if examples.context is None:
        return sparse.csr_matrix((n, 0))
    entries = np.ones(n), (np.arange(n), examples.context.cell_type)
    return sparse.csr_matrix(entries, shape=(n, examples.cell_types))


def with_cell_type(features: sparse.csr_matrix, examples: Examples) -> sparse.csr_matrix:
    """Return features with the columns of the cell types beside them, if the windows have any."""
    if examples.context is None:
        return features
    return sparse.hstack([features, cell_type_columns(examples)], format="csr")


@dataclass(frozen=True)
class DenseFeatures:
    """Which features trees see, beside the cell type.

    Attributes:
        motifs: the evidence of each motif in the whole window.
        kmers: lengths of the k-mers to count.
        both_strands: a k-mer and its reverse complement are one.
        bases: which base lies at each position.
        composition: see `composition`.
        usage: of rows that name cell types, which motifs these use, in place of their names.
        accessibility: of the surroundings of windows in their cell types ("around"), and of themselves, too ("own").
    """

    motifs: bool
    kmers: Sequence[int]
    both_strands: bool
    bases: bool
    composition: bool = False
    usage: bool = False
    accessibility: Literal["none", "around", "own"] = "none"

    def of(self, examples: Examples) -> NDArray[np.float32]:
        """Return the features of windows: float32, shape (n, features).

        Raises:
            UserError: the windows are shorter than a k-mer.
        """
        parts: list[NDArray[Any]] = [*self._of_cell_types(examples)]
        if self.motifs:
            parts.append(examples.evidence)
        parts += [kmer_counts(examples.codes, k, both_strands=self.both_strands).toarray() for k in self.kmers]
        if self.bases:
            parts.append(base_columns(examples.codes))
        if self.composition:
            parts.append(composition(examples.codes))
        return np.concatenate([np.empty((len(examples), 0)), *parts], axis=1, dtype=np.float32)

    def _of_cell_types(self, examples: Examples) -> Iterator[NDArray[np.float32]]:
        if examples.context is None:
            return
        if self.usage:
            yield usage_products(examples)
        if self.accessibility != "none":
            yield accessibility_columns(examples, own=self.accessibility == "own")
        if not self.usage and self.accessibility == "none":
            yield cell_type_columns(examples).toarray()


def _check_length(codes: NDArray[np.uint8], least: int) -> None:
    if codes.shape[1] < least:
        what = f"they have {codes.shape[1]} bp, and words of {least} bp are to be counted"
        raise UserError(problem("windows", what, "Count shorter words, or give longer windows."))
