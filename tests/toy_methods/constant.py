"""The share of each class, whatever the window."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from genebert.methods.base import Examples, Fitted, Method
from genebert.settings import Device
from genebert.target import Target


class FittedConstant(Fitted):
    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values = values

    def predict(self, examples: Examples) -> NDArray[np.float64]:
        return np.tile(self.values, (len(examples), 1))

    def save(self, folder: Path) -> None:
        np.save(folder / "values.npy", self.values)

    @classmethod
    def load(cls, folder: Path, target: Target, device: Device) -> "FittedConstant":
        return cls(np.load(folder / "values.npy"))


class Constant(Method):
    title: ClassVar[str] = "constant"
    seeded: ClassVar[bool] = False
    fitted: ClassVar[type[Fitted]] = FittedConstant

    def fit(self, train: Examples, valid: Examples, target: Target, seed: int, description: str = "") -> FittedConstant:
        assert train.truth is not None
        if target.kind == "classes":
            return FittedConstant(np.bincount(train.truth, minlength=len(target.names)) / len(train))
        return FittedConstant(np.nanmean(train.truth, axis=0))
