"""DeepSEA (Zhou and Troyanskaya 2015, Nat Methods 12:931): three convolutions, for windows of 1,000 bp."""

from typing import ClassVar

from torch import nn

from genebert.methods.networks import FittedNetwork, NetworkMethod, SequenceNetwork, Size, convolution, max_pool


class DeepSeaNetwork(SequenceNetwork):
    """320, 480 and 960 filters of width 8, with maxima of 4 places in between, and 925 hidden units.

    Adapted: convolutions are padded, so that windows of any length pass (of 70 bp, 5 places are left).
    """

    def make_trunk(self, size: Size) -> nn.Module:
        """See `SequenceNetwork`."""
        first, second, third = map(size.scaled, (320, 480, 960))
        return nn.Sequential(
            convolution(4, first, 8),
            nn.ReLU(),
            max_pool(4),
            nn.Dropout(0.2),
            convolution(first, second, 8),
            nn.ReLU(),
            max_pool(4),
            nn.Dropout(0.2),
            convolution(second, third, 8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
        )

    def make_head(self, states: int, size: Size) -> nn.Module:
        """See `SequenceNetwork`."""
        units = size.scaled(925)
        return nn.Sequential(nn.Linear(states, units), nn.ReLU(), nn.Linear(units, size.outputs))


class FittedDeepSea(FittedNetwork):
    """A trained DeepSEA."""

    architecture: ClassVar[type[SequenceNetwork]] = DeepSeaNetwork


class DeepSea(NetworkMethod):
    """DeepSEA, trained on these windows."""

    title: ClassVar[str] = "DeepSEA"
    fitted: ClassVar[type[FittedNetwork]] = FittedDeepSea
