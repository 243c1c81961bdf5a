from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_grids import protocol_of, write_protocol
from toy_suites import toy_methods

from genebert.cross_validation.protocol import FoldEntry, read_protocol
from genebert.errors import UserError

FOLD = {
    "test_cell_types": ["A"],
    "valid_cell_types": ["B"],
    "test_chromosomes": [1],
    "valid_chromosomes": ["chr2"],
}


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with toy_methods():
        yield


def complaint(folder: Path, protocol: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as raised:
        read_protocol(write_protocol(folder, protocol))
    heading, *lines = str(raised.value).splitlines()
    assert heading.startswith(f"The protocol {folder / 'protocol.yaml'} cannot be used")
    return [line.removeprefix("  - ") for line in lines]


def test_defaults_and_paths(atlas: Path, tmp_path: Path) -> None:
    given = {name: value for name, value in protocol_of().items() if name not in ("title", "seeds", "cell_types")}
    path = write_protocol(atlas, given)
    protocol = read_protocol(path)
    assert protocol.labels == atlas / "labels.tsv"
    assert (protocol.cell_types, protocol.chromosomes, protocol.label_fractions) == ("each", 3, [1.0])
    assert [protocol.seeds_of(entry) for entry in protocol.methods] == [[0], [0]]
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text(path.read_text())
    assert read_protocol(elsewhere, atlas) == protocol


def test_folds_and_fractions(atlas: Path) -> None:
    changes: dict[str, Any] = {"folds": [FOLD], "cell_types": "each", "label_fractions": [0.1, 1, 0.1]}
    protocol = read_protocol(write_protocol(atlas, protocol_of(**changes)))
    assert protocol.folds == [FoldEntry(**FOLD | {"test_chromosomes": ["1"]})]
    assert protocol.label_fractions == [1, 0.1]


def test_all_that_is_wrong_is_listed_with_its_place(atlas: Path) -> None:
    wrong = protocol_of(labels="none.tsv", chromosomes=2, colour="red", label_fractions=[0, 0.5])
    wrong["methods"][1]["name"] = "truth"
    wrong["cell_types"] = [["A"], ["B"], ["C", "A"]]
    lines = complaint(atlas, wrong)
    assert [line.split(": ")[0] for line in lines] == [
        "methods[1].name",
        "labels",
        "cell_types",
        "chromosomes",
        "label_fractions[0]",
        "colour",
    ]
    assert "it names A twice" in lines[2]
    assert "there have to be 3 groups or more" in lines[3]
    assert lines[5] == "colour: there is no such key. See docs/cross_validation.md for the keys."


@pytest.mark.parametrize("value", ["all", True, ["A", "B", "C"], [["A"], ["B"], []], 2.5])
def test_divisions_that_are_none(value: Any, atlas: Path) -> None:
    (line,) = complaint(atlas, protocol_of(cell_types=value))
    assert "give `each`, a number of groups, or a list of lists of names" in line


def test_folds_are_given_in_one_way(atlas: Path) -> None:
    (line,) = complaint(atlas, protocol_of(folds=[FOLD], chromosomes=4))
    assert "give `folds`, or cell_types and chromosomes, not both" in line


def test_baselines_are_compared_with_and_their_names_taken(atlas: Path) -> None:
    pair = ["G", "nearest known cell type"]
    assert read_protocol(write_protocol(atlas, protocol_of(compare=[pair]))).compare == [tuple(pair)]
    wrong = protocol_of(compare=[], ensembles=[])
    wrong["methods"][0]["name"] = pair[1]
    assert complaint(atlas, wrong) == [f"methods[0].name: '{pair[1]}': another has this name. Correct it."]
    lines = complaint(atlas, protocol_of(compare=[["G", "median"]]))
    assert lines[0].startswith("compare[0][1]: 'median': there is no such name among G, flat, both, mean of known")
