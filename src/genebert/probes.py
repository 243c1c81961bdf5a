"""What pooled vectors of a frozen network tell by linear means: the cell type, and whether a region is accessible.

A logistic regression is fitted on training chromosomes and training cell types, and measured elsewhere, beside the
same regression on plain summaries of the network's input and on the vectors of an untrained network. Accessibility
of the regions themselves is never part of their region matrices.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from genebert.console import say
from genebert.corpus.store import Corpus
from genebert.metrics import Estimate
from genebert.model.genebert import GeneBertModel
from genebert.pretraining_data import PretrainingData
from genebert.region_matrix import RegionMatrix, region_matrix
from genebert.resampling import auroc, estimate, macro_f1, mean, region_weights
from genebert.schema import gc_fraction
from genebert.tokens import sequence_tokens

FITTED_REGIONS: Final = 768
MEASURED_REGIONS: Final = 512
"""Sequences are the dear part: so many regions are drawn, and paired with all cell types."""
FITTED_PAIRS: Final = 4000
MEASURED_PAIRS: Final = 2000
PENALTIES: Final = (1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the penalty (C) that are tried."""
TOLERANCE: Final = 1e-3
"""Gradient at which a regression is fitted; a smaller one took twice the time and changed accuracies by 0.005."""
LEAST_ROWS: Final = 8
CELL_TYPE: Final = "Probe, cell type"
ACCESSIBILITY: Final = "Probe, accessibility"
QUANTILES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
_BATCH = 32
Row = dict[str, Any]
Features = NDArray[np.floating[Any]]


