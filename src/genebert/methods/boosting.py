"""Gradient-boosted trees (Friedman 2001) with LightGBM (Ke et al. 2017): how they are fitted, stopped and kept."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genebert.console import track
from genebert.errors import Problems, UserError, problem
from genebert.methods.base import Examples, Fitted, Method
from genebert.methods.cell_type_features import note_own_accessibility
from genebert.methods.features import DenseFeatures
from genebert.methods.one_vs_rest import joined_logits, questions
from genebert.methods.saving import read_facts, reading, write_facts
from genebert.settings import Device
from genebert.target import Target

Features = NDArray[np.float32]


@dataclass(frozen=True)
class FittedTrees(Fitted):
    """Ensembles of trees, and what they see.

    Attributes:
        features: what they see.
        ensembles: LightGBM boosters: one per question, or one for a number or several classes.
        target: what they predict.
    """

    features: DenseFeatures
    ensembles: Sequence[Any]
    target: Target

    def predict(self, examples: Examples) -> NDArray[np.float64]:
        """See `Fitted`."""
        features = self.features.of(examples)
        scores = np.column_stack([ensemble.predict(features, raw_score=True) for ensemble in self.ensembles])
        return self.target.from_logits(joined_logits(scores, self.target) if self.target.is_binary else scores)

    def save(self, folder: Path) -> None:
        """See `Fitted`."""
        for i, ensemble in enumerate(self.ensembles):
            (folder / _file_name(i)).write_text(ensemble.model_to_string())
        write_facts(folder, {"features": asdict(self.features), "ensembles": len(self.ensembles)})

    @classmethod
    def load(cls, folder: Path, target: Target, device: Device) -> Self:
        """See `Fitted`."""
        with reading(folder):
            facts = read_facts(folder)
            texts = [(folder / _file_name(i)).read_text() for i in range(facts["ensembles"])]
            ensembles = [_lightgbm().Booster(model_str=text) for text in texts]
            return cls(DenseFeatures(**facts["features"]), ensembles, target)


class BoostedTrees(Method):
    """Boosted trees; how many is chosen on the validation rows."""

    fitted: ClassVar[type[Fitted]] = FittedTrees

    learning_rate: float = Field(0.05, gt=0, le=1, description="weight of each tree")
    leaves: int = Field(31, ge=2, description="most leaves of a tree")
    trees: int = Field(2000, ge=1, description="most trees")
    patience: int = Field(100, ge=1, description="trees without a lower validation loss after which to stop")
    least_rows: int = Field(40, ge=1, description="fewest training rows in a leaf, of few rows a quarter of them")

    @property
    @abstractmethod
    def features(self) -> DenseFeatures:
        """What the trees see."""

    def fit(self, train: Examples, valid: Examples, target: Target, seed: int, description: str = "") -> Fitted:
        """See `Method`.

        Raises:
            UserError: windows are to be shown with their own accessibility, and cannot.
        """
        if self.features.accessibility == "own":
            found = Problems(f"{self.title} cannot learn from these rows:")
            note_own_accessibility(train, found)
            found.raise_any()
        learned, held_out = self.features.of(train), self.features.of(valid)
        objective, truths = _objective(train, target)
        _, others = _objective(valid, target)
        shared = self._options(seed) | {"objective": objective}
        if objective == "multiclass":
            shared["num_class"] = len(target.names)
        ensembles = []
        for truth, other in zip(truths, others, strict=True):
            rows, other_rows = np.isfinite(truth), np.isfinite(other)
            options = shared | {"min_child_samples": max(1, min(self.least_rows, int(rows.sum()) // 4))}
            training = _lightgbm().Dataset(learned[rows], truth[rows], params=options)
            validation = _lightgbm().Dataset(held_out[other_rows], other[other_rows], reference=training)
            ensembles.append(self._grow(options, training, validation, description))
        return FittedTrees(self.features, ensembles, target)

    def _options(self, seed: int) -> dict[str, Any]:
        """Return LightGBM's parameters: the same rows and seed give the same trees, on any number of threads.

        It takes all cores that this process may use, or as many as OMP_NUM_THREADS says.
        """
        return {
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "feature_fraction": 0.2,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "lambda_l2": 5.0,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }

    def _grow(self, options: dict[str, Any], training: Any, validation: Any, description: str) -> Any:
        """Return the booster whose last tree is the one after which the validation loss was lowest."""
        booster = _lightgbm().Booster(options, training).add_valid(validation, "valid")
        best, lowest = 0, np.inf
        for tree in track(list(range(1, self.trees + 1)), description) if description else range(1, self.trees + 1):
            booster.update()
            loss = booster.eval_valid()[0][2]
            if loss < lowest:
                best, lowest = tree, loss
            if tree - best >= self.patience:
                break
        return _lightgbm().Booster(model_str=booster.model_to_string(num_iteration=best))


def _objective(rows: Examples, target: Target) -> tuple[str, list[NDArray[np.float64]]]:
    """Return LightGBM's name of what to learn, and the truth of each ensemble to grow, NaN where unknown."""
    if target.kind == "value":
        return "regression", [target.standardised(rows.known_truth)[:, 0]]
    if target.kind == "classes" and not target.is_binary:
        return "multiclass", [rows.known_truth.astype(np.float64)]
    return "binary", questions(rows.known_truth, target)


def _file_name(number: int) -> str:
    return f"trees-{number}.txt"


def _lightgbm() -> ModuleType:
    """Return LightGBM, which needs a library of the system.

    Raises:
        UserError: that is absent.
    """
    try:
        import lightgbm
    except OSError as error:
        what, remedy = f"it cannot be loaded ({error})", "Install libgomp1 (Debian, Ubuntu) or libgomp (Fedora)."
        raise UserError(problem("LightGBM", what, remedy)) from None
    module: ModuleType = lightgbm
    return module
