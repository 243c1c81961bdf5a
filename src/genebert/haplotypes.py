"""Personal sequences: what the individuals of a cohort carry in a set of regions."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

import bioframe
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix

from genebert.console import progress_bar, say
from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome, match_chromosomes
from genebert.inputs.genotypes import CalledAllele, GenotypeReader
from genebert.inputs.vcf import MOST_MISMATCHES
from genebert.schema import Variant, decode, encode

MAX_INDEL = 50
"""Longest insertion or deletion that is taken, in bp."""
_HAPLOTYPE_COLUMNS = ("region", "variants", "n_variants", "copies")
_VARIANT_COLUMNS = ("name", "id", "region", "chrom", "position", "ref", "alt", "copies", "alleles", "missing")


@dataclass(frozen=True)
class CohortHaplotypes:
    """What the individuals of a cohort carry in a set of regions: every distinct haplotype of a region once.

    Attributes:
        samples: names, n of them.
        regions: DataFrame, one row per region: name, chrom, start, end (all of one width).
        reference: base codes of the regions, uint8, shape (regions, width).
        haplotypes: DataFrame, one row per personal sequence that differs from the reference, by region: region (row of
            `regions`), variants (names as `schema.Variant.name` gives them, joined by ","; where several sets of
            alleles give one sequence, those of the set with the most copies), n_variants, copies (in the cohort).
        codes: base codes of the personal sequences, uint8, shape (haplotypes, width): cropped, or continued with genome
            sequence, at their right end.
        copies: float32, shape (n, haplotypes): copies of each haplotype per individual, 0, 1 or 2.
        variants: DataFrame, one row per region and variant, by region and position (of several records of one variant,
            carried if one of them says so, and missing if none of them knows): name, id, region (row of
            `regions`), chrom, position (1-based, as in VCF), ref, alt, copies (in the cohort), alleles (that are known
            in the cohort, those of the reference too: two of a diploid call, one of a half-call or a haploid one),
            missing (individuals without a call).
        dosage: float32, shape (n, rows of `variants`): alternate alleles per individual, 0 where missing.
        missing: bool, shape (n, rows of `variants`): where an individual has no call.
        counts: what was read and skipped, name -> number: those of `GenotypeReader`; overlapping (alleles on a
            haplotype that another one before them excludes); repeated (alleles that another record has had);
            carried_by_none (alleles that no chosen sample has, which are left out of `variants`); and each reason for
            which alleles were skipped.
    """

    samples: list[str]
    regions: pd.DataFrame
    reference: NDArray[np.uint8]
    haplotypes: pd.DataFrame
    codes: NDArray[np.uint8]
    copies: csr_matrix
    variants: pd.DataFrame
    dosage: csc_matrix
    missing: csc_matrix
    counts: dict[str, int]


def read_haplotypes(
    vcf: Path,
    genome: Genome,
    regions: pd.DataFrame,
    samples: Sequence[str] | None = None,
    *,
    max_indel: int = MAX_INDEL,
    max_mismatches: float = MOST_MISMATCHES,
) -> CohortHaplotypes:
    """Read what individuals carry in regions.

    A haplotype's alleles are applied from left to right as `bcftools consensus -H 1` and `-H 2` do: an allele that
    overlaps one already applied is skipped and counted, but for an indel whose only base in common is the one before
    it. Missing alleles are those of the reference; genotypes that are not phased are taken in the order given. Of
    several records of one variant (position, REF and ALT), one is enough for a haplotype to carry it.

    This differs from bcftools (1.16) where an allele

    - is symbolic, "*" or ambiguous: it is skipped and counted, and bcftools writes it, or deletes what <DEL> spans;
    - changes length by more than `max_indel`, or is longer than twice that: it is skipped and counted;
    - has a REF that is not what the genome has: it is skipped and counted, and bcftools stops;
    - stands in a record of several alleles, and has last or first bases in common with its REF: it changes the others
      alone, and excludes no allele at those (an SNV beside a deletion is written CACT>GACT);
    - begins before the region: it counts as far as it lies inside, and bcftools, given the region only, ignores it.

    Args:
        vcf: VCF or BCF with genotypes; see `GenotypeReader`.
        genome: the genome.
        regions: DataFrame with chrom, start, end and, if they have names, name; all of one width, in any order.
        samples: the individuals, in this order; all of the file if None.
        max_indel: longest insertion or deletion to take, in bp.
        max_mismatches: fraction of alleles whose REF may differ from the genome.

    Raises:
        UserError: the file cannot be used (see `GenotypeReader`), is of another assembly, or has no allele in the
            regions; or the genome lacks the chromosome of a region.
        ValueError: regions are not of one width.
    """
    regions = _checked(regions, genome)
    reader = GenotypeReader(vcf, genome, max_indel, samples)
    cohort = _Cohort(genome, regions, len(reader.samples))
    with progress_bar() as progress:
        task = progress.add_task("reading genotypes", total=len(regions), note="")
        intervals = bioframe.merge(regions[["chrom", "start", "end"]], min_dist=0)
        for region, alleles in _by_region(reader.alleles(intervals), regions):
            cohort.add(region, alleles)
            progress.advance(task)
    reader.close()
    reader.check_assembly(max_mismatches)
    if reader.counts["unphased"]:
        what = f"{reader.counts['unphased']:,} genotypes with two different alleles are not phased (0/1)"
        say(f"warning: {problem(vcf, what, 'They are taken in the order given; phase the file to have haplotypes.')}")
    return cohort.finish(reader)


def _checked(regions: pd.DataFrame, genome: Genome) -> pd.DataFrame:
    """Return regions with name, and chrom as the genome names it."""
    widths = (regions["end"] - regions["start"]).to_numpy()
    if not len(widths) or (widths != widths[0]).any():
        raise ValueError("Regions are to be of one width.")
    names = match_chromosomes(regions["chrom"], genome.lengths)
    absent = sorted(set(regions["chrom"]) - set(names))
    if absent:
        what = f"it has no chromosome {', '.join(absent)}, where regions are"
        raise UserError(problem(genome.path, what, "Give the genome that the regions are of."))
    table = pd.DataFrame({"chrom": regions["chrom"].map(names), "start": regions["start"], "end": regions["end"]})
    places = [f"{chrom}:{start}-{end}" for chrom, start, end in table.itertuples(index=False)]
    table.insert(0, "name", regions.get("name", places))
    return table.reset_index(drop=True)


def _by_region(alleles: Iterable[CalledAllele], regions: pd.DataFrame) -> Iterator[tuple[int, list[CalledAllele]]]:
    """Yield the row of each region that alleles overlap, in genomic order, and these alleles.

    Args:
        alleles: chromosome by chromosome, by position.
        regions: of one width, so that their ends are in the order of their starts.
    """
    order = regions.sort_values("start", kind="stable")
    places = {chrom: list(part[["start", "end"]].itertuples()) for chrom, part in order.groupby("chrom")}
    for chrom, found in groupby(alleles, key=lambda allele: allele.variant.chrom):
        waiting: list[CalledAllele] = []
        left = iter(places[chrom])
        region = next(left, None)
        for allele in chain(found, [None]):
            while region and (allele is None or region[2] <= allele.variant.position):
                row, start, end = region
                waiting = [one for one in waiting if _end(one.variant) > start]
                yield row, [one for one in waiting if one.variant.position < end]
                region = next(left, None)
            if allele:
                waiting.append(allele)


def _end(variant: Variant) -> int:
    return variant.position + len(variant.ref)


class Edit(NamedTuple):
    """A stretch of the genome, [begin, end), that becomes other bases on a haplotype."""

    allele: int
    begin: int
    end: int
    bases: str


def compatible_edits(variants: Sequence[Variant], carried: Iterable[int]) -> list[Edit]:
    """Return the edits that a haplotype's alleles make, without those that overlap one before them.

    An indel whose first base is that of the reference changes what follows it. It is therefore compatible with an
    allele that ends at that base, unless that one inserts bases there as well.

    Args:
        variants: alleles, by position.
        carried: indices of those on the haplotype, ascending.
    """
    edits: list[Edit] = []
    free, inserted = -1, False
    for allele in carried:
        variant = variants[allele]
        begin, end = variant.position, _end(variant)
        if begin >= free:
            edits.append(Edit(allele, begin, end, variant.alt))
        elif begin == free - 1 and variant.anchored and not inserted:
            edits.append(Edit(allele, begin + 1, end, variant.alt[1:]))
        else:
            continue
        free, inserted = end, len(variant.alt) > len(variant.ref)
    return edits


def edited(letters: str, start: int, edits: Iterable[Edit]) -> str:
    """Return a stretch of the genome after edits.

    Args:
        letters: the stretch.
        start: where it begins.
        edits: by position; of one that begins before the stretch, as many bases are left out as it replaces there.
    """
    pieces, at = [], start
    for edit in edits:
        outside = max(start - edit.begin, 0)
        pieces += [letters[at - start : edit.begin + outside - start], edit.bases[outside:]]
        at = edit.end
    return "".join([*pieces, letters[at - start :]])


def distinct_rows(marks: NDArray[np.bool_]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Return the first of each set of equal rows, and the rows of each set.

    Args:
        marks: bool, shape (n, m).
    """
    packed = np.packbits(marks, axis=1)
    words = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), dtype=np.uint8)
    words[:, : packed.shape[1]] = packed
    words = words.view(np.uint64)  # sorting whole numbers is many times as fast as sorting rows
    order = np.lexsort(words.T)
    begins = np.flatnonzero((words[order[1:]] != words[order[:-1]]).any(axis=1)) + 1
    sets = np.split(order, begins)
    return np.array([rows[0] for rows in sets], dtype=np.int64), sets


