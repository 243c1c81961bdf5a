from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genebert.errors import UserError
from genebert.inputs.accessibility import (
    BIGWIG_SUFFIXES,
    PEAK_SUFFIXES,
    accessible_regions,
    cell_type_of,
    count_signal,
    drop_small,
    find_files,
    overlapping,
    peaks_to_regions,
    per_million,
)
from genebert.inputs.windows import WindowIndex

PEAK_COLUMNS = ["chrom", "start", "end", "summit", "signal"]


def touch(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("B.narrowPeak", "B"),
        ("CD4.T.bed.gz", "CD4.T"),
        ("NK.narrowpeak.GZ", "NK"),
        ("x.bed", "x"),
        ("peaks.txt", "peaks"),
    ],
)
def test_the_file_name_names_the_cell_type(file: str, name: str) -> None:
    assert cell_type_of(Path("a.bed") / file, PEAK_SUFFIXES) == name


def test_folders_and_files_are_found_and_sorted(tmp_path: Path) -> None:
    in_folder = touch(tmp_path / "peaks", "T.bed", "B.narrowPeak.gz", "README.md")
    alone = touch(tmp_path, "NK.bed")
    assert find_files([tmp_path / "peaks", *alone], PEAK_SUFFIXES, "--peaks") == {
        "B": in_folder[1],
        "NK": alone[0],
        "T": in_folder[0],
    }


def test_broad_peaks_are_peaks(tmp_path: Path) -> None:
    touch(tmp_path / "peaks", "K562_peaks.broadPeak", "GM.broadPeak.gz", "A.narrowPeak")
    assert list(find_files([tmp_path / "peaks"], PEAK_SUFFIXES, "--peaks")) == ["A", "GM", "K562"]


def test_problems_with_paths_are_collected(tmp_path: Path) -> None:
    touch(tmp_path / "peaks", "T.bed", "T.narrowPeak")
    touch(tmp_path / "empty")
    with pytest.raises(UserError) as error:
        find_files([tmp_path / "absent", tmp_path / "empty", tmp_path / "peaks"], PEAK_SUFFIXES, "--peaks")
    message = str(error.value)
    assert f"{tmp_path / 'absent'}: no such file or folder" in message
    assert f"{tmp_path / 'empty'}: the folder holds no *.narrowPeak or *.broadPeak or *.bed" in message
    first, second = tmp_path / "peaks" / "T.bed", tmp_path / "peaks" / "T.narrowPeak"
    assert f"{second}: cell type 'T' is already given by {first}" in message


def test_a_file_has_to_name_a_cell_type(tmp_path: Path) -> None:
    touch(tmp_path / "peaks", "_peaks.narrowPeak", "T.bed")
    with pytest.raises(UserError, match=r"_peaks.narrowPeak: its name .* Name it CELLTYPE_peaks.narrowPeak"):
        find_files([tmp_path / "peaks"], PEAK_SUFFIXES, "--peaks")


def test_no_path_at_all() -> None:
    with pytest.raises(UserError, match=r"--bigwigs: no cell type is given. Give at least one \*.bw or \*.bigWig file"):
        find_files([], BIGWIG_SUFFIXES, "--bigwigs")


def test_bigwigs_are_found_by_the_same_rule(tmp_path: Path) -> None:
    tracks = touch(tmp_path / "tracks", "T.x.bw", "B.bigWig", "NK.BW", "C.bed", "D.bw.txt")
    found = find_files([tmp_path / "tracks"], BIGWIG_SUFFIXES, "--bigwigs")
    assert found == {"B": tracks[1], "NK": tracks[2], "T.x": tracks[0]}


def windows(*starts: int, width: int = 100, chrom: str = "chr1") -> pd.DataFrame:
    return pd.DataFrame({"chrom": chrom, "start": list(starts), "end": [start + width for start in starts]})


