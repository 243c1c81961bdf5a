import gzip
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pytest
from toy_genotypes import indexed, random_calls, random_sites, write_cohort
from toys import random_bases, write_fasta

from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.inputs.genotypes import CalledAllele, GenotypeReader

LETTERS = random_bases(1_000, np.random.default_rng(3))
PEOPLE = ["anna", "ben", "cleo"]
EVERYWHERE = pd.DataFrame({"chrom": ["chr1", "chrX"], "start": [0, 0], "end": [1_000, 1_000]})


@pytest.fixture
def genome(tmp_path: Path) -> Iterator[Genome]:
    with Genome(write_fasta(tmp_path / "genome.fa", {"chr1": LETTERS, "chrX": LETTERS})) as opened:
        yield opened


def site(at: int, alt: str = "", chrom: str = "1", ref: str = "") -> str:
    """The columns CHROM to ALT of an SNV at a 1-based position; of another allele if one is given."""
    base = LETTERS[at - 1]
    return f"{chrom} {at} rs{at} {ref or base} {alt or 'ACGT'['ACGT'.index(base) - 1]}"


def read(
    path: Path, genome: Genome, samples: Sequence[str] | None = None, intervals: pd.DataFrame = EVERYWHERE
) -> tuple[list[CalledAllele], GenotypeReader]:
    reader = GenotypeReader(path, genome, 50, samples)
    return list(reader.alleles(intervals)), reader


def carriers(alleles: Sequence[CalledAllele]) -> list[list[int]]:
    return [allele.carriers.tolist() for allele in alleles]


def test_carriers_are_numbered_by_individual_and_haplotype(tmp_path: Path, genome: Genome) -> None:
    path = write_cohort(
        tmp_path / "v.vcf", PEOPLE, f"{site(5)} 0|1 1|0 1|1", f"{site(9)} 0|0 0|0 0|0", f"{site(9, 'T', 'X')} 1 0|1 0"
    )
    alleles, reader = read(path, genome)
    assert carriers(alleles) == [[1, 2, 4, 5], [], [0, 3]]
    assert [(allele.variant.chrom, allele.variant.position, allele.variant.id) for allele in alleles] == [
        ("chr1", 4, "rs5"),
        ("chr1", 8, "rs9"),
        ("chrX", 8, "rs9"),
    ]
    assert reader.samples == PEOPLE
    assert reader.counts == {
        "records": 3, "alleles": 3, "missing": 0, "half_calls": 0, "haploid": 2, "unphased": 0,
    }  # fmt: skip


def test_alleles_of_one_record_are_told_apart_and_what_cannot_be_used_is_skipped(
    tmp_path: Path, genome: Genome
) -> None:
    first, second, _ = (base for base in "ACGT" if base != LETTERS[19])
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{site(20, f'{first},<DEL>,{second},*')} 1|3 2|4 3|0")
    alleles, reader = read(path, genome)
    assert [(allele.variant.alt, allele.carriers.tolist()) for allele in alleles] == [(first, [0]), (second, [1, 4])]
    assert reader.skipped.counts == {"symbolic, missing or ambiguous allele": 2}


def test_more_than_nine_alleles(tmp_path: Path, genome: Genome) -> None:
    inserted = [LETTERS[19] + "A" * i for i in range(1, 13)]
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{site(20, ','.join(inserted))} 1|12 10|0 11|.")
    found = {allele.variant.alt: allele.carriers.tolist() for allele in read(path, genome)[0] if len(allele.carriers)}
    assert found == {inserted[0]: [0], inserted[11]: [1], inserted[9]: [2], inserted[10]: [4]}


