"""Does what was learned in some cell types hold in others? On simulated atlases, where the truth is known.

    python benchmarks/across_cell_types.py inputs  --out atlas-0 --seed 0
    python benchmarks/across_cell_types.py pretrain --out atlas-0 both
    python benchmarks/across_cell_types.py pretrain --out atlas-0 sequence
    python benchmarks/across_cell_types.py pretrain --out atlas-0 regions
    python benchmarks/across_cell_types.py compare --out atlas-0
    python benchmarks/across_cell_types.py summary atlas-0 atlas-1 atlas-2

An atlas has 24 cell types, of which six are held out for testing and three for choosing, and 8 chromosomes, of which
two and one are. What is pre-trained on sees neither. Binding of each TF is then learned from 1%, 10% and all of the
labels in the other cell types on the other chromosomes, and predicted in the held-out cell types on the held-out
chromosomes (`genebert cross-validate`); the fewer labels, the more passes over them, by the square root. `compare
--only NAME` computes some methods, so that several processes can share the work; `--no-pretrained` leaves out all that
needs pre-training, and takes minutes on two cores. `summary` prints JSON: means over the atlases, with the least and
the largest.

Pre-training with one modality has the tasks that need no other one: MGM and NGSP, or masked region modelling.
"""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import yaml
from common import finish

from genebert.corpus.build import prepare
from genebert.cross_validation.run import cross_validate
from genebert.pretrain import pretrain as pretrained
from genebert.settings import CrossValidateSettings, PrepareSettings, PretrainSettings, SimulateSettings
from genebert.simulate import simulate
from genebert.tasks import task_class
from genebert.tasks.labels import labels

TFS = ("RUNX1", "SPI1", "GATA1")
WIDTH = 256
VALID_CHROMOSOMES, TEST_CHROMOSOMES = ["chr6"], ["chr7", "chr8"]
VALID, TEST = 3, 6
"""Cell types held out."""
NOTHING = dict.fromkeys(("mgm_weight", "ngsp_weight", "srm_weight", "mrm_weight", "rc_weight"), 0.0)
PRETRAINING: dict[str, dict[str, Any]] = {
    "both": {},
    "sequence": {**NOTHING, "mgm_weight": 1.0, "ngsp_weight": 1.0},
    "regions": {**NOTHING, "mrm_weight": 1.0},
}
FRACTIONS = (0.01, 0.1, 1.0)
OUT = click.option("--out", required=True, type=click.Path(path_type=Path))


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@OUT
@click.option("--seed", default=0)
@click.option("--genome-mb", default=8.0)
@click.option("--elements", default=8000)
def inputs(out: Path, seed: int, genome_mb: float, elements: int) -> None:
    """Simulate an atlas, and prepare its corpus and labels."""
    chosen = {"genome_mb": genome_mb, "regions": elements, "cell_types": 24, "seed": seed}
    atlas = simulate(SimulateSettings(out=out / "inputs", genes=1200, individuals=20, variants=100, causal=5, **chosen))
    valid, test = held_out(atlas, seed)
    prepare(
        PrepareSettings(
            out=out / "corpus",
            genome=atlas / "genome.fa",
            peaks=[atlas / "peaks"],
            motifs=str(atlas / "motifs.meme"),
            blacklist=atlas / "blacklist.bed",
            region_width=WIDTH,
            valid_chromosomes=VALID_CHROMOSOMES,
            test_chromosomes=TEST_CHROMOSOMES,
            valid_cell_types=valid,
            test_cell_types=test,
        )
    )
    for tf in TFS:
        labels(
            task_class("tf-binding")(
                out=out / "labels" / tf,
                genome=atlas / "genome.fa",
                corpus=out / "corpus",
                peaks=[atlas / "chip_seq" / tf],
                accessible=[atlas / "peaks"],
                blacklist=atlas / "blacklist.bed",
                width=WIDTH,
                seed=seed,
            )
        )


def held_out(atlas: Path, seed: int) -> tuple[list[str], list[str]]:
    """Draw cell types for validation and for testing among those in which most TFs were looked at."""
    looked_at = pd.Series([path.stem for tf in TFS for path in sorted((atlas / "chip_seq" / tf).iterdir())])
    count = looked_at.value_counts()
    often = sorted(count.index[count >= 2])
    order = np.random.default_rng(seed).permutation(often).tolist()
    return sorted(order[:VALID]), sorted(order[VALID : VALID + TEST])


@main.command()
@OUT
@click.argument("what", type=click.Choice(sorted(PRETRAINING)))
@click.option("--epochs", default=4.0)
@click.option("--device", default="auto")
@click.option("--seed", default=0)
def pretrain(out: Path, what: str, epochs: float, device: Any, seed: int) -> None:
    """Pre-train on both modalities, or on one."""
    options = {"epochs": epochs, "device": device, "seed": seed, **PRETRAINING[what]}
    pretrained(PretrainSettings(out=out / "pretrained" / what, corpus=out / "corpus", preset="tiny", **options))


