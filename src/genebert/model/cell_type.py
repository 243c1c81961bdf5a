"""What a cell type makes of a window: which of its motifs the cell type uses, and what is accessible around it.

A region tends to be bound and open where it holds sites of the TFs that the cell type uses. So a motif's evidence in
the window is multiplied by the motif's usage in the cell type, each against its mean. One weight per motif then holds
for cell types that were never seen, since all that is known of them is their usage.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from genebert.corpus.surroundings import COLUMNS
from genebert.model.config import GeneBertConfig
from genebert.model.summary import MOST, moments
from genebert.region_matrix import RegionMatrix


class CellTypeFeatures(nn.Module):
    """Features of windows in a cell type, fitted on training rows: motif evidence, its products with usage, totals.

    The products keep their relative sizes, since a motif whose usage hardly differs between cell types can tell little.
    Where evidence or usage are as they are on average, they are 0.

    Args:
        config: number of motifs, and whether the accessibility of the window itself is read.
    """

    evidence_mean: torch.Tensor
    deviation: torch.Tensor
    usage_mean: torch.Tensor
    size: torch.Tensor
    centre: torch.Tensor
    scale: torch.Tensor

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__()
        self.motifs = config.motifs
        self.own_accessibility = config.own_accessibility
        for name in ("evidence_mean", "usage_mean"):
            self.register_buffer(name, torch.zeros(self.motifs))
        self.register_buffer("deviation", torch.ones(self.motifs))
        self.register_buffer("size", torch.ones(()))
        self.register_buffer("centre", torch.zeros(self.totals))
        self.register_buffer("scale", torch.ones(self.totals))

    @property
    def totals(self) -> int:
        """Number of features that say much by themselves, the last ones: the mean product, and accessibility."""
        return 1 + COLUMNS + self.own_accessibility

    @property
    def width(self) -> int:
        """Number of features."""
        return 2 * self.motifs + self.totals

    def forward(self, matrix: RegionMatrix) -> torch.Tensor:
        """Return features of windows, float32, shape (b, width), of their region matrices."""
        evidence, products = self._of_motifs(matrix)
        totals = (self._totals(matrix, products) - self.centre) / self.scale
        return torch.cat([evidence, products / self.size, totals], dim=1).clamp(-MOST, MOST)

    def _of_motifs(self, matrix: RegionMatrix) -> tuple[torch.Tensor, torch.Tensor]:
        """Return standardised evidence, and its products with usage, both of shape (b, motifs)."""
        assert matrix.usage is not None
        evidence = (matrix.own_evidence.float() - self.evidence_mean) / self.deviation
        return evidence, evidence * ((matrix.usage - self.usage_mean) / self.deviation)

    def _totals(self, matrix: RegionMatrix, products: torch.Tensor) -> torch.Tensor:
        """Return totals as they are, shape (b, totals)."""
        assert matrix.surroundings is not None
        totals = [products.mean(dim=1, keepdim=True), matrix.surroundings]
        if self.own_accessibility:
            assert matrix.signal is not None
            totals.append(matrix.signal[:, None])
        return torch.cat(totals, dim=1)

    @torch.no_grad()
    def fit(self, blocks: Callable[[], Iterable[RegionMatrix]]) -> None:
        """Fit means and deviations.

        Args:
            blocks: yields the region matrices of all training rows, block by block.
        """
        mean, deviation = moments(one.own_evidence for one in blocks())
        self.evidence_mean, self.deviation = mean.float(), deviation.float().clamp(min=1.0)  # it comes in whole steps
        self.usage_mean = moments(_usage(one) for one in blocks())[0].float()
        products = [self._of_motifs(one)[1].square().mean(dim=1, keepdim=True) for one in blocks()]
        self.size = _usable(moments(products)[0].sqrt().float())[0]
        centre, deviation = moments(self._totals(one, self._of_motifs(one)[1]) for one in blocks())
        self.centre, self.scale = centre.float(), _usable(deviation.float())


def _usage(matrix: RegionMatrix) -> torch.Tensor:
    assert matrix.usage is not None
    return matrix.usage


def _usable(deviation: torch.Tensor) -> torch.Tensor:
    """Return deviations to divide by: 1 where nothing differs."""
    return torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
