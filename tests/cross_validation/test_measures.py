from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from genebert.cross_validation.measures import CROSSED, MEAN, MEASURES, Asked, measure

Numbers = NDArray[np.float64]
NAMES = ["A", "B", "C", "D"]
UNKNOWN = np.nan
BY_HAND = np.array(  # rows: windows; columns: A, B, C (known), D (test)
    [
        [1, 1, 0, 1],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 1, 1, 1],
        [1, 0, UNKNOWN, 1],
        [0, UNKNOWN, UNKNOWN, 1],
        [0, 1, 0, UNKNOWN],
        [UNKNOWN, UNKNOWN, UNKNOWN, 0],
    ]
)


def asked_of(truth: Numbers, test: Sequence[int] = (3,), region: Sequence[int] | None = None) -> Asked:
    known = np.setdiff1d(np.arange(truth.shape[1]), test)
    return Asked(truth, np.asarray(range(len(truth)) if region is None else region), np.asarray(test), known)


def found(rows: Sequence[dict[str, Any]], method: str, cell_type: str, name: str) -> dict[str, Any]:
    (row,) = [row for row in rows if (row["method"], row["cell_type"], row["measure"]) == (method, cell_type, name)]
    return row


def values(rows: Sequence[dict[str, Any]], method: str, cell_type: str = MEAN) -> dict[str, float | None]:
    return {r["measure"]: r["value"] for r in rows if r["method"] == method and r["cell_type"] == cell_type}


