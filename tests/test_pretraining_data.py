from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st
from toy_models import differing, equal, tensors

from genebert.corpus.splits import NONE
from genebert.corpus.store import Corpus
from genebert.pretraining_data import CANDIDATES, HIDDEN_PATCHES, Extras, PretrainingBatch, PretrainingData
from genebert.region_matrix import RegionMatrix, neighbourhood
from genebert.sampling import keys
from genebert.schema import SPLITS, Split, decode, encode
from genebert.settings import Masking
from genebert.tokens import MASK, hide_bases, mask_kmers, sequence_tokens


def data_of(corpus: Corpus, split: Split = "train", **changes: Any) -> PretrainingData:
    chosen: dict[str, Any] = {"k": 3, "columns": 6, "batch_size": 8, "mask_fraction": 0.15, "seed": 0}
    return PretrainingData(corpus, split, **(chosen | changes))


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
