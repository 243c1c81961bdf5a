"""The README's commands work as they stand, one after the other."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from genebert.cli import VERBS, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("genebert ")]
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
SMALLER = {
    "--regions 1000 --genes 300 --variants 200": "--regions 240 --genes 60 --variants 60",
    "--region-width 256": "--region-width 128",
    "--per-cell-type 40": "--per-cell-type 20",
    "--out scored": "--null 100 --out scored",
    "--out embedding": "--no-umap --out embedding",  # it compiles for half a minute; test_coordinates.py draws it
}
"""What is left out makes no other code run, and would take minutes."""


def test_first_code_stands_by_line_30() -> None:
    assert README[: README.index("```bash")].count("\n") < 30


def test_every_verb_is_shown_as_a_command_or_in_the_table() -> None:
    commands = {shlex.split(command)[1] for command in COMMANDS}
    of_the_user = {"benchmark", "cross-validate", "add-cell-type"}  # of a YAML, or further ATAC-seq
    assert commands == set(VERBS) - {"demo"} - of_the_user
    assert all(f"| `{verb}` |" in README for verb in of_the_user)


def test_make_targets_that_the_readme_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(BLOCKS), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    assert re.findall(r"^make (\w+)$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE) == [
        "check",
        "test",
        "demo",
    ]


@pytest.mark.slow
def test_the_step_by_step_commands_and_the_python_example_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert all(any(long in command for command in COMMANDS) for long in SMALLER)
    for command in COMMANDS:
        for long, short in SMALLER.items():
            command = command.replace(long, short)
        result = CliRunner().invoke(main, shlex.split(command)[1:], catch_exceptions=False)
        assert result.exit_code == 0, f"{command}\n{result.output}"
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "</html>" in page
    names: dict[str, object] = {}
    for block in PYTHON:
        exec(block, names)
    assert names["corpus"].evidence.shape[1] == 128
