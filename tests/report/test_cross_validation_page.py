import re
from typing import Any

import pytest
from pages import HOSTILE, Page

from genebert.report.cross_validation import cross_validation_page

MEASURES = {
    "classes": [
        "AUROC",
        "AUPRC",
        "AUROC where cell types differ",
        "AUPRC where cell types differ",
        "specific",
        "specific, crossed",
    ],
    "value": [
        "Pearson",
        "Spearman",
        "Pearson where cell types differ",
        "Spearman where cell types differ",
        "specific",
        "specific, crossed",
    ],
}
BASELINES = ["mean of known cell types", "nearest known cell type"]


def result(method: str, cell_type: str, measure: str, value: float | None, fraction: float = 1.0) -> dict[str, Any]:
    around = {"low": value - 0.1, "high": value + 0.1} if value is not None else {"low": None, "high": None}
    keys = {"method": method, "label_fraction": fraction, "cell_type": cell_type, "measure": measure}
    return {**keys, "value": value, **around, "seeds": 1, "n": 50}


def cell_type(name: str, **changes: Any) -> dict[str, Any]:
    facts = {"cell_type": name, "distance": 0.03, "p": 0.5, "nearest": "A", "unlike": False, "known": 16}
    return {**facts, "test_windows": 1234, "positives": 56, **changes}


def method_of(name: str, **changes: Any) -> dict[str, Any]:
    facts = {"name": name, "title": "boosted trees", "options": {"kmers": 5, "model": None}, "changed": {}}
    return {**facts, "seeds": [0, 1], "seen": [], **changes}


def difference(first: str, second: str, low: float, high: float, measure: str = "specific") -> dict[str, Any]:
    keys = {"first": first, "second": second, "label_fraction": 1.0, "measure": measure}
    return {**keys, "value": (low + high) / 2, "low": low, "high": high}


def document(methods: list[str], cell_types: list[str], kind: str = "classes") -> dict[str, Any]:
    """What a finished cross-validation has found: the i-th method is worse than those before it."""
    fold = {
        "name": "A x 1",
        "test_cell_types": ["A"],
        "valid_cell_types": ["B"],
        "test_chromosomes": ["chr1", "chr2"],
        "valid_chromosomes": ["chr3"],
        "train_rows": 1000,
        "valid_rows": 200,
        "test_rows": 100,
    }
    return {
        "title": "CTCF",
        "target": kind,
        "cell_types": [cell_type(name) for name in cell_types],
        "folds": [fold],
        "methods": [method_of(name) for name in methods],
        "results": [
            result(name, where, measure, 0.9 - i / 100)
            for i, name in enumerate([*methods, *BASELINES])
            for where in ["mean", *cell_types]
            for measure in MEASURES[kind]
        ],
        "comparisons": [],
        "costs": [{"method": name, "label_fraction": 1.0, "seconds_to_fit": 12.34} for name in methods],
        "missing": [],
    }


@pytest.fixture
def found() -> dict[str, Any]:
    return document(["trees", "flat"], ["A", "B", "C"])


@pytest.mark.parametrize("kind", ["classes", "value"])
@pytest.mark.parametrize(("methods", "cell_types"), [(0, 3), (1, 1), (2, 40), (25, 3)])
def test_pages_of_few_and_many(kind: str, methods: int, cell_types: int) -> None:
    names = [f"method {i}" for i in range(methods)]
    text = cross_validation_page(document(names, [f"cell type {i}" for i in range(cell_types)], kind))
    page = Page(text)
    table = page.table("Method", *MEASURES[kind])
    assert [row[0] for row in table] == [*names, *BASELINES]
    assert re.search(r"""(src|href)=["'](?!#)|@import|url\((?!#)""", text) is None
    assert "script" not in page.tags


def test_names_from_files_are_escaped() -> None:
    found = document([HOSTILE], [HOSTILE, "B"])
    found |= {"title": HOSTILE, "missing": [{"method": HOSTILE, "fold": HOSTILE, "reason": HOSTILE, "failed": False}]}
    found["methods"][0] |= {
        "title": HOSTILE,
        "changed": {"model": HOSTILE},
        "seen": [HOSTILE],
        "options": {"a": HOSTILE},
    }
    found["folds"][0] |= {name: [HOSTILE] for name in ("test_cell_types", "valid_chromosomes")}
    found["cell_types"][0]["nearest"] = HOSTILE
    found["comparisons"] = [difference(HOSTILE, BASELINES[0], 0.1, 0.3)]
    found |= {"protocol": {"path": HOSTILE, "sha256": "ab"}, "software": {"genebert": HOSTILE}}
    found["results"] += [{**row, "label_fraction": 0.1} for row in found["results"]]
    text = cross_validation_page(found)
    assert HOSTILE not in text
    assert "script" not in Page(text).tags


