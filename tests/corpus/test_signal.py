"""The same cells in every form: fragments, coverage (bigWig), and cells x peaks (h5ad) must make the same corpus.

Fragments without peaks must make one of the sites at which they crowd.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyBigWig
import pytest
import toys
from scipy import sparse
from toys import WIDTH, World

from genebert.corpus import signal
from genebert.corpus.build import prepare
from genebert.corpus.parallel import ThisProcess
from genebert.corpus.signal import FragmentFiles, find_source
from genebert.corpus.store import Corpus
from genebert.corpus.work import Arrays, Work
from genebert.doctor import examine
from genebert.errors import UserError

CELLS = {"B": 6, "NK": 5, "T": 4, "rare": 1}
SPACE = 2 * WIDTH


@dataclass(frozen=True)
class Cells:
    """One experiment as files: 60 peaks as wide as a region, and fragments around some of them per cell type."""

    world: World
    peaks: pd.DataFrame
    fragments: pd.DataFrame

    @property
    def peak_set(self) -> Path:
        return self.world.folder / "all.bed"

    def settings(self, out: Path, **changes: Any) -> Any:
        rules = {"min_cells": 2, "min_fragments": 10, "min_count": 3, "test_cell_types": ["T"]}
        return self.world.settings(out, **({"peaks": [self.peak_set]} | rules | changes))

    def counts(self, by: str) -> pd.DataFrame:
        """Insertions in each peak, counted one by one: rows are cells or cell types, columns are peaks."""
        table = pd.DataFrame(0, index=sorted(self.fragments[by].unique()), columns=range(len(self.peaks)))
        for fragment in self.fragments.itertuples():
            for position in (fragment.start, fragment.end - 1):
                inside = (self.peaks["chrom"] == fragment.chrom) & (self.peaks["start"] <= position)
                for peak in np.flatnonzero(inside & (position < self.peaks["end"])):
                    table.loc[getattr(fragment, by), peak] += 1
        return table


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    rng = np.random.default_rng(3)
    world = toys.write_world(tmp_path_factory.mktemp("cells") / "inputs")
    slots = [(chrom, start) for chrom in toys.CHROMOSOMES for start in range(WIDTH, 20_000 - SPACE, SPACE)]
    chosen = sorted(rng.choice(len(slots), 60, replace=False))
    peaks = pd.DataFrame([slots[i] for i in chosen], columns=["chrom", "start"])
    peaks["end"] = peaks["start"] + WIDTH
    rows = []
    for cell_type, count in CELLS.items():
        open_in = rng.choice(len(peaks), 30, replace=False)
        for peak in rng.choice(open_in, 240 if count > 1 else 6):
            start = int(peaks["start"][peak]) + int(rng.integers(-60, WIDTH))
            cell = f"{cell_type}-{rng.integers(count)}"
            rows.append((peaks["chrom"][peak], start, start + int(rng.integers(20, 300)), cell, cell_type))
    fragments = pd.DataFrame(rows, columns=["chrom", "start", "end", "cell", "cell_type"])
    made = Cells(world, peaks, fragments.sort_values(["chrom", "start"], ignore_index=True))
    peaks.to_csv(made.peak_set, sep="\t", header=False, index=False)
    return made


def build(cells: Cells, out: Path, **changes: Any) -> Corpus:
    return Corpus.open(prepare(cells.settings(out, **changes)))


@pytest.fixture(scope="module")
def from_fragments(cells: Cells, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = cells.world.folder
    # Two samples, whose barcodes are alike: the file tells them apart.
    halves = {"one.tsv.gz": cells.fragments[::2], "two.tsv.gz": cells.fragments[1::2]}
    tables = []
    for name, part in halves.items():
        part.assign(n=1)[["chrom", "start", "end", "cell", "n"]].to_csv(
            folder / name, sep="\t", header=False, index=False
        )
        tables.append(part[["cell", "cell_type"]].drop_duplicates().assign(file=name))
    table = pd.concat(tables).rename(columns={"cell": "barcode"})
    table.to_csv(folder / "cells.tsv", sep="\t", index=False)
    files = [folder / name for name in halves]
    return build(cells, tmp_path_factory.mktemp("f") / "corpus", fragments=files, barcodes=folder / "cells.tsv")


def same_accessibility(one: Corpus, other: Corpus) -> bool:
    names = ("accessible_offsets", "accessible_regions", "accessible_values")
    return one.cell_types == other.cell_types and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in names
    )


def test_fragments_become_counts_per_million_of_training_regions(from_fragments: Corpus, cells: Cells) -> None:
    assert from_fragments.signal == "fragments"
    assert from_fragments.cell_types == ["B", "NK", "T"]
    assert from_fragments.regions[["chrom", "start", "end"]].astype({"chrom": str}).equals(cells.peaks)
    counts = cells.counts("cell_type")
    in_training = (counts.loc[["B", "NK"]] > 0).any(axis=0).to_numpy()  # T is held out, and the rare one dropped
    training = (cells.peaks["chrom"] == "chr1").to_numpy() & in_training
    assert 0 < training.sum() < (cells.peaks["chrom"] == "chr1").sum()
    for i, name in enumerate(from_fragments.cell_types):
        of = counts.loc[name].to_numpy()
        cpm = 1e6 * of / of[training].sum()
        expected = np.flatnonzero((of >= 3) & (cpm >= 1e6 / training.sum()))
        begin, end = from_fragments.accessible_offsets[i : i + 2]
        assert from_fragments.accessible(i).tolist() == expected.tolist()
        assert from_fragments.accessible_values[begin:end] == pytest.approx(np.log1p(cpm[expected]))


def test_small_cell_types_are_dropped_and_named(from_fragments: Corpus) -> None:
    dropped = from_fragments.manifest.metrics["signal"]["dropped_cell_types"]
    assert list(dropped) == ["rare"]
    assert "6 fragments of at least 10" in dropped["rare"]


def test_fraction_of_insertions_in_regions(from_fragments: Corpus, cells: Cells) -> None:
    counts, fragments = cells.counts("cell_type"), cells.fragments["cell_type"].value_counts()
    found = from_fragments.manifest.metrics["signal"]["fraction_of_insertions_in_regions"]
    for name in ("B", "NK", "T"):
        assert found[name] == pytest.approx(counts.loc[name].sum() / (2 * fragments[name]), abs=1e-4)


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_cells_by_peaks_make_the_same_corpus(from_fragments: Corpus, cells: Cells, tmp_path: Path, form: str) -> None:
    counts = cells.counts("cell")
    order = np.random.default_rng(0).permutation(len(cells.peaks))
    of_cell = cells.fragments.drop_duplicates("cell").set_index("cell")["cell_type"]
    matrix = counts.to_numpy()[:, order].astype(np.float32)
    data = anndata.AnnData(
        {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[form](matrix),
        obs=pd.DataFrame({"type": of_cell.loc[counts.index].to_numpy()}, index=counts.index),
        var=pd.DataFrame(index=[f"{p.chrom}:{p.start}-{p.end}" for p in cells.peaks.iloc[order].itertuples()]),
    )
    data.write_h5ad(tmp_path / "cells.h5ad")
    corpus = build(
        cells, tmp_path / "corpus", peaks=[], anndata=tmp_path / "cells.h5ad", cell_type_column="type", min_fragments=20
    )
    assert corpus.signal == "h5ad"
    assert same_accessibility(corpus, from_fragments)


def write_coverage(cells: Cells, cell_type: str, folder: Path, lacking: str = "") -> Path:
    """Write the insertions of a cell type as bigWig; it may lack a chromosome."""
    part = cells.fragments[cells.fragments["cell_type"] == cell_type]
    path = folder / f"{cell_type}.bw"
    with pyBigWig.open(str(path), "w") as track:
        track.addHeader([(chrom, length) for chrom, length in toys.CHROMOSOMES.items() if chrom != lacking])
        for chrom, rows in part[part["chrom"] != lacking].groupby("chrom"):
            positions = np.concatenate([rows["start"], rows["end"] - 1])
            places, depth = np.unique(positions, return_counts=True)
            track.addEntries(
                [chrom] * len(places),
                places.tolist(),
                ends=(places + 1).tolist(),
                values=depth.astype(float).tolist(),
            )
    return path


def test_coverage_makes_the_same_corpus(from_fragments: Corpus, cells: Cells, tmp_path: Path) -> None:
    files = [write_coverage(cells, name, tmp_path) for name in ("T", "B", "NK")]
    training = (cells.peaks["chrom"] == "chr1").to_numpy()
    least = min(cells.counts("cell_type").loc[name].to_numpy()[training].sum() for name in ("B", "NK", "T"))
    assert 1e6 / training.sum() > 3e6 / least  # the mean decides, so that the least count of 3 does not matter
    assert same_accessibility(build(cells, tmp_path / "corpus", bigwigs=files), from_fragments)


def test_chromosomes_that_a_bigwig_lacks_are_named(
    cells: Cells, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were once closed throughout, without a word."""
    files = [write_coverage(cells, "B", tmp_path), write_coverage(cells, "T", tmp_path, lacking="chr3")]
    corpus = build(cells, tmp_path / "corpus", bigwigs=files)
    assert corpus.manifest.metrics["signal"] == {"chromosomes_without_coverage": {"T": ["chr3"]}}
    said = " ".join(capsys.readouterr().err.split())
    assert "nothing is accessible on chromosomes that a cell type's bigWig lacks: T (chr3)" in said
    assert [set(corpus.regions["chrom"][corpus.accessible(i)]) for i in range(2)] == [
        {"chr1", "chr2", "chr3"},
        {"chr1", "chr2"},
    ]


