"""The 2D modality: the TF x region matrix through a Swin transformer."""

import torch
from torch import nn
from transformers import SwinConfig, SwinModel

from genebert.batches import RegionMatrix
from genebert.model.config import GeneBertConfig

ACCESSIBILITY_SCALE = 10.0
"""log1p signal per million lies between 0 and about 14; divided by 10 it is near 1."""


class RegionEncoder(nn.Module):
    """Swin over an image of motifs x regions.

    The channels are standardised motif evidence, accessibility, and a mark on the window's own column. Rows are
    particular TFs, so that absolute position embeddings are on, unlike in Swin for photographs.

    `evidence_mean` and `evidence_std` (uint8 steps, one value per motif) are fitted on the training regions by
    pre-training and kept with the weights.
    """

    evidence_mean: torch.Tensor
    evidence_std: torch.Tensor

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__()
        halvings = len(config.depths) - 1
        least = config.window * 2**halvings  # the last stage has to hold a whole window
        sizes = zip((config.motifs, config.region_columns), config.patch, strict=True)
        patches = [max(least, -(-size // patch)) for size, patch in sizes]
        self.size = tuple(count * patch for count, patch in zip(patches, config.patch, strict=True))
        self.grid = tuple(_halved(count, halvings) for count in patches)
        self.swin = SwinModel(
            SwinConfig(
                image_size=self.size,
                patch_size=tuple(config.patch),
                num_channels=3,
                embed_dim=config.embed_dim,
                depths=config.depths,
                num_heads=config.stage_heads,
                window_size=config.window,
                drop_path_rate=0.0,
                use_absolute_embeddings=True,
            ),
            add_pooling_layer=False,
        )
        self.register_buffer("evidence_mean", torch.zeros(config.motifs))
        self.register_buffer("evidence_std", torch.ones(config.motifs))

    @property
    def width(self) -> int:
        """Length of the pooled vector."""
        return int(self.swin.num_features) * (self.grid[0] + 1)

    def image(self, matrix: RegionMatrix) -> torch.Tensor:
        """Return the image of region matrices: float, shape (b, 3, motifs, R), filled with 0 up to whole patches."""
        evidence = (matrix.evidence - self.evidence_mean) / self.evidence_std
        accessibility = (matrix.accessibility / ACCESSIBILITY_SCALE)[..., None].expand_as(evidence)
        own = matrix.own.to(evidence.dtype)[..., None].expand_as(evidence)
        image = torch.stack([evidence, accessibility, own], dim=1) * matrix.present[:, None, :, None]
        rows, columns = self.size[0] - image.shape[3], self.size[1] - image.shape[2]
        return nn.functional.pad(image.transpose(2, 3), (0, columns, 0, rows))

    def forward(self, matrix: RegionMatrix) -> torch.Tensor:
        """Return pooled vectors, shape (b, width).

        They are the states over the window's own column, TF group by TF group, followed by the mean over the whole
        matrix; a tiled sequence owns all columns.
        """
        states = self.swin(pixel_values=self.image(matrix)).last_hidden_state
        grid = states.unflatten(1, self.grid)
        share = nn.functional.adaptive_avg_pool1d(matrix.own.to(states.dtype)[:, None], self.grid[1])[:, 0]
        share = share / share.sum(dim=1, keepdim=True)
        own = torch.einsum("bmrc,br->bmc", grid, share).flatten(1)
        return torch.cat([own, states.mean(dim=1)], dim=-1)


def _halved(size: int, times: int) -> int:
    for _ in range(times):
        size = -(-size // 2)
    return size
