"""What each task of pre-training, and each extra, does to every measure on held-out examples.

    python benchmarks/ablation.py --corpus corpus --out ablation --seeds 3 --jobs 2

Each variant of a preset is pre-trained with several seeds by `genebert.pretrain.pretrain`, in a folder of its own:
a finished run is not run again, an interrupted one resumes. Runs go side by side, each on one thread. What the runs'
manifests say of held-out chromosomes and cell types is put together in ablation.json and ablation.md: the mean over
seeds and the lowest and highest. Seed by seed, variants see the same examples in the same order, and start from the
same encoders where these have the same sizes, so that they are compared in pairs.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
from common import command, machine

from genebert.errors import UserError
from genebert.pretrain import pretrain
from genebert.settings import PretrainSettings
from genebert.stage import read_manifest

PLAIN = "as the preset has it"
VARIANTS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "without MGM": {"mgm_weight": 0.0},
    "without NGSP": {"ngsp_weight": 0.0},
    "without SRM": {"srm_weight": 0.0},
    "with masked region modelling": {"mrm_weight": 1.0},
    "with hard negatives": {"hard_negatives": True},
    "with reverse-complement consistency": {"rc_weight": 0.15},
    "with accessibility prediction": {"accessibility_weight": 0.15},
    "with balanced cell types": {"balanced": True},
    "with bases hidden in runs of 1 to 6": {"longest_run": 6},
    "with k = 3": {"k": 3, "longest_run": 1},
    "with k = 6": {"k": 6, "longest_run": 1},
    "with k = 6 and DNABERT's masking": {"k": 6, "masking": "dnabert"},
}
KEYS = ("regions", "cell_types", "task", "metric")
Row = dict[str, Any]
Runs = dict[str, list[Path]]
"""Variant -> the folders of its finished runs, by seed."""


@click.command()
@click.option("--corpus", type=click.Path(path_type=Path, exists=True), required=True, help="folder made by prepare")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder for runs and results")
@click.option("--preset", default="tiny", help="what is varied")
@click.option("--epochs", type=float, help="passes over the training examples (default: the preset's)")
@click.option("--batch-size", type=int, help="examples per step (default: the preset's)")
@click.option("--learning-rate", type=float, help="peak learning rate (default: the preset's)")
@click.option("--seeds", default=3, help="runs of each variant")
@click.option("--jobs", default=1, help="runs side by side, each on one thread")
@click.option("--only", help="variants, separated by commas (default: all)")
def main(corpus: Path, out: Path, seeds: int, jobs: int, only: str | None, **changes: Any) -> None:
    """Pre-train all variants, and compare them."""
    chosen = only.split(",") if only else list(VARIANTS)
    unknown = [name for name in chosen if name not in VARIANTS]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}; there are: {', '.join(VARIANTS)}", param_hint="--only")
    common = {name: value for name, value in changes.items() if value is not None}
    runs = {
        name: [settings(corpus, out, name, seed, {**common, **VARIANTS[name]}) for seed in range(seeds)]
        for name in chosen
    }
    finished = run_all(runs, jobs)
    if any(finished.values()):
        facts = {"machine": machine(), "command": command(), "corpus": corpus_facts(finished), **compared(finished)}
        (out / "ablation.json").write_text(json.dumps(facts, indent=2) + "\n")
        (out / "ablation.md").write_text(markdown(facts["rows"], list(finished)))
        print(out / "ablation.md")
    if sum(map(len, finished.values())) < seeds * len(chosen):
        sys.exit("some runs failed; the same command tries them again")


def settings(corpus: Path, out: Path, variant: str, seed: int, changes: Mapping[str, Any]) -> PretrainSettings:
    folder = variant.replace(" ", "-").replace("'", "")
    return PretrainSettings(
        out=out / "runs" / folder / f"seed-{seed}", corpus=corpus, seed=seed, device="cpu", **changes
    )


def run_all(runs: Mapping[str, Sequence[PretrainSettings]], jobs: int) -> Runs:
    """Run what is not finished yet, and return what then is."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    waiting = {settings.out: settings for all_seeds in runs.values() for settings in all_seeds}
    finished: set[Path] = set()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        asked = {pool.submit(run, settings): out for out, settings in waiting.items()}
        for done, future in enumerate(as_completed(asked), 1):
            out, outcome = asked[future], future.result()
            print(f"{done} of {len(asked)}: {out.parent.name}, {out.name}: {outcome}", file=sys.stderr)
            if not outcome.startswith("failed"):
                finished.add(out)
    return {name: [one.out for one in all_seeds if one.out in finished] for name, all_seeds in runs.items()}


