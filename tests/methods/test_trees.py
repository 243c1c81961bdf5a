import builtins
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from genebert.errors import UserError
from genebert.methods.kmer_trees import KmerTrees
from genebert.methods.motif_trees import MotifTrees
from genebert.methods.position_trees import PositionTrees

SMALL = {"learning_rate": 0.3, "least_rows": 5}


def test_there_are_as_many_trees_as_the_validation_rows_like(task: Callable[..., Any]) -> None:
    toy = task("classes")
    noisy = toy.valid.rows(np.arange(40))
    noisy.truth[:10] = 1 - noisy.truth[:10]
    losses = []
    for trees in range(1, 13):
        fitted = PositionTrees(kmers=(), trees=trees, patience=trees, **SMALL).fit(toy.train, noisy, toy.target, 0)
        losses.append(toy.target.loss(noisy.truth, fitted.predict(noisy)))
    chosen = PositionTrees(kmers=(), trees=12, patience=12, **SMALL).fit(toy.train, noisy, toy.target, 0)
    assert chosen.ensembles[0].num_trees() == int(np.argmin(losses)) + 1 < 12
    assert toy.target.loss(noisy.truth, chosen.predict(noisy)) == pytest.approx(min(losses))


def test_few_rows_are_learned_from_too(task: Callable[..., Any]) -> None:
    """Of fewer than twice `least_rows` rows, all were once predicted alike."""
    toy = task("classes")
    few = toy.train.rows(np.arange(60))
    predicted = PositionTrees(kmers=()).fit(few, toy.valid, toy.target, 0).predict(few)
    assert len(few) < 2 * PositionTrees().least_rows and len(np.unique(predicted[:, 1])) > 1


def test_patience_ends_the_search(task: Callable[..., Any]) -> None:
    toy = task("classes")
    wrong = replace(toy.valid, truth=1 - toy.valid.truth)
    fitted = PositionTrees(kmers=(), trees=50, patience=3, **SMALL).fit(toy.train, wrong, toy.target, 0)
    assert fitted.ensembles[0].num_trees() == 1


def test_each_kind_of_trees_sees_its_features(task: Callable[..., Any]) -> None:
    toy = task("classes")
    width = toy.test.codes.shape[1]
    columns = [
        kind(kmers=kmers).features.of(toy.test).shape[1]
        for kind, kmers in ((MotifTrees, ()), (MotifTrees, (4,)), (KmerTrees, (2, 4)), (PositionTrees, (2,)))
    ]
    assert columns == [2 + 13, 2 + 136 + 13, 10 + 136 + 13, 16 + 4 * width]
    with pytest.raises(ValueError, match="at least 1 item"):
        KmerTrees(kmers=())


def test_a_missing_library_of_the_system_is_named(task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    toy = task("classes")
    load = builtins.__import__

    def fail(name: str, *others: Any, **more: Any) -> Any:
        if name == "lightgbm":
            raise OSError("libgomp.so.1: cannot open shared object file")
        return load(name, *others, **more)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(UserError, match=r"LightGBM: it cannot be loaded \(libgomp.so.1.*Install libgomp1"):
        MotifTrees().fit(toy.train, toy.valid, toy.target, 0)
