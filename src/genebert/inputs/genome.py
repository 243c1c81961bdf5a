"""Genome sequence from FASTA, plain or bgzip, by random access."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import pysam
from numpy.typing import NDArray

from genebert.errors import UserError, problem
from genebert.schema import N, encode

GZIP_MAGIC = b"\x1f\x8b"
BGZF_SUBFIELD = b"BC"


class Genome:
    """A FASTA file opened for random access.

    An index beside the file (`samtools faidx`) is used if it is there; otherwise one is made in a temporary
    folder, because the file's own folder may be read-only.

    Attributes:
        path: the FASTA file.
        lengths: chromosome -> length in bp, in the file's order.
        ambiguous: number of IUPAC letters that became N in what was fetched so far.

    Raises:
        UserError: the file is absent, empty, not FASTA, or compressed with plain gzip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ambiguous = 0
        bgzip = check_fasta(path)
        self._scratch = tempfile.TemporaryDirectory(prefix="genebert-")
        try:
            self._fasta = self._open(bgzip)
        except UserError:
            self._scratch.cleanup()
            raise
        self.lengths: dict[str, int] = dict(zip(self._fasta.references, self._fasta.lengths, strict=True))

    def _open(self, bgzip: bool) -> pysam.FastaFile:
        index, blocks = Path(f"{self.path}.fai"), Path(f"{self.path}.gzi")
        needed = [index, blocks] if bgzip else [index]
        if not all(file.exists() and file.stat().st_mtime >= self.path.stat().st_mtime for file in needed):
            index, blocks = self._make_index(bgzip)
        try:
            fasta = pysam.FastaFile(str(self.path), str(index), str(blocks) if bgzip else None)
        except (OSError, ValueError) as error:
            raise UserError(
                problem(self.path, f"the FASTA cannot be opened ({error})", f"Try `samtools faidx {self.path}`.")
            ) from None
        if not fasta.references:
            raise UserError(
                problem(self.path, "the FASTA holds no sequence", "Give a genome with at least one chromosome.")
            )
        return fasta

    def _make_index(self, bgzip: bool) -> tuple[Path, Path]:
        folder = Path(self._scratch.name)
        index, blocks = folder / "genome.fai", folder / "genome.gzi"
        arguments = ["--fai-idx", str(index)] + (["--gzi-idx", str(blocks)] if bgzip else [])
        try:
            pysam.faidx(str(self.path), *arguments)
        except pysam.SamtoolsError as error:
            raise UserError(
                problem(
                    self.path,
                    f"the FASTA cannot be indexed ({str(error).strip()})",
                    "Check that it is complete and that lines of one record have one length.",
                )
            ) from None
        return index, blocks

    def fetch(self, chrom: str, start: int, end: int) -> NDArray[np.uint8]:
        """Return the base codes of [start, end): uint8, shape (end - start,); N beyond the chromosome's ends.

        Raises:
            UserError: the stretch holds a letter that is no nucleotide.
        """
        length = self.lengths[chrom]
        inside = max(start, 0), min(end, length)
        codes = np.full(end - start, N, dtype=np.uint8)
        if inside[0] >= inside[1]:
            return codes
        encoded = encode(self._fasta.fetch(chrom, *inside))
        if encoded.invalid is not None:
            position, letter = encoded.invalid
            raise UserError(
                problem(
                    f"{self.path}, {chrom}:{inside[0] + position + 1}",
                    f"{letter!r} is no nucleotide letter",
                    "Give a DNA FASTA (ACGTN; other IUPAC letters are read as N).",
                )
            )
        self.ambiguous += encoded.ambiguous
        codes[inside[0] - start : inside[1] - start] = encoded.codes
        return codes

    def fetch_all(self, chroms: Iterable[str], starts: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
        """Return the base codes of windows of equal width: uint8, shape (n, width)."""
        rows = [self.fetch(chrom, int(start), int(start) + width) for chrom, start in zip(chroms, starts, strict=True)]
        return np.stack(rows) if rows else np.empty((0, width), dtype=np.uint8)

    def __enter__(self) -> "Genome":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and remove the temporary index."""
        self._fasta.close()
        self._scratch.cleanup()


def check_fasta(path: Path) -> bool:
    """Return whether a FASTA file is compressed with bgzip.

    Raises:
        UserError: the file is absent, empty, not FASTA, or compressed with plain gzip.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(18)
    except OSError as error:
        raise UserError(
            problem(path, f"the genome cannot be read ({error.strerror})", "Check the path and its permissions.")
        ) from None
    if not head:
        raise UserError(problem(path, "the file is empty", "Give a FASTA with at least one sequence."))
    if head.startswith(GZIP_MAGIC):
        if head[12:14] != BGZF_SUBFIELD:
            plain = path.name.removesuffix(".gz")
            raise UserError(
                problem(
                    path,
                    "it is compressed with gzip, which allows no random access",
                    f"Recompress it: gunzip -c {path} | bgzip > {plain}.bgz",
                )
            )
        return True
    if not head.startswith(b">"):
        raise UserError(
            problem(
                f"{path}, line 1",
                f"a FASTA starts with '>', and this file with {head[:10]!r}",
                "Give a FASTA file.",
            )
        )
    return False


def match_chromosomes(names: Iterable[str], lengths: Mapping[str, int]) -> dict[str, str]:
    """Map a file's chromosome names to the genome's (chr1 to 1, 1 to chr1, M and MT alike).

    Returns:
        file's name -> genome's name, for every name that the genome has in one spelling or the other. Two
        names that would map to one chromosome (a file that mixes chr1 and 1) are both left out unless the
        genome has both.
    """
    mapped: dict[str, str] = {}
    for name in sorted(set(names)):
        spelling = next((s for s in _spellings(name) if s in lengths), None)
        if spelling is not None:
            mapped[name] = spelling
    targets = list(mapped.values())
    return {name: target for name, target in mapped.items() if targets.count(target) == 1}


def _spellings(name: str) -> list[str]:
    bare = name.removeprefix("chr")
    mitochondrial = ["MT", "M", "chrM", "chrMT"] if bare in {"M", "MT"} else []
    return [name, bare, f"chr{bare}", *mitochondrial]
