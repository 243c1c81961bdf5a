"""A linear support vector machine on gapped k-mers, in the style of gkm-SVM.

Ghandi et al. (2014), PLoS Comput Biol 10:e1003711, compare two sequences by the gapped k-mers that they share, on
either strand; the kernel is the cosine of their counts. Lee (2016), Bioinformatics 32:2196, makes that fast for long
words by a tree of words. Words are short here, so that the counts are held as a sparse matrix, and the linear
machine is solved directly (liblinear), which takes time proportional to the number of sequences. Windows that have a
direction can be compared on the strand as given.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, model_validator
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC, LinearSVR

from genebert.console import track
from genebert.methods.base import Examples, Fitted, Method
from genebert.methods.features import gapped_kmer_counts, with_cell_type
from genebert.methods.linear import Linear
from genebert.methods.one_vs_rest import joined_logits, questions
from genebert.methods.saving import read_facts, reading, write_facts
from genebert.settings import Device
from genebert.target import Target

_TOLERATED = 0.1
"""Errors of a number up to so many standard deviations cost nothing."""
_NO_PENALTY = 1e6
Function = tuple[NDArray[np.float64], float]
"""Weights, shape (features,), and intercept."""


@dataclass(frozen=True)
class Words:
    """Which gapped k-mers windows are compared by.

    Attributes:
        length, informative: see `gapped_kmer_counts`.
        oriented: whether strands are told apart; else a word and its reverse complement are one.
    """

    length: int
    informative: int
    oriented: bool

    def of(self, examples: Examples) -> sparse.csr_matrix:
        """Return counts of length 1 in each row, so that their product is the cosine, and the cell type beside them."""
        counts = gapped_kmer_counts(examples.codes, self.length, self.informative, both_strands=not self.oriented)
        return with_cell_type(normalize(counts, copy=False), examples)


@dataclass(frozen=True)
class FittedGkmSvm(Fitted):
    """Log-odds of each question, or a standardised number, as linear functions of normalised gapped k-mer counts."""

    words: Words
    scores: Linear
    target: Target

    def predict(self, examples: Examples) -> NDArray[np.float64]:
        """See `Fitted`."""
        return self.of_features(self.words.of(examples))

    def of_features(self, features: sparse.csr_matrix) -> NDArray[np.float64]:
        """Return predictions for rows of features."""
        scores = self.scores(features)
        return self.target.from_logits(scores if self.target.kind == "value" else joined_logits(scores, self.target))

    def save(self, folder: Path) -> None:
        """See `Fitted`."""
        self.scores.save(folder)
        write_facts(folder, asdict(self.words))

    @classmethod
    def load(cls, folder: Path, target: Target, device: Device) -> Self:
        """See `Fitted`."""
        with reading(folder):
            return cls(Words(**read_facts(folder)), Linear.load(folder), target)


class GkmSvm(Method):
    """Linear SVM on gapped k-mers; the penalty is chosen, and margins become probabilities, on the validation rows.

    30,000 windows of 100 bp take 1 GB and half a minute with the words of the default, which measured as well as
    longer ones with more gaps.
    """

    title: ClassVar[str] = "gapped k-mer SVM"
    seeded: ClassVar[bool] = False
    fitted: ClassVar[type[Fitted]] = FittedGkmSvm

    oriented: bool = Field(
        False,
        description="windows are aligned and have a direction (promoters, splice sites): strands are told apart; "
        "else a word and its reverse complement are one",
    )
    length: int = Field(7, ge=1, le=12, description="length of a word with its gaps (l)")
    informative: int = Field(6, ge=1, le=8, description="positions of a word that are no gaps (k)")
    strengths: tuple[PositiveFloat, ...] = Field(
        (0.03, 0.1, 0.3, 1.0), min_length=1, description="inverse penalties (C) to try"
    )

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        if self.informative > self.length:
            raise ValueError(f"informative is {self.informative}, more than length, {self.length}")
        return self

    def fit(self, train: Examples, valid: Examples, target: Target, seed: int, description: str = "") -> Fitted:
        """See `Method`."""
        return min(self._candidates(train, valid, target, description), key=lambda candidate: candidate[0])[1]

    def _candidates(
        self, train: Examples, valid: Examples, target: Target, description: str
    ) -> Iterator[tuple[float, FittedGkmSvm]]:
        """Yield the validation loss of each penalty, and what was fitted with it."""
        words = Words(self.length, self.informative, self.oriented)
        learned, held_out = words.of(train), words.of(valid)
        for strength in track(list(self.strengths), description) if description else self.strengths:
            if target.kind == "value":
                functions = [_regression(learned, target.standardised(train.known_truth)[:, 0], strength)]
            else:
                pairs = zip(questions(train.known_truth, target), questions(valid.known_truth, target), strict=True)
                functions = [_log_odds(learned, answers, held_out, others, strength) for answers, others in pairs]
            found = FittedGkmSvm(words, Linear.stack(functions), target)
            yield target.loss(valid.known_truth, found.of_features(held_out)), found


def _regression(features: sparse.csr_matrix, truth: NDArray[np.float64], strength: float) -> Function:
    # the primal problem has no randomness in its solution, unlike the dual one
    model = LinearSVR(C=strength, epsilon=_TOLERATED, loss="squared_epsilon_insensitive", dual=False)
    model.fit(features, truth)
    return model.coef_, float(model.intercept_[0])


def _log_odds(
    learned: sparse.csr_matrix,
    answers: NDArray[np.float64],
    held_out: sparse.csr_matrix,
    other_answers: NDArray[np.float64],
    strength: float,
) -> Function:
    """Fit margins on training rows, and turn them into log-odds on validation rows; answers: 1, 0 or NaN (unknown)."""
    known = np.isfinite(answers)
    rows = learned if known.all() else learned[known]  # a copy of all rows would be large
    model = LinearSVC(C=strength, dual=False).fit(rows, answers[known])
    weights, intercept = model.coef_[0], float(model.intercept_[0])
    slope, offset = platt_scale(held_out @ weights + intercept, other_answers)
    return weights * slope, intercept * slope + offset


def platt_scale(margin: NDArray[np.float64], answers: NDArray[Any]) -> tuple[float, float]:
    """Return slope and offset that turn margins into log-odds (Platt 1999).

    The answers are drawn in a little, as Platt does: to (yes + 1) / (yes + 2) and 1 / (no + 2). So the slope is
    finite also where margins divide the answers without a mistake.

    Args:
        margin: float64, shape (n,).
        answers: 1, 0 or NaN (unknown), shape (n,).
    """
    known = np.isfinite(answers)
    x, y = margin[known], answers[known]
    yes, no = (y == 1).sum(), (y == 0).sum()
    drawn_in = np.where(y == 1, (yes + 1) / (yes + 2), 1 / (no + 2))
    both = np.concatenate([x, x])[:, None], np.repeat([1, 0], len(x))
    model = LogisticRegression(C=_NO_PENALTY, solver="newton-cholesky")
    model.fit(*both, sample_weight=np.concatenate([drawn_in, 1 - drawn_in]))
    return float(model.coef_[0, 0]), float(model.intercept_[0])
