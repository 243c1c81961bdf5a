from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import toys
from scipy import sparse

from genebert.embedding.files import dimensions, join, region_of_peaks, write_embedding
from genebert.errors import UserError


def test_a_matrix_written_in_blocks_is_read_as_any_other(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    obs = pd.DataFrame({"kind": pd.Categorical(list("aabba"))}, index=[f"r{i}" for i in range(5)])
    blocks = [(slice(3, 5), x[3:]), (slice(0, 3), x[:3])]
    write_embedding(tmp_path / "x.h5ad", obs, dimensions("state", 3), blocks, {"X_pca": x[:, :2]}, {"corpus": "c"})
    found = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert np.array_equal(found.X, x) and np.array_equal(found.obsm["X_pca"], x[:, :2])
    assert found.obs.equals(obs) and found.var_names.tolist() == ["state0", "state1", "state2"]
    assert found.uns["corpus"] == "c"
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    assert np.array_equal(backed.X[1:4], x[1:4])
    backed.file.close()


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    names = ["chr2:20-60", "chrUn:1-9", "chr1-40-90", "chr1:5000-5100"]
    counts = sparse.csr_matrix(np.arange(8, dtype=np.float32).reshape(2, 4))
    made = anndata.AnnData(
        counts, pd.DataFrame({"cell_type": ["B", "T"]}, index=["c1", "c2"]), pd.DataFrame(index=names)
    )
    made.varm["loadings"] = np.ones((4, 2))
    made.write_h5ad(tmp_path / "user.h5ad")
    return tmp_path / "user.h5ad"


def test_a_copy_of_the_users_object_gets_embeddings_of_its_peaks(user_file: Path, tmp_path: Path) -> None:
    """Peaks that lie on unknown chromosomes shift no others: rows are told by their place in var."""
    corpus = toys.corpus_of([("chr1", 0), ("chr1", 1000), ("chr2", 0)], {"B": {0: 1.0, 1: 1.0, 2: 1.0}})
    before = user_file.read_bytes()
    values = np.array([[1, 2], [3, 4]], dtype=np.float32)
    source = region_of_peaks(user_file, corpus, np.array([0, 2]))
    assert ((source >= 0).sum(), len(source)) == (2, 4)
    join(user_file, tmp_path / "out.h5ad", source, {"X_genebert": values})
    assert user_file.read_bytes() == before
    found, own = anndata.read_h5ad(tmp_path / "out.h5ad"), anndata.read_h5ad(user_file)
    assert np.array_equal(found.varm["X_genebert"], [[3, 4], [np.nan] * 2, [1, 2], [np.nan] * 2], equal_nan=True)
    assert (found.varm["loadings"] == 1).all()
    assert (found.X != own.X).nnz == 0 and found.var_names.equals(own.var_names)
    again = region_of_peaks(tmp_path / "out.h5ad", corpus, np.array([0, 2]))
    assert again.tolist() == source.tolist()
    join(tmp_path / "out.h5ad", tmp_path / "two.h5ad", again, {"X_genebert": values[::-1]})
    assert anndata.read_h5ad(tmp_path / "two.h5ad").varm["X_genebert"][0].tolist() == [1, 2]


def test_an_object_without_any_common_peak_is_refused(user_file: Path, tmp_path: Path) -> None:
    corpus = toys.corpus_of([("chr3", 0)], {"B": {0: 1.0}})
    with pytest.raises(UserError, match="none of its 3 peaks overlaps a region"):
        region_of_peaks(user_file, corpus, np.array([0]))


def test_peaks_are_found_in_objects_without_counts_of_earlier_versions_and_with_repeats(
    user_file: Path, tmp_path: Path
) -> None:
    """Of X nothing is needed, and a peak that is there twice gets its region twice."""
    corpus = toys.corpus_of([("chr1", 0), ("chr1", 1000), ("chr2", 0)], {"B": {0: 1.0, 1: 1.0, 2: 1.0}})
    expected = region_of_peaks(user_file, corpus, np.array([0, 2])).tolist()
    with h5py.File(user_file, "r+") as file:
        shape = file["X"].attrs.pop("shape")
        file["X"].attrs["h5sparse_shape"] = shape
    assert region_of_peaks(user_file, corpus, np.array([0, 2])).tolist() == expected
    names = ["chr2:20-60", "chr1-40-90", "chr2-20-60"]
    anndata.AnnData(obs=pd.DataFrame(index=["c"]), var=pd.DataFrame(index=names)).write_h5ad(tmp_path / "bare.h5ad")
    found = region_of_peaks(tmp_path / "bare.h5ad", corpus, np.array([0, 2]))
    assert found.tolist() == [1, 0, 1]


def test_peaks_beyond_a_genome_of_windows_have_no_region(user_file: Path) -> None:
    corpus = toys.corpus_of([("chr1", 0)], {"B": {0: 1.0}}, lengths={"chr1": 200, "chr2": 100})
    assert region_of_peaks(user_file, corpus, np.array([0])).tolist() == [-1, -1, 0, -1]


def test_peaks_of_regions_that_are_not_to_be_embedded_are_said_to_be(user_file: Path) -> None:
    corpus = toys.corpus_of([("chr1", 0), ("chr3", 0)], {"B": {0: 1.0, 1: 1.0}})
    with pytest.raises(UserError, match=r"to be embedded, and 1 overlap others of the corpus. Embed more of them"):
        region_of_peaks(user_file, corpus, np.array([1]))
