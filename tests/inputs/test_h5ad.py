import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from genebert.errors import UserError
from genebert.inputs import h5ad
from genebert.inputs.accessibility import peaks_to_regions
from genebert.inputs.h5ad import h5ad_cell_types, h5ad_counts, read_h5ad_peaks

LENGTHS = {"chr1": 10_000, "chr2": 5_000, "chr1_KI270706v1_random": 3_000}
PEAKS = [("chr2", 100, 601), ("chr1", 400, 901), ("chr1", 1000, 1501), ("chr1_KI270706v1_random", 0, 3000)]
NAMES = [f"{chrom}:{start}-{end}" for chrom, start, end in PEAKS]
TYPES = ["T", "B", "T", None, "NK", "B"]
COUNTS = np.array([[1, 0, 2, 0], [0, 4, 0, 0], [3, 0, 1, 0], [9, 9, 9, 9], [0, 0, 0, 0], [0, 1, 0, 7]])
SUMS = {"B": [0, 5, 0, 7], "NK": [0, 0, 0, 0], "T": [4, 0, 3, 0]}
"""Of COUNTS, by hand."""


def write(
    path: Path,
    counts: Any = COUNTS,
    names: Sequence[str] = NAMES,
    types: Sequence[Any] = TYPES,
    var: Mapping[str, Any] | None = None,
    obs: Mapping[str, Any] | None = None,
) -> Path:
    cells = pd.DataFrame(obs or {"cell_type": pd.Categorical(types)}, index=[f"cell{i}" for i in range(len(types))])
    data = anndata.AnnData(counts, cells, pd.DataFrame(var or {}, index=list(names)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of AnnData about what these tests write on purpose
        data.write_h5ad(path)
    return path


def coordinates(path: Path, **options: Any) -> list[tuple[str, int, int]]:
    table = read_h5ad_peaks(path, LENGTHS, **options).table
    return list(table[["chrom", "start", "end"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("pattern", ["{}:{}-{}", "{}-{}-{}", "{}_{}_{}", "{}:{}_{}"])
def test_names_as_tools_write_them(tmp_path: Path, pattern: str) -> None:
    path = write(tmp_path / "a.h5ad", names=[pattern.format(*peak) for peak in PEAKS])
    assert coordinates(path) == PEAKS


@pytest.mark.parametrize(
    "columns",
    [
        ("chrom", "start", "end"),
        ("chr", "start", "stop"),
        ("seqnames", "start", "end"),  # GRanges of ArchR and Signac
        ("Chromosome", "Start", "End"),  # pyranges, pycisTopic
        ("chrom", "chromStart", "chromEnd"),
    ],
)
@pytest.mark.parametrize("kind", [np.int32, np.float64, str])
def test_columns_as_tools_write_them(tmp_path: Path, columns: tuple[str, str, str], kind: type) -> None:
    chroms, starts, ends = (list(column) for column in zip(*PEAKS, strict=True))
    var = {
        columns[0]: pd.Categorical(chroms),
        "width": [501, 501, 501, 3000],
        columns[1]: np.array(starts).astype(kind),
        columns[2]: np.array(ends).astype(kind),
    }
    path = write(tmp_path / "a.h5ad", names=["peak0", "peak1", "chr1:3-4", "peak3"], var=var)
    assert coordinates(path) == PEAKS


def test_names_that_look_like_coordinates_and_are_none_give_way_to_columns(tmp_path: Path) -> None:
    chroms, starts, ends = (list(column) for column in zip(*PEAKS, strict=True))
    var = {"chrom": chroms, "start": starts, "end": ends}
    path = write(tmp_path / "a.h5ad", names=[f"peak_{i}_{10 * i}" for i in range(1, 5)], var=var)
    assert coordinates(path) == PEAKS


def test_the_table_of_peaks(tmp_path: Path) -> None:
    found = read_h5ad_peaks(write(tmp_path / "a.h5ad"), LENGTHS)
    assert found.table["summit"].tolist() == [350, 650, 1250, 1500]
    assert found.table["line"].tolist() == [1, 2, 3, 4]
    assert found.table["column"].tolist() == [0, 1, 2, 3]
    assert set(found.table["score"]) == {0.0}
    assert set(found.table["signal"]) == {1.0}
    assert found.table[["start", "end", "summit"]].dtypes.astype(str).tolist() == ["int64"] * 3
    assert (found.duplicates, found.skipped, found.path) == (0, {}, tmp_path / "a.h5ad")


def test_chromosomes_are_matched_and_unknown_ones_left_out_if_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5ad", names=["2:100-601", "MT:5-9", "1:1000-1501", "MT:10-20"])
    with pytest.raises(UserError, match=r"chromosomes MT cannot be matched .* --skip-unknown-chromosomes"):
        read_h5ad_peaks(path, LENGTHS)
    found = read_h5ad_peaks(path, LENGTHS, skip_unknown=True)
    assert coordinates(path, skip_unknown=True) == [PEAKS[0], PEAKS[2]]
    assert found.table["column"].tolist() == [0, 2]
    assert found.skipped == {"MT": 2}
    with pytest.raises(UserError, match=r"chromosomes MT, 2, 1 cannot be matched .* which are I. Use"):
        read_h5ad_peaks(path, {"I": 9}, skip_unknown=True)


def test_a_chromosome_in_two_spellings_is_never_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5ad", names=["chr1:100-601", "1:5-9", "2:1000-1501", "2:10-20"])
    with pytest.raises(UserError, match=r"chromosomes chr1, 1 cannot be matched without doubt [^-]*$"):
        read_h5ad_peaks(path, LENGTHS, skip_unknown=True)


@pytest.mark.parametrize("matrix", [np.array, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint8, bool])
@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_counts_in_every_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matrix: Callable[[Any], Any], kind: type, piece: int
) -> None:
    monkeypatch.setattr(h5ad, "_PIECE", piece)
    found = h5ad_counts(write(tmp_path / "a.h5ad", matrix(COUNTS.astype(kind))), "cell_type")
    expected = SUMS if kind is not bool else {"B": [0, 2, 0, 1], "NK": [0, 0, 0, 0], "T": [2, 0, 2, 0]}
    assert found.cell_types == list(expected)
    assert found.counts.toarray().tolist() == list(expected.values())
    assert found.counts.dtype == np.int64
    assert found.cells == {"B": 2, "NK": 1, "T": 2}
    assert found.fragments == {name: sum(counts) for name, counts in expected.items()}
    assert found.unassigned == 1


def test_random_counts_against_group_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h5ad, "_PIECE", 100)
    generator = np.random.default_rng(0)
    counts = generator.poisson(0.3, (200, 30))
    types = [f"type{i}" for i in generator.integers(0, 7, 200)]
    names = [f"chr1:{i}-{i + 5}" for i in range(30)]
    expected = pd.DataFrame(counts).groupby(types).sum()
    for name, matrix in {"r": sparse.csr_matrix(counts), "c": sparse.csc_matrix(counts), "d": counts}.items():
        found = h5ad_counts(write(tmp_path / f"{name}.h5ad", matrix, names, types), "cell_type")
        assert found.cell_types == expected.index.tolist()
        assert found.counts.toarray().tolist() == expected.to_numpy().tolist()


def test_counts_reach_the_regions_of_their_peaks_when_some_are_left_out(tmp_path: Path) -> None:
    """Columns of X that are looked up by their place in the filtered table would be those of other peaks."""
    path = write(tmp_path / "a.h5ad", names=["chrM:5-9", *NAMES[1:]])
    peaks, counted = read_h5ad_peaks(path, LENGTHS, skip_unknown=True).table, h5ad_counts(path, "cell_type")
    regions = pd.DataFrame({"chrom": ["chr1", "chr1"], "start": [1000, 150], "end": [1512, 662]})
    target = np.full(4, -1)
    target[peaks["column"]] = peaks_to_regions(peaks, regions)
    assert counted.moved(target, 2).counts.toarray().tolist() == [[0, 5], [0, 0], [3, 0]]


@pytest.mark.parametrize(
    "labels",
    [
        pd.Categorical(["2", "10", "2", None, "2", "10"]),
        np.array(["2", "10", " 2", "", "2", "10 "]),
        pd.array([2, 10, 2, None, 2, 10], dtype="Int64"),
        ["2", "10", "2", "NA", "2", "10"],
    ],
)
def test_labels_of_any_type(tmp_path: Path, labels: Any) -> None:
    path = write(tmp_path / "a.h5ad", obs={"leiden": labels, "depth": np.arange(6.0)})
    found = h5ad_counts(path, "leiden")
    assert (found.cells, found.unassigned) == ({"10": 2, "2": 3}, 1)
    assert h5ad_cell_types(path, "leiden") == found.cell_types


def test_layers_and_stored_fragments_are_not_read(tmp_path: Path) -> None:
    """`read_h5ad(backed="r")` loads them; SnapATAC2 keeps all fragments in obsm."""
    path = write(tmp_path / "a.h5ad")
    with h5py.File(path, "a") as file:
        file["obsm"].create_dataset("fragment_paired", data=[1]).attrs["encoding-type"] = "unheard of"
        file["layers"].create_dataset("tfidf", data=[1]).attrs["encoding-type"] = "unheard of"
    assert h5ad_counts(path, "cell_type").counts.toarray().tolist() == list(SUMS.values())


def as_of_2020(path: Path) -> None:
    """Rewrite obs as AnnData 0.7 stored it: categories apart, codes with a reference to them."""
    with h5py.File(path, "a") as file:
        obs = file["obs"]
        codes, names = obs["cell_type/codes"][:], obs["cell_type/categories"].asstr()[:].tolist()
        del obs["cell_type"]
        obs.create_group("__categories")["cell_type"] = names
        obs["cell_type"] = codes
        obs["cell_type"].attrs["categories"] = obs["__categories/cell_type"].ref
        obs.attrs["encoding-version"] = "0.1.0"
        del obs["_index"].attrs["encoding-type"], obs["_index"].attrs["encoding-version"]


@pytest.mark.filterwarnings("ignore")  # AnnData says that the format is old
def test_files_of_older_versions(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5ad", sparse.csr_matrix(COUNTS))
    as_of_2020(path)
    with h5py.File(path, "a") as file:
        attributes = file["X"].attrs
        del attributes["encoding-type"], attributes["encoding-version"], attributes["shape"]
        attributes["h5sparse_format"], attributes["h5sparse_shape"] = "csr", COUNTS.shape
    assert h5ad_counts(path, "cell_type").counts.toarray().tolist() == list(SUMS.values())


def refused(path: Path, column: str = "cell_type") -> str:
    with pytest.raises(UserError) as error:
        read_h5ad_peaks(path, LENGTHS)
        h5ad_counts(path, column)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("matrix", [np.array, sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf])
def test_normalised_counts_are_refused(tmp_path: Path, matrix: Callable[[Any], Any], value: float) -> None:
    counts = COUNTS.astype(float)
    counts[2, 1] = value
    message = refused(write(tmp_path / "a.h5ad", matrix(counts)))
    assert f"X holds {value} (in {NAMES[1]})" in message
    assert "Put raw counts into X" in message


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["chr1:5-9", "GATA1", "CD4", "chr1:1-2"], ["2 of 4 variables", "GATA1, CD4", "feature_types"]),
        (["chr1:5-9", "chr1:9-5", "chr1:7-7", "chr1:1-2"], ["var, row 2 (chr1:9-5): it is no interval", "row 3"]),
        (["chr1:5-9", "chr1:5-10001", "chr1:7-8", "chr1:1-2"], ["var, row 2", "beyond its chromosome's end"]),
        (
            ["chr1:5-9", "chr1-5-9", "chr1:7-8", "chr2:7-8"],
            ["row 2 (chr1:5-9): the same peak is there more than once", "Leave out all but one"],
        ),
        (["chr1:5-9", "1:15-19", "chr1:7-8", "chr2:7-8"], ["chromosomes chr1, 1 cannot be matched without doubt"]),
        (["chr1:5-9", "chr7:5-9", "chr8:7-8", "chr1:7-8"], ["chromosomes chr7, chr8 cannot be matched"]),
    ],
)
def test_wrong_peaks(tmp_path: Path, names: list[str], words: list[str]) -> None:
    message = refused(write(tmp_path / "a.h5ad", names=names))
    assert [word for word in words if word not in message] == []


def test_no_peaks(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "a.h5ad", counts=np.zeros((len(TYPES), 0)), names=[]))
    assert message.endswith(
        "a.h5ad: it has no peaks. Make the matrix of cells x peaks first (in SnapATAC2, snap.pp.make_peak_matrix)."
    )


