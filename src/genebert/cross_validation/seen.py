"""Which of the cell types and chromosomes that are tested on a pre-trained model has seen, without their labels."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from genebert.benchmark.entries import MethodEntry
from genebert.corpus.store import Corpus
from genebert.cross_validation.folds import Fold
from genebert.errors import UserError, problem
from genebert.inputs.genome import spelled_chromosomes
from genebert.stage import Manifest, read_manifest

OPTION = "model"
"""Of methods that begin with a pre-trained model: its folder."""
_SAID = ("train_chromosomes", "valid_cell_types", "test_cell_types")


def seen_by(entry: MethodEntry, folds: Sequence[Fold]) -> list[str]:
    """Return in words which of the cell types and chromosomes that are tested on a method's model was pre-trained on.

    Args:
        entry: the method; one without a pre-trained model has seen nothing.
        folds: all of them.

    Raises:
        UserError: the model is no folder made by `pretrain`, or does not say what it was trained on.
    """
    method = entry.configured
    folder = getattr(method, OPTION, None)
    if folder is None or getattr(method, "initial", None) == "random":  # of which only the sizes are taken
        return []
    model = read_manifest(folder, "pretrain")
    if missing := [name for name in _SAID if name not in model.metrics]:
        what = f"an earlier version made it, which did not write {', '.join(missing)}"
        raise UserError(problem(folder, what, "Pre-train again."))
    tested = {
        what: dict.fromkeys(name for fold in folds for name in fold.parts[f"test_{what}"])
        for what in ("cell_types", "chromosomes")
    }
    chromosomes = spelled_chromosomes(model.metrics["train_chromosomes"], tested["chromosomes"])
    cell_types = _cell_types(model, tested["cell_types"])
    return [
        f"pre-trained, without labels, on {what} that are tested on: {', '.join(names)}"
        for what, names in (
            ("cell types", [name for name in tested["cell_types"] if name in cell_types]),
            ("chromosomes", [name for name in tested["chromosomes"] if name in set(chromosomes.values())]),
        )
        if names
    ]


def _cell_types(model: Manifest, tested: Iterable[str]) -> set[str]:
    """Return the cell types that a model was pre-trained on, or where its corpus is gone, may have been."""
    held_out = {*model.metrics["valid_cell_types"], *model.metrics["test_cell_types"]}
    try:
        corpus = Corpus.open(Path(model.inputs["corpus"]["path"]))
    except UserError:
        return set(tested) - held_out
    return set(corpus.cell_types) - held_out
