"""The stage `add-cell-type`: cell types join a corpus by their ATAC-seq alone, and models made with it know them.

They are measured as `prepare` measures a cell type that is held out for testing: in the same regions, with the same
thresholds, per million of the signal in the same training regions. What was measured before stays as it is.

With `extend`, peaks where the corpus has no region become regions, too, since what is open in no other cell type is
what tells most about a new one. Nobody has looked at them in the other cell types, so that they belong to no split and
no label is ever made of them: they are neighbours in region matrices, and places where variants are scored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genebert.cell_type_distance import KnownCellTypes, new_cell_types
from genebert.console import say
from genebert.corpus.block import BlockInputs, build_block, map_blocks
from genebert.corpus.build import peak_counts, say_left_out, with_usable_paths, workers_that_read
from genebert.corpus.join import JoinedRegions, write_joined
from genebert.corpus.plan import read_blacklist
from genebert.corpus.regions import Rules, find_regions
from genebert.corpus.signal import Accessibility, Place, Source, find_source
from genebert.corpus.splits import NAMES
from genebert.corpus.store import Corpus
from genebert.corpus.work import Arrays, Results, Work
from genebert.errors import Problems, UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.windows import WindowIndex
from genebert.settings import AddCellTypeSettings, AtacInputs, CorpusInputs
from genebert.stage import StageRun, open_stage
from genebert.tasks.labels import check_genome

FEWEST_REGIONS = 8
"""With fewer accessible regions of the corpus, hardly a region matrix can be filled."""
SHIFT = 10_000
"""In bp: how many peaks would lie in regions by chance is counted so far away."""
LEAST_EXCESS = 0.1
"""Peaks of the right assembly lie in regions at least so often, of those that would not by chance."""
_AS_PREPARED = ("min_cells", "min_fragments", "min_count", "min_cpm", "max_n_fraction")


def add_cell_type(settings: AddCellTypeSettings) -> Path:
    """Make a corpus with further cell types, which count as held out for testing.

    Args:
        settings: see `AddCellTypeSettings`.

    Returns:
        the new corpus' folder. Arrays that stay as they are, are hard links to those of the given corpus.

    Raises:
        UserError: an input cannot be used; genome and corpus do not belong together; the corpus has a cell type of that
            name; hardly more peaks lie in its regions than would by chance; or too few of them are accessible.
    """
    corpus = Corpus.open(settings.corpus)
    settings = _as_prepared(settings, corpus)
    measured = with_usable_paths(_inputs_of(settings, corpus))
    source = find_source(measured)
    _check_names(source.cell_types, corpus)
    _check_blacklist(settings, corpus)
    inputs = {name: getattr(settings, name) for name in ("corpus", "genome", "blacklist")}
    with open_stage("add-cell-type", settings, inputs | source.inputs, resumable=True) as run:
        if run.finished:
            return run.out
        with Genome(settings.genome) as genome:
            check_genome(genome, corpus)
            if source.kind != corpus.signal:
                say(f"warning: the corpus was measured from {corpus.signal}, and this is {source.kind}")
            return _add(settings, measured, source, corpus, genome, run)


def _as_prepared(settings: AddCellTypeSettings, corpus: Corpus) -> AddCellTypeSettings:
    """Take thresholds that are not given from the corpus."""
    given = {name: getattr(settings, name) for name in _AS_PREPARED}
    kept = {name: corpus.manifest.settings[name] for name, value in given.items() if value is None}
    return settings.model_copy(update=kept)


def _inputs_of(settings: AddCellTypeSettings, corpus: Corpus) -> CorpusInputs:
    names = {*AtacInputs.model_fields, *_AS_PREPARED, "blacklist", "skip_unknown_chromosomes", "workers", "scheduler"}
    return CorpusInputs(region_width=corpus.width, **{name: getattr(settings, name) for name in names})


def _check_names(names: list[str], corpus: Corpus) -> None:
    found = Problems("The cell types cannot be added:")
    for name in names:
        if name in corpus.cell_types:
            found.add(name, f"the corpus {corpus.folder} has a cell type of that name", "Give it another name.")
    found.raise_any()


def _check_blacklist(settings: AddCellTypeSettings, corpus: Corpus) -> None:
    used = _blacklist_of(corpus)
    if settings.regions == "extend" and used and settings.blacklist is None:
        what = f"the corpus was made without the regions on {used['path']}, and those to add would not be looked at"
        raise UserError(problem("--blacklist", what, "Give it, or --regions keep."))


def _blacklist_of(corpus: Corpus) -> dict[str, Any] | None:
    """Return the last blacklist that the corpus, or one that it was made of, was made with."""
    given: dict[str, Any] | None = corpus.manifest.inputs.get("blacklist")
    return given or corpus.manifest.metrics.get("added", {}).get("blacklist")


def _add(
    settings: AddCellTypeSettings,
    measured: CorpusInputs,
    source: Source,
    corpus: Corpus,
    genome: Genome,
    run: StageRun,
) -> Path:
    with workers_that_read(measured, source) as workers:
        work = Work(run.scratch, workers)
        peaks = source.candidates(work, genome.lengths, settings.skip_unknown_chromosomes)
        inside = _check_assembly(dict(zip(source.peak_sets, peaks, strict=True)), corpus)
        others, dropped = _others(settings, measured, peaks, corpus, genome, work)
        regions = JoinedRegions.of(corpus, others)
        signal = source.accessibility(work, _place(regions, corpus, genome), peaks)
        _check_enough(signal, regions)
        inputs = BlockInputs(genome, corpus.width, corpus.scanner)
        added = regions.table.iloc[regions.added]
        blocks = map_blocks(added, work, "blocks", "scanning motifs", build_block, inputs)
    write_joined(corpus, regions, blocks, signal, run.folder)
    made = Corpus.read(run.folder, corpus.manifest)
    facts = {
        "cell_types": signal.cell_types,
        "ancestors": [run.inputs["corpus"]["sha256"], *corpus.ancestors],
        "regions": len(added),
        "blacklist": run.inputs.get("blacklist") or _blacklist_of(corpus),
        "fraction_of_peaks_in_regions": inside,
        "cell_type_distances": _distances(corpus, made, signal.cell_types),
    }
    measures = _metrics(made, source, signal, peaks)
    before = corpus.manifest.metrics["windows_dropped"]
    measures["windows_dropped"] = {reason: before.get(reason, 0) + count for reason, count in dropped.items()}
    out = run.finish(_joined(corpus.manifest.metrics, measures) | {"added": facts})
    say_left_out(measures)
    say(f"{out}: {', '.join(signal.cell_types)} added, with {len(added):,} further regions")
    return out


def _others(
    settings: AddCellTypeSettings,
    measured: CorpusInputs,
    peaks: Results,
    corpus: Corpus,
    genome: Genome,
    work: Work,
) -> tuple[pd.DataFrame | None, dict[str, int]]:
    """Return the regions to add, if any are to be, and how many windows were left out for which reason."""
    if settings.regions == "keep":
        return None, {}
    blacklist = read_blacklist(measured, genome)
    rules = Rules(genome, blacklist, corpus.width, measured.max_n_fraction, taken=corpus.regions)
    found, _, dropped = find_regions(rules, peaks, np.zeros(len(peaks), dtype=bool), work)
    return found, dropped


def _distances(corpus: Corpus, made: Corpus, names: list[str]) -> list[dict[str, Any]]:
    """Say how far cell types of the corpus that is made are from those that the given one is for training in."""
    known = [name for name, part in zip(corpus.cell_types, corpus.cell_type_part, strict=True) if part == 0]
    return new_cell_types(KnownCellTypes.of(corpus, known).distances(made, names))


def _metrics(made: Corpus, source: Source, signal: Accessibility, peaks: Results) -> dict[str, Any]:
    sizes = np.diff(made.accessible_offsets).tolist()
    per_split = np.bincount(made.split, minlength=len(NAMES)).tolist()
    return peak_counts(source, peaks) | {
        "regions": len(made.regions),
        "examples": sum(sizes),
        "cell_types": len(made.cell_types),
        "regions_per_split": dict(zip(NAMES, per_split, strict=True)),
        "regions_per_cell_type": dict(zip(made.cell_types, sizes, strict=True)),
        "signal": signal.facts,
    }


def _joined(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured of the corpus, and of what is added; dictionaries are joined, too."""
    return {**old} | {
        name: _joined(old.get(name, {}), value) if isinstance(value, dict) else value for name, value in new.items()
    }


