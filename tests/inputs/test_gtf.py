import gzip
from pathlib import Path

import pandas as pd
import pytest

from genebert.errors import UserError
from genebert.inputs.gtf import introns_of, read_exons, read_start_sites

LENGTHS = {"chr1": 10_000, "chr2": 10_000}
GTF = """\
# a comment
chr1\ttest\tgene\t101\t900\t.\t+\t.\tgene_id "g"; gene_name "a#b";
chr1\ttest\ttranscript\t101\t900\t.\t+\t.\tgene_id "g"; transcript_id "t1";
chr1\ttest\texon\t101\t200\t.\t+\t.\tgene_id "g"; transcript_id "t1";
chr1\ttest\texon\t301\t400\t.\t+\t.\tgene_id "g"; transcript_id "t1";
chr1\ttest\texon\t801\t900\t.\t+\t.\tgene_id "g"; transcript_id "t1";
chr1\ttest\ttranscript\t101\t400\t.\t+\t.\tgene_id "g"; transcript_id "t2";
chr1\ttest\texon\t301\t400\t.\t+\t.\tgene_id "g"; transcript_id "t2";
chr1\ttest\texon\t101\t200\t.\t+\t.\tgene_id "g"; transcript_id "t2";

2\ttest\ttranscript\t501\t700\t.\t-\t.\ttranscript_id "t3"
2\ttest\texon\t501\t550\t.\t-\t.\ttranscript_id "t3"
2\ttest\texon\t554\t700\t.\t-\t.\ttranscript_id "t3"
scaffold\ttest\ttranscript\t1\t9\t.\t-\t.\ttranscript_id "t4"
scaffold\ttest\texon\t1\t9\t.\t-\t.\ttranscript_id "t4"
"""
GFF3 = """\
##gff-version 3
chr1\ttest\tgene\t101\t900\t.\t+\t.\tID=gene:g
chr1\ttest\tmRNA\t101\t900\t.\t+\t.\tID=t1;Parent=gene:g
chr1\ttest\texon\t101\t200\t.\t+\t.\tID=e1;Parent=t1,t2
chr1\ttest\texon\t301\t400\t.\t+\t.\tParent=t1,t2;ID=e2
chr1\ttest\texon\t801\t900\t.\t+\t.\tID=e3;Parent=t1
chr2\ttest\tmRNA\t501\t700\t.\t-\t.\tID=t3
chr2\ttest\texon\t501\t550\t.\t-\t.\tParent=t3
chr2\ttest\texon\t554\t700\t.\t-\t.\tParent=t3
##FASTA
>chr1
ACGT
"""
# By hand: exons [100, 200), [300, 400), [800, 900), of which the second transcript lacks the last; the gap of 3 bp in
# the second gene has no room for two splice sites.
INTRONS = [("chr1", 200, 300, "+"), ("chr1", 400, 800, "+")]