@pytest.mark.parametrize(
    ("peak", "accessible"),
    [
        (("chr1", 90, 130, 100, 1.0), [0]),  # summit on the first base
        (("chr1", 90, 130, 99, 1.0), []),  # one before it
        (("chr1", 150, 230, 199, 1.0), [0]),  # summit on the last base
        (("chr1", 160, 230, 200, 1.0), []),  # on the first base of an abutting stretch
        (("chr1", 40, 151, 60, 1.0), [0]),  # covers the centre, 150
        (("chr1", 40, 150, 60, 1.0), []),  # ends just before the centre
        (("chr1", 100, 500, 450, 1.0), [0, 1]),  # covers both centres
        (("chr2", 100, 200, 150, 1.0), []),
    ],
)
def test_what_makes_a_region_accessible(peak: tuple, accessible: list[int]) -> None:
    regions = windows(100, 300)
    found, signal = accessible_regions(regions, pd.DataFrame([peak], columns=PEAK_COLUMNS))
    assert found.tolist() == accessible
    assert signal.tolist() == [1.0] * len(accessible)
    assert (found.dtype, signal.dtype) == (np.int64, np.float64)


def test_the_signal_is_that_of_the_highest_peak() -> None:
    peaks = pd.DataFrame(
        [("chr1", 100, 200, 150, 3.0), ("chr1", 120, 140, 130, 7.0), ("chr1", 0, 400, 350, 5.0)],
        columns=PEAK_COLUMNS,
    )
    found, signal = accessible_regions(windows(100, 300), peaks)
    assert (found.tolist(), signal.tolist()) == ([0, 1], [7.0, 5.0])


def loop(regions: pd.DataFrame, peaks: pd.DataFrame) -> dict[int, float]:
    """Row of each accessible region -> signal, pair by pair."""
    expected: dict[int, float] = {}
    for i, region in enumerate(regions.itertuples(index=False)):
        for peak in peaks[peaks["chrom"] == region.chrom].itertuples(index=False):
            centre = (region.start + region.end) // 2
            if region.start <= peak.summit < region.end or peak.start <= centre < peak.end:
                expected[i] = max(expected.get(i, 0.0), peak.signal)
    return expected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("abutting", [True, False])
def test_accessible_regions_against_a_loop(seed: int, abutting: bool) -> None:
    generator = np.random.default_rng(seed)
    starts = range(0, 6000, 100) if abutting else np.cumsum(generator.integers(100, 300, 30))
    regions = pd.concat([windows(*starts, chrom=chrom) for chrom in ("chr1", "chr10", "chr2")], ignore_index=True)
    start = generator.integers(0, 6000, size=90)
    size = generator.integers(1, 400, size=90)
    peaks = pd.DataFrame(
        {
            "chrom": generator.choice(["chr1", "chr2", "chr3"], 90),
            "start": start,
            "end": start + size,
            "summit": start + (size * generator.random(90)).astype(int),
            "signal": generator.integers(0, 9, 90) / 4,  # 0 is a signal, too
        }
    )
    expected = loop(regions, peaks)
    for given in (regions, WindowIndex(regions)):
        for order in (peaks, peaks.sample(frac=1, random_state=0), peaks.astype({"chrom": "category"})):
            found, signal = accessible_regions(given, order)
            assert dict(zip(found.tolist(), signal.tolist(), strict=True)) == expected
            assert (np.diff(found) > 0).all()


def test_no_peaks() -> None:
    found, signal = accessible_regions(windows(0, 100), pd.DataFrame(columns=PEAK_COLUMNS))
    assert (found.shape, signal.shape) == ((0,), (0,))


def test_per_million_by_hand() -> None:
    signal, training = np.array([1.0, 3.0, 6.0]), np.array([True, True, False])
    assert per_million(signal, training) == pytest.approx(np.log1p([2.5e5, 7.5e5, 1.5e6]))
    assert per_million(signal, training).dtype == np.float32


def test_nothing_held_out_enters_the_total() -> None:
    training = np.array([True, False, True])
    before, after = (per_million(np.array([1.0, held_out, 2.0]), training) for held_out in (5.0, 5000.0))
    assert before[training].tobytes() == after[training].tobytes()


def test_without_training_signal_all_regions_stand_in() -> None:
    assert per_million(np.array([1.0, 3.0]), np.zeros(2, dtype=bool)) == pytest.approx(np.log1p([2.5e5, 7.5e5]))
    assert per_million(np.zeros(2), np.ones(2, dtype=bool)).tolist() == [0.0, 0.0]
    assert per_million(np.empty(0), np.empty(0, dtype=bool)).shape == (0,)


