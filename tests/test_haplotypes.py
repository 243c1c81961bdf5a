import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_genotypes import indexed, random_calls, random_sites, write_cohort
from toys import random_bases, write_fasta

from genebert.haplotypes import CohortHaplotypes, read_haplotypes
from genebert.inputs.genome import Genome
from genebert.schema import decode

NEEDS_BCFTOOLS = pytest.mark.skipif(shutil.which("bcftools") is None, reason="bcftools is not installed")
LETTERS = random_bases(3_000, np.random.default_rng(7))
PEOPLE = ["anna", "ben", "cleo", "dora"]


@pytest.fixture
def genome(tmp_path: Path) -> Iterator[Genome]:
    with Genome(write_fasta(tmp_path / "genome.fa", {"chr1": LETTERS, "chr2": LETTERS[::-1]})) as opened:
        yield opened


def regions_at(*starts: int, width: int = 100, chrom: str = "chr1") -> pd.DataFrame:
    return pd.DataFrame({"chrom": chrom, "start": starts, "end": [start + width for start in starts]})


def sequences(cohort: CohortHaplotypes, sample: str, region: int, ploidy: int = 2) -> list[str]:
    """The personal sequences of an individual, sorted: haplotypes, and the reference for the others."""
    row = cohort.copies[cohort.samples.index(sample)].toarray()[0]
    held = np.flatnonzero((cohort.haplotypes["region"].to_numpy() == region) & (row > 0))
    carried = [decode(cohort.codes[i]) for i in held for _ in range(int(row[i]))]
    return sorted([*carried, *[decode(cohort.reference[region])] * (ploidy - len(carried))])


def by_bcftools(vcf: Path, fasta: Path, sample: str, side: int) -> dict[str, str]:
    """The sequences of a FASTA with what a haplotype carries."""
    command = ["bcftools", "consensus", "--fasta-ref", fasta, "--sample", sample, "--haplotype", str(side), vcf]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    records = text.split(">")[1:]
    return {record.split("\n", 1)[0]: record.split("\n", 1)[1].replace("\n", "") for record in records}


@NEEDS_BCFTOOLS
@pytest.mark.parametrize("seed", range(4))
def test_personal_sequences_are_those_of_bcftools_consensus(seed: int, genome: Genome, tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    starts, width, margin = (200, 400, 1_000, 2_500), 100, 300
    places = sorted(int(start + offset) for start in starts for offset in generator.integers(0, width, 40))
    lines = []
    for at, ref, alts in random_sites(LETTERS, places, generator):
        if not any(at < start < at + len(ref) for start in starts):
            calls = random_calls(len(alts), len(PEOPLE), generator)
            lines.append(f"1 {at + 1} . {ref} {','.join(alts)} {' '.join(calls)}")
    vcf = indexed(write_cohort(tmp_path / "v.vcf", PEOPLE, *lines))
    cohort = read_haplotypes(vcf, genome, regions_at(*starts, width=width))
    stretches = {f"1:{start + 1}-{start + width + margin}": LETTERS[start : start + width + margin] for start in starts}
    fasta = write_fasta(tmp_path / "stretches.fa", stretches)
    for sample in PEOPLE:
        sides = [by_bcftools(vcf, fasta, sample, side) for side in (1, 2)]
        for region, name in enumerate(stretches):
            assert sequences(cohort, sample, region) == sorted(side[name][:width] for side in sides)
    assert cohort.counts["overlapping"] > 0
