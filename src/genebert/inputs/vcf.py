"""Variants from VCF or BCF, checked against the genome; and VCF with the scores in INFO."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pysam

from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome, match_chromosomes
from genebert.schema import Variant, decode

NUCLEOTIDES = frozenset("ACGT")
SHOWN_MISMATCHES = 10


@dataclass
class Skipped:
    """Alternate alleles that are not scored.

    Attributes:
        counts: reason -> number.
        examples: "chrom:position:ref>alt" -> what the genome has, of the first REF mismatches.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Allele:
    """One alternate allele of a record: the variant, or why there is none to score."""

    alt: str
    variant: Variant | None
    reason: str = ""


@dataclass(frozen=True)
class Record:
    """One VCF record, without its samples.

    Attributes:
        chrom: as the file names it.
        position: 0-based.
        id, ref, quality, filters: as in the file.
        alleles: one entry per alternate allele.
    """

    chrom: str
    position: int
    id: str
    ref: str
    quality: float | None
    filters: tuple[str, ...]
    alleles: tuple[Allele, ...]


class VcfReader:
    """Reads a VCF or BCF, splitting records into alternate alleles and checking REF against the genome.

    Args:
        path: file, plain, gzip or bgzip, or BCF.
        genome: the genome.
        max_indel: longest insertion or deletion to take, in bp.

    Raises:
        UserError: the file is absent, has no header, or is damaged.
    """

    def __init__(self, path: Path, genome: Genome, max_indel: int) -> None:
        self.path = path
        self.genome = genome
        self.max_indel = max_indel
        self.skipped = Skipped()
        self.read = 0
        verbosity = pysam.set_verbosity(0)
        try:
            if path.stat().st_size == 0:
                raise UserError(problem(path, "the file is empty", "Give a VCF with a header."))
            self._file = pysam.VariantFile(str(path))
        except (ValueError, OSError) as error:
            raise UserError(
                problem(
                    path,
                    f"it is no VCF or BCF with a header ({error})",
                    "A VCF starts with ##fileformat=VCFv4.x and has a line #CHROM POS ID REF ALT ...",
                )
            ) from None
        finally:
            pysam.set_verbosity(verbosity)

    @property
    def header_lines(self) -> list[str]:
        """The file's meta lines that describe contigs and filters."""
        return [str(line).strip() for line in self._file.header.records if line.type in ("CONTIG", "FILTER")]

    def __iter__(self) -> Iterator[Record]:
        names: dict[str, str] = {}
        try:
            for raw in self._file:
                self.read += 1
                if raw.chrom not in names:
                    names |= match_chromosomes([raw.chrom], self.genome.lengths) or {raw.chrom: ""}
                yield self._record(raw, names[raw.chrom])
        except (OSError, ValueError) as error:
            raise UserError(
                problem(
                    f"{self.path}, record {self.read + 1}",
                    f"it cannot be read ({error})",
                    "The file may be truncated or malformed; check it with `bcftools view`.",
                )
            ) from None

    def _record(self, raw: pysam.VariantRecord, chrom: str) -> Record:
        alts = raw.alts or ()
        filters = tuple(raw.filter.keys())
        alleles = tuple(self._allele(raw, chrom, alt) for alt in alts)
        return Record(raw.chrom, raw.start, raw.id or ".", raw.ref or "", raw.qual, filters, alleles)

    def _allele(self, raw: pysam.VariantRecord, chrom: str, alt: str) -> Allele:
        variant = Variant(chrom, raw.start, (raw.ref or "").upper(), alt.upper(), raw.id or ".")
        reason = self._fault(variant, raw.chrom)
        if reason:
            self.skipped.counts[reason] += 1
            return Allele(alt, None, reason)
        return Allele(alt, variant)

    def _fault(self, variant: Variant, name: str) -> str:
        if not variant.chrom:
            return "chromosome not in the genome"
        if not (set(variant.alt) <= NUCLEOTIDES and set(variant.ref) <= NUCLEOTIDES and variant.alt and variant.ref):
            return "symbolic, missing or ambiguous allele"
        if (
            abs(len(variant.ref) - len(variant.alt)) > self.max_indel
            or max(len(variant.ref), len(variant.alt)) > 2 * self.max_indel
        ):
            return "longer than --max-indel"
        found = decode(self.genome.fetch(variant.chrom, variant.position, variant.position + len(variant.ref)))
        if found == variant.ref:
            return ""
        if "N" in found:
            return "reference is N"
        if len(self.skipped.examples) < SHOWN_MISMATCHES:
            self.skipped.examples[f"{name}:{variant.position + 1}:{variant.ref}>{variant.alt}"] = found
        return "REF mismatch"

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def info_text(text: str) -> str:
    """Encode a name for a VCF INFO value: characters with a meaning there are percent-encoded, as VCF 4.3 says."""
    return "".join(f"%{ord(c):02X}" if c in "%:;=,|\t\r\n " or ord(c) < 32 else c for c in text)


class VcfWriter:
    """Writes records with INFO fields to a bgzip VCF, without samples; `close` sorts nothing and makes a tabix index.

    Args:
        path: where to, ending in .vcf.gz.
        header_lines: contig and filter lines of the file that was read.
        lengths: chromosome -> length, for contigs that the header does not name.
        info: INFO field -> (number, type, description).
    """

    def __init__(
        self,
        path: Path,
        header_lines: Sequence[str],
        lengths: Mapping[str, int],
        info: Mapping[str, tuple[str, str, str]],
    ) -> None:
        self.path = path
        header = pysam.VariantHeader()
        for line in header_lines:
            header.add_line(line)
        for name, (number, kind, description) in info.items():
            header.add_meta(
                "INFO", items=[("ID", name), ("Number", number), ("Type", kind), ("Description", description)]
            )
        for name, length in lengths.items():
            if name not in header.contigs:
                header.add_meta("contig", items=[("ID", name), ("length", str(length))])
        self._header = header
        self._file = pysam.VariantFile(str(path), "wz", header=header)

    def write(self, record: Record, info: Mapping[str, object]) -> None:
        """Write one record with its INFO values."""
        made = self._header.new_record(
            contig=record.chrom,
            start=record.position,
            alleles=(record.ref, *(allele.alt for allele in record.alleles)),
            id=None if record.id == "." else record.id,
            qual=record.quality,
            filter=list(record.filters) or None,
        )
        for name, value in info.items():
            made.info[name] = value
        self._file.write(made)

    def close(self) -> None:
        """Close and, where the records are sorted, index the file."""
        self._file.close()
        verbosity = pysam.set_verbosity(0)
        try:
            pysam.tabix_index(str(self.path), preset="vcf", force=True)
        except OSError:
            pass  # an unsorted file has no index
        finally:
            pysam.set_verbosity(verbosity)
