"""Variants from VCF or BCF, checked against the genome; and VCF with the scores in INFO."""

import gzip
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

import pysam

from genebert.console import say
from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome, spelled_chromosomes
from genebert.schema import Variant, decode, encode, reverse_complement

NUCLEOTIDES = frozenset("ACGT")
SHOWN_MISMATCHES = 10
MOST_MISMATCHES = 0.01
"""Fraction of alleles whose REF may differ from the genome before the file is taken to be of another assembly."""
ENOUGH_ALLELES = 100
"""Alleles to compare before that is said."""
FEW_ALLELES = 20
"""With fewer than 100, but so many, it is said if more than half mismatch."""
MISMATCH = "REF mismatch"
"""Why an allele is skipped whose REF is not what the genome has."""
BEYOND = "beyond the chromosome's end"
"""Why one is skipped whose REF reaches where the genome has no base; a mismatch, too."""
COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")
DAMAGE = (OSError, ValueError, EOFError, zlib.error)
"""What reading a damaged file raises."""


@dataclass
class Skipped:
    """Alternate alleles that are not scored.

    Attributes:
        counts: reason -> number.
        examples: "chrom:position:ref>alt" -> what the genome has, of the first mismatches.
        swapped: number of mismatches where the genome has ALT.
        flipped: number of them where it has the reverse complement of REF.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    swapped: int = 0
    flipped: int = 0

    @property
    def mismatched(self) -> int:
        """Number of alleles whose REF is not what the genome has, or lies beyond a chromosome's end."""
        return self.counts[MISMATCH] + self.counts[BEYOND]

    def likely_reason(self, compared: int) -> tuple[str, str]:
        """Return why so many of the alleles that were compared mismatch, most likely, and what to do."""
        mismatched = self.mismatched
        if 2 * self.swapped > mismatched:
            what = f"In {self.swapped:,} of them it has ALT: REF and ALT seem to be swapped."
            return what, "Write the genome's allele as REF, such as with `bcftools norm --check-ref s`."
        if 2 * self.flipped > mismatched:
            what = f"In {self.flipped:,} of them it has the complement of REF: alleles seem to be of the other strand."
            return what, "Write the alleles of the forward strand, such as with `bcftools +fixref`."
        if self.counts[BEYOND] or 2 * mismatched > compared:
            what = "Most positions mismatch"
            if self.counts[BEYOND]:
                what = f"{self.counts[BEYOND]:,} of them lie beyond the ends of their chromosomes"
            what = f"{what}: the variants seem to be called on another assembly."
            return what, "Give the genome of the same assembly (hg19 and hg38 differ), or lift the variants over."
        what = "The file seems to be put together of several, or its genome to be another version of the same assembly."
        return what, "Give the genome of the same assembly, correct these records, or raise --max-mismatches."


@dataclass(frozen=True)
class Allele:
    """One alternate allele of a record: the variant, or why there is none to score.

    Attributes:
        alt: as the file has it.
        variant: the variant; None if there is none to score.
        reason: why there is none.
        given: name of the variant as the file writes it, where it has been normalised.
    """

    alt: str
    variant: Variant | None
    reason: str = ""
    given: str = ""


