"""The stage `pretrain`: a corpus becomes a pre-trained model, measured on held-out chromosomes and cell types.

With several devices, a process of each runs this stage. The first one opens the folder, evaluates and writes; the
others train along.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from genebert.checkpoints import Checkpoint, Checkpoints, newest_checkpoint
from genebert.console import say, table
from genebert.corpus.store import Corpus
from genebert.corpus.training import evidence_moments
from genebert.device import enough_memory, pick_device
from genebert.distributed import rank, world_size
from genebert.errors import Problems, ResumableError, problem
from genebert.estimate_pretraining import estimate_pretraining
from genebert.launch import following, leading, leave, process_group, share_cores, start, started
from genebert.model.config import GeneBertConfig
from genebert.model.dnabert import load_dnabert
from genebert.model.genebert import TASKS, GeneBertForPreTraining, save_model
from genebert.objectives import pretraining_losses
from genebert.pretrained import write_scanner
from genebert.pretraining_data import Extras, PretrainingBatch, PretrainingData
from genebert.pretraining_evaluation import Fitted, Row, evaluate_pretraining, validation_metrics
from genebert.schema import SPLITS, Split
from genebert.settings import Attention, Preset, PretrainSettings, TrainingSettings, load_preset
from genebert.stage import StageRun, open_stage
from genebert.tokenizer import KmerTokenizer
from genebert.training import (
    Curves,
    Learner,
    Schedule,
    machine_problems,
    numerics,
    open_loggers,
    train,
    whole_weights,
)

VALIDATION_BATCHES = 8
LEAST_EXAMPLES = 8
VALIDATIONS = 10
"""Validation losses are measured so often during training; of fewer steps, at each."""
CELL_TYPES = "cell_types_"
"""Prefix of losses on held-out cell types, where chromosomes are held out too."""
GPU_WORKERS = 4
LONGEST_RUN = 6
"""Bases are hidden in runs of 1 to so many, where tokens are longer than one, and neither user nor preset says more."""


def pretrain(settings: PretrainSettings) -> Path:
    """Pre-train a two-modality model with MGM, NGSP and SRM on the training chromosomes of a corpus.

    Writes a Hugging Face folder (config.json, model.safetensors, the tokenizer), motifs.json (the collection that the
    model reads), curves.tsv (losses by step) and, in the manifest, the metrics of each task against its baselines, on
    held-out chromosomes and on held-out cell types (see `evaluated_parts`). With `estimate` it writes nothing, and
    prints what it would take.

    Raises:
        UserError: the corpus cannot be used, or the settings do not fit it, this machine or each other.
    """
    if settings.estimate:
        job = Job.of(settings)
        table("What it would take", ("what", "estimate"), job.estimate())
        return settings.out
    if settings.devices > 1 and not started():
        Job.of(settings)
        return start(pretrain, settings, settings.devices)
    if not started():
        return _lead(settings)
    with process_group(pick_device(settings.device)):
        return _lead(settings) if rank() == 0 else _follow(settings)


def _lead(settings: PretrainSettings) -> Path:
    inputs = {"corpus": settings.corpus, "init_sequence": settings.init_sequence}
    with leading() as send:
        Corpus.open(settings.corpus)  # a folder that is none is said to be so
        with open_stage("pretrain", settings, inputs, resumable=True) as run:
            if run.finished:
                return run.out
            job = Job.of(settings)
            model, place = job.new_model(), Place(run.folder, run.scratch, newest_checkpoint(run.scratch))
            job.check_resumed(place.resumed)
            send(place)
            with numerics(job.device, place.resumed):
                model, curves = job.train(model, place)
                return _finish(job, model, curves, run)


def _follow(settings: PretrainSettings) -> Path:
    place = following()
    if place is not None:
        job = Job.of(settings)
        job.train(job.new_model(), place)
    return settings.out


class Place(NamedTuple):
    """Where a training leaves its traces, and what it goes on with.

    Attributes:
        folder: of the stage, with what a user looks at meanwhile.
        scratch: of checkpoints.
        resumed: the one to resume from.
    """

    folder: Path
    scratch: Path
    resumed: Checkpoint | None


@dataclass(frozen=True)
class Job:
    """What to train on what.

    Attributes:
        settings: what the user set.
        preset: the preset, with what the user set in place of its values.
        corpus: the corpus.
    """

    settings: PretrainSettings
    preset: Preset
    corpus: Corpus

    @classmethod
    def of(cls, settings: PretrainSettings) -> "Job":
        """Open the corpus, and check what can be checked before the work starts.

        Raises:
            UserError: see `pretrain`.
        """
        job = cls(settings, resolve(settings), Corpus.open(settings.corpus))
        found = Problems("Pre-training cannot start:")
        machine_problems(settings, found)
        job._check_corpus(found)
        found.raise_any()
        job._check_batches(found)
        found.raise_any()
        return job

    def __reduce__(self) -> tuple[Any, ...]:
        return Job.of, (self.settings,)  # so that a process that makes batches maps the corpus, and copies nothing

    def _check_corpus(self, found: Problems) -> None:
        corpus = self.corpus
        if not task_weights(self.preset.training):
            weights = ", ".join(f"--{task}-weight" for task in TASKS)
            found.add(weights, "all are 0", "Give at least one task a weight.")
        asked = {"train": True, "valid": bool(corpus.valid_chromosomes), "test": bool(corpus.test_chromosomes)}
        for split in SPLITS:
            count = len(corpus.examples(split))
            if asked[split] and count < LEAST_EXAMPLES:
                what = f"the {split} chromosomes have {count} examples of training cell types"
                remedy = "Hold others out in `genebert prepare`."
                found.add(corpus.folder, f"{what}, and {LEAST_EXAMPLES} are needed", remedy)

    def _check_batches(self, found: Problems) -> None:
        size, parts = self.data.batch_size, self.processes * self.settings.accumulate
        if size % parts or size < 2 * parts:
            devices = f"{self.processes} devices x {self.settings.accumulate} parts (--accumulate)"
            remedy = f"Give a multiple of {parts}, at least {2 * parts}."
            found.add("--batch-size", f"{size} examples cannot be divided among {devices}", remedy)

    def check_resumed(self, checkpoint: Checkpoint | None) -> None:
        """Check that a checkpoint can be gone on with.

        Raises:
            ResumableError: it cannot; it is kept.
        """
        fsdp = self.settings.strategy == "fsdp" and self.processes > 1
        if checkpoint and fsdp and checkpoint.strategy != "fsdp":
            what = f"{checkpoint.path} was made without it, and its optimiser states are in another order"
            remedy = f"Go on with --strategy ddp, or remove {checkpoint.path.parent} to start anew."
            raise ResumableError(problem("--strategy fsdp", what, remedy))

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return pick_device(self.settings.device)

    @property
    def processes(self) -> int:
        """How many processes train, on all machines together."""
        return int(os.environ["WORLD_SIZE"]) if started() else self.settings.devices

    @cached_property
    def data(self) -> PretrainingData:
        """The training examples."""
        return training_data(self.preset, self.corpus, "train", self.settings.seed)

    @cached_property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return max(1, round(self.preset.training.epochs * len(self.data.examples) / self.data.batch_size))

    @property
    def workers(self) -> int:
        """How many processes make batches for each that trains."""
        given = self.settings.workers
        return GPU_WORKERS * (self.device.type == "cuda") if given is None else given

    def new_model(self) -> GeneBertForPreTraining:
        """Return the model as it is before training."""
        settings = self.settings
        model = new_model(self.preset, self.corpus, settings.seed, settings.attention)
        if settings.init_sequence is not None:
            load_dnabert(model, settings.init_sequence)
        if settings.checkpoint_activations:
            model.activation_checkpointing_enable()
        return model

    def learner(self, model: GeneBertForPreTraining) -> Learner:
        """Return the model with its losses and schedule."""
        given = self.preset.training
        schedule = Schedule(self.steps, given.learning_rate, given.warmup, given.weight_decay, self.settings.seed)
        losses = _compiled_losses if self.settings.compile else _losses
        return Learner(model, losses, task_weights(given), schedule, compiled=self.settings.compile)

    def train(self, model: GeneBertForPreTraining, place: Place) -> tuple[GeneBertForPreTraining, pd.DataFrame]:
        """Train, with the other processes if there are any, and leave them.

        Returns:
            the trained model, of use in the first process only; the recorded losses.
        """
        settings = self.settings
        every, keep = settings.checkpoint_steps, settings.keep_checkpoints
        with enough_memory(
            "Add --checkpoint-activations; or --accumulate 2 or more or a lower --batch-size, with another --out."
        ):
            losses = train(
                self.learner(model),
                Share(self, rank(), world_size()),
                description="pre-training",
                batch_size=self.data.batch_size,
                accumulate=settings.accumulate,
                checkpoints=Checkpoints(place.scratch, every, keep, place.resumed),
                curves=self._curves(model),
                loggers=open_loggers(settings, place.folder),
                device=settings.device,
                precision=settings.precision,
                strategy=settings.strategy,
                workers=self.workers,
            )
        if settings.strategy == "fsdp" and world_size() > 1:
            weights = whole_weights(model)
            model = self.new_model()
            if rank() == 0:
                model.load_state_dict(weights)
        leave()
        return model, losses

    def _curves(self, model: GeneBertForPreTraining) -> Curves:
        parts = {name: self._validation_data(*part) for name, part in validated_parts(self.corpus).items()}
        kept = {name: data for name, data in parts.items() if data.batch_size > 0}
        bf16 = self.settings.precision == "bf16"

        def validate() -> dict[str, float]:
            found = {name: validation(model, data, bf16=bf16) for name, data in kept.items()}
            return {f"{name}{task}": value for name, each in found.items() for task, value in each.items()}

        return Curves(validate, -(-self.steps // VALIDATIONS)) if kept else Curves()

    def _validation_data(self, regions: Split, cell_types: Split) -> PretrainingData:
        """Return batches that a device has room for, and that can be divided among the processes."""
        data = training_data(self.preset, self.corpus, regions, 0, cell_types)
        data.batch_size = min(data.batch_size, self.data.batch_size // self.settings.accumulate)
        data.batch_size -= data.batch_size % world_size()
        return data

    def estimate(self) -> list[tuple[str, str]]:
        """Return what it would take, in words: what, how much."""
        settings = self.settings
        learner = self.learner(self.new_model())
        with numerics(self.device):
            if settings.devices > 1 and self.device.type == "cpu":
                share_cores(settings.devices)
            return estimate_pretraining(
                learner,
                self.data,
                device=self.device,
                precision=settings.precision,
                processes=self.processes,
                accumulate=settings.accumulate,
                workers=self.workers,
                strategy=settings.strategy,
            ).rows()


@dataclass(frozen=True)
class Share:
    """Makes the batches of one process; see `training.train`.

    Attributes:
        job: what is trained on what.
        rank, processes: which process of how many.
    """

    job: Job
    rank: int
    processes: int

    def __call__(self, index: int) -> PretrainingBatch:
        """Return the batch of a number; those of all processes are neighbours in the batch of the step."""
        parts = self.job.settings.accumulate
        step, part = divmod(index, parts)
        return self.job.data.batch(step, part * self.processes + self.rank, parts * self.processes)


def resolve(settings: PretrainSettings) -> Preset:
    """Return the preset with what the user set in place of its values."""
    preset = load_preset(settings.preset)
    given = {
        name: value for name in TrainingSettings.model_fields if (value := getattr(settings, name, None)) is not None
    }
    model = preset.model
    if settings.k is not None and settings.k != model.k:  # a hidden base costs k tokens, and runs share them
        model = model.model_copy(update={"k": settings.k})
        given = {"longest_run": 1 if settings.k == 1 else LONGEST_RUN} | given
    return Preset(model=model, training=preset.training.model_copy(update=given))


def task_weights(training: TrainingSettings) -> dict[str, float]:
    """Return the tasks that are on, and their weights in the loss."""
    weights = {task: getattr(training, f"{task}_weight") for task in TASKS}
    return {task: weight for task, weight in weights.items() if weight > 0}


def model_config(preset: Preset, corpus: Corpus, attention: Attention = "sdpa") -> GeneBertConfig:
    """Return the configuration of a preset's network for a corpus."""
    tokens = corpus.width - 2 * preset.model.k + 5
    return GeneBertConfig(
        **preset.model.model_dump(),
        max_tokens=max(512, tokens),
        motifs=len(corpus.motifs),
        region_decoder=preset.training.mrm_weight > 0,
        signal_head=preset.training.accessibility_weight > 0,
        attn_implementation=attention,
    )


