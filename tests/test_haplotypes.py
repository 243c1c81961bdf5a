from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_genotypes import (
    NEEDS_BCFTOOLS,
    by_bcftools,
    indexed,
    random_calls,
    random_sites,
    sequences,
    without_padding,
    write_cohort,
)
from toys import random_bases, write_fasta

from genebert.errors import UserError
from genebert.haplotypes import compatible_edits, distinct_rows, edited, read_haplotypes
from genebert.inputs.genome import Genome
from genebert.risk.design import Genotypes, burden
from genebert.schema import Variant, decode

LETTERS = random_bases(3_000, np.random.default_rng(7))
PEOPLE = ["anna", "ben", "cleo", "dora"]


@pytest.fixture
def genome(tmp_path: Path) -> Iterator[Genome]:
    with Genome(write_fasta(tmp_path / "genome.fa", {"chr1": LETTERS, "chr2": LETTERS[::-1]})) as opened:
        yield opened


def regions_at(*starts: int, width: int = 100, chrom: str = "chr1") -> pd.DataFrame:
    return pd.DataFrame({"chrom": chrom, "start": starts, "end": [start + width for start in starts]})


@NEEDS_BCFTOOLS
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_personal_sequences_are_those_of_bcftools_consensus(
    seed: int, padded: bool, genome: Genome, tmp_path: Path
) -> None:
    """Given the same file; or, where alleles are padded, as they are in records of several, one without padding."""
    generator = np.random.default_rng(seed)
    starts, width, margin = (200, 400, 1_000, 2_500), 100, 300
    places = sorted(int(start + offset) for start in starts for offset in generator.integers(0, width, 40))
    lines = []
    for at, ref, alts in random_sites(LETTERS, places, generator):
        if not any(at < start < at + len(ref) for start in starts) and (padded or len(alts) == 1):
            calls = random_calls(len(alts), len(PEOPLE), generator)
            lines.append(f"1 {at + 1} . {ref} {','.join(alts)} {' '.join(calls)}")
    vcf = indexed(write_cohort(tmp_path / "v.vcf", PEOPLE, *lines))
    cohort = read_haplotypes(vcf, genome, regions_at(*starts, width=width))
    if padded:
        short = sorted(chain(*map(without_padding, lines)), key=lambda line: int(line.split()[1]))
        vcf = indexed(write_cohort(tmp_path / "short.vcf", PEOPLE, *short))
    stretches = {f"1:{start + 1}-{start + width + margin}": LETTERS[start : start + width + margin] for start in starts}
    fasta = write_fasta(tmp_path / "stretches.fa", stretches)
    for sample in PEOPLE:
        sides = [by_bcftools(vcf, fasta, sample, side) for side in (1, 2)]
        for region, name in enumerate(stretches):
            assert sequences(cohort, sample, region) == sorted(side[name][:width] for side in sides)
    assert cohort.counts["overlapping"] > 0


ALLELES = {
    "snv": Variant("c", 3, "D", "x"),
    "snv there too": Variant("c", 3, "D", "y"),
    "deletion after it": Variant("c", 3, "DEF", "D"),
    "insertion after it": Variant("c", 3, "D", "Dii"),
    "inside the deletion": Variant("c", 4, "E", "z"),
    "at the deletion's end": Variant("c", 5, "F", "Fkk"),
    "after the deletion": Variant("c", 6, "G", "w"),
}


@pytest.mark.parametrize(
    ("carried", "sequence"),
    [
        ("snv", "ABCxEFGHIJ"),
        ("snv, snv there too", "ABCxEFGHIJ"),
        ("snv, deletion after it", "ABCxGHIJ"),
        ("snv, insertion after it", "ABCxiiEFGHIJ"),
        ("deletion after it, inside the deletion, after the deletion", "ABCDwHIJ"),
        ("deletion after it, at the deletion's end", "ABCDkkGHIJ"),
        ("insertion after it, inside the deletion", "ABCDiizFGHIJ"),
        ("deletion after it, insertion after it", "ABCDGHIJ"),
    ],
)
def test_an_allele_that_overlaps_one_before_it_is_left_out(carried: str, sequence: str) -> None:
    names = list(ALLELES)
    edits = compatible_edits(list(ALLELES.values()), [names.index(name) for name in carried.split(", ")])
    assert edited("ABCDEFGHIJ", 0, edits) == sequence


