"""The losses as pure functions: of pre-training, (outputs, batch) -> named parts, and of predicting a target.

Under data parallelism each is the loss of the joint batch of all processes, the same number in every one, whose
gradients DDP and FSDP average to the gradient of the joint batch (see `distributed`).
"""

from typing import Any

import torch
from torch.nn import functional as F

from genebert.distributed import gather, rank, total
from genebert.model.genebert import PretrainingOutput
from genebert.pretraining_data import PretrainingBatch
from genebert.target import Kind


def joint_mean(values: torch.Tensor, counted: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean over the joint batch; 0 if nothing is counted.

    Args:
        values: any shape.
        counted: bool, the same shape: which values to average; all if None.
    """
    weight = torch.ones_like(values) if counted is None else counted.to(values.dtype)
    summed, count = total(torch.stack([(values * weight).sum(), weight.sum()]))
    return summed / count.clamp(min=1)


def mgm_loss(base_log_probs: torch.Tensor, scored_target: torch.Tensor) -> torch.Tensor:
    """Masked genome modelling: mean negative log-likelihood of hidden bases, in nats; ignorance is log 4.

    Args:
        base_log_probs: log p(base), shape (s, 4), or log p(k-mer), shape (s, 4^k).
        scored_target: the bases, or k-mers, int64, shape (s,).
    """
    return joint_mean(F.nll_loss(base_log_probs, scored_target, reduction="none"))


def ngsp_loss(adjacent_logits: torch.Tensor, adjacent: torch.Tensor) -> torch.Tensor:
    """Next genome segment prediction: binary cross-entropy of adjacency; both of shape (b,)."""
    return joint_mean(F.binary_cross_entropy_with_logits(adjacent_logits.float(), adjacent, reduction="none"))


def no_candidates(ids: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Return which pairs of an example (row) and one of the joint batch (column) SRM does not compare: bool.

    Other examples of the same region (accessible in several cell types) are no negatives.

    Args:
        ids: region of each example, int64, shape (b,).
        valid: bool, shape (b,): which examples are candidates for others; all if None.
    """
    blocked = ids[:, None] == gather(ids)
    if valid is not None:
        blocked |= ~gather(valid)
    return blocked.scatter(1, _own_columns(ids)[:, None], False)


def _own_columns(ids: torch.Tensor) -> torch.Tensor:
    return rank() * len(ids) + torch.arange(len(ids), device=ids.device)


def matching_logits(
    queries: torch.Tensor, candidates: torch.Tensor, scale: torch.Tensor, blocked: torch.Tensor
) -> torch.Tensor:
    """Return the similarity of unit vectors, shape (b, c), -inf where blocked.

    Args:
        queries, candidates: shape (b, projection) and (c, projection).
        scale: inverse temperature.
        blocked: bool, shape (b, c).
    """
    with torch.autocast(queries.device.type, enabled=False):  # a high inverse temperature needs all the digits
        return (scale * queries @ candidates.T).masked_fill(blocked, -torch.inf)


def srm_loss(
    sequence: torch.Tensor,
    region: torch.Tensor,
    scale: torch.Tensor,
    ids: torch.Tensor,
    intact: torch.Tensor,
    closed: torch.Tensor | None = None,
    has_closed: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sequence-region matching: symmetric contrastive loss (Radford et al. 2021) over the joint batch.

    Each process compares its own rows with the candidates of all, in both directions. Where the second segment was
    replaced, the region matrix still is that of a region, and is a candidate; the sequence is none.

    Args:
        sequence, region: unit vectors, shape (b, projection).
        scale: inverse temperature.
        ids: region of each example, int64, shape (b,).
        intact: bool, shape (b,): False if the sequence is not that of the region; such examples are left out.
        closed: unit vectors of the matrices of the same regions in cell types where they are not accessible, shape
            (b, projection): one more negative for each sequence.
        has_closed: bool, shape (b,): False if there is no such cell type.
    """
    target = _own_columns(ids)
    by_sequence = matching_logits(sequence, gather(region), scale, no_candidates(ids))
    by_region = matching_logits(region, gather(sequence), scale, no_candidates(ids, intact))
    if closed is not None and has_closed is not None:
        hard = (scale * (sequence * closed).sum(dim=1)).masked_fill(~has_closed, -torch.inf)
        by_sequence = torch.cat([by_sequence, hard[:, None]], dim=1)
    both = [F.cross_entropy(logits, target, reduction="none") for logits in (by_sequence, by_region)]
    return joint_mean((both[0] + both[1]) / 2, intact)


def mrm_loss(decoded: torch.Tensor, pixels: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Masked region modelling: smooth L1 distance at hidden pixels, each in standard deviations.

    Xie et al. (2022) find L1, smooth L1 and L2 alike. Motif evidence is mostly low with rare high values, which are
    what matters: L1 would settle on the median, L2 follow the outliers.

    Args:
        decoded, pixels: reconstruction and truth, shape (b, channels, motifs, R).
        hidden: which are hidden: bool, shape (b, channels, motifs, R).
    """
    return joint_mean(F.smooth_l1_loss(decoded, pixels, reduction="none"), hidden)


def rc_loss(sequence: torch.Tensor, reverse: torch.Tensor, intact: torch.Tensor) -> torch.Tensor:
    """Reverse-complement consistency: 1 - cosine of a sequence's and its reverse complement's projections.

    It is the space of SRM, whose negatives keep it from shrinking to a point, where all would agree.

    Args:
        sequence, reverse: unit vectors, shape (b, projection).
        intact: bool, shape (b,): which examples count.
    """
    return joint_mean(1 - (sequence * reverse).sum(dim=1), intact)


def accessibility_loss(signal: torch.Tensor, target: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Accessibility: smooth L1 distance of predicted and true log1p signal, in standard deviations.

    A region that is not accessible lies far below those that are, hence not the square.

    Args:
        signal, target: shape (n,).
        counted: bool, shape (n,).
    """
    return joint_mean(F.smooth_l1_loss(signal, target, reduction="none"), counted)


def pretraining_losses(output: PretrainingOutput, batch: PretrainingBatch) -> dict[str, torch.Tensor]:
    """Return the losses by name of the tasks that the model computed and the batch has.

    Those that compare modalities or strands leave out the examples whose second segment was replaced: their sequence
    is not that of their region.
    """
    found: Any = output  # what a task needs is all there, or not at all
    intact = batch.adjacent > 0
    losses = {}
    if found.base_log_probs is not None:
        losses["mgm"] = mgm_loss(found.base_log_probs, batch.scored_target)
    if found.adjacent_logits is not None:
        losses["ngsp"] = ngsp_loss(found.adjacent_logits, batch.adjacent)
    if found.region is not None:
        vectors = found.sequence, found.region, found.scale
        losses["srm"] = srm_loss(*vectors, batch.region, intact, found.closed, batch.has_closed)
    if found.decoded is not None:
        losses["mrm"] = mrm_loss(found.decoded, found.pixels, found.hidden)
    if found.reverse is not None:
        losses["rc"] = rc_loss(found.sequence, found.reverse, intact)
    if found.signal is not None:
        counted = intact if batch.has_closed is None else torch.cat([intact, intact & batch.has_closed])
        losses["accessibility"] = accessibility_loss(found.signal, found.signal_target, counted)
    return losses


def prediction_loss(
    kind: Kind, logits: torch.Tensor, truth: torch.Tensor, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the loss of predictions: nats per row or known label, or squared standard deviations; see `Target.loss`.

    Args:
        kind: of the target.
        logits: outputs of a network, shape (b, names).
        truth: classes, int64, shape (b,); labels, float, shape (b, names), NaN where unknown; or a number in standard
            deviations from its mean, float, shape (b, 1).
        class_weights: of the rows of each class, shape (classes,); 1 on average over all rows, so that the loss
            stays of the same size.
    """
    logits = logits.float()
    if kind == "value":
        return joint_mean(F.mse_loss(logits, truth, reduction="none"))
    if kind == "labels":
        known = truth.isfinite()
        answers = torch.where(known, truth, 0.0)
        return joint_mean(F.binary_cross_entropy_with_logits(logits, answers, reduction="none"), known)
    weights = None if class_weights is None else class_weights.to(logits.device)
    return joint_mean(F.cross_entropy(logits, truth, weights, reduction="none"))
