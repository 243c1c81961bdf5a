"""How well methods predict in cell types that they did not learn from, and what of it is specific to the cell type.

The mean over the cell types that a method learned from predicts a new one well, since most regions are alike in most
cell types, and knows nothing of it. So methods are measured three times over:

- on all windows;
- on the windows where the known cell types differ, of which their mean says least;
- on what is specific to the cell type: how a window's truth departs from the mean of its truth over the known cell
  types, against how the prediction departs from the mean of the method's own predictions there. What does not depend
  on the cell type departs by nothing, and gets exactly 0 (Pearson's correlation).

Who is right about known cell types only is right about their mean, too, and with it about a part of the departure: of
K known cell types that are as unlike as the new one, about 1 / K of its variance. That is credited to the specific
part. Crossed, it is not: the truth departs from the mean over one half of the known cell types, and the prediction
from that over the other half, and then the other way round, so that errors and merits of the two means have nothing to
do with each other as long as the cell types of the halves are no more alike than others. What itself rests on the
labels of known cell types, as the nearest one does, is given those of the other half alone.

All are pure functions of arrays. Regions are resampled, the same for all cell types and methods; see
`genebert.resampling`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genebert.report.cross_validation import CROSSED, MEAN, SPECIFIC
from genebert.resampling import (
    Weights,
    auprc,
    auroc,
    estimated,
    number,
    pearson,
    spearman,
    weight_blocks,
)

Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]
Kind = Literal["classes", "value"]
Predicted = Mapping[str, Numbers]
"""Method -> what it predicts: float64, shape (seeds, w, c)."""
Row = dict[str, Any]
Measure = Callable[[Weights, NDArray[Any], Numbers], Numbers]

DIFFER = " where cell types differ"
_WHOLE: dict[Kind, dict[str, Measure]] = {
    "classes": {"AUROC": auroc, "AUPRC": auprc},
    "value": {"Pearson": pearson, "Spearman": spearman},
}
MEASURES: dict[Kind, list[str]] = {
    "classes": ["AUROC", "AUPRC", f"AUROC{DIFFER}", f"AUPRC{DIFFER}", SPECIFIC, CROSSED],
    "value": ["Pearson", "Spearman", f"Pearson{DIFFER}", f"Spearman{DIFFER}", SPECIFIC, CROSSED],
}
"""Their names, in the order of the results."""
_SAME = 1e-6
"""Predictions that differ by less than this part of the range of the truth are the same: the rest is rounding, as of
batches that differ in size."""
_WEIGHTS_AT_ONCE = 1 << 18
"""So few that what is computed from them stays in the processor's cache."""


