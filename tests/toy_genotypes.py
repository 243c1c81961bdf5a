"""Small cohorts: VCFs with genotypes, written line by line or drawn at random; and what bcftools makes of them."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pysam
import pytest
from toys import random_bases

from genebert.haplotypes import CohortHaplotypes
from genebert.schema import decode

NEEDS_BCFTOOLS = pytest.mark.skipif(shutil.which("bcftools") is None, reason="bcftools is not installed")

HEADER = '##fileformat=VCFv4.2\n##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"


def write_cohort(path: Path, samples: Sequence[str], *lines: str) -> Path:
    """Write a VCF; a line is "chrom pos id ref alt" and then a genotype per sample, or "FORMAT=..." and those."""
    names = "".join(f"\t{name}" for name in samples)
    contigs = dict.fromkeys(f"##contig=<ID={line.split()[0]}>\n" for line in lines)
    text = HEADER + "".join(contigs) + COLUMNS + (f"\tFORMAT{names}" if samples else "") + "\n"
    for line in lines:
        site, calls = line.split()[:5], line.split()[5:]
        chosen = calls.pop(0).removeprefix("FORMAT=") if calls and calls[0].startswith("FORMAT=") else "GT"
        text += "\t".join([*site, ".", ".", ".", *([chosen, *calls] if samples else [])]) + "\n"
    path.write_text(text)
    return path


def indexed(path: Path) -> Path:
    """Compress a sorted VCF, and index it."""
    packed = Path(f"{path}.gz")
    pysam.tabix_compress(str(path), str(packed), force=True)
    pysam.tabix_index(str(packed), preset="vcf", force=True)
    return packed


def random_sites(
    letters: str, places: Iterable[int], generator: np.random.Generator, longest: int = 6
) -> list[tuple[int, str, list[str]]]:
    """Draw (0-based position, REF, ALTs): SNVs, insertions, deletions, substitutions of several bases, or several."""
    sites = []
    for at in places:
        kind = generator.choice(
            ["snv", "insertion", "deletion", "substitution", "several"], p=[0.4, 0.2, 0.2, 0.1, 0.1]
        )
        size = int(generator.integers(1, longest))
        other = "ACGT"["ACGT".index(letters[at]) - int(generator.integers(1, 4))]
        if kind == "snv":
            sites.append((at, letters[at], [other]))
        elif kind == "insertion":
            sites.append((at, letters[at], [letters[at] + random_bases(size, generator)]))
        elif kind == "deletion":
            sites.append((at, letters[at : at + size + 1], [letters[at]]))
        elif kind == "substitution":
            sites.append((at, letters[at : at + 2], [other + "ACGT"["ACGT".index(letters[at + 1]) - 1]]))
        else:
            ref = letters[at : at + size + 1]
            sites.append((at, ref, [letters[at], other + ref[1:], ref + random_bases(size, generator)]))
    return sites


def without_padding(line: str) -> list[str]:
    """A line of `write_cohort` as one line per allele, without the bases at either end that it shares with REF."""
    chrom, position, name, ref, alts, *calls = line.split()
    lines = []
    for number, alt in enumerate(alts.split(","), 1):
        most = min(len(ref), len(alt)) - 1
        last = next((i for i in range(most) if ref[-1 - i] != alt[-1 - i]), most)
        first = next((i for i in range(most - last) if ref[i] != alt[i]), most - last)
        own = [re.sub(r"\d+", lambda found, number=number: str(int(int(found[0]) == number)), call) for call in calls]
        site = (chrom, int(position) + first, name, ref[first : len(ref) - last], alt[first : len(alt) - last])
        lines.append(" ".join(map(str, [*site, *own])))
    return lines


def random_calls(alternates: int, samples: int, generator: np.random.Generator, missing: float = 0.05) -> list[str]:
    """Draw phased genotypes; half of the alleles are REF."""
    share = [0.5 - missing, *[0.5 / alternates] * alternates, missing]
    words = [*map(str, range(alternates + 1)), "."]
    return ["|".join(generator.choice(words, size=2, p=share)) for _ in range(samples)]


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
