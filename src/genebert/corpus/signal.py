"""The forms in which ATAC-seq comes: which files there are, their candidate peaks, and what is accessible where.

Each form answers the same questions: its `inputs`; its `candidates`, the peaks that may become regions; and its
`accessibility`, the regions that are accessible in each cell type, with their signal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from genebert.console import say
from genebert.corpus.consensus import remove_overlapping
from genebert.corpus.work import Arrays, Results, Work
from genebert.errors import Problems, UserError, problem
from genebert.inputs.accessibility import (
    BIGWIG_SUFFIXES,
    PEAK_SUFFIXES,
    accessible_regions,
    count_signal,
    drop_small,
    find_files,
    peaks_to_regions,
    per_million,
)
from genebert.inputs.bigwig import bigwig_counts, chromosomes_without_coverage
from genebert.inputs.enrichment import BINS, BinIndex, Enriched, enriched_windows
from genebert.inputs.fragments import Windows, count_fragments, read_barcodes
from genebert.inputs.h5ad import h5ad_cell_types, h5ad_counts, read_h5ad_peaks
from genebert.inputs.intervals import Intervals, read_peaks
from genebert.inputs.pseudobulk import Pseudobulk
from genebert.settings import CorpusInputs

PEAK_COLUMNS = ("start", "end", "summit", "score", "signal")


@dataclass(frozen=True)
class Accessibility:
    """What is accessible in each cell type.

    Attributes:
        cell_types: names, sorted.
        regions: of each cell type, the accessible regions: int32, ascending.
        values: of each cell type, log1p of their signal per million of the reference regions: float32.
        reference: bool, shape (all regions,): the training regions that thresholds and signal per million are made of.
        facts: what is worth telling, for the manifest.
    """

    cell_types: list[str]
    regions: list[NDArray[np.int32]]
    values: list[NDArray[np.float32]]
    reference: NDArray[np.bool_]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where signal is measured.

    Attributes:
        lengths: chromosome -> length in bp, of the genome.
        regions: DataFrame with chrom, start, end; sorted by chromosome and start.
        training: bool, shape (regions,): the region is on a training chromosome.
        settled: whether that is all there is to know of it: the cell types that are measured are not those that
            training regions are there for.
    """

    lengths: dict[str, int]
    regions: pd.DataFrame
    training: NDArray[np.bool_]
    settled: bool = False


class Source(Protocol):
    """ATAC-seq in one form.

    Attributes:
        kind: "peaks", "bigwig", "fragments" or "h5ad".
        cell_types: names, as far as they are known before the signal is measured.
        peak_sets: names of the sets of candidate peaks.
        peak_files: name -> file of each set; none if the candidates are found in the signal.
    """

    @property
    def kind(self) -> str: ...  # noqa: D102

    @property
    def cell_types(self) -> list[str]: ...  # noqa: D102

    @property
    def peak_sets(self) -> list[str]: ...  # noqa: D102

    @property
    def peak_files(self) -> dict[str, Path]: ...  # noqa: D102

    @property
    def inputs(self) -> dict[str, Path]:
        """Name -> file, of all files that the source reads."""
        ...

    def candidates(self, work: Work, lengths: dict[str, int], skip_unknown: bool) -> Results:
        """Read or find the candidate peaks, one result per peak set, in the order of `peak_sets`.

        Args:
            work: computes.
            lengths: chromosome -> length in bp, of the genome.
            skip_unknown: leave out and count peaks on chromosomes that the genome lacks, instead of raising.

        Returns:
            results with chrom (int32, index into the sorted chromosome names) and `PEAK_COLUMNS`, of peaks sorted by
            chromosome and start; `duplicates`, int64, shape (1,); and the names and numbers of rows on
            chromosomes that the genome lacks, `skipped` and `skipped_rows`.
        """
        ...

    def accessibility(self, work: Work, place: Place, peaks: Results) -> Accessibility:
        """Measure which regions are accessible in which cell type."""
        ...


