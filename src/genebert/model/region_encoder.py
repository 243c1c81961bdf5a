"""The 2D modality: the TF x region matrix through a Swin transformer."""

import torch
from torch import nn
from transformers import SwinConfig, SwinModel

from genebert.batches import RegionMatrix
from genebert.model.config import GeneBertConfig

ACCESSIBILITY_SCALE = 10.0
"""log1p signal per million lies between 0 and about 14; divided by 10 it is near 1."""


class RegionEncoder(nn.Module):
    """Swin over an image of motifs x regions with two channels: standardised motif evidence, and accessibility.

    `evidence_mean` and `evidence_std` (uint8 steps, one value per motif) are fitted on the training regions by pre-training and
    kept with the weights.
    """

    evidence_mean: torch.Tensor
    evidence_std: torch.Tensor

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__()
        self.swin = SwinModel(
            SwinConfig(
                image_size=(config.motifs, config.region_columns),
                patch_size=tuple(config.patch),
                num_channels=2,
                embed_dim=config.embed_dim,
                depths=config.depths,
                num_heads=config.stage_heads,
                window_size=config.window,
                drop_path_rate=0.0,
            ),
            add_pooling_layer=False,
        )
        self.register_buffer("evidence_mean", torch.zeros(config.motifs))
        self.register_buffer("evidence_std", torch.ones(config.motifs))

    @property
    def width(self) -> int:
        """Length of the pooled vector."""
        return int(self.swin.num_features)

    def image(self, matrix: RegionMatrix) -> torch.Tensor:
        """Return the image of region matrices: float, shape (b, 2, motifs, R); padding columns are 0."""
        evidence = (matrix.evidence - self.evidence_mean) / self.evidence_std
        accessibility = (matrix.accessibility / ACCESSIBILITY_SCALE)[..., None].expand_as(evidence)
        image = torch.stack([evidence, accessibility], dim=1) * matrix.present[:, None, :, None]
        return image.transpose(2, 3)

    def forward(self, matrix: RegionMatrix) -> torch.Tensor:
        """Return the mean over patches of the last stage: shape (b, width)."""
        return self.swin(pixel_values=self.image(matrix)).last_hidden_state.mean(dim=1)
