"""Saturation mutagenesis: measured effects, features of variants, and regressions that leave whole elements out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.linalg
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from genebert.corpus.store import Corpus
from genebert.inputs.genome import Genome
from genebert.inputs.motif_changes import binding, flank_of
from genebert.inputs.scan import Scanner
from genebert.methods.base import Examples
from genebert.methods.features import gapped_kmer_counts, kmer_counts
from genebert.methods.gkm_svm import FittedGkmSvm, GkmSvm
from genebert.schema import EVIDENCE_STEPS, N, Variant, decode
from genebert.target import LABEL_PREFIX, Target
from genebert.tasks.base import Sources
from genebert.tasks.tf_binding import TfBinding
from genebert.variants.windows import VariantWindows, offsets

BASES = "ACGT"
THRESHOLDS = (3.0, 4.0, 5.0)
"""-log10 p at which a site counts as half bound, for features of all motifs together."""
SITE_WIDTH = 200
VALID_CHROMOSOMES = ["chr9", "chr20"]
RIDGE = 3000.0
"""Penalty of regulatory motif weights, for counts of some 20,000 windows; chosen by AUROC on held-out chromosomes."""
STRENGTHS = (0.03, 0.1, 0.3)
"""Inverse penalties of gapped k-mer SVMs, chosen on held-out chromosomes."""
WORDS = (1, 2, 3, 4, 5)
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Measured effects.

    Attributes:
        genome: the elements, as chromosomes.
        table: DataFrame with element, position (0-based), ref, alt ("-" for a deletion), log2_effect; n rows.
        variants: n variants of that genome.
    """

    genome: Genome
    table: pd.DataFrame
    variants: list[Variant]

    @classmethod
    def read(cls, folder: Path, least_barcodes: int) -> "Measured":
        """Read elements.fa and variants.tsv.gz; variants with fewer barcodes are left out."""
        genome = Genome(folder / "elements.fa")
        table = pd.read_csv(folder / "variants.tsv.gz", sep="\t")
        table = table[table["barcodes"] >= least_barcodes].reset_index(drop=True)
        table["position"] -= 1
        rows = zip(table["element"], table["position"], table["ref"], table["alt"], strict=True)
        return cls(genome, table, [_variant(genome, *row) for row in rows])

    @property
    def element(self) -> NDArray[Any]:
        return self.table["element"].to_numpy()

    @property
    def effect(self) -> Numbers:
        return self.table["log2_effect"].to_numpy(np.float64)

    @property
    def is_snv(self) -> NDArray[np.bool_]:
        return (self.table["alt"] != "-").to_numpy()

    @cached_property
    def standardised(self) -> Numbers:
        """Effects as regressions learn them: in standard deviations of the element's SNVs, centred by element."""
        found = self.effect.copy()
        for name in np.unique(self.element):
            rows = self.element == name
            found[rows] = (found[rows] - found[rows].mean()) / found[rows & self.is_snv].std()
        return found


def _variant(genome: Genome, element: str, position: int, ref: str, alt: str) -> Variant:
    around = decode(genome.fetch(element, position - 1, position + 2))
    if around[1] != ref:
        raise SystemExit(f"{element}:{position + 1}: the variant has {ref}, and the element {around[1]}")
    if alt != "-":
        return Variant(element, position, ref, alt)
    if position:
        return Variant(element, position - 1, around[:2], around[0])
    return Variant(element, 0, around[1:], around[2])


