"""Disease risk from rare variants, on simulated cohorts whose causes are known.

    python benchmarks/risk.py --out risk --plan quick
    python benchmarks/risk.py --out risk --plan bar
    python benchmarks/risk.py --out risk-encoders --plan large --encoders

One genome is simulated, one corpus prepared from its peaks, and one predictor fine-tuned on the accessibility of its
regions in the cell type that the disease acts in; it never sees a variant, and is the network without its encoders
and motif trees, or, with `--encoders`, a whole network after two passes. Then cohorts are drawn on this genome, with
effects that converge on regions or are scattered, and with shuffled status; `genebert risk` is run on each, in a
process of its own, whose time and memory are measured. What is done is not done again. All goes to risk.json in the
output folder: the predictor against the true changes of variants, and per cohort the measures of all methods, their
differences, how many of the first ten regions are causal, and whether p values of regions without effect are uniform.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from common import command, commit, machine
from numpy.typing import NDArray
from scipy import stats

from genebert.corpus.build import prepare
from genebert.corpus.store import Corpus
from genebert.finetune import finetune
from genebert.metrics import auroc, bootstrap
from genebert.pretrain import pretrain
from genebert.schema import SPLITS
from genebert.settings import FinetuneSettings, PrepareSettings, PretrainSettings, SimulateSettings, VariantsSettings
from genebert.simulate import simulate
from genebert.stage import read_manifest
from genebert.variants.run import variants

WORLD: dict[str, Any] = {"genome_mb": 8, "regions": 8000, "genes": 400}
PER_REGION = 20
COVARIATES = ("sex", "age", "ancestry1", "ancestry2")
FIRST = 10
"""Of so many regions, the first ones, it is counted how many are causal."""


@dataclass(frozen=True)
class Cohort:
    """What a cohort is like, beside its seed."""

    effects: str = "converge"
    individuals: int = 1000
    regions: int = 200
    heritability: float = 0.5
    shuffled: bool = False
    siblings: int = 0
    structure: float = 0.0
    seed: int = 1

    @property
    def name(self) -> str:
        """Name of its folder."""
        words = ["null" if self.shuffled else self.effects, f"{self.individuals}x{self.regions}", self.heritability]
        if self.siblings:
            words.append(f"siblings-{self.siblings}")
        if self.structure:
            words.append(f"structure-{self.structure}")
        return "-".join(map(str, [*words, f"seed-{self.seed}"]))

    def settings(self, out: Path) -> SimulateSettings:
        """Return how it is simulated."""
        return SimulateSettings(
            **WORLD,
            out=out,
            architecture="rare",
            effects=self.effects,
            individuals=self.individuals,
            cohort_regions=self.regions,
            variants=PER_REGION * self.regions,
            heritability=self.heritability,
            shuffled=self.shuffled,
            siblings=self.siblings,
            structure=self.structure,
            cohort_seed=self.seed,
        )


def small(*seeds: int) -> Iterator[Cohort]:
    """Yield cohorts of 1,000 individuals with 200 regions, in which chance matters most."""
    for seed in seeds:
        yield Cohort(seed=seed)
        yield Cohort(effects="scatter", seed=seed)
        yield Cohort(shuffled=True, seed=seed)


def medium(heritability: float) -> Iterator[Cohort]:
    """Yield cohorts of 2,000 individuals with 1,000 regions."""
    for effects in ("converge", "scatter"):
        yield Cohort(effects=effects, individuals=2000, regions=1000, heritability=heritability)


PLANS = {
    "quick": list(small(1)),
    "bar": [
        *small(1),
        Cohort(individuals=10_000, effects="scatter"),
        Cohort(individuals=10_000, heritability=0.1),
        *medium(0.5),
        Cohort(individuals=2000, regions=1000, shuffled=True),
        *medium(0.3),
        *small(2, 3),
        Cohort(individuals=2000, regions=1000, siblings=400, structure=0.3),
        *medium(0.1),
        Cohort(individuals=10_000, regions=5000, heritability=0.3),
        Cohort(individuals=10_000, regions=5000, heritability=0.3, effects="scatter"),
    ],
    "large": [Cohort(individuals=2000, regions=2000)],
}
"""What tells most comes first."""


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder for data, models and results")
@click.option("--plan", type=click.Choice(list(PLANS)), default="quick", help="which cohorts")
@click.option("--encoders", is_flag=True, help="predict with the encoders too")
def main(out: Path, plan: str, encoders: bool) -> None:
    """Measure risk on all cohorts of a plan."""
    predictor, facts = make_predictor(out, encoders)
    rows: list[dict[str, Any]] = []
    for cohort in PLANS[plan]:
        folder = simulate(cohort.settings(out / "cohorts" / cohort.name))
        if not rows:
            facts["effects"] = effects_agree(predictor, folder, out / "variants")
        rows.append(asdict(cohort) | measured(predictor, folder, out))
        found = {"machine": machine(), "command": command(), "commit": commit(), "predictor": facts, "cohorts": rows}
        (out / "risk.json").write_text(json.dumps(found, indent=2) + "\n")
        print(cohort.name, *(f"{name} {value['value']:.3f}" for name, value in rows[-1]["AUROC"].items()), sep=", ")
    print(out / "risk.json")


def make_predictor(out: Path, encoders: bool) -> tuple[Path, dict[str, Any]]:
    """Return a predictor of accessibility in the disease's cell type, and how well it tells accessible regions."""
    world = simulate(SimulateSettings(**WORLD, out=out / "world", variants=400, individuals=20))
    corpus = prepare(
        PrepareSettings(
            out=out / "corpus",
            genome=world / "genome.fa",
            peaks=[world / "peaks"],
            motifs=str(world / "motifs.meme"),
            blacklist=world / "blacklist.bed",
            region_width=256,
            valid_chromosomes=["chr6"],
            test_chromosomes=["chr7", "chr8"],
        )
    )
    cell_type = read_manifest(world).metrics["disease_cell_type"]
    opened = Corpus.open(corpus)
    accessible = np.zeros(len(opened.regions), dtype=bool)
    accessible[opened.accessible(opened.cell_types.index(cell_type))] = True
    predictor, auroc = predictor_of(opened, world / "genome.fa", accessible, out, encoders)
    return predictor, {"cell_type": cell_type, "AUROC": auroc}


