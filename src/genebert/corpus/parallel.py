"""Tasks over the processes of this machine, or over a Dask cluster; what comes back is the same whichever way.

A task is computed by `function(shared, task)`: a function at the top level of a module, what all tasks share (it is
sent as bytes, and kept by each worker as long as it serves the same call), and what is the task's own. Workers
only compute; what they return is written by the caller, so that no file has two writers.
"""

import logging
import multiprocessing
import os
import pickle
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait as wait_for_end
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Protocol, TypeVar

from genebert import __version__
from genebert.errors import Problems, ResumableError, UserError, problem

RETRIES = 3
"""How often work is given to new workers after one was killed."""
_AHEAD = 2
"""Tasks handed out per worker; few, so that results do not pile up where they are written slowly."""
_CONNECTING = 20.0
"""Seconds in which a Dask scheduler must answer."""
_RESTART = 120.0
"""Seconds in which a worker must come where all were lost: a busy machine takes its time to start one."""
_NOTICING = 1.0
"""Seconds to wait where a connection was closed, until it is known which end is gone."""
_PATIENCE = 5.0
"""Seconds without a result after which it is looked whether the scheduler is still there."""

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")
_kept = threading.local()  # of a worker's thread, since open files are not to be shared between threads


class Workers(Protocol):
    """What computes tasks.

    Attributes:
        count: how many tasks are computed at a time.
    """

    count: int

    def map(
        self, function: Callable[[Shared, Task], Result], shared: Shared, tasks: Iterable[tuple[int, Task]]
    ) -> Iterator[tuple[int, Result]]:
        """Yield (number of a task, its result) in the order in which they are ready.

        Args:
            function: computes a task from `shared` and the task; at the top level of a module.
            shared: what all tasks need; picklable.
            tasks: (number, task); drawn as they are needed.

        Raises:
            UserError: raised by a task.
            ResumableError: workers were killed again and again, or are out of reach.
        """
        ...

    def check_files(self, paths: Iterable[Path]) -> None:
        """Check that workers on other machines see the same files under the same paths, by their sizes.

        Raises:
            UserError: they do not.
        """
        ...


@contextmanager
def open_workers(count: int | None, scheduler: str | None) -> Iterator[Workers]:
    """Open the workers that settings ask for: a Dask cluster, processes, or this process alone.

    Args:
        count: processes on this machine; one per core if None. 1 computes in this process.
        scheduler: address of a Dask scheduler, used instead.

    Raises:
        UserError: the scheduler does not answer, its workers have another version of genebert, or dask is absent.
    """
    if scheduler is not None:
        with _connect(scheduler) as client:
            yield Cluster(client)
        return
    count = count or usable_cores()
    if count == 1:
        yield ThisProcess()
        return
    with Processes(count) as processes:
        yield processes