def find_source(settings: CorpusInputs) -> Source:
    """Tell in which form the ATAC-seq comes, and find its files.

    Raises:
        UserError: no form or several are given, or files are missing, or what goes with them is.
    """
    given = [option for option in ("bigwigs", "fragments", "anndata") if getattr(settings, option)]
    found = Problems("The ATAC-seq cannot be used:")
    if len(given) > 1:
        found.add(", ".join(f"--{name}" for name in given), "these are several forms of signal", "Give one of them.")
    if given == ["anndata"] and settings.peaks:
        found.add("--peaks", "an h5ad has its own peaks", "Leave --peaks or --anndata out.")
    if given in ([], ["bigwigs"]) and not settings.peaks:
        remedy = "Give narrowPeak or BED files; only --fragments with --barcodes, or --anndata, do without."
        found.add("--peaks", "no peaks are given", remedy)
    if (given == ["fragments"]) != (settings.barcodes is not None):
        found.add("--barcodes", "it goes with --fragments, and they with it", "Give both or neither.")
    found.raise_any()
    if settings.anndata is not None:
        return H5adFile(settings, settings.anndata)
    peaks = find_files(settings.peaks, PEAK_SUFFIXES, "--peaks") if settings.peaks else {}
    if settings.bigwigs:
        return BigWigFiles(settings, peaks)
    return FragmentFiles(settings, peaks) if settings.fragments else PeakFiles(peaks)


def read_peak_sets(work: Work, files: Sequence[Path], lengths: dict[str, int], skip_unknown: bool) -> Results:
    """Read files of peaks, each a result; see `Source.candidates`.

    Raises:
        UserError: see `genebert.inputs.intervals.read_peaks`; problems of all files are reported together.
    """
    return work.map("peaks", "reading peaks", _read_peak_set, (lengths, skip_unknown), len(files), files.__getitem__)


def _read_peak_set(shared: tuple[dict[str, int], bool], path: Path) -> Arrays:
    lengths, skip_unknown = shared
    return peak_arrays(read_peaks(path, lengths, skip_unknown=skip_unknown), lengths)


def peak_arrays(found: Intervals, lengths: dict[str, int]) -> Arrays:
    """Return peaks as the arrays that `Source.candidates` describes."""
    table = found.table
    chrom = pd.Categorical(table["chrom"], categories=sorted(lengths)).codes.astype(np.int32)
    order = np.lexsort((table["summit"], table["end"], table["start"], chrom))
    arrays = {name: table[name].to_numpy()[order] for name in (*PEAK_COLUMNS, "column", "late") if name in table}
    return {
        "chrom": chrom[order],
        **arrays,
        "duplicates": np.array([found.duplicates]),
        "skipped": np.array(list(found.skipped), dtype=str),
        "skipped_rows": np.array(list(found.skipped.values()), dtype=np.int64),
    }


@dataclass(frozen=True)
class PeakFiles:
    """One file of peaks per cell type; a peak's signal is the file's."""

    peak_files: dict[str, Path]
    kind: str = "peaks"

    @property
    def cell_types(self) -> list[str]:
        """Names, sorted."""
        return list(self.peak_files)

    @property
    def peak_sets(self) -> list[str]:
        """Names of the cell types."""
        return list(self.peak_files)

    @property
    def inputs(self) -> dict[str, Path]:
        """See `Source`."""
        return _peak_inputs(self.peak_files)

    def candidates(self, work: Work, lengths: dict[str, int], skip_unknown: bool) -> Results:
        """See `Source`."""
        return read_peak_sets(work, list(self.peak_files.values()), lengths, skip_unknown)

    def accessibility(self, work: Work, place: Place, peaks: Results) -> Accessibility:
        """See `Source`."""
        found = work.map("signal", "measuring signal", _signal_of_peaks, place, len(peaks), peaks.__getitem__)
        regions = [result["regions"].astype(np.int32) for result in found]
        values = [np.asarray(result["values"]) for result in found]
        return Accessibility(self.cell_types, regions, values, place.training)


def _signal_of_peaks(place: Place, peaks: Arrays) -> Arrays:
    regions, signal = accessible_regions(place.regions, peak_table(peaks, place.lengths))
    return {"regions": regions, "values": per_million(signal, place.training[regions])}


def peak_table(peaks: Arrays, lengths: dict[str, int]) -> pd.DataFrame:
    """Return peaks as a DataFrame with chrom and `PEAK_COLUMNS`."""
    chrom = pd.Categorical.from_codes(np.asarray(peaks["chrom"]), categories=sorted(lengths))
    return pd.DataFrame({"chrom": chrom, **{name: np.asarray(peaks[name]) for name in PEAK_COLUMNS}})


