"""DeePromoter (Oubounyt et al. 2019, Front Genet 10:286): convolutions side by side and an LSTM, for promoters."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from genebert.methods.networks import (
    BothDirections,
    FittedNetwork,
    NetworkMethod,
    SequenceNetwork,
    Size,
    convolution,
    max_pool,
)


class SideBySide(nn.Module):
    """Convolutions of several widths, each pooled: (b, 4, length) -> (b, widths * filters, places)."""

    def __init__(self, widths: tuple[int, ...], filters: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(convolution(4, filters, width), nn.ReLU(), max_pool(6), nn.Dropout(0.5)) for width in widths
        )

    def forward(self, bases: torch.Tensor) -> torch.Tensor:
        """See the class; a convolution of even width gives one place more, which is left out."""
        found = [branch(bases) for branch in self.branches]
        places = min(states.shape[2] for states in found)
        return torch.cat([states[:, :, :places] for states in found], dim=1)


class DeePromoterNetwork(SequenceNetwork):
    """Filters of width 27, 14 and 7 side by side, maxima of 6 places, 32 LSTM units each way, 128 hidden units.

    Adapted: 32 filters of each width; convolutions are padded (of 70 bp, 12 places are left).
    """

    def make_trunk(self, size: Size) -> nn.Module:
        """See `SequenceNetwork`."""
        filters, memory = size.scaled(32), size.scaled(32)
        return nn.Sequential(
            SideBySide((27, 14, 7), filters), BothDirections(3 * filters, memory), nn.Dropout(0.5), nn.Flatten()
        )

    def make_head(self, states: int, size: Size) -> nn.Module:
        """See `SequenceNetwork`."""
        units = size.scaled(128)
        return nn.Sequential(nn.Linear(states, units), nn.ReLU(), nn.Dropout(0.5), nn.Linear(units, size.outputs))


class FittedDeePromoter(FittedNetwork):
    """A trained DeePromoter."""

    architecture: ClassVar[type[SequenceNetwork]] = DeePromoterNetwork


class DeePromoter(NetworkMethod):
    """DeePromoter, trained on these windows."""

    title: ClassVar[str] = "DeePromoter"
    fitted: ClassVar[type[FittedNetwork]] = FittedDeePromoter

    oriented: bool = Field(True, description=NetworkMethod.model_fields["oriented"].description)
