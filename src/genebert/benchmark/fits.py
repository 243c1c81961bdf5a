"""One method, fitted once: what its predictions depend on, its folder, and how they are computed and found again."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar, Protocol, TypeVar
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray

from genebert.benchmark.entries import MethodEntry, path_fields
from genebert.console import say
from genebert.corpus.parallel import usable_cores
from genebert.errors import ResumableError, UserError, problem
from genebert.inputs.scan import Scanner
from genebert.methods import method_class
from genebert.methods.base import Examples, Fitted, Method
from genebert.settings import StageSettings, load_preset
from genebert.stage import describe_input, digest, open_stage, read_manifest
from genebert.target import Kind, Target
from genebert.tasks.windows import table_of

RUNS = "runs"
MODEL = "model"
NOT_YET = "not computed yet"
Checksum = Callable[[Path], str]


class FitSettings(StageSettings):
    """What predictions depend on. Files are told by their checksums, so that a copy elsewhere counts.

    Attributes:
        method: key of the method.
        options: its options, defaults included.
        seed: of the method.
        data: file of the rows -> sha256.
        motifs: digest of the motif collection and of how it is scanned.
        code: version of genebert, and the digest of the modules that decide what the method predicts.
    """

    method: str
    options: dict[str, Any]
    seed: int
    data: dict[str, str]
    motifs: str
    code: dict[str, str]


@dataclass(frozen=True)
class Fit(ABC):
    """One method, fitted once with one seed."""

    stage: ClassVar[str]

    method: MethodEntry
    settings: FitSettings

    @property
    @abstractmethod
    def name(self) -> str:
        """What progress bars and lines call it."""

    @property
    def folder(self) -> Path:
        """Where its results are, or will be."""
        return self.settings.out

    def is_done(self, model: bool = False) -> bool:
        """Tell whether the folder holds the results of this very fit, and, if asked for, the model."""
        try:
            done = read_manifest(self.folder, self.stage).settings == self.settings.identity()
        except UserError:
            return False
        return done and (not model or (self.folder / MODEL).is_dir())

    def cost(self) -> dict[str, Any]:
        """Return what it took when it is done: seconds_to_fit, seconds_to_predict (the test rows), and its machine."""
        return read_manifest(self.folder, self.stage).metrics

    def kept(self, name: str) -> NDArray[np.float64]:
        """Return predictions, when it is done."""
        return np.load(_file(self.folder, name), allow_pickle=False)

    def keep(
        self,
        rows: Callable[[], tuple[Examples, Examples]],
        target: Target,
        asked: Mapping[str, Callable[[Fitted], NDArray[np.float64]]],
        *,
        keep_model: bool,
    ) -> None:
        """Fit, predict, and put the results into the folder, in the place of those of other settings.

        Args:
            rows: makes those to learn from, and those to choose on; its time counts.
            target: what is predicted.
            asked: name -> what a fitted method is to predict; the test rows come last.
            keep_model: keep the fitted method too.

        Raises:
            UserError: the method cannot be used with these rows.
        """
        fresh = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)  # of a run that was killed before it put it into place
        with open_stage(self.stage, self.settings.model_copy(update={"out": fresh}), {}) as run:
            began = perf_counter()
            train, valid = rows()
            fitted = self.method.configured.fit(train, valid, target, self.settings.seed, self.name)
            cost: dict[str, Any] = {"seconds_to_fit": perf_counter() - began, "machine": _machine()}
            for name, predict in asked.items():
                began = perf_counter()
                np.save(_file(run.folder, name), predict(fitted))
                cost["seconds_to_predict"] = perf_counter() - began
            if keep_model:
                (run.folder / MODEL).mkdir()
                fitted.save(run.folder / MODEL)
            run.finish(cost)
        shutil.rmtree(self.folder, ignore_errors=True)  # not before there is another for its place
        fresh.rename(self.folder)

    def predict(self, fitted: Fitted, examples: Examples, target: Target) -> NDArray[np.float64]:
        """Return predictions, which are checked: float64, shape (n, len(target.names)).

        Raises:
            UserError: they are no numbers.
        """
        predicted = fitted.predict(examples)
        expected = len(examples), len(target.names)
        assert predicted.shape == expected, f"{self.name}: predictions of shape {predicted.shape}, not {expected}"
        if not np.isfinite(predicted).all():
            raise UserError(problem(self.name, "its predictions are no numbers", "Change its options."))
        return predicted


AnyFit = TypeVar("AnyFit", bound=Fit)


class Miss(Protocol):
    """Notes that there are no results, and whether that is a failure."""

    def __call__(self, reason: str, *, failed: bool = True) -> None:
        """Note it."""


def all_kept(fits: Sequence[AnyFit], to_do: Sequence[AnyFit], compute: Callable[[AnyFit], None], miss: Miss) -> bool:
    """Compute the fits of a method, as far as they are to be; tell whether all are there.

    Args:
        fits: of the method; what fails ends them.
        to_do: those to compute, of all methods.
        compute: computes one.
        miss: is told why they are not all there.
    """
    try:
        for fit in fits:
            if fit in to_do:
                say(f"{to_do.index(fit) + 1} of {len(to_do)}: {fit.name}")
                compute(fit)
            elif not fit.is_done():
                miss(NOT_YET, failed=False)
                return False
    except ResumableError:
        raise
    except UserError as error:
        miss(str(error))
        return False
    return True


def misfit(entry: MethodEntry, kind: Kind) -> str | None:
    """Return why a method cannot predict such a target, or None if it can."""
    method = method_class(entry.method)
    if kind in method.kinds:
        return None
    return f"{method.title} predicts {' or '.join(sorted(method.kinds))}, and this is {kind}"


def _machine() -> str:
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{usable_cores()} cores{gpu}"


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def folder_name(name: str) -> str:
    """Return a name as that of a folder: what a path must not hold, slashes too, is percent-encoded."""
    return quote(name, safe=" +,()=")


def checksums() -> Checksum:
    """Return a function that gives the sha256 of a file or folder, and reads each once.

    It raises a UserError where one cannot be read.
    """
    return cache(lambda path: describe_input("suite", table_of(path))["sha256"])  # a genome is a file of many rows


def motifs_digest(scanner: Scanner) -> str:
    """Return a digest of a motif collection and of how it is scanned."""
    return digest([scanner.pseudocount, scanner.gc, *(motif.to_json() for motif in scanner.motifs)])


def options_of(method: Method, checksum: Checksum) -> dict[str, Any]:
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
    if (decided := getattr(method, "reads_encoders", None)) is not None:  # by settings, whose code is `code.NEUTRAL`
        options["reads_encoders"] = decided
    return options | {name: checksum(path) for name in sorted(paths) if (path := getattr(method, name)) is not None}
