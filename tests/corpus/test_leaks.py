"""Nothing held out reaches training: neither chromosomes nor cell types, whatever is in the files.

`assert_no_leak` is what must hold of any corpus; `training_part` is everything of it that training sees, and must not
change with what is held out. The last tests break the code that splits, and see that these checks notice.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import toys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from toys import Peak, World

from genebert.corpus import plan, regions, signal, splits
from genebert.corpus.build import prepare
from genebert.corpus.store import Corpus

HELD_OUT = {"valid_chromosomes": ["chr2"], "test_chromosomes": ["chr3"], "test_cell_types": ["T"]}
TRAINING_CELL_TYPES = ("B", "NK")


def build(world: World, name: str, **changes: Any) -> Corpus:
    asked = {**HELD_OUT, "background": "regions", **changes}
    return Corpus.open(prepare(world.settings(world.folder.parent / name, **asked)))


def crowded_peaks(generator: np.random.Generator, count: int = 60) -> list[Peak]:
    """Broad peaks whose summits are near each other, so that a peak that lost its region covers others' centres."""
    found = []
    for chrom in generator.choice(list(toys.CHROMOSOMES), count):
        summit = 700 + 90 * int(generator.integers(0, 200))
        left, right = generator.integers(40, 500, 2).tolist()
        p, signal = generator.uniform(1, 30, 2).round(3).tolist()
        found.append(Peak(str(chrom), summit - left, summit + right, left, p, signal))
    return found


def crowded_world(folder: Path, seed: int) -> World:
    """The toy files with crowded peaks."""
    world = toys.write_world(folder, seed)
    generator = np.random.default_rng(seed)
    for path in sorted(world.peaks.iterdir()):
        toys.write_peaks(path, sorted({str(peak) for peak in crowded_peaks(generator)}))
    return world


def training_part(corpus: Corpus) -> dict[str, Any]:
    """Everything of a corpus that training sees."""
    regions, examples = corpus.split == 0, corpus.examples("train")
    place = np.cumsum(regions) - 1
    return {
        "windows": corpus.regions.loc[regions, ["chrom", "start", "end"]].to_csv(index=False),
        "sequence": corpus.sequence[regions].tobytes(),
        "evidence": corpus.evidence[regions].tobytes(),
        "motifs": [motif.id for motif in corpus.motifs],
        "background": corpus.gc_background,
        "region of example": place[corpus.accessible_regions[examples]].tolist(),
        "cell type of example": [corpus.cell_types[i] for i in corpus.cell_types_of(examples)],
        "accessibility": corpus.accessible_values[examples].tobytes(),
    }


def assert_no_leak(corpus: Corpus) -> None:
    """Assert that training sees no held-out chromosome, no held-out cell type, and nothing that overlaps them."""
    examples = corpus.examples("train")
    table = corpus.regions
    seen = table.iloc[corpus.accessible_regions[examples]]
    assert set(seen["split"]) <= {"train"}
    assert set(seen["chrom"]) <= set(corpus.lengths) - {*corpus.valid_chromosomes, *corpus.test_chromosomes}
    held_out_cell_types = {*corpus.valid_cell_types, *corpus.test_cell_types}
    assert {corpus.cell_types[i] for i in corpus.cell_types_of(examples)}.isdisjoint(held_out_cell_types)
    for part in ("valid", "test"):
        assert set(corpus.accessible_regions[corpus.examples(part)]).isdisjoint(corpus.accessible_regions[examples])
    assert set(np.flatnonzero(corpus.split == 0)) == set(corpus.accessible_regions[examples])
    others = table[corpus.split != 0]
    for chrom, rows in seen.drop_duplicates(["chrom", "start"]).groupby("chrom", observed=True):
        other = others[others["chrom"] == chrom]
        overlap = (other["start"].to_numpy() < rows["end"].to_numpy()[:, None]) & (
            rows["start"].to_numpy()[:, None] < other["end"].to_numpy()
        )
        assert not overlap.any()
    columns, _ = corpus.nearest_examples(
        corpus.cell_types_of(examples), corpus.region_positions[corpus.accessible_regions[examples]], 30, corpus.width
    )
    shown = columns[columns >= 0]
    assert set(corpus.split[corpus.accessible_regions[shown]]) <= {0}
    assert {corpus.cell_types[i] for i in corpus.cell_types_of(shown)}.isdisjoint(held_out_cell_types)


