import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from genebert.corpus import splits
from genebert.corpus.store import Corpus, CorpusWriter
from genebert.errors import UserError
from genebert.schema import SPLITS


def nearest_by_hand(
    corpus: Corpus, cell_type: int, chrom: str, centre: int, count: int, window: int
) -> tuple[list[int], list[int]]:
    """Nearest examples and their distances, by looking at all examples."""
    found, on_chromosome = [], 0
    for example, region in enumerate(corpus.accessible_regions):
        row = corpus.regions.iloc[int(region)]
        if corpus.cell_types_of(example) != cell_type or row["chrom"] != chrom:
            continue
        on_chromosome += 1
        if row["start"] < centre - window // 2 + window and centre - window // 2 < row["end"]:
            continue  # it overlaps the window
        distance = int(row["start"]) + corpus.width // 2 - centre
        found.append((abs(distance), distance, example))
    found.sort()
    kept = found[
        : min(count, max(on_chromosome - 1, 0))
    ]  # one less than there are: an accessible window has lost itself
    examples = [example for _, _, example in kept]
    return examples + [-1] * (count - len(examples)), [distance for _, distance, _ in kept]


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 12), window=st.sampled_from([2, 100, 150, 300, 1000]))
def test_nearest_examples_are_those_of_a_search_through_all(seed: int, count: int, window: int) -> None:
    generator = np.random.default_rng(seed)
    corpus = toys.random_corpus(generator)
    cell_types = generator.integers(0, 4, size=8)
    chroms = generator.choice(list(toys.CHROMOSOMES), size=8).tolist()
    centres = generator.integers(0, 9000, size=8)
    centres[:4] = centres[:4] // 50 * 50  # in register with the regions: abutting windows, and ties in distance
    found, distance = corpus.nearest_examples(cell_types, corpus.line_positions(chroms, centres), count, window)
    assert found.shape == distance.shape == (8, count)
    for i in range(8):
        expected, distances = nearest_by_hand(corpus, cell_types[i], chroms[i], int(centres[i]), count, window)
        assert found[i].tolist() == expected
        assert distance[i, : len(distances)].tolist() == distances


def nearest(corpus: Corpus, cell_type: int, chrom: str, centre: int, count: int, window: int = 100) -> list[int]:
    place = corpus.line_positions([chrom], np.array([centre]))
    return corpus.nearest_examples(np.array([cell_type]), place, count, window)[0][0].tolist()


def test_nearest_examples_by_hand() -> None:
    corpus = toys.corpus_of(
        [("chr1", 0), ("chr1", 100), ("chr1", 350), ("chr1", 600), ("chr2", 100)],
        {"a": {0: 1.0, 1: 1.0, 3: 1.0, 4: 1.0}, "b": {2: 1.0}},
    )
    assert nearest(corpus, 0, "chr1", 150, 3) == [
        0,
        2,
        -1,
    ]  # region 1 is the window itself; chr2 is no neighbour
    assert nearest(corpus, 0, "chr1", 250, 2) == [1, 0]  # region 1 abuts the window
    assert nearest(corpus, 0, "chr1", 249, 2) == [0, 2]  # and now overlaps it
    assert nearest(corpus, 0, "chr1", 250, 3) == [1, 0, -1]  # of three regions, two are shown at most
    assert nearest(corpus, 1, "chr1", 150, 1) == [-1]
    assert nearest(corpus, 1, "chr2", 150, 1) == [-1]
    assert nearest(corpus, 0, "chr2", 9000, 2) == [-1, -1]
    assert nearest(corpus, 0, "chr3", 150, 2) == [-1, -1]


def test_the_number_of_columns_does_not_tell_accessible_windows_from_others() -> None:
    # With fewer than R regions on a chromosome, padding once gave the label away.
    corpus = toys.corpus_of([("chr1", 500 * i) for i in range(6)], {"a": dict.fromkeys(range(4), 1.0)})
    columns = {start: sum(e >= 0 for e in nearest(corpus, 0, "chr1", start + 50, 10)) for start in range(0, 3000, 500)}
    assert set(columns.values()) == {3}


@given(seed=st.integers(0, 1000))
def test_examples_are_those_of_a_loop_over_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    held_out = generator.permutation([f"cell{i}" for i in range(4)]).tolist()
    corpus = toys.random_corpus(generator, valid_cell_types=held_out[:1], test_cell_types=held_out[1:2])
    everything: list[int] = []
    for split in SPLITS:
        for part in SPLITS:
            found = corpus.examples(split, part)
            assert found.dtype == np.int64
            assert found.tolist() == [
                example
                for cell_type in range(4)
                for example in range(*corpus.accessible_offsets[cell_type : cell_type + 2])
                if corpus.regions["split"][corpus.accessible_regions[example]] == split
                and SPLITS[corpus.cell_type_part[cell_type]] == part
            ]
            everything += found.tolist()
        assert corpus.examples(split).tolist() == corpus.examples(split, "train").tolist()
    none = np.flatnonzero(corpus.split[corpus.accessible_regions] == splits.NONE)
    assert sorted([*everything, *none.tolist()]) == list(range(len(corpus.accessible_regions)))