def test_missing_half_called_haploid_and_unphased_genotypes(tmp_path: Path, genome: Genome) -> None:
    people = [f"p{i}" for i in range(9)]
    path = write_cohort(tmp_path / "v.vcf", people, f"{site(5)} .|. ./. . ./1 1|. 1 0/1 1/1 0/0")
    (allele,), reader = read(path, genome)
    assert allele.carriers.tolist() == [7, 8, 10, 13, 14, 15]
    assert allele.unknown.tolist() == [0, 1, 2, 3, 4, 5, 6, 9, 11]  # one of a half-call, and of a haploid genotype
    assert allele.missing.tolist() == [0, 1, 2]
    assert {name: reader.counts[name] for name in ("missing", "half_calls", "haploid", "unphased")} == {
        "missing": 3,
        "half_calls": 2,
        "haploid": 1,
        "unphased": 1,  # of 1/1 and 0/0 the order does not matter
    }


def test_further_fields_are_passed_over(tmp_path: Path, genome: Genome) -> None:
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{site(5)} FORMAT=GT:DP:AD 0|1:7:3,4 1:5:. .")
    assert carriers(read(path, genome)[0]) == [[1, 2]]


def test_chosen_samples_come_in_the_order_asked_for(tmp_path: Path, genome: Genome) -> None:
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{site(5)} 0|1 0|0 1|1")
    alleles, reader = read(path, genome, ["cleo", "anna"])
    assert carriers(alleles) == [[0, 1, 3]]
    assert reader.samples == ["cleo", "anna"]


def copies_of(path: Path, folder: Path) -> dict[str, Path]:
    """The same file without an index, with one, gzipped, and as BCF with one."""
    plain_gzip, bcf = folder / "plain.vcf.gz", folder / "v.bcf"
    plain_gzip.write_bytes(gzip.compress(path.read_bytes()))
    with pysam.VariantFile(str(path)) as file, pysam.VariantFile(str(bcf), "wb", header=file.header) as copy:
        for record in file:
            copy.write(record)
    pysam.tabix_index(str(bcf), preset="bcf", force=True, csi=True)
    return {"plain": path, "index": indexed(path), "gzip": plain_gzip, "bcf": bcf}


def test_with_and_without_an_index_the_same_is_read(tmp_path: Path, genome: Genome) -> None:
    """A deletion that reaches into a second interval must not be read twice; one from outside must not be missed."""
    generator = np.random.default_rng(0)
    places = sorted(generator.integers(0, 900, 150).tolist())
    sites = [*random_sites(LETTERS, places, generator), (295, LETTERS[295:340], [LETTERS[295]])]
    lines = [
        f"1 {at + 1} . {ref} {','.join(alts)} {' '.join(random_calls(len(alts), len(PEOPLE), generator))}"
        for at, ref, alts in sorted(sites)
    ]
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, *lines)
    intervals = pd.DataFrame({"chrom": "chr1", "start": [100, 300, 320, 700], "end": [150, 310, 330, 800]})
    expected = [
        (at + 1, alt)
        for at, ref, alts in sorted(sites)
        for alt in alts
        if any(at < end and at + len(ref) > start for _, start, end in intervals.itertuples(index=False))
    ]
    for kind, copy in copies_of(path, tmp_path).items():
        alleles, reader = read(copy, genome, intervals=intervals)
        assert [(a.variant.position + 1, a.variant.alt) for a in alleles] == expected, kind
        every = carriers(alleles), [a.missing.tolist() for a in alleles], reader.counts
        if kind == "plain":
            first = every
        assert every == first, kind


def test_a_chromosome_that_the_file_lacks_has_no_alleles(tmp_path: Path, genome: Genome) -> None:
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{site(5)} 0|1 0|0 1|1")
    only = EVERYWHERE[EVERYWHERE["chrom"] == "chrX"]
    for copy in (path, indexed(path)):
        assert read(copy, genome, intervals=only)[0] == []


def test_an_allele_of_several_records_is_carried_if_one_says_so_and_missing_if_none_knows(
    tmp_path: Path, genome: Genome
) -> None:
    people = [*PEOPLE, "dora"]
    path = write_cohort(tmp_path / "v.vcf", people, f"{site(5)} 0|1 .|. 1|. .|.", f"{site(5)} 0|0 0|1 .|1 .|.")
    first, second = read(path, genome)[0]
    for merged in (first.merged(second), second.merged(first)):
        assert (merged.carriers.tolist(), merged.unknown.tolist()) == ([1, 3, 4, 5], [6, 7])
        assert merged.missing.tolist() == [3]
        assert merged.carriers.dtype == merged.unknown.dtype == merged.missing.dtype == np.int32


