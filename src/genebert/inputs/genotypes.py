"""Genotypes of the samples of a VCF or BCF: who carries which allele on which of two haplotypes."""

import gzip
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
from numpy.typing import NDArray

from genebert.errors import UserError, listed, problem
from genebert.inputs.genome import Genome
from genebert.inputs.vcf import VcfReader
from genebert.schema import Variant

MISSING, NONE, ODD = -1, -2, -3
"""What stands for an allele that is not known, for the second one of a haploid genotype, and for what is no digit."""
_PAD = b"\n\n\n"  # so that the last genotype, too, is followed by the bytes that are looked at
_ALLELE_OF = np.full(256, ODD, dtype=np.int16)
_ALLELE_OF[ord("0") : ord("9") + 1] = np.arange(10)
_ALLELE_OF[ord(".")] = MISSING
_ENDS = np.zeros(256, dtype=bool)
_ENDS[[ord(letter) for letter in "\t:\n"]] = True
_BIPLOID = "Give phased genotypes of diploid samples (0|1), or haploid ones (1)."


@dataclass(frozen=True)
class CalledAllele:
    """One alternate allele, and who carries it.

    Attributes:
        variant: the allele.
        carriers: haplotypes that carry it, ascending, int32, shape (c,); the haplotypes of individual i are 2 i and
            2 i + 1.
        unknown: haplotypes whose allele is not known at this site, and the second one of haploid genotypes, ascending,
            int32, shape (u,).
        unphased: individuals with two different alleles at this site of which nothing says which haplotype has which,
            ascending, int32, shape (p,).
    """

    variant: Variant
    carriers: NDArray[np.int32]
    unknown: NDArray[np.int32]
    unphased: NDArray[np.int32]

    @property
    def missing(self) -> NDArray[np.int32]:
        """Individuals of whom no allele is known, ascending, int32, shape (m,)."""
        individuals, alleles = np.unique(self.unknown // 2, return_counts=True)
        return individuals[alleles == 2]

    def merged(self, other: "CalledAllele") -> "CalledAllele":
        """Return the allele as two records have it: carried if one of them says so, unknown if neither knows.

        Of individuals that carry it once in either record, 0/1 in one and 1/0 in the other do not say twice.
        """
        unphased = np.union1d(self.unphased, other.unphased)
        once = np.intersect1d(np.intersect1d(self.carriers // 2, unphased), np.intersect1d(other.once, unphased))
        further = other.carriers[~np.isin(other.carriers // 2, once)]
        unknown = np.intersect1d(self.unknown, other.unknown)
        return CalledAllele(self.variant, np.union1d(self.carriers, further), unknown, unphased)

    @property
    def once(self) -> NDArray[np.int32]:
        """Individuals that carry it on one haplotype, ascending, int32."""
        individuals, copies = np.unique(self.carriers // 2, return_counts=True)
        return individuals[copies == 1]


@dataclass(frozen=True)
class _Calls:
    """The genotypes of one record.

    Attributes:
        first, second: int16, shape (n,): numbers of alleles (0 for REF), or `MISSING`; `NONE` for no second one.
        slash: bool, shape (n,): where the two are not phased.
    """

    first: NDArray[np.int16]
    second: NDArray[np.int16]
    slash: NDArray[np.bool_]

    def tally(self) -> Counter[str]:
        """Count genotypes that are not two known, phased alleles."""
        known = self.first >= 0
        half = (known & (self.second == MISSING)) | (~known & (self.second >= 0))
        kinds = {
            "missing": ~known & (self.second < 0),
            "half_calls": half,
            "haploid": known & (self.second == NONE),
            "unphased": self.unphased(),
        }
        return Counter({name: int(np.count_nonzero(found)) for name, found in kinds.items()})

    def unphased(self) -> NDArray[np.bool_]:
        """Return of whom two alleles are known, and differ, and not which haplotype has which: bool, shape (n,)."""
        return self.slash & (self.first >= 0) & (self.second >= 0) & (self.first != self.second)

    def unknown(self) -> NDArray[np.int32]:
        """Return the haplotypes without a known allele; see `CalledAllele`."""
        return _haplotypes(self.first < 0, self.second < 0)

    def carriers(self, number: int) -> NDArray[np.int32]:
        """Return the haplotypes that carry an allele; see `CalledAllele`."""
        return _haplotypes(self.first == number, self.second == number)


def _haplotypes(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.int32]:
    sides = 2 * np.flatnonzero(first), 2 * np.flatnonzero(second) + 1
    return np.sort(np.concatenate(sides)).astype(np.int32)


class GenotypeReader(VcfReader):
    """Reads the alleles that samples carry in intervals; sites and alleles are checked as `VcfReader` does.

    Genotypes that are not phased (0/1) are taken in the order given. What is missing (".") is carried by nobody.

    Args:
        path: file, plain, gzip or bgzip, or BCF; with an index (.tbi, .csi) beside it only the intervals are read.
        genome: the genome.
        max_indel: longest insertion or deletion to take, in bp.
        samples: whose genotypes, in this order; all of the file in its order if None.

    Attributes:
        samples: their names.
        counts: records and alleles (both in the intervals), and genotypes there that are missing, half-calls (one of
            two alleles is known), haploid, or unphased (with two alleles that differ).

    Raises:
        UserError: the file cannot be read, has no genotypes, names a sample twice, or lacks samples.
    """

    def __init__(self, path: Path, genome: Genome, max_indel: int, samples: Sequence[str] | None = None) -> None:
        try:
            super().__init__(path, genome, max_indel, samples=True)
        except UserError:
            _check_unique(_names_in_header(path), path)  # htslib opens no such file, and does not say why
            raise
        names = list(self._file.header.samples)
        if not names:
            what = "it has no samples, only sites"
            raise UserError(problem(path, what, "Give a VCF with a column of genotypes (GT) per individual."))
        self.samples = names if samples is None else list(samples)
        self._columns = self._columns_of(names)
        self.counts: Counter[str] = Counter()

    def _columns_of(self, names: list[str]) -> NDArray[np.int64]:
        _check_unique(self.samples, "samples")
        place = {name: i for i, name in enumerate(names)}
        absent = [name for name in self.samples if name not in place]
        if absent:
            what = f"{len(absent)} of {len(self.samples)} samples are not in it: {', '.join(absent)}"
            remedy = f"It has {len(names)}, such as {listed(names, 3)}: correct the names, or leave those out."
            raise UserError(problem(self.path, what, remedy))
        return np.array([place[name] for name in self.samples], dtype=np.int64)

    def alleles(self, intervals: pd.DataFrame) -> Iterator[CalledAllele]:
        """Yield the alleles whose REF overlaps an interval, by chromosome and position.

        Args:
            intervals: DataFrame with chrom (as the genome names it), start, end; no two overlap or abut.

        Raises:
            UserError: a record cannot be read, is out of order, or has no genotypes, or ones that are not of one or
                two alleles; or a file without an index has two names for a chromosome.
        """
        inside = _Intervals(intervals)
        found = self._by_index(intervals) if self._has_index() else self._sorted()
        for raw in found:
            chrom = self._chromosome(raw.chrom)
            if inside.overlap(chrom, raw.start, raw.start + len(raw.ref or "")):
                self.counts["records"] += 1
                yield from self._called(raw, chrom)

    def _by_index(self, intervals: pd.DataFrame) -> Iterator[pysam.VariantRecord]:
        """Yield the records of the intervals, each once."""
        contigs = self._contigs()
        before: tuple[str, int] = ("", 0)
        for chrom, start, end in zip(intervals["chrom"], intervals["start"], intervals["end"], strict=True):
            seen = before[1] if before[0] == chrom else -1  # what begins before reaches from that interval into this
            before = chrom, end
            found = [self._raw_records(self._file.fetch(name, max(start, 0), end)) for name in contigs.get(chrom, [])]
            records = found[0] if len(found) == 1 else sorted(chain(*found), key=lambda raw: raw.start)
            yield from (raw for raw in records if raw.start >= seen)

    def _sorted(self) -> Iterator[pysam.VariantRecord]:
        """Yield all records.

        Raises:
            UserError: one is out of order, or names a chromosome otherwise than those before.
        """
        done: set[str] = set()
        names: dict[str, str] = {}
        last: tuple[str, int] = ("", -1)
        for raw in self._raw_records(self._file):
            if raw.chrom != last[0]:
                done.add(last[0])
                self._check_name(raw.chrom, names)
            if raw.chrom in done or (raw.chrom == last[0] and raw.start < last[1]):
                what = f"{raw.chrom}:{raw.pos} comes after {last[0]}:{last[1] + 1}"
                remedy = f"Sort it: bcftools sort {self.path} -Oz -o sorted.vcf.gz"
                raise UserError(problem(f"{self.path}, record {self.read}", what, remedy))
            last = raw.chrom, raw.start
            yield raw

    def _check_name(self, name: str, names: dict[str, str]) -> None:
        """Check that no other name has stood for a chromosome: its alleles are then not in order; names: so far."""
        other = names.setdefault(self._chromosome(name), name)
        if other != name and self._chromosome(name):
            what = f"it names one chromosome {other} and {name}"
            remedy = "Give it one name (bcftools annotate --rename-chrs), and sort it; or index it: both are then read."
            raise UserError(problem(f"{self.path}, record {self.read}", what, remedy))

    def _called(self, raw: pysam.VariantRecord, chrom: str) -> Iterator[CalledAllele]:
        alleles = [self._allele(raw, chrom, alt) for alt in raw.alts or ()]
        if not any(allele.variant for allele in alleles):
            return
        calls = self._calls(raw)
        self._check_numbers(calls, raw)
        self.counts.update(calls.tally())
        unknown, unphased = calls.unknown(), np.flatnonzero(calls.unphased()).astype(np.int32)
        for number, allele in enumerate(alleles, 1):
            if allele.variant:
                self.counts["alleles"] += 1
                yield CalledAllele(allele.variant, calls.carriers(number), unknown, unphased)

    def _calls(self, raw: pysam.VariantRecord) -> _Calls:
        *columns, written = str(raw).split("\t", 9)
        if len(columns) < 9 or columns[8].split(":")[0] != "GT":
            what = f"its FORMAT is {columns[8] if len(columns) > 8 else 'absent'}, and does not begin with GT"
            raise UserError(problem(self._where(raw), what, "Give a VCF with genotypes (GT)."))
        letters = np.frombuffer(written.encode() + _PAD, dtype=np.uint8)
        starts = np.append(0, np.flatnonzero(letters == ord("\t")) + 1)[self._columns]
        calls, odd = _simple_calls(letters, starts)
        for row in odd.tolist():
            field = written[starts[row] :].split("\t", 1)[0].split(":")[0].rstrip("\n")
            calls.first[row], calls.second[row], calls.slash[row] = self._parsed(field, raw, self.samples[row])
        return calls

    def _parsed(self, field: str, raw: pysam.VariantRecord, sample: str) -> tuple[int, int, bool]:
        """Return the alleles of a genotype, and whether they are unphased."""
        words = field.lstrip("|/").replace("|", "/").split("/")
        if len(words) > 2:
            what = f"the genotype of sample {sample} is {field}, of {len(words)} alleles"
            raise UserError(problem(self._where(raw), what, _BIPLOID))
        numbers = [MISSING if word == "." else int(word) for word in words]
        return numbers[0], numbers[1] if len(numbers) > 1 else NONE, "|" not in field

    def _check_numbers(self, calls: _Calls, raw: pysam.VariantRecord) -> None:
        highest, most = np.maximum(calls.first, calls.second), len(raw.alts or ())
        if highest.max(initial=0) > most:
            sample, number = self.samples[int(highest.argmax())], int(highest.max())
            what = f"sample {sample} has allele {number}, and the record has {most} alternate alleles"
            raise UserError(problem(self._where(raw), what, "Correct the record, or remove it."))

    def _where(self, raw: pysam.VariantRecord) -> str:
        return f"{self.path}, record {raw.chrom}:{raw.pos}"


def _simple_calls(letters: NDArray[np.uint8], starts: NDArray[np.int64]) -> tuple[_Calls, NDArray[np.int64]]:
    """Return genotypes that are one or two digits or dots, and the rows of those that are not.

    Args:
        letters: the columns of the samples.
        starts: where each genotype begins, int64, shape (n,).
    """
    letter, between, other, after = (letters[starts + i] for i in range(4))
    haploid = _ENDS[between]
    slash = between == ord("/")
    first, second = _ALLELE_OF[letter], _ALLELE_OF[other]
    second[haploid] = NONE
    simple = haploid | (_ENDS[after] & (slash | (between == ord("|"))))
    return _Calls(first, second, slash), np.flatnonzero(~simple | (first == ODD) | (second == ODD))


class _Intervals:
    """Tells whether a stretch overlaps one of the intervals, no two of which overlap."""

    def __init__(self, intervals: pd.DataFrame) -> None:
        ordered = intervals.sort_values("start", kind="stable").groupby("chrom")
        self._bounds = {str(chrom): (rows["start"].to_numpy(), rows["end"].to_numpy()) for chrom, rows in ordered}

    def overlap(self, chrom: str, start: int, end: int) -> bool:
        """Return whether [start, end) overlaps an interval of a chromosome."""
        if chrom not in self._bounds:
            return False
        starts, ends = self._bounds[chrom]
        last = int(np.searchsorted(starts, end)) - 1  # the last interval that begins before the end
        return last >= 0 and bool(ends[last] > start)


def _names_in_header(path: Path) -> list[str]:
    """Return the samples' names of a VCF, compressed or not, as text; none if there is no such line."""
    with suppress(OSError, EOFError), path.open("rb") as handle:
        packed = handle.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as lines:
            for line in lines:
                if not line.startswith(b"##"):
                    return line.decode(errors="replace").rstrip("\r\n").split("\t")[9:]
    return []


def _check_unique(names: Iterable[str], where: object) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        what = f"samples are named more than once: {', '.join(repeated)}"
        raise UserError(problem(where, what, "Rename or remove the repetitions (bcftools reheader -s names.txt)."))
