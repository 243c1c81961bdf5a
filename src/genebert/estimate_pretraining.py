"""What pre-training will take, before it starts: parameters, FLOPs, memory, and the time, measured over a few steps."""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from genebert.console import duration_of, size_of
from genebert.errors import UserError, problem
from genebert.model.config import GeneBertConfig
from genebert.model.genebert import REGION_TASKS, SEQUENCE_TASKS, GeneBertForPreTraining
from genebert.pretraining_data import PretrainingBatch, PretrainingData
from genebert.settings import Precision, Strategy
from genebert.tokens import vocabulary_size
from genebert.training import Learner

LONG_STEP = 4.0
"""Seconds; batches are doubled up to the real size until a step takes so long."""
TIMED_STEPS = 3
LOADED_EXAMPLES = 512
_FLOAT = 4


@dataclass(frozen=True)
class PretrainingEstimate:
    """What is needed.

    Attributes:
        parameters, trained: of the network; those that only tasks use which are off are not trained.
        examples, batch_size: how many examples are seen in all, and in a step.
        flops: of one example, forward and backward.
        processes: how many train, each with a device like the one measured.
        share: examples that a device works on at a time.
        states: bytes of weights, gradients and optimiser states, of each device.
        activations: bytes kept of one example for the backward pass.
        measured: examples at a time in the measured steps.
        seconds: of the device, per example.
        loading: seconds of one process to make an example of a batch.
        workers: processes that make batches, for each device; 0 if they are made in between.
    """

    parameters: int
    trained: int
    examples: int
    batch_size: int
    flops: float
    processes: int
    share: int
    states: dict[str, int]
    activations: float
    measured: int
    seconds: float
    loading: float
    workers: int

    @property
    def duration(self) -> float:
        """Seconds of the whole training, without evaluation and without what the devices tell each other."""
        waiting = max(self.seconds, self.loading / self.workers) if self.workers else self.seconds + self.loading
        return self.examples * waiting / self.processes

    def rows(self) -> list[tuple[str, str]]:
        """Return the estimate in words: what, how much."""
        kept = self.activations * self.share
        parts = [f"{name} {size_of(size)}" for name, size in self.states.items()]
        parts.append(f"activations of {self.share} examples {size_of(kept)}")
        devices = f"{self.processes} devices like this one" if self.processes > 1 else "this device"
        makers = f"{self.workers} processes per device" if self.workers else "in between"
        return [
            ("parameters", f"{self.parameters:,}, of which {self.trained:,} are trained"),
            ("examples, steps", f"{self.examples:,}, {self.examples // self.batch_size:,}"),
            ("FLOPs per example", f"{_flops(self.flops)}, forward and backward"),
            ("memory per device", f"{size_of(sum(self.states.values()) + kept)}: {', '.join(parts)}"),
            (
                "speed per device",
                f"{_rate(1 / self.seconds)} examples/s, {_flops(self.flops / self.seconds)}/s "
                f"(measured with {self.measured} at a time)",
            ),
            ("making batches", f"{_rate(1 / self.loading)} examples/s and process ({makers})"),
            ("time", f"{duration_of(self.duration)} on {devices}, and the evaluation"),
        ]


