"""Coverage from bigWig files, summed in windows."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyBigWig
from numpy.typing import NDArray

from genebert.errors import Problems, UserError, listed, problem
from genebert.inputs.genome import match_chromosomes, other_genome, spelled_chromosomes

_MAGIC = {b"\x26\xfc\x8f\x88": "bigWig", b"\x88\x8f\xfc\x26": "bigWig", b"\xeb\xf2\x89\x87": "bigBed"}
"""First four bytes of the kinds of file; a bigWig may be of either byte order."""
_STRETCH = 1 << 18  # bp read at once: one call per window would cost 30 times more for crowded windows


def bigwig_counts(path: Path, windows: pd.DataFrame, lengths: Mapping[str, int]) -> NDArray[np.float64]:
    """Return the total signal in each window: the sum of the values of its bases, 0 where the file has none.

    Args:
        path: bigWig file of coverage.
        windows: DataFrame with chrom, start, end; n rows in any order, within their chromosomes.
        lengths: chromosome -> length of the genome in bp.

    Returns:
        float64, shape (n,).

    Raises:
        UserError: the file is no bigWig, is of another assembly, has two names for a chromosome, holds values that are
            no amounts, or has no signal in any window.
    """
    totals = np.zeros(len(windows))
    starts, ends = windows["start"].to_numpy(np.int64), windows["end"].to_numpy(np.int64)
    with _opened(path) as bigwig:
        name_of = _match(path, bigwig.chroms(), lengths, set(windows["chrom"].astype(str)))
        for chrom, rows in windows.groupby("chrom", observed=True).indices.items():
            if chrom in name_of:
                rows = rows[np.argsort(starts[rows], kind="stable")]
                totals[rows] = _sums(path, bigwig, name_of[str(chrom)], starts[rows], ends[rows])
    if len(windows) and not totals.any():
        raise UserError(problem(path, "it has no signal in any region", "Check that it is the file you mean."))
    return totals


def chromosomes_without_coverage(path: Path, windows: pd.DataFrame, lengths: Mapping[str, int]) -> list[str]:
    """Return the chromosomes, sorted, on which there are windows, and that the file's header lacks.

    Raises:
        UserError: see `bigwig_counts`, but for what it says of values.
    """
    used = set(windows["chrom"].astype(str))
    with _opened(path) as bigwig:
        return sorted(used - set(_match(path, bigwig.chroms(), lengths, used)))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a bigWig file.

    Raises:
        UserError: it cannot be read, is no bigWig, or is cut short.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(4)
            handle.seek(-len(head), os.SEEK_END)
            tail = handle.read()
    except OSError as error:
        what = f"the bigWig cannot be read ({error.strerror})"
        raise UserError(problem(path, what, "Check the path and its permissions.")) from None
    if _MAGIC.get(head) != "bigWig":
        what = "the file is empty" if not head else f"it is no bigWig but {_MAGIC.get(head, 'something else')}"
        raise UserError(problem(path, what, "Give coverage as bigWig; bedGraphToBigWig makes it of bedGraph."))
    try:
        # The first bytes are repeated as the last. A file without an end makes pyBigWig crash, or read in part.
        bigwig = pyBigWig.open(str(path)) if tail == head and path.stat().st_size > len(head) else None
    except RuntimeError:
        bigwig = None
    if bigwig is None:
        raise UserError(problem(path, "the bigWig is cut short or damaged", "Copy or make it again."))
    with bigwig:
        yield bigwig


def _match(path: Path, chroms: Mapping[str, int], lengths: Mapping[str, int], used: set[str]) -> dict[str, str]:
    """Return the genome's chromosome names -> the file's.

    Raises:
        UserError: none agrees, or one that is used has another length in the genome, or two names in the file; others
            may, as mitochondria do.
    """
    mapped = match_chromosomes(chroms, lengths)
    doubtful = spelled_chromosomes(set(chroms) - set(mapped), lengths)  # another name in the file is the same one
    if not mapped and not doubtful:
        raise other_genome(path, chroms, lengths)
    found = Problems(f"The bigWig {path} cannot be used:")
    for target in sorted(set(doubtful.values())):
        names = listed(name for name in doubtful if doubtful[name] == target)
        found.add(target, f"it has several names in the bigWig: {names}", "Use one naming (chr1 or 1) throughout it.")
    differing = {name: target for name, target in mapped.items() if chroms[name] != lengths[target]}
    for name, target in differing.items():
        what = f"it has {chroms[name]} bp in the bigWig, and {target} has {lengths[target]} bp in the genome"
        found.add(name, what, "Use the genome assembly that the reads were mapped to.")
    if not used.isdisjoint([*differing.values(), *doubtful.values()]):
        found.raise_any()
    return {target: name for name, target in mapped.items()}


def _sums(
    path: Path, bigwig: Any, chrom: str, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the sums in windows of one chromosome, sorted by start: float64, shape (m,)."""
    totals = np.zeros(len(starts))
    edges = np.flatnonzero(np.diff(starts // _STRETCH, prepend=-1, append=-1))
    for first, last in pairwise(edges.tolist()):
        begin, end = int(starts[first]), int(ends[first:last].max())
        values = _read(path, bigwig, chrom, begin, end)
        bounds = np.stack([starts[first:last], ends[first:last]], axis=1).ravel() - begin
        totals[first:last] = np.add.reduceat(values, bounds, dtype=np.float64)[::2]
    return totals


def _read(path: Path, bigwig: Any, chrom: str, begin: int, end: int) -> NDArray[np.float32]:
    """Return the value of each base, 0 where there is none, and one more 0: float32, shape (end - begin + 1,)."""
    values = np.zeros(end - begin + 1, dtype=np.float32)
    try:
        found = bigwig.values(chrom, begin, end, numpy=True)
    except RuntimeError:
        what = f"{chrom}:{begin}-{end} cannot be read"
        raise UserError(problem(path, what, "The file is cut short or damaged: copy or make it again.")) from None
    np.copyto(values[:-1], found, where=~np.isnan(found))
    # Looked for here and not in the file's header: pyBigWig crashes on reading a header with an infinite sum.
    wrong = (values < 0) | ~np.isfinite(values)
    if wrong.any():
        place = int(np.argmax(wrong))
        what = f"its value at {chrom}:{begin + place} is {values[place]}, and coverage is not negative or infinite"
        raise UserError(problem(path, what, "Give coverage, not ratios or logarithms."))
    return values
