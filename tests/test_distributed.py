import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import toys
from processes import PROCESSES, losses_and_tensors, new_model, run_in_processes, train_together

from genebert.distributed import gather, rank, total, world_size
from genebert.model.config import GeneBertConfig
from genebert.model.genebert import TASKS
from genebert.pretraining_data import Extras, PretrainingBatch, PretrainingData

CONFIG = GeneBertConfig(
    k=3,
    max_tokens=128,
    hidden_size=16,
    layers=1,
    heads=2,
    dropout=0.0,
    motifs=3,
    region_columns=8,
    patch=(2, 2),
    window=2,
    embed_dim=8,
    depths=[1, 1],
    stage_heads=[1, 2],
    projection_dim=8,
    region_decoder=True,
    signal_head=True,
)
ROWS = 12
EXTRAS = Extras(CONFIG.patch_grid, tuple(CONFIG.patch), hard_negatives=True, reverse_complement=True)


def batches() -> list[tuple[PretrainingBatch, list[PretrainingBatch]]]:
    """Joint batches and their parts: as drawn, with no intact example in one part, and with none at all."""
    corpus = toys.random_corpus(np.random.default_rng(0), regions=40)
    data = PretrainingData(corpus, "train", k=3, columns=8, batch_size=ROWS, mask_fraction=0.15, seed=0, extras=EXTRAS)
    joint, parts = data.batch(0), [data.batch(0, i, PROCESSES) for i in range(PROCESSES)]
    result = []
    for adjacent in (joint.adjacent, torch.tensor([0.0] * 6 + [1.0] * 6), torch.zeros(ROWS)):
        shares = zip(parts, adjacent.chunk(PROCESSES), strict=True)
        result.append((changed(joint, adjacent), [changed(part, share) for part, share in shares]))
    return result


def changed(batch: PretrainingBatch, adjacent: torch.Tensor) -> PretrainingBatch:
    return dataclasses.replace(batch, adjacent=adjacent, has_closed=batch.has_closed & (batch.region != 4))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    given = CONFIG, TASKS, [parts for _, parts in batches()]
    return run_in_processes(train_together, given, tmp_path_factory.mktemp("processes"))


def test_without_a_process_group_there_is_nothing_to_exchange() -> None:
    tensor = torch.arange(3.0, requires_grad=True)
    assert (rank(), world_size()) == (0, 1)
    assert gather(tensor) is tensor and total(tensor) is tensor


def test_gathering_and_adding_up_by_hand(together: Sequence[Sequence[Any]]) -> None:
    first, second = together[0][0], together[1][0]
    assert (first["place"], second["place"]) == ((0, 2), (1, 2))
    for found in (first, second):
        assert found["gathered"].tolist() == [[1, 2], [3, 4], [11, 12], [13, 14]]
        assert found["summed"].tolist() == [[12, 14], [16, 18]]
        assert found["marks"].tolist() == [True, True, False, True]
    # A number's gradient adds up what both losses, of weight 1 and 2, make of it.
    assert first["grad"].tolist() == [[0, 3 * (1 + 100)], [6, 9]]
    assert second["grad"].tolist() == [[12, 3 * (5 + 100)], [18, 21]]


def test_the_parts_of_a_joint_batch_differ_and_share_regions() -> None:
    joint, (first, second) = batches()[0]
    assert len(first.scored_row) != len(second.scored_row)
    assert first.adjacent.sum() != second.adjacent.sum() > 0
    assert set(first.region.tolist()) & set(second.region.tolist())
    assert 0 < joint.has_closed.sum() < ROWS


@pytest.mark.parametrize("case", range(3), ids=["as drawn", "none intact in one process", "none intact"])
def test_losses_and_gradients_of_two_processes_are_those_of_the_joint_batch(
    case: int, together: Sequence[Sequence[Any]]
) -> None:
    losses, tensors = losses_and_tensors(new_model(CONFIG, TASKS), batches()[case][0])
    assert set(losses) == set(TASKS)
    assert (losses["srm"] == 0) == (case == 2)
    for found in together:
        assert found[1 + case][0] == pytest.approx(losses, rel=1e-5)
        for name, expected in tensors.items():
            torch.testing.assert_close(found[1 + case][1][name], expected, rtol=1e-3, atol=1e-3, msg=name)
