from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toys import random_bases, read_fasta, reverse_complement, write_fasta

from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.tasks.base import LabelTable, Sources
from genebert.tasks.splice import AROUND_INTRONS, Splice

WIDTH = 40
INTRONS = [("chr1", 500, 700, "+"), ("chr1", 900, 1300, "+"), ("chr2", 600, 800, "-"), ("chr3", 400, 480, "+")]
Make = Callable[..., LabelTable]


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Genome]:
    """Three chromosomes of 5 kb with introns that read GT..AG on their strand; the last intron does not."""
    generator = np.random.default_rng(0)
    letters = {name: list(random_bases(5000, generator)) for name in ("chr1", "chr2", "chr3")}
    for chrom, start, end, strand in INTRONS[:3]:
        first, last = ("GT", "AG") if strand == "+" else ("CT", "AC")
        letters[chrom][start : start + 2], letters[chrom][end - 2 : end] = first, last
    letters["chr3"][400:402] = "AA"
    path = write_fasta(tmp_path_factory.mktemp("genome") / "genome.fa", {k: "".join(v) for k, v in letters.items()})
    with Genome(path) as opened:
        yield opened


@pytest.fixture
def introns(tmp_path: Path) -> Path:
    path = tmp_path / "introns.bed"
    path.write_text("".join(f"{chrom}\t{start}\t{end}\n" for chrom, start, end, _ in INTRONS))
    return path


@pytest.fixture
def make(genome: Genome) -> Make:
    def windows(**options: Any) -> LabelTable:
        task = Splice(out=Path("out"), genome=genome.path, width=WIDTH, **options)
        return task.windows(Sources(genome, None, [], []))

    return windows


def letters_of(table: pd.DataFrame, genome: Genome) -> list[str]:
    sequences = read_fasta(genome.path)
    plus = [sequences[row.chrom][row.start : row.end] for row in table.itertuples()]
    return [
        reverse_complement(letters) if strand == "-" else letters
        for letters, strand in zip(plus, table["strand"], strict=True)
    ]


