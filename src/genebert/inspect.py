"""`genebert inspect`: what a folder holds, as a person would want to read it."""

from typing import Any

import numpy as np

from genebert.console import table
from genebert.corpus.store import Corpus
from genebert.metrics import Estimate
from genebert.schema import SPLITS, gc_fraction
from genebert.settings import InspectSettings
from genebert.stage import Manifest, read_manifest


def inspect(settings: InspectSettings) -> None:
    """Print what is in a folder that a stage made.

    Raises:
        UserError: it is not such a folder, or damaged.
    """
    manifest = read_manifest(settings.folder)
    _provenance(manifest)
    if manifest.stage == "prepare":
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
        if not name.startswith("peaks of")
    ]
    rows += [(name, str(value)) for name, value in manifest.settings.items() if value not in (None, [], "")]
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
    metrics = corpus.manifest.metrics
    gc = gc_fraction(np.asarray(corpus.sequence))
    table(
        "Contents",
        ("what", "value"),
        [
            ("regions", f"{len(corpus.regions):,} of {corpus.width} bp"),
            ("examples (cell type, accessible region)", f"{len(corpus.accessible_regions):,}"),
            ("cell types", f"{len(corpus.cell_types)}"),
            ("motifs", f"{len(corpus.motifs):,}, such as {', '.join(motif.name for motif in corpus.motifs[:4])}"),
            (
                "GC content of regions, median and quartiles",
                "{:.2f} ({:.2f} to {:.2f})".format(*np.percentile(gc, [50, 25, 75])),
            ),
            (
                "motif evidence, median and 99th percentile of -log10 p",
                "{:.1f}, {:.1f}".format(*np.percentile(corpus.evidence, [50, 99]) / 16),
            ),
            ("size on disk", f"{sum(facts['bytes'] for facts in corpus.manifest.files.values()) / 1e6:,.1f} MB"),
        ],
    )
    chroms = corpus.regions.groupby("split")["chrom"].unique()
    examples = corpus.split[corpus.accessible_regions]
    table(
        "Splits",
        ("split", "regions", "examples", "chromosomes"),
        [
            (
                name,
                f"{(corpus.split == i).sum():,}",
                f"{(examples == i).sum():,}",
                ", ".join(chroms.get(name, ["none"])),
            )
            for i, name in enumerate(SPLITS)
        ],
    )
    shared = np.bincount(corpus.accessible_regions, minlength=len(corpus.regions))
    table(
        "Cell types",
        ("cell type", "peaks", "accessible regions", "accessible nowhere else"),
        [
            (
                name,
                f"{metrics['peaks_per_cell_type'][name]:,}",
                f"{len(corpus.accessible(i)):,}",
                f"{(shared[corpus.accessible(i)] == 1).sum():,}",
            )
            for i, name in enumerate(corpus.cell_types)
        ],
    )
    dropped = [(f"windows {reason}", f"{count:,}") for reason, count in metrics["windows_dropped"].items()]
    dropped.append(("duplicate peaks", f"{sum(metrics['duplicate_peaks'].values()):,}"))
    dropped.append(
        (
            "peaks on chromosomes that the genome lacks",
            f"{sum(sum(v.values()) for v in metrics['peaks_on_unknown_chromosomes'].values()):,}",
        )
    )
    dropped.append(("blacklist intervals on the genome", f"{metrics['blacklist_intervals_on_the_genome']:,}"))
    dropped.append(("IUPAC letters read as N", f"{metrics['ambiguous_bases_read_as_n']:,}"))
    table("Left out", ("what", "number"), dropped)


def _pretrained(manifest: Manifest) -> None:
    metrics = manifest.metrics
    table(
        "Model", ("what", "value"), [(name, f"{metrics[name]:,}") for name in ("parameters", "steps", "examples_seen")]
    )
    table(
        f"Held-out chromosomes ({metrics['evaluated_on']}), 95% intervals",
        ("task", "metric", "model", "baselines", "n"),
        [
            (
                row["task"],
                row["metric"],
                _estimate(row["model"]),
                ", ".join(f"{name} {value['value']:.3f}" for name, value in row["baselines"].items()),
                row["n"],
            )
            for row in metrics["evaluation"]
        ],
    )


def _results(manifest: Manifest) -> None:
    table(
        "Test rows, 95% intervals",
        ("method", "metric", "value", "seeds"),
        [(row["method"], row["metric"], _estimate(row), row["seeds"]) for row in manifest.metrics["results"]],
    )


def _estimate(value: dict[str, Any]) -> str:
    return str(Estimate(value["value"], value["low"], value["high"]))
