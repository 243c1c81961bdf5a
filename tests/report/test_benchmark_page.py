import re
from typing import Any

import pytest
from pages import HOSTILE, Page

from genebert.report.benchmark import benchmark_page


def ours(method: str, value: float, rows: str = "all", **changes: Any) -> dict[str, Any]:
    return {
        "task": "tf/0",
        "rows": rows,
        "n": 100 if rows == "all" else 90,
        "method": method,
        "setting": None,
        "measure": "MCC",
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "seeds": 2,
        "lowest_seed": value - 0.01,
        "highest_seed": value + 0.01,
        "source": "ours",
    } | changes


def theirs(model: str, value: float, **changes: Any) -> dict[str, Any]:
    return {
        "task": "tf/0",
        "rows": "all",
        "method": model,
        "measure": "MCC",
        "value": value,
        "source": "theirs",
        "citation": "Somebody 2024",
        "setting": "fine-tuned",
        "parameters": 1.17e8,
    } | changes


def difference(first: str, second: str, low: float, high: float) -> dict[str, Any]:
    keys = {"task": "tf/0", "rows": "all", "n": 100, "first": first, "second": second, "measure": "MCC"}
    return keys | {"value": (low + high) / 2, "low": low, "high": high}


def method_of(name: str, **changes: Any) -> dict[str, Any]:
    options = {"kmers": 5, "leaves": 31, "motifs": True, "lengths": [4, 5], "model": None}
    facts = {"name": name, "title": "boosted trees", "seeds": [0, 1, 2], "options": options}
    return {**facts, "changed": {}, "on_tasks": {}, **changes}


@pytest.fixture
def found() -> dict[str, Any]:
    rows_of = {"train": 1000, "valid": 100, "test": 100}
    task = {
        "task": "tf/0",
        "measure": "MCC",
        "measures": ["MCC"],
        "threshold": "half",
        "length": 101,
        "target": {"kind": "classes", "names": ["0", "1"], "centre": 0.0, "scale": 1.0},
        "rows": rows_of,
        "balance": {split: {"0": 0.75, "1": 0.25} for split in rows_of},
        "test_rows_that_share_32_bases": {"with training": 7, "with validation": 4, "with either": 10},
    }
    rows = [ours(HOSTILE, 0.5), ours("trees", 0.6), ours(HOSTILE, 0.4, "no shared 32-mer")]
    rows += [ours("trees", 0.3, "no shared 32-mer"), ours("both", 0.55, seeds=1, setting="mean of a, trees")]
    undefined = ours("flat", 0, "no shared 32-mer") | {"value": None, "low": None, "high": None}
    rows += [ours("both", 0.5, "no shared 32-mer"), ours("flat", -0.0001), undefined]
    rows += [theirs("NT", 0.58), theirs("Caduceus", 0.88, measure="AUROC", parameters=None)]
    cost = {"task": "tf/0", "seconds_to_predict": 2.0, "sequences_per_second": 50.0, "machine": "2 cores"}
    return {
        "title": HOSTILE,
        "suite": {"path": "suite.yaml", "sha256": "abc"},
        "software": {"genebert": "0.1"},
        "methods": [method_of("trees", changed={"kmers": 5}, on_tasks={"tf/0": {"leaves": 7}, "tf/1": {"leaves": 7}})],
        "ensembles": {"both": ["a", "trees"]},
        "tasks": [task],
        "results": rows,
        "comparisons": [difference("trees", "flat", 0.1, 0.3), difference("trees", "both", -0.1, 0.2)],
        "costs": [{**cost, "method": "trees", "seconds_to_fit": 1234.56}],
        "missing": [{"task": "tf/0", "method": "gkm", "reason": f"it is {HOSTILE}.", "failed": True}],
    }


def test_methods_stand_by_rank_with_theirs_marked(found: dict[str, Any]) -> None:
    page = Page(benchmark_page(found))
    rows = page.table("Method", "Whose", "MCC [95% interval]")
    assert [row[0] for row in rows] == ["trees", "NT", "both", HOSTILE, "flat"]
    assert rows[0] == ["trees", "ours", "0.600 [0.500, 0.700]", "2: 0.590 to 0.610", "0.300 [0.200, 0.400]"]
    assert rows[1] == ["NT", "theirs: Somebody 2024, fine-tuned, 117 million parameters", "0.580", "–", "–"]
    assert rows[2][1:4] == ["ours: mean of a, trees", "0.550 [0.450, 0.650]", "1"]
    assert rows[4][2:] == ["0.000 [−0.100, 0.100]", "2: −0.010 to 0.010", "–"]


def test_the_page_is_complete_in_itself_and_escapes_every_name(found: dict[str, Any]) -> None:
    text = benchmark_page(found)
    page = Page(text)
    assert "script" not in page.tags and HOSTILE not in text
    assert not re.search(r'(src|href)="(?!#)', text)
    assert page.table("Methods", "Tasks", "Why") == [["gkm", "tf/0", f"it is {HOSTILE}.", "1"]]
    assert "Of 100 test rows, 7 share 32 bases with a training row, 4 with a validation row, and 10 with either" in text
    assert "Caduceus AUROC 0.880 (theirs: Somebody 2024, fine-tuned)" in text
    assert "NT (theirs)" in text and "ours, no shared 32-mer" in text  # in the figure


