"""The examination: all inputs of a corpus, one after the other."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import bioframe
import numpy as np
import pandas as pd

from genebert.console import say, table, track
from genebert.corpus.parallel import open_workers
from genebert.corpus.signal import BigWigFiles, FragmentFiles, H5adFile, Source, find_source, peak_table
from genebert.corpus.work import Work
from genebert.doctor.finding import Finding, attempt, judge
from genebert.doctor.motifs import examine_motifs
from genebert.doctor.peaks import (
    PeakSet,
    Reference,
    examine_peaks,
    examine_sets,
    examine_signal,
    examine_summits,
    places_per_chromosome,
    summarise,
)
from genebert.doctor.sequence import examine_genome, sample_genome
from genebert.doctor.signal import examine_bigwigs, examine_fragments, examine_h5ad, examine_padding
from genebert.doctor.splits import examine_splits
from genebert.errors import Problems, listed
from genebert.inputs.genome import Genome
from genebert.inputs.h5ad import read_h5ad_peaks
from genebert.inputs.intervals import Intervals, read_annotation, read_peaks
from genebert.inputs.motifs import read_motifs
from genebert.inputs.scan import parse_background
from genebert.settings import CorpusInputs, DoctorSettings

_PLACE = ["chrom", "start", "end"]


def doctor(settings: DoctorSettings) -> None:
    """Say what looks wrong with the inputs of a corpus.

    Raises:
        UserError: something is wrong, and not only worth a look; all of it is named.
    """
    findings = examine(settings)
    show(findings)
    problems = Problems("These inputs will not do:")
    for alike in _alike([finding for finding in findings if finding.verdict == "wrong"]):
        one = alike[0]
        problems.add(f"{one.group}, {one.check}", listed(map(_found, alike), 3, "; ").rstrip("."), one.remedy)
    problems.raise_any()
    looks = sum(finding.verdict == "look" for finding in findings)
    say(f"{len(findings)} checks, nothing wrong" + (f"; look at {looks}" if looks else ""))


def show(findings: Sequence[Finding]) -> None:
    """Print a table for each kind of input; what is alike for several files takes one row."""
    for group, rows in groupby(_alike(findings), key=lambda alike: alike[0].group):
        table(group, ("check", "found", "verdict", "what to do"), map(_row, rows), words=True)


def _row(alike: Sequence[Finding]) -> tuple[str, str, str, str]:
    one = alike[0]
    found = listed(map(_found, alike), 1 if one.verdict == "ok" else 4, "; ")
    return one.check, found, one.verdict, one.remedy


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Put findings together that differ only in file or cell type and what was found; sort by group and check."""
    together: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in findings:
        key = finding.group, finding.check, finding.verdict, finding.remedy
        together.setdefault(key, []).append(finding)
    groups = list(dict.fromkeys(finding.group for finding in findings))
    checks = list(dict.fromkeys(finding.check for finding in findings))
    return sorted(together.values(), key=lambda alike: (groups.index(alike[0].group), checks.index(alike[0].check)))


def _found(finding: Finding) -> str:
    return f"{finding.name}: {finding.found}" if finding.name else finding.found


def examine(settings: CorpusInputs) -> list[Finding]:
    """Look at the inputs of a corpus.

    Args:
        settings: see `CorpusInputs`.

    Returns:
        all findings; an input that cannot be read is one, and the rest is looked at as far as it goes.
    """
    found: list[Finding] = []
    if settings.region_width % 2:
        remedy = "Give an even width in bp."
        found.append(Finding("settings", "region width", f"{settings.region_width} is odd", "wrong", remedy))
    attempt(found, "settings", lambda: parse_background(settings.background))
    genome = attempt(found, "genome", lambda: Genome(settings.genome))
    source = attempt(found, "ATAC-seq", lambda: find_source(settings))
    if genome is not None:
        with genome:
            found += _with_genome(settings, genome, source)
    motifs = attempt(found, "motifs", lambda: read_motifs(settings.motifs))
    return found + (list(examine_motifs(motifs, settings.region_width)) if motifs else [])


def _with_genome(settings: CorpusInputs, genome: Genome, source: Source | None) -> list[Finding]:
    found: list[Finding] = []
    sample = attempt(found, "genome", lambda: sample_genome(genome, settings.region_width))
    if sample is None:
        return found
    found += examine_genome(genome, sample)
    reference = Reference(
        genome,
        sample,
        _blacklist(settings, genome, found),
        settings.region_width,
        settings.max_n_fraction,
        settings.skip_unknown_chromosomes,
    )
    if source is None:
        return found
    look_at = _peaks if source.peak_files else _enriched
    sets, windows = look_at(source, reference, found)
    found += _cell_types(source, sets, genome.lengths)
    if len(windows):
        if isinstance(source, FragmentFiles):
            found += examine_fragments(source, windows, genome.lengths, settings)
        if isinstance(source, BigWigFiles):
            found += examine_bigwigs(source, windows, genome.lengths, settings)
    if isinstance(source, H5adFile):
        found += examine_h5ad(source, genome.lengths, settings)
    places = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *(one.places for one in sets)]))
    on_chromosomes = places_per_chromosome(places, genome.lengths)
    return found + examine_splits(settings, genome.lengths, source.cell_types, on_chromosomes)


