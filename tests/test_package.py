"""What `pip install .` installs is whole: package data too, and the public names."""

import subprocess
import sys
from pathlib import Path

import pytest

import genebert

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_an_installed_copy_has_its_data_and_answers(tmp_path: Path) -> None:
    build = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *build, "--target", str(tmp_path), str(ROOT)], check=True)
    source = ROOT / "src" / "genebert"
    shipped = {p.relative_to(source) for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert {p for p in shipped if not (tmp_path / "genebert" / p).exists()} == set()
    command = [sys.executable, "-c", "import genebert.cli as c; print(c.__file__); c.main(['--help'])"]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout.startswith(str(tmp_path))
    assert "pretrain" in found.stdout


@pytest.mark.parametrize("name", [name for name in genebert.__all__ if name != "__version__"])
def test_every_public_name_is_a_class_or_function_each_time(name: str) -> None:
    # A function with the name of its module was a function at first use and the module at the second.
    assert callable(getattr(genebert, name)) and callable(getattr(genebert, name))


def test_a_name_that_is_not_public() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = genebert.nonsense
