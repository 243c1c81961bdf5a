"""Signal that comes apart from the peaks: fragments, cells x peaks, and coverage."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyBigWig
from numpy.typing import NDArray

from genebert.corpus.signal import BigWigFiles, FragmentFiles, H5adFile
from genebert.doctor.finding import Finding, attempt, judge, percent
from genebert.doctor.peaks import padded_fraction
from genebert.errors import listed
from genebert.inputs.accessibility import count_signal, drop_small
from genebert.inputs.bigwig import bigwig_counts, chromosomes_without_coverage
from genebert.inputs.fragments import count_fragments
from genebert.inputs.genome import spelled_chromosomes
from genebert.inputs.h5ad import h5ad_counts, read_h5ad_peaks
from genebert.inputs.pseudobulk import Pseudobulk
from genebert.settings import CorpusInputs

_BAD_FRIP, _POOR_FRIP = 0.1, 0.2
"""ENCODE's standard for ATAC-seq asks for a fraction of reads in peaks above 0.3, and accepts 0.2."""
_PADDED = 0.2


def examine_padding(subject: str, regions_per_chromosome: NDArray[np.int64]) -> Finding:
    """Look at how much of a cell type's region matrices would be padding."""
    padded = padded_fraction(regions_per_chromosome)
    some = regions_per_chromosome[regions_per_chromosome > 0]
    found = f"median {np.median(some):,.0f}" if len(some) else "none"
    remedy = "Region matrices hold 32 regions of one chromosome, and the rest is padding: lower the thresholds."
    return judge(
        subject,
        "regions per chromosome",
        f"{found}; {percent(padded)} of region matrices would be padding",
        [
            (not len(some), "wrong", "Nothing is accessible: check signal and thresholds."),
            (padded > _PADDED, "look", remedy),
        ],
    )


def examine_fragments(
    source: FragmentFiles, windows: pd.DataFrame, lengths: Mapping[str, int], settings: CorpusInputs
) -> list[Finding]:
    """Look at fragments and the table of barcodes, given peaks that do not overlap."""
    found: list[Finding] = []
    counted = []
    for name, (path, barcodes) in source.barcodes.items():
        subject = f"fragments: {name}"
        bulk = attempt(found, subject, partial(count_fragments, path, barcodes, windows, lengths))
        if bulk is not None:
            found += _barcodes(subject, bulk, len(barcodes))
            counted.append(bulk)
    if counted:
        merged = Pseudobulk.merge(counted)
        found += _amounts(merged, settings)
        found += [_in_peaks(f"cell types: {name}", name, merged) for name in _kept(merged, settings)]
        found += _padding(merged, windows["chrom"], settings)
    return found


def _barcodes(subject: str, bulk: Pseudobulk, expected: int) -> Iterator[Finding]:
    seen, assigned = sum(bulk.cells.values()), sum(bulk.fragments.values())
    absent = 1 - seen / expected
    yield judge(
        subject,
        "barcodes",
        f"{seen:,} of the table's {expected:,} occur",
        [
            (absent > 0.5, "wrong", "Most cells are missing: give the table of the cells of this file."),
            (absent > 0.1, "look", "Check suffixes of barcodes, and that the file is whole."),
        ],
    )
    others = bulk.unassigned / max(1, bulk.unassigned + assigned)
    remedy = "Barcodes of empty droplets are usual; if cells lack in the table, add them."
    found = f"{percent(others)} are of barcodes without a cell type"
    yield judge(subject, "fragments", found, [(others > 0.7, "look", remedy)])
    lacking = sum(bulk.unknown_chromosomes.values())
    unknown = lacking / max(1, lacking + bulk.unassigned + assigned)
    remedy = "Check that genome and fragments are of the same assembly."
    found = f"{percent(unknown)} of the fragments are on chromosomes that the genome lacks"
    yield judge(subject, "chromosome names", found, [(unknown > 0.02, "look", remedy)])


def examine_h5ad(source: H5adFile, lengths: Mapping[str, int], settings: CorpusInputs) -> list[Finding]:
    """Look at cells x peaks."""
    found: list[Finding] = []
    bulk = attempt(found, "cells", lambda: h5ad_counts(source.path, settings.cell_type_column))
    if bulk is None:
        return found
    unnamed = bulk.unassigned / max(1, bulk.unassigned + sum(bulk.cells.values()))
    remedy = "They are left out; fill the column, or name another by --cell-type-column."
    found.append(judge("cells", "cell types", f"{percent(unnamed)} have none", [(unnamed > 0.2, "look", remedy)]))
    found += _amounts(bulk, settings)
    peaks = attempt(found, "cells", lambda: read_h5ad_peaks(source.path, lengths, skip_unknown=True))
    if peaks is not None:
        target = np.full(bulk.counts.shape[1], -1)
        target[peaks.table["column"]] = np.arange(len(peaks.table))
        found += _padding(bulk.moved(target, len(peaks.table)), peaks.table["chrom"], settings)
    return found


