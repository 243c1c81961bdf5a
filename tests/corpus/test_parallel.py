import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import toy_tasks
from toy_tasks import add, die_always, die_once, lack_genebert, local_cluster, meet, refuse, who

from genebert.corpus import parallel
from genebert.corpus.parallel import RETRIES, Cluster, Processes, ThisProcess, Workers, open_workers
from genebert.errors import ResumableError, UserError


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(2) as opened:
        yield opened


@pytest.fixture(scope="module")
def cluster() -> Iterator[Workers]:
    with local_cluster(2) as made, open_workers(None, made.scheduler_address) as opened:
        yield opened


@pytest.fixture(params=["this process", "processes", "cluster"])
def workers(request: pytest.FixtureRequest) -> Workers:
    if request.param == "this process":
        return ThisProcess()
    return request.getfixturevalue(request.param)


def squares(workers: Workers, function: Callable[[Any, int], int], shared: Any, count: int = 20) -> dict[int, int]:
    return dict(workers.map(function, shared, ((i, i) for i in range(count))))


def test_every_task_is_computed_once_and_keeps_its_number(workers: Workers) -> None:
    found = list(workers.map(add, 100, ((i, i) for i in range(50))))
    assert sorted(found) == [(i, 100 + i) for i in range(50)]


def test_what_is_shared_changes_from_call_to_call(workers: Workers) -> None:
    assert squares(workers, add, 1, 3) == {0: 1, 1: 2, 2: 3}
    assert squares(workers, add, 5, 3) == {0: 5, 1: 6, 2: 7}


def test_no_task_is_no_mistake(workers: Workers) -> None:
    assert squares(workers, add, 1, 0) == {}


def test_a_mistake_of_the_user_comes_back_as_one(workers: Workers) -> None:
    with pytest.raises(UserError, match="task 0 is wrong"):
        squares(workers, refuse, None, 1)


