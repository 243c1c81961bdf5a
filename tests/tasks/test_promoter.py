from pathlib import Path

import numpy as np
import pytest
from toys import World, write_fasta

from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.schema import gc_fraction
from genebert.settings import LabelsSettings
from genebert.tasks.labels import check_genome, labels
from genebert.tasks.promoter import DISTANCE, promoter_windows


@pytest.fixture
def tss(tmp_path: Path) -> Path:
    path = tmp_path / "tss.bed"
    sites = [(chrom, 2000 + 3000 * i, "+-"[i % 2]) for chrom in ("chr1", "chr2", "chr3") for i in range(4)]
    path.write_text("".join(f"{chrom}\t{at}\t{at + 1}\tgene\t0\t{strand}\n" for chrom, at, strand in sites))
    return path


def settings(world: World, corpus: Path, out: Path, tss: Path | None) -> LabelsSettings:
    return LabelsSettings(
        task="promoter", corpus=corpus, genome=world.genome, tss=tss, upstream=30, downstream=20, out=out
    )


def test_windows_lie_around_the_start_site_on_its_strand(toy_world: World, toy: Corpus, tss: Path) -> None:
    with Genome(toy_world.genome) as genome:
        table = promoter_windows(settings(toy_world, toy.folder, Path("out"), tss), toy, genome)
    positives = table[(table["label"] == 1) & (table["chrom"] == "chr1")]
    # The site at 2000 is on +: [1970, 2020). That at 5000 is on -: downstream lies to the left, [4981, 5031).
    assert list(positives["start"]) == [1970, 4981, 7970, 10981]
    assert set(table["end"] - table["start"]) == {50}


def test_negatives_are_as_many_alike_in_gc_far_from_start_sites_and_on_the_same_chromosome(
    toy_world: World, toy: Corpus, tss: Path
) -> None:
    with Genome(toy_world.genome) as genome:
        table = promoter_windows(settings(toy_world, toy.folder, Path("out"), tss), toy, genome)
        gc = {
            label: gc_fraction(genome.fetch_all(rows["chrom"], rows["start"].to_numpy(np.int64), 50))
            for label, rows in table.groupby("label")
        }
    assert (table.groupby(["chrom", "label"]).size() == 4).all()
    assert np.abs(np.sort(gc[0]) - np.sort(gc[1])).mean() < 0.03
    for row in table[table["label"] == 0].itertuples():
        sites = 2000 + 3000 * np.arange(4)
        assert np.abs(sites - (row.start + 25)).min() >= DISTANCE
    assert dict(zip(table["chrom"], table["split"], strict=True)) == {"chr1": "train", "chr2": "valid", "chr3": "test"}


def test_same_seed_same_bytes(toy_world: World, toy_folder: Path, tss: Path, tmp_path: Path) -> None:
    first, second = (labels(settings(toy_world, toy_folder, tmp_path / name, tss)) for name in "ab")
    assert (first / "labels.tsv").read_bytes() == (second / "labels.tsv").read_bytes()


def test_start_sites_without_strand_or_absent_are_refused(toy_world: World, toy: Corpus, tmp_path: Path) -> None:
    bed = tmp_path / "bare.bed"
    bed.write_text("chr1\t100\t101\n")
    with Genome(toy_world.genome) as genome:
        for path, message in ((bed, "strand in column 6"), (None, "needs transcription start sites")):
            with pytest.raises(UserError, match=message):
                promoter_windows(settings(toy_world, toy.folder, Path("out"), path), toy, genome)


def test_another_genome_is_refused(toy: Corpus, tmp_path: Path) -> None:
    path = write_fasta(tmp_path / "other.fa", {"chr1": "ACGT" * 100, "chr2": "A" * 20_000})
    with Genome(path) as genome, pytest.raises(UserError) as error:
        check_genome(genome, toy)
    assert "400 bp in the genome and 20000 bp in the corpus" in str(error.value)
    assert "chr3: only the corpus has this chromosome" in str(error.value)
