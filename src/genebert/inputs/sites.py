"""Records of a VCF or BCF in chosen regions, their alleles normalised against the genome."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import bioframe
import pandas as pd
import pysam

from genebert.errors import Problems, listed
from genebert.inputs.genome import Genome, spelled_chromosomes
from genebert.inputs.intervals import read_bed
from genebert.inputs.vcf import NUCLEOTIDES, Allele, Record, VcfReader
from genebert.schema import Variant, decode
from genebert.settings import region_file

_REGION = re.compile(r"(?P<chrom>[^:]+)(:(?P<first>\d+)-(?P<last>\d+))?")


def normalised(variant: Variant, genome: Genome) -> Variant:
    """Return the same variant, as far to the left and as short as it can be written (Tan et al. 2015).

    Args:
        variant: whose REF is what the genome has.
        genome: the genome.

    Returns:
        the variant, each allele of at least one base; two VCFs that write one indel differently have the same.
    """
    ref, alt, position = variant.ref, variant.alt, variant.position
    while ref != alt and ref[-1] == alt[-1]:
        if min(len(ref), len(alt)) == 1:
            before = decode(genome.fetch(variant.chrom, position - 1, position))
            if before not in NUCLEOTIDES:  # the chromosome begins here, or its sequence is not known
                break
            ref, alt, position = before + ref, before + alt, position - 1
        ref, alt = ref[:-1], alt[:-1]
    while min(len(ref), len(alt)) > 1 and ref != alt and ref[0] == alt[0]:
        ref, alt, position = ref[1:], alt[1:], position + 1
    return replace(variant, position=position, ref=ref, alt=alt)


def read_regions(regions: Sequence[str], genome: Genome) -> pd.DataFrame:
    """Return chosen regions: chrom, start, end (0-based, half-open), sorted; of those that overlap or abut, one.

    Args:
        regions: a BED file; or CHROM or CHROM:FIRST-LAST, 1-based, the last base included, as samtools has it.
        genome: the genome.

    Raises:
        UserError: one cannot be read, or lies outside the genome.
    """
    bed = region_file(regions)
    table = _parse(regions, genome) if bed is None else read_bed(bed, genome.lengths).table
    return bioframe.merge(table[["chrom", "start", "end"]])[["chrom", "start", "end"]]


def _parse(regions: Sequence[str], genome: Genome) -> pd.DataFrame:
    found = Problems("The regions cannot be used:")
    rows = []
    for text in regions:
        parts = _REGION.fullmatch(text)
        chrom = spelled_chromosomes([parts["chrom"]], genome.lengths).get(parts["chrom"]) if parts else None
        if parts is None:
            remedy = "Write chr1 or chr1:1000-2000, separated by commas, or give one BED file."
            found.add("--regions", f"{text!r} is no region, and no file of that name is there", remedy)
        elif chrom is None:
            what = f"the genome {genome.path} has no chromosome {parts['chrom']!r}"
            found.add(f"--regions {text}", what, f"It has {listed(genome.lengths, 12)}.")
        else:
            first, last = int(parts["first"] or 1), int(parts["last"] or genome.lengths[chrom])
            if not 1 <= first <= last <= genome.lengths[chrom]:
                what = f"{chrom} has the bases 1 to {genome.lengths[chrom]}"
                found.add(f"--regions {text}", what, "Write the first and the last base, 1-based.")
            rows.append((chrom, first - 1, last))
    found.raise_any()
    return pd.DataFrame(rows, columns=["chrom", "start", "end"])


class SiteReader(VcfReader):
    """Reads records without samples; each allele that can be scored is normalised, and named as given too.

    Args:
        path: file, plain, gzip or bgzip, or BCF; with an index (.tbi, .csi) beside it only the regions are read.
        genome: the genome.
        max_indel: longest insertion or deletion to take, in bp.
        regions: those of `read_regions`; a record is taken whose first base lies in one. All records if None.

    Attributes:
        taken: number of records so far that were taken.

    Raises:
        UserError: see `VcfReader`.
    """

    def __init__(self, path: Path, genome: Genome, max_indel: int, regions: pd.DataFrame | None = None) -> None:
        super().__init__(path, genome, max_indel)
        self.taken = 0
        self._regions = regions
        self._bounds = {} if regions is None else _bounds_of(regions)

    def __iter__(self) -> Iterator[Record]:
        if self._regions is not None and self._has_index():
            found = self._by_index(self._regions)
        else:
            found = self._raw_records(self._file)
        return (self._record(raw) for raw in found if self._holds(raw))

    def _by_index(self, regions: pd.DataFrame) -> Iterator[pysam.VariantRecord]:
        contigs = self._contigs()
        for chrom, rows in regions.groupby("chrom", sort=False):
            places = zip(rows["start"], rows["end"], strict=True)
            for name, (start, end) in product(contigs.get(str(chrom), []), places):
                found = self._raw_records(self._file.fetch(name, start, end))
                yield from (raw for raw in found if raw.start >= start)  # what reaches in from before is not taken

    def _holds(self, raw: pysam.VariantRecord) -> bool:
        """Tell whether a record begins in a region."""
        if self._regions is None:
            return True
        starts, ends = self._bounds.get(self._chromosome(raw.chrom), ([], []))
        place = bisect_right(starts, raw.start) - 1
        return place >= 0 and raw.start < ends[place]

    def _record(self, raw: pysam.VariantRecord) -> Record:
        self.taken += 1
        return super()._record(raw)

    def _allele(self, raw: pysam.VariantRecord, chrom: str, alt: str) -> Allele:
        allele = super()._allele(raw, chrom, alt)
        if allele.variant is None:
            return allele
        return replace(allele, variant=normalised(allele.variant, self.genome), given=allele.variant.name)


def _bounds_of(regions: pd.DataFrame) -> dict[str, tuple[list[int], list[int]]]:
    return {str(chrom): (rows["start"].tolist(), rows["end"].tolist()) for chrom, rows in regions.groupby("chrom")}
