"""A corpus and cell types that join it: which regions there are, and the files of both together."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.corpus import splits
from genebert.corpus.block import MOST_REGIONS
from genebert.corpus.signal import Accessibility
from genebert.corpus.store import FACTS, Corpus, CorpusWriter, link_arrays, write_rest
from genebert.corpus.work import Arrays


@dataclass(frozen=True)
class JoinedRegions:
    """The regions of a corpus and others.

    Attributes:
        table: DataFrame with chrom, start, end, split; sorted by chromosome and start, n rows.
        known: rows of the regions that the corpus has, int64, ascending.
        added: rows of the others, int64, ascending; they are in no split.
    """

    table: pd.DataFrame
    known: NDArray[np.int64]
    added: NDArray[np.int64]

    @classmethod
    def of(cls, corpus: Corpus, others: pd.DataFrame | None = None) -> Self:
        """Join the regions of a corpus and others, a DataFrame with chrom, start, end, that overlap none of them."""
        if others is None or others.empty:
            return cls(corpus.regions, np.arange(len(corpus.regions)), np.empty(0, dtype=np.int64))
        both = pd.concat([corpus.regions, others.assign(split=splits.NAMES[splits.NONE])], ignore_index=True)
        table = both.sort_values(["chrom", "start"], kind="stable")
        added = table.index.to_numpy() >= len(corpus.regions)
        return cls(table.reset_index(drop=True), np.flatnonzero(~added), np.flatnonzero(added))


def write_joined(
    corpus: Corpus, regions: JoinedRegions, blocks: Iterable[Arrays], signal: Accessibility, folder: Path
) -> None:
    """Write all files of the joined corpus but the manifest.

    Args:
        corpus: whose cell types keep the regions that they have.
        regions: its own and those that are added.
        blocks: sequence and evidence of those that are added, in their order; see `build_block`.
        signal: of the cell types that join, in `regions.table`; they count as held out for testing.
        folder: to write into.
    """
    if len(regions.added):
        _write_arrays(corpus, regions, list(blocks), folder)
    else:
        link_arrays(corpus, folder)
    _write_rest(corpus, regions, signal, folder)


def _write_arrays(corpus: Corpus, regions: JoinedRegions, blocks: list[Arrays], folder: Path) -> None:
    fresh = {name: np.concatenate([block[name] for block in blocks]) for name in ("sequence", "evidence")}
    writer = CorpusWriter(folder, len(regions.table), corpus.width, len(corpus.motifs))
    for begin in range(0, len(regions.table), MOST_REGIONS):
        end = min(begin + MOST_REGIONS, len(regions.table))
        rows: dict[str, NDArray[np.uint8]] = {}
        for name, added in fresh.items():
            rows[name] = np.empty((end - begin, added.shape[1]), dtype=np.uint8)
            for places, values in ((regions.known, getattr(corpus, name)), (regions.added, added)):
                part = slice(*np.searchsorted(places, [begin, end]))
                rows[name][places[part] - begin] = values[part]
        writer.write_block(begin, rows["sequence"], rows["evidence"])


def _write_rest(corpus: Corpus, regions: JoinedRegions, signal: Accessibility, folder: Path) -> None:
    values = np.split(corpus.accessible_values, corpus.accessible_offsets[1:-1])
    accessible: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
        name: (regions.known[corpus.accessible(i)], values[i]) for i, name in enumerate(corpus.cell_types)
    }
    accessible |= zip(signal.cell_types, zip(signal.regions, signal.values, strict=True), strict=True)
    accessible = dict(sorted(accessible.items()))
    held_out = {*corpus.test_cell_types, *signal.cell_types}
    facts = {name: getattr(corpus, name) for name in FACTS} | {
        "cell_types": list(accessible),
        "test_cell_types": [name for name in accessible if name in held_out],
    }
    arrays: dict[str, NDArray[Any]] = {
        "accessible_offsets": np.cumsum([0, *(len(rows) for rows, _ in accessible.values())], dtype=np.int64),
        "accessible_regions": np.concatenate([rows for rows, _ in accessible.values()]).astype(np.int32),
        "accessible_values": np.concatenate([values for _, values in accessible.values()]).astype(np.float32),
        "reference_regions": regions.known[corpus.reference_regions].astype(np.int32),
    }
    write_rest(folder, facts, regions.table, corpus.motifs, arrays)
