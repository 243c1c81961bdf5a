"""The pages of `embed` and `explain`: names from files are escaped, and nothing is loaded from elsewhere."""

import re

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape
from matplotlib import style
from matplotlib.figure import Figure as Canvas

from genebert.report import embedding, explanation
from genebert.report.canvas import HALF, STYLE
from genebert.report.embedding import Map, draw_regions, embedding_page
from genebert.report.explanation import explanation_page

HOSTILE = "<script>alert('&\"')</script>"


def check(page: str) -> None:
    assert "<script" not in page and "&lt;script&gt;" in page
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(one.startswith(("#", "data:")) for one in loaded)


def test_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "MOST_DRAWN", 40)
    generator = np.random.default_rng(0)
    places = pd.DataFrame(generator.normal(size=(100, 2)), columns=["x", "y"])
    tfs = [HOSTILE] * 50 + [f"TF{i}" for i in range(50)]
    cell_types = places.head(3).assign(cell_type=["B", HOSTILE, "$T$"])
    regions = Map(places.assign(strongest_tf=tfs), ("UMAP 1", "UMAP 2"))
    plain = Map(cell_types, ("PC 1 (31%)", "PC 2 (9%)"))
    page = embedding_page(plain, regions, "hidden layer", f"drawn at random of 700 {HOSTILE}")
    check(page)
    assert f"40 of 100 regions (drawn at random of 700 {escape(HOSTILE)})" in page
    assert all(said in page for said in ("UMAP of principal components", "PC 1 (31%)", "UMAP 2", "In UMAP, only"))
    assert "(20)</text>" in page and "others (" in page  # regions of a TF
    page = embedding_page(plain, regions._replace(axes=plain.axes), "hidden layer")
    assert "UMAP" not in page and page.count("the first two principal components") == 2


def test_the_legend_of_long_names_lies_within_the_figure_and_leaves_the_map_its_width() -> None:
    places = pd.DataFrame({"x": np.arange(90.0), "y": np.arange(90.0)})
    names = [f"C{i:03d}:NR1H_THR_{'LONG' * 5}_receptor{i}" for i in range(9)]
    with style.context(STYLE, after_reset=True):
        figure = Canvas(figsize=(HALF, 3.7), layout="constrained")
        draw_regions(figure, places.assign(strongest_tf=names * 10), ("UMAP 1", "UMAP 2"))
        figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1 and legend.y0 >= 0
    assert figure.axes[0].get_position().width > 0.85


def importance() -> pd.DataFrame:
    rows = []
    for cell_type in ("B", HOSTILE):
        for i in range(3):
            row = {"cell_type": cell_type, "motif": f"m{i}", "name": f"{HOSTILE}{i}", "measure": "occlusion, all"}
            for name, value in (("effect", -0.5 * i), ("absolute", 0.5), ("rank", 3 - i), ("specific", 0.1 * i)):
                row |= {name: value, f"{name}_low": value - 1, f"{name}_high": value + 1}
            rows.append(row)
    return pd.DataFrame(rows)


def locus(length: int) -> pd.DataFrame:
    rows = [
        (cell_type, f"chr{HOSTILE}", 1000 + i, "A", base, 0.1 * (i % 7) - 0.3)
        for cell_type in ("B", HOSTILE)
        for i in range(length)
        for base in "CGT"
    ]
    return pd.DataFrame(rows, columns=["cell_type", "chrom", "position", "base", "mutated_to", "difference"])


def test_explanation() -> None:
    pairs = pd.DataFrame({"cell_type": ["B"], "first_name": ["X"], "second_name": [HOSTILE]})
    for name in ("joint", "interaction"):
        pairs[name], pairs[f"{name}_low"], pairs[f"{name}_high"] = -1.25, -2.0, 0.5
    tables = {"importance": importance(), "pairs": pairs, "locus": locus(explanation.BASES_PER_ROW + 5)}
    page = explanation_page(tables, ["B", HOSTILE], "occlusion, all", HOSTILE, 2, f"Of {HOSTILE}/model.")
    check(page)
    assert f"Of {escape(HOSTILE)}/model." in page
    assert page.count("<svg") == 3  # the heat map, and two rows of bases
    assert "−1.250 [−2.000, 0.500]" in page
    last = 1000 + explanation.BASES_PER_ROW + 5
    assert f"The locus chr{escape(HOSTILE)}:1,000-{last:,} in two cell types." in page
    assert page.count("Position on chr") == 2
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert cells.count("m2") == 2 and cells.count("m0") == 0  # two motifs of each cell type, the best first
    assert "1 [0, 2]" in cells


def test_colours_and_ranks_of_motifs_agree() -> None:
    """Colours were once of signed effects, so that a motif of the first rank could be paler than the last."""
    sizes, marks = np.array([[2.0, 0.0], [1.0, 0.0]]), np.array([[explanation.UP, ""], ["", explanation.DOWN]])
    svg = str(explanation.importance_map(["X", "Y"], ["B", "T"], sizes, marks).svg)
    assert "Absolute effect (nats)" in svg
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert texts.count("+") == texts.count("\N{MINUS SIGN}") == 1
    assert explanation.marks_of(np.array([0.1, -1, -1]), np.array([1, 1, -0.1])).tolist() == ["+", "", "\N{MINUS SIGN}"]


def test_a_locus_with_a_long_stretch_of_n() -> None:
    bases = locus(4 * explanation.BASES_PER_ROW)
    some = bases["position"].between(1000, 1005) | (bases["position"] >= 1000 + 3 * explanation.BASES_PER_ROW)
    page = explanation_page(
        {"importance": importance(), "locus": bases[some]}, ["B", HOSTILE], "occlusion, all", "1", 2
    )
    assert page.count("<svg") == 3  # the heat map, and two rows of bases


def test_a_long_list_of_motifs_opens_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation, "SHOWN", 1)
    page = explanation_page({"importance": importance()}, ["B", HOSTILE], "occlusion, all", "1", 3)
    before, after = page.split("<summary>The first 3 of each cell type</summary>")
    assert re.findall(r"<td[^>]*>(m\d)</td>", before) == ["m2"] * 2
    assert re.findall(r"<td[^>]*>(m\d)</td>", after) == ["m2", "m1", "m0"] * 2


def test_without_pairs_and_locus_there_are_no_such_sections() -> None:
    page = explanation_page({"importance": importance()}, ["B", HOSTILE], "occlusion, all", "1", 3)
    assert page.count("<section") == 1
