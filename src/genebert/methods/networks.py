"""What networks that predict a target share: batches, prediction on both strands, files.

They are trained by `learning.learn`, which is imported where it is called: Lightning takes a second to import, and who
predicts needs nothing of it.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from genebert.device import enough_memory, no_tf32, pick_device
from genebert.errors import UserError, problem
from genebert.methods.base import Examples, Fitted, Method
from genebert.methods.saving import read_facts, reading, write_facts
from genebert.objectives import prediction_loss
from genebert.schema import N
from genebert.settings import Device, Epochs, LearningSettings, Patience, WeightDecay
from genebert.target import Target
from genebert.tensors import Tensors
from genebert.window_data import StrandedData, rows_of

PREDICT_BATCH = 512
_FILE = "network.safetensors"
_WHOLE = "network"


@dataclass(frozen=True)
class Size:
    """What a network is built for.

    Attributes:
        length: of the windows, in bp.
        cell_types: number of cell types, 0 if windows have none.
        outputs: number of logits.
        width: fraction of the published numbers of filters and units.
    """

    length: int
    cell_types: int
    outputs: int
    width: float = 1.0

    def scaled(self, published: int) -> int:
        """Return how many filters or units take the place of the published number."""
        return max(1, round(published * self.width))


class SequenceNetwork(nn.Module):
    """A network that reads the bases of windows, and the cell type beside what it has made of them.

    Args:
        size: what it is built for.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.cell_types = size.cell_types
        self.trunk = self.make_trunk(size).eval()
        with torch.no_grad():
            states = self.trunk(torch.zeros(1, N, size.length)).shape[1]
        self.trunk.train()
        self.head = self.make_head(states + size.cell_types, size)

    def make_trunk(self, size: Size) -> nn.Module:
        """Return what reads one-hot bases: (b, 4, length) -> (b, states)."""
        raise NotImplementedError

    def make_head(self, states: int, size: Size) -> nn.Module:
        """Return what makes logits of the states, with the cell type among them: (b, states) -> (b, outputs)."""
        raise NotImplementedError

    def forward(self, codes: torch.Tensor, cell_type: torch.Tensor | None) -> torch.Tensor:
        """Return logits, shape (b, outputs).

        Args:
            codes: base codes, uint8, shape (b, length); an N is no base.
            cell_type: indices, int64, shape (b,); None for windows without one.
        """
        bases = F.one_hot(codes.long(), N + 1)[..., :N].transpose(1, 2).float()
        states = self.trunk(bases)
        if cell_type is not None:
            states = torch.cat([states, F.one_hot(cell_type, self.cell_types).float()], dim=1)
        logits: torch.Tensor = self.head(states)
        return logits


