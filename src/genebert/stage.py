"""One stage, one folder: provenance, locking, resuming, and results that appear only when complete.

A stage works in `<out>.partial`; its last acts are to write `manifest.json` there, to rename the folder to `<out>`,
and to remove from it what only the run needed. So a folder with a manifest is a complete result, and whatever was at
`<out>` before is never half overwritten.
"""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from genebert import __version__
from genebert.console import say
from genebert.errors import ResumableError, UserError, problem
from genebert.settings import StageSettings

MANIFEST = "manifest.json"
SCRATCH = "scratch"
_STATE = "run.json"
_LOCK = ".lock"
_NO_RESULT = {SCRATCH, _STATE, _LOCK, MANIFEST, f".{MANIFEST}.draft"}
"""What may lie in a stage's folder and is not listed in its manifest."""
FORMAT = 1
_LIBRARIES = (
    "numpy",
    "pandas",
    "pyarrow",
    "pysam",
    "py2bit",
    "pybigwig",
    "h5py",
    "anndata",
    "lightgbm",
    "lightmotif",
    "peft",
    "pyjaspar",
    "scipy",
    "sourmash",
    "torch",
    "transformers",
    "lightning",
    "scikit-learn",
    "umap-learn",
)


@dataclass(frozen=True)
class Manifest:
    """What a finished stage says about itself.

    Attributes:
        folder: the stage's folder.
        stage: its verb, such as "prepare".
        settings: the settings it ran with, as JSON values.
        inputs: name -> {"path", "sha256"}; for the folder of an earlier stage, the sha256 of its manifest.
        files: relative name -> {"bytes", "sha256"} of what the stage wrote.
        metrics: what the stage measured.
        software: library -> version.
        fingerprint: sha256 over stage, settings and inputs; with the same software, equal fingerprints mean equal
            results.
    """

    folder: Path
    stage: str
    settings: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    files: dict[str, dict[str, Any]]
    metrics: dict[str, Any]
    software: dict[str, str]
    fingerprint: str


@dataclass
class StageRun:
    """A stage at work: write into `folder`, then call `finish`."""

    out: Path
    folder: Path
    stage: str
    settings: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    fingerprint: str
    finished: bool = False

    @property
    def scratch(self) -> Path:
        """Where a resumable stage keeps what is no part of its result; removed when that is complete."""
        return self.folder / SCRATCH

    def finish(self, metrics: Mapping[str, Any]) -> Path:
        """Write the manifest, make the folder visible under its final name, and return that name."""
        names = sorted(p.relative_to(self.folder) for p in self.folder.rglob("*") if p.is_file())
        files = {
            str(n): {"bytes": (self.folder / n).stat().st_size, "sha256": sha256_of(self.folder / n)}
            for n in names
            if n.parts[0] not in _NO_RESULT
        }
        manifest = {
            "format": FORMAT,
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "settings": self.settings,
            "inputs": self.inputs,
            "software": software_versions(),
            "metrics": dict(metrics),
            "files": files,
        }
        write_json(self.folder / MANIFEST, manifest)
        self.folder.rename(self.out)  # from here on the result is there, also if the rest is never reached
        _tidy(self.out)
        self.finished = True
        return self.out


