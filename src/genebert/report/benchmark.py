"""The page of a benchmark: what `genebert benchmark` found, ours and theirs, as one self-contained HTML page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from genebert.report.build import render
from genebert.report.canvas import BLUE, ORANGE, SKY, WIDE, panel, shorten
from genebert.report.content import (
    Block,
    Figure,
    Panel,
    Prose,
    Section,
    Table,
    Terms,
    Tile,
    Verdicts,
)
from genebert.report.tables import counted
from genebert.report.words import (
    MARKS,
    NOTHING,
    all_options,
    highest,
    interval,
    listed,
    missing,
    number,
    signed,
    spread,
    standing_of,
    verdict,
)
from genebert.schema import SPLITS

ALL_ROWS, OURS = "all", "ours"
_PARTS = ("results", "comparisons", "costs", "missing")
_OF_LABEL = ": "
"""In the name of a measure of one label, such as "AUROC: A549"."""
LEAD = (
    "Methods learn from the same training rows, choose on the same validation rows, and are measured on the same test"
    " rows, which nothing was fitted or chosen on. Numbers of others are marked as theirs: they were not computed here."
)
TERMS = (
    (
        "Ours",
        "Trained and measured here, on the rows of this suite. With several seeds: the mean of the measure over the"
        " seeds; in brackets, the 95% percentile interval of that mean over 1,000 resamples of the test rows, which all"
        " methods share. The interval tells how much the choice of test rows matters; how much the seed matters, the"
        " range of seeds tells.",
    ),
    (
        "Theirs",
        "As the authors of the source report it for the test rows of the same name. Their code was not run here, and"
        " their training, tuning and number of seeds are their own. There is no interval, and what an interval of ours"
        " says holds for ours alone: a number of theirs inside of it is no sign of a tie, nor one outside of it proof.",
    ),
    (
        "Ensemble",
        "The mean of what its members predict, each of them the mean over its seeds. It is one run.",
    ),
    (
        "Difference",
        "Of two methods in each resample of the same rows. Where its 95% interval holds 0, the rows cannot tell them"
        " apart. Many pairs are compared, and no interval is widened for that.",
    ),
    (
        "Without shared 32-mers",
        "Measured once more without the test rows that have 32 consecutive bases, on either strand, in common with a"
        " training or validation row: copies, overlaps and young repeats, whose answer may have been learned by heart.",
    ),
    (
        "Seconds",
        "Wall-clock time on whatever machine computed it, one method at a time, motif scans included. Compare them"
        " only if it was one machine.",
    ),
    (
        "Measures",
        "AUROC: probability that a random positive ranks above a random negative; 0.5 is chance. AUPRC: average"
        " precision; the share of positives is chance. MCC: Matthews' correlation; 0 is chance. macro-F1: mean F1 of"
        " the classes. Pearson, Spearman: correlation. Larger is better.",
    ),
)
Row = Mapping[str, Any]


def benchmark_page(found: Mapping[str, Any]) -> str:
    """Return the HTML page of what is in results.json; whatever is not markup made here is escaped."""
    sections = [_overview(found), *(_task_section(found, task) for task in found["tasks"]), _methods(found)]
    sections += [Section("How to read this page", [Terms(TERMS)]), _provenance(found)]
    return render(found["title"], LEAD, _tiles(found), sections)


def _tiles(found: Mapping[str, Any]) -> list[Tile]:
    ours = {row["method"] for row in found["results"] if row["source"] == OURS}
    theirs = sum(row["source"] != OURS for row in found["results"])
    tests = sum(task["rows"]["test"] for task in found["tasks"])
    return [
        _tile(len(found["tasks"]), "task", f"{tests:,} test rows"),
        _tile(len(ours - found["ensembles"].keys()), "method", counted(len(found["ensembles"]), "ensemble")),
        _tile(theirs, "published number", "theirs, beside ours"),
    ]


def _tile(count: int, noun: str, note: str) -> Tile:
    number, words = counted(count, noun).split(" ", 1)
    return Tile(number, words, note)


# ------------------------------------------------------------------------------------------------------ all tasks


def _overview(found: Mapping[str, Any]) -> Section:
    blocks: list[Block] = [_matrix(found)] if found["results"] else []
    pairs = _headlines(found, "comparisons")
    if pairs:
        blocks.append(_pairs(found, pairs))
    return Section("Overview", [*blocks, *missing(found["missing"], "task")])


def _headlines(found: Mapping[str, Any], what: str) -> list[Row]:
    """Return the rows of results or comparisons that are about all test rows and a task's headline measure."""
    return [row for task in found["tasks"] for row in _on_headline(found[what], task)]


