"""GeneBERT: both encoders, and their use for pre-training and for classification."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.utils import ModelOutput

from genebert.errors import UserError, problem
from genebert.model.cell_type import CellTypeFeatures
from genebert.model.config import GeneBertConfig
from genebert.model.heads import (
    AdjacencyHead,
    ClassificationHead,
    HiddenBaseHead,
    MatchingHead,
    PositionReadout,
    RegionDecoder,
)
from genebert.model.region_encoder import RegionEncoder
from genebert.model.sequence_encoder import SequenceEncoder, SequenceOutput
from genebert.model.summary import Summary, SummaryHead
from genebert.pretraining_data import PretrainingBatch
from genebert.region_matrix import RegionMatrix

TASKS = ("mgm", "ngsp", "srm", "mrm", "rc", "accessibility")
"""The three tasks of the paper, then masked region modelling, reverse-complement consistency and accessibility."""
DEFAULT_TASKS = frozenset(TASKS[:3])
SEQUENCE_TASKS = frozenset(TASKS) - {"mrm"}
REGION_TASKS = frozenset({"srm", "mrm", "accessibility"})
USERS = {
    "genebert.sequence_encoder": SEQUENCE_TASKS,
    "genebert.region_encoder": REGION_TASKS,
    "genebert.region_encoder.swin.embeddings.mask_token": {"mrm"},
    "base_head": {"mgm"},
    "adjacency_head": {"ngsp"},
    "matching_head": {"srm"},
    "matching_head.sequence": {"srm", "rc"},
    "region_decoder": {"mrm"},
    "signal_head": {"accessibility"},
}
"""Prefix of parameters -> the tasks that use them; of two prefixes that fit, the later one counts."""


LEAST_SIGNAL = -3.0
"""No signal at all is to be predicted as three standard deviations below the mean: in fact it is a dozen, and would be
all that the loss is about."""


@dataclass
class GeneBertOutput(ModelOutput):
    """What both encoders return; what belongs to a modality that was not given is None.

    Attributes:
        last_hidden_state: of the sequence encoder, shape (b, tokens, hidden).
        sequence: pooled, float32, shape (b, 4 * hidden).
        region_last_hidden_state: of the region encoder, shape (b, state rows * state columns, width).
        region: pooled, float32, shape (b, region width).
        hidden_states, attentions: of the sequence encoder's layers, if asked for: embeddings and states of shape
            (b, tokens, hidden), and probabilities of shape (b, heads, tokens, tokens).
        region_hidden_states, region_attentions: of the region encoder's stages, if asked for, as Swin returns them.
    """

    last_hidden_state: torch.Tensor | None = None
    sequence: torch.Tensor | None = None
    region_last_hidden_state: torch.Tensor | None = None
    region: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    region_hidden_states: tuple[torch.Tensor, ...] | None = None
    region_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class PretrainingOutput(ModelOutput):
    """What the losses need, in float32; what belongs to a task that is off, or not in the batch, is None.

    Attributes:
        base_log_probs: log p at the scored tokens: of bases, shape (s, 4), or of k-mers, shape (s, 4^k), if the batch
            scores whole k-mers.
        adjacent_logits: shape (b,).
        sequence, region: unit vectors of SRM, shape (b, projection).
        scale: inverse temperature of SRM, shape (1,).
        reverse: unit vectors of the sequences' reverse complements, shape (b, projection).
        closed: unit vectors of the region matrices in another cell type, shape (b, projection).
        decoded, pixels: motif evidence and log1p signal as reconstructed, and as they are, in standard deviations:
            shape (b, 2, motifs, R).
        hidden: which of them cannot be seen: bool, shape (b, 2, motifs, R).
        signal, signal_target: predicted and true log1p signal, in standard deviations, shape (b,), or (2 b,) if the
            batch has matrices in another cell type, where the signal is none: these come second.
    """

    base_log_probs: torch.Tensor | None = None
    adjacent_logits: torch.Tensor | None = None
    sequence: torch.Tensor | None = None
    region: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    reverse: torch.Tensor | None = None
    closed: torch.Tensor | None = None
    decoded: torch.Tensor | None = None
    pixels: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    signal: torch.Tensor | None = None
    signal_target: torch.Tensor | None = None


class GeneBertPreTrainedModel(PreTrainedModel):
    """Loading, saving and initial weights, common to all GeneBERT models."""

    config_class = GeneBertConfig
    base_model_prefix = "genebert"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ("BertLayer", "SwinStage")

    def enable_input_require_grads(self) -> None:
        """Do nothing: activation checkpointing calls this for frozen embeddings, and none are frozen alone here."""

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, RegionEncoder):
            for mean, std in ((module.evidence_mean, module.evidence_std), (module.signal_mean, module.signal_std)):
                init.zeros_(mean)
                init.ones_(std)
            # Padding and the mask token would start at exactly 0 in transformers; there each layer norm multiplies
            # gradients by up to 316 (1 / sqrt of its epsilon), and their norm came to 1e18.
            embeddings = module.swin.embeddings
            init.normal_(embeddings.patch_embeddings.projection.bias, std=0.02)
            if embeddings.mask_token is not None:
                init.normal_(embeddings.mask_token, std=0.02)
        elif isinstance(module, Summary):
            init.zeros_(module.centre)
            init.ones_(module.scale)
            init.zeros_(module.knots)
        elif isinstance(module, GeneBertForSequenceClassification):  # read from a file of the encoders, or an older one
            init.constant_(module.branch_weights, 1 / len(module.branch_weights))
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

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
        matrix: RegionMatrix | None = None,
        hidden: torch.Tensor | None = None,
        *,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> GeneBertOutput:
        """Encode sequences and region matrices; a modality that is not given is not encoded.

        Args:
            input_ids, segment_ids: tokens and their segments, int64, shape (b, tokens).
            matrix: region matrices.
            attention_mask: int64 or bool, shape (b, tokens): 0 for padding; None if there is none, which is faster.
            token_type_ids: what Hugging Face's tokenizers call `segment_ids`.
            hidden: bool, shape (b, patch rows, patch columns): patches of the matrices to replace by the mask token.
            output_hidden_states: return the states of all layers too.
            output_attentions: return attention probabilities too; needs attn_implementation="eager".

        Raises:
            UserError: attentions are asked for, and the fused kernels, which do not keep them, are in use; or segments
                are missing; or there are more tokens than positions.
        """
        if output_attentions and self.config._attn_implementation != "eager":
            what = f"attn_implementation={self.config._attn_implementation!r} keeps no attentions"
            raise UserError(problem("output_attentions", what, 'Load the model with attn_implementation="eager".'))
        capture = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        found: dict[str, Any] = {}
        if input_ids is not None:
            segments = token_type_ids if segment_ids is None else segment_ids
            if segments is None:
                raise UserError(problem("segment_ids", "they are missing", "Give what the tokenizer returned, whole."))
            if (tokens := input_ids.shape[1]) > (most := self.config.max_tokens):
                what = f"there are {tokens} tokens, and the model reads at most {most}"
                raise UserError(problem("input_ids", what, "Tokenize with truncation=True, or give shorter sequences."))
            encoded: SequenceOutput = self.sequence_encoder(input_ids, segments, attention_mask, **capture)
            found |= {"last_hidden_state": encoded.hidden, "sequence": encoded.pooled}
            found |= {"hidden_states": encoded.hidden_states, "attentions": encoded.attentions}
        if matrix is not None:
            swin = self.region_encoder.encode(matrix, hidden, **capture)
            states = swin.last_hidden_state
            found |= {"region_last_hidden_state": states, "region": self.region_encoder.pool(states, matrix.own)}
            found |= {"region_hidden_states": swin.hidden_states, "region_attentions": swin.attentions}
        return GeneBertOutput(**found)

    def get_input_embeddings(self) -> nn.Module:
        """Return the module of the token embeddings."""
        return self.sequence_encoder.bert.get_input_embeddings()

    @property
    def sequence_width(self) -> int:
        """Length of a pooled sequence vector."""
        return SequenceEncoder.POOLED * int(self.config.hidden_size)

    @property
    def width(self) -> int:
        """Length of a pooled sequence vector and a pooled region vector together."""
        return self.sequence_width + self.region_encoder.width

    @property
    def token_embeddings(self) -> torch.Tensor:
        """Token embeddings, shape (vocabulary, hidden)."""
        weight: torch.Tensor = self.sequence_encoder.bert.embeddings.word_embeddings.weight
        return weight


class GeneBertForPreTraining(GeneBertPreTrainedModel):
    """Both encoders with the heads of MGM, NGSP and SRM, and of the extras that the configuration names.

    Attributes:
        tasks: what to compute in `forward`, of `TASKS`; see `select`.
    """

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__(config)
        self.tasks = DEFAULT_TASKS
        self.genebert = GeneBertModel(config)
        encoder = self.genebert.region_encoder
        self.base_head = HiddenBaseHead(config)
        self.adjacency_head = AdjacencyHead(config.hidden_size)
        self.matching_head = MatchingHead(self.genebert.sequence_width, encoder.width, config.projection_dim)
        self.region_decoder = RegionDecoder(config, encoder.swin.num_features) if config.region_decoder else None
        self.signal_head = (
            ClassificationHead(self.genebert.width, config.hidden_size, 1, config.dropout)
            if config.signal_head
            else None
        )
        self.post_init()

    def select(self, tasks: Iterable[str]) -> None:
        """Turn tasks on and all others off: they cost nothing, and the parameters that only they use are frozen.

        So every parameter that is not frozen gets a gradient, as DDP needs it.

        Raises:
            UserError: there is no such task, or the model lacks its head.
        """
        wanted = frozenset(tasks)
        heads = {"mrm": self.region_decoder, "accessibility": self.signal_head}
        missing = {task for task in wanted if task not in TASKS or (task in heads and heads[task] is None)}
        if missing or not wanted:
            raise UserError(
                problem(
                    "tasks",
                    f"this model has no task {', '.join(sorted(missing))}" if missing else "none is on",
                    f"Choose of {', '.join(task for task in TASKS if heads.get(task, self) is not None)}.",
                )
            )
        self.tasks = wanted
        for prefix, users in USERS.items():
            for name, parameter in self.named_parameters():
                if name.startswith(prefix):
                    parameter.requires_grad_(not wanted.isdisjoint(users))

    def forward(self, batch: PretrainingBatch) -> PretrainingOutput:
        """Run a batch through what the tasks need: the encoders, each once, and the heads.

        States and attentions are to be had from `genebert`, the model without heads.
        """
        encoded = self._encode(batch)
        return PretrainingOutput(
            **self._segments(batch, encoded), **self._matches(batch, encoded), **self._extras(batch, encoded)
        )

    def _encode(self, batch: PretrainingBatch) -> Any:
        """Encode a batch; reverse complements, and matrices in other cell types, come after the examples' own."""
        ids, segments, matrix, hidden = batch.input_ids, batch.segment_ids, batch.matrix, None
        if self._on("rc") and batch.reverse_ids is not None:
            ids, segments = torch.cat([ids, batch.reverse_ids]), torch.cat([segments, segments])
        if self._on("mrm"):
            hidden = batch.hidden
        if self._on("srm", "accessibility") and batch.closed is not None:
            if hidden is not None:
                hidden = torch.cat([hidden, self.genebert.region_encoder.hideable(hidden, batch.closed)])
            matrix = _joined(matrix, batch.closed)
        inputs: dict[str, Any] = {}
        if self._on(*SEQUENCE_TASKS):
            inputs |= {"input_ids": ids, "segment_ids": segments}
        if self._on(*REGION_TASKS):
            inputs |= {"matrix": matrix, "hidden": hidden}
        return self.genebert(**inputs)

    def _on(self, *tasks: str) -> bool:
        return not self.tasks.isdisjoint(tasks)

    def _segments(self, batch: PretrainingBatch, encoded: Any) -> dict[str, torch.Tensor]:
        """Return what MGM and NGSP need."""
        found = {}
        if self._on("mgm"):
            scored = encoded.last_hidden_state[batch.scored_row, batch.scored_token]
            found["base_log_probs"] = self.base_head(scored, self.genebert.token_embeddings, batch.whole_kmers)
        if self._on("ngsp"):
            found["adjacent_logits"] = self.adjacency_head(encoded.sequence[: len(batch.input_ids)])
        return found

    def _matches(self, batch: PretrainingBatch, encoded: Any) -> dict[str, torch.Tensor]:
        """Return what SRM and reverse-complement consistency need: unit vectors, batch-normalised over all rows."""
        rows, head = len(batch.input_ids), self.matching_head
        found: dict[str, torch.Tensor] = {}
        if self._on("srm", "rc"):
            vectors = head.project_sequence(encoded.sequence)
            found |= {"sequence": vectors[:rows]} | ({"reverse": vectors[rows:]} if len(vectors) > rows else {})
        if self._on("srm"):
            vectors = head.project_region(encoded.region)
            found |= {"region": vectors[:rows]} | ({"closed": vectors[rows:]} if len(vectors) > rows else {})
            found["scale"] = head.scale
        return found

    def _extras(self, batch: PretrainingBatch, encoded: Any) -> dict[str, torch.Tensor]:
        """Return what masked region modelling and accessibility prediction need."""
        rows, encoder, found = len(batch.input_ids), self.genebert.region_encoder, {}
        if self.region_decoder is not None and self._on("mrm") and batch.hidden is not None:
            found["decoded"] = self.region_decoder(encoded.region_last_hidden_state[:rows])
            found["pixels"] = encoder.pixels(batch.matrix)
            found["hidden"] = encoder.hidden_pixels(batch.hidden, batch.matrix)
        if self.signal_head is not None and self._on("accessibility"):
            times = len(encoded.region) // rows
            pooled = torch.cat([encoded.sequence[:rows].repeat(times, 1), encoded.region], dim=-1)
            signal = torch.cat([batch.signal, torch.zeros_like(batch.signal)][:times])
            found["signal"] = self.signal_head(pooled).float().squeeze(-1)
            found["signal_target"] = encoder.standardised(signal).clamp(min=LEAST_SIGNAL)
        return found


