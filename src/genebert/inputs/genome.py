"""Genome sequence from FASTA, plain or bgzip, or 2bit, by random access."""

import gzip
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import SEEK_CUR, SEEK_END
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import pandas as pd
import py2bit
import pysam
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from genebert.errors import UserError, listed, problem
from genebert.inputs.faidx import index_fits
from genebert.schema import Encoded, N, encode, parent_of

GZIP_MAGIC = b"\x1f\x8b"
BGZF_SUBFIELD = b"BC"
_TWOBIT_MAGIC = 0x1A412743
_STRETCH = 1 << 22  # bp read at once: keeps memory small, and is as fast as any more
_GAP = 1 << 15  # bp: reading on over a shorter gap is faster than another access, most of all in bgzip


@dataclass(frozen=True)
class _Opened:
    """An open genome file.

    Attributes:
        lengths: chromosome -> length in bp, in the file's order.
        letters: (chromosome, start, end) -> letters of a stretch inside the chromosome.
        close: closes the file.
        index: of a FASTA, the files .fai and, if it is compressed, .gzi.
    """

    lengths: dict[str, int]
    letters: Callable[[str, int, int], str]
    close: Callable[[], None]
    index: tuple[Path, ...] = ()


class Genome:
    """A FASTA or 2bit file opened for random access; soft masks (lower case) are passed over.

    An index beside a FASTA (`samtools faidx`) is used if it is there and fits; otherwise one is made in a temporary
    folder, because the file's own folder may be read-only. A genome that was pickled opens its file anew, with
    the same index as long as that is there.

    Args:
        path: the file; its first bytes tell FASTA from 2bit.
        index: the attribute `index` of another `Genome` of this file, so that it is not made again.

    Attributes:
        path: the file.
        lengths: chromosome -> length in bp, in the file's order.
        ambiguous: number of IUPAC letters that became N in what was fetched so far.
        index: of a FASTA, the files .fai and, if it is compressed, .gzi; else empty.

    Raises:
        UserError: the file is absent, empty, truncated, neither FASTA nor 2bit, or compressed with plain gzip.
    """

    def __init__(self, path: Path, index: tuple[Path, ...] = ()) -> None:
        self.path = path
        self.ambiguous = 0
        self._scratch = tempfile.TemporaryDirectory(prefix="genebert-")
        try:
            opened = _open(path, index, Path(self._scratch.name))
        except UserError:
            self._scratch.cleanup()
            raise
        self.lengths = opened.lengths
        self.index = opened.index
        self._letters = opened.letters
        self._close = opened.close

    def __reduce__(self) -> tuple[type["Genome"], tuple[Path, tuple[Path, ...]]]:
        return Genome, (self.path, self.index)

    def fetch(self, chrom: str, start: int, end: int) -> NDArray[np.uint8]:
        """Return the base codes of [start, end): uint8, shape (end - start,); N beyond the chromosome's ends.

        Raises:
            UserError: the stretch holds a letter that is no nucleotide.
        """
        encoded = self._checked(chrom, start, end)
        self.ambiguous += encoded.ambiguous
        return encoded.codes

    def _checked(self, chrom: str, start: int, end: int) -> Encoded:
        encoded = self._encode(chrom, start, end)
        if encoded.invalid is None:
            return encoded
        position, letter = encoded.invalid
        raise UserError(
            problem(
                f"{self.path}, {chrom}:{start + position + 1}",
                f"{letter!r} is no nucleotide letter",
                "Give a DNA FASTA (ACGTN; other IUPAC letters are read as N).",
            )
        )

    def _encode(self, chrom: str, start: int, end: int) -> Encoded:
        """Return what `encode` makes of [start, end), with N beyond the chromosome's ends."""
        first, last = max(start, 0), min(end, self.lengths[chrom])
        encoded = encode(self._letters(chrom, first, last) if first < last else "")
        if len(encoded.codes) == end - start:
            return encoded
        codes = np.full(end - start, N, dtype=np.uint8)
        codes[first - start : first - start + len(encoded.codes)] = encoded.codes
        invalid = encoded.invalid and (encoded.invalid[0] + first - start, encoded.invalid[1])
        return Encoded(codes, encoded.ambiguous, invalid)

    def fetch_all(self, chroms: Iterable[str], starts: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
        """Return the base codes of windows of equal width, in any order: uint8, shape (n, width).

        Raises:
            UserError: as `fetch`.
        """
        codes = np.empty((len(starts), width), dtype=np.uint8)
        for chrom, rows in _rows_by_name(chroms):
            codes[rows] = self.read_windows(chrom, starts[rows], width)
        return codes

    def read_windows(self, chrom: str, starts: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
        """Return the base codes of windows of one chromosome: uint8, shape (n, width).

        Windows that lie near each other are cut from one stretch, so that sorted ones cost little more than to read
        the sequence once. Beside the result, memory is that of one stretch, however long the chromosome is.

        Raises:
            UserError: as `fetch`.
        """
        codes = np.empty((len(starts), width), dtype=np.uint8)
        order = np.argsort(starts, kind="stable")
        for rows in _stretches(starts[order], width):
            self._cut_windows(chrom, starts, width, order[rows], codes)
        return codes

    def _cut_windows(
        self, chrom: str, starts: NDArray[np.int64], width: int, rows: NDArray[np.int64], codes: NDArray[np.uint8]
    ) -> None:
        """Fill `rows` (sorted by start) of `codes`."""
        first = int(starts[rows[0]])
        stretch = self._encode(chrom, first, int(starts[rows[-1]]) + width)
        if stretch.ambiguous or stretch.invalid:  # may lie between the windows, or in several of them
            for row in rows:
                codes[row] = self.fetch(chrom, int(starts[row]), int(starts[row]) + width)
        else:
            codes[rows] = sliding_window_view(stretch.codes, width)[starts[rows] - first]

    def count_n(self, chrom: str, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of N in each window [start, end): int64, shape (n,).

        What lies beyond the chromosome's ends is N. Windows may be of any widths, in any order; memory does not
        grow with the chromosome. Only stretches that windows touch are read.

        Raises:
            UserError: as `fetch`, for any letter of such a stretch.
        """
        length = self.lengths[chrom]
        first, last = np.clip(starts, 0, length), np.clip(ends, 0, length)
        places = np.unique(np.concatenate([first, last]))
        before = np.zeros(len(places), dtype=np.int64)  # N from the first stretch on to each place
        total = 0
        for start in _touched(first, last):
            end = min(start + _STRETCH, length)
            counts = np.zeros(end - start + 1, dtype=np.int32)
            np.cumsum(self._checked(chrom, start, end).codes == N, out=counts[1:])
            inside = slice(np.searchsorted(places, start), np.searchsorted(places, end, side="right"))
            before[inside] = total + counts[places[inside] - start]
            total += int(counts[-1])
        inside_ends = before[np.searchsorted(places, last)] - before[np.searchsorted(places, first)]
        return np.asarray(inside_ends + (ends - starts) - (last - first))

    def __enter__(self) -> "Genome":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and remove the temporary index."""
        self._close()
        self._scratch.cleanup()


def _rows_by_name(names: Iterable[str]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield each name and the rows that have it."""
    groups = pd.Series(list(names), dtype=object)
    yield from ((str(name), rows) for name, rows in groups.groupby(groups, sort=False).indices.items())


def _stretches(starts: NDArray[np.int64], width: int) -> Iterator[slice]:
    """Divide sorted windows into runs without long gaps, each at most `_STRETCH` bp long (or one window)."""
    row = 0
    for last in [*(np.flatnonzero(np.diff(starts) > width + _GAP) + 1).tolist(), len(starts)]:
        while row < last:
            fitting = int(np.searchsorted(starts, starts[row] + _STRETCH - width, side="right"))
            end = max(row + 1, min(last, fitting))
            yield slice(row, end)
            row = end


def _touched(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> list[int]:
    """Return the starts of the tiles of `_STRETCH` bp that intervals touch, ascending."""
    some = ends > starts
    if not some.any():
        return []
    steps = np.zeros(int(ends.max()) // _STRETCH + 2, dtype=np.int64)
    np.add.at(steps, starts[some] // _STRETCH, 1)
    np.add.at(steps, (ends[some] - 1) // _STRETCH + 1, -1)
    return [int(tile) * _STRETCH for tile in np.flatnonzero(np.cumsum(steps))]


def _open(path: Path, index: tuple[Path, ...], scratch: Path) -> _Opened:
    """Open a genome file; what has to be made beside it goes to the folder `scratch`."""
    head = _read_head(path)
    for order in ("<", ">"):
        if head[:4] == struct.pack(f"{order}I", _TWOBIT_MAGIC):
            return _open_2bit(path, order)
    return _open_fasta(path, _check_fasta(path, head), index, scratch)


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            head = handle.read(18)
    except OSError as error:
        raise UserError(
            problem(path, f"the genome cannot be read ({error.strerror})", "Check the path and its permissions.")
        ) from None
    if not head:
        raise UserError(problem(path, "the file is empty", "Give a FASTA or 2bit file with at least one sequence."))
    return head


def _check_fasta(path: Path, head: bytes) -> bool:
    """Return whether a FASTA file, of which the first bytes are given, is compressed with bgzip.

    Raises:
        UserError: it is not FASTA, or compressed with plain gzip.
    """
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
                "Give a FASTA or 2bit file.",
            )
        )
    return False


def _open_fasta(path: Path, bgzip: bool, index: tuple[Path, ...], scratch: Path) -> _Opened:
    index = index if index and all(file.exists() for file in index) else _find_index(path, bgzip, scratch)
    try:
        fasta = pysam.FastaFile(str(path), *map(str, index))
    except (OSError, ValueError) as error:
        raise UserError(
            problem(path, f"the FASTA cannot be opened ({error})", f"Try `samtools faidx {path}`.")
        ) from None
    if not fasta.references:
        raise UserError(problem(path, "the FASTA holds no sequence", "Give a genome with at least one chromosome."))
    lengths = dict(zip(fasta.references, fasta.lengths, strict=True))
    return _Opened(lengths, fasta.fetch, fasta.close, index)


def _find_index(path: Path, bgzip: bool, scratch: Path) -> tuple[Path, ...]:
    """Return the index files beside a FASTA, or make them in `scratch` if there are none, or those of another file."""
    suffixes = (".fai", ".gzi") if bgzip else (".fai",)
    beside = tuple(Path(f"{path}{suffix}") for suffix in suffixes)
    newer = all(file.exists() and file.stat().st_mtime >= path.stat().st_mtime for file in beside)
    if newer and index_fits(path, *beside):  # a copy or a download has a new time stamp, whatever it holds
        return beside
    made = tuple(scratch / f"genome{suffix}" for suffix in suffixes)
    options = [word for file in made for word in (f"--{file.suffix[1:]}-idx", str(file))]
    try:
        pysam.faidx(str(path), *options)
    except pysam.SamtoolsError as error:
        raise UserError(
            problem(
                path,
                f"the FASTA cannot be indexed ({str(error).strip()})",
                "Check that it is complete and that lines of one record have one length.",
            )
        ) from None
    if not index_fits(path, *made):  # htslib leaves out what has the name of an earlier record, and goes on
        _check_names(path, bgzip)
    return made


def _check_names(path: Path, bgzip: bool) -> None:
    """Refuse a FASTA that has two sequences of one name."""
    with gzip.open(path) if bgzip else path.open("rb") as lines:
        names = Counter(line[1:].split(maxsplit=1)[0] for line in lines if line.startswith(b">") and line[1:].strip())
    repeated = [name.decode(errors="replace") for name, count in names.items() if count > 1]
    if repeated:
        what = f"it gives two sequences one name: {listed(repeated)}"
        raise UserError(problem(path, what, "Rename or remove all but one of each."))


def _open_2bit(path: Path, order: str) -> _Opened:
    lengths = _check_2bit(path, order)
    twobit = py2bit.open(str(path))
    return _Opened(lengths, twobit.sequence, twobit.close)


def _check_2bit(path: Path, order: str) -> dict[str, int]:
    """Return the lengths of a 2bit file's sequences; py2bit itself reads past the end of a truncated file.

    The format: https://genome.ucsc.edu/FAQ/FAQformat.html#format7

    Raises:
        UserError: it has another version or byte order, is truncated, or holds no sequence.
    """
    with path.open("rb") as handle:
        try:
            _, version, count, _ = _integers(handle, 4, order)
            if order == ">" or version:
                what = f"it is 2bit of version {version}, {'big' if order == '>' else 'little'}-endian"
                raise UserError(
                    problem(
                        path,
                        f"{what}, and only version 0, little-endian, can be read",
                        f"Convert it: twoBitToFa {path} genome.fa",
                    )
                )
            offsets = dict(_read_2bit_entry(handle) for _ in range(count))
            lengths = {name: _length_in_2bit(handle, offset) for name, offset in offsets.items()}
        except (struct.error, EOFError):
            raise UserError(
                problem(path, "the 2bit file is truncated or damaged", "Copy or download it again.")
            ) from None
    if not lengths or len(lengths) < count:
        what = "holds no sequence" if not count else "gives two sequences one name"
        raise UserError(problem(path, f"the 2bit file {what}", "Make it anew with faToTwoBit."))
    return lengths


def _read_2bit_entry(handle: BinaryIO) -> tuple[str, int]:
    """Return name and offset of the next sequence in the file's table."""
    (size,) = struct.unpack("B", handle.read(1))
    name = handle.read(size).decode("ascii", "replace")
    (offset,) = _integers(handle, 1)
    return name, offset


def _length_in_2bit(handle: BinaryIO, offset: int) -> int:
    """Return the length of the sequence whose record is at `offset`, once all of the record is there."""
    handle.seek(offset)
    length, blocks = _integers(handle, 2)
    handle.seek(8 * blocks, SEEK_CUR)
    (masks,) = _integers(handle, 1)
    end = handle.tell() + 8 * masks + 4 + -(-length // 4)
    if end > handle.seek(0, SEEK_END):
        raise EOFError
    return length


def _integers(handle: BinaryIO, count: int, order: str = "<") -> tuple[int, ...]:
    return struct.unpack(f"{order}{count}I", handle.read(4 * count))


def match_chromosomes(names: Iterable[str], lengths: Mapping[str, int]) -> dict[str, str]:
    """Map a file's chromosome names to the genome's (chr1 to 1, 1 to chr1, M and MT alike).

    Returns:
        file's name -> genome's name, for every name that the genome has in one spelling or the other. Two
        names that would map to one chromosome (a file that mixes chr1 and 1) are both left out unless the
        genome has both.
    """
    mapped = spelled_chromosomes(names, lengths)
    targets = Counter(mapped.values())
    return {name: target for name, target in mapped.items() if targets[target] == 1}


def spelled_chromosomes(names: Iterable[str], known: Container[str]) -> dict[str, str]:
    """Map chromosome names to those known, as `match_chromosomes` does, but each by itself: chr1 and 1 are the same."""
    mapped: dict[str, str] = {}
    for name in sorted(set(names)):
        spelling = next((s for s in _spellings(name) if s in known), None)
        if spelling is not None:
            mapped[name] = spelling
    return mapped


def chromosomes_known(names: Iterable[str], known: Container[str]) -> dict[str, str]:
    """Map names to those known, in either spelling, and other sequences of a known chromosome to it (`parent_of`)."""
    given = set(names)
    spelled = spelled_chromosomes({*given, *map(parent_of, given)}, known)
    found = {name: spelled.get(name, spelled.get(parent_of(name))) for name in sorted(given)}
    return {name: chromosome for name, chromosome in found.items() if chromosome is not None}


def other_genome(path: Path, names: Iterable[str], lengths: Mapping[str, int]) -> UserError:
    """Return what to say of a file of which no chromosome is in the genome."""
    what = f"none of its chromosomes ({listed(names)}) is in the genome, which has {listed(lengths)}"
    return UserError(problem(path, what, "Use the same assembly and naming as the genome."))


def _spellings(name: str) -> list[str]:
    bare = name.removeprefix("chr")
    mitochondrial = ["MT", "M", "chrM", "chrMT"] if bare in {"M", "MT"} else []
    return [name, bare, f"chr{bare}", *mitochondrial]
