"""In which region of a corpus a variant lies."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import pytest
from toys import World

from genebert.corpus.store import Corpus
from genebert.inputs.genome import Genome
from genebert.schema import Variant, decode
from genebert.variants.windows import VariantWindows

REGION_COLUMNS = ("chrom", "start", "end", "split")
STARTS = {"chr1": [0, 900], "chr2": [3, 303, 603, 2_000, 2_300, 5_017], "chr3": [40]}


@pytest.fixture
def genome(toy_world: World) -> Iterator[Genome]:
    with Genome(toy_world.genome) as opened:
        yield opened


@pytest.mark.parametrize("width", [300, 299])
def test_region_start_agrees_with_a_look_at_every_region_where_regions_abut(
    width: int, toy: Corpus, genome: Genome
) -> None:
    rows = [(chrom, start, start + width, "train") for chrom, starts in STARTS.items() for start in starts]
    regions = pd.DataFrame(rows, columns=["chrom", "start", "end", "split"])
    windows = VariantWindows(genome, replace(toy, regions=regions, width=width), width)
    for chrom, starts in STARTS.items():
        for at in range(max(starts) + width + 100):
            by_hand = next((start for start in starts if start <= at < start + width), None)
            assert windows.region_start(Variant(chrom, at, "A", "C")) == by_hand, (chrom, at)


@pytest.mark.parametrize("width", [64, 30, 128])
def test_what_lies_in_the_room_of_a_variant_is_seen_in_its_window(width: int, toy: Corpus, genome: Genome) -> None:
    """Windows of a model may be wider than regions: beyond these, another variant has a window of its own."""
    regions = pd.DataFrame([("chr1", 300, 364, "train"), ("chr1", 370, 434, "train")], columns=list(REGION_COLUMNS))
    windows = VariantWindows(genome, replace(toy, regions=regions, width=64), width)
    for at in (300, 331, 363, 400, 900):
        variant = Variant("chr1", at, "A", "C")
        start, end = windows.room(variant)
        assert start <= at < end <= start + width
        if windows.start(variant) == windows.region_start(variant):  # else each is in the middle of its own
            seen = {windows.start(Variant("chr1", other, "A", "C")) for other in range(start, end)}
            assert seen == {windows.start(variant)}
    assert windows.room(Variant("chr1", 331, "A", "C")) == ((317, 347) if width == 30 else (300, 364))
    assert windows.room(Variant("chr1", 900, "A", "C")) == (900 - width // 2, 900 - width // 2 + width)


def test_an_indel_is_seen_where_it_changes_bases_and_not_where_its_anchor_is(toy: Corpus, genome: Genome) -> None:
    """Anchored at a region's last base, its windows were once alike; a lost first base was once outside."""
    rows = [("chr1", 300, 364, "train"), ("chr1", 1000, 1064, "train")]
    regions = pd.DataFrame(rows, columns=["chrom", "start", "end", "split"])
    windows = VariantWindows(genome, replace(toy, regions=regions, width=64), 64)
    last = decode(genome.fetch("chr1", 363, 364))
    assert windows.region_start(Variant("chr1", 363, last, last + "GATA")) is None
    centred = windows.pair(Variant("chr1", 363, last, last + "GATA"))
    assert decode(centred.alternate)[364 - centred.start :].startswith("GATA")
    lost = decode(genome.fetch("chr1", 299, 310))
    pair = windows.pair(Variant("chr1", 299, lost, lost[0]))
    assert pair.start == 300
    assert decode(pair.reference) == decode(genome.fetch("chr1", 300, 364))
    assert decode(pair.alternate) == decode(genome.fetch("chr1", 310, 374))
    shared = decode(genome.fetch("chr1", 362, 365))
    beyond = Variant("chr1", 362, shared, shared[:2] + ("A" if shared[2] != "A" else "C"))
    assert beyond.changed == 364 and windows.region_start(beyond) is None
    inside = decode(genome.fetch("chr1", 1010, 1013))
    moved = windows.pair(Variant("chr1", 1010, inside, inside[0]))
    expected = decode(genome.fetch("chr1", 1000, 1011)) + decode(genome.fetch("chr1", 1013, 1066))
    assert (moved.start, decode(moved.alternate)) == (1000, expected)
