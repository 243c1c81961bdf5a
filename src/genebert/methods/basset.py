"""Basset (Kelley et al. 2016, Genome Res 26:990): three normalised convolutions, for windows of 600 bp."""

from typing import ClassVar

from torch import nn

from genebert.methods.networks import FittedNetwork, NetworkMethod, SequenceNetwork, Size, convolution, max_pool


def _stage(inputs: int, filters: int, width: int, pool: int) -> list[nn.Module]:
    return [convolution(inputs, filters, width), nn.BatchNorm1d(filters), nn.ReLU(), max_pool(pool)]


def _hidden(inputs: int, units: int) -> list[nn.Module]:
    return [nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.ReLU(), nn.Dropout(0.3)]


class BassetNetwork(SequenceNetwork):
    """300, 200 and 200 filters of width 19, 11 and 7, maxima of 3, 4 and 4 places, and twice 1,000 hidden units.

    Adapted: the last places of a window are pooled also where they are fewer (of 70 bp, 2 places are left).
    """

    def make_trunk(self, size: Size) -> nn.Module:
        """See `SequenceNetwork`."""
        first, second, third = map(size.scaled, (300, 200, 200))
        stages = [*_stage(4, first, 19, 3), *_stage(first, second, 11, 4), *_stage(second, third, 7, 4)]
        return nn.Sequential(*stages, nn.Flatten())

    def make_head(self, states: int, size: Size) -> nn.Module:
        """See `SequenceNetwork`."""
        units = size.scaled(1000)
        return nn.Sequential(*_hidden(states, units), *_hidden(units, units), nn.Linear(units, size.outputs))


class FittedBasset(FittedNetwork):
    """A trained Basset."""

    architecture: ClassVar[type[SequenceNetwork]] = BassetNetwork


class Basset(NetworkMethod):
    """Basset, trained on these windows."""

    title: ClassVar[str] = "Basset"
    fitted: ClassVar[type[FittedNetwork]] = FittedBasset