def test_what_can_be_told_apart_is_said(found: dict[str, Any]) -> None:
    text = benchmark_page(found)
    assert "tf/0, MCC: trees is above flat (+0.200 [+0.100, +0.300])." in text
    assert "tf/0, MCC: trees cannot be told from both (+0.050 [−0.100, +0.200])." in text
    found["comparisons"] = [difference("flat", "trees", -0.3, -0.1)]
    assert "flat is below trees" in benchmark_page(found)


def test_the_other_tables(found: dict[str, Any]) -> None:
    page = Page(benchmark_page(found))
    assert page.table("Split") == [
        [split, rows, "75.0%", "25.0%"] for split, rows in (("train", "1,000"), ("valid", "100"), ("test", "100"))
    ]
    assert page.table("Method", "Whose", "tf/0")[-1] == ["NT", "theirs", "0.580"]
    assert page.table("Method", "Seconds to fit") == [["trees", "1,234.6", "50", "2 cores"]]
    assert ["trees", "0.600 [0.500, 0.700]"] in page.table("Method", "MCC")
    assert any(["trees − both", "+0.050 [−0.100, +0.200]"] in table for table in page.tables)
    assert page.table("Pair", "tf/0") == [["trees − flat", "▲ +0.200"], ["trees − both", "■ +0.050"]]


def test_the_highest_of_ours_stand_out(found: dict[str, Any]) -> None:
    """Of ours alone, and all that look equally high."""
    found["results"] = [ours("a", 0.6001), ours("b", 0.5999), ours("c", 0.5), theirs("NT", 0.9)]
    assert Page(benchmark_page(found)).strong == ["0.600", "0.600"]
    found["results"] = [ours("a", 0.6) | {"value": None}, theirs("NT", 0.9)]
    assert Page(benchmark_page(found)).strong == []


def test_how_methods_were_trained(found: dict[str, Any]) -> None:
    page = Page(benchmark_page(found))
    changes = "kmers = 5; on tf/0, tf/1: leaves = 7"
    assert page.table("Method", "What it is") == [
        ["trees", "boosted trees", changes, "3", "1,234.6", "50"],
        ["both", "mean of a, trees", *4 * ["–"]],
    ]
    assert page.table("Method", "Option") == [
        ["trees", "kmers", "5"],
        ["", "leaves", "31"],
        ["", "motifs", "yes"],
        ["", "lengths", "4 5"],
        ["", "model", "none"],
    ]
    found["costs"] *= 2
    found["costs"][1] = found["costs"][0] | {"seconds_to_fit": 2.0}
    assert Page(benchmark_page(found)).table("Method", "What it is")[0][4] == "2.0 to 1,234.6"


def test_what_is_not_measured_is_told_once_for_all_that_lack_the_same(found: dict[str, Any]) -> None:
    """Once it was a line for each task and method, which with seven and ten filled pages."""
    missing = {"reason": "not computed yet", "failed": False}
    found["missing"] = [{**missing, "task": f"tf/{i}", "method": name} for i in range(3) for name in "ab"]
    found["missing"] += [{**missing, "task": "tf/1", "method": "c"}]
    text = benchmark_page(found)
    assert Page(text).table("Methods", "Tasks") == [
        ["a, b", "tf/0, tf/1, tf/2", "not computed yet", "6"],
        ["c", "tf/1", "not computed yet", "1"],
    ]
    assert "<summary>7 pairs of method and task not measured</summary>" in text
    assert "Not measured (not computed yet): a, b." in text
    assert "What failed" not in text


def test_labels_have_a_table_of_their_own_and_numbers_their_spread(found: dict[str, Any]) -> None:
    (task,) = found["tasks"]
    task |= {"measure": "AUROC", "target": {"kind": "labels", "names": ["0", "1"]}}
    found["results"] = [ours("a", 0.7, measure=name) for name in ("AUROC", "AUROC: 0", "AUROC: 1")]
    page = Page(benchmark_page(found))
    assert page.table("Method", "AUROC") == [["a", "0.700 [0.600, 0.800]"]]
    assert page.table("Method", "AUROC: 0", "AUROC: 1") == [["a", *2 * ["0.700 [0.600, 0.800]"]]]
    task["target"] = {"kind": "value", "names": ["value"]}
    task["balance"] = {split: {"mean": 1.5, "standard deviation": 0.25} for split in task["rows"]}
    assert Page(benchmark_page(found)).table("Split", "Rows", "mean")[0] == ["train", "1,000", "1.5", "0.25"]


def test_a_benchmark_of_which_nothing_is_there_yet(found: dict[str, Any]) -> None:
    found |= {"results": [], "comparisons": [], "costs": [], "tasks": []}
    Page(benchmark_page(found))
    found["tasks"] = [{**task, "task": "tf/1"} for task in found["tasks"]]
    assert "What failed." in benchmark_page(found)
