"""In-silico mutagenesis: every base near a variant, changed to each other base."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.schema import substituted
from genebert.variants.motif_sites import variants_of
from genebert.variants.scorer import WindowScorer
from genebert.variants.windows import Pair

MUTAGENESIS_FLANK = 20
"""It covers 20 bp on either side of the variant."""


def mutagenesis(scorer: WindowScorer, strongest: pd.DataFrame) -> pd.DataFrame:
    """Mutate every base near variants to each other base, on the reference and on the alternate allele.

    Args:
        scorer: the scorer.
        strongest: one row per variant, as `strongest_of` makes them; its cell type is the one looked at.

    Returns:
        DataFrame with variant, cell_type, allele (reference or alternate), offset (bp from the window's base at the
        variant's position), base, mutated_to, difference (of log-odds, mutated minus not).
    """
    rows: list[tuple[Any, ...]] = []
    for row, variant in zip(strongest.itertuples(), variants_of(strongest), strict=True):
        pair = scorer.windows.pair(variant)
        for allele, codes in (("reference", pair.reference), ("alternate", pair.alternate)):
            changes = _mutate(scorer, pair, codes, row.cell_type)
            rows += [(row.variant, row.cell_type, allele, *change) for change in changes]
    return pd.DataFrame(rows, columns=["variant", "cell_type", "allele", "offset", "base", "mutated_to", "difference"])


def _mutate(
    scorer: WindowScorer, pair: Pair, codes: NDArray[np.uint8], cell_type: str
) -> list[tuple[int, str, str, float]]:
    centre = pair.variant.position - pair.start
    places = [
        p
        for p in range(centre - MUTAGENESIS_FLANK, centre + MUTAGENESIS_FLANK + 1)
        if 0 <= p < len(codes) and codes[p] < 4
    ]
    changes, mutated = substituted(codes, places)
    count = len(mutated)
    odds = scorer.log_odds(mutated, [pair.variant.chrom] * count, np.full(count, pair.start), [cell_type])[:, 0]
    return [
        (place - centre, "ACGT"[codes[place]], "ACGT"[base], float(odds[i] - odds[0]))
        for i, (place, base) in enumerate(changes, 1)
    ]
