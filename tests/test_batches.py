from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st

from genebert.batches import (
    CANDIDATES,
    HIDDEN_PATCHES,
    Context,
    Extras,
    PretrainingBatch,
    PretrainingData,
    RegionMatrix,
    WindowData,
    neighbourhood,
    tiles,
)
from genebert.corpus.splits import NONE
from genebert.corpus.store import Corpus
from genebert.sampling import keys
from genebert.schema import SPLITS, Split, decode, encode
from genebert.settings import Masking
from genebert.tokens import MASK, hide_bases, mask_kmers, sequence_tokens

# Region matrices --------------------------------------------------------------------------------------------


@pytest.fixture
def hand() -> Corpus:
    return toys.corpus_of(
        [("chr1", 0), ("chr1", 100), ("chr1", 350), ("chr1", 600), ("chr2", 100)],
        {"a": {0: 1.0, 1: 2.0, 3: 4.0, 4: 5.0}, "b": {2: 3.0}},
    )


def matrix_of(corpus: Corpus, cell_type: int, chrom: str, centre: int, columns: int, window: int = 100) -> RegionMatrix:
    own = np.full((1, corpus.evidence.shape[1]), 99, dtype=np.uint8)
    return neighbourhood(
        corpus,
        np.array([cell_type]),
        corpus.line_positions([chrom], np.array([centre])),
        own,
        columns,
        window,
    )


def test_neighbourhood_by_hand(hand: Corpus) -> None:
    matrix = matrix_of(hand, 0, "chr1", 150, columns=4)  # the window is region 1; 0 and 3 are its neighbours in a
    e = hand.evidence[:, 0].tolist()
    assert matrix.evidence[0, :, 0].tolist() == [e[0], 99, e[3], 0]
    assert matrix.accessibility[0].tolist() == [
        1.0,
        0.0,
        4.0,
        0.0,
    ]  # that of the window itself, 2.0, is not shown
    assert matrix.own[0].tolist() == [False, True, False, False]
    assert matrix.present[0].tolist() == [True, True, True, False]
    assert matrix.evidence.dtype == torch.uint8
    assert (matrix.accessibility.dtype, matrix.own.dtype, matrix.present.dtype) == (
        torch.float32,
        torch.bool,
        torch.bool,
    )


def test_a_window_between_regions_and_one_alone(hand: Corpus) -> None:
    between = matrix_of(hand, 0, "chr1", 280, columns=3)
    assert between.accessibility[0].tolist() == [1.0, 2.0, 0.0]  # the nearest two lie before it
    assert between.own[0].tolist() == [False, False, True]
    alone = matrix_of(hand, 1, "chr2", 150, columns=3)
    assert alone.own[0].tolist() == [True, False, False]
    assert alone.present[0].tolist() == [True, False, False]
    assert alone.evidence[0, 1:].sum() == 0


@given(seed=st.integers(0, 5000), columns=st.integers(1, 20), window=st.sampled_from([100, 300]))
def test_own_accessibility_is_never_shown(seed: int, columns: int, window: int) -> None:
    generator = np.random.default_rng(seed)
    corpus = toys.random_corpus(generator)
    examples = generator.integers(0, len(corpus.accessible_regions), size=10)
    region, cell_type = corpus.accessible_regions[examples], corpus.cell_types_of(examples)
    positions = corpus.region_positions[region]
    matrix = neighbourhood(corpus, cell_type, positions, corpus.evidence[region], columns, window)
    assert matrix.own.sum(1).tolist() == [1] * 10
    assert (matrix.accessibility[matrix.own] == 0).all()
    assert (matrix.evidence[matrix.own].numpy() == corpus.evidence[region]).all()
    assert (matrix.accessibility[~matrix.present] == 0).all()
    assert (matrix.evidence[~matrix.present] == 0).all()
    for row, (place, cell) in enumerate(zip(positions, cell_type, strict=True)):
        shown = matrix.accessibility[row][matrix.present[row] & ~matrix.own[row]].tolist()
        near, distance = corpus.nearest_examples(np.array([cell]), np.array([place]), columns - 1, window)
        known = near[0][near[0] >= 0]
        assert shown == corpus.accessible_values[np.sort(known)].tolist()  # in genomic order
        assert matrix.own[row].nonzero().item() == (distance[0][near[0] >= 0] < 0).sum()
    # Nor does it bear on anything else in the matrix.
    for row, example in enumerate(examples):
        changed = toys.with_values(corpus, {int(example): 1000.0})
        again = neighbourhood(
            changed,
            cell_type[row : row + 1],
            positions[row : row + 1],
            corpus.evidence[region[row : row + 1]],
            columns,
            window,
        )
        assert (again.accessibility == matrix.accessibility[row]).all()


