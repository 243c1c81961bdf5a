from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toys import Peak, World, corpus_of, write_peaks

from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.schema import gc_fraction
from genebert.target import Target
from genebert.tasks.base import LabelTable, Sources
from genebert.tasks.labels import labels
from genebert.tasks.on_genome import oriented_codes
from genebert.tasks.tf_binding import TfBinding
from genebert.tasks.windows import read_windows

# For windows of 100 bp. At 1050, B and T share a site, since their summits are 20 bp apart, and B's is the better one
# within its cell type. At 5000, NK has a site, and of B only the flank of a peak is there.
PEAKS = {
    "B": [Peak("chr1", 1000, 1100, 50, signal=9), Peak("chr1", 4800, 4980, 10, signal=1), Peak("chr2", 900, 1000, 50)],
    "NK": [Peak("chr1", 4900, 5100, 100), Peak("chr2", 930, 1030, 50), Peak("chr3", 700, 800, 20)],
    "T": [Peak("chr1", 1050, 1250, 20, signal=1), Peak("chr1", 1150, 1250, 50, signal=2), Peak("chr3", 690, 790)],
}
Make = Callable[..., LabelTable]


@pytest.fixture
def genome(toy_world: World) -> Iterator[Genome]:
    with Genome(toy_world.genome) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "peaks"
    made.mkdir()
    for cell_type, peaks in PEAKS.items():
        write_peaks(made / f"{cell_type}.narrowPeak", peaks)
    return made


@pytest.fixture
def make(genome: Genome, folder: Path) -> Make:
    def windows(**options: Any) -> LabelTable:
        chosen = {"genome": genome.path, "peaks": [folder], "width": 100, **options}
        return TfBinding(out=Path("out"), **chosen).windows(Sources(genome, None, [], []))

    return windows


def sites(table: pd.DataFrame) -> dict[tuple[str, int], list[float]]:
    """Centre of each window that is bound in a cell type -> its labels."""
    columns = [name for name in table if str(name).startswith("label")]
    numbers = table[columns].astype(float).to_numpy()
    centres = zip(table["chrom"], table["start"] + 50, strict=True)
    return {place: row for place, row in zip(centres, numbers.tolist(), strict=True) if 1 in row}


def test_a_label_is_1_with_a_summit_0_without_a_peak_and_empty_with_a_flank_only(make: Make) -> None:
    unknown = pytest.approx(float("nan"), nan_ok=True)
    expected = {
        ("chr1", 1050): [1, 0, 1],
        ("chr1", 1200): [0, 0, 1],
        ("chr1", 4810): [1, 0, 0],
        ("chr1", 5000): [unknown, 1, 0],
        ("chr2", 950): [1, 1, unknown],  # T has no peak on chr2, and B none on chr3: they may lack the chromosome
        ("chr3", 720): [unknown, 1, 1],
    }
    assert sites(make().table) == expected
    named = make(chromosomes=["chr1", "chr2", "chr3"]).table
    assert sites(named) == expected | {("chr2", 950): [1, 1, 0], ("chr3", 720): [0, 1, 1]}


def test_one_file_gives_a_label(make: Make, folder: Path) -> None:
    table = make(peaks=[folder / "NK.narrowPeak"]).table
    assert list(table.columns) == ["chrom", "start", "end", "label"]
    assert sites(table) == {("chr1", 5000): [1], ("chr2", 980): [1], ("chr3", 720): [1]}
    assert (table["label"] == 0).sum() == 3


@pytest.mark.parametrize("chromosomes", [[], ["chr1", "chr2", "chr3"], ["chr3"]])
def test_a_row_for_each_window_and_cell_type_in_which_it_is_known(make: Make, chromosomes: list[str]) -> None:
    """Of chr3 alone, too, where B has no peak, and is unbound if it is said to have been looked at there."""
    wide, long = (make(by_cell_type=how, chromosomes=chromosomes).table for how in (False, True))
    assert ("B" in set(long.loc[long["chrom"] == "chr3", "cell_type"])) == bool(chromosomes)
    assert list(long) == ["chrom", "start", "end", "cell_type", "label"]
    columns = wide.rename(columns=lambda name: name.removeprefix("label:"))
    melted = columns.melt(["chrom", "start", "end"], var_name="cell_type", value_name="label").dropna()
    key = ["chrom", "start", "end", "cell_type"]
    expected = melted.astype({"label": np.int64}).sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(long.sort_values(key, ignore_index=True), expected)


