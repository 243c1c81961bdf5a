from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import toys
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import nn
from toy_models import small

from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.inputs.scan import Scanner
from genebert.methods import base, genebert
from genebert.methods.base import Examples
from genebert.methods.genebert import (
    LORA_RANK,
    FittedGeneBert,
    GeneBert,
    Place,
    branches_of,
    evidence_of,
    window_inputs,
)
from genebert.methods.networks import class_weights, network_truth
from genebert.model.genebert import GeneBertForPreTraining, GeneBertForSequenceClassification, save_model
from genebert.model.summary import Summary
from genebert.pretrained import write_scanner
from genebert.region_matrix import Context
from genebert.schema import decode, encode, reverse_complement
from genebert.settings import Mode
from genebert.target import Kind, Target
from genebert.window_data import WindowData

MODES = list(get_args(Mode))
TWO = Target("classes", ("no", "yes"))
FAST = {"epochs": 1, "batch_size": 80, "device": "cpu"}
Fit = Callable[..., FittedGeneBert]


@pytest.fixture(scope="session")
def pretrained(task: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `pretrain` leaves it, of a network that has seen nothing yet."""
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(3)
    scanner = task("classes").train.scanner
    model = GeneBertForPreTraining(small(motifs=len(scanner.motifs), region_decoder=True, signal_head=True))
    model.genebert.region_encoder.evidence_mean.fill_(30)
    model.genebert.region_encoder.evidence_std.fill_(20)
    save_model(model, folder)
    write_scanner(scanner, folder)
    return folder


@pytest.fixture(scope="session")
def fit(task: Callable[..., Any], pretrained: Path) -> Fit:
    """Fine-tunes the small network in one pass unless it is told otherwise; on the common task, once for all tests."""

    def fitted(toy: Any, seed: int = 0, **options: Any) -> FittedGeneBert:
        return GeneBert(**({"model": pretrained} | FAST | options)).fit(toy.train, toy.valid, toy.target, seed)

    @cache
    def common(**options: Any) -> FittedGeneBert:
        return fitted(task("classes"), **options)

    return lambda toy=None, **options: common(**options) if toy is None else fitted(toy, **options)


def other_strand(examples: Examples) -> Examples:
    return Examples(reverse_complement(examples.codes), examples.scanner, examples.truth, examples.context)


def weights_of(fitted: FittedGeneBert, part: str = "") -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in fitted.model.state_dict().items() if name.startswith(part)}


def changed(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> set[str]:
    assert first.keys() == second.keys()
    return {name for name, value in first.items() if not torch.equal(value, second[name])}


def encoders_of(folder: Path) -> dict[str, torch.Tensor]:
    """The pre-trained weights of the encoders, but for the mask token, which only pre-training needs."""
    every = GeneBertForPreTraining.from_pretrained(folder).state_dict()
    return {name: v for name, v in every.items() if name.startswith("genebert.") and "mask_token" not in name}


def linear_layers(folder: Path) -> list[str]:
    """The names of the linear layers of both encoders."""
    encoders = GeneBertForPreTraining.from_pretrained(folder).genebert
    return [name for name, layer in encoders.named_modules(prefix="genebert") if isinstance(layer, nn.Linear)]


# Learning ---------------------------------------------------------------------------------------------------

LEARNING = {"epochs": 4, "batch_size": 32, "learning_rate": 1e-2}


@pytest.mark.parametrize("changes", [{}, {"summary": False}, {"encoders": False}], ids=["both", "states", "summary"])
def test_a_planted_word_is_found(changes: dict[str, Any], task: Callable[..., Any], fit: Fit) -> None:
    toy = task("classes")
    predicted = fit(**LEARNING, **changes).predict(replace(toy.test, truth=None))
    assert predicted.dtype == np.float64 and predicted.shape == (80, 2)
    np.testing.assert_allclose(predicted.sum(axis=1), 1)
    assert roc_auc_score(toy.test.truth, predicted[:, 1]) > 0.9


def test_three_classes_are_told_apart(task: Callable[..., Any], fit: Fit) -> None:
    toy = task("classes", 3)
    predicted = fit(toy, **LEARNING).predict(toy.test)
    assert (predicted.argmax(axis=1) == toy.test.truth).mean() > 0.8


def test_labels_are_learned_where_they_are_known(task: Callable[..., Any], fit: Fit) -> None:
    toy = task("labels")
    unknown = toy.train.truth.copy()
    unknown[:7] = np.nan  # nothing is known of some rows
    toy = replace(toy, train=replace(toy.train, truth=unknown))
    predicted = fit(toy, **LEARNING).predict(toy.test)
    for truth, column in zip(toy.test.truth.T, predicted.T, strict=True):
        known = np.isfinite(truth)
        assert roc_auc_score(truth[known], column[known]) > 0.85


def test_a_number_is_predicted_in_its_unit(task: Callable[..., Any], fit: Fit) -> None:
    toy = task("value")
    fitted = fit(toy, **LEARNING)
    predicted = fitted.predict(toy.test)
    assert np.corrcoef(toy.test.truth[:, 0], predicted[:, 0])[0, 1] > 0.7
    assert abs(predicted.mean() - toy.test.truth.mean()) < 0.4
    in_other_units = replace(toy.target, centre=0.0, scale=1.0)
    outputs = FittedGeneBert(fitted.model, in_other_units).predict(toy.test)
    np.testing.assert_allclose(outputs * toy.target.scale + toy.target.centre, predicted)


def placed_word(word: str, places: tuple[int, int], toy: Any) -> Any:
    """A task that only tells where the word is: at the first place of class 0, at the second of class 1."""
    generator = np.random.default_rng(5)
    parts = []
    for part in (toy.train, toy.valid, toy.test):
        codes = generator.integers(0, 4, size=part.codes.shape, dtype=np.uint8)
        truth = generator.integers(0, 2, len(codes))
        for row, label in zip(codes, truth, strict=True):
            row[places[label] : places[label] + len(word)] = encode(word).codes
        parts.append(Examples(codes, part.scanner, truth))
    return replace(toy, train=parts[0], valid=parts[1], test=parts[2])


@pytest.mark.parametrize("changes", [{"summary": False}, {"encoders": False}], ids=["states", "summary"])
def test_positions_matter_where_windows_are_oriented(
    changes: dict[str, Any], task: Callable[..., Any], fit: Fit
) -> None:
    toy = placed_word("TGACTCAGCATG", (10, 18), task("classes"))
    oriented = fit(toy, oriented=True, **LEARNING, **changes).predict(toy.test)
    assert roc_auc_score(toy.test.truth, oriented[:, 1]) > 0.9
    if not changes.get("encoders", True):
        blind = fit(toy, **LEARNING, **changes).predict(toy.test)
        assert roc_auc_score(toy.test.truth, blind[:, 1]) < 0.75


# What is trained --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["frozen", "linear-probe"])
def test_frozen_encoders_do_not_change(mode: str, fit: Fit, pretrained: Path) -> None:
    fitted = fit(mode=mode, epochs=3, dropout=0.3)
    assert changed(weights_of(fitted, "genebert."), encoders_of(pretrained)) == set()
    before = fit(mode=mode, learning_rate=1e-12)
    moved = changed(weights_of(before), weights_of(fitted)) - {"branch_weights"}
    assert moved and all("classifier" in name for name in moved)


def test_all_is_trained_in_full(fit: Fit, pretrained: Path) -> None:
    fitted = fit()
    names = {name for name, _ in fitted.model.genebert.named_parameters(prefix="genebert")}
    still = names - changed(weights_of(fitted, "genebert."), encoders_of(pretrained))
    assert {name.split(".")[-1] for name in still} <= {"bias"}  # of keys, which attention does not see
    assert changed(weights_of(fitted, "genebert."), encoders_of(pretrained)) <= names  # no normaliser among them


def test_lora_adds_matrices_of_low_rank_to_the_linear_layers_of_the_encoders(fit: Fit, pretrained: Path) -> None:
    before, after = encoders_of(pretrained), weights_of(fit(mode="lora", epochs=3), "genebert.")
    moved = changed(before, after)
    assert moved == {f"{name}.weight" for name in linear_layers(pretrained)}
    wide = [name for name in moved if min(before[name].shape) > LORA_RANK]
    assert wide
    for name in wide:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= LORA_RANK


def test_a_linear_probe_is_linear_in_the_states(fit: Fit) -> None:
    model = fit(mode="linear-probe").model
    assert model.summary is None and len(model.classifier.layers) == 2  # normalisation and one matrix
    assert model.config.linear_head and model.config.encoders


def test_weights_from_scratch_are_random_but_for_the_normaliser(fit: Fit, pretrained: Path) -> None:
    known = encoders_of(pretrained)
    other = changed(weights_of(fit(initial="random", mode="frozen"), "genebert."), known)
    assert not any(name.endswith(("_mean", "_std")) for name in other)
    assert {f"{name}.weight" for name in linear_layers(pretrained)} <= other


def test_a_network_without_a_model_is_normalised_by_the_training_rows(task: Callable[..., Any]) -> None:
    toy = task("classes")
    fitted = GeneBert(**FAST, mode="frozen").fit(toy.train, toy.valid, toy.target, 0)
    tiles = toy.train.tiled(fitted.model.config.region_columns).reshape(-1, len(toy.train.scanner.motifs))
    encoder = fitted.model.genebert.region_encoder
    np.testing.assert_allclose(encoder.evidence_mean.numpy(), tiles.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(encoder.evidence_std.numpy(), tiles.std(axis=0, ddof=1).clip(min=1), rtol=1e-5)
    assert fitted.model.config.k == 1  # that of the preset


def test_evidence_in_a_file_gives_the_same_network(task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    toy = task("classes")
    found = []
    for most in (base.MOST_IN_MEMORY, 1000):
        monkeypatch.setattr(base, "MOST_IN_MEMORY", most)
        monkeypatch.setattr(base, "_ROWS", 64)
        train, valid = (Examples(part.codes, part.scanner, part.truth) for part in (toy.train, toy.valid))
        fitted = GeneBert(**FAST).fit(train, valid, toy.target, 0)
        assert isinstance(train.tiled(16), np.memmap) is (most == 1000)
        found.append(weights_of(fitted))
    assert changed(*found) == set()


# Choices and leaks ------------------------------------------------------------------------------------------


def test_the_summary_is_that_of_the_training_rows(task: Callable[..., Any], fit: Fit) -> None:
    toy = task("classes")
    found = fit().model.summary
    expected = Summary(fit().model.config)
    expected.fit(torch.from_numpy(toy.train.codes), torch.from_numpy(toy.train.tiled(8).max(axis=1)))
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_validation_rows_are_only_chosen_on(task: Callable[..., Any], fit: Fit) -> None:
    """In one pass there is no epoch to choose, and other validation rows change how branches are weighed at most."""
    toy = task("classes")
    others = replace(toy, valid=Examples(toy.test.codes[:50], toy.test.scanner, toy.test.truth[:50]))
    assert changed(weights_of(fit(toy)), weights_of(fit(others))) <= {"branch_weights"}


@pytest.mark.parametrize("mode", MODES)
def test_each_branch_keeps_its_best_epoch_and_training_stops_after_the_last_of_these(
    mode: str, task: Callable[..., Any], fit: Fit
) -> None:
    toy = task("classes")
    generator = np.random.default_rng(0)
    train, valid = (replace(part, truth=generator.permutation(part.truth)) for part in (toy.train, toy.valid))
    fitted = fit(replace(toy, train=train, valid=valid), mode=mode, epochs=12, patience=2, learning_rate=0.01)
    curve = fitted.curves.dropna(subset="valid_prediction")
    assert curve["step"].to_list() == [240 // 80 * (i + 1) for i in range(len(curve))]
    assert np.isfinite(curve["prediction"].iloc[-1])  # losses of the last steps, fewer than ten, were once lost
    best = []
    for branch, predicted in fitted.predict_branches(valid).items():
        losses = curve[f"valid_{branch}"].dropna().to_list()
        assert toy.target.loss(valid.truth, predicted) == pytest.approx(min(losses), rel=1e-4)
        best.append(int(np.argmin(losses)))
        assert len(losses) == best[-1] + 1 + 2  # what comes later is not computed
    assert len(curve) == max(best) + 1 + 2 < 12  # nothing can be learned of shuffled labels
    assert set(fitted.predict_branches(valid)) == ({"encoders"} if mode == "linear-probe" else {"encoders", "summary"})


def test_a_branch_that_is_left_out_is_not_computed(fit: Fit, task: Callable[..., Any], monkeypatch: Any) -> None:
    fitted, examples = fit(), task("classes").test
    whole = fitted.predict_branches(examples)
    monkeypatch.setattr(fitted.model, "sequence_states", None)
    monkeypatch.setattr(fitted.model, "region_states", None)
    rest = fitted.predict_branches(examples, without={"encoders"})
    assert rest.keys() == whole.keys() - {"encoders"}
    np.testing.assert_array_equal(rest["summary"], whole["summary"])
    monkeypatch.undo()
    monkeypatch.setattr(fitted.model, "summary_logits", None)
    np.testing.assert_array_equal(fitted.predict_branches(examples, {"summary"})["encoders"], whole["encoders"])


def test_a_branch_that_has_stopped_takes_no_part_in_training(
    fit: Fit, task: Callable[..., Any], monkeypatch: Any
) -> None:
    toy = task("classes")
    fitted, stopped = fit(), {"encoders"}
    batch = WindowData(
        **window_inputs(fitted.model.config, toy.train), truth=network_truth(toy.target, toy.train), batch_size=8
    ).batch(0)
    fitted.model.zero_grad()
    monkeypatch.setattr(fitted.model, "sequence_states", None)
    loss = GeneBert()._losses(toy.target, None, stopped)(fitted.model, batch)["prediction"]
    loss.backward()
    moved = {name for name, one in fitted.model.named_parameters() if one.grad is not None}
    assert moved and {fitted.branch_of(name) for name in moved} == {"summary"}
    fitted.model.zero_grad()


def test_branches_are_weighed_by_what_they_tell_of_the_validation_rows(task: Callable[..., Any], fit: Fit) -> None:
    """A branch that has learned nothing gets no weight, and one that has gets all, however many there are."""
    toy = task("classes")
    fitted = fit(epochs=4)
    with torch.no_grad():
        for name, parameter in fitted.model.named_parameters():
            if fitted.branch_of(name) == "encoders" and name.startswith("classifier"):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.manual_seed(0)))
    fitted.weigh_branches(toy.valid, None)
    weights = fitted.branch_weights
    assert weights["summary"] > 0.9
    assert sum(weights.values()) == pytest.approx(1)
    summary = fitted.predict_branches(toy.test)["summary"]
    assert np.abs(fitted.predict(toy.test) - summary).max() < np.abs(summary - 0.5).max()


@pytest.mark.parametrize("mode", MODES)
def test_the_same_seed_gives_the_same_bytes(mode: str, task: Callable[..., Any], fit: Fit, tmp_path: Path) -> None:
    contents = []
    for i, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(i)
        folder.mkdir()
        torch.rand(3)  # a fit does not depend on what others have drawn
        fit(task("classes"), seed=seed, mode=mode).save(folder)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    assert contents[0]["model.safetensors"] != contents[2]["model.safetensors"]


def test_classes_are_weighed_by_the_inverse_of_their_frequency() -> None:
    truth = np.array([0] * 6 + [1] * 3 + [2])
    examples = Examples(np.zeros((10, 40), dtype=np.uint8), Scanner([]), truth)
    weights = class_weights(Target("classes", ("a", "b", "c")), examples)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert weights[truth].mean().item() == pytest.approx(1)


def test_weighed_classes_are_predicted_more_often(task: Callable[..., Any], fit: Fit) -> None:
    toy = task("classes")
    rare = np.flatnonzero((toy.train.truth == 0) | (np.arange(240) % 6 == 0))
    toy = replace(toy, train=toy.train.rows(rare))
    options = {"epochs": 3, "batch_size": 32}
    plain, weighed = (fit(toy, class_weights=on, **options).predict(toy.test) for on in (False, True))
    assert weighed[:, 1].mean() > plain[:, 1].mean() + 0.05
    with pytest.raises(UserError, match="there are no classes to weigh"):
        fit(task("value"), class_weights=True)


# Prediction -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "kind"), [*((mode, "classes") for mode in MODES), ("full", "labels"), ("full", "value")]
)
def test_what_was_saved_predicts_the_same(
    mode: str, kind: Kind, task: Callable[..., Any], fit: Fit, pretrained: Path, tmp_path: Path
) -> None:
    toy = task(kind)
    fitted = fit(toy, mode=mode)
    fitted.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    before, after = (load_file(folder / "model.safetensors") for folder in (pretrained, tmp_path))
    encoders = {name for name in after if name.startswith("genebert.")}
    assert encoders == {name for name in before if name.startswith("genebert.") and "mask_token" not in name}
    assert all("lora" not in name for name in after)
    assert str(pretrained) not in (tmp_path / "config.json").read_text()
    loaded = FittedGeneBert.load(tmp_path, toy.target, "cpu")
    assert loaded.curves is None and not loaded.model.training
    np.testing.assert_allclose(loaded.predict(toy.test), fitted.predict(toy.test), atol=1e-6)


def test_a_damaged_file_is_named(fit: Fit, task: Callable[..., Any], tmp_path: Path) -> None:
    fit().save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=f"{tmp_path}: the model cannot be loaded"):
        FittedGeneBert.load(tmp_path, task("classes").target, "cpu")


@pytest.mark.parametrize(
    "changes", [{}, {"modalities": "sequence"}, {"modalities": "motifs"}, {"region_states": False}]
)
def test_both_strands_are_predicted_alike_unless_windows_are_oriented(
    changes: dict[str, Any], task: Callable[..., Any], fit: Fit
) -> None:
    """The columns of a region matrix once were the tiles of the one strand while the other was read."""
    toy = task("classes")
    for oriented in (False, True):
        fitted = fit(oriented=oriented, **changes)
        here, there = fitted.predict(toy.test), fitted.predict(other_strand(toy.test))
        assert np.allclose(here, there, atol=1e-6) is not oriented


@pytest.mark.parametrize("changes", [{}, {"oriented": True}, {"summary": False}, {"region_states": False}])
def test_predictions_are_those_of_each_strand_alone(
    changes: dict[str, Any], task: Callable[..., Any], fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary of a window without a direction is that of its other strand, and is computed once."""
    fitted, examples = fit(**changes), task("classes").test
    data = WindowData(**window_inputs(fitted.model.config, examples), batch_size=len(examples))
    strands = (False,) if changes.get("oriented") else (False, True)
    with torch.inference_mode():
        batches = [next(data.in_order(reverse=reverse)) for reverse in strands]
        alone = [fitted.model.joined(branches_of(fitted.model, one)).softmax(dim=1).numpy() for one in batches]
    calls: list[int] = []
    computed = fitted.model.summary_logits
    monkeypatch.setattr(fitted.model, "summary_logits", lambda *given: calls.append(1) or computed(*given))
    np.testing.assert_allclose(fitted.predict(examples), np.mean(alone, axis=0), atol=1e-6)
    assert len(calls) == 1


@pytest.mark.parametrize("length", [60, 61])
def test_rows_are_predicted_by_themselves(
    length: int, task: Callable[..., Any], fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = task("classes")
    generator = np.random.default_rng(1)
    wide = {
        name: Examples(
            np.concatenate([part.codes, generator.integers(0, 5, (len(part), length - 60), dtype=np.uint8)], axis=1),
            part.scanner,
            part.truth,
        )
        for name, part in vars(toy).items()
        if name != "target"
    }
    toy = replace(toy, **wide)
    toy.test.codes[::7, 5:20] = 4  # with N
    fitted = fit(toy)
    expected = fitted.predict(toy.test)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(fitted.predict(toy.test.rows(np.array([3]))), expected[[3]], atol=1e-6)
    monkeypatch.setattr(genebert, "PREDICT_BATCH", 7)
    np.testing.assert_allclose(fitted.predict(toy.test), expected, atol=1e-6)


def test_unknown_sequence_has_a_prediction(task: Callable[..., Any], fit: Fit) -> None:
    nothing = Examples(np.full((2, 60), 4, dtype=np.uint8), task("classes").test.scanner)
    assert np.isfinite(fit().predict(nothing)).all()


# Cell types -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd() -> Corpus:
    return toys.random_corpus(np.random.default_rng(0), regions=60)


def network(seed: int = 0, **changes: Any) -> FittedGeneBert:
    torch.manual_seed(seed)
    config = small(motifs=3, num_labels=2, window_length=60, **changes)
    return FittedGeneBert(GeneBertForSequenceClassification(config).eval(), TWO)


def windows_in(corpus: Corpus, rows: int = 9) -> tuple[NDArray[np.uint8], Place]:
    generator = np.random.default_rng(1)
    codes = generator.integers(0, 4, size=(rows, 60), dtype=np.uint8)
    position = corpus.line_positions(["chr1"] * rows, generator.integers(100, 7900, size=rows))
    return codes, Place(corpus, position, corpus.scanner.scan(codes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"oriented": True},
        {"summary": False},
        {"modalities": "motifs"},
        {"region_states": False},
        {"region_states": False, "cell_type": True},
        {"encoders": False, "cell_type": True, "own_accessibility": True},
    ],
)
def test_predictions_in_several_cell_types_are_those_of_one_at_a_time(changes: dict[str, Any], crowd: Corpus) -> None:
    fitted = network(**changes)
    codes, place = windows_in(crowd)
    wanted = np.array([2, 0, 3])
    found = list(fitted.predict_in_cell_types(codes, place, wanted))
    for cell_type, predicted in zip(wanted, found, strict=True):
        where = Context(crowd, np.full(len(codes), cell_type), place.position)
        expected = fitted.predict(Examples(codes, crowd.scanner, None, where, 4))
        np.testing.assert_allclose(predicted, expected, atol=1e-6)
    differ = not np.allclose(found[0], found[1])
    assert differ is (changes.get("region_states", True) or changes.get("cell_type", False))


@pytest.mark.parametrize("idle", [{"encoders"}, {"summary"}, {"cell_type"}, {"cell_type", "summary"}])
def test_a_branch_of_weight_zero_is_not_computed_for_predictions(
    idle: set[str], crowd: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = network(cell_type=True)
    weights = [float(name not in idle) / (3 - len(idle)) for name in fitted.model.branch_names]
    fitted.model.branch_weights.copy_(torch.tensor(weights))
    codes, place = windows_in(crowd)
    wanted = np.array([2, 0])
    here = place.examples(codes, 2)
    whole = [one.predictions for one in fitted.read_in_cell_types(codes, place, wanted)]
    alone = fitted.read(here).predictions
    steps = {"encoders": ["sequence_states", "region_states"], "summary": ["summary_logits"]}
    for name in idle:
        for step in steps.get(name, ["cell_type_logits"]):
            monkeypatch.setattr(fitted.model, step, None)
    np.testing.assert_array_equal(list(fitted.predict_in_cell_types(codes, place, wanted)), whole)
    np.testing.assert_array_equal(fitted.predict(here), alone)


def test_strands_are_alike_in_a_cell_type(crowd: Corpus) -> None:
    codes, place = windows_in(crowd)
    where = Context(crowd, np.arange(len(codes)) % 4, place.position)
    here = Examples(codes, crowd.scanner, None, where, 4)
    fitted = network()
    np.testing.assert_allclose(fitted.predict(other_strand(here)), fitted.predict(here), atol=1e-6)


def test_the_caller_of_a_prediction_can_still_train(crowd: Corpus) -> None:
    """Two networks that took turns once left torch without gradients for good."""
    codes, place = windows_in(crowd)

    def states() -> Iterator[bool]:
        every = [network(seed).predict_in_cell_types(codes, place, np.arange(4)) for seed in (0, 1)]
        for _ in zip(*every, strict=True):
            yield torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        yield torch.is_grad_enabled() and not torch.is_inference_mode_enabled()

    assert list(states()) == [True] * 5


def test_prediction_leaves_the_network_as_it_was(crowd: Corpus, task: Callable[..., Any], fit: Fit) -> None:
    toy = task("classes")
    fitted = fit(toy)
    fitted.model.train()
    before = weights_of(fitted)
    fitted.predict(toy.test)
    assert fitted.model.training and changed(before, weights_of(fitted)) == set()


# What cannot be read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "accepted", [{"region_states": False}, {"modalities": "sequence"}, {"encoders": False}], ids=str
)
def test_other_motifs_than_those_of_pretraining_are_refused_where_the_region_encoder_is_read(
    accepted: dict[str, Any], task: Callable[..., Any], fit: Fit, pretrained: Path
) -> None:
    toy = task("classes")
    scanner = Scanner([toys.consensus_motif(name, name, 0.9) for name in ("GATAAG", "CACGTG", "TGACTCA")])
    parts = {name: Examples(part.codes, scanner, part.truth) for name, part in vars(toy).items() if name != "target"}
    other = replace(toy, **parts)
    with pytest.raises(UserError) as error:
        fit(other)
    assert str(pretrained) in str(error.value) and "leave region_states out" in str(error.value)
    with pytest.raises(UserError, match="its motif collection"):
        fit(other, initial="random")  # the normaliser is that of other motifs
    assert fit(other, **accepted).predict(other.test).shape == (80, 2)


def of_length(length: int, toy: Any) -> Any:
    generator = np.random.default_rng(0)
    parts = {
        name: Examples(generator.integers(0, 4, (len(part), length), dtype=np.uint8), part.scanner, part.truth)
        for name, part in vars(toy).items()
        if name != "target"
    }
    return replace(toy, **parts)


def test_windows_that_do_not_fit_the_network_are_refused(task: Callable[..., Any], fit: Fit) -> None:
    toy = task("classes")
    with pytest.raises(UserError, match="the longest has 258 bp, and the model reads at most 257 bp"):
        fit(of_length(258, toy), mode="linear-probe")
    assert fit(of_length(258, toy), encoders=False).model.config.window_length == 258
    assert fit(of_length(257, toy)).model.config.window_length == 257
    with pytest.raises(UserError, match=r"windows: they have 8 bp.*more than 8 bp"):
        fit(of_length(8, toy))


@pytest.mark.parametrize(
    "changes",
    [{"encoders": False}, {"region_states": False}, {"modalities": "sequence"}],
    ids=lambda one: next(iter(one)),
)
def test_windows_are_as_long_as_tiles_where_these_are_read(
    changes: dict[str, Any], task: Callable[..., Any], fit: Fit
) -> None:
    """Windows with fewer bases than the region matrix has columns were refused by networks that do not read it."""
    toy = of_length(8, task("classes"))
    assert fit(toy, **changes).predict(toy.test).shape == (80, 2)
    with pytest.raises(UserError, match=r"they have 6 bp.*more than 6 bp"):
        fit(of_length(6, toy), **changes)


@pytest.mark.parametrize("mode", ["linear-probe", "frozen", "lora"])
def test_what_is_about_encoders_is_refused_without_them(mode: str, fit: Fit) -> None:
    """A linear probe once read the encoders that it was told to leave out."""
    with pytest.raises(UserError, match=f"mode, encoders: {mode} is about encoders, and none is read"):
        fit(encoders=False, mode=mode)


def test_motifs_without_region_states_leave_no_encoder_to_read(task: Callable[..., Any], fit: Fit) -> None:
    """The head over the encoders was built over no states at all, and failed in the first step."""
    toy, changes = task("classes"), {"modalities": "motifs", "region_states": False}
    fitted = fit(toy, **changes)
    assert fitted.model.classifier is None and fitted.predict(toy.test).shape == (80, 2)
    with pytest.raises(UserError, match="mode, encoders: frozen is about encoders"):
        fit(toy, **changes, mode="frozen")


def test_a_network_that_reads_nothing_is_refused(fit: Fit) -> None:
    with pytest.raises(UserError, match="encoders, summary: neither is read"):
        fit(encoders=False, summary=False)


def test_evidence_is_that_of_tiles_only_for_the_region_encoder(task: Callable[..., Any], crowd: Corpus) -> None:
    examples = task("classes").test
    shapes = [
        None if (found := evidence_of(small(motifs=2, **changes), examples)) is None else found.shape
        for changes in ({}, {"encoders": False}, {"region_states": False}, {"modalities": "sequence"})
    ]
    assert shapes == [(80, 8, 2), (80, 1, 2), (80, 1, 2), None]
    codes, place = windows_in(crowd)
    in_cells = Examples(codes, crowd.scanner, None, Context(crowd, np.zeros(9, dtype=np.int64), place.position), 4)
    assert evidence_of(small(motifs=3), in_cells).shape == (9, 1, 3)
    assert decode(codes[0]) and len(in_cells) == 9


def test_names_of_classes_are_in_the_configuration(task: Callable[..., Any], fit: Fit) -> None:
    assert fit(task("classes", 3)).model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert fit(task("value")).model.config.num_labels == 1
