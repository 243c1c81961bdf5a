"""Predictors on disk: one fitted method or an ensemble, with the facts that their use depends on."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.calibration import UNCALIBRATED, Calibration
from genebert.cell_type_distance import Distance, KnownCellTypes
from genebert.console import say
from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.inputs.scan import Scanner
from genebert.labelled import examples_of
from genebert.methods import method_class
from genebert.methods.base import Examples, Fitted, Place, Reading
from genebert.pretrained import check_motifs, read_scanner, write_scanner
from genebert.settings import Device
from genebert.stage import Manifest, read_manifest, write_json
from genebert.target import HALF, Target, Threshold, mean_over_methods
from genebert.tasks.windows import Windows, check_strands, wrong_length

MEMBERS = "members"
PREDICTOR_FILE = "predictor.json"


@dataclass(frozen=True)
class Ensemble:
    """Fitted methods whose predictions are averaged, each method counting once, then calibrated.

    Attributes:
        target: what they predict.
        members: (key of the method, fitted).
        calibration: of their average.
        threshold: by which a class is predicted.
    """

    target: Target
    members: Sequence[tuple[str, Fitted]]
    calibration: Calibration = UNCALIBRATED
    threshold: Threshold = HALF

    def predict(self, examples: Examples) -> NDArray[np.float64]:
        """Return predictions: float64, shape (n, len(target.names)); see `Target`."""
        return self._joined([fitted.predict(examples) for _, fitted in self.members])

    def predict_in_cell_types(
        self, codes: NDArray[np.uint8], place: Place, cell_types: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float64]]:
        """Yield predictions of the same windows in one cell type after another; see `Fitted`."""
        each = (fitted.predict_in_cell_types(codes, place, cell_types) for _, fitted in self.members)
        return map(self._joined, zip(*each, strict=True))

    def read(self, examples: Examples) -> Reading:
        """Return predictions, and the states of all networks side by side."""
        return self._together([fitted.read(examples) for _, fitted in self.members])

    def read_in_cell_types(
        self, codes: NDArray[np.uint8], place: Place, cell_types: NDArray[np.int64]
    ) -> Iterator[Reading]:
        """Yield readings of the same windows in one cell type after another; see `Fitted`."""
        each = (fitted.read_in_cell_types(codes, place, cell_types) for _, fitted in self.members)
        return map(self._together, zip(*each, strict=True))

    def _together(self, readings: Sequence[Reading]) -> Reading:
        states = [reading.states for reading in readings if reading.states is not None]
        predictions = self._joined([reading.predictions for reading in readings])
        return Reading(predictions, np.concatenate(states, axis=1) if states else None)

    def _joined(self, predictions: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the calibrated average of the methods, each of which is the average of its seeds."""
        by_key: dict[str, list[NDArray[np.float64]]] = {}
        for (key, _), one in zip(self.members, predictions, strict=True):
            by_key.setdefault(key, []).append(one)
        return self.calibration.apply(self.target, mean_over_methods(list(by_key.values())))

    def save(self, folder: Path, scanner: Scanner) -> None:
        """Write members/0-KEY, members/1-KEY, ..., predictor.json and motifs.json."""
        shutil.rmtree(folder / MEMBERS, ignore_errors=True)  # of a run that stopped after it had begun to write them
        for i, (key, fitted) in enumerate(self.members):
            place = folder / MEMBERS / f"{i}-{key}"
            place.mkdir(parents=True)
            fitted.save(place)
        facts = {
            "target": self.target.to_json(),
            "members": [key for key, _ in self.members],
            "temperature": self.calibration.temperature,
            "offsets": self.calibration.offsets,
            "threshold": self.threshold,
        }
        write_json(folder / PREDICTOR_FILE, facts)
        write_scanner(scanner, folder)

    @classmethod
    def load(cls, folder: Path, device: Device) -> Self:
        """Read what `save` wrote; device: where networks are to run.

        Raises:
            UserError: a file is damaged, or lacks something.
        """
        facts = json.loads((folder / PREDICTOR_FILE).read_text())
        _check_complete(facts, ("target", "members", "temperature", "offsets", "threshold"), folder)
        target = Target.from_json(facts["target"])
        members = [
            (key, method_class(key).fitted.load(folder / MEMBERS / f"{i}-{key}", target, device))
            for i, key in enumerate(facts["members"])
        ]
        calibration = Calibration(facts["temperature"], tuple(facts["offsets"]))
        threshold = facts["threshold"]
        return cls(target, members, calibration, tuple(threshold) if isinstance(threshold, list) else threshold)


