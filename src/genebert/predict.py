"""The stages `predict` and `evaluate`: a predictor on new windows."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.cell_type_distance import Distance, new_cell_types
from genebert.console import progress_bar, say
from genebert.corpus.store import Corpus
from genebert.errors import UserError, listed, problem
from genebert.finetune import chromosomes_among, say_second_class, title_of
from genebert.inputs.genome import Genome
from genebert.known_labels import KnownLabels, with_known
from genebert.metrics import Estimate
from genebert.prediction_files import FILES, ON_GENOME, PredictionFile, TsvFile
from genebert.predictor import Predictor
from genebert.settings import EvaluateSettings, PredictSettings
from genebert.stage import StageRun, open_stage
from genebert.tasks.labels import check_genome
from genebert.tasks.windows import (
    Windows,
    read_windows,
    say_few_regions,
    say_repeats,
    say_unused,
    table_of,
    window_chunks,
)

CHUNK = 1 << 14
"""Rows predicted at a time, so that memory for motif evidence does not grow with their number."""
NEEDS_PLACE = "the model predicts per cell type, which needs windows with coordinates"


def predict(settings: PredictSettings) -> Path:
    """Predict classes, labels or a number of windows.

    Writes predictions.tsv (or .parquet): all windows in their order (chrom, start, end, 0-based, half-open, and where
    given strand and name, or sequence_id), the cell type where the model knows cell types and `cell_type_p`, how likely
    one as far from those trained on is (see `genebert.cell_type_distance`), one column per class or label, and
    `predicted`, the class or the number; or predictions.bed; or one bigWig per class (of two, the second)
    and cell type. With labels of known cell types, probabilities are put together with what these say of the window in
    other cell types (see `genebert.known_labels`), which is the column `known`. The class is then what these together
    make of the predictor's threshold.

    Raises:
        UserError: an input cannot be used, or inputs do not belong together.
    """
    inputs = {name: getattr(settings, name) for name in ("model", "genome", "corpus")}
    inputs |= {"windows": table_of(settings.windows), "known": settings.known and table_of(settings.known)}
    with open_stage("predict", settings, inputs) as run:
        if run.finished:
            return run.out
        predictor = Predictor.open(settings.model, settings.device)
        corpus = predictor.need_corpus(settings.corpus)
        _check_cell_types(settings, corpus)
        _check_known(settings, corpus, predictor)
        distances = predictor.distances(corpus, _chosen(settings, corpus))
        metrics = {"target": predictor.target.to_json(), "cell_type_distances": new_cell_types(distances)}
        counts, seconds, names = _predict_all(settings, predictor, corpus, distances, run.folder)
        rows = counts["rows"]
        out = run.finish(metrics | counts | {"files": names})
        say(f"{out / names[0]}: {rows:,} rows, {rows / max(seconds, 1e-9):,.0f} a second")
        if settings.known is not None:
            informed = counts["rows_with_known_labels"]
            others = "" if informed == rows else "; the others are as without"
            what = "are at the place of a label of another cell type"
            say(f"{informed:,} of these {rows:,} {what} in {settings.known}{others}")
        return out


def _chosen(settings: PredictSettings, corpus: Corpus | None) -> list[str]:
    return settings.cell_types or (corpus.cell_types if corpus is not None else [])


def _with_p(table: pd.DataFrame, distances: Sequence[Distance]) -> pd.DataFrame:
    """Return rows with `cell_type_p`, how likely a cell type as far from those trained on is; see `Distance.p`."""
    if not distances:
        return table
    return table.assign(cell_type_p=table["cell_type"].map({one.cell_type: one.p for one in distances}).astype(float))


def _predict_all(
    settings: PredictSettings,
    predictor: Predictor,
    corpus: Corpus | None,
    distances: Sequence[Distance],
    folder: Path,
) -> tuple[dict[str, int], float, list[str]]:
    """Predict chunk by chunk; return numbers of rows, the seconds that it took, and the names of the files."""
    genome = Genome(settings.genome) if settings.genome else None
    chosen = _chosen(settings, corpus)
    rows, informed, began = 0, 0, time.monotonic()
    try:
        if corpus is not None and genome is not None:
            check_genome(genome, corpus)
        known = _known_labels(settings, genome, predictor)
        lengths = dict(genome.lengths) if genome else {}
        made = FILES[settings.format](folder, predictor.target, lengths, predictor.ensemble.threshold)
        with made as file, progress_bar() as progress:
            task = progress.add_task("predicting", total=None, note="")
            check = partial(predictor.check_table, path=settings.windows, corpus=corpus)
            for windows in window_chunks(
                settings.windows, genome, width=predictor.width, rows=CHUNK, check=check, times=len(chosen)
            ):
                if not rows:
                    say_unused(settings.genome, windows)
                    if settings.format not in ON_GENOME:
                        _say_replaced(windows, file)
                _check_place(windows, settings, corpus)
                predictor.check_windows(windows)
                windows = _for_cell_types(windows, corpus, chosen)
                table, predicted = _with_p(windows.table, distances), predictor.predict(windows, corpus)
                if known is not None:
                    table = table.assign(known=known.of(table))
                    informed += int(table["known"].notna().sum())
                    predicted = with_known(predicted, table["known"].to_numpy())
                file.write(table, predicted)
                rows += len(windows)
                progress.update(task, completed=rows, note=f"{rows / (time.monotonic() - began):,.0f} a second")
            counts = {"rows": rows} | ({} if known is None else {"rows_with_known_labels": informed})
            return counts, time.monotonic() - began, [path.name for path in file.close()]
    finally:
        if genome:
            genome.close()


def _say_replaced(windows: Windows, file: PredictionFile) -> None:
    """Say which columns of the windows have the names of those to be written, as what another model predicted has."""
    replaced = [name for name in file.titles if name in windows.table]
    if replaced:
        say(f"{windows.path}: its columns {listed(replaced)} are left out: those to be written are named so")


def _check_cell_types(settings: PredictSettings, corpus: Corpus | None) -> None:
    if not settings.cell_types:
        return
    if corpus is None:
        what = "it has no use here: the model knows no cell types"
        raise UserError(problem("--cell-types", what, "Leave it out."))
    corpus.cell_type_indices(settings.cell_types)


def _check_known(settings: PredictSettings, corpus: Corpus | None, predictor: Predictor) -> None:
    if settings.known is not None and (corpus is None or not predictor.target.is_binary):
        what = "it has no use here: the model does not tell two classes in cell types"
        raise UserError(problem("--known", what, "Leave it out."))


def _known_labels(settings: PredictSettings, genome: Genome | None, predictor: Predictor) -> KnownLabels | None:
    if settings.known is None:
        return None
    if genome is None:
        raise UserError(problem("--known", "labels are found by their places", "Give --genome."))
    return KnownLabels.read(settings.known, genome, predictor.target, predictor.width)


def _check_place(windows: Windows, settings: PredictSettings, corpus: Corpus | None) -> None:
    """Check that windows have coordinates, if these are needed, and no cell type, if the user names some."""
    if windows.per_cell_type and settings.cell_types:
        what = f"it has no use here: the rows of {windows.path} name theirs"
        raise UserError(problem("--cell-types", what, "Leave it out."))
    if windows.located:
        return
    if corpus is not None:
        raise UserError(problem(windows.path, NEEDS_PLACE, "Give BED, or chrom, start, end."))
    if settings.format in ON_GENOME:
        what = f"{settings.format} needs coordinates, and {settings.windows} has sequences"
        raise UserError(problem("--format", what, "Use tsv or parquet, or give BED and --genome."))


def _for_cell_types(windows: Windows, corpus: Corpus | None, names: list[str]) -> Windows:
    """Repeat windows without a cell type for each of the named ones."""
    if corpus is None or windows.per_cell_type:
        return windows
    rows = np.repeat(np.arange(len(windows)), len(names))
    table = windows.table.iloc[rows].reset_index(drop=True).assign(cell_type=names * len(windows))
    return Windows(table, windows.codes[rows], windows.path)


def evaluate(settings: EvaluateSettings) -> Path:
    """Measure a predictor on labelled windows; of a table with splits, on its test rows.

    Writes predictions.tsv and, in the manifest, measures with 95% bootstrap intervals.

    Raises:
        UserError: an input cannot be used, inputs do not belong together, or labels are unknown to the model.
    """
    inputs = {name: getattr(settings, name) for name in ("model", "genome", "corpus")}
    inputs["labels"] = table_of(settings.labels)
    with open_stage("evaluate", settings, inputs) as run:
        if run.finished:
            return run.out
        predictor = Predictor.open(settings.model, settings.device)
        corpus = predictor.need_corpus(settings.corpus)
        windows = _read_labelled(settings, predictor, corpus)
        if "split" in windows.table:
            windows = windows.rows((windows.table["split"] == "test").to_numpy())
        elif _learned(run, predictor):
            say("warning: the model was fitted to this very file: its measures on it say nothing of other rows")
        if "split" not in windows.table or not _learned(run, predictor):  # else finetune has looked at its test rows
            _check_unseen(windows, predictor)
        truth = _truth(windows, predictor)
        if corpus is not None and not windows.per_cell_type:
            what = "the model predicts per cell type, and the rows name none"
            raise UserError(problem(windows.path, what, "Add a column `cell_type`."))
        named = sorted(set(windows.table["cell_type"])) if corpus is not None else []
        distances = predictor.distances(corpus, named)
        found = []
        with TsvFile(run.folder, predictor.target, {}, predictor.ensemble.threshold) as file:
            for chunk, predicted in _predicted(windows, predictor, corpus):
                file.write(_with_p(chunk.table, distances), predicted)
                found.append(predicted)
        ensemble, region = predictor.ensemble, windows.regions()
        say_few_regions(region)
        measures = ensemble.target.measures(truth, [np.concatenate(found)], [ensemble.threshold], region)
        defined = {name: one for name, one in measures.items() if np.isfinite(one.value)}  # a label may have one answer
        results = [
            {"method": title_of(predictor.manifest), "metric": name, **one.to_json()} for name, one in defined.items()
        ]
        metrics = {"target": predictor.target.to_json(), "cell_type_distances": new_cell_types(distances)}
        out = run.finish(metrics | {"rows": len(windows), "results": results})
        say_second_class(predictor.target)
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


def _read_labelled(settings: EvaluateSettings, predictor: Predictor, corpus: Corpus | None) -> Windows:
    genome = Genome(settings.genome) if settings.genome else None
    try:
        windows = read_windows(settings.labels, genome, labelled=True, width=predictor.width)
        if corpus is not None and genome is not None:
            check_genome(genome, corpus)
    finally:
        if genome:
            genome.close()
    if corpus is not None and not windows.located:
        raise UserError(problem(windows.path, NEEDS_PLACE, "Give chrom, start, end."))
    say_unused(settings.genome, windows)
    predictor.check_windows(windows)
    say_repeats([windows])
    return windows


def _learned(run: StageRun, predictor: Predictor) -> bool:
    """Return whether the labels are a file that the predictor has learned from."""
    inputs = predictor.manifest.inputs
    return run.inputs["labels"]["sha256"] in {inputs[name]["sha256"] for name in ("labels", "valid") if name in inputs}


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
