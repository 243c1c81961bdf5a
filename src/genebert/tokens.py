"""Overlapping k-mer tokens, computed in bulk from base codes, and masking.

The vocabulary is DNABERT's (Ji et al. 2021, Bioinformatics 37:2112): [PAD] [UNK] [CLS] [SEP] [MASK], then all
k-mers with the bases in the order A T C G, the last base varying fastest. A k-mer that holds an N is [UNK].

The network's input is [CLS] first [SEP] second [SEP]: tokens of the two halves of the bases; none spans both.
"""

from functools import cache
from itertools import product
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from genebert.sampling import Stream, bits
from genebert.schema import N

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL_TOKENS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY_BASES: Final = "ATCG"
DIGIT_OF_CODE: Final = np.array([0, 2, 3, 1, 0], dtype=np.int64)
"""Place of each base code (A C G T N) in the vocabulary's base order A T C G."""
_ALWAYS = 1 << 16
"""Probabilities are multiples of 2^-16, compared with random 16-bit integers."""
Codes = TypeVar("Codes", NDArray[Any], torch.Tensor)


def vocabulary(k: int) -> list[str]:
    """Return all tokens: the special ones and the 4^k k-mers."""
    return [*SPECIAL_TOKENS, *map("".join, product(VOCABULARY_BASES, repeat=k))]


def vocabulary_size(k: int) -> int:
    """Return the number of tokens: the special ones and 4^k k-mers."""
    return len(SPECIAL_TOKENS) + (1 << 2 * k)


def tokenize(codes: Codes, k: int) -> Codes:
    """Return the tokens of sequences of equal length.

    Args:
        codes: base codes, uint8, shape (..., length), length >= k; a numpy array, or a tensor on any device.
        k: length of a k-mer, at most 14.

    Returns:
        int64, shape (..., length - k + 1), of the same kind; token t covers the bases t .. t + k - 1.
    """
    return _cast(_small_tokens(codes, k), "int64")


def _small_tokens(codes: Codes, k: int) -> Codes:
    """Do the same in the smallest type: k-mers are joined to others twice as long, and these to longer ones."""
    # A C G T are 0 1 2 3 here and 0 2 3 1 in the vocabulary: doubling in the field of four elements
    digits = _cast((codes << 1 ^ 7 * (codes >> 1)) & 3, "int16" if k < 8 else "int32")
    is_base = codes < N
    kmers, known, length = digits, is_base, 1
    for odd in f"{k:b}"[1:]:
        kmers = (kmers[..., :-length] << 2 * length) + kmers[..., length:]
        known = known[..., :-length] & known[..., length:]
        length *= 2
        if odd == "1":
            kmers = (kmers[..., :-1] << 2) + digits[..., length:]
            known = known[..., :-1] & is_base[..., length:]
            length += 1
    return (kmers + (len(SPECIAL_TOKENS) - UNK)) * known + UNK


def _cast(array: Codes, dtype: str) -> Codes:
    return array.to(getattr(torch, dtype)) if isinstance(array, torch.Tensor) else array.astype(dtype)