def _check_assembly(peaks: Mapping[str, Arrays], corpus: Corpus) -> dict[str, float]:
    """Return which fraction of each peak set lies in regions of the corpus.

    Raises:
        UserError: hardly more do than peaks would by chance.
    """
    index, found = WindowIndex.of(corpus.regions), Problems("The ATAC-seq does not fit the corpus:")
    inside: dict[str, float] = {}
    for name, one in peaks.items():
        codes = index.codes(pd.Series(np.array(sorted(corpus.lengths))[one["chrom"]]))
        summits = np.asarray(one["summit"], dtype=np.int64)
        if not len(summits):  # of a cell type that is too small to find any
            continue
        hit, before, after = (
            (index.locate_codes(codes, np.maximum(summits + shift, 0)) >= 0).mean() for shift in (0, -SHIFT, SHIFT)
        )
        chance = (before + after) / 2
        inside[name] = round(float(hit), 4)
        if hit - chance < LEAST_EXCESS * (1 - chance):
            what = f"{hit:.0%} of its {len(summits):,} peaks lie in a region of the corpus, and {chance:.0%} by chance"
            found.add(name, what, "Most likely they are of another assembly: lift them over to that of the genome.")
    found.raise_any()
    return inside


def _place(regions: JoinedRegions, corpus: Corpus, genome: Genome) -> Place:
    """Say where signal is measured, and which regions normalisers are made of: those of `prepare`."""
    training = np.zeros(len(regions.table), dtype=bool)
    training[regions.known[corpus.reference_regions]] = True
    return Place(genome.lengths, regions.table[["chrom", "start", "end"]], training, settled=True)


def _check_enough(signal: Accessibility, regions: JoinedRegions) -> None:
    found = Problems("The cell types cannot be added:")
    for name, rows in zip(signal.cell_types, signal.regions, strict=True):
        count = np.isin(rows, regions.known).sum()
        if count < FEWEST_REGIONS:
            what = f"{count} of the corpus' {len(regions.known):,} regions are accessible, and {FEWEST_REGIONS} needed"
            found.add(name, what, "Give deeper ATAC-seq, or peaks called with a lower threshold.")
    found.raise_any()
