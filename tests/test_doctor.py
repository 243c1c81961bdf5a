import gzip
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anndata
import numpy as np
import pandas as pd
import pyBigWig
import pytest
import toys
from scipy import sparse

from genebert.doctor import Finding, doctor, examine
from genebert.doctor import peaks as peaks_module
from genebert.doctor.motifs import examine_motifs
from genebert.doctor.peaks import PeakSet, examine_sets, padded_fraction, place_offsets
from genebert.doctor.sequence import Composition, examine_genome, fitting_assemblies, known_assemblies, sample_genome
from genebert.doctor.signal import _barcodes, examine_padding
from genebert.doctor.splits import examine_splits
from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.inputs.pseudobulk import Pseudobulk
from genebert.schema import Motif
from genebert.settings import CorpusInputs, DoctorSettings

CHROMOSOMES = {f"chr{i}": 1_000_000 for i in range(1, 7)}
PEAKS = 1100
CELL_TYPES = ("B", "NK", "T")


@dataclass(frozen=True)
class Sample:
    """Inputs with nothing wrong: GC-rich sites, of which each cell type has some."""

    folder: Path

    def peaks(self, cell_type: str = "B") -> Path:
        return self.folder / "peaks" / f"{cell_type}.narrowPeak"

    def rows(self, cell_type: str = "B") -> list[list[str]]:
        return [line.split("\t") for line in self.peaks(cell_type).read_text().splitlines()]

    def write(self, rows: Sequence[Sequence[object]], cell_type: str = "B") -> None:
        self.peaks(cell_type).write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))

    def settings(self, **changes: Any) -> DoctorSettings:
        chosen: dict[str, Any] = {
            "genome": self.folder / "genome.fa",
            "peaks": [self.folder / "peaks"],
            "motifs": str(self.folder / "motifs.meme"),
            "blacklist": self.folder / "blacklist.bed",
            "valid_chromosomes": ["chr5"],
            "test_chromosomes": ["chr6"],
        }
        return DoctorSettings(**(chosen | changes))


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    generator = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("healthy")
    (folder / "peaks").mkdir()
    sites = [(chrom, 1000 + 3000 * i) for chrom in CHROMOSOMES for i in range(300)]
    letters = {
        name: generator.choice(list(b"ACGT"), length, p=[0.3, 0.2, 0.2, 0.3]) for name, length in CHROMOSOMES.items()
    }
    for chrom, summit in sites:
        letters[chrom][summit - 300 : summit + 300] = generator.choice(list(b"ACGT"), 600, p=[0.2, 0.3, 0.3, 0.2])
    toys.write_fasta(
        folder / "genome.fa", {name: codes.astype(np.uint8).tobytes().decode() for name, codes in letters.items()}
    )
    sample = Sample(folder)
    for name in CELL_TYPES:
        rows = []
        for i in sorted(generator.choice(len(sites), PEAKS, replace=False)):
            (chrom, summit), left, right = sites[i], *generator.integers(120, 400, 2)
            rows.append(toys.Peak(chrom, summit - left, summit + right, left, *generator.gamma(3, 2, 2).round(3) + 0.1))
        toys.write_peaks(sample.peaks(name), rows)
    toys.write_meme(folder / "motifs.meme", [random_motif(f"m{i}", 8 + i % 8, generator) for i in range(60)])
    (folder / "blacklist.bed").write_text("chr1\t500\t1300\nchrUn\t1\t9\n")
    return sample


@pytest.fixture
def sample(healthy: Sample, tmp_path: Path) -> Sample:
    """A copy of the inputs that a test may spoil."""
    return Sample(Path(shutil.copytree(healthy.folder, tmp_path / "inputs")))


def random_motif(name: str, width: int, generator: np.random.Generator) -> Motif:
    return Motif(name, name, generator.dirichlet(np.full(4, 0.1), size=width))