def new_model(preset: Preset, corpus: Corpus, seed: int, attention: Attention = "sdpa") -> GeneBertForPreTraining:
    """Return an untrained model for a corpus, with the preset's tasks on.

    Its normalisers of motif evidence and signal are fitted on the training regions and examples.
    """
    torch.manual_seed(seed)
    model = GeneBertForPreTraining(model_config(preset, corpus, attention))
    model.select(task_weights(preset.training))
    encoder = model.genebert.region_encoder
    mean, std = evidence_moments(corpus)
    encoder.evidence_mean.copy_(torch.from_numpy(mean))
    encoder.evidence_std.copy_(torch.from_numpy(std).clamp(min=1.0))
    signal = corpus.accessible_values[corpus.examples("train")]
    encoder.signal_mean.fill_(float(signal.mean(dtype=np.float64)))
    encoder.signal_std.fill_(float(signal.std(dtype=np.float64)) or 1.0)
    return model


def evaluated_parts(corpus: Corpus) -> list[tuple[Split, Split]]:
    """Return on what to measure pre-training, as (split of the regions, part of the cell types).

    First held-out chromosomes in training cell types, or without such chromosomes the training examples themselves;
    then held-out cell types, on held-out and on training chromosomes, where there are enough examples.
    """
    regions = _held_out(corpus.valid_chromosomes, corpus.test_chromosomes)
    cell_types = _held_out(corpus.valid_cell_types, corpus.test_cell_types)
    parts: list[tuple[Split, Split]] = [(regions, "train")]
    if cell_types != "train":
        further = {(regions, cell_types): None, ("train", cell_types): None}  # one, if no chromosome is held out
        parts += [part for part in further if len(corpus.examples(*part)) >= LEAST_EXAMPLES]
    return parts


