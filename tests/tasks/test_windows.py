import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import World, read_fasta, reverse_complement

from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.schema import decode
from genebert.tasks.windows import (
    FEW_REGIONS,
    LONGEST,
    Windows,
    check_strands,
    of_one_width,
    oriented_codes,
    overlapping_groups,
    read_windows,
    say_few_regions,
    table_of,
    window_chunks,
)


@pytest.fixture
def genome(toy_world: World) -> Iterator[Genome]:
    with Genome(toy_world.genome) as opened:
        yield opened


Write = Callable[..., Path]


def check(windows: Windows) -> None:
    check_strands(windows.table, windows.path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes text to a file."""

    def text_file(text: str, name: str = "labels.csv") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return text_file


TARGETS = {
    "classes": ("label", ["a", "b"]),
    "value": ("value", ["-1.5", "2e3"]),
    "labels": ("label:K562,label:A549", ["1,0", ",1"]),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_every_kind_of_target_is_read_with_its_columns_as_they_are_written(kind: str, write: Write) -> None:
    columns, values = TARGETS[kind]
    windows = read_windows(write(f"Sequence,{columns}\nACGT,{values[0]}\nAC,{values[1]}\n"), None, labelled=True)
    assert [name for name in windows.table if name != "sequence_id"] == columns.split(",")
    assert [",".join(row) for row in windows.table[columns.split(",")].to_numpy()] == values
    assert [decode(row) for row in windows.codes] == ["ACGT", "ACNN"]


def test_blanks_around_values_are_no_part_of_them(write: Write, genome: Genome) -> None:
    """A label " 1" was once another class than "1"."""
    path = write(
        "chrom, start ,end,strand,cell_type,split,label\nchr1,0,9,+,B,train,1\n chr1 , 20,29 , -, B ,test , 1\n"
    )
    table = read_windows(path, genome, labelled=True).table
    for name, values in {
        "chrom": ["chr1"] * 2,
        "strand": ["+", "-"],
        "cell_type": ["B"] * 2,
        "label": ["1"] * 2,
    }.items():
        assert list(table[name]) == values
    assert list(table["split"]) == ["train", "test"]
    labels = read_windows(write("sequence,label: K562\nACGT , 1\nACGG, \n"), None, labelled=True)
    assert list(labels.table["label:K562"]) == ["1", ""] and [decode(row) for row in labels.codes] == ["ACGT", "ACGG"]


BAD = {
    "blank label": ("sequence,label\nACGT,1\nACGT, \n", "line 3: label is empty"),
    "blank cell type": ("sequence,cell_type,label\nACGT,  ,1\n", "line 2: cell_type is empty"),
    "no target": ("sequence\nACGT\n", "line 1: the header tells no kind of target"),
    "two targets": ("sequence,label,value\nACGT,1,1\n", "line 1: the header tells more than one kind of target"),
    "not a number": ("sequence,value\nACGT,1\nACGT,high\n", "line 3: value is 'high'"),
    "not 0 or 1": ("sequence,label:a\nACGT,2\n", "line 2: label:a is '2'"),
    "no windows": ("start,label\n1,1\n", "line 1: the header is start, label"),
    "strand": ("chrom,start,end,strand,label\nchr1,0,9,x,1\n", "line 2: strand is 'x'"),
    "letters": ("sequence,label\nACGT,1\nAC!T,1\n,1\n", "line 3: letter '!' at position 3"),
    "empty sequence": ("sequence,label\nACGT,1\nAC!T,1\n,1\n", "line 4: the sequence is empty"),
    "widths": ("chrom,start,end,label\nchr1,0,9,1\nchr1,0,8,1\n", "line 3: it has 8 bp, and the first has 9 bp"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named_with_its_line(case: str, write: Write, genome: Genome) -> None:
    text, message = BAD[case]
    with pytest.raises(UserError) as error:
        read_windows(write(text), genome, labelled=True)
    assert message in str(error.value)


def test_windows_on_the_genome_are_its_letters_on_their_strand_also_beyond_an_end(
    write: Write, genome: Genome, toy_world: World
) -> None:
    path = write("chrom,start,end,strand,label\nchr2,100,110,+,1\n1,50,60,-,0\nchr3,19995,20000,.,1\n")
    windows = read_windows(path, genome, labelled=True, width=10)
    letters = read_fasta(toy_world.genome)
    ends = letters["chr3"][19992:] + "NN"
    assert [decode(row) for row in windows.codes] == [
        letters["chr2"][100:110],
        reverse_complement(letters["chr1"][50:60]),
        ends,
    ]
    assert windows.located and windows.on_genome and list(windows.table["chrom"]) == ["chr2", "chr1", "chr3"]


def test_rows_that_repeat_are_kept_where_they_have_no_label(write: Write, genome: Genome) -> None:
    rows = "chr1,0,9,a\nchr1,0,9,b\nchr1,0,9,a\n"
    found = read_windows(write("chrom,start,end,name\n" + rows), genome, labelled=False)
    assert list(found.table["name"]) == ["a", "b", "a"] and len(found.codes) == 3
    labelled = "chrom,start,end,name,label\n" + rows.replace("\n", ",1\n")
    once = read_windows(write(labelled), genome, labelled=True)
    assert list(once.table["name"]) == ["a"] and once.repeats == 2


STRANDS = {
    "column": ("chrom,start,end,strand\nchr2,0,9,+\nchr3,20,30,.\n", "w.csv", "chr3:25"),
    "no column": ("chrom,start,end\nchr2,0,10\nchr3,20,30\n", "w.csv", "chr2:5"),
    "BED6": ("chr2\t0\t9\ta\t0\t-\nchr3\t20\t30\tb\t0\t.\n", "w.bed", "chr3:25"),
    "BED3": ("chr2\t0\t10\nchr3\t20\t30\n", "w.bed", "chr2:5"),
}


@pytest.mark.parametrize("case", STRANDS)
def test_oriented_windows_on_the_genome_have_a_strand(case: str, write: Write, genome: Genome) -> None:
    """A model of promoters once predicted windows without a strand as if they were all on the plus strand."""
    text, name, place = STRANDS[case]
    with pytest.raises(UserError) as error:
        check(read_windows(write(text, name), genome, labelled=False, width=10))
    assert name in str(error.value) and f"such as that around {place}. Give + or -" in str(error.value)
    stranded = text.replace(".\n", "+\n")
    if stranded != text:
        check(read_windows(write(stranded, name), genome, labelled=False, width=10))


def test_sequences_are_on_their_strand_as_they_are(write: Write) -> None:
    for text, name in ((">one\nACGT\n", "w.fa"), ("chrom,start,end,sequence\nchr1,0,4,ACGT\n", "w.csv")):
        check(read_windows(write(text, name), None, labelled=False))


def test_of_the_coordinates_of_sequences_the_chromosome_is_kept(write: Write) -> None:
    """So that a test can still find out that a sequence comes from a training chromosome."""
    path = write("chrom,start,end,strand,sequence,label\nchr7,1,5,-,ACGG,1\n")
    windows = read_windows(path, None, labelled=True)
    assert windows.on_genome and not windows.located
    assert list(windows.table["chrom"]) == ["chr7"] and decode(windows.codes[0]) == "ACGG"


def test_ambiguous_letters_are_read_as_n_and_counted(write: Write) -> None:
    windows = read_windows(write("sequence,label\nARGY,1\nACGT,0\n"), None, labelled=True)
    assert [decode(row) for row in windows.codes] == ["ANGN", "ACGT"] and windows.ambiguous == 2


def test_fasta_and_bed_are_read_where_no_labels_are_needed(write: Write, genome: Genome) -> None:
    fasta = read_windows(write(">one\nACGT\n>two\nAC\n", "w.fa"), None, labelled=False)
    assert list(fasta.table["sequence_id"]) == ["one", "two"] and fasta.codes.shape == (2, 4)
    bed = read_windows(write("chr1\t5\t9\nchr1\t7\t11\n", "w.bed"), genome, labelled=False)
    assert bed.located and bed.codes.shape == (2, 4)
    with pytest.raises(UserError, match="Add --genome"):
        read_windows(write("chr1\t5\t9\n", "w.bed"), None, labelled=False)


def test_many_sequences_are_encoded_as_one_by_one(write: Write) -> None:
    generator = np.random.default_rng(0)
    letters = ["".join(generator.choice(list("ACGTN"), size)) for size in generator.integers(1, 30, 200)]
    path = write(pd.DataFrame({"sequence": letters, "value": 1.0}).to_csv(index=False))
    windows = read_windows(path, None, labelled=True)
    longest = max(map(len, letters))
    assert [decode(row) for row in windows.codes] == [one.ljust(longest, "N") for one in letters]


def test_windows_that_overlap_lie_in_one_region() -> None:
    table = pd.DataFrame(
        {"chrom": ["chr2", "chr1", "chr1", "chr1", "chr1"], "start": [5, 90, 0, 100, 50], "end": [9, 120, 60, 130, 90]}
    )
    found = overlapping_groups(table)
    assert found[2] == found[4]  # 0..60 and 50..90
    assert found[1] == found[3] != found[4]  # 90..120 and 100..130; 90 only abuts on 50..90
    assert found[0] not in found[1:]


def test_windows_that_slide_along_a_chromosome_are_many_regions() -> None:
    """They once were one, so that all intervals had a width of 0."""
    start = np.random.default_rng(0).permutation(50 * np.arange(20_000))
    found = overlapping_groups(pd.DataFrame({"chrom": "chr1", "start": start, "end": start + 200}))
    assert len(set(found)) == 50 * 20_000 // (LONGEST * 200)
    assert (found[start.argsort()] == np.sort(found)).all()  # each is a stretch


def test_few_regions_are_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    say_few_regions(np.arange(FEW_REGIONS))
    assert capsys.readouterr().err == ""
    say_few_regions(np.arange(FEW_REGIONS - 1).repeat(2))
    assert f"{2 * FEW_REGIONS - 2} test rows lie in {FEW_REGIONS - 1} regions" in capsys.readouterr().err


def test_the_table_of_a_folder_made_by_labels(tmp_path: Path, write: Write) -> None:
    path = write("label\n", "labels.tsv")
    assert table_of(tmp_path) == table_of(path) == path
    assert table_of(tmp_path / "other") == tmp_path / "other"


def test_tables_are_checked_whole_before_the_first_chunk(write: Write, genome: Genome) -> None:
    def chunks(text: str, width: int) -> Iterator[Windows]:
        return window_chunks(write(text, "w.csv"), genome, width=width, rows=2, check=tables.append)

    tables: list[pd.DataFrame] = []
    with pytest.raises(UserError, match="line 6: letter '!'"):
        next(chunks("sequence\n" + "ACGT\n" * 4 + "AC!T\n", 4))
    with pytest.raises(UserError, match="its longest window has 4 bp, and"):
        next(chunks("sequence\n" + "ACGT\n" * 5, 5))
    with pytest.raises(UserError, match="its longest window has 5 bp, that of line_5, and"):
        next(chunks("sequence\n" + "ACGT\n" * 3 + "ACGTA\n", 4))
    assert [len(one) for one in chunks("sequence\n" + "ACGT\n" * 5, 4)] == [2, 2, 1]
    assert not tables
    assert len(next(chunks("chrom,start,end\n" + "chr1,5,9\n" * 5, 4))) == 2
    assert [len(table) for table in tables] == [5]


def test_a_long_record_is_refused_before_others_are_filled_up(write: Write) -> None:
    path = write(">a\nACGT\n" * 3000 + f">long\n{'A' * 50_000}\n", "w.fa")
    tracemalloc.start()
    with pytest.raises(UserError, match=r"w.fa: its window long has 50000 bp, and .* Give windows of 4 bp"):
        list(window_chunks(path, None, width=4, rows=4096, check=lambda table: None))
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_rows_are_few_where_each_is_repeated_in_cell_types(write: Write, genome: Genome) -> None:
    def sizes(text: str) -> list[int]:
        chunks = window_chunks(write(text, "w.csv"), genome, width=4, rows=8, check=lambda table: None, times=4)
        return [len(one) for one in chunks]

    assert sizes("chrom,start,end\n" + "chr1,5,9\n" * 5) == [2, 2, 1]
    assert sizes("chrom,start,end,cell_type\n" + "chr1,5,9,B\n" * 9) == [8, 1]


@pytest.mark.parametrize("given", [1, 4, 300, 301])
@pytest.mark.parametrize("width", [100, 301])
def test_windows_around_sites_of_both_strands_stay_aligned(given: int, width: int, genome: Genome) -> None:
    """The site is base number (given // 2) of the window, on the strand that is read."""
    site = np.array([5000, 5000])
    upstream = given // 2
    start = np.array([site[0] - upstream, site[1] + 1 - (given - upstream)])
    table = pd.DataFrame({"chrom": "chr1", "start": start, "end": start + given, "strand": ["+", "-"]})
    resized = of_one_width(table, Path("w.bed"), width)
    assert (resized["end"] - resized["start"] == width).all()
    plus, minus = resized["start"]
    assert site[0] - plus == minus + width - 1 - site[1] == width // 2
    codes = oriented_codes(genome, resized)
    found = ["ACGT".index(base) for base in genome_bases(genome, site[0])]
    assert codes[:, width // 2].tolist() == found


def genome_bases(genome: Genome, site: int) -> str:
    """The base at a place of chr1 and that across from it."""
    base = decode(genome.fetch("chr1", site, site + 1))
    return base + reverse_complement(base)


def test_a_line_too_long_for_a_table_is_none(write: Write, genome: Genome) -> None:
    with pytest.raises(UserError, match="line 1"):
        read_windows(write("A" * 200_000 + "\n"), genome, labelled=False)


@pytest.mark.parametrize("header", ['"chrom","start","end"', "chrom, start, end", "#Chrom,Start,End"])
def test_headers_are_told_as_tables_are_read(header: str, write: Write, genome: Genome) -> None:
    """As R writes them, among others, which were once taken for rows of a BED."""
    found = read_windows(write(f"{header}\nchr1,5,9\n"), genome, labelled=False)
    assert found.table[["chrom", "start", "end"]].to_numpy().tolist() == [["chr1", 5, 9]]


def test_sequences_that_share_32_bases_lie_in_one_region() -> None:
    codes = np.random.default_rng(0).integers(0, 4, size=(4, 60), dtype=np.uint8)
    codes[2, 10:45] = codes[0, 20:55]
    found = Windows(pd.DataFrame({"sequence_id": range(4)}), codes, Path("x.fa")).regions()
    assert found[0] == found[2] and len(set(found)) == 3
