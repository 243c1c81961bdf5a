"""Regulation of the simulated genome: motif grammar of elements, and the accessibility that follows from it.

Everything downstream of the sequence is a function of the sequence: `Regulome.occupancy` scans the core of an
element, and `Regulome.log_odds` turns that into accessibility. A variant's effect is the same function again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from genebert.simulation.genome import (
    Codes,
    Floats,
    Genome,
    GenomeModel,
    Ints,
    Layout,
    Motif,
    load_motifs,
    pick_motifs,
    records,
    span,
)

TATA_TF = "TBP"
UBIQUITOUS = {"CTCF": 1.0, "SP1": 0.9, "NRF1": 0.8, "YY1": 0.8, "NFYA": 0.8}
LINEAGES = {
    "HSC": {"MEIS1": 1.0, "RUNX1": 0.8, "GFI1B": 0.9, "MEF2C": 0.4, "SPI1": 0.4, "GATA1": 0.3},
    "Ery": {"GATA1": 1.0, "TAL1::TCF3": 0.9, "NFE2": 1.0, "GFI1B": 0.4},
    "Mono": {"SPI1": 1.0, "CEBPA": 1.0, "RUNX1": 0.6, "RELA": 0.5, "IRF4": 0.3},
    "B": {"PAX5": 1.0, "EBF1": 1.0, "POU2F2": 0.9, "MEF2C": 0.7, "IRF4": 0.7, "SPI1": 0.5, "RELA": 0.4},
    "CD4T": {"TCF7": 1.0, "RORA": 0.9, "RUNX1": 0.8, "STAT3": 0.7, "RELA": 0.4},
    "NK": {"TBX21": 1.0, "NR3C1": 0.9, "STAT3": 0.8, "RUNX1": 0.7, "RELA": 0.5},
}
PROGRAMMES = {
    "ubiquitous": ("CTCF", "SP1", "NRF1", "YY1", "NFYA"),
    "stem": ("MEIS1", "RUNX1", "GFI1B", "MEF2C"),
    "erythroid": ("GATA1", "TAL1::TCF3", "NFE2"),
    "myeloid": ("SPI1", "CEBPA", "RUNX1"),
    "b_cell": ("PAX5", "EBF1", "POU2F2", "MEF2C"),
    "t_cell": ("TCF7", "RORA", "RUNX1"),
    "nk_cell": ("TBX21", "STAT3", "NR3C1"),
    "lymphoid": ("SPI1", "IRF4", "RELA", "STAT3"),
}
PROMOTER = ("SP1", "NRF1", "YY1", "NFYA")
CHIP_TFS = ("RUNX1", "GATA1", "SPI1")


class Pair(NamedTuple):
    """Two TFs that cooperate: `first` upstream of `second`, on the same strand or not, with a gap in bp."""

    first: str
    second: str
    same_strand: bool
    gaps: tuple[int, int]  # least and greatest, both included


PAIRS = {
    "ubiquitous": Pair("SP1", "NFYA", True, (8, 12)),
    "stem": Pair("RUNX1", "MEIS1", True, (3, 6)),
    "erythroid": Pair("TAL1::TCF3", "GATA1", True, (5, 8)),
    "myeloid": Pair("CEBPA", "SPI1", False, (4, 8)),
    "b_cell": Pair("EBF1", "PAX5", True, (5, 9)),
    "t_cell": Pair("TCF7", "RUNX1", True, (2, 5)),
    "nk_cell": Pair("TBX21", "STAT3", False, (3, 7)),
    "lymphoid": Pair("SPI1", "IRF4", True, (1, 3)),
}


@dataclass(frozen=True)
class RegulationModel:
    """Constants of regulation. Lengths are in bp, effects in log-odds (nats) of accessibility."""

    longest_motif: int = 17  # of a TF that acts
    reach: int = 70  # motifs of an enhancer or decoy lie in its centre +- reach
    promoter_window: tuple[int, int] = (-95, -38)  # where a promoter's TFs lie, from its TSS
    tata_offset: int = -31  # from the TSS to the TATA box
    motifs: tuple[int, int] = (2, 4)  # fewest and most motifs of an enhancer or decoy
    pair_fraction: float = 0.6  # enhancers with the cooperating pair of their programme
    decoy_fraction: float = 0.12  # of the elements that are not promoters
    ubiquitous_fraction: float = 0.06  # of the enhancers, those of the ubiquitous programme
    passenger_fraction: float = 0.15  # motifs of an enhancer that are from any programme
    sharpness: float = 1.5  # planted sites are drawn from p^sharpness
    least_score: float = 8.5  # bits below which a site is never bound
    least_fraction: float = 0.6  # fraction of the consensus' score below which a site is never bound
    most_bound: float = 0.95  # binding probability of the consensus
    baseline: float = -3.7  # log-odds without any TF
    gain: float = 4.0  # by a TF of activity 1 that is certainly bound
    cooperation: float = 4.0  # by a pair of activities 1 that is certainly bound, on top
    context: float = 0.7  # standard deviation of an element's own log-odds, shared by cell types
    relevant: float = 0.3  # least mean activity of a programme's TFs in some cell type, for it to be used
    heritage: tuple[float, float] = (
        0.75,
        0.5,
    )  # weights of the two lineages that a further cell type descends from
    spurious_fraction: float = 0.03  # peaks on background, per peak on an element
    peak_width: tuple[int, int] = (200, 600)  # least and greatest
    summit_jitter: float = 8.0  # standard deviation of the summit around the element's centre
    summit_limit: int = 20  # greatest distance of the two
    binding_baseline: float = -5.0  # log-odds of TF binding without a site
    binding_gain: float = 7.0  # by an active TF's bound site
    binding_cofactor: float = 3.0  # by the cooperating pair
    binding_access: float = 2.0  # by accessibility in the cell type
    binding_active: float = 0.3  # least activity of a TF for its ChIP-seq to be made


@dataclass(frozen=True)
class Regulome:
    """TFs, cell types, and what they do to a sequence.

    Attributes:
        tfs: PWMs of the TFs that act.
        cell_types: their names.
        activity: shape (cell types, TFs), 0 to 1.
        pairs: cooperating pairs by programme.
        model: the constants.
    """

    tfs: list[Motif]
    cell_types: list[str]
    activity: Floats
    pairs: dict[str, Pair]
    model: RegulationModel

    @cached_property
    def index(self) -> dict[str, int]:
        """Column of each TF."""
        return {tf.name: i for i, tf in enumerate(self.tfs)}

    @cached_property
    def pair_activity(self) -> Floats:
        """Product of the two TFs' activities, shape (cell types, pairs)."""
        a = self.activity
        return np.stack([a[:, self.index[p.first]] * a[:, self.index[p.second]] for p in self.pairs.values()], 1)

    @cached_property
    def programmes(self) -> list[str]:
        """Programmes that some cell type uses."""

        def use(name: str) -> float:
            return float(self.activity[:, [self.index[tf] for tf in PROGRAMMES[name]]].mean(1).max())

        return [name for name in PROGRAMMES if use(name) >= self.model.relevant]

    def thresholds(self) -> Floats:
        """Return the score in bits above which a TF binds, shape (TFs,)."""
        return np.array([max(self.model.least_score, self.model.least_fraction * tf.best) for tf in self.tfs])

    def binding(self, scores: Floats | npt.NDArray[np.float32], tfs: Ints | slice) -> Floats:
        """Return the binding probabilities of sites from their scores in bits; `tfs` are the columns' TFs."""
        low = self.thresholds()[tfs]
        best = np.array([tf.best for tf in self.tfs])[tfs]
        return np.asarray(self.model.most_bound * np.clip((scores - low) / (best - low), 0, 1))

    @cached_property
    def _kernels(self) -> npt.NDArray[np.float32]:
        """Scores as a matrix (longest * 4, 2 * TFs): first all + strands, then all - strands."""
        longest = max(tf.length for tf in self.tfs)
        kernels = np.zeros((2, len(self.tfs), longest, 4), np.float32)
        for i, tf in enumerate(self.tfs):
            kernels[0, i, : tf.length] = tf.scores
            kernels[1, i, : tf.length] = tf.scores[::-1, ::-1]
        return kernels.reshape(2 * len(self.tfs), -1).T

    def sites(self, windows: Codes) -> npt.NDArray[np.float32]:
        """Return the binding probabilities of all sites by start, shape (2 strands, TFs, n, width)."""
        n, width = windows.shape
        longest = len(self._kernels) // 4
        padded = np.full((n, width + longest), 4, np.uint8)
        padded[:, :width] = windows
        onehot = (padded[:, :, None] == np.arange(4)).astype(np.float32).reshape(n, -1)
        tiles = np.lib.stride_tricks.sliding_window_view(onehot, longest * 4, 1)[:, : width * 4 : 4]
        scores = (tiles.reshape(-1, longest * 4) @ self._kernels).reshape(n, width, 2, -1)
        bound = np.moveaxis(self.binding(scores, slice(None)).astype(np.float32), (2, 3), (0, 1))
        for i, tf in enumerate(self.tfs):
            bound[:, i, :, width - tf.length + 1 :] = 0
        return np.ascontiguousarray(bound)

    def occupancy(self, windows: Codes, chunk: int = 256) -> Floats:
        """Return the probabilities that each TF, and each pair, is bound somewhere; sites bind independently.

        Args:
            windows: sequences of element cores, shape (n, width).
            chunk: number of sequences to scan at a time.

        Returns:
            shape (n, TFs + pairs).
        """
        parts = [self._occupancy(windows[i : i + chunk]) for i in range(0, len(windows), chunk)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.tfs) + len(self.pairs)))

    def _occupancy(self, windows: Codes) -> Floats:
        bound = self.sites(windows)
        alone = (1 - bound.astype(np.float64)).prod((0, 3)).T
        together = [self._unpaired(bound, pair) for pair in self.pairs.values()]
        return 1 - np.concatenate([alone, np.stack(together, 1)], 1)

    def _unpaired(self, bound: npt.NDArray[np.float32], pair: Pair) -> Floats:
        """Return the probability that a pair is bound nowhere, shape (n,)."""
        left = np.ones(bound.shape[2])
        for strand in (0, 1):  # of the first TF; the pair on the - strand is the mirror image
            first = bound[strand, self.index[pair.first]]
            second = bound[strand if pair.same_strand else 1 - strand, self.index[pair.second]]
            upstream, downstream = (first, second) if strand == 0 else (second, first)
            width = self.tfs[self.index[pair.first if strand == 0 else pair.second]].length
            for gap in range(pair.gaps[0], pair.gaps[1] + 1):
                shift = width + gap
                left *= (1 - (upstream[:, :-shift] * downstream[:, shift:]).astype(np.float64)).prod(1)
        return left

    def log_odds(self, occupancy: Floats) -> Floats:
        """Return the log-odds of accessibility from occupancies, shape (n, cell types), without context."""
        m = self.model
        weights = np.concatenate([m.gain * self.activity, m.cooperation * self.pair_activity], 1)
        return np.asarray(m.baseline + occupancy @ weights.T)