def estimate_pretraining(
    learner: Learner,
    data: PretrainingData,
    *,
    device: torch.device,
    precision: Precision,
    processes: int = 1,
    accumulate: int = 1,
    workers: int = 0,
    strategy: Strategy = "ddp",
) -> PretrainingEstimate:
    """Measure a few steps of one process on batches as they would come.

    Args:
        learner: as it would be trained; some steps are.
        data: the training examples.
        device, precision: where and how.
        processes, accumulate, workers, strategy: see `PretrainingEstimate` and `training.train`.

    Raises:
        UserError: not even a few examples fit on the device.
    """
    model = learner.model.to(device).train()
    assert isinstance(model, GeneBertForPreTraining)
    share = data.batch_size // (processes * accumulate)
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    holders = processes if strategy == "fsdp" else 1
    numbers = {"weights": parameters, "gradients": trained, "AdamW": 2 * trained}
    stepper = _Stepper(learner, data, device, precision)
    try:
        activations = stepper.activations(share)
        measured, seconds = stepper.speed(share)
    except torch.OutOfMemoryError:
        what = "not even a few examples fit into its memory"
        raise UserError(problem(f"{device}", what, "Choose a smaller preset, or --checkpoint-activations.")) from None
    batch = _of_size(data, share).batch(0)
    return PretrainingEstimate(
        parameters=parameters,
        trained=trained,
        examples=learner.schedule.steps * data.batch_size,
        batch_size=data.batch_size,
        flops=flops_per_example(model, batch),
        processes=processes,
        share=share,
        states={name: _FLOAT * count // holders for name, count in numbers.items()},
        activations=activations,
        measured=measured,
        seconds=seconds,
        loading=_loading_seconds(data),
        workers=workers,
    )


class _Stepper:
    """Trains on batches of any size, and measures it."""

    def __init__(self, learner: Learner, data: PretrainingData, device: torch.device, precision: Precision) -> None:
        self.learner = learner
        self.data = data
        self.device = device
        self.bf16 = precision == "bf16"
        self.optimizer = learner.configure_optimizers()["optimizer"]

    def activations(self, most: int) -> float:
        """Return the bytes kept of one example for the backward pass: what 4 examples need more than 2 do."""
        if most < 4:
            return self._kept(most) / most
        return (self._kept(4) - self._kept(2)) / 2

    def _kept(self, size: int) -> int:
        with _saved_bytes(self.learner.model) as sizes:
            self._step(_of_size(self.data, size).batch(0).to(self.device))
        return sum(sizes.values())

    def speed(self, most: int) -> tuple[int, float]:
        """Return how many examples at a time were measured, and the seconds of one."""
        measured, size = None, min(2, most)
        while True:
            try:
                seconds = self._seconds(size)
            except torch.OutOfMemoryError:
                if measured is None:
                    raise
                return measured
            measured = size, seconds / size
            if size == most or seconds > LONG_STEP:
                return measured
            size = min(2 * size, most)

    def _seconds(self, size: int) -> float:
        """Return the seconds of a step, after one to warm up."""
        batch = _of_size(self.data, size).batch(0).to(self.device)
        self._step(batch)
        took = []
        for _ in range(TIMED_STEPS):
            began = time.perf_counter()
            self._step(batch)
            took.append(time.perf_counter() - began)
            if took[0] > LONG_STEP:
                break
        return min(took)

    def _step(self, batch: PretrainingBatch) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.learner.training_step(batch, 0)
        loss.backward()  # type: ignore[no-untyped-call]
        self.learner.on_before_optimizer_step(self.optimizer)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def _of_size(data: PretrainingData, size: int) -> PretrainingData:
    smaller = copy.copy(data)
    smaller.batch_size = size
    return smaller


@contextmanager
def _saved_bytes(model: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Collect the sizes of memory blocks that are kept for the backward pass, but for the model's own."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # else its place in memory could be another one's
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


def _loading_seconds(data: PretrainingData) -> float:
    data.batch(0)  # what is computed once
    steps = max(1, LOADED_EXAMPLES // data.batch_size)
    began = time.perf_counter()
    for step in range(steps):
        data.batch(step + 1)
    return (time.perf_counter() - began) / (steps * data.batch_size)


def flops_per_example(model: GeneBertForPreTraining, batch: PretrainingBatch) -> float:
    """Return the floating-point operations of one example, forward and backward, of matrix products alone.

    A multiplication and an addition are two. The backward pass takes twice the forward pass (gradients of inputs and
    of weights), but for the patch embedding and a stem that reads tokens, whose inputs need no gradient.
    """
    config, rows, tokens = model.config, *batch.input_ids.shape
    tasks, twice = model.tasks, 2 if batch.closed is not None else 1
    forward = spared = 0.0
    if tasks & SEQUENCE_TASKS:
        strands = 2 if batch.reverse_ids is not None else 1
        forward += sequence_flops(config, tokens) * strands
        if vocabulary_size(config.k) < config.hidden_size:
            spared += stem_flops(config, tokens) * strands
            forward += stem_flops(config, config.hidden_size) / rows  # of each token of the vocabulary, once per batch
    if tasks & REGION_TASKS:
        spared += patch_flops(config) * twice
        forward += (region_flops(config) + patch_flops(config)) * twice
    forward += sum(_head_flops(model, tokens, len(batch.scored_row) / rows, twice)[task] for task in tasks)
    return 3 * forward - spared


def sequence_flops(config: GeneBertConfig, tokens: int) -> float:
    """Return those of the sequence encoder, forward: of the layers' projections, their attention, and the stem."""
    width = config.hidden_size
    layer = 24 * tokens * width**2 + 4 * tokens**2 * width
    return config.layers * layer + stem_flops(config, tokens) + 4 * tokens * width


def stem_flops(config: GeneBertConfig, tokens: int) -> float:
    """Return those of the stem's filters, forward; they read tokens, or embeddings if these are narrower."""
    return 2 * tokens * config.hidden_size * min(vocabulary_size(config.k), config.hidden_size) * config.stem


def patch_flops(config: GeneBertConfig) -> float:
    """Return those of the patch embedding, forward; its image has three channels."""
    return 2 * 3 * math.prod(config.patch) * config.embed_dim * math.prod(config.patch_grid)


def region_flops(config: GeneBertConfig) -> float:
    """Return those of Swin after the patch embedding, forward: of each stage's blocks, and of the merging after it."""
    (rows, columns), width, total = config.patch_grid, config.embed_dim, 0.0
    for stage, depth in enumerate(config.depths):
        window = min(config.window, rows, columns)
        padded = window**2 * -(-rows // window) * -(-columns // window)
        attention = 8 * padded * width**2 + 4 * padded * window**2 * width
        total += depth * (attention + 16 * rows * columns * width**2)
        if stage < len(config.depths) - 1:
            rows, columns = -(-rows // 2), -(-columns // 2)
            total += 2 * rows * columns * (4 * width) * (2 * width)
            width *= 2
    return total + 2 * rows * columns * width


def _head_flops(model: GeneBertForPreTraining, tokens: int, scored: float, twice: int) -> dict[str, float]:
    """Return those of each task's head, forward; contrasts within a batch are left out."""
    config, base = model.config, model.genebert
    hidden, space, pooled = config.hidden_size, config.projection_dim, base.width
    states = math.prod(config.state_grid) * base.region_encoder.swin.num_features
    return {
        "mgm": 2 * scored * (hidden**2 + hidden * 4**config.k),
        "ngsp": 2 * (3 * hidden**2 + hidden),
        "srm": 2 * space * (base.sequence_width + twice * base.region_encoder.width),
        "rc": 2 * space * base.sequence_width,
        "mrm": 2 * states * 2 * math.prod(config.state_size),
        "accessibility": 2 * twice * (pooled * hidden + hidden),
    }


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _flops(count: float) -> str:
    factor, prefix = next((pair for pair in ((1e12, "T"), (1e9, "G")) if count >= pair[0]), (1e6, "M"))
    return f"{count / factor:,.2f} {prefix}FLOP"
