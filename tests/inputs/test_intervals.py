import gzip
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import Peak, write_peaks

from genebert.errors import UserError
from genebert.inputs import intervals
from genebert.inputs.intervals import read_annotation, read_bed, read_peaks, read_table, read_text

LENGTHS = {"chr1": 1000, "chr2": 500}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def bed(tmp_path: Path) -> Path:
    return tmp_path / "peaks.bed"


def rows(table: pd.DataFrame, *columns: str) -> list[tuple[object, ...]]:
    return list(table[list(columns or ("chrom", "start", "end"))].itertuples(index=False, name=None))


def test_narrow_peak(tmp_path: Path) -> None:
    path = write_peaks(tmp_path / "B.narrowPeak", [Peak("chr1", 10, 60, 7, p=12.5, signal=3), Peak("chr2", 0, 500)])
    found = read_peaks(path, LENGTHS)
    assert rows(found.table, "chrom", "start", "end", "summit", "score", "signal", "line") == [
        ("chr1", 10, 60, 17, 12.5, 3.0, 1),
        ("chr2", 0, 500, 250, 5.0, 1.0, 2),  # summit -1: the middle
    ]
    assert (found.duplicates, found.skipped, found.path) == (0, {}, path)
    assert found.table[["start", "end", "summit"]].dtypes.astype(str).tolist() == ["int64"] * 3


def test_columns_of_zeros_say_nothing(tmp_path: Path) -> None:
    """Peaks called from a bedGraph have a score alone; others have zeros where there is no p."""
    by_signal = [Peak("chr1", 10, 60, p=0, signal=3), Peak("chr1", 70, 90, p=0, signal=8)]
    table = read_peaks(write_peaks(tmp_path / "B.narrowPeak", by_signal), LENGTHS).table
    assert (table["score"].tolist(), table["signal"].tolist()) == ([3.0, 8.0], [3.0, 8.0])
    lines = [f"chr1\t{start}\t{start + 9}\tpeak\t{score}\t.\t0\t0\t0\t4" for start, score in ((10, 45), (70, 5))]
    table = read_peaks(write_peaks(tmp_path / "C.narrowPeak", lines), LENGTHS).table
    assert (table["score"].tolist(), table["signal"].tolist()) == ([45.0, 5.0], [45.0, 5.0])


def test_narrow_peak_without_p_is_ranked_by_signal(tmp_path: Path) -> None:
    path = write_peaks(
        tmp_path / "B.narrowPeak",
        [Peak("chr1", 10, 60, p=-1, signal=3), Peak("chr1", 70, 90, p=-1, signal=8)],
    )
    assert read_peaks(path, LENGTHS).table["score"].tolist() == [3.0, 8.0]


@pytest.mark.parametrize(
    ("text", "score", "signal"),
    [
        ("chr1\t10\t21\n", 0.0, 1.0),
        ("chr1\t10\t21\tname\n", 0.0, 1.0),
        ("chr1\t10\t21\tname\t7.5\n", 7.5, 7.5),
        ("chr1\t10\t21\tname\t.\t+\n", 0.0, 1.0),
        ("chr1\t10\t21\tname\tstrong\t+\n", 0.0, 1.0),
        ("chr1\t10\t21\tname\t0\t+\n", 0.0, 1.0),
        ("chr1\t10\t21\tname\t7\t+\t10\t21\t0,0,0\n", 7.0, 7.0),  # BED9: further columns are ignored
    ],
)
def test_bed_of_any_width(bed: Path, text: str, score: float, signal: float) -> None:
    table = read_peaks(write(bed, text), LENGTHS).table
    assert rows(table, "chrom", "start", "end", "summit", "score", "signal") == [("chr1", 10, 21, 15, score, signal)]


