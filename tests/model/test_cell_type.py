from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from toy_models import random_matrix, small

from genebert.corpus.surroundings import COLUMNS
from genebert.model.cell_type import CellTypeFeatures
from genebert.model.genebert import GeneBertForSequenceClassification
from genebert.model.summary import MOST
from genebert.region_matrix import RegionMatrix


def matrix_in(rows: int = 40, seed: int = 0) -> RegionMatrix:
    generator = torch.Generator().manual_seed(seed)
    return replace(
        random_matrix(6, rows=rows, seed=seed),
        usage=100 + 20 * torch.randn(rows, 6, generator=generator),
        surroundings=torch.rand(rows, COLUMNS, generator=generator),
        signal=5 * torch.rand(rows, generator=generator),
    )


def rows_of(matrix: RegionMatrix, rows: slice) -> RegionMatrix:
    return RegionMatrix(**{name: one[rows] for name, one in vars(matrix).items()})


def blocks(matrix: RegionMatrix) -> Iterator[RegionMatrix]:
    return (rows_of(matrix, rows) for rows in (slice(0, 13), slice(13, None)))


def fitted(matrix: RegionMatrix, **changes: object) -> CellTypeFeatures:
    made = CellTypeFeatures(small(**{"cell_type": True, "own_accessibility": True, **changes}))
    made.fit(lambda: blocks(matrix))
    return made


def test_features_are_products_of_evidence_and_usage_then_totals() -> None:
    matrix = matrix_in()
    features = fitted(matrix)(matrix).numpy()
    assert features.shape == (40, 6 + 6 + 1 + COLUMNS + 1)
    evidence, usage = matrix.evidence[:, 3].double().numpy(), matrix.usage.double().numpy()
    products = (evidence - evidence.mean(0)) * (usage - usage.mean(0)) / evidence.var(0)
    standardised = (evidence - evidence.mean(0)) / evidence.std(0)
    np.testing.assert_allclose(features[:, :6], standardised, rtol=1e-3, atol=1e-4)
    expected = products / np.sqrt((products**2).mean())
    np.testing.assert_allclose(features[:, 6:12], expected.clip(-MOST, MOST), rtol=1e-3, atol=1e-4)
    totals = np.column_stack([products.mean(axis=1), matrix.surroundings.numpy(), matrix.signal.numpy()])
    np.testing.assert_allclose(features[:, 12:], (totals - totals.mean(0)) / totals.std(0), rtol=1e-3, atol=1e-3)


def test_what_is_as_on_average_is_nothing() -> None:
    matrix = matrix_in()
    made = fitted(matrix)
    average = replace(matrix, usage=matrix.usage.mean(dim=0).expand(40, 6))
    assert made(average)[:, 6:12].abs().max() < 1e-5


def test_what_does_not_vary_is_not_divided_by() -> None:
    matrix = replace(matrix_in(), surroundings=torch.ones(40, COLUMNS), usage=torch.full((40, 6), 7.0))
    assert fitted(matrix)(matrix)[:, 6 : 13 + COLUMNS].abs().max() == 0


def test_a_classifier_reads_the_cell_type() -> None:
    torch.manual_seed(0)
    config = small(cell_type=True, own_accessibility=True, encoders=False, window_length=60)
    model = GeneBertForSequenceClassification(config).eval()
    matrix, codes = matrix_in(), torch.zeros(40, 60, dtype=torch.uint8)
    model.cell_type.fit(lambda: blocks(matrix))
    with torch.no_grad():
        logits = model(None, None, matrix, codes)
        for name in ("usage", "surroundings", "signal"):
            changed = replace(matrix, **{name: getattr(matrix, name) + 1})
            assert not torch.allclose(model(None, None, changed, codes), logits)


def test_totals_are_never_dropped() -> None:
    """Of one feature that says all, dropout in the head would leave two fifths."""
    torch.manual_seed(0)
    config = small(cell_type=True, own_accessibility=True, encoders=False, window_length=60)
    head = GeneBertForSequenceClassification(config).cell_type_classifier.train()
    features = torch.zeros(500, head.layers[1].in_features)
    features[:, -1] = 1
    hidden: list[torch.Tensor] = []
    head.layers[1].register_forward_hook(lambda _, given, __: hidden.append(given[0]))
    head(features)
    assert (hidden[0][:, -1] == 1).all() and head.kept == 1 + COLUMNS + 1
