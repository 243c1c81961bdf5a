"""Regression on k-mer counts: logistic for classes and labels, ridge for a number."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from scipy import sparse
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import MaxAbsScaler

from genebert.console import track
from genebert.methods.base import Examples, Fitted, Method
from genebert.methods.features import KmerLengths, kmer_counts, with_cell_type
from genebert.methods.linear import Linear
from genebert.methods.saving import read_facts, reading, write_facts
from genebert.settings import Device
from genebert.target import Target

_MOST_STEPS = 2000


@dataclass(frozen=True)
class FittedKmerRegression(Fitted):
    """Logits, or a standardised number, as linear functions of the counts of k-mers.

    Attributes:
        k: length of a k-mer.
        oriented: whether strands are told apart; else a k-mer and its reverse complement are one.
        logits: the functions.
        target: what they predict.
    """

    k: int
    oriented: bool
    logits: Linear
    target: Target

    def predict(self, examples: Examples) -> NDArray[np.float64]:
        """See `Fitted`."""
        return self.target.from_logits(self.logits(_features(examples, self.k, self.oriented)))

    def save(self, folder: Path) -> None:
        """See `Fitted`."""
        self.logits.save(folder)
        write_facts(folder, {"k": self.k, "oriented": self.oriented})

    @classmethod
    def load(cls, folder: Path, target: Target, device: Device) -> Self:
        """See `Fitted`."""
        with reading(folder):
            facts = read_facts(folder)
            return cls(facts["k"], facts["oriented"], Linear.load(folder), target)


class KmerRegression(Method):
    """Regression on k-mer counts, and cell type where there is one; k and penalty are chosen on the validation rows."""

    title: ClassVar[str] = "k-mer regression"
    seeded: ClassVar[bool] = False
    fitted: ClassVar[type[Fitted]] = FittedKmerRegression

    oriented: bool = Field(
        False,
        description="windows are aligned and have a direction (promoters, splice sites): strands are told apart; "
        "else a k-mer and its reverse complement are one",
    )
    lengths: KmerLengths = Field((4, 5, 6), min_length=1, description="k-mer lengths to try")
    strengths: tuple[PositiveFloat, ...] = Field(
        (0.01, 0.1, 1.0, 10.0), min_length=1, description="inverse L2 penalties (C) to try"
    )

    def fit(self, train: Examples, valid: Examples, target: Target, seed: int, description: str = "") -> Fitted:
        """See `Method`."""
        return min(self._candidates(train, valid, target, description), key=lambda candidate: candidate[0])[1]

    def _candidates(
        self, train: Examples, valid: Examples, target: Target, description: str
    ) -> Iterator[tuple[float, FittedKmerRegression]]:
        """Yield the validation loss of each k and penalty, and what was fitted with them."""
        for k in track(list(self.lengths), description) if description else self.lengths:
            learned, held_out = (_features(examples, k, self.oriented) for examples in (train, valid))
            for strength in self.strengths:
                logits = _regression(learned, train.known_truth, target, strength)
                loss = target.loss(valid.known_truth, target.from_logits(logits(held_out)))
                yield loss, FittedKmerRegression(k, self.oriented, logits, target)


def _features(examples: Examples, k: int, oriented: bool) -> sparse.csr_matrix:
    return with_cell_type(kmer_counts(examples.codes, k, both_strands=not oriented), examples)


def _regression(features: sparse.csr_matrix, truth: NDArray[Any], target: Target, strength: float) -> Linear:
    """Fit on features scaled to at most 1, so that the penalty treats all alike; the scale goes into the weights."""
    scaler = MaxAbsScaler()
    scaled = scaler.fit_transform(features)
    if target.kind == "value":
        model = Ridge(alpha=1 / (2 * strength)).fit(scaled, target.standardised(truth)[:, 0])
        rows = [(model.coef_, model.intercept_)]
    elif target.kind == "labels":
        rows = [_label(scaled, column, strength) for column in truth.T]
    else:
        model = LogisticRegression(C=strength, max_iter=_MOST_STEPS).fit(scaled, truth)
        rows = list(zip(model.coef_, model.intercept_, strict=True))
        if target.is_binary:
            rows.insert(0, (np.zeros(features.shape[1]), 0.0))
    return Linear.stack((weights / scaler.scale_, intercept) for weights, intercept in rows)


def _label(features: sparse.csr_matrix, truth: NDArray[np.float64], strength: float) -> tuple[NDArray[Any], float]:
    """Fit the log-odds of a label of truth 0, 1 or NaN (unknown), shape (n,)."""
    known = np.isfinite(truth)
    model = LogisticRegression(C=strength, max_iter=_MOST_STEPS).fit(features[known], truth[known])
    return model.coef_[0], model.intercept_[0]