def _peaks(source: Source, reference: Reference, found: list[Finding]) -> tuple[list[PeakSet], pd.DataFrame]:
    """Look at each file of peaks; return what is kept of each, and their union if signal is to be measured in it."""
    sets: list[PeakSet] = []
    union = pd.DataFrame({name: [] for name in _PLACE})
    lengths = reference.genome.lengths
    read = read_h5ad_peaks if source.kind == "h5ad" else partial(read_peaks, beyond_end=True)
    for name, path in track(list(source.peak_files.items()), "reading peaks"):
        subject = f"peaks: {name}"
        peaks = attempt(found, subject, partial(read, path, lengths, skip_unknown=True))
        if peaks is None:
            continue
        attempt(found, subject, partial(_one_set, subject, peaks, reference, source.kind, found))
        sets.append(summarise(name, peaks.table, lengths))
        if source.kind in {"bigwig", "fragments"}:
            union = _union(union, peaks.table, lengths)
    return sets, union


def _enriched(source: Source, reference: Reference, found: list[Finding]) -> tuple[list[PeakSet], pd.DataFrame]:
    """Find candidate peaks as `prepare` will without files of them; return what is kept of each set, and the union."""
    lengths = reference.genome.lengths
    sets: list[PeakSet] = []
    union = pd.DataFrame({name: [] for name in _PLACE})
    with TemporaryDirectory(prefix="genebert-") as scratch, open_workers(1, None) as workers:
        work = Work(Path(scratch), workers)
        candidates = attempt(found, "peaks", lambda: source.candidates(work, lengths, True))
        if candidates is None:
            return sets, union
        for name, peaks in zip(source.peak_sets, candidates, strict=True):
            table = peak_table(peaks, lengths).astype({"chrom": str})
            remedy = "Nothing in it stands out: merge the cell type with another, or give --peaks."
            number = f"{len(table):,} windows with more insertions than their surroundings"
            found.append(judge(f"peaks: {name}", "number", number, [(table.empty, "look", remedy)]))
            sets.append(summarise(name, table, lengths))
            union = _union(union, table, lengths)
    return sets, union


def _one_set(subject: str, peaks: Intervals, reference: Reference, kind: str, found: list[Finding]) -> None:
    found.extend(examine_peaks(subject, peaks, reference))
    if kind != "h5ad":
        found.append(examine_summits(subject, peaks.table))
    if kind == "peaks":
        found.append(examine_signal(subject, peaks.table))


def _union(union: pd.DataFrame, peaks: pd.DataFrame, lengths: Mapping[str, int]) -> pd.DataFrame:
    """Return the union of intervals, cut at the ends of chromosomes."""
    cut = peaks[_PLACE].assign(end=np.minimum(peaks["end"], peaks["chrom"].map(dict(lengths))))
    parts = [part for part in (union, cut[cut["start"] < cut["end"]]) if len(part)]
    return bioframe.merge(pd.concat(parts), min_dist=None)[_PLACE] if parts else union


def _cell_types(source: Source, sets: Sequence[PeakSet], lengths: Mapping[str, int]) -> Iterator[Finding]:
    """Look at the cell types together, and if their peaks tell what is accessible, at each."""
    number = len(source.cell_types)
    remedy = "With one cell type, nothing can be learnt of what differs between them; give more if you can."
    yield judge("cell types", "number", f"{number}", [(number == 1, "look", remedy)])
    if source.kind != "peaks":
        return
    if len(sets) > 1:
        yield from examine_sets(sets, lengths)
    for one in sets:
        yield examine_padding(f"cell types: {one.name}", places_per_chromosome(one.places, lengths))


def _blacklist(settings: CorpusInputs, genome: Genome, found: list[Finding]) -> pd.DataFrame:
    nothing = pd.DataFrame({name: [] for name in _PLACE})
    path = settings.blacklist
    if path is None:
        remedy = "A blacklist of the assembly keeps artefacts out (github.com/Boyle-Lab/Blacklist)."
        found.append(Finding("blacklist", "given", "no", "look", remedy))
        return nothing
    read = attempt(found, "blacklist", lambda: read_annotation(path, genome.lengths))
    if read is None:
        return nothing
    found.append(Finding("blacklist", "given", f"{len(read.table):,} intervals on the genome"))
    return read.table[_PLACE]
