import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pysam
import pytest
import toys
from toys import Peak, World

from genebert.corpus.build import prepare
from genebert.corpus.store import Corpus
from genebert.schema import decode


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in {".npy", ".tsv"}}


def build(world: World, name: str = "corpus", **changes: Any) -> Corpus:
    return Corpus.open(prepare(world.settings(world.folder.parent / name, **changes)))


def peaks_of(world: World) -> dict[str, pd.DataFrame]:
    names = ["chrom", "start", "end", "name", "score", "strand", "signal", "p", "q", "summit"]
    return {path.stem: pd.read_csv(path, sep="\t", names=names) for path in sorted(world.peaks.iterdir())}


# What is in a corpus ----------------------------------------------------------------------------------------


def test_regions_do_not_overlap_and_have_one_width(toy: Corpus) -> None:
    regions = toy.regions
    assert (regions["end"] - regions["start"] == toys.WIDTH).all()
    assert (regions["start"] >= 0).all()
    assert (regions["end"] <= regions["chrom"].map(toy.lengths)).all()
    for _, table in regions.groupby("chrom"):
        assert (table["start"].to_numpy()[1:] >= table["end"].to_numpy()[:-1]).all()
    assert regions["split"].tolist() == toy.split_of(regions["chrom"].tolist())


def test_every_peak_lies_at_a_region(toy: Corpus, toy_world: World) -> None:
    for table in peaks_of(toy_world).values():
        for peak in table.itertuples():
            near = toy.regions[toy.regions["chrom"] == peak.chrom]
            assert (abs(near["start"] + toys.WIDTH // 2 - (peak.start + peak.summit)) < toys.WIDTH).any()


def test_sequence_is_that_of_the_genome(toy: Corpus, toy_world: World) -> None:
    letters = toys.read_fasta(toy_world.genome)
    assert [decode(codes) for codes in toy.sequence] == [
        letters[r.chrom][r.start : r.end] for r in toy.regions.itertuples()
    ]


def test_accessibility_is_signal_per_million_of_training_regions(toy: Corpus, toy_world: World) -> None:
    for i, peaks in enumerate(peaks_of(toy_world).values()):
        signal: dict[int, float] = {}
        for region in toy.regions.itertuples():
            centre = region.start + toys.WIDTH // 2
            for peak in peaks[peaks["chrom"] == region.chrom].itertuples():
                if region.start <= peak.start + peak.summit < region.end or peak.start <= centre < peak.end:
                    signal[region.Index] = max(signal.get(region.Index, 0), peak.signal)
        total = sum(value for region, value in signal.items() if toy.regions["chrom"][region] == "chr1")
        assert toy.accessible(i).tolist() == list(signal)
        begin, end = toy.accessible_offsets[i : i + 2]
        assert toy.accessible_values[begin:end] == pytest.approx(
            [np.log1p(1e6 * value / total) for value in signal.values()]
        )


def test_manifest_counts_what_happened(toy: Corpus, toy_world: World) -> None:
    metrics = toy.manifest.metrics
    assert metrics["regions"] == len(toy.regions) == sum(metrics["regions_per_split"].values())
    assert metrics["examples"] == len(toy.accessible_regions) == sum(metrics["regions_per_cell_type"].values())
    assert (metrics["motifs"], metrics["cell_types"]) == (6, 3)
    assert metrics["peaks_per_set"] == {name: len(table) for name, table in peaks_of(toy_world).items()}
    assert metrics["regions_per_split"] == {"none": 0, **toy.regions["split"].value_counts().to_dict()}
    assert set(toy.manifest.inputs) == {"genome", "motifs", "peaks of B", "peaks of NK", "peaks of T"}


# Reproducibility --------------------------------------------------------------------------------------------


def test_the_order_of_rows_and_files_does_not_matter(toy_folder: Path, world: World) -> None:
    for path in world.peaks.iterdir():
        lines = path.read_text().splitlines()
        toys.write_peaks(path, np.random.default_rng(1).permutation(lines).tolist())
    files = sorted(world.peaks.iterdir(), reverse=True)
    assert contents(build(world, peaks=files).folder) == contents(toy_folder)


def test_the_order_of_chromosomes_in_the_genome_does_not_matter(toy_folder: Path, world: World) -> None:
    toys.write_fasta(world.genome, dict(reversed(toys.read_fasta(world.genome).items())), line=77)
    assert contents(build(world).folder) == contents(toy_folder)


def test_a_second_run_changes_nothing(toy_folder: Path, toy_world: World) -> None:
    before = {path: path.stat().st_mtime_ns for path in toy_folder.iterdir()}
    assert prepare(toy_world.settings(toy_folder)) == toy_folder
    assert {path: path.stat().st_mtime_ns for path in toy_folder.iterdir()} == before


# Inputs that are accepted -----------------------------------------------------------------------------------


def test_spellings_of_files_make_the_same_corpus(toy_folder: Path, world: World) -> None:
    files = sorted(world.peaks.iterdir())
    files[0].write_bytes(files[0].read_bytes().replace(b"\n", b"\r\n"))
    files[1].write_text("track name=x\nbrowser hide all\n# comment\n" + files[1].read_text().replace("chr", "") + "\n")
    (world.peaks / "T.narrowPeak.gz").write_bytes(gzip.compress(files[2].read_bytes()))
    files[2].unlink()
    world.genome.write_bytes(world.genome.read_bytes().replace(b"\n", b"\r\n").lower())
    assert contents(build(world).folder) == contents(toy_folder)


def test_bgzip_genome(toy_folder: Path, world: World) -> None:
    pysam.tabix_compress(str(world.genome), f"{world.genome}.gz")
    assert contents(build(world, genome=Path(f"{world.genome}.gz")).folder) == contents(toy_folder)


def test_iupac_letters_become_n_and_are_counted(toy: Corpus, world: World) -> None:
    region = toy.regions.iloc[0]
    sequences = toys.read_fasta(world.genome)
    letters = list(sequences[region["chrom"]])
    letters[region["start"] + 3] = "R"
    letters[region["start"] + 9] = "y"
    toys.write_fasta(world.genome, sequences | {region["chrom"]: "".join(letters)})
    corpus = build(world)
    assert np.flatnonzero(corpus.sequence[0] == 4).tolist() == [3, 9]
    assert corpus.manifest.metrics["ambiguous_bases_read_as_n"] == 2


def test_bed3_and_a_single_cell_type(world: World) -> None:
    path = toys.write_peaks(
        world.folder / "only.bed", ["chr1\t1000\t1100", "chr1\t3000\t3101", "chr2\t50\t60", "chr3\t500\t900"]
    )
    corpus = build(world, peaks=[path], valid_chromosomes=[])
    assert corpus.cell_types == ["only"]
    assert corpus.regions["start"].tolist() == [
        1050 - 64,
        3050 - 64,
        700 - 64,
    ]  # the middle of each; chr2:55 is too near the end
    assert corpus.manifest.metrics["windows_dropped"]["crossing a chromosome's end"] == 1
    assert corpus.accessible_values == pytest.approx(np.log1p([5e5, 5e5, 5e5]))


def test_duplicates_are_counted_and_summits_kept(toy_folder: Path, world: World) -> None:
    path = world.peaks / "B.narrowPeak"
    lines = path.read_text().splitlines()
    toys.write_peaks(path, [*lines, *lines[:3]])
    corpus = build(world)
    assert corpus.manifest.metrics["duplicate_peaks"] == {"B": 3}
    assert contents(corpus.folder) == contents(toy_folder)


def test_several_summits_of_one_peak_are_several_regions(world: World) -> None:
    path = toys.write_peaks(
        world.folder / "B.narrowPeak", [Peak("chr1", 1000, 2000, 100), Peak("chr1", 1000, 2000, 700)]
    )
    corpus = build(world, peaks=[path], valid_chromosomes=[], test_chromosomes=[])
    assert corpus.regions["start"].tolist() == [1100 - 64, 1700 - 64]
    assert corpus.manifest.metrics["duplicate_peaks"] == {}


def test_cell_types_without_accessible_regions(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    toys.write_peaks(world.peaks / "edge.bed", ["chr1\t0\t10", "chr2\t19990\t20000"])  # dropped: they cross the ends
    toys.write_peaks(world.peaks / "listed.bed", ["chr1\t100\t200"])
    blacklist = toys.write_peaks(world.folder / "blacklist.bed", ["chr1\t0\t300", "chr1\t19999\t50000", "chrUn\t0\t10"])
    corpus = build(world, blacklist=blacklist)
    assert corpus.cell_types == ["B", "NK", "T", "edge", "listed"]
    assert [len(corpus.accessible(i)) for i in (3, 4)] == [0, 0]
    said = " ".join(capsys.readouterr().err.split())
    for name in ("edge", "listed"):
        assert f"warning: cell type {name}: no region is accessible in it. Check its file and --blacklist" in said
    assert corpus.manifest.metrics["regions_per_cell_type"]["edge"] == 0
    assert corpus.nearest_examples(np.array([4]), corpus.region_positions[:1], 2, 100)[0].tolist() == [[-1, -1]]


def test_a_cell_type_with_peaks_on_held_out_chromosomes_only(world: World) -> None:
    toys.write_peaks(world.peaks / "Z.bed", ["chr3\t1000\t1100", "chr3\t5000\t5100"])
    corpus = build(world)
    assert np.isfinite(corpus.accessible_values).all()
    assert set(corpus.split[corpus.accessible(3)]) == {2}


def test_unknown_chromosomes_are_dropped_and_counted_if_asked(
    toy_folder: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    path = world.peaks / "B.narrowPeak"
    toys.write_peaks(path, [*path.read_text().splitlines(), Peak("chrUn_1", 5, 90), Peak("chrUn_1", 300, 390)])
    corpus = build(world, skip_unknown_chromosomes=True)
    assert corpus.manifest.metrics["peaks_on_unknown_chromosomes"] == {"B": {"chrUn_1": 2}}
    assert "left out, on chromosomes that the genome lacks: 2 (chrUn_1)" in " ".join(capsys.readouterr().err.split())
    assert contents(corpus.folder) == contents(toy_folder)


def test_signal_of_zero_everywhere(world: World) -> None:
    path = toys.write_peaks(
        world.folder / "B.narrowPeak",
        [Peak("chr1", 1000, 2000, signal=0), Peak("chr1", 5000, 6000, signal=0)],
    )
    corpus = build(world, peaks=[path], valid_chromosomes=[], test_chromosomes=[])
    assert corpus.accessible_values.tolist() == [0.0, 0.0]


def test_jaspar_core_offline(world: World) -> None:
    corpus = build(world, motifs="jaspar:urochordates", max_n_fraction=0.0)
    assert len(corpus.motifs) > 50
    assert set(corpus.manifest.inputs) == {"genome", "peaks of B", "peaks of NK", "peaks of T"}
    assert json.loads((corpus.folder / "manifest.json").read_text())["settings"]["motifs"] == "jaspar:urochordates"