def test_tiles_are_columns_of_the_window_itself() -> None:
    evidence = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    matrix = tiles(evidence)
    assert matrix.evidence.tolist() == evidence.tolist() and matrix.evidence.dtype == torch.uint8
    assert matrix.accessibility.tolist() == [[0] * 4] * 2
    assert matrix.own.all() and matrix.own.shape == (2, 4)
    assert matrix.present.all() and matrix.present.shape == (2, 4)


# Pre-training -----------------------------------------------------------------------------------------------


def data_of(corpus: Corpus, split: Split = "train", **changes: Any) -> PretrainingData:
    chosen: dict[str, Any] = {"k": 3, "columns": 6, "batch_size": 8, "mask_fraction": 0.15, "seed": 0}
    return PretrainingData(corpus, split, **(chosen | changes))


def tensors(value: object) -> dict[str, torch.Tensor]:
    """The tensors of a batch by the names of their fields; matrix.evidence is one in a matrix."""
    found = {}
    for name, part in vars(value).items():
        if isinstance(part, torch.Tensor):
            found[name] = part
        elif isinstance(part, RegionMatrix):
            found |= {f"{name}.{inner}": tensor for inner, tensor in tensors(part).items()}
    return found


def differing(a: object, b: object) -> set[str]:
    """The fields in which two batches differ."""
    first, second = tensors(a), tensors(b)
    assert first.keys() == second.keys()
    return {name for name, tensor in first.items() if not torch.equal(tensor, second[name])}


def equal(a: object, b: object) -> bool:
    return not differing(a, b)


def joined(parts: Sequence[PretrainingBatch]) -> dict[str, torch.Tensor]:
    """The tensors of the parts of a batch, one part after the other."""
    named = [tensors(part) for part in parts]
    rows = np.cumsum([0, *(len(part.region) for part in parts)]).tolist()
    for part, before in zip(named, rows, strict=False):
        part["scored_row"] = part["scored_row"] + before
    return {name: torch.cat([part[name] for part in named]) for name in named[0]}


@pytest.fixture(scope="module")
def crowd() -> Corpus:
    return toys.random_corpus(np.random.default_rng(0), regions=150)


EVERYTHING = Extras(patch_grid=(2, 4), patch=(2, 2), hard_negatives=True, reverse_complement=True)
VARIANTS = [
    {},
    {"masking": "dnabert"},
    {"balanced": True},
    {"extras": EVERYTHING},
    {"masking": "dnabert", "balanced": True, "extras": EVERYTHING},
]
variants = pytest.mark.parametrize("changes", VARIANTS, ids=["plain", "dnabert", "balanced", "extras", "all"])


@variants
def test_a_batch_depends_on_seed_and_step_alone(crowd: Corpus, changes: dict[str, Any]) -> None:
    data = data_of(crowd, **changes)
    first = [data.batch(step) for step in range(4)]
    again = data_of(crowd, **changes)
    assert all(equal(a, b) for a, b in zip(reversed(first), [again.batch(step) for step in (3, 2, 1, 0)], strict=True))
    assert all(equal(a, b) for a, b in zip(first[1:], again.batches(1, 4), strict=True))
    assert not equal(first[0], first[1])
    assert not equal(first[0], data_of(crowd, seed=1, **changes).batch(0))


