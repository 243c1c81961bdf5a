from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy_suites import suite_of, toy_methods, write_suite

from genebert.benchmark.suite import read_published, read_suite
from genebert.errors import UserError

SHIPPED = sorted((Path(__file__).parent.parent.parent / "benchmarks" / "suites").glob("*.yaml"))
PATHS = {"labels", "valid", "test", "genome", "corpus", "published", "motifs", "model"}


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with toy_methods():
        yield


def test_paths_start_from_the_suite_or_from_the_data_folder(tmp_path: Path) -> None:
    path = write_suite(tmp_path, suite_of())
    suite = read_suite(path)
    assert suite.tasks[0].labels == tmp_path / "one" / "train.csv"
    assert suite.motifs == str(tmp_path / "motifs.meme")
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.parent.mkdir(exist_ok=True)
    elsewhere.write_text(path.read_text())
    assert read_suite(elsewhere, tmp_path).tasks == suite.tasks


def test_methods_and_seeds_of_a_task(tmp_path: Path) -> None:
    changes = suite_of()
    changes["tasks"][0] |= {"methods": ["flat"]}
    changes["tasks"][1] |= {"options": {"G": {"base": 1}}}
    changes["methods"][0] |= {"options": {"noise": 0.5}, "seeds": 3}
    suite = read_suite(write_suite(tmp_path, changes | {"seed": 7}))
    first, second = suite.tasks
    assert [entry.name for entry in suite.methods_of(first)] == ["flat"]
    assert [entry.options for entry in suite.methods_of(second)] == [{"noise": 0.5, "base": 1}, {}]
    assert suite.seeds_of(suite.methods[0]) == [7, 8, 9]
    assert suite.seeds_of(suite.methods[1]) == [7]  # another seed would change nothing


def complaint(folder: Path, suite: Any) -> list[str]:
    with pytest.raises(UserError) as raised:
        read_suite(write_suite(folder, suite))
    heading, *lines = str(raised.value).splitlines()
    assert heading.startswith(f"The suite {folder / 'suite.yaml'} cannot be used")
    return [line.removeprefix("  - ") for line in lines]


def test_all_that_is_wrong_is_listed_with_its_place(tmp_path: Path) -> None:
    wrong = suite_of(seeds=0, motifs="none.meme", colour="red", published="none.csv")
    wrong["tasks"][0] |= {"labels": "none.csv", "threshold": "best", "name": ".."}
    del wrong["tasks"][1]["valid"]
    wrong["methods"][0] |= {"options": {"base": 9, "bias": 1}}
    wrong["methods"][1] |= {"method": "constnat"}
    del wrong["ensembles"][0]["of"]
    lines = complaint(tmp_path, wrong)
    places = [line.split(": ")[0] for line in lines]
    assert places == [
        "seeds",
        "methods[0].options.base",
        "methods[0].options.bias",
        "methods[1].method",
        "ensembles[0].of",
        "motifs",
        "tasks[0].name",
        "tasks[0].labels",
        "tasks[0].threshold",
        "tasks[1].valid_fraction",
        "and 2 more problems",
    ]
    assert f"there is no {tmp_path / 'none.meme'}" in lines[5]
    listed = "docs/benchmark.md lists the options of each method."
    assert lines[2] == f"methods[0].options.bias: there is no such key. {listed}"
    assert "'constnat': there is no such method; there are" in lines[3]
    assert lines[4] == "ensembles[0].of: it is required. Add it."


