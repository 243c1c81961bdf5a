"""The section about a cohort, on tables that are made by hand, with hostile names."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from genebert.report import cohort_figures
from genebert.report.build import render
from genebert.report.canvas import BLACK
from genebert.report.content import Figure, Folded, Table, Verdicts
from genebert.report.figures import OTHER_COLOURS
from genebert.report.sections import risk
from genebert.report.sections.risk import TOP_INDIVIDUALS, TOP_REGIONS, risk_section

REGION = "chr1:<script>{}"
PHENOTYPE = "<b>disease"
METHODS = ("GeneBERT", "polygenic score", "covariates")
BINARY = {
    "trait": "binary",
    "phenotype": PHENOTYPE,
    "individuals": 200,
    "cases": 100,
    "caveat": "For research only.",
    "regions": 30,
    "variants": 60,
    "haplotypes": 70,
    "covariates": ["sex"],
    "missing_calls": {"share": 0.01, "share_cases": 0.015, "share_controls": 0.005, "p_of_difference": 1e-4},
    "folds": 5,
}


def write_tables(folder: Path, *, binary: bool = True) -> dict[str, Any]:
    """Write what the stage `risk` writes, and return its metrics."""
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    phenotype = label if binary else label + rng.normal(size=200)
    scores = {name: np.clip(0.5 + (label - 0.5) * s + 0.2 * rng.normal(size=200), 0.01, 0.99) for name, s in
              zip(METHODS, (0.4, 0.2, 0.0), strict=True)}  # fmt: skip
    people = pd.DataFrame({"sample": [f"P{i}" for i in range(200)], "fold": label, "phenotype": phenotype, **scores})
    measure = "AUROC" if binary else "Pearson"
    measured = [(name, measure, 0.7 - 0.1 * i, 0.6, 0.8, 200) for i, name in enumerate(METHODS)]
    compared = [
        ("GeneBERT", "polygenic score", measure, 0.1, 0.02, 0.18),
        ("GeneBERT", "covariates", measure, 0, -1, 1),
    ]
    regions = pd.DataFrame(
        {
            "rank": range(1, 31),
            "region": [REGION.format(i) for i in range(30)],
            "chrom": "chr1",
            "start": np.arange(30) * 1000,
            "end": np.arange(30) * 1000 + 500,
            "weight": np.linspace(-1, 1, 30),
            "p": np.linspace(0.001, 1, 30),
            "q": 1.0,
            "carriers_cases": 3,
            "carriers_controls": 1,
            "variants": 2,
            "mean_change_cases": 0.1,
            "mean_change_controls": 0.0,
            "top_tf": ["GATA1", "."] * 15,
            "top_tf_change": [1.5, "."] * 15,
        }
    )
    places = [(i, i * 1000 + at) for i in range(8) for at in (100, 300)]
    converging = pd.DataFrame(
        [(REGION.format(i), "GATA1", "lost", f"chr1:{at}:A>G", ".", 4, 1, -0.5 + at % 3) for i, at in places],
        columns=["region", "tf", "direction", "variant", "id", "carriers_cases", "carriers_controls", "change"],
    )
    tfs = pd.DataFrame(
        [("SPI1", "gained", 0.5, 0.5, 1, 1, 1, 1), ("GATA1", "lost", 0.01, 0.02, 9, 3, 8, 8)],
        columns=["tf", "direction", "p", "q", "carriers_cases", "carriers_controls", "variants", "regions"],
    )
    hits = pd.DataFrame(
        [("GATA1", "lost", REGION.format(0), "chr1:100:A>G", ".", -2.5, 4, 1)],
        columns=["tf", "direction", "region", "variant", "id", "tf_change", "carriers_cases", "carriers_controls"],
    )
    individuals = pd.DataFrame(
        [("P1", 1, REGION.format(2), -0.5, 0.8), ("P1", 2, REGION.format(0), 0.1, -0.25)],
        columns=["sample", "rank", "region", "change", "contribution"],
    )
    tables = {
        "attention": pd.DataFrame({"region": regions["region"][::-1], "attention": np.linspace(2, 0, 30)}),
        "individuals": individuals.iloc[::-1],
        "convergence_tfs": hits,
        "predictions": people,
        "metrics": pd.DataFrame(measured, columns=["method", "measure", "value", "low", "high", "n"]),
        "comparisons": pd.DataFrame(compared, columns=["method", "against", "measure", "difference", "low", "high"]),
        "regions": regions,
        "convergence": converging,
        "tfs": tfs,
    }
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.tsv", sep="\t", index=False)
    return BINARY | {"trait": "binary" if binary else "quantitative"}


@pytest.mark.parametrize("binary", [True, False])
def test_the_section_shows_what_the_tables_hold(tmp_path: Path, binary: bool) -> None:
    section = risk_section(tmp_path, write_tables(tmp_path, binary=binary))
    (verdicts,) = (block for block in section.blocks if isinstance(block, Verdicts))
    assert [item.standing for item in verdicts.items] == ["above", "level"]
    shown = {block.title: block for block in section.blocks if isinstance(block, Table)}
    regions = shown["Regions that rank first."]
    assert len(regions.rows) == TOP_REGIONS
    assert [regions.rows[i][2] for i in (0, 1)] == ["GATA1 (+1.5)", "–"]
    assert [regions.rows[i][regions.header.index("Attention")] for i in (0, 1)] == ["0.00", "0.07"]
    assert "The first of 30, of which 30 were tested" in regions.note
    assert regions.header[-1] == ("Carriers, controls" if binary else "Carriers, the others")
    assert [row[0] for row in shown["TFs whose hits variants gain or lose."].rows] == ["GATA1", "SPI1"]  # by p
    figures = {block.title: block for block in section.blocks if isinstance(block, Figure)}
    assert len(figures["Variants that individuals carry in the regions that rank first."].panels) == 6
    assert ("Ranking and calibration." in figures) == binary
    page = render("title", "", [], [section])
    assert "1.00% of the calls are missing. Those with the higher and the lower phenotype differ" in page
    assert "<script>" not in page and "<b>disease" not in page
    assert "&lt;script&gt;0" in page


def test_a_method_has_one_colour_in_all_figures(tmp_path: Path) -> None:
    """The stacked model once had in the calibration curve the colour of another one in the ROC curve beside it."""
    metrics = write_tables(tmp_path)
    for name, column in (("metrics", "method"), ("predictions", None)):
        table = pd.read_csv(tmp_path / f"{name}.tsv", sep="\t")
        if column is None:
            table[risk.STACKED] = table["GeneBERT"]
        else:
            table = pd.concat([table, table.head(1).assign(method=risk.STACKED)])
        table.to_csv(tmp_path / f"{name}.tsv", sep="\t", index=False)
    figures = [block for block in risk_section(tmp_path, metrics).blocks if isinstance(block, Figure)]
    (shown,) = (figure for figure in figures if figure.title == "Ranking and calibration.")
    ranking, _, calibration = (set(re.findall("#[0-9a-f]{6}", str(panel.svg))) for panel in shown.panels)
    own = {colour.lower() for colour in OTHER_COLOURS if colour != BLACK}  # in which axes are drawn
    assert len(ranking & own) == 3 and calibration & own == {OTHER_COLOURS[2].lower()}


@pytest.mark.parametrize("binary", [True, False])
def test_individuals_stand_with_the_regions_that_their_prediction_comes_from(tmp_path: Path, binary: bool) -> None:
    metrics = write_tables(tmp_path, binary=binary)
    people = pd.read_csv(tmp_path / "predictions.tsv", sep="\t")
    people.loc[people["sample"] == "P1", "GeneBERT"] = 0.9951
    people.to_csv(tmp_path / "predictions.tsv", sep="\t", index=False)
    folded = [block.table for block in risk_section(tmp_path, metrics).blocks if isinstance(block, Folded)]
    (table,) = (table for table in folded if table.title == "Individuals predicted highest.")
    assert len(table.rows) == TOP_INDIVIDUALS
    sample, regions, observed, predicted = table.rows[0]
    assert (sample, predicted) == ("P1", "0.995")
    assert regions == f"{REGION.format(2)} (+0.80), {REGION.format(0)} (−0.25)"
    assert observed == ("case" if binary else f"{people['phenotype'][1]:.3g}")
    assert table.rows[1][1] == "–"


def test_no_region_with_several_variants_is_no_error(tmp_path: Path) -> None:
    metrics = write_tables(tmp_path)
    table = pd.read_csv(tmp_path / "convergence.tsv", sep="\t")
    table.drop_duplicates("region").to_csv(tmp_path / "convergence.tsv", sep="\t", index=False)
    titles = [block.title for block in risk_section(tmp_path, metrics).blocks if isinstance(block, Figure)]
    assert "Variants that individuals carry in the regions that rank first." not in titles


def test_regions_that_were_not_tested_have_no_p(tmp_path: Path) -> None:
    metrics = write_tables(tmp_path)
    table = pd.read_csv(tmp_path / "regions.tsv", sep="\t").assign(p=".", q=".")
    table.to_csv(tmp_path / "regions.tsv", sep="\t", index=False)
    section = risk_section(tmp_path, metrics)
    figures = {block.title: block for block in section.blocks if isinstance(block, Figure)}
    assert len(figures["Regions."].panels) == 1
    tables = {block.title: block for block in section.blocks if isinstance(block, Table)}
    assert {row[4] for row in tables["Regions that rank first."].rows} == {"–"}
    assert "nan" not in render("title", "", [], [section])


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (-0.0, "+.3g", "0"),
        (0.0, "+.2f", "0.00"),
        (-0.001, "+.2f", "0.00"),
        (-0.5, "+.3g", "−0.5"),
        (np.nan, ".2g", "–"),
    ],
)
def test_nothing_has_no_sign(value: float, form: str, shown: str) -> None:
    """A region that is not in the model once had the weight −0."""
    assert risk._number(value, form) == shown


def test_carriers_stand_where_their_variants_are() -> None:
    """The first variant, on the left, lowers the log-odds (blue): 7 cases have it, and 1 control."""
    rows = pd.DataFrame({"position": [11, 40], "change": [-1.0, 1.0], "carriers_cases": [7, 0], "carriers_controls": 1})
    svg = str(cohort_figures.carriers("r", rows, ("chr6", 0, 50), ("cases", "controls"), (-1.0, 1.0)).svg)
    assert "Position on chr6 (bp, 1-based)" in svg and "Change (nats)" in svg
    points = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="fill: (#0072b2|#d55e00)', svg)
    place = {colour: [(float(x), float(y)) for x, y, own in points if own == colour] for _, _, colour in points}
    (case, control), (no_case, _) = place["#0072b2"], place["#d55e00"]
    assert case[0] == control[0] < no_case[0]
    line = no_case[1]  # of no carriers
    assert line - case[1] == pytest.approx(7 * (control[1] - line), rel=1e-3)
