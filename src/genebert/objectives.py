"""The pre-training losses as pure functions: (outputs, batch) -> named parts."""

import torch
from torch.nn import functional as F

from genebert.batches import PretrainingBatch
from genebert.model.genebert import PretrainingOutput


def mgm_loss(base_log_probs: torch.Tensor, scored_digit: torch.Tensor) -> torch.Tensor:
    """Masked genome modelling: mean negative log-likelihood of hidden bases, in nats; ignorance is log 4.

    Args:
        base_log_probs: log p(base), shape (s, 4).
        scored_digit: the bases, int64, shape (s,).
    """
    return F.nll_loss(base_log_probs, scored_digit)


def ngsp_loss(adjacent_logits: torch.Tensor, adjacent: torch.Tensor) -> torch.Tensor:
    """Next genome segment prediction: binary cross-entropy of adjacency; both of shape (b,)."""
    return F.binary_cross_entropy_with_logits(adjacent_logits.float(), adjacent)


def matching_logits(
    sequence: torch.Tensor, region: torch.Tensor, scale: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """Return the similarity of every sequence with every region matrix: shape (b, b).

    Pairs off the diagonal that share the region (it is accessible in several cell types) are no negatives:
    they are -inf.
    """
    logits = scale * sequence @ region.T
    same = (ids[:, None] == ids[None, :]) & ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)
    return logits.masked_fill(same, -torch.inf)


def srm_loss(sequence: torch.Tensor, region: torch.Tensor, scale: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Sequence-region matching: symmetric contrastive loss (Radford et al. 2021) over a batch.

    Args:
        sequence, region: unit vectors, shape (b, projection).
        scale: inverse temperature.
        ids: region of each example, int64, shape (b,).
    """
    if len(ids) == 0:
        return sequence.sum() * 0.0
    logits = matching_logits(sequence, region, scale, ids)
    target = torch.arange(len(ids), device=ids.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def pretraining_losses(output: PretrainingOutput, batch: PretrainingBatch) -> dict[str, torch.Tensor]:
    """Return the losses of the three tasks by name.

    SRM leaves out the examples whose second segment was replaced: their sequence is not that of their region.
    """
    assert output.base_log_probs is not None and output.adjacent_logits is not None
    assert output.sequence is not None and output.region is not None and output.scale is not None
    intact = batch.adjacent > 0
    return {
        "mgm": mgm_loss(output.base_log_probs, batch.scored_digit),
        "ngsp": ngsp_loss(output.adjacent_logits, batch.adjacent),
        "srm": srm_loss(output.sequence[intact], output.region[intact], output.scale, batch.region[intact]),
    }
