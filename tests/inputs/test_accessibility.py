from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genebert.errors import UserError
from genebert.inputs.accessibility import (
    accessible_regions,
    cell_type_of,
    find_cell_types,
    overlapping,
    per_million,
)

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
    assert cell_type_of(Path("a.bed") / file) == name


def test_folders_and_files_are_found_and_sorted(tmp_path: Path) -> None:
    in_folder = touch(tmp_path / "peaks", "T.bed", "B.narrowPeak.gz", "README.md")
    alone = touch(tmp_path, "NK.bed")
    assert find_cell_types([tmp_path / "peaks", *alone]) == {
        "B": in_folder[1],
        "NK": alone[0],
        "T": in_folder[0],
    }


def test_problems_with_paths_are_collected(tmp_path: Path) -> None:
    touch(tmp_path / "peaks", "T.bed", "T.narrowPeak")
    touch(tmp_path / "empty")
    with pytest.raises(UserError) as error:
        find_cell_types([tmp_path / "absent", tmp_path / "empty", tmp_path / "peaks"])
    message = str(error.value)
    assert f"{tmp_path / 'absent'}: no such file or folder" in message
    assert f"{tmp_path / 'empty'}: the folder holds no *.narrowPeak or *.bed" in message
    first, second = tmp_path / "peaks" / "T.bed", tmp_path / "peaks" / "T.narrowPeak"
    assert f"{second}: cell type 'T' is already given by {first}" in message


def test_no_path_at_all() -> None:
    with pytest.raises(UserError, match="no cell type is given"):
        find_cell_types([])


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


def test_accessible_regions_against_a_loop() -> None:
    generator = np.random.default_rng(0)
    regions = pd.concat([windows(*range(0, 6000, 150), chrom=chrom) for chrom in ("chr1", "chr2")], ignore_index=True)
    start = generator.integers(0, 6000, size=60)
    size = generator.integers(1, 400, size=60)
    peaks = pd.DataFrame(
        {
            "chrom": generator.choice(["chr1", "chr2"], 60),
            "start": start,
            "end": start + size,
            "summit": start + (size * generator.random(60)).astype(int),
            "signal": generator.random(60),
        }
    )
    expected: dict[int, float] = {}
    for i, region in regions.iterrows():
        for _, peak in peaks[peaks["chrom"] == region["chrom"]].iterrows():
            centre = region["start"] + 50
            if region["start"] <= peak["summit"] < region["end"] or peak["start"] <= centre < peak["end"]:
                expected[int(i)] = max(expected.get(int(i), 0.0), peak["signal"])
    found, signal = accessible_regions(regions, peaks.sample(frac=1, random_state=0))
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


def test_abutting_intervals_do_not_overlap() -> None:
    intervals = pd.DataFrame({"chrom": ["chr1", "chr2"], "start": [100, 0], "end": [200, 1000]})
    assert overlapping(windows(0, 1, 150, 199, 200), intervals).tolist() == [False, True, True, True, False]
    assert overlapping(windows(0, 150), intervals.iloc[:0]).tolist() == [False, False]
    assert overlapping(windows().astype({"start": int}), intervals).shape == (0,)
