from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st

from genebert.corpus.consensus import candidate_windows, filter_windows, n_fraction, remove_overlaps
from genebert.inputs.genome import Genome

NO_BLACKLIST = pd.DataFrame({"chrom": [], "start": [], "end": []})


def peak_table(*rows: tuple[str, int, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["chrom", "summit", "score"])


def window_table(rows: list[tuple[str, int, float, int]], width: int) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["chrom", "start", "quantile", "cell_type"])
    return table.assign(end=table["start"] + width)


def greedy(rows: list[tuple[str, int, float, int]], width: int) -> list[tuple[str, int]]:
    """Keep the best window, remove all that overlap it, and repeat: word for word."""
    left, kept = list(rows), []
    while left:
        best = min(left, key=lambda row: (-row[2], row[3], row[0], row[1]))
        kept.append((best[0], best[1]))
        left = [row for row in left if row[0] != best[0] or abs(row[1] - best[1]) >= width]
    return sorted(kept)


def starts(table: pd.DataFrame) -> list[tuple[str, int]]:
    return list(zip(table["chrom"], table["start"].tolist(), strict=True))


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["chr1", "chr2"]),
            st.integers(0, 80),
            st.sampled_from([0.2, 0.5, 1.0]),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=25,
    ),
    width=st.sampled_from([1, 4, 10]),
)
def test_overlap_removal_is_the_greedy_one(rows: list[tuple[str, int, float, int]], width: int) -> None:
    found = remove_overlaps(window_table(rows, width), width)
    assert starts(found) == greedy(rows, width)
    assert (found["end"] - found["start"] == width).all()
    assert found.index.tolist() == list(range(len(found)))
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    assert remove_overlaps(window_table(shuffled, width), width).equals(found)


def test_overlap_removal_by_hand() -> None:
    rows = [
        ("chr1", 0, 0.5, 0),
        ("chr1", 60, 1.0, 0),
        ("chr1", 120, 0.4, 0),
        ("chr1", 160, 0.4, 0),
        ("chr2", 60, 0.1, 0),
    ]
    # 60 removes 0 and 120, and so 160, which abuts it, stays
    assert starts(remove_overlaps(window_table(rows, 100), 100)) == [
        ("chr1", 60),
        ("chr1", 160),
        ("chr2", 60),
    ]


def test_ties_go_to_the_earlier_cell_type_then_to_the_lower_coordinate() -> None:
    assert starts(remove_overlaps(window_table([("chr1", 0, 1.0, 1), ("chr1", 5, 1.0, 0)], 10), 10)) == [("chr1", 5)]
    assert starts(remove_overlaps(window_table([("chr1", 5, 1.0, 0), ("chr1", 0, 1.0, 0)], 10), 10)) == [("chr1", 0)]


def test_candidates_are_centred_on_summits_and_ranked_within_their_cell_type() -> None:
    weak = peak_table(("chr1", 500, 1.0), ("chr1", 900, 3.0), ("chr1", 700, 2.0), ("chr1", 800, 3.0))
    strong = peak_table(("chr1", 500, 100.0), ("chr1", 600, 900.0))
    found = candidate_windows({"weak": weak, "strong": strong}, 100)
    assert found["start"].tolist() == [450, 850, 650, 750, 450, 550]
    assert (found["end"] - found["start"]).unique().tolist() == [100]
    assert found["quantile"].tolist() == [
        0.25,
        1.0,
        0.5,
        1.0,
        0.5,
        1.0,
    ]  # the deeper cell type has no advantage
    assert found["cell_type"].tolist() == [0, 0, 0, 0, 1, 1]


def test_peaks_of_one_chromosome_have_no_say_on_another() -> None:
    # The quantile was once taken over all chromosomes: held-out scores chose among training peaks.
    training = [("chr1", 500, 1.0), ("chr1", 900, 3.0)]
    before, after = (
        candidate_windows({"a": peak_table(*training, *held_out)}, 100)
        for held_out in ([("chr2", 500, 2.0)], [("chr2", 500, 9.0), ("chr2", 700, 0.0), ("chr2", 900, 0.0)])
    )
    assert before["quantile"].tolist()[:2] == after["quantile"].tolist()[:2] == [0.5, 1.0]


@pytest.fixture
def genome(tmp_path: Path) -> Iterator[Genome]:
    sequences = {"chr1": "ACGTACGTAC" * 20, "chr2": "A" * 50 + "N" * 50 + "C" * 100}
    with Genome(toys.write_fasta(tmp_path / "genome.fa", sequences)) as opened:
        yield opened


def windows(*rows: tuple[str, int]) -> pd.DataFrame:
    return window_table([(*row, 1.0, 0) for row in rows], 20)


def test_n_fraction_by_hand(genome: Genome) -> None:
    table = windows(("chr2", 40), ("chr1", 0), ("chr2", 60), ("chr2", 95), ("chr1", -5), ("chr1", 195), ("chr1", 300))
    assert n_fraction(table, genome) == pytest.approx([0.5, 0, 1, 0.25, 0.25, 0.75, 1])


def test_each_dropped_window_is_counted_under_one_reason(genome: Genome) -> None:
    table = windows(
        ("chr1", -1),
        ("chr1", 0),
        ("chr1", 180),
        ("chr1", 181),
        ("chr1", 100),
        ("chr1", 120),
        ("chr2", 40),
        ("chr2", 70),
        ("chr2", 90),
    )
    blacklist = pd.DataFrame({"chrom": ["chr1", "chr1", "chr2"], "start": [110, 195, 80], "end": [120, 999, 85]})
    kept, dropped = filter_windows(table, genome, blacklist, max_n_fraction=0.5)
    assert starts(kept) == [("chr1", 0), ("chr1", 120), ("chr2", 40), ("chr2", 90)]
    assert dropped == {"crossing a chromosome's end": 2, "overlapping the blacklist": 3, "too many N": 0}
    kept, dropped = filter_windows(table, genome, NO_BLACKLIST, max_n_fraction=0.0)
    assert starts(kept) == [("chr1", 0), ("chr1", 180), ("chr1", 100), ("chr1", 120)]
    assert dropped == {"crossing a chromosome's end": 2, "overlapping the blacklist": 0, "too many N": 3}