def make_regulome(rng: np.random.Generator, cell_types: int, model: RegulationModel) -> tuple[Regulome, list[Motif]]:
    """Return the regulome, and the library that its PWMs come from."""
    library = load_motifs()
    names = [*UBIQUITOUS, *dict.fromkeys(tf for tfs in LINEAGES.values() for tf in tfs), TATA_TF]
    tfs = pick_motifs(library, names, model.longest_motif)
    kinds = [*list(LINEAGES)[:cell_types], *(f"celltype{i + 1}" for i in range(len(LINEAGES), cell_types))]
    activity = pd.DataFrame(0.0, kinds, names)
    for kind in kinds:
        own = LINEAGES.get(kind) or _descend(rng, model)
        activity.loc[kind, list(own)] = list(own.values())
        activity.loc[kind, list(UBIQUITOUS)] = list(UBIQUITOUS.values())
    return Regulome(tfs, kinds, activity.to_numpy(), PAIRS, model), library


def _descend(rng: np.random.Generator, model: RegulationModel) -> dict[str, float]:
    """Return the activities of a cell type that mixes two lineages, each TF with a factor of its own."""
    own: dict[str, float] = {}
    for parent, weight in zip(rng.choice(list(LINEAGES), 2, replace=False), model.heritage, strict=True):
        for tf, value in LINEAGES[str(parent)].items():
            own[tf] = round(min(1.0, own.get(tf, 0.0) + weight * value * rng.uniform(0.6, 1.4)), 3)
    return own


