"""The configuration of a GeneBERT network, kept as config.json beside the weights."""

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from genebert.settings import Modalities


class GeneBertConfig(PretrainedConfig):
    """Sizes of the network.

    Args:
        k: k-mer length of a token.
        max_tokens: longest input in tokens, special ones included.
        hidden_size, layers, heads: of the BERT sequence encoder (feed-forward width: 4 x hidden_size).
        stem: width of a convolution over token embeddings before BERT, in tokens, odd; 0 for none.
        dropout: on hidden states; attention probabilities have none, which lets the fused kernels run.
        motifs: number of motifs, the rows of the region matrix.
        region_columns: R, its columns.
        patch: Swin patch (motifs, regions).
        window: Swin attention window in patches.
        embed_dim, depths, stage_heads: of the Swin region encoder.
        projection_dim: width of the space of SRM.
        region_decoder: with the mask token and the decoder of masked region modelling.
        signal_head: with the head that predicts a region's signal in a cell type.
        modalities: what a classifier reads: "both", "sequence", or "motifs" (the region matrix).
        encoders: whether a classifier reads the states of the encoders; else the summary of the window alone.
        region_states: whether it reads the states of the region encoder; else only the window's own motifs.
        summary: whether it reads the summary (see `model.summary`).
        word_lengths: of the k-mers that the summary counts.
        cell_type: whether it reads what the cell type makes of the window (see `model.cell_type`).
        own_accessibility: whether the accessibility of the window itself is part of that.
        oriented: whether its windows are aligned and have a direction (promoters, splice sites), so that positions and
            strands are told apart.
        window_length: length of its windows in bp; needed if they are oriented.
        linear_head: whether its head over the encoders is linear.
        num_labels: outputs of a classifier (of the base class).
    """

    model_type = "genebert"

    def __init__(
        self,
        k: int = 6,
        max_tokens: int = 512,
        hidden_size: int = 768,
        layers: int = 12,
        heads: int = 12,
        stem: int = 0,
        dropout: float = 0.1,
        motifs: int = 1000,
        region_columns: int = 32,
        patch: Sequence[int] = (16, 1),
        window: int = 4,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        stage_heads: Sequence[int] = (3, 6, 12, 24),
        projection_dim: int = 128,
        region_decoder: bool = False,
        signal_head: bool = False,
        modalities: Modalities = "both",
        encoders: bool = True,
        region_states: bool = True,
        summary: bool = True,
        word_lengths: Sequence[int] = (4, 5, 6),
        cell_type: bool = False,
        own_accessibility: bool = False,
        oriented: bool = False,
        window_length: int = 0,
        linear_head: bool = False,
        **kwargs: Any,
    ) -> None:
        self.k = k
        self.max_tokens = max_tokens
        self.hidden_size = hidden_size
        self.layers = layers
        self.heads = heads
        self.stem = stem
        self.dropout = dropout
        self.motifs = motifs
        self.region_columns = region_columns
        self.patch = list(patch)
        self.window = window
        self.embed_dim = embed_dim
        self.depths = list(depths)
        self.stage_heads = list(stage_heads)
        self.projection_dim = projection_dim
        self.region_decoder = region_decoder
        self.signal_head = signal_head
        self.modalities = modalities
        self.encoders = encoders
        self.region_states = region_states
        self.summary = summary
        self.word_lengths = list(word_lengths)
        self.cell_type = cell_type
        self.own_accessibility = own_accessibility
        self.oriented = oriented
        self.window_length = window_length
        self.linear_head = linear_head
        super().__init__(**kwargs)

    @property
    def reads_sequence(self) -> bool:
        """Whether a classifier reads the sequence."""
        return self.modalities != "motifs"

    @property
    def reads_motifs(self) -> bool:
        """Whether a classifier reads motifs."""
        return self.modalities != "sequence"

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Number of Swin patches along motifs and along regions; the last stage has to hold a whole window."""
        least = self.window * 2 ** (len(self.depths) - 1)
        rows, columns = (
            max(least, -(-size // patch))
            for size, patch in zip((self.motifs, self.region_columns), self.patch, strict=True)
        )
        return rows, columns

    @property
    def state_grid(self) -> tuple[int, int]:
        """Number of last Swin states along motifs and along regions; each covers `state_size` pixels."""
        rows, columns = (-(-count // self._merged) for count in self.patch_grid)
        return rows, columns

    @property
    def state_size(self) -> tuple[int, int]:
        """Motifs and regions that a last Swin state covers, not counting what attention brings to it."""
        rows, columns = (size * self._merged for size in self.patch)
        return rows, columns

    @property
    def _merged(self) -> int:
        """Patches along one side of a last state: every stage but the first merges two by two."""
        return 1 << len(self.depths) - 1


AutoConfig.register(GeneBertConfig.model_type, GeneBertConfig)
