"""In which region of a corpus a variant lies."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import pytest
from toys import World

from genebert.corpus.store import Corpus
from genebert.inputs.genome import Genome
from genebert.schema import Variant
from genebert.variants.windows import VariantWindows

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
