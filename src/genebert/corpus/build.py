"""The stage `prepare`: genome, ATAC-seq and motifs become a corpus.

Peaks become consensus regions, a chromosome a task; signal is measured in them, a file a task (`plan`); sequence and
motif evidence are computed in blocks of regions (`build`). The results of tasks lie in the stage's scratch folder
until the corpus is complete, so that a run that was killed resumes where it was.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from genebert.console import say, table
from genebert.corpus import splits
from genebert.corpus.block import BlockInputs, build_block, map_blocks
from genebert.corpus.parallel import Workers, open_workers, usable_cores
from genebert.corpus.plan import Plan, plan
from genebert.corpus.signal import Source, find_source
from genebert.corpus.store import CorpusWriter
from genebert.corpus.work import Results, Work
from genebert.errors import UserError, listed, problem
from genebert.inputs.genome import Genome
from genebert.settings import JASPAR, CorpusInputs, PrepareSettings
from genebert.stage import StageRun, open_stage

Inputs = TypeVar("Inputs", bound=CorpusInputs)
_LARGE_FILES = 10 << 20
"""Bytes of ATAC-seq that are worth starting processes for, which takes seconds."""
_LARGE_SCAN = 5_000_000_000
"""Pairs of position and motif that are: some ten seconds of one core."""


def prepare(settings: PrepareSettings) -> Path:
    """Build a corpus from a genome, the ATAC-seq of cell types, and motifs.

    Args:
        settings: see `PrepareSettings`.

    Returns:
        the corpus folder; see `genebert.corpus.store` for its format. With `dry_run` it is not made.

    Raises:
        UserError: an input cannot be used, nothing is left after filtering, or the disk is too small.
    """
    if settings.region_width % 2:
        raise UserError(problem("--region-width", f"{settings.region_width} is odd", "Give an even width in bp."))
    settings = with_usable_paths(settings)
    source = find_source(settings)
    if settings.dry_run:
        with TemporaryDirectory(prefix="genebert-") as scratch, Genome(settings.genome) as genome:
            planned = _plan(settings, source, genome, Path(scratch))
        expected = planned.estimate(settings.workers or usable_cores())
        table("What it would take", ("what", "estimate"), expected.rows())
        return settings.out
    motif_file = None if settings.motifs.startswith(JASPAR) else Path(settings.motifs)
    inputs = {"genome": settings.genome, "blacklist": settings.blacklist, "motifs": motif_file, **source.inputs}
    with open_stage("prepare", settings, inputs, resumable=True) as run:
        if not run.finished:
            with Genome(settings.genome) as genome:
                build(_plan(settings, source, genome, run.scratch), run)
        return run.out


def with_usable_paths(settings: Inputs) -> Inputs:
    """Make paths absolute if there is a scheduler: workers elsewhere run in folders of their own."""
    if settings.scheduler is None:
        return settings
    paths = {
        "genome": settings.genome.absolute(),
        "anndata": settings.anndata and settings.anndata.absolute(),
        "barcodes": settings.barcodes and settings.barcodes.absolute(),
    }
    lists = {name: [path.absolute() for path in getattr(settings, name)] for name in ("peaks", "bigwigs", "fragments")}
    return settings.model_copy(update=paths | lists)


def _plan(settings: CorpusInputs, source: Source, genome: Genome, scratch: Path) -> Plan:
    with workers_that_read(settings, source) as workers:
        return plan(settings, source, genome, Work(scratch, workers))


@contextmanager
def workers_that_read(settings: CorpusInputs, source: Source) -> Iterator[Workers]:
    """Open the workers for the files of ATAC-seq.

    Raises:
        UserError: see `open_workers`, and `Workers.check_files`.
    """
    size = sum(path.stat().st_size for path in source.inputs.values() if path.is_file())
    with _workers(settings, large=size > _LARGE_FILES) as workers:
        workers.check_files([settings.genome, *source.inputs.values()])
        yield workers


def _workers(settings: CorpusInputs, *, large: bool) -> AbstractContextManager[Workers]:
    """Open the workers asked for; for little work, this process, since others would take seconds to start."""
    return open_workers(settings.workers or (usable_cores() if large else 1), settings.scheduler)


def build(planned: Plan, run: StageRun) -> None:
    """Read and scan the regions' sequence, and write the corpus.

    Raises:
        UserError: see `prepare`.
    """
    settings = planned.settings
    scanned = len(planned.regions) * settings.region_width * len(planned.scanner.motifs)
    with _workers(settings, large=scanned > _LARGE_SCAN) as workers:
        expected = planned.estimate(workers.count)
        say("; ".join(f"{what}: {estimate}" for what, estimate in expected.rows()))
        expected.check_space(run.folder, run.scratch)
        inputs = BlockInputs(planned.genome, settings.region_width, planned.scanner)
        work = Work(run.scratch, workers)
        blocks = map_blocks(planned.regions, work, "blocks", "scanning motifs", build_block, inputs)
    _write(planned, blocks, run.folder)
    metrics = _metrics(planned, blocks)
    out = run.finish(metrics)
    say_left_out(metrics)
    say(
        f"{out}: {len(planned.regions):,} regions, {planned.examples:,} examples, "
        f"{len(planned.signal.cell_types)} cell types, {len(planned.scanner.motifs)} motifs"
    )


def _write(planned: Plan, blocks: Results, folder: Path) -> None:
    motifs, signal = planned.scanner.motifs, planned.signal
    writer = CorpusWriter(folder, len(planned.regions), planned.settings.region_width, len(motifs))
    place = 0
    for block in blocks:
        writer.write_block(place, block["sequence"], block["evidence"])
        place += len(block["sequence"])
    facts = {
        "signal": planned.source.kind,
        "cell_types": signal.cell_types,
        "valid_cell_types": [n for n, part in zip(signal.cell_types, planned.cell_type_part, strict=True) if part == 1],
        "test_cell_types": [n for n, part in zip(signal.cell_types, planned.cell_type_part, strict=True) if part == 2],
        "lengths": planned.genome.lengths,
        "width": planned.settings.region_width,
        "valid_chromosomes": planned.valid_chromosomes,
        "test_chromosomes": planned.test_chromosomes,
        "pseudocount": planned.settings.pseudocount,
        "gc_background": planned.scanner.gc,
        "archetypes": planned.archetypes,
    }
    accessibility: dict[str, NDArray[Any]] = {
        "accessible_offsets": np.cumsum([0, *map(len, signal.regions)], dtype=np.int64),
        "accessible_regions": np.concatenate(signal.regions).astype(np.int32),
        "accessible_values": np.concatenate(signal.values).astype(np.float32),
        "reference_regions": np.flatnonzero(signal.reference).astype(np.int32),
    }
    writer.finish(facts, planned.regions.assign(split=np.array(splits.NAMES)[planned.split]), motifs, accessibility)


def _metrics(planned: Plan, blocks: Results) -> dict[str, Any]:
    signal = planned.signal
    return peak_counts(planned.source, planned.peaks) | {
        "regions": len(planned.regions),
        "examples": planned.examples,
        "motifs": len(planned.scanner.motifs),
        "cell_types": len(signal.cell_types),
        "regions_per_split": {name: int((planned.split == i).sum()) for i, name in enumerate(splits.NAMES)},
        "regions_per_cell_type": dict(zip(signal.cell_types, map(len, signal.regions), strict=True)),
        "windows_dropped": planned.dropped,
        "regions_too_similar": planned.too_similar,
        "blacklist_intervals_on_the_genome": planned.blacklisted,
        "ambiguous_bases_read_as_n": sum(int(block["ambiguous"][0]) for block in blocks),
        "signal": signal.facts,
    }


def say_left_out(metrics: dict[str, Any]) -> None:
    """Say how much lies on chromosomes that the genome lacks, and which ones bigWigs lack.

    Args:
        metrics: of a corpus; those of `peak_counts`, and `signal`.
    """
    peaks = Counter[str]()
    for skipped in metrics["peaks_on_unknown_chromosomes"].values():
        peaks.update(skipped)
    fragments = Counter[str](metrics["signal"].get("fragments_on_unknown_chromosomes", {}))
    for what, counts in (("peaks", peaks), ("fragments", fragments)):
        if counts:
            names = listed(name for name, _ in counts.most_common())
            say(f"{what} left out, on chromosomes that the genome lacks: {counts.total():,} ({names})")
    lacking = metrics["signal"].get("chromosomes_without_coverage", {})
    if lacking:
        names = listed((f"{name} ({listed(chroms)})" for name, chroms in lacking.items()), separator="; ")
        say(f"warning: nothing is accessible on chromosomes that a cell type's bigWig lacks: {names}")


def peak_counts(source: Source, candidates: Results) -> dict[str, Any]:
    """Return how many peaks each set has, repeats, and has on chromosomes that the genome lacks, for the manifest."""
    sets = dict(zip(source.peak_sets, candidates, strict=True))
    duplicates = {name: int(peaks["duplicates"][0]) for name, peaks in sets.items()}
    skipped = {
        name: dict(zip(peaks["skipped"].tolist(), peaks["skipped_rows"].tolist(), strict=True))
        for name, peaks in sets.items()
    }
    return {
        "peaks_per_set": {name: len(peaks["start"]) for name, peaks in sets.items()},
        "duplicate_peaks": {name: count for name, count in duplicates.items() if count},
        "peaks_on_unknown_chromosomes": {name: counts for name, counts in skipped.items() if counts},
    }
