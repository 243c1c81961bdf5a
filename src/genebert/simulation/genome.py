"""Sequence of the simulated genome: PWMs, background, the places of elements and genes, and their signals.

Bases are codes: A, C, G, T = 0..3 and N = 4, so that the complement of b is 3 - b. Chromosomes have equal
lengths and lie end to end in one array; a *position* counts along that array, 0-based, and intervals are
half-open. A strand is +1 or -1.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from genebert.errors import Problems, UserError, problem
from genebert.inputs.motifs import JASPAR_RELEASE, read_motifs
from genebert.settings import SimulateSettings

Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BASES = "ACGTN"
CODE_OF = np.full(256, 4, np.uint8)
CODE_OF[[ord(base) for base in "ACGT"]] = range(4)
IUPAC = {
    "A": "A",
    "C": "C",
    "G": "G",
    "T": "T",
    "R": "AG",
    "Y": "CT",
    "W": "AT",
    "M": "AC",
    "B": "CGT",
    "V": "ACG",
    "N": "ACGT",
}


@dataclass(frozen=True)
class GenomeModel:
    """Constants of the genome. Lengths are in bp."""

    stretch: int = 500  # of one base composition; each is one Markov chain, on a random strand
    gc_mean: float = 0.42  # GC content that isochores vary around
    gc_spread: float = 0.06  # standard deviation of the GC content over isochores
    gc_memory: float = 0.99  # correlation of the isochore GC content of neighbouring stretches
    gc_local: float = 0.07  # standard deviation of a stretch's own GC content
    gc_range: tuple[float, float] = (0.25, 0.7)  # lowest and highest GC content
    at_skew: float = 0.32  # standard deviation of log(A / T) over stretches
    cg_skew: float = 0.22  # the same of log(C / G)
    cpg_depletion: float = 0.15  # factor on G after C; median over stretches
    cpg_spread: float = 0.5  # standard deviation of its logarithm
    ta_depletion: float = 0.6  # factor on A after T
    run_bonus: float = 1.25  # factor on A after AA and on T after TT; median over stretches
    run_spread: float = 0.4  # standard deviation of its logarithm
    end_n: int = 500  # Ns at either end of a chromosome
    middle_n: int = 300  # Ns in the middle of a chromosome
    repeat_every: int = 1000  # mean distance of repeats
    repeat_lengths: tuple[int, ...] = (300, 300, 200, 150, 100, 60)  # one family of repeats each
    repeat_divergence: float = 0.2  # fraction of a repeat's bases drawn anew
    core: int = 100  # an element is its centre +- core
    slot: int = 700  # least distance of the centres of two elements
    genes_room: int = 2  # least number of elements per gene, its promoter included
    exons: tuple[int, int] = (2, 6)  # fewest and most exons of a gene
    exon_length: tuple[int, int] = (50, 150)  # shortest and longest inner exon
    first_exon: tuple[int, int] = (110, 190)  # shortest and longest first exon
    exon_offset: tuple[int, int] = (
        130,
        170,
    )  # distance from an element's centre to an exon's start, in a tight slot
    softness: float = 0.15  # chance that a lower-case letter of a signal is any base
    island: int = 150  # a promoter without TATA box is CpG-rich in its TSS +- island
    island_gc: float = 0.64  # GC content of that island, CpG not depleted
    tata_fraction: float = 0.4  # fraction of promoters with a TATA box
    donor: str = "magGTragt"  # exon's last 3 bases, then intron; capital letters are always kept
    acceptor: str = "yyyyyyyyyyyynyAGg"  # intron's last 16 bases, then exon
    initiator: str = "bbCAbw"  # its A is the TSS
    dpe: str = "rGWyv"  # downstream promoter element, of promoters without TATA box
    dpe_offset: int = 28  # from the TSS to the DPE


@dataclass(frozen=True)
class Motif:
    """A PWM.

    Attributes:
        matrix_id: such as "MA0139.2".
        name: TF, such as "CTCF".
        probabilities: shape (length, 4), rows sum to 1.
    """

    matrix_id: str
    name: str
    probabilities: Floats

    @property
    def length(self) -> int:
        """Width in bp."""
        return len(self.probabilities)

    @cached_property
    def scores(self) -> Floats:
        """Log2 odds against equal base frequencies in bits, shape (length, 4).

        They are multiples of 1/64, so that sums are exact in float32 whatever the order of summation.
        """
        smoothed = 0.99 * self.probabilities + 0.01 * 0.25
        return np.round(np.log2(smoothed / 0.25) * 64) / 64

    @cached_property
    def best(self) -> float:
        """Score of the consensus in bits."""
        return float(self.scores.max(1).sum())

    @cached_property
    def information(self) -> float:
        """Information content in bits."""
        p = self.probabilities
        return float((p * np.log2(np.maximum(p, 1e-9) / 0.25)).sum())

    def sample(self, rng: np.random.Generator, n: int, sharpness: float) -> Codes:
        """Draw n sites, shape (n, length), from the probabilities raised to `sharpness` and normalised."""
        p = self.probabilities**sharpness
        return draw(rng, p / p.sum(1, keepdims=True), n)


def draw(rng: np.random.Generator, probabilities: Floats, n: int) -> Codes:
    """Draw n sequences, shape (n, length), from base probabilities of shape (length, 4)."""
    edges = probabilities.cumsum(1)[:, :3]
    return np.asarray((rng.random((n, len(edges), 1)) > edges).sum(2), np.uint8)


def load_motifs() -> list[Motif]:
    """Return the vertebrate PWMs of JASPAR CORE, sorted by id."""
    return [Motif(one.id, one.name, one.probabilities) for one in read_motifs("jaspar:vertebrates")]


def pick_motifs(library: list[Motif], names: Iterable[str], longest: int) -> list[Motif]:
    """Return, per TF, its PWM of most information content among those of at most `longest` bp.

    JASPAR writes some names as in the mouse (Nrf1); the PWMs returned have the name asked for.
    """
    chosen = []
    for name in names:
        candidates = [m for m in library if m.name.upper() == name.upper() and m.length <= longest]
        if not candidates:
            raise UserError(
                problem(JASPAR_RELEASE, f"no PWM of {name} with at most {longest} bp", "Reinstall pyjaspar >= 4.")
            )
        chosen.append(replace(max(candidates, key=lambda m: m.information), name=name))
    return chosen


@dataclass
class Genome:
    """Sequence under construction.

    Attributes:
        codes: shape (chromosomes * length,).
        chromosomes: their names.
        length: of each chromosome, bp.
        masked: soft-masked intervals, shape (n, 2).
    """

    codes: Codes
    chromosomes: list[str]
    length: int
    masked: Ints = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    def chromosome_of(self, positions: Ints) -> list[str]:
        """Return the chromosome names of positions."""
        return [self.chromosomes[i] for i in np.asarray(positions) // self.length]

    def windows(self, starts: Ints, width: int) -> Codes:
        """Return the sequences [start, start + width), shape (n, width)."""
        return np.asarray(self.codes[np.asarray(starts)[:, None] + np.arange(width)])

    def sites(self, starts: Ints, strands: Ints, width: int) -> Codes:
        """Return the sequences [start, start + width) read on their strands, shape (n, width)."""
        return orient(self.windows(starts, width), strands)

    def plant(self, starts: Ints, strands: Ints, rows: Codes) -> None:
        """Write sequences, shape (n, width) and given on their strands, at their starts."""
        self.codes[np.asarray(starts)[:, None] + np.arange(rows.shape[1])] = orient(rows, strands)


def orient(rows: Codes, strands: Ints) -> Codes:
    """Return rows, shape (n, width), reverse-complemented where the strand is -1; no Ns."""
    return np.where(np.asarray(strands)[:, None] > 0, rows, 3 - rows[:, ::-1]).astype(np.uint8)


def records(table: pd.DataFrame) -> Iterator[Any]:
    """Yield the rows of a table as named tuples, untyped, with their Index."""
    yield from table.itertuples()


def text(codes: Codes) -> str:
    """Return base codes as letters."""
    return "".join(BASES[code] for code in codes)


def make_background(rng: np.random.Generator, settings: SimulateSettings, model: GenomeModel) -> Genome:
    """Draw a genome without elements and genes: isochores, repeats, Ns."""
    length = round(settings.genome_mb * 1e6) // settings.chromosomes
    total = length * settings.chromosomes
    names = [f"chr{i + 1}" for i in range(settings.chromosomes)]
    genome = Genome(_markov(rng, -(-total // model.stretch), model)[:total], names, length)
    _add_repeats(rng, genome, model)
    for first in range(0, total, length):
        middle = first + length // 2 - model.middle_n // 2
        genome.codes[first : first + model.end_n] = 4
        genome.codes[middle : middle + model.middle_n] = 4
        genome.codes[first + length - model.end_n : first + length] = 4
    return genome


def _markov(rng: np.random.Generator, stretches: int, model: GenomeModel) -> Codes:
    """Draw stretches of an order-2 Markov chain, all in step, so that the loop is over one stretch's bases."""
    edges = _transition_edges(rng, stretches, model)
    first = np.arange(stretches) * 16
    state = rng.integers(0, 16, stretches)
    columns = np.empty((model.stretch, stretches), np.uint8)
    for row in columns:
        u = rng.random(stretches, dtype=np.float32)
        e = edges[first + state]
        base = (u > e[:, 0]).astype(np.int64) + (u > e[:, 1]) + (u > e[:, 2])
        row[:] = base
        state = (state & 3) * 4 + base
    return orient(columns.T, rng.choice([-1, 1], stretches)).ravel()


