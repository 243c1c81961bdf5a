"""The stages on real data: hg19 windows and peaks of 16 blood cell types, in the folder GENEBERT_DATA."""

import os
import subprocess
from pathlib import Path

import anndata
import bioframe
import numpy as np
import pandas as pd
import pysam
import pytest
from scipy.io import mmread
from scipy.stats import spearmanr
from toy_genotypes import NEEDS_BCFTOOLS, by_bcftools, sequences
from toys import reverse_complement, write_fasta

from genebert.corpus.build import prepare
from genebert.corpus.store import Corpus
from genebert.demo import Data, read_data
from genebert.haplotypes import read_haplotypes
from genebert.inputs.genome import Genome
from genebert.inputs.h5ad import h5ad_counts, read_h5ad_peaks
from genebert.inputs.motifs import read_motifs
from genebert.inputs.scan import Scanner
from genebert.inputs.vcf import VcfReader
from genebert.schema import EVIDENCE_STEPS, encode
from genebert.settings import PrepareSettings
from genebert.tasks.labels import labels
from genebert.tasks.promoter import Promoter
from genebert.tasks.splice import Splice
from genebert.tasks.tf_binding import TfBinding

FOLDER = Path(os.environ.get("GENEBERT_DATA", "no such folder"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="GENEBERT_DATA names no folder of real data")


@pytest.fixture(scope="module")
def data() -> Data:
    return read_data(FOLDER, "blood.yaml")


@pytest.fixture(scope="module")
def corpus(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    inputs = data.inputs
    folder = prepare(
        PrepareSettings(
            out=tmp_path_factory.mktemp("blood") / "corpus",
            genome=data["genome"],
            peaks=[data["peaks"]],
            motifs=str(data["motifs"]),
            blacklist=data["blacklist"],
            valid_chromosomes=inputs.valid_chromosomes,
            test_chromosomes=inputs.test_chromosomes,
        )
    )
    return Corpus.open(folder)


def test_the_corpus_has_the_expected_size(corpus: Corpus) -> None:
    assert 2_700 <= len(corpus.regions) <= 3_300
    assert 14_000 <= len(corpus.accessible_regions) <= 16_500
    assert len(corpus.cell_types) == 16 and len(corpus.motifs) == 182


def test_held_out_chromosomes_are_held_out(corpus: Corpus) -> None:
    chroms = corpus.regions["chrom"].to_numpy()[corpus.accessible_regions]
    assert set(chroms[corpus.examples("test")]) == {"chr20", "chr22"}
    assert set(chroms[corpus.examples("valid")]) == {"chr9"}
    assert not set(chroms[corpus.examples("train")]) & {"chr9", "chr20", "chr22"}


def test_regions_are_real_sequence_and_cell_types_of_one_lineage_are_alike(corpus: Corpus) -> None:
    assert (np.asarray(corpus.sequence) == 4).mean() < 0.01
    sets = {name: set(corpus.accessible(i)) for i, name in enumerate(corpus.cell_types)}

    def jaccard(first: str, second: str) -> float:
        return len(sets[first] & sets[second]) / len(sets[first] | sets[second])

    assert jaccard("CD4", "CD8") > jaccard("CD4", "Ery")
    assert jaccard("HSC", "MPP") > jaccard("HSC", "B")


def test_promoter_windows_of_annotated_start_sites(corpus: Corpus, data: Data, tmp_path: Path) -> None:
    made = labels(Promoter(corpus=corpus.folder, genome=data["genome"], tss=data["tss"], out=tmp_path / "l"))
    table = read_labels(made)
    gc = pd.Series([(letters.count("G") + letters.count("C")) / 300 for letters in letters_of(table, data)])
    assert (table["label"] == 1).sum() == (table["label"] == 0).sum() > 400
    assert abs(gc[table["label"] == 1].mean() - gc[table["label"] == 0].mean()) < 0.005


HELD_OUT = {"valid_chromosomes": ["chr9"], "test_chromosomes": ["chr20", "chr22"]}


def read_labels(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "labels.tsv", sep="\t")


def letters_of(table: pd.DataFrame, data: Data) -> list[str]:
    """The sequences of windows on their strand, read with pysam."""
    with pysam.FastaFile(str(data["genome"])) as fasta:
        plus = [fasta.fetch(row.chrom, row.start, row.end).upper() for row in table.itertuples()]
    return [
        reverse_complement(letters) if strand == "-" else letters
        for letters, strand in zip(plus, table["strand"], strict=True)
    ]


def test_splice_sites_are_where_ucsc_has_introns(data: Data, tmp_path: Path) -> None:
    introns = FOLDER / "introns.bed"
    table = read_labels(labels(Splice(genome=data["genome"], introns=introns, out=tmp_path / "l", **HELD_OUT)))
    table["letters"] = letters_of(table, data)
    annotated = pd.read_csv(introns, sep="\t", names=["chrom", "start", "end"])
    borders = {(row.chrom, border) for row in annotated.itertuples() for border in (row.start, row.end)}
    at_border = pd.Series([border in borders for border in zip(table["chrom"], table["start"] + 200, strict=True)])
    assert (at_border == (table["label"] != "neither")).all()
    assert (table["label"] != "neither").sum() == (table["label"] == "neither").sum() > 4_000
    donors = table.loc[table["label"] == "donor", "letters"]
    assert (donors.str[200:202] == "GT").all()
    # Nobody asked for A or G after GT, which U1 binds: an error of one base, or of the strand, shows here.
    assert donors.str[202].isin(["A", "G"]).mean() > 0.9
    assert (table["letters"][table["label"] == "acceptor"].str[198:200] == "AG").all()


def test_sites_of_ctcf_hold_its_motif_and_the_negatives_do_not(data: Data, tmp_path: Path) -> None:
    task = TfBinding(genome=data["genome"], peaks=[FOLDER / "chip_seq" / "CTCF"], out=tmp_path / "l", **HELD_OUT)
    table = read_labels(labels(task)).assign(strand="+")
    columns = [name for name in table if name.startswith("label:")]
    assert len(columns) == 7
    assert "chr1" not in set(table["chrom"])  # the source lacks it
    hocomoco = read_motifs(str(FOLDER / "motifs" / "hocomoco_v13_core.meme"))
    scanner = Scanner([motif for motif in hocomoco if motif.name == "CTCF"], 0.01, 0.5)
    evidence = scanner.scan(np.stack([encode(letters).codes for letters in letters_of(table, data)]))
    has_motif = pd.Series((evidence >= 4 * EVIDENCE_STEPS).any(axis=1))
    bound = (table[columns] == 1).sum(axis=1)
    assert has_motif[bound == 7].mean() > 0.85
    assert has_motif[bound == 0].mean() < 0.1


def test_every_reference_allele_of_the_1000_genomes_agrees(data: Data) -> None:
    with Genome(data["genome"]) as genome:
        reader = VcfReader(data["vcf"], genome, 50)
        for record in reader:
            if record.position >= 1_900_000:
                break
    assert reader.skipped.counts["REF mismatch"] == 0
    assert reader.read > 5_000


@NEEDS_BCFTOOLS
def test_personal_sequences_of_real_genomes_are_those_of_bcftools(data: Data, tmp_path: Path) -> None:
    """The file says 20 where the genome says chr20, and has no index."""
    width, margin = 512, 200
    starts = list(range(1_000_500, 1_990_000, 15_000))
    regions = pd.DataFrame({"chrom": "chr20", "start": starts, "end": [start + width for start in starts]})
    with Genome(data["genome"]) as genome:
        cohort = read_haplotypes(data["vcf"], genome, regions)
    assert len(cohort.samples) == 300 and len(cohort.variants) > 150
    left_out = cohort.counts["carried_by_none"] + cohort.counts["repeated"]
    assert cohort.counts["alleles"] == len(cohort.variants) + left_out
    assert cohort.haplotypes["n_variants"].max() > 3
    bed, vcf = tmp_path / "regions.bed", tmp_path / "inside.vcf.gz"
    regions.assign(chrom="20").to_csv(bed, sep="\t", header=False, index=False)
    subprocess.run(["bcftools", "view", "-T", bed, "-Oz", "-o", vcf, data["vcf"]], check=True)
    subprocess.run(["bcftools", "index", vcf], check=True)
    with pysam.FastaFile(str(data["genome"])) as fasta:
        letters = [fasta.fetch("chr20", start, start + width + margin).upper() for start in starts]
    names = [f"20:{start + 1}-{start + width + margin}" for start in starts]
    fasta_path = write_fasta(tmp_path / "stretches.fa", dict(zip(names, letters, strict=True)))
    for sample in cohort.samples[::50]:
        sides = [by_bcftools(vcf, fasta_path, sample, side) for side in (1, 2)]
        for region, name in enumerate(names):
            assert sequences(cohort, sample, region) == sorted(side[name][:width] for side in sides)


def test_hocomoco_and_jaspar_clusters_are_read(data: Data) -> None:
    hocomoco = read_motifs(str(FOLDER / "motifs" / "hocomoco_v13_core.meme"))
    assert len(hocomoco) == 1_611 and hocomoco[1].name == "AHR"
    assert len(read_motifs(str(data["motifs"]))) == 182


def test_single_cells_agree_with_bulk_of_their_lineage(tmp_path: Path) -> None:
    table = pd.read_csv(FOLDER / "single_cell/epiCHAOS_hemato_cells.tsv", sep="\t", index_col="cell")
    peaks = pd.read_csv(
        FOLDER / "single_cell/epiCHAOS_hemato_peaks_hg19.bed", sep="\t", names=["chrom", "start", "end"]
    )
    counts = mmread(FOLDER / "single_cell/epiCHAOS_hemato_counts.mtx.gz", spmatrix=False).tocsr().T.tocsr()
    names = peaks["chrom"] + ":" + peaks["start"].astype(str) + "-" + peaks["end"].astype(str)
    made = anndata.AnnData(counts.astype(np.float32), obs=table, var=pd.DataFrame(index=names))
    made.write_h5ad(tmp_path / "cells.h5ad")
    lengths = dict.fromkeys(peaks["chrom"], 250_000_000)
    placed = read_h5ad_peaks(tmp_path / "cells.h5ad", lengths).table
    bulk = h5ad_counts(tmp_path / "cells.h5ad", "cell_type")
    assert bulk.cells == table["cell_type"].value_counts().to_dict()
    single = pd.DataFrame({name: bulk.of(name)[placed["column"]] for name in bulk.cell_types})
    assert (single.sum() == counts.toarray().sum(axis=1) @ pd.get_dummies(table["cell_type"])).all()
    lineages = {"05_CMP.LMPP": "LMPP", "07_GMP": "GMP-B", "15_CLP.2": "CLP", "17_B": "B"}
    found = {name: bulk_signal(name, placed) for name in (*lineages.values(), "Ery")}
    for name, lineage in lineages.items():
        shared = found[lineage].notna() & found["Ery"].notna()
        agreement = {
            other: spearmanr(single[name][shared], found[other][shared]).statistic for other in (lineage, "Ery")
        }
        assert agreement[lineage] > agreement["Ery"] + 0.05


def bulk_signal(name: str, peaks: pd.DataFrame) -> pd.Series:
    """The signal of the strongest bulk peak that overlaps each peak; none where there is none."""
    path = FOLDER / f"blood_atac/genome_wide_peaks/{name}.bed.gz"
    bulk = pd.read_csv(path, sep="\t", names=["chrom", "start", "end", "signal", "offset"])
    pairs = bioframe.overlap(peaks[["chrom", "start", "end"]], bulk, how="left", return_index=True)
    return pairs.groupby("index")["signal_"].max().reindex(range(len(peaks))).astype(float)
