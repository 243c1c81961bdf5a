"""What may be fitted on: the rows of training regions, and how much evidence of each motif they hold."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.schema import SPLITS

_ROWS = 1 << 12  # looked at together


def training_rows(corpus: Corpus, array: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield the training regions' rows of an array of the corpus, uint8, in blocks of at most 4,096 rows.

    The arrays may be larger than the memory.
    """
    training = corpus.split == SPLITS.index("train")
    for start in range(0, len(array), _ROWS):
        rows = slice(start, start + _ROWS)
        yield array[rows][training[rows]]


def evidence_moments(corpus: Corpus) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each motif's evidence in training regions: float64, shape (motifs,).

    The sums are of integers and exact, whatever the size of the blocks.
    """
    rows = 0
    total, squares = np.zeros((2, corpus.evidence.shape[1]), dtype=np.int64)
    for block in training_rows(corpus, corpus.evidence):
        rows += len(block)
        total += block.sum(axis=0, dtype=np.int64)
        squares += np.square(block, dtype=np.uint16).sum(axis=0, dtype=np.int64)
    mean = total / rows
    return mean, np.sqrt(np.maximum(squares / rows - mean**2, 0))