def _isochores(rng: np.random.Generator, stretches: int, model: GenomeModel) -> Floats:
    """Return the GC content of each stretch: an autoregressive walk, and what is its own."""
    kicks = rng.normal(0, np.sqrt(1 - model.gc_memory**2), stretches)
    walk, value = np.empty(stretches), rng.normal()
    for i, kick in enumerate(kicks):
        value = model.gc_memory * value + kick
        walk[i] = value
    gc = model.gc_mean + model.gc_spread * walk + rng.normal(0, model.gc_local, stretches)
    return np.clip(gc, *model.gc_range)


def _transition_edges(rng: np.random.Generator, stretches: int, model: GenomeModel) -> npt.NDArray[np.float32]:
    """Return cumulative base probabilities, shape (stretches * 16, 3), by stretch and the two bases before."""
    gc = _isochores(rng, stretches, model)
    at, cg = (special.expit(rng.normal(0, spread, stretches)) for spread in (model.at_skew, model.cg_skew))
    composition = np.stack([(1 - gc) * at, gc * cg, gc * (1 - cg), (1 - gc) * (1 - at)], axis=1)
    p = np.repeat(composition[:, None], 16, axis=1).reshape(-1, 4, 4, 4)  # stretch, second last base, last base, base
    p[:, :, 1, 2] *= _around(rng, model.cpg_depletion, model.cpg_spread, stretches)[:, None]
    p[:, :, 3, 0] *= model.ta_depletion
    run = _around(rng, model.run_bonus, model.run_spread, stretches)
    for base in (0, 3):
        p[:, base, base, base] *= run
    p /= p.sum(-1, keepdims=True)
    return p.cumsum(-1)[..., :3].reshape(-1, 3).astype(np.float32)


