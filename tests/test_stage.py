import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from genebert import __version__
from genebert import stage as stage_module
from genebert.errors import UserError
from genebert.settings import Device, StageSettings, machine
from genebert.stage import MANIFEST, describe_input, digest, open_stage, read_manifest, sha256_of, write_json


class Settings(StageSettings):
    """Settings of the stage that these tests run."""

    size: int = 1
    source: Path | None = None
    device: Device = machine("auto", "where to run")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.txt"
    path.write_text("source")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results" / "out"


def run(
    out: Path, inputs: Mapping[str, Path | None] | None = None, *, resumable: bool = False, **settings: Any
) -> bool:
    """Run a stage that writes two files; return whether it had anything to do."""
    with open_stage("toy", Settings(out=out, **settings), inputs or {}, resumable=resumable) as stage:
        if stage.finished:
            return False
        (stage.folder / "result.txt").write_text("result")
        (stage.folder / "deeper").mkdir(exist_ok=True)
        (stage.folder / "deeper" / "more.txt").write_text("more")
        assert stage.finish({"lines": 1}) == out
    return True


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# A run ------------------------------------------------------------------------------------------------------


def test_a_finished_stage_says_what_it_did(out: Path, source: Path) -> None:
    run(out, {"source": source, "nothing": None}, size=3)
    manifest = read_manifest(out, "toy", verify=True)
    assert (manifest.stage, manifest.folder, manifest.metrics) == ("toy", out, {"lines": 1})
    assert manifest.settings == {"size": 3}  # paths count by content, machine settings not at all
    assert manifest.inputs == {"source": {"path": str(source), "sha256": sha256_of(source)}}
    assert manifest.files["deeper/more.txt"] == {"bytes": 4, "sha256": sha256_of(out / "deeper" / "more.txt")}
    assert set(manifest.files) == {"result.txt", "deeper/more.txt"}
    assert manifest.software["genebert"] == __version__
    assert {"python", "numpy", "scipy", "torch"} <= set(manifest.software)
    assert set(tree(out)) == {"result.txt", "deeper/more.txt", MANIFEST}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_empty_folder_may_be_used(out: Path) -> None:
    out.mkdir(parents=True)
    assert run(out)
    read_manifest(out, "toy", verify=True)


def test_a_second_run_does_nothing(out: Path, source: Path) -> None:
    assert run(out, {"source": source})
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert not run(out, {"source": source}, device="cpu")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_result_of_another_version_is_kept_and_said_to_be(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(out)
    before = tree(out)
    monkeypatch.setattr("genebert.stage.__version__", "99.0")
    assert not run(out)
    said = f"by genebert {__version__}, not 99.0: remove it to have it made anew."
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert tree(out) == before


def test_inputs_count_by_content(out: Path, source: Path, tmp_path: Path) -> None:
    run(out, {"source": source}, source=source)
    moved = Path(shutil.copy(source, tmp_path / "moved.txt"))
    assert not run(out, {"source": moved}, source=moved)


@pytest.mark.parametrize("change", ["setting", "content", "more inputs", "stage"])
def test_another_result_is_never_overwritten(out: Path, source: Path, change: str) -> None:
    run(out, {"source": source})
    before = tree(out)
    if change == "content":
        source.write_text("other")
    inputs = {"source": source, "more": source} if change == "more inputs" else {"source": source}
    with pytest.raises(UserError, match=r"Choose another --out, or remove it first|Give the right folder") as error:
        if change == "stage":
            with open_stage("other", Settings(out=out), inputs):
                pass
        run(out, inputs, size=2 if change == "setting" else 1)
    assert str(out) in str(error.value)
    assert tree(out) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda out: (out.mkdir(), (out / "thesis.txt").write_text("mine")),
        lambda out: out.write_text("mine"),
    ],
)
def test_foreign_files_are_never_overwritten(tmp_path: Path, make: Callable[[Path], object]) -> None:
    out = tmp_path / "out"
    make(out)
    with pytest.raises(UserError, match="the output folder is in use and was not made by this command"):
        run(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert (out if out.is_file() else out / "thesis.txt").read_text() == "mine"


def test_a_result_is_invisible_until_it_is_complete(out: Path) -> None:
    with open_stage("toy", Settings(out=out), {}) as stage:
        (stage.folder / "result.txt").write_text("result")
        assert not out.exists()
        assert stage.folder == Path(f"{out}.partial")
        with pytest.raises(UserError, match="there is no such folder"):
            read_manifest(out)
        with pytest.raises(UserError, match=r"it has no manifest\.json"):
            read_manifest(stage.folder)
        stage.finish({})
    assert out.exists()


# Failure ----------------------------------------------------------------------------------------------------


def fail(out: Path, *, resumable: bool = False, **settings: Any) -> None:
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        open_stage("toy", Settings(out=out, **settings), {}, resumable=resumable) as stage,
    ):
        (stage.folder / "half.txt").write_text("half")
        raise RuntimeError("in the middle")