@dataclass(frozen=True)
class Record:
    """One VCF record, without its samples.

    Attributes:
        columns: the first eight columns, as the file has them.
        alleles: one entry per alternate allele.
    """

    columns: tuple[str, ...]
    alleles: tuple[Allele, ...]

    @property
    def chrom(self) -> str:
        """Chromosome, as the file names it."""
        return self.columns[0]

    @property
    def position(self) -> int:
        """0-based position; -1 for the telomere, which VCF numbers 0."""
        return int(self.columns[1]) - 1

    @property
    def id(self) -> str:
        """Identifier, or "."."""
        return self.columns[2]

    @property
    def ref(self) -> str:
        """Reference allele."""
        return self.columns[3]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep htslib from printing: what it finds undeclared is accepted here, and its errors are raised."""
    verbosity = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(verbosity)


def _open(path: Path, samples: bool) -> pysam.VariantFile:
    try:
        return pysam.VariantFile(str(path), drop_samples=not samples)
    except NotImplementedError:  # plain gzip, in which pysam cannot seek
        with gzip.open(path) as packed, TemporaryFile() as plain:
            shutil.copyfileobj(packed, plain)
            plain.seek(0)
            return pysam.VariantFile(plain, drop_samples=not samples)


class VcfReader:
    """Reads a VCF or BCF, splitting records into alternate alleles and checking REF against the genome.

    Contigs, filters and INFO fields that the header does not declare are accepted.

    Args:
        path: file, plain, gzip or bgzip, or BCF.
        genome: the genome.
        max_indel: longest insertion or deletion to take, in bp.
        samples: keep what the file says of samples.

    Attributes:
        meta_lines: the lines of its header that start with ##.
        read: number of records so far.
        matched: number of alleles so far whose REF is what the genome has.
        skipped: the others.

    Raises:
        UserError: the file is absent, has no header, or is damaged.
    """

    def __init__(self, path: Path, genome: Genome, max_indel: int, *, samples: bool = False) -> None:
        self.path = path
        self.genome = genome
        self.max_indel = max_indel
        self.skipped = Skipped()
        self.read = 0
        self.matched = 0
        self._chromosomes: dict[str, str] = {}
        try:
            if path.stat().st_size == 0:
                raise UserError(problem(path, "the file is empty", "Give a VCF with a header."))
            with _quiet():
                self._file = _open(path, samples)
                self.meta_lines = [line for line in str(self._file.header).splitlines() if line.startswith("##")]
        except DAMAGE as error:
            raise UserError(
                problem(
                    path,
                    f"it is no VCF or BCF with a header, or damaged ({error})",
                    "A VCF starts with ##fileformat=VCFv4.x and has a line #CHROM POS ID REF ALT ...; "
                    "check it with `bcftools view`.",
                )
            ) from None

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, self._raw_records(self._file))

    def _has_index(self) -> bool:
        """Return whether there is an index that was made of the file as it is: an older one would miss records."""
        if self._file.index is None:
            return False
        beside = [path for suffix in (".tbi", ".csi") if (path := Path(f"{self.path}{suffix}")).exists()]
        if any(path.stat().st_mtime >= self.path.stat().st_mtime for path in beside):
            return True
        say(f"warning: {self.path} is read through: its index is older than it is (`bcftools index -f` makes another)")
        return False

    def _raw_records(self, source: Iterator[pysam.VariantRecord]) -> Iterator[pysam.VariantRecord]:
        """Yield records of the file, or of a part of it, and count them."""
        try:
            while (raw := self._next(source)) is not None:
                self.read += 1
                yield raw
        except DAMAGE as error:
            raise UserError(
                problem(
                    f"{self.path}, record {self.read + 1}",
                    f"it cannot be read ({error})",
                    "The file may be truncated or malformed; check it with `bcftools view`.",
                )
            ) from None

    def _next(self, source: Iterator[pysam.VariantRecord]) -> pysam.VariantRecord | None:
        with _quiet():
            return next(source, None)

    def _chromosome(self, name: str) -> str:
        """Return the genome's name of a chromosome of the file; empty if it has none."""
        if name not in self._chromosomes:
            self._chromosomes[name] = spelled_chromosomes([name], self.genome.lengths).get(name, "")
        return self._chromosomes[name]

    def _contigs(self) -> dict[str, list[str]]:
        """Return the names in the header of each of the genome's chromosomes: chr1 and 1 may both be there."""
        found: dict[str, list[str]] = {}
        for name in self._file.header.contigs:
            found.setdefault(self._chromosome(name), []).append(name)
        return found

    def _record(self, raw: pysam.VariantRecord) -> Record:
        chrom = self._chromosome(raw.chrom)
        alleles = tuple(self._allele(raw, chrom, alt) for alt in raw.alts or ())
        return Record(tuple(str(raw).rstrip("\n").split("\t")[:8]), alleles)

    def _allele(self, raw: pysam.VariantRecord, chrom: str, alt: str) -> Allele:
        variant = Variant(chrom, raw.start, (raw.ref or "").upper(), alt.upper(), raw.id or ".")
        reason = self._fault(variant, raw.chrom)
        if reason:
            self.skipped.counts[reason] += 1
            return Allele(alt, None, reason)
        self.matched += 1
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
        end = variant.position + len(variant.ref)
        if end > self.genome.lengths[variant.chrom]:
            self._show(variant, name, "no base there")
            return BEYOND
        found = decode(self.genome.fetch(variant.chrom, variant.position, end))
        if found == variant.ref:
            return ""
        if "N" in found:
            return "reference is N"
        self.skipped.swapped += self._genome_has(variant, variant.alt)
        self.skipped.flipped += found == decode(reverse_complement(encode(variant.ref).codes))
        self._show(variant, name, found)
        return MISMATCH

    def _show(self, variant: Variant, name: str, found: str) -> None:
        """Keep what the genome has in place of a REF, as an example."""
        if len(self.skipped.examples) < SHOWN_MISMATCHES:
            self.skipped.examples[f"{name}:{variant.position + 1}:{variant.ref}>{variant.alt}"] = found

    def _genome_has(self, variant: Variant, bases: str) -> bool:
        start = variant.position
        return decode(self.genome.fetch(variant.chrom, start, start + len(bases))) == bases

    def check_assembly(self, most: float = MOST_MISMATCHES) -> None:
        """Check that the genome is the one on which the variants were called, once they are read.

        Args:
            most: fraction of alleles whose REF may differ from the genome.

        Raises:
            UserError: of 100 alleles or more, the REF of more than that, or of 20 or more, of more than half, is not
                what the genome has.
        """
        mismatched = self.skipped.mismatched
        compared = mismatched + self.matched
        if mismatched <= compared * (most if compared >= ENOUGH_ALLELES else 0.5) or compared < FEW_ALLELES:
            return
        examples = "; ".join(f"{name} where it has {found}" for name, found in self.skipped.examples.items())
        reason, remedy = self.skipped.likely_reason(compared)
        share = f"{mismatched:,} of {compared:,} alleles ({mismatched / compared:.1%})"
        what = f"the REF of {share} is not what the genome {self.genome.path} has: {examples}. {reason}"
        raise UserError(problem(self.path, what, remedy))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def info_text(text: str) -> str:
    """Encode a name for a VCF INFO value: characters with a meaning there are percent-encoded, as VCF 4.3 says."""
    return "".join(f"%{ord(c):02X}" if c in "%:;=,|\t\r\n " or ord(c) < 32 else c for c in text)