class ElementWindows(VariantWindows):
    """Windows of elements: around the variant, moved so that as little as can be lies outside of the element."""

    def pairs(self, variant: Variant, shifts: int = 1) -> list[Any]:
        """See `VariantWindows`."""
        spare = self.genome.lengths[variant.chrom] - self.width
        wanted = [variant.position - self.width // 2 + offset for offset in offsets(shifts, self.width)]
        starts = [spare // 2 if spare <= 0 else min(max(start, 0), spare) for start in wanted]
        return [self._pair(variant, start) for start in starts]


def among_chromosomes(corpus: Corpus, elements: Genome) -> Corpus:
    """Return a corpus that has the elements as further chromosomes, on which no region lies."""
    return replace(corpus, lengths=corpus.lengths | elements.lengths)


# ------------------------------------------------------------------------------------------------- what sites say


class Sites(NamedTuple):
    """Windows around peaks, and as many others that are like them in GC content.

    Attributes:
        codes: uint8, shape (n, width).
        labels: name -> whether it is a peak of a cell type: 1, 0 or NaN, shape (n,); "any" and "blood" are
            of several.
        split: "train", "valid" or "test", shape (n,).
    """

    codes: NDArray[np.uint8]
    labels: dict[str, Numbers]
    split: NDArray[Any]


def regulatory_sites(data: Path) -> Sites:
    """Label windows of the genome by ATAC-seq peaks of blood, and by the ChIP-seq peaks of each cell line together."""
    with TemporaryDirectory() as name, Genome(data / "hg19_windows.fa.gz") as genome:
        lines: dict[str, list[Path]] = {}
        for path in sorted((data / "chip_seq").glob("*/*.narrowPeak")):
            lines.setdefault(path.name, []).append(path)
        for file, paths in lines.items():
            (Path(name) / file).write_text("".join(path.read_text() for path in paths))
        peaks = [data / "blood_atac" / "peaks", Path(name)]
        chromosomes = sorted(set(pd.read_csv(data / "hg19_windows.bed", sep="\t", header=None)[0]))
        task = TfBinding(
            out=Path(name),
            genome=genome.path,
            peaks=peaks,
            width=SITE_WIDTH,
            ratio=2.0,
            chromosomes=chromosomes,
            valid_chromosomes=VALID_CHROMOSOMES,
            test_chromosomes=["chr22"],
        )
        table = task.windows(Sources(genome, None, [], [])).table
        codes = genome.fetch_all(table["chrom"], table["start"].to_numpy(np.int64), SITE_WIDTH)
    held_out = dict.fromkeys(VALID_CHROMOSOMES, "valid") | {"chr22": "test"}
    split = table["chrom"].map(held_out).fillna("train").to_numpy()
    labels = {
        name.removeprefix(LABEL_PREFIX): table[name].astype("Float64").to_numpy(np.float64, na_value=np.nan)
        for name in table
        if name.startswith(LABEL_PREFIX)
    }
    blood = [labels[path.stem] for path in sorted((data / "blood_atac" / "peaks").glob("*.narrowPeak"))]
    everywhere = {"any": np.fmax.reduce([*labels.values()]), "blood": np.fmax.reduce(blood)}
    return Sites(codes, labels | everywhere, split)


def gapped_kmer_change(sites: Sites, label: str, scanner: Scanner, measured: Measured) -> dict[str, Numbers]:
    """Return what a gapped k-mer SVM of peaks makes of variants, as deltaSVM does (Lee et al. 2015): shape (n,)."""
    target = Target("classes", ("0", "1"))
    known = np.isfinite(sites.labels[label])
    parts = [
        Examples(sites.codes[rows], scanner, sites.labels[label][rows].astype(np.int64))
        for rows in (known & (sites.split == "train"), known & (sites.split == "valid"))
    ]
    fitted = GkmSvm(strengths=STRENGTHS).fit(*parts, target, 0)
    assert isinstance(fitted, FittedGkmSvm)
    words = fitted.words
    stretches = both_alleles(measured, words.length - 1)
    counts = [gapped_kmer_counts(one, words.length, words.informative) for one in stretches]
    return {"change": ((counts[1] - counts[0]) @ fitted.scores.weights[-1]).astype(np.float64)}


def both_alleles(measured: Measured, flank: int) -> list[NDArray[np.uint8]]:
    """Return the bases around variants, of either allele, N at the end of the shorter one: uint8, shape (n, width)."""
    width = 2 * flank + 1
    found = np.full((2, len(measured.variants), width), N, dtype=np.uint8)
    rows = zip(measured.table["element"], measured.table["position"], measured.table["alt"], strict=True)
    for i, (element, position, alt) in enumerate(rows):
        around = measured.genome.fetch(element, position - flank, position + flank + 1)
        new = [] if alt == "-" else [BASES.index(alt)]
        changed = np.concatenate([around[:flank], np.array(new, dtype=np.uint8), around[flank + 1 :]])
        found[0, i], found[1, i, : len(changed)] = around, changed
    return list(found)


def regulatory_motif_weights(sites: Sites, scanner: Scanner) -> dict[str, Numbers]:
    """Return what the binding of each motif says of peaks, by ridge regression: label -> shape (motifs,)."""
    names = sorted(sites.labels)
    bound = binding(scanner.scan(sites.codes))
    truth = np.stack([sites.labels[name] for name in names], axis=1)
    rows = sites.split == "train"
    known = np.nan_to_num(truth[rows], nan=0.0)
    weights = Ridge(alpha=RIDGE).fit(bound[rows], known).coef_.astype(np.float64)
    return dict(zip(names, weights, strict=True))


# ----------------------------------------------------------------------------------------------- features


def motif_features(hits: NDArray[np.uint8]) -> dict[str, Numbers]:
    """Return changes of all motifs together.

    Args:
        hits: of both alleles, as `motif_hits` returns them, uint8, shape (n, 2, motifs).
    """
    evidence = hits.astype(np.float32) / EVIDENCE_STEPS
    change = evidence[:, 1] - evidence[:, 0]
    found = {"strongest gain": change.max(axis=1), "strongest loss": change.min(axis=1)}
    for threshold in THRESHOLDS:
        bound = np.logaddexp(0, (evidence - threshold) * np.log(10))
        moved = bound[:, 1] - bound[:, 0]
        found |= {
            f"binding, {threshold:g}": moved.sum(axis=1),
            f"binding gained, {threshold:g}": np.maximum(moved, 0).sum(axis=1),
            f"binding lost, {threshold:g}": np.minimum(moved, 0).sum(axis=1),
            f"strongest binding gained, {threshold:g}": moved.max(axis=1),
            f"strongest binding lost, {threshold:g}": moved.min(axis=1),
            f"bound before, {threshold:g}": bound[:, 0].sum(axis=1),
        }
    return {name: values.astype(np.float64) for name, values in found.items()}


def base_features(table: pd.DataFrame) -> dict[str, Numbers]:
    """Return which bases are replaced by which."""
    return {
        f"{column} {base}": (table[column] == base).to_numpy(np.float64)
        for column, base in product(("ref", "alt"), BASES)
    }


def word_features(measured: Measured) -> Numbers:
    """Return which words come and go, and the bases around: what a regression on sequence alone can learn from."""
    before, after = both_alleles(measured, max(WORDS) - 1)
    changes = [
        (kmer_counts(after, k, both_strands=True) - kmer_counts(before, k, both_strands=True)).toarray() for k in WORDS
    ]
    around = (before[:, :, None] == np.arange(N)).reshape(len(before), -1)
    alternate = np.stack([*base_features(measured.table).values()], axis=1)
    return np.concatenate([*changes, around, alternate], axis=1).astype(np.float64)


def nearness_to_strongest_motif(measured: Measured, scanner: Scanner) -> Numbers:
    """Return the distance from the strongest motif hit of the element, in bp: far from it, effects are to be small."""
    centres = {}
    for name, length in measured.genome.lengths.items():
        codes = measured.genome.fetch(name, 0, length)
        width = 2 * flank_of(scanner) + 1
        starts = np.arange(0, max(length - width, 0) + 1)
        best = scanner.scan(np.lib.stride_tricks.sliding_window_view(codes, min(width, length))).max(axis=1)
        strongest = np.flatnonzero(best == best.max())  # the windows that hold the hit; it lies where all overlap
        centres[name] = starts[strongest].mean() + width / 2
    return np.array([abs(v.position - centres[v.chrom]) for v in measured.variants])


# -------------------------------------------------------------------------------------------- regressions


class Block(NamedTuple):
    """Features with a penalty in common.

    Attributes:
        features: float64, shape (n, d).
        penalties: to choose from, relative to the features' mean square.
        own_scale: whether each feature is put on its own scale, or all on one.
    """

    features: Numbers
    penalties: Sequence[float]
    own_scale: bool


class Moments(NamedTuple):
    """Products of features with one another, shape (d, d), and with the effect, shape (d,)."""

    square: Numbers
    product: Numbers


def leave_elements_out(measured: Measured, blocks: Sequence[Block]) -> tuple[Numbers, dict[str, Any]]:
    """Predict the effects in each element by ridge regression on the others.

    All elements count alike. Penalties are chosen in the same way among the training elements, each of which is
    predicted from the rest of them: by the mean of Pearson's correlations.

    Returns:
        predictions, shape (n,), and the penalties chosen for each element.
    """
    names = np.unique(measured.element).tolist()
    rows = {name: np.flatnonzero(measured.element == name) for name in names}
    features = np.concatenate([block.features for block in blocks], axis=1)
    for one in rows.values():
        features[one] -= features[one].mean(axis=0)
    moments = {
        name: Moments(*(features[one].T @ values[one] / len(one) for values in (features, measured.standardised)))
        for name, one in rows.items()
    }
    grid = list(product(*(block.penalties for block in blocks)))
    sizes = [block.features.shape[1] for block in blocks]
    own_scale = [block.own_scale for block in blocks]

    def weights(left_out: Sequence[str], penalties: Sequence[float]) -> Numbers:
        kept = [moments[name] for name in names if name not in left_out]
        return _solved(kept, sizes, own_scale, penalties)

    found = {}
    for pair in combinations(names, 2):
        for penalties in grid:
            solved = weights(pair, penalties)
            for outer, inner in (pair, pair[::-1]):
                correlation = _pearson(features[rows[inner]] @ solved, measured.standardised[rows[inner]])
                found.setdefault((outer, penalties), []).append(correlation)
    predicted, chosen = np.empty(len(features)), {}
    for name in names:
        chosen[name] = max(grid, key=lambda penalties, name=name: np.mean(found[name, penalties]))
        predicted[rows[name]] = features[rows[name]] @ weights([name], chosen[name])
    return predicted, chosen


def _solved(
    kept: Sequence[Moments], sizes: Sequence[int], own_scale: Sequence[bool], penalties: Sequence[float]
) -> Numbers:
    square, wanted = sum(one.square for one in kept), sum(one.product for one in kept)
    diagonal = square.diagonal().copy()
    added = []
    for part, own, penalty in zip(np.split(diagonal, np.cumsum(sizes)[:-1]), own_scale, penalties, strict=True):
        added.append(penalty * (part if own else np.full(len(part), part.mean())) + 1e-9)
    system = square + np.diag(np.concatenate(added))
    return scipy.linalg.solve(system, wanted, assume_a="pos", overwrite_a=True, check_finite=False)


def _pearson(first: Numbers, second: Numbers) -> float:
    return float(np.corrcoef(first, second)[0, 1]) if first.std() > 0 else 0.0


def cached(folder: Path | None, name: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return named arrays, kept in a folder if there is one: a second run need not make them again."""
    path = folder / f"{name}.npz" if folder else None
    if path is not None and path.exists():
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    made = dict(make())
    if path is not None:
        np.savez(path, **made)
    return made