def _around(rng: np.random.Generator, median: float, spread: float, n: int) -> Floats:
    """Draw n log-normal numbers."""
    return np.asarray(median * np.exp(rng.normal(0, spread, n)))


def _add_repeats(rng: np.random.Generator, genome: Genome, model: GenomeModel) -> None:
    """Copy diverged repeats of a few families to random places, and soft-mask them."""
    masked = []
    for length in model.repeat_lengths:
        consensus = _markov(rng, -(-length // model.stretch), model)[:length]
        n = max(1, len(genome.codes) // model.repeat_every // len(model.repeat_lengths))
        starts = rng.integers(0, len(genome.codes) - length, n)
        rows = np.tile(consensus, (n, 1))
        diverged = rng.random(rows.shape) < model.repeat_divergence
        rows[diverged] = rng.integers(0, 4, int(diverged.sum()))
        genome.plant(starts, rng.choice([-1, 1], n), rows)
        masked.append(np.stack([starts, starts + length], 1))
    genome.masked = np.concatenate(masked)


def check_room(settings: SimulateSettings, model: GenomeModel) -> None:
    """Raise a `UserError` if the elements and genes do not fit into the genome."""
    problems = Problems("the simulation cannot be laid out")
    least = model.genes_room * settings.genes
    if settings.regions < least:
        problems.add(
            "regions, genes",
            f"{settings.regions} regions are too few for {settings.genes} genes, each of which "
            f"takes {model.genes_room} (its promoter and one more)",
            f"Set regions to at least {least}, or genes to at most {settings.regions // model.genes_room}.",
        )
    arms = 2 * settings.chromosomes
    slots = int(_shares(settings, model).max()) + 1
    room = _arm_length(round(settings.genome_mb * 1e6) // settings.chromosomes, model)
    if slots * model.slot > room:
        problems.add(
            "regions, genome_mb, chromosomes",
            f"{settings.regions} regions over {arms} chromosome arms need {slots * model.slot} bp each "
            f"({model.slot} bp per region), and an arm has {room} bp",
            f"Set regions to at most {max(0, (room // model.slot - 3) * arms)}, or raise genome_mb.",
        )
    problems.raise_any()


def _arm_length(chromosome: int, model: GenomeModel) -> int:
    return (chromosome - model.middle_n) // 2 - model.end_n


def _spread(n: int, bins: int) -> Ints:
    """Return how many of n things each bin gets, as evenly as can be."""
    edges = np.arange(bins + 1) * n // bins
    return np.diff(edges)


def _shares(settings: SimulateSettings, model: GenomeModel) -> Ints:
    """Return the number of elements per chromosome arm, never less than its genes need."""
    arms = 2 * settings.chromosomes
    genes = model.genes_room * settings.genes
    return model.genes_room * _spread(settings.genes, arms) + _spread(max(0, settings.regions - genes), arms)


@dataclass(frozen=True)
class Layout:
    """Where things lie.

    Attributes:
        elements: one row per element, in genomic order: centre, left and right (the slot that it has for
        itself),
            gene (index, or -1), strand (of the gene; 1 without).
        genes: per gene, the row numbers of its elements in the direction of transcription, promoter first.
        blacklist: intervals without elements, shape (n, 2).
    """

    elements: pd.DataFrame
    genes: list[Ints]
    blacklist: Ints


def lay_out(rng: np.random.Generator, genome: Genome, settings: SimulateSettings, model: GenomeModel) -> Layout:
    """Give each element a slot of its own, and each gene a run of slots on one chromosome arm.

    Every first arm ends with a slot for the blacklist.
    """
    arm_length = _arm_length(genome.length, model)
    shares, genes = _shares(settings, model), _spread(settings.genes, 2 * settings.chromosomes)
    tables, runs, blacklist, done = [], [], [], 0
    for arm, (share, n_genes) in enumerate(zip(shares, genes, strict=True)):
        first = arm // 2 * genome.length + (model.end_n if arm % 2 == 0 else (genome.length + model.middle_n) // 2)
        slots = int(share) + (arm % 2 == 0)
        edges = first + np.arange(slots + 1) * arm_length // max(slots, 1)
        if arm % 2 == 0:
            blacklist.append(edges[-2:])
            edges = edges[:-1]
        tables.append(pd.DataFrame({"left": edges[:-1], "right": edges[1:]}))
        runs += _gene_runs(rng, int(share), int(n_genes), done)
        done += int(share)
    elements = pd.concat(tables, ignore_index=True)
    slack = elements.right - elements.left - model.slot
    elements["centre"] = elements.left + model.slot // 2 + (rng.random(len(elements)) * (slack + 1)).astype(np.int64)
    elements["gene"], elements["strand"] = -1, 1
    for number, run in enumerate(runs):
        elements.loc[run, "gene"] = number
        elements.loc[run, "strand"] = 1 if run[0] < run[-1] else -1
    return Layout(
        elements,
        [run[: rng.integers(*model.exons, endpoint=True)] for run in runs],
        np.array([_inner(edges, model) for edges in blacklist]),
    )


def _gene_runs(rng: np.random.Generator, slots: int, genes: int, first: int) -> list[Ints]:
    """Split the slots of an arm among its genes; a reversed run is a gene on the - strand."""
    if not genes:
        return []
    each = slots // genes
    start = first + int(rng.integers(0, slots - each * genes, endpoint=True))
    runs = [np.arange(start + i * each, start + (i + 1) * each) for i in range(genes)]
    return [run if rng.random() < 0.5 else run[::-1] for run in runs]


def _inner(edges: Ints, model: GenomeModel) -> list[int]:
    middle = int(edges.sum()) // 2
    return [middle - model.slot // 2, middle + model.slot // 2]


def span(centre: int, strand: int, start: int, end: int) -> tuple[int, int]:
    """Turn the interval [start, end), counted from a centre along a strand, into one on the genome."""
    return (centre + start, centre + end) if strand > 0 else (centre - end + 1, centre - start + 1)


def make_genes(rng: np.random.Generator, genome: Genome, layout: Layout, model: GenomeModel) -> pd.DataFrame:
    """Place exons, write splice and core promoter signals, and return one row per gene.

    Returns:
        columns name, element (row of its promoter), tss, strand, tata, exons (intervals in transcription
        order).
    """
    signals: dict[str, list[tuple[int, int]]] = {
        name: [] for name in (model.donor, model.acceptor, model.initiator, model.dpe)
    }
    rows = []
    tata = rng.permutation(len(layout.genes)) < round(model.tata_fraction * len(layout.genes))
    for number, run in enumerate(layout.genes):
        promoter = layout.elements.loc[run[0]]
        tss, strand = int(promoter.centre), int(promoter.strand)
        exons = _place_exons(rng, layout.elements.loc[run], signals, model)
        signals[model.initiator].append((span(tss, strand, -3, 3)[0], strand))
        if not tata[number]:
            signals[model.dpe].append((span(tss, strand, model.dpe_offset, model.dpe_offset + 5)[0], strand))
        rows.append((f"GENE{number + 1:05d}", int(run[0]), tss, strand, bool(tata[number]), exons))
    genes = pd.DataFrame(rows, columns=["name", "element", "tss", "strand", "tata", "exons"])
    _write_islands(rng, genome, genes.tss[~genes.tata].to_numpy(), model)
    for pattern, places in signals.items():
        _write_pattern(rng, genome, places, pattern, model)
    return genes


def _place_exons(
    rng: np.random.Generator, run: pd.DataFrame, signals: dict[str, list[tuple[int, int]]], model: GenomeModel
) -> list[tuple[int, int]]:
    """Put one exon downstream of each element of a gene, and note where its splice signals go."""
    exons = []
    for rank, slot in enumerate(records(run)):
        room = slot.right - slot.centre if slot.strand > 0 else slot.centre - slot.left
        start, end = 0, int(rng.integers(*model.first_exon, endpoint=True))
        if rank:
            low, high = model.exon_offset
            start = int(rng.integers(low, high + max(0, room - model.slot // 2), endpoint=True))
            end = start + int(rng.integers(*model.exon_length, endpoint=True))
            into = len(model.acceptor) - 1
            signals[model.acceptor].append((span(slot.centre, slot.strand, start - into, start + 1)[0], slot.strand))
        if rank < len(run) - 1:
            signals[model.donor].append((span(slot.centre, slot.strand, end - 3, end + 6)[0], slot.strand))
        exons.append(span(slot.centre, slot.strand, start, end))
    return exons


def _write_islands(rng: np.random.Generator, genome: Genome, tss: Ints, model: GenomeModel) -> None:
    gc = model.island_gc / 2
    p = np.tile([0.5 - gc, gc, gc, 0.5 - gc], (2 * model.island, 1))
    genome.plant(tss - model.island, np.ones(len(tss), np.int64), draw(rng, p, len(tss)))


def _write_pattern(
    rng: np.random.Generator, genome: Genome, places: list[tuple[int, int]], pattern: str, model: GenomeModel
) -> None:
    if not places:
        return
    p = np.zeros((len(pattern), 4))
    for row, letter in zip(p, pattern, strict=True):
        allowed = [BASES.index(base) for base in IUPAC[letter.upper()]]
        row[allowed] = 1 / len(allowed)
        if letter.islower():
            row[:] = (1 - model.softness) * row + model.softness / 4
    starts, strands = np.array(places).T
    genome.plant(starts, strands, draw(rng, p, len(places)))
