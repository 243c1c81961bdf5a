from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
import toys
from toy_models import equal

from genebert.region_matrix import Context, neighbourhood
from genebert.schema import decode, encode
from genebert.tokens import sequence_tokens
from genebert.window_data import WindowData


def windows(rows: int = 10, length: int = 40, **changes: Any) -> WindowData:
    generator = np.random.default_rng(1)
    codes = generator.integers(0, 5, size=(rows, length), dtype=np.uint8)
    evidence = generator.integers(0, 256, size=(rows, 4, 3), dtype=np.uint8)
    chosen = {"k": 3, "evidence": evidence, "truth": np.arange(rows), "batch_size": 4}
    return WindowData(codes, **(chosen | changes))


def shown(data: WindowData, steps: Iterable[int]) -> list[int]:
    return torch.cat([data.batch(step).truth for step in steps]).tolist()


@pytest.mark.parametrize("length", [40, 41])
def test_windows_in_order(length: int) -> None:
    data = windows(length=length)
    batches = list(data.in_order())
    assert [len(batch.truth) for batch in batches] == [4, 4, 2]
    assert torch.cat([batch.truth for batch in batches]).tolist() == list(range(10)) == list(range(len(data)))
    ids, segments = sequence_tokens(data.codes, 3)
    assert (torch.cat([batch.input_ids[batch.sequence] for batch in batches]).numpy() == ids).all()
    assert (torch.cat([batch.segment_ids[batch.sequence] for batch in batches]).numpy() == segments).all()
    assert (torch.cat([batch.codes for batch in batches]).numpy() == data.codes).all()
    assert (torch.cat([batch.matrix.evidence for batch in batches]).numpy() == data.evidence).all()


@pytest.mark.parametrize("length", [40, 41])
def test_windows_on_the_other_strand(length: int) -> None:
    data = windows(length=length)
    turned = np.stack([encode(toys.reverse_complement(decode(row))).codes for row in data.codes])
    there = windows(length=length)
    there.codes, there.evidence = turned, data.evidence[:, ::-1].copy()
    before = data.codes.copy(), data.evidence.copy()
    for batch, expected in zip(data.in_order(reverse=True), there.in_order(), strict=True):
        assert equal(batch, expected)
    assert (data.codes == before[0]).all() and (data.evidence == before[1]).all()


def test_training_batches_of_windows_are_seeded_permutations() -> None:
    data, same, other = windows(), windows(), windows(seed=7)
    assert data.steps_per_epoch == 2
    for step in (3, 0):
        assert equal(data.batch(step), same.batch(step))
    first = shown(data, (0, 1))
    assert len(set(first)) == 8
    assert first != shown(other, (0, 1))
    assert first != shown(data, (2, 3))
    assert sorted(shown(data, range(5))) == sorted([*range(10)] * 2)  # a pass runs on into the next one


def test_each_window_of_a_training_batch_is_read_on_a_random_strand() -> None:
    plain, either = windows(rows=400), windows(rows=400, either_strand=True)
    strands = {False: list(plain.in_order()), True: list(plain.in_order(reverse=True))}
    codes = {reverse: torch.cat([batch.codes for batch in batches]) for reverse, batches in strands.items()}
    evidence = {reverse: torch.cat([b.matrix.evidence for b in batches]) for reverse, batches in strands.items()}
    turned = []
    for step in range(100):
        batch = either.batch(step)
        assert batch.truth.tolist() == plain.batch(step).truth.tolist()
        for row, index in enumerate(batch.truth.tolist()):
            reverse = not torch.equal(batch.codes[row], codes[False][index])
            assert torch.equal(batch.codes[row], codes[reverse][index])
            assert torch.equal(batch.matrix.evidence[row], evidence[reverse][index])
            turned.append(reverse)
    assert 0.4 < np.mean(turned) < 0.6
    assert equal(either.batch(3), windows(rows=400, either_strand=True).batch(3))


def test_windows_that_share_a_sequence_have_it_once_in_a_batch() -> None:
    data = windows(rows=6, batch_size=6)
    data.codes[[1, 4]] = data.codes[2]
    batch = next(data.in_order())
    assert len(batch.input_ids) == 4
    assert (batch.input_ids[batch.sequence].numpy() == sequence_tokens(data.codes, 3)[0]).all()


def test_rows_of_a_window_come_together_and_on_the_same_strand() -> None:
    """40 windows of ten rows each; the strand of a window is another one from pass to pass."""
    window = np.random.default_rng(3).permutation(np.repeat(np.arange(40), 10))
    data = windows(rows=400, evidence=None, batch_size=20, either_strand=True, window=window, together=5)
    data.codes = np.random.default_rng(4).integers(0, 4, size=(40, 40), dtype=np.uint8)[window]
    forward = data.codes.copy()
    turned = np.empty((2, 400), dtype=bool)
    for step in range(40):
        batch = data.batch(step)
        rows = batch.truth.numpy()
        assert len(batch.input_ids) <= 4
        turned[step // 20, rows] = (batch.codes.numpy() != forward[rows]).any(axis=1)
    assert all(len(set(turned[0, window == one])) == 1 for one in range(40))
    assert 0.25 < turned[0].mean() < 0.75
    assert 0.25 < (turned[0] != turned[1]).mean() < 0.75


def test_what_is_not_given_is_not_in_a_batch() -> None:
    batch = windows(evidence=None, truth=None).batch(0)
    assert batch.matrix is None and batch.truth is None
    assert batch.to(torch.device("cpu")).matrix is None


def test_fewer_windows_than_a_batch() -> None:
    data = windows(rows=1, batch_size=64)
    assert (data.batch_size, data.steps_per_epoch) == (1, 1)
    assert [len(batch.codes) for batch in data.in_order()] == [1] == [len(data.batch(7).codes)]


def test_truth_of_several_labels_is_kept_with_its_windows() -> None:
    truth = np.random.default_rng(0).random((10, 3)).astype(np.float32)
    data = windows(truth=truth)
    for step in range(5):
        batch = data.batch(step)
        rows = [np.flatnonzero((data.codes == codes.numpy()).all(axis=1)).item() for codes in batch.codes]
        assert (batch.truth.numpy() == truth[rows]).all()


def test_windows_with_context_see_the_neighbourhood_whichever_strand_is_read() -> None:
    crowd = toys.random_corpus(np.random.default_rng(0), regions=150)
    generator = np.random.default_rng(2)
    codes = generator.integers(0, 4, size=(5, 60), dtype=np.uint8)
    where = Context(
        crowd,
        generator.integers(0, 4, size=5),
        crowd.line_positions(["chr1"] * 5, generator.integers(0, 8000, size=5)),
    )
    own = crowd.scanner.scan(codes)
    data = WindowData(codes, k=3, columns=6, context=where, evidence=own[:, None])
    rows = np.array([4, 0, 1])
    expected = neighbourhood(crowd, where.cell_type[rows], where.position[rows], own[rows], 6, 60)
    for reverse in (False, True):
        assert equal(data.collate(rows, np.full(3, reverse)).matrix, expected)
