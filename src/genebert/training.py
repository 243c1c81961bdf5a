"""The one training loop: a Lightning module for any of our models, on one device or many, with exact resume.

Everything random in a step depends on the seed and the step alone: the batch (see `sampling`), and dropout, whose
generator is seeded for each batch. So a run that was killed and resumed equals one that never was.
"""

import logging
import math
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn
from torch.utils import deterministic
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from genebert.checkpoints import AtomicIO, Checkpoint, Checkpoints, step_ended, stop_diverged
from genebert.console import console, progress_bar, say
from genebert.corpus.parallel import usable_cores
from genebert.device import bf16_is_native, no_tf32, pick_device
from genebert.distributed import rank, world_size
from genebert.errors import Problems
from genebert.launch import machine_processes, started
from genebert.sampling import keys
from genebert.settings import Device, Precision, PretrainSettings, Strategy
from genebert.stage import digest

LOG_STEPS = 10
"""Losses are recorded as means over 10 steps, and only then read from the device: reading waits for it."""
MOST_GRADIENT = 1.0
"""Longer gradients are shortened to this norm."""
LINE_SECONDS = 60
"""Where there is no terminal, a line tells the progress so often."""
Losses = Callable[[Callable[..., Any], Any], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Schedule:
    """How to train.

    Attributes:
        steps: optimiser steps in all.
        learning_rate: peak of AdamW's; see `factor`.
        warmup: fraction of all examples over which it rises.
        weight_decay: of the matrices of linear and convolutional layers.
        seed: of dropout.
    """

    steps: int
    learning_rate: float
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0

    def factor(self, step: int) -> float:
        """Return the learning rate of a step as a fraction of the peak.

        It depends on the fraction of all examples that have been seen at the end of the step, whatever the batch
        size: it rises linearly over the warm-up and falls as a cosine to a tenth.
        """
        seen = min(1.0, (step + 1) / self.steps)
        if seen < self.warmup:
            return seen / self.warmup
        return 0.1 + 0.9 * (1 + math.cos(math.pi * (seen - self.warmup) / (1 - self.warmup))) / 2


class Learner(lightning.LightningModule):
    """Trains a model on named losses.

    Args:
        model: any of ours.
        losses: (model, batch) -> named losses; of several processes, each returns those of the joint batch.
        weights: name -> weight in the total; a loss of weight 0 is not part of it.
        schedule: how to train.
        compiled: run the model through torch.compile.
    """

    def __init__(
        self, model: nn.Module, losses: Losses, weights: dict[str, float], schedule: Schedule, *, compiled: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.weights = weights
        self.schedule = schedule
        self.latest: dict[str, torch.Tensor] = {}
        runs = torch.compile(model) if compiled else model
        # not as a submodule: the compiled one would rename the weights
        self.losses: Callable[[Any], dict[str, torch.Tensor]] = lambda batch: losses(runs, batch)

    def configure_model(self) -> None:
        """Divide parameters, gradients and optimiser states among the processes, if that is the strategy."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            shard(self.model, self.device_mesh["data_parallel"])

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Copy a batch to the device while that computes."""
        return batch.to(device, non_blocking=True)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by the batch."""
        seed = int(keys(self.schedule.seed, batch_idx, rank())[0])
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # torch.manual_seed notes the stack for GPUs, which takes 1.6 ms
        else:
            torch.manual_seed(seed)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the weighted sum of the losses."""
        parts = self.losses(batch)
        total = torch.stack([self.weights[name] * loss for name, loss in parts.items() if self.weights[name] > 0]).sum()
        self.latest = {name: loss.detach() for name, loss in parts.items()} | {"loss": total.detach()}
        return total

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW and its schedule."""
        decayed = {id(parameter) for parameter in decayed_parameters(self.model)}
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if id(p) in decayed], "weight_decay": self.schedule.weight_decay},
            {"params": [p for p in trained if id(p) not in decayed], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, self.schedule.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Clip the gradient's norm; Lightning refuses to in bf16, taking fused AdamW for one that scales losses."""
        torch.nn.utils.clip_grad_norm_(self.parameters(), MOST_GRADIENT)


def decayed_parameters(model: nn.Module) -> list[torch.Tensor]:
    """Return what weight decay applies to: matrices of linear and convolutional layers.

    Biases, norms, embeddings, position tables, mask tokens and temperatures are exempt: drawing them to 0 makes no
    function simpler (a rare k-mer's embedding would fade between its appearances).
    """
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
    return [module.weight for module in model.modules() if isinstance(module, kinds)]


def shard(model: nn.Module, mesh: Any) -> None:
    """Divide a model among processes (FSDP, Zhao et al. 2023); the layers of its stacks are gathered one by one."""
    from torch.distributed.fsdp import fully_shard

    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    for layer in reversed([layer for stack in stacks for layer in stack]):  # inner ones first
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


class StepBatches(IterableDataset[Any]):
    """Yields the batches first .. last - 1, shared out over loader workers in turn."""

    def __init__(self, batch: Callable[[int], Any], first: int, last: int) -> None:
        self.batch = batch
        self.first = first
        self.last = last

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        begin, stride = (self.first, 1) if worker is None else (self.first + worker.id, worker.num_workers)
        for index in range(begin, self.last, stride):
            yield self.batch(index)


@dataclass
class Curves(Callback):
    """Records losses as means over 10 steps, and validation losses; kept in the checkpoint.

    Attributes:
        validate: measures validation losses, whose names end with those of losses, and more; called in all processes.
        validate_steps: steps between its calls.
        rows: what was recorded.
        pending: losses of the batches since, on their device.
        names: of the losses.
    """

    validate: Callable[[], dict[str, float]] | None = None
    validate_steps: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    pending: list[torch.Tensor] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the step.

        Raises:
            UserError: a loss is no number (see `stop_diverged`); all processes raise it, for they have the same losses.
        """
        self.names = list(module.latest)
        self.pending.append(torch.stack(list(module.latest.values())))
        if not step_ended(trainer, batch_idx):
            return
        step = trainer.global_step
        last = step == module.schedule.steps
        if step % LOG_STEPS == 0 or last:
            self._record(trainer, module)
        if self.validate and (step % self.validate_steps == 0 or last):
            self._validate(trainer, module)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Record the last steps of a training that was stopped before its end.

        Raises:
            UserError: a loss is no number.
        """
        if self.pending:
            self._record(trainer, module)

    def _record(self, trainer: Any, module: Any) -> None:
        """Add the means of the losses since the last record."""
        here = self.pending[-1].device  # those of a resumed run come from a file
        means = torch.stack([losses.to(here) for losses in self.pending]).double().mean(dim=0).tolist()
        losses = dict(zip(self.names, means, strict=True))
        stop_diverged(trainer, module, (name for name, value in losses.items() if not math.isfinite(value)))
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self._add(trainer, trainer.global_step, {"learning_rate": rate, **losses})
        self.pending.clear()

    def _validate(self, trainer: Any, module: Any) -> None:
        """Add what is measured on validation examples; measures that are not defined there may be no number."""
        assert self.validate is not None
        found = {f"valid_{name}": value for name, value in self.validate().items()}
        losses = {name: value for name, value in found.items() if name.endswith(tuple(self.names))}
        stop_diverged(trainer, module, (name for name, value in losses.items() if not math.isfinite(value)))
        self._add(trainer, trainer.global_step, found)

    def _add(self, trainer: Any, step: int, row: dict[str, float]) -> None:
        self.rows.append({"step": step, **row})
        for logger in trainer.loggers:
            logger.log_metrics(row, step)

    @property
    def latest(self) -> dict[str, float]:
        """The losses recorded last, by name."""
        last = next((row for row in reversed(self.rows) if "loss" in row), {})
        return {name: last[name] for name in self.names if name in last}

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs."""
        return {"rows": list(self.rows), "pending": [losses.cpu() for losses in self.pending]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what a killed run had recorded."""
        self.rows, self.pending = list(state["rows"]), list(state["pending"])

    def table(self) -> pd.DataFrame:
        """Return one row per record: step, learning_rate, losses, valid_ losses."""
        return pd.DataFrame(self.rows).groupby("step", as_index=False).first()


class ProgressBar(Callback):
    """Shows steps, time left, examples per second (of the last minutes) and the losses."""

    def __init__(self, description: str, batch_size: int, curves: Curves) -> None:
        self.description = description
        self.batch_size = batch_size
        self.curves = curves
        self.progress = progress_bar()
        self.progress.speed_estimate_period = 300.0
        self.told = time.monotonic()

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Open the bar at the step to resume from."""
        first, steps = trainer.global_step, module.schedule.steps
        self.task = self.progress.add_task(self.description, total=steps, completed=first, note="")
        self.progress.start()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Advance the bar, or tell the progress from time to time."""
        speed = (self.progress.tasks[0].speed or 0.0) * self.batch_size
        losses = " ".join(f"{name} {value:.3f}" for name, value in self.curves.latest.items())
        note = f"{speed:,.1f} examples/s  {losses}"
        self.progress.update(self.task, completed=trainer.global_step, note=note)
        if not console().is_terminal and time.monotonic() - self.told > LINE_SECONDS:
            self.told = time.monotonic()
            left = self.progress.tasks[0].time_remaining
            when = "" if left is None else f"  {timedelta(seconds=round(left))} left"
            say(f"{self.description}: step {trainer.global_step:,} of {module.schedule.steps:,}{when}  {note}")

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Close the bar."""
        self.progress.stop()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Close the bar when training fails or is interrupted."""
        self.progress.stop()


def train(
    learner: Learner,
    batch: Callable[[int], Any],
    *,
    description: str,
    batch_size: int,
    accumulate: int = 1,
    checkpoints: Checkpoints | None = None,
    curves: Curves | None = None,
    extra: Sequence[Callback] = (),
    loggers: Sequence[Any] = (),
    device: Device = "auto",
    precision: Precision = "fp32",
    strategy: Strategy = "ddp",
    workers: int = 0,
) -> pd.DataFrame:
    """Train, together with the other processes if there are any, resuming from a checkpoint if one is given.

    Args:
        learner: model, losses, schedule.
        batch: makes this process' batch of a number: step * accumulate + i, for i < accumulate.
        description: for the progress bar.
        batch_size: examples per step of all processes, for the progress bar.
        accumulate: batches per step, whose gradients are averaged.
        checkpoints: writes them, and says which to resume from; None for none.
        curves: records losses; a fresh one by default.
        extra: further callbacks.
        loggers: Lightning's, which get the recorded losses too.
        device, precision: where and how.
        strategy: of several processes: each holds the model (ddp), or a share of it (fsdp).
        workers: processes that make batches, of each training process; 0 makes them in between.

    Returns:
        the recorded losses; see `Curves.table`.

    Raises:
        UserError: a loss or a weight is no number; see `stop_diverged`.
        SystemExit: SIGTERM or SIGINT came.
    """
    learner.train()  # from_pretrained returns models in eval mode, and Lightning leaves them so
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)  # it advertises
    place = pick_device(device)
    curves = curves or Curves()
    callbacks = [curves, *extra]
    callbacks += [ProgressBar(description, batch_size, curves)] if rank() == 0 else []
    callbacks += [checkpoints] if checkpoints else []
    resumed = checkpoints.resumed if checkpoints else None
    first = resumed.step if resumed else 0
    batches = StepBatches(batch, first * accumulate, learner.schedule.steps * accumulate)
    with warnings.catch_warnings(), numerics(place, resumed):
        # Lightning suggests loader workers, and calls what torch has renamed; FSDP warns of what nobody does here.
        warnings.filterwarnings("ignore", module=r"lightning.*")
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
        trainer = lightning.Trainer(
            **_hardware(place, strategy),
            precision={"fp32": "32-true", "bf16": "bf16-mixed"}[precision],
            max_steps=learner.schedule.steps,
            accumulate_grad_batches=accumulate,
            callbacks=callbacks,
            logger=list(loggers) or False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with _signals(description):
            trainer.fit(
                learner, loader(batches, place, workers), ckpt_path=resumed.path if resumed else None, weights_only=True
            )
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # else a later training in this process would go on with it
    return curves.table()


@contextmanager
def _signals(description: str) -> Iterator[None]:
    """End by a signal as other programs do; of SIGTERM, Lightning makes an exit without failure, and says nothing."""
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as ended:
        name = signal.SIGTERM if isinstance(ended, SIGTERMException) else signal.SIGINT
        if name == signal.SIGINT:  # which Lightning lets be ignored from then on
            signal.signal(signal.SIGINT, interrupt)
        if rank() == 0:
            say(f"{description}: stopped by {name.name}; the same command goes on")
        raise SystemExit(128 + name) from None


def loader(batches: StepBatches, device: torch.device, workers: int) -> DataLoader[Any]:
    """Return what hands batches out: ahead of time if there are workers, in page-locked memory for a GPU."""
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )


def _hardware(device: torch.device, strategy: Strategy) -> dict[str, Any]:
    """Return the arguments of a Lightning trainer that say where to train."""
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    if world_size() == 1:  # not what Lightning finds out about a batch system: one process may run in a job of many
        return {"accelerator": accelerator, "devices": 1, "plugins": [LightningEnvironment(), AtomicIO()]}
    strategies = {
        "ddp": lambda: DDPStrategy(gradient_as_bucket_view=True, broadcast_buffers=False),
        "fsdp": lambda: ModelParallelStrategy(world_size(), 1, save_distributed_checkpoint=False),
    }
    return {
        "accelerator": accelerator,
        "devices": machine_processes(),
        "num_nodes": world_size() // machine_processes(),
        "plugins": [TorchElasticEnvironment(), AtomicIO(strategy)],
        "strategy": strategies[strategy](),
    }


def whole_weights(model: nn.Module) -> dict[str, Any]:
    """Put a divided model's weights together, on the CPU of the first process; to be called in all processes."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def open_loggers(settings: PretrainSettings, folder: Path) -> list[Any]:
    """Return Lightning's loggers that a user asked for; a resumed run goes on with what it began.

    What TensorBoard reads is kept in the stage's folder. What W&B keeps here until it is sent lies beside it (or where
    WANDB_DIR says), since it is no result.
    """
    loggers: list[Any] = []
    if settings.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    if settings.wandb is not None:
        out = settings.out.absolute()
        again = digest([str(out), settings.identity()])[:16]
        beside = os.environ.get("WANDB_DIR", out.parent)
        loggers.append(WandbLogger(project=settings.wandb, name=out.name, save_dir=beside, id=again, resume="allow"))
    return loggers


@contextmanager
def numerics(device: torch.device, resumed: Checkpoint | None = None) -> Iterator[None]:
    """Compute in such a way that the same inputs give the same numbers, as far as that costs nothing.

    On the CPU, they are the same bits: kernels are deterministic, and a resumed run has as many threads as it had
    before. On a GPU, fp32 is fp32 (no TF32), but sums come in any order.
    """
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    fill = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        _take_up_threads(resumed)
    try:
        with no_tf32():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def _take_up_threads(resumed: Checkpoint | None) -> None:
    if resumed is None or resumed.processes != world_size() or resumed.threads == torch.get_num_threads():
        return
    torch.set_num_threads(resumed.threads)
    say(f"{resumed.threads} threads are used, as before the interruption, so that results are the same")
    if resumed.threads * machine_processes() > usable_cores():
        say(f"There are only {usable_cores()} cores, so that this is slow; to start anew, remove {resumed.path.parent}")


def machine_problems(settings: PretrainSettings, found: Problems) -> None:
    """Note what this machine cannot do of what the user asked for.

    bf16 that the processor lacks is refused, and not emulated: it is there to save time, and would cost it.
    """
    device = pick_device(settings.device)
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and not started() and settings.devices > gpus:
        found.add("--devices", f"{settings.devices} are asked for, and torch finds {gpus} GPUs", "Give fewer.")
    if settings.strategy == "fsdp" and settings.devices == 1 and not started():
        found.add("--strategy fsdp", "one device has nothing to share", "Give --devices, or leave it out.")
    if settings.precision == "bf16" and not bf16_is_native(device):
        what = "this processor would emulate it, which is slower than fp32"
        found.add("--precision bf16", what, "Use fp32, or a GPU, or a CPU that has AVX512-BF16, AMX or ARM's BF16.")
    compilers = [os.environ.get("CXX"), which("g++"), which("clang++")]
    if settings.compile and device.type == "cpu" and not any(compilers):
        found.add("--compile", "on the CPU it needs a C++ compiler, and none is found", "Install g++, or leave it out.")
    flash = device.type == "cuda" and settings.precision == "bf16" and find_spec("flash_attn") is not None
    if settings.attention == "flash_attention_2" and not flash:
        what = "it needs a GPU, --precision bf16 and the package flash-attn"
        found.add("--attention flash_attention_2", what, "Use sdpa, which has fused kernels too.")
    for package, asked in (("tensorboard", settings.tensorboard), ("wandb", settings.wandb is not None)):
        if asked and find_spec(package) is None:
            found.add(f"--{package}", f"{package} is not installed", f"Run `pip install 'genebert[{package}]'`.")
