"""The stage `finetune`: a pre-trained model and labels become a predictor, with baselines trained as carefully."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch.nn import functional as F

from genebert.batches import WindowBatch, WindowData
from genebert.console import say
from genebert.corpus.store import Corpus
from genebert.errors import Problems, UserError, problem
from genebert.inputs.genome import Genome, match_chromosomes
from genebert.metrics import Estimate, accuracy, auprc, auroc, bootstrap_mean, log_loss, mcc
from genebert.model.config import GeneBertConfig
from genebert.model.genebert import GeneBertForSequenceClassification, save_model
from genebert.predictor import (
    MOTIFS_FILE,
    check_motifs,
    context_of,
    load_weights,
    predict_probabilities,
    read_scanner,
)
from genebert.schema import SPLITS, Split
from genebert.settings import FinetuneSettings
from genebert.stage import Manifest, StageRun, open_stage, read_manifest
from genebert.tasks.base import Windows, class_names, read_windows
from genebert.tasks.baselines import TUNED_ON, fit_kmer_regression
from genebert.tasks.labels import check_genome
from genebert.training import Learner, Schedule, enough_memory, pick_device, train

PRETRAINED, SCRATCH, KMERS = "pre-trained", "from scratch", "k-mer logistic regression"
Probabilities = dict[str, list[NDArray[np.float64]]]
"""method -> one array of class probabilities on the test rows per seed."""


def finetune(settings: FinetuneSettings) -> Path:
    """Fine-tune a pre-trained model on labelled windows; the epoch is chosen on the validation rows.

    Writes the predictor of the seed with the lowest validation loss (config.json, model.safetensors, motifs.json),
    curves.tsv, test_predictions.tsv (each method's probabilities, averaged over seeds) and, in the manifest, the
    measures of each method on the test rows.

    Raises:
        UserError: an input cannot be used, inputs do not belong together, or rows that the model has seen in
            pre-training are to be tested on.
    """
    pretrained = read_manifest(settings.model, "pretrain", verify=True)
    pick_device(settings.device)
    inputs = {name: getattr(settings, name) for name in ("labels", "model", "valid", "test", "genome", "corpus")}
    with open_stage("finetune", settings, inputs) as run:
        if run.finished:
            return run.out
        task = _read_task(settings, pretrained)
        return _finetune(settings, task, run)


@dataclass(frozen=True)
class Task:
    """Labelled windows by split, and what region matrices are made of.

    Attributes:
        windows: split -> windows.
        classes: names of the classes.
        corpus: for windows with a cell type, else None.
    """

    windows: dict[Split, Windows]
    classes: list[str]
    corpus: Corpus | None

    def labels(self, split: Split) -> NDArray[np.int64]:
        """Return the class index of each window of a split: int64, shape (n,)."""
        index = {name: i for i, name in enumerate(self.classes)}
        return self.windows[split].table["label"].map(index).to_numpy(np.int64)

    def cell_types(self, split: Split) -> NDArray[np.int64] | None:
        """Return the cell type index of each window of a split, or None."""
        return (
            None
            if self.corpus is None
            else self.corpus.cell_type_indices(self.windows[split].table["cell_type"].tolist())
        )

    def data(self, split: Split, config: Any, folder: Path, batch_size: int, seed: int) -> WindowData:
        """Return the batches of a split."""
        windows, cell_types = self.windows[split], self.cell_types(split)
        context = (
            context_of(windows, self.corpus, cell_types) if self.corpus is not None and cell_types is not None else None
        )
        return WindowData(
            windows.codes,
            read_scanner(folder),
            k=config.k,
            columns=config.region_columns,
            label=self.labels(split),
            context=context,
            batch_size=batch_size,
            seed=seed,
        )


def _read_task(settings: FinetuneSettings, pretrained: Manifest) -> Task:
    genome = Genome(settings.genome) if settings.genome else None
    try:
        windows = _read_splits(settings, genome, pretrained)
        corpus = _open_corpus(settings, genome, windows["train"])
    finally:
        if genome:
            genome.close()
    task = Task(windows, class_names(pd.concat([w.table["label"] for w in windows.values()])), corpus)
    _check_task(task, settings, pretrained)
    return task


def _read_splits(settings: FinetuneSettings, genome: Genome | None, pretrained: Manifest) -> dict[Split, Windows]:
    windows = read_windows(settings.labels, genome, labelled=True)
    if settings.valid and settings.test:
        others: dict[Split, Path] = {"valid": settings.valid, "test": settings.test}
        return {"train": windows, **{name: read_windows(path, genome, labelled=True) for name, path in others.items()}}
    if "split" in windows.table:
        split = windows.table["split"].to_numpy()
    elif windows.on_genome:
        held_out = dict.fromkeys(pretrained.metrics["valid_chromosomes"], "valid")
        held_out |= dict.fromkeys(pretrained.metrics["test_chromosomes"], "test")
        names = match_chromosomes(windows.table["chrom"], dict.fromkeys(held_out, 0))
        split = np.array([held_out.get(names.get(chrom, chrom), "train") for chrom in windows.table["chrom"]])
    else:
        raise UserError(
            problem(
                windows.path,
                "the rows are not divided into training, validation and test",
                "Add a column `split` (train, valid, test), or give --valid and --test.",
            )
        )
    return {name: windows.rows(split == name) for name in SPLITS}


def _open_corpus(settings: FinetuneSettings, genome: Genome | None, windows: Windows) -> Corpus | None:
    if not windows.per_cell_type:
        return None
    if settings.corpus is None or not windows.on_genome or genome is None:
        raise UserError(
            problem(
                windows.path,
                "its rows name cell types, which needs coordinates, a genome and a corpus",
                "Add --genome and --corpus, or remove the column `cell_type`.",
            )
        )
    corpus = Corpus.open(settings.corpus)
    check_genome(genome, corpus)
    check_motifs(read_scanner(settings.model), corpus, settings.model)
    return corpus


def _check_task(task: Task, settings: FinetuneSettings, pretrained: Manifest) -> None:
    found = Problems(f"The labels {settings.labels} cannot be learned from:")
    _check_lengths(task, GeneBertConfig.from_pretrained(settings.model), found)
    _check_classes(task, found)
    test = task.windows["test"]
    if test.on_genome:
        seen = chromosomes_among(test, pretrained.metrics["train_chromosomes"])
        if seen:
            held_out = ", ".join(pretrained.metrics["test_chromosomes"])
            found.add(
                "test",
                f"it has rows on {', '.join(seen)}, on which the model was pre-trained",
                f"Test on chromosomes that pre-training held out: {held_out}.",
            )
    found.raise_any()


def _check_lengths(task: Task, config: GeneBertConfig, found: Problems) -> None:
    lengths = sorted({windows.codes.shape[1] for windows in task.windows.values() if len(windows)})
    most, least = config.max_tokens + 2 * config.k - 5, max(2 * config.k, config.region_columns)
    for length in lengths:
        if length > most:
            found.add("windows", f"the longest has {length} bp, and the model reads at most {most} bp", "Shorten them.")
        if length <= least:
            found.add("windows", f"they have {length} bp", f"Give windows of more than {least} bp.")
    if len(lengths) > 1:
        found.add("windows", f"the longest ones of the splits differ: {lengths} bp", "Make them equally long.")


def _check_classes(task: Task, found: Problems) -> None:
    known = set(task.windows["train"].table["label"])
    for split, windows in task.windows.items():
        labels = set(windows.table["label"])
        if not labels:
            found.add(split, "there is no row", "Give rows for training, validation and test.")
        elif len(labels) == 1:
            found.add(split, f"all its rows have the label {labels.pop()}", "Give at least two classes in each split.")
        elif labels - known:
            unknown = ", ".join(sorted(labels - known))
            found.add(
                split, f"it has labels that no training row has: {unknown}", "Correct them, or add training rows."
            )


def chromosomes_among(windows: Windows, names: Sequence[str]) -> list[str]:
    """Return the chromosomes of windows that are among the given ones, in either spelling (chr1 or 1)."""
    return sorted(match_chromosomes(windows.table["chrom"], dict.fromkeys(names, 0)))


def _seen_in_training(task: Task) -> int:
    """Return how many test rows have a sequence that occurs in training or validation, letter by letter."""
    seen = {row.tobytes() for split in TUNED_ON for row in task.windows[split].codes}
    return sum(row.tobytes() in seen for row in task.windows["test"].codes)


@dataclass
class KeepBest(Callback):
    """Keeps the weights of the epoch with the lowest validation loss."""

    data: WindowData
    epoch_steps: int
    rows: list[dict[str, float]] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The lowest validation loss so far, in nats."""
        return min((row["valid_loss"] for row in self.rows), default=float("inf"))

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Measure at the end of an epoch."""
        if trainer.global_step % self.epoch_steps:
            return
        loss = log_loss(self.data.label, predict_probabilities(module.model, self.data, ""))
        if loss < self.loss:
            self.weights = {name: value.detach().clone() for name, value in module.model.state_dict().items()}
        self.rows.append({"step": trainer.global_step, "valid_loss": loss})


def _finetune(settings: FinetuneSettings, task: Task, run: StageRun) -> Path:
    probabilities: Probabilities = {}
    curves = []
    best: tuple[float, Any] | None = None
    for method in (PRETRAINED, SCRATCH) if settings.scratch else (PRETRAINED,):
        for seed in range(settings.seed, settings.seed + settings.seeds):
            model, loss, table = _train_one(settings, task, method, seed)
            data = task.data("test", model.config, settings.model, 64, seed)
            probabilities.setdefault(method, []).append(predict_probabilities(model, data, ""))
            curves.append(table.assign(method=method, seed=seed))
            if method == PRETRAINED and (best is None or loss < best[0]):
                best = loss, model
    if settings.kmers:
        probabilities[KMERS] = [_kmer_baseline(task)]
    assert best is not None
    metrics = {
        "classes": task.classes,
        "window_width": task.windows["train"].codes.shape[1],
        "per_cell_type": task.corpus is not None,
        "rows": {split: len(windows) for split, windows in task.windows.items()},
        "test_rows_with_a_training_sequence": _seen_in_training(task),
        "seen_chromosomes": _seen_chromosomes(task, read_manifest(settings.model, "pretrain")),
        "ambiguous_bases_read_as_n": sum({w.path: w.ambiguous for w in task.windows.values()}.values()),
        "results": evaluate_methods(task.labels("test"), probabilities),
    }
    save_model(best[1], run.folder)
    shutil.copy(settings.model / MOTIFS_FILE, run.folder / MOTIFS_FILE)
    pd.concat(curves).to_csv(run.folder / "curves.tsv", sep="\t", index=False, float_format="%.6g")
    _write_predictions(task, probabilities, run.folder)
    out = run.finish(metrics)
    if metrics["test_rows_with_a_training_sequence"]:
        say(f"{metrics['test_rows_with_a_training_sequence']:,} test rows have a sequence that was trained on")
    for row in metrics["results"]:
        say(f"{row['method']}: {row['metric']} {Estimate(row['value'], row['low'], row['high'])}")
    return out


def _seen_chromosomes(task: Task, pretrained: Manifest) -> list[str]:
    """Return the chromosomes that anything was fitted or chosen on; empty for sequences without coordinates."""
    if not task.windows["test"].on_genome:
        return []
    tuned = (chrom for split in TUNED_ON for chrom in task.windows[split].table["chrom"])
    return sorted({*pretrained.metrics["train_chromosomes"], *tuned})


def _train_one(settings: FinetuneSettings, task: Task, method: str, seed: int) -> tuple[Any, float, pd.DataFrame]:
    torch.manual_seed(seed)
    model = load_weights(GeneBertForSequenceClassification, settings.model, num_labels=len(task.classes))
    if method == SCRATCH:
        untrained = GeneBertForSequenceClassification(model.config)
        untrained.genebert.region_encoder.evidence_mean.copy_(model.genebert.region_encoder.evidence_mean)
        untrained.genebert.region_encoder.evidence_std.copy_(model.genebert.region_encoder.evidence_std)
        model = untrained
    model.config.id2label = dict(enumerate(task.classes))
    model.config.label2id = {name: i for i, name in enumerate(task.classes)}
    data = task.data("train", model.config, settings.model, settings.batch_size, seed)
    keep = KeepBest(task.data("valid", model.config, settings.model, 64, seed), data.steps_per_epoch)
    steps = settings.epochs * data.steps_per_epoch
    learner = Learner(model, _losses, {"cross_entropy": 1.0}, Schedule(steps, settings.learning_rate, seed=seed))
    with enough_memory("Lower --batch-size."):
        table = train(
            learner,
            data.batch,
            description=f"fine-tuning, {method}, seed {seed}",
            batch_size=data.batch_size,
            extra=[keep],
            device=settings.device,
            precision=settings.precision,
        )
    if not keep.weights:
        raise UserError(
            problem("--learning-rate", f"with {settings.learning_rate} the loss is no number", "Choose a lower one.")
        )
    model.load_state_dict(keep.weights)
    return model.eval(), keep.loss, table.merge(pd.DataFrame(keep.rows), on="step", how="outer")


def _losses(model: Callable[..., torch.Tensor], batch: WindowBatch) -> dict[str, torch.Tensor]:
    logits = model(batch.input_ids, batch.segment_ids, batch.matrix)
    return {"cross_entropy": F.cross_entropy(logits.float(), batch.label)}


def _kmer_baseline(task: Task) -> NDArray[np.float64]:
    codes = {split: task.windows[split].codes for split in TUNED_ON}
    label = {split: task.labels(split) for split in TUNED_ON}
    cell_type = {split: found for split in TUNED_ON if (found := task.cell_types(split)) is not None} or None
    model = fit_kmer_regression(codes, label, cell_type, len(task.corpus.cell_types) if task.corpus else 0)
    return model.predict(task.windows["test"].codes, task.cell_types("test"))


def evaluate_methods(label: NDArray[np.int64], probabilities: Probabilities) -> list[dict[str, Any]]:
    """Measure methods on the same test rows.

    Args:
        label: class indices, int64, shape (n,).
        probabilities: method -> one array of class probabilities, shape (n, classes), per seed.

    Returns:
        rows {"method", "metric", "value", "low", "high", "seeds"}: AUROC and AUPRC for two classes, accuracy and MCC
        always; the class with the highest probability is the predicted one.
    """
    rows = []
    for method, runs in probabilities.items():
        classes = runs[0].shape[1]
        if classes == 2:
            scored = [(label, run[:, 1]) for run in runs]
            rows.append(_result(method, "AUROC", bootstrap_mean(auroc, scored)))
            rows.append(_result(method, "AUPRC", bootstrap_mean(auprc, scored)))
        guessed = [(label, run.argmax(axis=1)) for run in runs]
        rows.append(_result(method, "accuracy", bootstrap_mean(accuracy, guessed)))
        rows.append(_result(method, "MCC", bootstrap_mean(mcc, guessed)))
    return rows


def _result(method: str, metric: str, estimate: Estimate) -> dict[str, Any]:
    return {"method": method, "metric": metric, **estimate.to_json()}


def _write_predictions(task: Task, probabilities: Probabilities, folder: Path) -> None:
    table = task.windows["test"].table.copy()
    for method, runs in probabilities.items():
        mean = np.mean(runs, axis=0)
        for i, name in enumerate(task.classes):
            table[f"{method}: {name}"] = mean[:, i]
    table.to_csv(folder / "test_predictions.tsv", sep="\t", index=False, float_format="%.6g")
