import numpy as np
import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st

from genebert.corpus.store import Corpus
from genebert.region_matrix import RegionMatrix, neighbourhood, tiles


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