def test_two_insertions_at_one_place_are_not_both_applied() -> None:
    twice = [ALLELES["insertion after it"]] * 2
    assert len(compatible_edits(twice, [0, 1])) == 1


def test_equal_rows_are_found_among_any_number_of_columns() -> None:
    generator = np.random.default_rng(0)
    for columns in (1, 8, 9, 64, 65, 200):
        marks = generator.random((40, columns))[generator.integers(0, 40, 300)] < 0.5
        first, sets = distinct_rows(marks)
        _, inverse = np.unique(marks, axis=0, return_inverse=True)
        assert len(first) == inverse.max() + 1
        assert sorted(np.concatenate(sets).tolist()) == list(range(300))
        assert all(len(set(inverse[rows])) == 1 and rows[0] == one for one, rows in zip(first, sets, strict=True))


def snv(at: int, chrom: str = "chr1") -> str:
    """The columns CHROM to ALT of an SNV at a 0-based position of chr1."""
    return f"{chrom} {at + 1} rs{at} {LETTERS[at]} {'ACGT'['ACGT'.index(LETTERS[at]) - 1]}"


def test_every_distinct_haplotype_is_there_once(genome: Genome, tmp_path: Path) -> None:
    path = write_cohort(
        tmp_path / "v.vcf",
        PEOPLE,
        f"{snv(210)} 1|0 1|1 0|0 .|.",
        f"{snv(220)} 1|0 0|1 0|1 0/1",
        f"{snv(900)} 1|1 1|1 1|1 1|1",
        f"{snv(1_050)} 0|0 0|0 0|0 0|0",
    )
    cohort = read_haplotypes(path, genome, regions_at(1_000, 200))
    first, second = snv(210).split(), snv(220).split()
    names = [f"chr1:{words[1]}:{words[3]}>{words[4]}" for words in (first, second)]
    assert cohort.haplotypes.to_dict("list") == {
        "region": [1, 1, 1],
        "variants": [names[0], ",".join(names), names[1]],
        "n_variants": [1, 2, 1],
        "copies": [1, 2, 2],
    }
    assert cohort.copies.toarray().tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert cohort.variants.to_dict("list") == {
        "name": names,
        "id": ["rs210", "rs220"],
        "region": [1, 1],
        "chrom": ["chr1", "chr1"],
        "position": [211, 221],
        "ref": [first[3], second[3]],
        "alt": [first[4], second[4]],
        "copies": [3, 4],
        "alleles": [6, 8],
        "missing": [1, 0],
    }
    assert cohort.dosage.toarray().tolist() == [[1, 1], [2, 1], [0, 1], [0, 1]]
    assert cohort.missing.toarray().tolist() == [[False, False]] * 3 + [[True, False]]
    assert cohort.regions["name"].tolist() == ["chr1:1000-1100", "chr1:200-300"]
    assert [decode(row) for row in cohort.reference] == [LETTERS[1_000:1_100], LETTERS[200:300]]
    both = LETTERS[200:210] + first[4] + LETTERS[211:220] + second[4] + LETTERS[221:300]
    assert decode(cohort.codes[1]) == both
    expected = {"records": 3, "alleles": 3, "missing": 1, "unphased": 1, "carried_by_none": 1, "overlapping": 0}
    assert {name: cohort.counts[name] for name in expected} == expected
    types = (cohort.codes.dtype, cohort.copies.dtype, cohort.dosage.dtype, cohort.missing.dtype)
    assert types == (np.uint8, np.float32, np.float32, np.bool_)


def test_frequencies_are_among_the_alleles_that_are_known(genome: Genome, tmp_path: Path) -> None:
    """Of an X chromosome one male, one female, a half-call and a call that is missing."""
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{snv(210)} 1 0|0 1|. .|.", f"{snv(220)} 0|1 0|1 0|1 1|1")
    cohort = read_haplotypes(path, genome, regions_at(200))
    assert cohort.variants["alleles"].tolist() == [4, 8]
    assert cohort.variants["missing"].tolist() == [1, 0]
    assert Genotypes.of(cohort).frequency().tolist() == [2 / 4, 5 / 8]


