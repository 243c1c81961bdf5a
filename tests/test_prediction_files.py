import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyBigWig
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from toys import World

from genebert import predict as predict_module
from genebert.errors import UserError
from genebert.predict import predict
from genebert.prediction_files import FILES, ON_GENOME, BigWigFile, mean_over
from genebert.settings import PredictionFormat, PredictSettings
from genebert.stage import read_manifest
from genebert.target import Target, Threshold

LENGTHS = {"chr2": 500, "chr1": 1000, "chrEmpty": 50}
TWO = Target("classes", ("no", "yes"))
THREE = Target("classes", ("a", "b", "c"))
LABELS = Target("labels", ("K562", "A549"))
NUMBER = Target("value", ("value",), 5.0, 2.0)
TARGETS = [TWO, THREE, LABELS, NUMBER]
FORMATS: list[PredictionFormat] = list(get_args(PredictionFormat))


def windows(rows: int = 12, cell_types: tuple[str, ...] = (), beyond: bool = False, **columns: Any) -> pd.DataFrame:
    """Windows of 100 bp that overlap, on two chromosomes in no order, once per cell type; some beyond the ends."""
    generator = np.random.default_rng(0)
    start = generator.integers(0, 400, rows)
    if beyond:
        start[:4] = -30, -60, 430, 960
    table = pd.DataFrame({"chrom": np.where(np.arange(rows) % 2, "chr1", "chr2"), "start": start, "end": start + 100})
    if cell_types:
        table = table.loc[np.repeat(np.arange(rows), len(cell_types))].reset_index(drop=True)
        table["cell_type"] = list(cell_types) * rows
    return table.assign(**columns)


def predictions(target: Target, rows: int) -> NDArray[np.float64]:
    found = np.random.default_rng(1).random((rows, len(target.names)))
    return found / found.sum(axis=1, keepdims=True) if target.kind == "classes" else found


def write(
    kind: PredictionFormat,
    folder: Path,
    target: Target,
    table: pd.DataFrame,
    predicted: NDArray[np.float64],
    chunk: int = 5,
    lengths: Mapping[str, int] = LENGTHS,
) -> list[Path]:
    file = FILES[kind](folder, target, lengths)
    for start in range(0, len(table), chunk):
        rows = slice(start, start + chunk)
        file.write(table[rows].reset_index(drop=True), predicted[rows])
    return file.close()


def titles(target: Target) -> list[str]:
    return ["predicted"] if target.kind == "value" else [f"p({name})" for name in target.names]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_tsv_and_parquet_hold_the_windows_and_all_predictions(target: Target, tmp_path: Path) -> None:
    table = windows(cell_types=("B", "T"), label="x")
    predicted = predictions(target, len(table))
    (tsv,), (parquet,) = (write(kind, tmp_path, target, table, predicted) for kind in ("tsv", "parquet"))
    assert (tsv.name, parquet.name) == ("predictions.tsv", "predictions.parquet")
    text, exact = pd.read_csv(tsv, sep="\t"), pd.read_parquet(parquet)
    expected = pd.concat([table, pd.DataFrame(predicted, columns=titles(target))], axis=1)
    if target.kind == "classes":
        expected["predicted"] = np.array(target.names)[predicted.argmax(axis=1)]
    pd.testing.assert_frame_equal(exact, expected)
    pd.testing.assert_frame_equal(text, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("target", "threshold", "expected"),
    [(TWO, 0.4, ["no", "yes"]), (TWO, 0.2, ["yes", "yes"]), (THREE, (0.6, 0.3, 0.1), ["b", "c"])],
    ids=str,
)
@pytest.mark.parametrize("kind", ["tsv", "parquet"])
def test_the_class_that_the_threshold_decides_for_is_written(
    kind: PredictionFormat, target: Target, threshold: Threshold, expected: list[str], tmp_path: Path
) -> None:
    """Nothing said which class a predictor decides for, which is not the likeliest one where classes were weighed."""
    rows = {TWO: [[0.7, 0.3], [0.6, 0.4]], THREE: [[0.5, 0.4, 0.1], [0.5, 0.2, 0.3]]}[target]
    with FILES[kind](tmp_path, target, LENGTHS, threshold) as file:
        file.write(windows(2), np.array(rows))
        (path,) = file.close()
    table = pd.read_parquet(path) if kind == "parquet" else pd.read_csv(path, sep="\t")
    assert list(table["predicted"]) == expected


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
@pytest.mark.parametrize("cell_types", [(), ("B", "T")])
def test_bed_holds_a_line_per_window_and_track(target: Target, cell_types: tuple[str, ...], tmp_path: Path) -> None:
    table = windows(cell_types=cell_types, strand="-")
    predicted = predictions(target, len(table))
    (path,) = write("bed", tmp_path, target, table, predicted)
    names = ["chrom", "start", "end", "name", "score", "strand", "value", "of"]
    bed = pd.read_csv(path, sep="\t", names=names)
    tracks = [1] if target is TWO else range(len(target.names))
    assert len(bed) == len(table) * len(tracks)
    for track in tracks:
        rows = bed[bed["name"].str.endswith(target.names[track])].reset_index(drop=True)
        pd.testing.assert_frame_equal(
            rows[["chrom", "start", "end", "strand"]], table[["chrom", "start", "end", "strand"]]
        )
        np.testing.assert_allclose(rows["value"], predicted[:, track], rtol=1e-5)
        scores = 0 * predicted[:, track] if target is NUMBER else np.rint(1000 * predicted[:, track])
        assert (rows["score"] == scores).all()
        if cell_types:
            assert rows["name"].tolist() == [f"{name}: {target.names[track]}" for name in table["cell_type"]]
    assert (bed["of"] == bed["name"]).all()
    (path,) = write("bed", tmp_path, target, table.drop(columns="strand"), predicted)
    assert set(pd.read_csv(path, sep="\t", names=names)["strand"]) == {"."}


