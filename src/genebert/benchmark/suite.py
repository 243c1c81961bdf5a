"""What a benchmark consists of, as a YAML says it: tasks, methods, ensembles, comparisons, published numbers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from genebert.benchmark.entries import (
    Comparison,
    DataPath,
    MethodEntry,
    Name,
    complain,
    in_data,
    read_yaml,
    repeated,
    unknown,
)
from genebert.errors import Problems
from genebert.inputs.intervals import read_table
from genebert.settings import JASPAR, Settings

PUBLISHED_COLUMNS = ("task", "metric", "model", "value", "source")
KEYS = "See docs/benchmark.md for the keys."


class TaskEntry(Settings):
    """A task: labelled rows, and how methods are compared on its test rows."""

    name: Name
    labels: DataPath = Field(description="labelled table, or folder made by labels; all rows, or the training rows")
    valid: DataPath | None = Field(None, description="validation rows, if labels has no split column")
    test: DataPath | None = Field(None, description="test rows, if labels has no split column")
    valid_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        validate_default=True,
        description="instead of valid: fraction of the rows of labels to validate on",
    )
    genome: DataPath | None = Field(None, description="genome, for labels with coordinates")
    corpus: DataPath | None = Field(None, description="folder made by prepare, for labels with a cell_type column")
    measure: str | None = Field(None, description="headline measure (default: MCC, AUROC or Pearson, by target)")
    threshold: Literal["half", "valid"] = Field(
        "half", description="two classes: the second one is predicted from 0.5 on, or from where MCC is best on valid"
    )
    methods: list[Name] | None = Field(None, description="names of the methods to run (default: all)")
    options: dict[Name, dict[str, Any]] = Field(
        {}, description="options of methods on this task, by name; the others are as the suite gives them"
    )

    @field_validator("valid_fraction")
    @classmethod
    def _check_rows(cls, fraction: float | None, info: ValidationInfo) -> float | None:
        valid, test = (info.data.get(name) is not None for name in ("valid", "test"))
        if not {"valid", "test"} <= info.data.keys():
            return fraction  # they are wrong themselves
        if fraction is not None and (valid or not test):
            raise ValueError("valid_fraction is for a task with `test` and without `valid`")
        if fraction is None and valid != test:
            raise ValueError("`valid` and `test` go together; or give `test` and valid_fraction")
        return fraction


class Suite(Comparison):
    """A benchmark."""

    title: str = "Benchmark"
    motifs: str | None = Field(
        None, description="motif file, or jaspar:GROUP, as for prepare (default: jaspar:vertebrates)"
    )
    model: DataPath | None = Field(None, description="folder whose motifs.json is used instead, made by pretrain")
    tasks: list[TaskEntry] = Field(min_length=1)
    published: DataPath | None = Field(None, description="CSV of what others report")

    @field_validator("motifs")
    @classmethod
    def _check_motifs(cls, source: str | None, info: ValidationInfo) -> str | None:
        return source if source is None or source.startswith(JASPAR) else str(in_data(Path(source), info))

    @field_validator("model")
    @classmethod
    def _check_one_collection(cls, model: Path | None, info: ValidationInfo) -> Path | None:
        if model is not None and info.data.get("motifs") is not None:
            raise ValueError("give `motifs` or `model`, not both")
        return model

    @field_validator("tasks")
    @classmethod
    def _check_tasks(cls, tasks: list[TaskEntry], info: ValidationInfo) -> list[TaskEntry]:
        complain(repeated([task.name for task in tasks]))
        if "methods" not in info.data:
            return tasks
        entries = {entry.name: entry for entry in info.data["methods"]}
        named = [((i, "methods"), task.methods or []) for i, task in enumerate(tasks)]
        named += [((i, "options"), list(task.options)) for i, task in enumerate(tasks)]
        complain(unknown((place, names, list(entries)) for place, names in named))
        return [_with_options(i, task, entries, info) for i, task in enumerate(tasks)]

    def methods_of(self, task: TaskEntry) -> list[MethodEntry]:
        """Return the methods to run on a task, in the order of the suite, with their options there."""
        chosen = [entry for entry in self.methods if task.methods is None or entry.name in task.methods]
        return [one.model_copy(update={"options": task.options.get(one.name, one.options)}) for one in chosen]


def _with_options(i: int, task: TaskEntry, entries: Mapping[str, MethodEntry], info: ValidationInfo) -> TaskEntry:
    """Return the i-th task with all options of the methods whose options it changes, checked."""
    found, options = [], {}
    for name, changes in task.options.items():
        entry = entries[name]
        try:
            values = {**entry.model_dump(), "options": entry.options | changes}
            options[name] = MethodEntry.model_validate(values, context=info.context).options
        except ValidationError as error:
            found += [((i, *one["loc"][:1], name, *one["loc"][1:]), one["msg"], one["input"]) for one in error.errors()]
    complain(found)
    return task.model_copy(update={"options": options})


def read_suite(path: Path, data: Path | None = None) -> Suite:
    """Read a suite.

    Args:
        path: the YAML.
        data: what its paths are relative to (default: the folder of the YAML).

    Raises:
        UserError: it is no YAML, or something in it is wrong; all of it is listed, each with its place in the YAML.
    """
    return read_yaml(path, Suite, data, "suite", KEYS)


class Published(Settings):
    """A number that others report."""

    task: str
    metric: str
    model: str
    value: float
    source: str
    parameters: float | None = None
    setting: str = ""


def read_published(path: Path) -> list[Published]:
    """Read what others report.

    Args:
        path: CSV or TSV with the columns task, metric, model, value, source, and optionally parameters (their number)
            and setting (such as fine-tuned).

    Raises:
        UserError: columns are missing, or a cell is empty or no number; all are listed.
    """
    table = read_table(path)
    found = Problems(f"The published numbers {path} cannot be used:")
    missing = [name for name in PUBLISHED_COLUMNS if name not in table]
    if missing:
        found.add(
            "line 1", f"it has no column {', '.join(missing)}", f"The columns are {', '.join(PUBLISHED_COLUMNS)}."
        )
        found.raise_any()
    rows = [_published(row, found) for row in table.to_dict("records")]
    found.raise_any()
    return [row for row in rows if row is not None]


def _published(row: dict[str, Any], found: Problems) -> Published | None:
    line = f"line {row['line']}"
    empty = [name for name in PUBLISHED_COLUMNS if not row[name].strip()]
    for name in empty:
        found.add(line, f"{name} is empty", "Fill it in, or remove the line.")
    numbers = {name: _number(row.get(name, "")) for name in ("value", "parameters")}
    for name, number in numbers.items():
        if number is not None and not math.isfinite(number):
            found.add(line, f"{name} is {row[name]!r}", "Give a number.")
    if empty:
        return None
    words = {name: str(row.get(name, "")).strip() for name in ("task", "metric", "model", "source", "setting")}
    return Published.model_validate({**words, **numbers})


def _number(text: str) -> float | None:
    """Return a number, None for an empty text, NaN for another text."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        return math.nan