def peaks_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def is_held_out(path: Path, line: str) -> bool:
    return path.stem not in TRAINING_CELL_TYPES or not line.startswith("chr1\t")


def change_what_is_held_out(world: World, generator: np.random.Generator, keep: float) -> None:
    """Shuffle all rows; drop and add peaks, stronger than all others, where they are held out; change its sequence."""
    for path in world.peaks.iterdir():
        lines = [line for line in peaks_of(path) if not is_held_out(path, line) or generator.random() < keep]
        added = (
            str(Peak(p.chrom, p.start, p.end, p.summit, 50 * p.p, 900 * p.signal)) for p in crowded_peaks(generator)
        )
        lines += [line for line in added if is_held_out(path, line)]
        toys.write_peaks(path, generator.permutation(sorted(set(lines))).tolist())
    others = {name: toys.random_bases(20_000, generator) for name in ("chr2", "chr3")}
    toys.write_fasta(world.genome, toys.read_fasta(world.genome) | others)


@given(seed=st.integers(0, 10**6), keep=st.sampled_from([0.0, 0.5, 1.0]), drop=st.booleans())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_held_out_bears_on_what_training_sees(
    tmp_path_factory: pytest.TempPathFactory, seed: int, keep: float, drop: bool
) -> None:
    world = crowded_world(tmp_path_factory.mktemp("leaks") / "inputs", seed)
    before = build(world, "before")
    assert_no_leak(before)
    change_what_is_held_out(world, np.random.default_rng(seed), keep)
    changes = {}
    if drop:
        (world.peaks / "T.narrowPeak").unlink()
        changes["test_cell_types"] = []
    after = build(world, "after", **changes)
    assert_no_leak(after)
    assert training_part(after) == training_part(before)


@given(seed=st.integers(0, 10**6), valid=st.sampled_from(["chr1", "chr2"]), cell_type=st.sampled_from(toys.CELL_TYPES))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_choice_of_splits_keeps_training_apart(
    tmp_path_factory: pytest.TempPathFactory, seed: int, valid: str, cell_type: str
) -> None:
    world = crowded_world(tmp_path_factory.mktemp("leaks") / "inputs", seed)
    corpus = build(
        world,
        "corpus",
        valid_chromosomes=[valid],
        test_chromosomes=["3"],
        valid_cell_types=[cell_type],
        test_cell_types=[],
    )
    assert_no_leak(corpus)
    assert {corpus.cell_types[i] for i in corpus.cell_types_of(corpus.examples("valid", "valid"))} <= {cell_type}


def write_cells(path: Path, generator: np.random.Generator, *, with_held_out: bool) -> Path:
    """Cells x peaks: peaks of training cell types, and crowded among them those that only T has; or without T."""
    starts = np.sort(generator.choice(np.arange(300, 19_000, 45), size=(3, 120), replace=True), axis=1)
    peaks = [(chrom, start) for chrom, row in zip(toys.CHROMOSOMES, starts, strict=True) for start in np.unique(row)]
    counts = generator.poisson(generator.gamma(0.6, 12.0, size=(9, len(peaks))))
    only_held_out = generator.random(len(peaks)) < 0.4
    cell_types = np.repeat(["B", "NK", "T"], 3)
    counts[np.ix_(cell_types != "T", only_held_out)] = 0
    cells = np.ones(9, dtype=bool) if with_held_out else cell_types != "T"
    columns = np.ones(len(peaks), dtype=bool) if with_held_out else ~only_held_out
    names = [f"{chrom}:{start}-{start + 100}" for chrom, start in peaks]
    anndata.AnnData(
        sparse.csr_matrix(counts[np.ix_(cells, columns)].astype(np.float32)),
        obs=pd.DataFrame({"cell_type": cell_types[cells]}, index=[f"cell{i}" for i in np.flatnonzero(cells)]),
        var=pd.DataFrame(index=np.array(names)[columns]),
    ).write_h5ad(path)
    return path


