"""What a benchmark consists of, as a YAML says it: tasks, methods, ensembles, comparisons, published numbers."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from genebert.errors import Problems, UserError, problem
from genebert.inputs.intervals import read_table, read_text
from genebert.methods import method_class, method_keys
from genebert.methods.base import Method
from genebert.settings import Settings

JASPAR = "jaspar:"
PUBLISHED_COLUMNS = ("task", "metric", "model", "value", "source")
KEYS = "See docs/benchmark.md for the keys."
Place = tuple[int | str, ...]
"""Keys and indices that lead to a value of the YAML."""


def _in_data(path: Path, info: ValidationInfo) -> Path:
    """Return a path relative to the data folder, which the validation is told as its context."""
    found = _data_of(info) / path
    if not found.exists():
        raise ValueError(f"there is no {found}")
    return found


def _data_of(info: ValidationInfo) -> Path:
    return info.context if isinstance(info.context, Path) else Path()


def _usable_name(name: str) -> str:
    if not name.strip() or set(name) == {"."}:
        raise ValueError("it is no name")
    return name


DataPath = Annotated[Path, AfterValidator(_in_data)]
Name = Annotated[
    str, BeforeValidator(lambda name: str(name) if isinstance(name, int) else name), AfterValidator(_usable_name)
]
"""A number is taken as text, as in a name it is."""


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


class MethodEntry(Settings):
    """A method with its options."""

    name: Name
    method: str = Field(description="its key, such as motif-trees")
    options: dict[str, Any] = Field({}, validate_default=True, description="its options, if not the defaults")
    seeds: int | None = Field(None, ge=1, description="number of seeds (default: the suite's)")

    @field_validator("method")
    @classmethod
    def _check_key(cls, key: str) -> str:
        if key not in method_keys():
            raise ValueError(f"there is no such method; there are {', '.join(method_keys())}")
        return key

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "method" not in info.data:
            return options
        kind = method_class(info.data["method"])
        paths = sorted(name for name in path_fields(kind) if isinstance(options.get(name), str))
        placed = options | {name: _data_of(info) / options[name] for name in paths}
        kind.model_validate(placed)  # its errors get the place of the options
        _complain(
            ((name,), f"there is no {placed[name]}", options[name]) for name in paths if not placed[name].exists()
        )
        return placed

    @property
    def configured(self) -> Method:
        """The method, ready to learn."""
        return method_class(self.method).model_validate(self.options)


def path_fields(kind: type[BaseModel]) -> set[str]:
    """Return the names of the fields that are paths."""
    return {name for name, field in kind.model_fields.items() if "Path" in str(field.annotation)}


class EnsembleEntry(Settings):
    """The average of what some methods predict; each counts the same, whatever its number of seeds."""

    name: Name
    of: list[Name] = Field(min_length=2, description="names of methods")


class Suite(Settings):
    """A benchmark. Fields that name others follow those that are named."""

    title: str = "Benchmark"
    motifs: str | None = Field(
        None, description="motif file, or jaspar:GROUP, as for prepare (default: jaspar:vertebrates)"
    )
    model: DataPath | None = Field(None, description="folder whose motifs.json is used instead, made by pretrain")
    seeds: int = Field(1, ge=1, description="runs of each method that another seed changes")
    seed: int = Field(0, ge=0, description="first seed, and that of the choice of validation rows")
    methods: list[MethodEntry] = Field(min_length=1)
    ensembles: list[EnsembleEntry] = Field([])
    tasks: list[TaskEntry] = Field(min_length=1)
    compare: list[tuple[Name, Name]] = Field([], description="pairs of methods or ensembles")
    published: DataPath | None = Field(None, description="CSV of what others report")

    @field_validator("motifs")
    @classmethod
    def _check_motifs(cls, source: str | None, info: ValidationInfo) -> str | None:
        return source if source is None or source.startswith(JASPAR) else str(_in_data(Path(source), info))

    @field_validator("model")
    @classmethod
    def _check_one_collection(cls, model: Path | None, info: ValidationInfo) -> Path | None:
        if model is not None and info.data.get("motifs") is not None:
            raise ValueError("give `motifs` or `model`, not both")
        return model

    @field_validator("methods", "tasks")
    @classmethod
    def _check_repeats(cls, entries: list[Any]) -> list[Any]:
        _complain(_repeated([entry.name for entry in entries]))
        return entries

    @field_validator("ensembles")
    @classmethod
    def _check_ensembles(cls, entries: list[EnsembleEntry], info: ValidationInfo) -> list[EnsembleEntry]:
        methods = _names(info, "methods")
        if methods is not None:
            found = [*_unknown(((i, "of"), entry.of, methods) for i, entry in enumerate(entries))]
            _complain([*found, *_repeated([entry.name for entry in entries], methods)])
        return entries

    @field_validator("tasks")
    @classmethod
    def _check_tasks(cls, tasks: list[TaskEntry], info: ValidationInfo) -> list[TaskEntry]:
        if "methods" not in info.data:
            return tasks
        entries = {entry.name: entry for entry in info.data["methods"]}
        named = [((i, "methods"), task.methods or []) for i, task in enumerate(tasks)]
        named += [((i, "options"), list(task.options)) for i, task in enumerate(tasks)]
        _complain(_unknown((place, names, list(entries)) for place, names in named))
        return [_with_options(i, task, entries, info) for i, task in enumerate(tasks)]

    @field_validator("compare")
    @classmethod
    def _check_pairs(cls, pairs: list[tuple[str, str]], info: ValidationInfo) -> list[tuple[str, str]]:
        methods, ensembles = _names(info, "methods"), _names(info, "ensembles")
        if methods is not None and ensembles is not None:
            _complain(_unknown(((i,), pair, [*methods, *ensembles]) for i, pair in enumerate(pairs)))
        return pairs

    def methods_of(self, task: TaskEntry) -> list[MethodEntry]:
        """Return the methods to run on a task, in the order of the suite, with their options there."""
        chosen = [entry for entry in self.methods if task.methods is None or entry.name in task.methods]
        return [one.model_copy(update={"options": task.options.get(one.name, one.options)}) for one in chosen]

    def seeds_of(self, entry: MethodEntry) -> list[int]:
        """Return the seeds of a method: one if another would give the same result."""
        count = (entry.seeds or self.seeds) if method_class(entry.method).seeded else 1
        return list(range(self.seed, self.seed + count))


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
    _complain(found)
    return task.model_copy(update={"options": options})


def _names(info: ValidationInfo, field: str) -> list[str] | None:
    """Return the names in a field that was checked before, or None if it is wrong."""
    return [entry.name for entry in info.data[field]] if field in info.data else None


def _unknown(references: Iterable[tuple[Place, Sequence[str], Sequence[str]]]) -> list[tuple[Place, str, object]]:
    """Return what is wrong with (place, names, the names that there are)."""
    return [
        ((*place, i), f"there is no such name among {', '.join(known)}", name)
        for place, names, known in references
        for i, name in enumerate(names)
        if name not in known
    ]


def _repeated(names: Sequence[str], taken: Iterable[str] = ()) -> list[tuple[Place, str, object]]:
    count = Counter([*names, *taken])
    return [((i, "name"), "another has this name", name) for i, name in enumerate(names) if count[name] > 1]


def _complain(found: Iterable[tuple[Place, str, object]]) -> None:
    """Raise what pydantic puts together with its own findings: place, what is wrong, and the value."""
    errors = [
        InitErrorDetails(type=PydanticCustomError("suite", "{what}", {"what": what}), loc=place, input=value)
        for place, what, value in found
    ]
    if errors:
        raise ValidationError.from_exception_data("suite", errors)


def read_suite(path: Path, data: Path | None = None) -> Suite:
    """Read a suite.

    Args:
        path: the YAML.
        data: what its paths are relative to (default: the folder of the YAML).

    Raises:
        UserError: it is no YAML, or something in it is wrong; all of it is listed, each with its place in the YAML.
    """
    try:
        values = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(problem(path, f"it is no valid YAML ({error})", "Correct it.")) from None
    if not isinstance(values, dict):
        raise UserError(problem(path, "it is no mapping of keys to values", KEYS))
    try:
        return Suite.model_validate(values, context=path.parent if data is None else data)
    except ValidationError as error:
        found = Problems(f"The suite {path} cannot be used:")
        for item in error.errors():
            found.add(_path_of(item["loc"]), *_what_is_wrong(item))
        found.raise_any()
        raise


def _path_of(place: Place) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in place]
    return "".join(parts).removeprefix(".") or "the suite"


def _what_is_wrong(item: Any) -> tuple[str, str]:
    if item["type"] == "missing":
        return "it is required", "Add it."
    if item["type"] == "extra_forbidden":
        return "there is no such key", KEYS
    said = item["msg"].removeprefix("Value error, ")
    return (said if isinstance(item["input"], dict | BaseModel) else f"{item['input']!r}: {said}"), "Correct it."


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
