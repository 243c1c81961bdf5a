"""The windows of a variant: with the reference allele, and with the alternate one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.inputs.genome import Genome
from genebert.schema import Variant, encode


@dataclass(frozen=True)
class Pair:
    """A reference window and its alternate.

    Attributes:
        variant: the variant.
        start: of the window on the genome, 0-based.
        reference, alternate: base codes, uint8, shape (width,).
    """

    variant: Variant
    start: int
    reference: NDArray[np.uint8]
    alternate: NDArray[np.uint8]


@dataclass(frozen=True)
class VariantWindows:
    """Builds the windows of variants.

    Attributes:
        genome: the genome.
        corpus: whose regions a variant is seen in; None if there is no corpus.
        width: of a window, in bp.
    """

    genome: Genome
    corpus: Corpus | None
    width: int

    def region_start(self, variant: Variant) -> int | None:
        """Return the start of the corpus region that holds the first base that a variant changes, or None."""
        if self.corpus is None:
            return None
        centre = np.array([variant.changed + self.corpus.width // 2])  # the centre of a region that begins there
        position = self.corpus.line_positions([variant.chrom], centre)[0]
        last = int(np.searchsorted(self.corpus.region_positions, position, side="right")) - 1
        if last < 0:
            return None
        region = self.corpus.regions.iloc[last]  # the last one that does not begin after the variant
        if region["chrom"] != variant.chrom or region["end"] <= variant.changed:
            return None
        return int(region["start"]) + (self.corpus.width - self.width) // 2

    def start(self, variant: Variant) -> int:
        """Return the start of a variant's window: that of its region, or else one in whose middle it lies."""
        start = self.region_start(variant)
        if start is None or not start <= variant.changed < start + self.width:
            return variant.changed - self.width // 2
        return start

    def room(self, variant: Variant) -> tuple[int, int]:
        """Return the stretch [start, end) in which other variants are seen in the same window as this one."""
        start = self.start(variant)
        end = start + self.width
        if self.corpus is not None and self.region_start(variant) == start:
            region = start - (self.corpus.width - self.width) // 2
            return max(start, region), min(end, region + self.corpus.width)
        return start, end

    def pairs(self, variant: Variant, shifts: int = 1) -> list[Pair]:
        """Return the windows of a variant, moved by each of `offsets(shifts, width)`; it stays inside them."""
        start = self.start(variant)
        first, last = variant.changed - self.width + 1, variant.changed
        return [self._pair(variant, min(max(start + offset, first), last)) for offset in offsets(shifts, self.width)]

    def pair(self, variant: Variant) -> Pair:
        """Return the windows of a variant, not moved."""
        return self.pairs(variant)[0]

    def _pair(self, variant: Variant, start: int) -> Pair:
        reference = self.genome.fetch(variant.chrom, start, start + self.width)
        return Pair(variant, start, reference, self._alternate(variant, start, self.width))

    def _alternate(self, variant: Variant, start: int, width: int) -> NDArray[np.uint8]:
        anchor = variant.changed - variant.position  # which may lie before the window
        before = self.genome.fetch(variant.chrom, start, variant.changed)
        after_start = variant.position + len(variant.ref)
        after = self.genome.fetch(variant.chrom, after_start, after_start + width)
        return np.concatenate([before, encode(variant.alt[anchor:]).codes, after])[:width]


def offsets(shifts: int, width: int) -> list[int]:
    """Return by how many bp windows are moved: evenly spaced within half a width to either side, 0 in the middle.

    Args:
        shifts: how many, odd; three are -width / 4, 0 and width / 4.
        width: of the windows, in bp.
    """
    half = shifts // 2
    return [round(width * step / (shifts + 1)) for step in range(-half, half + 1)]