@pytest.mark.parametrize("seed", range(6))
def test_what_only_held_out_cells_have_bears_on_no_training(tmp_path: Path, seed: int) -> None:
    world = toys.write_world(tmp_path / "inputs", seed)
    parts = []
    for with_held_out in (True, False):
        path = tmp_path / f"cells{with_held_out}.h5ad"
        write_cells(path, np.random.default_rng(seed), with_held_out=with_held_out)
        held_out = {"test_cell_types": ["T"] if with_held_out else []}
        small = {"min_cells": 1, "min_fragments": 1}
        corpus = build(world, str(with_held_out), peaks=[], anndata=path, **small, **held_out)
        assert_no_leak(corpus)
        parts.append(training_part(corpus))
    assert parts[0] == parts[1]


# The checks themselves: each of these breaks the code in one way that has leaked in some program -------------


def let_a_few_held_out_regions_slip(monkeypatch: pytest.MonkeyPatch) -> None:
    right = plan.split_of

    def slipping(*arguments: Any) -> Any:
        split = right(*arguments)
        return np.where(np.arange(len(split)) % 10 == 9, 0, split).astype(np.uint8)

    monkeypatch.setattr(plan, "split_of", slipping)


def ignore_cell_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "cell_type_split", lambda names, valid, test: np.zeros(len(names), dtype=np.uint8))


def let_held_out_cell_types_choose_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    right = regions.peaks_of_chromosome
    monkeypatch.setattr(
        regions, "peaks_of_chromosome", lambda peaks, code, chrom, late: right(peaks, code, chrom, np.zeros_like(late))
    )


def count_regions_of_held_out_cell_types_as_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_found_in_training", lambda regions, signal, part: np.ones(regions, dtype=bool))


def normalise_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    right = signal.per_million
    monkeypatch.setattr(signal, "per_million", lambda values, training: right(values, np.ones_like(training)))


def take_splits_by_position_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    right = splits.region_split
    monkeypatch.setattr(splits, "region_split", lambda *arguments: right(*arguments)[::-1])


def measure_the_background_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    right = plan._training_gc
    monkeypatch.setattr(
        plan, "_training_gc", lambda planned, work: right(replace(planned, split=np.zeros_like(planned.split)), work)
    )


def show_training_cell_types_what_is_there_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_hide", lambda signal, hidden, cell_types: signal)


def let_regions_of_held_out_cell_types_set_normalisers(monkeypatch: pytest.MonkeyPatch) -> None:
    right = plan.Place
    monkeypatch.setattr(
        plan,
        "Place",
        lambda lengths, regions, training: right(lengths, regions, (regions["chrom"] == "chr1").to_numpy()),
    )


BREAKS = [
    show_training_cell_types_what_is_there_for_others,
    let_regions_of_held_out_cell_types_set_normalisers,
    let_a_few_held_out_regions_slip,
    ignore_cell_types,
    let_held_out_cell_types_choose_regions,
    count_regions_of_held_out_cell_types_as_seen,
    normalise_over_everything,
    take_splits_by_position_in_another_order,
    measure_the_background_everywhere,
]


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda function: function.__name__)
def test_broken_code_is_noticed(
    break_it: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    world = crowded_world(tmp_path / "inputs", 1)
    with pytest.raises(AssertionError):
        before = build(world, "before")
        assert_no_leak(before)
        change_what_is_held_out(world, np.random.default_rng(1), 0.5)
        after = build(world, "after")
        assert_no_leak(after)
        assert training_part(after) == training_part(before)
