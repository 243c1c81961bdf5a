import os
import shutil
from pathlib import Path

# Before torch is imported, and for every process that a test starts: sums of floats depend on the number of threads,
# and toy networks are too small to gain from more than one.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
from hypothesis import settings
from toys import World, random_bases, write_world

from genebert.corpus.build import prepare
from genebert.corpus.store import Corpus
from genebert.finetune import finetune
from genebert.pretrain import pretrain
from genebert.settings import FinetuneSettings, PretrainSettings
from genebert.tasks.accessibility import Accessibility
from genebert.tasks.labels import labels

settings.register_profile("genebert", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("genebert")


@pytest.fixture(scope="session")
def toy_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The toy input files; tests that change them take `world`."""
    return write_world(tmp_path_factory.mktemp("toy") / "inputs")


@pytest.fixture(scope="session")
def toy_folder(toy_world: World) -> Path:
    """The corpus made of the toy input files; tests that change it take a copy."""
    return prepare(toy_world.settings(toy_world.folder.parent / "corpus"))


@pytest.fixture(scope="session")
def toy(toy_folder: Path) -> Corpus:
    return Corpus.open(toy_folder)


@pytest.fixture
def world(toy_world: World, tmp_path: Path) -> World:
    """A copy of the toy input files that a test may change."""
    return World(Path(shutil.copytree(toy_world.folder, tmp_path / "inputs")))


@pytest.fixture(scope="session")
def toy_model(toy_folder: Path) -> Path:
    """A model pre-trained on the toy corpus for a few steps."""
    return pretrain(
        PretrainSettings(out=toy_folder.parent / "model", corpus=toy_folder, batch_size=16, epochs=2, device="cpu")
    )


@pytest.fixture(scope="session")
def toy_labels(toy_world: World, toy_folder: Path) -> Path:
    """Accessibility labels of the toy corpus."""
    return labels(Accessibility(out=toy_folder.parent / "labels", corpus=toy_folder, genome=toy_world.genome))


@pytest.fixture(scope="session")
def toy_predictor(toy_world: World, toy_folder: Path, toy_model: Path, toy_labels: Path) -> Path:
    """The toy model, fine-tuned on accessibility per cell type, with baselines."""
    return finetune(
        FinetuneSettings(
            out=toy_folder.parent / "predictor",
            labels=toy_labels,
            model=toy_model,
            genome=toy_world.genome,
            corpus=toy_folder,
            epochs=2,
            batch_size=16,
            seeds=2,
            device="cpu",
        )
    )


@pytest.fixture(scope="session")
def toy_sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of sequences of which half hold GATAAG, divided into splits."""
    generator = np.random.default_rng(0)
    rows = ["sequence,label,split"]
    for i in range(120):
        letters = random_bases(60, generator)
        split = ("train", "train", "valid", "test")[i // 2 % 4]
        planted = letters[:30] + "GATAAG" + letters[36:] if i % 2 else letters.replace("GATA", "GACA")
        rows.append(f"{planted},{i % 2},{split}")
    path = tmp_path_factory.mktemp("sequences") / "gata.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def sequence_predictor(toy_model: Path, toy_sequences: Path) -> Path:
    """The toy model, fine-tuned on sequences without coordinates."""
    return finetune(
        FinetuneSettings(
            out=toy_sequences.parent / "predictor",
            labels=toy_sequences,
            model=toy_model,
            epochs=2,
            batch_size=16,
            scratch=False,
            baselines=[],
            device="cpu",
        )
    )
