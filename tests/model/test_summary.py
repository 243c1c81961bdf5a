from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_models import small

from genebert.model import summary
from genebert.model.summary import KNOTS, MOST, Summary, SummaryHead, moments
from genebert.schema import encode, reverse_complement
from genebert.tokens import VOCABULARY_BASES

BASES_ALONE = {"modalities": "sequence"}
MOTIFS_ALONE = {"modalities": "motifs"}


def codes_of(*letters: str) -> torch.Tensor:
    return torch.from_numpy(np.stack([encode(row).codes for row in letters]))


def random_codes(generator: np.random.Generator, rows: int, length: int, most: int = 5) -> torch.Tensor:
    return torch.from_numpy(generator.integers(0, most, size=(rows, length), dtype=np.uint8))


def random_evidence(generator: np.random.Generator, rows: int, motifs: int = 6) -> torch.Tensor:
    return torch.from_numpy(generator.integers(0, 256, size=(rows, motifs), dtype=np.uint8))


def make(**changes: Any) -> Summary:
    return Summary(small(**changes))


def counts_by_hand(letters: str, k: int, *, stranded: bool) -> dict[str, int]:
    """Words without N, each named by the first of itself and its reverse complement unless strands are told apart."""
    every = [letters[i : i + k] for i in range(len(letters) - k + 1)]
    known = [word for word in every if "N" not in word]
    return Counter(known if stranded else [min(word, toys.reverse_complement(word)) for word in known])


@settings(max_examples=30)
@given(letters=st.text("ACGTN", min_size=13, max_size=40), k=st.integers(1, 4), stranded=st.booleans())
def test_words_are_counted_as_a_loop_over_places_does(letters: str, k: int, stranded: bool) -> None:
    found = make(word_lengths=[k], oriented=stranded, window_length=len(letters), **BASES_ALONE)
    features = found(codes_of(letters), None)[0]
    words = ["".join(word) for word in product(VOCABULARY_BASES, repeat=k)]
    if not stranded:
        words = list(dict.fromkeys(min(word, toys.reverse_complement(word)) for word in words))
    counts = counts_by_hand(letters, k, stranded=stranded)
    assert features[: len(words)].square().round().tolist() == [counts[word] for word in words]
    assert found.width == len(words) + (4 * len(letters) if stranded else 0) == len(features)


def test_numbers_of_words() -> None:
    """Of k-mers of even length, some are their own reverse complements: 2, 10, 32, 136, ..."""
    for stranded, numbers in ((False, [2, 10, 32, 136, 512, 2080]), (True, [4, 16, 64, 256, 1024, 4096])):
        widths = [make(word_lengths=[k], oriented=stranded, **BASES_ALONE).width for k in range(1, 7)]
        assert widths == numbers
    assert make(word_lengths=[4, 5, 6], motifs=7).width == 136 + 512 + 2080 + 3 * 7


@pytest.mark.parametrize("length", [40, 41])
def test_without_a_direction_both_strands_have_the_same_features(length: int) -> None:
    codes = random_codes(np.random.default_rng(0), 6, length)
    other = torch.from_numpy(reverse_complement(codes.numpy()))
    plain, oriented = make(**BASES_ALONE), make(oriented=True, window_length=length, **BASES_ALONE)
    assert torch.equal(plain(codes, None), plain(other, None))
    assert not torch.equal(oriented(codes, None), oriented(other, None))


def test_bases_at_positions_by_hand() -> None:
    found = make(word_lengths=[], oriented=True, window_length=4, **BASES_ALONE)
    assert found(codes_of("ACNT"), None).reshape(4, 4).tolist() == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 1],
    ]


