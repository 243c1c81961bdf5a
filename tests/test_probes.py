import numpy as np
import pytest
import torch
import toys
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from genebert import probes
from genebert.corpus.store import Corpus
from genebert.model.config import GeneBertConfig
from genebert.model.genebert import GeneBertModel
from genebert.pretraining_data import PretrainingData
from genebert.probes import Frozen, Probes, draw_pairs, fit_classifier, matrix_summary, untrained_twin
from genebert.region_matrix import region_matrix
from genebert.schema import SPLITS, Split

PARTS: tuple[tuple[Split, Split], ...] = (("test", "train"), ("test", "test"), ("train", "test"), ("valid", "train"))


def small_network(motifs: int = 3, seed: int = 0) -> GeneBertModel:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "layers": 1, "heads": 2, "region_columns": 6, "patch": (1, 1), "window": 2}
    swin = {"embed_dim": 8, "depths": (1, 1), "stage_heads": (1, 2), "projection_dim": 8}
    return GeneBertModel(GeneBertConfig(k=3, max_tokens=128, motifs=motifs, **sizes, **swin)).eval()


def examples(corpus: Corpus, split: Split, cell_types: Split = "train") -> PretrainingData:
    return PretrainingData(corpus, split, cell_types, k=3, columns=6, batch_size=16, mask_fraction=0.15, seed=0)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return toys.random_corpus(np.random.default_rng(0), regions=180, cell_types=5, test_cell_types=["cell3"])


@pytest.fixture(scope="module")
def network() -> GeneBertModel:
    return small_network()


@pytest.mark.parametrize("part", [("train", "train"), *PARTS])
@pytest.mark.parametrize(("regions", "limit"), [(1000, 10_000), (30, 50)])
def test_pairs_are_drawn_from_one_split_and_part_and_balanced(
    corpus: Corpus, part: tuple[Split, Split], regions: int, limit: int
) -> None:
    pairs = draw_pairs(examples(corpus, *part), regions, limit, seed=0)
    assert {SPLITS[i] for i in corpus.split[pairs.region]} == {part[0]}
    assert {SPLITS[i] for i in corpus.cell_type_part[pairs.cell_type]} == {part[1]}
    assert len({*zip(pairs.region.tolist(), pairs.cell_type.tolist(), strict=True)}) == len(pairs.region)
    assert len(np.unique(pairs.region)) <= regions
    assert len(pairs.region) <= limit
    open_in = [set(corpus.accessible(i).tolist()) for i in range(5)]
    wanted = [region in open_in[i] for region, i in zip(pairs.region, pairs.cell_type, strict=True)]
    assert pairs.accessible.tolist() == wanted
    for cell_type in np.unique(pairs.cell_type):
        own = pairs.cell_type == cell_type
        both = [(own & pairs.paired & (pairs.accessible == label)).sum() for label in (True, False)]
        assert both[0] == both[1] == min((own & pairs.accessible).sum(), (own & ~pairs.accessible).sum())


def test_nothing_that_is_measured_was_fitted(corpus: Corpus, network: GeneBertModel) -> None:
    training = examples(corpus, "train")
    fitted = Probes(Frozen(network, corpus), training).fitted
    assert (corpus.split[fitted.region] == 0).all() and (corpus.cell_type_part[fitted.cell_type] == 0).all()
    known = {*zip(fitted.region.tolist(), fitted.cell_type.tolist(), strict=True)}
    for part in PARTS:
        measured = draw_pairs(examples(corpus, *part), 1000, 10_000, seed=1)
        assert known.isdisjoint(zip(measured.region.tolist(), measured.cell_type.tolist(), strict=True))
        if part[0] != "train":
            assert set(fitted.region.tolist()).isdisjoint(measured.region.tolist())