def populate(
    rng: np.random.Generator,
    genome: Genome,
    layout: Layout,
    genes: pd.DataFrame,
    regulome: Regulome,
    sizes: GenomeModel,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose what each element is, and plant its motifs into the genome.

    Returns:
        elements: one row each: element (name), centre, start, end, kind, programme.
        instances: planted motifs in genomic order: element (row), tf (column of the regulome), start, end,
        strand,
            weak (whether one base was spoilt), score (bits), bound (binding probability).
    """
    elements = _assign_kinds(rng, layout, genes, regulome)
    elements["start"], elements["end"] = elements.centre - sizes.core, elements.centre + sizes.core
    found = [site for row in records(elements) for site in _compose(rng, row, regulome)]
    found += [_tata(gene, regulome) for gene in records(genes[genes.tata])]
    instances = pd.DataFrame(found, columns=["element", "tf", "start", "strand", "weak"])
    instances = instances.sort_values("start", ignore_index=True)
    lengths = np.array([tf.length for tf in regulome.tfs])
    instances["end"] = instances.start + lengths[instances.tf]
    instances["score"] = 0.0
    for tf, group in instances.groupby("tf"):
        motif = regulome.tfs[int(str(tf))]
        starts, strands = group.start.to_numpy(), group.strand.to_numpy()
        rows = motif.sample(rng, len(group), regulome.model.sharpness)
        _spoil(rng, rows, group.weak.to_numpy(), motif)
        genome.plant(starts, strands, rows)
        instances.loc[group.index, "score"] = motif.scores[np.arange(motif.length), rows].sum(1)
    instances["bound"] = regulome.binding(instances.score.to_numpy(), instances.tf.to_numpy())
    return elements, instances


def _assign_kinds(rng: np.random.Generator, layout: Layout, genes: pd.DataFrame, regulome: Regulome) -> pd.DataFrame:
    elements = layout.elements[["centre", "strand"]].copy()
    elements.insert(0, "element", [f"E{i + 1:06d}" for i in range(len(elements))])
    decoy = rng.random(len(elements)) < regulome.model.decoy_fraction
    elements["kind"] = np.where(decoy, "decoy", "enhancer")
    shares = [
        regulome.model.ubiquitous_fraction
        if name == "ubiquitous"
        else (1 - regulome.model.ubiquitous_fraction) / (len(regulome.programmes) - 1)
        for name in regulome.programmes
    ]
    elements["programme"] = rng.choice(regulome.programmes, len(elements), p=shares)
    elements.loc[elements.kind == "decoy", "programme"] = "none"
    elements.loc[genes.element, ["kind", "programme"]] = ["promoter", "promoter"]
    return elements


Module = list[tuple[int, int, int]]  # (TF, offset, strand) of motifs that keep their distance
Site = tuple[int, int, int, int, bool]  # element, TF, start, strand, weak


def _compose(rng: np.random.Generator, row: Any, regulome: Regulome) -> Iterator[Site]:
    """Yield the planted sites of one element."""
    number, centre, strand, kind = (int(row.Index), int(row.centre), int(row.strand), row.kind)
    reach = regulome.model.reach
    low, high = centre - reach, centre + reach
    if kind == "promoter":
        low, high = span(centre, strand, *regulome.model.promoter_window)
    modules = _modules(rng, kind, row.programme, regulome)
    lengths = [max(at + regulome.tfs[tf].length for tf, at, _ in module) for module in modules]
    free = np.sort(rng.integers(0, high - low - sum(lengths), len(modules), endpoint=True))
    taken = np.cumsum([0, *lengths[:-1]])
    for module, start in zip(modules, low + free + taken, strict=True):
        for tf, offset, side in module:
            yield number, tf, int(start) + offset, side, kind == "decoy"


def _modules(rng: np.random.Generator, kind: str, programme: str, regulome: Regulome) -> list[Module]:
    """Choose the motifs of an element, in the order in which they lie."""
    model = regulome.model
    n = 2 if kind == "promoter" else int(rng.integers(*model.motifs, endpoint=True))
    modules: list[Module] = []
    own = [regulome.index[tf] for tf in PROMOTER if kind == "promoter"] or list(range(len(regulome.tfs) - 1))
    if kind == "enhancer":
        own = [regulome.index[tf] for tf in PROGRAMMES[programme]]
        if rng.random() < model.pair_fraction:
            modules.append(_pair_module(rng, regulome, regulome.pairs[programme]))
            n -= 2
    for _ in range(n):
        passenger = kind == "enhancer" and rng.random() < model.passenger_fraction
        tf = int(rng.integers(len(regulome.tfs) - 1)) if passenger else int(rng.choice(own))
        modules.append([(tf, 0, 1 if rng.random() < 0.5 else -1)])
    return [modules[i] for i in rng.permutation(len(modules))]


def _pair_module(rng: np.random.Generator, regulome: Regulome, pair: Pair) -> Module:
    first, second = regulome.index[pair.first], regulome.index[pair.second]
    gap = int(rng.integers(*pair.gaps, endpoint=True))
    turn = 1 if pair.same_strand else -1
    if rng.random() < 0.5:
        return [(first, 0, 1), (second, regulome.tfs[first].length + gap, turn)]
    return [(second, 0, -turn), (first, regulome.tfs[second].length + gap, -1)]


def _tata(gene: Any, regulome: Regulome) -> Site:
    tf = regulome.index[TATA_TF]
    offset = regulome.model.tata_offset
    start = span(gene.tss, gene.strand, offset, offset + regulome.tfs[tf].length)[0]
    return int(gene.element), tf, start, int(gene.strand), False


def _spoil(rng: np.random.Generator, rows: Codes, weak: npt.NDArray[np.bool_], motif: Motif) -> None:
    """Put the least likely base at one of the three most informative columns of the weak sites."""
    spread = motif.scores.max(1) - motif.scores.min(1)
    columns = rng.choice(np.argsort(-spread, kind="stable")[:3], int(weak.sum()))
    rows[np.flatnonzero(weak), columns] = motif.scores.argmin(1)[columns]


@dataclass(frozen=True)
class Accessibility:
    """What the cells show, per element (row) and cell type (column).

    Attributes:
        occupancy: shape (elements, TFs + pairs).
        log_odds: of accessibility, context included.
        called: whether a peak is called, drawn with that probability.
        signal: strength of the signal, arbitrary units, above 0.
    """

    occupancy: Floats
    log_odds: Floats
    called: npt.NDArray[np.bool_]
    signal: Floats

    @property
    def probability(self) -> Floats:
        """Probability of a peak."""
        return 1 / (1 + np.exp(-self.log_odds))


def open_elements(
    rng: np.random.Generator, genome: Genome, elements: pd.DataFrame, regulome: Regulome
) -> Accessibility:
    """Compute accessibility from the sequence, and draw the peaks."""
    width = int(elements.end[0] - elements.start[0])
    occupancy = regulome.occupancy(genome.windows(elements.start.to_numpy(), width))
    context = rng.normal(0, regulome.model.context, (len(elements), 1))
    log_odds = regulome.log_odds(occupancy) + context
    observed = log_odds + rng.logistic(size=log_odds.shape)
    return Accessibility(occupancy, log_odds, observed > 0, np.log1p(np.exp(observed)))


def bind(
    rng: np.random.Generator, regulome: Regulome, access: Accessibility, tf: str, cell_type: int
) -> tuple[Floats, Floats]:
    """Draw ChIP-seq of one TF in one cell type.

    Returns:
        log-odds of binding, and the observed value, above 0 where a peak is called; both of shape
        (elements,).
    """
    m, column = regulome.model, regulome.index[tf]
    partners = [i for i, p in enumerate(regulome.pairs.values()) if tf in (p.first, p.second)]
    paired = access.occupancy[:, len(regulome.tfs) :] * regulome.pair_activity[cell_type]
    log_odds = (
        m.binding_baseline
        + m.binding_gain * regulome.activity[cell_type, column] * access.occupancy[:, column]
        + m.binding_cofactor * paired[:, partners].sum(1)
        + m.binding_access * access.called[:, cell_type]
    )
    return log_odds, log_odds + rng.logistic(size=len(log_odds))
