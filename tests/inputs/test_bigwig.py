from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyBigWig
import pytest

from genebert.errors import UserError
from genebert.inputs.bigwig import bigwig_counts, chromosomes_without_coverage

LENGTHS = {"chr1": 1_000_000, "chr2": 5_000, "chr3": 700}
Entries = Sequence[tuple[int, int, float]]


def write(path: Path, entries: Mapping[str, Entries], lengths: Mapping[str, int] = LENGTHS, zooms: int = 2) -> Path:
    """Write (start, end, value) per chromosome."""
    with pyBigWig.open(str(path), "w") as bigwig:
        bigwig.addHeader(list(lengths.items()), maxZooms=zooms)
        for chrom, rows in entries.items():
            starts, ends, values = (list(column) for column in zip(*rows, strict=True))
            bigwig.addEntries([chrom] * len(starts), starts, ends=ends, values=[float(v) for v in values])
    return path


def table(*rows: tuple[str, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["chrom", "start", "end"])


def test_sums_by_hand(tmp_path: Path) -> None:
    path = write(tmp_path / "B.bw", {"chr1": [(10, 20, 2.0), (25, 30, 0.5)], "chr2": [(0, 5000, 1.0)]})
    windows = table(
        ("chr2", 4900, 5000),  # to the chromosome's last base
        ("chr1", 0, 10),  # ends where signal starts
        ("chr1", 10, 11),
        ("chr1", 15, 27),  # 5 x 2 + 2 x 0.5, over bases without a value
        ("chr3", 0, 700),  # a chromosome of which the file says nothing
    )
    assert bigwig_counts(path, windows, LENGTHS).tolist() == [100.0, 0.0, 2.0, 11.0, 0.0]


def test_random_windows_against_sums_over_single_bases(tmp_path: Path) -> None:
    """Windows in any order, across and beyond the stretches that are read at once."""
    generator = np.random.default_rng(0)
    bases: dict[str, np.ndarray] = {}
    entries = {}
    for chrom, length in LENGTHS.items():
        edges = np.unique(generator.integers(0, length, length // 20))
        kept = generator.random(len(edges) - 1) < 0.6
        values = generator.integers(0, 50, len(edges) - 1) / 4
        entries[chrom] = list(zip(edges[:-1][kept].tolist(), edges[1:][kept].tolist(), values[kept], strict=True))
        bases[chrom] = np.zeros(length)
        for start, end, value in entries[chrom]:
            bases[chrom][start:end] = value
    path = write(tmp_path / "B.bigWig", entries)
    rows = [(chrom, int(s), int(s) + 64) for chrom, n in LENGTHS.items() for s in generator.integers(0, n - 64, 300)]
    rows += [("chr1", 262_144 - 10, 262_144 + 54), ("chr1", 262_144, 262_144 + 64)]
    windows = table(*rows).sample(frac=1, random_state=0)
    expected = [bases[chrom][start:end].sum() for chrom, start, end in windows.itertuples(index=False)]
    assert bigwig_counts(path, windows, LENGTHS).tolist() == expected


def test_names_are_matched_and_further_chromosomes_are_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "B.bw", {"1": [(0, 10, 3.0)], "alt": [(0, 10, 9.0)]}, {"1": 1_000_000, "alt": 50})
    windows = table(("chr1", 5, 100), ("chr2", 0, 100))
    assert bigwig_counts(path, windows, LENGTHS).tolist() == [15.0, 0.0]
    categories = windows.astype({"chrom": pd.CategoricalDtype(["chr1", "chr2", "chr3"])})
    assert bigwig_counts(path, categories, LENGTHS).tolist() == [15.0, 0.0]
    assert chromosomes_without_coverage(path, categories, LENGTHS) == ["chr2"]


def test_no_windows(tmp_path: Path) -> None:
    path = write(tmp_path / "B.bw", {"chr1": [(0, 10, 3.0)]})
    assert bigwig_counts(path, table().astype({"start": int, "end": int}), LENGTHS).shape == (0,)


def refused(path: Path, lengths: Mapping[str, int] = LENGTHS) -> str:
    with pytest.raises(UserError) as error:
        bigwig_counts(path, table(("chr1", 0, 100)), lengths)
    assert str(path) in str(error.value)
    return str(error.value)


def test_another_assembly(tmp_path: Path) -> None:
    path = write(tmp_path / "B.bw", {"chr1": [(0, 10, 3.0)]})
    message = refused(path, LENGTHS | {"chr1": 1_000_001, "chr3": 600})
    assert "chr1: it has 1000000 bp in the bigWig, and chr1 has 1000001 bp in the genome" in message
    assert "chr3: it has 700 bp in the bigWig, and chr3 has 600 bp" in message
    assert "none of its chromosomes (chr1, chr2, chr3) is in the genome, which has I" in refused(path, {"I": 9})


def test_a_chromosome_without_windows_may_be_of_another_length(tmp_path: Path) -> None:
    """As mitochondria are in UCSC's hg19."""
    path = write(tmp_path / "B.bw", {"chr1": [(0, 10, 3.0)]})
    assert bigwig_counts(path, table(("chr1", 0, 100)), LENGTHS | {"chr3": 600}).tolist() == [30.0]


def test_a_chromosome_of_two_names(tmp_path: Path) -> None:
    """Nothing was accessible on it, without a word; without windows it is no matter, as chrM and chrMT of hg19."""
    entries = {"chr1": [(0, 10, 3.0)], "1": [(0, 10, 3.0)]}
    lengths = {"chr1": 1_000_000, "1": 1_000_000}
    message = "chr1: it has several names in the bigWig: 1, chr1. Use one naming"
    assert message in refused(write(tmp_path / "both.bw", entries, lengths | {"chr2": 5000}))
    assert message in refused(write(tmp_path / "alone.bw", entries, lengths))
    path = write(tmp_path / "B.bw", {"chr1": [(0, 10, 3.0)]}, LENGTHS | {"3": 700})
    assert bigwig_counts(path, table(("chr1", 0, 100)), LENGTHS).tolist() == [30.0]


@pytest.mark.parametrize("value", [-3.0, float("inf")])
def test_values_that_are_no_amounts(tmp_path: Path, value: float) -> None:
    """Infinite ones once crashed the interpreter: pyBigWig cannot read the sum in such a file's header."""
    path = write(tmp_path / "B.bw", {"chr1": [(10, 20, 1.0), (30, 40, value)]})
    assert f"its value at chr1:30 is {value}, and coverage is not negative" in refused(path)


def test_a_file_without_signal(tmp_path: Path) -> None:
    path = write(tmp_path / "B.bw", {"chr1": [(10, 20, 0.0)]})
    assert "no signal in any region" in refused(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"chr1\t0\t10\t1.0\n", "no bigWig but something else"),
        (b"\xeb\xf2\x89\x87" + bytes(60), "no bigWig but bigBed"),
        (b"\x26\xfc\x8f\x88", "cut short or damaged"),
        (b"\x26\xfc\x8f\x88" + bytes(range(256)), "cut short or damaged"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "B.bw"
    path.write_bytes(content)
    assert words in refused(path)


def test_truncated_and_absent_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "B.bw", {"chr1": [(i, i + 1, float(i)) for i in range(5000)]})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    assert "cut short or damaged" in refused(path)
    assert "cannot be read (No such file" in refused(tmp_path / "absent.bw")
    assert "cannot be read (Is a directory" in refused(tmp_path)


def test_damage_inside(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "B.bw", {"chr1": [(i, i + 1, float(i % 7)) for i in range(5000)]})
    content = bytearray(path.read_bytes())
    data = int.from_bytes(content[16:24], "little")
    content[data + 8 : data + 2000] = bytes(1992)
    path.write_bytes(content)
    assert "cannot be read" in refused(path)