@main.command()
@OUT
@click.option("--tf", "tfs", multiple=True, default=TFS, type=click.Choice(TFS))
@click.option("--fraction", "fractions", multiple=True, default=FRACTIONS)
@click.option("--only", multiple=True)
@click.option("--seed", default=0)
@click.option("--epochs", default=4, help="passes over all labels")
@click.option("--device", default="auto")
@click.option("--pretrained/--no-pretrained", "with_models", default=True)
def compare(
    out: Path,
    tfs: Sequence[str],
    fractions: Sequence[float],
    only: Sequence[str],
    seed: int,
    epochs: int,
    device: str,
    with_models: bool,
) -> None:
    """Learn binding of TFs, and predict it in held-out cell types on held-out chromosomes."""
    for tf, fraction in product(tfs, fractions):
        path = out / f"{tf}-{fraction:g}.yaml"
        options = {"epochs": round(epochs / fraction**0.5), "device": device}
        document = protocol(out, tf, seed, options, with_models) | {"label_fractions": [fraction]}
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        cross_validate(CrossValidateSettings(protocol=path, out=results_of(out, tf, fraction), only=list(only)))


def results_of(out: Path, tf: str, fraction: float) -> Path:
    return out / "across" / tf / f"{fraction:g}"


def protocol(out: Path, tf: str, seed: int, options: dict[str, Any], with_models: bool) -> dict[str, Any]:
    corpus = json.loads((out / "corpus/corpus.json").read_text())
    known = {name.removeprefix("label:") for name in pd.read_csv(out / f"labels/{tf}/labels.tsv", sep="\t", nrows=0)}
    fold = {
        "test_cell_types": sorted(known & set(corpus["test_cell_types"])),
        "valid_cell_types": sorted(known & set(corpus["valid_cell_types"])),
        "test_chromosomes": corpus["test_chromosomes"],
        "valid_chromosomes": corpus["valid_chromosomes"],
    }
    network = {**options, "dropout": 0, "batch_size": 64, "own_accessibility": True}
    bare = {**network, "own_accessibility": False}  # what is not read cannot be shown
    of = {what: f"pretrained/{what}" for what in PRETRAINING}
    methods = {
        "both, pre-trained": ("genebert", {**network, "model": of["both"]}),
        "both, from scratch": ("genebert", {**network, "model": of["both"], "initial": "random"}),
        "sequence, pre-trained": ("genebert", {**bare, "model": of["sequence"], "modalities": "sequence"}),
        "regions, pre-trained": ("genebert", {**network, "model": of["regions"], "modalities": "motifs"}),
        "no encoders, both": ("genebert", {**network, "encoders": False}),
        "no encoders, k-mers": ("genebert", {**bare, "encoders": False, "modalities": "sequence"}),
        "no encoders, motifs": ("genebert", {**network, "modalities": "motifs", "region_states": False}),
        "motif trees": ("motif-trees", {"accessibility": "own", "kmers": [4]}),
        "motifs without accessibility": ("motif-trees", {"accessibility": "none", "kmers": [4]}),
        "accessibility trees": ("accessibility-trees", {"accessibility": "own"}),
    }
    if not with_models:
        methods = {name: method for name, method in methods.items() if "model" not in method[1]}
    first = next(iter(methods))
    others = [name for name in methods if name != first]
    return {
        "title": f"Binding of {tf} in held-out cell types of a simulated atlas",
        "labels": f"labels/{tf}",
        "genome": "inputs/genome.fa",
        "corpus": "corpus",
        "folds": [fold],
        "seed": seed,
        "methods": [{"name": name, "method": key, "options": given} for name, (key, given) in methods.items()],
        "compare": [[first, other] for other in [*others, "mean of known cell types", "nearest known cell type"]],
    }


@main.command()
@click.argument("atlases", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def summary(atlases: Sequence[Path]) -> None:
    """Print means over atlases, and differences from the first method."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for atlas in atlases:
        for tf, fraction in product(TFS, FRACTIONS):
            path = results_of(atlas, tf, fraction) / "results.json"
            document = json.loads(path.read_text()) if path.exists() else {"results": [], "comparisons": []}
            for row in document["results"]:
                if row["cell_type"] == "mean":
                    key = tf, row["label_fraction"], row["measure"], row["method"]
                    found.setdefault(key, []).append(row["value"])
            for row in document["comparisons"]:
                key = tf, row["label_fraction"], row["measure"], f"{row['first']} - {row['second']}"
                found.setdefault(key, []).append(row["value"])
    columns = "TF", "label_fraction", "measure", "what"
    rows = [dict(zip(columns, key, strict=True)) | spread(values) for key, values in found.items()]
    finish({"atlases": len(atlases), "results": rows})


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    if not known:
        return {"atlases": 0}
    numbers = {"mean": np.mean(known), "least": np.min(known), "largest": np.max(known)}
    return {name: round(float(value), 4) for name, value in numbers.items()} | {"atlases": len(known)}


if __name__ == "__main__":
    main()
