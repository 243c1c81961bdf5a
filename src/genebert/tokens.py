"""Overlapping k-mer tokens, computed in bulk from base codes, and leak-free masking.

The vocabulary is DNABERT's (Ji et al. 2021, Bioinformatics 37:2112): [PAD] [UNK] [CLS] [SEP] [MASK], then all
k-mers with the bases in the order A T C G, the last base varying fastest. A k-mer that holds an N is [UNK].
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genebert.schema import N

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL_TOKENS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY_BASES: Final = "ATCG"
DIGIT_OF_CODE: Final = np.array([0, 2, 3, 1, 0], dtype=np.int64)
"""Place of each base code (A C G T N) in the vocabulary's base order A T C G."""
_LONGEST_RUN = 6
"""Bases are hidden in runs of 1 to 6, uniformly."""


def vocabulary_size(k: int) -> int:
    """Return the number of tokens: the special ones and 4^k k-mers."""
    return len(SPECIAL_TOKENS) + (1 << 2 * k)


def tokenize(codes: NDArray[np.uint8], k: int) -> NDArray[np.int64]:
    """Return the tokens of sequences of equal length.

    Args:
        codes: base codes, uint8, shape (..., length), length >= k.
        k: length of a k-mer.

    Returns:
        int64, shape (..., length - k + 1); token t covers the bases t .. t + k - 1.
    """
    count = codes.shape[-1] - k + 1
    digits = DIGIT_OF_CODE[codes]
    kmers = np.zeros((*codes.shape[:-1], count), dtype=np.int64)
    unknown = np.zeros(kmers.shape, dtype=bool)
    for offset in range(k):
        kmers = 4 * kmers + digits[..., offset : offset + count]
        unknown |= codes[..., offset : offset + count] == N
    return np.where(unknown, UNK, kmers + len(SPECIAL_TOKENS))


def assemble(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return [CLS] first [SEP] second [SEP] and the segment of each token.

    Args:
        first, second: tokens of two segments, int64, shape (b, t1) and (b, t2).

    Returns:
        token ids and segment ids (0 or 1), both int64, shape (b, t1 + t2 + 3).
    """
    rows = len(first)
    cls, sep = np.full((rows, 1), CLS), np.full((rows, 1), SEP)
    ids = np.concatenate([cls, first, sep, second, sep], axis=1)
    segments = np.zeros_like(ids)
    segments[:, first.shape[1] + 2 :] = 1
    return ids, segments


def sequence_tokens(codes: NDArray[np.uint8], k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the network's input for whole sequences: their two halves, as in pre-training.

    Args:
        codes: base codes, uint8, shape (b, length).
        k: length of a k-mer.

    Returns:
        token ids and segment ids, int64, shape (b, length - 2 * k + 5).
    """
    half = codes.shape[1] // 2
    return assemble(tokenize(codes[:, :half], k), tokenize(codes[:, half:], k))


class HiddenBases(NamedTuple):
    """Which bases are to be predicted, and which tokens are masked so that none gives them away.

    Attributes:
        masked: bool, shape (b, tokens): tokens to replace by [MASK].
        row, token: int64, shape (s,): for each hidden base, its row and the token whose central base it is.
        digit: int64, shape (s,): the base, in the vocabulary's base order.
    """

    masked: NDArray[np.bool_]
    row: NDArray[np.int64]
    token: NDArray[np.int64]
    digit: NDArray[np.int64]


def hide_bases(codes: NDArray[np.uint8], k: int, fraction: float, generator: np.random.Generator) -> HiddenBases:
    """Choose bases to hide, in runs, and mask every token that covers one of them.

    With overlapping k-mers, masking k contiguous tokens hides one single base: the others are read off the
    neighbours. Here all tokens over a hidden base are masked, and only hidden bases are scored.

    Args:
        codes: base codes of one segment, uint8, shape (b, length).
        k: length of a k-mer.
        fraction: of the bases to hide, roughly (runs may overlap).
        generator: source of randomness.
    """
    rows, length = codes.shape
    begins = generator.random((rows, length)) < fraction / ((1 + _LONGEST_RUN) / 2)
    run = generator.integers(1, _LONGEST_RUN + 1, size=(rows, length))
    hidden = np.zeros((rows, length), dtype=bool)
    for step in range(_LONGEST_RUN):
        hidden[:, step:] |= (begins & (run > step))[:, : length - step]
    tokens = length - k + 1
    central = np.arange(length) - k // 2  # the token whose central base it is; it has to exist
    hidden &= (codes != N) & (central >= 0) & (central < tokens)
    masked = np.zeros((rows, tokens), dtype=bool)
    for offset in range(k):
        masked |= hidden[:, offset : offset + tokens]
    row, base = np.nonzero(hidden)
    return HiddenBases(masked, row, base - k // 2, DIGIT_OF_CODE[codes[row, base]])