def test_methods_are_ranked_by_what_is_specific_crossed_and_baselines_are_last(found: dict[str, Any]) -> None:
    for row in found["results"]:
        if row["measure"] == "specific, crossed":
            row["value"] = {"trees": 0.1, "flat": 0.2}.get(row["method"], 0.3)
    page = Page(cross_validation_page(found))
    assert [row[0] for row in page.table("Method", "AUROC", "AUPRC")] == ["flat", "trees", *BASELINES]
    assert page.table("Method", "AUROC", "AUPRC")[1][1] == "0.900 [0.800, 1.000]"
    assert page.table("Cell type", "flat", "trees")[0][1:3] == ["0.890", "0.900"]  # AUPRC, the first of the tables


def test_methods_are_ranked_by_another_measure_where_that_is_not_defined(found: dict[str, Any]) -> None:
    """All results once vanished from the page."""
    for row in found["results"]:
        if row["measure"] == "specific, crossed":
            row |= dict.fromkeys(("value", "low", "high"))
        if row["measure"] == "AUPRC":
            row["value"] = {"trees": 0.1, "flat": 0.2}.get(row["method"], 0.3)
    text = cross_validation_page(found)
    assert [row[0] for row in Page(text).table("Method", "AUROC", "AUPRC")] == ["flat", "trees", *BASELINES]
    assert "best in AUPRC first" in text


def test_cell_types_that_cannot_be_measured_are_named(found: dict[str, Any]) -> None:
    for row in found["results"]:
        if row["cell_type"] == "B" or (row["cell_type"], row["measure"]) == ("C", "AUPRC where cell types differ"):
            row |= dict.fromkeys(("value", "low", "high"))
    text = cross_validation_page(found)
    assert "Of one class or value only, and no part of any mean: B." in text
    assert "and no part of the mean of AUPRC where cell types differ: C." in text
    assert Page(text).table("Cell type", "trees")[1] == ["B", *4 * ["–"]]


@pytest.mark.parametrize(
    ("kind", "said"), [("classes", "AUPRC is the share of positives"), ("value", "all of these correlations are 0")]
)
def test_what_is_reached_without_knowledge_is_said(kind: str, said: str) -> None:
    text = cross_validation_page(document(["trees"], ["B", "T", "NK", "Mono"], kind))
    assert text.count(f"Without knowledge, {said}") == 1


def test_differences_become_sentences(found: dict[str, Any]) -> None:
    found["comparisons"] = [
        difference("trees", "flat", 0.1, 0.3),
        difference("flat", BASELINES[0], -0.1, 0.2),
        difference("trees", "flat", -0.3, -0.1, "AUROC"),
    ]
    text = cross_validation_page(found)
    assert "specific: trees is above flat (+0.200 [+0.100, +0.300])." in text
    assert "specific: flat cannot be told from mean of known cell types (+0.050 [−0.100, +0.200])." in text
    assert "trees is below" not in text  # AUROC is no headline
    assert Page(text).table("Pair", "AUROC")[0][:2] == ["trees − flat", "−0.200 [−0.300, −0.100]"]


def test_tables_are_about_the_largest_fraction_and_curves_about_all(found: dict[str, Any]) -> None:
    few = [
        {**row, "label_fraction": 0.01, "value": row["value"] - 0.5, "low": 0.0}
        for row in found["results"]
        if row["method"] != "flat"
    ]
    assert "Fewer labels" not in cross_validation_page(found)
    found["results"] = [*few, *found["results"]]
    text = cross_validation_page(found)
    page = Page(text)
    assert page.table("Method", "AUROC", "AUPRC")[0][:2] == ["trees", "0.900 [0.800, 1.000]"]
    assert "Learned from 100% of the training windows." in text
    assert page.table("Method", "1%", "100%") == [
        ["trees", "0.400 [0.000, 1.000]", "0.900 [0.800, 1.000]"],
        ["flat", "–", "0.890 [0.790, 0.990]"],
        [BASELINES[0], "0.380 [0.000, 0.980]", "0.880 [0.780, 0.980]"],
        [BASELINES[1], "0.370 [0.000, 0.970]", "0.870 [0.770, 0.970]"],
    ]
    assert len(re.findall("by the fraction of the training windows used", text)) == 4  # drawings


