"""What can be seen of a window without learning: how often words occur, which motifs, and which base is where."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import nn

from genebert.model.config import GeneBertConfig
from genebert.schema import N
from genebert.tokens import SPECIAL_TOKENS, UNK, tokenize, vocabulary

KNOTS = (0.5, 0.9)
"""Quantiles of a motif's evidence in the training rows; what exceeds each is a feature, so that a strong hit can count
more than several times a weak one."""
MOST = 8.0
"""Features are at most so many standard deviations from their mean."""
_ROWS = 1 << 12  # fitted on together


class Summary(nn.Module):
    """Standardised features of windows: counts of k-mers, and the best evidence of each motif.

    Where windows have no direction, a k-mer and its reverse complement count as one. Where they are oriented, they are
    two, and the base at each position is a feature too. Means, deviations and quantiles are fitted on training rows.

    Args:
        config: names the modalities, the k-mer lengths, and whether and how long windows are oriented.
    """

    centre: torch.Tensor
    scale: torch.Tensor
    knots: torch.Tensor

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__()
        self.lengths = list(config.word_lengths) if config.reads_sequence else []
        self.positions = config.window_length if config.oriented and config.reads_sequence else 0
        self.motifs = config.motifs if config.reads_motifs else 0
        self.stranded = config.oriented
        self.register_buffer("centre", torch.zeros(self.width))
        self.register_buffer("scale", torch.ones(self.width))
        self.register_buffer("knots", torch.zeros(len(KNOTS), self.motifs))

    @property
    def width(self) -> int:
        """Number of features."""
        return sum(_count(k, self.stranded) for k in self.lengths) + 4 * self.positions + (1 + len(KNOTS)) * self.motifs

    def forward(self, codes: torch.Tensor, evidence: torch.Tensor | None) -> torch.Tensor:
        """Return features, float32, shape (b, width).

        Args:
            codes: base codes, uint8, shape (b, length).
            evidence: motif evidence of the windows, uint8, shape (b, motifs); None if motifs are not read.
        """
        return ((self._raw(codes, evidence) - self.centre) / self.scale).clamp(-MOST, MOST)

    def _raw(self, codes: torch.Tensor, evidence: torch.Tensor | None) -> torch.Tensor:
        parts = [self._counts(codes, k) for k in self.lengths]
        if self.positions:
            parts.append((codes[..., None] == torch.arange(N, device=codes.device)).flatten(1).float())
        if self.motifs:
            assert evidence is not None
            values = evidence.float()
            parts += [values, *((values - knot).clamp(min=0) for knot in self.knots)]
        return torch.cat(parts, dim=1)

    def _counts(self, codes: torch.Tensor, k: int) -> torch.Tensor:
        """Return square roots of counts, whose spread does not grow with them; k-mers with an N are not counted."""
        tokens = tokenize(codes, k)
        column = _columns(k, self.stranded).to(codes.device)[(tokens - len(SPECIAL_TOKENS)).clamp(min=0)]
        counts = torch.zeros(len(codes), _count(k, self.stranded), device=codes.device)
        return counts.scatter_add_(1, column, (tokens != UNK).float()).sqrt()

    @torch.no_grad()
    def fit(self, codes: torch.Tensor, evidence: torch.Tensor | None) -> None:
        """Fit quantiles, means and standard deviations on training rows; for the arguments see `forward`."""
        if evidence is not None and self.motifs:
            at = torch.tensor(KNOTS, dtype=torch.float64) * (len(evidence) - 1)
            for columns in torch.split(torch.arange(self.motifs), 256):
                ranked = evidence[:, columns].sort(dim=0).values
                self.knots[:, columns] = ranked[at.round().long()].float()
        total, squares = torch.zeros(2, self.width, dtype=torch.float64)
        for rows in torch.split(torch.arange(len(codes)), _ROWS):
            raw = self._raw(codes[rows], None if evidence is None else evidence[rows]).double()
            total += raw.sum(dim=0)
            squares += raw.square().sum(dim=0)
        mean = total / len(codes)
        deviation = (squares / len(codes) - mean.square()).clamp(min=0).sqrt()
        self.centre.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))


def _count(k: int, stranded: bool) -> int:
    """Return the number of k-mers, or of pairs of a k-mer and its reverse complement, which may be the same one."""
    palindromes = 0 if k % 2 else 4 ** (k // 2)
    return 4**k if stranded else (4**k + palindromes) // 2


@cache
def _columns(k: int, stranded: bool) -> torch.Tensor:
    """Return the feature of each k-mer in the vocabulary's order: int64, shape (4^k,)."""
    words = vocabulary(k)[len(SPECIAL_TOKENS) :]
    if stranded:
        return torch.arange(len(words))
    named = [min(word, _reverse_complement(word)) for word in words]
    index = {name: i for i, name in enumerate(dict.fromkeys(named))}
    return torch.tensor([index[name] for name in named])


def _reverse_complement(word: str) -> str:
    return word.translate(str.maketrans("ACGT", "TGCA"))[::-1]


class SummaryHead(nn.Module):
    """Outputs from a summary: one hidden layer, and much dropout, for features are many and alike."""

    def __init__(self, width: int, hidden: int, labels: int, dropout: Sequence[float]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(dropout[0]),
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout[1]),
            nn.Linear(hidden, labels),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (b, labels), of features, shape (b, width)."""
        logits: torch.Tensor = self.layers(features)
        return logits