class VcfWriter:
    """Writes records with INFO fields to a bgzip VCF, without samples; what they had is kept as it was.

    INFO fields of the given names that the file already had, such as those of an earlier run, are replaced.

    Args:
        path: where to, ending in .vcf.gz.
        meta_lines: of the file that was read.
        info: INFO field -> (number, type, description).
    """

    def __init__(self, path: Path, meta_lines: Sequence[str], info: Mapping[str, tuple[str, str, str]]) -> None:
        self.path = path
        self._names = frozenset(info)
        self._file = pysam.BGZFile(str(path), "w")
        replaced = tuple(f"##INFO=<ID={name}," for name in info)
        for line in meta_lines:
            if not line.startswith(replaced):
                self._write(line)
        for name, (number, kind, description) in info.items():
            self._write(f'##INFO=<ID={name},Number={number},Type={kind},Description="{description}">')
        self._write("\t".join(COLUMNS))

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n".encode())

    def write(self, record: Record, info: Mapping[str, Sequence[str]]) -> None:
        """Write one record with its INFO values; "." stands for a missing one."""
        *columns, had = record.columns
        fields = [field for field in had.split(";") if field != "." and field.split("=")[0] not in self._names]
        fields += [f"{name}={','.join(values)}" for name, values in info.items()]
        self._write("\t".join([*columns, ";".join(fields) or "."]))

    def close(self) -> None:
        """Close and, where the records are sorted, index the file."""
        self._file.close()
        with _quiet(), suppress(OSError):  # an unsorted file has no index
            try:
                pysam.tabix_index(str(self.path), preset="vcf", force=True)
            except OSError:  # nor do chromosomes of more than 2^29 bp have one of this kind
                pysam.tabix_index(str(self.path), preset="vcf", force=True, csi=True)
