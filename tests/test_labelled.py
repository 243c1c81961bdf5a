from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import toys
from toys import World

from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.inputs.scan import Scanner
from genebert.labelled import Labelled, LabelledFiles, examples_of, read_labelled
from genebert.schema import SPLITS, decode
from genebert.tasks.windows import say_repeats

SCANNER = Scanner([toys.consensus_motif("m", "GATAAG", 0.9)])
Rows = list[tuple[str, ...]]
Read = Callable[..., Labelled]


def table(path: Path, header: str, rows: Rows) -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def letters(seed: int, length: int = 40) -> str:
    return toys.random_bases(length, np.random.default_rng(seed))


def sequences(*labels: tuple[str, ...], splits: tuple[str, ...] = SPLITS) -> Rows:
    """A row of random bases for each split and each tuple of what comes after them."""
    return [(letters(7 * i + j), *label, split) for i, split in enumerate(splits) for j, label in enumerate(labels)]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads labels that are given as rows of a table, or as tables by name of the file."""

    def read(header: str, rows: Rows | dict[str, Rows], scanner: Scanner = SCANNER, **options: Any) -> Labelled:
        given = rows if isinstance(rows, dict) else {"labels": rows}
        files = {name: table(tmp_path / f"{name}.csv", header, of) for name, of in given.items()}
        settings = {name: options.pop(name) for name in ("genome", "corpus") if name in options}
        return read_labelled(LabelledFiles(**files, **settings), scanner, **options)

    return read


def test_rows_are_divided_by_the_column_split(read: Read) -> None:
    rows = sequences(("a",), ("b",), ("b",))
    labelled = read("sequence,label,split", rows[::-1])
    for split in SPLITS:
        own = [row for row in rows[::-1] if row[2] == split]
        examples = labelled.examples(split)
        assert [decode(codes) for codes in examples.codes] == [row[0] for row in own]
        assert examples.truth.tolist() == [int(row[1] == "b") for row in own]
        assert (examples.evidence == SCANNER.scan(examples.codes)).all()
        assert examples.context is None and examples.cell_types == 0
        assert labelled.examples(split) is examples  # motifs are scanned once
    assert labelled.target.names == ("a", "b") and labelled.corpus is None


def test_files_by_split(read: Read) -> None:
    given = {
        name: [row[:2] for row in sequences(("a",), ("b",), splits=(name,))] for name in ("labels", "valid", "test")
    }
    labelled = read("sequence,label", given)
    for split, name in zip(SPLITS, given, strict=True):
        assert [decode(codes) for codes in labelled.examples(split).codes] == [row[0] for row in given[name]]


def test_rows_are_not_divided_in_two_ways(read: Read) -> None:
    """All rows of the first file were once learned from, those that it calls test rows too."""
    rows = sequences(("a",), ("b",))
    with pytest.raises(UserError) as error:
        read("sequence,label,split", {"labels": rows, "valid": rows, "test": rows})
    assert str(error.value).count("it has a column `split`") == 3


@pytest.mark.parametrize("prefix", ["chr", ""])
def test_rows_are_divided_by_what_pretraining_held_out(prefix: str, read: Read, toy_world: World) -> None:
    """Whichever way chromosomes are spelled."""
    rows = [
        (f"{prefix}{i}", str(start), str(start + 40), label)
        for i in (1, 2, 3)
        for start, label in ((0, "a"), (99, "b"))
    ]
    labelled = read("chrom,start,end,label", rows, genome=toy_world.genome, held_out={"chr2": "valid", "chr3": "test"})
    with Genome(toy_world.genome) as genome:
        for split, chrom in zip(SPLITS, ("chr1", "chr2", "chr3"), strict=True):
            expected = [decode(genome.fetch(chrom, start, start + 40)) for start in (0, 99)]
            assert [decode(codes) for codes in labelled.examples(split).codes] == expected
            assert set(labelled.windows[split].table["chrom"]) == {chrom}


def test_no_row_of_a_held_out_chromosome_is_trained_on_however_it_is_spelled(read: Read) -> None:
    """Where a table had both spellings, neither was known, and all such rows were for training."""
    rows = [
        (bases, label, chrom)
        for (bases, label, _), chrom in zip(
            sequences(("a",), ("b",)), ("1", "chr1", "2", "chr2", "chr3", "3"), strict=True
        )
    ]
    labelled = read("sequence,label,chrom", rows, held_out={"chr2": "valid", "3": "test"})
    found = {split: set(labelled.windows[split].table["chrom"]) for split in SPLITS}
    assert found == {"train": {"1", "chr1"}, "valid": {"2", "chr2"}, "test": {"chr3", "3"}}


def test_how_many_rows_repeat_another_is_said_once(
    read: Read, toy_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """They once vanished without a word."""
    rows = [(f"chr{i}", "0", "40", label) for i in (1, 2, 3) for label in "abb"]
    read("chrom,start,end,label", rows, genome=toy_world.genome, held_out={"chr2": "valid", "chr3": "test"})
    repeats, contradictions = capsys.readouterr().err.splitlines()
    assert repeats.endswith("labels.csv: rows left out, since they repeat another: 3")
    assert contradictions.endswith("labels.csv: places with rows that are labelled differently: 3")
    four = [(*row, gene) for row, gene in zip(rows[:1] * 2 + rows[1:3], "wxyz", strict=True)]
    others = [
        (f"chr{i}", str(start), str(start + 40), label, "v") for i in (2, 3) for start, label in ((0, "a"), (99, "b"))
    ]
    given = {"genome": toy_world.genome, "held_out": {"chr2": "valid", "chr3": "test"}}
    read("chrom,start,end,label,gene", four + others, **given)
    assert "places with rows that are labelled differently: 1" in capsys.readouterr().err
    read("sequence,label,split", sequences(("a",), ("b",), ("b",)))
    assert capsys.readouterr().err == ""
    first = read("chrom,start,end,label", rows, **given).windows["train"]
    capsys.readouterr()
    say_repeats([first, first])
    assert "places with rows that are labelled differently: 1" in capsys.readouterr().err


def test_the_scale_of_a_number_is_that_of_the_training_rows(read: Read) -> None:
    rows = sequences(("1",), ("3",))
    held_out = [(bases, value if split == "train" else value + "000", split) for bases, value, split in rows]
    target = read("sequence,value,split", held_out).target
    assert (target.centre, target.scale) == (2, 1)


def test_labels_that_are_not_known(read: Read) -> None:
    labelled = read("sequence,label:K562,label:A549,split", sequences(("1", ""), ("0", "1"), ("", "0")))
    for split in SPLITS:
        np.testing.assert_array_equal(labelled.examples(split).truth, [[1, np.nan], [0, 1], [np.nan, 0]])
    assert labelled.target.names == ("K562", "A549")


def test_the_order_of_columns_is_of_no_matter(read: Read, tmp_path: Path) -> None:
    rows = sequences(("1", "0"), ("0", "1"))
    files = {}
    for name, split, order in (("labels", "train", "ab"), ("valid", "valid", "ba"), ("test", "test", "ba")):
        own = [row[:3] if order == "ab" else (row[0], row[2], row[1]) for row in rows if row[3] == split]
        files[name] = table(tmp_path / f"{name}.csv", f"sequence,label:{order[0]},label:{order[1]}", own)
    labelled = read_labelled(LabelledFiles(**files), SCANNER)
    assert all(labelled.examples(split).truth.tolist() == [[1, 0], [0, 1]] for split in SPLITS)


def test_cell_types_and_places_are_those_of_the_corpus(read: Read, toy_world: World, toy: Corpus) -> None:
    rows = [
        (chrom, str(start), str(start + 128), cell_type, label)
        for chrom in ("chr1", "chr2", "chr3")
        for start, cell_type, label in ((700, "T", "1"), (2000, "B", "0"))
    ]
    labelled = read(
        "chrom,start,end,cell_type,label",
        rows,
        toy.scanner,
        genome=toy_world.genome,
        corpus=toy.folder,
        held_out={"chr2": "valid", "chr3": "test"},
    )
    examples = labelled.examples("valid")
    assert examples.cell_types == 3 and labelled.corpus is examples.context.corpus
    assert examples.context.cell_type.tolist() == [toy.cell_types.index("T"), toy.cell_types.index("B")]
    expected = toy.line_positions(["chr2"] * 2, np.array([764, 2064]))
    assert examples.context.position.tolist() == expected.tolist()
    unlabelled = examples_of(labelled.windows["test"], toy.scanner, toy)
    assert unlabelled.truth is None and unlabelled.context.cell_type.tolist() == [2, 0]


TWO = (("a",), ("b",))
PLACES = [("chr1", "0", "40"), ("chr2", "0", "40"), ("chr3", "0", "40")]
REFUSED: dict[str, tuple[str, Rows | dict[str, Rows], tuple[str, ...]]] = {
    "not divided": (
        "sequence,label",
        [row[:2] for row in sequences(*TWO)],
        ("labels.csv", "not divided", "Add a column `split` (train, valid, test), or give --valid and --test"),
    ),
    "one file of two": (
        "sequence,label,split",
        {"labels": sequences(*TWO), "valid": sequences(*TWO)},
        ("--valid and --test", "only one of them is given"),
    ),
    "an empty split": ("sequence,label,split", sequences(*TWO, splits=("train", "test")), ("valid: there is no row",)),
    "one class": (
        "sequence,label,split",
        [*sequences(*TWO, splits=("train", "valid")), *sequences(("a",), splits=("test",))],
        ("labels.csv", "test: all its rows have the label a"),
    ),
    "a class that is not in training": (
        "sequence,label,split",
        [*sequences(*TWO, splits=("train", "valid")), *sequences(("a",), ("c",), splits=("test",))],
        ("test: it has labels that no training row has: c",),
    ),
    "one answer": (
        "sequence,label:x,label:y,split",
        [
            *sequences(("1", "0"), ("0", "1"), splits=("train", "valid")),
            *sequences(("1", "1"), ("", "0"), splits=("test",)),
        ],
        ("test: label:x is not both 0 and 1 there", "Leave the column out"),
    ),
    "one number": (
        "sequence,value,split",
        [*sequences(("1",), ("2",), splits=("train", "valid")), *sequences(("3",), ("3.0",), splits=("test",))],
        ("test: all its values are 3",),
    ),
    "a training row alone": (
        "sequence,value,split",
        [*sequences(("1",), splits=("train",)), *sequences(("1",), ("2",), splits=("valid", "test"))],
        ("train: all its values are 1",),
    ),
    "lengths": (
        "sequence,label",
        {
            "labels": [(letters(0, 50), "a"), (letters(1, 50), "b")],
            "valid": [(letters(2), "a"), (letters(3), "b")],
            "test": [(letters(4), "a"), (letters(5), "b")],
        },
        ("the longest ones of the splits differ: [40, 50] bp",),
    ),
    "cell types of sequences": (
        "sequence,label,cell_type,split",
        sequences(("a", "B"), ("b", "B")),
        ("its rows name cell types, which needs coordinates", "Add --genome and --corpus"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_labels_that_cannot_be_learned_from(case: str, read: Read) -> None:
    header, rows, fragments = REFUSED[case]
    with pytest.raises(UserError) as error:
        read(header, rows)
    assert [fragment for fragment in fragments if fragment not in str(error.value)] == []


@pytest.mark.parametrize(
    ("header", "other"),
    [("sequence,label", "sequence,value"), ("chrom,start,end,label", "sequence,label")],
)
def test_files_with_other_columns_are_refused(header: str, other: str, toy_world: World, tmp_path: Path) -> None:
    contents = {"sequence": [letters(0), letters(1)], "label": ["1", "2"], "value": ["1", "2"]}
    contents |= {"chrom": ["chr1", "chr1"], "start": ["0", "99"], "end": ["40", "139"]}
    files = {}
    for name, columns in (("labels", header), ("valid", header), ("test", other)):
        rows = pd.DataFrame({column: contents[column] for column in columns.split(",")})
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
        files[name] = tmp_path / f"{name}.csv"
    with pytest.raises(UserError, match=r"test: its columns are .*, those of training .*") as error:
        read_labelled(LabelledFiles(**files, genome=toy_world.genome), SCANNER)
    assert "labels.csv" in str(error.value)


def test_a_file_without_the_cell_types_of_the_others_is_refused(toy_world: World, toy: Corpus, tmp_path: Path) -> None:
    """They were once asked of the training rows only, and those of others ended in a traceback."""
    files = {}
    for name in ("labels", "valid", "test"):
        column = "" if name == "valid" else ",B"
        rows = [f"chr1,{start},{start + 40},{label}{column}" for start, label in ((0, "a"), (99, "b"))]
        header = "chrom,start,end,label" + ("" if name == "valid" else ",cell_type")
        files[name] = tmp_path / f"{name}.csv"
        files[name].write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(UserError, match="valid: its columns are chrom, end, label, start, those of training cell_type"):
        read_labelled(LabelledFiles(**files, genome=toy_world.genome, corpus=toy.folder), toy.scanner)


def test_a_corpus_with_other_motifs_is_refused(read: Read, toy_world: World, toy: Corpus) -> None:
    rows = [(*place, label, "B") for place in PLACES for label in "ab"]
    with pytest.raises(UserError) as error:
        read(
            "chrom,start,end,label,cell_type",
            rows,
            genome=toy_world.genome,
            corpus=toy.folder,
            held_out={"chr2": "valid", "chr3": "test"},
        )
    message = str(error.value)
    assert str(toy.folder) in message and "do not belong together" in message and "labels.csv" not in message


def test_an_unknown_cell_type_is_refused(read: Read, toy_world: World, toy: Corpus) -> None:
    rows = [(*place, label, "Treg") for place in PLACES for label in "ab"]
    options = {"genome": toy_world.genome, "corpus": toy.folder, "held_out": {"chr2": "valid", "chr3": "test"}}
    labelled = read("chrom,start,end,label,cell_type", rows, toy.scanner, **options)
    with pytest.raises(UserError, match="the corpus has no cell type 'Treg'"):
        labelled.examples("train")


def test_some_of_the_examples_keep_what_was_scanned(read: Read) -> None:
    examples = read("sequence,label,split", sequences(*TWO, ("a",))).examples("train")
    whole = examples.tiled(4)
    chosen = np.array([2, 0])
    part = examples.rows(chosen)
    assert (part.tiled(4) == whole[chosen]).all() and (part.tiled(4) == SCANNER.scan_tiles(part.codes, 4)).all()
    assert part.truth.tolist() == examples.truth[chosen].tolist() and len(part) == 2
