"""The pre-trained models that methods begin with, and what they have seen, without labels, of what is tested on."""

from collections.abc import Iterable, Sequence

from genebert.benchmark.entries import MethodEntry
from genebert.errors import UserError, problem
from genebert.finetune import chromosomes_among
from genebert.stage import Manifest, read_manifest
from genebert.tasks.windows import Windows

OPTION = "model"
"""Of methods that begin with a pre-trained model: its folder."""
CHROMOSOMES = "train_chromosomes"


def pretrained_of(entry: MethodEntry, needed: Iterable[str]) -> Manifest | None:
    """Return the manifest of the model whose weights a method begins with, or None if it begins with none.

    Args:
        entry: the method.
        needed: what the manifest has to say among its metrics.

    Raises:
        UserError: the model is no folder made by `pretrain`, or does not say what it was trained on.
    """
    method = entry.configured
    folder = getattr(method, OPTION, None)
    if folder is None or getattr(method, "initial", None) == "random":  # of which only the sizes are taken
        return None
    model = read_manifest(folder, "pretrain")
    if missing := [name for name in needed if name not in model.metrics]:
        what = f"an earlier version made it, which did not write {', '.join(missing)}"
        raise UserError(problem(folder, what, "Pre-train again."))
    return model


def said_of(what: str, names: Sequence[str]) -> list[str]:
    """Return in words that a model was pre-trained on some of what is tested on, if there is any."""
    return [f"pre-trained, without labels, on {what} that are tested on: {', '.join(names)}"] if names else []


def seen_chromosomes(model: Manifest | None, test: Windows) -> list[str]:
    """Return in words on which chromosomes of the test rows, if they have coordinates, a model was pre-trained."""
    seen = chromosomes_among(test, model.metrics[CHROMOSOMES]) if model is not None and test.on_genome else []
    return said_of("chromosomes", seen)
