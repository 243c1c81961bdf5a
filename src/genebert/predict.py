"""The stages `predict` and `evaluate`: a predictor on new windows."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genebert.console import progress_bar, say
from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.finetune import PRETRAINED, chromosomes_among
from genebert.inputs.genome import Genome
from genebert.metrics import Estimate
from genebert.prediction_files import FILES, ON_GENOME, TsvFile
from genebert.predictor import Predictor
from genebert.settings import EvaluateSettings, PredictSettings
from genebert.stage import open_stage
from genebert.tasks.labels import check_genome
from genebert.tasks.windows import Windows, read_windows

CHUNK = 1 << 14
"""Windows predicted at a time, so that memory for motif evidence does not grow with their number."""


def predict(settings: PredictSettings) -> Path:
    """Predict classes, labels or a number of windows.

    Writes predictions.tsv (or .parquet): the windows (chrom, start, end, 0-based, half-open, or sequence_id), the cell
    type where the model knows cell types, and one column per class or label, or `predicted`; or predictions.bed; or one
    bigWig per class (of two, the second) and cell type.

    Raises:
        UserError: an input cannot be used, or inputs do not belong together.
    """
    inputs = {name: getattr(settings, name) for name in ("windows", "model", "genome", "corpus")}
    with open_stage("predict", settings, inputs) as run:
        if run.finished:
            return run.out
        predictor = Predictor.open(settings.model, settings.device)
        corpus = predictor.need_corpus(settings.corpus)
        windows = _open_windows(settings.windows, settings.genome, predictor, corpus, labelled=False)
        if settings.format in ON_GENOME and not windows.located:
            what = f"{settings.format} needs coordinates, and {settings.windows} has sequences"
            raise UserError(problem("--format", what, "Use tsv or parquet, or give BED and --genome."))
        windows = _for_cell_types(windows, corpus, settings.cell_types)
        file = FILES[settings.format](run.folder, predictor.target, _lengths(settings.genome))
        began = time.monotonic()
        for chunk, predicted in _predicted(windows, predictor, corpus):
            file.write(chunk.table, predicted)
        seconds = time.monotonic() - began
        names = [path.name for path in file.close()]
        metrics = {"rows": len(windows), "target": predictor.target.to_json(), "files": names}
        out = run.finish(metrics)
        speed = len(windows) / max(seconds, 1e-9)
        say(f"{out / names[0]}: {len(windows):,} rows, {speed:,.0f} a second")
        return out


def evaluate(settings: EvaluateSettings) -> Path:
    """Measure a predictor on labelled windows; of a table with splits, on its test rows.

    Writes predictions.tsv and, in the manifest, measures with 95% bootstrap intervals.

    Raises:
        UserError: an input cannot be used, inputs do not belong together, or labels are unknown to the model.
    """
    inputs = {name: getattr(settings, name) for name in ("labels", "model", "genome", "corpus")}
    with open_stage("evaluate", settings, inputs) as run:
        if run.finished:
            return run.out
        predictor = Predictor.open(settings.model, settings.device)
        corpus = predictor.need_corpus(settings.corpus)
        windows = _open_windows(settings.labels, settings.genome, predictor, corpus, labelled=True)
        if "split" in windows.table:
            windows = windows.rows((windows.table["split"] == "test").to_numpy())
        _check_unseen(windows, predictor)
        truth = _truth(windows, predictor)
        if corpus is not None and not windows.per_cell_type:
            what = "the model predicts per cell type, and the rows name none"
            raise UserError(problem(windows.path, what, "Add a column `cell_type`."))
        file = TsvFile(run.folder, predictor.target, {})
        found = []
        for chunk, predicted in _predicted(windows, predictor, corpus):
            file.write(chunk.table, predicted)
            found.append(predicted)
        file.close()
        ensemble = predictor.ensemble
        measures = ensemble.target.measures(truth, [np.concatenate(found)], [ensemble.threshold])
        defined = {
            name: one for name, one in measures.items() if np.isfinite(one.value)
        }  # where a label has two answers
        results = [{"method": PRETRAINED, "metric": name, **one.to_json()} for name, one in defined.items()]
        out = run.finish({"rows": len(windows), "target": predictor.target.to_json(), "results": results})
        for row in results:
            say(f"{row['metric']} {Estimate(row['value'], row['low'], row['high'])} on {len(windows):,} rows")
        return out


def _predicted(
    windows: Windows, predictor: Predictor, corpus: Corpus | None
) -> Iterator[tuple[Windows, NDArray[np.float64]]]:
    """Yield windows and their predictions chunk by chunk."""
    with progress_bar() as progress:
        task = progress.add_task("predicting", total=len(windows), note="")
        for start in range(0, len(windows), CHUNK):
            rows = np.zeros(len(windows), dtype=bool)
            rows[start : start + CHUNK] = True
            chunk = windows.rows(rows)
            yield chunk, predictor.predict(chunk, corpus)
            progress.advance(task, len(chunk))


def _lengths(genome: Path | None) -> Mapping[str, int]:
    """Return the lengths of a genome's chromosomes, none without a genome."""
    if genome is None:
        return {}
    with Genome(genome) as opened:
        return dict(opened.lengths)


