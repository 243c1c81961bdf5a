"""Who is related to whom, so that relatives stay together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from genebert.errors import Problems, UserError, problem
from genebert.inputs.intervals import read_table

THIRD_DEGREE = 2**-4.5
"""0.0442: from this kinship on, two individuals are relatives of third degree or closer (KING, Manichaikul et al.
2010)."""
_PAIR_COLUMNS = (("sample1", "sample2"), ("id1", "id2"), ("iid1", "iid2"))


def group_of(samples: Sequence[str], family: Sequence[str], kinship: Path | None) -> NDArray[np.int64]:
    """Return a number for each individual: relatives, directly or through others, have the same one.

    Args:
        samples: n names.
        family: n families, "" for none.
        kinship: table of pairs, or None: sample1, sample2 (or, as KING writes, ID1, ID2) and kinship. Pairs with other
            samples are passed over.

    Returns:
        int64, shape (n,).

    Raises:
        UserError: the table cannot be used.
    """
    index = {name: i for i, name in enumerate(samples)}
    first: dict[str, int] = {}
    pairs = [(first.setdefault(name, i), i) for i, name in enumerate(family) if name]
    if kinship is not None:
        related = _related(kinship)
        pairs += [(index[a], index[b]) for a, b in related if a in index and b in index]
    rows = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(rows)), (rows[:, 0], rows[:, 1])), shape=(len(samples),) * 2)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _related(path: Path) -> list[tuple[str, str]]:
    table = read_table(path)
    columns = next((pair for pair in _PAIR_COLUMNS if set(pair) <= set(table)), None)
    if columns is None or "kinship" not in table:
        listed = ", ".join(name for name in table if name != "line")
        what = f"it is no table of kinship; its columns are {listed}"
        raise UserError(problem(f"{path}, line 1", what, "Name the columns sample1, sample2 and kinship."))
    number = pd.to_numeric(table["kinship"], errors="coerce")
    found = Problems(f"The kinship {path} cannot be used:")
    for line, text in table.loc[~np.isfinite(number), ["line", "kinship"]].itertuples(index=False):
        found.add(f"line {line}", f"kinship is {text!r}", "Give a number.")
    found.raise_any()
    return list(table.loc[number >= THIRD_DEGREE, list(columns)].itertuples(index=False, name=None))
