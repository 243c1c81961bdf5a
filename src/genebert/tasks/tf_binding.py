"""TF binding: windows around ChIP-seq peaks, per cell type, against unbound windows that are alike.

Peaks of several cell types become sites: the summit with the best score (by its quantile within its cell type) is
a site, summits less than half a window away belong to it, and so on with the rest (see `corpus.consensus`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from genebert.corpus.consensus import best_windows
from genebert.corpus.store import Corpus
from genebert.errors import Problems, UserError, listed, problem
from genebert.inputs.accessibility import PEAK_SUFFIXES, find_files, overlapping
from genebert.inputs.genome import Genome, spelled_chromosomes
from genebert.inputs.intervals import read_annotation, read_bed
from genebert.schema import SPLITS
from genebert.target import LABEL_PREFIX
from genebert.tasks.base import LabelTable, Note, Sources, Task
from genebert.tasks.on_genome import matched_windows, sort_windows, usable

_COORDINATES = ["chrom", "start", "end"]
_TRAIN = SPLITS.index("train")


class TfBinding(Task):
    """Label windows around the peaks of a TF (1) and unbound windows (0), in one or several cell types.

    Columns: chrom, start, end, split, and label for one file of peaks, or label:CELLTYPE for each of several: 1 if the
    cell type has a summit in the window, 0 if it has no peak there, and empty if only the flank of a peak is there, or
    if it has no peak on the whole chromosome (unless --chromosomes names it). Negatives have no peak in any cell type.
    With --by-cell-type: chrom, start, end, cell_type, label, split, a row for each window and cell type where it is
    known.
    """

    genome: Path = Field(description="genome: FASTA (plain or bgzip) or 2bit")
    peaks: list[Path] = Field(
        description="narrowPeak or BED files of one TF (gzip allowed), or folders of them: one per cell type, whose "
        "file name without its ending names the cell type"
    )
    accessible: list[Path] = Field(
        [],
        description="narrowPeak or BED of accessible regions, one for all cell types or one each: negatives are drawn "
        "from them (default: from the whole genome); both ways they are matched in GC content",
    )
    blacklist: Path | None = Field(None, description="BED of intervals to leave out (gzip allowed)")
    width: int = Field(200, ge=20, description="width of a window in bp, around the summit (else the peak's middle)")
    ratio: float = Field(1.0, gt=0, description="negatives per site")
    chromosomes: list[str] = Field(
        [],
        description="chromosomes to use at all, on which all cell types were looked at (default: those with a peak, "
        "since a source may lack some)",
    )
    by_cell_type: bool = Field(
        False,
        description="a row for each window and cell type, from which finetune learns to predict in new cell types; "
        "those that the corpus holds out have rows in their own split only",
    )

    def windows(self, sources: Sources) -> LabelTable:
        """Return sites labelled by the cell types that have a peak there, and windows that none has; see the class."""
        genome, generator = sources.need_genome(), np.random.default_rng(self.seed)
        notes: dict[str, Note] = {}
        peaks = self._read_peaks(genome, notes)
        cell_types = sorted(set(peaks["cell_type"]))
        peaks = peaks[peaks["chrom"].isin(self._chromosomes(peaks, genome, notes))]
        corpus = sources.corpus if self.by_cell_type else None
        asked = peaks  # whose windows are chosen
        if corpus is not None:
            _check_known(peaks, corpus, self.peaks)
            asked = peaks[_may_choose(peaks, corpus)]
        blacklist = [read_annotation(path, genome.lengths).table for path in [self.blacklist] if path]
        sites = self._sites(asked, blacklist, genome, notes)
        avoid = pd.concat([table[_COORDINATES] for table in (asked, sites, *blacklist)], ignore_index=True)
        pool = self._accessible_windows(genome, corpus) if self.accessible else None
        unbound = matched_windows(genome, sites, avoid, generator, ratio=self.ratio, pool=pool)
        wanted = int((self.ratio * sites.groupby("chrom").size()).round().sum())
        notes["negatives wanting, for lack of windows"] = wanted - len(unbound)
        windows = pd.concat([sites, unbound], ignore_index=True)
        if self.by_cell_type:
            return LabelTable(sort_windows(self._rows(windows, peaks, cell_types, corpus)), notes)
        if len(cell_types) == 1:
            windows["label"] = np.repeat([1, 0], [len(sites), len(unbound)])
        for name in cell_types if len(cell_types) > 1 else []:
            windows[LABEL_PREFIX + name] = self._labels(windows, peaks[peaks["cell_type"] == name])
        return LabelTable(sort_windows(windows), notes)

    def _read_peaks(self, genome: Genome, notes: dict[str, Note]) -> pd.DataFrame:
        """Return chrom, start, end, summit, score and cell_type of all peaks."""
        tables = []
        for cell_type, path in find_files(self.peaks, PEAK_SUFFIXES, "--peaks").items():
            intervals = read_bed(path, genome.lengths, skip_unknown=True)
            tables.append(_with_summits(intervals.table, notes).assign(cell_type=cell_type))
            _count(notes, "peaks left out, on chromosomes that the genome lacks", sum(intervals.skipped.values()))
        return pd.concat(tables, ignore_index=True)

    def _chromosomes(self, peaks: pd.DataFrame, genome: Genome, notes: dict[str, Note]) -> list[str]:
        """Return the chromosomes to use, and note the others."""
        known = spelled_chromosomes(self.chromosomes, genome.lengths)
        found = Problems("The chromosomes cannot be used:")
        for name in self.chromosomes:
            if name not in known:
                found.add("--chromosomes", f"the genome has no chromosome {name!r}", "Correct the name.")
        found.raise_any()
        used = set(known.values()) or set(peaks["chrom"])
        others = [name for name in genome.lengths if name not in used]
        notes[f"chromosomes left out, {'not named' if self.chromosomes else 'without a peak'}"] = listed(others, 12)
        return [name for name in genome.lengths if name in used]

    def _sites(
        self, peaks: pd.DataFrame, blacklist: Sequence[pd.DataFrame], genome: Genome, notes: dict[str, Note]
    ) -> pd.DataFrame:
        """Return the windows of sites: chrom, start, end."""
        sites = self._around(_consensus_summits(peaks, self.width // 2))
        kept = usable(sites, genome)
        for intervals in blacklist:
            kept &= ~overlapping(sites, intervals)
        notes["sites left out, near an end, on unknown sequence or blacklisted"] = int((~kept).sum())
        if not kept.any():
            raise UserError(problem("--peaks", "no peak can be used", "Check the genome, --chromosomes, --blacklist."))
        return sites[kept].reset_index(drop=True)

    def _around(self, summits: pd.DataFrame) -> pd.DataFrame:
        start = summits["summit"] - self.width // 2
        return pd.DataFrame({"chrom": summits["chrom"], "start": start, "end": start + self.width})

    def _labels(self, windows: pd.DataFrame, peaks: pd.DataFrame) -> pd.Series:
        """Return what windows are in a cell type with some peaks: 1, 0 or NA, Int64; see the class."""
        bound = overlapping(windows, peaks.assign(start=peaks["summit"], end=peaks["summit"] + 1)[_COORDINATES])
        label = pd.Series(bound.astype(int), dtype="Int64")
        label[~bound & overlapping(windows, peaks[_COORDINATES])] = pd.NA
        if not self.chromosomes:
            label[~windows["chrom"].isin(peaks["chrom"])] = pd.NA
        return label

    def _rows(
        self, windows: pd.DataFrame, peaks: pd.DataFrame, cell_types: Sequence[str], corpus: Corpus | None
    ) -> pd.DataFrame:
        """Return chrom, start, end, cell_type, label of the windows in the cell types in which they are known."""
        own = {name: peaks[peaks["cell_type"] == name] for name in cell_types}
        parts = [windows.assign(cell_type=name, label=self._labels(windows, rows)) for name, rows in own.items()]
        rows = pd.concat(parts, ignore_index=True)
        rows = rows[rows["label"].notna()].astype({"label": np.int64}).reset_index(drop=True)
        return rows if corpus is None else _in_their_splits(rows, corpus)

    def _accessible_windows(self, genome: Genome, corpus: Corpus | None) -> pd.DataFrame:
        tables = []
        for name, path in find_files(self.accessible, PEAK_SUFFIXES, "--accessible").items():
            table = _with_summits(read_bed(path, genome.lengths, skip_unknown=True).table, {}).assign(cell_type=name)
            if corpus is not None and name in corpus.cell_types:  # else it may be for all cell types
                table = table[_may_choose(table, corpus)]
            tables.append(table)
        windows = self._around(pd.concat(tables, ignore_index=True))
        return windows[usable(windows, genome)]


def _check_known(peaks: pd.DataFrame, corpus: Corpus, files: Sequence[Path]) -> None:
    """Check that a corpus has the cell types of peaks.

    Raises:
        UserError: it lacks one.
    """
    found = Problems(f"The peaks {', '.join(map(str, files))} are of cell types that the corpus {corpus.folder} lacks:")
    for name in sorted(set(peaks["cell_type"]) - set(corpus.cell_types)):
        remedy = f"Name the file as one of {', '.join(corpus.cell_types)}, add its ATAC-seq, or leave it out."
        found.add(name, "the corpus has no such cell type", remedy)
    found.raise_any()


def _may_choose(peaks: pd.DataFrame, corpus: Corpus) -> NDArray[np.bool_]:
    """Return which peaks choose windows: on training chromosomes, those of held-out cell types have no say."""
    part, split = _parts(peaks, corpus)
    return (part == _TRAIN) | (split != _TRAIN)


def _in_their_splits(rows: pd.DataFrame, corpus: Corpus) -> pd.DataFrame:
    """Return rows without those of held-out cell types that lie on chromosomes of another split."""
    part, split = _parts(rows, corpus)
    return rows[(part == _TRAIN) | (part == split)].reset_index(drop=True)


def _parts(rows: pd.DataFrame, corpus: Corpus) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the indices into `SPLITS` of the cell type and of the chromosome of each row."""
    part = corpus.cell_type_part[corpus.cell_type_indices(rows["cell_type"].tolist())]
    return part, np.array([SPLITS.index(name) for name in corpus.split_of(rows["chrom"].tolist())])


