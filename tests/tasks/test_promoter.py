from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toys import World, random_bases, read_fasta, reverse_complement, write_fasta

from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.schema import decode, encode, gc_fraction
from genebert.tasks.base import LabelTable, Sources
from genebert.tasks.on_genome import oriented_codes
from genebert.tasks.promoter import DISTANCE, TATA_COUNTS, Promoter, has_tata_box, substituted

SITES = [(chrom, 2000 + 3000 * i, "+-"[i % 2]) for chrom in ("chr1", "chr2", "chr3") for i in range(4)]
Make = Callable[..., LabelTable]


@pytest.fixture
def genome(toy_world: World) -> Iterator[Genome]:
    with Genome(toy_world.genome) as opened:
        yield opened


@pytest.fixture
def tss(tmp_path: Path) -> Path:
    path = tmp_path / "tss.bed"
    path.write_text("".join(f"{chrom}\t{at}\t{at + 1}\tgene\t0\t{strand}\n" for chrom, at, strand in SITES))
    return path


@pytest.fixture
def make(genome: Genome, tss: Path) -> Make:
    """Makes windows from 30 bp before to 20 bp after the start sites."""

    def windows(**options: Any) -> LabelTable:
        chosen = {"genome": genome.path, "tss": tss, "upstream": 30, "downstream": 20, **options}
        return Promoter(out=Path("out"), **chosen).windows(Sources(genome, None, [], []))

    return windows


def test_windows_lie_around_the_start_site_on_its_strand(make: Make) -> None:
    table = make().table
    positives = table[(table["label"] == 1) & (table["chrom"] == "chr1")]
    # The site at 2000 is on +: [1970, 2020). That at 5000 is on -: downstream lies to the left, [4981, 5031).
    assert list(positives["start"]) == [1970, 4981, 7970, 10981]
    assert set(table["end"] - table["start"]) == {50}


