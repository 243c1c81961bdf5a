"""Whether the index beside a FASTA is of that FASTA; htslib trusts any, and reads other letters by a wrong one."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pysam

_COLUMNS = ["name", "length", "offset", "bases", "bytes"]
"""Of a .fai: bp, place of the first letter in the (uncompressed) file, letters and bytes per line."""
_MOST_CHECKED = 10_000  # records
_LONGEST_HEADER = 1 << 20  # bytes

Read = Callable[[int, int], bytes]
"""(place in the uncompressed file, number of bytes) -> bytes; fewer at the file's end."""


def index_fits(fasta: Path, fai: Path, gzi: Path | None = None) -> bool:
    """Return whether each record of an index lies where the FASTA has it, and is as long.

    What lies between the end of one record and the start of the next must be the header line of the latter. Of more
    than 10,000 records, so many are checked, evenly spread. Letters within a record are not looked at.

    Args:
        fasta: plain, or bgzip if `gzi` is given.
        fai: its index, as `samtools faidx` writes it.
        gzi: index of a bgzip file's blocks.
    """
    try:
        records = _read_fai(fai)
        if gzi is None:
            with fasta.open("rb") as handle:
                return _fits(records, _plain_reader(handle))
        with pysam.BGZFile(str(fasta), "rb") as blocks:
            return _fits(records, _bgzip_reader(blocks, gzi))
    except (OSError, ValueError, OverflowError, struct.error):
        return False


def _read_fai(path: Path) -> pd.DataFrame:
    """Read an index, in the order of the file, with the column `end`: the place after a record's last letter.

    Raises:
        ValueError: it is none, or has a name twice.
    """
    types = {"name": str, **dict.fromkeys(_COLUMNS[1:], np.int64)}
    table = pd.read_csv(path, sep="\t", header=None, names=_COLUMNS, dtype=types, quoting=3, keep_default_na=False)
    if (table[_COLUMNS[1:]] < 0).any(axis=None) or (table["length"] > 0)[table["bases"] == 0].any():
        raise ValueError
    if table["name"].duplicated().any():
        raise ValueError
    lines = (table["length"] - 1).clip(lower=0) // table["bases"].clip(lower=1)  # before the last one
    end = table["offset"] + table["length"] + lines * (table["bytes"] - table["bases"])
    return table.assign(end=end).sort_values("offset", kind="stable", ignore_index=True)


def _fits(records: pd.DataFrame, read: Read) -> bool:
    names, starts, ends = records["name"].tolist(), records["offset"].tolist(), records["end"].tolist()
    if not names:
        return False
    chosen = np.unique(np.linspace(0, len(names) - 1, min(len(names), _MOST_CHECKED)).astype(np.int64)).tolist()
    before = [0, *ends]
    return all(_is_header(names[i], before[i], starts[i], read) for i in chosen) and _is_end(ends[-1], read)


def _is_header(name: str, start: int, end: int, read: Read) -> bool:
    """Return whether between a record's last letter, before `start`, and `end` there is the header line of a name."""
    if not 0 < end - start <= _LONGEST_HEADER:
        return False
    between = read(start, end - start)
    header = between.strip()
    return (
        (start == 0 or _is_last_letter(start, read))
        and len(between) == end - start
        and between.endswith(b"\n")
        and header.startswith(b">")
        and b"\n" not in header
        and header[1:].split(maxsplit=1)[:1] == [name.encode()]
    )


def _is_last_letter(end: int, read: Read) -> bool:
    """Return whether a letter ends at a place, and its line with it."""
    around = read(end - 1, 2)
    return len(around[:1].strip()) == 1 and not around[1:].strip()


def _is_end(end: int, read: Read) -> bool:
    """Return whether nothing follows the last letter."""
    rest = read(end, _LONGEST_HEADER)
    return _is_last_letter(end, read) and len(rest) < _LONGEST_HEADER and not rest.strip()


def _plain_reader(handle: BinaryIO) -> Read:
    def read(place: int, size: int) -> bytes:
        handle.seek(place)
        return handle.read(size)

    return read


def _bgzip_reader(blocks: pysam.BGZFile, gzi: Path) -> Read:
    """Return what reads an opened bgzip file by the index of its blocks.

    The format: a count, then (compressed, uncompressed) place of each block but the first, all uint64.
    """
    content = gzi.read_bytes()
    (count,) = struct.unpack_from("<Q", content)
    places = np.frombuffer(content, dtype="<u8", offset=8).astype(np.int64).reshape(-1, 2)
    if len(places) != count:
        raise ValueError
    places = np.vstack([np.zeros((1, 2), dtype=np.int64), places])

    def read(place: int, size: int) -> bytes:
        compressed, uncompressed = places[np.searchsorted(places[:, 1], place, side="right") - 1].tolist()
        if place - uncompressed >= 1 << 16:  # a block is no longer: the index is of another file
            return b""
        blocks.seek(compressed << 16 | (place - uncompressed))
        return bytes(blocks.read(size))

    return read