@contextmanager
def open_stage(
    stage: str, settings: StageSettings, inputs: Mapping[str, Path | None], *, resumable: bool = False
) -> Iterator[StageRun]:
    """Open the output folder of a stage.

    Args:
        stage: the verb.
        settings: what the user set; `settings.out` is the folder to make.
        inputs: name -> file, folder of files, or folder of an earlier stage; None is skipped.
        resumable: keep what an interrupted run with the same fingerprint left in `<out>.partial`.

    Yields:
        the run; its `finished` is True if `out` already holds this very result and nothing is left to do.

    Raises:
        UserError: an input is absent, `out` holds something else, or another process works on it.
    """
    out = settings.out.resolve() if settings.out.is_symlink() else settings.out
    record = {name: describe_input(name, path) for name, path in inputs.items() if path is not None}
    identity = settings.identity()
    fingerprint = digest({"stage": stage, "settings": identity, "inputs": {k: v["sha256"] for k, v in record.items()}})
    run = StageRun(out, Path(f"{out}.partial"), stage, identity, record, fingerprint)
    if (out / MANIFEST).exists():
        by = _same_result(out, stage, fingerprint).software.get("genebert")
        run.finished = True
        _tidy(out)
        other = "" if by == __version__ else f" by genebert {by}, not {__version__}: remove it to have it made anew"
        say(f"{out} is already there, made with these settings{other}.")
        yield run
        return
    _check_free(out)
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            problem(out, f"another genebert {stage} is writing there", "Wait for it, or choose another --out.")
        ) from None
    try:
        resumed = _start_or_resume(run, resumable)
        with _cleared(run, resumable, resumed):
            yield run
    finally:
        lock.release()


def _check_free(out: Path) -> None:
    """Check that the result can be put at `out`; an empty folder there is removed, since not every one can be."""
    remedy = "Choose another --out, or remove it first."
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(problem(out, "the output folder is in use and was not made by this command", remedy))
    try:
        if out.exists():
            out.rmdir()
    except OSError as error:  # it is where a disk is mounted, or the current folder
        what = f"the empty folder cannot be replaced ({error.strerror})"
        raise UserError(problem(out, what, "Choose a new folder in it as --out.")) from None


def _tidy(folder: Path) -> None:
    """Remove from a finished folder what only its run needed, also after one that was killed before it did so."""
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    for name in (_STATE, _LOCK):
        with suppress(OSError):  # it is gone already, or the folder may only be read
            (folder / name).unlink()


@contextmanager
def _cleared(run: StageRun, resumable: bool, resumed: bool) -> Iterator[None]:
    """Remove what an unfinished run leaves, unless it can be resumed; after a mistake of the user it can not.

    A run that was resumed had got further before, and the mistake, such as a device that is not there, is a new one.
    """
    keep = resumable
    try:
        yield
    except UserError as error:
        keep = resumable and (resumed or isinstance(error, ResumableError))
        raise
    finally:
        if not run.finished and not keep:
            shutil.rmtree(run.folder, ignore_errors=True)  # before the lock is free: the next run uses the same folder


def _same_result(out: Path, stage: str, fingerprint: str) -> Manifest:
    manifest = read_manifest(out, stage)
    if manifest.fingerprint == fingerprint:
        return manifest
    raise UserError(
        problem(
            out,
            f"it holds the result of a genebert {stage} with other settings or inputs",
            "Choose another --out, or remove it first.",
        )
    )


def _start_or_resume(run: StageRun, resumable: bool) -> bool:
    """Prepare the folder of a run: empty, or with what an interrupted one left, if it can be resumed.

    Returns:
        whether an interrupted one is resumed.

    Raises:
        UserError: a run of another verb, or, of one that can be resumed, with other settings lies there.
    """
    state = run.folder / _STATE
    own = {"stage": run.stage, "fingerprint": run.fingerprint, "software": software_versions()}
    interrupted = _interrupted(state)
    if resumable and interrupted == own:
        return True
    if interrupted is not None and (resumable or interrupted.get("stage") != run.stage):
        what = f"an interrupted genebert {interrupted.get('stage')} {_difference(interrupted, own)} lies there"
        remedy = "Resume it with its own command and software, choose another --out, or remove it."
        raise UserError(problem(run.folder, what, remedy))
    for path in run.folder.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_json(state, own)
    return False


def _interrupted(state: Path) -> dict[str, Any] | None:
    """Return what an interrupted run noted of itself, or None if that is absent or damaged."""
    try:
        noted = json.loads(state.read_text())
    except (OSError, ValueError):
        return None
    return noted if isinstance(noted, dict) and "fingerprint" in noted else None


def _difference(interrupted: dict[str, Any], own: dict[str, Any]) -> str:
    if interrupted["fingerprint"] != own["fingerprint"] or not isinstance(interrupted.get("software"), dict):
        return "with other settings or inputs"
    then, now = interrupted["software"], own["software"]
    changed = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    return "with " + ", ".join(f"{name} {then.get(name)} (now {now.get(name)})" for name in changed)


