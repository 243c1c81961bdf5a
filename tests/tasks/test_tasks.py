"""Every task is one module that is found, has options of its own, and says what its columns are."""

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from genebert import tasks
from genebert.cli import main
from genebert.settings import LabelsSettings
from genebert.tasks import task_class, task_help, task_names
from genebert.tasks.promoter import Promoter
from genebert.tasks.tf_binding import TfBinding

SOURCE = Path(tasks.__file__).parent
NEW = '''"""Homopolymers: runs of one base."""

import pandas as pd
from pydantic import Field

from genebert.tasks.base import LabelTable, Sources, Task


class Homopolymer(Task):
    """Label runs of A (1) and C (0). Columns: chrom, sequence, label, split."""

    length: int = Field(8, description="bases of a run")

    def windows(self, sources: Sources) -> LabelTable:
        rows = [(f"chr{i}", base * self.length, label) for i in (1, 2, 3) for label, base in enumerate("CA")]
        return LabelTable(pd.DataFrame(rows, columns=["chrom", "sequence", "label"]), {"runs": len(rows)})
'''


def test_the_tasks_are_the_modules_that_hold_one() -> None:
    holding = {path.stem.replace("_", "-") for path in SOURCE.glob("*.py") if "(Task):" in path.read_text()}
    assert set(task_names()) == holding
    assert {"promoter", "tf-binding", "splice", "accessibility", "custom"} <= holding


@pytest.mark.parametrize("name", task_names())
def test_a_task_has_options_a_line_of_help_and_says_its_columns(name: str) -> None:
    task = task_class(name)
    assert task.name() == name
    assert set(task.model_fields) > set(LabelsSettings.model_fields)
    assert all(field.description for field in task.model_fields.values())
    assert task_help(name).endswith((".", "?")) or ":" in task_help(name)
    described = " ".join(str(task.__doc__).split())
    assert "Columns: " in described and "label" in described and "split" in described
    text = CliRunner().invoke(main, ["labels", name, "--help"]).output
    assert all(f"--{option.replace('_', '-')}" in text for option in task.model_fields)


def test_a_new_task_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "homopolymer.py").write_text(NEW)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    assert "homopolymer    Homopolymers: runs of one base." in CliRunner().invoke(main, ["labels", "--help"]).output
    words = ["labels", "homopolymer", "--length", "5", "--valid-chromosomes", "chr2", "--test-chromosomes", "chr3"]
    result = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "runs: 6" in result.stderr
    table = pd.read_csv(tmp_path / "out" / "labels.tsv", sep="\t")
    assert list(table.columns) == ["chrom", "sequence", "label", "split"]
    assert list(table["sequence"]) == ["CCCCC", "AAAAA"] * 3
    assert list(table["split"]) == ["train"] * 2 + ["valid"] * 2 + ["test"] * 2


def test_a_name_that_is_no_task() -> None:
    for name in ("base", "windows", "nothing"):
        with pytest.raises(KeyError):
            task_class(name)


def test_what_determines_the_labels_is_their_identity(tmp_path: Path) -> None:
    """The task, its options, and the names of files, since these name labels; not where files or the result lie."""
    genome = tmp_path / "genome.fa"
    first = Promoter(out=Path("a"), genome=genome, negatives="substitution")
    assert first.identity() == Promoter(out=Path("b"), genome=Path("other"), negatives="substitution").identity()
    assert first.identity()["task"] == "promoter" and first.identity()["negatives"] == "substitution"
    given = Promoter(out=Path("a"), genome=genome, negatives=tmp_path / "negatives.bed")
    assert "negatives" not in given.identity()
    assert given.files() == {"genome": genome, "negatives": tmp_path / "negatives.bed"}
    peaks = [Path("here/K562.bed"), Path("there/A549.bed")]
    assert set(TfBinding(out=Path("a"), genome=genome, peaks=peaks).files()) == {
        "genome",
        "peaks 0: K562.bed",
        "peaks 1: A549.bed",
    }