def test_sets_of_alleles_that_give_one_sequence_are_one_haplotype(genome: Genome, tmp_path: Path) -> None:
    """The deletion of one of two equal bases, which two records spell differently."""
    at = next(i for i in range(220, 280) if LETTERS[i] == LETTERS[i + 1] != LETTERS[i - 1])
    before, base = LETTERS[at - 1], LETTERS[at]
    lines = [
        f"chr1 {at} . {before}{base} {before} 1|0 0|0 0|0 0|0",
        f"chr1 {at + 1} . {base}{base} {base} 0|1 1|0 0|0 0|0",
    ]
    cohort = read_haplotypes(write_cohort(tmp_path / "v.vcf", PEOPLE, *lines), genome, regions_at(200))
    name = f"chr1:{at + 1}:{base}{base}>{base}"
    assert cohort.haplotypes.to_numpy().tolist() == [[0, name, 1, 3]]
    assert [decode(row) for row in cohort.codes] == [LETTERS[200:at] + LETTERS[at + 1 : 301]]
    assert cohort.copies.toarray().tolist() == [[2], [1], [0], [0]]
    assert cohort.dosage.toarray().tolist() == [[1, 1], [0, 1], [0, 0], [0, 0]]


def test_a_variant_of_two_records_counts_once(genome: Genome, tmp_path: Path) -> None:
    path = write_cohort(
        tmp_path / "v.vcf",
        PEOPLE,
        f"{snv(210)} 0|0 .|. 1|0 1|1",
        f"{snv(210)} .|. 0|1 .|. .|.",
        f"{snv(210)} .|. .|. 1|0 0|1",
        f"{snv(220)} 0|1 0|0 0|0 0|0",
    )
    cohort = read_haplotypes(path, genome, regions_at(200))
    assert cohort.variants["position"].tolist() == [211, 221]
    assert cohort.variants["copies"].tolist() == [4, 1]
    assert cohort.dosage.toarray().tolist() == [[0, 1], [1, 0], [1, 0], [2, 0]]
    assert cohort.missing.nnz == 0
    assert cohort.haplotypes["copies"].tolist() == [4, 1]
    assert burden(cohort).toarray().tolist() == [[1], [1], [1], [2]]
    assert Genotypes.of(cohort).dosage.toarray().tolist() == cohort.dosage.toarray().tolist()
    assert {name: cohort.counts[name] for name in ("alleles", "repeated", "carried_by_none")} == {
        "alleles": 4,
        "repeated": 2,
        "carried_by_none": 0,
    }


def test_an_unphased_variant_of_two_records_is_not_carried_twice(genome: Genome, tmp_path: Path) -> None:
    """The order of 0/1 and 1/0 says nothing; that of phased calls does, and so does 1/1."""
    path = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{snv(210)} 0/1 0|1 0/1 0/1", f"{snv(210)} 1/0 1|0 1/1 0|1")
    cohort = read_haplotypes(path, genome, regions_at(200))
    assert cohort.dosage.toarray().tolist() == [[1], [2], [2], [1]]
    assert cohort.copies.toarray().tolist() == [[1], [2], [2], [1]]


def test_bases_that_pad_an_allele_exclude_no_other_one(genome: Genome, tmp_path: Path) -> None:
    """An SNV that stands beside a deletion, and another one in what the deletion deletes."""
    ref = LETTERS[210:214]
    first, second = ("A" if base != "A" else "C" for base in (ref[0], ref[2]))
    lines = [
        f"chr1 211 . {ref} {ref[0]},{first}{ref[1:]} 0|2 0|1 2|0 0|0",
        f"chr1 213 . {ref[2]} {second} 0|1 0|0 0|0 0|0",
    ]
    cohort = read_haplotypes(write_cohort(tmp_path / "v.vcf", PEOPLE, *lines), genome, regions_at(200))
    deletion = f"chr1:211:{ref}>{ref[0]}"
    snvs = [f"chr1:211:{ref[0]}>{first}", f"chr1:213:{ref[2]}>{second}"]
    assert cohort.counts["overlapping"] == 0
    assert sorted(cohort.haplotypes["variants"]) == sorted([deletion, snvs[0], ",".join(snvs)])
    assert set(cohort.variants["name"]) == {deletion, *snvs}