def test_probes_are_measured_on_what_is_held_out_alone(
    corpus: Corpus, network: GeneBertModel, capsys: pytest.CaptureFixture[str]
) -> None:
    training = examples(corpus, "train")
    fitted = Probes(Frozen(network, corpus), training)
    assert fitted.rows(training) == []
    assert "the probes are not measured: nothing is held out" in capsys.readouterr().err
    tasks = {part: [(row["task"], row["metric"]) for row in fitted.rows(examples(corpus, *part))] for part in PARTS}
    both = [(probes.CELL_TYPE, "accuracy"), (probes.CELL_TYPE, "macro-F1"), (probes.ACCESSIBILITY, "AUROC")]
    assert tasks["test", "train"] == tasks["valid", "train"] == both
    assert tasks["test", "test"] == tasks["train", "test"] == both[2:]  # no probe knows the name of a new cell type


def test_rows_agree_with_their_confusion_and_are_the_same_each_time(corpus: Corpus, network: GeneBertModel) -> None:
    held_out = examples(corpus, "test")
    rows = Probes(Frozen(network, corpus), examples(corpus, "train")).rows(held_out)
    assert Probes(Frozen(network, corpus), examples(corpus, "train")).rows(held_out) == rows
    counts = np.array(rows[0]["confusion"]["counts"])
    assert set(rows[0]["confusion"]["classes"]) <= {"cell0", "cell1", "cell2", "cell4"}
    assert counts.sum() == rows[0]["n"]
    assert np.trace(counts) / counts.sum() == pytest.approx(rows[0]["model"]["value"])
    assert rows[0]["baselines"]["chance"]["value"] == pytest.approx(counts.sum(axis=1).max() / counts.sum())
    for row in rows:
        for value in (row["model"], *row["baselines"].values()):
            assert value["low"] <= value["value"] <= value["high"] and value["seeds"] == 1
        assert "untrained network" in row["baselines"]


def planted(gc_tells: bool) -> Corpus:
    """A corpus whose cell types differ in signal; all regions are accessible in the last one.

    In the others, those rich in G and C are, if GC content is to tell, and else some at random.
    """
    generator = np.random.default_rng(0)
    slots = [(chrom, 200 * i) for chrom in ("chr1", "chr2", "chr3") for i in range(60)]
    rich = generator.random(len(slots)) < 0.5
    letters = ["".join(generator.choice(list("GC" if gc else "AT"), size=100)) for gc in rich]
    chosen = [rich if gc_tells else generator.random(len(slots)) < 0.5 for _ in range(2)] + [np.ones_like(rich)]
    accessible = {f"c{i}": {int(r): 1.0 + 3 * i for r in np.flatnonzero(chosen[i])} for i in range(3)}
    return toys.corpus_of(slots, accessible, valid=["chr2"], test=["chr3"], sequence=letters)


def baselines_of(corpus: Corpus) -> dict[str, dict[str, float]]:
    fitted = Probes(Frozen(small_network(motifs=1), corpus), examples(corpus, "train"))
    rows = fitted.rows(examples(corpus, "test"))
    return {row["metric"]: {name: value["value"] for name, value in row["baselines"].items()} for row in rows}


def test_what_is_planted_is_found() -> None:
    found = baselines_of(planted(gc_tells=True))
    assert found["accuracy"]["matrix summary"] == found["macro-F1"]["matrix summary"] == 1
    share = found["accuracy"]["chance"]
    assert found["macro-F1"]["chance"] == pytest.approx(2 * share / (share + 1) / 3)  # the F1 of the others is 0
    assert found["AUROC"]["GC content only"] == 1


def test_what_is_not_there_is_not_found() -> None:
    """Accessibility at random: neither GC content nor the matrix, which leaves the own signal out, tells of it."""
    found = baselines_of(planted(gc_tells=False))["AUROC"]
    assert all(abs(value - 0.5) < 0.12 for value in found.values()), found