def test_the_other_tables(found: dict[str, Any]) -> None:
    found["cell_types"] = [cell_type("A", unlike=True, p=0.05), cell_type("B", p=None), cell_type("C")]
    found["methods"][0] |= {"changed": {"kmers": 4}, "seen": ["pre-trained on A", "pre-trained on chr1"]}
    found["ensembles"] = {
        "both": {"of": ["trees", "flat"], "log_odds": False},
        "with known": {"of": ["trees", BASELINES[0]], "log_odds": True},
    }
    page = Page(cross_validation_page(found))
    rows = page.table("Cell type", "Nearest")
    assert [row[2] for row in rows] == ["unlike", "unknown", "alike"]
    assert rows[0] == ["A", "A", "unlike", "0.030", "0.05", "1,234", "56"]
    assert page.table("Fold") == [["A x 1", "A", "chr1, chr2", "B", "chr3", "1,000", "200", "100"]]
    assert page.table("Method", "Seen") == [["trees", "pre-trained on A; pre-trained on chr1"]]
    assert page.table("Method", "What it is") == [
        ["trees", "boosted trees", "kmers = 4", "2", "12.3"],
        ["flat", "boosted trees", "–", "2", "12.3"],
        ["both", "mean of trees, flat", "–", "–", "–"],
        ["with known", f"mean log-odds of trees, {BASELINES[0]}", "–", "–", "–"],
    ]
    assert ["A", "trees", "AUROC", "0.900 [0.800, 1.000]", "1", "50"] in page.table("Cell type", "Method")


def test_numbers_have_no_positives() -> None:
    page = Page(cross_validation_page(document(["trees"], ["A", "B"], "value")))
    assert page.table("Cell type", "Nearest")[0][-1] == "1,234"
    assert page.table("Cell type", "trees")[0][1] == "0.900"


def test_what_is_missing(found: dict[str, Any]) -> None:
    found["methods"].append(method_of("net"))
    found["missing"] = [
        {"method": "net", "fold": f"A x {i}", "reason": "not computed", "failed": False} for i in (1, 2)
    ]
    found["missing"].append({"method": "net", "fold": "B x 1", "reason": "out of memory"})
    text = cross_validation_page(found)
    page = Page(text)
    assert page.table("Methods", "Folds") == [["net", "B x 1", "out of memory", "1"]]
    assert "<summary>2 pairs of method and fold not measured</summary>" in text


def test_what_is_not_computed_is_counted_as_such(found: dict[str, Any]) -> None:
    """A method without any fold was once one pair, and counted as there, as were ensembles that lack a member."""
    found["folds"] = [{**found["folds"][0], "name": name} for name in ("A x 1", "B x 1", "C x 1")]
    found["methods"] += [method_of("net"), method_of("slow")]
    found["ensembles"] = {
        name: {"of": ["trees", name], "log_odds": False} for name in ("flat and trees", "net and trees")
    }
    found["results"].append(result("flat and trees", "mean", "AUROC", 0.9))
    waiting = {"reason": "not computed", "failed": False}
    found["missing"] = [{"method": name, "fold": "all", **waiting} for name in ("net", "slow", "net")]
    found["missing"].append({"method": "all", "fold": "B x 1", **waiting, "reason": "no rows (with 1 of the labels)"})
    text = cross_validation_page(found)
    assert "<dd>2 of 4</dd>" in text and "methods computed" in text
    assert "1 of 2 ensembles, 2 baselines" in text
    assert "<summary>8 pairs of method and fold not measured</summary>" in text  # 2 x 3 folds, and 2 x 1
    rows = Page(text).table("Methods", "Folds")
    assert rows[0] == ["net, slow", "all", "not computed", "6"]
    assert rows[1] == ["trees, flat, net, slow", "B x 1", "no rows (with 1 of the labels)", "4"]


def test_few_known_cell_types_say_little(found: dict[str, Any]) -> None:
    assert "says little" not in cross_validation_page(found)
    found["cell_types"] = [cell_type("A", unlike=True, p=0.25, known=3), cell_type("B", known=12)]
    text = cross_validation_page(found)
    said = "With 3 known cell types p is never below 0.25, and one cell type of the same kind in 4 is unlike by chance"
    assert text.count(said) == 2  # in the table and in the figure


def test_a_cross_validation_of_which_nothing_is_there_yet(found: dict[str, Any]) -> None:
    found |= {"results": [], "comparisons": [], "costs": [], "cell_types": [], "folds": []}
    text = cross_validation_page(found)
    assert "Means over cell types." not in text
    assert Page(text).table("Method", "What it is")[0][0] == "trees"