def test_two_names_of_one_chromosome_are_both_read_by_index_and_refused_without(tmp_path: Path, genome: Genome) -> None:
    path = write_cohort(
        tmp_path / "v.vcf",
        PEOPLE,
        *(f"{site(at, chrom='chr1')} 0|1 0|0 0|0" for at in (5, 30, 90)),
        *(f"{site(at)} 0|0 1|0 0|0" for at in (7, 50)),
        f"{site(7, chrom='X')} 0|0 0|0 0|1",
    )
    intervals = pd.DataFrame({"chrom": ["chr1", "chr1", "chrX"], "start": [0, 40, 0], "end": [35, 60, 20]})
    for copy in (copies := copies_of(path, tmp_path))["index"], copies["bcf"]:
        found = [
            (a.variant.chrom, a.variant.position + 1, a.carriers.tolist())
            for a in read(copy, genome, intervals=intervals)[0]
        ]
        assert found == [("chr1", 5, [1]), ("chr1", 7, [2]), ("chr1", 30, [1]), ("chr1", 50, [2]), ("chrX", 7, [5])]
    for copy in (copies["plain"], copies["gzip"]):
        refused(copy, genome, "record 4", "it names one chromosome chr1 and 1", "bcftools annotate --rename-chrs")


def test_a_second_name_that_only_the_header_has_is_no_matter(tmp_path: Path, genome: Genome) -> None:
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{site(5)} 0|1 0|0 1|1")
    for first, second in (("1", "chr1"), ("chr1", "1")):
        header = f"##contig=<ID={first}>\n##contig=<ID={second}>\n"
        path.write_text(path.read_text().replace("##contig=<ID=1>\n", header))
        for copy in copies_of(path, tmp_path).values():
            assert carriers(read(copy, genome)[0]) == [[1, 4, 5]]
        path.write_text(path.read_text().replace(header, "##contig=<ID=1>\n"))


def refused(path: Path, genome: Genome, *fragments: str, samples: Sequence[str] | None = None) -> None:
    with pytest.raises(UserError) as error:
        read(path, genome, samples)[1].check_assembly()
    assert [fragment for fragment in (path.name, *fragments) if fragment not in str(error.value)] == []


def test_a_file_of_sites_only(tmp_path: Path, genome: Genome) -> None:
    path = write_cohort(tmp_path / "sites.vcf", [], site(5))
    refused(path, genome, "it has no samples, only sites", "a column of genotypes (GT) per individual")


def test_records_without_gt(tmp_path: Path, genome: Genome) -> None:
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{site(5)} 0|1 0|0 1|1", f"{site(7)} FORMAT=DP 5 6 7")
    refused(path, genome, "record 1:7", "its FORMAT is DP, and does not begin with GT", "Give a VCF with genotypes")


def test_samples_that_are_named_twice(tmp_path: Path, genome: Genome) -> None:
    """htslib refuses the file as one that is no VCF; the reason is told here."""
    path = write_cohort(tmp_path / "v.vcf", ["anna", "ben", "anna", "ben"], f"{site(5)} 0|1 0|0 1|1 0|0")
    for copy in (path, Path(f"{path}.gz")):
        copy.write_bytes(path.read_bytes() if copy == path else gzip.compress(path.read_bytes()))
        refused(copy, genome, "samples are named more than once: anna, ben", "Rename or remove")


def test_samples_that_the_file_lacks_are_all_named(tmp_path: Path, genome: Genome) -> None:
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{site(5)} 0|1 0|0 1|1")
    asked = ["anna", *(f"x{i}" for i in range(20))]
    refused(
        path, genome, "20 of 21 samples are not in it", *asked[1:], "It has 3, such as anna, ben, cleo", samples=asked
    )


def test_polyploid_genotypes(tmp_path: Path, genome: Genome) -> None:
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{site(5)} 0|1 0/0/1 1|1")
    refused(
        path, genome, "record 1:5", "the genotype of sample ben is 0/0/1, of 3 alleles", "phased genotypes of diploid"
    )