@pytest.mark.parametrize("none", [".", "", "nan"])
def test_scores_that_are_text_among_numbers(bed: Path, none: str) -> None:
    """The strongest peaks, of 1,000 and more, once had the signal 0 without a word."""
    scores = ["7", none, "1,200", "9", "n/a"]
    lines = [f"chr1\t{10 * i}\t{10 * i + 9}\tname\t{score}\t+\n" for i, score in enumerate(scores)]
    with pytest.raises(UserError) as error:
        read_peaks(write(bed, "".join(lines)), LENGTHS)
    assert [line.split(". ")[0].strip(" -") for line in str(error.value).splitlines()[1:]] == [
        "line 3: column 5 (score) is '1,200', not a number",
        "line 5: column 5 (score) is 'n/a', not a number",
    ]
    numbers = "".join(lines[i] for i in (0, 1, 3))
    assert read_peaks(write(bed, numbers), LENGTHS).table["signal"].tolist() == [7.0, 0.0, 9.0]
    words = "".join(lines[i] for i in (1, 2, 4))
    assert read_peaks(write(bed, words), LENGTHS).table["signal"].tolist() == [1.0, 1.0, 1.0]


def test_scores_that_are_text_beside_a_signal(tmp_path: Path) -> None:
    """Of a narrowPeak they say nothing, unless its signal is 0 throughout."""

    def write_with(signal: float) -> Path:
        peaks = {"5": Peak("chr1", 10, 19, signal=signal), "x": Peak("chr1", 30, 39, signal=signal)}
        lines = [str(peak).replace("\t0\t.", f"\t{score}\t.") for score, peak in peaks.items()]
        return write_peaks(tmp_path / "B.narrowPeak", lines)

    assert read_peaks(write_with(3), LENGTHS).table["signal"].tolist() == [3.0, 3.0]
    path = write_with(0)
    with pytest.raises(UserError, match=r"line 2: column 5 \(score\) is 'x', not a number"):
        read_peaks(path, LENGTHS)


