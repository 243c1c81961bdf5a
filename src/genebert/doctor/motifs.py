"""Motifs: how many, and which of them can tell nothing."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from genebert.doctor.finding import Finding, judge
from genebert.errors import listed
from genebert.schema import Motif

_FEW, _MANY = 50, 5000
_LEAST_BITS = 6.0
"""A motif with less is matched once in 64 positions by chance: each region has several such hits."""


def examine_motifs(motifs: Sequence[Motif], width: int) -> Iterator[Finding]:
    """Look at a collection.

    Args:
        motifs: the collection.
        width: of a region, in bp.
    """
    yield judge(
        "motifs",
        "number",
        f"{len(motifs):,}",
        [
            (len(motifs) < _FEW, "look", "Region matrices have one row per motif; a larger collection tells more."),
            (len(motifs) > _MANY, "look", "Time and disk grow with it; `--archetypes 0.9` merges similar ones."),
        ],
    )
    widths = [motif.width for motif in motifs]
    long = [motif.id for motif in motifs if motif.width > width]
    yield judge(
        "motifs",
        "width",
        f"{min(widths)} to {max(widths)} bp" + (f"; wider than a region: {listed(long)}" if long else ""),
        [(bool(long), "look", "These have no hit anywhere; use wider regions, or leave them out.")],
    )
    weak = [motif.id for motif in motifs if _bits(motif) < _LEAST_BITS]
    yield judge(
        "motifs",
        "information",
        f"less than {_LEAST_BITS:.0f} bits: {listed(weak)}" if weak else f"{min(map(_bits, motifs)):.1f} bits or more",
        [(bool(weak), "look", "They match nearly everywhere; leave them out.")],
    )
    same = _same(motifs)
    yield judge(
        "motifs",
        "repeats",
        f"the same or the reverse complement: {listed(map(' = '.join, same))}" if same else "none",
        [(bool(same), "look", "They make equal rows; leave all but one out, or merge them by `--archetypes 0.9`.")],
    )


def _bits(motif: Motif) -> float:
    """Return the information content against a uniform background."""
    p = motif.probabilities
    return float(2 * len(p) + np.sum(p * np.log2(np.where(p > 0, p, 1))))


def _same(motifs: Sequence[Motif]) -> list[list[str]]:
    """Return the ids of motifs that are equal to two decimals, on either strand."""
    groups = defaultdict(list)
    for motif in motifs:
        rounded = np.round(motif.probabilities, 2) + 0.0  # no negative zeros
        groups[min(rounded.tobytes(), rounded[::-1, ::-1].tobytes())].append(motif.id)
    return [names for names in groups.values() if len(names) > 1]
