"""The stages `predict` and `evaluate`: a predictor on new windows."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.console import say
from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.finetune import PRETRAINED, chromosomes_among, evaluate_methods
from genebert.inputs.genome import Genome
from genebert.metrics import Estimate
from genebert.predictor import Predictor, context_of
from genebert.settings import EvaluateSettings, PredictSettings
from genebert.stage import open_stage
from genebert.tasks.base import Windows, read_windows
from genebert.tasks.labels import check_genome

PREDICTIONS_FILE = "predictions.tsv"


def predict(settings: PredictSettings) -> Path:
    """Predict class probabilities of windows.

    Writes predictions.tsv: the windows (chrom, start, end, 0-based, half-open, or sequence_id), the cell type where the
    model knows cell types, and one column of probabilities per class.

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
        windows = _for_cell_types(windows, corpus, settings.cell_types)
        table = _table(windows, predictor, _probabilities(windows, predictor, corpus))
        table.to_csv(run.folder / PREDICTIONS_FILE, sep="\t", index=False, float_format="%.6g")
        out = run.finish({"rows": len(table), "classes": predictor.classes})
        say(f"{out / PREDICTIONS_FILE}: {len(table):,} rows")
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
        label = _labels(windows, predictor)
        probability = _probabilities(windows, predictor, corpus)
        _table(windows, predictor, probability).to_csv(
            run.folder / PREDICTIONS_FILE, sep="\t", index=False, float_format="%.6g"
        )
        results = evaluate_methods(label, {PRETRAINED: [probability]})
        out = run.finish({"rows": len(windows), "classes": predictor.classes, "results": results})
        for row in results:
            say(f"{row['metric']} {Estimate(row['value'], row['low'], row['high'])} on {len(windows):,} rows")
        return out


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
    if corpus is not None and not windows.on_genome:
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


def _probabilities(windows: Windows, predictor: Predictor, corpus: Corpus | None) -> NDArray[np.float64]:
    context = None
    if corpus is not None:
        if not windows.per_cell_type:
            raise UserError(
                problem(
                    windows.path,
                    "the model predicts per cell type, and the rows name none",
                    "Add a column `cell_type`.",
                )
            )
        context = context_of(windows, corpus, corpus.cell_type_indices(windows.table["cell_type"].tolist()))
    return predictor.probabilities(predictor.data(windows.codes, context))


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


def _labels(windows: Windows, predictor: Predictor) -> NDArray[np.int64]:
    unknown = sorted(set(windows.table["label"]) - set(predictor.classes))
    if not unknown and windows.table["label"].nunique() < 2:
        raise UserError(
            problem(
                windows.path, f"its {len(windows)} test rows have fewer than two classes", "Give rows of each class."
            )
        )
    if unknown:
        what = f"it has labels that the model does not know: {', '.join(unknown)}"
        raise UserError(problem(windows.path, what, f"The model's classes are {', '.join(predictor.classes)}."))
    return windows.table["label"].map({name: i for i, name in enumerate(predictor.classes)}).to_numpy(np.int64)


def _table(windows: Windows, predictor: Predictor, probability: NDArray[np.float64]) -> pd.DataFrame:
    return windows.table.assign(**{f"p({name})": probability[:, i] for i, name in enumerate(predictor.classes)})