class Frozen:
    """A network that is only read: pooled vectors of regions' sequences and of region matrices.

    The sequence of a region is encoded once.

    Args:
        network: in eval mode, on its device.
        corpus: the corpus.
    """

    def __init__(self, network: GeneBertModel, corpus: Corpus) -> None:
        self.network = network
        self.corpus = corpus
        self._sequences: dict[int, NDArray[np.float32]] = {}

    def sequences(self, region: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the pooled vectors of the sequences of regions, int64, shape (n,): shape (n, 4 * hidden)."""
        missing = np.array(sorted(set(region.tolist()) - self._sequences.keys()), dtype=np.int64)
        if len(missing):
            self._sequences.update(zip(missing.tolist(), self._encoded(self._encode_sequences, missing), strict=True))
        return np.stack([self._sequences[i] for i in region.tolist()])

    def matrices(self, region: NDArray[np.int64], cell_type: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the pooled vectors of the matrices of regions in cell types, int64, shape (n,): shape (n, width)."""
        return self._encoded(self._encode_matrices, region, cell_type)

    def _encode_sequences(self, region: NDArray[np.int64], device: torch.device) -> torch.Tensor:
        tokens = sequence_tokens(self.corpus.sequence[region], self.network.config.k)
        ids, segments = (torch.from_numpy(values).to(device) for values in tokens)
        return self.network(input_ids=ids, segment_ids=segments).sequence

    def _encode_matrices(
        self, region: NDArray[np.int64], cell_type: NDArray[np.int64], device: torch.device
    ) -> torch.Tensor:
        matrix = region_matrix(self.corpus, region, cell_type, self.network.config.region_columns)
        return self.network(matrix=matrix.to(device)).region

    def _encoded(self, encode: Callable[..., torch.Tensor], *rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Encode rows in batches."""
        device = self.network.device
        with torch.no_grad():
            parts = [
                encode(*(values[start : start + _BATCH] for values in rows), device).float().cpu().numpy()
                for start in range(0, len(rows[0]), _BATCH)
            ]
        return np.concatenate(parts)


def untrained_twin(network: GeneBertModel, seed: int) -> GeneBertModel:
    """Return a network of the same shape, and with the same normalisers, before it has learned anything."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = GeneBertModel(network.config)
    for name, value in network.region_encoder.named_buffers():
        twin.region_encoder.get_buffer(name).copy_(value)
    return twin.to(network.device).eval()


class Pairs(NamedTuple):
    """Pairs of a region and a cell type.

    Attributes:
        region, cell_type: int64, shape (n,).
        accessible: bool, shape (n,).
        paired: bool, shape (n,): of these, each cell type has as many accessible as other regions.
    """

    region: NDArray[np.int64]
    cell_type: NDArray[np.int64]
    accessible: NDArray[np.bool_]
    paired: NDArray[np.bool_]


def draw_pairs(data: PretrainingData, regions: int, pairs: int, seed: int) -> Pairs:
    """Draw regions of a split, and pair them with the cell types of a part, equally often as far as there are enough.

    Args:
        data: examples of the split and the part.
        regions, pairs: how many at most.
        seed: of the choice.
    """
    corpus, generator = data.corpus, np.random.default_rng([seed, 3])
    split = corpus.split[corpus.accessible_regions[data.examples[0]]]
    cell_types = np.unique(corpus.cell_types_of(data.examples))
    drawn = generator.permutation(np.flatnonzero(corpus.split == split))[:regions]
    most = max(1, pairs // (2 * len(cell_types)))
    found = []
    for cell_type in cell_types.tolist():
        accessible = np.isin(drawn, corpus.accessible(cell_type))
        chosen = [drawn[accessible][:most], drawn[~accessible][:most]]
        least = min(map(len, chosen))
        found += [
            Pairs(rows, np.full(len(rows), cell_type), np.full(len(rows), label), np.arange(len(rows)) < least)
            for rows, label in zip(chosen, (True, False), strict=True)
        ]
    return Pairs(*map(np.concatenate, zip(*found, strict=True)))


def matrix_summary(matrix: RegionMatrix) -> Features:
    """Return plain summaries of region matrices: shape (n, motifs + 7).

    They are the mean evidence over the columns present, mean and quantiles of accessibility over those that are not
    the window itself, and the number of columns present.
    """
    present = matrix.present.numpy()
    count = present.sum(axis=1, keepdims=True)
    evidence = np.einsum("brm,br->bm", matrix.evidence.numpy(), present, dtype=np.float64) / count
    others = present & ~matrix.own.numpy()
    access = np.where(others, matrix.accessibility.numpy().astype(np.float64), np.nan)
    access[~others.any(axis=1)] = 0  # alone on its chromosome
    levels = np.nanquantile(access, QUANTILES, axis=1).T
    return np.concatenate([evidence, np.nanmean(access, axis=1, keepdims=True), levels, count], axis=1)


def fit_classifier(features: Features, label: NDArray[Any], region: NDArray[np.int64]) -> Pipeline:
    """Fit a logistic regression on standardised features.

    The penalty is the one that does best on the last quarter of the genome, fitted on the rest.

    Args:
        features: shape (n, d).
        label: shape (n,).
        region: of each row, int64, shape (n,); regions are numbered along the genome.
    """
    inner = region < np.quantile(region, 0.75)
    best = PENALTIES[-1]
    if len(np.unique(label[inner])) > 1 and not inner.all():
        scores = [
            _classifier(c).fit(features[inner], label[inner]).score(features[~inner], label[~inner]) for c in PENALTIES
        ]
        best = PENALTIES[int(np.argmax(scores))]
    return _classifier(best).fit(features, label)


def _classifier(inverse_penalty: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=5000, tol=TOLERANCE))


class Probes:
    """The probes of one network, fitted on training chromosomes and training cell types.

    Args:
        frozen: the network.
        training: the examples that it was trained with.
        seed: of the choice of rows, and of the untrained network.
    """

    def __init__(self, frozen: Frozen, training: PretrainingData, seed: int = 0) -> None:
        self.frozen = frozen
        self.untrained = Frozen(untrained_twin(frozen.network, seed), frozen.corpus)
        self.seed = seed
        self.first_fitted = training.examples[0]
        self.fitted = draw_pairs(training, FITTED_REGIONS, FITTED_PAIRS, seed)
        by_cell_type, by_access = self._described(self.fitted)
        self.cell_type_probes = _fit_all(by_cell_type, self.fitted, self.fitted.cell_type, self.fitted.accessible)
        self.access_probes = _fit_all(by_access, self.fitted, self.fitted.accessible, self.fitted.paired)

    def _described(self, pairs: Pairs) -> tuple[dict[str, Features], dict[str, Features]]:
        """Return what cell types are to be told by, and what accessibility: name -> features, shape (n, d)."""
        corpus, networks = self.frozen.corpus, {"model": self.frozen, "untrained network": self.untrained}
        matrices = {name: network.matrices(pairs.region, pairs.cell_type) for name, network in networks.items()}
        columns = self.frozen.network.config.region_columns
        summary = matrix_summary(region_matrix(corpus, pairs.region, pairs.cell_type, columns))
        both = {
            name: np.concatenate([network.sequences(pairs.region), matrices[name]], axis=1)
            for name, network in networks.items()
        }
        motifs = np.concatenate([corpus.evidence[pairs.region], summary], axis=1)
        gc = gc_fraction(corpus.sequence[pairs.region])[:, None]
        return (
            matrices | {"matrix summary": summary},
            both | {"own motifs and matrix summary": motifs, "GC content only": gc},
        )

    def rows(self, held_out: PretrainingData) -> list[Row]:
        """Measure the probes on regions of another split, or in cell types of another part.

        Returns:
            rows as `evaluate_pretraining` returns them, the cell type's with "confusion": {"classes": names, "counts":
                of each class by the class that the model's probe named}; none if the examples are those for training.
        """
        if held_out.examples[0] == self.first_fitted:  # splits and parts share all examples or none
            say("the probes are not measured: nothing is held out")
            return []
        pairs = draw_pairs(held_out, MEASURED_REGIONS, MEASURED_PAIRS, self.seed + 1)
        assert not _shared(pairs, self.fitted), "a probe is to be measured on what it was fitted on"
        by_cell_type, by_access = self._described(pairs)
        return self._cell_type_rows(pairs, by_cell_type) + self._access_rows(pairs, by_access)

    def _cell_type_rows(self, pairs: Pairs, described: Mapping[str, Features]) -> list[Row]:
        used = pairs.accessible
        label, known = pairs.cell_type[used], np.unique(self.fitted.cell_type)
        if not self.cell_type_probes or len(label) < LEAST_ROWS or not np.isin(label, known).all():
            return []  # cell types that no probe knows cannot be named
        weights = region_weights(pairs.region[used])
        guesses = {name: probe.predict(described[name][used]) for name, probe in self.cell_type_probes.items()}
        right = {name: estimate(mean(weights, guess == label)) for name, guess in guesses.items()}
        f1 = {name: estimate(macro_f1(weights, label, guess)) for name, guess in guesses.items()}
        values, counts = np.unique(label, return_counts=True)
        largest = np.full(len(label), values[counts.argmax()])
        return [
            row_of(CELL_TYPE, "accuracy", right, len(label), chance=counts.max() / len(label))
            | {"confusion": _confusion(self.frozen.corpus.cell_types, label, guesses["model"])},
            row_of(CELL_TYPE, "macro-F1", f1, len(label), chance=macro_f1(weights[:1], label, largest)[0]),
        ]

    def _access_rows(self, pairs: Pairs, described: Mapping[str, Features]) -> list[Row]:
        used = pairs.paired
        label = pairs.accessible[used]
        if not self.access_probes or len(label) < LEAST_ROWS:
            return []
        weights = region_weights(pairs.region[used])
        scores = {name: probe.decision_function(described[name][used]) for name, probe in self.access_probes.items()}
        areas = {name: estimate(auroc(weights, label, score)) for name, score in scores.items()}
        return [row_of(ACCESSIBILITY, "AUROC", areas, len(label), chance=0.5)]


def _fit_all(
    described: Mapping[str, Features], pairs: Pairs, label: NDArray[Any], used: NDArray[np.bool_]
) -> dict[str, Pipeline]:
    """Fit a classifier to each description of those pairs that are used; none if there are too few or one class."""
    if used.sum() < LEAST_ROWS or len(np.unique(label[used])) < 2:
        return {}
    region = pairs.region[used]
    return {name: fit_classifier(features[used], label[used], region) for name, features in described.items()}


def _shared(some: Pairs, others: Pairs) -> bool:
    """Tell whether a pair is among both."""
    here, there = (set(zip(pairs.region.tolist(), pairs.cell_type.tolist(), strict=True)) for pairs in (some, others))
    return not here.isdisjoint(there)


def _confusion(names: list[str], label: NDArray[np.int64], guess: NDArray[np.int64]) -> dict[str, Any]:
    classes = np.union1d(label, guess)
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (np.searchsorted(classes, label), np.searchsorted(classes, guess)), 1)
    return {"classes": [names[i] for i in classes], "counts": counts.tolist()}


def row_of(task: str, metric: str, found: Mapping[str, Estimate], n: int, *, chance: float | None = None) -> Row:
    """Return a row of an evaluation; of the estimates found, the one named "model" is the model's."""
    named = {name: value.to_json() for name, value in found.items()}
    own = named.pop("model")
    if chance is not None:
        named["chance"] = Estimate(float(chance), float(chance), float(chance)).to_json()
    return {"task": task, "metric": metric, "model": own, "baselines": named, "n": n}
