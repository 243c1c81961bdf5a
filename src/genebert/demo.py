"""`genebert demo`: the whole pipeline in one readable script, on simulated data or on a folder of real data."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genebert.benchmark.entries import read_yaml
from genebert.console import say, table
from genebert.corpus.build import prepare
from genebert.errors import UserError, problem
from genebert.finetune import finetune
from genebert.metrics import Estimate
from genebert.pretrain import pretrain
from genebert.report.build import report
from genebert.resampling import estimate, region_weights, spearman
from genebert.risk.phenotypes import Columns, read_phenotypes
from genebert.risk.stage import risk
from genebert.settings import (
    CONFIGS,
    JASPAR,
    DemoSettings,
    FinetuneSettings,
    PrepareSettings,
    PretrainSettings,
    ReportSettings,
    RiskSettings,
    Settings,
    SimulateSettings,
    VariantsSettings,
)
from genebert.simulate import simulate
from genebert.stage import read_manifest
from genebert.tasks.accessibility import Accessibility
from genebert.tasks.base import Task
from genebert.tasks.labels import labels
from genebert.tasks.promoter import Promoter
from genebert.variants.run import variants

PRETRAINING_EPOCHS = 3
WINDOWS_PER_CELL_TYPE = 200
EPOCHS = 3
LEARNING_RATE = 1e-3
"""Training in the demo is short: the network is tiny, and so is the time."""


class Inputs(Settings):
    """The files of a data folder, relative to it, and how to hold chromosomes out."""

    genome: Path
    peaks: Path
    motifs: str
    tss: Path
    vcf: Path
    phenotypes: Path | None = None
    phenotype: str | None = None
    covariates: Sequence[str] = ()
    blacklist: Path | None = None
    truth: Path | None = None
    region_width: int = 512
    valid_chromosomes: list[str]
    test_chromosomes: list[str]
    title: str = "GeneBERT"


@dataclass(frozen=True)
class Data:
    """A data folder and its inputs."""

    folder: Path
    inputs: Inputs

    def __getitem__(self, name: str) -> Path:
        """Return the path of one input."""
        return self.files()[name]

    @property
    def motifs(self) -> str:
        """The path of the motifs, or a collection of JASPAR's."""
        given = self.inputs.motifs
        return given if given.startswith(JASPAR) else str(self.folder / given)

    def files(self) -> dict[str, Path]:
        """Return the path of each input that is given, and is a file or a folder."""
        given = self.inputs.model_dump(exclude_none=True)
        paths = {name: self.folder / value for name, value in given.items() if isinstance(value, Path)}
        return paths if self.inputs.motifs.startswith(JASPAR) else {**paths, "motifs": Path(self.motifs)}


def demo(settings: DemoSettings) -> Path:
    """Run every stage, from files to report; stages that are already done are not repeated.

    Returns:
        the report's HTML file.

    Raises:
        UserError: the data folder lacks a file.
    """
    began = time.monotonic()
    out, seed, device = settings.out, settings.seed, settings.device
    data = read_data(settings.data, settings.inputs) if settings.data else None
    if data is None:
        _announce(1, "simulate a genome, ATAC-seq peaks of six cell types, and a cohort")
        data = read_data(simulate(SimulateSettings(out=out / "data", seed=seed)), settings.inputs)
    inputs, genome = data.inputs, data["genome"]
    if inputs.phenotypes:
        read_phenotypes(data["phenotypes"], Columns(inputs.phenotype, inputs.covariates))  # not after all the rest
    _announce(2, "prepare the corpus: consensus regions, motif evidence, accessibility, splits")
    corpus = prepare(
        PrepareSettings(
            out=out / "corpus",
            genome=genome,
            peaks=[data["peaks"]],
            motifs=data.motifs,
            blacklist=data["blacklist"] if inputs.blacklist else None,
            region_width=inputs.region_width,
            valid_chromosomes=inputs.valid_chromosomes,
            test_chromosomes=inputs.test_chromosomes,
        )
    )
    made_from = {"corpus": corpus, "genome": genome, "seed": seed}
    tasks: list[Task] = [
        Promoter(out=out / "promoter-labels", tss=data["tss"], **made_from),
        Accessibility(out=out / "accessibility-labels", per_cell_type=WINDOWS_PER_CELL_TYPE, **made_from),
    ]
    for task in tasks:
        labels(task)  # what is wrong with them is known before pre-training
    _announce(3, "pre-train on both modalities with MGM, NGSP and SRM")
    model = pretrain(
        PretrainSettings(
            out=out / "pretrained",
            corpus=corpus,
            preset="tiny",
            epochs=PRETRAINING_EPOCHS,
            seed=seed,
            device=device,
        )
    )
    _announce(4, "fine-tune on promoters, and on accessibility per cell type, with baselines")
    predictors = [_finetune(task, settings, data, corpus, model) for task in tasks]
    _announce(5, "score variants per cell type with the accessibility predictor")
    scored = variants(
        VariantsSettings(
            out=out / "variants",
            vcf=data["vcf"],
            model=predictors[1],
            genome=genome,
            corpus=corpus,
            device=device,
        )
    )
    cohort = _risk(settings, data, corpus, predictors[1])
    _announce(7, "write the report")
    page = (
        report(
            ReportSettings(
                out=out / "report",
                corpus=corpus,
                pretrained=model,
                predictors=predictors,
                variants=scored,
                risk=cohort,
                title=inputs.title,
            )
        )
        / "report.html"
    )
    _summary(model, predictors)
    if inputs.truth:
        agreement, n = truth_agreement(scored / "variants.tsv", data["truth"] / "variants.tsv", inputs.test_chromosomes)
        say(f"Variants on held-out chromosomes, Spearman correlation with the true effect: {agreement} (n = {n:,})")
    say(f"Done in {time.monotonic() - began:.0f} s. Report: {page}")
    return page


