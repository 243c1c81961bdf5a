import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_grids
from toy_grids import CELL_TYPES, protocol_of, wide, write_labels, write_protocol
from toy_suites import change_source, toy_methods

from genebert.cross_validation.cells import Cell, cells_of
from genebert.cross_validation.folds import folds_of
from genebert.cross_validation.grid import Grid
from genebert.cross_validation.protocol import read_protocol
from genebert.errors import UserError


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with toy_methods():
        yield


def cells(folder: Path, **changes: Any) -> tuple[list[Cell], Grid]:
    protocol = read_protocol(write_protocol(folder, protocol_of(**changes)))
    grid = Grid.read(protocol.labels, protocol.genome, protocol.corpus)
    return cells_of(protocol, grid, folds_of(grid, protocol.cell_types, protocol.chromosomes), folder / "out"), grid


def changed(before: list[Cell], after: list[Cell]) -> set[str]:
    pairs = zip(before, after, strict=True)
    return {new.name for old, new in pairs if old.settings.identity() != new.settings.identity()}


def test_names_and_folders(atlas: Path) -> None:
    found, _ = cells(atlas, label_fractions=[0.5, 1])
    assert len(found) == len({cell.folder for cell in found}) == 2 * 9 * (2 + 1)
    assert found[1].name == "cell types 1, chromosomes 1, G, seed 1"
    assert found[1].folder == atlas / "out" / "runs" / "cell types 1, chromosomes 1" / "G" / "1" / "1"
    assert found[-1].name == "cell types 3, chr3, flat, 0.5 of the labels, seed 0"


def test_a_cell_depends_on_content_and_not_on_names(atlas: Path, tmp_path: Path) -> None:
    before, _ = cells(atlas)
    other = Path(shutil.copytree(atlas, tmp_path / "elsewhere"))
    after, _ = cells(other, title="Other", ensembles=[], compare=[])
    assert not changed(before, after)


def test_what_has_changed_concerns_only_what_depends_on_it(
    atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = cells(atlas, label_fractions=[0.5, 1])
    every = {cell.name for cell in before}
    methods = protocol_of()["methods"]
    noisy = [methods[0] | {"options": {"noise": 0.2}}, methods[1]]
    after, _ = cells(atlas, label_fractions=[0.5, 1], methods=noisy)
    assert changed(before, after) == {name for name in every if ", G, " in name}
    write_labels(atlas, wide().assign(**{"label:A": 1}))
    assert changed(before, cells(atlas, label_fractions=[0.5, 1])[0]) == every
    write_labels(atlas, wide())
    change_source("genebert.cross_validation.grid", tmp_path, monkeypatch)
    assert changed(before, cells(atlas, label_fractions=[0.5, 1])[0]) == every


def test_the_draw_of_windows_concerns_fractions_only(atlas: Path) -> None:
    before, _ = cells(atlas, label_fractions=[0.5, 1], seeds=1)
    after, _ = cells(atlas, label_fractions=[0.5, 1], seeds=1, seed=7)
    same = [
        (old.settings.label_fraction, new.settings.model_copy(update={"seed": 0}).identity() == old.settings.identity())
        for old, new in zip(before, after, strict=True)
    ]
    assert set(same) == {(1.0, True), (0.5, False)}


def test_what_a_cell_keeps(atlas: Path) -> None:
    found, grid = cells(atlas, label_fractions=[1, 0.5])
    cell = next(one for one in found if one.settings.label_fraction == 0.5 and one.settings.seed == 1)
    cell.compute(grid)
    assert cell.is_done()
    assert sorted(path.name for path in cell.folder.iterdir()) == ["manifest.json", "test.npy"]
    kept = cell.predictions()
    windows = np.flatnonzero(cell.fold.test_windows)
    assert kept.shape == (len(windows), len(CELL_TYPES))
    train, valid = cell.fold.examples(grid, cell.settings.label_fraction, 0)
    fitted = cell.method.configured.fit(train, valid, grid.target(train.known_truth), cell.settings.seed)
    for i in range(len(CELL_TYPES)):
        examples = replace(grid.examples(windows, np.full(len(windows), i)), truth=None)
        np.testing.assert_array_equal(kept[:, i], fitted.predict(examples)[:, 1])
    assert cell.cost().keys() == {"seconds_to_fit", "seconds_to_predict", "machine"}


def test_predictions_do_not_depend_on_the_truth_of_test_cell_types_and_chromosomes(atlas: Path) -> None:
    """Neither on what is known of other cell types there."""
    found, grid = cells(atlas)
    cell = found[0]
    cell.compute(grid)
    before = cell.predictions()
    tested = np.isin(np.arange(len(CELL_TYPES)), cell.fold.test)[None, :] | cell.fold.test_windows[:, None]
    changed_grid = replace(grid, truth=np.where(tested, 1 - grid.truth, grid.truth))
    cell.compute(changed_grid)
    np.testing.assert_array_equal(cell.predictions(), before)
    cell.compute(replace(grid, truth=1 - grid.truth))
    assert (cell.predictions() != before).any()


def test_numbers_are_predicted_in_their_unit(atlas: Path) -> None:
    table = toy_grids.long(wide()).rename(columns={"label": "value"})
    write_labels(atlas, table.assign(value=table["value"] * 10.0))
    found, grid = cells(atlas, methods=[{"name": "flat", "method": "constant"}], ensembles=[], compare=[])
    found[0].compute(grid)
    rows = found[0].fold.rows(grid)["train"]
    np.testing.assert_allclose(found[0].predictions(), grid.truth[rows].mean())


def test_predictions_that_are_no_numbers_are_a_failure(atlas: Path) -> None:
    methods = [{"name": "G", "method": "composition", "options": {"noise": float("nan")}}]
    found, grid = cells(atlas, methods=methods, ensembles=[], compare=[])
    with pytest.raises(UserError, match="its predictions are no numbers"):
        found[0].compute(grid)
    assert not found[0].folder.exists()