def _check_complete(facts: Mapping[str, Any], needed: Sequence[str], folder: Path) -> None:
    missing = [name for name in needed if name not in facts]
    if missing:
        what = f"an earlier version made it, which did not write {', '.join(missing)}"
        raise UserError(problem(folder, what, "Fine-tune again."))


@dataclass(frozen=True)
class Predictor:
    """What `genebert finetune` made, ready to use.

    Attributes:
        ensemble: of one member or more.
        scanner: of the motif collection that it was trained with.
        manifest: of `genebert finetune`.
        width: length of the windows that it was trained on, in bp.
        per_cell_type: whether its region matrices are neighbourhoods in a cell type (else tiles of the sequence).
        oriented: whether it tells strands apart.
        known_cell_types: those that it was trained in; None if it knows no cell types, or an earlier version made it.
    """

    ensemble: Ensemble
    scanner: Scanner
    manifest: Manifest
    width: int
    per_cell_type: bool
    oriented: bool
    known_cell_types: KnownCellTypes | None = None

    @classmethod
    def open(cls, folder: Path, device: Device = "auto") -> Self:
        """Open a folder made by `genebert finetune`.

        Raises:
            UserError: the folder, or a file in it, cannot be used.
        """
        manifest = read_manifest(folder, "finetune", verify=True)
        facts = manifest.metrics
        _check_complete(facts, ("window_width", "per_cell_type", "oriented"), folder)
        ensemble = Ensemble.load(folder, device)
        return cls(
            ensemble,
            read_scanner(folder),
            manifest,
            facts["window_width"],
            facts["per_cell_type"],
            facts["oriented"],
            KnownCellTypes.load(folder),
        )

    @property
    def target(self) -> Target:
        """What it predicts."""
        return self.ensemble.target

    def predict(self, windows: Windows, corpus: Corpus | None) -> NDArray[np.float64]:
        """Return predictions of windows: float64, shape (n, len(target.names)).

        Args:
            windows: of the predictor's width, with a cell type each if there is a corpus.
            corpus: see `need_corpus`.
        """
        return self.ensemble.predict(examples_of(windows, self.scanner, corpus))

    def need_corpus(self, folder: Path | None) -> Corpus | None:
        """Open the corpus if the model needs one; say so if it needs none.

        Raises:
            UserError: it is needed and not given, or was made with another motif collection.
        """
        if not self.per_cell_type:
            if folder is not None:
                say(f"--corpus {folder} is not used: the model {self.manifest.folder} knows no cell types")
            return None
        if folder is None:
            what = "this model predicts per cell type"
            raise UserError(problem(self.manifest.folder, what, "Add --corpus, a folder made by prepare."))
        corpus = Corpus.open(folder)
        check_motifs(self.scanner, corpus, f"the model {self.manifest.folder}")
        return corpus

    def check_two_alleles(self) -> None:
        """Check that two alleles can be compared by log-odds, wherever in a window they differ.

        Raises:
            UserError: it does not predict two classes, or reads windows that are aligned at a base.
        """
        if not self.target.is_binary:
            what = f"the model predicts {', '.join(self.target.names)}, and alleles are scored by the log-odds of two "
            raise UserError(problem(self.manifest.folder, f"{what}classes", "Fine-tune on labels of two classes."))
        if self.oriented:
            what = "the model is of oriented windows, which are aligned at a base, and windows around variants are not"
            raise UserError(problem(self.manifest.folder, what, "Fine-tune without --oriented."))

    def distances(self, corpus: Corpus | None, names: Sequence[str]) -> list[Distance]:
        """Return how far cell types of a corpus are from those that the model was trained in; none if that is unknown.

        Args:
            corpus: see `need_corpus`.
            names: of cell types in it.
        """
        if corpus is None or self.known_cell_types is None:
            return []
        return self.known_cell_types.distances(corpus, names)

    def check_table(self, table: pd.DataFrame, path: Path, corpus: Corpus | None) -> None:
        """Check that windows name a strand, if the model tells strands apart, and no unknown cell type.

        Args:
            table: see `Windows`.
            path: the file it is from, for errors.
            corpus: that knows the cell types, or None if the model knows none.

        Raises:
            UserError: they do not.
        """
        if self.oriented:
            check_strands(table, path)
        if corpus is not None and "cell_type" in table:
            corpus.cell_type_indices(sorted(set(table["cell_type"])))

    def check_windows(self, windows: Windows) -> None:
        """Check that windows have the length that the model was trained on, and a strand if it tells strands apart.

        Raises:
            UserError: they have not.
        """
        if self.oriented:
            check_strands(windows.table, windows.path)
        length = windows.codes.shape[1]
        if length != self.width:
            raise wrong_length(windows, length, self.width)
