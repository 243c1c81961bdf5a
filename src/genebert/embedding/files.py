"""AnnData with a matrix that is larger than the memory, written in blocks, and a user's own with embeddings added."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from numpy.typing import NDArray

from genebert.corpus.overlaps import best_overlaps
from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.inputs.h5ad import h5ad_variables, read_h5ad_peaks

_ROWS = 1 << 12  # copied together
Block = tuple[slice, NDArray[np.float32]]
"""Rows of a matrix, and their values."""


def dimensions(name: str, count: int) -> pd.DataFrame:
    """Return the var of an embedding: name0, name1, ..."""
    return pd.DataFrame(index=[f"{name}{i}" for i in range(count)])


def write_embedding(
    path: Path,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    blocks: Iterable[Block],
    obsm: Mapping[str, NDArray[Any]],
    about: Mapping[str, Any],
) -> None:
    """Write an h5ad whose X comes in blocks.

    Args:
        path: of the new file.
        obs, var: its tables.
        blocks: of X, float32; each row once, in any order.
        obsm: further coordinates of the rows.
        about: for uns.
    """
    anndata.AnnData(obs=obs, var=var, obsm=dict(obsm), uns=dict(about)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        x = _new_matrix(file, "X", (len(obs), len(var)))
        for rows, values in blocks:
            x[rows] = values


def _new_matrix(group: h5py.Group, name: str, shape: tuple[int, int]) -> h5py.Dataset:
    """Add an empty float32 matrix, as AnnData marks one."""
    made = group.create_dataset(name, shape=shape, dtype=np.float32)
    made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"
    return made


def region_of_peaks(path: Path, corpus: Corpus, regions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the regions of a user's peaks: of each, that with which it shares most bases; of equals, the first.

    Args:
        path: h5ad whose variables are named by coordinates, or have columns of them.
        corpus: the corpus.
        regions: indices of the regions that are embedded, int64, ascending, shape (n,).

    Returns:
        place in `regions` of each variable's region, or -1: int64, shape (variables,).

    Raises:
        UserError: the file is no h5ad of peaks, or none of them overlaps a region.
    """
    table = read_h5ad_peaks(path, corpus.lengths, skip_unknown=True, lenient=True).table
    row = best_overlaps(table, corpus.regions.iloc[regions])
    if not (row >= 0).any():
        others = int((best_overlaps(table, corpus.regions) >= 0).sum())
        what = f"none of its {len(row):,} peaks overlaps a region that is to be embedded"
        remedy = "Check that it is of the corpus' genome assembly."
        if others:
            what += f", and {others:,} overlap others of the corpus"
            remedy = "Embed more of them (--sample, --regions, --cell-types)."
        raise UserError(problem(path, what, remedy))
    source = np.full(h5ad_variables(path), -1)
    source[table["column"].to_numpy()] = row
    return source


def join(path: Path, out: Path, source: NDArray[np.int64], matrices: Mapping[str, NDArray[Any] | h5py.Dataset]) -> None:
    """Write a copy of a user's cells x peaks with the embeddings of their regions.

    What lies in varm under the same name is replaced.

    Args:
        path: h5ad.
        out: of the copy.
        source: see `region_of_peaks`.
        matrices: name in varm -> embeddings of regions, shape (n, d). Rows of peaks without one become NaN.
    """
    shutil.copyfile(path, out)
    with h5py.File(out, "r+") as file:
        if "varm" not in file:
            write_elem(file, "varm", {})
        for name, values in matrices.items():
            if name in file["varm"]:
                del file["varm"][name]
            _fill(_new_matrix(file["varm"], name, (len(source), values.shape[1])), source, values)


def _fill(target: h5py.Dataset, source: NDArray[np.int64], values: NDArray[Any] | h5py.Dataset) -> None:
    """Copy rows of `values` (-1: none, NaN) in blocks; peaks near each other have regions near each other."""
    for start in range(0, len(source), _ROWS):
        wanted = source[start : start + _ROWS]
        block = np.full((len(wanted), target.shape[1]), np.nan, dtype=np.float32)
        known, place = np.unique(wanted[wanted >= 0], return_inverse=True)
        if len(known):
            block[wanted >= 0] = values[known][place]
        target[start : start + len(wanted)] = block