@pytest.mark.parametrize(
    ("order", "what"),
    [([("1", 9), ("1", 5)], "1:5 comes after 1:9"), ([("1", 5), ("X", 7), ("1", 9)], "1:9 comes after X:7")],
)
def test_unsorted_records(order: list[tuple[str, int]], what: str, tmp_path: Path, genome: Genome) -> None:
    lines = [f"{site(at, chrom=chrom)} 0|1 0|0 1|1" for chrom, at in order]
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, *lines)
    refused(path, genome, f"record {len(order)}", what, f"bcftools sort {path}")


@pytest.mark.parametrize(
    ("call", "fragments"),
    [
        ("0|3", ("record 1:5", "sample cleo has allele 3, and the record has 2 alternate alleles")),
        ("x|0", ("record 2", "it cannot be read", "bcftools view")),
        ("0|", ("record 2", "it cannot be read", "bcftools view")),
    ],
)
def test_malformed_genotypes(call: str, fragments: Sequence[str], tmp_path: Path, genome: Genome) -> None:
    others = ",".join(base for base in "ACGT" if base != LETTERS[4])[:3]
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{site(3)} 0|1 0|0 1|1", f"{site(5, others)} 0|1 0|0 {call}")
    refused(path, genome, *fragments)


def mismatched(tmp_path: Path, wrong: int, right: int) -> Path:
    """SNVs, the first of which have neither the genome's base nor its complement as REF."""
    lines = []
    for at in range(1, wrong + right + 1):
        base = LETTERS[at - 1]
        ref, alt = ("CG" if base in "AT" else "AT") if at <= wrong else (base, "")
        lines.append(f"{site(at, alt, ref=ref)} 0|1 0|0 1|1")
    return write_cohort(tmp_path / "v.vcf", PEOPLE, *lines)


def test_a_file_of_another_assembly(tmp_path: Path, genome: Genome) -> None:
    path = mismatched(tmp_path, 3, 200)
    refused(
        path,
        genome,
        "the REF of 3 of 203 alleles (1.5%) is not what the genome",
        str(genome.path),
        f"where it has {LETTERS[0]}",
        "assembl",
    )


@pytest.mark.parametrize(("wrong", "right"), [(2, 198), (49, 50)])
def test_few_mismatches_or_few_alleles_are_skipped(wrong: int, right: int, tmp_path: Path, genome: Genome) -> None:
    alleles, reader = read(mismatched(tmp_path, wrong, right), genome)
    reader.check_assembly()
    assert (len(alleles), reader.skipped.counts["REF mismatch"]) == (right, wrong)


def test_an_absent_file_and_a_truncated_one(tmp_path: Path, genome: Genome) -> None:
    refused(tmp_path / "absent.vcf", genome, "No such file")
    generator = np.random.default_rng(0)
    lines = [f"{site(5)} {' '.join(random_calls(1, 3, generator))}" for _ in range(20_000)]
    whole = indexed(write_cohort(tmp_path / "v.vcf", PEOPLE, *lines))
    cut = tmp_path / "cut.vcf.gz"
    cut.write_bytes(whole.read_bytes()[:-3000])
    refused(cut, genome, "may be truncated", "bcftools view")


def test_an_index_older_than_its_file_is_not_used(
    tmp_path: Path, genome: Genome, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records that it does not know of were once left out without a word."""
    old = indexed(write_cohort(tmp_path / "old.vcf", PEOPLE, f"{site(5)} 0|1 1|0 1|1"))
    new = indexed(write_cohort(tmp_path / "new.vcf", PEOPLE, *(f"{site(at)} 0|1 1|0 1|1" for at in (5, 9, 500))))
    shutil.copyfile(f"{old}.tbi", f"{new}.tbi")
    os.utime(f"{new}.tbi", (1, 1))
    assert len(read(new, genome)[0]) == 3
    assert "its index is older than it is" in " ".join(capsys.readouterr().err.split())
