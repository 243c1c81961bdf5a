"""The stage `finetune`: a pre-trained model and labels become a predictor, with baselines trained as carefully."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.calibration import CALIBRATED, Calibration, calibration_error
from genebert.cell_type_distance import KnownCellTypes, new_cell_types
from genebert.console import say
from genebert.corpus.store import Corpus
from genebert.corpus.training import training_rows
from genebert.device import pick_device
from genebert.errors import Problems, ResumableError, UserError, listed, problem
from genebert.inputs.genome import chromosomes_known
from genebert.labelled import Labelled, LabelledFiles, read_labelled
from genebert.methods import method_class, method_keys
from genebert.methods.base import Method
from genebert.methods.genebert import FittedGeneBert, GeneBert
from genebert.metrics import Estimate
from genebert.predictor import Ensemble
from genebert.pretrained import read_scanner
from genebert.schema import Split, parent_of
from genebert.settings import FinetuneSettings, TuningSettings
from genebert.shared_words import sharing, sharing_with_any
from genebert.stage import Manifest, StageRun, open_stage, read_manifest
from genebert.target import CLASS, HALF, Target, best_threshold, mean_over_methods
from genebert.tasks.windows import Windows, check_strands, say_few_regions, say_unused, table_of
from genebert.trained import Trained, Training

PRETRAINED, SCRATCH, ENSEMBLE = "pre-trained", "from scratch", "ensemble"
WITHOUT_ENCODERS = "without encoders"
"""Of a network of which nothing is pre-trained."""
GENEBERT = "genebert"
TUNED_ON: tuple[Split, Split] = ("train", "valid")
PREDICTIONS_FILE = "test_predictions.tsv"


def finetune(settings: FinetuneSettings) -> Path:
    """Fine-tune a pre-trained model on labelled windows; everything is chosen on the validation rows.

    Writes the predictor (members/, predictor.json, motifs.json): the average of all seeds, and of the methods that
    `ensemble` names, with probabilities calibrated by a temperature; cell_types.npz, where rows name cell types: their
    use of TFs, which tells later how far others are from it; curves.tsv; test_predictions.tsv (each method's
    predictions, averaged over seeds); and, in the manifest, the measures of each method on the test rows.

    A run that was interrupted goes on after the last method and seed that it trained.

    Raises:
        UserError: an input cannot be used, inputs do not belong together, or rows that the model has seen in
            pre-training are to be tested on.
    """
    pretrained = read_manifest(settings.model, "pretrain", verify=True)
    _check_methods(settings)
    tables = {name: getattr(settings, name) for name in ("labels", "valid", "test")}
    inputs = {name: path and table_of(path) for name, path in tables.items()}
    inputs |= {name: getattr(settings, name) for name in ("model", "genome", "corpus")}
    with open_stage("finetune", settings, inputs, resumable=True) as run:
        if run.finished:
            return run.out
        pick_device(settings.device)  # so that a mistake is said before rows are read
        labelled = _read(settings, pretrained)
        return _finetune(settings, labelled, pretrained, run)


def _check_methods(settings: FinetuneSettings) -> None:
    found = Problems("These methods cannot be trained:")
    known = [key for key in method_keys() if key != GENEBERT]
    for option in ("ensemble", "baselines"):
        for key in getattr(settings, option):
            if key not in known:
                found.add(f"--{option}", f"{key!r} is no method", f"Choose of {', '.join(known)}.")
        if len(set(getattr(settings, option))) < len(getattr(settings, option)):
            found.add(f"--{option}", "it names a method twice", "Name each once.")
    if not (settings.network or settings.ensemble):
        found.add("--no-network", "nothing is left to predict with", "Name a method in --ensemble.")
    if settings.network and settings.mode != "full" and not settings.reads_encoders:
        what = "it is about encoders, and --no-encoders, or --modalities motifs --no-region-states, leaves them out"
        found.add(f"--mode {settings.mode}", what, "Leave one or the other out.")
    found.raise_any()


def _read(settings: FinetuneSettings, pretrained: Manifest) -> Labelled:
    files = LabelledFiles(settings.labels, settings.valid, settings.test, settings.genome, settings.corpus)
    held_out: dict[str, Split] = dict.fromkeys(pretrained.metrics["valid_chromosomes"], "valid")
    held_out |= dict.fromkeys(pretrained.metrics["test_chromosomes"], "test")
    labelled = read_labelled(files, read_scanner(settings.model), held_out)
    if settings.corpus and labelled.corpus is None:
        say(f"--corpus {settings.corpus}: its cell types are not used, since the labels have no column `cell_type`")
    say_unused(settings.genome, labelled.windows["train"])
    _check_unseen(labelled, pretrained)
    _say_neighbours(labelled)
    _say_learned_cell_types(labelled)
    _say_usage_untold(labelled)
    _say_classes_not_measured(labelled)
    say_few_regions(labelled.test_regions)
    _check_kinds(settings, labelled)
    for windows in labelled.windows.values() if settings.oriented else ():
        check_strands(windows.table, windows.path)
    return labelled


def _check_unseen(labelled: Labelled, pretrained: Manifest) -> None:
    test = labelled.windows["test"]
    seen = chromosomes_among(test, pretrained.metrics["train_chromosomes"]) if test.on_genome else []
    if seen:
        held_out = ", ".join(pretrained.metrics["test_chromosomes"])
        what = f"it has test rows on {', '.join(seen)}, on which the model was pre-trained"
        remedy = (
            f"Test on chromosomes that pre-training held out: {held_out}."
            if held_out
            else ("Pre-train on a corpus that holds chromosomes out for testing.")
        )
        raise UserError(problem(test.path, what, remedy))


def _say_neighbours(labelled: Labelled) -> None:
    """Warn of test rows that lie on chromosomes of rows that are learned from or chosen by."""
    test = labelled.windows["test"]
    if not test.on_genome:
        return
    tuned = [labelled.windows[split].table["chrom"] for split in TUNED_ON if labelled.windows[split].on_genome]
    shared = chromosomes_among(test, sorted({chrom for chroms in tuned for chrom in chroms}))
    if shared:
        count = int(test.table["chrom"].isin(shared).sum())
        what = f"{count:,} test rows lie on chromosomes of training or validation rows ({listed(shared)})"
        say(f"warning: {what}: neighbours are alike, which flatters. Divide rows by chromosome.")


def _say_learned_cell_types(labelled: Labelled) -> None:
    """Warn of cell types that the corpus holds out, as those of new data, and that are learned from or chosen by."""
    corpus = labelled.corpus
    if corpus is None:
        return
    held_out: dict[Split, list[str]] = {
        "train": [*corpus.valid_cell_types, *corpus.test_cell_types],
        "valid": corpus.test_cell_types,
    }
    for split, names in held_out.items():
        windows = labelled.windows[split]
        learned = sorted(set(names) & set(windows.table["cell_type"]))
        if learned:
            what = (
                f"{split} rows are in {', '.join(learned)}, which the corpus holds out: they are not new to this model"
            )
            remedy = "To predict in new cell types, leave these rows out, as labels made with --corpus do."
            say(f"warning: {problem(windows.path, what, remedy)}")


def _say_usage_untold(labelled: Labelled) -> None:
    """Warn where TF usage cannot be told, since training regions lie on one chromosome; see `corpus.usage`."""
    corpus = labelled.corpus
    if corpus is None:
        return
    training = corpus.regions["chrom"][corpus.split == 0].map(parent_of).unique()
    if len(training) == 1:
        what = f"all training regions lie on {training[0]}, so that how cell types use motifs elsewhere cannot be told"
        say(f"warning: {problem(corpus.folder, what, 'Hold out fewer chromosomes: two or more are needed.')}")


def _say_classes_not_measured(labelled: Labelled) -> None:
    """Warn of classes that are learned and in no validation or test row, as those that are a slip of the pen."""
    if labelled.target.kind != "classes":
        return
    counts = {split: windows.table[CLASS].value_counts() for split, windows in labelled.windows.items()}
    for name in labelled.target.names:
        absent = [split for split in ("valid", "test") if name not in counts[split]]
        if absent:
            rows = counts["train"][name]
            what = f"class {name} has {rows:,} training rows, and none among {' and '.join(absent)} rows"
            remedy = "Nothing says how well it is predicted: correct the label, or divide its rows."
            say(f"warning: {problem(labelled.windows['train'].path, what, remedy)}")


def _check_kinds(settings: FinetuneSettings, labelled: Labelled) -> None:
    found = Problems(f"The labels {settings.labels} cannot be learned as the options say:")
    for option in ("ensemble", "baselines"):
        for key in getattr(settings, option):
            kind = method_class(key)
            if labelled.target.kind not in kind.kinds:
                found.add(f"--{option} {key}", f"it predicts {', '.join(sorted(kind.kinds))}", "Leave it out.")
            if kind.needs_cell_types and labelled.corpus is None:
                what = "it sees accessibility alone, and the rows name no cell types"
                found.add(f"--{option} {key}", what, "Leave it out.")
    if settings.threshold == "valid" and not labelled.target.is_binary:
        found.add("--threshold valid", "there are not two classes to choose it for", "Leave it out.")
    if settings.class_weights and labelled.target.kind != "classes":
        found.add("--class-weights", "there are no classes to weigh", "Leave it out.")
    per_cell_type = labelled.corpus is not None
    if per_cell_type and settings.network and not settings.tells_cell_types:
        what = "the rows name cell types, which then nothing tells from one another"
        found.add("--modalities sequence, or --no-summary without the region encoder", what, "Leave them out.")
    _check_averaged(settings, per_cell_type, found)
    found.raise_any()


def _check_averaged(settings: FinetuneSettings, per_cell_type: bool, found: Problems) -> None:
    """Note which methods cannot be averaged with GeneBERT: which treat strands, classes or cell types otherwise."""
    for key in settings.ensemble:
        kind = method_class(key)
        if per_cell_type and kind.cell_types_by_name:
            what = "the rows name cell types, and it knows no more of these than their names"
            found.add(f"--ensemble {key}", what, "Leave it out.")
        if kind.strand_as_given and not settings.oriented:
            what = "it tells strands apart, and the windows are not oriented"
            found.add(f"--ensemble {key}", what, "Leave it out, or add --oriented.")
        if settings.class_weights and "class_weights" not in kind.model_fields:
            found.add(f"--ensemble {key}", "it does not weigh classes", "Leave it out, or --class-weights.")


def say_second_class(target: Target) -> None:
    """Say which of two classes measures and tracks are of."""
    if target.is_binary:
        say(f"AUPRC, tracks and log-odds are those of class {target.names[1]}, the second of {', '.join(target.names)}")


def chromosomes_among(windows: Windows, names: Sequence[str]) -> list[str]:
    """Return the chromosomes of windows that are among the given ones, in either spelling, or belong to one of them."""
    return list(chromosomes_known(windows.table["chrom"], {*names, *map(parent_of, names)}))


def _finetune(settings: FinetuneSettings, labelled: Labelled, pretrained: Manifest, run: StageRun) -> Path:
    network = GeneBert(model=settings.model, **{name: getattr(settings, name) for name in TuningSettings.model_fields})
    seeds = range(settings.seed, settings.seed + settings.seeds)
    training = Training(labelled, seeds, settings.device, run.scratch)
    title = PRETRAINED if settings.reads_encoders else WITHOUT_ENCODERS
    own = [training.train(title, GENEBERT, network)] if settings.network else []
    own += [_train_key(key, training, settings) for key in settings.ensemble]
    compared = list(own)
    beside = {key: method_of(key, settings) for key in settings.baselines if key not in settings.ensemble}
    failed: dict[str, str] = {}
    if settings.network and settings.scratch and settings.reads_encoders:  # else nothing is pre-trained
        untrained = network.model_copy(update={"initial": "random"})
        compared += _compared(training, SCRATCH, GENEBERT, untrained, failed)
    for key, method in beside.items():
        compared += _compared(training, method.title, key, method, failed)
    members = [(one.key, fitted) for one in own for fitted in one.fitted]
    joined = joined_of(own)
    if len(members) > 1:
        compared.insert(0, joined)
    target, truth = labelled.target, labelled.examples("valid").known_truth
    calibration = Calibration.fit(target, truth, joined.valid[0], weighted=settings.class_weights)
    threshold = calibration.threshold(target)
    if settings.threshold == "valid":
        threshold = best_threshold(truth, calibration.apply(target, joined.valid[0])[:, 1])
    Ensemble(target, members, calibration, threshold).save(run.folder, labelled.scanner)
    distances = _cell_type_distances(labelled, run.folder)
    _write_curves(compared, settings, run.folder)
    calibrated = calibration.apply(target, joined.test[0])
    _write_predictions(labelled, [*compared, Trained(CALIBRATED, GENEBERT, [], [], [calibrated])], run.folder)
    metrics = _facts(labelled, pretrained) | {
        "test_rows_sharing_32_bases_with_pretraining": _shared_with_pretraining(labelled, pretrained, settings.corpus),
        "cell_type_distances": distances,
        "members": [key for key, _ in members],
        "not_compared": failed,
        "branch_weights": [fitted.branch_weights for _, fitted in members if isinstance(fitted, FittedGeneBert)],
        "oriented": _tells_strands(settings),
        "calibration": _facts_of(calibration, labelled, joined.test[0], calibrated),
        "threshold": threshold,
        "results": [row for one in compared for row in _measured(one, labelled, settings)],
    }
    out = run.finish(metrics)
    _tell(metrics)
    return out


def _tells_strands(settings: FinetuneSettings) -> bool:
    """Return whether anything in the predictor tells the strands of oriented windows apart."""
    kinds = [method_class(key) for key in settings.ensemble]
    able = settings.network or any(kind.strand_as_given or "oriented" in kind.model_fields for kind in kinds)
    return settings.oriented and able


def _cell_type_distances(labelled: Labelled, folder: Path) -> list[dict[str, Any]]:
    """Keep the TF usage of the cell types that are trained on; return how far from it held-out ones are."""
    corpus = labelled.corpus
    if corpus is None:
        return []
    known = KnownCellTypes.of(corpus, sorted(set(labelled.windows["train"].table["cell_type"])))
    known.save(folder)
    return new_cell_types(known.distances(corpus, sorted(set(labelled.windows["test"].table["cell_type"]))))


def title_of(predictor: Manifest) -> str:
    """Return what a predictor is called among the methods that it was compared with: it comes first."""
    return str(predictor.metrics["results"][0]["method"])


def joined_of(methods: Sequence[Trained]) -> Trained:
    """Return the average of methods, each of which is the average of its seeds, as `Ensemble` predicts."""
    valid, test = (mean_over_methods([getattr(one, split) for one in methods]) for split in ("valid", "test"))
    return Trained(ENSEMBLE, GENEBERT, [], [valid], [test])


def method_of(key: str, settings: FinetuneSettings) -> Method:
    """Return a method with what it shares with GeneBERT set alike, as far as it can be."""
    kind, shared = method_class(key), ("oriented", "class_weights", "device")
    options = {name: getattr(settings, name) for name in shared if name in kind.model_fields}
    if settings.own_accessibility and "accessibility" in kind.model_fields:
        options["accessibility"] = "own"
    return kind(**options)


def _train_key(key: str, training: Training, settings: FinetuneSettings) -> Trained:
    method = method_of(key, settings)
    return training.train(method.title, key, method)


def _compared(training: Training, title: str, key: str, method: Method, failed: dict[str, str]) -> list[Trained]:
    """Return a method to compare with, trained; none if it cannot be: that is said, and must not cost the predictor."""
    try:
        return [training.train(title, key, method)]
    except ResumableError:
        raise
    except UserError as error:
        failed[title] = str(error)
        say(f"warning: {title} is left out of the comparison: {error}")
        return []


def _facts(labelled: Labelled, pretrained: Manifest) -> dict[str, Any]:
    """Return what is to be known about the labels."""
    windows = labelled.windows
    tuned = np.concatenate([windows[split].codes for split in TUNED_ON])
    return {
        "target": labelled.target.to_json(),
        "window_width": windows["train"].codes.shape[1],
        "per_cell_type": labelled.corpus is not None,
        "rows": {split: len(one) for split, one in windows.items()},
        "test_rows_with_a_training_sequence": _equal_rows(windows["test"].codes, tuned),
        "test_rows_sharing_32_bases": int(sharing(windows["test"].codes, tuned).sum()),
        "seen_chromosomes": _seen_chromosomes(labelled, pretrained),
        "ambiguous_bases_read_as_n": sum({w.path: w.ambiguous for w in windows.values()}.values()),
    }


def _shared_with_pretraining(labelled: Labelled, pretrained: Manifest, given: Path | None) -> int | None:
    """Return how many test rows share 32 bases with a training region of the corpus that the model was pre-trained on.

    None if that corpus is neither the given one nor where it was.
    """
    corpus = _corpus_of(pretrained, given)
    if corpus is None:
        return None
    return int(sharing_with_any(labelled.windows["test"].codes, training_rows(corpus, corpus.sequence)).sum())


def _corpus_of(pretrained: Manifest, given: Path | None) -> Corpus | None:
    """Return the corpus that a model was pre-trained on, or None if it is not to be found."""
    for folder in (given, Path(pretrained.inputs["corpus"]["path"])):
        with suppress(UserError):
            if folder and (corpus := Corpus.open(folder)).fingerprint == pretrained.metrics["corpus_fingerprint"]:
                return corpus
    say(
        f"{pretrained.inputs['corpus']['path']}, which the model was pre-trained on, is not there, or is another one:"
        " it is not checked whether test rows share 32 bases with it (--corpus says where it is)"
    )
    return None


def _facts_of(
    calibration: Calibration, labelled: Labelled, before: NDArray[np.float64], after: NDArray[np.float64]
) -> dict[str, Any] | None:
    """Return a calibration, and the calibration error of the test rows before and after; None for numbers."""
    target, truth = labelled.target, labelled.examples("test").known_truth
    if target.kind == "value":
        return None
    errors = {
        "before": calibration_error(target, truth, before),
        "after": calibration_error(target, truth, after, calibration.threshold(target)),  # the same classes
    }
    offsets = dict(zip(target.names, calibration.offsets, strict=False))  # there may be none
    return {
        "temperature": calibration.temperature,
        "offsets": offsets,
        "at_bounds": calibration.at_bounds(target),
        **{f"error_{name}": error for name, error in errors.items()},
    }


def _equal_rows(test: NDArray[np.uint8], tuned: NDArray[np.uint8]) -> int:
    """Return how many test rows have a sequence that occurs in training or validation, letter by letter."""
    seen = {row.tobytes() for row in tuned}
    return sum(row.tobytes() in seen for row in test)


def _seen_chromosomes(labelled: Labelled, pretrained: Manifest) -> list[str]:
    """Return the chromosomes that anything is known to have been fitted or chosen on."""
    tuned = (labelled.windows[split] for split in TUNED_ON)
    chroms = (chrom for one in tuned if one.on_genome for chrom in one.table["chrom"])
    return sorted({*pretrained.metrics["train_chromosomes"], *chroms})


def _thresholds(valid: Sequence[NDArray[np.float64]], labelled: Labelled, settings: FinetuneSettings) -> list[float]:
    """Return from which probability on the second of two classes is predicted, for each run.

    Args:
        valid: predictions of the validation rows by each run.
        labelled: has their truth.
        settings: say whether the threshold is chosen on them.
    """
    if settings.threshold == "half":
        return [HALF] * len(valid)
    truth = labelled.examples("valid").known_truth
    return [best_threshold(truth, one[:, 1]) for one in valid]


def _measured(trained: Trained, labelled: Labelled, settings: FinetuneSettings) -> list[dict[str, Any]]:
    """Return rows {"method", "metric", "value", "low", "high", "seeds"} of the test rows."""
    thresholds = _thresholds(trained.valid, labelled, settings)
    found = labelled.target.measures(
        labelled.examples("test").known_truth, trained.test, thresholds, labelled.test_regions
    )
    return [{"method": trained.title, "metric": name, **estimate.to_json()} for name, estimate in found.items()]


def _write_curves(compared: Sequence[Trained], settings: FinetuneSettings, folder: Path) -> None:
    """Write the losses of GeneBERT: step, learning_rate, prediction, valid_{branch}, valid_prediction, method, seed.

    Without a network, there are none.
    """
    curves = [
        fitted.curves.assign(method=one.title, seed=settings.seed + i)
        for one in compared
        for i, fitted in enumerate(one.fitted)
        if isinstance(fitted, FittedGeneBert) and fitted.curves is not None
    ]
    table = pd.concat(curves) if curves else pd.DataFrame(columns=["step", "method", "seed"])
    table.to_csv(folder / "curves.tsv", sep="\t", index=False, float_format="%.6g")


def _write_predictions(labelled: Labelled, compared: Sequence[Trained], folder: Path) -> None:
    table = labelled.windows["test"].table.copy()
    for one in compared:
        mean = np.mean(one.test, axis=0)
        for i, name in enumerate(labelled.target.names):
            table[f"{one.title}: {name}"] = mean[:, i]
    table.to_csv(folder / PREDICTIONS_FILE, sep="\t", index=False, float_format="%.6g")


def _tell(metrics: dict[str, Any]) -> None:
    for what, count in (
        ("have a sequence that was trained on", metrics["test_rows_with_a_training_sequence"]),
        ("share 32 bases or more with a sequence that was trained on", metrics["test_rows_sharing_32_bases"]),
        (
            "share 32 bases or more with a region that the model was pre-trained on",
            metrics["test_rows_sharing_32_bases_with_pretraining"],
        ),
    ):
        if count:
            say(f"{count:,} of {metrics['rows']['test']:,} test rows {what}")
    for line in (metrics["calibration"] or {}).get("at_bounds", []):
        say(f"Calibration: {line}")
    say_second_class(Target.from_json(metrics["target"]))
    for row in metrics["results"]:
        if ":" not in row["metric"]:
            say(f"{row['method']}: {row['metric']} {Estimate(row['value'], row['low'], row['high'])}")
