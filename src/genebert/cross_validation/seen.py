"""Which of the cell types and chromosomes that are tested on a pre-trained model has seen, without their labels."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from genebert.benchmark.entries import MethodEntry
from genebert.benchmark.pretrained import CHROMOSOMES, pretrained_of, said_of
from genebert.corpus.store import Corpus
from genebert.cross_validation.folds import Fold
from genebert.errors import UserError
from genebert.inputs.genome import spelled_chromosomes
from genebert.stage import Manifest

_SAID = (CHROMOSOMES, "valid_cell_types", "test_cell_types")


def seen_by(entry: MethodEntry, folds: Sequence[Fold]) -> list[str]:
    """Return in words which of the cell types and chromosomes that are tested on a method's model was pre-trained on.

    Args:
        entry: the method; one without a pre-trained model has seen nothing.
        folds: all of them.

    Raises:
        UserError: the model is no folder made by `pretrain`, or does not say what it was trained on.
    """
    model = pretrained_of(entry, _SAID)
    if model is None:
        return []
    tested = {
        what: dict.fromkeys(name for fold in folds for name in fold.parts[f"test_{what}"])
        for what in ("cell_types", "chromosomes")
    }
    chromosomes = set(spelled_chromosomes(model.metrics[CHROMOSOMES], tested["chromosomes"]).values())
    cell_types = _cell_types(model, tested["cell_types"])
    seen = {"cell types": cell_types, "chromosomes": chromosomes}
    every = zip(seen, tested.values(), strict=True)
    return [said for what, names in every for said in said_of(what, [name for name in names if name in seen[what]])]


def _cell_types(model: Manifest, tested: Iterable[str]) -> set[str]:
    """Return the cell types that a model was pre-trained on, or where its corpus is gone, may have been."""
    held_out = {*model.metrics["valid_cell_types"], *model.metrics["test_cell_types"]}
    try:
        corpus = Corpus.open(Path(model.inputs["corpus"]["path"]))
    except UserError:
        return set(tested) - held_out
    return set(corpus.cell_types) - held_out
