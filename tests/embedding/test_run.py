from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from toy_models import small
from toys import World

from genebert.corpus.store import Corpus
from genebert.embedding import run as running
from genebert.embedding.coordinates import LEAST_ROWS
from genebert.embedding.encoder import Encoder
from genebert.embedding.run import embed
from genebert.errors import UserError
from genebert.model.genebert import GeneBertForPreTraining, GeneBertForSequenceClassification
from genebert.predictor import Predictor
from genebert.region_matrix import region_matrix
from genebert.settings import EmbedSettings
from genebert.stage import read_manifest
from genebert.tokens import sequence_tokens


def settings(out: Path, model: Path, corpus: Path, **changes: object) -> EmbedSettings:
    return EmbedSettings(**{"out": out, "model": model, "corpus": corpus, "umap": False, "device": "cpu", **changes})


@pytest.fixture(scope="module")
def embedded(toy_model: Path, toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "PART", 10)  # several parts, the last one not full
        return embed(settings(tmp_path_factory.mktemp("embed") / "out", toy_model, toy_folder))


def test_regions_are_the_pooled_states_of_their_sequences(embedded: Path, toy_model: Path, toy: Corpus) -> None:
    found = anndata.read_h5ad(embedded / "regions.h5ad")
    network = GeneBertForPreTraining.from_pretrained(toy_model).eval().genebert
    ids, segments = map(torch.from_numpy, sequence_tokens(toy.sequence, network.config.k))
    with torch.no_grad():
        expected = network(ids, segments).sequence.numpy()
    assert np.allclose(found.X, expected, atol=1e-5)
    first = toy.regions.iloc[0]
    assert found.obs_names[0] == f"{first['chrom']}:{first['start']}-{first['end']}"
    accessible = np.bincount(toy.accessible_regions, minlength=len(toy.regions))
    assert found.obs["cell_types"].tolist() == accessible.tolist()
    assert found.obsm["X_pca"].shape == (len(toy.regions), 50)
    encoder = network.region_encoder
    z = (torch.from_numpy(np.array(toy.evidence)) - encoder.evidence_mean) / encoder.evidence_std
    assert found.obs["strongest_tf"].tolist() == [toy.motifs[i].name for i in z.argmax(dim=1)]


def test_examples_are_the_matrices_in_the_space_of_srm(embedded: Path, toy_model: Path, toy: Corpus) -> None:
    found = anndata.read_h5ad(embedded / "examples.h5ad")
    model = GeneBertForPreTraining.from_pretrained(toy_model).eval()
    region = toy.accessible_regions.astype(np.int64)
    cell_type = toy.cell_types_of(np.arange(len(region)))
    with torch.no_grad():
        pooled = model.genebert(matrix=region_matrix(toy, region, cell_type, model.config.region_columns)).region
        expected = model.matching_head.project_region(pooled).numpy()
    assert np.allclose(found.X, expected, atol=1e-5)
    assert found.obs["cell_type"].tolist() == [toy.cell_types[i] for i in cell_type]
    assert found.obs["accessibility"].tolist() == toy.accessible_values.tolist()
    names = anndata.read_h5ad(embedded / "regions.h5ad").obs_names
    assert found.obs["region"].tolist() == names[region].tolist()
    assert found.obs_names[0] == f"B|{names[region[0]]}" and found.obs_names.is_unique
    centred = found.X.astype(np.float64) - found.X.mean(axis=0, dtype=np.float64)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (left[:, :50] * scale[:50] ** 2) @ left[:, :50].T
    assert np.allclose(found.obsm["X_pca"] @ found.obsm["X_pca"].T, expected, atol=1e-3)  # row by row


def test_cell_types_are_what_the_regions_mean_does_not_explain(embedded: Path, toy: Corpus) -> None:
    """Recomputed region by region; a region of one cell type alone says nothing about it."""
    examples = anndata.read_h5ad(embedded / "examples.h5ad")
    found = anndata.read_h5ad(embedded / "cell_types.h5ad")
    states = {
        (name, region): x
        for name, region, x in zip(
            examples.obs["cell_type"], examples.obs["region"], examples.X.astype(np.float64), strict=True
        )
    }
    for i, own in enumerate(toy.cell_types):
        differences, plain = [], []
        for (name, region), state in states.items():
            if name != own:
                continue
            plain.append(state)
            all_states = [states[other, region] for other in toy.cell_types if (other, region) in states]
            if len(all_states) > 1:
                differences.append(state - np.mean(all_states, axis=0))
        assert found.obs["regions"].iloc[i] == len(differences) > 0
        assert np.allclose(found.X[i], np.mean(differences, axis=0), atol=1e-5)
        assert np.allclose(found.obsm["X_mean"][i], np.mean(plain, axis=0), atol=1e-5)
    assert found.obs_names.tolist() == toy.cell_types
    assert found.obsm["X_pca"].shape == (3, 2)


