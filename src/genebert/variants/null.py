"""Empirical p-values: an effect against those of random variants that are like it.

Random variants are of the same substitution (either strand counts as one; insertions and deletions by length), at
random places of the windows of the variants that are scored, and so in regions of the same kind.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from genebert.inputs.genome import Genome
from genebert.schema import N, Variant, decode, encode, reverse_complement
from genebert.variants.scorer import Scores

ENOUGH = 100
"""A p-value is made from at least so many random variants, of the finest stratum that has them."""
BINS = 3
"""Strata of GC content, and of motif density: terciles of the random variants."""
LENGTHS = (1, 3, 10)
"""Insertions and deletions of up to so many bp are of one class each, and longer ones of another."""
Stratum = tuple[str | int, ...]


def kind_of(variant: Variant) -> tuple[str, str]:
    """Return what a variant is, roughly and finely: ("substitution", "C>A"), ("insertion", "2 to 3"), and so on.

    A substitution and its complement are one: G>T is C>A.
    """
    ref, alt = variant.ref, variant.alt
    grown = len(alt) - len(ref)
    if grown:
        longest = next((length for length in LENGTHS if abs(grown) <= length), 0)
        return ("insertion" if grown > 0 else "deletion"), f"up to {longest} bp" if longest else "longer"
    if len(ref) > 1:
        return "substitution", "of several bases"
    if ref in "AG":
        ref, alt = (decode(reverse_complement(encode(base).codes)) for base in (ref, alt))
    return "substitution", f"{ref}>{alt}"


class Reservoir:
    """A random sample of variants that come one by one, each as likely as any other to be kept (Vitter 1985).

    Args:
        size: how many to keep at most.
        generator: source of randomness.
    """

    def __init__(self, size: int, generator: np.random.Generator) -> None:
        self.kept: list[Variant] = []
        self.seen = 0
        self._size = size
        self._generator = generator

    def add(self, variant: Variant) -> None:
        """Consider a variant."""
        self.seen += 1
        if len(self.kept) < self._size:
            self.kept.append(variant)
        elif (place := int(self._generator.integers(self.seen))) < self._size:
            self.kept[place] = variant


def draw(
    like: Sequence[Variant],
    count: int,
    room_of: Callable[[Variant], tuple[int, int]],
    genome: Genome,
    generator: np.random.Generator,
) -> list[Variant]:
    """Return random variants, sorted by place.

    Args:
        like: variants that they are to be like, as often one as the other.
        count: number to draw; fewer are returned where a window has no other place for such a variant.
        room_of: returns the stretch [start, end) in which a variant like the given one is seen in the same window.
        genome: the genome.
        generator: source of randomness.
    """
    whole, rest = divmod(count, len(like))
    chosen = [*like] * whole + [like[i] for i in generator.choice(len(like), rest, replace=False)]
    drawn = [_random(variant, *room_of(variant), genome, generator) for variant in chosen]
    found = [variant for variant in drawn if variant is not None]
    return sorted(found, key=lambda variant: (variant.chrom, variant.position, variant.ref, variant.alt))


def _random(like: Variant, start: int, end: int, genome: Genome, generator: np.random.Generator) -> Variant | None:
    """Return a variant like another one, at another place of the stretch [start, end); None if there is none."""
    length, width = len(like.ref), end - start
    if length > width:
        return None
    codes = genome.fetch(like.chrom, start, start + width)
    known: NDArray[np.bool_] = np.array(sliding_window_view(codes < N, length).all(axis=1))
    known[max(like.position - start, 0) : like.position - start + 1] = False
    if like.anchored:  # its anchor is not to be the last base of the stretch: it would change none
        known[width - 1 :] = False
    single = length == len(like.alt) == 1
    if single:
        ref = encode(like.ref).codes[0]
        known &= (codes == ref) | (codes == 3 - ref)
    places = np.flatnonzero(known)
    if not len(places):
        return None
    place = int(generator.choice(places))
    old = codes[place : place + length]
    if single:
        new = encode(like.alt).codes
        new = new if old[0] == ref else 3 - new
    elif len(like.alt) == length:
        new = (old + generator.integers(1, 4, length, dtype=np.uint8)) % 4
    else:
        new = np.concatenate([old, generator.permutation(encode(like.alt).codes[length:])])[: len(like.alt)]
    return Variant(like.chrom, start + place, decode(old), decode(new))


class Null:
    """The effects of random variants.

    Args:
        variants: the random variants.
        scores: theirs.
    """

    def __init__(self, variants: Sequence[Variant], scores: Scores) -> None:
        quantiles = np.arange(1, BINS) / BINS
        self._edges = [np.quantile(values, quantiles) for values in (scores.gc, scores.density)]
        self._members: dict[Stratum, list[int]] = {}
        for row, stratum in enumerate(self._strata(variants, scores)):
            for depth in range(len(stratum) + 1):
                self._members.setdefault(stratum[:depth], []).append(row)
        self._sizes = np.abs(scores.effects)

    def __len__(self) -> int:
        return len(self._sizes)

    def _strata(self, variants: Sequence[Variant], scores: Scores) -> list[Stratum]:
        """Return the finest stratum of each variant: what it is, roughly and finely, GC content and motif density."""
        bins = [
            np.searchsorted(edges, values).tolist()
            for edges, values in zip(self._edges, (scores.gc, scores.density), strict=True)
        ]
        return [(*kind_of(variant), gc, density) for variant, gc, density in zip(variants, *bins, strict=True)]

    def p_values(self, variants: Sequence[Variant], scores: Scores) -> NDArray[np.float64]:
        """Return two-sided p-values of `Scores.effects`, float64: (1 + #{|null| >= |effect|}) / (1 + #null).

        The null is the finest stratum of the variant that holds `ENOUGH` random variants, or all of them.
        """
        found = np.empty_like(scores.effects)
        strata = self._strata(variants, scores)
        for row, (stratum, size) in enumerate(zip(strata, np.abs(scores.effects), strict=True)):
            null = self._sizes[self._rows_like(stratum)]
            found[row] = (1 + (null >= size).sum(axis=0)) / (1 + len(null))
        return found

    def _rows_like(self, stratum: Stratum) -> list[int]:
        """Return the random variants to compare with."""
        for depth in range(len(stratum), 0, -1):
            if len(found := self._members.get(stratum[:depth], [])) >= ENOUGH:
                return found
        return self._members[()]