def test_a_failure_leaves_nothing_and_harms_nothing(out: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "results" / "earlier"
    run(earlier)
    before = tree(earlier)
    fail(out)
    assert [path.name for path in out.parent.iterdir()] == ["earlier"]
    assert tree(earlier) == before
    assert run(out)


def test_an_input_that_is_absent_leaves_nothing(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent: no such file or folder \(given as genome\)"):
        run(out, {"genome": tmp_path / "absent"})
    assert not out.parent.exists()


def test_a_metric_that_is_no_number_is_an_error_and_leaves_nothing(out: Path) -> None:
    with (
        pytest.raises(ValueError, match="not JSON compliant"),
        open_stage("toy", Settings(out=out), {}) as stage,
    ):
        stage.finish({"loss": float("nan")})
    assert list(out.parent.iterdir()) == []


def resume(out: Path, *, resumable: bool = True, **settings: Any) -> list[str]:
    """Open the stage once more and return what it finds of the earlier run."""
    with open_stage("toy", Settings(out=out, **settings), {}, resumable=resumable) as stage:
        found = sorted(path.name for path in stage.folder.iterdir() if path.name not in {".lock", "run.json"})
        stage.finish({})
    return found


def test_a_resumable_stage_continues(out: Path) -> None:
    fail(out, resumable=True)
    assert not out.exists()
    assert resume(out) == ["half.txt"]
    assert set(tree(out)) == {"half.txt", MANIFEST}
    assert not Path(f"{out}.partial").exists()


def test_a_mistake_in_a_resumed_run_does_not_throw_away_what_is_there(out: Path) -> None:
    # A run of hours was resumed on a machine without its GPU.
    fail(out, resumable=True)
    with (
        pytest.raises(UserError, match="no GPU"),
        open_stage("toy", Settings(out=out, device="cuda"), {}, resumable=True),
    ):
        raise UserError("no GPU")
    assert resume(out) == ["half.txt"]


def test_a_run_that_cannot_resume_starts_anew(out: Path) -> None:
    fail(out, resumable=True)
    assert resume(out, resumable=False) == []


def test_an_interrupted_run_with_other_settings_is_not_thrown_away(out: Path) -> None:
    # Days of pre-training were once deleted by a changed option.
    fail(out, resumable=True)
    with pytest.raises(UserError, match="an interrupted genebert toy with other settings"):
        resume(out, size=2)
    assert resume(out) == ["half.txt"]


def test_another_verb_does_not_throw_an_interrupted_run_away(out: Path) -> None:
    fail(out, resumable=True)
    with (
        pytest.raises(UserError, match="an interrupted genebert toy with other settings"),
        open_stage("other", Settings(out=out), {}),
    ):
        pass
    assert resume(out) == ["half.txt"]


@pytest.mark.parametrize("state", ["", "[]", "{", '"x"'])
def test_a_damaged_state_starts_anew(out: Path, state: str) -> None:
    fail(out, resumable=True)
    (Path(f"{out}.partial") / "run.json").write_text(state)
    assert resume(out) == []


KILLED_IN_FINISH = """
import os, shutil, signal, sys
from pathlib import Path
from genebert import stage
from genebert.settings import StageSettings

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "rename":
    Path.rename = kill
else:
    shutil.rmtree = kill
with stage.open_stage("toy", StageSettings(out=Path(sys.argv[1])), {}, resumable=True) as run:
    run.scratch.mkdir()
    (run.scratch / "task").write_text("task")
    (run.folder / "result.txt").write_text("result")
    run.finish({})
"""


@pytest.mark.parametrize("point", ["rename", "clean"])
def test_a_run_that_is_killed_while_it_finishes_loses_nothing(out: Path, point: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_IN_FINISH, str(out), point], check=False)
    assert done.returncode == -signal.SIGKILL
    with open_stage("toy", StageSettings(out=out), {}, resumable=True) as stage:
        assert stage.finished == (point == "clean")
        if not stage.finished:
            assert (stage.scratch / "task").read_text() == "task"
            stage.finish({})
    assert set(tree(out)) == {"result.txt", MANIFEST}
    assert set(read_manifest(out, "toy", verify=True).files) == {"result.txt"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_link_to_an_empty_folder_stays_one(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "big")
    for _ in range(2):
        with open_stage("toy", Settings(out=link), {}) as stage:
            if not stage.finished:
                stage.finish({})
    assert stage.finished
    assert read_manifest(link, "toy").folder == link
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big", "link"]
    assert link.is_symlink()


def test_a_folder_that_cannot_be_replaced_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(UserError, match="the empty folder cannot be replaced"),
        open_stage("toy", Settings(out=Path()), {}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_other_libraries_do_not_resume_a_run(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(out, resumable=True)
    now = stage_module.software_versions()
    monkeypatch.setattr(stage_module, "software_versions", lambda: now | {"numpy": "99.0"})
    with pytest.raises(UserError, match=rf"with numpy {now['numpy']} \(now 99\.0\) lies there"):
        resume(out)
    monkeypatch.undo()
    assert resume(out) == ["half.txt"]


# Lock -------------------------------------------------------------------------------------------------------


def test_a_second_run_at_the_same_time_is_refused(out: Path) -> None:
    with open_stage("toy", Settings(out=out), {}) as stage:
        (stage.folder / "half.txt").write_text("half")
        with pytest.raises(UserError, match="another genebert toy is writing there"):
            run(out)
        assert (stage.folder / "half.txt").exists()
        stage.finish({})
    assert not run(out)


def test_a_second_process_is_refused(out: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from genebert.stage import open_stage; from genebert.settings import StageSettings\n"
        "with open_stage('toy', StageSettings(out=Path(sys.argv[1])), {}): pass"
    )
    with open_stage("toy", Settings(out=out), {}) as stage:
        done = subprocess.run([sys.executable, "-c", script, str(out)], capture_output=True, text=True, check=False)
        stage.finish({})
    assert done.returncode != 0
    assert "another genebert toy is writing there" in done.stderr
    assert read_manifest(out, "toy", verify=True)


# Manifests --------------------------------------------------------------------------------------------------


def edit(out: Path, **changes: Any) -> None:
    path = out / MANIFEST
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: part for key, part in value.items() if part is not ...}))


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (
            lambda out: (out / MANIFEST).write_text((out / MANIFEST).read_text()[:100]),
            "the manifest is damaged",
        ),
        (lambda out: (out / MANIFEST).write_text(""), "the manifest is damaged"),
        (lambda out: (out / MANIFEST).write_bytes(b"\xff\xfe\x00"), "the manifest is damaged"),
        (lambda out: (out / MANIFEST).write_text("[]"), "the manifest is damaged"),
        (lambda out: (out / MANIFEST).write_text("null"), "the manifest is damaged"),
        (lambda out: edit(out, files=...), r"the manifest is damaged \(KeyError: 'files'\)"),
        (lambda out: edit(out, files=["result.txt"]), "the manifest is damaged"),
        (lambda out: edit(out, files={"result.txt": {}}), "the manifest is damaged"),
        (lambda out: edit(out, format=99), "its format is 99, and this version of genebert reads format 1"),
        (lambda out: edit(out, format=...), "its format is None"),
        (
            lambda out: edit(out, stage="other"),
            "it was made by `genebert other`, and a result of `genebert toy` is needed",
        ),
        (lambda out: (out / "result.txt").unlink(), r"result\.txt: the file is missing"),
        (
            lambda out: (out / "result.txt").write_text("longer result"),
            r"result\.txt: the file has 13 bytes where the manifest says 6",
        ),
        (
            lambda out: (out / MANIFEST).unlink(),
            r"it has no manifest\.json, so it is not a finished result of genebert toy",
        ),
        (shutil.rmtree, "there is no such folder"),
    ],
)
def test_what_is_damaged_is_refused_with_a_remedy(out: Path, damage: Callable[[Path], object], fault: str) -> None:
    run(out)
    damage(out)
    with pytest.raises(UserError, match=fault) as error:
        read_manifest(out, "toy")
    assert str(out) in str(error.value)
    assert any(
        remedy in str(error.value) for remedy in ("Remove", "again with this version", "Give the right", "Make it with")
    )


