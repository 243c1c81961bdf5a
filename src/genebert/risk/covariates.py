"""Covariates of individuals, as numbers (numpy, pandas and scipy only)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import qr

from genebert.errors import Problems

LEVELS = 10
"""Most levels of a covariate of words."""
LINE = "LINE"
"""Column of the lines of a table; names of the file's own columns are in lower case."""
MISSING = frozenset({"", ".", "na", "nan"})
"""What says that a value is not known, in lower case; see `is_missing`."""
_PLINKS = -9
_DEPENDENT = 1e-8
_SAME = 1 - 1e-9


@dataclass(frozen=True)
class Covariates:
    """Covariates of n individuals.

    Attributes:
        names: of the columns; a word's column is named "covariate=word", for all words but the first.
        numbers: float64, shape (n, names).
    """

    names: tuple[str, ...]
    numbers: NDArray[np.float64]

    def joined(self, names: Sequence[str], values: NDArray[np.float64]) -> "Covariates":
        """Return the covariates with further columns, float64, shape (n, names)."""
        return Covariates((*self.names, *names), np.concatenate([self.numbers, values], axis=1))

    @property
    def design(self) -> NDArray[np.float64]:
        """A column of ones and the covariates, these with mean 0 and variance 1: shape (n, 1 + names)."""
        spread = self.numbers.std(axis=0)
        scaled = (self.numbers - self.numbers.mean(axis=0)) / np.where(spread > 0, spread, 1)
        return np.concatenate([np.ones((len(self.numbers), 1)), scaled], axis=1)

    def check(self, phenotype: NDArray[np.float64], found: Problems) -> None:
        """Note which covariates are constant, follow from the ones before them, or say what the phenotype says.

        Args:
            phenotype: shape (n,).
            found: where to note them.
        """
        constant = np.ptp(self.numbers, axis=0) == 0 if len(self.numbers) else np.zeros(len(self.names), dtype=bool)
        for name, value in zip(np.array(self.names)[constant], self.numbers[0, constant], strict=True):
            found.add(f"covariate {name}", f"it is {value:g} for all individuals", "Leave it out.")
        if not constant.any() and len(self.numbers):
            for name in self._dependent():
                found.add(f"covariate {name}", "it follows from the others (they are collinear)", "Leave it out.")

        if len(phenotype) and np.ptp(phenotype) > 0:
            standard = (phenotype - phenotype.mean()) / phenotype.std()
            correlation = np.abs(standard @ self.design[:, 1:]) / len(phenotype)
            for name in np.array(self.names)[correlation > _SAME]:
                what = "it says the same as the phenotype (their correlation is 1 or -1)"
                found.add(f"covariate {name}", what, "Leave it out.")
            if not (correlation > _SAME).any() and self._left(standard) < 1 - _SAME**2:
                what = "together they say the same as the phenotype, so that nothing is left to explain"
                found.add(f"covariates {', '.join(self.names)}", what, "Leave some of them out.")

    def _left(self, phenotype: NDArray[np.float64]) -> float:
        """Return the share of a phenotype's variance that the covariates do not explain."""
        design = self.design
        explained = design @ np.linalg.lstsq(design, phenotype, rcond=None)[0]
        return float(((phenotype - explained) ** 2).sum() / ((phenotype - phenotype.mean()) ** 2).sum())

    def _dependent(self) -> list[str]:
        """Return the columns that are combinations of the ones before them."""
        diagonal = np.abs(np.diagonal(qr(self.design, mode="r")[0]))
        limit = _DEPENDENT * np.sqrt(len(self.numbers))
        return [name for name, size in zip(self.names, diagonal[1:], strict=False) if size < limit]


def is_missing(column: pd.Series) -> pd.Series:
    """Return which texts say that a value is not known; that of PLINK may be written as any number is (-9.0)."""
    return column.str.lower().isin(MISSING) | (pd.to_numeric(column, errors="coerce") == _PLINKS)


def read_covariates(table: pd.DataFrame, columns: Sequence[str], sample: str, found: Problems) -> Covariates:
    """Return columns of a table of texts as numbers: numbers as they are, words as 0 or 1 for each but the first.

    Args:
        table: with a column `LINE`.
        columns: names of the covariates.
        sample: name of the column of samples.
        found: where to note values that are missing, are no numbers among numbers, or are too many words.
    """
    names: list[str] = []
    parts = [np.empty((len(table), 0))]
    for column in columns:
        numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
        unknown = is_missing(table[column]).to_numpy()
        for line, who in table.loc[unknown, [LINE, sample]].itertuples(index=False):
            what = f"covariate {column} of sample {who} is missing"
            found.add(f"line {line}", what, "Fill it in, remove the line, or leave the covariate out.")
        written = ~np.isfinite(numbers) & ~unknown
        if written.sum() <= (~unknown).sum() / 2:
            _check_numbers(table[written], column, found)
            names.append(column)
            parts.append(numbers[:, None])
        else:
            words = sorted(set(table.loc[~unknown, column]))
            if len(words) > LEVELS:
                what = f"covariate {column} has {len(words)} different words, such as {words[0]!r} and {words[1]!r}"
                found.add("line 1", what, f"Give numbers, or at most {LEVELS} words.")
            names += [f"{column}={word}" for word in words[1:]]
            parts.append((table[[column]].to_numpy() == np.array(words[1:], dtype=object)).astype(np.float64))
            if len(words) == 1:
                found.add(f"covariate {column}", f"it is {words[0]} for all individuals", "Leave it out.")
    return Covariates(tuple(names), np.concatenate(parts, axis=1))


def _check_numbers(wrong: pd.DataFrame, column: str, found: Problems) -> None:
    for line, text in wrong[[LINE, column]].itertuples(index=False):
        found.add(f"line {line}", f"covariate {column} is {text!r}, and other lines have numbers", "Give a number.")
