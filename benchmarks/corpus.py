"""Preparation at scale: a simulated atlas, real peaks, random reads. Prints JSON.

    python benchmarks/corpus.py scale --out atlas --sizes 0.01,0.1,1
    python benchmarks/corpus.py consensus --peaks folder
    python benchmarks/corpus.py read --corpus atlas/1/corpus

`scale` simulates an atlas of 1.05 million regions, 54 cell types, 1,000 motifs and 17 million examples on a genome of
3.1 Gb (or a fraction of regions and genome), as files, and runs `genebert prepare` on them. It needs 12 GB of disk.
`consensus` puts the peaks of a folder of BED files through the consensus, beside bioframe and pyranges alone.
`read` reads examples at random: sequence and region matrix (R = 32), in batches, on one thread.
"""

import json
import re
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import torch
from numpy.typing import NDArray

from genebert.corpus.consensus import best_windows
from genebert.corpus.store import Corpus
from genebert.inputs.motifs import read_motifs
from genebert.region_matrix import neighbourhood
from genebert.schema import Motif

GENOME = 3_100_000_000
REGIONS = 1_050_000
CELL_TYPES = 54
MOTIFS = 1_000
EXAMPLES = 17_000_000
CHROMOSOMES = 24
WIDTH = 512
JITTER = 100
"""Summits of one element lie so many bp around its centre at most, so that elements never overlap each other."""
COLUMNS = 32
MB = 1 << 20