class BigWigFiles:
    """One bigWig of coverage per cell type, measured in the regions of given peak sets."""

    kind = "bigwig"

    def __init__(self, settings: CorpusInputs, peak_files: dict[str, Path]) -> None:
        self.peak_files = peak_files
        self.peak_sets = list(peak_files)
        self.files = find_files(settings.bigwigs, BIGWIG_SUFFIXES, "--bigwigs")
        self.cell_types = list(self.files)
        self._settings = settings

    @property
    def inputs(self) -> dict[str, Path]:
        """See `Source`."""
        return _peak_inputs(self.peak_files) | {f"bigwigs of {name}": path for name, path in self.files.items()}

    def candidates(self, work: Work, lengths: dict[str, int], skip_unknown: bool) -> Results:
        """See `Source`."""
        return read_peak_sets(work, list(self.peak_files.values()), lengths, skip_unknown)

    def accessibility(self, work: Work, place: Place, peaks: Results) -> Accessibility:
        """See `Source`."""
        files = list(self.files.values())
        found = work.map("coverage", "measuring coverage", _coverage_of_bigwig, place, len(files), files.__getitem__)
        coverage = dict(zip(self.cell_types, found, strict=True))
        accessible = _by_counts(self.cell_types, lambda name: coverage[name]["coverage"], 0, place, self._settings)
        lacking = {name: result["lacking"].tolist() for name, result in coverage.items() if len(result["lacking"])}
        return replace(accessible, facts={"chromosomes_without_coverage": lacking})


def _peak_inputs(peak_files: dict[str, Path]) -> dict[str, Path]:
    return {f"peaks of {name}": path for name, path in peak_files.items()}


def _coverage_of_bigwig(place: Place, path: Path) -> Arrays:
    where = path, place.regions, place.lengths
    lacking = chromosomes_without_coverage(*where)
    return {"coverage": bigwig_counts(*where), "lacking": np.array(lacking, dtype=str)}


def _by_counts(
    names: Sequence[str],
    counts: Callable[[str], NDArray[Any]],
    min_count: int,
    place: Place,
    settings: CorpusInputs,
) -> Accessibility:
    """Find what is accessible by counts in regions; see `count_signal`.

    A region in which no training cell type has any is there for held-out cell types, whoever called its peak: it does
    not count among the training regions that thresholds are made of.
    """
    held_out = {*settings.valid_cell_types, *settings.test_cell_types}
    training = np.full(len(place.training), place.settled)
    for name in names if not place.settled else ():
        if name not in held_out:
            training |= np.asarray(counts(name) > 0)
    training &= place.training
    found = [count_signal(counts(name), training, min_count=min_count, min_cpm=settings.min_cpm) for name in names]
    regions, values = [rows.astype(np.int32) for rows, _ in found], [values for _, values in found]
    return Accessibility(list(names), regions, values, training)


