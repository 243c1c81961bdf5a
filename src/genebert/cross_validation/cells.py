"""One fold, one method, one seed, one fraction of the labels: how it is computed and found again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from genebert.benchmark.code import code_of
from genebert.benchmark.fits import RUNS, Fit, FitSettings, checksums, folder_name, motifs_digest, options_of
from genebert.cross_validation.folds import Fold
from genebert.cross_validation.grid import Grid
from genebert.cross_validation.protocol import Protocol
from genebert.methods.base import Fitted
from genebert.target import Target

STAGE = "cross-validate"
ROWS = "genebert.cross_validation.folds"
"""How rows are read, divided, and given to methods."""
TEST = "test"
_WINDOWS = 256
"""Windows that are predicted at a time, each in all cell types."""


class CellSettings(FitSettings):
    """What the predictions of a cell depend on.

    Attributes:
        fold: the names of the cell types and chromosomes that are left out.
        label_fraction: of the training windows.
        draw_seed: of the choice of these windows, if not all are used.
    """

    fold: dict[str, list[str]]
    label_fraction: float
    draw_seed: int | None


@dataclass(frozen=True)
class Cell(Fit):
    """One fold, one method, one seed, one fraction of the labels."""

    stage: ClassVar[str] = STAGE

    settings: CellSettings
    fold: Fold

    @property
    def name(self) -> str:
        """What progress bars and lines call it."""
        part = "" if self.settings.label_fraction == 1 else f"{self.settings.label_fraction:.3g} of the labels, "
        return f"{self.fold.name}, {self.method.name}, {part}seed {self.settings.seed}"

    def predictions(self) -> NDArray[np.float64]:
        """Return the predictions of a finished cell: float64, shape (test windows, c); see `Grid.predicted`."""
        return self.kept(TEST)

    def compute(self, grid: Grid) -> None:
        """Fit on the training rows, choose on the validation rows, predict the test windows in all cell types.

        The results are put into the folder, in the place of those of other settings.

        Raises:
            UserError: the method cannot be used with these rows.
        """
        part = self.settings.label_fraction, self.settings.draw_seed or 0
        target = grid.target(grid.truth[self.fold.rows(grid, *part)["train"]])
        self.keep(
            lambda: self.fold.examples(grid, *part),
            target,
            {TEST: lambda fitted: self._everywhere(fitted, grid, target)},
            keep_model=False,
        )

    def _everywhere(self, fitted: Fitted, grid: Grid, target: Target) -> NDArray[np.float64]:
        windows, count = np.flatnonzero(self.fold.test_windows), len(grid.cell_types)
        blocks = [
            self.predict(
                fitted, grid.examples(np.repeat(some, count), np.tile(np.arange(count), len(some)), truth=False), target
            )
            for some in np.split(windows, range(_WINDOWS, len(windows), _WINDOWS))
        ]
        return grid.predicted(np.concatenate(blocks)).reshape(len(windows), count)


def cells_of(protocol: Protocol, grid: Grid, folds: Sequence[Fold], out: Path) -> list[Cell]:
    """Return the cells of a cross-validation: by fraction, then method, then fold, then seed.

    Raises:
        UserError: a file cannot be read.
    """
    checksum = checksums()
    code = {key: code_of(key, ROWS) for key in {entry.method for entry in protocol.methods}}
    shared = {
        "data": {name: checksum(getattr(protocol, name)) for name in ("labels", "genome", "corpus")},
        "motifs": motifs_digest(grid.corpus.scanner),
    }
    found = []
    for fraction in protocol.label_fractions:
        part = {"label_fraction": fraction, "draw_seed": None if fraction == 1 else protocol.seed}
        for entry in protocol.methods:
            options = options_of(entry.configured, checksum)
            own = {"method": entry.method, "options": options, "code": code[entry.method]}
            for fold in folds:
                for seed in protocol.seeds_of(entry):
                    names = fold.name, entry.name, f"{fraction:g}", str(seed)
                    folder = out.joinpath(RUNS, *map(folder_name, names))
                    settings = CellSettings(out=folder, seed=seed, fold=fold.parts, **part, **shared, **own)
                    found.append(Cell(entry, settings, fold))
    return found
