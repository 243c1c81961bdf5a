from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import write_fasta

from genebert.inputs.genome import Genome
from genebert.schema import gc_fraction
from genebert.tasks.on_genome import matched_windows, nearest_unused, oriented_codes, usable

WIDTH = 50


def frame(chrom: str, starts: object, width: int = WIDTH) -> pd.DataFrame:
    starts = np.asarray(starts, dtype=np.int64)
    return pd.DataFrame({"chrom": chrom, "start": starts, "end": starts + width})


NOTHING = frame("chr1", [])


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Genome]:
    """A chromosome whose GC content rises from 0.2 to 0.8, and another that is unknown for the most part."""
    generator = np.random.default_rng(0)
    gc = np.repeat(np.linspace(0.2, 0.8, 60), 1000)
    strong = generator.random(60_000) < gc
    letters = np.where(strong, generator.choice(list("CG"), 60_000), generator.choice(list("AT"), 60_000))
    sequences = {"chr1": "".join(letters), "chr2": "N" * 30_000 + "".join(letters[:3_000])}
    with Genome(write_fasta(tmp_path_factory.mktemp("genome") / "genome.fa", sequences)) as opened:
        yield opened


@given(st.lists(st.integers(0, 20), max_size=12), st.lists(st.integers(0, 20), max_size=12))
def test_nearest_unused_is_that_of_a_plain_search(values: list[int], wanted: list[int]) -> None:
    chosen = nearest_unused(np.array(values, dtype=float), np.array(wanted, dtype=float)).tolist()
    free = list(values)
    for value, index in zip(wanted, chosen, strict=False):
        assert abs(values[index] - value) == min(abs(other - value) for other in free)
        free.remove(values[index])
    assert len(set(chosen)) == len(chosen) == min(len(values), len(wanted))


def test_windows_beyond_an_end_or_on_unknown_sequence_are_not_usable(genome: Genome) -> None:
    windows = pd.concat([frame("chr1", [-1, 0, 59_950, 59_951]), frame("chr2", [29_994, 29_995, 29_996])])
    assert usable(windows, genome).tolist() == [False, True, True, False, False, True, True]  # 5 N of 50 may be
    assert usable(windows, genome, most_n=0).tolist() == [False, True, True, False, False, False, False]
    assert usable(windows.iloc[:1], genome).tolist() == [False]


def test_matched_windows_are_alike_and_apart_and_avoid_what_they_are_to_avoid(genome: Genome) -> None:
    windows = frame("chr1", np.arange(40_000, 60_000, 400))
    avoid = frame("chr1", [10_000], width=30_000)
    found = matched_windows(genome, windows, pd.concat([windows, avoid]), np.random.default_rng(1), ratio=2)
    assert len(found) == 2 * len(windows)
    assert (np.diff(np.sort(found["start"])) >= WIDTH).all()
    assert not found["start"].between(10_000 - WIDTH + 1, 39_999).any()
    gaps = found["start"].to_numpy()[:, None] - windows["start"].to_numpy()
    assert (np.abs(gaps) >= WIDTH).all()
    gc = [gc_fraction(oriented_codes(genome, table)).mean() for table in (windows, found)]
    assert abs(gc[0] - gc[1]) < 0.01


def test_matched_windows_lie_on_known_sequence_and_on_the_chromosomes_of_the_windows(genome: Genome) -> None:
    windows = frame("chr2", [30_100, 30_600])
    found = matched_windows(genome, windows, windows, np.random.default_rng(1), ratio=5)
    assert len(found) == 10 and set(found["chrom"]) == {"chr2"} and usable(found, genome).all()


def test_of_a_pool_as_many_are_taken_as_do_not_overlap(genome: Genome) -> None:
    pool = frame("chr1", [0, 10, 20, 100, 149, 500])
    found = matched_windows(
        genome, frame("chr1", range(1000, 2000, 50)), frame("chr1", [530]), np.random.default_rng(0), pool=pool
    )
    # [500, 550) overlaps what is to be avoided; of the first three, and of the next two, one can be had.
    assert len(found) == 2 and set(found["start"]) <= {0, 10, 20, 100, 149}


def test_the_seed_decides(genome: Genome) -> None:
    windows = frame("chr1", [5_000, 30_000])
    first, second, other = (
        matched_windows(genome, windows, NOTHING, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.equals(second) and not first.equals(other)


def test_no_windows_match_none(genome: Genome) -> None:
    assert matched_windows(genome, NOTHING, NOTHING, np.random.default_rng(0)).empty


def test_a_window_as_wide_as_its_chromosome_has_no_other(tmp_path: Path) -> None:
    with Genome(write_fasta(tmp_path / "g.fa", {"c": "ACGT" * 10})) as small:
        whole = frame("c", [0], width=40)
        assert matched_windows(small, whole, whole, np.random.default_rng(0)).empty
