"""The tables of the page: manifests and table rows become printed cells."""

import csv
import math
import shlex
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import pandas as pd

from genebert.cell_type_distance import COARSE, FEWEST, LEVEL
from genebert.corpus.splits import NAMES, NONE
from genebert.corpus.store import Corpus
from genebert.report.canvas import minus
from genebert.report.compare import estimate
from genebert.report.content import Provenance, Table
from genebert.schema import SPLITS
from genebert.stage import Manifest

POSITIONAL = {"variants": "vcf", "predict": "windows"}
"""Inputs that the command line of a verb takes by position."""
NULL_OF_ONE = (
    "an allele is compared with those that are most like it: of the same substitution, or kind and length of insertion"
    " or deletion, in windows of like GC content and motif density, of the finest such group that has at least 100. No"
    " p is smaller than 1 / (1 + their number), so that the smallest ones can be at that floor, and the effects larger"
    " than all of these. No p is corrected for the number of alleles and cell types."
)
"""What the p-values of `variants` rest on."""


def splits(corpus: Corpus) -> Table:
    """List the splits, their chromosomes, and their examples by part of the cell types where some are held out."""
    chroms = corpus.regions.groupby("split")["chrom"].unique()
    examples = corpus.count_examples()
    parts = [i for i, name in enumerate(SPLITS) if name == "train" or (corpus.cell_type_part == i).any()]
    headings = [f"Examples of {SPLITS[part]} cell types" for part in parts] if len(parts) > 1 else ["Examples"]
    rows = [
        [
            name,
            ", ".join(chroms.get(name, ["none"])),
            f"{(corpus.split == i).sum():,}",
            *(f"{examples[i, part]:,}" for part in parts),
            f"{100 * (corpus.split == i).mean():.1f}",
        ]
        for i, name in enumerate(NAMES)
        if name in SPLITS or (corpus.split == i).any()
    ]
    header = ["Split", "Chromosomes", "Regions", *headings, "Regions (%)"]
    return Table("Splits.", header, rows, text=2, note=_splits_note(corpus))


def _splits_note(corpus: Corpus) -> str:
    said = ["Whole chromosomes, so that no region of one split overlaps or adjoins one of another."]
    held_out = [
        f"{name} for {SPLITS[part]}"
        for name, part in zip(corpus.cell_types, corpus.cell_type_part, strict=True)
        if part
    ]
    if held_out:
        said.append(f"Cell types held out: {', '.join(held_out)}.")
    if (corpus.split == NONE).any():
        said.append(
            "Regions of the split none have no label and no training example: held-out or added cell types brought them"
            " along, or they share their sequence with training regions. They are neighbours in region matrices, and"
            " variants in them are scored."
        )
    return " ".join(said)


def left_out(corpus: Corpus) -> Table:
    """List what the corpus does not hold, and why."""
    metrics = corpus.manifest.metrics
    unknown = sum(sum(counts.values()) for counts in metrics["peaks_on_unknown_chromosomes"].values())
    rows = [[f"candidate windows: {reason}", f"{count:,}"] for reason, count in metrics["windows_dropped"].items()]
    rows += [
        ["duplicate peaks", f"{sum(metrics['duplicate_peaks'].values()):,}"],
        ["peaks on chromosomes that the genome lacks", f"{unknown:,}"],
        ["IUPAC letters read as N", f"{metrics['ambiguous_bases_read_as_n']:,}"],
        ["held-out regions too similar to training regions", f"{metrics['regions_too_similar']:,}"],
    ]
    rows += [[f"cell type {name}", reason] for name, reason in metrics["signal"].get("dropped_cell_types", {}).items()]
    note = (
        f"{sum(metrics['peaks_per_set'].values()):,} peaks became"
        f" {len(corpus.regions):,} regions; where windows overlap, the one of the best peak stands for the"
        " others, which are not counted here."
    )
    return Table("What was left out.", ["What", "Number"], rows, note=note)


def pretraining(evaluation: Sequence[Mapping[str, Any]], title: str) -> Table:
    """List measures of pre-training."""
    rows = []
    for row in evaluation:
        names = [row["task"], row["metric"], f"{row['n']:,}"]
        for method, value in {"model": row["model"], **row["baselines"]}.items():
            shown = f"{value['value']:.3f}" if method == "chance" else str(estimate(value))
            rows.append([*names[:2], method, names[2], shown])
            names = ["", "", ""]
    return Table(
        title,
        ["Task", "Metric", "Method", "n", "Value [95% interval]"],
        rows,
        text=3,
        note="n, number of examples; chance has no interval.",
    )


def methods(metrics: Mapping[str, Any]) -> Table:
    """List the measures of each method: one row per method, one column per metric."""
    results = metrics["results"]
    names = list(dict.fromkeys(row["metric"] for row in results))
    rows = []
    for method in dict.fromkeys(row["method"] for row in results):
        own = {row["metric"]: row for row in results if row["method"] == method}
        rows.append([method, *(str(estimate(own[name])) for name in names), str(own[names[0]]["seeds"])])
    return Table(
        "Measures on the test rows, with 95% intervals.",
        ["Method", *names, "Seeds"],
        rows,
        note=f"n = {metrics['rows']['test']:,} test rows.",
    )


