"""Checkpoints of a training: written whole or not at all, the last few kept, the newest sound one resumed from."""

import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.distributed.tensor import DTensor

from genebert.console import say
from genebert.distributed import rank, total, world_size
from genebert.errors import ResumableError, UserError, problem

_PATTERN = "step-*.ckpt"


class Checkpoint(NamedTuple):
    """A checkpoint on disk.

    Attributes:
        path: its file.
        step: optimiser steps done.
        processes: how many trained together.
        threads: of each of them, on which sums of floats on the CPU depend.
        strategy: of several processes, "ddp" or "fsdp"; "ddp" of one.
    """

    path: Path
    step: int
    processes: int
    threads: int
    strategy: str


class AtomicIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is on the disk.

    Args:
        strategy: see `Checkpoint`.
    """

    def __init__(self, strategy: str = "ddp") -> None:
        self.strategy = strategy

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, with the threads, processes and strategy that it was made with."""
        checkpoint |= {"threads": torch.get_num_threads(), "processes": world_size(), "strategy": self.strategy}
        draft = Path(path).with_suffix(".draft")
        draft.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as handle:
            torch.save(checkpoint, handle)
            handle.flush()
            os.fsync(handle.fileno())
        draft.replace(path)


@dataclass
class Checkpoints(Callback):
    """Writes checkpoints while training.

    Attributes:
        folder: where they lie.
        every: steps between them; the last step has one too, so that what follows training need not train again.
        keep: how many to keep.
        resumed: the one to resume from.
    """

    folder: Path
    every: int
    keep: int = 2
    resumed: Checkpoint | None = None

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write a checkpoint where one is due.

        Raises:
            UserError: see `stop_diverged`.
        """
        step = trainer.global_step
        if not step_ended(trainer, batch_idx) or (step % self.every and step < module.schedule.steps):
            return
        stop_diverged(trainer, module, _no_numbers(module))
        trainer.save_checkpoint(self.folder / f"step-{step:09d}.ckpt")
        if rank() == 0:
            for path in sorted(self.folder.glob(_PATTERN))[: -self.keep]:
                path.unlink()


def stop_diverged(trainer: Any, module: Any, wrong: Iterable[str]) -> None:
    """Stop a training of which something is no number; to be called in all processes, with the same.

    Raises:
        ResumableError: it has checkpoints, from before.
        UserError: it has none.
    """
    if not (names := list(wrong)):
        return
    rate, step = module.schedule.learning_rate, trainer.global_step
    what = f"with {rate:g} training diverged: at step {step:,} {', '.join(names)} is no number"
    folders = [one.folder for one in trainer.callbacks if isinstance(one, Checkpoints)]
    kept = sorted(path for folder in folders for path in folder.glob(_PATTERN))
    if not kept:
        raise UserError(problem("--learning-rate", what, "Choose a lower one."))
    remedy = f"Choose a lower one, with another --out. What there was before is kept: {kept[-1]}"
    raise ResumableError(problem("--learning-rate", what, f"{remedy}."))


def _no_numbers(module: Any) -> list[str]:
    """Return what of a model and its last losses holds something that is no number, in any process."""
    weights = [p.to_local() if isinstance(p, DTensor) else p for p in module.model.parameters()]
    finite = {
        "a weight": torch.stack([one.detach().isfinite().all() for one in weights]).all(),
        **{name: loss.isfinite() for name, loss in module.latest.items()},
    }
    wrong = total(torch.stack([~one for one in finite.values()]).to(torch.int64)).tolist()
    return [name for name, count in zip(finite, wrong, strict=True) if count]


def step_ended(trainer: Any, batch_idx: int) -> bool:
    """Did the optimiser step after this batch, or is its gradient to be added to that of others?"""
    return (batch_idx + 1) % int(trainer.accumulate_grad_batches) == 0


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest sound checkpoint in a folder, or None; damaged ones are said, and removed."""
    for path in sorted(folder.glob(_PATTERN), reverse=True):
        found = _read(path)
        if found:
            return found
        say(f"{path} is damaged; an earlier checkpoint is resumed from, if there is one")
        path.unlink()
    return None


def _read(path: Path) -> Checkpoint | None:
    """Return what a checkpoint is, or None if its bytes are not those written."""
    try:
        with zipfile.ZipFile(path) as archive:
            sound = archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        sound = False
    if not sound:
        return None
    state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    return Checkpoint(
        path, int(state["global_step"]), int(state["processes"]), int(state["threads"]), str(state["strategy"])
    )