def test_evidence_and_what_exceeds_its_quantiles_by_hand() -> None:
    found = make(motifs=2, **MOTIFS_ALONE)
    found.knots.copy_(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    evidence = torch.tensor([[5, 4]], dtype=torch.uint8)
    assert found(codes_of("ACGT"), evidence).tolist() == [[5, 4, 4, 2, 2, 0]]


def test_what_is_not_read_is_not_needed() -> None:
    generator = np.random.default_rng(1)
    evidence = random_evidence(generator, 3)
    motifs = make(**MOTIFS_ALONE)
    assert torch.equal(
        motifs(random_codes(generator, 3, 40), evidence), motifs(random_codes(generator, 3, 30), evidence)
    )
    both = make(word_lengths=[2])
    codes = random_codes(generator, 3, 40)
    assert torch.equal(both(codes, evidence)[:, :10], make(word_lengths=[2], **BASES_ALONE)(codes, None))
    assert torch.equal(both(codes, evidence)[:, 10:], motifs(codes, evidence))


@pytest.mark.parametrize("rows", [1, 2, 7, 90])
@pytest.mark.parametrize("oriented", [False, True])
def test_what_is_fitted_is_that_of_numpy(rows: int, oriented: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_ROWS", 8)  # several blocks
    generator = np.random.default_rng(rows)
    codes, evidence = random_codes(generator, rows, 40), random_evidence(generator, rows)
    codes[:, :5] = 0  # features that do not vary
    found = make(word_lengths=[1, 3], oriented=oriented, window_length=40)
    found.fit(codes, evidence)
    expected = np.quantile(evidence.numpy(), KNOTS, axis=0, method="nearest")
    np.testing.assert_array_equal(found.knots.numpy(), expected)
    plain = make(word_lengths=[1, 3], oriented=oriented, window_length=40)
    plain.knots.copy_(found.knots)
    raw = plain._raw(codes, evidence).double().numpy()
    np.testing.assert_allclose(found.centre.numpy(), raw.mean(axis=0), atol=1e-5)
    deviation = raw.std(axis=0)
    varies = deviation > 1e-5
    np.testing.assert_allclose(found.scale.numpy()[varies], deviation[varies], rtol=1e-4)
    assert (found.scale[~torch.from_numpy(varies)] == 1).all()
    features = found(codes, evidence)
    assert features.abs().max() <= MOST and torch.isfinite(features).all()
    np.testing.assert_allclose(features.numpy()[:, ~varies], 0, atol=1e-5)
    if rows > 2:
        np.testing.assert_allclose(features.mean(dim=0).numpy(), 0, atol=0.2)  # some are clamped


def test_of_tiles_the_best_one_counts() -> None:
    generator = np.random.default_rng(5)
    codes = random_codes(generator, 30, 40)
    tiles = torch.from_numpy(generator.integers(0, 256, size=(30, 4, 6), dtype=np.uint8))
    first, second = make(), make()
    first.fit(codes, tiles)
    second.fit(codes, tiles.amax(dim=1))
    for name, value in second.state_dict().items():
        assert torch.equal(first.state_dict()[name], value), name


@pytest.mark.parametrize("rows", [1, 2, 50])
def test_moments_of_blocks_are_those_of_all_rows(rows: int) -> None:
    values = np.random.default_rng(rows).integers(0, 256, size=(rows, 5))
    mean, deviation = moments(torch.split(torch.from_numpy(values), 8))
    np.testing.assert_allclose(mean.numpy(), values.mean(axis=0))
    np.testing.assert_allclose(deviation.numpy(), values.std(axis=0), atol=1e-6)


def test_far_features_are_clamped() -> None:
    generator = np.random.default_rng(2)
    found = make(word_lengths=[4])
    found.fit(random_codes(generator, 50, 60, most=4), torch.zeros(50, 6, dtype=torch.uint8))
    features = found(codes_of("A" * 60), torch.full((1, 6), 255, dtype=torch.uint8))
    assert features.max() == MOST


def test_features_of_a_window_do_not_depend_on_the_others() -> None:
    generator = np.random.default_rng(3)
    codes, evidence = random_codes(generator, 9, 40), random_evidence(generator, 9)
    found = make()
    found.fit(codes, evidence)
    assert torch.equal(found(codes, evidence)[4:5], found(codes[4:5], evidence[4:5]))


def test_what_was_fitted_is_saved_with_the_weights() -> None:
    generator = np.random.default_rng(4)
    codes, evidence = random_codes(generator, 30, 40), random_evidence(generator, 30)
    fitted, fresh = make(), make()
    fitted.fit(codes, evidence)
    assert set(fitted.state_dict()) == {"centre", "scale", "knots"}
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh(codes, evidence), fitted(codes, evidence))
    assert list(fitted.parameters()) == []  # nothing of it is trained


def test_a_head_over_the_summary() -> None:
    torch.manual_seed(0)
    head = SummaryHead(10, 6, 3, (0.5, 0.5))
    features = torch.randn(4, 10)
    _, first, _, _, last = head.layers
    assert torch.equal(head.eval()(features), last(first(features).relu()))
    assert not torch.equal(head.train()(features), head(features))  # dropout


@pytest.mark.parametrize("changes", [{}, {"oriented": True, "window_length": 30}, MOTIFS_ALONE])
def test_other_evidence_changes_the_features_of_motifs_alone(changes: dict[str, Any]) -> None:
    """As if the windows had been read anew; in floats too, since a mean is no whole number of steps."""
    generator = np.random.default_rng(0)
    codes, evidence = random_codes(generator, 9, 30), random_evidence(generator, 9)
    found = make(**changes)
    found.fit(codes, evidence)
    other = random_evidence(generator, 9).float() + 0.25
    assert torch.equal(found.with_evidence(found(codes, evidence), other), found(codes, other))
    assert not torch.equal(found(codes, evidence), found(codes, other))
