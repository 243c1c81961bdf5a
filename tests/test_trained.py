from pathlib import Path
from typing import Any

import pytest

import genebert.finetune
from genebert.finetune import finetune
from genebert.methods.base import Fitted
from genebert.methods.genebert import GeneBert
from genebert.methods.kmer_regression import KmerRegression
from genebert.methods.motif_trees import MotifTrees
from genebert.settings import FinetuneSettings
from genebert.stage import SCRATCH, read_manifest


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is fitted, by its description."""
    done: list[str] = []

    def noted(kind: type[Any]) -> None:
        fit = kind.fit

        def noting(self: Any, train: Any, valid: Any, target: Any, seed: int, description: str = "") -> Fitted:
            done.append(description)
            return fit(self, train, valid, target, seed, description)

        monkeypatch.setattr(kind, "fit", noting)

    for kind in (GeneBert, MotifTrees, KmerRegression):
        noted(kind)
    return done


EVERY = [
    "pre-trained, seed 3",
    "pre-trained, seed 4",
    "boosted trees on motifs, seed 3",
    "boosted trees on motifs, seed 4",
    "from scratch, seed 3",
    "from scratch, seed 4",
    "k-mer regression, seed 3",  # which another seed changes nothing of
]


@pytest.mark.parametrize("amid", ["fitting", "saving", "measuring"])
def test_an_interrupted_run_goes_on_and_ends_as_any_other(
    amid: str, fits: list[str], toy_model: Path, toy_sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(name: str) -> FinetuneSettings:
        return FinetuneSettings(
            out=tmp_path / name,
            labels=toy_sequences,
            model=toy_model,
            epochs=1,
            batch_size=16,
            seed=3,
            seeds=2,
            ensemble=["motif-trees"],
            baselines=["kmer-regression"],
            device="cpu",
        )

    whole = finetune(asked("whole"))
    assert fits == EVERY
    fits.clear()
    kept = EVERY if amid == "measuring" else EVERY[:1]
    places: dict[str, tuple[Any, str]] = {
        "fitting": (GeneBert, "fit"),
        "saving": (GeneBert.fitted, "save"),
        "measuring": (genebert.finetune, "_shared_with_pretraining"),  # once the predictor is written
    }
    kind, name = places[amid]
    step = getattr(kind, name)

    def stopping(*given: Any) -> Any:
        if fits == (EVERY[:2] if amid == "saving" else kept):
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(kind, name, stopping)
    with pytest.raises(KeyboardInterrupt):
        finetune(asked("stopped"))
    monkeypatch.setattr(kind, name, step)
    scratch = tmp_path / "stopped.partial" / SCRATCH
    assert sorted(path.name for path in scratch.iterdir() if path.name != "draft") == sorted(kept)
    fits.clear()
    stopped = finetune(asked("stopped"))
    assert fits == EVERY[len(kept) :]
    expected, found = contents(whole), contents(stopped)
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] != expected[name]} <= {"manifest.json"}
    assert read_manifest(stopped).metrics == read_manifest(whole).metrics
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped", "whole"]