def test_changed_bytes_are_found_if_asked(out: Path) -> None:
    run(out)
    (out / "result.txt").write_text("RESULT")
    read_manifest(out, "toy")
    with pytest.raises(UserError, match=r"result\.txt: the file has changed since it was written"):
        read_manifest(out, "toy", verify=True)


def test_any_stage_will_do_if_none_is_named(out: Path) -> None:
    run(out)
    assert read_manifest(out).stage == "toy"


def test_a_damaged_result_is_not_taken_for_done(out: Path) -> None:
    run(out)
    (out / "result.txt").unlink()
    with pytest.raises(UserError, match="is missing"):
        run(out)


# Inputs and JSON --------------------------------------------------------------------------------------------


def test_inputs_are_found_from_any_folder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    assert describe_input("source", Path(source.name))["path"] == str(source)


def test_a_folder_counts_by_names_and_content(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.bed").write_text("1" if name == "c" else "0")
    a, b, c = (describe_input("peaks", tmp_path / name)["sha256"] for name in ("a", "b", "c"))
    assert a == b != c
    (tmp_path / "b" / "x.bed").rename(tmp_path / "b" / "y.bed")
    assert describe_input("peaks", tmp_path / "b")["sha256"] != a


def test_an_earlier_stage_counts_by_its_manifest(out: Path) -> None:
    run(out)
    assert describe_input("corpus", out)["sha256"] == sha256_of(out / MANIFEST)


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_json_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.json"
    write_json(path, {"old": 1})

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
