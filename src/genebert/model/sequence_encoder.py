"""The 1D modality: k-mer tokens through BERT."""

from typing import NamedTuple

import torch
from torch import nn
from transformers import BertConfig, BertModel

from genebert.model.config import GeneBertConfig
from genebert.tokens import PAD, vocabulary_size


class SequenceOutput(NamedTuple):
    """What the sequence encoder returns.

    Attributes:
        hidden: shape (b, tokens, hidden).
        pooled: shape (b, 2 * hidden): the [CLS] state, and the mean of the states of all other tokens.
    """

    hidden: torch.Tensor
    pooled: torch.Tensor


class SequenceEncoder(nn.Module):
    """BERT over [CLS] A [SEP] B [SEP]."""

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__()
        self.bert = BertModel(
            BertConfig(
                vocab_size=vocabulary_size(config.k),
                hidden_size=config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.hidden_size,
                max_position_embeddings=config.max_tokens,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=0.0,
                pad_token_id=PAD,
            ),
            add_pooling_layer=False,
        )

    def forward(self, input_ids: torch.Tensor, segment_ids: torch.Tensor) -> SequenceOutput:
        """Encode tokens: input_ids and segment_ids are int64, shape (b, tokens)."""
        hidden = self.bert(input_ids=input_ids, token_type_ids=segment_ids).last_hidden_state
        return SequenceOutput(hidden, torch.cat([hidden[:, 0], hidden[:, 1:].mean(dim=1)], dim=-1))
