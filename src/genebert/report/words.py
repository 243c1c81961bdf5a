"""Estimates, options and gaps of methods, as pages that compare methods print them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genebert.report.canvas import minus
from genebert.report.content import Block, Folded, Standing, Table, Verdict
from genebert.report.tables import counted

NOTHING = "–"
MARKS: dict[Standing, str] = {"above": "▲", "level": "■", "below": "▼"}
_ESTIMATE = ("value", "low", "high")
Row = Mapping[str, Any]


def interval(row: Row) -> str:
    """Return an estimate with its interval, or a dash if it is not defined; row: value, low and high."""
    return NOTHING if row["value"] is None else "{} [{}, {}]".format(*(number(row[name]) for name in _ESTIMATE))


def signed(row: Row) -> str:
    """Return a difference with its interval, with signs; see `interval`."""
    return NOTHING if row["value"] is None else "{} [{}, {}]".format(*(number(row[name], "+") for name in _ESTIMATE))


def number(value: float | None, sign: str = "") -> str:
    """Return a number with three decimals, or a dash; `sign` is "+" if a plus sign is to be shown."""
    if value is None:
        return NOTHING
    return minus(f"{round(value, 3) + 0.0:{sign}.3f}")  # + 0.0: a negative zero becomes zero


def standing_of(row: Row) -> Standing:
    """Return whether a difference is above 0, below it, or not to be told from it; see `interval`."""
    if row["value"] is None or row["low"] <= 0 <= row["high"]:
        return "level"
    return "above" if row["low"] > 0 else "below"


def verdict(what: str, row: Row) -> Verdict:
    """Say in a sentence which of two methods is better.

    Args:
        what: what is measured, and where.
        row: of comparisons: first, second, value, low, high.
    """
    standing = standing_of(row)
    said = {"above": "is above", "level": "cannot be told from", "below": "is below"}[standing]
    return Verdict(standing, f"{what}: {row['first']} {said} {row['second']} ({signed(row)}).")


def highest(values: Sequence[float | None]) -> list[int]:
    """Return the places of the highest value, as it is shown."""
    shown = [round(value, 3) if value is not None else -np.inf for value in values]
    most = max(shown, default=-np.inf)
    return [i for i, value in enumerate(shown) if value == most > -np.inf]


def all_options(methods: Sequence[Row], note: str = "") -> Folded:
    """List the options of methods; row: name and options, by name."""
    rows = [
        [one["name"] if i == 0 else "", name, _value(value)]
        for one in methods
        for i, (name, value) in enumerate(one["options"].items())
    ]
    table = Table("Options", ["Method", "Option", "Value"], rows, text=3, note=note)
    return Folded("All options of all methods, defaults included", table)


def listed(options: Mapping[str, Any]) -> str:
    """Return options and their values in one line."""
    return ", ".join(f"{name} = {_value(value)}" for name, value in options.items())


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def spread(values: Sequence[float], form: str) -> str:
    """Return the lowest and the highest value, or a dash if there is none; form: how they are formatted."""
    if not values:
        return NOTHING
    return " to ".join(dict.fromkeys(format(value, form) for value in (min(values), max(values))))


def missing(rows: Sequence[Row], noun: str, every: Sequence[str] = ()) -> list[Block]:
    """List what is not measured and why; what is no failure opens on demand.

    Args:
        rows: method, reason, failed, and under `noun` what is missing of the method; of one task or fold each.
        noun: "task" or "fold".
        every: names of tasks or folds that are called "all" where a method lacks all of them.
    """
    header = ["Methods", f"{noun.capitalize()}s", "Why", "Number"]
    failed, waiting = ([row for row in rows if row["failed"] is is_failure] for is_failure in (True, False))
    blocks: list[Block] = []
    if failed:
        blocks.append(Table("What failed.", header, _grouped(failed, noun, every), text=3))
    if waiting:
        pairs = {(row["method"], row[noun]) for row in waiting}
        summary = f"{counted(len(pairs), 'pair')} of method and {noun} not measured"
        blocks.append(Folded(summary, Table("Not measured", header, _grouped(waiting, noun, every), text=3)))
    return blocks


def _grouped(rows: Sequence[Row], noun: str, every: Sequence[str]) -> list[list[str]]:
    """Return methods, what they lack, reason and number; methods that lack the same are together."""
    lacking: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        lacking.setdefault((row["method"], row["reason"]), []).append(row[noun])
    methods: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (method, reason), names in lacking.items():
        methods.setdefault((reason, tuple(names)), []).append(method)
    return [
        [", ".join(own), "all" if set(names) == {*every} else ", ".join(names), reason, f"{len(own) * len(names):,}"]
        for (reason, names), own in methods.items()
    ]
