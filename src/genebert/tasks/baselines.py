"""Baselines for classification, tuned on the validation rows like the network."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from genebert.metrics import log_loss
from genebert.schema import Split
from genebert.tokens import SPECIAL_TOKENS, UNK, tokenize

KMER_LENGTHS = (4, 5, 6)
STRENGTHS = (0.01, 0.1, 1.0, 10.0)
TUNED_ON: tuple[Split, Split] = ("train", "valid")


def kmer_counts(codes: NDArray[np.uint8], k: int) -> sparse.csr_matrix:
    """Return how often each k-mer without an N occurs in each sequence: sparse float64, shape (n, 4^k)."""
    tokens = tokenize(codes, k)
    row, column = np.nonzero(tokens != UNK)
    index = tokens[row, column] - len(SPECIAL_TOKENS)
    return sparse.csr_matrix((np.ones(len(row)), (row, index)), shape=(len(codes), 4**k))


@dataclass(frozen=True)
class KmerRegression:
    """Logistic regression on k-mer counts, and cell type where there is one.

    Attributes:
        k: k-mer length.
        strength: inverse of the L2 penalty.
        model: the fitted pipeline.
        cell_types: number of cell types, 0 for none.
    """

    k: int
    strength: float
    model: Pipeline
    cell_types: int

    def predict(self, codes: NDArray[np.uint8], cell_type: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """Return class probabilities: float64, shape (n, classes)."""
        probability: NDArray[np.float64] = self.model.predict_proba(
            _features(codes, self.k, cell_type, self.cell_types)
        )
        return probability


def _features(
    codes: NDArray[np.uint8], k: int, cell_type: NDArray[np.int64] | None, cell_types: int
) -> sparse.csr_matrix:
    counts = kmer_counts(codes, k)
    if cell_type is None:
        return counts
    which = sparse.csr_matrix((np.ones(len(codes)), (np.arange(len(codes)), cell_type)), shape=(len(codes), cell_types))
    return sparse.hstack([counts, which], format="csr")


def fit_kmer_regression(
    codes: Mapping[Split, NDArray[np.uint8]],
    label: Mapping[Split, NDArray[np.int64]],
    cell_type: Mapping[Split, NDArray[np.int64]] | None,
    cell_types: int,
) -> KmerRegression:
    """Fit on the training rows; k and the penalty are those with the lowest log-loss on the validation rows.

    Args:
        codes, label, cell_type: "train" and "valid" -> base codes (n, length), class indices (n,), cell type indices
            (n,) or None.
        cell_types: number of cell types.
    """
    best: tuple[float, KmerRegression] | None = None
    for k in KMER_LENGTHS:
        of = {s: _features(codes[s], k, cell_type[s] if cell_type else None, cell_types) for s in TUNED_ON}
        for strength in STRENGTHS:
            model = make_pipeline(MaxAbsScaler(), LogisticRegression(C=strength, max_iter=2000))
            model.fit(of["train"], label["train"])
            loss = log_loss(label["valid"], model.predict_proba(of["valid"]))
            if best is None or loss < best[0]:
                best = loss, KmerRegression(k, strength, model, cell_types)
    assert best is not None
    return best[1]
