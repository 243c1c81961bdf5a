"""What a task is: its options, and how labelled windows are made of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome, chromosomes_known
from genebert.schema import SPLITS, split_of
from genebert.settings import LabelsSettings

Note = str | int | float


@dataclass(frozen=True)
class Sources:
    """What labels are made from, beside a task's own files.

    Attributes:
        genome: open, or None if none is given.
        corpus: or None if none is given; of the same genome.
        valid_chromosomes, test_chromosomes: held out, as the genome names them; all others are for training.
    """

    genome: Genome | None
    corpus: Corpus | None
    valid_chromosomes: list[str]
    test_chromosomes: list[str]

    def need_genome(self) -> Genome:
        """Return the genome.

        Raises:
            UserError: none is given.
        """
        if self.genome is None:
            raise UserError(problem("--genome", "windows with coordinates need a genome", "Add --genome FASTA."))
        return self.genome


@dataclass(frozen=True)
class LabelTable:
    """Labelled windows, and what is worth telling about how they were made.

    Attributes:
        table: DataFrame; chrom, start, end (0-based, half-open) and where it matters strand, or sequence, or all of
            them; the target's columns (see `genebert.target`); optionally cell_type, and split.
        notes: what it is in words -> how much or which, for the screen and the manifest; a 0 is not shown.
    """

    table: pd.DataFrame
    notes: dict[str, Note] = field(default_factory=dict)


class Task(LabelsSettings, ABC):
    """A way to make labelled windows. The fields are its options, as the command line and YAML give them."""

    @classmethod
    def name(cls) -> str:
        """Return the task's name on the command line, which is that of its module."""
        return cls.__module__.rpartition(".")[2].replace("_", "-")

    def identity(self) -> dict[str, Any]:
        """Return, as JSON values, the task and the settings that determine the result; files count elsewhere."""
        files = {key for key, value in self if any(isinstance(item, Path) for item in _items(value))}
        return {"task": self.name(), **self.model_dump(mode="json", exclude=files)}

    def files(self) -> dict[str, Path]:
        """Return all inputs, under names that differ where another order or another file name gives other labels."""
        found = {}
        for key, value in self:
            if key == "out":
                continue
            if isinstance(value, Path):
                found[key] = value
            paths = value if isinstance(value, list) else []
            found |= {f"{key} {i}: {path.name}": path for i, path in enumerate(paths) if isinstance(path, Path)}
        return found

    def check_division(self) -> None:
        """Check that the options say how windows are divided into training, validation and test.

        Raises:
            UserError: they do not, or in two ways.
        """
        chosen = [self.corpus is not None, bool(self.valid_chromosomes or self.test_chromosomes)]
        if sum(chosen) != 1:
            what = "both of them say" if all(chosen) else "none of them says"
            raise UserError(
                problem(
                    "--corpus, --valid-chromosomes, --test-chromosomes",
                    f"{what} which chromosomes are held out",
                    "Give --corpus, or else --valid-chromosomes and --test-chromosomes.",
                )
            )

    @abstractmethod
    def windows(self, sources: Sources) -> LabelTable:
        """Return the labelled windows, all of one width.

        Raises:
            UserError: an input cannot be used.
        """

    def split(self, table: pd.DataFrame, sources: Sources) -> list[str]:
        """Return the split of each window of a table that has no column `split`: that of its chromosome."""
        valid, test = sources.valid_chromosomes, sources.test_chromosomes
        known = chromosomes_known(table["chrom"], [*valid, *test])
        index = split_of((known.get(chrom, chrom) for chrom in table["chrom"]), valid, test)
        return np.array(SPLITS)[index].tolist()

    def one_of(self, *options: str) -> str:
        """Return which of several options is given.

        Raises:
            UserError: none is, or more than one.
        """
        given = [option for option in options if getattr(self, option)]
        if len(given) != 1:
            names = ", ".join(f"--{option.replace('_', '-')}" for option in options)
            what = f"{'more than one' if given else 'none'} of them is given"
            raise UserError(problem(names, what, "Give one of them."))
        return given[0]


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