class FragmentFiles:
    """Fragments of single cells with a table of their cell types, counted in the regions of given peak sets.

    Without these, the candidate peaks of each cell type are the windows in which its fragments are enriched.
    """

    kind = "fragments"

    def __init__(self, settings: CorpusInputs, peak_files: dict[str, Path]) -> None:
        assert settings.barcodes is not None
        self.peak_files = peak_files
        self.files = settings.fragments
        self.table = settings.barcodes
        self._settings = settings
        self.barcodes = barcodes_of_files(self.table, self.files)
        self.cell_types = sorted({name for _, barcodes in self.barcodes.values() for name in barcodes.values()})
        self.peak_sets = list(peak_files) or self.cell_types

    @property
    def inputs(self) -> dict[str, Path]:
        """See `Source`."""
        files = {f"fragments of {name}": path for name, (path, _) in self.barcodes.items()}
        return _peak_inputs(self.peak_files) | files | {"barcodes": self.table}

    def candidates(self, work: Work, lengths: dict[str, int], skip_unknown: bool) -> Results:
        """See `Source`."""
        if not self.peak_files:
            return self._find_candidates(work, lengths)
        return read_peak_sets(work, list(self.peak_files.values()), lengths, skip_unknown)

    def _find_candidates(self, work: Work, lengths: dict[str, int]) -> Results:
        """Find where the fragments of each cell type are enriched; small cell types have no candidates."""
        bins = BinIndex(lengths, self._settings.region_width // BINS)
        counted = self._count(work, "bins", bins, lengths)
        cells, fragments = Pseudobulk.totals(counted)
        kept, _ = _large_enough(cells, fragments, self._settings)

        def counts(number: int) -> sparse.csr_array:
            if (name := self.cell_types[number]) in kept:
                return Pseudobulk.sum_of(counted, name)
            return sparse.csr_array((1, len(bins)), dtype=np.int64)

        found = work.map(
            "peaks",
            "finding enriched windows",
            _find_enriched,
            (bins, self._settings.region_width),
            len(self.cell_types),
            counts,
        )
        if not any(len(peaks["start"]) for peaks in found):
            what = "in no cell type is any window richer in insertions than chance has it"
            remedy = (
                "Check that fragments and genome are of the same assembly; merge small cell types; or give --peaks."
            )
            raise UserError(problem("--fragments", what, remedy))
        return found

    def _count(
        self, work: Work, name: str, windows: Windows | pd.DataFrame, lengths: dict[str, int]
    ) -> list[Pseudobulk]:
        tasks = list(self.barcodes.values())
        shared = windows, lengths
        found = work.map(name, "counting fragments", _count_file, shared, len(tasks), tasks.__getitem__)
        return [Pseudobulk.from_arrays(result) for result in found]

    def accessibility(self, work: Work, place: Place, peaks: Results) -> Accessibility:
        """See `Source`."""
        counted = Pseudobulk.merge(self._count(work, "counts", place.regions, place.lengths))
        facts = {
            "fragments_of_other_barcodes": counted.unassigned,
            "fragments_on_unknown_chromosomes": dict(counted.unknown_chromosomes),
            "fraction_of_insertions_in_regions": {
                name: round(inside / (2 * counted.fragments[name]), 4) if counted.fragments[name] else None
                for name, inside in counted.in_windows.items()
            },
        }
        accessible = _accessible_by_counts(counted, place, self._settings)
        return replace(accessible, facts={**accessible.facts, **facts})


def _accessible_by_counts(counted: Pseudobulk, place: Place, settings: CorpusInputs) -> Accessibility:
    kept, dropped = _large_enough(counted.cells, counted.fragments, settings)
    for name, reason in dropped.items():
        say(f"cell type {name} is dropped: it has {reason}")
    facts = {"cells": counted.cells, "fragments": counted.fragments, "dropped_cell_types": dropped}
    return replace(_by_counts(kept, counted.of, settings.min_count, place, settings), facts=facts)


def _large_enough(
    cells: Mapping[str, int], fragments: Mapping[str, int], settings: CorpusInputs
) -> tuple[list[str], dict[str, str]]:
    """Return the cell types to keep, and those to drop with the reason; see `drop_small`.

    Raises:
        UserError: none is to be kept.
    """
    kept, dropped = drop_small(cells, fragments, settings.min_cells, settings.min_fragments)
    if not kept:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in dropped.items())
        what = f"no cell type is large enough ({reasons})"
        raise UserError(problem("--min-cells, --min-fragments", what, "Lower them."))
    return kept, dropped


def barcodes_of_files(table: Path, files: Sequence[Path]) -> dict[str, tuple[Path, dict[str, str]]]:
    """Tell which barcodes are whose.

    Args:
        table: barcodes and cell types; with several files also `file`: a file's name, or as much of the end of its
            path as tells it from the others.
        files: fragments files.

    Returns:
        name of a file -> the file, and barcode -> cell type in it.

    Raises:
        UserError: see `read_barcodes`; or the table does not tell which barcode is whose.
    """
    barcodes = read_barcodes(table)
    if "file" not in barcodes:
        if len(files) == 1:
            return {files[0].name: (files[0], dict(zip(barcodes["barcode"], barcodes["cell_type"], strict=True)))}
        raise UserError(
            problem(table, f"it has no column file, and there are {len(files)} fragments files", "Add the column.")
        )
    found = Problems(f"The barcodes of {table} cannot be used:")
    chosen: dict[str, Path] = {}
    for name in sorted(set(barcodes["file"])):
        fitting = [path for path in files if f"/{path.as_posix()}".endswith(f"/{name}")]
        if len(fitting) != 1:
            what = f"{name!r} is {'none' if not fitting else 'the name of several'} of the files given"
            found.add(
                "file", what, "Write as much of the path as tells the files apart, such as sample1/fragments.tsv.gz."
            )
        elif fitting[0] in chosen.values():
            found.add("file", f"{name!r} is a file that has another name in other rows", "Write one name per file.")
        else:
            chosen[name] = fitting[0]
    for path in files:
        if files.count(path) > 1:
            found.add(path, "the file is given more than once", "Give it once.")
        elif not any(f"/{path.as_posix()}".endswith(f"/{name}") for name in set(barcodes["file"])):
            found.add(path, "the table has no barcode of it", "Write its name into the column file.")
    found.raise_any()
    parts = {name: barcodes[barcodes["file"] == name] for name in chosen}
    return {
        name: (chosen[name], dict(zip(part["barcode"], part["cell_type"], strict=True))) for name, part in parts.items()
    }


