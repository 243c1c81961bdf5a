import math

import numpy as np
import pytest
import torch
import toys
from torch.nn import functional as F

from genebert.batches import PretrainingData
from genebert.model.genebert import PretrainingOutput
from genebert.objectives import matching_logits, mgm_loss, ngsp_loss, pretraining_losses, srm_loss

ONE = torch.tensor(1.0)
IDS = torch.tensor([5, 6, 5])


def test_mgm_by_hand() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4]])
    expected = -(math.log(0.5) + math.log(0.4)) / 2
    assert mgm_loss(probabilities.log(), torch.tensor([0, 3])).item() == pytest.approx(expected)
    assert mgm_loss(torch.full((3, 4), 0.25).log(), torch.tensor([0, 1, 2])).item() == pytest.approx(math.log(4))


def test_ngsp_by_hand() -> None:
    logits, adjacent = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([1.0, 1.0, 0.0])
    expected = (math.log(2) + math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 3
    assert ngsp_loss(logits, adjacent).item() == pytest.approx(expected)
    assert ngsp_loss(logits.bfloat16(), adjacent).dtype == torch.float32


def test_srm_by_hand() -> None:
    sequence = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    region = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # scores: [[1, .6], [0, .8]] times 2
    rows = (math.log(math.exp(2) + math.exp(1.2)) - 2 + math.log(1 + math.exp(1.6)) - 1.6) / 2
    columns = (math.log(math.exp(2) + 1) - 2 + math.log(math.exp(1.2) + math.exp(1.6)) - 1.6) / 2
    assert srm_loss(sequence, region, torch.tensor(2.0), torch.tensor([0, 1])).item() == pytest.approx(
        (rows + columns) / 2
    )


def test_pairs_of_one_region_are_no_negatives() -> None:
    sequence, region = F.normalize(torch.tensor(np.random.default_rng(0).normal(size=(2, 3, 4))), dim=-1)
    logits = matching_logits(sequence, region, ONE, IDS)
    assert torch.isneginf(logits).nonzero().tolist() == [[0, 2], [2, 0]]
    others = ~torch.isneginf(logits)
    assert torch.allclose(logits[others], (sequence @ region.T)[others])


def test_srm_leaves_pairs_of_one_region_out_of_the_sum() -> None:
    sequence, region = F.normalize(torch.tensor(np.random.default_rng(1).normal(size=(2, 3, 4))), dim=-1)
    s = (sequence @ region.T).tolist()
    allowed = [[0, 1], [0, 1, 2], [1, 2]]
    rows = [math.log(sum(math.exp(s[i][j]) for j in allowed[i])) - s[i][i] for i in range(3)]
    columns = [math.log(sum(math.exp(s[j][i]) for j in allowed[i])) - s[i][i] for i in range(3)]
    assert srm_loss(sequence, region, ONE, IDS).item() == pytest.approx((sum(rows) + sum(columns)) / 6)


def test_a_batch_of_one_region_has_nothing_to_learn_and_a_finite_gradient() -> None:
    sequence = torch.eye(3, requires_grad=True)
    loss = srm_loss(sequence, torch.eye(3), ONE, torch.tensor([4, 4, 4]))
    loss.backward()
    assert loss.item() == 0
    assert (sequence.grad == 0).all()


def test_an_empty_batch_has_no_loss_and_a_gradient() -> None:
    sequence = torch.zeros((0, 4), requires_grad=True)
    loss = srm_loss(sequence, torch.zeros((0, 4)), ONE, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0


def test_replaced_examples_get_no_gradient_from_srm() -> None:
    corpus = toys.random_corpus(np.random.default_rng(0))
    data = PretrainingData(corpus, "train", k=3, columns=4, batch_size=16, mask_fraction=0.15, seed=0)
    batch = data.batch(0)
    intact = batch.adjacent > 0
    assert 0 < intact.sum() < 16
    generator = torch.Generator().manual_seed(0)
    sequence, region = (torch.randn(16, 8, generator=generator).requires_grad_() for _ in range(2))
    output = PretrainingOutput(
        base_log_probs=torch.randn(len(batch.scored_row), 4, generator=generator).log_softmax(-1),
        adjacent_logits=torch.zeros(16),
        sequence=F.normalize(sequence, dim=-1),
        region=F.normalize(region, dim=-1),
        scale=ONE,
    )
    losses = pretraining_losses(output, batch)
    assert list(losses) == ["mgm", "ngsp", "srm"]
    assert losses["mgm"].item() == pytest.approx(mgm_loss(output.base_log_probs, batch.scored_digit).item())
    assert losses["ngsp"].item() == pytest.approx(math.log(2))
    losses["srm"].backward()
    for side in (sequence, region):
        assert (side.grad[~intact] == 0).all()
        assert (side.grad[intact] != 0).any(dim=1).all()
