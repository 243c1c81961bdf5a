import shutil
from pathlib import Path

import pytest
from hypothesis import settings
from toys import World, write_world

from genebert.corpus.build import prepare
from genebert.corpus.store import Corpus

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