def test_held_out_cell_types_have_rows_in_their_own_split_only(genome: Genome, folder: Path) -> None:
    corpus = corpus_of(
        [("chr1", 1000), ("chr2", 900), ("chr3", 700)],
        {name: {0: 1.0, 1: 1.0, 2: 1.0} for name in PEAKS},
        valid=["chr2"],
        test=["chr3"],
        valid_cell_types=["B"],
        test_cell_types=["NK"],
    )
    task = TfBinding(
        out=Path("out"),
        genome=genome.path,
        peaks=[folder],
        width=100,
        by_cell_type=True,
        chromosomes=["chr1", "chr2", "chr3"],
    )
    table = task.windows(Sources(genome, corpus, ["chr2"], ["chr3"])).table
    found = {name: set(rows["chrom"]) for name, rows in table.groupby("cell_type")}
    assert found == {"B": {"chr2"}, "NK": {"chr3"}, "T": {"chr1", "chr2", "chr3"}}
    of_t = {("chr1", peak.start + peak.summit - 50) for peak in PEAKS["T"] if peak.chrom == "chr1"}
    training = table[(table["chrom"] == "chr1") & (table["label"] == 1)]
    assert set(zip(training["chrom"], training["start"], strict=True)) == of_t
    assert (table["chrom"] == "chr1").sum() == 2 * len(of_t)  # sites of the others are no negatives, and add none
    write_peaks(folder / "A549.narrowPeak", [Peak("chr1", 1000, 1100, 50)])
    with pytest.raises(UserError, match=r"A549: the corpus has no such cell type\. Name the file as one of B, NK, T"):
        task.windows(Sources(genome, corpus, ["chr2"], ["chr3"]))


def test_negatives_have_no_peak_in_any_cell_type_and_are_alike_in_gc(make: Make, genome: Genome) -> None:
    table = make(ratio=4, chromosomes=["chr1", "chr2", "chr3"]).table
    bound = (table.filter(like="label:").astype(float) == 1).any(axis=1)
    assert (~bound).sum() == 4 * bound.sum() == 24
    assert (table[~bound].filter(like="label:").astype(int) == 0).all(axis=None)
    peaks = [peak for rows in PEAKS.values() for peak in rows]
    for row in table[~bound].itertuples():
        assert not any(row.chrom == p.chrom and row.start < p.end and p.start < row.end for p in peaks)
    gc = [gc_fraction(oriented_codes(genome, table[rows])).mean() for rows in (bound, ~bound)]
    assert abs(gc[0] - gc[1]) < 0.02


def test_negatives_are_drawn_from_accessible_regions_if_these_are_given(make: Make, tmp_path: Path) -> None:
    accessible = [Peak(chrom, 600 * i, 600 * i + 200, 100) for chrom in ("chr1", "chr2", "chr3") for i in range(3, 9)]
    write_peaks(tmp_path / "all.narrowPeak", accessible)
    made = make(accessible=[tmp_path / "all.narrowPeak"], ratio=3)
    table = made.table
    unbound = table[~(table.filter(like="label:").astype(float) == 1).any(axis=1)]
    assert set((unbound["start"] + 50) % 600) == {100}
    # On chr1, 12 are wanted; of the six accessible regions one, at [4850, 4950), is bound.
    assert unbound["chrom"].value_counts().to_dict() == {"chr1": 5, "chr2": 3, "chr3": 3}
    assert made.notes["negatives wanting, for lack of windows"] == 7


def test_what_is_accessible_in_held_out_cell_types_gives_training_chromosomes_no_negative(
    genome: Genome, folder: Path, tmp_path: Path
) -> None:
    chroms = ["chr1", "chr2", "chr3"]
    corpus = corpus_of(
        [("chr1", 1000), ("chr2", 900), ("chr3", 700)],
        {name: {0: 1.0, 1: 1.0, 2: 1.0} for name in PEAKS},
        valid=["chr2"],
        test=["chr3"],
        test_cell_types=["NK"],
    )
    (tmp_path / "atac").mkdir()
    for name, shift in (("T", 0), ("NK", 300)):
        own = [Peak(chrom, 600 * i + shift, 600 * i + shift + 200, 100) for chrom in chroms for i in range(3, 20)]
        write_peaks(tmp_path / "atac" / f"{name}.narrowPeak", own)
    options = {"peaks": [folder], "width": 100, "ratio": 20, "chromosomes": chroms, "accessible": [tmp_path / "atac"]}
    task = TfBinding(out=Path("out"), genome=genome.path, by_cell_type=True, **options)
    table = task.windows(Sources(genome, corpus, ["chr2"], ["chr3"])).table
    unbound = table[(table["label"] == 0) & (table["cell_type"] == "T")].assign(place=(table["start"] + 50) % 600)
    pool = {chrom: set(rows["place"]) & {100, 400} for chrom, rows in unbound.groupby("chrom")}
    assert pool == {"chr1": {100}, "chr2": {100, 400}, "chr3": {100, 400}}


