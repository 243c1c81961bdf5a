"""Everything about a corpus that comes before sequence is read and scanned: regions, signal, splits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.console import say
from genebert.corpus import splits
from genebert.corpus.block import base_counts, map_blocks, sketch_block
from genebert.corpus.chromosomes import held_out_chromosomes
from genebert.corpus.estimate import Estimate, estimate
from genebert.corpus.regions import Rules, find_regions
from genebert.corpus.signal import Accessibility, Place, Source
from genebert.corpus.work import Results, Work
from genebert.errors import Problems, UserError, problem
from genebert.inputs.archetypes import cluster_motifs, order_by_similarity
from genebert.inputs.genome import Genome
from genebert.inputs.intervals import read_annotation
from genebert.inputs.motifs import read_motifs
from genebert.inputs.scan import Scanner, parse_background
from genebert.schema import SPLITS, C, G, Motif, N, split_of
from genebert.settings import CorpusInputs

_CLOSED = "no region is accessible in it"
_OPEN_MORE = "Check its file and --blacklist, lower --min-cpm and --min-count"


@dataclass(frozen=True)
class Plan:
    """All that is known of a corpus before sequence is read and scanned.

    Attributes:
        settings: what the user set.
        source: of the ATAC-seq.
        genome: where sequence comes from.
        valid_chromosomes, test_chromosomes: as the genome names them.
        peaks: candidate peaks, one result per peak set.
        regions: DataFrame with chrom, start, end; sorted by chromosome and start.
        dropped: reason -> number of windows that became no region.
        signal: what is accessible in each cell type.
        cell_type_part: index into `SPLITS` of each cell type.
        split: index into `splits.NAMES` of each region, uint8.
        too_similar: number of held-out regions that are in no split because they are near-duplicates.
        scanner: of the motif collection.
        archetypes: motif -> the motifs that it stands for; empty without --archetypes.
        blacklisted: number of blacklist intervals on the genome.
    """

    settings: CorpusInputs
    source: Source
    genome: Genome
    valid_chromosomes: list[str]
    test_chromosomes: list[str]
    peaks: Results
    regions: pd.DataFrame
    dropped: dict[str, int]
    signal: Accessibility
    cell_type_part: NDArray[np.uint8]
    split: NDArray[np.uint8]
    too_similar: int
    scanner: Scanner
    archetypes: dict[str, list[str]]
    blacklisted: int

    @property
    def examples(self) -> int:
        """Number of (cell type, accessible region)."""
        return sum(map(len, self.signal.regions))

    def estimate(self, workers: int) -> Estimate:
        """Estimate what it takes to build the corpus."""
        return estimate(
            len(self.regions),
            self.examples,
            self.settings.region_width,
            self.scanner,
            workers,
            cell_types=len(self.source.cell_types),
            counted=self.source.kind in {"fragments", "h5ad"},
        )


def plan(settings: CorpusInputs, source: Source, genome: Genome, work: Work) -> Plan:
    """Read peaks, find the regions, measure signal in them, and split them.

    Raises:
        UserError: see `prepare`.
    """
    valid, test = held_out_chromosomes(settings.valid_chromosomes, settings.test_chromosomes, genome.lengths)
    gc = parse_background(settings.background)
    if settings.max_shared_kmers is not None:
        splits.check_installed()
    splits.check_cell_types(source.cell_types, settings.valid_cell_types, settings.test_cell_types)
    _warn_of_merged_peaks(settings, source)
    motifs, archetypes = _read_collection(settings)
    blacklist = read_blacklist(settings, genome)
    peaks = source.candidates(work, genome.lengths, settings.skip_unknown_chromosomes)
    rules = Rules(genome, blacklist, settings.region_width, settings.max_n_fraction)
    regions, late, dropped = _find_regions(settings, source, peaks, rules, work)
    by_chromosome = split_of(regions["chrom"], valid, test)
    training = by_chromosome == 0
    signal = source.accessibility(work, Place(genome.lengths, regions, training & ~late), peaks)
    part = splits.cell_type_split(signal.cell_types, settings.valid_cell_types, settings.test_cell_types)
    _check_held_out(source.cell_types, signal, settings)
    if not (part == 0).any():
        what = "all cell types that are not held out were dropped as too small"
        raise UserError(problem("genebert prepare", what, "Lower --min-cells and --min-fragments, or hold fewer out."))
    signal = _hide(signal, training & late, part == 0)
    found = _found_in_training(len(regions), signal, part)
    split = splits.region_split(by_chromosome, found)
    scanner = Scanner(motifs, settings.pseudocount, 0.5 if gc is None else gc)
    planned = Plan(
        settings=settings,
        source=source,
        genome=genome,
        valid_chromosomes=valid,
        test_chromosomes=test,
        peaks=peaks,
        regions=regions,
        dropped=dropped,
        signal=signal,
        cell_type_part=part,
        split=split,
        too_similar=0,
        scanner=scanner,
        archetypes=archetypes,
        blacklisted=len(blacklist),
    )
    check_splits(planned)
    _warn_of_closed(planned)
    if settings.max_shared_kmers is not None:
        planned = _without_duplicates(planned, work, settings.max_shared_kmers)
    return planned if gc is not None else replace(planned, scanner=replace(scanner, gc=_training_gc(planned, work)))


def _without_duplicates(planned: Plan, work: Work, max_shared: float) -> Plan:
    """Take held-out regions that share too much of their sequence with training regions out of their split."""
    shared = planned.genome, planned.settings.region_width
    sketches = map_blocks(planned.regions, work, "sketches", "sketching sequence", sketch_block, shared)
    similar = splits.too_similar(sketches, planned.split, max_shared)
    split = np.where(similar, splits.NONE, planned.split).astype(np.uint8)
    planned = replace(planned, split=split, too_similar=int(similar.sum()))
    check_splits(planned)
    return planned


def _warn_of_merged_peaks(settings: CorpusInputs, source: Source) -> None:
    merged = [name for name in source.peak_files if name not in source.cell_types]
    if merged and source.kind != "h5ad" and (settings.valid_cell_types or settings.test_cell_types):
        remedy = "a file of peaks per cell type, named as it, keeps held-out ones from choosing training regions"
        say(f"The peaks of {', '.join(merged)} are of no one cell type; {remedy}.")


def _warn_of_closed(planned: Plan) -> None:
    """Say in which cell types for training nothing is accessible."""
    signal = planned.signal
    for name, rows, part in zip(signal.cell_types, signal.regions, planned.cell_type_part, strict=True):
        if part == 0 and not len(rows):
            say(f"warning: {problem(f'cell type {name}', _CLOSED, f'{_OPEN_MORE}, or leave it out.')}")


def _check_held_out(all_names: Sequence[str], signal: Accessibility, settings: CorpusInputs) -> None:
    """Refuse to go on without a cell type that was to be held out, or with one in which nothing is accessible."""
    found = Problems("The cell types cannot be held out:")
    regions = dict(zip(signal.cell_types, map(len, signal.regions), strict=True))
    for name in (*settings.valid_cell_types, *settings.test_cell_types):
        if name in all_names and name not in regions:
            found.add(name, "it was dropped as too small", "Lower --min-cells and --min-fragments, or do not name it.")
        elif name in regions and not regions[name]:
            found.add(name, _CLOSED, f"{_OPEN_MORE}, or do not name it.")
    found.raise_any()


def _find_regions(
    settings: CorpusInputs, source: Source, peaks: Results, rules: Rules, work: Work
) -> tuple[pd.DataFrame, NDArray[np.bool_], dict[str, int]]:
    """Return the regions, which of them are there for held-out cell types only, and what was dropped."""
    held_out = {*settings.valid_cell_types, *settings.test_cell_types}
    late = np.array([name in held_out for name in source.peak_sets])
    regions, late_regions, dropped = find_regions(rules, peaks, late, work)
    if regions.empty:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        total = sum(len(result["start"]) for result in peaks)
        raise UserError(
            problem(
                "genebert prepare",
                f"no region is left of {total} peaks: {reasons}",
                "Check that genome and peaks are of the same assembly, and --max-n-fraction and --blacklist.",
            )
        )
    return regions, late_regions, dropped


def _hide(signal: Accessibility, hidden: NDArray[np.bool_], cell_types: NDArray[np.bool_]) -> Accessibility:
    """Take regions out of what is accessible in some cell types.

    On training chromosomes, what is a region for the sake of held-out cell types only is none for the others: they
    would not know of it without these.
    """
    kept = [
        ~hidden[rows] if of else np.ones(len(rows), dtype=bool)
        for rows, of in zip(signal.regions, cell_types, strict=True)
    ]
    return replace(
        signal,
        regions=[rows[keep] for rows, keep in zip(signal.regions, kept, strict=True)],
        values=[values[keep] for values, keep in zip(signal.values, kept, strict=True)],
    )


def _training_gc(planned: Plan, work: Work) -> float:
    """Return the GC fraction of the training regions; other regions have no say in how hits are scored."""
    shared = planned.genome, planned.settings.region_width
    training = planned.regions[planned.split == 0]
    results = map_blocks(training, work, "bases", "counting bases", base_counts, shared)
    counts = np.sum([result["counts"] for result in results], axis=0)
    return float(np.round(counts[[C, G]].sum() / counts[:N].sum(), 4))


def _found_in_training(regions: int, signal: Accessibility, part: NDArray[np.uint8]) -> NDArray[np.bool_]:
    found = np.zeros(regions, dtype=bool)
    for accessible, of in zip(signal.regions, part, strict=True):
        found[accessible] |= of == 0
    return found


def _read_collection(settings: CorpusInputs) -> tuple[list[Motif], dict[str, list[str]]]:
    motifs = read_motifs(settings.motifs)
    if settings.archetypes is None:
        return order_by_similarity(motifs, settings.pseudocount), {}
    return cluster_motifs(motifs, settings.pseudocount, settings.archetypes)


def read_blacklist(settings: CorpusInputs, genome: Genome) -> pd.DataFrame:
    """Return chrom, start, end of the blacklist's intervals on the genome; none if no blacklist is given.

    Raises:
        UserError: see `read_annotation`.
    """
    if settings.blacklist is None:
        return pd.DataFrame({"chrom": [], "start": [], "end": []})
    return read_annotation(settings.blacklist, genome.lengths).table[["chrom", "start", "end"]]


def check_splits(planned: Plan) -> None:
    """Refuse splits of which a part that was asked for is empty.

    Raises:
        UserError: no region is in it.
    """
    found = Problems("The splits leave a part without regions:")
    by_chromosome = split_of(planned.regions["chrom"], planned.valid_chromosomes, planned.test_chromosomes)
    asked = True, bool(planned.valid_chromosomes), bool(planned.test_chromosomes)
    for i, name in enumerate(SPLITS):
        if asked[i] and not (planned.split == i).any():
            found.add(name, *_why_empty(name, lies_there=bool((by_chromosome == i).any())))
    found.raise_any()


def _why_empty(part: str, *, lies_there: bool) -> tuple[str, str]:
    """Return why no region is in a part of the splits, and what to do; lies_there: one is on its chromosomes."""
    if not lies_there:
        return "no region lies on its chromosomes", "Choose other --valid-chromosomes and --test-chromosomes."
    if part == "train":
        what = "no region on its chromosomes is accessible in a cell type that is not held out"
        return what, "Lower --min-cpm and --min-count, or hold out other chromosomes or cell types."
    what = "all regions on its chromosomes share too much sequence with those that they are held out from"
    return what, "Raise --max-shared-kmers, or choose other chromosomes."
