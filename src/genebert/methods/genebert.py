"""GeneBERT, fine-tuned: both modalities, the whole network or part of it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field

from genebert.device import pick_device
from genebert.errors import Problems, UserError, problem
from genebert.methods.base import Examples, Fitted, Method, Place, Reading, blocks_of
from genebert.methods.cell_type_features import note_own_accessibility
from genebert.methods.networks import class_weights, evaluating, network_truth
from genebert.model.config import GeneBertConfig
from genebert.model.genebert import GeneBertForSequenceClassification, GeneBertModel, joined_states, save_model
from genebert.model.summary import moments
from genebert.objectives import prediction_loss
from genebert.pretrained import load_weights, read_scanner, same_scan
from genebert.region_matrix import RegionMatrix, Shown, in_cell_type, tiles
from genebert.settings import Device, TuningSettings, load_preset
from genebert.stacking import stacking_weights
from genebert.target import Target
from genebert.window_data import WindowBatch, WindowData

PREDICT_BATCH = 256
LORA_RANK = 8
TOGETHER = 8
"""Cell types in which a window is looked at together: its sequence, which takes most of the time, is encoded once."""


@dataclass(frozen=True)
class _Encoded:
    """What the parts of a network have made of windows.

    Attributes:
        sequences: states of the sequence encoder on each strand, or None.
        regions: states of the region encoder on each strand, or once for both, or None.
        summary: logits, those of either strand, or None.
        cell_type: likewise.
    """

    sequences: Sequence[torch.Tensor | None]
    regions: Sequence[torch.Tensor | None]
    summary: torch.Tensor | None
    cell_type: torch.Tensor | None

    @property
    def pairs(self) -> list[tuple[torch.Tensor | None, torch.Tensor | None]]:
        """The states of both encoders on each strand."""
        return list(zip(self.sequences, cycle(self.regions), strict=False))


@dataclass(frozen=True)
class FittedGeneBert(Fitted):
    """A fine-tuned network.

    Attributes:
        model: in eval mode, on its device.
        target: what it predicts.
        curves: losses by step; None if it was loaded.
    """

    model: GeneBertForSequenceClassification
    target: Target
    curves: pd.DataFrame | None = None

    def predict(self, examples: Examples) -> NDArray[np.float64]:
        """Return predictions, float64, shape (n, len(target.names)), averaged over strands if windows have none."""
        idle = self.model.idle_branches
        return Reading.joined([self._reading(encoded, idle) for encoded in self._encoded(examples, idle)]).predictions

    def read(self, examples: Examples) -> Reading:
        """Return predictions, and the states that they come from."""
        return Reading.joined([self._reading(encoded) for encoded in self._encoded(examples)])

    def predict_branches(self, examples: Examples, without: Collection[str] = ()) -> dict[str, NDArray[np.float64]]:
        """See `learning.Branched`."""
        strands = self.target.from_logits(self._logits(examples, without))
        return dict(zip(remaining_branches(self.model, without), strands.mean(axis=1), strict=True))

    @property
    def branch_weights(self) -> dict[str, float]:
        """Branch -> how much it is worth; together 1."""
        return dict(zip(self.model.branch_names, self.model.branch_weights.tolist(), strict=True))

    def branch_of(self, parameter: str) -> str:
        """See `learning.Branched`."""
        return self.model.branch_of(parameter)

    def weigh_branches(self, valid: Examples, class_weights: NDArray[np.float64] | None) -> None:
        """Choose the weights of the branches on the validation rows; class_weights: see `stacking_weights`."""
        weights = stacking_weights(self.target, valid.known_truth, self._logits(valid), class_weights)
        self.model.branch_weights.copy_(torch.from_numpy(weights))

    def _logits(self, examples: Examples, without: Collection[str] = ()) -> NDArray[np.float64]:
        """Return the logits of each branch on each strand, float64, shape (branches, strands, n, outputs)."""
        blocks = [torch.stack(self._branches(encoded)) for encoded in self._encoded(examples, without)]
        return torch.cat(blocks, dim=1).permute(2, 0, 1, 3).double().cpu().numpy()

    def _encoded(self, examples: Examples, without: Collection[str] = ()) -> Iterator[_Encoded]:
        """Encode windows, batch by batch; without: branches that are not asked for."""
        data = WindowData(**window_inputs(self.model.config, examples), batch_size=PREDICT_BATCH)
        device = next(self.model.parameters()).device
        for strands in zip(*(data.in_order(reverse=reverse) for reverse in self._strands), strict=True):
            with evaluating(self.model):
                batches = [batch.to(device) for batch in strands]
                differ = examples.context is None  # tiles are read in the strand's order; a neighbourhood has none
                regions = [region_states_of(self.model, one, without) for one in (batches if differ else batches[:1])]
                sequences = [sequence_states_of(self.model, one, without) for one in batches]
                either = batches[0]
                summary, cell_type = summary_of(self.model, either, without), cell_type_of(self.model, either, without)
            yield _Encoded(sequences, regions, summary, cell_type)

    def _branches(self, encoded: _Encoded) -> list[torch.Tensor]:
        """Return the logits of the branches on each strand, each of shape (n, branches, outputs)."""
        with evaluating(self.model):
            return [self.model.combine(*pair, encoded.summary, encoded.cell_type) for pair in encoded.pairs]

    def _reading(self, encoded: _Encoded, without: Collection[str] = ()) -> Reading:
        """Return the reading averaged over strands; without: the branches that were not encoded."""
        with evaluating(self.model):
            logits = [self.model.joined(branches, without) for branches in self._branches(encoded)]
            states = [one for pair in encoded.pairs if (one := joined_states(*pair)) is not None]
            mean = torch.stack(states).float().mean(dim=0).cpu().numpy() if states else None
        predictions = np.mean([self.target.from_logits(one.double().cpu().numpy()) for one in logits], axis=0)
        return Reading(predictions, mean)

    def read_in_cell_types(
        self, codes: NDArray[np.uint8], place: Place, cell_types: NDArray[np.int64]
    ) -> Iterator[Reading]:
        """See `Fitted`; each sequence is encoded once, and each region matrix once for both strands."""
        return self._in_cell_types(codes, place, cell_types)

    def predict_in_cell_types(
        self, codes: NDArray[np.uint8], place: Place, cell_types: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float64]]:
        """See `Fitted`."""
        each = self._in_cell_types(codes, place, cell_types, self.model.idle_branches)
        return (reading.predictions for reading in each)

    def _in_cell_types(
        self, codes: NDArray[np.uint8], place: Place, cell_types: NDArray[np.int64], without: Collection[str] = ()
    ) -> Iterator[Reading]:
        model, device = self.model, next(self.model.parameters()).device
        shown = shown_of(model.config)
        data = WindowData(codes, k=model.config.k, batch_size=len(codes))
        with evaluating(model):
            batches = [next(data.in_order(reverse=reverse)).to(device) for reverse in self._strands]
            sequences = [sequence_states_of(model, batch, without) for batch in batches]
        summary: torch.Tensor | None = None
        for cell_type in cell_types:
            with evaluating(model):  # not around the yield: the caller's code, too, would then run without gradients
                matrix = place.matrix(cell_type, model.config.region_columns, codes.shape[1], shown).to(device)
                batch = replace(batches[0], matrix=matrix)
                summary = summary_of(model, batch, without) if summary is None else summary
                regions = [region_states_of(model, batch, without)]
                encoded = _Encoded(sequences, regions, summary, cell_type_of(model, batch, without))
            yield self._reading(encoded, without)

    @property
    def _strands(self) -> tuple[bool, ...]:
        return (False,) if self.model.config.oriented else (False, True)

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        save_model(self.model, folder)

    @classmethod
    def load(cls, folder: Path, target: Target, device: Device) -> Self:
        """Read what `save` wrote.

        Raises:
            UserError: a file is damaged.
        """
        return cls(load_weights(GeneBertForSequenceClassification, folder).to(pick_device(device)).eval(), target)


class GeneBert(TuningSettings, Method):
    """Both modalities, fine-tuned from a pre-trained network or from scratch."""

    title: ClassVar[str] = "GeneBERT"
    cell_types_by_name: ClassVar[bool] = False
    fitted: ClassVar[type[Fitted]] = FittedGeneBert

    model: Path | None = Field(None, description="folder made by pretrain; without it, a network from scratch")
    preset: Literal["tiny", "small", "paper", "plus"] = Field("tiny", description="sizes of a network without --model")
    initial: Literal["pre-trained", "random"] = Field(
        "pre-trained", description="weights to begin with; random takes only the sizes and the normaliser of the model"
    )

    def fit(self, train: Examples, valid: Examples, target: Target, seed: int, description: str = "") -> FittedGeneBert:
        """Learn from the training rows; on the validation rows, each branch's best epoch and its weight are chosen.

        Raises:
            UserError: the windows do not fit the network, or training diverged.
        """
        from genebert.methods.learning import Learning, learn  # see `networks`

        torch.manual_seed(seed)
        model = self._network(train, target)
        adapters = self._restrict(model)
        data = WindowData(
            **window_inputs(model.config, train),
            truth=network_truth(target, train),
            batch_size=self.batch_size,
            seed=seed,
            either_strand=not self.oriented,
            window=self._window(model, train),
            together=TOGETHER,
        )
        fitted = FittedGeneBert(model, target)
        weights = class_weights(target, train) if self.class_weights else None
        stopped: set[str] = set()
        losses = self._losses(target, weights, stopped)
        learning = Learning(model, fitted, data, losses, stopped, weights)
        curves = learn(self, learning, target, valid, description or self.title, self.precision)
        fitted.weigh_branches(valid, learning.valid_weights)
        if adapters is not None:
            adapters.merge_and_unload()  # into the layers of the model
        return replace(fitted, curves=curves)

    @staticmethod
    def _window(model: GeneBertForSequenceClassification, train: Examples) -> NDArray[np.int64] | None:
        """Return which rows are the same window, if their sequences are encoded, and they lie in cell types."""
        encoded = model.config.encoders and model.config.reads_sequence
        return train.context.position if encoded and train.context is not None else None

    def _network(self, train: Examples, target: Target) -> GeneBertForSequenceClassification:
        """Return the network to train: weights of the encoders as pre-trained, or random; the summary is fitted."""
        config = self._config(train, target)
        model = GeneBertForSequenceClassification(config)
        evidence = evidence_of(config, train)
        if config.encoders and self.model is not None:
            self._take_over(model, load_weights(GeneBertModel, self.model), train)
        elif model.reads_region_states and evidence is not None:
            tiles = (torch.from_numpy(evidence[rows]).flatten(0, 1) for rows in blocks_of(len(evidence)))
            mean, deviation = moments(tiles)
            count = evidence.shape[0] * evidence.shape[1]
            unbiased = deviation * (count / max(count - 1, 1)) ** 0.5
            model.genebert.region_encoder.evidence_mean.copy_(mean)
            model.genebert.region_encoder.evidence_std.copy_(unbiased.clamp(min=1.0))
        if model.summary is not None:
            model.summary.fit(torch.from_numpy(train.codes), None if evidence is None else torch.from_numpy(evidence))
        if model.cell_type is not None:
            model.cell_type.fit(lambda: _in_cell_types(config, train))
        return model

    def _config(self, train: Examples, target: Target) -> GeneBertConfig:
        """Return the sizes of the network.

        Raises:
            UserError: it cannot read windows of this length.
        """
        if self.model is not None:
            config = GeneBertConfig.from_pretrained(self.model)
        else:
            config = GeneBertConfig(**load_preset(self.preset).model.model_dump())
        length, needed = train.codes.shape[1], train.codes.shape[1] - 2 * config.k + 5
        if self.model is None:
            config.max_tokens = needed
        probe = self.mode == "linear-probe"
        config.modalities, config.region_states = self.modalities, self.region_states
        config.encoders = self.reads_encoders
        found = Problems("The windows cannot be read by this network:")
        if config.encoders and config.reads_sequence and needed > config.max_tokens:
            most = config.max_tokens + 2 * config.k - 5
            found.add("windows", f"the longest has {length} bp, and the model reads at most {most} bp", "Shorten them.")
        if not (config.encoders or self.summary):
            found.add("encoders, summary", "neither is read, and there is nothing else", "Turn one on.")
        if not config.encoders and self.mode != "full":
            what = f"{self.mode} is about encoders, and none is read"
            found.add("mode, encoders", what, "Turn them on, or choose the mode full.")
        if self.own_accessibility:
            note_own_accessibility(train, found)
            if not (config.reads_motifs and self.summary) or probe:
                what = "it goes with the summary of the second modality, which is not read"
                found.add("own_accessibility", what, "Turn it off, or read that.")
        least = max(2 * config.k, tiles_of(config, train))
        if length <= least:
            found.add("windows", f"they have {length} bp", f"Give windows of more than {least} bp.")
        found.raise_any()
        config.motifs = len(train.scanner.motifs)
        config.region_decoder = config.signal_head = False
        config.oriented, config.linear_head = self.oriented, probe
        config.summary = self.summary and not probe
        config.cell_type = self.summary and not probe and config.reads_motifs and train.context is not None
        config.own_accessibility = self.own_accessibility
        config.dropout = self.dropout
        config.window_length = length
        config.num_labels = len(target.names)
        if target.kind != "value":
            config.id2label = dict(enumerate(target.names))
            config.label2id = {name: i for i, name in enumerate(target.names)}
        return config

    def _take_over(self, model: GeneBertForSequenceClassification, pretrained: GeneBertModel, train: Examples) -> None:
        """Take over what was pre-trained of the encoders that are read; from scratch, only the normaliser.

        Raises:
            UserError: it was pre-trained with other motifs.
        """
        ours, theirs = model.genebert, pretrained
        if model.config.reads_sequence and self.initial == "pre-trained":
            ours.sequence_encoder.load_state_dict(theirs.sequence_encoder.state_dict())
        if not model.reads_region_states:
            return
        assert self.model is not None
        if not same_scan(read_scanner(self.model), train.scanner):
            what = "its motif collection, or how it is scanned, is not the one that these rows are scanned with"
            raise UserError(problem(self.model, what, "Use the same motifs, or leave region_states out."))
        known = theirs.region_encoder.state_dict()
        own = ours.region_encoder.state_dict()
        wanted = [name for name in own if self.initial == "pre-trained" or name.endswith(("_mean", "_std"))]
        ours.region_encoder.load_state_dict(own | {name: known[name] for name in wanted})

    def _restrict(self, model: GeneBertForSequenceClassification) -> Any:
        """Freeze what is not to be trained; return LoRA's adapters (Hu et al. 2022), or None."""
        heads = [(name, one) for name, one in model.named_parameters() if not name.startswith("genebert.")]
        adapters = None
        adapted = [
            name
            for name, module in model.genebert.named_modules(prefix="genebert")
            if isinstance(module, torch.nn.Linear) and module.weight.requires_grad  # of the encoders that are read
        ]
        if self.mode == "lora" and adapted:
            from peft import LoraConfig, LoraModel

            options = LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules=adapted)
            adapters = LoraModel(model, options, "default")
        elif self.mode != "full":
            model.genebert.requires_grad_(False)
            for module in model.genebert.modules():
                if isinstance(module, torch.nn.Dropout):  # heads are to be fitted to the states that they will see
                    module.p = 0.0
        for _, parameter in heads:
            parameter.requires_grad_(True)
        return adapters

    def _losses(
        self, target: Target, weights: torch.Tensor | None, stopped: Collection[str]
    ) -> Callable[..., dict[str, torch.Tensor]]:
        def losses(model: GeneBertForSequenceClassification, batch: WindowBatch) -> dict[str, torch.Tensor]:
            """The mean of the branches' losses; of those that have stopped, nothing is left to learn."""
            assert batch.truth is not None
            branches = branches_of(model, batch, stopped).unbind(dim=1)
            parts = [prediction_loss(target.kind, logits, batch.truth, weights) for logits in branches]
            return {"prediction": torch.stack(parts).mean()}

        return losses


