"""Figures of scored variants show what they are given, and places of both alleles agree."""

import re

import numpy as np
import pandas as pd
import pytest

from genebert.report.variant_figures import motif_sites_panel, p_histogram, p_quantiles

MOTIF = {"id": "M1", "name": "GATA<1>", "probabilities": [[0.97, 0.01, 0.01, 0.01], [0.01, 0.01, 0.01, 0.97]]}


def letters(reference: str, alternate: str, before: int) -> pd.DataFrame:
    rows = [
        ("v", allele, place - before, base)
        for allele, bases in (("reference", reference), ("alternate", alternate))
        for place, base in enumerate(bases)
    ]
    return pd.DataFrame(rows, columns=["variant", "allele", "offset", "base"])


def site(change: str, offset: int, reverse: bool) -> dict[str, object]:
    return {"variant": "v", "change": change, "by": 1.25, "offset": offset, "reverse": reverse, "motif": MOTIF}


@pytest.mark.parametrize("variant", ["chr1:5:A>C", "chr1:5:A>ACC", "chr1:5:ACC>A"])
def test_motifs_stand_over_the_alleles_with_name_strand_and_change(variant: str) -> None:
    rows = letters("GGATTC", "GGCTTC", 2)
    shown = motif_sites_panel(variant, rows, [site("lost", 0, False), site("gained", 1, True)])
    assert all(text in shown.svg for text in ("GATA&lt;1&gt;", "lost, +1.2", "gained, +1.2", "(+)", "(−)"))
    assert "Reference" in shown.svg and "Alternate" in shown.svg
    assert shown == motif_sites_panel(variant, rows, [site("lost", 0, False), site("gained", 1, True)])


def test_a_variant_without_changed_motifs_shows_its_bases() -> None:
    shown = motif_sites_panel("chr1:5:A>C", letters("GGATTC", "GGCTTC", 2), [])
    assert sorted(re.findall(r">([ACGT])</text>", shown.svg)) == sorted("GGATTCGGCTTC")


def test_p_values_are_drawn() -> None:
    p = np.linspace(0.001, 1, 5000, dtype=np.float32)
    assert "Empirical p" in p_histogram(p).svg
    quantiles = p_quantiles(p)
    assert "Expected" in quantiles.svg
    assert len(quantiles.svg) < 400_000, "quantiles are thinned"