def predictor_of(
    corpus: Corpus, genome: Path, accessible: NDArray[np.bool_], out: Path, encoders: bool = False
) -> tuple[Path, dict[str, float]]:
    """Fine-tune a predictor of which regions are accessible, and return it with its AUROC on held-out chromosomes.

    Args:
        corpus: whose regions.
        genome: FASTA.
        accessible: shape (regions,).
        out: the folder in which its own comes to lie.
        encoders: whether it reads the encoders; else it is the rest of the network, averaged with motif trees.
    """
    settings = PretrainSettings(out=out / "pretrained", corpus=corpus.folder, preset="tiny", epochs=0.3, device="cpu")
    table = corpus.regions[["chrom", "start", "end", "split"]].assign(label=accessible.astype(int))
    table[table["split"].isin(SPLITS)].to_csv(out / "labels.tsv", sep="\t", index=False)
    predictor = finetune(
        FinetuneSettings(
            out=out / "predictor",
            labels=out / "labels.tsv",
            model=pretrain(settings),
            genome=genome,
            encoders=encoders,
            scratch=False,
            baselines=[],
            ensemble=[] if encoders else ["motif-trees"],
            epochs=2 if encoders else 30,
            patience=5,
            device="cpu",
        )
    )
    results = [row for row in read_manifest(predictor).metrics["results"] if row["metric"] == "AUROC"]
    return predictor, estimate(results[0])


def effects_agree(predictor: Path, folder: Path, out: Path) -> dict[str, Any]:
    """Return the correlation of predicted with true changes of log-odds, of the variants of a cohort."""
    scored = variants(
        VariantsSettings(
            out=out,
            vcf=folder / "cohort.vcf.gz",
            model=predictor,
            genome=folder / "genome.fa",
            mutagenesis=0,
            device="cpu",
        )
    )
    predicted = pd.read_csv(scored / "variants.tsv", sep="\t")[["id", "difference"]]
    table = pd.read_csv(folder / "truth/variants.tsv", sep="\t").merge(predicted, on="id")
    true = table[f"delta_{read_manifest(folder).metrics['disease_cell_type']}"]
    parts = {"all": np.full(len(table), True), "in motifs": table.in_motif.to_numpy() == 1}
    found = {}
    for name, rows in parts.items():
        correlation = bootstrap(pearson, table.difference[rows].to_numpy(), true[rows].to_numpy())
        found[name] = estimate(correlation.to_json()) | {"n": int(rows.sum())}
    return found


def pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def measured(predictor: Path, folder: Path, out: Path) -> dict[str, Any]:
    """Run `genebert risk` on a cohort, and return what it finds and what of that is true."""
    found = out / "risk" / folder.name
    regions = regions_of(folder, Corpus.open(out / "corpus"))
    cost = run_risk(
        found,
        vcf=folder / "cohort.vcf.gz",
        phenotypes=folder / "phenotypes.tsv",
        phenotype="disease",
        covariates=",".join(COVARIATES),
        family="family",
        model=predictor,
        genome=folder / "genome.fa",
        regions=regions,
    )
    return {
        "regions_of_corpus": sum(1 for _ in regions.open()),
        "variants": read_manifest(found).metrics["variants"],
        **accuracy_of(found),
        "AUROC_of_truth": truth_auroc(folder),
        **causal_regions(folder, pd.read_csv(found / "regions.tsv", sep="\t", na_values=".")),
        **cost,
    }