def test_an_allele_that_changes_nothing_in_a_region_is_not_in_it(genome: Genome, tmp_path: Path) -> None:
    """The padding reaches into it, and the SNV lies behind it."""
    ref, last = LETTERS[298:303], "A" if LETTERS[302] != "A" else "C"
    line = f"chr1 299 . {ref} {ref[0]},{ref[:4]}{last} 0|2 0|1 0|0 0|0"
    cohort = read_haplotypes(write_cohort(tmp_path / "v.vcf", PEOPLE, line), genome, regions_at(200))
    assert cohort.variants["name"].tolist() == [f"chr1:299:{ref}>{ref[0]}"]


def test_indels_at_the_borders_of_a_region(genome: Genome, tmp_path: Path) -> None:
    def site(start: int, end: int, alt: str) -> str:
        return f"chr1 {start + 1} . {LETTERS[start:end]} {alt}"

    path = write_cohort(
        tmp_path / "v.vcf",
        ["inside", "long", "left", "right", "silent", "male"],
        f"{site(196, 203, LETTERS[196])} 0|0 0|0 1|1 0|0 0|0 0",
        f"{site(199, 200, LETTERS[199] + 'TTT')} 1|1 1|1 1|1 1|1 1|1 1",
        f"{site(210, 215, LETTERS[210])} 1|1 0|0 0|0 0|0 0|0 0",
        f"{site(250, 251, LETTERS[250] + 'ACGTACGT')} 0|0 1|1 0|0 0|0 0|0 1",
        f"{site(297, 310, LETTERS[297])} 0|0 0|0 0|0 1|1 0|0 0",
        f"{site(299, 305, LETTERS[299])} 0|0 0|0 0|0 0|0 1|1 0",
    )
    cohort = read_haplotypes(path, genome, regions_at(200))
    found = {name: set(sequences(cohort, name, 0)) for name in cohort.samples if name != "male"}
    assert found == {
        "inside": {LETTERS[200:211] + LETTERS[215:304]},
        "long": {LETTERS[200:251] + "ACGTACGT" + LETTERS[251:292]},
        "left": {LETTERS[203:303]},
        "right": {LETTERS[200:298] + LETTERS[310:312]},
        "silent": {LETTERS[200:300]},
    }
    assert cohort.copies[cohort.samples.index("male")].sum() == 1
    assert cohort.copies[cohort.samples.index("silent")].sum() == 0
    assert cohort.dosage[cohort.samples.index("silent")].sum() == 2


def test_a_region_at_the_end_of_a_chromosome_continues_with_n(genome: Genome, tmp_path: Path) -> None:
    path = write_cohort(tmp_path / "v.vcf", ["p"], f"chr1 2951 . {LETTERS[2_950:2_955]} {LETTERS[2_950]} 1|1")
    cohort = read_haplotypes(path, genome, regions_at(2_900))
    assert decode(cohort.codes[0]) == LETTERS[2_900:2_951] + LETTERS[2_955:] + "NNNN"


def random_cohort(folder: Path, people: int = 30) -> Path:
    generator = np.random.default_rng(5)
    sites = random_sites(LETTERS, sorted(generator.integers(0, 2_900, 200).tolist()), generator)
    lines = [
        f"chr1 {at + 1} . {ref} {','.join(alts)} {' '.join(random_calls(len(alts), people, generator))}"
        for at, ref, alts in sites
    ]
    return write_cohort(folder / "v.vcf", [f"p{i}" for i in range(people)], *lines)


def test_regions_may_overlap_and_come_in_any_order(genome: Genome, tmp_path: Path) -> None:
    vcf = random_cohort(tmp_path)
    starts = [1_500, 100, 150, 700, 140]
    together = read_haplotypes(vcf, genome, regions_at(*starts))
    for region, start in enumerate(starts):
        alone = read_haplotypes(vcf, genome, regions_at(start))
        rows = np.flatnonzero(together.haplotypes["region"] == region)
        assert together.haplotypes["variants"].iloc[rows].tolist() == alone.haplotypes["variants"].tolist()
        assert np.array_equal(together.codes[rows], alone.codes)
        assert (together.copies[:, rows] != alone.copies).nnz == 0
        columns = np.flatnonzero(together.variants["region"] == region)
        assert together.variants["name"].iloc[columns].tolist() == alone.variants["name"].tolist()
        assert (together.dosage[:, columns] != alone.dosage).nnz == 0
        assert (together.missing[:, columns] != alone.missing).nnz == 0
    assert (np.diff(together.haplotypes["region"]) >= 0).all() and (np.diff(together.variants["region"]) >= 0).all()