def convolution(inputs: int, filters: int, width: int) -> nn.Conv1d:
    """Return a convolution that keeps the length (but for one place if its width is even), whatever the length."""
    return nn.Conv1d(inputs, filters, width, padding=width // 2)


def max_pool(width: int) -> nn.MaxPool1d:
    """Return the maximum of every so many places; of the last ones too, if they are fewer: something is always left."""
    return nn.MaxPool1d(width, ceil_mode=True)


class BothDirections(nn.Module):
    """An LSTM along the places, and another one back: (b, channels, places) -> (b, 2 * units, places)."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, units, batch_first=True, bidirectional=True)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """See the class."""
        along: torch.Tensor = self.lstm(states.transpose(1, 2))[0]
        return along.transpose(1, 2)


@dataclass
class SequenceBatch(Tensors):
    """Some windows.

    Attributes:
        codes: base codes, uint8, shape (b, length).
        cell_type: indices, int64, shape (b,), or None.
        truth: as a network learns it, shape (b,) or (b, outputs), or None.
    """

    codes: torch.Tensor
    cell_type: torch.Tensor | None
    truth: torch.Tensor | None


class SequenceData(StrandedData[SequenceBatch]):
    """Makes batches of the bases of windows.

    Args:
        examples: the windows.
        truth, options: see `StrandedData`.
    """

    def __init__(self, examples: Examples, truth: NDArray[Any] | None = None, **options: Any) -> None:
        super().__init__(examples.codes, truth, **options)
        self.cell_type = None if examples.context is None else examples.context.cell_type

    def collate(self, rows: NDArray[np.int64], reverse: NDArray[np.bool_]) -> SequenceBatch:
        """See `StrandedData`."""
        codes = torch.from_numpy(self.codes_of(rows, reverse))
        return SequenceBatch(codes, *(rows_of(array, rows) for array in (self.cell_type, self.truth)))


@dataclass(frozen=True)
class FittedNetwork(Fitted):
    """A trained network.

    Attributes:
        network: on its device.
        size: what it was built for.
        oriented: whether strands are told apart; else predictions are averaged over both.
        target: what it predicts.
        curves: losses by step; None if it was loaded.
    """

    architecture: ClassVar[type[SequenceNetwork]]

    network: SequenceNetwork
    size: Size
    oriented: bool
    target: Target
    curves: pd.DataFrame | None = None

    def predict_branches(self, examples: Examples, without: Collection[str] = ()) -> dict[str, NDArray[np.float64]]:
        """See `learning.Branched`; it is of one piece."""
        return {_WHOLE: self.predict(examples)}

    def branch_of(self, parameter: str) -> str:
        """See `learning.Branched`."""
        return _WHOLE

    def predict(self, examples: Examples) -> NDArray[np.float64]:
        """See `Fitted`."""
        data = SequenceData(examples, batch_size=PREDICT_BATCH)
        with evaluating(self.network):
            strands = [self._on_strand(data, reverse) for reverse in ((False,) if self.oriented else (False, True))]
        return np.asarray(np.mean(strands, axis=0))

    def _on_strand(self, data: SequenceData, reverse: bool) -> NDArray[np.float64]:
        device = next(self.network.parameters()).device
        batches = (batch.to(device) for batch in data.in_order(reverse=reverse))
        logits = [self.network(batch.codes, batch.cell_type).double().cpu().numpy() for batch in batches]
        return self.target.from_logits(np.concatenate(logits))

    def save(self, folder: Path) -> None:
        """See `Fitted`."""
        save_file(self.network.state_dict(), folder / _FILE)
        write_facts(folder, {"size": asdict(self.size), "oriented": self.oriented})

    @classmethod
    def load(cls, folder: Path, target: Target, device: Device) -> Self:
        """See `Fitted`."""
        place = pick_device(device)
        with reading(folder):
            facts = read_facts(folder)
            size = Size(**facts["size"])
            network = cls.architecture(size)
            network.load_state_dict(load_file(folder / _FILE))
            return cls(network.to(place).eval(), size, facts["oriented"], target)


class NetworkMethod(LearningSettings, Method):
    """A network of the bases of windows; the epoch is chosen on the validation rows."""

    fitted: ClassVar[type[FittedNetwork]]

    oriented: bool = Field(
        False,
        description="windows are aligned and have a direction (promoters, splice sites): strands are told apart; "
        "else a random one is read in training, and predictions are averaged over both",
    )
    width: float = Field(1.0, gt=0, le=1, description="fraction of the published numbers of filters and units")
    epochs: Epochs = 30
    patience: Patience = 5
    weight_decay: WeightDecay = 0.01

    def fit(self, train: Examples, valid: Examples, target: Target, seed: int, description: str = "") -> Fitted:
        """See `Method`.

        Raises:
            UserError: training diverged, or there are no classes to weigh.
        """
        from genebert.methods.learning import Learning, learn

        torch.manual_seed(seed)
        size = Size(train.codes.shape[1], train.cell_types, len(target.names), self.width)
        network = self.fitted.architecture(size)
        data = SequenceData(
            train,
            network_truth(target, train),
            batch_size=self.batch_size,
            seed=seed,
            either_strand=not self.oriented,
        )
        fitted = self.fitted(network, size, self.oriented, target)
        weights = class_weights(target, train) if self.class_weights else None
        learning = Learning(network, fitted, data, self._losses(target, weights), class_weights=weights)
        curves = learn(self, learning, target, valid, description or self.title)
        return replace(fitted, curves=curves)

    def _losses(self, target: Target, weights: torch.Tensor | None) -> Callable[..., dict[str, torch.Tensor]]:
        def losses(network: nn.Module, batch: SequenceBatch) -> dict[str, torch.Tensor]:
            logits = network(batch.codes, batch.cell_type)
            assert batch.truth is not None
            return {"prediction": prediction_loss(target.kind, logits, batch.truth, weights)}

        return losses


def network_truth(target: Target, examples: Examples) -> NDArray[Any]:
    """Return truth as a network learns it: int64 classes, or float32, numbers in standard deviations."""
    standardised = target.standardised(examples.known_truth)
    return standardised if target.kind == "classes" else standardised.astype(np.float32)


def class_weights(target: Target, train: Examples) -> torch.Tensor:
    """Return weights of classes, float32, inverse to their frequency and 1 on average over rows.

    Raises:
        UserError: the target has no classes.
    """
    if target.kind != "classes":
        what = "there are no classes to weigh, but labels or a number"
        raise UserError(problem("class_weights", what, "Leave the option out."))
    counts = np.bincount(train.known_truth, minlength=len(target.names))
    return torch.from_numpy(len(train) / (len(counts) * counts)).float()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Run a network in eval mode without gradients and TF32, and leave it in the mode that it was in."""
    training = network.training
    network.eval()
    try:
        with torch.inference_mode(), no_tf32(), enough_memory("Use --device cpu, or a GPU that is free."):
            yield
    finally:
        network.train(training)