def _amounts(bulk: Pseudobulk, settings: CorpusInputs) -> Iterator[Finding]:
    """Look at the number of cells and fragments of each cell type."""
    for name in bulk.cell_types:
        cells, fragments = bulk.cells[name], bulk.fragments[name]
        yield judge(
            f"cell types: {name}",
            "depth",
            f"{cells:,} cells, {fragments:,} fragments or counts",
            [
                (
                    cells < settings.min_cells,
                    "look",
                    "It will be dropped; merge it with another, or lower --min-cells.",
                ),
                (
                    fragments < settings.min_fragments,
                    "look",
                    "It will be dropped; merge it with another, or lower --min-fragments.",
                ),
            ],
        )


def _kept(bulk: Pseudobulk, settings: CorpusInputs) -> list[str]:
    """Return the cell types that `prepare` keeps; what it drops need not be good."""
    return drop_small(bulk.cells, bulk.fragments, settings.min_cells, settings.min_fragments)[0]


def _in_peaks(subject: str, name: str, bulk: Pseudobulk) -> Finding:
    fraction = bulk.in_windows[name] / max(1, 2 * bulk.fragments[name])
    return judge(
        subject,
        "fraction in peaks",
        f"{fraction:.2f}",
        [
            (fraction < _BAD_FRIP, "wrong", "That is mostly noise; check that peaks and fragments belong together."),
            (fraction < _POOR_FRIP, "look", "That is poor; 0.3 and more is good ATAC-seq."),
        ],
    )


def _padding(bulk: Pseudobulk, chroms: pd.Series, settings: CorpusInputs) -> Iterator[Finding]:
    codes, names = pd.factorize(chroms)
    everywhere = np.ones(len(codes), dtype=bool)
    for name in _kept(bulk, settings):
        rows, _ = count_signal(bulk.of(name), everywhere, min_count=settings.min_count, min_cpm=settings.min_cpm)
        yield examine_padding(f"cell types: {name}", np.bincount(codes[rows], minlength=len(names)))


def examine_bigwigs(
    source: BigWigFiles, windows: pd.DataFrame, lengths: Mapping[str, int], settings: CorpusInputs
) -> list[Finding]:
    """Look at coverage, given peaks that do not overlap."""
    found: list[Finding] = []
    codes, names = pd.factorize(windows["chrom"])
    everywhere = np.ones(len(codes), dtype=bool)
    held_out = spelled_chromosomes([*settings.valid_chromosomes, *settings.test_chromosomes], lengths).values()
    for name, path in source.files.items():
        subject = f"coverage: {name}"
        inside = attempt(found, subject, partial(bigwig_counts, path, windows, lengths))
        if inside is None:
            continue
        lacking = chromosomes_without_coverage(path, windows, lengths)
        found.append(_lacking(subject, lacking, not set(held_out).isdisjoint(lacking)))
        total = _total(path)
        fraction = float(inside.sum() / total) if total > 0 else 0.0
        remedy = "Much of it lies elsewhere; check that peaks and coverage belong together."
        text = f"{total:,.0f} in all, {fraction:.2f} of it in peaks"
        found.append(judge(subject, "fraction in peaks", text, [(fraction < _POOR_FRIP, "look", remedy)]))
        rows, _ = count_signal(inside, everywhere, min_cpm=settings.min_cpm)
        found.append(examine_padding(subject, np.bincount(codes[rows], minlength=len(names))))
    return found


def _lacking(subject: str, chroms: list[str], held_out: bool) -> Finding:
    """Look at which chromosomes with peaks a bigWig lacks, and whether one of them is held out."""
    remedy = "Nothing is accessible there: give coverage of all chromosomes, or leave their peaks out."
    found = f"the bigWig lacks {listed(chroms)}, with peaks" if chroms else "all that have peaks are in the bigWig"
    return judge(subject, "chromosome names", found, [(held_out, "wrong", remedy), (bool(chroms), "look", remedy)])


def _total(path: Path) -> float:
    """Return about the sum of a bigWig's values: from its summaries, which saves reading all of it."""
    total = 0.0
    with pyBigWig.open(str(path)) as file:
        for chrom, length in file.chroms().items():
            mean, covered = (file.stats(chrom, type=kind)[0] or 0.0 for kind in ("mean", "coverage"))
            total += mean * covered * length  # type="sum" is wrong unless all is read
    return total