def _held_out(valid: Sequence[str], test: Sequence[str]) -> Split:
    return "test" if test else "valid" if valid else "train"


def validated_parts(corpus: Corpus) -> dict[str, tuple[Split, Split]]:
    """Return on what losses are followed during training: prefix of their names -> part, as `evaluated_parts` has it.

    Held-out chromosomes have no prefix; held-out cell types have one where there are such chromosomes too.
    """
    parts: dict[str, tuple[Split, Split]] = {"": ("valid", "train")} if corpus.valid_chromosomes else {}
    regions: Split = "valid" if corpus.valid_chromosomes else "train"
    if corpus.valid_cell_types and len(corpus.examples(regions, "valid")) >= LEAST_EXAMPLES:
        parts[CELL_TYPES if parts else ""] = regions, "valid"
    return parts


def training_data(
    preset: Preset, corpus: Corpus, split: Split, seed: int, cell_types: Split = "train"
) -> PretrainingData:
    """Return the batches of a split, and a part of the cell types, as a preset wants them."""
    sizes, training = preset.model, preset.training
    on = task_weights(training)
    masked = {"patch_grid": model_config(preset, corpus).patch_grid, "patch": sizes.patch} if "mrm" in on else {}
    hard = training.hard_negatives and not on.keys().isdisjoint({"srm", "accessibility"})
    return PretrainingData(
        corpus,
        split,
        cell_types,
        k=sizes.k,
        columns=sizes.region_columns,
        batch_size=training.batch_size,
        mask_fraction=training.mask_fraction,
        longest_run=training.longest_run,
        seed=seed,
        masking=training.masking,
        balanced=training.balanced,
        extras=Extras(**masked, hard_negatives=hard, reverse_complement="rc" in on),
    )


