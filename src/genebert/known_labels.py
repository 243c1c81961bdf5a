"""What the labels of known cell types say of windows in another one, and how that goes together with predictions.

Most windows are alike in all cell types, so that the mean over known ones is hard to beat (Schreiber, Singh, Bilmes and
Noble 2020, Genome Biol 21:282); but it says nothing of the cell type, and a predictor does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome
from genebert.target import CLASS, LABEL_PREFIX, Target, label_names
from genebert.tasks.windows import COORDINATES, read_windows

Numbers = NDArray[np.float64]
LEAST = 1e-4
"""Probabilities are taken to lie so far from 0 and 1, so that their log-odds are finite."""
CELL_TYPE = "cell_type"


def softened(mean: Numbers, labels: int | Numbers, prior: float) -> Numbers:
    """Return the mean of so many labels as if `prior` were one more: a single label, or equal ones, are not certain."""
    return (labels * mean + prior) / (labels + 1)


def pooled(members: Numbers) -> Numbers:
    """Return the probabilities that the mean log-odds of members stand for, without the first axis.

    It is a logarithmic opinion pool (Genest and Zidek 1986, Statist Sci 1:114) with equal weights.

    Args:
        members: probabilities, float64, shape (members, ...).
    """
    kept = np.clip(members, LEAST, 1 - LEAST)
    log_odds = (np.log(kept) - np.log1p(-kept)).mean(axis=0)
    return np.asarray(1 / (1 + np.exp(-log_odds)))


@dataclass(frozen=True)
class KnownLabels:
    """Labels of windows in known cell types.

    Attributes:
        truth: DataFrame, a row per window, by chrom, start, end (0-based, half-open), and a column per cell type: 1 for
            the second class, 0 for the first, NaN where it is not known.
    """

    truth: pd.DataFrame

    @classmethod
    def read(cls, path: Path, genome: Genome, target: Target, width: int) -> Self:
        """Read labels: a table, or a folder made by `genebert labels`, as for `finetune`.

        Args:
            path: table with chrom, start, end, and either columns `label:CELLTYPE` (0, 1 or empty), or `cell_type` and
                `label`.
            genome: the genome.
            target: two classes, whose names the labels are.
            width: windows are widened or narrowed to it around their centre, as those to predict are.

        Raises:
            UserError: it cannot be used; see also `read_windows`.
        """
        windows = read_windows(path, genome, labelled=True, width=width)
        table = windows.table
        if not windows.located:
            raise UserError(problem(windows.path, "its windows have no coordinates", "Give chrom, start, end."))
        if not windows.per_cell_type and not (names := label_names(table)):
            what = "it names no cell types"
            raise UserError(problem(windows.path, what, "Give columns `label:CELLTYPE`, or `cell_type` and `label`."))
        if windows.per_cell_type:
            _check_classes(windows.path, table, target)
            value = table[CLASS].map({name: i for i, name in enumerate(target.names)}).astype(float)
            rows = table.assign(value=value)[[*COORDINATES, CELL_TYPE, "value"]]
            return cls(rows.pivot_table("value", list(COORDINATES), CELL_TYPE, observed=True))
        columns = table[[LABEL_PREFIX + name for name in names]]
        truth = columns.mask(columns == "").astype(float).set_axis(names, axis=1)
        return cls(
            truth.set_index(pd.MultiIndex.from_frame(table[list(COORDINATES)])).groupby(level=list(COORDINATES)).mean()
        )

    def of(self, windows: pd.DataFrame) -> Numbers:
        """Return the share of known cell types, but each row's own, in which the window is of the second class.

        Args:
            windows: DataFrame with chrom, start, end, cell_type.

        Returns:
            float64, shape (n,), as if the share among all labels were that of one more cell type; NaN for windows that
            are not known in any other cell type.
        """
        truth = self.truth.reindex(pd.MultiIndex.from_frame(windows[list(COORDINATES)])).to_numpy(np.float64)
        truth[windows[CELL_TYPE].to_numpy()[:, None] == self.truth.columns.to_numpy()] = np.nan
        known = np.isfinite(truth)
        count = known.sum(axis=1)
        mean = np.divide(np.where(known, truth, 0).sum(axis=1), count, out=np.full(len(truth), np.nan), where=count > 0)
        return softened(mean, count, float(np.nanmean(self.truth.to_numpy())))


def _check_classes(path: Path, table: pd.DataFrame, target: Target) -> None:
    unknown = sorted(set(table.get(CLASS, pd.Series(dtype=str))) - set(target.names))
    if CLASS not in table or unknown:
        what = f"it has labels that the model does not know: {', '.join(unknown)}" if unknown else "it has no `label`"
        raise UserError(problem(path, what, f"The model's classes are {', '.join(target.names)}."))


def with_known(predicted: Numbers, known: Numbers) -> Numbers:
    """Return predictions put together with what known cell types say: float64, shape (n, 2); see `pooled`.

    Args:
        predicted: probabilities of two classes, float64, shape (n, 2).
        known: that of the second class by `KnownLabels.of`, float64, shape (n,); where NaN, predictions stay.
    """
    second = np.where(np.isfinite(known), pooled(np.stack([predicted[:, 1], known])), predicted[:, 1])
    return np.stack([1 - second, second], axis=1)
