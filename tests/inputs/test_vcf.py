import gzip
from collections.abc import Iterator
from pathlib import Path

import pysam
import pytest
from toys import write_fasta

from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.inputs.vcf import Record, VcfReader, VcfWriter, info_text

HEADER = '##fileformat=VCFv4.2\n##contig=<ID={chrom}>\n##FILTER=<ID=LOW,Description="low">\n'
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
SEQUENCE = "ACGTACGTAACCGGTTNNNNACGT"


@pytest.fixture
def genome(tmp_path: Path) -> Iterator[Genome]:
    with Genome(write_fasta(tmp_path / "genome.fa", {"chr1": SEQUENCE})) as opened:
        yield opened


def write_vcf(path: Path, *lines: str, chrom: str = "chr1", header: str = HEADER) -> Path:
    body = "".join(line.replace(" ", "\t") + "\n" for line in lines)
    path.write_text(header.format(chrom=chrom) + COLUMNS + body)
    return path


def read(path: Path, genome: Genome, max_indel: int = 5) -> tuple[list[Record], VcfReader]:
    reader = VcfReader(path, genome, max_indel)
    return list(reader), reader


def test_snv_indels_and_multi_allelic_records_become_variants(tmp_path: Path, genome: Genome) -> None:
    path = write_vcf(tmp_path / "v.vcf", "chr1 1 rs1 A G . PASS .", "chr1 9 . AA A,AAC . LOW .", "chr1 3 . g c 30 . .")
    records, reader = read(path, genome)
    found = [[(a.variant.name, a.variant.id) for a in record.alleles if a.variant] for record in records]
    assert found == [[("chr1:1:A>G", "rs1")], [("chr1:9:AA>A", "."), ("chr1:9:AA>AAC", ".")], [("chr1:3:G>C", ".")]]
    assert (reader.read, sum(reader.skipped.counts.values())) == (3, 0)


def test_what_cannot_be_scored_is_counted_by_reason_and_mismatches_are_named(tmp_path: Path, genome: Genome) -> None:
    path = write_vcf(
        tmp_path / "v.vcf",
        "chr1 1 . C G . . .",
        "chr1 2 . C <DEL> . . .",
        "chr1 2 . C * . . .",
        "chr1 2 . C G[chr1:5[ . . .",
        "chr1 17 . N A . . .",
        "chr1 17 . A C . . .",
        "chr1 1 . ACGTACGT A . . .",
        "chr1 5 . A . . . .",
        "chr1 0 . A C . . .",
        "chr1 25 . A C . . .",
        "chr1 24 . TA T . . .",
        "chr1 4 . TA T,G,<INS> . . .",
    )
    records, reader = read(path, genome)
    assert reader.skipped.counts == {
        "REF mismatch": 1,
        "symbolic, missing or ambiguous allele": 5,
        "reference is N": 2,
        "longer than --max-indel": 1,
        "beyond the chromosome's end": 2,
    }
    assert reader.skipped.examples == {
        "chr1:1:C>G": "A",
        "chr1:25:A>C": "no base there",
        "chr1:24:TA>T": "no base there",
    }
    assert [allele.reason for allele in records[-1].alleles] == ["", "", "symbolic, missing or ambiguous allele"]


def test_many_records_beyond_the_end_are_of_another_assembly(tmp_path: Path, genome: Genome) -> None:
    """They were once skipped as lying on N, and the file taken to be of the genome."""
    right = ["chr1 1 . A G . . ."] * 110
    for beyond, refused in ((1, False), (2, True)):
        lines = [f"chr1 {100 + i} . A C . . ." for i in range(beyond)]
        _, reader = read(write_vcf(tmp_path / "v.vcf", *right, *lines), genome)
        if not refused:
            reader.check_assembly()
            continue
        with pytest.raises(UserError) as error:
            reader.check_assembly()
        assert "the REF of 2 of 112 alleles (1.8%)" in str(error.value)
        assert "chr1:100:A>C where it has no base there" in str(error.value)
        assert "2 of them lie beyond the ends of their chromosomes: the variants seem" in str(error.value)