def _with_summits(table: pd.DataFrame, notes: dict[str, Note]) -> pd.DataFrame:
    """Return chrom, start, end, summit (0-based; the middle where none is given) and score of the rows of a file."""
    middle = (table["start"] + table["end"]) // 2
    given = table["summit"] if "summit" in table else pd.Series(-1, index=table.index)
    offset = pd.to_numeric(given, errors="coerce").fillna(-1).astype(np.int64)
    inside = (offset >= 0) & (offset < table["end"] - table["start"])
    _count(notes, "summits outside their peak, whose middle is taken", int(((offset >= 0) & ~inside).sum()))
    summit = (table["start"] + offset).where(inside, middle)
    ranked_by = next((table[name] for name in ("signal", "score") if name in table), pd.Series(0.0, index=table.index))
    return table[_COORDINATES].assign(summit=summit, score=pd.to_numeric(ranked_by, errors="coerce").fillna(0.0))


def _count(notes: dict[str, Note], what: str, number: int) -> None:
    notes[what] = int(notes.get(what, 0)) + number


def _consensus_summits(peaks: pd.DataFrame, distance: int) -> pd.DataFrame:
    """Return chrom and summit of sites, any two of which are `distance` bp apart or more."""
    tables = [pd.DataFrame({"chrom": np.empty(0, dtype=object), "summit": np.empty(0, dtype=np.int64)})]
    for chrom, rows in peaks.groupby("chrom", sort=True):
        everywhere = np.ones(len(rows), dtype=bool)
        summits = best_windows(
            rows["summit"].to_numpy(np.int64),
            rows["score"].to_numpy(np.float64),
            pd.factorize(rows["cell_type"], sort=True)[0].astype(np.int64),
            ~everywhere,
            everywhere,
            distance,
        )
        tables.append(pd.DataFrame({"chrom": chrom, "summit": summits}))
    return pd.concat(tables, ignore_index=True)
