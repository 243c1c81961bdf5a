"""DanQ (Quang and Xie 2016, Nucleic Acids Res 44:e107): a convolution and an LSTM, for windows of 1,000 bp."""

from typing import ClassVar

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


class DanQNetwork(SequenceNetwork):
    """320 filters of width 26, maxima of 13 places, 320 LSTM units in each direction, and 925 hidden units.

    Adapted: the convolution is padded, and the last places are pooled also where they are fewer (of 70 bp, 6 places
    are left).
    """

    def make_trunk(self, size: Size) -> nn.Module:
        """See `SequenceNetwork`."""
        filters, memory = size.scaled(320), size.scaled(320)
        return nn.Sequential(
            convolution(4, filters, 26),
            nn.ReLU(),
            max_pool(13),
            nn.Dropout(0.2),
            BothDirections(filters, memory),
            nn.Dropout(0.5),
            nn.Flatten(),
        )

    def make_head(self, states: int, size: Size) -> nn.Module:
        """See `SequenceNetwork`."""
        units = size.scaled(925)
        return nn.Sequential(nn.Linear(states, units), nn.ReLU(), nn.Linear(units, size.outputs))


class FittedDanQ(FittedNetwork):
    """A trained DanQ."""

    architecture: ClassVar[type[SequenceNetwork]] = DanQNetwork


class DanQ(NetworkMethod):
    """DanQ, trained on these windows."""

    title: ClassVar[str] = "DanQ"
    fitted: ClassVar[type[FittedNetwork]] = FittedDanQ
