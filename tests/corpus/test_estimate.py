from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from toys import World, random_motif

from genebert.cli import main
from genebert.corpus import build, estimate
from genebert.corpus.estimate import Estimate
from genebert.corpus.store import Corpus
from genebert.errors import ResumableError
from genebert.inputs.scan import Scanner

GB = 10**9
ARRAYS = ("sequence", "evidence", "accessible_offsets", "accessible_regions", "accessible_values", "reference_regions")
Usage = namedtuple("Usage", ["total", "used", "free"])


def of_size(disk: int, scratch: int) -> Estimate:
    return Estimate(1, 1, 1, 1, disk=disk, scratch=scratch, memory=0, seconds=0.0)


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(free, 0, free))


def keep(scratch: Path, name: str, size: int) -> None:
    """Put a sparse file of a size where `Work` would keep a result."""
    (scratch / name).mkdir(parents=True)
    with (scratch / name / "values.npy").open("wb") as handle:
        handle.truncate(size)


@pytest.mark.parametrize(("free", "enough"), [(5 * GB, True), (5 * GB - 1, False), (0, False)])
def test_there_must_be_room_for_the_corpus_and_its_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, enough: bool
) -> None:
    with_free(monkeypatch, free)
    if enough:
        of_size(3 * GB, 2 * GB).check_space(tmp_path, tmp_path / "scratch")
        return
    with pytest.raises(ResumableError) as error:
        of_size(3 * GB, 2 * GB).check_space(tmp_path, tmp_path / "scratch")
    assert f"{tmp_path}: 5.00 GB more are needed, and" in str(error.value)


def test_what_an_earlier_run_left_needs_no_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, scratch = of_size(1700, 1700), tmp_path / "scratch"
    with_free(monkeypatch, 2000)
    keep(scratch, "peaks-00000", 1500)  # is no part of the estimate
    keep(scratch, "blocks-00001.draft", 1)
    with pytest.raises(ResumableError, match="more are needed"):
        expected.check_space(tmp_path, scratch)
    keep(scratch, "signal-00000", 400)
    keep(scratch, "blocks-00000", 1000)
    expected.check_space(tmp_path, scratch)
    keep(scratch, "blocks-00001", 5000)
    expected.check_space(tmp_path, scratch)
    with_free(monkeypatch, 1699)
    with pytest.raises(ResumableError, match="more are needed"):  # more scratch is no room for the corpus
        expected.check_space(tmp_path, scratch)


def test_arrays_that_are_written_anew_need_no_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed while it wrote the corpus left part of it."""
    with_free(monkeypatch, 900)
    (tmp_path / "evidence.npy").write_bytes(bytes(700))
    with pytest.raises(ResumableError, match="more are needed"):
        of_size(1000, 601).check_space(tmp_path, tmp_path / "scratch")
    of_size(1000, 600).check_space(tmp_path, tmp_path / "scratch")
    of_size(100, 900).check_space(tmp_path, tmp_path / "scratch")


def test_counts_take_memory() -> None:
    scanner = Scanner([random_motif("m", 6, np.random.default_rng(0))], 0.01, 0.5)
    given: dict[str, Any] = {"regions": 1000, "examples": 10, "width": 64, "scanner": scanner, "workers": 1}
    of_peaks = estimate.estimate(**given, cell_types=54, counted=False)
    of_counts = estimate.estimate(**given, cell_types=54, counted=True)
    assert of_peaks.memory == estimate.estimate(**given, cell_types=1, counted=False).memory
    assert of_counts.memory - of_peaks.memory == 24 * 54 * 1000
    assert (of_counts.disk, of_counts.scratch) == (of_peaks.disk, of_peaks.scratch)


def test_a_dry_run_tells_what_a_run_takes_and_writes_nothing(
    toy_world: World, toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(Estimate, "rows", lambda self: [shown.append(self), ("on disk", "a little")][1:])
    before = {path: path.stat().st_mtime_ns for path in toy_world.folder.rglob("*")}
    result = CliRunner().invoke(main, [*toy_world.arguments(tmp_path / "made" / "corpus"), "--dry-run"])
    assert result.exit_code == 0, result.output
    (found,) = shown
    assert (found.regions, found.examples, found.motifs) == (len(toy.regions), len(toy.accessible_regions), 6)
    arrays = sum((toy.folder / f"{name}.npy").stat().st_size for name in ARRAYS)
    arrays += (toy.folder / "regions.tsv").stat().st_size
    assert found.disk == pytest.approx(arrays, rel=0.1)
    assert list(tmp_path.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in toy_world.folder.rglob("*")} == before


def test_a_dry_run_prints_its_estimate(toy_world: World, toy: Corpus, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [*toy_world.arguments(tmp_path / "corpus"), "--dry-run"])
    assert result.exit_code == 0
    for words in ("What it would take", f"{len(toy.regions)}, {len(toy.accessible_regions)}, 6", "on disk", "memory"):
        assert words in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_run_stops_before_the_scan_if_the_disk_is_too_small(
    toy_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 1000)
    with pytest.raises(ResumableError, match=r"more are needed, and 0\.0 MB are free"):
        build.prepare(toy_world.settings(tmp_path / "corpus"))
    assert not list(tmp_path.rglob("blocks-*"))
    assert list(tmp_path.rglob("signal-*"))
    monkeypatch.undo()
    build.prepare(toy_world.settings(tmp_path / "corpus"))
    assert (tmp_path / "corpus" / "manifest.json").exists()
