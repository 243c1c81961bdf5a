"""What a process of several does when they validate together, for tests; see `processes`."""

from collections.abc import Sequence

from genebert.distributed import rank
from genebert.model.genebert import GeneBertForPreTraining
from genebert.pretraining_data import PretrainingBatch
from genebert.pretraining_evaluation import validation_metrics


def validate_together(given: tuple[GeneBertForPreTraining, Sequence[Sequence[PretrainingBatch]]]) -> dict[str, float]:
    """Validate on joint batches, of which each process has a part."""
    model, batches = given
    return validation_metrics(model, [parts[rank()] for parts in batches])
