"""The one training loop: a Lightning module for any of our models, with exact resume.

Everything random in a step depends on the seed and the step alone: the batch (see `batches`), and dropout, whose
generator is seeded at the start of each step. So a run that was killed and resumed equals one that never was.
"""

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from genebert.console import progress_bar
from genebert.errors import UserError, problem
from genebert.settings import Device, Precision

LOG_STEPS = 10
"""Losses are recorded as means over 10 steps."""
LAST_CHECKPOINT = "last.ckpt"
Losses = Callable[[nn.Module, Any], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Schedule:
    """How to train.

    Attributes:
        steps: optimiser steps in all.
        learning_rate: peak of AdamW's; it rises linearly over the warm-up and falls as a cosine to a tenth.
        warmup: fraction of the steps for the rise.
        weight_decay: of matrices; vectors (biases, norms) have none.
        seed: of dropout.
    """

    steps: int
    learning_rate: float
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0

    def factor(self, step: int) -> float:
        """Return the learning rate of a step as a fraction of the peak."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return (step + 1) / rise
        done = min(1.0, (step - rise) / max(1, self.steps - rise))
        return 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2


class Learner(lightning.LightningModule):
    """Trains a model on named losses.

    Args:
        model: any of ours.
        losses: (model, batch) -> named losses.
        weights: name -> weight in the total; a loss of weight 0 is not part of it.
        schedule: how to train.
    """

    def __init__(self, model: nn.Module, losses: Losses, weights: dict[str, float], schedule: Schedule) -> None:
        super().__init__()
        self.model = model
        self.losses = losses
        self.weights = weights
        self.schedule = schedule
        self.latest: dict[str, float] = {}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by the step."""
        torch.manual_seed(self.schedule.seed * 1_000_003 + self.global_step)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the weighted sum of the losses."""
        parts = self.losses(self.model, batch)
        total = torch.stack([self.weights[name] * loss for name, loss in parts.items() if self.weights[name] > 0]).sum()
        self.latest = {name: loss.item() for name, loss in parts.items()} | {"loss": total.item()}
        return total

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW and its schedule."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.schedule.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.schedule.learning_rate, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class StepBatches(IterableDataset[Any]):
    """Yields the batches of the steps first .. last - 1, shared out over loader workers in turn."""

    def __init__(self, batch: Callable[[int], Any], first: int, last: int) -> None:
        self.batch = batch
        self.first = first
        self.last = last

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        begin, stride = (self.first, 1) if worker is None else (self.first + worker.id, worker.num_workers)
        for step in range(begin, self.last, stride):
            yield self.batch(step)


@dataclass
class Curves(Callback):
    """Records losses as means over 10 steps, and validation losses; kept in the checkpoint."""

    validate: Callable[[], dict[str, float]] | None = None
    validate_steps: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    pending: list[dict[str, float]] = field(default_factory=list)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the step."""
        self.pending.append(module.latest)
        step = trainer.global_step
        last = step == module.schedule.steps
        if len(self.pending) == LOG_STEPS or last:
            means = {name: float(np.mean([row[name] for row in self.pending])) for name in self.pending[0]}
            self.rows.append({"step": step, "learning_rate": trainer.optimizers[0].param_groups[0]["lr"], **means})
            self.pending.clear()
        if self.validate and (step % self.validate_steps == 0 or last):
            self.rows.append({"step": step, **{f"valid_{name}": value for name, value in self.validate().items()}})

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs."""
        return {"rows": list(self.rows), "pending": list(self.pending)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what a killed run had recorded."""
        self.rows, self.pending = list(state["rows"]), list(state["pending"])

    def table(self) -> pd.DataFrame:
        """Return one row per record: step, learning_rate, losses, valid_ losses."""
        return pd.DataFrame(self.rows).groupby("step", as_index=False).first()


class ProgressBar(Callback):
    """Shows steps, time left, examples per second and the losses."""

    def __init__(self, description: str, batch_size: int) -> None:
        self.description = description
        self.batch_size = batch_size
        self.progress = progress_bar()

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Open the bar at the step to resume from."""
        self.began, self.first = time.monotonic(), trainer.global_step
        self.task = self.progress.add_task(self.description, total=module.schedule.steps, completed=self.first, note="")
        self.progress.start()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Advance the bar."""
        speed = (trainer.global_step - self.first) * self.batch_size / (time.monotonic() - self.began)
        losses = " ".join(f"{name} {value:.3f}" for name, value in module.latest.items())
        self.progress.update(self.task, completed=trainer.global_step, note=f"{speed:.0f} examples/s  {losses}")

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
    folder: Path | None = None,
    checkpoint_steps: int = 0,
    curves: Curves | None = None,
    extra: Sequence[Callback] = (),
    device: Device = "auto",
    precision: Precision = "fp32",
) -> pd.DataFrame:
    """Train, resuming from the checkpoint in `folder` if there is one.

    Args:
        learner: model, losses, schedule.
        batch: makes the batch of a step.
        description: for the progress bar.
        batch_size: examples per step, for the progress bar.
        folder: where checkpoints lie; None for none.
        checkpoint_steps: steps between checkpoints.
        curves: records losses; a fresh one by default.
        extra: further callbacks.
        device, precision: where and how.

    Returns:
        the recorded losses; see `Curves.table`.
    """
    learner.train()  # from_pretrained returns models in eval mode, and Lightning leaves them so
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it advertises
    curves = curves or Curves()
    callbacks: list[Callback] = [curves, ProgressBar(description, batch_size), *extra]
    checkpoint = folder / LAST_CHECKPOINT if folder else None
    if folder:
        callbacks.append(
            ModelCheckpoint(folder, "last", every_n_train_steps=checkpoint_steps, enable_version_counter=False)
        )
    resume = checkpoint if checkpoint and checkpoint.exists() else None
    first = int(torch.load(resume, map_location="cpu", weights_only=True)["global_step"]) if resume else 0
    with warnings.catch_warnings():
        # Lightning suggests loader workers; batches are made faster than a network can use them.
        warnings.filterwarnings("ignore", module=r"lightning.*")
        trainer = lightning.Trainer(
            accelerator="gpu" if pick_device(device).type == "cuda" else "cpu",
            devices=1,
            precision={"fp32": "32-true", "bf16": "bf16-mixed"}[precision],
            max_steps=learner.schedule.steps,
            callbacks=callbacks,
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=folder is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        loader = DataLoader(StepBatches(batch, first, learner.schedule.steps), batch_size=None)
        trainer.fit(learner, loader, ckpt_path=resume, weights_only=True)
    return curves.table()


def pick_device(device: Device) -> torch.device:
    """Return the torch device to run on.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            problem("--device cuda", "torch finds no CUDA device here", "Use --device cpu, or a CUDA build of torch.")
        )
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