@dataclass(frozen=True)
class Asked:
    """What is asked in one fold: w windows, c cell types.

    Attributes:
        truth: 0 or 1 (classes) or a number, float64, shape (w, c), NaN where unknown.
        region: the region that each window belongs to, int64, shape (w,); see `Windows.regions`.
        test: indices of the cell types that are predicted.
        known: indices of those that methods learned from or chose on.
    """

    truth: Numbers
    region: NDArray[np.int64]
    test: Indices
    known: Indices

    @property
    def differ(self) -> NDArray[np.bool_]:
        """Which windows two or more known cell types are not alike in, bool, shape (w,)."""
        return self._spread > 0

    @property
    def vary(self) -> NDArray[np.bool_]:
        """Which windows known cell types are less alike in than in half of them, bool, shape (w,).

        Alike: by the standard deviation over the known cell types, where it is known in two or more.
        """
        spread = self._spread
        known = np.isfinite(spread)
        return spread > (np.median(spread[known]) if known.any() else np.inf)

    @property
    def _spread(self) -> Numbers:
        """The standard deviation over the known cell types, NaN where fewer than two are known, shape (w,)."""
        truth = self.truth[:, self.known]
        known = np.isfinite(truth)
        count = known.sum(axis=1)
        filled = np.where(known, truth, 0)
        centred = np.where(known, filled - (filled.sum(axis=1) / np.maximum(count, 1))[:, None], 0)
        alike = np.where(known, truth, np.inf).min(axis=1) == np.where(known, truth, -np.inf).max(axis=1)
        spread = np.where(alike, 0, np.sqrt((centred**2).sum(axis=1) / np.maximum(count, 1)))
        return np.where(count > 1, spread, np.nan)

    def departure(self, values: Numbers, cell_type: int, known: Indices) -> Numbers:
        """Return by how much values depart in a cell type from their mean over known ones: shape (..., w).

        It is the mean of the differences from each, so that equal values depart by exactly 0.

        Args:
            values: truth or predictions, shape (..., w, c).
            cell_type: index of the cell type.
            known: indices of known ones.

        Returns:
            NaN where the truth is known in none of these; the mean is over those where it is.
        """
        counted = np.isfinite(self.truth[:, known])
        difference = values[..., [cell_type]] - values[..., known]
        difference[np.abs(difference) <= _SAME * self._range] = 0
        total = np.where(counted, difference, 0).sum(axis=-1)
        count = counted.sum(axis=1)
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)

    @property
    def halves(self) -> tuple[Indices, Indices]:
        """Every other one of the known cell types, and the rest of them."""
        return self.known[::2], self.known[1::2]

    def departures(
        self, values: Numbers, cell_type: int, *, swap: bool = False, by_half: tuple[Numbers, Numbers] | None = None
    ) -> Numbers:
        """Return `departure` from all known cell types, and from each half of them: shape (..., 3, w).

        Args:
            values, cell_type: see `departure`.
            swap: give the second half first.
            by_half: what departs from each half, where that is something else than `values`.
        """
        order = -1 if swap else 1
        parts = [self.known, *self.halves[::order]]
        own = [values, *(by_half or (values, values))[::order]]
        return np.stack([self.departure(one, cell_type, part) for one, part in zip(own, parts, strict=True)], axis=-2)

    @property
    def _range(self) -> float:
        known = self.truth[np.isfinite(self.truth)]
        return float(np.ptp(known)) if len(known) else 0.0


@dataclass(frozen=True)
class _Pooled:
    """The windows of one test cell type, from all folds that test it: n of them.

    Attributes:
        truth: float64, shape (n,).
        departures: of the truth, float64, shape (3, n); see `Asked`.
        differ: bool, shape (n,); see `Asked`.
        region: int64, shape (n,).
        predicted: method -> float64, shape (seeds, n).
        departing: method -> departures, halves swapped, float64, shape (seeds, 3, n).
    """

    truth: Numbers
    departures: Numbers
    differ: NDArray[np.bool_]
    region: NDArray[np.int64]
    predicted: dict[str, Numbers]
    departing: dict[str, Numbers]


@dataclass(frozen=True)
class _Question:
    """One measure in one cell type, of n values: one for each window, or crossed, two.

    Attributes:
        cell_type, name: the cell type, and the measure's name.
        measure: computes it.
        windows: their number.
        region: int64, shape (n,).
        truth: as the measure takes it, shape (n,).
        scores: method -> float64, shape (seeds, n).
        asked: whether the truth varies there, and in the cell type; else there is nothing to measure.
    """

    cell_type: str
    name: str
    measure: Measure
    windows: int
    region: NDArray[np.int64]
    truth: NDArray[Any]
    scores: dict[str, Numbers]
    asked: bool

    def answers(self, weights: Weights, method: str) -> Numbers:
        """Return the measure of each resample and seed: shape (resamples, seeds)."""
        return np.stack([self.measure(weights, self.truth, score) for score in self.scores[method]], axis=1)