def test_names_that_are_not_there_or_come_twice(tmp_path: Path) -> None:
    wrong = suite_of(compare=[["G", "both"], ["G", "B"]])
    wrong["tasks"][0] |= {"methods": ["flat", "C"], "options": {"D": {}}}
    wrong["ensembles"] += [{"name": "G", "of": ["G", "both"]}]
    assert [line.split(". ")[0] for line in complaint(tmp_path, wrong)] == [
        "ensembles[1].of[1]: 'both': there is no such name among G, flat",
        "ensembles[1].name: 'G': another has this name",
        "tasks[0].methods[1]: 'C': there is no such name among G, flat",
        "tasks[0].options[0]: 'D': there is no such name among G, flat",
    ]
    again = suite_of()
    again["tasks"][1]["name"] = "g/1"
    assert len(complaint(tmp_path, again)) == 2
    assert complaint(tmp_path, suite_of(compare=[["G", "B"]])) == [
        "compare[0][1]: 'B': there is no such name among G, flat, both. Correct it."
    ]


def test_options_of_a_task_are_checked_too(tmp_path: Path) -> None:
    wrong = suite_of()
    wrong["tasks"][1] |= {"options": {"G": {"base": 9, "weights": "none.bin"}}}
    assert complaint(tmp_path, wrong) == [
        "tasks[1].options.G.base: 9: Input should be less than or equal to 3. Correct it."
    ]
    wrong["tasks"][1] |= {"options": {"G": {"weights": "none.bin"}}}
    (line,) = complaint(tmp_path, wrong)
    assert line.startswith(f"tasks[1].options.G.weights: 'none.bin': there is no {tmp_path / 'none.bin'}")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"valid_fraction": 0.1}, "valid_fraction is for a task with `test` and without `valid`"),
        ({"test": None}, "`valid` and `test` go together"),
    ],
)
def test_validation_rows_are_given_or_set_aside(changes: dict[str, Any], what: str, tmp_path: Path) -> None:
    wrong = suite_of()
    wrong["tasks"][0] |= changes
    (line,) = complaint(tmp_path, wrong)
    assert line.startswith("tasks[0].valid_fraction: ") and what in line


@pytest.mark.parametrize(("text", "what"), [("a: [", "no valid YAML"), ("- 1\n", "no mapping"), ("x", "no mapping")])
def test_what_is_no_suite(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=what):
        read_suite(path)


def test_motifs_are_given_once(tmp_path: Path) -> None:
    assert complaint(tmp_path, suite_of(model="one"))[0].endswith("give `motifs` or `model`, not both. Correct it.")


def test_published_numbers(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    header = "task,metric,model,parameters,value,setting,source"
    path.write_text(f"{header}\ntf,mcc,NT,2.5e9,0.66,fine-tuned,there\ntf,auroc,C,,0.8,,here\n")
    first, second = read_published(path)
    assert (first.parameters, first.value, first.setting) == (2.5e9, 0.66, "fine-tuned")
    assert (second.parameters, second.setting, second.source) == (None, "", "here")
    path.write_text(f"{header}\ntf,mcc,NT,many,high,,there\ntf,mcc,,,0.8,,\n")
    with pytest.raises(UserError) as raised:
        read_published(path)
    said = str(raised.value)
    for what in (
        "line 2: value is 'high'",
        "line 2: parameters is 'many'",
        "line 3: model is empty",
        "source is empty",
    ):
        assert what in said
    path.write_text("task,metric\ntf,mcc\n")
    with pytest.raises(UserError, match="it has no column model, value, source"):
        read_published(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_suites_that_ship_can_be_read(path: Path, tmp_path: Path) -> None:
    def touch(value: Any) -> None:
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            if key in PATHS and isinstance(one, str):
                (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / one).touch()
            elif isinstance(one, dict | list):
                touch(one)

    touch(yaml.safe_load(path.read_text()))
    suite = read_suite(path, tmp_path)
    used = {entry.name for task in suite.tasks for entry in suite.methods_of(task)}
    assert used == {entry.name for entry in suite.methods}
    for pair in suite.compare:  # each is run on at least one task
        members = {name for one in pair for name in next((e.of for e in suite.ensembles if e.name == one), [one])}
        assert any(members <= {entry.name for entry in suite.methods_of(task)} for task in suite.tasks)