def find(findings: Sequence[Finding], subject: str, check: str) -> Finding:
    (found,) = [finding for finding in findings if (finding.subject, finding.check) == (subject, check)]
    return found


def odd(findings: Sequence[Finding]) -> list[tuple[str, str, str]]:
    return [(f.subject, f.check, f.verdict) for f in findings if f.verdict != "ok"]


def test_nothing_is_wrong_with_healthy_inputs(healthy: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    findings = examine(healthy.settings())
    assert odd(findings) == []
    assert {finding.group for finding in findings} == {"genome", "blacklist", "peaks", "cell types", "splits", "motifs"}
    doctor(healthy.settings())
    shown = capsys.readouterr()
    assert "B: 1,100 and 2 more" in shown.out
    assert f"{len(findings)} checks, nothing wrong" in shown.err


def test_what_is_wrong_is_an_error_and_the_rest_is_shown(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(sample.peaks("T"), sample.peaks("NK"))
    sample.peaks().write_bytes(gzip.compress(sample.peaks().read_bytes())[:-900])
    with pytest.raises(UserError) as error:
        doctor(sample.settings(motifs="jaspar:fish"))
    message = str(error.value)
    assert "peaks, use: B: " in message
    assert "the gzip file is truncated or damaged" in message
    assert "peaks, against others: NK: " in message
    assert "the same peaks as T; T: " in message
    assert "motifs, use: " in message
    assert "shares" in capsys.readouterr().out


def test_worth_a_look_is_no_error(healthy: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    doctor(healthy.settings(blacklist=None))
    assert "nothing wrong; look at 1" in capsys.readouterr().err


def without_summits(rows: list[list[str]]) -> list[list[object]]:
    return [[*row[:9], -1] for row in rows]


def resized(rows: list[list[str]], half: int) -> list[list[object]]:
    return [
        [row[0], int(row[1]) + int(row[9]) - half, int(row[1]) + int(row[9]) + half, *row[3:9], half - 1]
        for row in rows
    ]


def shifted(rows: list[list[str]], by: int) -> list[list[object]]:
    return [[row[0], int(row[1]) + by, int(row[2]) + by, *row[3:]] for row in rows]


def with_signal(rows: list[list[str]], first: float, rest: float | None) -> list[list[object]]:
    return [[*row[:6], first if i == 0 or rest is None else rest + i / 1000, *row[7:]] for i, row in enumerate(rows)]


def as_bed(rows: list[list[str]]) -> list[list[object]]:
    """chrom, start, end, signal, offset of the summit, as some atlases give them."""
    return [[*row[:3], row[6], row[9]] for row in rows]


Spoil = Callable[[list[list[str]]], list[list[Any]]]


@pytest.mark.parametrize(
    ("spoil", "check", "verdict", "fragment"),
    [
        (
            lambda rows: [*rows, ["chrUn", 1, 99, *rows[0][3:]]],
            "chromosome names",
            "wrong",
            "lacks chrUn, with 1 peaks",
        ),
        (lambda rows: [[row[0][3:], *row[1:]] for row in rows], "chromosome names", "ok", "all are in the genome"),
        (
            lambda rows: [*rows, ["chr6", 999_000, 1_000_001, *rows[0][3:]]],
            "chromosome ends",
            "wrong",
            "1 peaks (0.0908 %)",
        ),
        (lambda rows: rows[:999], "number", "look", "999"),
        (lambda rows: rows + rows[:12], "repeats", "look", "12 rows"),
        (lambda rows: rows + rows[:11], "repeats", "ok", "11 rows"),
        (lambda rows: rows[1:] + rows[:1], "order", "look", "not sorted"),
        (lambda rows: sorted(rows, key=lambda row: row[0], reverse=True), "order", "ok", "sorted"),
        (
            lambda rows: [[row[0], max(0, int(row[1]) - 2000), *row[2:9], -1] for row in rows],
            "width",
            "look",
            "median 2,",
        ),
        (lambda rows: resized(rows, 20), "width", "look", "40 bp each"),
        (lambda rows: resized(rows, 250), "width", "look", "500 bp each"),
        (without_summits, "summits", "look", "the middle stands in"),
        (
            lambda rows: resized(without_summits(rows), 250) and [row[:3] for row in resized(rows, 250)],
            "summits",
            "ok",
            "not",
        ),
        (as_bed, "score", "wrong", "whole numbers inside each peak's width"),
        (lambda rows: [[*row[:3], "name", 10 * i] for i, row in enumerate(rows)], "score", "ok", "median"),
        (lambda rows: with_signal(rows, 2, None), "signal", "look", "all 2"),
        (lambda rows: with_signal(rows, 300, 1), "signal", "look", "highest 300"),
        (lambda rows: with_signal(rows, 50, 1), "signal", "ok", "highest 50"),
        (lambda rows: shifted(rows, 1500), "GC", "look", "and 4"),
        (lambda rows: shifted(rows, 1500), "against others", "look", "overlap at most"),
        (lambda rows: rows[::6], "against others", "look", "0.17 times"),
    ],
)
def test_one_file_of_peaks(sample: Sample, spoil: Spoil, check: str, verdict: str, fragment: str) -> None:
    sample.write(spoil(sample.rows()))
    found = find(examine(sample.settings()), "peaks: B", check)
    assert (found.verdict, bool(found.remedy)) == (verdict, verdict != "ok")
    assert fragment in found.found


def test_too_many_peaks(healthy: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks_module, "_MANY", PEAKS - 1)
    assert find(examine(healthy.settings()), "peaks: B", "number").verdict == "look"


@pytest.mark.parametrize(("rows", "verdict"), [(1, "ok"), (40, "look")])
def test_peaks_on_unknown_chromosomes_that_are_to_be_skipped(sample: Sample, rows: int, verdict: str) -> None:
    unknown = [["chrUn", 10 * i, 10 * i + 9, *sample.rows()[0][3:9], -1] for i in range(rows)]
    sample.write([*sample.rows(), *unknown])
    found = find(examine(sample.settings(skip_unknown_chromosomes=True)), "peaks: B", "chromosome names")
    assert found.verdict == verdict


def test_peaks_in_the_blacklist(sample: Sample) -> None:
    (sample.folder / "blacklist.bed").write_text("chr2\t0\t900000\n")
    findings = examine(sample.settings())
    assert find(findings, "peaks: B", "blacklist").verdict == "look"
    assert find(findings, "blacklist", "given").found == "1 intervals on the genome"


def test_a_blacklist_of_another_genome(sample: Sample) -> None:
    (sample.folder / "blacklist.bed").write_text("chrZ\t0\t900000\n")
    assert ("blacklist", "use", "wrong") in odd(examine(sample.settings()))


@pytest.mark.parametrize(("masked", "verdict"), [(1, "look"), (4, "wrong")])
def test_peaks_where_there_is_no_sequence(sample: Sample, masked: int, verdict: str) -> None:
    path = sample.folder / "genome.fa"
    letters = toys.read_fasta(path)
    toys.write_fasta(path, {name: "N" * len(x) if int(name[3]) <= masked else x for name, x in letters.items()})
    assert find(examine(sample.settings()), "peaks: T", "N").verdict == verdict


def peak_set(name: str, places: Sequence[int], digest: int) -> PeakSet:
    return PeakSet(name, digest, len(places), np.array(places))


def test_files_against_each_other() -> None:
    lengths = {"chr1": 9_999_000}  # 10,000 places
    generator = np.random.default_rng(0)
    one = np.sort(generator.choice(10_000, 2000, replace=False))
    other = np.sort(generator.choice(10_000, 2000, replace=False))
    sets = [
        peak_set("a", one, 1),
        peak_set("twin", one, 1),
        peak_set("near", [*one[:-40]], 2),
        peak_set("half", np.sort([*one[:1000], *other[:1000][~np.isin(other[:1000], one)]]), 3),
        peak_set("random", other[1000:], 4),
        peak_set("few", one[:300], 5),
    ]
    findings = {finding.subject: finding for finding in examine_sets(sets, lengths)}
    verdicts = {name: findings[f"peaks: {name}"].verdict for name in ("a", "twin", "near", "half", "random", "few")}
    assert verdicts == {"a": "wrong", "twin": "wrong", "near": "look", "half": "ok", "random": "look", "few": "look"}
    assert "the same peaks as twin" in findings["peaks: a"].found
    assert "nearly those of a, twin" in findings["peaks: near"].found
    assert "hardly a place" in findings["peaks: random"].remedy
    assert "shallow" in findings["peaks: few"].remedy


def test_agreement_is_0_for_random_places_and_1_for_a_part() -> None:
    one = np.arange(0, 1000, 2)
    found = peaks_module._agreement(
        peaks_module._shared_places(
            [peak_set("a", one, 1), peak_set("b", np.arange(500), 2), peak_set("c", one[:9], 3)], 1000
        ),
        1000,
    )
    np.testing.assert_allclose(found[0], [1, 0, 1], atol=1e-12)


def test_places_are_counted_over_chunks() -> None:
    places = np.array([0, 1 << 18, (1 << 18) + 5, 3 << 18])
    sets = [peak_set("a", places, 1), peak_set("b", places[1:], 2)]
    assert peaks_module._shared_places(sets, (3 << 18) + 1).tolist() == [[4, 3], [3, 3]]


def test_one_cell_type(sample: Sample) -> None:
    for name in ("NK", "T"):
        sample.peaks(name).unlink()
    assert odd(examine(sample.settings())) == [("cell types", "number", "look")]


def test_padding() -> None:
    assert padded_fraction(np.array([32, 100, 0])) == 0
    assert padded_fraction(np.array([16, 8])) == (16 * 16 + 8 * 24) / (32 * 24)
    assert examine_padding("a", np.array([300, 20])).verdict == "ok"
    assert examine_padding("a", np.array([30, 10, 10])).verdict == "look"
    assert examine_padding("a", np.array([0, 0])).verdict == "wrong"


def stand_in(lengths: dict[str, int]) -> Genome:
    return cast(Genome, SimpleNamespace(lengths=lengths))


def composed(n: float) -> Composition:
    return Composition(np.full(10, n), 0.41 if n < 1 else float("nan"), 10 if n < 1 else 0)


@pytest.mark.parametrize(
    ("change", "verdict", "fragment"),
    [
        (lambda x: x, "ok", "hg38, by the lengths of 25 of its 25 chromosomes"),
        (lambda x: {name.removeprefix("chr"): n for name, n in x.items()}, "ok", "hg38, by the lengths of 25"),
        (lambda x: {"chr7": x["chr7"]}, "ok", "hg38, by the lengths of 1 "),
        (lambda x: x | {"chrM": 99}, "ok", "hg38, by the lengths of 24"),
        (lambda x: x | {"chr7": 99}, "look", "chr7 differ"),
        (lambda x: {"chr7": 99}, "ok", "none of those known here"),
        (lambda x: {"scaffold_1": 99}, "ok", "none of those known here"),
    ],
)
def test_assembly(change: Callable[[dict[str, int]], dict[str, int]], verdict: str, fragment: str) -> None:
    lengths = change(known_assemblies()["hg38"])
    found = find(list(examine_genome(stand_in(lengths), composed(0.05))), "genome", "assembly")
    assert found.verdict == verdict
    assert fragment in found.found


def test_every_assembly_is_told_from_the_others() -> None:
    for name, lengths in known_assemblies().items():
        found = find(list(examine_genome(stand_in(lengths), composed(0))), "genome", "assembly")
        assert (found.verdict, found.found.split(",")[0]) == ("ok", name)


def test_peaks_tell_which_assemblies_they_fit() -> None:
    hg19, hg38 = known_assemblies()["hg19"], known_assemblies()["hg38"]
    ends = {name: max(hg19[name], hg38[name]) for name in ("chr1", "chr2")}
    assert "hg19" in fitting_assemblies(ends)
    assert "hg38" not in fitting_assemblies(ends)
    assert fitting_assemblies({"chr1": 10**10}) == []
    assert fitting_assemblies({"scaffold_1": 1}) == []


@pytest.mark.parametrize(("n", "verdict"), [(0.1, "ok"), (0.5, "look"), (1.0, "wrong")])
def test_share_of_n(n: float, verdict: str) -> None:
    assert find(list(examine_genome(stand_in({"a": 9}), composed(n))), "genome", "sequence").verdict == verdict


def test_without_a_genome_the_rest_is_looked_at(sample: Sample) -> None:
    (sample.folder / "genome.fa").write_bytes(b"junk")
    findings = examine(sample.settings())
    assert odd(findings) == [("genome", "use", "wrong")]
    assert find(findings, "motifs", "number").found == "60"


def test_a_letter_that_is_no_nucleotide(sample: Sample) -> None:
    toys.write_fasta(sample.folder / "genome.fa", dict.fromkeys(CHROMOSOMES, "E" * 1_000_000))
    assert ("genome", "use", "wrong") in odd(examine(sample.settings()))


def test_a_genome_of_empty_sequences() -> None:
    genome = cast(Genome, SimpleNamespace(lengths={"chr1": 0}, path=Path("genome.2bit")))
    with pytest.raises(UserError, match=r"genome\.2bit: all of its sequences are empty"):
        sample_genome(genome, 512)


def test_no_form_of_signal_or_two(sample: Sample) -> None:
    assert ("ATAC-seq", "use", "wrong") in odd(examine(sample.settings(peaks=[])))
    two = sample.settings(anndata=sample.folder / "a.h5ad")
    findings = examine(two)
    assert ("ATAC-seq", "use", "wrong") in odd(findings)
    assert find(findings, "genome", "size").found == "6 sequences, 6.0 Mb"


def test_odd_region_width(healthy: Sample) -> None:
    assert odd(examine(healthy.settings(region_width=511))) == [("settings", "region width", "wrong")]


def test_a_background_that_is_none(healthy: Sample) -> None:
    assert odd(examine(healthy.settings(background="unifrom"))) == [("settings", "use", "wrong")]


def motifs(count: int, width: int = 10) -> list[Motif]:
    generator = np.random.default_rng(0)
    return [random_motif(f"m{i}", width, generator) for i in range(count)]


@pytest.mark.parametrize(
    ("collection", "check", "verdict"),
    [
        (motifs(60), "number", "ok"),
        (motifs(49), "number", "look"),
        (motifs(5001, 6), "number", "look"),
        (motifs(60), "width", "ok"),
        ([*motifs(60), *motifs(1, 513)], "width", "look"),
        (motifs(60), "information", "ok"),
        ([*motifs(60), Motif("flat", "flat", np.full((9, 4), 0.25))], "information", "look"),
        (motifs(60), "repeats", "ok"),
        ([*motifs(60), Motif("copy", "copy", motifs(1)[0].probabilities)], "repeats", "look"),
        ([*motifs(60), Motif("back", "back", motifs(1)[0].probabilities[::-1, ::-1])], "repeats", "look"),
    ],
)
def test_motifs(collection: list[Motif], check: str, verdict: str) -> None:
    assert find(list(examine_motifs(collection, 512)), "motifs", check).verdict == verdict


LENGTHS = {"chr1": 100, "chr2": 100, "chrX": 100, "chrM": 100}


@pytest.mark.parametrize(
    ("valid", "test", "places", "check", "verdict", "fragment"),
    [
        (["chr1"], ["chr2"], [10, 10, 80, 0], "chromosomes", "ok", "validation on chr1, testing on chr2"),
        (["1"], ["chr2"], [10, 10, 80, 0], "shares", "ok", "train 80 %, valid 10 %, test 10 % of 100 places"),
        (["chr1"], [], [10, 10, 80, 0], "chromosomes", "look", "testing on none"),
        (["chr9"], ["chr2"], [10, 10, 80, 0], "chromosomes", "wrong", "lacks chr9"),
        (["chr1"], ["1", "chr2"], [10, 10, 80, 0], "chromosomes", "wrong", "chr1"),
        (["chr1"], ["chr2"], [0, 10, 80, 0], "shares", "wrong", "valid 0 %"),
        (["chr1"], ["chr2"], [50, 50, 0, 0], "shares", "wrong", "train 0 %"),
        (["chr1"], ["chr2"], [2, 2, 96, 0], "shares", "look", "valid 2 %"),
        (["chr1"], ["chr2"], [40, 40, 20, 0], "shares", "look", "train 20 %"),
        (["chr1"], ["chr2"], [10, 10, 80, 0], "special chromosomes", "ok", "none"),
        (["chr1"], ["chrX"], [10, 80, 10, 0], "special chromosomes", "look", "chrX"),
        (["chr1"], ["chr2"], [10, 10, 80, 0], "mitochondria", "ok", "0 peaks"),
        (["chr1"], ["chr2"], [10, 10, 80, 3], "mitochondria", "look", "3 peaks"),
    ],
)
def test_splits(valid: list[str], test: list[str], places: list[int], check: str, verdict: str, fragment: str) -> None:
    settings = CorpusInputs(genome=Path("x"), valid_chromosomes=valid, test_chromosomes=test)
    found = find(examine_splits(settings, LENGTHS, ["B"], np.array(places)), "splits", check)
    assert found.verdict == verdict
    assert fragment in found.found


@pytest.mark.parametrize(("names", "wrong"), [(["T"], False), (["T", "Q"], True), ([*CELL_TYPES], True)])
def test_held_out_cell_types(healthy: Sample, names: list[str], wrong: bool) -> None:
    assert bool(odd(examine(healthy.settings(test_cell_types=names)))) is wrong


def test_place_offsets() -> None:
    assert place_offsets({"a": 999, "b": 1000}).to_dict() == {"a": 0, "b": 1, "": 3}


def write_fragments(sample: Sample, in_peaks: float, cells: int = 30, per_cell: int = 80) -> DoctorSettings:
    """Fragments of two cell types, of which a part lies in the peaks of B."""
    generator = np.random.default_rng(0)
    summits = [(row[0], int(row[1]) + int(row[9])) for row in sample.rows()]
    lines, table = [], ["barcode,cell_type"]
    for i in range(2 * cells):
        table.append(f"C{i}-1,{'BT'[i % 2]}")
        for j in range(per_cell):
            chrom, place = summits[int(generator.integers(len(summits)))]
            place += 0 if j < in_peaks * per_cell else 1500
            lines.append(f"{chrom}\t{place - 40}\t{place + 40}\tC{i}-1\t1\n")
    for name in ("NK", "T"):
        sample.peaks(name).unlink(missing_ok=True)
    (sample.folder / "barcodes.csv").write_text("\n".join(table) + "\n")
    with gzip.open(sample.folder / "fragments.tsv.gz", "wt") as handle:
        handle.writelines(lines)
    return sample.settings(
        fragments=[sample.folder / "fragments.tsv.gz"], barcodes=sample.folder / "barcodes.csv", min_fragments=2000
    )


def test_healthy_fragments(sample: Sample) -> None:
    findings = examine(write_fragments(sample, 0.5))
    assert odd(findings) == []
    assert find(findings, "cell types: B", "depth").found == "30 cells, 2,400 fragments or counts"
    assert find(findings, "cell types: T", "fraction in peaks").found == "0.50"
    assert find(findings, "fragments: fragments.tsv.gz", "barcodes").found == "60 of the table's 60 occur"


@pytest.mark.parametrize(
    ("in_peaks", "changes", "check", "verdict"),
    [
        (0.15, {}, "fraction in peaks", "look"),
        (0.05, {}, "fraction in peaks", "wrong"),
        (0.5, {"min_cells": 31}, "depth", "look"),
        (0.5, {"min_fragments": 2401}, "depth", "look"),
        (0.5, {"min_count": 30}, "regions per chromosome", "wrong"),
        (0.5, {"min_count": 6}, "regions per chromosome", "look"),
    ],
)
def test_poor_fragments(sample: Sample, in_peaks: float, changes: dict[str, Any], check: str, verdict: str) -> None:
    settings = write_fragments(sample, in_peaks).model_copy(update=changes)
    assert find(examine(settings), "cell types: B", check).verdict == verdict


def test_a_cell_type_that_is_dropped_need_not_be_good(sample: Sample) -> None:
    settings = write_fragments(sample, 0.5)
    with (sample.folder / "barcodes.csv").open("a") as table:
        table.write("X1-1,rare\n")
    assert odd(examine(settings)) == [("cell types: rare", "depth", "look")]


@pytest.mark.parametrize(
    ("kept", "added", "check", "verdict"),
    [
        (60, 20, "barcodes", "look"),
        (60, 90, "barcodes", "wrong"),
        (16, 0, "fragments", "look"),
    ],
)
def test_barcodes(sample: Sample, kept: int, added: int, check: str, verdict: str) -> None:
    settings = write_fragments(sample, 0.5)
    table = sample.folder / "barcodes.csv"
    lines = table.read_text().splitlines()
    lines = lines[: kept + 1] + [f"X{i}-1,B" for i in range(added)]
    table.write_text("\n".join(lines) + "\n")
    assert find(examine(settings), "fragments: fragments.tsv.gz", check).verdict == verdict


def test_fragments_on_other_chromosomes(sample: Sample) -> None:
    settings = write_fragments(sample, 0.5)
    with gzip.open(settings.fragments[0], "at") as handle:
        handle.writelines("chrUn\t5\t90\tC1-1\t1\n" for _ in range(500))
    assert odd(examine(settings)) == [("fragments: fragments.tsv.gz", "chromosome names", "look")]


def test_fragments_on_other_chromosomes_are_a_part_of_all() -> None:
    counts = sparse.csr_array((1, 1), dtype=np.int64)
    bulk = Pseudobulk(["A"], counts, {"A": 1}, {"A": 40}, 0, {"chrX": 60})
    (said,) = [one for one in _barcodes("f", bulk, 1) if one.check == "chromosome names"]
    assert said.found.startswith("60")


def test_fragments_that_cannot_be_read(sample: Sample) -> None:
    settings = write_fragments(sample, 0.5)
    settings.fragments[0].write_bytes(settings.fragments[0].read_bytes()[:-500])
    assert odd(examine(settings)) == [("fragments: fragments.tsv.gz", "use", "wrong")]


def write_h5ad(sample: Sample, counts: np.ndarray[Any, Any], names: Sequence[object]) -> DoctorSettings:
    rows = sample.rows()
    var = pd.DataFrame(index=[f"{row[0]}:{row[1]}-{row[2]}" for row in rows])
    obs = pd.DataFrame({"cell_type": names}, index=[f"c{i}" for i in range(len(names))])
    path = sample.folder / "cells.h5ad"
    anndata.AnnData(sparse.csr_matrix(counts), obs, var).write_h5ad(path)
    return sample.settings(peaks=[], anndata=path, min_fragments=500)


def test_cells_by_peaks(sample: Sample) -> None:
    counts = np.random.default_rng(0).poisson(0.3, size=(80, PEAKS)).astype(np.float32)
    names = np.array(["B", "T"] * 40, dtype=object)
    findings = examine(write_h5ad(sample, counts, names))
    assert odd(findings) == []
    assert find(findings, "cells", "cell types").found == "0 % have none"
    names[:30] = ""
    assert odd(examine(write_h5ad(sample, counts, names))) == [("cells", "cell types", "look")]
    names[30:60] = "NK"
    assert ("cell types: T", "depth", "look") in odd(examine(write_h5ad(sample, counts, names)))
    assert ("cells", "use", "wrong") in odd(examine(write_h5ad(sample, counts + 0.5, names)))


def write_bigwig(sample: Sample, background: float, lacking: str = "") -> DoctorSettings:
    folder = sample.folder / "coverage"
    folder.mkdir(exist_ok=True)
    rows = sample.rows()
    for name in ("B", "T"):
        with pyBigWig.open(str(folder / f"{name}.bw"), "w") as file:
            chromosomes = {chrom: length for chrom, length in CHROMOSOMES.items() if chrom != lacking or name == "B"}
            file.addHeader(list(chromosomes.items()))
            for chrom in chromosomes:
                here = [row for row in rows if row[0] == chrom]
                edges = [int(edge) for row in here for edge in row[1:3]]
                values = [5.0, background] * len(here)
                file.addEntries([chrom] * len(edges), edges, ends=[*edges[1:], edges[-1] + 9], values=values)
    for name in ("NK", "T"):
        sample.peaks(name).unlink(missing_ok=True)
    return sample.settings(bigwigs=[folder])


def test_peak_sets_are_united_where_signal_is_measured(sample: Sample) -> None:
    """Peaks of two sets overlap, and one lies beyond the end of its chromosome."""
    settings = write_bigwig(sample, 0.1)
    rows = [[row[0], int(row[1]) + 30, int(row[2]) + 30, *row[3:]] for row in sample.rows()]
    sample.write([*rows, ["chr6", 999_900, 1_000_300, *rows[0][3:9], -1]], "more")
    findings = examine(settings)
    assert odd(findings) == [("peaks: more", "chromosome ends", "wrong")]
    assert find(findings, "coverage: B", "fraction in peaks").found.endswith("0.86 of it in peaks")


def test_coverage(sample: Sample) -> None:
    assert odd(examine(write_bigwig(sample, 0.1))) == []
    settings = write_bigwig(sample, 4.0)
    assert ("coverage: T", "fraction in peaks", "look") in odd(examine(settings))
    path = settings.bigwigs[0] / "T.bw"
    path.write_bytes(path.read_bytes()[:100])
    assert ("coverage: T", "use", "wrong") in odd(examine(settings))


@pytest.mark.parametrize(("lacking", "verdict"), [("chr2", "look"), ("chr6", "wrong")])
def test_a_bigwig_that_lacks_a_chromosome(sample: Sample, lacking: str, verdict: str) -> None:
    """What is held out there was once all closed, without a word."""
    findings = examine(write_bigwig(sample, 0.1, lacking))
    assert odd(findings) == [("coverage: T", "chromosome names", verdict)]
    assert f"lacks {lacking}, with peaks" in find(findings, "coverage: T", "chromosome names").found


def test_nothing_crashes_the_doctor(sample: Sample) -> None:
    """All inputs are junk, and each is found to be."""
    for path in (sample.peaks("T"), sample.peaks("NK"), sample.peaks("B"), sample.folder / "motifs.meme"):
        path.write_bytes(bytes(range(256)))
    (sample.folder / "blacklist.bed").write_text("")
    findings = examine(sample.settings(valid_chromosomes=["chr77"]))
    assert {(f.subject, f.check) for f in findings if f.verdict == "wrong"} == {
        *((f"peaks: {name}", "use") for name in CELL_TYPES),
        ("motifs", "use"),
        ("blacklist", "use"),
        ("splits", "chromosomes"),
    }
