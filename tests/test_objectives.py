import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
import toys
from torch.nn import functional as F

from genebert.model.genebert import PretrainingOutput
from genebert.objectives import (
    accessibility_loss,
    joint_mean,
    matching_logits,
    mgm_loss,
    mrm_loss,
    ngsp_loss,
    no_candidates,
    pretraining_losses,
    rc_loss,
    srm_loss,
)
from genebert.pretraining_data import PretrainingBatch, PretrainingData

ONE = torch.tensor(1.0)
IDS = torch.tensor([5, 6, 5])
ALL = torch.ones(3, dtype=torch.bool)


def unit_vectors(*shape: int, seed: int = 0) -> Any:
    return F.normalize(torch.tensor(np.random.default_rng(seed).normal(size=shape)), dim=-1)


def test_joint_mean_by_hand() -> None:
    values = torch.tensor([1.0, 2.0, 6.0])
    assert joint_mean(values).item() == 3
    assert joint_mean(values, torch.tensor([True, False, True])).item() == 3.5
    assert joint_mean(values, torch.zeros(3, dtype=torch.bool)).item() == 0


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
    loss = srm_loss(sequence, region, torch.tensor(2.0), torch.tensor([0, 1]), ALL[:2])
    assert loss.item() == pytest.approx((rows + columns) / 2)


def test_pairs_of_one_region_and_replaced_sequences_are_no_negatives() -> None:
    assert no_candidates(IDS).nonzero().tolist() == [[0, 2], [2, 0]]
    blocked = no_candidates(IDS, torch.tensor([True, False, True]))
    assert blocked.nonzero().tolist() == [[0, 1], [0, 2], [2, 0], [2, 1]]
    sequence, region = unit_vectors(2, 3, 4)
    logits = matching_logits(sequence, region, torch.tensor(3.0), blocked)
    assert torch.isneginf(logits[blocked]).all()
    assert torch.allclose(logits[~blocked], 3 * (sequence @ region.T)[~blocked])


def test_srm_leaves_pairs_of_one_region_out_of_the_sum() -> None:
    sequence, region = unit_vectors(2, 3, 4, seed=1)
    s = (sequence @ region.T).tolist()
    allowed = [[0, 1], [0, 1, 2], [1, 2]]
    rows = [math.log(sum(math.exp(s[i][j]) for j in allowed[i])) - s[i][i] for i in range(3)]
    columns = [math.log(sum(math.exp(s[j][i]) for j in allowed[i])) - s[i][i] for i in range(3)]
    assert srm_loss(sequence, region, ONE, IDS, ALL).item() == pytest.approx((sum(rows) + sum(columns)) / 6)


def test_replaced_sequences_are_neither_queries_nor_candidates_but_their_matrices_are_candidates() -> None:
    generator = torch.Generator().manual_seed(0)
    sequence, region = (torch.randn(9, 4, generator=generator).requires_grad_() for _ in range(2))
    intact = torch.arange(9) % 3 > 0
    scale = torch.tensor(5.0, requires_grad=True)
    given = sequence, region, scale
    loss = srm_loss(*given, torch.arange(9), intact)
    by_sequence = F.cross_entropy(scale * sequence[intact] @ region.T, torch.arange(9)[intact])
    by_region = F.cross_entropy(scale * region[intact] @ sequence[intact].T, torch.arange(6))
    expected = (by_sequence + by_region) / 2
    assert loss.item() == pytest.approx(expected.item())
    for found, wanted in zip(torch.autograd.grad(loss, given), torch.autograd.grad(expected, given), strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)


def test_a_closed_matrix_is_one_more_negative_of_its_own_sequence() -> None:
    sequence, region, closed = unit_vectors(3, 3, 4, seed=2)
    has_closed = torch.tensor([True, False, True])
    ids, scale = torch.arange(3), torch.tensor(2.0)
    s, hard = (2 * sequence @ region.T).tolist(), (2 * sequence * closed).sum(1).tolist()
    more = [math.exp(h) if has else 0.0 for h, has in zip(hard, has_closed.tolist(), strict=True)]
    rows = [math.log(sum(map(math.exp, s[i])) + more[i]) - s[i][i] for i in range(3)]
    columns = [math.log(sum(math.exp(s[j][i]) for j in range(3))) - s[i][i] for i in range(3)]
    loss = srm_loss(sequence, region, scale, ids, ALL, closed, has_closed)
    assert loss.item() == pytest.approx((sum(rows) + sum(columns)) / 6)
    without = srm_loss(sequence, region, scale, ids, ALL)
    assert srm_loss(sequence, region, scale, ids, ALL, closed, ~ALL).item() == pytest.approx(without.item())


