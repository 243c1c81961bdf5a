from pathlib import Path

import pandas as pd

from genebert.corpus.store import Corpus


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


def test_splits_follow_the_corpus_chromosomes(toy_labels: Path) -> None:
    table = pd.read_csv(toy_labels / "labels.tsv", sep="\t")
    assert {(chrom, split) for chrom, split in zip(table["chrom"], table["split"], strict=True)} == {
        ("chr1", "train"),
        ("chr2", "valid"),
        ("chr3", "test"),
    }
