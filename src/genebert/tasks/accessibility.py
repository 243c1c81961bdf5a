"""Accessibility: is a region accessible in a cell type? The labels come from a corpus.

A training cell type is asked about in every split, a held-out one in the regions of its own split only: rows for
training hold neither held-out regions nor held-out cell types, and rows for testing that name a held-out cell type
are new in both respects.

The network sees the region's sequence, its motif evidence, and which other regions are accessible nearby in the cell
type, but never the region's own accessibility (see `region_matrix.neighbourhood`).

With `every`, there is a row per region and a column per cell type, held-out ones included: what is trained on is then
for cross-validation to say. A cell type is a label there, and not what a network is told, so that such a table makes no
held-out cell type known to a network that is fine-tuned per cell type.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from genebert.corpus.splits import NONE
from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.schema import SPLITS
from genebert.target import LABEL_PREFIX
from genebert.tasks.base import LabelTable, Sources, Task
from genebert.tasks.on_genome import sort_windows


class Accessibility(Task):
    """Label regions of a corpus by their accessibility in a cell type, as many accessible as not.

    Columns: chrom, start, end, cell_type, label (1 accessible, 0 not), split. Balanced per cell type and split. With
    --every: chrom, start, end, label:CELLTYPE of each cell type (1, 0), split, for all regions.
    """

    genome: Path = Field(description="genome of the corpus: FASTA (plain or bgzip) or 2bit")
    corpus: Path = Field(description="folder made by prepare")
    per_cell_type: int = Field(400, ge=2, description="most windows of each label per cell type and split")
    every: bool = Field(
        False,
        description="all regions, not balanced, with a column for each cell type, held-out ones included, as "
        "cross-validate needs them; there is then no --per-cell-type",
    )

    def windows(self, sources: Sources) -> LabelTable:
        """Return regions labelled 1 (accessible) or 0 in a cell type, with their split.

        Raises:
            UserError: there is nothing to tell apart in training.
        """
        corpus = sources.corpus
        assert corpus is not None, "--corpus is required"
        table = self.whole_table(corpus) if self.every else self.table(corpus)
        if (table["split"] == "train").any():
            return LabelTable(table)
        what = "no training cell type has both accessible regions and others on training chromosomes"
        remedy = "Prepare a corpus with two training cell types or more: all regions are accessible in a single one."
        raise UserError(problem(corpus.folder, what, remedy))

    def whole_table(self, corpus: Corpus) -> pd.DataFrame:
        """Return the table of `windows` with `every`; the split is that of the chromosome.

        Regions on held-out chromosomes that are left out for sharing sequence with training regions stay left out.
        """
        by_chromosome = np.array(corpus.split_of(corpus.regions["chrom"].tolist()))
        table = corpus.regions[["chrom", "start", "end"]].assign(split=by_chromosome)
        for index, cell_type in enumerate(corpus.cell_types):
            label = np.zeros(len(table), dtype=np.int64)
            label[corpus.accessible(index)] = 1
            table[LABEL_PREFIX + cell_type] = label
        return table[(corpus.split != NONE) | (by_chromosome == "train")].reset_index(drop=True)

    def table(self, corpus: Corpus) -> pd.DataFrame:
        """Return the table of `windows`."""
        generator = np.random.default_rng(self.seed)
        tables = []
        for index, cell_type in enumerate(corpus.cell_types):
            accessible = np.zeros(len(corpus.regions), dtype=bool)
            accessible[corpus.accessible(index)] = True
            for split in _splits_of(corpus.cell_type_part[index]):
                groups = [np.flatnonzero((corpus.split == split) & (accessible == label)) for label in (False, True)]
                size = min(self.per_cell_type, *map(len, groups))
                for label, group in enumerate(groups):
                    chosen = np.sort(generator.choice(group, size, replace=False))
                    tables.append(corpus.regions.iloc[chosen].assign(cell_type=cell_type, label=label))
        table = pd.concat(tables, ignore_index=True)
        return sort_windows(table[["chrom", "start", "end", "cell_type", "label", "split"]])


def _splits_of(part: int) -> list[int]:
    """Return the splits in which cell types of a part are asked about; all are indices into `SPLITS`."""
    return [part] if part else list(range(len(SPLITS)))
