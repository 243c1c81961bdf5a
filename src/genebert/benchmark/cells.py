"""One task, one method, one seed: what it is computed from, its folder, and how it is computed and found again."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray

from genebert.benchmark.code import code_of
from genebert.benchmark.suite import MethodEntry, Suite, TaskEntry, path_fields
from genebert.corpus.parallel import usable_cores
from genebert.errors import UserError, problem
from genebert.inputs.motifs import read_motifs
from genebert.inputs.scan import Scanner
from genebert.labelled import Labelled, LabelledFiles, read_labelled, set_aside
from genebert.methods.base import Fitted, Method
from genebert.pretrained import read_scanner
from genebert.schema import Split
from genebert.settings import StageSettings, load_preset
from genebert.stage import MANIFEST, describe_input, digest, open_stage, read_manifest

STAGE = "benchmark"
RUNS = "runs"
MODEL = "model"
PREDICTED: tuple[Split, Split] = ("valid", "test")
Predictions = dict[Split, NDArray[np.float64]]
"""Of the validation and the test rows, in the order of their tables; shape: see `Target`."""


class CellSettings(StageSettings):
    """What the predictions of a cell depend on. Files are told by their checksums, so that a copy elsewhere counts.

    Attributes:
        method: key of the method.
        options: its options, defaults included.
        seed: of the method.
        data: file of the task -> sha256.
        valid_fraction, split_seed: how validation rows are set aside, if they are.
        motifs: digest of the motif collection and of how it is scanned.
        code: version of genebert, and the digest of the modules that decide what the method predicts.
    """

    method: str
    options: dict[str, Any]
    seed: int
    data: dict[str, str]
    valid_fraction: float | None
    split_seed: int | None
    motifs: str
    code: dict[str, str]


@dataclass(frozen=True)
class Cell:
    """One task, one method, one seed."""

    task: TaskEntry
    method: MethodEntry
    settings: CellSettings

    @property
    def folder(self) -> Path:
        """Where its results are, or will be."""
        return self.settings.out

    @property
    def name(self) -> str:
        """What progress bars and lines call it."""
        return f"{self.task.name}, {self.method.name}, seed {self.settings.seed}"

    def is_done(self, model: bool = False) -> bool:
        """Tell whether the folder holds the results of this very cell, and, if asked for, the model."""
        try:
            done = read_manifest(self.folder, STAGE).settings == self.settings.identity()
        except UserError:
            return False
        return done and (not model or (self.folder / MODEL).is_dir())

    def cost(self) -> dict[str, Any]:
        """Return what a finished cell took: seconds_to_fit, seconds_to_predict (the test rows), and its machine."""
        return read_manifest(self.folder, STAGE).metrics

    def predictions(self) -> Predictions:
        """Return the predictions of a finished cell."""
        return {split: np.load(_file(self.folder, split), allow_pickle=False) for split in PREDICTED}

    def compute(self, labelled: Labelled, *, keep_model: bool) -> None:
        """Fit, predict, and put the results into the folder, in the place of those of other settings.

        Raises:
            UserError: the method cannot be used with this task.
        """
        if (self.folder / MANIFEST).exists():
            shutil.rmtree(self.folder)
        with open_stage(STAGE, self.settings, {}) as run:
            own = replace(labelled)  # nothing that others have computed is shared: each pays its whole cost
            method, target = self.method.configured, labelled.target
            began = perf_counter()
            train, valid = own.examples("train"), own.examples("valid")
            fitted = method.fit(train, valid, target, self.settings.seed, self.name)
            cost = {"seconds_to_fit": perf_counter() - began, "machine": _machine()}
            np.save(_file(run.folder, "valid"), self._predict(fitted, own, "valid"))
            began = perf_counter()
            np.save(_file(run.folder, "test"), self._predict(fitted, own, "test"))
            cost["seconds_to_predict"] = perf_counter() - began
            if keep_model:
                (run.folder / MODEL).mkdir()
                fitted.save(run.folder / MODEL)
            run.finish(cost)

    def _predict(self, fitted: Fitted, labelled: Labelled, split: Split) -> NDArray[np.float64]:
        predicted = fitted.predict(replace(labelled.examples(split), truth=None))
        expected = len(labelled.windows[split]), len(labelled.target.names)
        assert predicted.shape == expected, f"{self.name}: predictions of shape {predicted.shape}, not {expected}"
        if not np.isfinite(predicted).all():
            raise UserError(problem(self.name, "its predictions are no numbers", "Change its options."))
        return predicted


def _machine() -> str:
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{usable_cores()} cores{gpu}"


def _file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.npy"


def cells_of(suite: Suite, scanner: Scanner, out: Path) -> list[Cell]:
    """Return the cells of a suite, in its order.

    Raises:
        UserError: a file cannot be read.
    """

    @cache  # a genome may be a file of many tasks
    def checksum(path: Path) -> str:
        return describe_input("suite", path)["sha256"]

    code = {key: code_of(key) for key in {entry.method for entry in suite.methods}}
    motifs = digest([scanner.pseudocount, scanner.gc, *(motif.to_json() for motif in scanner.motifs)])
    found = []
    for task in suite.tasks:
        files = {name: getattr(task, name) for name in path_fields(TaskEntry)}
        shared = {
            "data": {name: checksum(path) for name, path in files.items() if path is not None},
            "valid_fraction": task.valid_fraction,
            "split_seed": None if task.valid_fraction is None else suite.seed,
            "motifs": motifs,
        }
        for entry in suite.methods_of(task):
            own = {"method": entry.method, "options": _options(entry.configured, checksum), "code": code[entry.method]}
            for seed in suite.seeds_of(entry):
                folder = out / RUNS / _folder(task.name) / _folder(entry.name) / str(seed)
                found.append(Cell(task, entry, CellSettings(out=folder, seed=seed, **shared, **own)))
    return found


def _folder(name: str) -> str:
    """Return a name as that of a folder: what a path must not hold, slashes too, is percent-encoded."""
    return quote(name, safe=" +,()=")


def _options(method: Method, checksum: Callable[[Path], str]) -> dict[str, Any]:
    """Return the options that determine the result, as JSON values; paths and presets count by content."""
    fields = type(method).model_fields
    machine = {
        name
        for name, field in fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("machine")
    }
    paths = path_fields(type(method))
    options = method.model_dump(mode="json", exclude=machine | paths)
    if "preset" in options:
        options["preset"] = load_preset(options["preset"]).model.model_dump(mode="json")
    return options | {name: checksum(path) for name in sorted(paths) if (path := getattr(method, name)) is not None}


def open_scanner(suite: Suite) -> Scanner:
    """Return the scanner of a suite's motifs, with the settings of a model or the defaults of `prepare`.

    Raises:
        UserError: the motifs cannot be read.
    """
    if suite.model is not None:
        return read_scanner(suite.model)
    return Scanner(read_motifs(suite.motifs or "jaspar:vertebrates"))


def read_task(task: TaskEntry, scanner: Scanner, seed: int) -> Labelled:
    """Read the rows of a task.

    Args:
        task: the task.
        scanner: of the motif collection.
        seed: of the choice of validation rows, if they are to be set aside.

    Raises:
        UserError: a file cannot be used, or a split is empty.
    """
    valid = task.valid if task.valid_fraction is None else task.labels  # for now: rows are set aside below
    labelled = read_labelled(LabelledFiles(task.labels, valid, task.test, task.genome, task.corpus), scanner)
    return labelled if task.valid_fraction is None else set_aside(labelled, task.valid_fraction, seed)
