"""Figures of scored variants show what they are given, and places of both alleles agree."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genebert.report.sections.variants import BINS, FINE, TOP_VARIANTS, read_effects
from genebert.report.variant_figures import motif_sites_panel, p_histogram, p_quantiles
from genebert.stage import Manifest
from genebert.variants.tables import TABLES

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
    once = np.ones(len(p), dtype=np.int64)
    assert "Empirical p" in p_histogram(p, once).svg
    quantiles = p_quantiles(p, once)
    assert "Expected" in quantiles.svg
    assert len(quantiles.svg) < 400_000, "quantiles are thinned"


@pytest.mark.parametrize("p", [[0.5, 0.01], [np.nan, np.nan]])
def test_effects_are_read_from_either_table(p: list[float], tmp_path: Path) -> None:
    """A cell type, a motif or an identifier may be called NA."""
    rows = pd.DataFrame(
        {
            "variant": ["chr1:5:A>C"] * 2,
            "given": ["chr1:5:A>C"] * 2,
            "id": ["NA"] * 2,
            "chrom": ["chr1"] * 2,
            "position": [5] * 2,
            "ref": ["A"] * 2,
            "alt": ["C"] * 2,
            "cell_type": ["B", "NA"],
            "reference": [0.25, 0.5],
            "alternate": [0.5, -0.5],
            "difference": [0.25, -1.0],
            "p": p,
            "gained": ["NA,SP1"] * 2,
            "gained_by": ["+2,+1"] * 2,
            "lost": ["."] * 2,
            "lost_by": ["."] * 2,
        }
    )
    found = []
    for name, table in TABLES.items():
        (tmp_path / name).mkdir()
        with table(tmp_path / name, ()) as file:
            file.write(rows)
        manifest = Manifest(tmp_path / name, "variants", {}, {}, {}, {"cell_types": ["B", "NA"]}, {}, "")
        found.append(read_effects(manifest))
    for effects in found:
        assert effects.most == 1 and np.flatnonzero(effects.counts).tolist() == [0, int(1.25 / 2 * BINS)]
        assert effects.p.tolist() == pytest.approx(sorted(value for value in p if np.isfinite(value)))
        assert effects.p_counts.tolist() == [1] * len(effects.p)
        assert effects.top[["id", "cell_type", "gained"]].to_numpy().tolist() == [
            ["NA", "B", "NA,SP1"],
            ["NA", "NA", "NA,SP1"],
        ]
        assert effects.spread[:, 3].tolist() == [0.25, 1.0]


def test_effects_of_many_rows_are_those_of_all_of_them_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read in pieces, of which nothing is kept but counts, and still are what numpy makes of the columns."""
    generator, n, cell_types = np.random.default_rng(0), 5_000, ["B", "T", "NK"]
    rows = pd.DataFrame({name: ["."] * n for name in ("given", "id", "gained", "gained_by", "lost", "lost_by")})
    rows = rows.assign(
        variant=[f"chr1:{i // 3 + 1}:A>C" for i in range(n)],
        chrom="chr1",
        position=np.arange(n) // 3 + 1,
        ref="A",
        alt="C",
        cell_type=[cell_types[i % 3] for i in range(n)],
        reference=0.0,
        difference=generator.standard_t(3, n) * (1 + np.arange(n) % 3),
        p=generator.integers(1, 101, n) / 100,
    )
    rows["alternate"] = rows["difference"]
    with TABLES["parquet"](tmp_path, ()) as file:
        file.write(rows)
    monkeypatch.setattr("genebert.report.sections.variants._ROWS", 700)
    manifest = Manifest(tmp_path, "variants", {}, {}, {}, {"cell_types": cell_types}, {}, "")
    effects = read_effects(manifest)
    sizes, p = rows["difference"].abs(), rows["p"].to_numpy(np.float32)
    assert effects.most == pytest.approx(sizes.max())
    expected, _ = np.histogram(rows["difference"], bins=BINS, range=(-effects.most, effects.most))
    assert effects.counts.tolist() == expected.tolist()
    by_type = [np.percentile(sizes[rows["cell_type"] == name], [50, 90, 99, 100]) for name in cell_types]
    assert np.abs(effects.spread - by_type)[:, :2].max() < 2 * effects.most / (BINS * FINE)
    assert effects.spread[:, 3] == pytest.approx([row[3] for row in by_type])
    assert [found.tolist() for found in (effects.p, effects.p_counts)] == [
        found.tolist() for found in np.unique(p, return_counts=True)
    ]
    strongest = sizes.groupby(rows["variant"]).max().sort_values(ascending=False).index[:TOP_VARIANTS]
    assert effects.top["variant"].unique().tolist() == strongest.tolist()
    each = np.repeat(effects.p, effects.p_counts)
    one = np.ones(len(each), dtype=np.int64)
    assert p_quantiles(effects.p, effects.p_counts) == p_quantiles(each, one)
    assert p_histogram(effects.p, effects.p_counts) == p_histogram(each, one)