@pytest.fixture(params=["gtf", "gff3", "gtf.gz"])
def annotation(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"genes.{request.param}"
    text = GFF3 if request.param == "gff3" else GTF
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def rows(table: pd.DataFrame) -> list[tuple[object, ...]]:
    return sorted(table.itertuples(index=False, name=None))


def test_start_sites_are_the_first_transcribed_bases_each_once(annotation: Path) -> None:
    assert rows(read_start_sites(annotation, LENGTHS)) == [("chr1", 100, "+"), ("chr2", 699, "-")]


def test_introns_lie_between_the_exons_of_a_transcript_in_any_order_each_once(annotation: Path) -> None:
    assert rows(introns_of(read_exons(annotation, LENGTHS))) == INTRONS


def test_windows_line_ends_are_no_part_of_attributes(tmp_path: Path) -> None:
    path = tmp_path / "genes.gtf"
    path.write_bytes(GTF.replace("\n", "\r\n").encode())
    assert rows(introns_of(read_exons(path, LENGTHS))) == INTRONS


def test_genes_stand_in_where_there_are_no_transcripts(tmp_path: Path) -> None:
    path = tmp_path / "genes.gtf"
    path.write_text('chr1\tx\tgene\t11\t20\t.\t-\t.\tgene_id "a"\nchr1\tx\tCDS\t11\t13\t.\t-\t.\tgene_id "a"\n')
    assert rows(read_start_sites(path, LENGTHS)) == [("chr1", 19, "-")]


def test_a_transcript_name_on_two_chromosomes_is_two_transcripts(tmp_path: Path) -> None:
    """In the pseudoautosomal regions of X and Y, some annotations use one name twice."""
    path = tmp_path / "genes.gtf"
    lines = [f'{chrom}\tx\texon\t{at}\t{at + 9}\t.\t+\t.\ttranscript_id "t"\n' for chrom in LENGTHS for at in (11, 41)]
    path.write_text("".join(lines))
    assert rows(introns_of(read_exons(path, LENGTHS))) == [("chr1", 20, 40, "+"), ("chr2", 20, 40, "+")]


BAD = {
    "columns": ("chr1\tx\texon\t1\t9\t.\t+\t.", "line 2: it has 8 tab-separated columns"),
    "start": ('chr1\tx\texon\tone\t9\t.\t+\t.\ttranscript_id "t"', "line 2: start is 'one'"),
    "zero": ('chr1\tx\texon\t0\t9\t.\t+\t.\ttranscript_id "t"', "line 2: start is '0'"),
    "order": ('chr1\tx\texon\t9\t1\t.\t+\t.\ttranscript_id "t"', "line 2: its end is before its start"),
    "strand": ('chr1\tx\texon\t1\t9\t.\t.\t.\ttranscript_id "t"', "line 2: its strand is '.'"),
    "transcript": ('chr1\tx\texon\t1\t9\t.\t+\t.\tgene_id "g"', "line 2: the exon names no transcript"),
    "feature": ("chr1\tx\tCDS\t1\t9\t.\t+\t.\t", "no line has the feature exon; it has CDS"),
    "chromosome": ('chr9\tx\texon\t1\t9\t.\t+\t.\ttranscript_id "t"', "none of its chromosomes"),
    "comments": ("#", "it has no line but comments"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named_with_its_line(case: str, tmp_path: Path) -> None:
    line, message = BAD[case]
    path = tmp_path / "genes.gtf"
    path.write_text(f"# a comment\n{line}\n")
    with pytest.raises(UserError) as error:
        read_exons(path, LENGTHS)
    assert message in str(error.value) and "genes.gtf" in str(error.value)


def test_start_sites_of_all_kinds_of_transcripts_count(tmp_path: Path) -> None:
    path = tmp_path / "ncbi.gff3"
    rows = [("gene", 1, 90), ("mRNA", 11, 40), ("transcript", 51, 60), ("lnc_RNA", 71, 90), ("miRNA", 75, 80)]
    path.write_text("".join(f"chr1\tx\t{kind}\t{a}\t{b}\t.\t+\t.\tID={kind}\n" for kind, a, b in rows))
    assert read_start_sites(path, {"chr1": 1000})["site"].tolist() == [10, 50, 70]


def test_exons_alone_tell_where_transcripts_begin(tmp_path: Path) -> None:
    lines = [
        'chr1\tx\texon\t101\t120\t.\t-\t.\ttranscript_id "a"',
        'chr1\tx\texon\t151\t180\t.\t-\t.\ttranscript_id "a"',
    ]
    path = tmp_path / "exons.gtf"
    path.write_text("\n".join(lines) + "\n")
    found = read_start_sites(path, {"chr1": 1000})
    assert found.to_dict("records") == [{"chrom": "chr1", "site": 179, "strand": "-"}]


def test_an_unknown_strand_costs_its_line_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'chr1\tx\ttranscript\t101\t120\t.\t{}\t.\ttranscript_id "a"\n'
    path = tmp_path / "genes.gtf"
    path.write_text(text.format("?") + text.format("+"))
    assert read_start_sites(path, {"chr1": 1000})["site"].tolist() == [100]
    assert "of an unknown strand (?): 1" in capsys.readouterr().err
