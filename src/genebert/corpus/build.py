"""The stage `prepare`: genome, peaks and motifs become a corpus."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.console import say, track
from genebert.corpus import consensus
from genebert.corpus.store import write_corpus
from genebert.errors import Problems, UserError, problem
from genebert.inputs.accessibility import accessible_regions, find_cell_types, per_million
from genebert.inputs.genome import Genome, match_chromosomes
from genebert.inputs.intervals import Intervals, read_annotation, read_peaks
from genebert.inputs.motifs import Scanner, order_by_similarity, read_motifs
from genebert.schema import SPLITS, split_of
from genebert.settings import PrepareSettings
from genebert.stage import StageRun, open_stage

_SCAN_REGIONS = 2048


def prepare(settings: PrepareSettings) -> Path:
    """Build a corpus from a genome, the ATAC-seq peaks of cell types, and motifs.

    Args:
        settings: see `PrepareSettings`.

    Returns:
        the corpus folder; see `genebert.corpus.store` for its format.

    Raises:
        UserError: an input cannot be used, or nothing is left after filtering.
    """
    if settings.region_width % 2:
        raise UserError(problem("--region-width", f"{settings.region_width} is odd", "Give an even width in bp."))
    cell_types = find_cell_types(settings.peaks)
    motif_file = None if settings.motifs.startswith("jaspar:") else Path(settings.motifs)
    inputs = {"genome": settings.genome, "blacklist": settings.blacklist, "motifs": motif_file}
    inputs |= {f"peaks of {name}": path for name, path in cell_types.items()}
    with open_stage("prepare", settings, inputs) as run:
        if run.finished:
            return run.out
        with Genome(settings.genome) as genome:
            return _build(settings, run, genome, cell_types)


def _build(settings: PrepareSettings, run: StageRun, genome: Genome, cell_types: dict[str, Path]) -> Path:
    valid, test = _held_out(settings, genome)
    motifs = order_by_similarity(read_motifs(settings.motifs), settings.pseudocount)
    peaks = _read_all_peaks(cell_types, genome, settings.skip_unknown_chromosomes)
    nothing = pd.DataFrame({"chrom": [], "start": [], "end": []})
    blacklist = read_annotation(settings.blacklist, genome.lengths).table if settings.blacklist else nothing
    windows = consensus.candidate_windows({name: found.table for name, found in peaks.items()}, settings.region_width)
    kept, dropped = consensus.filter_windows(windows, genome, blacklist, settings.max_n_fraction)
    if kept.empty:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise UserError(
            problem(
                "genebert prepare",
                f"no region is left of {len(windows)} peaks: {reasons}",
                "Check that genome and peaks are of the same assembly, and --max-n-fraction and --blacklist.",
            )
        )
    regions = consensus.remove_overlaps(kept, settings.region_width)
    split = split_of(regions["chrom"], valid, test)
    _check_splits(split, settings)
    regions = regions.assign(split=np.array(SPLITS)[split])
    genome.ambiguous = 0  # counted so far in whole chromosomes; report it for the regions
    sequence = genome.fetch_all(regions["chrom"], regions["start"].to_numpy(np.int64), settings.region_width)
    scanner = Scanner(motifs, settings.pseudocount)
    blocks = [sequence[start : start + _SCAN_REGIONS] for start in range(0, len(sequence), _SCAN_REGIONS)]
    evidence = np.concatenate([scanner.scan(block) for block in track(blocks, "scanning motifs")])
    access = _accessibility(regions, peaks, split == 0)
    facts = {
        "cell_types": list(peaks),
        "lengths": genome.lengths,
        "width": settings.region_width,
        "valid_chromosomes": valid,
        "test_chromosomes": test,
        "pseudocount": settings.pseudocount,
    }
    write_corpus(run.folder, facts, regions, motifs, {"sequence": sequence, "evidence": evidence, **access})
    metrics = {
        "regions": len(regions),
        "examples": len(access["accessible_regions"]),
        "motifs": len(motifs),
        "cell_types": len(peaks),
        "regions_per_split": {name: int((split == i).sum()) for i, name in enumerate(SPLITS)},
        "peaks_per_cell_type": {name: len(found.table) for name, found in peaks.items()},
        "regions_per_cell_type": dict(zip(peaks, np.diff(access["accessible_offsets"]).tolist(), strict=True)),
        "windows_dropped": dropped,
        "duplicate_peaks": {name: found.duplicates for name, found in peaks.items() if found.duplicates},
        "blacklist_intervals_on_the_genome": len(blacklist),
        "peaks_on_unknown_chromosomes": {name: found.skipped for name, found in peaks.items() if found.skipped},
        "ambiguous_bases_read_as_n": genome.ambiguous,
    }
    out = run.finish(metrics)
    say(
        f"{out}: {len(regions):,} regions, {metrics['examples']:,} examples, "
        f"{len(peaks)} cell types, {len(motifs)} motifs"
    )
    return out


def _held_out(settings: PrepareSettings, genome: Genome) -> tuple[list[str], list[str]]:
    asked = {
        "--valid-chromosomes": settings.valid_chromosomes,
        "--test-chromosomes": settings.test_chromosomes,
    }
    found = Problems("The splits cannot be made:")
    mapped = {option: match_chromosomes(names, genome.lengths) for option, names in asked.items()}
    for option, names in asked.items():
        for name in names:
            if name not in mapped[option]:
                found.add(
                    option,
                    f"the genome has no chromosome {name!r}; it has {', '.join(list(genome.lengths)[:12])}",
                    "Correct the name.",
                )
    valid, test = (
        sorted({mapped[option][name] for name in names if name in mapped[option]}) for option, names in asked.items()
    )
    for name in sorted(set(valid) & set(test)):
        found.add(name, "the chromosome is given for validation and for testing", "Name it once.")
    found.raise_any()
    return valid, test


def _check_splits(split: NDArray[np.uint8], settings: PrepareSettings) -> None:
    found = Problems("The splits leave a part without regions:")
    asked = {
        "train": True,
        "valid": bool(settings.valid_chromosomes),
        "test": bool(settings.test_chromosomes),
    }
    for i, name in enumerate(SPLITS):
        if asked[name] and not (split == i).any():
            found.add(
                name,
                "no region lies on its chromosomes",
                "Choose other --valid-chromosomes and --test-chromosomes.",
            )
    found.raise_any()


def _read_all_peaks(cell_types: dict[str, Path], genome: Genome, skip_unknown: bool) -> dict[str, Intervals]:
    found = Problems("Peaks cannot be used:")
    peaks: dict[str, Intervals] = {}
    for name, path in track(list(cell_types.items()), "reading peaks"):
        try:
            peaks[name] = read_peaks(path, genome.lengths, skip_unknown=skip_unknown)
        except UserError as error:
            found.lines.append(str(error))
    found.raise_any()
    return peaks


def _accessibility(
    regions: pd.DataFrame, peaks: dict[str, Intervals], training: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    members, values = [], []
    for found in peaks.values():
        accessible, signal = accessible_regions(regions, found.table)
        members.append(accessible)
        values.append(per_million(signal, training[accessible]))
    return {
        "accessible_offsets": np.cumsum([0, *map(len, members)], dtype=np.int64),
        "accessible_regions": np.concatenate(members).astype(np.int32),
        "accessible_values": np.concatenate(values),
    }
