"""Scores whose importance is known: linear, and linear with one product."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from toy_models import random_matrix

from genebert.explanation import importance
from genebert.explanation.importance import gradient_x_input, occlusion
from genebert.region_matrix import RegionMatrix

MOTIFS = 5
WEIGHT = torch.tensor([0.5, 0.0, -1.0, 2.0, 0.0])  # of evidence in all columns
OWN = torch.tensor([0.0, 3.0, 0.0, 1.0, 0.0])  # of evidence in the window's own column
MEAN = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
BIAS = torch.tensor([0.0, 100.0, -7.0])  # of each window


@pytest.fixture
def matrix() -> RegionMatrix:
    made = random_matrix(MOTIFS)
    made.present[1, 6:] = False  # a chromosome with few regions
    made.evidence[1, 6:] = 0
    return made


@pytest.fixture(params=[1, 7, 512])
def batch_sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(importance, "AT_ONCE", request.param)
    yield


def linear(matrix: RegionMatrix, window: torch.Tensor) -> torch.Tensor:
    evidence = matrix.evidence.float() * matrix.present[..., None]
    own = (evidence * matrix.own[..., None]).sum(dim=1)
    return evidence.sum(dim=1) @ WEIGHT + own @ OWN + BIAS[window]


def expected(matrix: RegionMatrix) -> np.ndarray:
    """By hand: weight times distance from the mean, summed over the columns."""
    found = np.zeros((3, 2, MOTIFS))
    for row in range(3):
        for column in range(8):
            for motif in range(MOTIFS):
                away = float(matrix.evidence[row, column, motif]) - float(MEAN[motif])
                if matrix.present[row, column]:
                    found[row, 0, motif] += float(WEIGHT[motif]) * away
                if matrix.own[row, column]:
                    found[row, 0, motif] += float(OWN[motif]) * away
                    found[row, 1, motif] += float(WEIGHT[motif] + OWN[motif]) * away
    return found


@pytest.mark.usefixtures("batch_sizes")
def test_occlusion_of_a_linear_score_is_weight_times_distance_from_the_mean(matrix: RegionMatrix) -> None:
    found = occlusion(linear, matrix, torch.arange(3), MEAN, [(motif,) for motif in range(MOTIFS)])
    assert found.shape == (3, 2, MOTIFS)
    assert np.allclose(found, expected(matrix), rtol=1e-4, atol=0.05)
    assert (found[:, :, 4] == 0).all()  # what does not count is exactly 0


def test_gradient_x_input_of_a_linear_score_is_the_same(matrix: RegionMatrix) -> None:
    found = gradient_x_input(linear, matrix, torch.arange(3), MEAN)
    assert np.allclose(found, expected(matrix), rtol=1e-4, atol=0.05)
    assert not found.requires_grad
    assert matrix.evidence.dtype == torch.uint8


def test_windows_keep_their_place_where_matrices_are_repeated(matrix: RegionMatrix) -> None:
    """The bias of each window cancels only if matrices are scored as those of their own windows."""
    window = torch.tensor([1, 1, 0])
    found = occlusion(linear, matrix, window, MEAN, [(4,), (0,)])
    assert np.allclose(found[:, :, 1], expected(matrix)[:, :, 0], rtol=1e-4, atol=0.05)
    assert np.allclose(found[:, :, 0], 0, atol=0.05)


def test_what_a_product_has_beyond_its_factors(matrix: RegionMatrix) -> None:
    """ab - aM - bM + MM, with the evidence a and b at their means M: the interaction is the product of distances,
    less what is counted twice."""

    def product(matrix: RegionMatrix, window: torch.Tensor) -> torch.Tensor:
        own = (matrix.evidence.float() * matrix.own[..., None]).sum(dim=1)
        return own[:, 0] * own[:, 3] + own[:, 1]

    found = occlusion(product, matrix, torch.arange(3), MEAN, [(0,), (3,), (0, 3), (1,), (0, 1)])[:, 1]
    own = matrix.evidence[matrix.own].float()
    away = own - MEAN
    assert torch.allclose(found[:, 2] - found[:, 0] - found[:, 1], -away[:, 0] * away[:, 3], rtol=1e-4, atol=0.1)
    assert torch.allclose(found[:, 4], found[:, 0] + found[:, 3], rtol=1e-4, atol=0.1)  # these do not interact