@pytest.mark.parametrize("kind", ["processes", "cluster"])
def test_several_workers_do_the_work(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = squares(request.getfixturevalue(kind), meet, tmp_path)
    assert len(set(found.values())) == 2
    assert os.getpid() not in found.values()


def test_tasks_are_drawn_as_they_are_needed(processes: Processes) -> None:
    drawn = []

    def tasks() -> Iterator[tuple[int, int]]:
        for i in range(40):
            drawn.append(i)
            yield i, i

    results = processes.map(add, 0, tasks())
    next(results)
    assert len(drawn) <= 4
    assert len(list(results)) == 39


@pytest.mark.parametrize("kind", ["processes", "cluster"])
def test_the_work_of_a_killed_worker_is_done_again(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    found = squares(request.getfixturevalue(kind), die_once, marker)
    assert marker.exists()
    assert found == {i: i * i for i in range(20)}


def test_workers_that_are_killed_again_and_again_are_reported(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    with Processes(2) as opened, pytest.raises(UserError, match="want of memory"):
        squares(opened, die_always, calls, 1)
    assert len(calls.read_text()) == RETRIES + 1


def test_a_worker_that_is_killed_while_a_result_is_written_loses_no_task() -> None:
    with Processes(2) as opened:
        found = []
        for number, pid in opened.map(who, None, ((i, i) for i in range(20))):
            found.append(number)
            if len(found) == 1:
                os.kill(pid, signal.SIGKILL)
                time.sleep(0.5)  # the pool notices, and the next task that it is given raises
    assert sorted(found) == list(range(20))


UNGUARDED = """
import sys
sys.path.insert(0, {folder!r})
from toy_tasks import add
from genebert.corpus.parallel import Processes
with Processes(2) as opened:
    print(list(opened.map(add, 1, [(0, 0)])))
"""


def test_a_script_without_the_main_guard_is_told_of_it(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED.format(folder=str(Path(toy_tasks.__file__).parent)))
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert 'if __name__ == "__main__":' in run.stderr.splitlines()[-1]
    assert "memory" not in run.stderr


def test_what_tasks_share_is_sent_again_if_all_dask_workers_that_had_it_die(tmp_path: Path) -> None:
    with local_cluster(1) as made, open_workers(None, made.scheduler_address) as opened:
        assert squares(opened, die_once, tmp_path / "killed") == {i: i * i for i in range(20)}
        assert (tmp_path / "killed").exists()
        with pytest.raises(ResumableError, match="want of memory"):
            squares(opened, die_always, tmp_path / "calls", 1)


def test_a_dask_worker_that_dies_while_it_is_sent_what_tasks_share_is_replaced(
    cluster: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler closes the connection to the client then, as it cannot write to the worker."""
    from distributed.comm import CommClosedError

    assert isinstance(cluster, Cluster)
    scatter, failing = cluster._client.scatter, iter([CommClosedError("Stream is closed")])

    def send(*arguments: Any, **options: Any) -> Any:
        if (error := next(failing, None)) is not None:
            raise error
        return scatter(*arguments, **options)

    monkeypatch.setattr(cluster._client, "scatter", send)
    monkeypatch.setattr(parallel, "_NOTICING", 0.0)
    assert dict(cluster.map(add, 1, [(0, 0), (1, 5)])) == {0: 1, 1: 6}
    assert next(failing, None) is None


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler and its one worker, as processes of their own."""
    distributed = pytest.importorskip("distributed")
    file, quiet = tmp_path / "scheduler.json", subprocess.DEVNULL
    environment = os.environ | {"PYTHONPATH": str(Path(toy_tasks.__file__).parent)}
    shared = ["--scheduler-file", str(file), "--no-dashboard"]
    module = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    started = subprocess.Popen([*module, *shared], stdout=quiet, stderr=quiet, env=environment)
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny"]
    working = subprocess.Popen([*worker, *shared], stdout=quiet, stderr=quiet, env=environment)
    deadline = time.monotonic() + 30
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    address = json.loads(file.read_text())["address"]
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=30)
    yield address, started
    for process in (working, started):
        process.kill()
        process.wait()


def test_a_scheduler_that_goes_away_is_reported(
    scheduler: tuple[str, subprocess.Popen[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    address, process = scheduler
    begun = time.monotonic()
    with pytest.raises(ResumableError, match="the connection is lost"), open_workers(None, address) as opened:
        for number, _ in opened.map(who, None, ((i, i) for i in range(400))):
            if number == 3:
                process.kill()
                begun = time.monotonic()
    assert time.monotonic() - begun < 15
    assert not caplog.records


def test_a_dask_worker_without_genebert_is_reported(cluster: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(cluster, Cluster)
    monkeypatch.setattr(parallel, "_version", lack_genebert)
    with (
        pytest.raises(UserError, match=r"cannot be imported on tcp://.*Install genebert"),
        open_workers(None, cluster._client.scheduler.address),
    ):
        pass


def test_dask_workers_must_see_the_same_files(
    cluster: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peaks.bed").write_text("chr1")
    cluster.check_files([tmp_path / "peaks.bed"])
    monkeypatch.chdir(tmp_path)
    for workers in (ThisProcess(), Processes(2)):
        workers.check_files([Path("peaks.bed")])
    with pytest.raises(UserError, match=r"peaks\.bed: worker tcp://.* has no such file\. Give absolute paths"):
        cluster.check_files([Path("peaks.bed")])


def test_a_scheduler_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(parallel, "_CONNECTING", 1.0)
    with (
        pytest.raises(UserError, match=r"--scheduler tcp://127.0.0.1:9.*does not answer"),
        open_workers(None, "tcp://127.0.0.1:9"),
    ):
        pass


def test_without_dask_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"genebert\[dask\]"), open_workers(None, "tcp://127.0.0.1:9"):
        pass


ORPHANS = """
import os, sys, time
sys.path.insert(0, {folder!r})
from toy_tasks import who
from genebert.corpus.parallel import Processes
if __name__ == "__main__":
    with Processes(2) as opened:
        for _, pid in opened.map(who, None, ((i, i) for i in range(10_000))):
            print(pid, flush=True)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS.format(folder=str(Path(toy_tasks.__file__).parent)))
    run = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    pids = {int(run.stdout.readline()) for _ in range(10)}
    run.kill()
    run.wait()
    run.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(_alive(pid) for pid in pids):
        time.sleep(0.1)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
