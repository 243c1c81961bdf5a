"""How much each of several predictors is worth, chosen on rows that none of them was trained on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from genebert.target import Target

Numbers = NDArray[np.float64]
_DIGITS = 4


def stacking_weights(
    target: Target, truth: NDArray[Any], logits: Numbers, class_weights: Numbers | None = None
) -> Numbers:
    """Return the weights with which the weighted mean of logits has the lowest loss: float64, shape (predictors,).

    They are not negative and sum to 1 (stacking, Wolpert 1992; so restricted by Breiman 1996), so that a few validation
    rows cannot make predictions overconfident.

    Args:
        target: what is predicted.
        truth: of the validation rows; see `Target`.
        logits: of each predictor, on each strand that is read, shape (predictors, strands, n, outputs).
        class_weights: of the rows of each class, shape (classes,); by default, they are equal.
    """
    count = len(logits)
    equal = np.full(count, 1 / count)
    if count == 1:
        return equal

    def loss(weights: Numbers) -> float:
        weighted = (weights[:, None, None, None] * logits).sum(axis=0)  # not by BLAS, which rounds as memory lies
        strands = target.from_logits(weighted)
        return target.loss(truth, strands.mean(axis=0), class_weights)

    sum_is_one = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    found = minimize(loss, equal, method="SLSQP", bounds=[(0.0, 1.0)] * count, constraints=sum_is_one)
    weights = np.round(np.clip(found.x, 0, None), _DIGITS)  # more digits are noise, and differ between machines
    weights[weights.argmax()] += 1 - weights.sum()
    candidates = [equal, *np.eye(count), weights]  # the search may end where it began
    losses = np.array([loss(one) for one in candidates])
    return candidates[int(np.where(np.isfinite(losses), losses, np.inf).argmin())]