class _Columns:
    """A sparse matrix of counts, one column after another."""

    def __init__(self) -> None:
        self._rows: list[NDArray[np.int32]] = []
        self._counts: list[NDArray[np.float32]] = []

    def add(self, rows: NDArray[np.int32]) -> None:
        """Add a column; rows: one per unit to count."""
        found, counts = np.unique(rows, return_counts=True)
        self._rows.append(found)
        self._counts.append(counts.astype(np.float32))

    def matrix(self, rows: int, order: Sequence[int]) -> csc_matrix:
        """Return the columns in an order, as float32."""
        ends = np.cumsum([0, *(len(self._rows[i]) for i in order)])
        indices = np.concatenate([np.empty(0, dtype=np.int32), *(self._rows[i] for i in order)])
        counts = np.concatenate([np.empty(0, dtype=np.float32), *(self._counts[i] for i in order)])
        return csc_matrix((counts, indices, ends), shape=(rows, len(order)))


class _Cohort:
    """Collects variants and haplotypes, region by region."""

    def __init__(self, genome: Genome, regions: pd.DataFrame, individuals: int) -> None:
        self.genome = genome
        self.regions = regions
        self.individuals = individuals
        self.width = int(regions["end"][0] - regions["start"][0])
        self.reference = genome.fetch_all(regions["chrom"], regions["start"].to_numpy(np.int64), self.width)
        self.counts = {"overlapping": 0, "repeated": 0, "carried_by_none": 0}
        self._variants: list[tuple[Any, ...]] = []
        self._dosage, self._missing = _Columns(), _Columns()
        self._haplotypes: list[tuple[Any, ...]] = []
        self._codes: list[NDArray[np.uint8]] = []
        self._copies = _Columns()

    def add(self, region: int, alleles: Sequence[CalledAllele]) -> None:
        """Add the alleles that overlap a region; alleles: by position."""
        alleles = self._shortest(region, alleles)
        merged: dict[str, CalledAllele] = {}
        for allele in alleles:
            name = allele.variant.name
            merged[name] = merged[name].merged(allele) if name in merged else allele
        carried = [allele for allele in merged.values() if len(allele.carriers)]
        self.counts["repeated"] += len(alleles) - len(merged)
        self.counts["carried_by_none"] += len(merged) - len(carried)
        if carried:
            for allele in carried:
                self._add_variant(region, allele)
            self._add_haplotypes(region, carried)

    def _shortest(self, region: int, alleles: Sequence[CalledAllele]) -> list[CalledAllele]:
        """Return alleles without the bases that a record of several alleles pads them with, by position."""
        start, end = self.regions.loc[region, ["start", "end"]]
        short = [replace(allele, variant=allele.variant.shortest) for allele in alleles]
        inside = [one for one in short if one.variant.position < end and _end(one.variant) > start]
        return sorted(inside, key=lambda allele: allele.variant.position)

    def _add_variant(self, region: int, allele: CalledAllele) -> None:
        variant = allele.variant
        what = (variant.name, variant.id, region, variant.chrom, variant.position + 1, variant.ref, variant.alt)
        missing, alleles = allele.missing, 2 * self.individuals - len(allele.unknown)
        self._variants.append((*what, len(allele.carriers), alleles, len(missing)))
        self._dosage.add(allele.carriers // 2)
        self._missing.add(missing)

    def _add_haplotypes(self, region: int, alleles: Sequence[CalledAllele]) -> None:
        variants = [allele.variant for allele in alleles]
        carriers, row = np.unique(np.concatenate([allele.carriers for allele in alleles]), return_inverse=True)
        marks = np.zeros((len(carriers), len(alleles)), dtype=bool)
        marks[row, np.repeat(np.arange(len(alleles)), [len(allele.carriers) for allele in alleles])] = True
        found: dict[tuple[Edit, ...], list[NDArray[np.int32]]] = {}
        for first, rows in zip(*distinct_rows(marks), strict=True):
            carried = np.flatnonzero(marks[first]).tolist()
            edits = compatible_edits(variants, carried)
            self.counts["overlapping"] += (len(carried) - len(edits)) * len(rows)
            found.setdefault(tuple(edits), []).append(carriers[rows] // 2)
        letters, start = self._stretch(region, variants), int(self.regions["start"][region])
        alike: dict[str, list[tuple[tuple[Edit, ...], NDArray[np.int32]]]] = {}
        for key in sorted(found):
            personal = edited(letters, start, key)[: self.width]
            alike.setdefault(personal, []).append((key, np.concatenate(found[key])))
        alike.pop(letters[: self.width], None)  # all that these alleles change lies outside
        for personal, ways in alike.items():
            most, _ = max(ways, key=lambda way: len(way[1]))
            names = [variants[edit.allele].name for edit in most]
            self._add_haplotype(region, personal, names, np.concatenate([individuals for _, individuals in ways]))

    def _stretch(self, region: int, variants: Iterable[Variant]) -> str:
        """Return the region, and as many bases after it as deletions can bring in."""
        chrom, start, end = self.regions.loc[region, ["chrom", "start", "end"]]
        deleted = sum(max(len(variant.ref) - len(variant.alt), 0) for variant in variants)
        return decode(self.genome.fetch(chrom, start, end + deleted))

    def _add_haplotype(
        self,
        region: int,
        personal: str,
        names: Sequence[str],
        individuals: NDArray[np.int32],
    ) -> None:
        self._haplotypes.append((region, ",".join(names), len(names), len(individuals)))
        self._codes.append(encode(personal).codes)
        self._copies.add(individuals)

    def finish(self, reader: GenotypeReader) -> CohortHaplotypes:
        """Return what was collected, by region.

        Raises:
            UserError: there is no allele in the regions.
        """
        self._check_found(reader)
        haplotypes, by_haplotype = _ordered(self._haplotypes, _HAPLOTYPE_COLUMNS)
        variants, by_variant = _ordered(self._variants, _VARIANT_COLUMNS)
        codes = np.array([self._codes[i] for i in by_haplotype], dtype=np.uint8).reshape(-1, self.width)
        return CohortHaplotypes(
            samples=reader.samples,
            regions=self.regions,
            reference=self.reference,
            haplotypes=haplotypes,
            codes=codes,
            copies=self._copies.matrix(self.individuals, by_haplotype).tocsr(),
            variants=variants,
            dosage=self._dosage.matrix(self.individuals, by_variant),
            missing=self._missing.matrix(self.individuals, by_variant).astype(bool),
            counts={**reader.counts, **self.counts, **dict(sorted(reader.skipped.counts.items()))},
        )

    def _check_found(self, reader: GenotypeReader) -> None:
        if self._variants:
            return
        reasons = [f"{count:,} {reason}" for reason, count in sorted(reader.skipped.counts.items())]
        if reader.counts["alleles"]:
            reasons.append(f"{reader.counts['alleles']:,} carried by none of the samples")
        what = (
            f"no allele in the {len(self.regions):,} regions can be used: {', '.join(reasons) or 'it has none there'}"
        )
        remedy = "Check that VCF, genome and regions are of one assembly, and that its chromosomes are among theirs."
        raise UserError(problem(reader.path, what, remedy))


def _ordered(rows: Sequence[tuple[Any, ...]], columns: Sequence[str]) -> tuple[pd.DataFrame, list[int]]:
    """Return a table of rows by region, and the place of each row in what was given."""
    table = pd.DataFrame(rows, columns=list(columns)).sort_values("region", kind="stable")
    return table.reset_index(drop=True), table.index.tolist()