@variants
def test_shards_are_together_the_whole_batch(crowd: Corpus, changes: dict[str, Any]) -> None:
    data = data_of(crowd, **changes)
    for step in (0, 7, 1000):
        whole = tensors(data.batch(step))
        for shards in (2, 3, 8):
            parts = [data.batch(step, shard, shards) for shard in range(shards)]
            assert max(len(part.region) for part in parts) == -(-8 // shards)
            cut = joined(parts)
            assert cut.keys() == whole.keys()
            assert [name for name, tensor in whole.items() if not torch.equal(tensor, cut[name])] == []


@variants
def test_an_example_is_the_same_in_batches_of_every_size(crowd: Corpus, changes: dict[str, Any]) -> None:
    large = tensors(data_of(crowd, batch_size=24, **changes).batch(5))
    small = data_of(crowd, batch_size=8, **changes)
    cut = joined(list(small.batches(15, 18)))
    assert [name for name, tensor in large.items() if not torch.equal(tensor, cut[name])] == []


def pairs(corpus: Corpus, examples: np.ndarray) -> list[tuple[int, int]]:
    """Cell type and region of each example."""
    return list(zip(corpus.cell_types_of(examples).tolist(), corpus.accessible_regions[examples].tolist(), strict=True))


def shown_by(batches: Iterable[PretrainingBatch]) -> list[tuple[int, int]]:
    return [pair for batch in batches for pair in zip(batch.cell_type.tolist(), batch.region.tolist(), strict=True)]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_pass_shows_every_example_once_and_runs_on_into_the_next(crowd: Corpus, split: Split) -> None:
    everything = pairs(crowd, crowd.examples(split))
    n = len(everything)
    size = next(size for size in (8, 7, 5) if n % size)  # some batches hold the end of a pass and a beginning
    data = data_of(crowd, split, batch_size=size)
    assert data.steps_per_epoch == n // size
    shown = shown_by(data.batches(0, 3 * n // size + 1))
    for turn in range(3):
        assert sorted(shown[turn * n : (turn + 1) * n]) == sorted(everything)
    assert shown[:n] != shown[n : 2 * n]


def test_balanced_batches_show_all_cell_types_equally_often(crowd: Corpus) -> None:
    data = data_of(crowd, balanced=True)
    sizes = np.bincount(crowd.cell_types_of(data.examples))
    shown = shown_by(data.batches(0, sizes.max()))
    counts = np.bincount([cell_type for cell_type, _ in shown])
    assert len(set(sizes)) == 4
    assert counts.tolist() == [2 * sizes.max()] * 4
    largest = int(sizes.argmax())
    assert sorted(pair for pair in shown if pair[0] == largest) == sorted(
        2 * [pair for pair in pairs(crowd, data.examples) if pair[0] == largest]
    )


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("balanced", [False, True])
def test_no_batch_shows_a_held_out_cell_type_or_a_region_of_no_split(split: Split, balanced: bool) -> None:
    held_out = toys.random_corpus(
        np.random.default_rng(2), regions=150, valid_cell_types=["cell1"], test_cell_types=["cell2"]
    )
    assert (held_out.split == NONE).any()
    data = data_of(held_out, split, balanced=balanced)
    for batch in data.batches(0, data.steps_per_epoch):
        assert set(batch.cell_type.tolist()) <= {0, 3}
        assert set(held_out.split[[*batch.region, *batch.second_region]]) == {SPLITS.index(split)}


@pytest.mark.parametrize("split", ["train", "valid"])
def test_negatives_are_the_nearest_in_gc_of_cell_type_and_split(crowd: Corpus, split: Split) -> None:
    data = data_of(crowd, split, batch_size=32)
    second = crowd.sequence[:, crowd.width // 2 :]  # the second segment is what is replaced
    gc = ((second == 1) | (second == 2)).sum(axis=1).astype(int)
    members = {i: crowd.accessible(i)[crowd.split[crowd.accessible(i)] == SPLITS.index(split)] for i in range(4)}
    nearest, signs = [], []
    for batch in data.batches(0, 20):
        assert ((batch.region == batch.second_region) == (batch.adjacent == 1)).all()
        for cell_type, one, other in zip(
            batch.cell_type.tolist(), batch.region.tolist(), batch.second_region.tolist(), strict=True
        ):
            around = members[cell_type]
            assert other in around
            if one != other:
                least = np.abs(gc[around[around != one]] - gc[one]).min()
                nearest.append(abs(gc[other] - gc[one]) == least)
                signs.append(np.sign(gc[other] - gc[one]))
    assert max(map(len, members.values())) < CANDIDATES
    assert np.mean(nearest) > 0.85  # the nearest may not be among the candidates, which are drawn at random
    assert 0.4 < len(nearest) / (20 * data.batch_size) < 0.6
    assert abs(np.mean(signs)) < 0.2


def test_a_lone_region_has_no_negative() -> None:
    corpus = toys.corpus_of([("chr1", 0), ("chr1", 500), ("chr1", 900)], {"a": {0: 1, 1: 1}, "b": {2: 1}})
    for batch in data_of(corpus, batch_size=3).batches(0, 20):
        lone = batch.cell_type == 1
        assert batch.adjacent[lone].tolist() == [1.0]
        assert batch.second_region[lone].tolist() == [2]


@pytest.mark.parametrize("masking", ["hidden-bases", "dnabert"])
def test_a_batch_holds_the_tokens_of_its_regions(crowd: Corpus, masking: Masking) -> None:
    data = data_of(crowd, k=4, masking=masking)
    mask = {"hidden-bases": hide_bases, "dnabert": mask_kmers}[masking]
    half = crowd.width // 2
    for step, batch in enumerate(data.batches(0, 5)):
        codes = np.concatenate(
            [crowd.sequence[batch.region][:, :half], crowd.sequence[batch.second_region][:, half:]], axis=1
        )
        masked = mask(codes, 4, 0.15, keys(0, 0, np.arange(8 * step, 8 * step + 8)))
        for name, expected in zip(("input_ids", "scored_row", "scored_token", "scored_target"), masked, strict=True):
            found = getattr(batch, name)
            assert found.dtype == torch.int64
            assert found.tolist() == expected.tolist()
        assert batch.segment_ids.tolist() == sequence_tokens(codes, 4)[1].tolist()
        assert batch.whole_kmers == (masking == "dnabert")
        assert len(batch.scored_row) > 0


def test_a_batch_holds_region_matrices_and_signal_of_its_examples(crowd: Corpus) -> None:
    batch = data_of(crowd).batch(0)
    region, cell_type = batch.region.numpy(), batch.cell_type.numpy()
    expected = neighbourhood(crowd, cell_type, crowd.region_positions[region], crowd.evidence[region], 6, crowd.width)
    assert equal(batch.matrix, expected)
    value = dict(zip(pairs(crowd, np.arange(len(crowd.accessible_values))), crowd.accessible_values, strict=True))
    assert batch.signal.tolist() == [value[pair] for pair in shown_by([batch])]
    assert batch.signal.dtype == torch.float32


@pytest.mark.parametrize("masking", ["hidden-bases", "dnabert"])
def test_intact_batches_for_evaluation(crowd: Corpus, masking: Masking) -> None:
    data = data_of(crowd, masking=masking, extras=EVERYTHING)
    examples = data.examples[:8]
    batch = data.collate(examples, data.keys(examples), corrupt=False)
    assert batch.hidden is None
    assert batch.adjacent.tolist() == [1.0] * 8
    assert (batch.region == batch.second_region).all()
    assert len(batch.scored_row) == 0
    assert (batch.input_ids.numpy() == sequence_tokens(crowd.sequence[batch.region], 3)[0]).all()


@variants
def test_in_evaluation_an_example_depends_on_itself_alone(crowd: Corpus, changes: dict[str, Any]) -> None:
    data = data_of(crowd, **changes)
    examples = data.examples[:6]
    together = tensors(data.collate(examples, data.keys(examples)))
    apart = [data.collate(examples[i : i + 1], data.keys(examples[i : i + 1])) for i in range(6)]
    assert [name for name, tensor in joined(apart).items() if not torch.equal(tensor, together[name])] == []
    other = data_of(crowd, seed=1, **changes)
    assert "input_ids" in differing(
        data.collate(examples, data.keys(examples)), other.collate(examples, other.keys(examples))
    )


def test_fewer_examples_than_a_batch() -> None:
    corpus = toys.corpus_of([("chr1", 0), ("chr1", 500)], {"a": {0: 1, 1: 1}})
    data = data_of(corpus, batch_size=64)
    assert (data.batch_size, data.steps_per_epoch) == (2, 1)
    assert sorted(data.batch(5).region.tolist()) == [0, 1]


def test_nothing_else_is_as_long_as_the_examples() -> None:
    regions = [("chr1", 200 * i) for i in range(50)]
    corpus = toys.corpus_of(regions, {name: dict.fromkeys(range(50), 1.0) for name in "abcd"})
    for changes in VARIANTS:
        data = data_of(corpus, **changes)
        data.batch(0)
        held = [*vars(data).values(), *vars(data._order).values()]
        arrays = [part for part in held if isinstance(part, np.ndarray) and part is not data.examples]
        assert len(data.examples) == 200
        assert max(map(len, arrays)) <= 50


def test_batches_move_between_devices(crowd: Corpus) -> None:
    batch = data_of(crowd, masking="dnabert", extras=EVERYTHING).batch(0)
    assert equal(batch.to(torch.device("cpu")), batch)
    moved = batch.to(torch.device("meta"))
    assert {tensor.device.type for tensor in tensors(moved).values()} == {"meta"}
    assert moved.whole_kmers
    assert data_of(crowd).batch(0).to(torch.device("cpu")).closed is None


# Extras -----------------------------------------------------------------------------------------------------


def test_without_extras_there_are_none(crowd: Corpus) -> None:
    batch = data_of(crowd).batch(0)
    assert (batch.hidden, batch.reverse_ids, batch.closed, batch.has_closed) == (None, None, None, None)


def test_extras_leave_the_rest_of_a_batch_as_it_is(crowd: Corpus) -> None:
    plain, rich = (tensors(data_of(crowd, extras=extras).batch(3)) for extras in (Extras(), EVERYTHING))
    assert all(torch.equal(tensor, rich[name]) for name, tensor in plain.items())
    assert rich.keys() - plain.keys() == {"hidden", "reverse_ids", "has_closed"} | {
        f"closed.{name}" for name in tensors(data_of(crowd).batch(0).matrix)
    }


@pytest.mark.parametrize("masking", ["hidden-bases", "dnabert"])
def test_the_accessibility_of_the_region_itself_is_only_in_the_signal(crowd: Corpus, masking: Masking) -> None:
    data = data_of(crowd, masking=masking, extras=EVERYTHING)
    for example in data.examples[::17]:
        one = np.array([example])
        other = data_of(toys.with_values(crowd, {int(example): 99.0}), masking=masking, extras=EVERYTHING)
        assert differing(data.collate(one, data.keys(one)), other.collate(one, data.keys(one))) == {"signal"}


@given(
    seed=st.integers(0, 1000),
    columns=st.integers(1, 9),
    width=st.sampled_from([1, 2, 3]),
    height=st.sampled_from([1, 2]),
    more=st.integers(0, 2),
)
def test_hidden_patches(seed: int, columns: int, width: int, height: int, more: int) -> None:
    corpus = toys.random_corpus(np.random.default_rng(seed % 5), regions=20)
    grid = (-(-3 // height) + more, -(-columns // width) + more)
    extras = Extras(patch_grid=grid, patch=(height, width))
    batch = data_of(corpus, columns=columns, seed=seed, extras=extras, batch_size=32).batch(0)
    assert batch.hidden.shape == (len(batch.region), *grid)
    assert batch.hidden.dtype == torch.bool
    for hidden, own, present in zip(batch.hidden, batch.matrix.own, batch.matrix.present, strict=True):
        for column in range(grid[1]):
            inside = slice(column * width, (column + 1) * width)
            if own[inside].any() or not present[inside].any():
                assert not hidden[:, column].any()
        groups = -(-3 // height)  # of the three motifs
        assert not hidden[groups:].any()
        touched = hidden[:groups, hidden.any(0)]  # whole columns, or else whole rows
        assert (touched == touched.all(1)[:, None] | touched.all(0)[None, :]).all()


def test_about_one_in_seven_columns_and_groups_is_hidden() -> None:
    regions = [("chr1", 150 * i) for i in range(120)]
    motifs = [toys.random_motif(f"m{i}", 4, np.random.default_rng(i)) for i in range(40)]
    corpus = toys.corpus_of(regions, {"a": dict.fromkeys(range(120), 1.0)}, motifs=motifs)
    data = data_of(corpus, columns=40, batch_size=120, extras=Extras(patch_grid=(20, 20), patch=(2, 2)))
    hidden = torch.cat([batch.hidden for batch in data.batches(0, 10)]).numpy()
    rows = hidden.sum(2) >= 19  # but for the patch that holds the window's own column
    assert rows.mean() == pytest.approx(HIDDEN_PATCHES, abs=0.02)
    assert hidden.all(1).sum() / (19 * len(hidden)) == pytest.approx(HIDDEN_PATCHES, abs=0.02)


def test_a_grid_of_patches_needs_their_size() -> None:
    with pytest.raises(ValueError, match="patch_grid needs patch"):
        Extras(patch_grid=(2, 4))


@pytest.mark.parametrize("masking", ["hidden-bases", "dnabert"])
def test_reverse_complements_have_the_same_bases_hidden(crowd: Corpus, masking: Masking) -> None:
    batch = data_of(crowd, masking=masking, extras=EVERYTHING).batch(0)
    half = crowd.width // 2
    codes = np.concatenate(
        [crowd.sequence[batch.region][:, :half], crowd.sequence[batch.second_region][:, half:]], axis=1
    )
    turned = np.stack([encode(toys.reverse_complement(decode(row))).codes for row in codes])
    forward, backward = sequence_tokens(codes, 3)[0], sequence_tokens(turned, 3)[0]
    count = half - 2
    order = [0, *range(2 * count + 1, count + 1, -1), count + 1, *range(count, 0, -1), 2 * count + 2]
    changed = (batch.input_ids.numpy() != forward)[:, order]
    assert ((batch.reverse_ids.numpy() != backward) == changed).all()
    assert ((batch.input_ids == MASK)[:, order] == (batch.reverse_ids == MASK)).all()
    assert batch.reverse_ids.dtype == torch.int64


def test_closed_matrices_are_of_training_cell_types_in_which_the_region_is_not_accessible() -> None:
    corpus = toys.random_corpus(
        np.random.default_rng(4), regions=150, cell_types=6, valid_cell_types=["cell1"], test_cell_types=["cell2"]
    )
    members = {i: set(corpus.accessible(i).tolist()) for i in (0, 3, 4, 5)}
    for part in ("train", "valid"):
        data = PretrainingData(
            corpus, "train", part, k=3, columns=6, batch_size=32, mask_fraction=0.15, seed=0, extras=EVERYTHING
        )
        for batch in data.batches(0, 3):
            for row, region in enumerate(batch.region.tolist()):
                closed = [i for i, accessible in members.items() if region not in accessible]
                assert batch.has_closed[row].item() == bool(closed)
                where = (corpus.region_positions[[region]], corpus.evidence[[region]], 6, corpus.width)
                candidates = [neighbourhood(corpus, np.array([i]), *where) for i in closed]
                shown = RegionMatrix(*(tensor[row : row + 1] for tensor in tensors(batch.closed).values()))
                assert not closed or any(equal(shown, matrix) for matrix in candidates)


def test_closed_cell_types_are_drawn_evenly() -> None:
    regions = [("chr1", 300 * i) for i in range(40)]
    accessible = {"a": {0: 1.0, 39: 1.0}} | {f"b{i}": {i: 1.0, 20: 1.0} for i in range(1, 6)}
    accessible["open"] = {0: 1.0, 20: 1.0, 39: 1.0}
    corpus = toys.corpus_of(regions, accessible)
    data = data_of(corpus, columns=3, extras=Extras(hard_negatives=True))
    batch = data.collate(np.zeros(4000, dtype=np.int64), data.keys(np.arange(4000)))
    neighbours = batch.closed.accessibility.sum(dim=1)
    assert batch.has_closed.all()
    # Region 0 is closed in b1 .. b5, each of which has one region nearest to it: i
    own_evidence = corpus.evidence[:, 0].tolist()
    shown = [next(i for i in range(1, 6) if evidence[1, 0] == own_evidence[i]) for evidence in batch.closed.evidence]
    assert np.bincount(shown, minlength=6)[1:].tolist() == pytest.approx([800] * 5, rel=0.15)
    assert (neighbours == 1).all()


# Windows ----------------------------------------------------------------------------------------------------


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


def test_windows_with_context_see_the_neighbourhood_whichever_strand_is_read(crowd: Corpus) -> None:
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
