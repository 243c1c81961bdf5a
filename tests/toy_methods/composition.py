"""How much of a window is one base, compared with the means of the two classes."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genebert.errors import UserError
from genebert.methods.base import Examples, Fitted, Method
from genebert.settings import Device
from genebert.target import Kind, Target

calls: list[tuple[str, int]] = []
"""(description, seed) of every fit."""
interrupt: set[tuple[str, int]] = set()
"""(start of the description, seed) of the fits that end as by Ctrl-C."""


class FittedComposition(Fitted):
    def __init__(self, middle: float, slope: float, base: int, noise: float, seed: int) -> None:
        self.numbers = np.array([middle, slope, base, noise, seed])

    def predict(self, examples: Examples) -> NDArray[np.float64]:
        assert examples.truth is None
        middle, slope, base, noise, seed = self.numbers
        logit = slope * ((examples.codes == base).mean(axis=1) - middle)
        places = np.random.default_rng(int(seed)).normal(size=examples.codes.shape[1])
        logit += noise * ((examples.codes - 1.5) @ places) / len(places) ** 0.5  # the same for the same sequence
        second = 1 / (1 + np.exp(-logit))
        return np.stack([1 - second, second], axis=1)

    def save(self, folder: Path) -> None:
        np.save(folder / "numbers.npy", self.numbers)

    @classmethod
    def load(cls, folder: Path, target: Target, device: Device) -> "FittedComposition":
        return cls(*np.load(folder / "numbers.npy"))


class Composition(Method):
    title: ClassVar[str] = "base composition"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"classes"})
    fitted: ClassVar[type[Fitted]] = FittedComposition

    base: int = Field(2, ge=0, le=3)
    noise: float = 0.1
    weights: Path | None = None

    def fit(
        self, train: Examples, valid: Examples, target: Target, seed: int, description: str = ""
    ) -> FittedComposition:
        if any(description.startswith(start) and seed == other for start, other in interrupt):
            raise KeyboardInterrupt
        calls.append((description, seed))
        if self.noise < 0:
            raise UserError("noise: -1 is negative. Give a positive number.")
        assert train.truth is not None and valid.truth is not None
        share = (train.codes == self.base).mean(axis=1)
        first, second = (share[train.truth == i].mean() for i in (0, 1))
        return FittedComposition((first + second) / 2, 40 * (second - first), self.base, self.noise, seed)
