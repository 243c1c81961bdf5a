"""Parts of scores are on disk before they have their name, and are computed once."""

import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from genebert.variants.parts import Parts
from genebert.variants.scorer import Scores


def test_a_part_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = Scores(**{field.name: np.arange(3.0) for field in fields(Scores)})
    parts, happened = Parts(tmp_path / "parts"), []
    synchronise, rename = os.fsync, Path.rename

    def fsync(handle: int) -> None:
        happened.append("fsync" if os.fstat(handle).st_size else "fsync of nothing")
        synchronise(handle)

    def renamed(path: Path, target: Path) -> Path:
        happened.append(f"rename to {target.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    for compute in (lambda: scores, lambda: pytest.fail("it is computed twice")):
        assert np.array_equal(parts.get("scored-000000", compute).gc, scores.gc)
    assert happened == ["fsync", "rename to scored-000000.npz"]
