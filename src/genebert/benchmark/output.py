"""The folder of a comparison of methods: results.json, results.parquet and a page, beside the folders of fits."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from filelock import FileLock

from genebert.benchmark.entries import Comparison, MethodEntry
from genebert.benchmark.fits import RUNS
from genebert.errors import Problems, UserError, problem
from genebert.stage import write_json

RESULTS, TABLE = "results.json", "results.parquet"
_COUNTS = {"seeds": "Int64", "n": "Int64"}
Row = dict[str, Any]


class Named(Protocol):
    """Something that a YAML gives a name."""

    @property
    def name(self) -> str:
        """The name."""


def check_folder(out: Path, verb: str, key: str) -> None:
    """Check that a folder is new, empty or that of a comparison of this kind.

    Args:
        out: the folder.
        verb: of the comparison.
        key: what its results.json names first.

    Raises:
        UserError: it is none of these.
    """
    try:
        found = json.loads((out / RESULTS).read_text())
        ours = isinstance(found, dict) and key in found
    except FileNotFoundError:
        ours = (out / RUNS).is_dir()
    except (OSError, ValueError):
        ours = False
    if out.exists() and not ours and (not out.is_dir() or any(out.iterdir())):
        what = f"the output folder is in use and was not made by genebert {verb}"
        raise UserError(problem(out, what, "Choose another --out, or remove it first."))


def selection(kinds: Sequence[Sequence[Named]], only: Sequence[str]) -> set[str]:
    """Return the names of what is to be computed: of each kind those that are asked for, or all.

    Raises:
        UserError: a name is that of nothing.
    """
    named = [{entry.name for entry in entries} for entries in kinds]
    found = Problems("There is nothing of this name to compute:")
    for name in only:
        if not any(name in names for names in named):
            found.add("--only", f"{name!r}", f"Choose among {', '.join(sorted(set().union(*named)))}.")
    found.raise_any()
    return set().union(*(names & set(only) or names for names in named))


def facts_of_method(comparison: Comparison, entry: MethodEntry) -> Row:
    """Return what a method is: its seeds, its options, and those that differ from the defaults."""
    own = entry.configured
    return {
        "name": entry.name,
        "method": entry.method,
        "title": own.title,
        "seeds": comparison.seeds_of(entry),
        "options": own.model_dump(mode="json"),
        "changed": own.model_dump(mode="json", exclude_defaults=True),
    }


def write_results(
    out: Path,
    document: Mapping[str, Any],
    rows: Sequence[Row],
    columns: Sequence[str],
    page_name: str,
    page: Callable[[Any], str],
) -> None:
    """Write results.json, results.parquet and the page.

    Args:
        out: the folder.
        document: JSON values.
        rows, columns: of the table.
        page_name: of the file.
        page: makes HTML of the document.
    """
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):  # another process may compute other fits of the comparison
        write_json(out / RESULTS, document)
        counts = {name: kind for name, kind in _COUNTS.items() if name in columns}
        write_table(out / TABLE, pd.DataFrame(list(rows), columns=list(columns)).astype(counts))
        draft = out / f".{page_name}.draft"
        draft.write_text(page(document), encoding="utf-8")
        draft.replace(out / page_name)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet, so that the file is either absent, old or complete."""
    draft = path.with_name(f".{path.name}.draft")
    table.to_parquet(draft, index=False)
    draft.replace(path)


def raise_failures(failures: Iterable[str]) -> None:
    """Raise what failed, after all else is done.

    Raises:
        UserError: something did.
    """
    found = Problems("Everything else is done, and this failed:")
    found.extend(failures)
    found.raise_any()
