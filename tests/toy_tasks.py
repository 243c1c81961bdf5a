"""Tasks for workers, in a module that other processes can import, and a Dask cluster of such workers."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from genebert.errors import UserError


def add(shared: int, task: int) -> int:
    return shared + task


def who(shared: None, task: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def meet(shared: Path, task: int) -> int:
    """Wait for a second worker: on a busy machine the first could do all tasks before the other has begun."""
    (shared / str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(list(shared.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.getpid()


def die_once(marker: Path, task: int) -> int:
    """Kill the worker that computes task 3, the first time."""
    if task == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task * task


def die_always(shared: Path, task: int) -> int:
    with shared.open("a") as handle:
        handle.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def lack_genebert() -> str:
    """Answer the question for genebert's version as a worker that lacks it."""
    raise ModuleNotFoundError("No module named 'genebert'")


def refuse(shared: None, task: int) -> int:
    raise UserError(f"task {task} is wrong")


@contextmanager
def local_cluster(workers: int, threads: int = 1) -> Iterator[Any]:
    """A cluster on this machine whose workers are processes, as on a real one; in one process they would share more."""
    distributed = pytest.importorskip("distributed")
    import dask

    # A local cluster gives a worker up that has died and is not back after 15 s, or has died again just then.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10 minutes"}),
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=threads, processes=True, dashboard_address=":0", protocol="tcp"
        ) as made,
    ):
        yield made