def _count_file(shared: tuple[Windows | pd.DataFrame, dict[str, int]], task: tuple[Path, dict[str, str]]) -> Arrays:
    return count_fragments(*task, *shared).to_arrays()


def _find_enriched(shared: tuple[BinIndex, int], counts: sparse.csr_array) -> Arrays:
    """Find the candidate peaks of one cell type, given its insertions in all bins; see `Source.candidates`."""
    bins, width = shared
    found = [_best(enriched_windows(of_chromosome, bins.width), width) for of_chromosome in bins.by_chromosome(counts)]
    start = np.concatenate([one.start for one in found])
    return {
        "chrom": np.repeat(np.arange(len(found), dtype=np.int32), [len(one.start) for one in found]),
        "start": start,
        "end": start + BINS * bins.width,
        "summit": np.concatenate([one.summit for one in found]),
        "score": np.concatenate([one.score for one in found]),
        "signal": np.concatenate([one.insertions for one in found]).astype(np.float64),
        "duplicates": np.array([0]),
        "skipped": np.array([], dtype=str),
        "skipped_rows": np.array([], dtype=np.int64),
    }


def _best(found: Enriched, width: int) -> Enriched:
    """Keep the best of the windows whose regions, `width` bp around the summits, would overlap."""
    ranked = np.lexsort((found.start, found.summit, -found.score))
    summits = found.summit[ranked]
    _, first = np.unique(summits, return_index=True)  # the best of each summit
    rows = np.sort(ranked[first[np.isin(summits[first], remove_overlapping(summits, width))]])
    return Enriched(found.start[rows], found.summit[rows], found.score[rows], found.insertions[rows])


class H5adFile:
    """Counts of cells x peaks; its peaks are the candidates, and their counts the signal."""

    kind = "h5ad"

    def __init__(self, settings: CorpusInputs, path: Path) -> None:
        self.path = path
        self.peak_files = {path.stem: path}
        self.peak_sets = list(self.peak_files)
        self.cell_types = h5ad_cell_types(path, settings.cell_type_column)
        self._settings = settings

    @property
    def inputs(self) -> dict[str, Path]:
        """See `Source`."""
        return {"anndata": self.path}

    def candidates(self, work: Work, lengths: dict[str, int], skip_unknown: bool) -> Results:
        """See `Source`; there are also `column`, a peak's place in var; `late`, whether it has counts in held-out cell
        types only; and the arrays of a `Pseudobulk`.
        """
        held_out = {*self._settings.valid_cell_types, *self._settings.test_cell_types}
        shared = self._settings.cell_type_column, lengths, skip_unknown, held_out
        return work.map("peaks", "reading cells x peaks", _read_h5ad, shared, 1, lambda _: self.path)

    def accessibility(self, work: Work, place: Place, peaks: Results) -> Accessibility:
        """See `Source`."""
        found = peaks[0]
        counted = Pseudobulk.from_arrays(found)
        target = np.full(counted.counts.shape[1], -1)
        target[found["column"]] = peaks_to_regions(peak_table(found, place.lengths), place.regions)
        accessible = _accessible_by_counts(counted.moved(target, len(place.regions)), place, self._settings)
        return replace(accessible, facts={**accessible.facts, "cells_without_cell_type": counted.unassigned})


def _read_h5ad(shared: tuple[str, dict[str, int], bool, set[str]], path: Path) -> Arrays:
    """Read peaks and counts; peaks are ranked by their counts in the cell types that are not held out."""
    column, lengths, skip_unknown, held_out = shared
    found = read_h5ad_peaks(path, lengths, skip_unknown=skip_unknown)
    counted = h5ad_counts(path, column)
    training = [name not in held_out for name in counted.cell_types]
    score = counted.counts[np.flatnonzero(training)].sum(axis=0)[found.table["column"]].astype(np.float64)
    ranked = replace(found, table=found.table.assign(score=score, late=score == 0))
    return {**peak_arrays(ranked, lengths), **counted.to_arrays()}
