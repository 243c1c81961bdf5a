import dataclasses

import pytest
import torch
from toy_models import random_matrix, small, with_extras

from genebert.model.genebert import GeneBertModel
from genebert.model.region_encoder import RegionEncoder
from genebert.region_matrix import RegionMatrix


def encoder_of(motifs: int = 6, **changes: object) -> RegionEncoder:
    torch.manual_seed(0)
    return GeneBertModel(with_extras(motifs, **changes)).eval().region_encoder


@pytest.mark.parametrize("motifs", [1, 5, 6, 9])
@pytest.mark.parametrize("columns", [7, 8])
def test_any_number_of_motifs_and_columns_makes_a_pooled_vector_of_the_stated_width(motifs: int, columns: int) -> None:
    encoder = encoder_of(motifs, region_columns=columns)
    with torch.no_grad():
        pooled = encoder(random_matrix(motifs, columns))
    assert pooled.shape == (3, encoder.width)
    assert torch.isfinite(pooled).all()


def test_padding_columns_do_not_reach_the_image() -> None:
    encoder = encoder_of()
    matrix = random_matrix(6)
    matrix.present[:, 5:] = False
    changed = dataclasses.replace(matrix, evidence=matrix.evidence.clone())
    changed.evidence[:, 5:] = 99
    assert torch.equal(encoder.image(matrix), encoder.image(changed))
    assert not encoder.image(matrix)[..., 5:].any()


def test_image_is_standardised_evidence_accessibility_and_the_own_evidence() -> None:
    encoder = encoder_of(4)
    encoder.evidence_mean.copy_(torch.tensor([10.0, 20, 30, 40]))
    encoder.evidence_std.copy_(torch.tensor([2.0, 4, 5, 10]))
    matrix = random_matrix(4)
    image = encoder.image(matrix)
    by_hand = (matrix.evidence[1, 2].float() - torch.tensor([10.0, 20, 30, 40])) / torch.tensor([2.0, 4, 5, 10])
    assert torch.allclose(image[1, 0, :4, 2], by_hand)
    assert torch.allclose(image[1, 1, :4, 2], (matrix.accessibility[1, 2] / 10).expand(4))
    assert (matrix.own.sum(dim=1) == 1).all()
    assert torch.equal(image[:, 2, :4, :8], image[:, 0, :4, :8] * matrix.own[:, None])
    assert image[:, 2].count_nonzero() == 3 * 4  # one column of four motifs in each of three matrices
    encoder.signal_mean.fill_(3.0)
    encoder.signal_std.fill_(0.5)
    evidence, signal = encoder.pixels(matrix)[1]
    assert torch.equal(evidence, image[1, 0, :4, :8])
    assert torch.allclose(signal[:, 2], ((matrix.accessibility[1, 2] - 3) / 0.5).expand(4))


def test_states_over_the_own_column_and_the_mean_are_pooled() -> None:
    # 20 motifs and 6 regions: 5 x 4 patches of 4 x 2, so 3 x 2 states of 8 x 4 pixels.
    encoder = encoder_of(20, region_columns=6)
    assert encoder.grid == (3, 2)
    states = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0))
    own = torch.zeros(1, 6, dtype=torch.bool)
    own[0, 5] = True
    mean = states.mean(1)
    assert torch.equal(encoder.pool(states, own), torch.cat([states[:, 1], states[:, 3], states[:, 5], mean], 1))
    own[0, 3] = True  # as of a sequence of two tiles, one in either state
    halves = [(states[:, i] + states[:, i + 1]) / 2 for i in (0, 2, 4)]
    assert torch.allclose(encoder.pool(states, own), torch.cat([*halves, mean], 1))


def test_hidden_patches_are_hidden() -> None:
    encoder = encoder_of(16)  # 4 x 4 patches of 4 motifs x 2 regions
    matrix = random_matrix(16)
    hidden = torch.zeros(3, 4, 4, dtype=torch.bool)
    hidden[:, 1] = True
    hidden[:, :, 3] = True
    changed = dataclasses.replace(matrix, evidence=matrix.evidence.clone(), accessibility=matrix.accessibility.clone())
    changed.evidence[:, :, 4:8] += 1
    changed.evidence[:, 6:] += 1
    changed.accessibility[:, 6:] += 1
    with torch.no_grad():
        states, others = (encoder.encode(m, hidden).last_hidden_state for m in (matrix, changed))
        assert torch.equal(states, others)
        assert not torch.equal(encoder(matrix), encoder(changed))


def test_hidden_pixels_are_those_of_hidden_patches_that_exist() -> None:
    encoder = encoder_of(6, region_columns=7)
    matrix = random_matrix(6, 7, rows=1)
    matrix.present[0, 6] = False
    hidden = torch.zeros(1, 4, 4, dtype=torch.bool)
    hidden[0, 1] = True  # motifs 4 and 5; two more would be in the patch
    hidden[0, :, 2] = True  # regions 4 and 5
    evidence, signal = encoder.hidden_pixels(hidden, matrix)[0]
    assert evidence.int().tolist() == [[0, 0, 0, 0, 1, 1, 0]] * 4 + [[1, 1, 1, 1, 1, 1, 0]] * 2
    assert signal.int().tolist() == [[0, 0, 0, 0, 1, 1, 0]] * 6  # motifs 0 to 3 show that of the other regions


def test_what_is_hidden_in_one_matrix_is_not_hidden_over_own_and_absent_columns_of_another() -> None:
    encoder = encoder_of(6, region_columns=7)
    matrix = random_matrix(6, 7, rows=1)  # own: region 3, in the second patch
    matrix.present[0, 5:] = False  # region 4, in the third patch, is there; none of the fourth
    hideable = encoder.hideable(torch.ones(1, 4, 4, dtype=torch.bool), matrix)
    assert hideable.int().tolist() == [[[1, 0, 1, 0]] * 4]


def test_without_a_region_decoder_there_is_no_mask_token() -> None:
    assert GeneBertModel(small()).region_encoder.swin.embeddings.mask_token is None
    assert encoder_of().swin.embeddings.mask_token is not None


def test_pooled_vectors_are_float32_under_autocast() -> None:
    matrix: RegionMatrix = random_matrix(6)
    encoder = encoder_of()
    with torch.no_grad():
        exact = encoder(matrix)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = encoder(matrix)
    assert found.dtype == torch.float32
    assert torch.allclose(found, exact, atol=0.05)