def test_a_stricter_threshold_keeps_fewer_regions(from_fragments: Corpus, cells: Cells, tmp_path: Path) -> None:
    folder = cells.world.folder
    files = {"fragments": [folder / "one.tsv.gz", folder / "two.tsv.gz"], "barcodes": folder / "cells.tsv"}
    strict = build(cells, tmp_path / "corpus", min_cpm=90_000, **files)
    assert 0 < len(strict.accessible_regions) < len(from_fragments.accessible_regions)
    assert strict.accessible_values.min() >= np.log1p(90_000)


@pytest.mark.parametrize(
    ("held_out", "what"),
    [
        (["T"], "T: no region is accessible in it. Check its file and --blacklist, lower --min-cpm"),
        ([], "train: no region on its chromosomes is accessible in a cell type that is not held out. Lower --min-cpm"),
    ],
)
def test_a_threshold_that_nothing_passes(
    from_fragments: Corpus, cells: Cells, tmp_path: Path, held_out: list[str], what: str
) -> None:
    """Other chromosomes were once asked for, and held-out cell types had no examples, without a word."""
    folder = cells.world.folder
    files = {"fragments": [folder / "one.tsv.gz", folder / "two.tsv.gz"], "barcodes": folder / "cells.tsv"}
    with pytest.raises(UserError, match=what):
        build(cells, tmp_path / "corpus", min_cpm=10_000_000, test_cell_types=held_out, **files)