def test_no_training_example_is_of_a_held_out_cell_type_or_region() -> None:
    corpus = toys.corpus_of(
        [("chr1", 0), ("chr1", 500), ("chr2", 0), ("chr2", 500)],
        {"a": {0: 1.0, 2: 1.0}, "b": {0: 2.0, 1: 2.0, 2: 2.0, 3: 2.0}},
        test=["chr2"],
        test_cell_types=["b"],
    )
    assert corpus.regions["split"].tolist() == ["train", "none", "test", "test"]  # only the held-out b has region 1
    found = {(split, part): corpus.examples(split, part).tolist() for split in SPLITS for part in SPLITS}
    assert {key: examples for key, examples in found.items() if examples} == {
        ("train", "train"): [0],
        ("train", "test"): [2],
        ("test", "train"): [1],
        ("test", "test"): [4, 5],
    }


def test_examples_by_cell_type() -> None:
    corpus = toys.corpus_of([("chr1", 0), ("chr1", 500), ("chr1", 900)], {"a": {2: 1, 0: 1}, "b": {}, "c": {1: 1}})
    assert corpus.cell_types_of(np.arange(3)).tolist() == [0, 0, 2]
    assert corpus.cell_types_of(np.array([[2, 0]])).tolist() == [[2, 0]]
    assert [corpus.accessible(i).tolist() for i in range(3)] == [[0, 2], [], [1]]


def test_nothing_as_long_as_the_examples_is_kept(toy_folder: Path) -> None:
    # Every loader worker once held 16 bytes per example, 270 MB of a corpus of 17 million examples.
    corpus = Corpus.open(toy_folder)
    examples = corpus.examples("train")
    corpus.nearest_examples(corpus.cell_types_of(examples), corpus.region_positions[examples % 9], 5, 100)
    kept = {name for name, value in vars(corpus).items() if np.size(value) >= len(corpus.accessible_regions)}
    mapped = {name for name, value in vars(corpus).items() if isinstance(value, np.memmap)}
    assert kept <= mapped | {"regions"}


def test_names_are_looked_up() -> None:
    corpus = toys.corpus_of([("chr1", 0)], {"a": {0: 1}, "b": {}}, valid=["chr2"], test=["chr3"])
    assert corpus.split_of(["chr3", "chr1", "chr2", "chrX"]) == ["test", "train", "valid", "train"]
    assert corpus.cell_type_indices(["b", "a", "b"]).tolist() == [1, 0, 1]
    assert corpus.cell_type_indices([]).tolist() == []
    with pytest.raises(UserError, match="no cell type 'x', 'y'; it has a, b"):
        corpus.cell_type_indices(["y", "a", "x"])


def same(a: NDArray, b: NDArray) -> bool:
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_an_opened_corpus_holds_what_the_documentation_says(toy: Corpus) -> None:
    regions, motifs, examples = len(toy.regions), len(toy.motifs), len(toy.accessible_regions)
    assert (toy.sequence.dtype, toy.sequence.shape) == (np.uint8, (regions, toys.WIDTH))
    assert (toy.evidence.dtype, toy.evidence.shape) == (np.uint8, (regions, motifs))
    assert (toy.accessible_offsets.dtype, toy.accessible_offsets.shape) == (
        np.int64,
        (len(toy.cell_types) + 1,),
    )
    assert toy.accessible_offsets[[0, -1]].tolist() == [0, examples]
    assert (toy.accessible_regions.dtype, toy.accessible_values.dtype) == (np.int32, np.float32)
    assert toy.accessible_values.shape == (examples,)
    for i in range(len(toy.cell_types)):
        assert (np.diff(toy.accessible(i)) > 0).all()
    assert toy.regions.columns.tolist() == ["chrom", "start", "end", "split"]
    assert (np.diff(toy.region_positions) > 0).all()
    assert not toy.sequence.flags.writeable  # mapped, shared, read-only
    assert same(toy.scanner.scan(toy.sequence), np.asarray(toy.evidence))
    assert toy.fingerprint == toy.manifest.fingerprint


def test_numbered_chromosomes_stay_names(tmp_path: Path) -> None:
    world = toys.write_world(tmp_path / "inputs")
    world.genome.write_text(world.genome.read_text().replace(">chr", ">"))
    from genebert.corpus.build import prepare

    corpus = Corpus.open(prepare(world.settings(tmp_path / "corpus", valid_chromosomes=["2"])))
    assert set(corpus.regions["chrom"]) == {"1", "2", "3"}
    assert (corpus.valid_chromosomes, corpus.test_chromosomes) == (["2"], ["3"])
    assert len(corpus.region_positions) == len(corpus.regions)