def run_risk(out: Path, **settings: str | Path) -> dict[str, Any]:
    """Run the stage as a user does, in a process of its own, and return its seconds and its peak memory.

    They are kept in a file beside the folder, for when the stage has been run before.
    """
    cost = out.parent / f"{out.name}.cost.json"
    if not cost.exists():
        out.parent.mkdir(exist_ok=True)
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        line = [sys.executable, "-m", "genebert.cli", "risk", f"--out={out}", "--device=cpu", *options]
        began = time.monotonic()
        process = subprocess.Popen(line)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise click.ClickException(f"it failed: {' '.join(line)}")
        seconds = {"seconds": time.monotonic() - began, "cpu_seconds": usage.ru_utime + usage.ru_stime}
        rounded = {name: round(value, 1) for name, value in seconds.items()}
        cost.write_text(json.dumps(rounded | {"peak_GB": round(usage.ru_maxrss * 1024 / 1e9, 2)}))
    return dict(json.loads(cost.read_text()))


def accuracy_of(found: Path) -> dict[str, Any]:
    """Return the AUROC of all methods, and how much those of GeneBERT are above the polygenic score."""
    metrics, differences = (pd.read_csv(found / f"{name}.tsv", sep="\t") for name in ("metrics", "comparisons"))
    pair = differences[(differences.measure == "AUROC") & (differences.against == "polygenic score")]
    return {
        "AUROC": {row.method: interval(row.value, row) for row in records(metrics[metrics.measure == "AUROC"])},
        "above_polygenic_score": {row.method: interval(row.difference, row) for row in records(pair)},
    }


def regions_of(folder: Path, corpus: Corpus) -> Path:
    """Write the regions of the corpus that overlap elements of the cohort, by whose name they go."""
    elements = pd.read_csv(folder / "truth/regions.tsv", sep="\t")
    pairs = corpus.regions[["chrom", "start", "end"]].merge(elements, on="chrom", suffixes=("", "_core"))
    pairs["shared"] = np.minimum(pairs.end, pairs.end_core) - np.maximum(pairs.start, pairs.start_core)
    best = pairs[pairs.shared > 0].sort_values("shared").drop_duplicates("element", keep="last")
    path = folder.parent / f"{folder.name}.bed"
    best = best.sort_values(["chrom", "start"])[["chrom", "start", "end", "element"]]
    best.to_csv(path, sep="\t", index=False, header=False)
    return path


def causal_regions(folder: Path, ranked: pd.DataFrame) -> dict[str, Any]:
    """Return how many of the first regions are causal, and whether p is uniform where there is no cause."""
    truth = pd.read_csv(folder / "truth/regions.tsv", sep="\t").set_index("element")
    null = read_manifest(folder).settings["shuffled"]
    causal = truth.causal[ranked.region].to_numpy() * (not null)
    p = ranked.p[(causal == 0) & ranked.p.notna()].to_numpy()
    found = {"p_without_effect": {"n": len(p), "below_0.05": float((p < 0.05).mean()), "KS_p": float(uniform(p))}}
    if null:
        return found
    orders = {"by p": np.arange(len(ranked)), "by weight": np.argsort(-ranked.weight.abs().to_numpy(), kind="stable")}
    precision = {name: float(causal[order[:FIRST]].mean()) for name, order in orders.items()}
    significant = ranked.q.to_numpy() <= 0.1
    return found | {
        f"precision_at_{FIRST}": precision | {"chance": float(causal.mean())},
        "at_FDR_10%": {"found": int(significant.sum()), "causal": int(causal[significant].sum())},
    }


def uniform(p: NDArray[np.float64]) -> float:
    """Return the p value of a Kolmogorov-Smirnov test that p are uniform between 0 and 1."""
    return float(stats.kstest(p, "uniform").pvalue)


def truth_auroc(folder: Path) -> float:
    """Return the AUROC of what individuals inherited: with covariates apart, no score of variants can be better."""
    people = pd.read_csv(folder / "phenotypes.tsv", sep="\t")
    genetic = pd.read_csv(folder / "truth/individuals.tsv", sep="\t").genetic
    return round(auroc(people.disease.to_numpy(), genetic.to_numpy()), 4)


def interval(value: float, row: Any) -> dict[str, float]:
    return {"value": round(value, 4), "low": round(row.low, 4), "high": round(row.high, 4)}


def estimate(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: round(row[name], 4) for name in ("value", "low", "high")}


def records(table: pd.DataFrame) -> Iterator[Any]:
    yield from table.itertuples()


if __name__ == "__main__":
    main()