def usable_cores() -> int:
    """Return the number of cores that this process may use (a container or a batch system may allow fewer)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ThisProcess:
    """Computes tasks one after the other, here."""

    count = 1

    def map(
        self, function: Callable[[Shared, Task], Result], shared: Shared, tasks: Iterable[tuple[int, Task]]
    ) -> Iterator[tuple[int, Result]]:
        """See `Workers.map`."""
        for number, task in tasks:
            yield number, function(shared, task)

    def check_files(self, paths: Iterable[Path]) -> None:
        """See `Workers.check_files`; this machine sees its own files."""


class _Elsewhere(ABC):
    """Computes tasks in other processes, which may be killed: their work is then done again by others."""

    count: int
    _lost: tuple[type[Exception], ...] = ()
    """What tells that workers are gone, with what was running on them."""

    @abstractmethod
    def _submit(self, function: Callable[[Shared, Task], Result], payload: bytes, task: Task) -> Any:
        """Hand out a task; return its future."""

    @abstractmethod
    def _wait(self, running: Iterable[Any]) -> Iterable[Any]:
        """Wait until a future is done, and return those that are; it may be none."""

    @abstractmethod
    def _renew(self, failures: int, error: Exception) -> None:
        """Make ready for new workers, or raise `ResumableError` if that is hopeless."""

    def map(
        self, function: Callable[[Shared, Task], Result], shared: Shared, tasks: Iterable[tuple[int, Task]]
    ) -> Iterator[tuple[int, Result]]:
        """See `Workers.map`."""
        payload = pickle.dumps(shared)
        source = iter(tasks)
        waiting: list[tuple[int, Task]] = []
        running: dict[Any, tuple[int, Task]] = {}
        failures = 0
        while True:
            waiting.extend(islice(source, _AHEAD * self.count - len(waiting) - len(running)))
            try:
                while waiting:  # a task leaves the list only when it is handed out, so that none is lost
                    running[self._submit(function, payload, waiting[0][1])] = waiting[0]
                    del waiting[0]
                if not running:
                    return
                for future in self._wait(running):
                    yield running[future][0], future.result()
                    del running[future]
            except self._lost as error:
                failures += 1
                self._renew(failures, error)
                waiting, running = [*waiting, *running.values()], {}


def _killed(option: str, what: str, fewer: str) -> ResumableError:
    return ResumableError(
        problem(
            option,
            f"the {what} that do the work were killed {RETRIES + 1} times, most likely for want of memory",
            f"Give fewer {fewer}, or more memory, then run the same command again; what is done is kept.",
        )
    )


class Processes(_Elsewhere):
    """Computes tasks in processes of this machine; they are started when first needed."""

    _lost = (BrokenProcessPool,)

    def __init__(self, count: int) -> None:
        self.count = count
        self._spawn = multiprocessing.get_context("spawn")  # the same on all systems, and safe beside threads
        self._started = self._spawn.Event()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def check_files(self, paths: Iterable[Path]) -> None:
        """See `Workers.check_files`; this machine sees its own files."""

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _submit(self, function: Callable[[Shared, Task], Result], payload: bytes, task: Task) -> Future[Result]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.count, mp_context=self._spawn, initializer=_start, initargs=(self._started,)
            )
        return self._pool.submit(_call, function, payload, task)

    def _wait(self, running: Iterable[Future[Any]]) -> Iterable[Future[Any]]:
        return wait(running, return_when=FIRST_COMPLETED).done

    def _renew(self, failures: int, error: Exception) -> None:
        self._close()
        if not self._started.is_set():
            raise ResumableError(
                problem(
                    "--workers",
                    "the processes that do the work ended before they began (each imports the script that started it)",
                    'In a script of your own, call genebert under `if __name__ == "__main__":`, or give 1 worker.',
                )
            )
        if failures > RETRIES:
            raise _killed("--workers", "processes", "of them")


class Cluster(_Elsewhere):
    """Computes tasks on the workers of a Dask cluster, which restarts those of a worker that is lost.

    What tasks share lies on the workers only. If all that hold it die, Dask cancels the tasks that need it, and it is
    sent again to those that came after them.
    """

    def __init__(self, client: Any) -> None:
        from distributed import CancelledError, KilledWorker
        from distributed.client import ClosedClientError
        from distributed.comm import CommClosedError

        self._client = client
        self._lost = CancelledError, CommClosedError, ClosedClientError, KilledWorker
        self._killed_worker, self._closed = KilledWorker, CommClosedError
        self._sent: tuple[bytes, Any] | None = None
        self.count = sum(client.nthreads().values())

    def check_files(self, paths: Iterable[Path]) -> None:
        """See `Workers.check_files`."""
        own = _sizes([str(path) for path in paths])
        found = Problems("The workers do not see the same files as this process:")
        remedy = "Give absolute paths that name the same files on all machines."
        for worker, sizes in self._client.run(_sizes, list(own)).items():
            for path, size in sizes.items():
                if size is None and own[path] is not None:
                    found.add(path, f"worker {worker} has no such file", remedy)
                elif size != own[path]:
                    found.add(path, f"on worker {worker} it has {size} bytes, and {own[path]} here", remedy)
        try:
            found.raise_any()
        except UserError as error:  # circumstances of this run, which cost nothing that an interrupted one has done
            raise ResumableError(str(error)) from None

    def _submit(self, function: Callable[[Shared, Task], Result], payload: bytes, task: Task) -> Any:
        if self._sent is None or self._sent[0] is not payload:
            try:
                self._sent = payload, self._client.scatter(payload, broadcast=True, hash=False, timeout=_RESTART)
            except self._closed:  # a kind of OSError: most likely a worker has died while it was sent this; see `map`
                raise
            except OSError as error:  # TimeoutError is one: no worker came
                raise self._gone(f"its workers cannot be reached ({error})") from None
        return self._client.submit(_call, function, self._sent[1], task, pure=False)

    def _wait(self, running: Iterable[Any]) -> Iterable[Any]:
        from distributed import wait as wait_for_futures

        try:
            return wait_for_futures(list(running), timeout=_PATIENCE, return_when=FIRST_COMPLETED).done
        except TimeoutError:
            self._check_connected()
            return []

    def _renew(self, failures: int, error: Exception) -> None:
        if isinstance(error, self._closed):
            time.sleep(_NOTICING)
        self._check_connected()
        if failures > RETRIES or isinstance(error, self._killed_worker):
            raise _killed("--scheduler", "Dask workers", "workers per machine")
        self._sent = None

    def _check_connected(self) -> None:
        if self._client.status != "running":
            raise self._gone("the connection is lost")

    def _gone(self, what: str) -> ResumableError:
        remedy = "Look after the cluster, then run the same command again; what is done is kept."
        return ResumableError(problem("--scheduler", what, remedy))


@contextmanager
def _connect(scheduler: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise ResumableError(
            problem("--scheduler", "dask is not installed", "Install it: pip install 'genebert[dask]'")
        ) from None
    for logger in ("distributed.client", "distributed.batched"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)  # a lost connection is reported by `Cluster`, in one line
    try:
        client = Client(scheduler, timeout=_CONNECTING)
    except (OSError, ValueError) as error:
        raise ResumableError(
            problem(f"--scheduler {scheduler}", f"it does not answer ({error})", "Check address and network.")
        ) from None
    with client:
        _check_versions(scheduler, client)
        yield client


def _check_versions(scheduler: str, client: Any) -> None:
    """Refuse a cluster that has no workers, or where genebert is absent or of another version."""
    versions: dict[str, str | Exception] = client.run(_version, on_error="return")
    try:
        own = {"the scheduler": client.run_on_scheduler(_version)}  # it reads tasks, too
    except (ImportError, AttributeError) as error:
        own = {"the scheduler": error}
    others = {worker: found for worker, found in (versions | own).items() if found != __version__}
    if not versions:
        what, remedy = "it has no worker", "Start workers, and wait until they have joined."
    elif failed := {worker: str(found) for worker, found in others.items() if isinstance(found, Exception)}:
        what = f"genebert cannot be imported on {', '.join(failed)} ({next(iter(failed.values()))})"
        remedy = f"Install genebert {__version__} there, as here: pip install 'genebert[dask]'"
    elif others:
        what = f"genebert is of another version: {others}, and this is {__version__}"
        remedy = "Start scheduler and workers of this version."
    else:
        return
    raise ResumableError(problem(f"--scheduler {scheduler}", what, remedy))


def _sizes(paths: list[str]) -> dict[str, int | None]:
    """Return path -> bytes of each file that is there, as this machine sees it; None if it is not."""
    return {path: Path(path).stat().st_size if Path(path).is_file() else None for path in paths}


def _version() -> str:
    return __version__


def _call(function: Callable[[Shared, Task], Result], payload: bytes, task: Task) -> Result:
    if getattr(_kept, "payload", None) != payload:
        _kept.shared = pickle.loads(payload)  # written by the caller of `map`, on the user's own machines
        _kept.payload = payload
    return function(_kept.shared, task)


def _start(started: Event) -> None:
    """Note that a worker has started; let it end when the process that started it is gone, also if that was killed."""
    started.set()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    wait_for_end([sentinel])
    os._exit(1)
