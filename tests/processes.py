"""What runs in two processes that talk to each other, for tests of data parallelism."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import preloaded
import torch
from torch import distributed

from genebert.distributed import gather, rank, total, world_size
from genebert.model.config import GeneBertConfig
from genebert.model.genebert import GeneBertForPreTraining
from genebert.objectives import pretraining_losses
from genebert.pretraining_data import PretrainingBatch

PROCESSES = 2


def run_in_processes(function: Callable[[Any], Any], given: Any, folder: Path) -> list[Any]:
    """Return what `function(given)` returns in each of two processes of one gloo group, in which warnings are errors.

    The function has to be in a module that a new process can import, such as this one.
    """
    preloaded.spawn(_work, (function, given, folder), PROCESSES)
    return [torch.load(folder / f"{i}.pt", weights_only=False) for i in range(PROCESSES)]


def _work(place: int, function: Callable[[Any], Any], given: Any, folder: Path) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/init", rank=place, world_size=PROCESSES)
    torch.save(function(given), folder / f"{place}.pt")
    distributed.destroy_process_group()


def exchange() -> dict[str, Any]:
    """Gather and add up numbers that differ by rank, with the gradients of a loss that differs by rank."""
    own = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).add(10 * rank()).requires_grad_()
    gathered, summed = gather(own), total(own)
    ((rank() + 1) * ((gathered * torch.arange(8.0).view(4, 2)).sum() + 100 * summed[0, 1])).backward()
    return {
        "place": (rank(), world_size()),
        "gathered": gathered.detach(),
        "summed": summed.detach(),
        "grad": own.grad,
        "marks": gather(torch.tensor([rank() == 0, True])),
    }


def losses_and_tensors(
    model: GeneBertForPreTraining, batch: PretrainingBatch
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Return the losses, and by name the gradients of their sum, averaged as DDP does, and the buffers after it."""
    losses = pretraining_losses(model(batch), batch)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: total(p.grad) / world_size() for name, p in model.named_parameters()}
    return {name: loss.item() for name, loss in losses.items()}, gradients | dict(model.named_buffers())


def new_model(config: GeneBertConfig, tasks: Sequence[str]) -> GeneBertForPreTraining:
    """A model whose weights are so large that small sums of theirs differ clearly from rounding errors."""
    torch.manual_seed(0)
    model = GeneBertForPreTraining(config).train()
    model.select(tasks)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10 if parameter.ndim > 1 else 1)
    encoder = model.genebert.region_encoder
    for buffer, value in ((encoder.evidence_mean, 128), (encoder.evidence_std, 74), (encoder.signal_mean, 5)):
        buffer.fill_(value)
    return model


def train_together(given: tuple[GeneBertConfig, Sequence[str], Sequence[Sequence[PretrainingBatch]]]) -> list[Any]:
    """Exchange numbers, then compute losses and gradients of each joint batch, of which each process has a part."""
    config, tasks, batches = given
    results: list[Any] = [exchange()]
    for parts in batches:
        results.append(losses_and_tensors(new_model(config, tasks), parts[rank()]))
    return results