def measure(
    parts: Sequence[tuple[Asked, Predicted]],
    cell_types: Sequence[str],
    kind: Kind,
    compare: Sequence[tuple[str, str]] = (),
    halves: Sequence[tuple[Predicted, Predicted]] = (),
) -> tuple[list[Row], list[Row]]:
    """Measure methods in cell types that they did not learn from.

    The windows of one test cell type in several folds are pooled. A window counts if its truth is known and every
    method has a prediction there. A method is measured in the cell types that it predicted in all folds that test
    them, and has a mean if these are all. A cell type whose truth is the same everywhere, as one class only, has no
    measures, and no part in the mean.

    Args:
        parts: what each fold asks, and what methods predict there.
        cell_types: names of the c cell types.
        kind: "classes" (two of them; predictions are probabilities of the second) or "value".
        compare: pairs of methods; those that one of the two is missing of are passed over.
        halves: of each part, what methods that rest on the labels of known cell types predict from those of each of
            `Asked.halves` alone; other methods are not in it.

    Returns:
        results: method, cell_type (or "mean"), measure, value, low, high, seeds, lowest_seed, highest_seed, n; values
        are None where there is nothing to measure. Comparisons, of means over the cell types: first, second, measure,
        value, low, high.
    """
    questions = [
        question
        for index in sorted({int(index) for asked, _ in parts for index in asked.test})
        for question in _questions(_pooled(parts, index, kind, halves), cell_types[index], kind)
    ]
    answers = _answers(questions)
    methods = list(dict.fromkeys(name for _, predicted in parts for name in predicted))
    means = {
        (method, name): _mean(answers, [one for one in questions if one.name == name], method)
        for method in methods
        for name in MEASURES[kind]
    }
    rows = [row for method in methods for row in _rows(questions, answers, means, method)]
    pairs = [(first, second, name) for first, second in compare for name in MEASURES[kind]]
    return rows, [row for pair in pairs if (row := _difference(means, *pair))]


