"""The page of a cross-validation over cell types and chromosomes, as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from genebert.report.build import render
from genebert.report.content import Block, Figure, Folded, Prose, Section, Table, Terms, Tile, Verdicts
from genebert.report.cross_validation_figures import by_distance, learning_curves, side_by_side
from genebert.report.tables import counted, few_known, likeness, rule_of_likeness
from genebert.report.words import (
    NOTHING,
    all_options,
    highest,
    interval,
    listed,
    missing,
    number,
    signed,
    spread,
    verdict,
)

MEAN, SPECIFIC, CROSSED = "mean", "specific", "specific, crossed"
"""In results: in the place of a cell type, the mean over all; the measures of what is specific to the cell type."""
ALL = "all"
"""In what is missing: in the place of a method or a fold, every one."""
WITHOUT_KNOWLEDGE = {
    "classes": "Without knowledge, AUPRC is the share of positives, and what is specific (Pearson's correlation) 0.",
    "value": "Without knowledge, all of these correlations are 0.",
}
"""By the kind of target: what measures are where nothing is known."""
HEADLINES = {
    "classes": ["AUPRC", "AUPRC where cell types differ", SPECIFIC, CROSSED],
    "value": ["Pearson", "Pearson where cell types differ", SPECIFIC, CROSSED],
}
LEAD = (
    "Each method predicts cell types that it has neither learned from nor chosen anything on, on chromosomes of which"
    " the same holds. Most windows are alike in most cell types, so that the mean over known cell types predicts a new"
    " one well without knowing anything of it. What counts is what a method predicts of the part that is specific."
)
TERMS = (
    (
        "Fold",
        "Some cell types are tested on, others are chosen on (epochs, penalties), and the rest are learned from; and so"
        " are chromosomes. Test rows are of test cell types on test chromosomes: new in both respects. Training rows"
        " are of neither. The windows of a cell type from all folds that test it are pooled.",
    ),
    (
        "Known cell types",
        "Of a fold, those that are not tested on. Their labels on the test chromosomes are used to measure, and by the"
        " two baselines; no method has learned from them.",
    ),
    (
        "Where cell types differ",
        "Windows whose labels in the known cell types are not all alike (two or more known); of numbers, those whose"
        " standard deviation over the known cell types is above the median of the fold. There the mean says least.",
    ),
    (
        "Specific",
        "From the truth of each window, the mean of its truth over the known cell types is taken away; from the"
        " prediction, the mean of what the same method predicts in these cell types. Pearson's correlation of the two"
        " differences over the windows of a cell type. What does not depend on the cell type, such as a method that"
        " sees the sequence alone, or the mean of known cell types, gets exactly 0.",
    ),
    (
        "Specific, crossed",
        "The same, but the truth is compared with its mean over one half of the known cell types, and the prediction"
        " with its mean over the other half, and the other way round. A method that is right about known cell types"
        " alone, and so about their mean, has something of the specific part (the more, the fewer they are), but"
        " nothing of the crossed one. Even the truth itself does not reach 1.",
    ),
    (
        "AUROC, AUPRC",
        "Probability that a random positive ranks above a random negative, 0.5 is chance; average precision, the share"
        " of positives is chance. Pearson, Spearman: correlation. Larger is better.",
    ),
    (
        "Mean over cell types",
        "Each counts the same, whatever its number of windows. Cell types whose windows are all of one class, or have"
        " one value, are named and have no part in it.",
    ),
    (
        "Interval",
        "95% percentile interval of the mean over the seeds, over 1,000 resamples of regions (windows that overlap are"
        " drawn together, long chains in stretches), the same for all cell types and methods. It tells how much the"
        " choice of windows matters,"
        " not how much that of cell types, and not how much training varies.",
    ),
    (
        "Mean of known cell types",
        "A baseline that nothing is fitted for: the mean label of the window in the known cell types.",
    ),
    (
        "Nearest known cell type",
        "Another: the label of the window in the known cell type whose accessible regions are most like those of the"
        " test cell type, on other chromosomes.",
    ),
)
_MOST_FOLDS = 12
_MOST_COLUMNS = 7
Row = Mapping[str, Any]


def cross_validation_page(results: Mapping[str, Any]) -> str:
    """Return the HTML page of what is in results.json; whatever is not markup made here is escaped.

    Args:
        results: title, target ("classes" or "value"), cell_types, folds, methods, results, comparisons, costs and
            missing: rows; optionally protocol (path, sha256), software (name -> version), ensembles (name -> of
            (members) and log_odds (whether these are averaged)).
    """
    shown = Shown(results)
    sections = [_overview(shown), _cell_types(shown)]
    if len(shown.fractions) > 1:
        sections.append(_fractions(shown))
    sections += [_folds(results["folds"]), _methods(shown)]
    sections += [Section("How to read this page", [Terms(TERMS)]), *_provenance(results)]
    return render(results["title"], LEAD, _tiles(shown), sections)


class Shown:
    """What there is to show of a cross-validation.

    Attributes:
        found: all of it.
        fractions: of the training windows, in ascending order; the last is the one that tables are about.
        headlines: names of the measures that come first.
        measures: names of all measures, in the order of the results.
        baselines: names of the methods that nothing is fitted for.
    """

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.found = found
        results = found["results"]
        self.fractions = sorted({row["label_fraction"] for row in results})
        self.headlines = HEADLINES[found["target"]]
        self.measures = list(dict.fromkeys(row["measure"] for row in results))
        self.ensembles: Mapping[str, Row] = found.get("ensembles", {})
        fitted = {one["name"] for one in found["methods"]} | self.ensembles.keys()
        self.baselines = [name for name in dict.fromkeys(row["method"] for row in results) if name not in fitted]

    def rows(self, part: str = "results", **wanted: Any) -> list[Row]:
        """Return the rows of the largest label fraction that have the wanted values."""
        wanted = {"label_fraction": self.fractions[-1] if self.fractions else None, **wanted}
        return [row for row in self.found[part] if all(row[name] == value for name, value in wanted.items())]

    def by_method(self, cell_type: str) -> dict[tuple[str, str], Row]:
        """Return (method, measure) -> result in a cell type, or the mean over all."""
        return {(row["method"], row["measure"]): row for row in self.rows(cell_type=cell_type)}

    @property
    def ranked_by(self) -> str:
        """The crossed specific part; where it is defined nowhere, the first headline measure that is defined."""
        known = {name for (_, name), row in self.by_method(MEAN).items() if row["value"] is not None}
        return next((name for name in (CROSSED, *self.headlines) if name in known), CROSSED)

    def ranked(self) -> list[str]:
        """Return the methods that have a mean, best in `ranked_by` first; then the baselines."""
        means = self.by_method(MEAN)
        value = {method: (means.get((method, self.ranked_by)) or {}).get("value") for method, _ in means}
        return sorted(value, key=lambda name: (name in self.baselines, value[name] is None, -(value[name] or 0.0)))


def _tiles(shown: Shown) -> list[Tile]:
    found = shown.found
    windows = sum(one["test_windows"] for one in found["cell_types"])
    measured = {row["method"] for row in shown.rows()}
    methods, ensembles = (
        (sum(name in measured for name in names), len(names)) for names in (_names(found["methods"]), shown.ensembles)
    )
    note = f"{_some_of(*ensembles, 'ensemble')}, {counted(len(shown.baselines), 'baseline')}"
    return [
        _tile(len(found["cell_types"]), "cell type", "each tested as a new one"),
        _tile(windows, "test row", "windows in cell types"),
        _tile(len(found["folds"]), "fold", "cell types x chromosomes"),
        Tile(f"{methods[0]:,} of {methods[1]:,}", "methods computed", note)
        if methods[0] < methods[1]
        else _tile(methods[1], "method", note),
    ]


def _some_of(there: int, count: int, noun: str) -> str:
    """Return a number and its noun, after the number that is there where that is another."""
    return counted(count, noun) if there == count else f"{there:,} of {counted(count, noun)}"


def _tile(count: int, noun: str, note: str) -> Tile:
    value, words = counted(count, noun).split(" ", 1)
    return Tile(value, words, note)


# ------------------------------------------------------------------------------------------------------- overview


def _overview(shown: Shown) -> Section:
    blocks: list[Block] = []
    ranked = shown.ranked()
    if ranked:
        blocks += [_figure(shown, ranked), _means(shown, ranked, shown.headlines)]
        blocks.append(Folded("Means of all measures", _means(shown, ranked, shown.measures)))
    headlines = [row for row in shown.rows("comparisons") if row["measure"] in shown.headlines]
    if headlines:
        blocks.append(Verdicts([verdict(row["measure"], row) for row in headlines]))
        blocks.append(Folded("All differences", _differences(shown)))
    blocks += _seen(shown.found["methods"])
    return Section("Overview", [*blocks, *missing(_missing(shown.found), "fold", _names(shown.found["folds"]))])


def _missing(found: Mapping[str, Any]) -> list[Row]:
    """Return a row for each pair of method and fold without results, and reason, whatever the fraction of labels."""
    rows: dict[tuple[str, str, str], Row] = {}
    for row in found["missing"]:
        methods, folds = (_names(found[f"{what}s"]) if row[what] == ALL else [row[what]] for what in ("method", "fold"))
        for method, fold in product(methods, folds):
            rows[method, fold, row["reason"]] = {"failed": True, **row, "method": method, "fold": fold}
    return list(rows.values())


def _figure(shown: Shown, ranked: Sequence[str]) -> Figure:
    drawn = side_by_side(ranked, shown.headlines, shown.by_method(MEAN), shown.baselines)
    said = (
        f"Means over cell types with 95% intervals, best in {_ranked_by(shown)} first, baselines last."
        f" Blue: fitted; orange: baselines. {WITHOUT_KNOWLEDGE[shown.found['target']]}"
    )
    return Figure("New cell types on new chromosomes.", [drawn], caption=said)


def _ranked_by(shown: Shown) -> str:
    return "the crossed specific part" if shown.ranked_by == CROSSED else shown.ranked_by


def _means(shown: Shown, ranked: Sequence[str], measures: Sequence[str]) -> Table:
    means = shown.by_method(MEAN)
    rows = [[method, *(_cell(means, method, name) for name in measures)] for method in ranked]
    values = {name: [(means.get((method, name)) or {}).get("value") for method in ranked] for name in measures}
    strong = {(i, 1 + j) for j, name in enumerate(measures) for i in highest(values[name])}
    soft = [i for i, method in enumerate(ranked) if method in shown.baselines]
    note = f"With 95% intervals. Bold: the highest. In italics: baselines.{_left_out(shown)}{_of_fraction(shown)}"
    return Table("Means over cell types.", ["Method", *measures], rows, note=note, strong=strong, soft=soft)


def _cell(rows: Mapping[tuple[str, str], Row], method: str, measure: str) -> str:
    row = rows.get((method, measure))
    return interval(row) if row else NOTHING


def _left_out(shown: Shown) -> str:
    """Return a sentence for each set of cell types that some measures are not defined in."""
    measures: dict[str, dict[str, None]] = {}
    for row in shown.rows():
        if row["value"] is None and row["cell_type"] != MEAN:
            measures.setdefault(row["cell_type"], {})[row["measure"]] = None
    cell_types: dict[tuple[str, ...], list[str]] = {}
    for cell_type, names in measures.items():
        cell_types.setdefault(tuple(names), []).append(cell_type)
    said = ""
    for lacking, own in cell_types.items():
        said += (
            f" Of one class or value only, and no part of any mean: {', '.join(own)}."
            if list(lacking) == shown.measures
            else f" Not defined, and no part of the mean of {', '.join(lacking)}: {', '.join(own)}."
        )
    return said


def _of_fraction(shown: Shown) -> str:
    if len(shown.fractions) < 2:
        return ""
    return f" Learned from {_percent(shown.fractions[-1])} of the training windows."


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g}%"


def _differences(shown: Shown) -> Table:
    measures: dict[tuple[str, str], dict[str, str]] = {}
    for row in shown.rows("comparisons"):
        measures.setdefault((row["first"], row["second"]), {})[row["measure"]] = signed(row)
    rows = [
        [f"{first} − {second}", *(own.get(name, NOTHING) for name in shown.measures)]
        for (first, second), own in measures.items()
    ]
    note = "Of means over cell types, taken in each resample. No interval is widened for the number of pairs."
    return Table("Differences.", ["Pair", *shown.measures], rows, note=note)


def _seen(methods: Sequence[Row]) -> list[Block]:
    rows = [[one["name"], "; ".join(one["seen"])] for one in methods if one.get("seen")]
    if not rows:
        return []
    note = "No labels of them, but their sequence or accessibility: what these methods gain may be due to that."
    return [Table("What pre-trained models had seen of what is tested.", ["Method", "Seen"], rows, text=2, note=note)]


# ----------------------------------------------------------------------------------------------------- cell types


def _cell_types(shown: Shown) -> Section:
    facts = {one["cell_type"]: one for one in shown.found["cell_types"]}
    ranked = shown.ranked()
    blocks: list[Block] = [_facts(shown)] if facts else []
    blocks += [_of_cell_types(shown, name, ranked) for name in shown.headlines if ranked]
    if ranked:
        blocks += _distances(shown, ranked[0], facts)
    if shown.found["results"]:
        blocks.append(Folded("All measures of all methods in all cell types", _every(shown)))
    return Section("Cell types", blocks)


def _facts(shown: Shown) -> Table:
    classes = shown.found["target"] == "classes"
    rows = [
        [
            one["cell_type"],
            one["nearest"],
            likeness(one),
            number(one["distance"]),
            NOTHING if one["p"] is None else f"{one['p']:.2g}",
            f"{one['test_windows']:,}",
            *([f"{one['positives']:,}"] if classes else []),
        ]
        for one in shown.found["cell_types"]
    ]
    header = ["Cell type", "Nearest", "Like known ones?", "Distance", "p", "Test windows"]
    note = (
        "Distance: of the TF usage (mean motif evidence over accessible regions) from the nearest mixture of the known"
        " cell types of the fold, and p: fraction of these, each left out in turn, that are as far; means over folds,"
        f" the most frequent nearest, and unlike where it is in any fold. {rule_of_likeness(_fewest_known(shown))}"
    )
    return Table("Cell types.", [*header, *(["Positives"] if classes else [])], rows, text=3, note=note)


def _fewest_known(shown: Shown) -> int:
    return min(one["known"] for one in shown.found["cell_types"])


def _of_cell_types(shown: Shown, measure: str, ranked: Sequence[str]) -> Table:
    """List a measure: cell types by methods, or with many methods the other way round."""
    found = {(row["cell_type"], row["method"]): row["value"] for row in shown.rows(measure=measure)}
    cell_types = [name for name in dict.fromkeys(cell_type for cell_type, _ in found) if name != MEAN]
    values = [[found.get((cell_type, method)) for method in ranked] for cell_type in cell_types]
    best = [(i, j) for i, own in enumerate(values) for j in highest(own)]
    title, note = f"{measure[:1].upper()}{measure[1:]} in each cell type.", "Bold: the highest in the cell type."
    if len(ranked) <= _MOST_COLUMNS or len(cell_types) > len(ranked):
        rows = [[name, *map(number, own)] for name, own in zip(cell_types, values, strict=True)]
        return Table(title, ["Cell type", *ranked], rows, note=note, strong={(i, j + 1) for i, j in best})
    rows = [[method, *(number(own[j]) for own in values)] for j, method in enumerate(ranked)]
    return Table(title, ["Method", *cell_types], rows, note=note, strong={(j, i + 1) for i, j in best})


def _distances(shown: Shown, method: str, facts: Mapping[str, Row]) -> list[Block]:
    rows = [row for row in shown.rows(method=method) if row["cell_type"] in facts]
    measures = [name for name in (shown.headlines[0], CROSSED) if any(row["measure"] == name for row in rows)]
    own = {name: [row for row in rows if row["measure"] == name] for name in measures}
    panels = [by_distance(method, name, own[name], facts) for name in measures]
    said = (
        f"{method}, in each cell type with its 95% interval, against how far the cell type's use of TFs is from that of"
        f" the known ones. Red squares: unlike them.{few_known(_fewest_known(shown))}"
    )
    title = "Does it get worse with the distance from known cell types?"
    return [Figure(title, panels, caption=said, columns=2)] if panels else []


def _every(shown: Shown) -> Table:
    rows = [
        [row["cell_type"], row["method"], row["measure"], interval(row), _seeds(row), f"{row['n']:,}"]
        for row in shown.rows()
        if row["cell_type"] != MEAN
    ]
    header = ["Cell type", "Method", "Measure", "Value [95% interval]", "Seeds: lowest to highest", "n"]
    return Table("All measures.", header, rows, text=3, note="n: windows measured on.")


def _seeds(row: Row) -> str:
    if row["seeds"] == 1 or row.get("lowest_seed") is None:
        return str(row["seeds"])
    return f"{row['seeds']}: {number(row['lowest_seed'])} to {number(row['highest_seed'])}"


# ------------------------------------------------------------------------------------------------ label fractions


def _fractions(shown: Shown) -> Section:
    rows = [row for row in shown.found["results"] if row["cell_type"] == MEAN]
    methods = shown.ranked()
    panels = [
        learning_curves(methods, name, [row for row in rows if row["measure"] == name]) for name in shown.headlines
    ]
    said = (
        "Means over cell types with 95% intervals. The fraction is of the training windows; those of a smaller fraction"
        " are part of those of a larger one. Baselines use the labels of all known cell types on the test chromosomes,"
        " whatever the fraction. Where a fold is missing for one fraction, that fraction is measured on other windows."
    )
    figure = Figure("What more labels bring.", panels, caption=said, columns=2)
    return Section("Fewer labels", [figure, *(_by_fraction(shown, name, methods, rows) for name in shown.headlines)])


def _by_fraction(shown: Shown, measure: str, methods: Sequence[str], rows: Sequence[Row]) -> Table:
    found = {(row["method"], row["label_fraction"]): interval(row) for row in rows if row["measure"] == measure}
    header = ["Method", *map(_percent, shown.fractions)]
    cells = [[method, *(found.get((method, fraction), NOTHING) for fraction in shown.fractions)] for method in methods]
    title = f"{measure[:1].upper()}{measure[1:]} by the fraction of the training windows."
    return Table(title, header, cells)


# -------------------------------------------------------------------------------------------------- how it was done


def _folds(folds: Sequence[Row]) -> Section:
    parts = ("test_cell_types", "test_chromosomes", "valid_cell_types", "valid_chromosomes")
    rows = [
        [
            one["name"],
            *(", ".join(map(str, one[part])) for part in parts),
            *(f"{one[f'{split}_rows']:,}" for split in ("train", "valid", "test")),
        ]
        for one in folds
    ]
    header = [
        "Fold",
        *(part.replace("_", " ").capitalize() for part in parts),
        "Training rows",
        "Valid rows",
        "Test rows",
    ]
    note = "Training rows: of all other cell types on all other chromosomes. A row is a window in a cell type."
    table = Table("Folds.", header, rows, text=1 + len(parts), note=note)
    return Section("Folds", [Folded(counted(len(folds), "fold"), table) if len(folds) > _MOST_FOLDS else table])


def _methods(shown: Shown) -> Section:
    methods, costs = shown.found["methods"], shown.rows("costs")
    seconds = {name: [row["seconds_to_fit"] for row in costs if row["method"] == name] for name in _names(methods)}
    rows = [
        [
            one["name"],
            one["title"],
            listed(one["changed"]) or NOTHING,
            str(len(one["seeds"])),
            spread(seconds[one["name"]], ",.1f"),
        ]
        for one in methods
    ]
    rows += [[name, _composition(one), NOTHING, NOTHING, NOTHING] for name, one in shown.ensembles.items()]
    header = ["Method", "What it is", "Options other than the defaults", "Seeds", "Seconds to fit"]
    note = "Seconds: wall-clock time to fit one seed in one fold; mean over all of them."
    table = Table("How methods were trained.", header, rows, text=3, note=note)
    return Section("Methods", [table, all_options(methods)])


def _composition(ensemble: Row) -> str:
    return f"mean {'log-odds ' if ensemble['log_odds'] else ''}of {', '.join(ensemble['of'])}"


def _names(methods: Sequence[Row]) -> list[str]:
    return [one["name"] for one in methods]


def _provenance(found: Mapping[str, Any]) -> list[Section]:
    if "protocol" not in found:
        return []
    rows = [["protocol", found["protocol"]["path"]], ["SHA-256 of the protocol", found["protocol"]["sha256"]]]
    rows += [[name, version] for name, version in found.get("software", {}).items()]
    said = (
        "Each run is in a folder of its own under runs/, with a manifest. results.json and results.parquet hold the"
        " numbers of this page, predictions.parquet what was predicted for each test row."
    )
    return [Section("Provenance", [Prose(said), Table("Protocol and software.", ["What", "Value"], rows, text=2)])]
