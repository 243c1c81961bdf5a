"""Effects of windows become means per cell type, with intervals, ranks, and what is specific to the cell type.

Windows are drawn with replacement; one that is looked at in several cell types is drawn for all of them, so that
differences between cell types have their own intervals.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from genebert.metrics import LEVEL
from genebert.resampling import Numbers

Effects = NDArray[np.float32]
_TAILS = 100 * np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])


def means(weights: Numbers, windows: Sequence[NDArray[np.int64]], effects: Sequence[Effects]) -> Numbers:
    """Return mean effects in each resample: float64, shape (cell types, resamples, columns); NaN where none is drawn.

    Args:
        weights: how often each window is drawn, shape (resamples, windows); the first row is once each.
        windows: of each cell type, int64, shape (n,).
        effects: of each cell type, shape (n, columns).
    """
    drawn = [weights[:, some] for some in windows]
    sums = [one @ values.astype(np.float64) for one, values in zip(drawn, effects, strict=True)]
    counts = [one.sum(axis=1, keepdims=True) for one in drawn]
    empty = [np.full_like(total, np.nan) for total in sums]
    parts = zip(sums, counts, empty, strict=True)
    return np.stack([np.divide(total, count, out=out, where=count > 0) for total, count, out in parts])


def interval(name: str, values: Numbers) -> dict[str, Numbers]:
    """Return name, name_low and name_high: the first of the resamples, and their 95% percentile interval.

    Args:
        name: of the columns.
        values: shape (resamples, columns).
    """
    defined = values[1:][np.isfinite(values[1:]).all(axis=1)]  # the others drew no window of a cell type
    low, high = np.percentile(defined if len(defined) else values[:1], _TAILS, axis=0)
    return {name: values[0], f"{name}_low": low, f"{name}_high": high}


def importance_rows(
    cell_types: Sequence[str],
    motifs: pd.DataFrame,
    measure: str,
    weights: Numbers,
    windows: Sequence[NDArray[np.int64]],
    effects: Sequence[Effects],
) -> pd.DataFrame:
    """Return one row per cell type and motif.

    Args:
        cell_types: names.
        motifs: DataFrame with motif and name, one row per column of the effects.
        measure: its name.
        weights, windows, effects: see `means`.

    Returns:
        DataFrame with cell_type, motif, name, measure, and, each with its interval: effect (the mean), absolute (the
        mean of absolute values), rank (1: the largest absolute), specific (the effect less its mean over cell types).
    """
    signed, absolute = (means(weights, windows, found) for found in (effects, [np.abs(one) for one in effects]))
    specific = signed - signed.mean(axis=0)
    tables = []
    for i, cell_type in enumerate(cell_types):
        columns: dict[str, Any] = interval("effect", signed[i]) | interval("absolute", absolute[i])
        columns |= interval("rank", rankdata(-absolute[i], axis=1)) | interval("specific", specific[i])
        tables.append(motifs.assign(**columns, cell_type=cell_type, measure=measure))
    table = pd.concat(tables, ignore_index=True)
    first = ["cell_type", "motif", "name", "measure"]
    return table[[*first, *(name for name in table.columns if name not in first)]]


def pair_rows(
    cell_type: str,
    motifs: pd.DataFrame,
    pairs: Sequence[tuple[int, int]],
    weights: Numbers,
    window: NDArray[np.int64],
    joint: Effects,
    interaction: Effects,
) -> pd.DataFrame:
    """Return one row per pair of motifs.

    Args:
        cell_type: name.
        motifs: DataFrame with motif and name.
        pairs: rows of it.
        weights: see `means`.
        window: int64, shape (n,).
        joint, interaction: of each window, shape (n, pairs).

    Returns:
        DataFrame with cell_type, first, first_name, second, second_name, and, each with its interval: joint (the mean
        effect of both), interaction (that less the sum of both effects).
    """
    columns: dict[str, Any] = {"cell_type": cell_type}
    for place, name in enumerate(("first", "second")):
        chosen = motifs.iloc[[pair[place] for pair in pairs]]
        columns |= {name: chosen["motif"].to_numpy(), f"{name}_name": chosen["name"].to_numpy()}
    for name, effects in (("joint", joint), ("interaction", interaction)):
        columns |= interval(name, means(weights, [window], [effects])[0])
    return pd.DataFrame(columns)
