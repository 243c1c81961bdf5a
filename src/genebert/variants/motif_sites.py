"""Where the motifs lie that the strongest variants gain and lose, for pictures of them."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from genebert.inputs.motif_changes import best_site
from genebert.schema import Variant
from genebert.variants.scorer import WindowScorer


def motif_sites(scorer: WindowScorer, variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """Return the best hits of the motifs that variants gain (on the alternate allele) and lose (on the reference).

    Returns:
        JSON values, strongest change first for each variant: variant, change ("gained" or "lost"), by (change of
        -log10 p), offset (bp from the variant to the first base of the hit, in the allele's own sequence), reverse
        (whether the hit is on the reverse strand), and motif (as `Motif.to_json` has it).
    """
    if not variants:
        return []
    several = dict(zip(("gained", "lost"), scorer.motifs(variants), strict=True))
    found = []
    for row, variant in enumerate(variants):
        for change, (motifs, by) in several.items():
            for index, size in zip(motifs[row].tolist(), by[row].tolist(), strict=True):
                if index < 0:
                    continue
                offset, reverse = best_site(scorer.genome, scorer.model.scanner, variant, index, change == "gained")
                motif = scorer.model.scanner.motifs[index].to_json()
                facts = {"variant": variant.name, "change": change, "by": size, "offset": offset, "reverse": reverse}
                found.append({**facts, "motif": motif})
    return found


def variants_of(rows: pd.DataFrame) -> list[Variant]:
    """Return the variants of rows of the table."""
    return [Variant(row.chrom, int(row.position) - 1, row.ref, row.alt, row.id) for row in rows.itertuples()]
