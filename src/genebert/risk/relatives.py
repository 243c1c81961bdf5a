"""Who is related to whom, so that relatives stay together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from genebert.console import say
from genebert.errors import Problems, UserError, problem
from genebert.inputs.intervals import read_table

THIRD_DEGREE = 2**-4.5
"""0.0442: from this kinship on, two individuals are relatives of third degree or closer (KING, Manichaikul et al.
2010)."""
_PAIR_COLUMNS = (("sample1", "sample2"), ("id1", "id2"), ("iid1", "iid2"))


@dataclass(frozen=True)
class Kinship:
    """Pairs of a table.

    Attributes:
        names: of all samples in it.
        related: pairs of third degree or closer.
    """

    names: list[str]
    related: list[tuple[str, str]]

    def among(self, samples: Sequence[str], path: Path, vcf: Path) -> list[tuple[str, str]]:
        """Return the related pairs of samples; how many there are, and whether samples are not found, is told.

        Args:
            samples: names.
            path: of the table.
            vcf: where samples are from.

        Raises:
            UserError: the table has none of the samples.
        """
        known = set(samples)
        found = known.intersection(self.names)
        if not found:
            what = f"it has no sample in common with the individuals of {vcf} (the first: {self.names[0]} there,"
            what += f" {samples[0]} in {vcf})"
            raise UserError(problem(path, what, "Name samples as the VCF does."))
        if len(found) < len(self.names):
            others = next(name for name in self.names if name not in known)
            count = f"{len(self.names) - len(found):,} of {len(self.names):,} samples"
            say(f"warning: {count} of {path}, such as {others}, are not among the individuals: passed over")
        pairs = [pair for pair in self.related if known.issuperset(pair)]
        say(f"{len(pairs):,} related pairs of {path} stay together")
        return pairs


def group_of(samples: Sequence[str], family: Sequence[str], pairs: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    """Return a number for each individual: relatives, directly or through others, have the same one.

    Args:
        samples: n names.
        family: n families, "" for none.
        pairs: of related samples.

    Returns:
        int64, shape (n,).
    """
    index = {name: i for i, name in enumerate(samples)}
    first: dict[str, int] = {}
    linked = [(first.setdefault(name, i), i) for i, name in enumerate(family) if name]
    linked += [(index[a], index[b]) for a, b in pairs]
    rows = np.array(linked, dtype=np.int64).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(rows)), (rows[:, 0], rows[:, 1])), shape=(len(samples),) * 2)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def read_kinship(path: Path) -> Kinship:
    """Read a table of pairs: sample1, sample2 (or, as KING writes, ID1, ID2) and kinship.

    Raises:
        UserError: the table cannot be used.
    """
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
    names = list(dict.fromkeys(table[list(columns)].to_numpy().ravel().tolist()))
    return Kinship(names, list(table.loc[number >= THIRD_DEGREE, list(columns)].itertuples(index=False, name=None)))
