import gzip
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pandas as pd
import pysam
import pytest
from toys import write_fasta

from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.inputs.sites import SiteReader, normalised, read_regions
from genebert.schema import Variant

HEADER = "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n##contig=<ID=chr2>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
REPEATS = "GATTTTACACACACGGNCCCCCTAGTAGTAGC"


@pytest.fixture
def genome(tmp_path: Path) -> Iterator[Genome]:
    with Genome(write_fasta(tmp_path / "genome.fa", {"chr1": REPEATS, "chr2": "ACGT" * 10})) as opened:
        yield opened


def edited(variant: Variant) -> str:
    return REPEATS[: variant.position] + variant.alt + REPEATS[variant.position + len(variant.ref) :]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Variant("chr1", 5, "T", "TT"), "chr1:2:A>AT"),
        (Variant("chr1", 3, "TTT", "TT"), "chr1:2:AT>A"),
        (Variant("chr1", 10, "ACAC", "AC"), "chr1:6:TAC>T"),
        (Variant("chr1", 8, "ACAC", "ACTC"), "chr1:11:A>T"),
        (Variant("chr1", 0, "GAT", "GAC"), "chr1:3:T>C"),
        (Variant("chr1", 0, "G", "GG"), "chr1:1:G>GG"),
        (Variant("chr1", 21, "C", "CC"), "chr1:18:C>CC"),
        (Variant("chr1", 26, "AGTAG", "AG"), "chr1:22:CTAG>C"),
        (Variant("chr1", 3, "TT", "AA"), "chr1:4:TT>AA"),
        (Variant("chr1", 3, "T", "T"), "chr1:4:T>T"),
    ],
)
def test_variants_are_left_aligned_and_trimmed(given: Variant, expected: str, genome: Genome) -> None:
    assert REPEATS[given.position :].startswith(given.ref)
    found = normalised(replace(given, id="id"), genome)
    assert (found.name, found.id) == (expected, "id")


def test_all_spellings_of_one_change_become_one(genome: Genome) -> None:
    """Every way to write each short indel: what gives the same sequence has the same name, and gives it still."""
    names: dict[str, set[str]] = {}
    for start, length, alt in product(range(len(REPEATS)), (1, 2, 3), ("A", "T", "TT", "CA", "AC", "C", "CC", "TAG")):
        ref = REPEATS[start : start + length]
        if len(ref) < length or "N" in ref or len(ref) == len(alt):
            continue
        variant = Variant("chr1", start, ref, alt)
        found = normalised(variant, genome)
        assert edited(found) == edited(variant)
        assert min(len(found.ref), len(found.alt)) >= 1
        names.setdefault(edited(variant), set()).add(found.name)
    assert all(len(spellings) == 1 for spellings in names.values())
    assert len(names) > 100


def write(path: Path, *rows: tuple[str, int, str, str]) -> Path:
    body = "".join(f"{chrom}\t{position}\t.\t{ref}\t{alt}\t.\t.\t.\n" for chrom, position, ref, alt in rows)
    path.write_text(HEADER + body)
    return path


ROWS = [("chr1", p + 1, REPEATS[p], "A" if REPEATS[p] != "A" else "C") for p in range(len(REPEATS))]
ROWS += [("chr2", p + 1, "ACGT"[p % 4], "ACGT"[(p + 1) % 4]) for p in range(0, 40, 3)]


def taken(path: Path, genome: Genome, regions: pd.DataFrame | None) -> tuple[list[tuple[str, int]], int]:
    reader = SiteReader(path, genome, 5, regions)
    found = [(record.chrom, record.position + 1) for record in reader]
    reader.close()
    return found, reader.taken


@pytest.mark.parametrize("regions", [["chr1:5-9", "chr2:1-7", "chr1:8-12"], ["chr2"], ["1:5-5"]])
def test_an_index_changes_nothing_but_the_time(regions: list[str], genome: Genome, tmp_path: Path) -> None:
    plain = write(tmp_path / "v.vcf", *ROWS)
    pysam.tabix_compress(str(plain), str(tmp_path / "v.vcf.gz"))
    pysam.tabix_index(str(tmp_path / "v.vcf.gz"), preset="vcf")
    bcf = str(tmp_path / "v.bcf")
    with pysam.VariantFile(str(plain)) as file, pysam.VariantFile(bcf, "wb", header=file.header) as copy:
        for record in file:
            copy.write(record)
    pysam.tabix_index(bcf, preset="bcf")
    table = read_regions(regions, genome)
    inside = [
        (chrom, position)
        for chrom, position, *_ in ROWS
        if ((table["chrom"] == chrom) & (table["start"] < position) & (position <= table["end"])).any()
    ]
    assert inside
    (tmp_path / "plain.vcf.gz").write_bytes(gzip.compress(plain.read_bytes()))
    for name in ("v.vcf", "v.vcf.gz", "v.bcf", "plain.vcf.gz"):
        assert taken(tmp_path / name, genome, table) == (inside, len(inside))


def test_two_names_of_one_chromosome_are_both_read(genome: Genome, tmp_path: Path) -> None:
    path = write(
        tmp_path / "v.vcf", ("chr1", 5, "T", "A"), ("chr1", 9, "A", "T"), ("1", 3, "T", "A"), ("1", 6, "T", "A")
    )
    path.write_text(path.read_text().replace("##contig=<ID=chr2>", "##contig=<ID=1>"))
    pysam.tabix_index(str(path), preset="vcf", keep_original=True)
    expected = [("chr1", 5), ("chr1", 9), ("1", 3), ("1", 6)]
    for name in ("v.vcf", "v.vcf.gz"):
        assert taken(tmp_path / name, genome, read_regions(["chr1:1-6", "chr1:8-12"], genome))[0] == expected


def test_a_deletion_that_reaches_into_a_region_is_not_taken(genome: Genome, tmp_path: Path) -> None:
    path = write(tmp_path / "v.vcf", ("chr1", 4, "TTT", "T"), ("chr1", 6, "T", "A"))
    pysam.tabix_index(str(path), preset="vcf", keep_original=True)
    regions = read_regions(["chr1:5-9"], genome)
    for name in ("v.vcf", "v.vcf.gz"):
        assert taken(tmp_path / name, genome, regions)[0] == [("chr1", 6)]


def test_regions_come_from_a_bed_and_are_merged(genome: Genome, tmp_path: Path) -> None:
    bed = tmp_path / "r.bed"
    bed.write_text("chr2\t0\t5\nchr1\t3\t9\nchr1\t9\t12\n")
    merged = [("chr1", 3, 12), ("chr2", 0, 5)]
    assert list(read_regions([str(bed)], genome).itertuples(index=False, name=None)) == merged
    listed = read_regions(["chr2:1-5", "chr1:4-9", "1:10-12"], genome)
    assert list(listed.itertuples(index=False, name=None)) == merged


def test_faults_of_regions_are_reported_together(genome: Genome) -> None:
    with pytest.raises(UserError) as error:
        read_regions(["chr1:0-3", "chr7", "a:b:c", "chr1:1-3"], genome)
    assert all(text in str(error.value) for text in ("chr1:0-3", "'chr7'", "'a:b:c'"))