def test_chromosomes_are_matched_by_name(tmp_path: Path, genome: Genome) -> None:
    records, _ = read(write_vcf(tmp_path / "v.vcf", "1 1 . A G . . .", chrom="1"), genome)
    assert records[0].alleles[0].variant.chrom == "chr1"
    assert records[0].chrom == "1"
    _, reader = read(write_vcf(tmp_path / "w.vcf", "chr9 1 . A G . . .", chrom="chr9"), genome)
    assert reader.skipped.counts == {"chromosome not in the genome": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("chr1\t1\t.\tA\tG\t.\t.\t.\n", "no VCF or BCF with a header"),
        ("hello\n", "no VCF or BCF with a header"),
    ],
)
def test_files_that_are_no_vcf_are_refused(content: str, message: str, tmp_path: Path, genome: Genome) -> None:
    path = tmp_path / "bad.vcf"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        VcfReader(path, genome, 5)
    assert "bad.vcf" in str(error.value)


def test_an_absent_file_and_a_truncated_one_are_refused(tmp_path: Path, genome: Genome) -> None:
    with pytest.raises(UserError, match=r"absent\.vcf"):
        VcfReader(tmp_path / "absent.vcf", genome, 5)
    whole = write_vcf(tmp_path / "v.vcf", *[f"chr1 {1 + i % 8} id{i * 7919} A C . . ." for i in range(20_000)])
    pysam.tabix_compress(str(whole), str(tmp_path / "v.vcf.gz"), force=True)
    cut = tmp_path / "cut.vcf.gz"
    cut.write_bytes((tmp_path / "v.vcf.gz").read_bytes()[:-3000])
    with pytest.raises(UserError, match=r"cut\.vcf\.gz: .*may be truncated"):
        read(cut, genome)


@pytest.mark.parametrize("line", ["chr1 x . A G . . .", "chr1 3 . A", "chr1"])
def test_a_malformed_record_is_named(line: str, tmp_path: Path, genome: Genome) -> None:
    path = write_vcf(tmp_path / "v.vcf", "chr1 1 . A G . . .", line)
    with pytest.raises(UserError, match=r"v\.vcf, record 2: it cannot be read .*bcftools view"):
        read(path, genome)


INFO = {"SCORE": ("A", "Float", "a score"), "NOTE": (".", "String", "a note")}


def rewrite(path: Path, genome: Genome, info: dict[str, list[str]], out: Path) -> list[pysam.VariantRecord]:
    """Write all records of a file with the same INFO fields, and read them back."""
    records, reader = read(path, genome)
    writer = VcfWriter(out, reader.meta_lines, INFO)
    for record in records:
        writer.write(record, info)
    writer.close()
    return read_back(out)


def read_back(path: Path) -> list[pysam.VariantRecord]:
    verbosity = pysam.set_verbosity(0)
    with pysam.VariantFile(str(path)) as file:
        records = list(file)
    pysam.set_verbosity(verbosity)
    return records


def test_written_records_can_be_read_back_with_their_info(tmp_path: Path, genome: Genome) -> None:
    path = write_vcf(tmp_path / "v.vcf", "chr1 1 rs1 A G 30 LOW .", "chr1 9 . AA A,AAC . PASS .")
    records, reader = read(path, genome)
    writer = VcfWriter(tmp_path / "out.vcf.gz", reader.meta_lines, INFO)
    writer.write(records[0], {"SCORE": ["0.5"], "NOTE": [info_text("a b,c|d")]})
    writer.write(records[1], {"SCORE": ["1.5", "."]})
    writer.close()
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as file:
        first, second = list(file)
        assert (first.id, first.qual, list(first.filter), first.info["SCORE"], first.info["NOTE"]) == (
            "rs1",
            30,
            ["LOW"],
            (0.5,),
            ("a%20b%2Cc%7Cd",),
        )
        assert (second.alts, second.info["SCORE"], "NOTE" in second.info) == (("A", "AAC"), (1.5, None), False)
        assert len(list(file.fetch("chr1", 5, 12))) == 1  # the tabix index works
    assert (tmp_path / "out.vcf.gz.tbi").exists()


ODD = (
    "chr1 0 . N . . . .",
    "chr1 1 rs1 A . . q10 DP=3;FLAG",
    "chr1 2 . C <DEL> 30 q10;q20 SVTYPE=DEL;END=9;MINE=a,b",
    "chr1 5 . A <NON_REF> . . END=8",
    "chr1 9 . A *,G . PASS AF=0.25,0.5",
    "chr1 9 . A G]chrUn:5] . PASS .",
    "chrUn 3 . a g . . .",
)


