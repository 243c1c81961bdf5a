from pathlib import Path

import pandas as pd
import pytest
import toys

from genebert.corpus.overlaps import best_overlaps, regions_in
from genebert.errors import UserError


def table(*rows: tuple[str, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["chrom", "start", "end"])


def test_a_peak_belongs_to_the_region_it_shares_most_bases_with() -> None:
    regions = table(("chr1", 0, 100), ("chr1", 100, 200), ("chr2", 0, 100))
    peaks = table(
        ("chr1", 90, 160),  # 10 bases of the first, 60 of the second
        ("chr1", 50, 150),  # 50 of both: the first
        ("chr1", 200, 300),  # abuts the second
        ("chr2", 99, 300),
        ("chr3", 0, 10),
    )
    assert best_overlaps(peaks, regions).tolist() == [1, 0, -1, 2, -1]


def test_regions_that_overlap_intervals_of_a_file(tmp_path: Path) -> None:
    corpus = toys.corpus_of([("chr1", 0), ("chr1", 500), ("chr2", 0)], {"B": {0: 1.0}})
    (tmp_path / "some.bed").write_text("chr1\t550\t600\nchr2\t100\t110\nchr1\t20\t30\n")
    assert regions_in(tmp_path / "some.bed", corpus).tolist() == [True, True, False]
    assert regions_in(None, corpus).all()


def test_intervals_that_overlap_no_region_are_refused(tmp_path: Path) -> None:
    corpus = toys.corpus_of([("chr1", 0), ("chr1", 500), ("chr2", 0)], {"B": {0: 1.0}})
    (tmp_path / "none.bed").write_text("chr1\t400\t450\n")
    with pytest.raises(UserError, match=r"none.bed: none of its intervals overlaps a region of the corpus .*Choose"):
        regions_in(tmp_path / "none.bed", corpus)
