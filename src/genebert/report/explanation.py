"""The page of the stage `explain`: TFs by cell type, pairs of them, and the bases of a locus."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from genebert.report.build import render
from genebert.report.canvas import (
    BLUE,
    WIDE,
    annotate_cells,
    heat_map,
    minus,
    panel,
    sequential,
    shorten,
    symmetric,
)
from genebert.report.content import Block, Figure, Folded, Panel, Prose, Section, Table, Tile
from genebert.report.mutagenesis import draw_logo, draw_substitutions, letter_heights, substitutions

PAGE = "explanation.html"
MOST_MOTIFS = 40
"""Rows of the heat map."""
MOST_PAIRS = 20
SHOWN = 3
"""Motifs per cell type that are listed before a reader asks for more."""
BASES_PER_ROW = 80
"""More letters side by side cannot be read."""
UP, DOWN = "+", "\N{MINUS SIGN}"


def explanation_page(
    tables: Mapping[str, pd.DataFrame], cell_types: Sequence[str], measure: str, target: str, top: int, about: str = ""
) -> str:
    """Return the page.

    Args:
        tables: importance, and where there are any pairs and locus, as the stage writes them.
        cell_types: names.
        measure: the one to show.
        target: the class whose log-odds are explained.
        top: motifs per cell type in the table.
        about: what is explained, and on which regions.
    """
    main = tables["importance"][tables["importance"]["measure"] == measure]
    sections = [_motif_section(main, cell_types, measure, target, top)]
    if "pairs" in tables:
        sections.append(_pair_section(tables["pairs"]))
    if "locus" in tables:
        sections.append(_locus_section(tables["locus"], target))
    tiles = [Tile(f"{len(cell_types):,}", "cell types"), Tile(f"{main['motif'].nunique():,}", "motifs occluded")]
    lead = (
        f"Which TFs the prediction of class {target} rests on. This explains the model: what it learned may be"
        f" correlation, and motifs that are alike share what they have in common.{f' {about}' if about else ''}"
    )
    return render("GeneBERT explanation", lead, tiles, sections)


def _motif_section(main: pd.DataFrame, cell_types: Sequence[str], measure: str, target: str, top: int) -> Section:
    best = main.sort_values("rank", kind="stable").groupby("cell_type", sort=False).head(top)
    shown = best.sort_values("rank", kind="stable")["motif"].drop_duplicates().head(MOST_MOTIFS).tolist()
    names = main.drop_duplicates("motif").set_index("motif")["name"]
    grid = main.pivot_table(index="motif", columns="cell_type", values=["absolute", "specific_low", "specific_high"])
    sizes, low, high = (
        grid[name].reindex(shown)[list(cell_types)].to_numpy(np.float64)
        for name in ("absolute", "specific_low", "specific_high")
    )
    caption = (
        f"Colour: the mean absolute effect ({measure}) on the log-odds of class {target} in the accessible regions of a"
        f" cell type, by which motifs are ranked in it. {UP} or {DOWN}: the signed effect is above or below its mean"
        " over the cell types shown, and the 95% interval of the difference excludes 0."
    )
    drawn = importance_map(names[shown].tolist(), cell_types, sizes, marks_of(low, high))
    figure = Figure("TFs by cell type.", [drawn], caption=caption)
    first = best.groupby("cell_type", sort=False).head(SHOWN)
    blocks: list[Block] = [figure, _top_table(first, cell_types)]
    if len(first) < len(best):
        blocks.append(Folded(f"The first {top} of each cell type", _top_table(best, cell_types)))
    return Section("TFs", blocks)


def _top_table(best: pd.DataFrame, cell_types: Sequence[str]) -> Table:
    rows = []
    for name in cell_types:
        for row in best[best["cell_type"] == name].itertuples(index=False):
            values = row._asdict()
            ranks = f"{values['rank']:.0f} [{values['rank_low']:.0f}, {values['rank_high']:.0f}]"
            numbers = [_interval(values, key) for key in ("effect", "absolute", "specific")]
            rows.append([name, values["name"], values["motif"], ranks, *numbers])
    header = ["Cell type", "TF", "Motif", "Rank", "Effect", "Absolute", "Specific"]
    note = (
        "Effect: log-odds as they are, less those with the motif's evidence at its mean (nats), averaged over regions."
        " Absolute: the mean of absolute values, by which motifs are ranked. In brackets: 95% percentile intervals of"
        " 1,000 resamples of the regions; that of a rank says how far the order can be trusted. All are in"
        " importance.tsv."
    )
    return Table("The most important motifs.", header, rows, text=3, note=note)


def _interval(values: Mapping[str, float], key: str) -> str:
    low, high = values[f"{key}_low"], values[f"{key}_high"]
    return minus(f"{values[key]:.3f} [{low:.3f}, {high:.3f}]")


def _pair_section(pairs: pd.DataFrame) -> Section:
    order = pairs["interaction"].abs().sort_values(ascending=False, kind="stable").index[:MOST_PAIRS]
    rows = [
        [
            row["cell_type"],
            row["first_name"],
            row["second_name"],
            _interval(row, "joint"),
            _interval(row, "interaction"),
        ]
        for row in pairs.loc[order].to_dict("records")
    ]
    note = (
        "Joint: the effect of taking both away. Interaction: that less the sum of both effects; positive where the two"
        " count more together than each adds, negative where one stands in for the other."
    )
    header = ["Cell type", "First", "Second", "Joint", "Interaction"]
    return Section("Pairs", [Table("The strongest interactions.", header, rows, text=3, note=note)])


def _locus_section(locus: pd.DataFrame, target: str) -> Section:
    first, last = int(locus["position"].min()), int(locus["position"].max())
    limits = symmetric(locus["difference"].to_numpy())
    starts = [  # of rows with a base: N are left out
        start
        for start in range(first, last + 1, BASES_PER_ROW)
        if locus["position"].between(start, start + BASES_PER_ROW - 1).any()
    ]
    panels = [locus_panel(locus, start, min(start + BASES_PER_ROW, last + 1), limits) for start in starts]
    caption = (
        f"Letters: how much replacing that base lowers the log-odds of class {target} that the whole predictor gives,"
        " with all of its members and calibrated, on average over the three"
        " substitutions. Colours: the change by each; dots, the base itself. All rows share their scales."
    )
    place = f"{locus['chrom'].iloc[0]}:{first:,}-{last + 1:,}"
    figure = Figure(f"The locus {place} in two cell types.", panels, caption=caption)
    return Section(
        "Locus", [Prose("Every base is replaced by each of the three others; motifs are scanned again."), figure]
    )


def marks_of(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.str_]:
    """Return a mark for each interval that excludes 0."""
    return np.where(low > 0, UP, np.where(high < 0, DOWN, ""))


def importance_map(
    motifs: Sequence[str], cell_types: Sequence[str], sizes: NDArray[np.float64], marks: NDArray[np.str_]
) -> Panel:
    """Draw mean absolute effects, and a mark in each cell that has one; both of shape (motifs, cell types)."""
    size = min(WIDE, 2.6 + 0.26 * len(cell_types)), max(2.2, 1.2 + 0.14 * len(motifs))
    most = float(np.nanmax(sizes, initial=0.0)) or 1.0

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        heat_map(axes, sizes, motifs, cell_types, sequential(BLUE), (0.0, most), "Absolute effect (nats)")
        annotate_cells(axes, sizes, marks, 0.35 * most)

    return panel("Heat map: mean absolute effect of motifs in each cell type.", size, draw)


def locus_panel(locus: pd.DataFrame, start: int, end: int, limits: tuple[float, float]) -> Panel:
    """Draw logo and substitutions of each cell type, for the positions from `start` to before `end`."""
    rows = locus[(locus["position"] >= start) & (locus["position"] < end)]
    tables = {name: some.rename(columns={"position": "offset"}) for name, some in rows.groupby("cell_type", sort=False)}
    means = locus.groupby(["cell_type", "position"])["difference"].mean()
    low, high = -float(means.max()), -float(means.min())
    room = 0.08 * (high - low) or 1.0

    def draw(figure: Canvas) -> None:
        grid = figure.subplots(2 * len(tables), 1, sharex=True, height_ratios=[2, 1.1] * len(tables))
        for i, (name, table) in enumerate(tables.items()):
            draw_logo(grid[2 * i], letter_heights(table), f"{shorten(str(name), 16)}\nimportance (nats)")
            grid[2 * i].set_ylim(min(low, 0) - room, max(high, 0) + room)
            draw_substitutions(figure, grid[2 * i + 1], substitutions(table), limits)
        grid[-1].set_xlim(start - 0.6, start + BASES_PER_ROW - 0.4)
        ticks = np.arange(-(-start // 10) * 10, end, 10)
        grid[-1].set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        grid[-1].set_xlabel(f"Position on {shorten(locus['chrom'].iloc[0])} (bp, 0-based)")

    names = " and ".join(str(name) for name in tables)
    return panel(f"In-silico mutagenesis in {names}: logos and substitutions.", (WIDE, 2.15 * len(tables)), draw)
