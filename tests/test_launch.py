import os
import subprocess
import sys
import time
from pathlib import Path

import preloaded
import pytest
import starting
import torch
from filelock import FileLock

from genebert.errors import ResumableError, UserError
from genebert.launch import leading, process_group, share_cores, start, started

EXPECTED = {"world": 2, "here": 2, "threads": torch.get_num_threads(), "sum": 1, "alone": 1}


def test_processes_started_here_meet_and_the_first_one_answers() -> None:
    assert start(starting.meet, "word", 2) == EXPECTED
    assert not started()


def test_processes_started_by_torchrun_meet(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", starting.__file__]
    more = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "FOUND": str(tmp_path / "found")}
    subprocess.run(words, env=os.environ | more, check=True, capture_output=True)
    assert (tmp_path / "found").read_text() == str(EXPECTED)


@pytest.mark.parametrize(
    ("given", "raised", "message"),
    [
        ("mistake", UserError, "there is a mistake"),
        ("disk", OSError, "No space left"),
        ("killed", ResumableError, "process 0 of 2: it ended early.*SIGKILL"),
    ],
)
def test_what_goes_wrong_in_the_first_process_is_raised_here(
    given: str,
    raised: type[Exception],
    message: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("genebert.launch.spawn", preloaded.spawn)
    with pytest.raises(raised, match=message):
        start(starting.fail, given, 2)
    assert "Traceback" not in capfd.readouterr().err


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = "import sys, starting; from genebert.launch import start; start(starting.hold, sys.argv[1], 1)"
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    parent = subprocess.Popen([sys.executable, "-c", code, str(lock)], env=os.environ | {"PYTHONPATH": path})
    while not Path(f"{lock}.held").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    with FileLock(lock, timeout=20):
        pass


def test_processes_share_the_cores_unless_the_user_says_how_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genebert.launch.usable_cores", lambda: 8)
    threads = torch.get_num_threads()
    try:
        share_cores(2)
        assert torch.get_num_threads() == threads  # as OMP_NUM_THREADS has it
        monkeypatch.delenv("OMP_NUM_THREADS")
        for processes, expected in ((1, 8), (2, 4), (3, 2), (16, 1)):
            share_cores(processes)
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(threads)


def test_a_single_process_waits_for_no_one() -> None:
    with process_group(torch.device("cpu")), leading() as send:
        send("word")
    assert not torch.distributed.is_initialized()
