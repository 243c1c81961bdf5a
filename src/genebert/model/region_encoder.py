"""The 2D modality: the TF x region matrix through a Swin transformer."""

from typing import Any

import torch
from torch import nn
from transformers import SwinConfig, SwinModel

from genebert.model.config import GeneBertConfig
from genebert.region_matrix import RegionMatrix

ACCESSIBILITY_SCALE = 10.0
"""log1p signal per million lies between 0 and about 14; divided by 10 it is near 1."""


class RegionEncoder(nn.Module):
    """Swin over an image of motifs x regions.

    The channels are standardised motif evidence, accessibility, and the evidence once more in the window's own column
    alone: a mark there would have to be multiplied with the evidence, which a patch embedding, being linear, cannot
    do. Rows are particular TFs, so that absolute position embeddings are on, unlike in Swin for photographs.

    `evidence_mean` and `evidence_std` (uint8 steps, one value per motif), `signal_mean` and `signal_std` (log1p
    signal per million) are fitted on the training regions and examples by pre-training and kept with the weights.
    """

    evidence_mean: torch.Tensor
    evidence_std: torch.Tensor
    signal_mean: torch.Tensor
    signal_std: torch.Tensor

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__()
        self.patch = tuple(config.patch)
        self.patches = config.patch_grid
        self.size = tuple(count * patch for count, patch in zip(self.patches, self.patch, strict=True))
        self.grid = config.state_grid
        self.state_columns = config.state_size[1]
        self.swin = SwinModel(
            SwinConfig(
                image_size=self.size,
                patch_size=self.patch,
                num_channels=3,
                embed_dim=config.embed_dim,
                depths=config.depths,
                num_heads=config.stage_heads,
                window_size=config.window,
                drop_path_rate=0.0,
                use_absolute_embeddings=True,
                attn_implementation="eager"
                if config._attn_implementation == "eager"
                else None,  # None: the best it has
            ),
            add_pooling_layer=False,
            use_mask_token=config.region_decoder,
        )
        self.register_buffer("evidence_mean", torch.zeros(config.motifs))
        self.register_buffer("evidence_std", torch.ones(config.motifs))
        self.register_buffer("signal_mean", torch.zeros(()))
        self.register_buffer("signal_std", torch.ones(()))

    @property
    def width(self) -> int:
        """Length of the pooled vector."""
        return int(self.swin.num_features) * (self.grid[0] + 1)

    def image(self, matrix: RegionMatrix) -> torch.Tensor:
        """Return the image of region matrices: float32, shape (b, 3, motifs, R), filled with 0 up to whole patches."""
        evidence, present = self._standardised_evidence(matrix), matrix.present[:, None]
        rows, motifs, columns = evidence.shape
        image = evidence.new_zeros(rows, 3, *self.size)
        image[:, 0, :motifs, :columns] = evidence * present
        image[:, 1, :motifs, :columns] = matrix.accessibility[:, None] / ACCESSIBILITY_SCALE * present
        image[:, 2, :motifs, :columns] = evidence * matrix.own[:, None]
        return image

    def pixels(self, matrix: RegionMatrix) -> torch.Tensor:
        """Return what masked region modelling is to find, float32, shape (b, 2, motifs, R).

        The channels are motif evidence and log1p signal per million, each in standard deviations from its mean.
        """
        evidence = self._standardised_evidence(matrix)
        return torch.stack([evidence, self.standardised(matrix.accessibility)[:, None].expand_as(evidence)], dim=1)

    def standardised(self, signal: torch.Tensor) -> torch.Tensor:
        """Return log1p signal per million in standard deviations from its mean."""
        return (signal - self.signal_mean) / self.signal_std

    def _standardised_evidence(self, matrix: RegionMatrix) -> torch.Tensor:
        return ((matrix.evidence - self.evidence_mean) / self.evidence_std).transpose(1, 2)

    def hidden_pixels(self, hidden: torch.Tensor, matrix: RegionMatrix) -> torch.Tensor:
        """Return which of `pixels` nothing that is visible shows: bool, shape (b, 2, motifs, R).

        They lie in hidden patches and are no padding. The signal of a region is the same for all motifs, and therefore
        hidden only where the whole column is.
        """
        _, columns, motifs = matrix.evidence.shape
        pixels = hidden.repeat_interleave(self.patch[0], dim=1).repeat_interleave(self.patch[1], dim=2)
        evidence = pixels[:, :motifs, :columns] & matrix.present[:, None]
        signal = evidence.all(dim=1, keepdim=True).expand_as(evidence)
        return torch.stack([evidence, signal], dim=1)

    def hideable(self, hidden: torch.Tensor, matrix: RegionMatrix) -> torch.Tensor:
        """Return hidden patches, bool, shape (b, patch rows, patch columns), less those over own or absent columns.

        So what was chosen for one region matrix of a window can be hidden in another one, whose columns are others.
        """
        present, own = (self._by_columns(mark, self.patch[1]).any(dim=2) for mark in (matrix.present, matrix.own))
        return hidden & (present & ~own)[:, None]

    def _by_columns(self, mark: torch.Tensor, across: int) -> torch.Tensor:
        """Return marks of columns, shape (b, R), by patch or state of so many columns: shape (b, count, across)."""
        count = -(-self.size[1] // across)
        return nn.functional.pad(mark, (0, count * across - mark.shape[1])).view(-1, count, across)

    def encode(self, matrix: RegionMatrix, hidden: torch.Tensor | None = None, **capture: bool) -> Any:
        """Return Swin's output; its last states are of shape (b, state rows * state columns, Swin's last width).

        Args:
            matrix: region matrices.
            hidden: bool, shape (b, patch rows, patch columns): patches to replace by the mask token.
            capture: output_hidden_states, output_attentions.
        """
        masked = None if hidden is None else hidden.flatten(1)
        return self.swin(pixel_values=self.image(matrix), bool_masked_pos=masked, **capture)

    def pool(self, states: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Return pooled vectors, float32, shape (b, width), of last states.

        They are the states over the window's own column (bool, shape (b, R)), TF group by TF group, followed by the
        mean over the whole matrix; a tiled sequence owns all columns.
        """
        states = states.float()
        share = self._by_columns(own, self.state_columns).float().sum(dim=2)
        share = share / share.sum(dim=1, keepdim=True)
        with torch.autocast(states.device.type, enabled=False):
            column = torch.einsum("bmrc,br->bmc", states.view(-1, *self.grid, states.shape[2]), share)
        return torch.cat([column.flatten(1), states.mean(dim=1)], dim=-1)

    def forward(self, matrix: RegionMatrix) -> torch.Tensor:
        """Return pooled vectors of region matrices, float32, shape (b, width)."""
        return self.pool(self.encode(matrix).last_hidden_state, matrix.own)
