"""The 1D modality: k-mer tokens through BERT."""

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import BertConfig, BertModel

from genebert.model.config import GeneBertConfig
from genebert.tokens import PAD, vocabulary_size


class SequenceOutput(NamedTuple):
    """What the sequence encoder returns.

    Attributes:
        hidden: shape (b, tokens, hidden).
        pooled: float32, shape (b, 4 * hidden): the [CLS] state, the means of the states of either segment, and the
            highest of all.
        hidden_states: the embeddings and the states of each layer, shape (b, tokens, hidden), if asked for.
        attentions: of each layer, shape (b, heads, tokens, tokens), if asked for.
    """

    hidden: torch.Tensor
    pooled: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None
    attentions: tuple[torch.Tensor, ...] | None


class Stem(nn.Module):
    """A convolution over tokens.

    Initial embeddings are tiny; normalised, they reach the part of the activation that is not linear, and filters
    become motifs sooner.
    """

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.convolution = nn.Conv1d(hidden_size, hidden_size, width, padding="same")

    def forward(self, embedded: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """Map embeddings to what is to be added to them, both of shape (b, tokens, hidden).

        Args:
            embedded: embeddings.
            real: bool, shape (b, tokens): False for padding.
        """
        normed = self.norm(embedded)
        if real is not None:
            normed = normed * real[..., None]
        convolved = self.convolution(normed.transpose(1, 2)).transpose(1, 2)
        return nn.functional.gelu(convolved)

    def of_tokens(self, ids: torch.Tensor, vocabulary: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """Return the same, shape (b, tokens, hidden), of tokens from what each token of the vocabulary contributes.

        What a filter finds at a place depends on the token there alone. So there are as many input channels as tokens,
        and where these are few, less is to be multiplied.

        Args:
            ids: int64, shape (b, tokens).
            vocabulary: embeddings of all tokens, shape (vocabulary, hidden).
            real: see `forward`.
        """
        convolution = self.convolution
        filters = torch.einsum("vi,oiw->ovw", self.norm(vocabulary), convolution.weight).flatten(1)
        marks = (ids[..., None] == torch.arange(len(vocabulary), device=ids.device)).to(filters.dtype)
        if real is not None:
            marks = marks * real[..., None]
        (width,) = convolution.kernel_size
        around = nn.functional.pad(marks, (0, 0, (width - 1) // 2, width // 2)).unfold(1, width, 1)
        return nn.functional.gelu(nn.functional.linear(around.flatten(2), filters, convolution.bias))


class SequenceEncoder(nn.Module):
    """BERT over [CLS] A [SEP] B [SEP], with an optional convolution before it.

    A convolution over token embeddings lets a masked position see its neighbours, and a motif be one filter, before
    attention has learned what is near; a small network on little data needs that. Without it, this is BERT as DNABERT
    has it.
    """

    POOLED = 4
    """Pooled vectors are so many times as wide as hidden states."""

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
                use_cache=False,
                attn_implementation=config._attn_implementation,
            ),
            add_pooling_layer=False,
        )
        self.stem = Stem(config.hidden_size, config.stem) if config.stem else None

    def forward(
        self,
        input_ids: torch.Tensor,
        segment_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **capture: bool,
    ) -> SequenceOutput:
        """Encode tokens.

        Windows of one width have no padding, and need no mask; without one the fused kernels run.

        Args:
            input_ids, segment_ids: int64, shape (b, tokens).
            attention_mask: int64 or bool, shape (b, tokens): 0 for padding, which then changes nothing.
            capture: output_hidden_states, output_attentions.
        """
        embeddings = self.bert.embeddings.word_embeddings
        embedded = embeddings(input_ids)
        real = None if attention_mask is None else attention_mask.bool()
        if self.stem is not None and embeddings.num_embeddings < embeddings.embedding_dim:
            every = torch.arange(embeddings.num_embeddings, device=input_ids.device)
            embedded = embedded + self.stem.of_tokens(input_ids, embeddings(every), real)
        elif self.stem is not None:
            embedded = embedded + self.stem(embedded, real)
        output: Any = self.bert(
            inputs_embeds=embedded, token_type_ids=segment_ids, attention_mask=attention_mask, **capture
        )
        hidden = output.last_hidden_state
        return SequenceOutput(hidden, self._pool(hidden, segment_ids, real), output.hidden_states, output.attentions)

    def _pool(self, hidden: torch.Tensor, segment_ids: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
        hidden = hidden.float()
        share = torch.stack([1 - segment_ids, segment_ids], dim=1).to(hidden.dtype)
        share[:, 0, 0] = 0  # [CLS]
        highest = hidden[:, 1:]
        if real is not None:
            share = share * real[:, None]
            highest = highest.masked_fill(~real[:, 1:, None], -torch.inf)
        with torch.autocast(hidden.device.type, enabled=False):
            means = (share / share.sum(dim=2, keepdim=True).clamp(min=1)) @ hidden
        return torch.cat([hidden[:, 0], means.flatten(1), highest.amax(dim=1)], dim=-1)
