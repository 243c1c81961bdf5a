from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_grids
from toy_grids import CELL_TYPES, long, read_grid, wide

from genebert.corpus.store import Corpus
from genebert.cross_validation.grid import Grid, _known
from genebert.errors import UserError
from genebert.labelled import LabelledFiles, read_labelled
from genebert.schema import encode


def with_gaps() -> pd.DataFrame:
    table = wide().astype({f"label:{name}": "Int64" for name in CELL_TYPES})
    table.loc[3, "label:A"] = pd.NA
    table.loc[[7, 8], "label:E"] = pd.NA
    return table


def test_both_forms_of_a_table_say_the_same(atlas: Path) -> None:
    table = with_gaps()
    expected = table[[f"label:{name}" for name in CELL_TYPES]].to_numpy(np.float64, na_value=np.nan)
    columns = read_grid(atlas, table)
    rows = read_grid(atlas, long(table).sample(frac=1, random_state=0).sort_values(["chrom", "start"]))
    for grid in (columns, rows):
        assert (grid.cell_types, grid.kind, grid.names) == (list(CELL_TYPES), "classes", ("0", "1"))
        np.testing.assert_array_equal(grid.truth, expected)
        assert list(grid.windows.table) == ["chrom", "start", "end"]
    np.testing.assert_array_equal(columns.windows.codes, rows.windows.codes)


def test_the_split_of_a_table_is_not_looked_at(atlas: Path) -> None:
    plain = read_grid(atlas, wide())
    divided = read_grid(atlas, wide().assign(split="train"))
    np.testing.assert_array_equal(plain.truth, divided.truth)
    for table in (wide(), long(wide())):
        both = pd.concat([table.assign(split="train"), table.assign(split="test")])
        np.testing.assert_array_equal(plain.truth, read_grid(atlas, both).truth)


def test_numbers(atlas: Path) -> None:
    table = long(wide()).rename(columns={"label": "value"})
    table["value"] = np.arange(len(table)) / 4
    grid = read_grid(atlas, table)
    assert (grid.kind, grid.names) == ("value", ("value",))
    assert (grid.truth[0, 0], grid.truth[1, 0], grid.truth[0, 1]) == (0, 0.25, 12)
    target = grid.target(np.array([1.0, 3.0]))
    assert (target.kind, target.centre, target.scale) == ("value", 2, 1)
    examples = grid.examples(np.array([1, 0]), np.array([0, 1]))
    np.testing.assert_array_equal(examples.known_truth, [[0.25], [12]])


def test_classes_by_name_and_strands(atlas: Path) -> None:
    """A window on the other strand is another window, and is read there."""
    table = long(wide()).replace({"label": {0: "closed", 1: "open"}}).assign(strand="+")
    grid = read_grid(atlas, pd.concat([table, table.iloc[:3].assign(strand="-")]))
    assert grid.names == ("closed", "open")
    assert len(grid) == len(toy_grids.windows_of()) + 3
    np.testing.assert_array_equal(grid.windows.codes[-3:], 3 - grid.windows.codes[:3, ::-1])


def test_examples_are_those_of_a_table_with_cell_types(atlas: Path) -> None:
    """Against `labelled`, which reads the same rows for fine-tuning."""
    table = (
        long(wide()).reset_index(drop=True).assign(split=lambda rows: np.resize(["train", "valid", "test"], len(rows)))
    )
    grid = read_grid(atlas, table)
    files = LabelledFiles(atlas / "labels.tsv", genome=atlas / "genome.fa", corpus=atlas / "corpus")
    theirs = read_labelled(files, grid.corpus.scanner).examples("train")
    chosen = table.index[table["split"] == "train"].to_numpy()
    ours = grid.examples(chosen % len(grid), chosen // len(grid))
    assert theirs.context is not None and ours.context is not None
    np.testing.assert_array_equal(ours.codes, theirs.codes)
    np.testing.assert_array_equal(ours.known_truth, theirs.known_truth)
    np.testing.assert_array_equal(ours.evidence, theirs.evidence)
    np.testing.assert_array_equal(ours.context.cell_type, theirs.context.cell_type)
    np.testing.assert_array_equal(ours.context.position, theirs.context.position)
    assert ours.cell_types == theirs.cell_types == len(CELL_TYPES)


def test_known_cells_of_a_part(atlas: Path) -> None:
    grid = read_grid(atlas, with_gaps())
    windows = np.isin(np.arange(len(grid)), [3, 7])
    window, cell_type = grid.known(windows, np.array([0, 4]))
    assert list(zip(window, cell_type, strict=True)) == [(3, 4), (7, 0)]
    assert grid.examples(window, cell_type, truth=False).truth is None


def test_an_atlas_may_know_more_cell_types(atlas: Path) -> None:
    grid = read_grid(atlas, wide().drop(columns=["label:A", "label:C"]))
    assert grid.cell_types == ["B", "D", "E"]
    context = grid.examples(np.array([0, 0]), np.array([0, 2])).context
    assert context is not None and context.cell_type.tolist() == [1, 4]  # as the corpus numbers them


def complaint(atlas: Path, table: pd.DataFrame) -> str:
    with pytest.raises(UserError) as raised:
        read_grid(atlas, table)
    return str(raised.value)


def test_cell_types_that_the_corpus_lacks_are_listed_together(atlas: Path) -> None:
    said = complaint(atlas, wide().rename(columns={"label:A": "label:X", "label:C": "label:Y"}))
    assert "labels.tsv" in said and said.count("the corpus has no such cell type") == 2
    assert "- X: " in said and "- Y: " in said


def test_a_cell_type_is_not_called_as_the_mean_over_them(atlas: Path) -> None:
    opened = Corpus.open(atlas / "corpus")
    renamed = replace(opened, cell_types=["mean", *opened.cell_types[1:]])
    with pytest.raises(UserError, match="the mean over cell types is called so"):
        _known(["mean"], renamed, Path("labels.tsv"))


def test_tables_that_are_no_grid(atlas: Path) -> None:
    assert "it names no cell types" in complaint(atlas, wide()[["chrom", "start", "end"]].assign(label=1))
    assert "would name cell types too" in complaint(atlas, wide().assign(cell_type="A"))
    three = long(wide())
    three.loc[three.index[0], "label"] = 2
    assert "its labels are 0, 1, 2" in complaint(atlas, three)
    letters = "ACGT" * 10
    assert encode(letters).invalid is None
    said = complaint(atlas, pd.DataFrame({"sequence": [letters] * 2, "label:A": [0, 1]}))
    assert "its windows have no coordinates" in said


def test_rows_that_contradict_each_other(atlas: Path) -> None:
    table = wide()
    again = table.iloc[[2]].assign(**{"label:A": 1 - table.loc[2, "label:A"]})
    assert "chr1:205-245: several rows say different things" in complaint(atlas, pd.concat([table, again]))
    rows = long(table)
    other = rows.iloc[[2]].assign(label=1 - rows["label"].iloc[2])
    assert "chr1:205-245, A: several rows say different things" in complaint(atlas, pd.concat([rows, other]))


def test_another_genome_is_refused(atlas: Path) -> None:
    text = (atlas / "genome.fa").read_text().translate(str.maketrans("ACGT", "CATG"))
    (atlas / "other.fa").write_text(text)
    path = toy_grids.write_labels(atlas, wide())
    with pytest.raises(UserError, match="do not belong together"):
        Grid.read(path, atlas / "other.fa", atlas / "corpus")