def test_start_sites_of_a_gtf_are_those_of_its_transcripts(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "genes.gtf"
    ends = [(chrom, at + 1, at + 500) if strand == "+" else (chrom, at - 498, at + 1) for chrom, at, strand in SITES]
    path.write_text(
        "".join(
            f'{chrom}\tx\ttranscript\t{start}\t{end}\t.\t{site[2]}\t.\ttranscript_id "t{i}"\n'
            for i in range(2)  # every one twice
            for (chrom, start, end), site in zip(ends, SITES, strict=True)
        )
    )
    assert make(tss=None, gtf=path).table.equals(make().table)


def test_negatives_are_as_many_alike_in_gc_far_from_start_sites_and_on_the_same_chromosome(
    make: Make, genome: Genome
) -> None:
    table = make().table
    gc = {label: gc_fraction(oriented_codes(genome, rows)) for label, rows in table.groupby("label")}
    assert (table.groupby(["chrom", "label"]).size() == 4).all()
    assert np.abs(np.sort(gc[0]) - np.sort(gc[1])).mean() < 0.02
    for row in table[table["label"] == 0].itertuples():
        sites = 2000 + 3000 * np.arange(4)
        assert np.abs(sites - (row.start + 25)).min() >= DISTANCE


def test_of_substituted_promoters_eight_parts_of_twenty_are_kept() -> None:
    codes = np.full((2000, 300), 4, dtype=np.uint8)  # N: what is no N was replaced
    replaced = (substituted(codes, np.random.default_rng(0)) < 4).reshape(2000, 20, 15)
    assert (replaced.all(axis=2) == replaced.any(axis=2)).all()
    assert (replaced.any(axis=2).sum(axis=1) == 12).all()
    assert np.abs(replaced.any(axis=2).mean(axis=0) - 0.6).max() < 0.05
    drawn = substituted(codes, np.random.default_rng(0))
    assert np.abs(np.bincount(drawn[drawn < 4], minlength=4) / (drawn < 4).sum() - 0.25).max() < 0.01


def test_substituted_promoters_have_the_coordinates_of_what_they_are_made_from(make: Make, toy_world: World) -> None:
    table = make(negatives="substitution").table
    letters = read_fasta(toy_world.genome)
    for _, rows in table.groupby(["chrom", "start"]):
        negative, positive = rows.sort_values("label").itertuples()
        stretch = letters[positive.chrom][positive.start : positive.end]
        assert positive.sequence == (reverse_complement(stretch) if positive.strand == "-" else stretch)
        same = np.array(list(positive.sequence)) == np.array(list(negative.sequence))
        assert negative.strand == positive.strand and same.sum() >= 20  # 8 parts of 2 or 3 bases, and some by chance
        assert 0 < (~same).sum() <= 36


def test_given_negatives_are_resized_and_those_on_promoters_left_out(make: Make, tmp_path: Path) -> None:
    bed = tmp_path / "others.bed"
    rows = [("chr1", 100, "-"), ("chr1", 1960, "+"), ("chr3", 19_980, "."), ("chr2", 400, ".")]
    bed.write_text("".join(f"{chrom}\t{start}\t{start + 20}\tx\t0\t{strand}\n" for chrom, start, strand in rows))
    made = make(negatives=bed)
    negatives = made.table[made.table["label"] == 0]
    assert negatives[["chrom", "start", "end", "strand"]].to_numpy().tolist() == [
        ["chr1", 85, 135, "-"],
        ["chr2", 385, 435, "+"],
    ]
    assert made.notes["negatives left out, overlapping a promoter"] == 1
    assert made.notes["negatives left out, near an end or on unknown sequence"] == 1


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[tuple[Genome, pd.DataFrame]]:
    """Promoters with the best TATA box at various places before the start site at 500, alternately on either strand."""
    best = "".join("ACGT"[i] for i in TATA_COUNTS.argmax(axis=0))
    generator = np.random.default_rng(0)
    sequences, rows = {}, []
    for i, place in enumerate((-37, -36, -30, -20, -19, 5)):
        letters = random_bases(1000, generator).replace("T", "C")
        first = 500 + place - 1  # the first T of TATA is the matrix' second base
        letters = letters[:first] + best + letters[first + len(best) :]
        strand = "+-"[i % 2]
        sequences[f"c{place}"] = letters if strand == "+" else reverse_complement(letters)
        rows.append((f"c{place}", 500 if strand == "+" else 499, strand))
    with Genome(write_fasta(tmp_path / "boxes.fa", sequences)) as genome:
        yield genome, pd.DataFrame(rows, columns=["chrom", "site", "strand"])


def test_a_tata_box_is_found_where_it_belongs_and_nowhere_else(boxes: tuple[Genome, pd.DataFrame]) -> None:
    genome, sites = boxes
    found = dict(zip(sites["chrom"], has_tata_box(sites, genome), strict=True))
    assert found == {"c-37": False, "c-36": True, "c-30": True, "c-20": True, "c-19": False, "c5": False}


def test_the_score_is_that_of_a_plain_sum() -> None:
    """What counts is the product of how often each base occurs relative to the commonest one of its place."""
    weight = np.log(np.maximum(TATA_COUNTS, 1e-9) / TATA_COUNTS.max(axis=0))
    assert set(TATA_COUNTS.sum(axis=0)) == {389}
    best = encode("GTATAAAAGGCGGGG").codes
    assert decode(TATA_COUNTS.argmax(axis=0).astype(np.uint8)) == decode(best)
    assert weight[best, range(15)].sum() == 0


@pytest.mark.parametrize(
    ("tata", "expected"), [("with", ["c-20", "c-30", "c-36"]), ("without", ["c-19", "c-37", "c5"])]
)
def test_promoters_with_or_without_a_tata_box_can_be_chosen(
    tata: str, expected: list[str], boxes: tuple[Genome, pd.DataFrame], tmp_path: Path
) -> None:
    genome, sites = boxes
    bed = tmp_path / "sites.bed"
    rows = sites[["chrom", "site", "strand"]].itertuples(index=False)
    bed.write_text("".join(f"{chrom}\t{site}\t{site + 1}\tx\t0\t{strand}\n" for chrom, site, strand in rows))
    task = Promoter(out=Path("out"), genome=genome.path, tss=bed, tata=tata, negatives="substitution")
    made = task.windows(Sources(genome, None, [], []))
    assert sorted(set(made.table["chrom"])) == expected
    assert made.notes[f"promoters left out, having {'no' if tata == 'with' else 'a'} TATA box"] == 3


@pytest.mark.parametrize("tata", ["all", "with", "without"])
def test_no_given_negative_lies_on_a_promoter_of_either_kind(
    tata: str, boxes: tuple[Genome, pd.DataFrame], tmp_path: Path
) -> None:
    genome, sites = boxes
    bed, given = tmp_path / "sites.bed", tmp_path / "others.bed"
    rows = [*sites[["chrom", "site", "strand"]].itertuples(index=False)]
    bed.write_text("".join(f"{chrom}\t{site}\t{site + 1}\tx\t0\t{strand}\n" for chrom, site, strand in rows))
    given.write_text("".join(f"{chrom}\t{at}\t{at + 20}\n" for chrom, *_ in rows for at in (100, 480)))
    task = Promoter(
        out=Path("out"), genome=genome.path, tss=bed, tata=tata, negatives=given, upstream=60, downstream=40
    )
    made = task.windows(Sources(genome, None, [], []))
    assert set(made.table.loc[made.table["label"] == 0, "start"]) == {60}
    assert made.notes["negatives left out, overlapping a promoter"] == 6


def test_start_sites_without_strand_absent_or_given_twice_are_refused(make: Make, tmp_path: Path) -> None:
    bed = tmp_path / "bare.bed"
    bed.write_text("chr1\t100\t101\n")
    for options, message in (
        ({"tss": bed}, "strand in column 6"),
        ({"tss": None}, "--tss, --gtf: none of them is given"),
        ({"gtf": bed}, "--tss, --gtf: more than one of them is given"),
    ):
        with pytest.raises(UserError, match=message):
            make(**options)


def test_start_sites_of_another_assembly_are_refused(make: Make, tmp_path: Path) -> None:
    bed = tmp_path / "far.bed"
    bed.write_text("chr1\t30000\t30001\tx\t0\t+\n")
    with pytest.raises(UserError, match="no window around a start site lies on known sequence"):
        make(tss=bed)