def run(settings: PretrainSettings) -> str:
    """Pre-train in this process, whose messages go to a file beside the result; return how it went."""
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    with settings.out.with_suffix(".log").open("a") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
    began = time.monotonic()
    try:
        pretrain(settings)
    except (UserError, OSError) as error:
        return f"failed: {error}"
    return f"{time.monotonic() - began:.0f} s"


def compared(finished: Runs) -> dict[str, Any]:
    """Return what was trained, and one row per measure: see `row_of`."""
    found = {name: [read_manifest(out) for out in outs] for name, outs in finished.items() if outs}
    rows = {
        name: {one.settings["seed"]: {key_of(row): row for row in one.metrics["evaluation"]} for one in each}
        for name, each in found.items()
    }
    keys = dict.fromkeys(key for each in rows.values() for one in each.values() for key in one)
    return {
        "variants": {
            name: {
                "changes": VARIANTS[name],
                "seeds": len(each),
                "steps": each[0].metrics["steps"],
                "examples_seen": each[0].metrics["examples_seen"],
                "parameters": each[0].metrics["parameters"],
            }
            for name, each in found.items()
        },
        "rows": [row_of(key, rows) for key in keys],
    }


def key_of(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in KEYS)


def row_of(key: tuple[str, ...], rows: Mapping[str, Mapping[int, Mapping[tuple[str, ...], Row]]]) -> Row:
    """Return a measure of all variants that have it, and its baselines, those of all runs together.

    Args:
        key: of the measure, see `key_of`.
        rows: variant -> seed -> key -> row.
    """
    having = {name: {seed: one[key] for seed, one in each.items() if key in one} for name, each in rows.items()}
    everyone = [row for each in having.values() for row in each.values()]
    baselines = dict.fromkeys(name for row in everyone for name in row["baselines"])
    return {
        **dict(zip(KEYS, key, strict=True)),
        "n": max(row["n"] for row in everyone),
        "variants": {
            name: spread([row["model"]["value"] for row in each.values()]) | paired(having.get(PLAIN, {}), each)
            for name, each in having.items()
            if each
        },
        "baselines": {
            name: spread([row["baselines"][name]["value"] for row in everyone if name in row["baselines"]])
            for name in baselines
        },
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": statistics.mean(values), "min": min(values), "max": max(values), "values": list(values)}


def paired(plain: Mapping[int, Row], others: Mapping[int, Row]) -> dict[str, Any]:
    """Return by how much a variant is above the plain one, for each seed that both have."""
    if plain is others:
        return {}
    both = sorted(plain.keys() & others.keys())
    return {"above_plain": [others[seed]["model"]["value"] - plain[seed]["model"]["value"] for seed in both]}


def corpus_facts(finished: Runs) -> dict[str, Any]:
    """Return on what was trained and measured, from the first manifest."""
    metrics = read_manifest(next(out for outs in finished.values() for out in outs)).metrics
    names = ("train_chromosomes", "valid_chromosomes", "test_chromosomes", "valid_cell_types", "test_cell_types")
    return {name: metrics[name] for name in names}


def markdown(rows: Sequence[Row], variants: Sequence[str]) -> str:
    """Return one table for each part and task, a column for each metric."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["regions"], row["cell_types"], row["task"]), []).append(row)
    parts = [LEGEND]
    for (regions, cell_types, task), found in groups.items():
        parts.append(f"\n## {task}: {regions} chromosomes, {cell_types} cell types\n\n")
        parts += table_of(found, variants)
    return "".join(parts)


LEGEND = f"""# Ablation

Mean over seeds (lowest..highest). ↑ and ↓: above or below "{PLAIN}" with every seed, three or more of them. Baselines
are in italics.
"""
LEAST_SEEDS = 3


def table_of(rows: Sequence[Row], variants: Iterable[str]) -> list[str]:
    lines = ["", *(f"{row['metric']} (n = {row['n']:,})" for row in rows)], ["---"] * (len(rows) + 1)
    body = [
        [name, *(cell(row["variants"].get(name)) for row in rows)]
        for name in variants
        if any(name in row["variants"] for row in rows)
    ]
    baselines = dict.fromkeys(name for row in rows for name in row["baselines"])
    body += [[f"*{name}*", *(cell(row["baselines"].get(name)) for row in rows)] for name in baselines]
    return [f"| {' | '.join(cells)} |\n" for cells in (*lines, *body)]


def cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    mean, low, high = (f"{found[name]:.3f}" for name in ("mean", "min", "max"))
    spread = "" if low == high else f" ({low}..{high})"
    return f"{mean}{spread}{direction(found.get('above_plain', []))}"


def direction(above: Sequence[float]) -> str:
    if len(above) < LEAST_SEEDS:
        return ""
    return " ↑" if min(above) > 0 else " ↓" if max(above) < 0 else ""


if __name__ == "__main__":
    main()