def assemble(tokens: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return [CLS] first [SEP] second [SEP], without the tokens that span both halves.

    Args:
        tokens: of whole sequences, shape (b, length - k + 1), length >= 2 * k.
        k: length of a k-mer.

    Returns:
        int64, shape (b, length - 2 * k + 5).
    """
    half = (tokens.shape[1] + k - 1) // 2
    first, second = tokens[:, : half - k + 1], tokens[:, half:]
    ids = np.empty((len(tokens), first.shape[1] + second.shape[1] + 3), dtype=np.int64)
    ids[:, 0] = CLS
    ids[:, 1 : first.shape[1] + 1] = first
    ids[:, first.shape[1] + 1] = ids[:, -1] = SEP
    ids[:, first.shape[1] + 2 : -1] = second
    return ids


def segments(rows: int, length: int, k: int) -> NDArray[np.int64]:
    """Return the segment (0 or 1) of each token of assembled sequences: int64, shape (rows, length - 2 * k + 5)."""
    found = np.zeros((rows, length - 2 * k + 5), dtype=np.int64)
    found[:, length // 2 - k + 3 :] = 1
    return found


def sequence_tokens(codes: NDArray[np.uint8], k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the network's input for whole sequences, as in pre-training.

    Args:
        codes: base codes, uint8, shape (b, length).
        k: length of a k-mer.

    Returns:
        token ids and segment ids, int64, shape (b, length - 2 * k + 5).
    """
    return assemble(_small_tokens(codes, k), k), segments(len(codes), codes.shape[1], k)


def reverse_tokens(ids: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return the tokens of the reverse complement of sequences of even length.

    Args:
        ids: assembled tokens, int64, shape (b, tokens); what is masked is masked in the result too.
        k: length of a k-mer.

    Returns:
        int64, same shape: [CLS] reverse complement of the second half [SEP] that of the first [SEP].
    """
    reverse = np.empty_like(ids)
    reverse[:, [0, -1]] = ids[:, [0, -1]]
    reverse[:, 1:-1] = _complements(k)[ids[:, -2:0:-1]]
    return reverse


@cache
def _complements(k: int) -> NDArray[np.int64]:
    """Return the token of the reverse complement of each token; a special token is its own."""
    kmers = np.arange(1 << 2 * k)
    reverse = np.zeros_like(kmers)
    for _ in range(k):
        reverse = reverse << 2 | (kmers & 3 ^ 1)  # A and T, C and G differ in the last bit of their digits
        kmers >>= 2
    return np.concatenate([np.arange(len(SPECIAL_TOKENS)), reverse + len(SPECIAL_TOKENS)])


class MaskedTokens(NamedTuple):
    """The network's input with some of it masked, and what is to be predicted.

    Attributes:
        ids: int64, shape (b, tokens).
        row, token: int64, shape (s,): where in `ids` something is predicted.
        target: int64, shape (s,): what, see the function that masked.
    """

    ids: NDArray[np.int64]
    row: NDArray[np.int64]
    token: NDArray[np.int64]
    target: NDArray[np.int64]


def hide_bases(
    codes: NDArray[np.uint8], k: int, fraction: float, key: NDArray[np.uint64], longest_run: int = 6
) -> MaskedTokens:
    """Choose bases to hide, in runs, and mask every token that covers one of them.

    With overlapping k-mers, masking k contiguous tokens hides one single base: the others are read off the
    neighbours. Here all tokens over a hidden base are masked, and only hidden bases are scored: `target` is the
    base, in the vocabulary's base order, and `token` the one whose central base it is.

    Args:
        codes: base codes, uint8, shape (b, length).
        k: length of a k-mer.
        fraction: of the bases to hide, roughly (runs may overlap).
        key: source of randomness of each row, uint64, shape (b,).
        longest_run: bases are hidden in runs of 1 to so many, uniformly.
    """
    return hide(codes, k, _runs(bits(key, codes.shape[1], Stream.MASKS), fraction, longest_run))


def hide(codes: NDArray[np.uint8], k: int, hidden: NDArray[np.bool_]) -> MaskedTokens:
    """Hide given bases as `hide_bases` does; an N, or a base that is the central one of no token, is not hidden.

    Args:
        codes, k: see `hide_bases`.
        hidden: which bases, bool, shape (b, length).
    """
    length = codes.shape[1]
    hidden = hidden & (codes < N) & can_be_hidden(length, k)
    tokens = _small_tokens(codes, k)
    np.putmask(tokens, _any_of(hidden, k), MASK)
    row, base = np.nonzero(hidden)
    central = base - k // 2  # first base of the k-mer whose central base it is
    token = np.where(central < length // 2, central + 1, central - k + 3)  # where `assemble` puts it
    return MaskedTokens(assemble(tokens, k), row, token, DIGIT_OF_CODE[codes[row, base]])


def can_be_hidden(length: int, k: int) -> NDArray[np.bool_]:
    """Tell which bases of a sequence are the central one of a token, and can so be hidden: bool, shape (length,)."""
    first = np.arange(length) - k // 2
    half, last = length // 2, first + k - 1
    return ((first >= 0) & (last < half)) | ((first >= half) & (last < length))


def _runs(random: NDArray[np.uint16], fraction: float, longest: int) -> NDArray[np.bool_]:
    """Return runs of 1 to `longest` bases that cover a fraction of all, roughly: bool, same shape.

    A run begins where the number is small, and the smaller it is, the longer is the run.
    """
    begin = fraction / ((1 + longest) / 2) * _ALWAYS
    inside = random < round(begin)
    for step in range(1, longest):
        inside[:, step:] |= random[:, :-step] < round(begin * (1 - step / longest))
    return inside


def mask_kmers(codes: NDArray[np.uint8], k: int, fraction: float, key: NDArray[np.uint64]) -> MaskedTokens:
    """Choose runs of k tokens as DNABERT does (Ji et al. 2021), most of whose bases are visible beside them.

    A fraction / k of the tokens is chosen, each with its neighbours, k in all. Of these 80 % become [MASK], 10 % a
    random k-mer, and 10 % stay as they are; all are scored but those with an N. `target` is the k-mer, from 0.

    Args:
        codes, k, key: see `hide_bases`.
        fraction: of the tokens to mask, roughly (runs may overlap).
    """
    ids = assemble(_small_tokens(codes, k), k)
    special = (ids[:1] == CLS) | (ids[:1] == SEP)
    chosen = (bits(key, ids.shape[1], Stream.MASKS) < round(fraction / k * _ALWAYS)) & ~special
    around = np.pad(chosen, ((0, 0), (k // 2, (k - 1) // 2)))  # (k - 1) // 2 before and k // 2 after the chosen one
    row, token = np.nonzero(_any_of(around, k) & ~special)
    was = ids[row, token]
    what = bits(key, ids.shape[1], Stream.REPLACEMENTS)[row, token]
    random = len(SPECIAL_TOKENS) + bits(key, ids.shape[1], Stream.KMERS)[row, token] % (1 << 2 * k)
    ids[row, token] = np.where(what < 0.8 * _ALWAYS, MASK, np.where(what < 0.9 * _ALWAYS, random, was))
    scored = was != UNK
    return MaskedTokens(ids, row[scored], token[scored], was[scored] - len(SPECIAL_TOKENS))


def _any_of(marks: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    """Tell which stretches of k, given by their first, hold a mark: bool, shape (b, length - k + 1)."""
    found = marks[:, : marks.shape[1] - k + 1].copy()
    for offset in range(1, k):
        found |= marks[:, offset : offset + found.shape[1]]
    return found