def validation(model: GeneBertForPreTraining, data: PretrainingData, *, bf16: bool = False) -> dict[str, float]:
    """Measure the first batches of a split, see `validation_metrics`; dropout is off meanwhile.

    Processes that train together call it together, each for its part of the batches.
    """
    was_training, steps = model.training, range(min(VALIDATION_BATCHES, data.steps_per_epoch))
    model.eval()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        found = validation_metrics(model, (data.batch(step, rank(), world_size()) for step in steps))
    model.train(was_training)
    return found


def _losses(model: Callable[..., Any], batch: PretrainingBatch) -> dict[str, torch.Tensor]:
    return pretraining_losses(model(batch), batch)


def _compiled_losses(model: Callable[..., Any], batch: PretrainingBatch) -> dict[str, torch.Tensor]:
    """Return the losses of a compiled model; without this note it would be compiled again for the second batch."""
    for scored in (batch.scored_row, batch.scored_token, batch.scored_target):
        torch._dynamo.maybe_mark_dynamic(scored, 0)  # each batch has another number of them
    return _losses(model, batch)


def _finish(job: Job, model: GeneBertForPreTraining, curves: pd.DataFrame, run: StageRun) -> Path:
    """Evaluate, and write the result."""
    corpus = job.corpus
    if job.settings.attention == "flash_attention_2":
        model.set_attn_implementation("sdpa")  # evaluation is in fp32, which that kernel refuses
    curves.to_csv(run.folder / "curves.tsv", sep="\t", index=False, float_format="%.6g")
    model.to(job.device).eval()
    evaluation = _evaluate(model, job)
    metrics = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": job.steps,
        "examples_seen": job.steps * job.data.batch_size,
        "machine": {"device": job.device.type, "processes": job.processes, "threads": torch.get_num_threads()},
        "corpus_fingerprint": corpus.fingerprint,
        "train_chromosomes": sorted(set(corpus.regions["chrom"][corpus.split == 0])),
        "valid_chromosomes": corpus.valid_chromosomes,
        "test_chromosomes": corpus.test_chromosomes,
        "valid_cell_types": corpus.valid_cell_types,
        "test_cell_types": corpus.test_cell_types,
        "validated_on": validated_parts(corpus),
        "evaluation": evaluation,
    }
    save_model(model, run.folder)
    KmerTokenizer(k=model.config.k, model_max_length=model.config.max_tokens).save_pretrained(run.folder)
    write_scanner(corpus.scanner, run.folder)
    out = run.finish(metrics)
    for row in evaluation:
        baselines = ", ".join(f"{name} {value['value']:.3f}" for name, value in row["baselines"].items())
        where = f"{row['regions']} chromosomes, {row['cell_types']} cell types"
        say(f"{where}: {row['task']} {row['metric']}: {row['model']['value']:.3f} ({baselines})")
    return out


def _evaluate(model: GeneBertForPreTraining, job: Job) -> list[Row]:
    """Return the rows of each of the `evaluated_parts`, which name it as `regions` and `cell_types`."""
    rows, fitted = [], Fitted.on(model, job.data)
    for regions, cell_types in evaluated_parts(job.corpus):
        part = training_data(job.preset, job.corpus, regions, job.settings.seed + 1, cell_types)
        found = evaluate_pretraining(model, part, job.data, fitted)
        rows += [{"regions": regions, "cell_types": cell_types, **row} for row in found]
    return rows