@pytest.fixture(params=["classes", "value"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def atlas(generator: np.random.Generator, kind: str, windows: int = 200, cell_types: int = 4) -> Numbers:
    """Truth with a part that all cell types share and one of each, some of it unknown."""
    signal = generator.normal(size=(windows, 1)) + generator.normal(size=(windows, cell_types))
    truth = (signal > 0.3).astype(float) if kind == "classes" else signal
    truth[generator.random(truth.shape) < 0.1] = UNKNOWN
    return truth


def test_by_hand() -> None:
    asked = asked_of(BY_HAND)
    assert asked.differ.tolist() == [True, True, False, False, True, False, True, False]
    expected = [1 - 2 / 3, 0 - 1 / 3, 0, 0, 1 - 1 / 2, 1 - 0, UNKNOWN, UNKNOWN]
    assert asked.departure(BY_HAND, 3, asked.known) == pytest.approx(expected, nan_ok=True)
    # The mean of the prediction is over those known cell types whose truth is known
    prediction = np.tile([0.1, 0.3, 0.8, 0.5], (8, 1))
    expected = [0.1, 0.1, 0.1, 0.1, 0.5 - 0.2, 0.5 - 0.1, 0.1, UNKNOWN]
    assert asked.departure(prediction, 3, asked.known) == pytest.approx(expected, nan_ok=True)
    # The halves are A and C, and B
    whole, first, second = asked.departures(BY_HAND, 3)
    assert whole == pytest.approx(asked.departure(BY_HAND, 3, asked.known), nan_ok=True)
    assert first == pytest.approx([0.5, -0.5, 0, 0, 0, 1, UNKNOWN, UNKNOWN], nan_ok=True)
    assert second == pytest.approx([0, 0, 0, 0, 1, UNKNOWN, UNKNOWN, UNKNOWN], nan_ok=True)
    swapped = asked.departures(BY_HAND, 3, swap=True)
    assert swapped == pytest.approx(np.stack([whole, second, first]), nan_ok=True)


def test_windows_that_vary_are_those_above_the_median() -> None:
    truth = np.array([[0, 2, 0, 0], [0, 0, 0, 0], [0, 9, 0, 0], [0, 1, 0, 0], [5, UNKNOWN, UNKNOWN, 0.0]])
    spread = truth[:4, :3].std(axis=1)
    asked = asked_of(truth)
    assert asked.vary.tolist() == [*(spread > np.median(spread)), False]
    assert not asked.differ[4]


def test_measures_are_those_of_the_references(generator: np.random.Generator, kind: Any) -> None:
    truth = atlas(generator, kind)
    prediction = np.nan_to_num(truth) + generator.normal(size=(2, *truth.shape))
    rows, _ = measure([(asked_of(truth), {"model": prediction})], NAMES, kind)
    count = np.isfinite(truth[:, :3]).sum(axis=1)
    spread = np.array([np.nanstd(line) if np.isfinite(line).any() else UNKNOWN for line in truth[:, :3]])
    many = np.where(count > 1, spread, UNKNOWN)
    differ = many > (0 if kind == "classes" else np.nanmedian(many))
    there = np.isfinite(truth[:, 3])
    mean = np.array([np.nanmean(line) if n else UNKNOWN for line, n in zip(truth[:, :3], count, strict=True)])
    asked = np.where(np.isfinite(truth[:, :3]), prediction[..., :3], 0).sum(axis=-1) / np.maximum(count, 1)
    own, specific = truth[:, 3] - mean, prediction[..., 3] - asked
    both, some = there & differ, there & (count > 0)

    def average(reference: Any, label: Numbers, score: Numbers, chosen: NDArray[np.bool_]) -> float:
        return float(np.mean([reference(label[chosen], run[chosen]) for run in score]))

    def pearson(*pair: Numbers) -> float:
        return float(pearsonr(*pair).statistic)

    def spearman(*pair: Numbers) -> float:
        return float(spearmanr(*pair).statistic)

    first, second = (roc_auc_score, average_precision_score) if kind == "classes" else (pearson, spearman)
    whole = [
        average(reference, truth[:, 3], prediction[..., 3], chosen)
        for chosen in (there, both)
        for reference in (first, second)
    ]
    # The halves of the known cell types are A and C, and B
    some_of = np.isfinite(truth[:, [0, 2]]).sum(axis=1)
    of_a_c = np.where(np.isfinite(truth[:, [0, 2]]), prediction[..., [0, 2]], 0).sum(axis=-1) / np.maximum(some_of, 1)
    mean_a_c = np.where(np.isfinite(truth[:, [0, 2]]), truth[:, [0, 2]], 0).sum(axis=1) / np.maximum(some_of, 1)
    each = there & (some_of > 0) & np.isfinite(truth[:, 1])
    crossed = np.concatenate([truth[:, 3] - mean_a_c, truth[:, 3] - truth[:, 1]])
    departing = prediction[..., 3] - prediction[..., 1], prediction[..., 3] - of_a_c
    expected = [
        *whole,
        average(pearson, own, specific, some),
        average(pearson, crossed, np.concatenate(departing, axis=1), np.tile(each, 2)),
    ]
    assert values(rows, "model", "D") == pytest.approx(dict(zip(MEASURES[kind], expected, strict=True)))
    assert values(rows, "model") == values(rows, "model", "D")  # the mean over one
    numbers = [there.sum(), there.sum(), both.sum(), both.sum(), some.sum(), each.sum()]
    assert [found(rows, "model", "D", name)["n"] for name in MEASURES[kind]] == numbers


@pytest.mark.parametrize("known", [2, 3, 7, 11])
def test_what_does_not_depend_on_the_cell_type_is_not_specific(
    generator: np.random.Generator, kind: Any, known: int
) -> None:
    """The mean of equal numbers is not that number, but for rounding: a correlation of it would be that of noise."""
    truth = atlas(generator, kind, cell_types=known + 1)
    mean = np.array([np.nanmean([*line, 0.3]) for line in truth[:, :known]])
    sequence = generator.normal(size=(3, len(truth), 1)) / 3
    predicted = {
        "mean": np.repeat(mean[:, None], known + 1, axis=1)[None],
        "sequence only": np.repeat(sequence, known + 1, axis=2),
        "rounded": np.repeat(sequence, known + 1, axis=2) + generator.normal(scale=1e-8, size=(3, *truth.shape)),
        "cell type": np.nan_to_num(truth)[None] + generator.normal(scale=0.5, size=(1, *truth.shape)),
    }
    names = [f"T{i}" for i in range(known + 1)]
    rows, _ = measure([(asked_of(truth, (known,)), predicted)], names, kind)
    for name in list(predicted)[:3]:
        for measured in ("specific", "specific, crossed"):
            row = found(rows, name, names[known], measured)
            assert (row["value"], row["low"], row["high"]) == (0, 0, 0)
    assert found(rows, "mean", MEAN, MEASURES[kind][0])["low"] > (0.5 if kind == "classes" else 0)
    assert found(rows, "cell type", MEAN, "specific")["low"] > 0
    assert found(rows, "cell type", MEAN, "specific, crossed")["low"] > 0


def test_the_truth_itself_is_all_that_is_specific(generator: np.random.Generator, kind: Any) -> None:
    truth = atlas(generator, kind)
    rows, _ = measure([(asked_of(truth), {"truth": np.nan_to_num(truth)[None]})], NAMES, kind)
    own = values(rows, "truth", "D")
    crossed = own.pop("specific, crossed")
    assert list(own.values()) == pytest.approx([1.0] * len(own))
    assert crossed is not None
    assert 0 < crossed < 1


@pytest.mark.parametrize("known", [2, 3, 6])
def test_who_is_right_about_known_cell_types_alone_has_nothing_of_the_crossed_part(
    generator: np.random.Generator, kind: Any, known: int
) -> None:
    """Such a method has about 1 / K of the variance of the departure right, and would be taken for a good one."""
    truth = atlas(generator, kind, 3000, known + 1)
    prediction = np.nan_to_num(truth)
    prediction[:, known] = 0.5
    rows, _ = measure([(asked_of(truth, (known,)), {"model": prediction[None]})], list("ABCDEFG"), kind)
    assert found(rows, "model", MEAN, "specific")["low"] > 0.1
    assert abs(found(rows, "model", MEAN, "specific, crossed")["value"]) < 0.05


def test_one_known_cell_type_has_no_halves(generator: np.random.Generator, kind: Any) -> None:
    truth = atlas(generator, kind, cell_types=2)
    rows, _ = measure([(asked_of(truth, (1,)), {"model": generator.random((1, *truth.shape))})], NAMES, kind)
    own = values(rows, "model", "B")
    assert own["specific, crossed"] is None
    assert own["specific"] is not None


def test_a_cell_type_of_one_class_is_named_and_no_part_of_the_mean(generator: np.random.Generator) -> None:
    truth = atlas(generator, "classes", cell_types=5)
    truth[:, 3] = np.where(np.isfinite(truth[:, 3]), 0, UNKNOWN)
    prediction = generator.random((1, *truth.shape))
    asked = Asked(truth, np.arange(len(truth)), np.array([3, 4]), np.arange(3))
    rows, _ = measure([(asked, {"model": prediction})], [*NAMES, "E"], "classes")
    nothing = values(rows, "model", "D")
    assert nothing == dict.fromkeys(MEASURES["classes"])
    assert found(rows, "model", "D", "AUROC")["n"] == np.isfinite(truth[:, 3]).sum()
    assert values(rows, "model") == values(rows, "model", "E")
    assert None not in values(rows, "model").values()


def test_nothing_to_measure_at_all() -> None:
    truth = np.zeros((5, 4))
    rows, differences = measure(
        [(asked_of(truth), {"a": truth[None], "b": truth[None]})], NAMES, "classes", [("a", "b")]
    )
    assert {row["value"] for row in rows} == {None}
    assert {row["cell_type"] for row in rows} == {"D"}
    assert differences == []


def test_a_window_counts_if_all_methods_predict_it(generator: np.random.Generator, kind: Any) -> None:
    truth = atlas(generator, kind)
    first, second = generator.random((2, 1, *truth.shape))
    second[:, :20, 3] = UNKNOWN
    second[:, 20:30, 0] = UNKNOWN  # of a known cell type, where its truth is known in some windows
    kept = (np.arange(200) >= 30) | ((np.arange(200) >= 20) & ~np.isfinite(truth[:, 0]))
    rows, _ = measure([(asked_of(truth), {"first": first, "second": second})], NAMES, kind)
    fewer = asked_of(np.where(kept[:, None] | (np.arange(4) < 3), truth, UNKNOWN))
    expected, _ = measure([(fewer, {"first": first})], NAMES, kind)
    assert [row for row in rows if row["method"] == "first"] == expected


def test_folds_of_a_cell_type_are_pooled(generator: np.random.Generator, kind: Any) -> None:
    """Each with the known cell types of its own, here the same: then it is as if they were one."""
    truth = atlas(generator, kind)
    truth[50:100] = truth[:50]
    truth[100:] = truth[:100]  # the windows of all folds vary alike, so that the median is the same
    prediction = generator.random((2, *truth.shape))
    region = generator.integers(0, 60, size=200)
    whole = measure([(asked_of(truth, region=region), {"model": prediction})], NAMES, kind)
    halves = [
        (asked_of(truth[rows], region=region[rows]), {"model": prediction[:, rows]})
        for rows in (slice(0, 50), slice(50, 200))
    ]
    assert measure(halves, NAMES, kind) == whole


def test_the_mean_is_over_cell_types_whatever_their_number_of_windows(generator: np.random.Generator) -> None:
    truth = atlas(generator, "classes")
    truth[50:, 3] = UNKNOWN
    prediction = generator.random((2, *truth.shape))
    asked = Asked(truth, np.arange(200), np.array([2, 3]), np.array([0, 1]))
    rows, _ = measure([(asked, {"model": prediction})], NAMES, "classes")
    both = [found(rows, "model", name, "AUROC") for name in "CD"]
    mean = found(rows, "model", MEAN, "AUROC")
    assert mean["value"] == pytest.approx(np.mean([row["value"] for row in both]))
    assert mean["n"] == sum(row["n"] for row in both)
    assert mean["seeds"] == 2
    assert mean["lowest_seed"] < mean["value"] < mean["highest_seed"]
    assert mean["low"] < mean["value"] < mean["high"]


def test_differences_are_taken_in_each_resample(generator: np.random.Generator, kind: Any) -> None:
    truth = atlas(generator, kind)
    first = np.nan_to_num(truth)[None] + generator.normal(size=(3, *truth.shape))
    predicted = {"first": first, "same": first.copy(), "other": generator.normal(size=(1, *truth.shape))}
    pairs = [("first", "same"), ("first", "other"), ("other", "first"), ("first", "absent")]
    rows, differences = measure([(asked_of(truth), predicted)], NAMES, kind, pairs)
    assert [row["measure"] for row in differences] == MEASURES[kind] * 3
    by_pair = {(row["first"], row["second"], row["measure"]): row for row in differences}
    for name in MEASURES[kind]:
        same = by_pair["first", "same", name]
        assert (same["value"], same["low"], same["high"]) == (0, 0, 0)
        there, back = by_pair["first", "other", name], by_pair["other", "first", name]
        assert there["value"] == pytest.approx(
            found(rows, "first", MEAN, name)["value"] - found(rows, "other", MEAN, name)["value"]
        )
        assert (there["low"], there["high"]) == pytest.approx((-back["high"], -back["low"]))


def test_a_method_without_some_fold_has_no_mean(generator: np.random.Generator, kind: Any) -> None:
    """Otherwise it would be compared with others on cell types of its own."""
    truth = atlas(generator, kind)
    prediction = generator.random((1, *truth.shape))
    parts = [
        (asked_of(truth, (3,)), {"whole": prediction, "part": prediction}),
        (asked_of(truth, (0,)), {"whole": prediction}),
    ]
    rows, differences = measure(parts, NAMES, kind, [("whole", "part")])
    assert {row["cell_type"] for row in rows if row["method"] == "whole"} == {MEAN, "A", "D"}
    assert {row["cell_type"] for row in rows if row["method"] == "part"} == {"D"}
    assert differences == []


def test_intervals_cover_what_is_true(generator: np.random.Generator) -> None:
    """AUROC of two unit normals a distance of 1 apart is that of a standard normal below 1 / sqrt(2)."""
    truth = (generator.random((40, 120, 3)) < 0.5).astype(float)
    covered = 0
    for atlas_truth in truth:
        prediction = atlas_truth + generator.normal(size=(1, *atlas_truth.shape))
        rows, _ = measure([(asked_of(atlas_truth, (2,)), {"model": prediction})], NAMES[:3], "classes")
        row = found(rows, "model", MEAN, "AUROC")
        covered += row["low"] <= 0.7602 <= row["high"]
    assert 34 <= covered <= 40


def test_windows_of_one_region_are_drawn_together(generator: np.random.Generator) -> None:
    """Else ten copies of a window would count as ten observations."""
    truth = atlas(generator, "classes", 80)
    prediction = generator.random((1, *truth.shape))
    once = measure([(asked_of(truth), {"model": prediction})], NAMES, "classes")[0]
    tenfold = np.repeat(np.arange(80), 10)
    copies = asked_of(truth[tenfold], region=tenfold)
    again = measure([(copies, {"model": prediction[:, tenfold]})], NAMES, "classes")[0]
    for row, other in zip(once, again, strict=True):
        assert [row[name] for name in ("value", "low", "high")] == pytest.approx(
            [other[name] for name in ("value", "low", "high")]
        )


@pytest.mark.parametrize("cell_types", [3, 4, 7, 16])
def test_what_rests_on_known_labels_is_not_credited_with_what_it_shares_with_the_truth(cell_types: int) -> None:
    """Nothing specific can be predicted here; labels of one half on both sides were once worth up to 0.28."""
    generator = np.random.default_rng(cell_types)
    shared, names = generator.normal(size=(4000, 1)), [f"T{i}" for i in range(cell_types)]
    truth = (shared + generator.normal(size=(4000, cell_types)) > 0.7).astype(float)
    asked, alike = asked_of(truth, (0,)), generator.random((cell_types, cell_types))

    def nearest(known: NDArray[np.int64]) -> Numbers:
        found = np.full((1, *truth.shape), truth.mean())
        for own in range(cell_types):
            if len(others := known[known != own]):
                found[0, :, own] = truth[:, others[np.argmax(alike[own, others])]]
        return found

    def crossed(halves: Sequence[Any]) -> float:
        rows, _ = measure([(asked, {"nearest": nearest(asked.known)})], names, "classes", halves=halves)
        return float(found(rows, "nearest", MEAN, CROSSED)["value"])

    first, second = (nearest(half) for half in asked.halves)
    assert abs(crossed([({"nearest": first}, {"nearest": second})])) < 0.05
    if cell_types == 4:
        assert abs(crossed([])) > 0.1
