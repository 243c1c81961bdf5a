"""The benchmark of variant effects: what it learns from, and what it must not learn from."""

import gzip
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from toys import random_bases, write_fasta

from genebert.inputs.genome import Genome
from genebert.resampling import pearson
from genebert.schema import Variant, decode
from genebert.variants.windows import VariantWindows

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
saturation, variant_effects = map(import_module, ("saturation", "variant_effects"))


@pytest.fixture
def measured(tmp_path: Path) -> Iterator["saturation.Measured"]:
    """Four elements of 40 bp, all SNVs and deletions, whose effect is that of a lost or new C, and noise."""
    generator = np.random.default_rng(0)
    letters = {f"e{i}": random_bases(40, generator) for i in range(4)}
    write_fasta(tmp_path / "elements.fa", letters)
    rows = [
        (name, i + 1, ref, alt, 5 + 10 * (i > 0), (alt == "C") - (ref == "C") + 0.3 * generator.normal())
        for name, text in letters.items()
        for i, ref in enumerate(text)
        for alt in "ACGT-"
        if alt != ref
    ]
    table = pd.DataFrame(rows, columns=["element", "position", "ref", "alt", "barcodes", "log2_effect"])
    with gzip.open(tmp_path / "variants.tsv.gz", "wt") as handle:
        table.to_csv(handle, sep="\t", index=False)
    found = saturation.Measured.read(tmp_path, 10)
    with found.genome:
        yield found


def test_variants_are_those_of_the_table(measured: "saturation.Measured") -> None:
    assert len(measured.table) == 4 * 39 * 4
    for row, variant in zip(measured.table.itertuples(), measured.variants, strict=True):
        whole = decode(measured.genome.fetch(row.element, 0, 40))
        edited = whole[: variant.position] + variant.alt + whole[variant.position + len(variant.ref) :]
        expected = whole[: row.position] + row.alt.replace("-", "") + whole[row.position + 1 :]
        assert edited == expected
    before, after = saturation.both_alleles(measured, 3)
    deletion = int(np.flatnonzero(~measured.is_snv)[5])
    assert decode(after[deletion]) == decode(before[deletion])[:3] + decode(before[deletion])[4:] + "N"


def test_the_first_base_of_an_element_can_be_deleted(measured: "saturation.Measured") -> None:
    whole = decode(measured.genome.fetch("e0", 0, 40))
    found = saturation._variant(measured.genome, "e0", 0, whole[0], "-")
    assert found == Variant("e0", 0, whole[:2], whole[1])


def test_elements_are_predicted_from_others_alone(measured: "saturation.Measured") -> None:
    features = np.stack([*saturation.base_features(measured.table).values()], axis=1)
    blocks = [saturation.Block(features, (0.01, 1.0), True), saturation.Block(features[:, :3], (1.0, 10.0), False)]
    predicted, chosen = saturation.leave_elements_out(measured, blocks)
    assert list(chosen) == ["e0", "e1", "e2", "e3"]
    for name in chosen:
        rows = measured.element == name
        assert stats.pearsonr(predicted[rows], measured.effect[rows]).statistic > 0.8
    changed = measured.table.copy()
    own = changed["element"] == "e1"
    changed.loc[own, "log2_effect"] = -changed.loc[own, "log2_effect"][::-1].to_numpy()
    other = saturation.Measured(measured.genome, changed, measured.variants)
    again, penalties = saturation.leave_elements_out(other, blocks)
    np.testing.assert_allclose(again[own], predicted[own], atol=1e-9)
    assert penalties["e1"] == chosen["e1"]
    assert not np.allclose(again[~own], predicted[~own])


def test_ridge_solution_equals_that_of_the_normal_equations(measured: "saturation.Measured") -> None:
    features = np.random.default_rng(1).normal(size=(len(measured.table), 3))
    block = saturation.Block(features, (2.0,), False)
    predicted, _ = saturation.leave_elements_out(measured, [block])
    held_out = measured.element == "e2"
    centred = features - pd.DataFrame(features).groupby(measured.element).transform("mean").to_numpy()
    x, y = centred[~held_out], measured.standardised[~held_out]
    square = x.T @ x / 156  # each element has 156 rows
    weights = np.linalg.solve(square + 2 * square.diagonal().mean() * np.eye(3), x.T @ y / 156)
    np.testing.assert_allclose(predicted[held_out], centred[held_out] @ weights, atol=1e-8)


def test_means_over_elements_and_differences(measured: "saturation.Measured") -> None:
    draws = variant_effects.Draws(measured, measured.is_snv)
    scores = {"good": measured.effect + 0.1, "bad": np.random.default_rng(2).normal(size=len(measured.table))}
    found = draws.compared(scores, pearson, ["bad"], "good")
    assert found["scores"]["good"]["mean"]["value"] == pytest.approx(1)
    each = [
        stats.pearsonr(scores["bad"][rows], measured.effect[rows]).statistic
        for rows in (measured.is_snv & (measured.element == name) for name in draws.names)
    ]
    assert found["scores"]["bad"]["mean"]["value"] == pytest.approx(np.mean(each))
    above = found["ours above"]["bad"]
    assert above["value"] == pytest.approx(1 - np.mean(each))
    assert 0 < above["low"] < above["value"] < above["high"]


def test_windows_of_elements_stay_inside_them(measured: "saturation.Measured") -> None:
    windows = saturation.ElementWindows(measured.genome, None, 16)
    assert isinstance(windows, VariantWindows)
    starts = [windows.pair(variant).start for variant in measured.variants]
    assert (min(starts), max(starts)) == (0, 24)
    wide = saturation.ElementWindows(measured.genome, None, 60).pair(measured.variants[0])
    assert wide.start == -10
    assert decode(wide.reference)[10:50] == decode(measured.genome.fetch("e0", 0, 40))


def test_fine_mapped_alleles_are_oriented_to_the_genome(tmp_path: Path) -> None:
    rows = [
        ("chr1", 2, "T", "C", 0.5),
        ("chr1", 3, "GT", "G", 0.2),
        ("chr1", 4, "T", "TA", 0.1),
        ("chr1", 5, "C", "G", 0),
    ]
    table = pd.DataFrame(rows, columns=["chrom", "position_1based", "allele1", "allele2", "posterior"])
    table.to_csv(tmp_path / "trait.tsv", sep="\t", index=False)
    with Genome(write_fasta(tmp_path / "genome.fa", {"chr1": "ACGTACGT"})) as genome:
        variants, posterior, dropped = variant_effects.fine_mapped(tmp_path / "trait.tsv", genome)
    expected = [Variant("chr1", 1, "C", "T"), Variant("chr1", 2, "GT", "G"), Variant("chr1", 3, "TA", "T")]
    assert variants == expected
    assert posterior.tolist() == [0.5, 0.2, 0.1]
    assert dropped == 1