def _on_headline(rows: Sequence[Row], task: Row) -> list[Row]:
    """Return those of a task's rows that are about all test rows and its headline measure."""
    wanted = task["task"], ALL_ROWS, task["measure"]
    return [row for row in rows if (row["task"], row["rows"], row["measure"]) == wanted]


def _matrix(found: Mapping[str, Any]) -> Table:
    """List the headline measure of all methods on all tasks, ours first; the highest of ours stand out."""
    values: dict[tuple[str, str], dict[str, float | None]] = {}
    for row in _headlines(found, "results"):
        values.setdefault((row["source"], row["method"]), {})[row["task"]] = row["value"]
    ordered = sorted(values, key=lambda key: key[0] != OURS)
    tasks = [task["task"] for task in found["tasks"]]
    rows = [
        [method, source, *(number(values[source, method].get(name)) for name in tasks)] for source, method in ordered
    ]
    ours = [key for key in ordered if key[0] == OURS]
    note = (
        f"All test rows; {_measures(found['tasks'])}. Bold: the highest of ours. In italics: theirs, as published, not"
        f" computed here. {NOTHING}: not computed here, or not reported."
    )
    strong = {(i, 2 + j) for j, name in enumerate(tasks) for i in highest([values[key].get(name) for key in ours])}
    soft = range(len(ours), len(rows))
    return Table("Headline measures.", ["Method", "Whose", *tasks], rows, text=2, note=note, strong=strong, soft=soft)


def _measures(tasks: Sequence[Row]) -> str:
    """Return the name of the headline measure, or which tasks have which."""
    names: dict[str, list[str]] = {}
    for task in tasks:
        names.setdefault(task["measure"], []).append(task["task"])
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{measure}: {', '.join(own)}" for measure, own in names.items())