# Writing ----------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    names = ["1", "2", "NA", 'a"b', "nan", "é"]  # names, though they look like numbers, like nothing, or like quotes
    made = toys.corpus_of(
        [(name, 10 * i) for i, name in enumerate(names)],
        {"T, 'naïve'": {0: 1.5, 5: 0.1}, "NA": {1: 2.0}, "x": {}},
        lengths=dict.fromkeys(names, 1000),
        test=["NA"],
        test_cell_types=["NA"],
        motifs=[toys.random_motif("m", 7, np.random.default_rng(0))],
    )
    made = replace(made, archetypes={"m": ["m", "n"]}, gc_background=0.41, signal="fragments")
    found = Corpus.open(toys.finish_corpus(made, tmp_path / "corpus"))
    for name in ("signal", "cell_types", "test_cell_types", "lengths", "width", "test_chromosomes", "archetypes"):
        assert getattr(found, name) == getattr(made, name), name
    assert (found.gc_background, found.pseudocount) == (0.41, 0.01)
    assert found.scanner.gc == 0.41
    assert found.regions.astype({"chrom": object}).equals(made.regions)
    assert [motif.id for motif in found.motifs] == ["m"]
    assert (found.motifs[0].probabilities == made.motifs[0].probabilities).all()
    accessible = ("accessible_offsets", "accessible_regions", "accessible_values", "reference_regions")
    for name in ("sequence", "evidence", *accessible):
        assert same(np.asarray(getattr(found, name)), getattr(made, name)), name


def test_blocks_may_be_written_in_any_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        "sequence": generator.integers(0, 5, size=(10, 6), dtype=np.uint8),
        "evidence": np.asfortranarray(generator.integers(0, 256, size=(10, 3), dtype=np.uint8)),
    }
    writer = CorpusWriter(tmp_path, 10, 6, 3)
    for start in (8, 0, 4):
        writer.write_block(start, *(array[start : start + 4] for array in arrays.values()))
    for name, array in arrays.items():
        np.save(tmp_path / "whole.npy", np.ascontiguousarray(array))
        assert (tmp_path / f"{name}.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


# Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [None, 1, 2, 4, "3"])
def test_a_corpus_of_another_format_is_refused(toy_folder: Path, tmp_path: Path, version: object) -> None:
    folder = Path(shutil.copytree(toy_folder, tmp_path / "corpus"))
    facts = json.loads((folder / "corpus.json").read_text())
    del facts["format"]
    (folder / "corpus.json").write_text(json.dumps(facts if version is None else {**facts, "format": version}))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["corpus.json"]["bytes"] = (folder / "corpus.json").stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError) as error:
        Corpus.open(folder)
    assert str(error.value) == (
        f"{folder}: the corpus has format {version or 1!r}, and this version of genebert reads format 3. "
        "Run `genebert prepare` again with this version, into another --out."
    )


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("corpus.json", b"{", "corpus.json"),
        ("motifs.json", b"[]" * 9, "motifs.json"),
        ("sequence.npy", None, "sequence.npy"),
        ("evidence.npy", b"", "evidence.npy"),
    ],
)
def test_a_damaged_corpus_is_refused(
    toy_folder: Path, tmp_path: Path, name: str, content: bytes | None, fault: str
) -> None:
    folder = Path(shutil.copytree(toy_folder, tmp_path / "corpus"))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=fault) as error:
        Corpus.open(folder)
    assert f"Remove {folder} and run `genebert prepare` again." in str(error.value)


def test_content_of_the_right_size_that_makes_no_sense(toy_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy_folder, tmp_path / "corpus"))
    for name in ("corpus.json", "sequence.npy", "regions.tsv"):
        path = folder / name
        original = path.read_bytes()
        path.write_bytes(b"\xff" * len(original))
        with pytest.raises(UserError, match="the corpus is damaged"):
            Corpus.open(folder)
        path.write_bytes(original)
    Corpus.open(folder)


def test_folders_of_other_stages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        Corpus.open(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no manifest\.json"):
        Corpus.open(tmp_path)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("window", [40, 100, 350])
def test_the_signal_of_a_window_is_the_highest_of_the_regions_that_it_overlaps(seed: int, window: int) -> None:
    generator = np.random.default_rng(seed)
    corpus = toys.random_corpus(generator, regions=50)
    cell_types = generator.integers(0, len(corpus.cell_types), size=60)
    chroms, centres = generator.choice(sorted(corpus.lengths), size=60).tolist(), generator.integers(0, 9000, size=60)
    found = corpus.signal_at(cell_types, corpus.line_positions(chroms, centres), window)
    regions = corpus.regions
    for i, cell_type in enumerate(cell_types.tolist()):
        first, last = corpus.accessible_offsets[cell_type : cell_type + 2]
        middle = regions["start"].to_numpy() + corpus.width // 2
        apart = 2 * np.abs(middle - centres[i]) < corpus.width + window
        here = apart & (regions["chrom"] == chroms[i]).to_numpy()
        values = dict(zip(corpus.accessible(cell_type).tolist(), corpus.accessible_values[first:last], strict=True))
        assert found[i] == max([values.get(region, 0) for region in np.flatnonzero(here).tolist()] or [0])
    assert 0 < (found > 0).sum() < 60
