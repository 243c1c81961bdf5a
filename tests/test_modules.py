import sys
from pathlib import Path

import pytest

from genebert.modules import class_in, module_keys

KEYS = ["blue", "dark-red", "two"]
COLOUR = "from colours.base import Colour\n\n\nclass {}(Colour):\n    pass\n"


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of a package of two colours, in modules of which one holds a helper too."""
    package = tmp_path / "colours"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text("class Colour:\n    pass\n")
    (package / "dark_red.py").write_text(COLOUR.format("DarkRed") + "\n\nclass Helper:\n    pass\n")
    (package / "blue.py").write_text(COLOUR.format("Blue"))
    (package / "two.py").write_text(COLOUR.format("One") + "\n\nclass Other(One):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "colours"]:
        monkeypatch.delitem(sys.modules, name)
    return str(package)


def test_keys_are_names_of_modules_with_dashes(colours: str) -> None:
    assert module_keys([colours], {"base"}) == KEYS
    assert "colours.blue" not in sys.modules  # `genebert --help` asks for keys


def test_the_class_is_the_one_that_the_module_defines(colours: str) -> None:
    from colours.base import Colour

    found = class_in("colours", "dark-red", Colour, KEYS)
    assert found.__name__ == "DarkRed" and issubclass(found, Colour)
    with pytest.raises(AssertionError, match=r"colours\.two holds 2 subclasses of Colour"):
        class_in("colours", "two", Colour, KEYS)
    with pytest.raises(KeyError):
        class_in("colours", "base", Colour, KEYS)