def _open_windows(
    path: Path, genome_path: Path | None, predictor: Predictor, corpus: Corpus | None, *, labelled: bool
) -> Windows:
    genome = Genome(genome_path) if genome_path else None
    try:
        windows = read_windows(path, genome, labelled=labelled, width=predictor.width)
        if corpus is not None and genome is not None:
            check_genome(genome, corpus)
    finally:
        if genome:
            genome.close()
    if corpus is not None and not windows.located:
        raise UserError(
            problem(
                path,
                "the model predicts per cell type, which needs windows with coordinates",
                "Give BED, or chrom, start, end.",
            )
        )
    predictor.check_width(windows)
    return windows


def _for_cell_types(windows: Windows, corpus: Corpus | None, names: list[str]) -> Windows:
    """Repeat windows without a cell type for each of the named ones (all of the corpus by default)."""
    if names and (corpus is None or windows.per_cell_type):
        reason = "the model knows no cell types" if corpus is None else f"the rows of {windows.path} name theirs"
        raise UserError(problem("--cell-types", f"it has no use here: {reason}", "Leave it out."))
    if corpus is None or windows.per_cell_type:
        return windows
    chosen = names or corpus.cell_types
    corpus.cell_type_indices(chosen)
    rows = np.repeat(np.arange(len(windows)), len(chosen))
    table = windows.table.iloc[rows].reset_index(drop=True).assign(cell_type=chosen * len(windows))
    return Windows(table, windows.codes[rows], windows.path)


def _check_unseen(windows: Windows, predictor: Predictor) -> None:
    seen = chromosomes_among(windows, predictor.manifest.metrics["seen_chromosomes"]) if windows.on_genome else []
    if seen:
        raise UserError(
            problem(
                windows.path,
                f"it has rows on {', '.join(seen)}, on which the model was trained or its epoch chosen",
                "Measure on other chromosomes: remove these rows, or mark the others `test` in a column `split`.",
            )
        )


def _truth(windows: Windows, predictor: Predictor) -> NDArray[np.float64]:
    """Return what the windows are, as the predictor's target has it.

    Raises:
        UserError: they are labelled otherwise than the rows that the model was trained on.
    """
    target = predictor.target
    there = [str(name) for name in windows.table if str(name) in target.columns]
    missing = [name for name in target.columns if name not in there]
    if missing:
        what = f"it lacks {', '.join(missing)}, which the model predicts"
        raise UserError(problem(windows.path, what, "Give the columns that it was trained on."))
    if target.kind == "classes":
        unknown = sorted(set(windows.table["label"]) - set(target.names))
        if unknown:
            what = f"it has labels that the model does not know: {', '.join(unknown)}"
            raise UserError(problem(windows.path, what, f"The model's classes are {', '.join(target.names)}."))
    truth = target.truth(windows.table)
    if all(len(np.unique(column[np.isfinite(column)])) < 2 for column in np.atleast_2d(truth.T)):
        alike = {"classes": "classes", "labels": "answers for each label", "value": "values"}[target.kind]
        what = f"its {len(windows)} test rows have fewer than two {alike}"
        raise UserError(problem(windows.path, what, "Give rows that differ."))
    return truth
