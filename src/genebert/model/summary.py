"""What can be seen of a window without learning: how often words occur, which motifs, and which base is where."""

from collections.abc import Iterable, Sequence
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
        return self._standardised(self._raw(codes, evidence), slice(None))

    def with_evidence(self, features: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
        """Return features, as `forward` returned them, of the same windows with other motif evidence."""
        first = features.shape[1] - (1 + len(KNOTS)) * self.motifs
        motifs = self._standardised(torch.cat(self._motif_features(evidence), dim=1), slice(first, None))
        return torch.cat([features[:, :first], motifs], dim=1)

    def _standardised(self, raw: torch.Tensor, columns: slice) -> torch.Tensor:
        return ((raw - self.centre[columns]) / self.scale[columns]).clamp(-MOST, MOST)

    def _raw(self, codes: torch.Tensor, evidence: torch.Tensor | None) -> torch.Tensor:
        parts = [self._counts(codes, k) for k in self.lengths]
        if self.positions:
            parts.append((codes[..., None] == torch.arange(N, device=codes.device)).flatten(1).float())
        if self.motifs:
            assert evidence is not None
            parts += self._motif_features(evidence)
        return torch.cat(parts, dim=1)

    def _motif_features(self, evidence: torch.Tensor) -> list[torch.Tensor]:
        """Return evidence, and what of it exceeds each knot: shape (b, motifs) each."""
        values = evidence.float()
        return [values, *((values - knot).clamp(min=0) for knot in self.knots)]

    def _counts(self, codes: torch.Tensor, k: int) -> torch.Tensor:
        """Return square roots of counts, whose spread does not grow with them; k-mers with an N are not counted."""
        tokens = tokenize(codes, k)
        column = _columns(k, self.stranded, codes.device)[(tokens - len(SPECIAL_TOKENS)).clamp(min=0)]
        counts = torch.zeros(len(codes), _count(k, self.stranded), device=codes.device)
        return counts.scatter_add_(1, column, (tokens != UNK).float()).sqrt()

    @torch.no_grad()
    def fit(self, codes: torch.Tensor, evidence: torch.Tensor | None) -> None:
        """Fit quantiles, means and standard deviations on training rows, block by block.

        Args:
            codes: see `forward`.
            evidence: see `forward`; or that of tiles of the windows, shape (b, tiles, motifs).
        """
        blocks = torch.split(torch.arange(len(codes)), _ROWS)
        if evidence is not None and self.motifs:
            self.knots.copy_(_quantiles(_best(evidence[rows]) for rows in blocks))
        mean, deviation = moments(
            self._raw(codes[rows], None if evidence is None else _best(evidence[rows])) for rows in blocks
        )
        self.centre.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))


def _best(evidence: torch.Tensor) -> torch.Tensor:
    """Return the best evidence of each motif in windows, shape (b, motifs), of that of windows or of their tiles."""
    return evidence if evidence.dim() == 2 else evidence.amax(dim=1)


def moments(blocks: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return means and standard deviations (of these rows) of columns, float64, of rows that come in blocks."""
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for block in blocks:
        values = block.double()
        count += len(values)
        total = total + values.sum(dim=0)
        squares = squares + values.square().sum(dim=0)
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0).sqrt()


def _quantiles(blocks: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the quantiles `KNOTS`, shape (knots, columns), of uint8 rows that come in blocks: the nearest value."""
    counts = torch.zeros((), dtype=torch.int64)
    for block in blocks:
        columns = block.shape[1]
        places = block.long() + 256 * torch.arange(columns)
        counts = counts + torch.bincount(places.flatten(), minlength=256 * columns).view(columns, 256)
    below = counts.cumsum(dim=1)
    at = (torch.tensor(KNOTS).double() * (below[0, -1] - 1)).round()
    return torch.stack([(below <= rank).sum(dim=1) for rank in at])


def _count(k: int, stranded: bool) -> int:
    """Return the number of k-mers, or of pairs of a k-mer and its reverse complement, which may be the same one."""
    palindromes = 0 if k % 2 else 4 ** (k // 2)
    return 4**k if stranded else (4**k + palindromes) // 2


@cache  # on each device: copying them there would wait for it, at every step
def _columns(k: int, stranded: bool, device: torch.device) -> torch.Tensor:
    """Return the feature of each k-mer in the vocabulary's order: int64, shape (4^k,)."""
    words = vocabulary(k)[len(SPECIAL_TOKENS) :]
    if stranded:
        return torch.arange(len(words), device=device)
    named = [min(word, _reverse_complement(word)) for word in words]
    index = {name: i for i, name in enumerate(dict.fromkeys(named))}
    return torch.tensor([index[name] for name in named], device=device)


def _reverse_complement(word: str) -> str:
    return word.translate(str.maketrans("ACGT", "TGCA"))[::-1]


class SummaryHead(nn.Module):
    """Outputs from a summary: one hidden layer, and much dropout, for features are many and alike.

    Args:
        width: number of features.
        hidden: of the hidden layer.
        labels: number of outputs.
        dropout: of the features, and of the hidden layer.
        kept: how many features, the last ones, are never dropped.
    """

    def __init__(self, width: int, hidden: int, labels: int, dropout: Sequence[float], kept: int = 0) -> None:
        super().__init__()
        self.kept = kept
        self.layers = nn.Sequential(
            nn.Dropout(dropout[0]),
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout[1]),
            nn.Linear(hidden, labels),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (b, labels), of features, shape (b, width)."""
        first = features.shape[1] - self.kept
        dropped = torch.cat([self.layers[0](features[:, :first]), features[:, first:]], dim=1)
        logits: torch.Tensor = self.layers[1:](dropped)
        return logits
