"""Differential accessibility: in which of two cell types is a region more accessible? The labels come from a corpus.

Regions that differ are set against regions that do not, on the same chromosome and alike in GC content. The window's
sequence is all that tells them apart: rows name no cell type.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from genebert.corpus.store import Corpus
from genebert.errors import Problems, UserError, problem
from genebert.inputs.genome import Genome
from genebert.schema import SPLITS
from genebert.tasks.base import LabelTable, Note, Sources, Task
from genebert.tasks.on_genome import matched_windows, sort_windows

ALIKE = "alike"
_COORDINATES = ["chrom", "start", "end"]


class Differential(Task):
    """Label regions of a corpus by the one of two cell types in which they are more accessible, or by how much.

    Columns: chrom, start, end, split, and label (the cell type in which it is more accessible, or `alike`) or value
    (log2 of the signal per million in the first cell type over that in the second, with half the median signal of
    accessible training regions added to both).
    """

    genome: Path = Field(description="genome of the corpus: FASTA (plain or bgzip) or 2bit")
    corpus: Path = Field(description="folder made by prepare")
    cell_types: list[str] = Field(description="the two cell types")
    target: Literal["class", "value"] = Field("class", description="class: which of the two; value: log2 fold change")
    fold_change: float | None = Field(
        None,
        gt=0,
        description="log2 fold change from which regions differ, and up to half of which they are alike (default: "
        "regions differ that are accessible in one only, and are alike if accessible in both)",
    )
    ratio: float = Field(1.0, gt=0, description="regions that are alike for each that differs (class)")

    def windows(self, sources: Sources) -> LabelTable:
        """Return regions labelled by cell type, or with their log2 fold change; see the class.

        Raises:
            UserError: two cell types that are for training are not named, or no region differs.
        """
        assert sources.corpus is not None, "--corpus is required"
        pair = self._pair(sources.corpus)
        change, member = _fold_changes(sources.corpus, pair)
        usable = (sources.corpus.split < len(SPLITS)) & member.any(axis=0)
        if self.target == "value":
            return LabelTable(sources.corpus.regions[usable].assign(value=change[usable].round(4)))
        return self._classes(sources, change, member, usable)

    def _pair(self, corpus: Corpus) -> NDArray[np.int64]:
        if len(set(self.cell_types)) != 2 or len(self.cell_types) != 2:
            what = f"{', '.join(self.cell_types)}: two are compared"
            raise UserError(problem("--cell-types", what, "Name two cell types."))
        pair = corpus.cell_type_indices(self.cell_types)
        found = Problems("The cell types cannot be compared:")
        for name in np.array(self.cell_types)[corpus.cell_type_part[pair] > 0].tolist():
            what = "it is held out, so that no label for training may be made of it"
            found.add(name, what, "Name cell types that the corpus is for training in.")
        if ALIKE in self.cell_types:
            found.add(ALIKE, "regions that do not differ are called so", "Give the cell type another name.")
        found.raise_any()
        return pair

    def _classes(
        self, sources: Sources, change: NDArray[np.float64], member: NDArray[np.bool_], usable: NDArray[np.bool_]
    ) -> LabelTable:
        assert sources.corpus is not None
        first, second, alike = self._groups(change, member)
        regions = sources.corpus.regions
        tables = [
            regions[usable & group].assign(label=name)
            for name, group in zip(self.cell_types, (first, second), strict=True)
        ]
        for name, table in zip(self.cell_types, tables, strict=True):
            if table.empty:
                what = f"no region is more accessible in {name}"
                raise UserError(problem("--cell-types", what, "Choose others, or a lower --fold-change."))
        matched = _matched(sources.need_genome(), pd.concat(tables), regions[usable & alike], self.ratio, self.seed)
        wanted = int((self.ratio * pd.concat(tables).groupby("chrom").size()).round().sum())
        notes: dict[str, Note] = {
            "regions left out that neither differ nor are alike": int((usable & ~first & ~second & ~alike).sum()),
            "regions that are alike wanting": wanted - len(matched),
        }
        return LabelTable(sort_windows(pd.concat([*tables, matched.assign(label=ALIKE)], ignore_index=True)), notes)

    def _groups(self, change: NDArray[np.float64], member: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
        """Return which regions are more accessible in the first cell type, in the second, and in both alike."""
        in_both = member[0] & member[1]
        if self.fold_change is None:
            return member[0] & ~in_both, member[1] & ~in_both, in_both
        alike = in_both & (np.abs(change) <= self.fold_change / 2)
        return change >= self.fold_change, change <= -self.fold_change, alike


def _fold_changes(corpus: Corpus, pair: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the log2 fold change of each region, shape (n,), and in which of the pair it is accessible, (2, n)."""
    signal = np.zeros((2, len(corpus.regions)))
    member = np.zeros(signal.shape, dtype=bool)
    for row, cell_type in enumerate(pair.tolist()):
        own = slice(*corpus.accessible_offsets[cell_type : cell_type + 2])
        signal[row, corpus.accessible_regions[own]] = np.expm1(corpus.accessible_values[own])
        member[row, corpus.accessible_regions[own]] = True
    half = np.median(signal[:, corpus.split == 0][member[:, corpus.split == 0]]) / 2
    change: NDArray[np.float64] = np.log2((signal[0] + half) / (signal[1] + half))
    return change, member


def _matched(genome: Genome, differing: pd.DataFrame, alike: pd.DataFrame, ratio: float, seed: int) -> pd.DataFrame:
    """Return regions that are alike, with their split, near those that differ in chromosome and GC content."""
    nothing = differing.iloc[:0]
    windows = matched_windows(genome, differing, nothing, np.random.default_rng(seed), ratio=ratio, pool=alike)
    return windows.merge(alike, on=_COORDINATES, how="left", validate="one_to_one")