def test_vectors_are_those_of_whole_batches_and_sequences_are_encoded_once(
    corpus: Corpus, network: GeneBertModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "_BATCH", 7)
    data, frozen = examples(corpus, "train"), Frozen(network, corpus)
    some = data.examples[::3]
    region, cell_type = corpus.accessible_regions[some].astype(np.int64), corpus.cell_types_of(some)
    batch = data.collate(some, data.keys(some), corrupt=False)
    with torch.no_grad():
        expected = network(batch.input_ids, batch.segment_ids, batch.matrix)
    assert np.allclose(frozen.matrices(region, cell_type), expected.region.numpy(), atol=1e-5)
    assert np.allclose(frozen.sequences(region), expected.sequence.numpy(), atol=1e-5)
    seen: list[int] = []
    network.sequence_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    new = np.setdiff1d(np.flatnonzero(corpus.split == 0), region)[:3]
    frozen.sequences(np.concatenate([region, new, new]))
    assert seen == [3]


def test_the_untrained_twin_has_the_shape_and_the_normaliser_but_not_the_weights(network: GeneBertModel) -> None:
    network = small_network()
    network.region_encoder.evidence_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    state = torch.get_rng_state()
    twin, again, other = untrained_twin(network, 0), untrained_twin(network, 0), untrained_twin(network, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert not twin.training
    assert twin.region_encoder.evidence_mean.tolist() == [1, 2, 3]
    matrices = [name for name, weight in network.named_parameters() if weight.ndim > 1 and weight.abs().sum() > 0]
    weights = [dict(each.named_parameters()) for each in (network, twin, again, other)]
    for name in matrices:
        own, first, second, third = (each[name] for each in weights)
        assert own.shape == first.shape
        assert torch.equal(first, second)
        assert not torch.equal(first, third), name


def test_a_summary_by_hand() -> None:
    regions = [("chr1", 1000), ("chr1", 2000), ("chr1", 3000), ("chr2", 500)]
    corpus = toys.corpus_of(regions, {"a": {0: 2.0, 1: 9.0, 2: 4.0, 3: 1.0}}, motifs=[])
    region, cell_type = np.array([1, 3]), np.zeros(2, dtype=np.int64)
    found = matrix_summary(region_matrix(corpus, region, cell_type, 6))
    evidence = corpus.evidence[:, 0].astype(float)
    columns = found[0, -1]  # of the accessible region one neighbour is left out, see `Corpus.nearest_examples`
    assert columns == 3
    assert found[0] == pytest.approx([evidence[:3].mean(), 3, 2, 2.5, 3, 3.5, 4, 3])
    assert found[1] == pytest.approx([evidence[3], 0, 0, 0, 0, 0, 0, 1])  # alone on its chromosome


def test_a_classifier_is_standardised_on_its_rows_and_its_penalty_chosen_on_the_end_of_the_genome() -> None:
    generator = np.random.default_rng(0)
    region = generator.permutation(200)
    label = generator.integers(0, 2, size=200)
    features = generator.normal(size=(200, 60)) * np.geomspace(1e-3, 1e3, 60) + 5
    features[:, 0] += 2e-3 * label
    fitted = fit_classifier(features, label, region)
    assert np.allclose(fitted[0].mean_, features.mean(axis=0))
    inner = region < np.quantile(region, 0.75)
    scaler = StandardScaler().fit(features[inner])
    scores = [
        LogisticRegression(C=c, max_iter=5000, tol=probes.TOLERANCE)
        .fit(scaler.transform(features[inner]), label[inner])
        .score(scaler.transform(features[~inner]), label[~inner])
        for c in probes.PENALTIES
    ]
    assert len(set(scores)) > 1
    assert fitted[-1].get_params()["C"] == probes.PENALTIES[int(np.argmax(scores))]


@pytest.mark.parametrize("cell_types", [1, 2])
def test_too_few_rows_or_classes_are_no_mishap(cell_types: int) -> None:
    regions = [("chr1", 1000), ("chr1", 2000), ("chr3", 1000)]
    corpus = toys.corpus_of(
        regions, {f"cell{i}": dict.fromkeys(range(3), 1.0) for i in range(cell_types)}, test=["chr3"]
    )
    fitted = Probes(Frozen(small_network(motifs=1), corpus), examples(corpus, "train"))
    assert fitted.rows(examples(corpus, "test")) == []