def _in_cell_types(config: GeneBertConfig, examples: Examples) -> Iterator[RegionMatrix]:
    """Yield what is shown of windows and their cell types, block by block, without the neighbourhoods."""
    context, width = examples.context, examples.codes.shape[1]
    assert context is not None
    for rows in blocks_of(len(examples)):
        yield in_cell_type(tiles(examples.evidence[rows][:, None]), context.rows(rows), width, shown_of(config))


def window_inputs(config: GeneBertConfig, examples: Examples) -> dict[str, Any]:
    """Return the arguments of `WindowData` that make what a network reads of windows."""
    return {
        "codes": examples.codes,
        "k": config.k,
        "evidence": evidence_of(config, examples),
        "context": examples.context if config.reads_motifs else None,
        "columns": config.region_columns,
        "shown": shown_of(config),
    }


def shown_of(config: GeneBertConfig) -> Shown:
    """Return what a network is shown of cell types."""
    return Shown(config.cell_type, config.own_accessibility)


def evidence_of(config: GeneBertConfig, examples: Examples) -> NDArray[np.uint8] | None:
    """Return the motif evidence that a network reads of windows: uint8, shape (n, tiles, motifs), or None."""
    return examples.tiled(tiles_of(config, examples)) if config.reads_motifs else None


def tiles_of(config: GeneBertConfig, examples: Examples) -> int:
    """Return into how many tiles windows are divided.

    Without a cell type, the columns of a region matrix are tiles of the window; where the region encoder is not read,
    the window is one tile.
    """
    tiled = config.reads_motifs and config.encoders and config.region_states and examples.context is None
    return config.region_columns if tiled else 1