def cell_type_distances(found: Sequence[Mapping[str, Any]]) -> Table:
    """List how far cell types are from those that the predictor was trained in."""
    rows = [
        [
            one["cell_type"],
            one["nearest"],
            likeness(one),
            f"{one['distance']:.3f}",
            "–" if one["p"] is None else f"{one['p']:.2g}",
        ]
        for one in found
    ]
    note = (
        "Distance: of the TF usage (mean motif evidence over accessible regions) from the nearest mixture of the"
        f" {found[0]['known']} cell types trained on, root mean square over motifs, in standard deviations. p: fraction"
        " of these cell types, each left out in turn, that are as far from the others, the one in question counted"
        f" among them. {rule_of_likeness(found[0]['known'])}"
    )
    header = ["Cell type", "Nearest", "Like those trained on?", "Distance", "p"]
    return Table("Cell types that were not trained on.", header, rows, text=3, note=note)


def likeness(one: Mapping[str, Any]) -> str:
    """Return in a word whether a cell type is like known ones, as `Distance.to_json` has it."""
    return "unlike" if one["unlike"] else "alike" if one["p"] is not None else "unknown"


def rule_of_likeness(known: int) -> str:
    """Say when a cell type is unlike that many known ones, and what follows."""
    return (
        f"Unlike: p is at most {LEVEL}, or as low as it can be, 1 / (known cell types + 1); unknown: there are fewer"
        f" than {FEWEST}, or too few regions.{few_known(known)} Predictions in an unlike cell type extrapolate."
    )


def few_known(known: int) -> str:
    """Say, in a sentence that begins with a space, that so many known cell types say little; nothing if they do."""
    if not FEWEST <= known < COARSE:
        return ""
    return (
        f" With {known} known cell types p is never below {1 / (known + 1):.2g}, and one cell type of the same kind in"
        f" {known + 1} is unlike by chance: that says little."
    )


def scored(metrics: Mapping[str, Any]) -> Table:
    """Count what was scored and what was skipped."""
    rows = [["scored", f"{metrics['alleles_scored']:,}"]]
    rows += [[f"skipped: {reason}", f"{count:,}"] for reason, count in metrics["alleles_skipped"].items()]
    return Table("Alternate alleles.", ["What became of them", "Alleles"], rows)


def mismatches(found: Mapping[str, str]) -> Table:
    """List variants whose reference allele is not what the genome has."""
    return Table(
        "REF mismatches.",
        ["Variant", "The genome has"],
        [[name, bases] for name, bases in found.items()],
        text=2,
        note=(
            "Examples. Such variants are not scored; many of them mean that VCF and genome are of different assemblies."
        ),
    )


def top_variants(largest: pd.DataFrame) -> Table:
    """List the strongest variants: one row each, in the cell type where the effect is largest."""
    header = ["Variant", "ID", "Cell type", "Gained", "Lost", "Reference", "Alternate", "Difference", "p"]
    rows = []
    for row in largest.to_dict("records"):
        cells = [
            row["variant"],
            row["id"],
            row["cell_type"],
            _motifs(row["gained"], row["gained_by"]),
            _motifs(row["lost"], row["lost_by"]),
            minus(f"{row['reference']:.3f}"),
            minus(f"{row['alternate']:.3f}"),
            minus(f"{row['difference']:+.3f}"),
            "–" if math.isnan(row["p"]) else f"{row['p']:.2g}",
        ]
        rows.append([str(cell) for cell in cells])
    return Table(
        "The strongest variants.",
        header,
        rows,
        text=5,
        note=(
            "Log-odds in nats in the cell type where the effect is largest. Gained and lost: the motifs whose"
            " best hits near the variant the alternate allele strengthens or weakens most, with the change of"
            " −log₁₀ p. p: share of random variants, the allele counted among them, whose effect in the cell type is as"
            f" large; {NULL_OF_ONE}"
        ),
    )


def _motifs(names: str, changes: str) -> str:
    """Return names with changes, each given separated by commas; "." is none."""
    if names == ".":
        return "–"
    pairs = zip(names.split(","), changes.split(","), strict=True)
    return ", ".join(f"{name.replace('%2C', ',')} ({minus(f'{float(change):+.1f}')})" for name, change in pairs)


def provenance(manifest: Manifest) -> Provenance:
    """Say how a stage came about."""
    inputs = Table(
        "Inputs",
        ["Input", "Path", "SHA-256"],
        [[name, facts["path"], facts["sha256"]] for name, facts in manifest.inputs.items()],
        text=3,
    )
    settings = Table(
        "Settings",
        ["Setting", "Value"],
        [[name, _value(value)] for name, value in manifest.settings.items()],
        text=2,
    )
    software = Table(
        "Software",
        ["Software", "Version"],
        [[name, value] for name, value in manifest.software.items()],
        text=2,
    )
    return Provenance(
        manifest.stage,
        str(manifest.folder),
        manifest.fingerprint,
        command(manifest),
        [inputs, settings, software],
    )


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, such as "1 cell type" or "16 cell types"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _value(value: Any) -> str:
    if value is None or value == []:
        return "default"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def command(manifest: Manifest) -> str:
    """Return the command line that repeats a stage; inputs named "option of ..." are files of one option."""
    paths: dict[str, Any] = {}
    for name, facts in manifest.inputs.items():
        option, _, of_several = name.partition(" of ")
        if of_several:
            paths.setdefault(option, []).append(facts["path"])
        else:
            paths[option] = facts["path"]
    placed = POSITIONAL.get(manifest.stage)
    words = ["genebert", manifest.stage, *([paths.pop(placed)] if placed in paths else [])]
    options = {**paths, "out": str(manifest.folder)}
    for name, value in {**manifest.settings, **options}.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None:
            words += [flag, _items(value) if isinstance(value, list) else str(value)]
    return shlex.join(words)


def _items(values: Sequence[Any]) -> str:
    """Return a list as an option takes it: a line of CSV."""
    line = StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()
