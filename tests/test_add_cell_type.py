import json
import shutil
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import toys
from toys import Peak, World

from genebert.add_cell_type import add_cell_type
from genebert.corpus.build import prepare
from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.settings import AddCellTypeSettings
from genebert.stage import describe_input, read_manifest
from genebert.tasks.accessibility import Accessibility
from genebert.tasks.labels import labels

REGIONS = ["chrom", "start", "end"]


@pytest.fixture(scope="module")
def without_t(toy_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy corpus of B and NK alone."""
    folder = tmp_path_factory.mktemp("without")
    return prepare(
        toy_world.settings(folder / "corpus", peaks=[toy_world.peaks / f"{n}.narrowPeak" for n in ["B", "NK"]])
    )


def add(world: World, corpus: Path, out: Path, **changes: Any) -> Corpus:
    chosen: dict[str, Any] = {"genome": world.genome, "peaks": [world.peaks / "T.narrowPeak"]}
    return Corpus.open(add_cell_type(AddCellTypeSettings(out=out, corpus=corpus, **(chosen | changes))))


def signal_of(corpus: Corpus, cell_type: str) -> dict[tuple[str, int], float]:
    """Value of each accessible region, by its place."""
    index = corpus.cell_types.index(cell_type)
    begin, end = corpus.accessible_offsets[index : index + 2]
    places = corpus.regions.iloc[corpus.accessible(index)]
    return dict(
        zip(zip(places["chrom"], places["start"], strict=True), corpus.accessible_values[begin:end], strict=True)
    )


def evidence_of(corpus: Corpus) -> dict[tuple[str, int], tuple[bytes, bytes]]:
    places = zip(corpus.regions["chrom"], corpus.regions["start"], strict=True)
    rows = zip(corpus.sequence, corpus.evidence, strict=True)
    return {place: (bases.tobytes(), best.tobytes()) for place, (bases, best) in zip(places, rows, strict=True)}


# The same as prepare ----------------------------------------------------------------------------------------


def test_adding_equals_preparing_with_the_cell_type_held_out(toy_world: World, without_t: Path, tmp_path: Path) -> None:
    together = Corpus.open(prepare(toy_world.settings(tmp_path / "together", test_cell_types=["T"])))
    added = add(toy_world, without_t, tmp_path / "added")
    assert added.regions[REGIONS].equals(together.regions[REGIONS])
    assert evidence_of(added) == evidence_of(together)
    assert (added.cell_types, added.test_cell_types) == (together.cell_types, together.test_cell_types)
    assert signal_of(added, "T") == signal_of(together, "T")
    before = Corpus.open(without_t)
    assert len(before.regions) < len(added.regions)
    for name in ("B", "NK"):
        assert signal_of(added, name) == signal_of(before, name)
    assert added.manifest.metrics["regions_per_cell_type"]["T"] == len(signal_of(together, "T"))


def test_kept_regions_have_what_extended_ones_have(toy_world: World, without_t: Path, tmp_path: Path) -> None:
    before = Corpus.open(without_t)
    kept = add(toy_world, without_t, tmp_path / "kept", regions="keep")
    extended = add(toy_world, without_t, tmp_path / "extended")
    assert kept.regions.equals(before.regions)
    places = set(zip(before.regions["chrom"], before.regions["start"], strict=True))
    assert signal_of(kept, "T") == {place: v for place, v in signal_of(extended, "T").items() if place in places}


def test_kept_arrays_are_the_same_files(toy_world: World, without_t: Path, tmp_path: Path) -> None:
    add(toy_world, without_t, tmp_path / "kept", regions="keep")
    for name in ("sequence.npy", "evidence.npy"):
        assert (tmp_path / "kept" / name).samefile(without_t / name)
    assert read_manifest(tmp_path / "kept", "add-cell-type", verify=True).metrics["added"]["regions"] == 0


def test_a_run_that_was_killed_after_the_arrays_were_linked_resumes(
    toy_world: World, without_t: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    add(toy_world, without_t, tmp_path / "whole", regions="keep")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("genebert.add_cell_type._distances", die)
        add(toy_world, without_t, tmp_path / "kept", regions="keep")
    assert (tmp_path / "kept.partial" / "evidence.npy").samefile(without_t / "evidence.npy")
    add(toy_world, without_t, tmp_path / "kept", regions="keep")
    kept, whole = (read_manifest(tmp_path / name, "add-cell-type", verify=True).files for name in ("kept", "whole"))
    assert kept == whole


def test_arrays_are_copied_where_the_disk_has_no_links(
    toy_world: World, without_t: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    kept = add(toy_world, without_t, tmp_path / "kept", regions="keep")
    assert not (tmp_path / "kept" / "evidence.npy").samefile(without_t / "evidence.npy")
    assert np.array_equal(kept.evidence, Corpus.open(without_t).evidence)


def test_the_order_in_which_cell_types_are_added_does_not_matter_to_their_signal(
    toy_world: World, without_t: Path, tmp_path: Path
) -> None:
    first = toy_world.peaks / "T.narrowPeak"
    second = toys.write_peaks(tmp_path / "A.narrowPeak", first.read_text().splitlines()[5:])
    at_once = add(toy_world, without_t, tmp_path / "at_once", peaks=[first, second], regions="keep")
    one = add(toy_world, without_t, tmp_path / "one", peaks=[first], regions="keep")
    other = add(toy_world, one.folder, tmp_path / "other", peaks=[second], regions="keep")
    for name in ("A", "B", "NK", "T"):
        assert signal_of(at_once, name) == signal_of(other, name)
    assert other.test_cell_types == at_once.test_cell_types == ["A", "T"]
    assert other.ancestors == [describe_input("corpus", folder)["sha256"] for folder in (one.folder, without_t)]


def write_h5ad(world: World, path: Path, factor: dict[str, int], lacking: str = "") -> Path:
    """Counts of 20 cells per cell type in all the peaks of the toy.

    Every cell type has some of each, but for one that is `lacking`: of two peaks in four it has none, and 1.
    """
    tables = [pd.read_csv(world.peaks / f"{name}.narrowPeak", sep="\t", header=None) for name in toys.CELL_TYPES]
    peaks = pd.concat(tables).drop_duplicates(subset=[0, 1, 2])
    generator = np.random.default_rng(0)
    rows = [generator.poisson(factor[name], size=(20, len(peaks))) + 1 for name in factor]
    names = [f"{chrom}:{start}-{end}" for chrom, start, end in peaks[[0, 1, 2]].itertuples(index=False)]
    cells = pd.DataFrame(
        {"cell_type": np.repeat(list(factor), 20)}, index=[f"cell{i}" for i in range(20 * len(factor))]
    )
    for name, counts in zip(factor, rows, strict=True):
        if name == lacking:
            counts[:, ::4] = counts[:, 1::4] = 0
            counts[0, 1::4] = 1
    anndata.AnnData(np.concatenate(rows).astype(np.float32), cells, pd.DataFrame(index=names)).write_h5ad(path)
    return path


@pytest.mark.parametrize("lacking", ["", "B"])
def test_counts_get_the_thresholds_and_the_million_that_prepare_gives_them(
    lacking: str, toy_world: World, tmp_path: Path
) -> None:
    """The million was once of regions that the new cell types have, and the threshold with it.

    Then it was of those that a training cell type passes or nobody does, and not of those that one has counts in.
    """
    both = write_h5ad(toy_world, tmp_path / "both.h5ad", {"B": 2, "T": 3}, lacking)
    atlas = anndata.read_h5ad(both)
    for name in "BT":
        atlas[atlas.obs["cell_type"] == name].write_h5ad(tmp_path / f"{name}.h5ad")
    options = {"peaks": [], "min_fragments": 10, "min_count": 3}
    together = prepare(toy_world.settings(tmp_path / "c", anndata=both, test_cell_types=["T"], **options))
    alone = prepare(toy_world.settings(tmp_path / "b", anndata=tmp_path / "B.h5ad", **options))
    added = add(toy_world, alone, tmp_path / "added", peaks=[], anndata=tmp_path / "T.h5ad", regions="keep")
    assert signal_of(added, "T") == signal_of(Corpus.open(together), "T")
    assert 0 < len(signal_of(added, "T")) < len(added.regions)
    assert added.manifest.settings["min_count"] == 3
    cells = anndata.read_h5ad(tmp_path / "T.h5ad")
    cells.obs["cell_type"] = "U"
    cells.write_h5ad(tmp_path / "U.h5ad")
    twice = add(toy_world, added.folder, tmp_path / "twice", peaks=[], anndata=tmp_path / "U.h5ad", regions="keep")
    assert signal_of(twice, "U") == signal_of(added, "T")  # whoever was added before
    assert added.manifest.metrics["signal"]["cells"] == {"B": 20, "T": 20}


# What it is for ---------------------------------------------------------------------------------------------


def test_nothing_added_is_trained_on_or_labelled_where_others_were_not_looked_at(
    toy_world: World, without_t: Path, tmp_path: Path
) -> None:
    before, added = Corpus.open(without_t), add(toy_world, without_t, tmp_path / "added")
    assert len(added.examples("train")) == len(before.examples("train"))
    assert {"T"} == {added.cell_types[i] for i in added.cell_types_of(added.examples("test", "test"))}
    made = labels(Accessibility(out=tmp_path / "labels", corpus=added.folder, genome=toy_world.genome))
    table = pd.read_csv(made / "labels.tsv", sep="\t")
    assert set(table["split"][table["cell_type"] == "T"]) == {"test"}
    known = set(zip(before.regions["chrom"], before.regions["start"], strict=True))
    assert set(zip(table["chrom"], table["start"], strict=True)) <= known


def test_the_same_call_gives_the_same_bytes_and_a_second_one_nothing_to_do(
    toy_world: World, without_t: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = add(toy_world, without_t, tmp_path / "first").folder
    second = add(toy_world, without_t, tmp_path / "second").folder
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}
    add(toy_world, without_t, tmp_path / "first")
    assert "already there" in capsys.readouterr().err


def test_a_new_cell_type_of_other_data_is_warned_of(
    toy_world: World, without_t: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_h5ad(toy_world, tmp_path / "T.h5ad", {"T": 3})
    add(toy_world, without_t, tmp_path / "added", peaks=[], anndata=source, min_fragments=10)
    assert "warning: the corpus was measured from peaks, and this is h5ad" in capsys.readouterr().err


# Mistakes ---------------------------------------------------------------------------------------------------


def refused(world: World, corpus: Path, out: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as error:
        add(world, corpus, out, **changes)
    assert not out.exists()
    assert not Path(f"{out}.partial").exists()
    return str(error.value)


def test_a_name_that_is_there_already_is_refused(toy_world: World, without_t: Path, tmp_path: Path) -> None:
    message = refused(toy_world, without_t, tmp_path / "x", peaks=[toy_world.peaks])
    assert "B: the corpus" in message
    assert "NK: the corpus" in message
    assert "T: " not in message


def test_another_genome_is_refused(world: World, without_t: Path, tmp_path: Path) -> None:
    letters = toys.read_fasta(world.genome)
    toys.write_fasta(world.genome, letters | {"chr2": letters["chr2"][::-1]})
    assert "another sequence there than the corpus" in refused(world, without_t, tmp_path / "x")


def test_peaks_of_another_assembly_are_refused(world: World, without_t: Path, tmp_path: Path) -> None:
    """All peaks lie half a region's distance away from where they should."""
    table = pd.read_csv(world.peaks / "T.narrowPeak", sep="\t", header=None)
    table[[1, 2]] += 150
    path = tmp_path / "new.narrowPeak"
    table.to_csv(path, sep="\t", header=False, index=False)
    message = refused(world, without_t, tmp_path / "x", peaks=[path])
    assert "new: " in message
    assert "of another assembly" in message


def test_too_few_accessible_regions_are_refused(world: World, without_t: Path, tmp_path: Path) -> None:
    regions = Corpus.open(without_t).regions[:6]
    path = toys.write_peaks(tmp_path / "new.bed", [Peak(r.chrom, r.start, r.end) for r in regions.itertuples()])
    assert "new: 6 of the corpus' " in refused(world, without_t, tmp_path / "x", peaks=[path])


def test_a_blacklist_is_not_forgotten(world: World, tmp_path: Path) -> None:
    blacklist = tmp_path / "blacklist.bed"
    blacklist.write_text("chr1\t0\t10000\n")
    files = [world.peaks / f"{name}.narrowPeak" for name in ("B", "NK")]
    corpus = prepare(world.settings(tmp_path / "corpus", peaks=files, blacklist=blacklist))
    message = refused(world, corpus, tmp_path / "x")
    assert "--blacklist: the corpus was made without the regions on" in message
    added = add(world, corpus, tmp_path / "added", blacklist=blacklist)
    assert not ((added.regions["chrom"] == "chr1") & (added.regions["start"] < 10_000)).any()
    before, after = (one.manifest.metrics["windows_dropped"] for one in (Corpus.open(corpus), added))
    assert before.keys() == after.keys()
    assert sum(after.values()) > sum(before.values()) > 0 and all(after[why] >= before[why] for why in before)
    kept = add(world, corpus, tmp_path / "kept", regions="keep")
    assert kept.cell_types == ["B", "NK", "T"]
    other = Path(shutil.copy(world.peaks / "T.narrowPeak", tmp_path / "new.narrowPeak"))
    again = refused(world, kept.folder, tmp_path / "y", peaks=[other])
    assert f"--blacklist: the corpus was made without the regions on {blacklist}" in again


def test_a_model_is_no_corpus(toy_world: World, without_t: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(without_t, tmp_path / "model"))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"stage": "pretrain"}))
    assert "a result of `genebert prepare` is needed" in refused(toy_world, folder, tmp_path / "x")