def test_blacklisted_windows_are_left_out(make: Make, tmp_path: Path) -> None:
    blacklist = tmp_path / "blacklist.bed"
    blacklist.write_text("chr1\t1240\t20000\nchr2\t2000\t20000\n")
    made = make(blacklist=blacklist)
    assert {place for place in sites(made.table) if place[0] == "chr1"} == {("chr1", 1050)}
    assert made.table.loc[made.table["chrom"] != "chr3", "end"].max() <= 2000
    assert made.notes["sites left out, near an end, on unknown sequence or blacklisted"] == 3


def test_chromosomes_without_a_peak_are_left_out_and_named(make: Make, folder: Path) -> None:
    """ENCODE-DREAM holds chromosomes back: what is absent there is not unbound."""
    peaks = folder / "NK.narrowPeak"
    peaks.write_text("".join(line for line in peaks.read_text().splitlines(keepends=True) if "chr1" not in line))
    made = make(peaks=[peaks])
    assert set(made.table["chrom"]) == {"chr2", "chr3"}
    assert made.notes["chromosomes left out, without a peak"] == "chr1"
    made = make(chromosomes=["2"])
    assert set(made.table["chrom"]) == {"chr2"}
    assert made.notes["chromosomes left out, not named"] == "chr1, chr3"
    with pytest.raises(UserError, match="--chromosomes: the genome has no chromosome 'chr8'"):
        make(chromosomes=["chr8"])


def test_a_summit_outside_its_peak_is_counted_and_the_middle_taken(make: Make, tmp_path: Path) -> None:
    """Real files of ENCODE have summits one base behind the end."""
    peaks = write_peaks(tmp_path / "K562.narrowPeak", [Peak("chr1", 1000, 1100, 100)])
    made = make(peaks=[peaks])
    assert sites(made.table) == {("chr1", 1050): [1]}
    assert made.notes["summits outside their peak, whose middle is taken"] == 1


def test_peaks_without_summits_are_windows_around_their_middle(make: Make, tmp_path: Path) -> None:
    bed = tmp_path / "K562.bed"
    bed.write_text("chr1\t1000\t1100\nchr1\t1030\t1130\nchr9\t5\t9\n")
    made = make(peaks=[bed])
    assert sites(made.table) == {("chr1", 1050): [1]}  # the other is less than half a window away
    assert made.notes["peaks left out, on chromosomes that the genome lacks"] == 1


def test_peaks_of_which_none_can_be_used_are_refused(make: Make, tmp_path: Path) -> None:
    peaks = write_peaks(tmp_path / "K562.narrowPeak", [Peak("chr1", 0, 60, 10)])
    for options in ({}, {"chromosomes": ["chr2"]}):
        with pytest.raises(UserError, match="no peak can be used"):
            make(peaks=[peaks], **options)


def test_a_cell_type_without_a_peak_on_the_chromosomes_used_keeps_its_column(make: Make) -> None:
    table = make(chromosomes=["chr3"]).table
    assert list(table.columns[3:]) == ["label:B", "label:NK", "label:T"]
    assert (table["label:B"] == 0).all()


def test_the_table_is_read_as_labels_of_cell_types_of_which_some_are_unknown(
    make: Make, folder: Path, genome: Genome, tmp_path: Path
) -> None:
    path = tmp_path / "labels.tsv"
    make().table.to_csv(path, sep="\t", index=False)
    windows = read_windows(path, genome, labelled=True)
    target = Target.of(windows.table, windows.table)
    assert (target.kind, target.names) == ("labels", ("B", "NK", "T"))
    assert np.isnan(target.truth(windows.table)).sum() == 5  # a flank; and of T on chr2 and B on chr3, two rows each
    task = TfBinding(
        out=tmp_path / "out",
        genome=genome.path,
        peaks=[folder],
        width=100,
        valid_chromosomes=["chr2"],
        test_chromosomes=["chr3"],
    )
    with pytest.raises(UserError) as error:  # which finetune would do
        labels(task)
    assert f"The labels made from {folder} cannot be learned from" in str(error.value)
    assert "valid: label:T is not both 0 and 1 there" in str(error.value)
    assert not task.out.exists()
