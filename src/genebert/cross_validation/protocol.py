"""What a cross-validation consists of, as a YAML says it: labels, what is left out together, methods, comparisons."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from genebert.benchmark.entries import Comparison, DataPath, EnsembleEntry, Name, read_yaml
from genebert.settings import Settings

KEYS = "See docs/cross_validation.md for the keys."
EACH = "each"
FEWEST = 3
"""Groups to leave out: one to test on, one to choose on, and one at least to learn from."""
MEAN, NEAREST = "mean of known cell types", "nearest known cell type"
"""Baselines that nothing is fitted for; see `cross_validation.baselines`."""

COLUMNS = ("chrom", "start", "end", "cell_type", "truth", "fold")
"""Of the table of predictions, beside the methods."""


def _division(value: Any) -> Any:
    """Check what is left out together: each by itself, so many groups, or the names in each."""
    is_groups = isinstance(value, list) and all(isinstance(group, list) and group for group in value)
    if isinstance(value, bool) or not (is_groups or isinstance(value, int) or value == EACH):
        raise ValueError(f"give `{EACH}`, a number of groups, or a list of lists of names")
    if value != EACH and (len(value) if is_groups else value) < FEWEST:
        raise ValueError(f"there have to be {FEWEST} groups or more: to test on, to choose on, to learn from")
    count = Counter(str(name) for group in value for name in group) if is_groups else Counter()
    twice = [name for name, times in count.items() if times > 1]
    if twice:
        raise ValueError(f"it names {', '.join(twice)} twice")
    return value


Groups = list[list[Name]]
Division = Annotated[str | int | Groups, BeforeValidator(_division)]
Names = Annotated[list[Name], Field(min_length=1)]


class CellTypeEnsembleEntry(EnsembleEntry):
    """The average of what some methods and baselines predict, or of its log-odds."""

    log_odds: bool = Field(False, description="average log-odds, which weigh what is nearly certain more")


class FoldEntry(Settings):
    """A fold as it is given: all other cell types on all other chromosomes are for training."""

    test_cell_types: Names
    valid_cell_types: Names
    test_chromosomes: Names
    valid_chromosomes: Names


class Protocol(Comparison):
    """A cross-validation over cell types and chromosomes."""

    reference: ClassVar[tuple[str, ...]] = (MEAN, NEAREST)
    taken: ClassVar[tuple[str, ...]] = COLUMNS

    title: str = "Cross-validation"
    labels: DataPath = Field(
        description="table with columns label:CELLTYPE (0, 1, empty), or a column cell_type and label or value; or a "
        "folder made by labels"
    )
    genome: DataPath = Field(description="genome of the corpus: FASTA or 2bit")
    corpus: DataPath = Field(description="folder made by prepare or add-cell-type, with all of these cell types")
    ensembles: list[CellTypeEnsembleEntry] = Field([])  # type: ignore[assignment]
    cell_types: Division = Field(
        EACH, description="what is left out together: each cell type by itself, so many groups, or these groups"
    )
    chromosomes: Division = Field(3, description="the same of chromosomes")
    folds: list[FoldEntry] | None = Field(
        None, min_length=1, description="instead of cell_types and chromosomes: what each fold leaves out"
    )
    label_fractions: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [1.0], min_length=1, description="parts of the training windows to learn from; the smaller lie in the larger"
    )

    @field_validator("folds")
    @classmethod
    def _check_division(cls, folds: Any, info: ValidationInfo) -> Any:
        fields = cls.model_fields
        given = [name for name in ("cell_types", "chromosomes") if info.data.get(name) != fields[name].default]
        if given:
            raise ValueError(f"give `folds`, or {' and '.join(given)}, not both")
        return folds

    @field_validator("label_fractions")
    @classmethod
    def _check_fractions(cls, fractions: list[float]) -> list[float]:
        return sorted(set(fractions), reverse=True)


def read_protocol(path: Path, data: Path | None = None) -> Protocol:
    """Read a protocol.

    Args:
        path: the YAML.
        data: what its paths are relative to (default: the folder of the YAML).

    Raises:
        UserError: it is no YAML, or something in it is wrong; all of it is listed, each with its place in the YAML.
    """
    return read_yaml(path, Protocol, data, "protocol", KEYS)
