"""Heads: hidden bases, adjacency, the space of SRM, hidden patches, and classes."""

import math

import torch
from torch import nn

from genebert.distributed import total, world_size
from genebert.model.config import GeneBertConfig
from genebert.tokens import SPECIAL_TOKENS


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation in float32 over the joint batch of all processes, each of which has as many rows.

    torch's SyncBatchNorm does the same, on a GPU only.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return normalised rows, float32; input and result are of shape (b, width)."""
        input = input.float()
        processes = world_size()
        if not self.training or processes == 1:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        rows = len(input) * processes
        mean = total(input.sum(dim=0)) / rows
        centred = input - mean
        variance = total(centred.square().sum(dim=0)) / rows
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * rows / (rows - 1), self.momentum)
        return centred * (variance + self.eps).rsqrt() * self.weight + self.bias


class HiddenBaseHead(nn.Module):
    """Predicts hidden bases from k-mer logits, computed at the scored tokens only.

    The output embedding is the input embedding (tied), as in BERT. The distribution over k-mers at a token is
    marginalised to its central base: p(base) is the sum over all k-mers with that base in the middle. So the loss
    counts nothing that a visible neighbour gives away, and is in nats per base for every k.
    """

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__()
        self.k = config.k
        self.transform = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size), nn.GELU(), nn.LayerNorm(config.hidden_size, eps=1e-12)
        )
        self.bias = nn.Parameter(torch.zeros(4**config.k))

    def forward(self, hidden: torch.Tensor, embeddings: torch.Tensor, whole_kmers: bool = False) -> torch.Tensor:
        """Return log p(base), float32, shape (s, 4), or log p(k-mer), shape (s, 4^k); both in the vocabulary's order.

        Args:
            hidden: states at the scored tokens, shape (s, hidden).
            embeddings: token embeddings, shape (vocabulary, hidden).
            whole_kmers: return log p(k-mer).
        """
        logits = (self.transform(hidden) @ embeddings[len(SPECIAL_TOKENS) :].T + self.bias).float()
        if not whole_kmers:
            before, after = 4 ** (self.k // 2), 4 ** (self.k - 1 - self.k // 2)
            logits = logits.view(-1, before, 4, after).logsumexp(dim=(1, 3))
        return logits.log_softmax(dim=-1)


class AdjacencyHead(nn.Module):
    """Compares the two segments: [CLS], and the product and the difference of the segments' mean states."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            BatchNorm(3 * hidden_size),
            nn.Linear(3 * hidden_size, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, 1),
        )

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return logits of adjacency, float32, shape (b,), of pooled sequences, shape (b, 4 * hidden)."""
        cls, first, second, _ = pooled.chunk(4, dim=-1)
        logits: torch.Tensor = self.layers(torch.cat([cls, first * second, (first - second).abs()], dim=-1))
        return logits.float().squeeze(-1)


class MatchingHead(nn.Module):
    """Projects both modalities into one space of unit vectors, with a learned temperature (Radford et al. 2021).

    Pooled vectors of different regions are alike but for small differences, and these are what matters. Batch
    normalisation takes away what all have in common.
    """

    INITIAL = math.log(1 / 0.07)
    MOST = math.log(100.0)

    def __init__(self, sequence_width: int, region_width: int, projection_dim: int) -> None:
        super().__init__()
        self.sequence = nn.Sequential(BatchNorm(sequence_width), nn.Linear(sequence_width, projection_dim))
        self.region = nn.Sequential(BatchNorm(region_width), nn.Linear(region_width, projection_dim))
        self.log_scale = nn.Parameter(torch.full((1,), self.INITIAL))  # FSDP cannot divide a scalar

    @property
    def scale(self) -> torch.Tensor:
        """Inverse temperature, at most 100."""
        return self.log_scale.clamp(max=self.MOST).exp()

    def project_sequence(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return unit vectors of pooled sequences: float32, shape (b, projection)."""
        return nn.functional.normalize(self.sequence(pooled).float(), dim=-1)

    def project_region(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return unit vectors of pooled region matrices: float32, shape (b, projection)."""
        return nn.functional.normalize(self.region(pooled).float(), dim=-1)


class PositionReadout(nn.Module):
    """A few numbers of each token, in order: where windows are aligned, it counts what is where."""

    CHANNELS = 8

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, self.CHANNELS))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return vectors, shape (b, tokens * 8), of states, shape (b, tokens, hidden)."""
        narrow: torch.Tensor = self.narrow(states)
        return narrow.flatten(1)


class RegionDecoder(nn.Module):
    """Reconstructs region matrices: a linear map from each last Swin state to the pixels that it covers.

    One layer is enough for pre-training, and what is left to the encoder makes better states (Xie et al. 2022, SimMIM).
    """

    CHANNELS = 2
    """Motif evidence and log1p signal."""

    def __init__(self, config: GeneBertConfig, width: int) -> None:
        super().__init__()
        self.shape = config.motifs, config.region_columns
        self.grid = config.state_grid
        self.covered = config.state_size
        self.pixels = nn.Linear(width, self.CHANNELS * math.prod(self.covered))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return channels in standard deviations, float32, shape (b, 2, motifs, R).

        Args:
            states: last Swin states, shape (b, state rows * state columns, width).
        """
        blocks = self.pixels(states).float().view(-1, *self.grid, self.CHANNELS, *self.covered)
        image = blocks.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return image[:, :, : self.shape[0], : self.shape[1]]


class ClassificationHead(nn.Module):
    """Classes, or numbers, from pooled vectors: one hidden layer, or none."""

    def __init__(self, width: int, hidden: int, labels: int, dropout: float, *, linear: bool = False) -> None:
        super().__init__()
        one = [nn.Linear(width, labels)]
        two = [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, labels)]
        self.layers = nn.Sequential(BatchNorm(width), *(one if linear else two))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (b, labels), of pooled vectors, shape (b, width)."""
        logits: torch.Tensor = self.layers(pooled)
        return logits
