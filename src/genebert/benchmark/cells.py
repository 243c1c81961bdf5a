"""One task, one method, one seed: what it is computed from, and how it is computed and found again."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from genebert.benchmark.code import code_of
from genebert.benchmark.entries import path_fields
from genebert.benchmark.fits import RUNS, Fit, FitSettings, checksums, folder_name, motifs_digest, options_of
from genebert.benchmark.suite import Suite, TaskEntry
from genebert.inputs.motifs import read_motifs
from genebert.inputs.scan import Scanner
from genebert.labelled import Labelled, LabelledFiles, read_labelled, set_aside
from genebert.methods.base import Fitted
from genebert.pretrained import read_scanner
from genebert.schema import Split

STAGE = "benchmark"
PREDICTED: tuple[Split, Split] = ("valid", "test")
Predictions = dict[Split, NDArray[np.float64]]
"""Of the validation and the test rows, in the order of their tables; shape: see `Target`."""


class CellSettings(FitSettings):
    """What the predictions of a cell depend on.

    Attributes:
        valid_fraction, split_seed: how validation rows are set aside, if they are.
    """

    valid_fraction: float | None
    split_seed: int | None


@dataclass(frozen=True)
class Cell(Fit):
    """One task, one method, one seed."""

    stage: ClassVar[str] = STAGE

    settings: CellSettings
    task: TaskEntry

    @property
    def name(self) -> str:
        """What progress bars and lines call it."""
        return f"{self.task.name}, {self.method.name}, seed {self.settings.seed}"

    def predictions(self) -> Predictions:
        """Return the predictions of a finished cell."""
        return {split: self.kept(split) for split in PREDICTED}

    def compute(self, labelled: Labelled, *, keep_model: bool) -> None:
        """Fit, predict, and put the results into the folder, in the place of those of other settings.

        Raises:
            UserError: the method cannot be used with this task.
        """
        own = replace(labelled)  # nothing that others have computed is shared: each pays its whole cost
        target = labelled.target

        def predict(split: Split, fitted: Fitted) -> NDArray[np.float64]:
            return self.predict(fitted, replace(own.examples(split), truth=None), target)

        self.keep(
            lambda: (own.examples("train"), own.examples("valid")),
            target,
            {split: partial(predict, split) for split in PREDICTED},
            keep_model=keep_model,
        )


def cells_of(suite: Suite, scanner: Scanner, out: Path) -> list[Cell]:
    """Return the cells of a suite, in its order.

    Raises:
        UserError: a file cannot be read.
    """
    checksum = checksums()
    code = {key: code_of(key) for key in {entry.method for entry in suite.methods}}
    motifs = motifs_digest(scanner)
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
            options = options_of(entry.configured, checksum)
            own = {"method": entry.method, "options": options, "code": code[entry.method]}
            for seed in suite.seeds_of(entry):
                folder = out / RUNS / folder_name(task.name) / folder_name(entry.name) / str(seed)
                found.append(Cell(entry, CellSettings(out=folder, seed=seed, **shared, **own), task))
    return found


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
