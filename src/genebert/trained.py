"""Methods that are trained one after the other, each with its seeds; what is done is kept until all are."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.labelled import Labelled
from genebert.methods.base import Fitted, Method
from genebert.methods.genebert import FittedGeneBert
from genebert.settings import Device

_FITTED, _PREDICTIONS, _CURVES = "fitted", "predictions.npz", "curves.parquet"


@dataclass
class Trained:
    """A method, trained with one seed or several.

    Attributes:
        title: in tables.
        key: of the method.
        fitted: one per seed.
        valid, test: predictions per seed, float64, shape (n, names).
    """

    title: str
    key: str
    fitted: list[Fitted] = field(default_factory=list)
    valid: list[NDArray[np.float64]] = field(default_factory=list)
    test: list[NDArray[np.float64]] = field(default_factory=list)


@dataclass(frozen=True)
class Training:
    """Trains methods on labelled windows.

    Attributes:
        labelled: the windows.
        seeds: of methods that another seed gives another result; the others are trained with the first.
        device: where networks run.
        folder: where what was trained is kept: a run that was interrupted goes on after it.
    """

    labelled: Labelled
    seeds: Sequence[int]
    device: Device
    folder: Path

    def train(self, title: str, key: str, method: Method) -> Trained:
        """Return a method, trained with each seed.

        Raises:
            UserError: the method cannot be used with these windows.
        """
        trained = Trained(title, key)
        for seed in self.seeds if method.seeded else self.seeds[:1]:
            place = self.folder / f"{title}, seed {seed}"
            if not place.exists():
                self._train(method, seed, place)
            trained.fitted.append(self._fitted(method, place))
            with np.load(place / _PREDICTIONS, allow_pickle=False) as predictions:
                trained.valid.append(predictions["valid"])
                trained.test.append(predictions["test"])
        return trained

    def _train(self, method: Method, seed: int, place: Path) -> None:
        train, valid, test = (self.labelled.examples(split) for split in ("train", "valid", "test"))
        fitted = method.fit(train, valid, self.labelled.target, seed, place.name)
        draft = self.folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
        (draft / _FITTED).mkdir(parents=True)
        fitted.save(draft / _FITTED)
        np.savez(draft / _PREDICTIONS, valid=fitted.predict(valid), test=fitted.predict(test))
        if isinstance(fitted, FittedGeneBert) and fitted.curves is not None:
            fitted.curves.to_parquet(draft / _CURVES)
        draft.rename(place)  # it is there when it is complete

    def _fitted(self, method: Method, place: Path) -> Fitted:
        fitted = method.fitted.load(place / _FITTED, self.labelled.target, self.device)
        if not isinstance(fitted, FittedGeneBert):
            return fitted
        return replace(fitted, curves=pd.read_parquet(place / _CURVES))