def _pairs(found: Mapping[str, Any], comparisons: Sequence[Row]) -> Table:
    """List the differences of pairs in the headline measure on all tasks."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in comparisons:
        said = f"{MARKS[standing_of(row)]} {number(row['value'], '+')}"
        cells.setdefault((row["first"], row["second"]), {})[row["task"]] = said
    tasks = [task["task"] for task in found["tasks"]]
    rows = [
        [f"{first} − {second}", *(own.get(name, NOTHING) for name in tasks)] for (first, second), own in cells.items()
    ]
    note = (
        "Pairs that the suite names, all test rows. ▲: the first is above the second; ▼: below; ■: the 95% interval of"
        " the difference holds 0. The intervals are in the tasks' sections."
    )
    return Table("Differences in the headline measures.", ["Pair", *tasks], rows, note=note)


# ------------------------------------------------------------------------------------------------------- one task


def _task_section(found: Mapping[str, Any], task: Row) -> Section:
    own = {what: [row for row in found[what] if row["task"] == task["task"]] for what in _PARTS}
    blocks: list[Block] = [Prose(_consists_of(task)), _splits(task)]
    ranked = _ranked(own["results"], task["measure"])
    if ranked:
        blocks += [_ranking(task, ranked, own["results"]), _headline_table(task, own["results"])]
        blocks += _every_measure(own["results"])
    if own["comparisons"]:
        blocks.append(
            Verdicts(
                [verdict(f"{task['task']}, {row['measure']}", row) for row in _on_headline(own["comparisons"], task)]
            )
        )
        blocks += _differences(own["comparisons"])
    if own["costs"]:
        blocks.append(_costs(own["costs"]))
    if own["missing"]:
        blocks.append(Prose(_not_measured(own["missing"])))
    return Section(task["task"], blocks)


def _not_measured(rows: Sequence[Row]) -> str:
    """Return a sentence for each reason, with the methods that it holds for."""
    methods: dict[str, list[str]] = {}
    for row in rows:
        reason = f"{'failed: ' if row['failed'] else ''}{row['reason'].rstrip('.')}"
        methods.setdefault(reason, []).append(row["method"])
    return " ".join(f"Not measured ({reason}): {', '.join(own)}." for reason, own in methods.items())


def _consists_of(task: Row) -> str:
    kind, names = task["target"]["kind"], task["target"]["names"]
    what = {"classes": "one of the classes", "labels": "any of the labels", "value": "a number"}[kind]
    listed = "" if kind == "value" else f" {', '.join(names)}"
    shared = task["test_rows_that_share_32_bases"]
    said = f"To be predicted: {what}{listed}, from {task['length']:,} bp."
    if task["threshold"] == "valid":
        said += f" Class {names[1]} is predicted from the probability on where MCC is highest on the validation rows."
    said = (
        f"{said} Of {task['rows']['test']:,} test rows, {shared['with training']:,} share 32 bases with a training row,"
        f" {shared['with validation']:,} with a validation row, and {shared['with either']:,} with either."
    )
    return " ".join([said, *(f"{name} is {'; '.join(seen)}." for name, seen in task.get("seen", {}).items())])


def _splits(task: Row) -> Table:
    if task["target"]["kind"] == "value":
        names, shown = ["mean", "standard deviation"], "{:.3g}"
    else:
        names, shown = task["target"]["names"], "{:.1%}"
    rows = [
        [split, f"{task['rows'][split]:,}", *(shown.format(task["balance"][split][name]) for name in names)]
        for split in SPLITS
    ]
    return Table("Rows.", ["Split", "Rows", *names], rows)


def _ranked(results: Sequence[Row], measure: str) -> list[Row]:
    """Return the results on all test rows of a measure, the best first."""
    found = [
        row for row in results if row["rows"] == ALL_ROWS and row["measure"] == measure and row["value"] is not None
    ]
    return sorted(found, key=lambda row: -row["value"])


def _of_method(results: Sequence[Row], measure: str, *, shared: bool) -> dict[str, Row]:
    """Return method -> our result, on all test rows or on those that share nothing."""
    return {
        row["method"]: row
        for row in results
        if row["source"] == OURS and row["measure"] == measure and (row["rows"] == ALL_ROWS) == shared
    }


def _ranking(task: Row, ranked: Sequence[Row], results: Sequence[Row]) -> Figure:
    alone = _of_method(results, task["measure"], shared=False)
    said = "Filled: ours, with 95% intervals."
    if any(row["source"] != OURS for row in ranked):
        said += " Open: theirs, as published, without an interval."
    if alone:
        rows = next(iter(alone.values()))["n"]
        said += f" Pale: ours on the {rows:,} test rows that share no 32 bases with a training or validation row."
    title = f"{task['measure']} on the {task['rows']['test']:,} test rows."
    return Figure(title, [ranking(task["task"], task["measure"], ranked, alone)], caption=said)


def ranking(task: str, measure: str, ranked: Sequence[Row], alone: Mapping[str, Row]) -> Panel:
    """Draw results from best to worst.

    Args:
        task: its name.
        measure: its name.
        ranked: of all methods, ours and theirs.
        alone: method -> our result on the test rows that share nothing, if there are others.
    """

    def draw(figure: Canvas) -> None:
        axes = figure.subplots()
        for place, row in enumerate(ranked):
            if row["source"] != OURS:
                axes.plot(row["value"], place, "D", color=ORANGE, markerfacecolor="white", label="theirs")
                continue
            axes.hlines(place, row["low"], row["high"], color=BLUE, linewidth=1.3)
            axes.plot(row["value"], place, "o", color=BLUE, markersize=4.5, label="ours")
            if (other := alone.get(row["method"])) and other["value"] is not None:
                axes.hlines(place + 0.27, other["low"], other["high"], color=SKY, linewidth=0.8)
                axes.plot(other["value"], place + 0.27, "o", color=SKY, markersize=2.4, label="ours, no shared 32-mer")
        for edge in np.arange(0.5, len(ranked) - 1):
            axes.axhline(edge, color="#eeeeee", linewidth=0.5, zorder=0)
        axes.set_yticks(range(len(ranked)), [_label(row) for row in ranked])
        axes.set_ylim(len(ranked) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(measure)
        handles, labels = axes.get_legend_handles_labels()
        legend = dict(zip(labels, handles, strict=True))
        axes.legend(legend.values(), legend.keys(), loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)

    alt = f"Dots with 95% intervals: {measure} of {', '.join(_label(row) for row in ranked)} on {task}, best first."
    return panel(alt, (WIDE, 0.8 + 0.2 * len(ranked)), draw)


def _label(row: Row) -> str:
    return shorten(row["method"]) if row["source"] == OURS else f"{shorten(row['method'])} (theirs)"


def _headline_table(task: Row, results: Sequence[Row]) -> Table:
    """List methods by the headline measure, then those that others report another measure of."""
    measure = task["measure"]
    alone = _of_method(results, measure, shared=False)
    rows = []
    for row in _ranked(results, measure):
        cells = [row["method"], _whose(row), interval(row) if row["source"] == OURS else number(row["value"])]
        cells.append(_seeds(row))
        if alone:
            cells.append(interval(alone[row["method"]]) if row["source"] == OURS else NOTHING)
        rows.append(cells)
    header = ["Method", "Whose", f"{measure} [95% interval]", "Seeds: lowest to highest"]
    header += ["Without shared 32-mers"] if alone else []
    others = [
        f"{row['method']} {row['measure']} {number(row['value'])} ({_whose(row)})"
        for row in results
        if row["source"] != OURS and row["measure"] != measure
    ]
    note = ""
    if any(row["source"] != OURS for row in results):
        note = "Theirs are what the source reports; nothing of it was run here, and it has no interval."
    if others:
        note += f" Of other measures: {'; '.join(others)}."
    return Table(f"Methods by {measure}, best first.", header, rows, text=2, note=note)


def _whose(row: Row) -> str:
    if row["source"] == OURS:
        return f"{OURS}: {row['setting']}" if row.get("setting") else OURS
    size = f"{row['parameters'] / 1e6:,.0f} million parameters" if row["parameters"] else ""
    return "theirs: " + ", ".join(part for part in (row["citation"], row["setting"], size) if part)


def _seeds(row: Row) -> str:
    if row["source"] != OURS:
        return NOTHING
    if row["seeds"] == 1:
        return "1"
    return f"{row['seeds']}: {number(row['lowest_seed'])} to {number(row['highest_seed'])}"


def _every_measure(results: Sequence[Row]) -> list[Table]:
    """List all our measures, each set of rows by itself; those of single labels in tables of their own."""
    ours = [row for row in results if row["source"] == OURS]
    of_labels = [row for row in ours if _OF_LABEL in row["measure"]]
    whole = [row for row in ours if _OF_LABEL not in row["measure"]]
    return [*_by_rows("Our measures", whole, interval), *_by_rows("Our measures of each label", of_labels, interval)]


def _differences(comparisons: Sequence[Row]) -> list[Table]:
    named = [{**row, "method": f"{row['first']} − {row['second']}"} for row in comparisons]
    return _by_rows("Differences", [row for row in named if _OF_LABEL not in row["measure"]], signed)


def _by_rows(title: str, rows: Sequence[Row], shown: Callable[[Row], str]) -> list[Table]:
    """Return a table for each set of test rows: methods by measures."""
    found: dict[tuple[str, int], dict[str, dict[str, str]]] = {}
    for row in rows:
        found.setdefault((row["rows"], row["n"]), {}).setdefault(row["method"], {})[row["measure"]] = shown(row)
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    return [
        Table(
            f"{title}, {n:,} test rows{'' if which == ALL_ROWS else f' with {which}'}.",
            ["Method", *measures],
            [[method, *(cells[measure] for measure in measures)] for method, cells in methods.items()],
        )
        for (which, n), methods in found.items()
    ]


def _costs(costs: Sequence[Row]) -> Table:
    rows = [
        [row["method"], f"{row['seconds_to_fit']:,.1f}", f"{row['sequences_per_second']:,.0f}", row["machine"]]
        for row in costs
    ]
    header = ["Method", "Seconds to fit", "Sequences per second", "Machine"]
    return Table("Cost.", header, rows, note="Mean over seeds; prediction of the test rows.")


# -------------------------------------------------------------------------------------------------------- methods


def _methods(found: Mapping[str, Any]) -> Section:
    rows = [
        [one["name"], one["title"], _changes(one), str(len(one["seeds"])), *_spent(found["costs"], one["name"])]
        for one in found["methods"]
    ]
    rows += [
        [name, f"mean of {', '.join(members)}", NOTHING, NOTHING, NOTHING, NOTHING]
        for name, members in found["ensembles"].items()
    ]
    header = [
        "Method",
        "What it is",
        "Options other than the defaults",
        "Seeds",
        "Seconds to fit",
        "Sequences per second",
    ]
    note = "Seconds to fit one seed, and test rows predicted per second: lowest to highest over the tasks."
    trained = Table("How ours were trained.", header, rows, text=3, note=note)
    return Section("Methods", [trained, all_options(found["methods"], "Where a task has none of its own.")])


def _changes(method: Row) -> str:
    """Return the options of a method other than the defaults, and those of single tasks."""
    said = [listed(method["changed"])] if method["changed"] else []
    tasks: dict[str, list[str]] = {}
    for task, options in method["on_tasks"].items():
        tasks.setdefault(listed(options), []).append(task)
    said += [f"on {', '.join(names)}: {options}" for options, names in tasks.items()]
    return "; ".join(said) or NOTHING


def _spent(costs: Sequence[Row], method: str) -> list[str]:
    """Return seconds to fit and sequences per second, lowest to highest over the tasks."""
    own = [row for row in costs if row["method"] == method]
    return [
        spread([row["seconds_to_fit"] for row in own], ",.1f"),
        spread([row["sequences_per_second"] for row in own], ",.0f"),
    ]


def _provenance(found: Mapping[str, Any]) -> Section:
    rows = [["suite", found["suite"]["path"]], ["SHA-256 of the suite", found["suite"]["sha256"]]]
    rows += [[name, version] for name, version in found["software"].items()]
    said = (
        "Each run is in a folder of its own under runs/, with a manifest that names its options, the checksums of its"
        " data, its software and its seconds. results.json and results.parquet hold the numbers of this page."
    )
    return Section("Provenance", [Prose(said), Table("Suite and software.", ["What", "Value"], rows, text=2)])
