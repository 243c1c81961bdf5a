import shutil
from pathlib import Path

import pytest
import toy_grids

from genebert.cross_validation.grid import Grid


@pytest.fixture(scope="session")
def toy_atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with genome.fa and a corpus; tests that write into it take `atlas`."""
    return toy_grids.write_atlas(tmp_path_factory.mktemp("atlas"))


@pytest.fixture
def atlas(toy_atlas: Path, tmp_path: Path) -> Path:
    """A copy of it, with labels.tsv."""
    folder = Path(shutil.copytree(toy_atlas, tmp_path / "atlas"))
    toy_grids.write_labels(folder, toy_grids.wide())
    return folder


@pytest.fixture
def grid(atlas: Path) -> Grid:
    return toy_grids.read_grid(atlas, toy_grids.wide())