def test_wrong_columns_of_coordinates(tmp_path: Path) -> None:
    var = {"chrom": ["chr1"] * 4, "start": [1.0, 2.5, np.nan, 4.0], "end": ["5", "6", "7", "x"]}
    message = refused(write(tmp_path / "a.h5ad", names=["a", "b", "c", "d"], var=var))
    for words in ("var, row 2: start is 2.5", "var, row 3: start is nan", "var, row 4: end is 'x'"):
        assert words in message


def test_wrong_cell_types(tmp_path: Path) -> None:
    obs = {"cluster": ["a"] * 6, "depth": np.arange(6.0), "none": pd.Categorical([None] * 6)}
    path = write(tmp_path / "a.h5ad", obs=obs)
    assert "obs has no column 'cell_type'; it has cluster, depth, none" in refused(path)
    assert "the column 'depth' of obs holds numbers, such as 0.0" in refused(path, "depth")
    assert "names the cell type of no cell" in refused(path, "none")
    assert "--cell-type-column" in refused(path, "none")


def broken(path: Path, change: Callable[[h5py.File], None]) -> Path:
    write(path, sparse.csr_matrix(COUNTS))
    with h5py.File(path, "a") as file:
        change(file)
    return path


def without(*names: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for name in names:
            del file[name]

    return change


def test_other_hdf5_files(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    assert "has no X" in refused(broken(path, without("X")))
    assert "snap.pp.make_peak_matrix" in refused(path)
    assert "has no X and no obs and no var" in refused(broken(path, without("X", "obs", "var")))
    assert ".mod['atac'].write_h5ad('atac.h5ad')" in refused(broken(path, lambda file: file.create_group("mod")))
    assert "its table var cannot be read" in refused(broken(path, without("var/_index")))
    shapes = broken(path, lambda file: file["X"].attrs.__setitem__("shape", (9, 4)))
    assert "X has the shape (9, 4), and obs and var have 6 and 4 rows" in refused(shapes)


def replaced(name: str, change: Callable[[Any], Any]) -> Callable[[h5py.File], None]:
    """What puts other values into the place of a dataset."""

    def edit(file: h5py.File) -> None:
        values, attributes = change(file[name][:]), dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update(attributes)

    return edit


def one(place: int, value: int) -> Callable[[Any], Any]:
    return lambda values: np.concatenate([values[:place], [value], values[place + 1 :]])


@pytest.mark.parametrize("matrix", [sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("X/indptr"), "it has no indptr"),
        (without("X/indices", "X/data"), "it has no indices and no data"),
        (replaced("X/data", lambda values: values[:-5]), "its data holds 6 values, and its indices 11"),
        (replaced("X/data", lambda values: np.array([b"a"] * len(values))), "counts are whole numbers"),
        (replaced("X/indices", lambda values: values.reshape(11, 1)), "its indices is no list"),
        (replaced("X/data", lambda values: values.reshape(11, 1)), "its data is no list of numbers"),
        (replaced("X/indices", lambda values: values + 0.5), "its indices is no list of numbers"),
        (replaced("X/indptr", lambda values: np.array([b"a"] * len(values))), "its indptr is no list of numbers"),
        (replaced("X/indices", one(0, 10**6)), "1000000, and there are"),
        (replaced("X/indices", one(5, -1)), " -1, and there are"),
        (replaced("X/indptr", lambda values: values[:-1]), "its indptr does not divide 11 values"),
        (replaced("X/indptr", one(0, 1)), "its indptr does not divide 11 values"),
        (replaced("X/indptr", lambda values: values + (values == 11)), "its indptr does not divide 11 values"),
        (replaced("X/indptr", lambda values: one(2, 11)(values).astype(np.uint64)), "its indptr does not divide"),
        (replaced("X/indptr", one(2, 11)), "its indptr does not divide 11 values"),
        (replaced("X/indptr", lambda values: values[:0]), "its indptr does not divide 11 values"),
        (lambda file: file["X"].attrs.__setitem__("encoding-type", "coo"), "its encoding 'coo' is neither"),
        (lambda file: file["X"].attrs.__setitem__("shape", 4), "it cannot be read"),
    ],
)
def test_damaged_matrices(
    tmp_path: Path,
    matrix: Callable[[Any], Any],
    change: Callable[[h5py.File], None],
    words: str,
) -> None:
    path = write(tmp_path / "a.h5ad", matrix(COUNTS))
    with h5py.File(path, "a") as file:
        change(file)
    message = refused(path)
    assert words in message
    assert "write it again" in message


@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_no_count_lands_in_another_cell_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """Column n of one cell type would be column 0 of the next."""
    monkeypatch.setattr(h5ad, "_PIECE", piece)
    path = broken(tmp_path / "a.h5ad", replaced("X/indices", one(10, 4)))
    assert "it has a count in peak 4, and there are 4, numbered from 0 on" in refused(path)


def test_unsigned_places_are_read(tmp_path: Path) -> None:
    """As tools in other languages write them."""
    path = broken(tmp_path / "a.h5ad", replaced("X/indices", lambda values: values.astype(np.uint32)))
    with h5py.File(path, "a") as file:
        replaced("X/indptr", lambda values: values.astype(np.uint64))(file)
    assert h5ad_counts(path, "cell_type").counts.toarray().tolist() == list(SUMS.values())


def test_dense_text_and_other_dimensions(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    assert "X holds |S1, and counts are whole numbers" in refused(
        broken(path, lambda file: (without("X")(file), file.__setitem__("X", np.full((6, 4), b"a")))[0])
    )
    assert "X has the shape (24,)" in refused(
        broken(path, lambda file: (without("X")(file), file.__setitem__("X", np.zeros(24)))[0])
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file["obs"].attrs.__delitem__("_index"),
        replaced("obs/cell_type/codes", one(0, 99)),
        replaced("obs/cell_type/codes", lambda values: values[:-1]),
        without("obs/cell_type/categories"),
        without("obs/_index"),
    ],
)
def test_damaged_tables(tmp_path: Path, change: Callable[[h5py.File], None]) -> None:
    path = broken(tmp_path / "a.h5ad", change)
    assert "its table obs cannot be read" in refused(path)


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"\x89HDF\r\n\x1a\n" + bytes(90)])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.h5ad"
    path.write_bytes(content)
    assert "it is no h5ad file, or is cut short" in refused(path)


def test_truncated_damaged_and_absent_files(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    anndata.read_h5ad(write(tmp_path / "plain.h5ad", sparse.csr_matrix(COUNTS))).write_h5ad(path, compression="gzip")
    content = path.read_bytes()
    with h5py.File(path) as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    path.write_bytes(content[: chunk.byte_offset] + b"x" * chunk.size + content[chunk.byte_offset + chunk.size :])
    assert "X: it cannot be read. The file is damaged" in refused(path)
    path.write_bytes(content[: len(content) // 2])
    assert "is cut short" in refused(path)
    assert "cannot be read" in refused(tmp_path / "absent.h5ad")
    assert "cannot be read" in refused(tmp_path)
