import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st

from genebert.corpus.build import prepare
from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.schema import SPLITS
from genebert.tasks.accessibility import Accessibility
from genebert.tasks.labels import labels

TASK = Accessibility(out=Path("out"), corpus=Path("toy"), genome=Path("toy.fa"))


def test_labels_are_the_corpus_accessibility_balanced_by_cell_type_and_split(toy: Corpus, toy_labels: Path) -> None:
    table = pd.read_csv(toy_labels / "labels.tsv", sep="\t")
    starts = list(zip(toy.regions["chrom"], toy.regions["start"], strict=True))
    for index, cell_type in enumerate(toy.cell_types):
        accessible = {starts[i] for i in toy.accessible(index)}
        rows = table[table["cell_type"] == cell_type]
        assert len(rows) > 0
        for row in rows.itertuples():
            assert ((row.chrom, row.start) in accessible) == bool(row.label)
        counts = rows.groupby(["split", "label"]).size()
        assert all(counts[split, 0] == counts[split, 1] for split in ("train", "valid", "test"))


def test_labels_divided_by_cell_types_alone_are_refused(toy_world: toys.World, tmp_path: Path) -> None:
    held_out = {"valid_chromosomes": [], "test_chromosomes": [], "test_cell_types": ["T"]}
    corpus = prepare(toy_world.settings(tmp_path / "corpus", **held_out))
    chosen = Accessibility(out=tmp_path / "out", corpus=corpus, genome=toy_world.genome)
    with pytest.raises(UserError, match=r"test: the corpus holds no chromosome out.* by cell type alone are not") as e:
        labels(chosen)
    assert "--test-chromosomes" in str(e.value) and "--valid-chromosomes" in str(e.value)


def test_one_training_cell_type_has_no_negatives(toy_world: toys.World, tmp_path: Path) -> None:
    """It was once said that no window lies on its chromosomes."""
    corpus = prepare(toy_world.settings(tmp_path / "corpus", test_cell_types=["NK", "T"]))
    chosen = Accessibility(out=tmp_path / "out", corpus=corpus, genome=toy_world.genome)
    with pytest.raises(UserError, match=r"no training cell type has both accessible regions .* two training"):
        labels(chosen)


def test_splits_follow_the_corpus_chromosomes(toy_labels: Path) -> None:
    table = pd.read_csv(toy_labels / "labels.tsv", sep="\t")
    assert {(chrom, split) for chrom, split in zip(table["chrom"], table["split"], strict=True)} == {
        ("chr1", "train"),
        ("chr2", "valid"),
        ("chr3", "test"),
    }


@given(seed=st.integers(0, 1000))
def test_rows_keep_to_the_parts_of_regions_and_cell_types(seed: int) -> None:
    generator = np.random.default_rng(seed)
    names = generator.permutation([f"cell{i}" for i in range(4)]).tolist()
    corpus = toys.random_corpus(generator, valid_cell_types=names[:1], test_cell_types=names[1:2])
    table = TASK.table(corpus)
    allowed = {name: set(SPLITS) for name in names} | {names[0]: {"valid"}, names[1]: {"test"}}
    split_of = {(row.chrom, row.start): row.split for row in corpus.regions.itertuples()}
    for row in table.itertuples():
        assert row.split in allowed[row.cell_type]
        assert split_of[row.chrom, row.start] == row.split
    assert set(table["cell_type"][table["split"] == "train"]) <= set(names[2:])


def test_a_region_of_no_split_is_in_no_row() -> None:
    corpus = toys.corpus_of(
        [("chr1", 500 * i) for i in range(4)] + [("chr2", 500 * i) for i in range(4)],
        {"a": {0: 1.0, 4: 1.0, 5: 1.0}, "b": {1: 1.0, 2: 1.0, 6: 1.0}, "c": {0: 1.0, 1: 1.0}},
        test=["chr2"],
        test_cell_types=["b"],
    )
    table = TASK.table(corpus)
    assert corpus.regions["split"].tolist() == ["train", "train", "none", "none"] + ["test"] * 4
    train = table[table["split"] == "train"]
    # Of the two regions left, c has both, so that there is no negative; b is held out, and no training row is its.
    assert sorted(zip(train["start"], train["cell_type"], train["label"], strict=True)) == [(0, "a", 1), (500, "a", 0)]
    assert table["cell_type"][table["split"] == "test"].value_counts().to_dict() == {"a": 4, "b": 2}


def test_every_region_in_every_cell_type() -> None:
    corpus = toys.corpus_of(
        [("chr1", 500 * i) for i in range(4)] + [("chr2", 500 * i) for i in range(3)],
        {"a": {0: 1.0, 4: 1.0}, "b": {1: 1.0, 2: 1.0, 6: 1.0}, "c": {0: 1.0, 1: 1.0}},
        test=["chr2"],
        test_cell_types=["b"],
    )
    similar = corpus.regions["split"].where(corpus.regions.index != 5, "none")  # as with --max-shared-kmers
    corpus = dataclasses.replace(corpus, regions=corpus.regions.assign(split=similar))
    table = TASK.model_copy(update={"every": True}).whole_table(corpus)
    kept = [0, 1, 2, 3, 4, 6]  # 2 and 3 are of no split, since no training cell type has them
    pd.testing.assert_frame_equal(
        table[["chrom", "start", "end"]], corpus.regions.loc[kept, ["chrom", "start", "end"]].reset_index(drop=True)
    )
    assert table["split"].tolist() == ["train"] * 4 + ["test"] * 2
    for i, name in enumerate("abc"):
        assert table[f"label:{name}"].tolist() == np.isin(kept, corpus.accessible(i)).astype(int).tolist()


def test_such_labels_name_every_cell_type(toy_world: toys.World, toy_folder: Path, tmp_path: Path) -> None:
    out = labels(Accessibility(out=tmp_path / "out", corpus=toy_folder, genome=toy_world.genome, every=True))
    table = pd.read_csv(out / "labels.tsv", sep="\t")
    assert list(table) == ["chrom", "start", "end", "label:B", "label:NK", "label:T", "split"]
    corpus = Corpus.open(toy_folder)
    assert len(table) == len(corpus.regions)
    assert table["label:T"].sum() == len(corpus.accessible(2))
