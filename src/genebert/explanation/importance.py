"""How much a score rests on each motif of region matrices; knows no network.

An effect is the score as it is, less the score without the evidence: positive where the evidence raises the score.
Evidence is taken away by setting it to its mean over the training regions. "All" is in all columns of the region
matrix, "own" in the window's own column alone; what lies between the two is the neighbourhood's.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import torch

from genebert.region_matrix import RegionMatrix

Score = Callable[[RegionMatrix, torch.Tensor], torch.Tensor]
"""(region matrices, the window that each is of, int64, shape (b,)) -> scores, float32, shape (b,)."""
AT_ONCE = 512
"""Region matrices scored together."""
COLUMNS = ("all", "own")


def gradient_x_input(score: Score, matrix: RegionMatrix, window: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Return gradient x input (Shrikumar et al. 2017) on standardised evidence: float32, shape (b, 2, motifs).

    It is to first order what occlusion finds, and needs one pass for all motifs. As the input is standardised evidence,
    its zero is the mean; and gradient x input does not depend on the scale, so that the raw evidence serves.

    Args:
        score: differentiable.
        matrix: region matrices.
        window: see `Score`.
        mean: of each motif's evidence, float32, shape (motifs,).
    """
    with torch.enable_grad():
        evidence = matrix.evidence.float().requires_grad_()
        (gradient,) = torch.autograd.grad(score(replace(matrix, evidence=evidence), window).sum(), evidence)
    product = gradient * (evidence.detach() - mean)
    return torch.stack([(product * _chosen(matrix, columns)[..., None]).sum(dim=1) for columns in COLUMNS], dim=1)


@torch.no_grad()
def occlusion(
    score: Score, matrix: RegionMatrix, window: torch.Tensor, mean: torch.Tensor, groups: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Return the effect of each group of motifs, which are taken away together: float32, shape (b, 2, groups).

    Args:
        score, matrix, window, mean: see `gradient_x_input`.
        groups: indices of motifs.
    """
    rows = len(window)
    step = max(1, AT_ONCE // rows)
    whole, found = score(matrix, window), []
    for columns in COLUMNS:
        chosen = _chosen(matrix, columns)
        for start in range(0, len(groups), step):
            some = groups[start : start + step]
            without = torch.cat([_without(matrix, chosen, mean, group) for group in some])
            scores = score(_repeated(matrix, without, len(some)), window.repeat(len(some)))
            found.append(whole - scores.view(len(some), rows))
    return torch.cat(found).view(len(COLUMNS), len(groups), rows).permute(2, 0, 1)


def _chosen(matrix: RegionMatrix, columns: str) -> torch.Tensor:
    return matrix.own if columns == "own" else matrix.present


def _without(matrix: RegionMatrix, chosen: torch.Tensor, mean: torch.Tensor, group: Sequence[int]) -> torch.Tensor:
    """Return evidence, float32, with the motifs of a group at their mean in the chosen columns."""
    evidence = matrix.evidence.float()
    for motif in group:
        evidence[..., motif] = torch.where(chosen, mean[motif], evidence[..., motif])
    return evidence


def _repeated(matrix: RegionMatrix, evidence: torch.Tensor, times: int) -> RegionMatrix:
    others = {field.name: getattr(matrix, field.name) for field in fields(matrix) if field.name != "evidence"}
    repeated = {name: one.repeat(times, *[1] * (one.dim() - 1)) for name, one in others.items() if one is not None}
    return RegionMatrix(evidence, **repeated)
