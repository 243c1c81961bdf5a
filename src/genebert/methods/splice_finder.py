"""SpliceFinder (Wang et al. 2019, BMC Bioinformatics 20:652): one convolution, for windows around splice sites."""

from typing import ClassVar

from pydantic import Field
from torch import nn

from genebert.methods.networks import FittedNetwork, NetworkMethod, SequenceNetwork, Size, convolution


class SpliceFinderNetwork(SequenceNetwork):
    """50 filters of width 9, and 100 hidden units that see each of them at each position.

    Adapted: any number of classes, labels, or a number takes the place of donor, acceptor and neither.
    """

    def make_trunk(self, size: Size) -> nn.Module:
        """See `SequenceNetwork`."""
        return nn.Sequential(convolution(4, size.scaled(50), 9), nn.ReLU(), nn.Flatten())

    def make_head(self, states: int, size: Size) -> nn.Module:
        """See `SequenceNetwork`."""
        units = size.scaled(100)
        return nn.Sequential(nn.Linear(states, units), nn.ReLU(), nn.Dropout(0.3), nn.Linear(units, size.outputs))


class FittedSpliceFinder(FittedNetwork):
    """A trained SpliceFinder."""

    architecture: ClassVar[type[SequenceNetwork]] = SpliceFinderNetwork


class SpliceFinder(NetworkMethod):
    """SpliceFinder, trained on these windows."""

    title: ClassVar[str] = "SpliceFinder"
    fitted: ClassVar[type[FittedNetwork]] = FittedSpliceFinder

    oriented: bool = Field(True, description=NetworkMethod.model_fields["oriented"].description)
