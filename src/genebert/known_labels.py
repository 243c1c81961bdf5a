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

from genebert.errors import Problems, UserError, problem
from genebert.inputs.genome import Genome
from genebert.target import CLASS, LABEL_PREFIX, VALUE, Target, label_names
from genebert.tasks.windows import COORDINATES, read_windows

Numbers = NDArray[np.float64]
LEAST = 1e-6
"""Probabilities are taken to lie so far from 0 and 1, so that their log-odds are finite."""
CELL_TYPE = "cell_type"


def softened(mean: Numbers, labels: int | Numbers, prior: float) -> Numbers:
    """Return the mean of so many labels as if `prior` were one more: a single label, or equal ones, are not certain."""
    return (labels * mean + prior) / (labels + 1)


def pooled(members: Numbers) -> Numbers:
    """Return the probabilities that the mean log-odds of members stand for, without the first axis.

    It is a logarithmic opinion pool (Genest and Zidek 1986, Statist Sci 1:114) with equal weights.

    Args:
        members: probabilities, float64, shape (members, ...); NaN where one says nothing, and the others count alone.
    """
    kept = np.clip(members, LEAST, 1 - LEAST)
    return np.asarray(1 / (1 + np.exp(-mean_of_said(np.log(kept) - np.log1p(-kept)))))


def mean_of_said(members: Numbers) -> Numbers:
    """Return the mean over the first axis of what is not NaN; NaN where all are."""
    said = np.isfinite(members)
    count = said.sum(axis=0)
    total = np.where(said, members, 0).sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0))


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
            target: two classes, whose names the labels are; of columns, 0 and 1.
            width: windows are widened or narrowed to it around their centre, as those to predict are.

        Raises:
            UserError: it cannot be used, or contradicts itself; see also `read_windows`.
        """
        windows = read_windows(path, genome, labelled=True, width=width)
        table, names = windows.table, label_names(windows.table)
        if not windows.located:
            remedy = "Give chrom, start, end, and no `sequence`."
            raise UserError(problem(windows.path, "its windows have no coordinates", remedy))
        if windows.per_cell_type:
            rows = _from_rows(windows.path, table, target)
        elif names:
            rows = _from_columns(windows.path, table, names, target)
        else:
            what = "it names no cell types"
            raise UserError(problem(windows.path, what, "Give columns `label:CELLTYPE`, or `cell_type` and `label`."))
        if rows.empty:
            raise UserError(problem(windows.path, "no label is known", "Give some, or leave --known out."))
        _check_contradictions(windows.path, rows)
        return cls(rows.pivot_table(VALUE, list(COORDINATES), CELL_TYPE, observed=True))

    def of(self, windows: pd.DataFrame) -> Numbers:
        """Return the share of known cell types, but each row's own, in which the window is of the second class.

        Args:
            windows: DataFrame with chrom, start, end, cell_type.

        Returns:
            float64, shape (n,), as if the share among all labels were that of one more cell type; NaN for windows that
            are not known in any other cell type.
        """
        truth = self.truth.reindex(pd.MultiIndex.from_frame(windows[list(COORDINATES)])).to_numpy(np.float64, copy=True)
        truth[windows[CELL_TYPE].to_numpy()[:, None] == self.truth.columns.to_numpy()] = np.nan
        count = np.isfinite(truth).sum(axis=1)
        return softened(mean_of_said(truth.T), count, float(np.nanmean(self.truth.to_numpy())))


def _from_rows(path: Path, table: pd.DataFrame, target: Target) -> pd.DataFrame:
    """Return chrom, start, end, cell_type, value of a table with a row per window and cell type."""
    unknown = sorted(set(table.get(CLASS, pd.Series(dtype=str))) - set(target.names))
    if CLASS not in table or unknown:
        what = f"it has labels that the model does not know: {', '.join(unknown)}" if unknown else "it has no `label`"
        raise UserError(problem(path, what, f"The model's classes are {', '.join(target.names)}."))
    value = table[CLASS].map({name: i for i, name in enumerate(target.names)}).astype(float)
    return table.assign(**{VALUE: value})[[*COORDINATES, CELL_TYPE, VALUE]]


def _from_columns(path: Path, table: pd.DataFrame, names: list[str], target: Target) -> pd.DataFrame:
    """Return the same of a table with a row per window and a column per cell type."""
    if target.names != ("0", "1"):
        what = f"its labels are 0 and 1, and the model's classes are {', '.join(target.names)}"
        raise UserError(problem(path, what, "Give columns `cell_type` and `label`, with the model's classes."))
    columns = table[[LABEL_PREFIX + name for name in names]].set_axis(names, axis=1)
    wide = pd.concat([table[list(COORDINATES)], columns.mask(columns == "").astype(float)], axis=1)
    return wide.melt(list(COORDINATES), var_name=CELL_TYPE, value_name=VALUE).dropna(subset=VALUE)


def _check_contradictions(path: Path, rows: pd.DataFrame) -> None:
    key = [*COORDINATES, CELL_TYPE]
    different = rows.drop_duplicates([*key, VALUE]).groupby(key, sort=False).size()
    found = Problems(f"The labels {path} contradict themselves:")
    for chrom, start, end, cell_type in different[different > 1].index:
        found.add(f"{chrom}:{start}-{end}, {cell_type}", "several rows say different things", "Keep one of them.")
    found.raise_any()


def with_known(predicted: Numbers, known: Numbers) -> Numbers:
    """Return predictions put together with what known cell types say: float64, shape (n, 2); see `pooled`.

    Args:
        predicted: probabilities of two classes, float64, shape (n, 2).
        known: that of the second class by `KnownLabels.of`, float64, shape (n,); where NaN, predictions stay.
    """
    second = np.where(np.isfinite(known), pooled(np.stack([predicted[:, 1], known])), predicted[:, 1])
    return np.stack([1 - second, second], axis=1)
