"""DeepBind (Alipanahi et al. 2015, Nat Biotechnol 33:831): motif detectors, and the best and mean match of each."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from genebert.methods.networks import FittedNetwork, NetworkMethod, SequenceNetwork, Size, convolution


class BestAndMean(nn.Module):
    """The maximum and the mean over the places: (b, channels, places) -> (b, 2 * channels)."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return torch.cat([states.amax(dim=2), states.mean(dim=2)], dim=1)


class DeepBindNetwork(SequenceNetwork):
    """16 motif detectors of 24 bp, rectified; best and mean match; 32 hidden units, half of them dropped in training.

    Adapted: strands are averaged as in the other networks, where the paper takes the better one; one set of
    hyperparameters takes the place of the search of the paper.
    """

    def make_trunk(self, size: Size) -> nn.Module:
        """See `SequenceNetwork`."""
        return nn.Sequential(convolution(4, size.scaled(16), 24), nn.ReLU(), BestAndMean())

    def make_head(self, states: int, size: Size) -> nn.Module:
        """See `SequenceNetwork`."""
        units = size.scaled(32)
        return nn.Sequential(nn.Linear(states, units), nn.ReLU(), nn.Dropout(0.5), nn.Linear(units, size.outputs))


class FittedDeepBind(FittedNetwork):
    """A trained DeepBind."""

    architecture: ClassVar[type[SequenceNetwork]] = DeepBindNetwork


class DeepBind(NetworkMethod):
    """DeepBind, trained on these windows."""

    title: ClassVar[str] = "DeepBind"
    fitted: ClassVar[type[FittedNetwork]] = FittedDeepBind

    learning_rate: float = Field(3e-3, gt=0, description=NetworkMethod.model_fields["learning_rate"].description)