def _finetune(task: Task, settings: DemoSettings, data: Data, corpus: Path, model: Path) -> Path:
    return finetune(
        FinetuneSettings(
            out=settings.out / task.name(),
            labels=task.out,
            model=model,
            genome=data["genome"],
            corpus=None if isinstance(task, Promoter) else corpus,
            epochs=EPOCHS,
            learning_rate=LEARNING_RATE,
            oriented=isinstance(task, Promoter),
            scratch=isinstance(task, Promoter),
            seed=settings.seed,
            device=settings.device,
        )
    )


def _risk(settings: DemoSettings, data: Data, corpus: Path, predictor: Path) -> Path | None:
    if data.inputs.phenotypes is None:
        _announce(6, "no disease risk: the data has no phenotypes")
        return None
    _announce(6, "estimate disease risk from what the haplotypes of the cohort's individuals change")
    return risk(
        RiskSettings(
            out=settings.out / "risk",
            vcf=data["vcf"],
            phenotypes=data["phenotypes"],
            phenotype=data.inputs.phenotype,
            covariates=data.inputs.covariates,
            model=predictor,
            genome=data["genome"],
            corpus=corpus,
            seed=settings.seed,
            device=settings.device,
        )
    )


def read_data(folder: Path, name: str) -> Data:
    """Read which files of a data folder are what.

    Args:
        folder: the data folder.
        name: of a YAML in it, or of one that ships with genebert (blood.yaml).

    Raises:
        UserError: the YAML is absent or wrong, or files that it names are absent.
    """
    path = folder / name
    if not path.is_file():
        path = CONFIGS / "data" / name
    if not path.is_file():
        shipped = ", ".join(sorted(p.name for p in (CONFIGS / "data").glob("*.yaml")))
        raise UserError(
            problem(
                folder / name,
                "there is no such file",
                f"Write it (see the README), or use --inputs with one of {shipped}.",
            )
        )
    data = Data(folder, read_yaml(path, Inputs, None, "description of a data folder", "See the README for its keys."))
    missing = [str(file) for file in data.files().values() if not file.exists()]
    if missing:
        raise UserError(
            problem(path, f"files that it names are absent: {', '.join(missing)}", "Correct --data or the YAML.")
        )
    return data


def truth_agreement(scored: Path, truth: Path, chromosomes: list[str]) -> tuple[Estimate, int]:
    """Compare predicted with true effects on accessibility of variants that have one.

    Args:
        scored: variants.tsv of `genebert variants`.
        truth: truth/variants.tsv of `genebert simulate`; delta_CELLTYPE is the true difference of log-odds.
        chromosomes: to which variants to confine the comparison.

    Returns:
        Spearman correlation over (variant, cell type) pairs, with its 95% interval over resampled variants; number of
        pairs.
    """
    predicted = pd.read_csv(scored, sep="\t", usecols=["id", "chrom", "cell_type", "difference"])
    true = (
        pd.read_csv(truth, sep="\t").filter(regex="^(id|delta_.*)$").melt("id", var_name="cell_type", value_name="true")
    )
    pairs = predicted.merge(true.assign(cell_type=true["cell_type"].str.removeprefix("delta_")), on=["id", "cell_type"])
    pairs = pairs[pairs["chrom"].isin(chromosomes) & (pairs["true"] != 0)]
    weights = region_weights(pd.factorize(pairs["id"])[0].astype(np.int64))
    return estimate(spearman(weights, pairs["true"].to_numpy(), pairs["difference"].to_numpy())), len(pairs)


def _announce(number: int, what: str) -> None:
    say(f"[{number}/7] {what}")


def _summary(model: Path, predictors: list[Path]) -> None:
    rows: list[tuple[Any, ...]] = []
    for row in read_manifest(model).metrics["evaluation"]:
        others = ", ".join(f"{name} {value['value']:.3f}" for name, value in row["baselines"].items())
        rows.append((f"{row['task']}: {row['metric']}", _estimate(row["model"]), others))
    for folder in predictors:
        results = [row for row in read_manifest(folder).metrics["results"] if row["metric"] == "AUROC"]
        others = ", ".join(f"{row['method']} {row['value']:.3f}" for row in results[1:])
        rows.append((f"{folder.name}: AUROC of the fine-tuned model", _estimate(results[0]), others))
    table("Held-out chromosomes, 95% intervals", ("measure", "GeneBERT", "others"), rows)


def _estimate(value: dict[str, Any]) -> str:
    return str(Estimate(value["value"], value["low"], value["high"]))