def test_borders_lie_in_the_middle_of_the_window_on_the_strand_of_the_gene(
    make: Make, introns: Path, genome: Genome
) -> None:
    table = make(introns=introns).table
    found = {(row.chrom, row.start + WIDTH // 2, row.strand, row.label) for row in table.itertuples()}
    # By hand: on -, the intron begins (donor) at its higher coordinate.
    assert {row for row in found if row[3] != "neither"} == {
        ("chr1", 500, "+", "donor"),
        ("chr1", 700, "+", "acceptor"),
        ("chr1", 900, "+", "donor"),
        ("chr1", 1300, "+", "acceptor"),
        ("chr2", 800, "-", "donor"),
        ("chr2", 600, "-", "acceptor"),
    }
    table["letters"] = letters_of(table, genome)
    assert (table["letters"][table["label"] == "donor"].str[20:22] == "GT").all()
    assert (table["letters"][table["label"] == "acceptor"].str[18:20] == "AG").all()


def test_what_is_neither_looks_like_a_site_in_a_gene_and_is_annotated_as_none(
    make: Make, introns: Path, genome: Genome
) -> None:
    table = make(introns=introns, ratio=5).table
    neither = table[table["label"] == "neither"]
    letters = pd.Series(letters_of(neither, genome))
    donor, acceptor = letters.str[20:22] == "GT", letters.str[18:20] == "AG"
    assert len(neither) == 30 and (donor | acceptor).all()
    assert donor.sum() >= 15 and acceptor.sum() >= 15
    assert not neither.duplicated(["chrom", "start", "strand"]).any()
    borders = {(chrom, border) for chrom, start, end, _ in INTRONS for border in (start, end)}
    for row in neither.itertuples():
        border = row.start + WIDTH // 2
        assert (row.chrom, border) not in borders
        assert any(
            row.chrom == chrom and row.strand == strand and start - AROUND_INTRONS <= border <= end + AROUND_INTRONS
            for chrom, start, end, strand in INTRONS
        )


def test_introns_that_read_as_none_are_left_out_and_counted_unless_the_strand_is_given(
    make: Make, introns: Path
) -> None:
    made = make(introns=introns)
    assert made.notes["introns left out, neither GT..AG nor CT..AC"] == 1
    assert "chr3" not in set(made.table["chrom"])
    introns.write_text("".join(f"{chrom}\t{start}\t{end}\tx\t0\t{strand}\n" for chrom, start, end, strand in INTRONS))
    made = make(introns=introns)
    assert "chr3" in set(made.table["chrom"])
    assert made.notes["introns left out, neither GT..AG nor CT..AC"] == 0


def test_exons_of_a_gtf_give_the_same_sites(make: Make, introns: Path, tmp_path: Path) -> None:
    exons = {
        ("chr1", "+"): [(401, 500), (701, 900), (1301, 1400)],
        ("chr2", "-"): [(501, 600), (801, 900)],
    }
    gtf = tmp_path / "genes.gtf"
    gtf.write_text(
        "".join(
            f'{chrom}\tx\texon\t{start}\t{end}\t.\t{strand}\t.\ttranscript_id "{chrom}"\n'
            for (chrom, strand), rows in exons.items()
            for start, end in rows
        )
    )
    made, other = make(gtf=gtf).table, make(introns=introns).table
    columns = ["chrom", "start", "strand", "label"]
    sites = [table[table["label"] != "neither"][columns].reset_index(drop=True) for table in (made, other)]
    assert sites[0].equals(sites[1])
    decoys = made[made["label"] == "neither"]
    assert (decoys["start"] + WIDTH // 2).between(*(400, 1400)).all() and len(decoys) == 6


def test_the_whole_chromosome_is_looked_at_where_genes_have_too_few(make: Make, introns: Path, genome: Genome) -> None:
    introns.write_text("chr2\t600\t800\tx\t0\t-\n")
    table = make(introns=introns, ratio=100).table
    neither = table[table["label"] == "neither"]
    assert len(neither) == 200
    assert set(neither["strand"]) == {"+", "-"} and neither["start"].max() > 2000
    made = make(introns=introns, ratio=10_000)
    assert made.notes["rows wanting that are neither, for lack of GT and AG"] > 0


def test_a_border_that_is_donor_and_acceptor_is_neither_asked_for_nor_a_decoy(make: Make, introns: Path) -> None:
    introns.write_text("chr1\t500\t700\tx\t0\t+\nchr1\t700\t800\tx\t0\t+\n")
    made = make(introns=introns, ratio=3)
    assert made.notes["sites left out, being donor and acceptor"] == 2
    assert 700 not in set(made.table["start"] + WIDTH // 2)


def test_sites_at_an_end_or_next_to_unknown_sequence_are_left_out(tmp_path: Path) -> None:
    letters = "ACGGTTTTTTTTTTAGAC" + "ACGT" * 20 + "N" + "ACGT" * 30
    path = write_fasta(tmp_path / "g.fa", {"c": letters})
    bed = tmp_path / "i.bed"
    bed.write_text("c\t3\t16\tx\t0\t+\nc\t60\t80\tx\t0\t+\nc\t150\t180\tx\t0\t+\n")
    with Genome(path) as genome:
        task = Splice(out=Path("out"), genome=path, introns=bed, width=WIDTH)
        made = task.windows(Sources(genome, None, [], []))
    # c:3 and c:16 are near the end; [60, 100) has the N at 98; [40, 80) has not.
    assert made.notes["sites left out, near an end or on unknown sequence"] == 3
    sites = made.table[made.table["label"] != "neither"]
    assert list(sites["start"]) == [40, 130, 160]


def test_introns_given_in_no_way_or_in_two_or_of_another_assembly_are_refused(make: Make, introns: Path) -> None:
    with pytest.raises(UserError, match="--gtf, --introns: none of them is given"):
        make()
    with pytest.raises(UserError, match="--gtf, --introns: more than one of them is given"):
        make(introns=introns, gtf=introns)
    introns.write_text("chr1\t30000\t40000\tx\t0\t+\n")
    with pytest.raises(UserError, match="no splice site lies on known sequence"):
        make(introns=introns)


def test_the_width_is_even(genome: Genome) -> None:
    with pytest.raises(ValueError, match="multiple of 2"):
        Splice(out=Path("out"), genome=genome.path, width=41)