def test_windows_keep_their_names_in_bed_where_they_have_one(tmp_path: Path) -> None:
    """Names were once replaced by the class, and nothing told which window of the input a line was."""
    table = windows(rows=2, cell_types=("B", "T"), name=["peak 1", "peak 1", ".", ""])
    (path,) = write("bed", tmp_path, TWO, table, predictions(TWO, 4))
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert [(row[3], row[7]) for row in rows] == [
        ("peak 1", "B: yes"),
        ("peak 1", "T: yes"),
        ("B: yes", "B: yes"),
        ("T: yes", "T: yes"),
    ]


def test_names_are_written_to_bed_as_they_are_but_for_tabs(tmp_path: Path) -> None:
    """Quotation marks were once doubled, which BED has no rule for."""
    table = windows(rows=2, cell_types=('a "B"', "T\tx"), name=['5"x', '"y"', "z\tz", ","])
    (path,) = write("bed", tmp_path, TWO, table, predictions(TWO, 4))
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert [row[3] for row in rows] == ['5"x', '"y"', "z z", ","]
    assert [row[7] for row in rows] == ['a "B": yes', "T x: yes"] * 2


def mean_by_base(table: pd.DataFrame, value: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The mean of the windows that cover each base of a chromosome; NaN where none does."""
    found = {}
    for chrom, length in LENGTHS.items():
        covering: list[list[float]] = [[] for _ in range(length)]
        for row, one in zip(table.itertuples(), value, strict=True):
            if row.chrom == chrom:
                for base in range(max(row.start, 0), min(row.end, length)):
                    covering[base].append(one)
        found[chrom] = np.array([np.mean(one) if one else np.nan for one in covering])
    return found


def tracks_of(paths: list[Path]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """File name -> chromosome -> value of each base."""
    found = {}
    for path in paths:
        with pyBigWig.open(str(path)) as file:
            assert file.chroms() == LENGTHS
            found[path.name] = {chrom: np.array(file.values(chrom, 0, length)) for chrom, length in LENGTHS.items()}
    return found


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
@pytest.mark.parametrize("cell_types", [(), ("B", "CD4+ T")])
def test_bigwig_holds_the_mean_of_the_windows_over_each_base(
    target: Target, cell_types: tuple[str, ...], tmp_path: Path
) -> None:
    table = windows(cell_types=cell_types, beyond=True)
    predicted = predictions(target, len(table))
    found = tracks_of(write("bigwig", tmp_path, target, table, predicted))
    tracks = (
        {"": 1} if target is TWO else {"": 0} if target is NUMBER else {f".{n}": i for i, n in enumerate(target.names)}
    )
    expected = {}
    for name, track in tracks.items():
        for cell_type in cell_types or ("",):
            rows = table["cell_type"] == cell_type if cell_types else np.ones(len(table), dtype=bool)
            safe = {"": "", "B": ".B", "CD4+ T": ".CD4__T"}[cell_type]
            expected[f"predictions{name}{safe}.bw"] = mean_by_base(table[rows], predicted[rows, track])
    assert found.keys() == expected.keys()
    for file, chroms in expected.items():
        for chrom, values in chroms.items():
            np.testing.assert_allclose(found[file][chrom], values, rtol=1e-5)


def test_intervals_of_bed_do_not_leave_their_chromosomes(tmp_path: Path) -> None:
    table = pd.DataFrame({"chrom": ["chr1", "chr2"], "start": [-20, 450], "end": [80, 550]})
    (path,) = write("bed", tmp_path, NUMBER, table, predictions(NUMBER, 2))
    rows = [line.split("\t")[:3] for line in path.read_text().splitlines()]
    assert rows == [["chr1", "0", "80"], ["chr2", "450", "500"]]


@given(
    places=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15), st.integers(-8, 8)), min_size=1, max_size=12),
)
def test_the_mean_over_intervals_is_that_of_a_loop_over_bases(places: list[tuple[int, int, int]]) -> None:
    start, width, value = np.array(places).T
    starts, ends, means = mean_over(start, start + width, value.astype(float))
    assert (starts < ends).all() and (ends[:-1] <= starts[1:]).all()
    found = {base: mean for s, e, mean in zip(starts, ends, means, strict=True) for base in range(s, e)}
    covering: dict[int, list[int]] = {}
    for s, w, v in places:
        for base in range(s, s + w):
            covering.setdefault(base, []).append(v)
    assert found == pytest.approx({base: np.mean(values) for base, values in covering.items()})


def test_few_bytes_are_kept_of_each_row(tmp_path: Path) -> None:
    """Of 1,000 rows in as many cell types, which each have a file."""
    table = windows(1000).assign(cell_type=[f"T{i}" for i in range(1000)])
    predicted = predictions(NUMBER, len(table))
    with BigWigFile(tmp_path, NUMBER, LENGTHS, None) as file:
        file.write(table, predicted)
        tracemalloc.start()
        for _ in range(5):
            file.write(table, predicted)
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        file.release()
    assert kept < 5 * len(table) * 60


def test_names_that_would_share_a_file_are_refused(tmp_path: Path) -> None:
    table = windows(cell_types=("CD4+", "CD4-", "CD4*"))
    with pytest.raises(UserError) as error:
        BigWigFile(tmp_path, NUMBER, LENGTHS, None).write(table, predictions(NUMBER, len(table)))  # not at the end
    message = str(error.value)
    assert "--format bigwig" in message and "predictions.CD4_.bw" in message and "tsv or parquet" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_it_does_not_matter_in_how_many_chunks_windows_come(
    kind: PredictionFormat, target: Target, tmp_path: Path
) -> None:
    table = windows(rows=20, cell_types=("B", "T"))
    predicted = predictions(target, len(table))
    contents = []
    for chunk in (40, 7, 1):
        folder = tmp_path / str(chunk)
        folder.mkdir()
        paths = write(kind, folder, target, table, predicted, chunk)
        if kind == "parquet":
            contents.append(pd.read_parquet(paths[0]).to_csv())
        elif kind == "bed":
            contents.append(sorted(paths[0].read_text().splitlines()))
        else:
            contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1] == contents[2]


def test_columns_of_another_prediction_are_replaced(tmp_path: Path) -> None:
    target = next(target for target in TARGETS if target.kind == "classes")
    table, predicted = windows(), predictions(target, 12)
    (fresh,) = write("tsv", tmp_path, target, table, predicted)
    expected = fresh.read_text()
    (again,) = write("tsv", tmp_path, target, pd.read_csv(fresh, sep="\t").assign(predicted="x"), predicted)
    assert again.read_text() == expected


# The stage --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Windows of several widths, some at the ends of a chromosome."""
    path = tmp_path_factory.mktemp("bed") / "windows.bed"
    starts = [0, 900, 950, 5000, 5060, 19_990]
    path.write_text("".join(f"chr3\t{start}\t{start + 10}\n" for start in starts))
    return path


@pytest.fixture
def run(toy_world: World, toy_folder: Path, toy_predictor: Path, bed: Path, tmp_path: Path) -> Any:
    def predicted(out: str, **changes: Any) -> Path:
        settings = {"windows": bed, "model": toy_predictor, "genome": toy_world.genome, "corpus": toy_folder}
        return predict(PredictSettings(**(settings | {"out": tmp_path / out, "device": "cpu"} | changes)))

    return predicted


def test_every_format_holds_the_same_predictions(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made in one chunk for TSV and in many for the others."""
    text = {"predicted": str}  # a class, whose name may look like a number
    table = pd.read_csv(run("tsv") / "predictions.tsv", sep="\t", dtype=text)
    assert len(table) == 6 * 3 and (table["end"] - table["start"] == 128).all()
    assert table["start"].min() < 0 and table["end"].max() > 20_000  # they are widened around their centres
    monkeypatch.setattr(predict_module, "CHUNK", 4)
    exact = pd.read_parquet(run("parquet", format="parquet") / "predictions.parquet")
    pd.testing.assert_frame_equal(table, exact, check_dtype=False, rtol=1e-4)  # p of 1 reads as a whole number
    chunked = pd.read_csv(run("chunks") / "predictions.tsv", sep="\t", dtype=text)
    pd.testing.assert_frame_equal(chunked, table, rtol=1e-4)
    bed = pd.read_csv(run("bed", format="bed") / "predictions.bed", sep="\t", header=None)
    assert sorted(zip(bed[3], bed[6].round(5), strict=True)) == sorted(
        zip(table["cell_type"] + ": 1", table["p(1)"].round(5), strict=True)
    )
    assert (bed[1].min(), bed[2].max()) == (0, 20_000)
    out = run("bigwig", format="bigwig")
    names = read_manifest(out, "predict").metrics["files"]
    assert names == [f"predictions.{cell_type}.bw" for cell_type in ("B", "NK", "T")]
    for cell_type, name in zip(("B", "NK", "T"), names, strict=True):
        rows = table[table["cell_type"] == cell_type]
        with pyBigWig.open(str(out / name)) as file:
            assert file.chroms("chr3") == 20_000
            for base in (0, 5000, 5060, 19_999):
                over = rows[(rows["start"] <= base) & (base < rows["end"])]["p(1)"]
                assert file.values("chr3", base, base + 1) == pytest.approx([over.mean()], rel=1e-4)


@pytest.mark.parametrize("header", ["", "chrom\tstart\tend\tname\tscore\tstrand\n"])
def test_every_row_comes_out_in_order_with_its_name_and_strand(
    header: str, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that say the same were once left out, so that outputs did not fit their inputs line by line."""
    rows = [(5000, "b", "+"), (900, "a", "-"), (5000, "b", "+"), (5000, "c", "+"), (900, "a", "-")]
    path = tmp_path / "named"
    path.write_text(header + "".join(f"chr3\t{at}\t{at + 128}\t{name}\t0\t{strand}\n" for at, name, strand in rows))
    monkeypatch.setattr(predict_module, "CHUNK", 2)
    for kind, read in (("tsv", lambda file: pd.read_csv(file, sep="\t")), ("parquet", pd.read_parquet)):
        table = read(run(kind, windows=path, cell_types=["B"], format=kind) / f"predictions.{kind}")
        assert list(table[["start", "name", "strand"]].itertuples(index=False, name=None)) == rows
    bed = (run("bed", windows=path, cell_types=["B"], format="bed") / "predictions.bed").read_text().splitlines()
    assert [line.split("\t")[3] for line in bed] == ["b", "a", "b", "c", "a"]


def test_cell_types_are_predicted_each_by_itself(run: Any, bed: Path) -> None:
    every = pd.read_csv(run("every") / "predictions.tsv", sep="\t")
    for names in (["T"], ["T", "B"]):
        some = pd.read_csv(run("-".join(names), cell_types=names) / "predictions.tsv", sep="\t")
        assert some["cell_type"].tolist() == names * 6
        keys = ["start", "cell_type"]
        merged = some.merge(every, on=keys, suffixes=("", " of all"))
        np.testing.assert_allclose(merged["p(1)"], merged["p(1) of all"], rtol=1e-4)
    with pytest.raises(UserError, match="no cell type 'Treg'"):
        run("unknown", cell_types=["Treg"])


@pytest.mark.parametrize("kind", sorted(ON_GENOME))
def test_formats_that_need_coordinates_are_refused_for_sequences(
    kind: str, run: Any, sequence_predictor: Path, tmp_path: Path
) -> None:
    for header, row in (("sequence", "ACGTA" * 12), ("sequence\tchrom", "ACGTA" * 12 + "\tchr3")):
        path = tmp_path / "given.tsv"
        path.write_text(f"{header}\n{row}\n")
        with pytest.raises(UserError) as error:
            run("out", windows=path, model=sequence_predictor, format=kind, genome=None, corpus=None)
        message = str(error.value)
        assert f"{kind} needs coordinates" in message and str(path) in message and "Use tsv or parquet" in message
        assert not (tmp_path / "out").exists()


def test_cell_types_that_are_of_no_use_are_refused(
    run: Any, toy_world: World, sequence_predictor: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"--cell-types.*the model knows no cell types"):
        run("out", model=sequence_predictor, cell_types=["B"])
    path = tmp_path / "given.tsv"
    path.write_text("chrom\tstart\tend\tcell_type\nchr3\t100\t228\tB\n")
    with pytest.raises(UserError, match=r"--cell-types.*given.tsv name theirs"):
        run("out", windows=path, cell_types=["B"])
    table = pd.read_csv(run("named", windows=path) / "predictions.tsv", sep="\t")
    assert table["cell_type"].tolist() == ["B"]
