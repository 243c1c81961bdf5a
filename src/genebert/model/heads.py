"""Heads: hidden bases, adjacency, the space of SRM, and classes."""

import math

import torch
from torch import nn

from genebert.model.config import GeneBertConfig
from genebert.tokens import SPECIAL_TOKENS


class HiddenBaseHead(nn.Module):
    """Predicts hidden bases from k-mer logits, computed at the scored tokens only.

    The output embedding is the input embedding (tied), as in BERT. The distribution over k-mers at a token is
    marginalised to its
    central base: p(base) is the sum over all k-mers with that base in the middle. So the loss counts nothing that a
    visible neighbour gives away, and is in nats per base for every k.
    """

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__()
        self.k = config.k
        self.transform = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size), nn.GELU(), nn.LayerNorm(config.hidden_size)
        )
        self.bias = nn.Parameter(torch.zeros(4**config.k))

    def forward(self, hidden: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return log p(base): shape (s, 4), bases in the vocabulary's order.

        Args:
            hidden: states at the scored tokens, shape (s, hidden).
            embeddings: token embeddings, shape (vocabulary, hidden).
        """
        logits = self.transform(hidden) @ embeddings[len(SPECIAL_TOKENS) :].T + self.bias
        before, after = 4 ** (self.k // 2), 4 ** (self.k - 1 - self.k // 2)
        by_base = logits.float().log_softmax(dim=-1).view(-1, before, 4, after)
        return by_base.logsumexp(dim=(1, 3))


class AdjacencyHead(nn.Module):
    """Compares the two segments: [CLS], and the product and the difference of the segments' mean states."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(3 * hidden_size),
            nn.Linear(3 * hidden_size, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, 1),
        )

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return logits of adjacency, shape (b,), of pooled sequences, shape (b, 4 * hidden)."""
        cls, first, second, _ = pooled.chunk(4, dim=-1)
        logits: torch.Tensor = self.layers(torch.cat([cls, first * second, (first - second).abs()], dim=-1)).squeeze(-1)
        return logits


class MatchingHead(nn.Module):
    """Projects both modalities into one space of unit vectors, with a learned temperature (Radford et al. 2021).

    Pooled vectors of different regions are alike but for small differences, and these are what matters. Batch
    normalisation takes away what all have in common.
    """

    INITIAL = math.log(1 / 0.07)
    MOST = math.log(100.0)

    def __init__(self, sequence_width: int, region_width: int, projection_dim: int) -> None:
        super().__init__()
        self.sequence = nn.Sequential(nn.BatchNorm1d(sequence_width), nn.Linear(sequence_width, projection_dim))
        self.region = nn.Sequential(nn.BatchNorm1d(region_width), nn.Linear(region_width, projection_dim))
        self.log_scale = nn.Parameter(torch.tensor(self.INITIAL))

    @property
    def scale(self) -> torch.Tensor:
        """Inverse temperature, at most 100."""
        return self.log_scale.clamp(max=self.MOST).exp()

    def forward(self, sequence: torch.Tensor, region: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return unit vectors of sequences and of region matrices: shape (b, projection)."""
        project = nn.functional.normalize
        return project(self.sequence(sequence).float(), dim=-1), project(self.region(region).float(), dim=-1)


class ClassificationHead(nn.Module):
    """Classes from both modalities: one hidden layer over the concatenated pooled vectors."""

    def __init__(self, width: int, hidden: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(width), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, labels)
        )

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (b, labels), of pooled vectors, shape (b, width)."""
        logits: torch.Tensor = self.layers(pooled)
        return logits