COUNTS = np.array([0, 1, 2, 5, 12, 40])
TRAINING = np.array([True, True, True, True, True, False])
"""20 counts in 5 training regions: 1 count is 50,000 CPM, and the mean is 200,000."""


@pytest.mark.parametrize(
    ("min_count", "min_cpm", "accessible"),
    [
        (0, None, [3, 4, 5]),  # 4 counts are the mean
        (6, None, [4, 5]),
        (2, 0.0, [2, 3, 4, 5]),
        (0, 0.0, [1, 2, 3, 4, 5]),  # never where there is nothing
        (0, 250_000.0, [3, 4, 5]),
        (0, 250_001.0, [4, 5]),
    ],
)
def test_what_counts_make_accessible_by_hand(min_count: int, min_cpm: float | None, accessible: list[int]) -> None:
    for counts in (COUNTS, COUNTS / 64):
        least = min_count if counts.dtype == np.int64 else min_count / 64
        found, values = count_signal(counts, TRAINING, min_count=least, min_cpm=min_cpm)
        assert found.tolist() == accessible
        assert values == pytest.approx(np.log1p(50_000.0 * COUNTS[accessible]))
        assert (found.dtype, values.dtype) == (np.int64, np.float32)


def test_held_out_counts_change_no_threshold_and_no_value() -> None:
    generator = np.random.default_rng(0)
    counts, training = generator.poisson(3, 200), generator.random(200) < 0.7
    found, values = count_signal(counts, training, min_count=2)
    changed, new_values = count_signal(np.where(training, counts, 10**6), training, min_count=2)
    kept, new_kept = training[found], training[changed]
    assert found[kept].tolist() == changed[new_kept].tolist()
    assert values[kept].tobytes() == new_values[new_kept].tobytes()


def test_counts_in_no_training_region() -> None:
    found, values = count_signal(np.array([0, 1, 3]), np.array([True, False, False]))
    assert found.tolist() == [2]  # the mean of all three is 4 / 3
    assert values == pytest.approx(np.log1p([7.5e5]))
    assert count_signal(np.zeros(3), np.ones(3, dtype=bool))[0].tolist() == []
    assert count_signal(np.empty(0), np.empty(0, dtype=bool))[0].tolist() == []


def test_peaks_go_to_the_region_that_holds_their_centre() -> None:
    regions = pd.concat([windows(300, 100), windows(100, chrom="chr2")], ignore_index=True)
    peaks = pd.DataFrame(
        [
            ("chr1", 0, 200),  # centre 100, the first base of row 1
            ("chr1", 0, 199),  # centre 99, before it
            ("chr2", 198, 201),  # centre 199, the last base of row 2
            ("chr2", 198, 202),  # centre 200, past it
            ("chr1", 301, 1000),  # overlaps row 0, but its centre is beyond
            ("chr3", 100, 200),
            ("chr1", 340, 350),
            ("chr1", 350, 360),  # two peaks in one region
        ],
        columns=["chrom", "start", "end"],
    )
    assert peaks_to_regions(peaks, regions).tolist() == [1, -1, 2, -1, -1, -1, 0, 0]
    assert peaks_to_regions(peaks.iloc[:0], WindowIndex(regions)).tolist() == []


def test_small_cell_types_are_dropped_with_the_reason() -> None:
    cells, fragments = {"T": 20, "NK": 3, "B": 19, "DC": 500}, {"T": 5000, "NK": 12, "B": 9000, "DC": 4999}
    kept, dropped = drop_small(cells, fragments, 20, 5000)
    assert kept == ["T"]
    assert dropped == {
        "B": "19 cells of at least 20",
        "DC": "4,999 fragments of at least 5,000",
        "NK": "3 cells of at least 20 and 12 fragments of at least 5,000",
    }
    assert drop_small(cells, fragments, 1, 0) == (["B", "DC", "NK", "T"], {})


def test_abutting_intervals_do_not_overlap() -> None:
    intervals = pd.DataFrame({"chrom": ["chr1", "chr2"], "start": [100, 0], "end": [200, 1000]})
    assert overlapping(windows(0, 1, 150, 199, 200), intervals).tolist() == [False, True, True, True, False]
    assert overlapping(windows(0, 150), intervals.iloc[:0]).tolist() == [False, False]
    assert overlapping(windows().astype({"start": int}), intervals).shape == (0,)