def test_a_killed_run_goes_on_and_ends_the_same(
    embedded: Path, toy_model: Path, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PART", 10)
    encode, done = Encoder.sequences, []

    def failing(self: Encoder, corpus: Corpus, region: np.ndarray) -> np.ndarray:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(region[0])
        return encode(self, corpus, region)

    monkeypatch.setattr(Encoder, "sequences", failing)
    chosen = settings(tmp_path / "out", toy_model, toy_folder)
    with pytest.raises(KeyboardInterrupt):
        embed(chosen)
    assert not (tmp_path / "out").exists()

    def counting(self: Encoder, corpus: Corpus, region: np.ndarray) -> np.ndarray:
        done.append(region[0])
        return encode(self, corpus, region)

    monkeypatch.setattr(Encoder, "sequences", counting)
    embed(chosen)
    assert len(done) == len(set(done))  # nothing was done twice
    names = sorted(path.name for path in embedded.iterdir() if path.name != "manifest.json")
    assert names == ["cell_types.h5ad", "embedding.html", "examples.h5ad", "regions.h5ad"]
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (embedded / name).read_bytes()


def test_a_predictor_gives_the_hidden_layer_of_its_head(
    toy_predictor: Path, toy_folder: Path, toy: Corpus, tmp_path: Path
) -> None:
    out = embed(settings(tmp_path / "out", toy_predictor, toy_folder, cell_types=["T", "B"]))
    found = anndata.read_h5ad(out / "examples.h5ad")
    assert found.obs["cell_type"].cat.categories.tolist() == ["T", "B"]
    model = Predictor.open(toy_predictor, "cpu").ensemble.members[0][1].model
    region = np.concatenate([toy.accessible(2), toy.accessible(0)]).astype(np.int64)
    cell_type = np.repeat([2, 0], [len(toy.accessible(2)), len(toy.accessible(0))])
    ids, segments = map(torch.from_numpy, sequence_tokens(toy.sequence[region], model.config.k))
    matrix = region_matrix(toy, region, cell_type, model.config.region_columns)
    with torch.no_grad():
        logits = model.classifier.layers[3:](torch.from_numpy(found.X))
        encoded = model.sequence_states(ids, segments), model.region_states(matrix)
        expected = model.combine(*encoded, None, None)[:, 0]
    assert torch.allclose(logits, expected, atol=1e-4)
    assert "hidden layer" in read_manifest(out).metrics["states"]


def test_a_head_that_reads_positions_is_refused() -> None:
    config = small(motifs=3, num_labels=2, window_length=60, oriented=True)
    with pytest.raises(UserError, match=r"its windows are oriented.* without --oriented"):
        Encoder.of_classifier(GeneBertForSequenceClassification(config), Path("model"))


def test_intervals_and_a_sample_choose_regions(toy_model: Path, toy_folder: Path, toy: Corpus, tmp_path: Path) -> None:
    (tmp_path / "some.bed").write_text("chr2\t0\t20000\n")
    out = embed(settings(tmp_path / "out", toy_model, toy_folder, regions=tmp_path / "some.bed", sample=5))
    found = anndata.read_h5ad(out / "regions.h5ad")
    assert found.n_obs == 5 and set(found.obs["chrom"]) == {"chr2"}
    examples = anndata.read_h5ad(out / "examples.h5ad")
    assert set(examples.obs["region"]) == set(found.obs_names)
    assert found.obs["cell_types"].sum() == examples.n_obs


def test_cell_types_without_an_embedded_region_have_no_vector(
    toy_model: Path, toy_folder: Path, toy: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They once had that of an average one."""
    open_in = np.array([np.isin(np.arange(len(toy.regions)), toy.accessible(i)) for i in range(len(toy.cell_types))])
    last = len(toy.cell_types) - 1
    some = toy.regions[~open_in[last] & open_in[:last].all(axis=0)][["chrom", "start", "end"]]
    some.to_csv(tmp_path / "some.bed", sep="\t", header=False, index=False)
    out = embed(settings(tmp_path / "out", toy_model, toy_folder, regions=tmp_path / "some.bed"))
    found = anndata.read_h5ad(out / "cell_types.h5ad")
    for values in (found.X, found.obsm["X_mean"], found.obsm["X_pca"]):
        assert np.isnan(values[last]).all() and np.isfinite(values[:last]).all()
    name = toy.cell_types[last]
    told = f"no embedded region is accessible both in {name} and in another cell type"
    assert told in " ".join(capsys.readouterr().err.split())


def test_peaks_of_another_kind_are_refused_before_the_work(
    toy_model: Path, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They once were after it, and it was lost."""
    user = anndata.AnnData(np.ones((2, 2), dtype=np.float32))
    user.var_names = ["chr1:100-200", "GAPDH"]
    user.write_h5ad(tmp_path / "user.h5ad")
    monkeypatch.setattr(running, "Encoder", None)
    with pytest.raises(UserError, match="GAPDH"):
        embed(settings(tmp_path / "out", toy_model, toy_folder, anndata=tmp_path / "user.h5ad"))


def test_umap_and_the_users_object(
    toy_model: Path, toy_folder: Path, toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "umap_module", lambda: None)
    monkeypatch.setattr(running, "umap_of", lambda components, seed: components[:, :2] + seed)
    names = [f"{row.chrom}:{row.start + 9}-{row.end}" for row in toy.regions.itertuples()][::-1]
    anndata.AnnData(np.ones((2, len(names)), dtype=np.float32)).write_h5ad(tmp_path / "bare.h5ad")
    user = anndata.read_h5ad(tmp_path / "bare.h5ad")
    user.var_names = names
    user.write_h5ad(tmp_path / "user.h5ad")
    changes = {"umap": True, "seed": 2, "anndata": tmp_path / "user.h5ad"}
    out = embed(settings(tmp_path / "out", toy_model, toy_folder, **changes))
    regions = anndata.read_h5ad(out / "regions.h5ad")
    assert np.array_equal(regions.obsm["X_umap"], regions.obsm["X_pca"][:, :2] + 2)
    joined = anndata.read_h5ad(out / "joined.h5ad")
    assert np.array_equal(joined.varm["X_genebert"], regions.X[::-1])
    assert np.array_equal(joined.varm["X_genebert_pca"], regions.obsm["X_pca"][::-1])
    assert read_manifest(out).metrics["peaks_matched"] == len(names)
    page = (out / "embedding.html").read_text()
    assert "UMAP 1" in page and page.count("<svg") == 2
    assert len(toy.cell_types) < LEAST_ROWS and "PC 1 (" in page  # UMAP of so few is their components, and called so


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell_types": ["Q"]}, "has no cell type 'Q'"),
        ({"regions": "chr1\t0\t5\n"}, "none of its intervals overlaps a region"),
        ({"cell_types": ["B"], "regions": "closed"}, "no region of the corpus is accessible"),
    ],
)
def test_what_cannot_be_embedded_is_said(
    changes: dict[str, object], message: str, toy_model: Path, toy_folder: Path, toy: Corpus, tmp_path: Path
) -> None:
    if "regions" in changes:
        closed = toy.regions.drop(index=toy.accessible(0)).iloc[0]
        text = str(changes["regions"]).replace("closed", f"{closed.chrom}\t{closed.start}\t{closed.end}\n")
        (tmp_path / "some.bed").write_text(text)
        changes = {**changes, "regions": tmp_path / "some.bed"}
    with pytest.raises(UserError, match=message):
        embed(settings(tmp_path / "out", toy_model, toy_folder, **changes))


def test_models_that_see_no_cell_types_are_refused(sequence_predictor: Path, toy_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it knows no cell types"):
        embed(settings(tmp_path / "out", sequence_predictor, toy_folder))


def test_a_network_without_srm_has_no_space_for_matrices(toy_model: Path) -> None:
    model = GeneBertForPreTraining(GeneBertForPreTraining.from_pretrained(toy_model).config)
    with pytest.raises(UserError, match="pre-trained without SRM"):
        Encoder.of_pretrained(model, toy_model)


def test_a_corpus_with_wider_regions_than_the_network_reads_is_refused(
    toy_model: Path, toy_folder: Path, world: World, tmp_path: Path
) -> None:
    from genebert.corpus.build import prepare

    wide = prepare(world.settings(tmp_path / "wide", region_width=600))
    with pytest.raises(UserError, match="a region of the corpus has 600 bp"):
        embed(settings(tmp_path / "out", toy_model, wide))
