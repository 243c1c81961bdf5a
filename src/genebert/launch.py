"""Processes that train together: started here, on one machine, or by `torchrun`, on one machine or many.

Either way a process knows its place from the environment (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE), as torchrun
sets it. The first process prepares and writes; the others wait for its word, and end quietly if it gives none.
"""

import logging
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from genebert.corpus.parallel import usable_cores
from genebert.errors import ResumableError, UserError, problem

Result = TypeVar("Result")
Argument = TypeVar("Argument")
_STORE = "GENEBERT_STORE"
"""Names the file by which processes started here find each other; others find each other as torchrun has it."""


def started() -> bool:
    """Is this one of several processes that train together, started by `start` or by torchrun?"""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def machine_processes() -> int:
    """Return how many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if started() else 1


def start(function: Callable[[Argument], Result], argument: Argument, processes: int) -> Result:
    """Call a function in several processes of this machine, and return what it returns in the first.

    Args:
        function: of a module, so that other processes can import it.
        argument: is sent to each process.
        processes: how many.

    Raises:
        UserError, OSError: as raised in a process, the first one of several.
        ResumableError: a process was killed.
    """
    with TemporaryDirectory(prefix="genebert-") as folder:
        ended: Exception | None = None
        logging.getLogger("torch.multiprocessing").setLevel(logging.ERROR)  # it tells whom it stops
        try:
            spawn(_work, (function, argument, processes, Path(folder)), nprocs=processes)  # type: ignore[no-untyped-call]
        except (ProcessRaisedException, ProcessExitedException) as error:
            ended = error
        outcomes = [path for rank in range(processes) if (path := Path(folder) / f"outcome-{rank}").exists()]
        result: Any = pickle.loads(outcomes[0].read_bytes()) if outcomes else ended
    if isinstance(result, ProcessExitedException):
        where = f"process {result.error_index} of {processes}"
        remedy = "The same command resumes; if it happens again, the machine may lack memory."
        raise ResumableError(problem(where, f"it ended early ({result.signal_name or result.exit_code})", remedy))
    if isinstance(result, Exception):
        raise result
    found: Result = result
    return found


def _work(rank: int, function: Callable[[Argument], Result], argument: Argument, processes: int, folder: Path) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "GROUP_RANK": 0}
    os.environ.update({name: str(value) for name, value in place.items()}, **{_STORE: str(folder / "store")})
    result: Result | Exception
    try:
        result = function(argument)
    except (UserError, OSError) as error:
        result = error
    failed = isinstance(result, Exception)
    if failed or rank == 0:
        (folder / f"outcome-{rank}").write_bytes(pickle.dumps(result))
    if failed:  # perhaps amid training: who waits for this process is to be stopped
        raise SystemExit(1)


def _end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, even if that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes for a while; without others, do nothing. On the CPU they share its cores.

    Tensors on a GPU are exchanged by NCCL, all else by Gloo.
    """
    if not started():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    else:
        share_cores(machine_processes())
    store = os.environ.get(_STORE)
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{store}" if store else "env://",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    yield
    leave()  # not after an error: the others may be waiting, and whoever started them stops them


def share_cores(processes: int) -> None:
    """Use this process' share of the cores, unless the user has set OMP_NUM_THREADS."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, usable_cores() // processes))


def leave() -> None:
    """Leave the other processes: from here on this one works alone."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def leading() -> Iterator[Callable[[Any], None]]:
    """In the first process: prepare while the others are `following`.

    Yields:
        a function to be called once with what they need, which sends them on; if it is not called, they end.
    """
    waiting = distributed.is_initialized()

    def send(word: Any) -> None:
        nonlocal waiting
        if waiting:
            distributed.broadcast_object_list([word], src=0, device=torch.device("cpu"))
        waiting = False

    try:
        yield send
    finally:
        send(None)


def following() -> Any:
    """In the other processes: wait for the first, and return what it sent, or None if there is nothing to do."""
    word = [None]
    distributed.broadcast_object_list(word, src=0, device=torch.device("cpu"))
    return word[0]
