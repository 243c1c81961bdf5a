"""Motif collections, in the formats in which they are published.

Every reader yields matrices as the file has them, with line numbers, and one place turns them into motifs. Biopython's
readers are what the tests compare with, not what is used: they round MEME's probabilities to whole counts, leave
out the last motif of a JASPAR or TRANSFAC file that was cut short, give a TRANSFAC record without a matrix that of
the record before, and name no line.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pyjaspar import jaspardb

from genebert.errors import Problems, UserError, problem
from genebert.inputs.intervals import read_text
from genebert.schema import Motif
from genebert.settings import JASPAR

JASPAR_RELEASE = "JASPAR2026"
JASPAR_GROUPS = ("vertebrates", "plants", "insects", "nematodes", "fungi", "urochordates")
SUM_TOLERANCE = 0.02
_COPY = "Copy or download the file again."
_FOUR = "Write rows of four numbers, A C G T, or four rows of equal length, one per base."
_NO_LOG_ODDS = "Give counts or probabilities; of HOCOMOCO, download pcm, pfm (ppm) or MEME instead of pwm."
_STATED_WIDTH = re.compile(r"^letter-probability matrix.*\bw=\s*(\d+)", re.MULTILINE)
_HOCOMOCO_ID = re.compile(r"^(?P<name>[^.]+?)(_HUMAN|_MOUSE)?\.H1\d")
_BRACKETS = str.maketrans("[]|", "   ")

Layout = Literal["base", "position"]
"""What a row of a matrix in a file is."""


def read_motifs(source: str) -> list[Motif]:
    """Read a motif collection; the format is told by the content.

    ============================ =========================================================================
    MEME, version 4 or later     `MOTIF ID NAME`, then `letter-probability matrix:` and rows of
                                 probabilities A C G T
    JASPAR                       `>ID NAME`, then four rows `A [ 4 19 0 ]` of counts
    JASPAR, raw PFM              `>ID NAME`, then four bare rows of counts, in the order A C G T
    HOCOMOCO pcm, pfm or ppm     `>NAME`, then a row per position of four counts or probabilities A C G T
    TRANSFAC                     `AC`, `ID`, `NA`, then `P0 A C G T` and numbered rows of counts, `//`
    jaspar:GROUP                 a taxonomic group of JASPAR 2026 CORE, which comes with pyjaspar and needs
                                 no download
    ============================ =========================================================================

    Counts become probabilities by division by their sum at each position.

    Args:
        source: a file (plain or gzip) in one of these formats, or jaspar:GROUP.

    Raises:
        UserError: unknown group, unreadable file, unknown format, log-odds (HOCOMOCO pwm), names that repeat,
            or columns that are no counts or probabilities; all problems are named with their lines.
    """
    if source.startswith(JASPAR):
        return list(_jaspar_core(source.removeprefix(JASPAR)))
    path = Path(source)
    text = read_text(path)
    found = Problems(f"The motifs of {path} cannot be used:")
    matrices = _read_matrices(text, path, found)
    _check_names(matrices, found)
    numbers = [_numbers(matrix, found) for matrix in matrices]
    motifs = list(_motifs(matrices, numbers, found))
    found.raise_any()
    if not motifs:
        raise UserError(problem(path, "no motif was found", "Give a file with at least one motif."))
    return motifs


@cache  # pyjaspar asks for each matrix by itself, which takes seconds
def _jaspar_core(group: str) -> tuple[Motif, ...]:
    if group not in JASPAR_GROUPS:
        raise UserError(
            problem(f"jaspar:{group}", "there is no such group", f"Choose one of {', '.join(JASPAR_GROUPS)}.")
        )
    found = jaspardb(release=JASPAR_RELEASE).fetch_motifs(collection="CORE", tax_group=[group])
    counts = {m.matrix_id: np.array([m.counts[base] for base in "ACGT"], dtype=np.float64).T for m in found}
    names = {m.matrix_id: m.name for m in found}
    return tuple(Motif(key, names[key], counts[key] / counts[key].sum(axis=1, keepdims=True)) for key in sorted(counts))


@dataclass(frozen=True)
class _Matrix:
    """A motif as a file has it.

    Attributes:
        id: unique name.
        name: name of the TF.
        line: 1-based line of its beginning.
        rows: (1-based line, words) of each row.
        layout: what a row is; None if the format leaves that to the reader.
        counts: numbers may be counts, and not only probabilities.
    """

    id: str
    name: str
    line: int
    rows: list[tuple[int, list[str]]]
    layout: Layout | None
    counts: bool = True

    @property
    def where(self) -> str:
        """Return its place in the file, for an error."""
        return f"line {self.line}, motif {self.id}"


def _read_matrices(text: str, path: Path, found: Problems) -> list[_Matrix]:
    if "\0" in text:
        remedy = "Unpack archives, and join the motifs into one text file: cat *.pcm > motifs.pcm."
        raise UserError(problem(path, "it is a binary file or an archive", remedy))
    lines = text.splitlines()
    first = next((line for line in lines if line.strip() and not line.startswith("#")), lines[0])
    if any(line.startswith("MEME version") for line in lines):
        return list(_read_meme(lines, found))
    if first.startswith(">"):
        return list(_read_headed(lines, found))
    if any(_begins_transfac_matrix(line) for line in lines):
        return list(_read_transfac(lines, found))
    raise UserError(
        problem(
            path,
            f"it is no MEME, JASPAR, HOCOMOCO or TRANSFAC file; it begins with {first[:40]!r}",
            "A MEME file says 'MEME version'; JASPAR and HOCOMOCO files have a line '>ID NAME' before every matrix; "
            "TRANSFAC files have a line 'P0 A C G T'.",
        )
    )


def _short_name(identifier: str) -> str:
    match = _HOCOMOCO_ID.match(identifier)
    return match["name"] if match else identifier


def _check_names(matrices: list[_Matrix], found: Problems) -> None:
    first: dict[str, int] = {}
    for matrix in matrices:
        if matrix.id in first:
            what = f"the name occurs more than once, first in line {first[matrix.id]}"
            found.add(matrix.where, what, "Rename or remove the repetition.")
        first.setdefault(matrix.id, matrix.line)


# MEME -------------------------------------------------------------------------------------------------------


def _read_meme(lines: list[str], found: Problems) -> Iterator[_Matrix]:
    starts = [number for number, line in enumerate(lines) if line.startswith("MOTIF")]
    for start, end in pairwise([*starts, len(lines)]):
        words = lines[start].split()[1:]
        if not words:
            found.add(f"line {start + 1}", "MOTIF has no name", "Write `MOTIF ID NAME`.")
            continue
        rows = _meme_rows(lines, start, end)
        stated = _STATED_WIDTH.search("\n".join(lines[start:end]))
        where = f"line {start + 1}"
        if not rows:
            found.add(where, f"{lines[start]!r} has no letter-probability matrix", "Add it, or remove the motif.")
        elif stated and int(stated[1]) != len(rows):
            found.add(where, f"{lines[start]!r} has {len(rows)} rows, and says w= {stated[1]}", _COPY)
        else:
            name = words[1] if len(words) > 1 else _short_name(words[0])
            yield _Matrix(words[0], name, start + 1, rows, "position", counts=False)


def _meme_rows(lines: list[str], start: int, end: int) -> list[tuple[int, list[str]]]:
    rows: list[tuple[int, list[str]]] = []
    inside = False
    for number in range(start + 1, end):
        line = lines[number].strip()
        if line.startswith("letter-probability matrix"):
            inside = True
        elif inside and (not line or line.startswith(("URL", "-"))):
            if rows:
                break
        elif inside:
            rows.append((number + 1, line.split()))
    return rows


# JASPAR and HOCOMOCO ----------------------------------------------------------------------------------------


def _read_headed(lines: list[str], found: Problems) -> Iterator[_Matrix]:
    """Read matrices that follow lines `>ID NAME`; whether a row is a base or a position is told later."""
    starts = [number for number, line in enumerate(lines) if line.startswith(">")]
    for start, end in pairwise([*starts, len(lines)]):
        words = lines[start][1:].split()
        inside = ((number + 1, lines[number].translate(_BRACKETS).split()) for number in range(start + 1, end))
        rows = [(number, row) for number, row in inside if row and not row[0].startswith("#")]
        if not words:
            found.add(f"line {start + 1}", "'>' has no name", "Write `>ID NAME`.")
        elif not rows:
            found.add(f"line {start + 1}", f"{lines[start]!r} has no matrix", "Add it, or remove the motif.")
        else:
            matrix = _Matrix(words[0], words[1] if len(words) > 1 else _short_name(words[0]), start + 1, rows, None)
            letters = [row[0].upper() for _, row in rows]
            if sorted(letters) == list("ACGT"):
                yield _without_letters(matrix)
            elif set(letters).isdisjoint("ACGT"):
                yield matrix
            else:
                what = f"its rows begin with {', '.join(letters)[:60]}"
                found.add(matrix.where, what, "Give four rows, one for each of A, C, G, T.")


def _without_letters(matrix: _Matrix) -> _Matrix:
    """Take the letters off rows such as `A [ 4 19 0 ]`, which come in any order."""
    rows = sorted(matrix.rows, key=lambda row: row[1][0].upper())
    return replace(matrix, rows=[(line, words[1:]) for line, words in rows], layout="base")


# TRANSFAC ---------------------------------------------------------------------------------------------------


def _begins_transfac_matrix(line: str) -> bool:
    return line.split()[:1] in (["P0"], ["PO"])


def _read_transfac(lines: list[str], found: Problems) -> Iterator[_Matrix]:
    ends = [number for number, line in enumerate(lines) if line.startswith("//")]
    for start, end in pairwise([-1, *ends, len(lines)]):
        header = next((i for i in range(start + 1, end) if _begins_transfac_matrix(lines[i])), None)
        if header is None:
            continue
        if end == len(lines):
            found.add(f"line {header + 1}", "the end of the record (//) is missing", _COPY)
        if lines[header].split()[1:5] != list("ACGT"):
            found.add(f"line {header + 1}", f"{lines[header]!r} does not name A C G T", "Give the columns as A C G T.")
            continue
        fields = {line.strip()[:2]: line.strip()[2:].strip() for line in lines[start + 1 : header]}
        names = [fields[key] for key in ("AC", "ID", "NA") if fields.get(key)]
        rows = _transfac_rows(lines, header, end, found)
        if not names or not rows:
            what = "the matrix has no rows" if names else "the matrix has no name"
            found.add(f"line {header + 1}", what, "Write `ID NAME` before it, and numbered rows after it.")
        else:
            yield _Matrix(names[0], _short_name(names[-1]), header + 1, rows, "position")


def _transfac_rows(lines: list[str], header: int, end: int, found: Problems) -> list[tuple[int, list[str]]]:
    rows: list[tuple[int, list[str]]] = []
    number = None
    for i in range(header + 1, end):
        words = lines[i].split()
        if not words or not words[0].isdecimal():
            break
        if number is not None and int(words[0]) != number + 1:
            found.add(f"line {i + 1}", f"row {words[0]} follows row {number:02d}", _COPY)
        number = int(words[0])
        rows.append((i + 1, words[1:5]))  # a fifth word is the consensus letter
    return rows


# Numbers ----------------------------------------------------------------------------------------------------


def _numbers(matrix: _Matrix, found: Problems) -> NDArray[np.float64] | None:
    """Return the numbers of a matrix as the file has them, one axis of which is 4 long; None if they are wrong."""
    rows = []
    for line, words in matrix.rows:
        row = _row(f"line {line}, motif {matrix.id}", words, found)
        if row is None:
            return None
        rows.append(row)
    lengths = [len(row) for row in rows]
    length = 4 if matrix.layout == "position" else Counter(lengths).most_common(1)[0][0]
    odd = next((i for i, other in enumerate(lengths) if other != length), None)
    if odd is not None:
        what = f"it has {lengths[odd]} numbers, where {length} are expected"
        found.add(f"line {matrix.rows[odd][0]}, motif {matrix.id}", what, _FOUR)
    elif 4 not in (len(rows), length) or not length:
        found.add(matrix.where, f"it has {len(rows)} rows of {length} numbers", _FOUR)
    else:
        return np.array(rows)
    return None


def _row(where: str, words: list[str], found: Problems) -> list[float] | None:
    try:
        row = [float(word) for word in words]
    except ValueError:
        found.add(where, f"{' '.join(words)[:60]!r} is no row of numbers", _FOUR)
        return None
    wrong = [word for word, value in zip(words, row, strict=True) if not (isfinite(value) and value >= 0)]
    if not wrong:
        return row
    hint = ", but may be a log-odds (pwm)" if wrong[0].startswith("-") else ""
    found.add(where, f"{wrong[0]} is no count or probability{hint}", _NO_LOG_ODDS)
    return None


def _motifs(
    matrices: Sequence[_Matrix], numbers: Sequence[NDArray[np.float64] | None], found: Problems
) -> Iterator[Motif]:
    told = {_layout(values) for values in numbers if values is not None} - {None}
    of_file = told.pop() if len(told) == 1 else None
    for matrix, values in zip(matrices, numbers, strict=True):
        if values is None:
            continue
        layout = matrix.layout or _layout(values) or of_file or _layout_by_sums(values)
        if layout is None:
            what = "it has 4 x 4 numbers, and nothing tells whether a row is a base or a position"
            found.add(matrix.where, what, "Begin the rows with the bases, as in 'A [ 4 19 0 2 ]'.")
        else:
            columns = values.T if layout == "base" else values
            yield Motif(matrix.id, matrix.name, _probabilities(matrix, columns, found))


def _layout(values: NDArray[np.float64]) -> Layout | None:
    """Return what a row is, by the shape: None for 4 x 4."""
    if values.shape == (4, 4):
        return None
    return "base" if len(values) == 4 else "position"


def _layout_by_sums(values: NDArray[np.float64]) -> Layout | None:
    """Return along which axis the sums are equal, as those over the bases of a position are; None for both or none."""
    sums: dict[Layout, NDArray[np.float64]] = {"base": values.sum(axis=0), "position": values.sum(axis=1)}
    equal = [layout for layout, total in sums.items() if np.ptp(total) <= SUM_TOLERANCE * total.max()]
    return equal[0] if len(equal) == 1 else None


def _probabilities(matrix: _Matrix, columns: NDArray[np.float64], found: Problems) -> NDArray[np.float64]:
    """Return probabilities, shape (width, 4), of counts or probabilities."""
    sums = columns.sum(axis=1, keepdims=True)
    counts = matrix.counts and columns.max() > 1
    wrong = sums <= 0 if counts else np.abs(sums - 1) > SUM_TOLERANCE
    for position in np.flatnonzero(wrong)[:1]:
        values = " ".join(f"{value:g}" for value in columns[position])
        where = f"{matrix.where}, position {position + 1}"
        found.add(where, f"{values} have the sum {sums[position, 0]:g}", "Give counts, or probabilities that sum to 1.")
    return columns / np.where(sums > 0, sums, 1.0) if counts else columns


def write_meme(path: Path, motifs: Sequence[Motif], gc: float = 0.5) -> None:
    """Write motifs in MEME format, version 4, as `read_motifs` reads it: ids without spaces, and first words of names.

    Args:
        path: of the new file.
        motifs: in the order of the file.
        gc: fraction of G and C in the background.
    """
    a, c = (1 - gc) / 2, gc / 2
    lines = ["MEME version 4", "", "ALPHABET= ACGT", "", "strands: + -", "", "Background letter frequencies"]
    lines += [f"A {a:.4f} C {c:.4f} G {c:.4f} T {a:.4f}", ""]
    for motif in motifs:
        lines += [
            f"MOTIF {'_'.join(motif.id.split())} {motif.name}",
            f"letter-probability matrix: alength= 4 w= {motif.width} nsites= 20 E= 0",
        ]
        lines += [" " + " ".join(f"{value:.8f}" for value in row) for row in motif.probabilities] + [""]
    path.write_text("\n".join(lines), encoding="utf-8")
