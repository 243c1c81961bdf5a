"""A run that is killed with SIGKILL, wherever, resumes to the bytes of one that was not, and redoes nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy_tasks import local_cluster
from toys import World

from genebert.corpus import block, regions
from genebert.corpus.build import prepare
from genebert.errors import UserError
from genebert.settings import PrepareSettings
from genebert.stage import read_manifest

POINTS = ["peaks-00001", "regions-00002", "signal-00001", "blocks-00000", "blocks-00003", "corpus.json"]
POINTS += ["manifest.json"]
KILLED_AT = """
import json, os, signal, sys
from pathlib import Path
from genebert.corpus import block, regions, store, work
from genebert.corpus.build import prepare
from genebert.settings import PrepareSettings
from genebert import stage

block.FEWEST_REGIONS = 16
regions.PEAKS_PER_TASK = 1

def killing(function, point):
    def call(path, content):
        if Path(path).name == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(path, content)
    return call

def killed_at(point, settings):
    work._keep = killing(work._keep, point)
    stage.write_json = store.write_json = killing(stage.write_json, point)
    prepare(PrepareSettings.model_validate(settings))

for point, settings in json.loads(sys.argv[1]).items():
    child = os.fork()
    if child == 0:
        killed_at(point, settings)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, point
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


@pytest.fixture(scope="module")
def reference(toy_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(toy_world.settings(tmp_path_factory.mktemp("reference") / "corpus"))


@pytest.fixture(scope="module")
def killed(toy_world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PrepareSettings]:
    """The settings of runs that were killed, by where; they are forked from one process, as imports take longer."""
    folder = tmp_path_factory.mktemp("killed")
    runs = {point: toy_world.settings(folder / point, workers=1) for point in [*POINTS, "signal-00000"]}
    given = json.dumps({point: settings.model_dump(mode="json") for point, settings in runs.items()})
    run = subprocess.run([sys.executable, "-c", KILLED_AT, given], capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    return runs


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_resumes_to_the_same_bytes(
    point: str, reference: Path, killed: dict[str, PrepareSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "FEWEST_REGIONS", 16)
    monkeypatch.setattr(regions, "PEAKS_PER_TASK", 1)
    settings = killed[point]
    assert not settings.out.exists()
    scratch = Path(f"{settings.out}.partial/scratch")
    done = {path: path.stat().st_mtime_ns for path in scratch.glob("*-?????")}
    assert not (scratch / point).exists()
    computed = watch(monkeypatch)
    assert contents(prepare(settings)) == contents(reference)
    assert not {path.name for path in done} & set(computed)
    assert set(read_manifest(settings.out, "prepare", verify=True).files) == set(contents(reference))
    assert not Path(f"{settings.out}.partial").exists()


def watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the names of results are added as they are computed."""
    from genebert.corpus import work

    computed: list[str] = []
    keep = work._keep

    def noting(place: Path, arrays: work.Arrays) -> None:
        computed.append(place.name)
        keep(place, arrays)

    monkeypatch.setattr(work, "_keep", noting)
    return computed


def test_other_settings_do_not_resume_a_killed_run(toy_world: World, killed: dict[str, PrepareSettings]) -> None:
    with pytest.raises(UserError, match="other settings or inputs"):
        prepare(toy_world.settings(killed["signal-00000"].out, pseudocount=0.5))


@pytest.mark.parametrize("workers", [2, 3])
def test_processes_write_the_same_bytes(workers: int, reference: Path, toy_world: World, tmp_path: Path) -> None:
    assert contents(prepare(toy_world.settings(tmp_path / "corpus", workers=workers))) == contents(reference)


def test_a_dask_cluster_writes_the_same_bytes(reference: Path, toy_world: World, tmp_path: Path) -> None:
    with local_cluster(2, threads=2) as cluster:
        settings = toy_world.settings(tmp_path / "corpus", scheduler=cluster.scheduler_address)
        assert contents(prepare(settings)) == contents(reference)