@pytest.mark.parametrize(
    "text",
    [
        "chr1\t10\t20\r\nchr2\t5\t9\r\n",
        "track name=x\nbrowser position chr1\n# comment\nchr1\t10\t20\n\nchr2\t5\t9\n\n",
        "chr1\t10\t20\nchr2\t5\t9",
        "chr1\t10\t20\t\nchr2\t5\t9\t\n",
        "1\t10\t20\n2\t5\t9\n",
        "\ufeffchr1\t10\t20\nchr2\t5\t9\n",
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_spellings_that_are_accepted(bed: Path, text: str, compressed: bool) -> None:
    bed.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    assert rows(read_bed(bed, LENGTHS).table) == [("chr1", 10, 20), ("chr2", 5, 9)]


def test_lines_are_counted_in_the_file(bed: Path) -> None:
    text = "# comment\nchr1\t10\t20\n\ntrack\nchr2\t5\t9\n"
    assert read_bed(write(bed, text), LENGTHS).table["line"].tolist() == [2, 5]


HEADERS = ["", "  ", "#", "# a\tb", "track name=a", "browser hide all"]
CELLS = st.text("abc .+-09", min_size=1, max_size=4)


@st.composite
def bed_lines(draw: st.DrawFn) -> tuple[list[str], list[tuple[object, ...]]]:
    """Lines of a BED6 file with headers and blank lines anywhere, and the rows that a loop reads from it."""
    lines, expected = [], []
    for number in range(1, draw(st.integers(1, 12)) + 1):
        if draw(st.booleans()):
            lines.append(draw(st.sampled_from(HEADERS)))
            continue
        start, name = draw(st.integers(0, 400)), draw(CELLS)
        end, strand = start + draw(st.integers(1, 100)), draw(st.sampled_from("+-."))
        chrom = draw(st.sampled_from(["chr1", "chr2", "2"]))
        lines.append(f"{chrom}\t{start}\t{end}\t{name}\t{number / 8}\t{strand}" + draw(st.sampled_from(["", " "])))
        expected.append((f"chr{chrom[-1]}", start, end, name.strip(), number / 8, strand, number))
    return lines, expected


@given(bed_lines(), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_any_mixture_of_rows_and_headers(
    tmp_path_factory: pytest.TempPathFactory,
    made: tuple[list[str], list[tuple[object, ...]]],
    newline: str,
    compressed: bool,
    mark: bool,
) -> None:
    lines, expected = made
    if not expected or {"chr2", "2"} <= {line.split("\t")[0] for line in lines}:
        return
    content = newline.join(lines).encode("utf-8-sig" if mark else "utf-8")
    path = tmp_path_factory.mktemp("bed") / "a.bed"
    path.write_bytes(gzip.compress(content) if compressed else content)
    found = read_bed(path, LENGTHS).table
    assert rows(found, "chrom", "start", "end", "name", "score", "strand", "line") == expected


@pytest.mark.parametrize(
    "text",
    [
        "chr1\t10\t20\n",
        "\ufeff#chrom\tstart\tend\nchr1\t10\t20\r\n\r\nchr2\t5\t9\r\n",
        "chr1\t10\t20\t\t\nchr2\t5\t9\t\t\n",  # every line ends in tabs
        "chr1\t10\t20\ta\t.\t+\ntrack\nchr2\t5\t9\tb\t.\t-\n",
        "chr1\t10\t20\ta\t1\t+\t0\t0\t0,0,0\nchr2\t5\t9\tb\t2\t-\t0\t0\t.\n",
        f"{Peak('chr1', 10, 60, 7)}\n{Peak('chr2', 10, 60)}\n",
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_usual_files_are_read_the_fast_way(
    bed: Path, text: str, compressed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    slow = intervals._read_any_rows(bed)
    monkeypatch.delattr(intervals, "_read_any_rows")
    fast = intervals._read_rows(bed)
    assert list(fast) == list(slow)
    number = dict.fromkeys(intervals._TYPES.keys() & set(slow), "float64")
    slow = slow.replace(".", None).astype(number) if "score" in slow and slow["score"].eq(".").any() else slow
    pd.testing.assert_frame_equal(fast.astype(number), slow.astype(number), check_dtype=False)


@pytest.mark.parametrize(
    "text",
    [
        "chr1\t10\t20\nchr2\t5\t9\t\n",  # a tab too many
        "chr1\t10\t20\n#chr1\t10\t20\nchr2\t5\t9\n",
        "chr1\t1e1\t20\nchr2\t5\t9\n",
        "chr1\t10\t+20\nchr2\t5\t9.0\n",
    ],
)
def test_odd_files_are_read_the_same(bed: Path, text: str) -> None:
    assert rows(read_bed(write(bed, text), LENGTHS).table) == [("chr1", 10, 20), ("chr2", 5, 9)]


def test_empty_last_cells_are_cells(bed: Path) -> None:
    text = "chr1\t10\t20\ta\nchr2\t5\t9\t\n"
    assert rows(read_bed(write(bed, text), LENGTHS).table, "chrom", "name") == [("chr1", "a"), ("chr2", "")]
    odd = text.replace("10", "1e1")
    assert rows(read_bed(write(bed, odd), LENGTHS).table, "chrom", "name") == [("chr1", "a"), ("chr2", "")]


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("chr1\t10\t20\t", "chr2\t5\t9\ta", ["", "a"]),
        ("chr1\t10\t20\t\t", "chr2\t5\t9\ta\t", ["", "a"]),
        ("chr1\t10\t20\t\t\t", "chr2\t5\t9\ta\t7\t+", ["", "a"]),
        ("chr1\t10\t20\tb\t\t", "chr2\t5\t9\ta\t7", ["b", "a"]),
    ],
)
def test_empty_last_cells_may_be_those_of_the_first_row(bed: Path, first: str, second: str, names: list[str]) -> None:
    """Such a file was once refused, and with its rows in another order it was read."""
    for order in (1, -1):
        write(bed, "".join(f"{line}\n" for line in (first, second)[::order]))
        assert read_bed(bed, LENGTHS).table["name"].tolist() == names[::order]
        peaks = read_peaks(bed, LENGTHS).table.sort_values("start", ascending=False, ignore_index=True)
        assert rows(peaks) == [("chr1", 10, 20), ("chr2", 5, 9)]
        assert peaks["score"].tolist() == [0.0, 7.0 if "7" in second else 0.0]


def test_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    same = Peak("chr1", 10, 60, 7)
    path = write_peaks(tmp_path / "B.narrowPeak", [same, Peak("chr1", 10, 60, 30), same, same])
    found = read_peaks(path, LENGTHS)
    assert rows(found.table, "start", "end", "summit") == [
        (10, 60, 17),
        (10, 60, 40),
    ]  # MACS2 gives several summits per peak
    assert found.duplicates == 2


def test_intervals_on_two_strands_are_no_duplicates(bed: Path) -> None:
    found = read_bed(write(bed, "chr1\t10\t11\ta\t0\t+\nchr1\t10\t11\tb\t0\t-\nchr1\t10\t11\tc\t0\t-\n"), LENGTHS)
    assert found.table["name"].tolist() == ["a", "b"]
    assert found.duplicates == 1


def test_unknown_chromosomes_are_skipped_if_asked(bed: Path) -> None:
    write(bed, "chr1\t10\t20\nchrUn\t1\t2\nchrUn\t3\t4\nchrEBV\t1\t9\n")
    found = read_bed(bed, LENGTHS, skip_unknown=True)
    assert rows(found.table) == [("chr1", 10, 20)]
    assert found.skipped == {"chrUn": 2, "chrEBV": 1}


def test_a_chromosome_that_is_spelled_in_two_ways_is_never_skipped(bed: Path) -> None:
    """All of its peaks were, without a word."""
    write(bed, "chr1\t10\t20\n1\t30\t40\nchr2\t1\t9\nchrUn\t1\t2\n")
    with pytest.raises(UserError, match=r"line 1: chromosome 'chr1' .* unmatched names in the file: chr1, 1; names in"):
        read_bed(bed, LENGTHS, skip_unknown=True)


def test_a_file_without_any_known_chromosome_is_never_skipped_whole(bed: Path) -> None:
    with pytest.raises(UserError, match="chrUn"):
        read_bed(write(bed, "chrUn\t10\t20\n"), LENGTHS, skip_unknown=True)


NUMBER = "not a whole number"


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("chr1\t10\t20\nchr1\t30\t30\n", ["line 2", "end 30 is not after start 30"]),
        ("chr1\t30\t20\n", ["line 1", "end 20 is not after start 30"]),
        ("chr1\t-4\t20\n", ["line 1", "start is -4"]),
        ("#\nchr1\tx\t20\n", ["line 2", f"start is 'x', {NUMBER}"]),
        ("chr1\t1\t2.5\n", ["line 1", f"end is '2.5', {NUMBER}"]),
        ("chr1\t1\tinf\n", ["line 1", f"end is 'inf', {NUMBER}"]),
        ("chr1\t1\tnan\n", ["line 1", f"end is 'nan', {NUMBER}"]),
        ("chr1\t1\t99999999999999999999\n", ["line 1", "99999999999999999999"]),
        ("chr1\t1\t1e30\n", ["line 1", "1e30"]),
        ("chr1\t1\t\t.\n", ["line 1", f"end is '', {NUMBER}"]),
        ("chr1\t10\t1001\n", ["line 1", "end 1001 lies beyond the end of chr1, which has 1000 bp"]),
        (
            "chrX\t10\t20\n",
            ["line 1", "'chrX'", "names in the genome: chr1, chr2", "--skip-unknown-chromosomes"],
        ),
        ("chr1\t10\t20\n1\t10\t20\n", ["unmatched names in the file: chr1, 1", "Use one naming"]),
        ("chr1 10 20\n", ["line 1", "1 tab-separated column(s)"]),
        ("chr1\t10\n", ["line 1", "2 tab-separated column(s)"]),
        ("chr1\t10\t20\nchr1\t10\t20\tname\n", ["line 2", "it has 4 columns, and the first line has 3"]),
        ("chr1\t10\t20\t\nchr1\t10\t20\ta\t7\n", ["line 2", "it has 5 columns, and the first line has 4"]),
        ("", ["the file is empty"]),
        ("\n \n", ["the file is empty"]),
        ("# nothing\ntrack\n", ["it holds only comments"]),
    ],
)
def test_malformed_rows(bed: Path, text: str, fragments: list[str]) -> None:
    with pytest.raises(UserError) as error:
        read_peaks(write(bed, text), LENGTHS)
    message = str(error.value)
    assert str(bed) in message
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_all_malformed_rows_are_reported_once_each(bed: Path) -> None:
    with pytest.raises(UserError) as error:
        read_bed(write(bed, "chr1\t5\t2.5\nchr1\tx\t20\nchr1\t30\t20\nchr1\t-1\t5\nchr1\t1\t2\n"), LENGTHS)
    assert [line.split(":")[0].strip(" -") for line in str(error.value).splitlines()[1:]] == [
        "line 2",
        "line 1",
        "line 4",
        "line 3",
    ]


@pytest.mark.parametrize(("summit", "shown"), [("50", "'50'"), ("1e9", "'1e9'"), (".", "'.'"), ("-7", "'-7'")])
def test_summit_outside_its_peak(tmp_path: Path, summit: str, shown: str) -> None:
    path = write_peaks(
        tmp_path / "B.narrowPeak", [Peak("chr1", 0, 9), str(Peak("chr1", 10, 60, 77)).replace("77", summit)]
    )
    with pytest.raises(UserError) as error:
        read_peaks(path, LENGTHS)
    assert f"line 2: column 10 (summit) is {shown}, and not an offset inside the peak" in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("signal", ["-2.0", "inf", "-inf"])
def test_signal_that_is_no_amount(tmp_path: Path, signal: str) -> None:
    path = write_peaks(tmp_path / "B.narrowPeak", [Peak("chr1", 0, 9), Peak("chr1", 10, 60, signal=float(signal))])
    with pytest.raises(UserError, match=f"line 2: its signal is {signal}") as error:
        read_peaks(path, LENGTHS)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (gzip.compress(b"chr1\t10\t20\n" * 1000, mtime=0)[:-20], "truncated or damaged"),
        (gzip.compress(b"chr1\t10\t20\n", mtime=0)[:6], "truncated or damaged"),
        (gzip.compress(b"chr1\t10\t20\n", mtime=0) + b"\x1f\x8bjunk", "truncated or damaged"),
        (bytes(range(128, 256)), "not a text file"),
        (b"chr1\t10\t20\n" * 1000 + bytes(range(128, 256)), "not a text file"),
        (b"chr1\t10\t20\tb\xff\n", "not a text file"),
    ],
)
@pytest.mark.parametrize("read", [read_text, lambda path: read_bed(path, LENGTHS)])
def test_unreadable_content(bed: Path, content: bytes, fault: str, read: Callable[[Path], object]) -> None:
    bed.write_bytes(content)
    with pytest.raises(UserError, match=fault):
        read(bed)


