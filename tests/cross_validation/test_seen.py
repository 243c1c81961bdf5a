import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genebert.benchmark.entries import MethodEntry
from genebert.cross_validation.folds import PARTS, Fold
from genebert.cross_validation.seen import seen_by
from genebert.errors import UserError

NOTHING = np.empty(0, dtype=np.int64)


def fold_of(*parts: list[str]) -> Fold:
    none = NOTHING.astype(bool)
    return Fold("fold", NOTHING, NOTHING, NOTHING, none, none, none, dict(zip(PARTS, parts, strict=True)))


def entry_of(model: Path, **options: Any) -> MethodEntry:
    return MethodEntry(name="G", method="genebert", options={"model": str(model), **options})


def test_what_a_model_was_pretrained_on_is_told(toy_model: Path) -> None:
    """The toy model was pre-trained on chr1, in B, NK and T."""
    folds = [fold_of(["T"], ["B"], ["1"], ["chr2"]), fold_of(["NK"], ["T"], ["chr3"], ["1"])]
    assert seen_by(entry_of(toy_model), folds) == [
        "pre-trained, without labels, on cell types that are tested on: T, NK",
        "pre-trained, without labels, on chromosomes that are tested on: 1",
    ]
    assert seen_by(entry_of(toy_model), [fold_of(["new"], ["B"], ["chr3"], ["1"])]) == []


def test_without_a_model_nothing_was_seen(toy_model: Path) -> None:
    folds = [fold_of(["T"], ["B"], ["chr1"], ["chr2"])]
    assert seen_by(MethodEntry(name="G", method="genebert"), folds) == []
    assert seen_by(MethodEntry(name="G", method="motif-trees"), folds) == []
    assert seen_by(entry_of(toy_model, initial="random"), folds) == []


def test_where_the_corpus_is_gone_what_was_not_held_out_may_have_been_seen(
    toy_model: Path, toy_folder: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(toy_model, tmp_path / "model"))
    manifest = model / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(toy_folder), str(tmp_path / "gone")))
    found = seen_by(entry_of(model), [fold_of(["new"], ["B"], ["chr3"], ["1"])])
    assert found == ["pre-trained, without labels, on cell types that are tested on: new"]


def test_a_folder_that_is_no_model(toy_folder: Path) -> None:
    with pytest.raises(UserError, match="a result of `genebert pretrain` is needed"):
        seen_by(entry_of(toy_folder), [fold_of(["T"], ["B"], ["chr1"], ["chr2"])])


def test_a_model_that_does_not_say_what_it_has_seen(toy_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(toy_model, tmp_path / "model"))
    manifest = json.loads((model / "manifest.json").read_text())
    del manifest["metrics"]["train_chromosomes"]
    (model / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"did not write train_chromosomes. Pre-train again"):
        seen_by(entry_of(model), [fold_of(["T"], ["B"], ["chr1"], ["chr2"])])
