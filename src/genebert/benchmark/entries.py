"""What a YAML says of methods that are compared, and the errors of such a YAML, listed together with their places."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

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
from genebert.inputs.intervals import read_text
from genebert.methods import method_class, method_keys
from genebert.methods.base import Method
from genebert.settings import Settings

Place = tuple[int | str, ...]
"""Keys and indices that lead to a value of the YAML."""


def in_data(path: Path, info: ValidationInfo) -> Path:
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


DataPath = Annotated[Path, AfterValidator(in_data)]
Name = Annotated[
    str, BeforeValidator(lambda name: str(name) if isinstance(name, int) else name), AfterValidator(_usable_name)
]
"""A number is taken as text, as in a name it is."""


class MethodEntry(Settings):
    """A method with its options."""

    name: Name
    method: str = Field(description="its key, such as motif-trees")
    options: dict[str, Any] = Field({}, validate_default=True, description="its options, if not the defaults")
    seeds: int | None = Field(None, ge=1, description="number of seeds (default: that of all methods)")

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
        complain(((name,), f"there is no {placed[name]}", options[name]) for name in paths if not placed[name].exists())
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


class Comparison(Settings):
    """Methods that are compared. Fields that name others follow those that are named."""

    reference: ClassVar[tuple[str, ...]] = ()
    """Names of what methods are compared with, and put together with, beside each other."""
    taken: ClassVar[tuple[str, ...]] = ()
    """Further names that no method may have."""

    title: str
    seeds: int = Field(1, ge=1, description="runs of each method that another seed changes")
    seed: int = Field(0, ge=0, description="first seed, and that of the choice of rows")
    methods: list[MethodEntry] = Field(min_length=1)
    ensembles: list[EnsembleEntry] = Field([])
    compare: list[tuple[Name, Name]] = Field([], description="pairs of methods or ensembles")

    @field_validator("methods")
    @classmethod
    def _check_methods(cls, entries: list[MethodEntry]) -> list[MethodEntry]:
        complain(repeated([entry.name for entry in entries], [*cls.reference, *cls.taken]))
        return entries

    @field_validator("ensembles")
    @classmethod
    def _check_ensembles(cls, entries: list[EnsembleEntry], info: ValidationInfo) -> list[EnsembleEntry]:
        methods = names_in(info, "methods")
        if methods is not None:
            members = [*methods, *cls.reference]
            found = [*unknown(((i, "of"), entry.of, members) for i, entry in enumerate(entries))]
            taken = [*methods, *cls.reference, *cls.taken]
            complain([*found, *repeated([entry.name for entry in entries], taken)])
        return entries

    @field_validator("compare")
    @classmethod
    def _check_pairs(cls, pairs: list[tuple[str, str]], info: ValidationInfo) -> list[tuple[str, str]]:
        methods, ensembles = names_in(info, "methods"), names_in(info, "ensembles")
        if methods is not None and ensembles is not None:
            complain(unknown(((i,), pair, [*methods, *ensembles, *cls.reference]) for i, pair in enumerate(pairs)))
        return pairs

    def seeds_of(self, entry: MethodEntry) -> list[int]:
        """Return the seeds of a method: one if another would give the same result."""
        count = (entry.seeds or self.seeds) if method_class(entry.method).seeded else 1
        return list(range(self.seed, self.seed + count))


def names_in(info: ValidationInfo, field: str) -> list[str] | None:
    """Return the names in a field that was checked before, or None if it is wrong."""
    return [entry.name for entry in info.data[field]] if field in info.data else None


def unknown(references: Iterable[tuple[Place, Sequence[str], Sequence[str]]]) -> list[tuple[Place, str, object]]:
    """Return what is wrong with (place, names, the names that there are)."""
    return [
        ((*place, i), f"there is no such name among {', '.join(known)}", name)
        for place, names, known in references
        for i, name in enumerate(names)
        if name not in known
    ]


def repeated(names: Sequence[str], taken: Iterable[str] = ()) -> list[tuple[Place, str, object]]:
    """Return what is wrong with names of which each has to be another, and none of those that are taken."""
    count = Counter([*names, *taken])
    return [((i, "name"), "another has this name", name) for i, name in enumerate(names) if count[name] > 1]


def complain(found: Iterable[tuple[Place, str, object]]) -> None:
    """Raise what pydantic puts together with its own findings: place, what is wrong, and the value."""
    errors = [
        InitErrorDetails(type=PydanticCustomError("comparison", "{what}", {"what": what}), loc=place, input=value)
        for place, what, value in found
    ]
    if errors:
        raise ValidationError.from_exception_data("comparison", errors)


Read = TypeVar("Read", bound=Settings)


def read_yaml(path: Path, kind: type[Read], data: Path | None, what: str, keys: str) -> Read:
    """Read a YAML.

    Args:
        path: the YAML.
        kind: what it describes.
        data: what its paths are relative to (default: the folder of the YAML).
        what: its name, for errors.
        keys: where its keys are explained, for errors.

    Raises:
        UserError: it is no YAML, or something in it is wrong; all of it is listed, each with its place in the YAML.
    """
    try:
        values = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(problem(path, f"it is no valid YAML ({error})", "Correct it.")) from None
    if not isinstance(values, dict):
        raise UserError(problem(path, "it is no mapping of keys to values", keys))
    try:
        return kind.model_validate(values, context=path.parent if data is None else data)
    except ValidationError as error:
        found = Problems(f"The {what} {path} cannot be used:")
        for item in error.errors():
            of_method = "docs/benchmark.md lists the options of each method."
            remedy = of_method if "options" in item["loc"] else keys
            found.add(_path_of(item["loc"]) or f"the {what}", *_what_is_wrong(item, remedy))
        found.raise_any()
        raise


def _path_of(place: Place) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in place]
    return "".join(parts).removeprefix(".")


def _what_is_wrong(item: Any, keys: str) -> tuple[str, str]:
    if item["type"] == "missing":
        return "it is required", "Add it."
    if item["type"] == "extra_forbidden":
        return "there is no such key", keys
    said = item["msg"].removeprefix("Value error, ")
    return (said if isinstance(item["input"], dict | BaseModel) else f"{item['input']!r}: {said}"), "Correct it."
