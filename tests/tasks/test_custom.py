import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st
from toys import World, random_bases, reverse_complement, write_fasta

from genebert.errors import UserError
from genebert.inputs.scan import Scanner
from genebert.labelled import LabelledFiles, read_labelled
from genebert.schema import SPLITS
from genebert.stage import read_manifest
from genebert.target import Target
from genebert.tasks.custom import Custom, divided
from genebert.tasks.labels import labels
from genebert.tasks.windows import read_windows

CHROMOSOMES = {"valid_chromosomes": ["chr2"], "test_chromosomes": ["chr3"]}
FRACTIONS = {"valid_fraction": 0.2, "test_fraction": 0.2}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda **options: labels(Custom(out=tmp_path / "out", **options))


def sequences(count: int, length: int = 60, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    return [random_bases(length, generator) for _ in range(count)]


def write_table(path: Path, **columns: Any) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def read_labels(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "labels.tsv", sep="\t")


TWO_LABELS = {"CTCF": [0, 1] * 20, "Max": pd.array([1, None, 0, 0] * 10, dtype="Int64")}
TABLES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = {
    "two classes": ({"label": [0, 1] * 20}, {}, {"label": "label"}),
    "three classes": ({"Kind": ["a", "b", "c", "a"] * 10}, {"label_column": "Kind"}, {"label": "Kind"}),
    "a number": ({"Activity": [0.5, -2] * 20}, {"value_column": "activity"}, {"value": "Activity"}),
    "labels": (TWO_LABELS, {"label_columns": ["CTCF", "Max"]}, {"label:CTCF": "CTCF", "label:Max": "Max"}),
    "labels named as they are to be": (
        {f"label:{name}": values for name, values in TWO_LABELS.items()},
        {},
        {"label:CTCF": "label:CTCF", "label:Max": "label:Max"},
    ),
    "one of two targets": (
        {"label": [0, 1] * 20, "value": [0.5, 1] * 20},
        {"value_column": "value"},
        {"value": "value"},
    ),
}
"""Columns of a table beside the sequences; options; and which column of labels.tsv is which of the table."""


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_sequences_with_every_kind_of_target(kind: str, make: Make, tmp_path: Path) -> None:
    columns, options, expected = TABLES[kind]
    table = write_table(tmp_path / "t.csv", Seq=sequences(40), **columns, other=["x"] * 40)
    made = make(table=table, sequence_column="Seq", **FRACTIONS, **options)
    found, source = read_labels(made), pd.read_csv(table)
    assert list(found.columns) == ["sequence", *expected, "split"]
    assert list(found["sequence"]) == sequences(40)
    for name, original in expected.items():
        pd.testing.assert_series_equal(found[name], source[original], check_names=False)
    windows = read_windows(made, None, labelled=True)
    kinds = {"label": "classes", "value": "value"}
    assert Target.of(windows.table, windows.table).kind == kinds.get(next(iter(expected)), "labels")


def test_sequences_that_share_32_bases_on_either_strand_or_through_others_stay_together(
    make: Make, tmp_path: Path
) -> None:
    rows = sequences(200)
    rows[50] = rows[0][10:50] + rows[50][:20]  # shares 40 bases with row 0
    rows[100] = reverse_complement(rows[50])[:40] + rows[100][:20]  # and through row 50, row 100 does
    rows[150] = rows[1][:31] + rows[150][31:]  # 31 are too few
    made = make(table=write_table(tmp_path / "t.tsv", sequence=rows, label=[0, 1] * 100), **FRACTIONS)
    split = read_labels(made)["split"]
    assert split[0] == split[50] == split[100]
    assert split.value_counts().to_dict() == {"train": 120, "valid": 40, "test": 40}
    manifest = (made / "manifest.json").read_text()
    assert '"rows that share 32 bases with others and stay with them": 3' in manifest
    assert '"most rows that stay together": 3' in manifest


def test_short_sequences_that_are_the_same_stay_together(make: Make, tmp_path: Path) -> None:
    rows = sequences(20, length=10) * 3
    split = read_labels(make(table=write_table(tmp_path / "t.csv", sequence=rows, value=range(60)), **FRACTIONS))[
        "split"
    ]
    assert (split[:20].to_numpy() == split[20:40].to_numpy()).all()
    assert (split[:20].to_numpy() == split[40:].to_numpy()).all()


def test_short_sequences_stay_with_their_reverse_complement(make: Make, tmp_path: Path) -> None:
    rows = sequences(40, length=20)
    others = [reverse_complement(letters) for letters in rows]
    table = write_table(tmp_path / "t.csv", sequence=rows + others, value=range(80))
    split = read_labels(make(table=table, **FRACTIONS))["split"]
    assert (split[:40].to_numpy() == split[40:].to_numpy()).all()


def test_sequences_with_an_adapter_cannot_be_divided(make: Make, tmp_path: Path) -> None:
    adapter = sequences(1, length=34, seed=9)[0]
    table = write_table(tmp_path / "t.csv", sequence=[adapter + row for row in sequences(30)], value=range(30))
    with pytest.raises(UserError, match=r"30 of 30 sequences share 32 bases .* Cut off what they have in common"):
        make(table=table, **FRACTIONS)


@given(groups=st.lists(st.integers(0, 8), min_size=1, max_size=60), seed=st.integers(0, 5))
def test_groups_are_never_divided_and_fractions_never_exceeded(groups: list[int], seed: int) -> None:
    group = np.unique(groups, return_inverse=True)[1]
    split = np.array(divided(group, {"test": 0.3, "valid": 0.2}, np.random.default_rng(seed)))
    for number in range(group.max() + 1):
        assert len(set(split[group == number])) == 1
    assert (split == "test").sum() <= round(0.3 * len(group))
    assert (split == "valid").sum() <= round(0.2 * len(group))


def test_a_group_larger_than_the_others_is_for_training() -> None:
    group = np.array([0] * 90 + list(range(1, 11)))
    split = np.array(divided(group, {"test": 0.05, "valid": 0.05}, np.random.default_rng(0)))
    assert set(split[:90]) == {"train"} and sorted(split[90:]) == ["test"] * 5 + ["valid"] * 5


def test_the_column_split_is_kept(make: Make, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", sequence=sequences(6), label=[0, 1] * 3, split=np.repeat(SPLITS, 2))
    assert list(read_labels(make(table=table))["split"]) == list(np.repeat(SPLITS, 2))


@pytest.mark.parametrize(
    ("strand", "starts"), [("+", [105, 105, 106, 106, 107, 107]), ("-", [105, 106, 106, 107, 107, 108])]
)
def test_windows_are_resized_and_divided_by_chromosome(
    strand: str, starts: list[int], make: Make, toy_world: World, tmp_path: Path
) -> None:
    chroms = ["chr1", "2", "chr3"] * 2
    table = write_table(
        tmp_path / "t.tsv", chrom=chroms, start=100, end=range(120, 126), strand=strand, cell_type="B", label=[0, 1] * 3
    )
    made = read_labels(make(table=table, genome=toy_world.genome, width=10, **CHROMOSOMES))
    assert list(made.columns) == ["chrom", "start", "end", "strand", "cell_type", "label", "split"]
    assert list(made["chrom"]) == ["chr1", "chr2", "chr3"] * 2 and list(made["split"]) == list(SPLITS) * 2
    assert list(made["start"]) == starts and (made["end"] - made["start"] == 10).all()


def test_sequences_with_a_chromosome_can_be_divided_by_it(make: Make, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", chrom=["chr1", "chr2", 3] * 2, sequence=sequences(6), label=[0, 1] * 3)
    assert list(read_labels(make(table=table, **CHROMOSOMES))["split"]) == list(SPLITS) * 2


def test_fasta_of_two_classes(make: Make, tmp_path: Path) -> None:
    letters = sequences(40)
    positives = write_fasta(tmp_path / "pos.fa", {f"p{i}": one for i, one in enumerate(letters[:25])})
    negatives = tmp_path / "neg.fa.gz"
    negatives.write_bytes(gzip.compress("".join(f">n{i}\n{one}\n" for i, one in enumerate(letters[25:])).encode()))
    made = read_labels(make(positives=positives, negatives=negatives, **FRACTIONS))
    assert list(made["sequence"]) == letters and list(made["label"]) == [1] * 25 + [0] * 15
    assert list(made["name"][[0, 25]]) == ["p0", "n0"]


def test_bed_files_are_classes_or_have_a_column_that_tells(make: Make, toy_world: World, tmp_path: Path) -> None:
    rows = [(chrom, start) for chrom in ("chr1", "chr2", "chr3") for start in (100, 500)]
    text = "".join(
        f"{chrom}\t{start}\t{start + 50}\tkind{i % 2}\t{i / 2}\t+\n" for i, (chrom, start) in enumerate(rows)
    )
    one, two = tmp_path / "one.bed", tmp_path / "two.bed"
    one.write_text(text)
    two.write_text("".join(f"{chrom}\t{start + 60}\t{start + 110}\n" for chrom, start in rows))
    options = {"genome": toy_world.genome, **CHROMOSOMES}

    def made(name: str, **more: Any) -> pd.DataFrame:
        return read_labels(labels(Custom(out=tmp_path / name, **options, **more)))

    classes = made("classes", bed=[two, one])
    assert classes.groupby("label").size().to_dict() == {"one": 6, "two": 6}
    assert list(classes["strand"]) == ["."] * 6 + ["+"] * 6
    assert list(made("names", bed=[one])["label"]) == ["kind0", "kind1"] * 3
    scores = made("scores", bed=[one], bed_column="score", width=20)
    assert list(scores["value"]) == [0, 0.5, 1, 1.5, 2, 2.5] and list(scores["start"][:2]) == [115, 515]


NEAR_ENDS = [("chr1", 10, 60), ("chr1", 40, 80), ("chr1", 150, 250), ("chr1", 160, 240)]
NEAR_ENDS += [(chrom, start, start + 50) for chrom in ("chr1", "chr2", "chr3") for start in (1000, 2000)]
NEAR_ENDS += [("chr3", 19_980, 20_000)]


@pytest.mark.parametrize("kind", ["table", "bed", "several"])
def test_windows_that_are_resized_beyond_an_end_are_left_out(
    kind: str, make: Make, toy_world: World, tmp_path: Path
) -> None:
    """They once were in the table, which each later stage refused."""
    rows = pd.DataFrame(NEAR_ENDS, columns=["chrom", "start", "end"])
    rows["label"] = np.where(rows["start"] % 2000, "a", "b")
    options: dict[str, Any] = {"bed": []}
    for name, part in rows.groupby("label") if kind == "several" else [("rows", rows)]:
        path = tmp_path / f"{name}.bed"
        part.to_csv(path, sep="\t", index=False, header=False)
        options["bed"].append(path)
    if kind == "table":
        options = {"table": write_table(tmp_path / "rows.csv", **rows)}
    made = make(**options, genome=toy_world.genome, width=200, **CHROMOSOMES)
    found = read_labels(made).sort_values(["chrom", "start"], ignore_index=True)
    assert list(found["start"]) == [100, 925, 1925, 925, 1925, 925, 1925]
    assert (found["end"] - found["start"] == 200).all()
    notes = read_manifest(made).metrics["notes"]
    assert notes["windows left out, beyond an end of their chromosome"] == 3
    assert notes["rows left out, since they repeat another"] == 1
    scanner = Scanner([toys.consensus_motif("m", "GATAAG", 0.9)])
    windows = read_labelled(LabelledFiles(made, genome=toy_world.genome), scanner).windows
    assert {split: len(one) for split, one in windows.items()} == {"train": 3, "valid": 2, "test": 2}
    assert all(one.repeats == 0 for one in windows.values())


def test_windows_of_which_none_fits_are_refused(make: Make, toy_world: World, tmp_path: Path) -> None:
    bed = tmp_path / "w.bed"
    bed.write_text("chr1\t0\t9\tx\n")
    with pytest.raises(UserError, match="--width: no window of 100 bp lies inside its chromosome"):
        make(bed=[bed], genome=toy_world.genome, width=100, **CHROMOSOMES)


def test_windows_of_a_bed_that_differ_in_their_class_alone_are_kept(
    make: Make, toy_world: World, tmp_path: Path
) -> None:
    """The class is the name there, which counted for nothing when repeats were looked for."""
    bed = tmp_path / "w.bed"
    bed.write_text("".join(f"chr{i}\t0\t9\t{name}\n" for i in (1, 2, 3) for name in "aba"))
    assert list(read_labels(make(bed=[bed], genome=toy_world.genome, **CHROMOSOMES))["label"]) == ["a", "b"] * 3


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing given": ({}, "--table, --positives, --bed: none of them is given"),
    "positives alone": ({"positives": "t.fa"}, "--negatives: it goes with --positives"),
    "no such column": ({"table": "t.csv", "label_column": "Kind"}, "there is no column 'Kind'; there are sequence"),
    "no division": ({"table": "t.csv"}, "nothing says which are for what"),
    "two divisions": ({"table": "t.csv", **CHROMOSOMES, **FRACTIONS}, "they divide by chromosome and at random"),
    "division of the divided": ({"table": "s.csv", **FRACTIONS}, "its column `split` divides the rows already"),
    "no chromosomes": ({"table": "t.csv", **CHROMOSOMES}, "there is no column `chrom`. Give --valid-fraction"),
    "bad letter": ({"table": "b.csv", **FRACTIONS}, "line 3: letter '!' at position 2"),
    "bad letter in FASTA": ({"positives": "t.fa", "negatives": "b.fa", **FRACTIONS}, "b.fa, record x: letter '!'"),
    "no genome": ({"table": "w.csv", **CHROMOSOMES}, "Add --genome"),
    "windows by fraction": ({"bed": ["w.bed"], "genome": "genome.fa", **FRACTIONS}, "these are no sequences"),
    "no name": ({"bed": ["w.bed"], "genome": "genome.fa", **CHROMOSOMES}, "w.bed: it has no name"),
    "widths": ({"bed": ["w.bed", "v.bed"], "genome": "genome.fa", **CHROMOSOMES}, "9 bp, and those of another 19 bp"),
    "one class twice": ({"bed": ["w.bed", "w.bed"], "genome": "genome.fa", **CHROMOSOMES}, "two files name one class"),
    "one class": (
        {"table": "o.csv"},
        "o.csv cannot be learned from:\n  - train: all its rows have the label 1. Give at least two classes in each",
    ),
    "one class of a split": (
        {"table": "p.csv"},
        "p.csv cannot be learned from:\n  - test: all its rows have the label 1",
    ),
    "a class for testing only": ({"table": "q.csv"}, "test: it has labels that no training row has: 2"),
    "one answer": ({"table": "a.csv"}, "valid: label:x is not both 0 and 1 there. Leave the column out, or add rows"),
    "one value": ({"table": "v.csv"}, "test: all its values are 3. Give rows with different values"),
    "a width for sequences": ({"table": "t.csv", "width": 3, **FRACTIONS}, "--width: it is for windows on the genome"),
    "a column of several": (
        {"bed": ["w.bed", "x.bed"], "genome": "genome.fa", "bed_column": "score", **CHROMOSOMES},
        "--bed-column: it is for a single BED",
    ),
    "nothing left": ({"table": "t.csv", "valid_fraction": 0.4}, "test: it has no row. Give other fractions"),
}
_TEST = "ACGT,1,test\n"
FILES = {
    "t.csv": "sequence,label\nACGT,1\nTTTT,0\nGGGG,0\nGCGC,1\n",
    "s.csv": "sequence,label,split\nACGT,1,train\nTTTT,0,train\n",
    "o.csv": "sequence,label,split\n" + "".join(f"ACGT,1,{split}\n" for split in SPLITS),
    "p.csv": "sequence,label,split\n" + "".join(f"ACGT,{x},{split}\n" for split in SPLITS[:2] for x in "01") + _TEST,
    "q.csv": "sequence,label,split\n" + "".join(f"ACGT,{x},{s}\n" for s in SPLITS for x in "01") + "ACGT,2,test\n",
    "a.csv": "sequence,label:x,split\n"
    + "".join(f"ACGT,{x},{split}\n" for split in SPLITS for x in ("0", "" if split == "valid" else "1")),
    "v.csv": "sequence,value,split\n"
    + "".join(f"ACGT,{x},{split}\n" for split in SPLITS for x in ("3", "3" if split == "test" else "4")),
    "b.csv": "sequence,label\nACGT,1\nT!TT,0\n",
    "w.csv": "chrom,start,end,label\nchr1,0,9,1\n",
    "t.fa": ">y\nACGT\n",
    "b.fa": ">x\nAC!T\n",
    "w.bed": "chr1\t0\t9\n",
    "v.bed": "chr1\t0\t19\n",
    "x.bed": "chr1\t30\t39\n",
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(
    case: str, make: Make, toy_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(text)
    Path("genome.fa").write_bytes(toy_world.genome.read_bytes())
    options, message = BAD[case]
    if case == "windows by fraction":
        Path("w.bed").write_text("chr1\t0\t9\tname\n")
    with pytest.raises(UserError) as error:
        make(**options)
    assert message in str(error.value)
    assert not Path("out").exists() and not Path("out.partial").exists()


def test_a_score_that_is_no_number_is_named_with_its_line(make: Make, toy_world: World, tmp_path: Path) -> None:
    bed = tmp_path / "w.bed"
    bed.write_text("chr1\t0\t9\tx\t1\nchr1\t20\t29\tx\t.\n")
    with pytest.raises(UserError, match=r"line 2: value is 'nan'"):
        make(bed=[bed], bed_column="score", genome=toy_world.genome, **CHROMOSOMES)