def branches_of(
    model: GeneBertForSequenceClassification, batch: WindowBatch, without: Collection[str] = ()
) -> torch.Tensor:
    """Return the logits of each branch, shape (b, branches, outputs); without: branches to leave out."""
    sequence, region = sequence_states_of(model, batch, without), region_states_of(model, batch, without)
    return model.combine(sequence, region, summary_of(model, batch, without), cell_type_of(model, batch, without))


def sequence_states_of(
    model: GeneBertForSequenceClassification, batch: WindowBatch, without: Collection[str] = ()
) -> torch.Tensor | None:
    """Return the states of the sequence encoder, shape (b, width), or None; each sequence is encoded once."""
    states = None if "encoders" in without else model.sequence_states(batch.input_ids, batch.segment_ids)
    return None if states is None else states[batch.sequence]


def region_states_of(
    model: GeneBertForSequenceClassification, batch: WindowBatch, without: Collection[str] = ()
) -> torch.Tensor | None:
    """Return the states of the region encoder, shape (b, width), or None."""
    return None if "encoders" in without else model.region_states(batch.matrix)


def summary_of(
    model: GeneBertForSequenceClassification, batch: WindowBatch, without: Collection[str] = ()
) -> torch.Tensor | None:
    """Return the logits of the summary, which are those of either strand, shape (b, outputs), or None."""
    return None if "summary" in without else model.summary_logits(batch.codes, batch.matrix)


def cell_type_of(
    model: GeneBertForSequenceClassification, batch: WindowBatch, without: Collection[str] = ()
) -> torch.Tensor | None:
    """Return the logits of the cell type, likewise."""
    return None if "cell_type" in without else model.cell_type_logits(batch.matrix)


def remaining_branches(model: GeneBertForSequenceClassification, without: Collection[str]) -> list[str]:
    """Return the names of the branches that are not left out, in their order."""
    return [name for name in model.branch_names if name not in without]
