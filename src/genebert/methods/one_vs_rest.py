"""Any classes or labels as questions with yes and no for an answer, for methods that know nothing else."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genebert.target import Target


def questions(truth: NDArray[Any], target: Target) -> list[NDArray[np.float64]]:
    """Return the answers to each question: 1 (yes), 0 (no), NaN (unknown), float64, shape (n,) each.

    Of two classes there is one question (is it the second?), of several one for each, and one for each label.

    Args:
        truth: see `Target`; each label is both 0 and 1 somewhere.
        target: classes or labels.
    """
    if target.kind == "labels":
        return list(truth.T)
    asked = [1] if target.is_binary else range(len(target.names))
    return [(truth == i).astype(np.float64) for i in asked]


def joined_logits(scores: NDArray[np.float64], target: Target) -> NDArray[np.float64]:
    """Return the logits of a target, float64, shape (n, len(target.names)).

    The probabilities of several classes are those of their questions, divided by their sum.

    Args:
        scores: log-odds of each question, float64, shape (n, questions).
        target: classes or labels.
    """
    if target.is_binary:
        return np.concatenate([np.zeros_like(scores), scores], axis=1)
    return -np.logaddexp(0, -scores) if target.kind == "classes" else scores