def _pooled(
    parts: Sequence[tuple[Asked, Predicted]],
    cell_type: int,
    kind: Kind,
    halves: Sequence[tuple[Predicted, Predicted]],
) -> _Pooled:
    """Gather the windows of a test cell type that can be measured."""
    chosen = [i for i, (asked, _) in enumerate(parts) if cell_type in asked.test]
    own = [parts[i] for i in chosen]
    by_half = [halves[i] for i in chosen] if halves else [({}, {})] * len(own)
    methods = [name for name in own[0][1] if all(name in predicted for _, predicted in own)]
    rows = [_measurable(asked, {name: predicted[name] for name in methods}, cell_type) for asked, predicted in own]
    differ = [asked.differ if kind == "classes" else asked.vary for asked, _ in own]

    def join(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([column[..., some] for column, some in zip(columns, rows, strict=True)], axis=-1)

    def departing(name: str, asked: Asked, predicted: Predicted, half: tuple[Predicted, Predicted]) -> Numbers:
        whole = predicted[name]
        each = half[0].get(name, whole), half[1].get(name, whole)
        return asked.departures(whole, cell_type, swap=True, by_half=each)

    return _Pooled(
        join([asked.truth[:, cell_type] for asked, _ in own]),
        join([asked.departures(asked.truth, cell_type) for asked, _ in own]),
        join(differ),
        join([asked.region for asked, _ in own]),
        {name: join([predicted[name][..., cell_type] for _, predicted in own]) for name in methods},
        {
            name: join([departing(name, *part, half) for part, half in zip(own, by_half, strict=True)])
            for name in methods
        },
    )


def _measurable(asked: Asked, predicted: Predicted, cell_type: int) -> NDArray[np.bool_]:
    """Return in which windows the truth and all predictions are known: bool, shape (w,).

    Predictions have to be there in the known cell types too, as far as the truth is.
    """
    unknown = ~np.isfinite(asked.truth[:, asked.known])
    found = np.isfinite(asked.truth[:, cell_type])
    for values in predicted.values():
        there = np.isfinite(values[..., asked.known]) | unknown
        found &= (np.isfinite(values[..., cell_type]) & there.all(axis=-1)).all(axis=0)
    return found


def _questions(rows: _Pooled, cell_type: str, kind: Kind) -> Iterator[_Question]:
    """Yield what is measured in a cell type, in the order of `MEASURES`."""
    everywhere = np.ones(len(rows.truth), dtype=bool)
    truth = rows.truth > 0.5 if kind == "classes" else rows.truth
    varies = _varies(rows.truth)

    def question(
        name: str, measure: Measure, chosen: NDArray[np.bool_], truth: NDArray[Any], scores: Mapping[str, Numbers]
    ) -> _Question:
        own = {method: values[..., chosen].reshape(len(values), -1) for method, values in scores.items()}
        asked = truth[..., chosen]
        region = np.broadcast_to(rows.region[chosen], asked.shape).ravel()
        varied = varies and _varies(asked.ravel())
        return _Question(cell_type, name, measure, int(chosen.sum()), region, asked.ravel(), own, varied)

    for suffix, chosen in (("", everywhere), (DIFFER, rows.differ)):
        for name, one in _WHOLE[kind].items():
            yield question(f"{name}{suffix}", one, chosen, truth, rows.predicted)
    departing, halves = ({name: own[:, part] for name, own in rows.departing.items()} for part in (0, slice(1, None)))
    whole, first, second = np.isfinite(rows.departures)
    yield question(SPECIFIC, pearson, whole, rows.departures[0], departing)
    yield question(CROSSED, pearson, first & second, rows.departures[1:], halves)


def _varies(truth: NDArray[Any]) -> bool:
    return len(truth) > 0 and bool((truth != truth[0]).any())


def _answers(questions: Sequence[_Question]) -> dict[tuple[str, str, str], Numbers]:
    """Return (cell type, measure, method) -> its value with all rows and in each resample: (1 + resamples, seeds)."""
    open_ones = [one for one in questions if one.asked]
    if not open_ones:
        return {}
    region = np.unique(np.concatenate([one.region for one in open_ones]))
    places = [np.searchsorted(region, one.region) for one in open_ones]
    found: dict[tuple[str, str, str], list[Numbers]] = {}
    for block in weight_blocks(region, at_once=_WEIGHTS_AT_ONCE):
        counts = block.astype(np.int32)
        for one, place in zip(open_ones, places, strict=True):
            weights = np.take(counts, place, axis=1)
            for method in one.scores:
                found.setdefault((one.cell_type, one.name, method), []).append(one.answers(weights, method))
    return {key: np.concatenate(blocks) for key, blocks in found.items()}


def _mean(
    answers: Mapping[tuple[str, str, str], Numbers], questions: Sequence[_Question], method: str
) -> Numbers | None:
    """Return the mean of a measure over the cell types, shape (1 + resamples, seeds), if it is known in all of them.

    In a resample that has one class only of a cell type, it is the mean over the others.
    """
    keys = [(one.cell_type, one.name, method) for one in questions if one.asked]
    if not keys or not all(key in answers for key in keys):
        return None
    values = np.stack([answers[key] for key in keys])
    known = np.isfinite(values)
    count = known.sum(axis=0)
    return np.divide(np.where(known, values, 0).sum(axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)


def _rows(
    questions: Sequence[_Question],
    answers: Mapping[tuple[str, str, str], Numbers],
    means: Mapping[tuple[str, str], Numbers | None],
    method: str,
) -> list[Row]:
    """Return the results of a method: its means, then each cell type."""
    names = list(dict.fromkeys(one.name for one in questions))
    rows = []
    for name in names:
        n = sum(one.windows for one in questions if one.name == name and one.asked)
        if (mean := means[method, name]) is not None:
            rows.append({"method": method, "cell_type": MEAN, "measure": name, **_summary(mean), "n": n})
    for one in questions:
        if method in one.scores:
            keys = {"method": method, "cell_type": one.cell_type, "measure": one.name}
            values = answers.get((one.cell_type, one.name, method))
            summary = _nothing(len(one.scores[method])) if values is None else _summary(values)
            rows.append({**keys, **summary, "n": one.windows})
    return rows


def _summary(values: Numbers) -> Row:
    """Return the mean over the seeds with its interval, and their range; values: shape (1 + resamples, seeds)."""
    spread = {"lowest_seed": number(values[0].min()), "highest_seed": number(values[0].max())}
    return {**estimated(values.mean(axis=1)), "seeds": values.shape[1], **spread}


def _nothing(seeds: int) -> Row:
    nothing: Row = dict.fromkeys(("value", "low", "high"))
    return {**nothing, "seeds": seeds, "lowest_seed": None, "highest_seed": None}


def _difference(means: Mapping[tuple[str, str], Numbers | None], first: str, second: str, name: str) -> Row | None:
    """Return by how much the mean of a measure of one method is above that of another, in each resample."""
    pair = [means.get((method, name)) for method in (first, second)]
    if pair[0] is None or pair[1] is None:
        return None
    values = pair[0].mean(axis=1) - pair[1].mean(axis=1)
    return {"first": first, "second": second, "measure": name, **estimated(values)}