class GeneBertForSequenceClassification(GeneBertPreTrainedModel):
    """Classes, labels or a number from windows: branches, whose logits are added up with weights.

    One branch reads the states of the encoders, another the summary of the window (`model.summary`), as in wide and
    deep learning (Cheng et al. 2016), and, of windows in a cell type, a third what that makes of them
    (`model.cell_type`). They share no parameter, so that each can have a loss of its own, and be stopped by itself. How
    much each is worth is chosen on validation rows (see `genebert.stacking`), for small tables suffice for some only.
    """

    branch_weights: torch.Tensor

    def __init__(self, config: GeneBertConfig) -> None:
        super().__init__(config)
        self.genebert = GeneBertModel(config)
        labels, hidden = config.num_labels, config.hidden_size
        reads_positions = config.encoders and config.oriented and config.reads_sequence
        self.positions = PositionReadout(hidden) if reads_positions else None
        self.classifier = (
            ClassificationHead(self._states_width(config), hidden, labels, config.dropout, linear=config.linear_head)
            if config.encoders
            else None
        )
        self.summary = Summary(config) if config.summary else None
        self.summary_classifier = (
            SummaryHead(self.summary.width, self.SUMMARY_HIDDEN, labels, self.SUMMARY_DROPOUT) if self.summary else None
        )
        self.cell_type = CellTypeFeatures(config) if config.cell_type else None
        self.cell_type_classifier = self._cell_type_head(labels)
        count = len(self.branch_names)
        self.register_buffer("branch_weights", torch.full((count,), 1 / count))
        self.post_init()
        self._freeze_unused()

    SUMMARY_HIDDEN = 256
    CELL_TYPE_HIDDEN = 64
    SUMMARY_DROPOUT = (0.6, 0.5)

    @property
    def branch_names(self) -> list[str]:
        """Of the branches, in the order of their logits."""
        parts = {"summary": self.summary, "cell_type": self.cell_type, "encoders": self.classifier}
        return [name for name, part in parts.items() if part is not None]

    @property
    def idle_branches(self) -> list[str]:
        """Branches that are worth nothing, so that predictions can do without them."""
        weights = zip(self.branch_names, self.branch_weights.tolist(), strict=True)
        return [name for name, weight in weights if weight == 0]

    def branch_of(self, parameter: str) -> str:
        """Return the branch that a parameter or buffer belongs to, by its name."""
        return next((name for name in ("summary", "cell_type") if parameter.startswith(name)), "encoders")

    def _cell_type_head(self, labels: int) -> SummaryHead | None:
        if self.cell_type is None:
            return None
        width, kept = self.cell_type.width, self.cell_type.totals
        return SummaryHead(width, self.CELL_TYPE_HIDDEN, labels, self.SUMMARY_DROPOUT, kept)

    def _states_width(self, config: GeneBertConfig) -> int:
        width = self.genebert.sequence_width if config.reads_sequence else 0
        if self.positions is not None:
            width += PositionReadout.CHANNELS * (config.window_length - 2 * config.k + 5)
        return width + (self.genebert.region_encoder.width if self.reads_region_states else 0)

    @property
    def reads_region_states(self) -> bool:
        """Whether the region encoder is used."""
        return bool(self.config.encoders and self.config.region_states and self.config.reads_motifs)

    def _freeze_unused(self) -> None:
        used = {"sequence_encoder": self.config.encoders and self.config.reads_sequence}
        used["region_encoder"] = self.reads_region_states
        for name, is_used in used.items():
            if not is_used:
                getattr(self.genebert, name).requires_grad_(False)

    def forward(
        self,
        input_ids: torch.Tensor,
        segment_ids: torch.Tensor,
        matrix: RegionMatrix | None = None,
        codes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits, shape (b, labels).

        States and attentions are to be had from `genebert`, the model without the classifier.

        Args:
            input_ids, segment_ids: tokens and their segments, int64, shape (b, tokens).
            matrix: region matrices; None if motifs are not read.
            codes: base codes, uint8, shape (b, length); None if there is no summary.
        """
        return self.joined(self.branches(input_ids, segment_ids, matrix, codes))

    def joined(self, branches: torch.Tensor, without: Collection[str] = ()) -> torch.Tensor:
        """Return logits, shape (b, labels), of those of each branch, shape (b, branches, labels).

        Args:
            branches: all, in the order of `branch_names`, but those left out.
            without: branches that are left out; their weight must be 0.
        """
        kept = [name not in without for name in self.branch_names]
        return (branches * self.branch_weights[kept, None]).sum(dim=1)

    def branches(
        self,
        input_ids: torch.Tensor,
        segment_ids: torch.Tensor,
        matrix: RegionMatrix | None = None,
        codes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the logits of each branch, float32, shape (b, branches, labels); for the arguments see `forward`."""
        sequence = self.sequence_states(input_ids, segment_ids)
        summary, cell_type = self.summary_logits(codes, matrix), self.cell_type_logits(matrix)
        return self.combine(sequence, self.region_states(matrix), summary, cell_type)

    def sequence_states(self, input_ids: torch.Tensor, segment_ids: torch.Tensor) -> torch.Tensor | None:
        """Return what the classifier reads of the sequence encoder, shape (b, width), or None if it does not."""
        if not (self.config.encoders and self.config.reads_sequence):
            return None
        encoded = self.genebert(input_ids, segment_ids)
        pooled: torch.Tensor = encoded.sequence
        if self.positions is None:
            return pooled
        return torch.cat([pooled, self.positions(encoded.last_hidden_state)], dim=1)

    def region_states(self, matrix: RegionMatrix | None) -> torch.Tensor | None:
        """Return what the classifier reads of the region encoder, shape (b, width), or None if it does not."""
        if not self.reads_region_states:
            return None
        assert matrix is not None
        pooled: torch.Tensor = self.genebert.region_encoder(matrix)
        return pooled

    def summary_logits(self, codes: torch.Tensor | None, matrix: RegionMatrix | None) -> torch.Tensor | None:
        """Return the logits of the summary, shape (b, labels), or None if there is none."""
        if self.summary is None or self.summary_classifier is None:
            return None
        assert codes is not None
        evidence = None if matrix is None else matrix.own_evidence
        logits: torch.Tensor = self.summary_classifier(self.summary(codes, evidence))
        return logits

    def cell_type_logits(self, matrix: RegionMatrix | None) -> torch.Tensor | None:
        """Return the logits of what the cell type makes of windows, shape (b, labels), or None if it is not read."""
        if self.cell_type is None or self.cell_type_classifier is None:
            return None
        assert matrix is not None
        logits: torch.Tensor = self.cell_type_classifier(self.cell_type(matrix))
        return logits

    def combine(
        self,
        sequence: torch.Tensor | None,
        region: torch.Tensor | None,
        summary: torch.Tensor | None,
        cell_type: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the logits of each branch: what is encoded once can be paired with much else.

        Args:
            sequence: as `sequence_states` returned it.
            region: as `region_states` returned it.
            summary: as `summary_logits` returned it.
            cell_type: as `cell_type_logits` returned it.
        """
        found = [one.float() for one in (summary, cell_type) if one is not None]
        states = joined_states(sequence, region)
        if self.classifier is not None and states is not None:
            found.append(self.classifier(states).float())
        return torch.stack(found, dim=1)


def joined_states(sequence: torch.Tensor | None, region: torch.Tensor | None) -> torch.Tensor | None:
    """Return what the classifier reads, shape (b, width), of what is read of the encoders; None if nothing is."""
    states = [one for one in (sequence, region) if one is not None]
    return torch.cat(states, dim=-1) if states else None


def _joined(first: RegionMatrix, second: RegionMatrix) -> RegionMatrix:
    pairs = {f.name: (getattr(first, f.name), getattr(second, f.name)) for f in fields(first)}
    return RegionMatrix(**{name: torch.cat(pair) for name, pair in pairs.items() if pair[0] is not None})


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


AutoModel.register(GeneBertConfig, GeneBertModel)
AutoModelForPreTraining.register(GeneBertConfig, GeneBertForPreTraining)
AutoModelForSequenceClassification.register(GeneBertConfig, GeneBertForSequenceClassification)
