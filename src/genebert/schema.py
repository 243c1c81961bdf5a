"""The nouns of GeneBERT and their checks, used by every stage (numpy and pandas only).

Definitions, once and for all:

* Coordinates are 0-based and half-open: [start, end). A region's centre is `start + width // 2`.
* Bases are codes of type uint8: A 0, C 1, G 2, T 3, N (unknown) 4; the complement of a known base b is 3 - b.
* Two intervals overlap if they share at least one base; abutting ones do not.
* Motif evidence is uint8: the -log10 p of a motif's best hit in a region, in steps of 1/16, at most 255/16 =
  15.94.
* Accessibility is float32: log1p of counts (or peak signal) per million in a cell type.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

BASES: Final = "ACGTN"
A, C, G, T, N = range(5)
SPLITS: Final = ("train", "valid", "test")
Split = Literal["train", "valid", "test"]
EVIDENCE_STEPS: Final = 16
"""Motif evidence is stored in steps of 1/16 of -log10 p."""

_CODE_OF = np.full(256, 255, dtype=np.uint8)
for _code, _letter in enumerate(BASES):
    _CODE_OF[[ord(_letter), ord(_letter.lower())]] = _code
_CODE_OF[[ord("U"), ord("u")]] = T
_IUPAC = np.frombuffer(b"RYSWKMBDHVryswkmbdhv", dtype=np.uint8)
_LETTER_OF = np.frombuffer(BASES.encode(), dtype=np.uint8)


@dataclass(frozen=True)
class Encoded:
    """Base codes of a sequence.

    Attributes:
        codes: uint8, shape (length,).
        ambiguous: number of IUPAC letters other than N that became N.
        invalid: (position, letter) of the first letter that is no nucleotide, or None.
    """

    codes: NDArray[np.uint8]
    ambiguous: int
    invalid: tuple[int, str] | None


def encode(sequence: str) -> Encoded:
    """Turn letters (either case) into base codes; IUPAC ambiguity letters become N and are counted."""
    letters = np.frombuffer(sequence.encode("latin-1", "replace"), dtype=np.uint8)
    codes = _CODE_OF[letters]
    unknown = np.flatnonzero(codes == 255)
    if not len(unknown):
        return Encoded(codes, 0, None)
    ambiguous = np.isin(letters[unknown], _IUPAC)
    codes[unknown] = N
    wrong = unknown[~ambiguous]
    invalid = (int(wrong[0]), sequence[int(wrong[0])]) if len(wrong) else None
    return Encoded(codes, int(ambiguous.sum()), invalid)


def decode(codes: NDArray[np.uint8]) -> str:
    """Turn base codes, shape (length,), into upper-case letters."""
    return _LETTER_OF[codes].tobytes().decode()


def reverse_complement(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the reverse complement of base codes along the last axis; N stays N."""
    flipped = codes[..., ::-1]
    return np.where(flipped < N, 3 - flipped, N).astype(np.uint8)


def substituted(codes: NDArray[np.uint8], places: Iterable[int]) -> tuple[list[tuple[int, int]], NDArray[np.uint8]]:
    """Make every substitution of the bases at some places.

    Args:
        codes: base codes of a sequence, uint8, shape (length,).
        places: 0-based, of bases that are known.

    Returns:
        place and base of each substitution; the sequence itself and then with each, uint8, shape (1 + substitutions,
        length).
    """
    changes = [(place, base) for place in places for base in range(N) if base != codes[place]]
    sequences = np.repeat(codes[None], len(changes) + 1, axis=0)
    for row, (place, base) in enumerate(changes, 1):
        sequences[row, place] = base
    return changes, sequences


def gc_fraction(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the fraction of G and C among the known bases along the last axis (0.5 where none is known)."""
    known = (codes < N).sum(-1)
    strong = ((codes == C) | (codes == G)).sum(-1)
    return np.where(known > 0, strong / np.maximum(known, 1), 0.5)


@dataclass(frozen=True)
class Motif:
    """A position weight matrix of a transcription factor.

    Attributes:
        id: unique name within a collection, such as "MA0139.2".
        name: name of the TF, such as "CTCF" (the id where the file gives none).
        probabilities: float64, shape (width, 4), columns A C G T; rows sum to 1.
    """

    id: str
    name: str
    probabilities: NDArray[np.float64]

    @property
    def width(self) -> int:
        """Number of positions."""
        return len(self.probabilities)

    def to_json(self) -> dict[str, Any]:
        """Return the motif as JSON values."""
        return {"id": self.id, "name": self.name, "probabilities": self.probabilities.tolist()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Motif":
        """Build a motif from what `to_json` returned."""
        return cls(value["id"], value["name"], np.array(value["probabilities"], dtype=np.float64))


@dataclass(frozen=True)
class Variant:
    """One alternate allele.

    Attributes:
        chrom: chromosome, as the genome names it.
        position: 0-based position of the first reference base.
        ref: reference allele, upper case, at least one base.
        alt: alternate allele, upper case, at least one base.
        id: identifier in the VCF, or "." if it has none.
    """

    chrom: str
    position: int
    ref: str
    alt: str
    id: str = "."

    @property
    def changed(self) -> int:
        """0-based position of the first base that differs, or of what comes after the bases that both alleles have."""
        pairs = enumerate(zip(self.ref, self.alt, strict=False))
        return self.position + next((i for i, (a, b) in pairs if a != b), min(len(self.ref), len(self.alt)))

    @property
    def anchored(self) -> bool:
        """Whether the first base is there only since a VCF has no empty alleles, as in indels."""
        return len(self.ref) != len(self.alt) and self.ref[0] == self.alt[0]

    @property
    def shortest(self) -> "Variant":
        """The same change in as few bases as it can be written in, without moving it; each allele has one at least."""
        ref, alt, position = self.ref, self.alt, self.position
        while min(len(ref), len(alt)) > 1 and ref != alt and ref[-1] == alt[-1]:
            ref, alt = ref[:-1], alt[:-1]
        while min(len(ref), len(alt)) > 1 and ref != alt and ref[0] == alt[0]:
            ref, alt, position = ref[1:], alt[1:], position + 1
        return replace(self, ref=ref, alt=alt, position=position)

    @property
    def name(self) -> str:
        """chrom:position:ref>alt with the VCF's 1-based position."""
        return f"{self.chrom}:{self.position + 1}:{self.ref}>{self.alt}"


_OF_CHROMOSOME = re.compile(r"(?P<unplaced>chrUn)_.+|(?P<chromosome>chr[^_]+)_(?:.+_)?(?:alt|fix|random|hap\d+)")


def parent_of(chromosome: str) -> str:
    """Return the chromosome that a sequence belongs to, or its own name if it does not tell.

    Alternative, patch and unlocalized sequences, as UCSC names them (chr8_KI270821v1_alt: chr8), hold sequence of their
    chromosome. Unplaced ones (chrUn_KI270302v1) may be alike, and are taken as one. Other names with an underscore, as
    chromosome_1, are those of chromosomes.
    """
    found = _OF_CHROMOSOME.fullmatch(chromosome)
    return (found["unplaced"] or found["chromosome"]) if found else chromosome


def split_of(chromosomes: Iterable[str], valid: Iterable[str], test: Iterable[str]) -> NDArray[np.uint8]:
    """Return the index into `SPLITS` of each chromosome, uint8.

    What is not held out is for training; a sequence that is not named goes where its chromosome goes (`parent_of`).
    """
    held_out = {name: i for i, names in ((1, valid), (2, test)) for name in names}
    return np.array([held_out.get(name, held_out.get(parent_of(name), 0)) for name in chromosomes], dtype=np.uint8)
