"""`genebert inspect`: what a folder holds, as a person would want to read it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genebert.console import table
from genebert.corpus.splits import NAMES
from genebert.corpus.store import STAGES, Corpus
from genebert.metrics import Estimate
from genebert.report.compare import by_part
from genebert.schema import EVIDENCE_STEPS, SPLITS, gc_fraction
from genebert.settings import InspectSettings
from genebert.stage import Manifest, read_manifest

_ROWS = 1 << 13  # looked at together


def inspect(settings: InspectSettings) -> None:
    """Print what is in a folder that a stage made.

    Raises:
        UserError: it is not such a folder, or damaged.
    """
    manifest = read_manifest(settings.folder)
    _provenance(manifest)
    if manifest.stage in STAGES:
        _corpus(Corpus.open(settings.folder))
    elif manifest.stage == "pretrain":
        _pretrained(manifest)
    elif "results" in manifest.metrics:
        _results(manifest)
    else:
        table("Facts", ("what", "value"), _flat(manifest.metrics))


def _provenance(manifest: Manifest) -> None:
    rows = [
        ("made by", f"genebert {manifest.stage} {manifest.software['genebert']}"),
        ("fingerprint", manifest.fingerprint[:16]),
    ]
    rows += [
        (name, f"{facts['path']} (sha256 {facts['sha256'][:12]})")
        for name, facts in manifest.inputs.items()
        if " of " not in name
    ]
    rows += [
        (name, ", ".join(value) if isinstance(value, list) else str(value))
        for name, value in manifest.settings.items()
        if value not in (None, [], "")
    ]
    table(str(manifest.folder), ("provenance", ""), rows)


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, item in value.items():
        if isinstance(item, dict):
            rows += _flat(item, f"{prefix}{name}: ")
        else:
            rows.append(
                (
                    prefix + name,
                    ", ".join(map(str, item))
                    if isinstance(item, list)
                    else f"{item:,}"
                    if isinstance(item, int)
                    else str(item),
                )
            )
    return rows


def _corpus(corpus: Corpus) -> None:
    _contents(corpus)
    _splits(corpus)
    _cell_types(corpus)
    table("Left out", ("what", "number"), _left_out(corpus.manifest.metrics))


def _contents(corpus: Corpus) -> None:
    blocks = [slice(start, start + _ROWS) for start in range(0, len(corpus.regions), _ROWS)]
    gc = np.concatenate([gc_fraction(corpus.sequence[rows]) for rows in blocks])
    steps = sum(np.bincount(corpus.evidence[rows].ravel(), minlength=256) for rows in blocks)
    median, high = np.searchsorted(np.cumsum(steps), [0.5 * np.sum(steps), 0.99 * np.sum(steps)]) / EVIDENCE_STEPS
    rows = [
        ("regions", f"{len(corpus.regions):,} of {corpus.width} bp"),
        ("examples (cell type, accessible region)", f"{len(corpus.accessible_regions):,}"),
        ("cell types", f"{len(corpus.cell_types)}, measured from {corpus.signal}"),
        ("motifs", _motifs(corpus)),
        ("background of the motif scan", f"{corpus.gc_background:.3f} G and C"),
        (
            "GC content of regions, median and quartiles",
            "{:.2f} ({:.2f} to {:.2f})".format(*np.percentile(gc, [50, 25, 75])),
        ),
        ("motif evidence, median and 99th percentile of -log10 p", f"{median:.1f}, {high:.1f}"),
        ("size on disk", f"{sum(facts['bytes'] for facts in corpus.manifest.files.values()) / 1e6:,.1f} MB"),
    ]
    table("Contents", ("what", "value"), rows)


def _motifs(corpus: Corpus) -> str:
    names = ", ".join(motif.name for motif in corpus.motifs[:4])
    merged = sum(map(len, corpus.archetypes.values()))
    archetypes = f" archetypes of {merged:,}" if merged else ""
    return f"{len(corpus.motifs):,}{archetypes}, such as {names}"


def _splits(corpus: Corpus) -> None:
    """Print regions by split, and examples by split and, where cell types are held out, part of the cell type."""
    chroms = corpus.regions.groupby("split")["chrom"].unique()
    regions = np.bincount(corpus.split, minlength=len(NAMES))
    examples = corpus.count_examples()
    parts = [i for i, name in enumerate(SPLITS) if name == "train" or (corpus.cell_type_part == i).any()]
    headings = [f"examples of {SPLITS[part]} cell types" for part in parts] if len(parts) > 1 else ["examples"]
    rows = [
        (name, f"{regions[i]:,}", *(f"{examples[i, part]:,}" for part in parts), ", ".join(chroms.get(name, ["none"])))
        for i, name in enumerate(NAMES)
        if name in SPLITS or regions[i]
    ]
    table("Splits", ("split", "regions", *headings, "chromosomes"), rows)


def _cell_types(corpus: Corpus) -> None:
    metrics = corpus.manifest.metrics
    numbers = {
        "peaks": metrics["peaks_per_set"] if corpus.signal == "peaks" else {},
        "cells": metrics["signal"].get("cells", {}),
        "fragments": metrics["signal"].get("fragments", {}),
    }
    known = [name for name, found in numbers.items() if found]
    shared = np.bincount(corpus.accessible_regions, minlength=len(corpus.regions))
    rows = []
    for i, name in enumerate(corpus.cell_types):
        regions = corpus.accessible(i)
        given = (f"{numbers[column][name]:,}" if name in numbers[column] else "" for column in known)
        only = (shared[regions] == 1).sum()
        rows.append((name, SPLITS[corpus.cell_type_part[i]], *given, f"{len(regions):,}", f"{only:,}"))
    table("Cell types", ("cell type", "part", *known, "accessible regions", "accessible nowhere else"), rows)


def _left_out(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    unknown = sum(sum(counts.values()) for counts in metrics["peaks_on_unknown_chromosomes"].values())
    counts = {f"windows {reason}": count for reason, count in metrics["windows_dropped"].items()}
    counts |= {
        "duplicate peaks": sum(metrics["duplicate_peaks"].values()),
        "peaks on chromosomes that the genome lacks": unknown,
        "blacklist intervals on the genome": metrics["blacklist_intervals_on_the_genome"],
        "IUPAC letters read as N": metrics["ambiguous_bases_read_as_n"],
        "held-out regions too similar to training regions": metrics["regions_too_similar"],
    }
    rows = [(what, f"{count:,}") for what, count in counts.items()]
    small = metrics["signal"].get("dropped_cell_types", {})
    return rows + [(f"cell type {name}", reason) for name, reason in small.items()]


def _pretrained(manifest: Manifest) -> None:
    metrics = manifest.metrics
    table(
        "Model", ("what", "value"), [(name, f"{metrics[name]:,}") for name in ("parameters", "steps", "examples_seen")]
    )
    for measured_on, rows in by_part(metrics["evaluation"]).items():
        table(
            f"Measured on {measured_on}, 95% intervals",
            ("task", "metric", "model", "baselines", "n"),
            [
                (
                    row["task"],
                    row["metric"],
                    _estimate(row["model"]),
                    ", ".join(f"{name} {value['value']:.3f}" for name, value in row["baselines"].items()),
                    row["n"],
                )
                for row in rows
            ],
        )

    _curves(manifest.folder / "curves.tsv")


def _curves(path: Path) -> None:
    """Print how losses, and measures on validation examples, began and ended."""
    if not path.exists():
        return
    recorded = pd.read_csv(path, sep="\t").set_index("step").drop(columns=["learning_rate", "loss"], errors="ignore")
    columns = {name: values.dropna() for name, values in recorded.items() if values.notna().any()}
    table(
        f"During training, to step {recorded.index.max():,}",
        ("loss or measure", "first", "last"),
        [(name, f"{values.iloc[0]:.3f}", f"{values.iloc[-1]:.3f}") for name, values in columns.items()],
    )


def _results(manifest: Manifest) -> None:
    table(
        "Test rows, 95% intervals",
        ("method", "metric", "value", "seeds"),
        [(row["method"], row["metric"], _estimate(row), row["seeds"]) for row in manifest.metrics["results"]],
    )


def _estimate(value: dict[str, Any]) -> str:
    return str(Estimate(value["value"], value["low"], value["high"]))