def test_an_index_and_the_choice_of_samples_change_nothing_else(genome: Genome, tmp_path: Path) -> None:
    vcf = random_cohort(tmp_path)
    regions = regions_at(100, 400, 700)
    whole = read_haplotypes(vcf, genome, regions)
    by_index = read_haplotypes(indexed(vcf), genome, regions)
    pd.testing.assert_frame_equal(whole.haplotypes, by_index.haplotypes)
    pd.testing.assert_frame_equal(whole.variants, by_index.variants)
    assert np.array_equal(whole.codes, by_index.codes) and (whole.copies != by_index.copies).nnz == 0
    assert whole.counts == by_index.counts
    some = read_haplotypes(vcf, genome, regions, ["p7", "p2"])
    for sample in some.samples:
        for region in range(len(regions)):
            assert sequences(some, sample, region) == sequences(whole, sample, region)


def refused(genome: Genome, vcf: Path, regions: pd.DataFrame, *fragments: str) -> None:
    with pytest.raises(UserError) as error:
        read_haplotypes(vcf, genome, regions)
    assert [fragment for fragment in fragments if fragment not in str(error.value)] == []


def test_nothing_in_the_regions(genome: Genome, tmp_path: Path) -> None:
    vcf = write_cohort(
        tmp_path / "v.vcf",
        PEOPLE,
        f"{snv(210)} 0|0 0|0 0|0 0|0",
        "chr1 222 . N <DEL> 0|1 0|0 0|0 0|0",
        f"{snv(900)} 1|1 1|1 1|1 1|1",
    )
    what = "no allele in the 1 regions can be used: 1 symbolic, missing or ambiguous allele, 1 carried by none"
    refused(genome, vcf, regions_at(200), "v.vcf", what, "of one assembly")
    refused(genome, vcf, regions_at(600), "v.vcf", "it has none there")
    refused(genome, vcf, regions_at(200, chrom="chr7"), "genome.fa", "it has no chromosome chr7, where regions are")


def test_another_assembly(genome: Genome, tmp_path: Path) -> None:
    wrong = [("C", "G") if LETTERS[at] in "AT" else ("A", "T") for at in range(200, 205)]
    lines = [f"chr1 {at} . {ref} {alt} 0|1 0|0 1|1 0|0" for at, (ref, alt) in enumerate(wrong, 201)]
    lines += [f"{snv(at)} 0|1 0|0 1|1 0|0" for at in range(205, 300)]
    vcf = write_cohort(tmp_path / "v.vcf", PEOPLE, *lines)
    refused(genome, vcf, regions_at(200), "v.vcf", "the REF of 5 of 100 alleles (5.0%)", "genome.fa", "assembl")


def test_regions_of_different_widths(genome: Genome, tmp_path: Path) -> None:
    regions = pd.DataFrame({"chrom": "chr1", "start": [0, 200], "end": [100, 301]})
    with pytest.raises(ValueError, match="one width"):
        read_haplotypes(random_cohort(tmp_path), genome, regions)


def test_unphased_genotypes_give_one_warning(
    genome: Genome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vcf = write_cohort(tmp_path / "v.vcf", PEOPLE, f"{snv(210)} 0/1 1/0 0|1 1/1", f"{snv(220)} 0/1 0/0 1/1 0|0")
    cohort = read_haplotypes(vcf, genome, regions_at(200))
    assert cohort.counts["unphased"] == 3
    written = capsys.readouterr().err
    assert written.count("warning") == 1
    assert "3 genotypes with two different alleles are not phased" in written and str(vcf) in written
    assert cohort.copies[0].toarray().tolist() == [[0, 1, 0]]  # both on the second haplotype, as given
