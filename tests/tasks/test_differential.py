from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import toys

from genebert.corpus.build import prepare
from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.schema import gc_fraction
from genebert.tasks.differential import Differential
from genebert.tasks.labels import labels


def table_of(world: toys.World, corpus: Path, out: Path, **options: Any) -> pd.DataFrame:
    chosen = {"genome": world.genome, "cell_types": ["B", "T"]} | options
    return pd.read_csv(labels(Differential(out=out, corpus=corpus, **chosen)) / "labels.tsv", sep="\t")


def signals(corpus: Corpus) -> dict[tuple[str, int], dict[str, float]]:
    """Signal per million of each region in B and T, 0 where it is not accessible."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row in corpus.regions.itertuples():
        found[row.chrom, row.start] = {"B": 0.0, "T": 0.0}
    places = list(found)
    for name in ("B", "T"):
        index = corpus.cell_types.index(name)
        begin, end = corpus.accessible_offsets[index : index + 2]
        for region, value in zip(corpus.accessible(index), corpus.accessible_values[begin:end], strict=True):
            found[places[region]][name] = float(np.expm1(value))
    return found


def test_classes_are_where_only_one_is_accessible_or_both(
    toy: Corpus, toy_world: toys.World, toy_folder: Path, tmp_path: Path
) -> None:
    table = table_of(toy_world, toy_folder, tmp_path / "labels")
    truth = signals(toy)
    for row in table.itertuples():
        of = truth[row.chrom, row.start]
        assert {"B": of["T"] == 0 < of["B"], "T": of["B"] == 0 < of["T"], "alike": min(of.values()) > 0}[row.label]
    only = [place for place, of in truth.items() if (of["B"] > 0) != (of["T"] > 0)]
    assert sorted(only) == sorted(zip(*(table[table["label"] != "alike"][c] for c in ("chrom", "start")), strict=True))
    assert table["split"].tolist() == toy.split_of(table["chrom"].tolist())
    sizes = pd.crosstab(table["chrom"], table["label"] == "alike")
    assert (sizes[True] <= sizes[False]).all()
    assert len(table.drop_duplicates(["chrom", "start"])) == len(table)


def test_values_are_log2_fold_changes(toy: Corpus, toy_world: toys.World, toy_folder: Path, tmp_path: Path) -> None:
    table = table_of(toy_world, toy_folder, tmp_path / "labels", target="value")
    truth = signals(toy)
    training = [v for (chrom, _), of in truth.items() if chrom == "chr1" for v in of.values() if v > 0]
    half = float(np.median(training)) / 2
    expected = [np.log2((of["B"] + half) / (of["T"] + half)) for of in truth.values() if max(of.values()) > 0]
    assert table["value"].to_numpy() == pytest.approx(expected, abs=1e-3)
    other = table_of(toy_world, toy_folder, tmp_path / "other", target="value", cell_types=["T", "B"])
    assert other["value"].to_numpy() == pytest.approx(-table["value"].to_numpy(), abs=1e-3)


def test_with_a_fold_change_regions_differ_by_it_and_unclear_ones_are_left_out(
    toy_world: toys.World, toy_folder: Path, tmp_path: Path
) -> None:
    values = table_of(toy_world, toy_folder, tmp_path / "values", target="value")
    change = dict(zip(zip(values["chrom"], values["start"], strict=True), values["value"], strict=True))
    table = table_of(toy_world, toy_folder, tmp_path / "classes", fold_change=1.0)
    for row in table.itertuples():
        value = change[row.chrom, row.start]
        assert {"B": value >= 1, "T": value <= -1, "alike": abs(value) <= 0.5}[row.label]
    assert sum(abs(value) >= 1 for value in change.values()) == (table["label"] != "alike").sum()


def test_regions_that_are_alike_are_matched_in_gc(tmp_path: Path) -> None:
    """B alone has GC-rich regions; of the regions of both, half are GC-rich, and these are the ones to take."""
    generator = np.random.default_rng(0)
    rich, poor = "GCCGGCGCAT" * 10, "ATTAATATGC" * 10
    letters = {chrom: "".join([rich, rich, poor] * 40) for chrom in ("chr1", "chr2", "chr3")}
    genome = toys.write_fasta(tmp_path / "genome.fa", letters)
    regions = [(chrom, 100 * i) for chrom in letters for i in range(120)]
    accessible: dict[str, dict[int, float]] = {"B": {}, "T": {}}
    for i in range(len(regions)):
        if i % 3 == 0 and i % 2:
            accessible["B" if i % 4 == 1 else "T"][i] = 5.0
        elif i % 3:
            accessible["B"][i] = accessible["T"][i] = 5.0
    corpus = toys.corpus_of(
        regions,
        accessible,
        lengths=dict.fromkeys(letters, 12000),
        valid=["chr2"],
        test=["chr3"],
        motifs=[toys.random_motif("m", 5, generator)],
        sequence=[letters[chrom][start : start + 100] for chrom, start in regions],
    )
    folder = toys.finish_corpus(corpus, tmp_path / "corpus")
    table = table_of(toys.World(tmp_path), folder, tmp_path / "labels", genome=genome)
    codes = np.stack([corpus.sequence[regions.index((r.chrom, r.start))] for r in table.itertuples()])
    assert (table["label"] == "alike").sum() == (table["label"] != "alike").sum() == 60
    assert gc_fraction(codes) == pytest.approx(0.8)


def refused(world: toys.World, corpus: Path, out: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        table_of(world, corpus, out, **options)
    return str(error.value)


@pytest.mark.parametrize("names", [["B"], ["B", "B"], ["B", "NK", "T"]])
def test_two_cell_types_are_compared(toy_world: toys.World, toy_folder: Path, tmp_path: Path, names: list[str]) -> None:
    message = refused(toy_world, toy_folder, tmp_path / "x", cell_types=names)
    assert "two are compared" in message


def test_an_unknown_cell_type_is_refused(toy_world: toys.World, toy_folder: Path, tmp_path: Path) -> None:
    assert "no cell type 'X'" in refused(toy_world, toy_folder, tmp_path / "x", cell_types=["B", "X"])


def test_a_held_out_cell_type_is_refused(toy_world: toys.World, tmp_path: Path) -> None:
    corpus = prepare(toy_world.settings(tmp_path / "corpus", test_cell_types=["T"]))
    assert "T: it is held out" in refused(toy_world, corpus, tmp_path / "x")


def test_a_fold_change_that_no_region_has_is_refused(toy_world: toys.World, toy_folder: Path, tmp_path: Path) -> None:
    assert "no region is more accessible in B" in refused(toy_world, toy_folder, tmp_path / "x", fold_change=50.0)
