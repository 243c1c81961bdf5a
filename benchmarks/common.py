"""What benchmarks share: a corpus, turns, TF usage, and how results are printed."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers

from genebert.corpus.build import prepare
from genebert.corpus.store import Corpus
from genebert.corpus.usage import PARTS
from genebert.settings import PrepareSettings, SimulateSettings
from genebert.simulate import simulate

SIMULATED = SimulateSettings(out=Path(), genome_mb=4, regions=3000, genes=100, variants=50, individuals=20)
Taker = Callable[[], float]
"""Measures something, and returns the seconds it took, or whatever else is measured."""


@contextmanager
def corpus_or_simulated(
    given: Path | None, simulated: Mapping[str, Any] = MappingProxyType({}), **prepared: Any
) -> Iterator[Path]:
    """Yield a corpus, simulated in a temporary folder if none is given.

    Args:
        given: folder made by prepare.
        simulated, prepared: what to change in the settings of either stage.
    """
    if given is not None:
        yield given
        return
    with TemporaryDirectory(prefix="genebert-benchmark-") as name:
        inputs = simulate(SIMULATED.model_copy(update={"out": Path(name) / "inputs", **simulated}))
        yield prepare(
            PrepareSettings(
                out=Path(name) / "corpus",
                genome=inputs / "genome.fa",
                peaks=[inputs / "peaks"],
                valid_chromosomes=["chr6"],
                test_chromosomes=["chr7", "chr8"],
                **prepared,
            )
        )


def by_turns(runs: int, takers: Mapping[str, Taker]) -> dict[str, list[float]]:
    """Let each measure itself, all in turn, several times; return what each found in each turn."""
    found: dict[str, list[float]] = {name: [] for name in takers}
    for run in range(runs):
        for name, taker in takers.items():
            found[name].append(taker())
            print(f"turn {run + 1}: {name}: {found[name][-1]:.4g}", file=sys.stderr)
    return found


def faster(than: Sequence[float], ours: Sequence[float]) -> float:
    """Return how many times as fast as others something is, given the seconds of each turn: the median over turns."""
    return round(statistics.median(a / b for a, b in zip(than, ours, strict=True)), 3)


def finish(facts: Mapping[str, Any]) -> None:
    """Print facts, after the machine and the command."""
    print(json.dumps({"machine": machine(), "command": command(), **facts}, indent=2))


def command() -> str:
    """Return what the user typed."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def commit() -> str | None:
    """Return which commit of the code is measured, short, or None if it is no checkout."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(asked, capture_output=True, text=True)
    return found.stdout.strip() or None


def machine() -> str:
    """Return what it is, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0))
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{cores} cores of {processor}, {gpu}, {memory:.0f} GB; {versions}"


def usage_table(corpus: Corpus) -> pd.DataFrame:
    """Return as a further measure what needs no predictor: the enrichment of motifs in a cell type's regions."""
    usage, evidence = corpus.usage, np.asarray(corpus.evidence[corpus.split == 0], dtype=np.float64)
    effect = (usage.mean[PARTS] - usage.everywhere[PARTS]) / np.maximum(evidence.std(axis=0), 1)
    names = [motif.name for motif in corpus.motifs]
    rows = {
        "cell_type": np.repeat(corpus.cell_types, len(names)),
        "name": names * len(corpus.cell_types),
        "measure": "TF usage",
        "effect": effect.ravel(),
        "specific": (effect - effect.mean(axis=0)).ravel(),
    }
    return pd.DataFrame(rows)
