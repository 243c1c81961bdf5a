"""How networks learn: by the one loop, `genebert.training.train`, each of their branches until it learns no more."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import nn

from genebert.device import enough_memory, pick_device
from genebert.errors import UserError, problem
from genebert.methods.base import Examples
from genebert.settings import LearningSettings, Precision
from genebert.target import Target
from genebert.training import Learner, Losses, Schedule, train
from genebert.window_data import StrandedData


class Branched(Protocol):
    """A network of branches that share no parameter, and predict by themselves."""

    def predict_branches(self, examples: Examples, without: Collection[str] = ()) -> dict[str, NDArray[np.float64]]:
        """Return branch -> predictions, float64, shape (n, len(target.names)); without: branches to leave out."""
        ...

    def branch_of(self, parameter: str) -> str:
        """Return the branch that a parameter or buffer belongs to, by its name."""
        ...


@dataclass
class KeepBest(Callback):
    """Keeps the weights of each branch of the epoch with its lowest validation loss.

    A branch stops when its loss has not fallen for a while, and training when all have.

    Attributes:
        fitted: predicts with the network that is trained.
        target: what is predicted.
        valid: the validation rows.
        epoch_steps: steps per epoch.
        patience: epochs without a lower loss after which a branch stops.
        stopped: the branches that have; whoever computes losses is to leave them out.
        class_weights: of the validation rows, as of the training rows, shape (classes,), or None.
        losses: validation losses of each branch, by epoch.
        weights: the best ones.
    """

    fitted: Branched
    target: Target
    valid: Examples
    epoch_steps: int
    patience: int
    stopped: set[str]
    class_weights: NDArray[np.float64] | None = None
    losses: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def restore(self, network: nn.Module, learning_rate: float) -> None:
        """Put the best weights into a network.

        Raises:
            UserError: the validation loss of a branch was never a number.
        """
        if not np.isfinite([min(losses) for losses in self.losses.values()]).all():
            what = f"with {learning_rate:g} the validation loss is no number"
            raise UserError(problem("--learning-rate", what, "Choose a lower one."))
        network.load_state_dict(self.weights)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Measure at the end of an epoch."""
        if trainer.global_step % self.epoch_steps:
            return
        lower = set()
        for branch, predicted in self.fitted.predict_branches(self.valid, self.stopped).items():
            losses = self.losses[branch]
            loss = self.target.loss(self.valid.known_truth, predicted, self.class_weights)
            loss = loss if np.isfinite(loss) else float("inf")  # which any number is lower than
            if loss < min(losses, default=float("inf")):
                lower.add(branch)
            losses.append(loss)
            if len(losses) - 1 - int(np.argmin(losses)) >= self.patience:
                self.stopped.add(branch)
        for name, value in module.model.state_dict().items():
            if self.fitted.branch_of(name) in lower or name not in self.weights:
                self.weights[name] = value.detach().clone()
        trainer.should_stop = trainer.should_stop or self.stopped == set(self.losses)

    def table(self) -> pd.DataFrame:
        """Return step, valid_{branch} of each until it stops, and their mean, valid_prediction; one row per epoch.

        In the mean, a branch that has stopped has its last loss.
        """
        table = pd.DataFrame({f"valid_{branch}": pd.Series(losses) for branch, losses in self.losses.items()})
        steps = self.epoch_steps * np.arange(1, len(table) + 1)
        return table.assign(step=steps, valid_prediction=table.ffill().mean(axis=1))


@dataclass(frozen=True)
class Learning:
    """A network and what it learns from.

    Attributes:
        network: to be trained.
        fitted: predicts with it.
        data: the training rows.
        losses: see `training.Learner`; the one loss is called prediction.
        stopped: branches that `losses` leaves out, as `learn` finds that they have learned enough.
        class_weights: that it weighs rows by, float32, shape (classes,), or None.
    """

    network: nn.Module
    fitted: Branched
    data: StrandedData[Any]
    losses: Losses
    stopped: set[str] = field(default_factory=set)
    class_weights: torch.Tensor | None = None

    @property
    def valid_weights(self) -> NDArray[np.float64] | None:
        """The class weights, as the loss of validation rows takes them."""
        return None if self.class_weights is None else self.class_weights.double().numpy()


def learn(
    settings: LearningSettings,
    learning: Learning,
    target: Target,
    valid: Examples,
    description: str,
    precision: Precision = "fp32",
) -> pd.DataFrame:
    """Train a network, and leave it in eval mode, each branch with the weights of its best epoch on validation rows.

    Args:
        settings: how to train.
        learning: what.
        target: what is predicted.
        valid: the validation rows.
        description: for the progress bar.
        precision: arithmetic.

    Returns:
        losses by step.

    Raises:
        UserError: training diverged, or the memory of a GPU is too small.
    """
    network, data = learning.network, learning.data
    keep = KeepBest(
        learning.fitted,
        target,
        valid,
        data.steps_per_epoch,
        settings.patience,
        learning.stopped,
        learning.valid_weights,
    )
    steps = settings.epochs * data.steps_per_epoch
    schedule = Schedule(steps, settings.learning_rate, weight_decay=settings.weight_decay, seed=data.seed)
    with enough_memory("Lower the batch size, with another --out; or free memory, and run the same again."):
        curves = train(
            Learner(network, learning.losses, {"prediction": 1.0}, schedule),
            data.batch,
            description=description,
            batch_size=data.batch_size,
            extra=[keep],
            device=settings.device,
            precision=precision,
        )
    keep.restore(network, settings.learning_rate)
    network.to(pick_device(settings.device)).eval()  # Lightning has put it on the CPU
    return curves.merge(keep.table(), on="step", how="outer")