def read_manifest(folder: Path, stage: str | Sequence[str] = (), *, verify: bool = False) -> Manifest:
    """Read and check the manifest of a finished stage.

    Args:
        folder: the stage's folder.
        stage: the verb that must have made it, or several of which one must; by default any.
        verify: compare the sha256 of every file, not only its size.

    Raises:
        UserError: no finished stage is there, another stage made it, or files are missing or damaged.
    """
    path = folder / MANIFEST
    stages = (stage,) if isinstance(stage, str) else stage
    verb = stages[0] if stages else "..."
    if not folder.exists():
        raise UserError(problem(folder, "there is no such folder", f"Make it with `genebert {verb} --out {folder}`."))
    if not path.exists():
        raise UserError(
            problem(
                folder,
                f"it has no {MANIFEST}, so it is not a finished result of genebert {verb}",
                f"Make it with `genebert {verb} --out {folder}`.",
            )
        )
    try:
        raw = json.loads(path.read_text())
        files = {name: {"bytes": facts["bytes"], "sha256": facts["sha256"]} for name, facts in raw["files"].items()}
        manifest = Manifest(
            folder,
            raw["stage"],
            raw["settings"],
            raw["inputs"],
            files,
            raw["metrics"],
            raw["software"],
            raw["fingerprint"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            problem(
                path,
                f"the manifest is damaged ({type(error).__name__}: {error})",
                f"Remove {folder} and run `genebert {verb}` again.",
            )
        ) from None
    if raw.get("format") != FORMAT:
        raise UserError(
            problem(
                path,
                f"its format is {raw.get('format')!r}, and this version of genebert reads format {FORMAT}",
                f"Run `genebert {manifest.stage}` again with this version.",
            )
        )
    if stages and manifest.stage not in stages:
        raise UserError(
            problem(
                folder,
                f"it was made by `genebert {manifest.stage}`, and a result of `genebert {verb}` is needed",
                "Give the right folder.",
            )
        )
    _check_files(manifest, verify)
    return manifest


def _check_files(manifest: Manifest, verify: bool) -> None:
    for name, facts in manifest.files.items():
        path = manifest.folder / name
        if not path.exists():
            found = "is missing"
        elif path.stat().st_size != facts["bytes"]:
            found = f"has {path.stat().st_size} bytes where the manifest says {facts['bytes']}"
        elif verify and sha256_of(path) != facts["sha256"]:
            found = "has changed since it was written (its sha256 differs from the manifest's)"
        else:
            continue
        raise UserError(
            problem(
                path,
                f"the file {found}",
                f"Remove {manifest.folder} and run `genebert {manifest.stage}` again.",
            )
        )


def describe_input(name: str, path: Path) -> dict[str, str]:
    """Return {"path", "sha256"} of an input: a file, a folder of files, or the folder of an earlier stage.

    The path is absolute: another stage may look for it from another folder.

    Raises:
        UserError: it does not exist or cannot be read.
    """
    if not path.exists():
        raise UserError(problem(path, f"no such file or folder (given as {name})", "Check the path."))
    try:
        if path.is_dir() and not (path / MANIFEST).exists():
            parts = {str(p.relative_to(path)): sha256_of(p) for p in sorted(path.rglob("*")) if p.is_file()}
            checksum = digest(parts)
        else:
            checksum = sha256_of(path / MANIFEST if path.is_dir() else path)
    except OSError as error:
        raise UserError(problem(path, f"it cannot be read ({error.strerror})", "Check its permissions.")) from None
    return {"path": str(path.absolute()), "sha256": checksum}


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Return the hexadecimal SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is either absent, old or complete."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w") as handle:
        json.dump(value, handle, indent=2, sort_keys=True, allow_nan=False)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(path)


@cache
def software_versions() -> dict[str, str]:
    """Return the versions of genebert, Python and the libraries that results depend on."""
    found = {"genebert": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
