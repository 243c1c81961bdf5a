"""Linear functions of sparse features, as they are stored and applied."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_FILE = "linear.npz"


@dataclass(frozen=True)
class Linear:
    """Linear functions of features.

    Attributes:
        weights: float64, shape (functions, features).
        intercept: float64, shape (functions,).
    """

    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]

    @classmethod
    def stack(cls, parts: Iterable[tuple[NDArray[Any], float]]) -> Self:
        """Return linear functions of the weights, shape (features,), and the intercept of each."""
        weights, intercepts = zip(*parts, strict=True)
        return cls(np.stack(weights).astype(np.float64), np.array(intercepts, dtype=np.float64))

    def __call__(self, features: sparse.csr_matrix) -> NDArray[np.float64]:
        """Return the values of the functions, float64, shape (n, functions), of features, shape (n, features)."""
        values: NDArray[np.float64] = features @ self.weights.T + self.intercept
        return values

    def save(self, folder: Path) -> None:
        """Write into a folder."""
        np.savez(folder / _FILE, weights=self.weights, intercept=self.intercept)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        # numpy leaves a damaged file open that it has opened itself
        with (folder / _FILE).open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            return cls(arrays["weights"], arrays["intercept"])
