"""GeneBERT: both encoders, and their use for pre-training and for classification."""

from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from genebert.batches import PretrainingBatch, RegionMatrix
from genebert.model.config import GeneBertConfig
from genebert.model.heads import AdjacencyHead, ClassificationHead, HiddenBaseHead, MatchingHead
from genebert.model.region_encoder import RegionEncoder
from genebert.model.sequence_encoder import SequenceEncoder, SequenceOutput


@dataclass
class GeneBertOutput(ModelOutput):
    """What both encoders return.

    Attributes:
        last_hidden_state: of the sequence encoder, shape (b, tokens, hidden).
        sequence: pooled, shape (b, 4 * hidden).
        region: pooled, shape (b, region width).
    """

    last_hidden_state: torch.Tensor | None = None
    sequence: torch.Tensor | None = None
    region: torch.Tensor | None = None


@dataclass
class PretrainingOutput(ModelOutput):
    """What the three tasks need.

    Attributes:
        base_log_probs: log p(base) at the scored tokens, shape (s, 4).
        adjacent_logits: shape (b,).
        sequence, region: unit vectors of SRM, shape (b, projection).
        scale: inverse temperature of SRM, a scalar.
    """

    base_log_probs: torch.Tensor | None = None
    adjacent_logits: torch.Tensor | None = None
    sequence: torch.Tensor | None = None
    region: torch.Tensor | None = None
    scale: torch.Tensor | None = None


class GeneBertPreTrainedModel(PreTrainedModel):
    """Loading, saving and initial weights, common to all GeneBERT models."""

    config_class = GeneBertConfig
    base_model_prefix = "genebert"

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, RegionEncoder):
            init.zeros_(module.evidence_mean)
            init.ones_(module.evidence_std)
        elif isinstance(module, HiddenBaseHead):
            init.zeros_(module.bias)
        elif isinstance(module, MatchingHead):
            init.constant_(module.log_scale, module.INITIAL)


class GeneBertModel(GeneBertPreTrainedModel):
    """The two encoders without a head."""

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__(config)
        self.sequence_encoder = SequenceEncoder(config)
        self.region_encoder = RegionEncoder(config)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, segment_ids: torch.Tensor, matrix: RegionMatrix) -> GeneBertOutput:
        """Encode sequences (token and segment ids, int64, shape (b, tokens)) and their region matrices."""
        encoded: SequenceOutput = self.sequence_encoder(input_ids, segment_ids)
        return GeneBertOutput(
            last_hidden_state=encoded.hidden, sequence=encoded.pooled, region=self.region_encoder(matrix)
        )

    @property
    def sequence_width(self) -> int:
        """Length of a pooled sequence vector."""
        return SequenceEncoder.POOLED * int(self.config.hidden_size)

    @property
    def token_embeddings(self) -> torch.Tensor:
        """Token embeddings, shape (vocabulary, hidden)."""
        weight: torch.Tensor = self.sequence_encoder.bert.embeddings.word_embeddings.weight
        return weight


class GeneBertForPreTraining(GeneBertPreTrainedModel):
    """Both encoders with the heads of MGM, NGSP and SRM."""

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__(config)
        self.genebert = GeneBertModel(config)
        self.base_head = HiddenBaseHead(config)
        self.adjacency_head = AdjacencyHead(config.hidden_size)
        self.matching_head = MatchingHead(
            self.genebert.sequence_width, self.genebert.region_encoder.width, config.projection_dim
        )
        self.post_init()

    def forward(self, batch: PretrainingBatch) -> PretrainingOutput:
        """Run a batch through both encoders and all heads."""
        output = self.genebert(batch.input_ids, batch.segment_ids, batch.matrix)
        scored = output.last_hidden_state[batch.scored_row, batch.scored_token]
        sequence, region = self.matching_head(output.sequence, output.region)
        return PretrainingOutput(
            base_log_probs=self.base_head(scored, self.genebert.token_embeddings),
            adjacent_logits=self.adjacency_head(output.sequence),
            sequence=sequence,
            region=region,
            scale=self.matching_head.scale,
        )


class GeneBertForSequenceClassification(GeneBertPreTrainedModel):
    """Both encoders with a classifier over their concatenated pooled vectors."""

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__(config)
        self.genebert = GeneBertModel(config)
        width = self.genebert.sequence_width + self.genebert.region_encoder.width
        self.classifier = ClassificationHead(width, config.hidden_size, config.num_labels, config.dropout)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, segment_ids: torch.Tensor, matrix: RegionMatrix) -> torch.Tensor:
        """Return class logits, shape (b, labels), of sequences and their region matrices."""
        output = self.genebert(input_ids, segment_ids, matrix)
        return self.classify(output.sequence, output.region)

    def classify(self, sequence: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
        """Return class logits of pooled vectors: one sequence encoded once can be paired with many region matrices."""
        logits: torch.Tensor = self.classifier(torch.cat([sequence, region], dim=-1))
        return logits


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write config.json and model.safetensors into a folder.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    transformers.logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:
        raise OSError(f"the weights cannot be written to {folder} ({error})") from None
    finally:
        transformers.logging.enable_progress_bar()


AutoConfig.register(GeneBertConfig.model_type, GeneBertConfig)
AutoModel.register(GeneBertConfig, GeneBertModel)
AutoModelForSequenceClassification.register(GeneBertConfig, GeneBertForSequenceClassification)
