"""What fitted methods share when they are written and read."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genebert.errors import UserError, problem
from genebert.stage import write_json

_FACTS = "method.json"


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write what a fitted method has to know beside its weights; facts: JSON values."""
    write_json(folder / _FACTS, facts)


def read_facts(folder: Path) -> dict[str, Any]:
    """Read what `write_facts` wrote; to be called in `reading`."""
    facts: dict[str, Any] = json.loads((folder / _FACTS).read_text())
    return facts


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Say which folder is damaged where its files cannot be read.

    Raises:
        UserError: anything fails inside.
    """
    try:
        yield
    except Exception as error:  # numpy, safetensors, LightGBM and torch raise many kinds for damaged files
        what = f"the fitted method cannot be loaded ({type(error).__name__}: {error})"
        raise UserError(problem(folder, what, "Fit it again.")) from None