@dataclass(frozen=True)
class Atlas:
    """A simulated atlas as files.

    Attributes:
        folder: where they lie.
        size: fraction of the regions and of the genome.
        seed: of everything.
    """

    folder: Path
    size: float
    seed: int = 0

    @property
    def chromosomes(self) -> dict[str, int]:
        """Names and lengths, falling like those of the human genome."""
        share = np.linspace(1.6, 0.4, CHROMOSOMES) / CHROMOSOMES
        return {f"chr{i + 1}": int(GENOME * self.size * part) for i, part in enumerate(share)}

    def simulate(self) -> None:
        """Write genome.fa, peaks/*.narrowPeak and motifs.meme."""
        draft = self.folder.with_name(f"{self.folder.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "peaks").mkdir(parents=True)
        write_genome(draft / "genome.fa", self.chromosomes, np.random.default_rng([self.seed, 0]))
        write_motifs(draft / "motifs.meme", read_motifs("jaspar:vertebrates")[:MOTIFS])
        write_atlas(draft / "peaks", self.chromosomes, int(REGIONS * self.size), np.random.default_rng([self.seed, 1]))
        draft.rename(self.folder)


def write_genome(path: Path, chromosomes: dict[str, int], rng: np.random.Generator, line: int = 100) -> None:
    """Write random bases, 40 % of them G or C, in lines of equal length."""
    letters = np.frombuffer(b"AAACCGGTTT", dtype=np.uint8)
    with path.open("wb") as handle:
        for name, length in chromosomes.items():
            handle.write(f">{name}\n".encode())
            for start in range(0, length, 64 * MB // line * line):
                codes = rng.integers(0, len(letters), min(64 * MB // line * line, length - start), dtype=np.uint8)
                whole = len(codes) // line * line
                rows = letters[codes[:whole]].reshape(-1, line)
                handle.write(np.column_stack([rows, np.full(len(rows), 10, dtype=np.uint8)]).tobytes())
                if whole < len(codes):
                    handle.write(letters[codes[whole:]].tobytes() + b"\n")


def write_motifs(path: Path, motifs: list[Motif]) -> None:
    """Write MEME's minimal format."""
    parts = ["MEME version 4\n\nALPHABET= ACGT\n"]
    for motif in motifs:
        rows = "\n".join(" ".join(f"{value:.6f}" for value in row) for row in motif.probabilities)
        parts.append(
            f"\nMOTIF {motif.id} {motif.name}\nletter-probability matrix: alength= 4 w= {motif.width}\n{rows}\n"
        )
    path.write_text("".join(parts))


def write_atlas(folder: Path, chromosomes: dict[str, int], regions: int, rng: np.random.Generator) -> None:
    """Write a narrowPeak per cell type; each element is active in one cell type at least, and in 16 on average."""
    lengths = np.array(list(chromosomes.values()))
    per_chromosome = np.floor(regions * lengths / lengths.sum()).astype(int)
    per_chromosome[0] += regions - per_chromosome.sum()
    chrom = np.repeat(np.arange(len(lengths)), per_chromosome)
    step = (lengths // per_chromosome)[chrom]
    place = np.arange(regions) - np.repeat(np.cumsum(per_chromosome) - per_chromosome, per_chromosome)
    margin = WIDTH // 2 + JITTER
    centre = place * step + rng.integers(margin, step - margin)
    names = pa.array(list(chromosomes))
    owner = rng.integers(0, CELL_TYPES, regions)
    mean = (EXAMPLES / REGIONS - 1) / (CELL_TYPES - 1)
    openness = rng.beta(0.6, 0.6 * (1 - mean) / mean, regions)
    for c in range(CELL_TYPES):
        active = np.flatnonzero((rng.random(regions) < openness) | (owner == c))
        write_peaks(folder / f"cell_type_{c:02d}.narrowPeak", names, chrom[active], centre[active], rng)


def write_peaks(
    path: Path, names: pa.Array, chrom: NDArray[np.int64], centre: NDArray[np.int64], rng: np.random.Generator
) -> None:
    """Write peaks of random widths around jittered summits."""
    n = len(chrom)
    summit = centre + np.clip(rng.normal(0, JITTER / 3, n), -JITTER, JITTER).astype(np.int64)
    start = summit - rng.integers(50, 150, n)
    signal = rng.gamma(2.0, 3.0, n).round(4)
    columns: dict[str, Any] = {
        "chrom": names.take(pa.array(chrom)),
        "start": start,
        "end": summit + rng.integers(50, 150, n),
        "name": pa.array(["peak"]).take(pa.array(np.zeros(n, dtype=np.int64))),
        "score": np.minimum(signal * 50, 1000).astype(np.int64),
        "strand": pa.array(["."]).take(pa.array(np.zeros(n, dtype=np.int64))),
        "signal": signal,
        "p": (signal * rng.uniform(0.8, 1.2, n)).round(4),
        "q": np.full(n, -1),
        "summit": summit - start,
    }
    options = pa.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    pa.csv.write_csv(pa.table(columns), str(path), options)


@contextmanager
def peak_memory(pid: int, found: dict[str, float]) -> Iterator[None]:
    """Follow the memory of a process and its children: `rss_gb` counts shared pages in each, `pss_gb` once."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            for name, value in memory_of_tree(pid).items():
                found[name] = max(found.get(name, 0.0), value)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def memory_of_tree(pid: int) -> dict[str, float]:
    """Return the memory of a process and its descendants in GB, from /proc."""
    total = {"rss_gb": 0.0, "pss_gb": 0.0, "anonymous_gb": 0.0}
    fields = {"Rss": "rss_gb", "Pss": "pss_gb", "Anonymous": "anonymous_gb"}
    for process in descendants(pid):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE):
            if name in fields:
                total[fields[name]] += int(kilobytes) * 1024 / 1e9
    return total


def descendants(pid: int) -> list[int]:
    """Return a process and all that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(further for child in children for further in descendants(int(child)))]


def run_prepare(atlas: Atlas, out: Path, workers: int) -> dict[str, Any]:
    """Run `genebert prepare` as a user would, and say what it took."""
    shutil.rmtree(out, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "genebert.cli", "prepare", "--genome", str(atlas.folder / "genome.fa")),
        *("--peaks", str(atlas.folder / "peaks"), "--motifs", str(atlas.folder / "motifs.meme")),
        *("--valid-chromosomes", "chr9", "--test-chromosomes", "chr20,chr22", "--workers", str(workers)),
        *("--out", str(out)),
    ]
    began = time.perf_counter()
    memory: dict[str, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        with peak_memory(process.pid, memory):
            _, progress = process.communicate()
        if process.returncode:
            raise SystemExit(progress)
    seconds = time.perf_counter() - began
    metrics = json.loads((out / "manifest.json").read_text())["metrics"]
    size = sum(path.stat().st_size for path in out.iterdir())
    return {
        "size": atlas.size,
        "regions": metrics["regions"],
        "cell_types": metrics["cell_types"],
        "motifs": metrics["motifs"],
        "examples": metrics["examples"],
        "workers": workers,
        "seconds": round(seconds, 1),
        "phases": phases(progress),
        "peak_memory": {name: round(value, 2) for name, value in memory.items()},
        "disk_gb": round(size / 1e9, 3),
        "estimate": next(line for line in progress.splitlines() if line.startswith("regions, examples")),
    }


def phases(progress: str) -> dict[str, str]:
    """Return how long each progress bar took, as it says itself."""
    found = re.findall(r"^([a-z][a-z ]+?)\s+━+\s+(\d+)/\2\s+(\d+:\d\d:\d\d)", progress, re.MULTILINE)
    return {name: elapsed for name, _, elapsed in found}


@click.group()
def main() -> None:
    """Measure the preparation of a corpus."""


@main.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder for the atlas and the corpora")
@click.option("--sizes", default="0.01,0.1,1", help="fractions of the full size")
@click.option("--workers", default=2)
def scale(out: Path, sizes: str, workers: int) -> None:
    """Prepare simulated atlases of growing size."""
    results = []
    for size in map(float, sizes.split(",")):
        atlas = Atlas(out / f"{size:g}" / "inputs", size)
        if not atlas.folder.exists():
            atlas.simulate()
        results.append(run_prepare(atlas, out / f"{size:g}" / "corpus", workers))
        print(json.dumps(results[-1]), file=sys.stderr)
    print(json.dumps(results, indent=2))


@main.command()
@click.option("--peaks", type=click.Path(path_type=Path, exists=True), required=True, help="folder of BED files")
@click.option("--runs", default=3)
def consensus(peaks: Path, runs: int) -> None:
    """Put real peaks through the consensus, beside bioframe and pyranges alone.

    The files have columns chrom, start, end, signal, summit (an offset from start). All ways take the windows in
    memory, ranked by quantile within cell type and chromosome, and must keep the same ones.
    """
    began = time.perf_counter()
    windows = read_windows(peaks)
    facts = {"windows": len(windows), "cell_types": windows["cell_type"].nunique()}
    facts["read_seconds"] = round(time.perf_counter() - began, 1)
    ways = {"genebert": with_genebert, "bioframe": with_bioframe, "pyranges": with_pyranges}
    seconds: dict[str, list[float]] = {}
    kept: dict[str, pd.DataFrame] = {}
    for _ in range(runs):
        for name, way in ways.items():
            began = time.perf_counter()
            try:
                kept[name] = way(windows)
            except ImportError:
                print(f"{name} is skipped: pip install {name}", file=sys.stderr)
                continue
            seconds.setdefault(name, []).append(time.perf_counter() - began)
    for name, found in kept.items():
        assert found.equals(kept["genebert"]), f"{name} keeps other windows"
    own = seconds["genebert"]
    print(
        json.dumps(
            {
                **facts,
                "regions": len(kept["genebert"]),
                "seconds": {name: round(statistics.median(times), 2) for name, times in seconds.items()},
                "over_genebert": {
                    name: round(statistics.median(b / a for a, b in zip(own, times, strict=True)), 1)
                    for name, times in seconds.items()
                },
            },
            indent=2,
        )
    )


def read_windows(folder: Path) -> pd.DataFrame:
    """Return windows around the summits of all peaks, with their score and cell type."""
    tables = []
    for index, path in enumerate(sorted(folder.glob("*.bed.gz"))):
        table = pd.read_csv(path, sep="\t", names=["chrom", "start", "end", "score", "summit"])
        tables.append(table.assign(start=table["start"] + table["summit"] - WIDTH // 2, cell_type=index))
    found = pd.concat(tables, ignore_index=True)
    found = found[found["start"] >= 0].reset_index(drop=True)
    return found[["chrom", "start", "score", "cell_type"]].assign(end=found["start"] + WIDTH)


def with_genebert(windows: pd.DataFrame) -> pd.DataFrame:
    """Keep the best windows as `prepare` does."""
    parts = []
    for chrom, rows in windows.groupby("chrom", sort=True):
        columns = (rows[name].to_numpy() for name in ("start", "score", "cell_type"))
        start = best_windows(*columns, np.zeros(len(rows), dtype=bool), np.ones(len(rows), dtype=bool), WIDTH)
        parts.append(pd.DataFrame({"chrom": chrom, "start": start}))
    return pd.concat(parts, ignore_index=True)


def ranked(windows: pd.DataFrame) -> pd.DataFrame:
    """Return the windows with their place in the order of preference, best first."""
    quantile = windows.groupby(["cell_type", "chrom"])["score"].rank(method="max", pct=True)
    order = windows.assign(worse=-quantile).sort_values(["worse", "cell_type", "chrom", "start"], kind="stable").index
    return windows.assign(place=pd.Series(np.arange(len(windows)), index=order))


def with_bioframe(windows: pd.DataFrame) -> pd.DataFrame:
    """Keep the best window of each cluster, drop what overlaps it, and repeat."""
    import bioframe

    def cluster(table: pd.DataFrame) -> pd.Series:
        return bioframe.cluster(table, min_dist=None, return_cluster_intervals=False)["cluster"]

    def overlapping(table: pd.DataFrame, best: pd.DataFrame) -> NDArray[np.bool_]:
        return bioframe.count_overlaps(table, best)["count"].to_numpy() > 0

    return best_of_clusters(ranked(windows), cluster, overlapping)


def with_pyranges(windows: pd.DataFrame) -> pd.DataFrame:
    """Do the same with pyranges."""
    import pyranges

    names = {"chrom": "Chromosome", "start": "Start", "end": "End"}

    def ranges(table: pd.DataFrame) -> "pyranges.PyRanges":
        return pyranges.PyRanges(table.rename(columns=names).assign(row=np.arange(len(table))))

    def cluster(table: pd.DataFrame) -> pd.Series:
        found = ranges(table).cluster(slack=-1).df
        return pd.Series(found["Cluster"].to_numpy(), index=table.index[found["row"]]).loc[table.index]

    def overlapping(table: pd.DataFrame, best: pd.DataFrame) -> NDArray[np.bool_]:
        found = np.zeros(len(table), dtype=bool)
        found[ranges(table).overlap(ranges(best)).df["row"]] = True
        return found

    return best_of_clusters(ranked(windows), cluster, overlapping)


def best_of_clusters(
    waiting: pd.DataFrame,
    cluster: Callable[[pd.DataFrame], pd.Series],
    overlapping: Callable[[pd.DataFrame, pd.DataFrame], NDArray[np.bool_]],
) -> pd.DataFrame:
    """Remove overlaps by rounds of whole-table operations; the same windows are kept as one by one."""
    kept = []
    while len(waiting):
        best = waiting.loc[waiting.groupby(cluster(waiting).to_numpy())["place"].idxmin()].reset_index(drop=True)
        kept.append(best)
        waiting = waiting[~overlapping(waiting, best)].reset_index(drop=True)
    return pd.concat(kept).sort_values(["chrom", "start"])[["chrom", "start"]].reset_index(drop=True)


@main.command()
@click.option("--corpus", "folder", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--batch", default=256)
@click.option("--seconds", default=10.0)
def read(folder: Path, batch: int, seconds: float) -> None:
    """Read random examples on one thread: their sequence, and the region matrices that belong to them."""
    torch.set_num_threads(1)
    corpus = Corpus.open(folder)
    rng = np.random.default_rng(0)
    count, spent = 0, 0.0
    while spent < seconds:
        examples = rng.integers(0, len(corpus.accessible_regions), batch)
        began = time.perf_counter()
        region = corpus.accessible_regions[examples].astype(np.int64)
        corpus.sequence[region]
        places, own = corpus.region_positions[region], corpus.evidence[region]
        neighbourhood(corpus, corpus.cell_types_of(examples), places, own, COLUMNS, corpus.width)
        spent += time.perf_counter() - began
        count += batch
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB
    facts = {"regions": len(corpus.regions), "motifs": len(corpus.motifs), "columns": COLUMNS, "batch": batch}
    print(json.dumps({**facts, "examples_per_second": round(count / spent), "peak_rss_gb": round(peak, 2)}, indent=2))


if __name__ == "__main__":
    main()