WRONG = [
    ({"bigwigs": ["a.bw"], "anndata": "b.h5ad"}, "--bigwigs, --anndata: these are several forms"),
    ({"anndata": "b.h5ad"}, "--peaks: an h5ad has its own peaks"),
    ({"peaks": []}, "--peaks: no peaks are given.*only --fragments with --barcodes, or --anndata, do without"),
    ({"peaks": [], "bigwigs": ["a.bw"]}, "--peaks: no peaks are given"),
    ({"peaks": [], "fragments": ["f.tsv.gz"]}, "^(?!.*no peaks)(.|\n)*--barcodes: it goes with --fragments"),
    ({"fragments": ["f.tsv.gz"]}, "--barcodes: it goes with --fragments"),
    ({"barcodes": "cells.tsv"}, "--barcodes: it goes with --fragments"),
    ({"bigwigs": ["nowhere.bw"]}, "nowhere.bw: no such file"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_forms_that_do_not_go_together(cells: Cells, tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_source(cells.settings(tmp_path / "corpus", **changes))


def test_files_that_the_table_of_barcodes_does_not_name(cells: Cells, tmp_path: Path) -> None:
    table = tmp_path / "cells.tsv"
    files = [tmp_path / "one.tsv.gz", tmp_path / "three.tsv.gz"]
    table.write_text("barcode\tcell_type\tfile\na\tB\tone.tsv.gz\nb\tB\ttwo.tsv.gz\n")
    with pytest.raises(
        UserError, match=r"'two.tsv.gz' is none of the files(.|\n)*three.tsv.gz: the table has no barcode"
    ):
        find_source(cells.settings(tmp_path / "corpus", fragments=files, barcodes=table))
    twins = [tmp_path / "s1/one.tsv.gz", tmp_path / "s2/one.tsv.gz"]
    table.write_text("barcode\tcell_type\tfile\na\tB\tone.tsv.gz\n")
    with pytest.raises(UserError, match=r"'one.tsv.gz' is the name of several of the files given"):
        find_source(cells.settings(tmp_path / "corpus", fragments=twins, barcodes=table))
    table.write_text("barcode\tcell_type\tfile\na\tB\ts1/one.tsv.gz\na\tT\ts2/one.tsv.gz\n")
    told = find_source(cells.settings(tmp_path / "corpus", fragments=twins, barcodes=table))
    assert isinstance(told, FragmentFiles)
    assert told.barcodes == {"s1/one.tsv.gz": (twins[0], {"a": "B"}), "s2/one.tsv.gz": (twins[1], {"a": "T"})}
    with pytest.raises(UserError, match=r"the file is given more than once"):
        find_source(cells.settings(tmp_path / "corpus", fragments=[twins[0], twins[0]], barcodes=table))
    table.write_text("barcode\tcell_type\na\tB\n")
    with pytest.raises(UserError, match="it has no column file, and there are 2 fragments files"):
        find_source(cells.settings(tmp_path / "corpus", fragments=files, barcodes=table))


def test_no_cell_type_is_large_enough(cells: Cells, tmp_path: Path) -> None:
    folder = cells.world.folder
    with pytest.raises(UserError, match=r"no cell type is large enough \(B: "):
        build(
            cells,
            tmp_path / "corpus",
            fragments=[folder / "one.tsv.gz", folder / "two.tsv.gz"],
            barcodes=folder / "cells.tsv",
            min_cells=100,
        )


# Fragments without peaks ------------------------------------------------------------------------------------

SITES = {"B": (3000, 9000), "NK": (9050, 15_000), "T": (6000,), "rare": (12_000,)}
"""Where fragments crowd, on each chromosome."""


def crowded(seed: int = 0, sites: int = 30, shift: int = 0) -> pd.DataFrame:
    """Fragments of cell types on all chromosomes: `sites` at each site, moved by `shift`, and 40 anywhere."""
    rng = np.random.default_rng(seed)
    rows = []
    for cell_type, places in SITES.items():
        for chrom in toys.CHROMOSOMES:
            middles = [place + shift + rng.normal(0, 15, sites) for place in places]
            for middle in np.concatenate([*middles, rng.uniform(200, 19_800, 40)]).astype(int):
                half = int(rng.integers(15, 50))
                cell = f"{cell_type}-{rng.integers(CELLS[cell_type])}"
                rows.append((chrom, middle - half, middle + half, cell, cell_type))
    return pd.DataFrame(rows, columns=["chrom", "start", "end", "cell", "cell_type"])


def write_fragments(world: World, fragments: pd.DataFrame) -> dict[str, Any]:
    """Write fragments and the table of their cells; return the settings that name them."""
    path, table = world.folder / "fragments.tsv.gz", world.folder / "cells.tsv"
    fragments[["chrom", "start", "end", "cell"]].to_csv(path, sep="\t", header=False, index=False)
    named = fragments[["cell", "cell_type"]].drop_duplicates().rename(columns={"cell": "barcode"})
    named.to_csv(table, sep="\t", index=False)
    rules = {"min_cells": 2, "min_fragments": 10, "test_cell_types": ["T"]}
    return {"peaks": [], "fragments": [path], "barcodes": table, **rules}


def candidates(world: World, fragments: pd.DataFrame, scratch: Path) -> dict[str, Arrays]:
    source = find_source(world.settings(scratch, **write_fragments(world, fragments)))
    found = source.candidates(Work(scratch, ThisProcess()), dict(toys.CHROMOSOMES), False)
    return dict(zip(source.peak_sets, found, strict=True))


def peaks_on(found: Arrays, chrom: int) -> list[list[float]]:
    rows = found["chrom"] == chrom
    return [np.asarray(found[name][rows]).tolist() for name in signal.PEAK_COLUMNS]


def test_sites_become_candidates_of_their_cell_type(world: World, tmp_path: Path) -> None:
    found = candidates(world, crowded(), tmp_path / "scratch")
    assert list(found) == sorted(SITES)
    for name in ("B", "NK", "T"):
        for chrom in range(3):
            start, end, summit, score, insertions = peaks_on(found[name], chrom)
            assert np.allclose(summit, SITES[name], atol=WIDTH / 8)
            assert set(np.subtract(end, start)) == {WIDTH}
            assert min(score) > 5 and min(insertions) >= 50
    assert len(found["rare"]["start"]) == 0  # it has one cell


def test_a_corpus_from_fragments_alone(world: World, tmp_path: Path) -> None:
    corpus = Corpus.open(prepare(world.settings(tmp_path / "corpus", **write_fragments(world, crowded()))))
    assert (corpus.signal, corpus.cell_types) == ("fragments", ["B", "NK", "T"])
    middles = corpus.regions["start"] + WIDTH // 2
    for i, name in enumerate(corpus.cell_types):
        mine = corpus.regions.index.isin(corpus.accessible(i))
        assert all(abs(middles[mine] - site).min() < WIDTH / 2 for site in SITES[name])
    training = corpus.regions[corpus.split == 0]
    assert len(training) == 3  # the sites at 9000 and 9050 are one region, and that of T alone is not for training
    metrics = corpus.manifest.metrics
    assert metrics["peaks_per_set"] == {"B": 6, "NK": 6, "T": 3, "rare": 0}
    assert set(corpus.manifest.inputs) == {
        "genome",
        "motifs",
        "barcodes",
        *(n for n in corpus.manifest.inputs if "frag" in n),
    }


def test_given_peaks_win(world: World, tmp_path: Path) -> None:
    settings = write_fragments(world, crowded()) | {"peaks": [world.peaks]}
    corpus = Corpus.open(prepare(world.settings(tmp_path / "corpus", **settings)))
    assert list(corpus.manifest.metrics["peaks_per_set"]) == ["B", "NK", "T"]
    assert {"peaks of B", "peaks of NK", "peaks of T"} < set(corpus.manifest.inputs)


def test_neither_the_order_of_fragments_nor_their_files_matter(world: World, tmp_path: Path) -> None:
    fragments = crowded()
    one = candidates(world, fragments, tmp_path / "one")
    other = candidates(world, fragments.sample(frac=1, random_state=1), tmp_path / "other")
    halves = [world.folder / "a.tsv.gz", world.folder / "b.tsv.gz"]
    tables = []
    for path, part in zip(halves, (fragments[::2], fragments[1::2]), strict=True):
        settings = write_fragments(world, part)
        settings["fragments"][0].rename(path)
        tables.append(pd.read_csv(settings["barcodes"], sep="\t").assign(file=path.name))
    pd.concat(tables).to_csv(settings["barcodes"], sep="\t", index=False)
    source = find_source(world.settings(tmp_path / "corpus", **settings | {"fragments": halves}))
    split = list(source.candidates(Work(tmp_path / "split", ThisProcess()), dict(toys.CHROMOSOMES), False))
    for i, name in enumerate(one):
        for key, array in one[name].items():
            assert np.array_equal(array, other[name][key])
            if name != "rare":  # its one cell is two, if it is in two files
                assert np.array_equal(array, split[i][key])


@pytest.mark.parametrize("held_out", ["chromosomes", "cell types"])
def test_what_is_held_out_has_no_say_in_training_candidates(world: World, tmp_path: Path, held_out: str) -> None:
    before, after = crowded(), crowded(seed=1, sites=300, shift=1000)
    training = [
        part["chrom"] == "chr1" if held_out == "chromosomes" else part["cell_type"] != "T" for part in (before, after)
    ]
    changed = pd.concat([before[training[0]], after[~training[1]]])
    found = [candidates(world, part, tmp_path / str(len(part))) for part in (before, changed)]
    for name in ("B", "NK") if held_out == "cell types" else SITES:
        assert peaks_on(found[0][name], 0) == peaks_on(found[1][name], 0)
    assert peaks_on(found[0]["T"], 1) != peaks_on(found[1]["T"], 1)


def test_a_resumed_run_does_not_count_again(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = candidates(world, crowded(), tmp_path / "scratch")
    for place in (tmp_path / "scratch").glob("peaks-0000[12]"):
        place.rename(tmp_path / place.name)
    monkeypatch.setattr(signal, "count_fragments", None)
    again = candidates(world, crowded(), tmp_path / "scratch")
    assert all(peaks_on(again[name], 0) == peaks_on(first[name], 0) for name in ("B", "rare"))
    assert np.array_equal(again["NK"]["score"], np.load(tmp_path / "peaks-00001" / "score.npy"))


def test_windows_of_one_summit_or_close_by_leave_the_best() -> None:
    """Regions of 128 bp around 500 and 560 overlap; those around 560 and 700 do not."""
    start = np.array([400, 432, 464, 520, 660])
    summit, score = np.array([500, 500, 500, 560, 700]), np.array([6.0, 9.0, 9.0, 8.0, 7.0])
    found = signal._best(signal.Enriched(start, summit, score, np.arange(5)), WIDTH)
    assert found.start.tolist() == [432, 660]
    assert (found.summit.tolist(), found.score.tolist(), found.insertions.tolist()) == ([500, 700], [9, 7], [1, 4])


def test_fragments_that_crowd_nowhere(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"in no cell type is any window richer(.|\n)*give --peaks"):
        candidates(world, crowded(sites=0), tmp_path / "scratch")
    few = world.settings(tmp_path / "c", **write_fragments(world, crowded()) | {"min_cells": 100})
    with pytest.raises(UserError, match="no cell type is large enough"):
        prepare(few)


def test_the_doctor_looks_at_fragments_without_peaks(world: World) -> None:
    settings = write_fragments(world, crowded())
    looked = examine(world.settings(world.folder / "corpus", **settings))
    found = {(finding.subject, finding.check): finding.found for finding in looked}
    assert found["peaks: B", "number"].startswith("6 windows")
    assert float(found["cell types: B", "fraction in peaks"]) == pytest.approx(0.6, abs=0.02)
    settings["fragments"][0].write_bytes(settings["fragments"][0].read_bytes()[:-50])
    looked = examine(world.settings(world.folder / "corpus", **settings))
    assert ("peaks", "use", "wrong") in {(finding.subject, finding.check, finding.verdict) for finding in looked}