def test_matching_is_exact_under_autocast() -> None:
    # Similarities in bfloat16, times an inverse temperature of 100, are wrong by up to 0.4.
    sequence, region = unit_vectors(2, 8, 64).float()
    exact = srm_loss(sequence, region, torch.tensor(100.0), torch.arange(8), torch.ones(8, dtype=torch.bool))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = srm_loss(sequence, region, torch.tensor(100.0), torch.arange(8), torch.ones(8, dtype=torch.bool))
    assert found.item() == exact.item()


def test_a_batch_of_one_region_has_nothing_to_learn_and_a_finite_gradient() -> None:
    sequence = torch.eye(3, requires_grad=True)
    loss = srm_loss(sequence, torch.eye(3), ONE, torch.tensor([4, 4, 4]), ALL)
    loss.backward()
    assert loss.item() == 0
    assert (sequence.grad == 0).all()


def test_a_batch_without_an_intact_example_has_no_loss_and_a_gradient() -> None:
    sequence = torch.eye(3, requires_grad=True)
    loss = srm_loss(sequence, torch.eye(3), ONE, torch.arange(3), ~ALL, torch.eye(3), ALL)
    loss.backward()
    assert loss.item() == 0
    assert (sequence.grad == 0).all()


def test_mrm_scores_hidden_pixels_alone() -> None:
    pixels, decoded = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    decoded[0, :, 0, 0] = torch.tensor([0.5, 3.0])
    decoded[0, :, 1, 1] = 100.0
    hidden = torch.tensor([[True, True], [False, False]]).expand(1, 2, 2, 2).clone()
    assert mrm_loss(decoded, pixels, hidden).item() == pytest.approx((0.5**2 / 2 + (3 - 0.5)) / 4)
    hidden[0, 1] = False
    assert mrm_loss(decoded, pixels, hidden).item() == pytest.approx(0.5**2 / 2 / 2)


def test_rc_by_hand() -> None:
    sequence, reverse = torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    assert rc_loss(sequence, reverse, ALL).item() == pytest.approx((0 + 0.4 + 2) / 3)
    assert rc_loss(sequence, reverse, torch.tensor([True, True, False])).item() == pytest.approx(0.2)


def test_accessibility_by_hand() -> None:
    signal, target = torch.tensor([0.0, 1.0, 9.0]), torch.tensor([0.5, -1.0, 0.0])
    assert accessibility_loss(signal, target, ALL).item() == pytest.approx((0.125 + 1.5 + 8.5) / 3)
    assert accessibility_loss(signal, target, torch.tensor([True, True, False])).item() == pytest.approx(1.625 / 2)


def batch_of_16() -> PretrainingBatch:
    corpus = toys.random_corpus(np.random.default_rng(0))
    return PretrainingData(corpus, "train", k=3, columns=4, batch_size=16, mask_fraction=0.15, seed=0).batch(0)


def output_for(batch: PretrainingBatch, **more: torch.Tensor) -> PretrainingOutput:
    generator = torch.Generator().manual_seed(0)
    sequence, region = (torch.randn(16, 8, generator=generator).requires_grad_() for _ in range(2))
    return PretrainingOutput(
        base_log_probs=torch.randn(len(batch.scored_row), 4, generator=generator).log_softmax(-1),
        adjacent_logits=torch.zeros(16),
        sequence=sequence,
        region=region,
        scale=ONE,
        **more,
    )


def test_replaced_sequences_get_no_gradient_from_srm() -> None:
    batch = batch_of_16()
    intact = batch.adjacent > 0
    assert 0 < intact.sum() < 16
    output = output_for(batch)
    losses = pretraining_losses(output, batch)
    assert list(losses) == ["mgm", "ngsp", "srm"]
    assert losses["mgm"].item() == pytest.approx(mgm_loss(output.base_log_probs, batch.scored_target).item())
    assert losses["ngsp"].item() == pytest.approx(math.log(2))
    losses["srm"].backward()
    assert ((output.sequence.grad != 0).any(dim=1) == intact).all()
    assert (output.region.grad != 0).any(dim=1).all()


def test_replaced_examples_and_those_without_a_closed_cell_type_do_not_count_in_the_extras() -> None:
    batch = batch_of_16()
    intact = batch.adjacent > 0
    has_closed = torch.arange(16) % 2 == 0
    batch = dataclasses.replace(batch, closed=batch.matrix, has_closed=has_closed)
    wrong = torch.where(torch.cat([intact, intact & has_closed]), 0.0, 7.0)
    reverse = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    output = output_for(batch, reverse=reverse, signal=wrong, signal_target=torch.zeros(32))
    losses = pretraining_losses(output, batch)
    assert losses["accessibility"].item() == 0
    expected = (1 - (output.sequence * reverse).sum(1))[intact].mean()
    assert losses["rc"].item() == pytest.approx(expected.item())


def test_losses_of_tasks_that_are_off_are_not_there() -> None:
    batch = batch_of_16()
    assert pretraining_losses(PretrainingOutput(), batch) == {}
    assert list(pretraining_losses(PretrainingOutput(adjacent_logits=torch.zeros(16)), batch)) == ["ngsp"]