def test_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_text(tmp_path / "absent.bed")
    with pytest.raises(UserError, match="Is a directory"):
        read_text(tmp_path)


def test_blacklist_may_reach_beyond_the_genome(bed: Path) -> None:
    found = read_annotation(write(bed, "chr1\t900\t5000\thigh signal\nchrUn\t0\t10\tlow\n2\t0\t10\tlow\n"), LENGTHS)
    assert found.skipped == {"chrUn": 1}
    assert rows(found.table) == [("chr1", 900, 5000), ("chr2", 0, 10)]


@pytest.mark.parametrize(
    "text",
    [
        'Label,Seq\n1,ACGT\n\n0,"A"\n',
        "#label\tseq\r\n1\tACGT\r\n\r\n0\tA\r\n",
        "\ufefflabel,seq\n1,ACGT\n\n0,A\n",
    ],
)
def test_table_with_a_header(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode())
    assert rows(read_table(path), "label", "seq", "line") == [("1", "ACGT", 2), ("0", "A", 4)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a,b\n1,2\n3\n", "line 3: it has 1 columns, and the header has 2"),
        ("a,A\n1,2\n", "column names repeat"),
        ("a,b\n", "no rows after the header"),
        ("a,b\n\n", "no rows after the header"),
    ],
)
def test_malformed_tables(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        read_table(write(tmp_path / "labels.csv", text))


def test_mistakes_of_all_kinds_are_reported_together(bed: Path) -> None:
    good = ["a", "0", ".", "1", "1", "-1", "5"]
    lines = [
        ["chr1", "10", "x", *good],
        ["chr9", "10", "20", *good],
        ["chr1", "10", "2000", *good],
        ["chr1", "10", "20", *good[:3], "much", *good[4:]],
        ["chr1", "10", "20", *good[:3], "-2", *good[4:]],
        ["chr1", "10", "20", *good[:6], "10"],
        ["chr1", "10", "20", *good],
    ]
    with pytest.raises(UserError) as error:
        read_peaks(write(bed, "".join("\t".join(line) + "\n" for line in lines)), LENGTHS)
    heading, *found = str(error.value).splitlines()
    assert heading == f"The peaks of {bed} cannot be used:"
    assert sorted(line.split(":")[0].removeprefix("  - line ") for line in found) == ["1", "2", "3", "4", "5", "6"]
    for words in ("end is 'x'", "'chr9' cannot be matched", "beyond the end", "'much', not", "is -2.0", "is '10'"):
        assert sum(words in line for line in found) == 1


def test_a_mistake_is_not_taken_for_another_assembly(bed: Path) -> None:
    write(bed, "chr1\t1000x\t2000\nchrUn\t1\t2\n")
    with pytest.raises(UserError) as error:
        read_annotation(bed, LENGTHS)
    assert str(error.value).splitlines()[1:] == [
        "  - line 1: start is '1000x', not a whole number. Write chrom, start, end separated by tabs."
    ]


def test_a_column_that_is_named_like_the_number_of_lines(tmp_path: Path) -> None:
    """It was once replaced by these numbers without a word."""
    path = write(tmp_path / "cells.csv", "Line,value\nK562,1\n")
    with pytest.raises(UserError, match=r"line 1: a column is named 'line', .* Rename it"):
        read_table(path)
    assert read_table(path, " line")["line"].tolist() == ["K562"]


def test_narrow_peak_with_more_columns_and_broad_peak(tmp_path: Path) -> None:
    """Of IDR's output, signals and summits were once lost without a word."""
    first = ["chr1", "10", "60", "a", "1000", ".", "5.5", "9", "-1"]
    idr = write(tmp_path / "K562.idr.narrowPeak", "\t".join([*first, "7", *"123"]) + "\n")
    assert rows(read_peaks(idr, LENGTHS).table, "summit", "signal", "score") == [(17, 5.5, 9.0)]
    broad = write(tmp_path / "K562.broadPeak", "\t".join(first) + "\n")
    assert rows(read_peaks(broad, LENGTHS).table, "summit", "signal", "score") == [(35, 5.5, 9.0)]
    bed = write(tmp_path / "K562.bed", "\t".join(first) + "\n")
    assert rows(read_peaks(bed, LENGTHS).table, "summit", "signal", "score") == [(35, 1000.0, 1000.0)]