@pytest.mark.parametrize(
    "header", ["##fileformat=VCFv4.2\n", "##fileformat=VCFv4.3\n##weird=foo\n##contig=<ID=chr1>\n"]
)
def test_records_with_undeclared_and_symbolic_values_are_written_as_they_were(
    header: str, tmp_path: Path, genome: Genome, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_vcf(tmp_path / "v.vcf", *ODD, header=header)
    rewrite(path, genome, {}, tmp_path / "out.vcf.gz")
    assert capfd.readouterr().err == ""
    lines = gzip.decompress((tmp_path / "out.vcf.gz").read_bytes()).decode().splitlines()
    assert [line for line in lines if line[0] != "#"] == [line.replace(" ", "\t") for line in ODD]
    assert lines[0] == header.splitlines()[0]
    assert set(header.splitlines()) <= set(lines)


def test_samples_are_dropped_and_fields_of_an_earlier_run_replaced(tmp_path: Path, genome: Genome) -> None:
    path = tmp_path / "v.vcf"
    path.write_text(
        HEADER.format(chrom="chr1")
        + '##INFO=<ID=SCORE,Number=1,Type=Integer,Description="old">\n'
        + '##INFO=<ID=SCORE2,Number=1,Type=Integer,Description="theirs">\n'
        + '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">\n'
        + COLUMNS.strip()
        + "\tFORMAT\ts1\ts2\n"
        + "chr1\t1\t.\tA\tG\t.\t.\tSCORE=7;SCORE2=8\tGT\t0/1\t1/1\n"
        + "chr1\t2\t.\tC\tG\t.\t.\tSCORE=7\tGT\t0/1\t1/1\n"
    )
    bcf = tmp_path / "v.bcf"
    with pysam.VariantFile(str(path)) as file, pysam.VariantFile(str(bcf), "wb", header=file.header) as copy:
        for record in file:
            copy.write(record)
    for given in (path, bcf):
        first, second = rewrite(given, genome, {"SCORE": ["0.5"]}, tmp_path / "out.vcf.gz")
        assert (dict(first.info), dict(second.info)) == ({"SCORE": (0.5,), "SCORE2": 8}, {"SCORE": (0.5,)})
        assert list(first.header.samples) == []
        assert "SCORE" not in rewrite(given, genome, {}, tmp_path / "out.vcf.gz")[0].info


def test_unsorted_records_are_all_written_without_an_index(
    tmp_path: Path, genome: Genome, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_vcf(tmp_path / "v.vcf", "chr1 9 . A G . . .", "chr1 1 . A G . . .")
    written = rewrite(path, genome, {"SCORE": ["1"]}, tmp_path / "out.vcf.gz")
    assert [record.pos for record in written] == [9, 1]
    assert not (tmp_path / "out.vcf.gz.tbi").exists()
    assert capfd.readouterr().err == ""


def test_records_far_along_a_chromosome_are_indexed_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A .tbi holds places below 2^29 bp; wheat has longer chromosomes."""
    out = tmp_path / "out.vcf.gz"
    writer = VcfWriter(out, ["##fileformat=VCFv4.2", "##contig=<ID=chr1,length=700000000>"], INFO)
    writer.write(Record(("chr1", "600000000", ".", "A", "C", ".", ".", "."), ()), {"SCORE": ["1"]})
    writer.close()
    with pysam.VariantFile(str(out)) as file:
        assert [record.pos for record in file.fetch("chr1", 599_999_990, 600_000_010)] == [600_000_000]
    assert (tmp_path / "out.vcf.gz.csi").exists()
    assert capfd.readouterr().err == ""


def test_plain_gzip_is_read_and_damage_in_it_is_found(tmp_path: Path, genome: Genome) -> None:
    whole = write_vcf(tmp_path / "v.vcf", *[f"chr1 {1 + i % 8} id{i * 7919} A C . . ." for i in range(2000)])
    path = tmp_path / "v.vcf.gz"
    path.write_bytes(gzip.compress(whole.read_bytes()))
    assert len(read(path, genome)[0]) == 2000
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"v\.vcf\.gz: it is no VCF or BCF with a header, or damaged"):
        read(path, genome)
