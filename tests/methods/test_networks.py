from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from genebert.errors import UserError
from genebert.inputs.scan import Scanner
from genebert.methods import method_class, method_keys
from genebert.methods.base import Examples
from genebert.methods.deepbind import DeepBind
from genebert.methods.genebert import GeneBert
from genebert.methods.networks import (
    FittedNetwork,
    NetworkMethod,
    SequenceData,
    Size,
    class_weights,
    network_truth,
)
from genebert.objectives import prediction_loss
from genebert.schema import N, reverse_complement
from genebert.target import Kind, Target

NETWORKS = [key for key in method_keys() if issubclass(method_class(key), NetworkMethod)]
PUBLISHED = {
    "basset": [(300, 4, 19), (200, 300, 11), (200, 200, 7)],
    "danq": [(320, 4, 26)],
    "deepbind": [(16, 4, 24)],
    "deepromoter": [(32, 4, 27), (32, 4, 14), (32, 4, 7)],
    "deepsea": [(320, 4, 8), (480, 320, 8), (960, 480, 8)],
    "splice-finder": [(50, 4, 9)],
}
TARGETS = [
    Target("classes", ("a", "b", "c")),
    Target("labels", ("a", "b", "c")),
    Target("value", ("value",), centre=3.0, scale=2.0),
]
CODES = np.random.default_rng(0).integers(0, 4, size=(50, 20), dtype=np.uint8)


def build(key: str, **size: Any) -> torch.nn.Module:
    fitted = method_class(key).fitted
    assert issubclass(fitted, FittedNetwork)
    return fitted.architecture(Size(**size))


def small_deepbind(**options: Any) -> DeepBind:
    return DeepBind(**{"epochs": 3, "batch_size": 32, "device": "cpu"} | options)


@pytest.mark.parametrize("key", NETWORKS)
def test_convolutions_are_those_that_were_published(key: str) -> None:
    network = build(key, length=100, cell_types=0, outputs=1)
    assert [tuple(m.weight.shape) for m in network.modules() if isinstance(m, torch.nn.Conv1d)] == PUBLISHED[key]


@pytest.mark.parametrize("length", [1, 25, 70, 401])
@pytest.mark.parametrize("key", NETWORKS)
def test_windows_of_any_length_pass(key: str, length: int) -> None:
    network = build(key, length=length, cell_types=3, outputs=2, width=0.05).eval()
    codes, cell_type = torch.full((5, length), N, dtype=torch.uint8), torch.arange(5) % 3
    assert network(codes, cell_type).shape == (5, 2)


def test_an_n_is_no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("splice-finder", length=4, cell_types=0, outputs=1)
    seen = []
    monkeypatch.setattr(network.trunk, "forward", lambda bases: seen.append(bases) or torch.zeros(1, 200))
    network(torch.tensor([[0, 4, 3, 1]], dtype=torch.uint8), None)
    assert seen[0][0].T.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]


def random_truth(kind: Kind, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    if kind == "classes":
        return generator.integers(0, 3, size=20)
    if kind == "labels":
        return generator.choice([0.0, 1.0, np.nan], size=(20, 3))
    return generator.normal(3, 2, size=(20, 1))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_what_is_learned_is_what_is_measured(target: Target) -> None:
    generator = np.random.default_rng(0)
    truth, logits = random_truth(target.kind, generator), generator.normal(size=(20, len(target.names)))
    learned = torch.from_numpy(network_truth(target, Examples(CODES[:20], Scanner([]), truth)))
    loss = prediction_loss(target.kind, torch.from_numpy(logits), learned)
    assert loss.item() == pytest.approx(target.loss(truth, target.from_logits(logits)), rel=1e-5)


def test_unknown_labels_have_no_gradient() -> None:
    logits = torch.zeros(1, 2, requires_grad=True)
    prediction_loss("labels", logits, torch.tensor([[1.0, torch.nan]])).backward()
    assert logits.grad is not None and logits.grad.tolist() == [[-0.5, 0.0]]


def test_class_weights_by_hand() -> None:
    truth = np.array([0, 0, 0, 1])
    target = Target("classes", ("a", "b"))
    weights = class_weights(target, Examples(CODES[:4], Scanner([]), truth))
    torch.testing.assert_close(weights, torch.tensor([4 / 6, 2.0]))
    loss = prediction_loss("classes", torch.zeros(4, 2), torch.from_numpy(truth), weights)
    assert loss.item() == pytest.approx(np.log(2))


def test_only_classes_can_be_weighed(task: Callable[..., Any]) -> None:
    toy = task("value")
    with pytest.raises(UserError, match="class_weights: there are no classes to weigh"):
        small_deepbind(class_weights=True).fit(toy.train, toy.valid, toy.target, 0)


def test_weights_make_a_rare_class_likelier(task: Callable[..., Any]) -> None:
    toy = task("classes")
    rows = np.flatnonzero((toy.train.truth == 0) | (np.arange(len(toy.train)) % 8 == 0))
    rare = toy.train.rows(rows)
    noise = replace(rare, codes=np.random.default_rng(0).integers(0, 4, size=rare.codes.shape, dtype=np.uint8))
    unweighed, weighed = (
        small_deepbind(epochs=10, class_weights=weigh).fit(noise, noise, toy.target, 0).predict(toy.test)[:, 1].mean()
        for weigh in (False, True)
    )
    assert unweighed < 0.35 and weighed > unweighed + 0.1


@pytest.mark.parametrize("method", [DeepBind, GeneBert])
def test_the_epoch_is_chosen_by_the_loss_that_is_trained(method: Any, task: Callable[..., Any]) -> None:
    """With weights of classes, the epoch was once that with the lowest loss of unweighed validation rows."""
    toy = task("classes")
    train = toy.train.rows(np.flatnonzero((toy.train.truth == 0) | (np.arange(len(toy.train)) % 8 == 0)))
    weights = class_weights(toy.target, train).numpy()[toy.valid.truth]
    fitted = method(epochs=2, batch_size=32, device="cpu", class_weights=True).fit(train, toy.valid, toy.target, 0)
    for branch, predicted in fitted.predict_branches(toy.valid).items():
        chosen = np.log(predicted[np.arange(len(toy.valid)), toy.valid.truth])
        lowest = fitted.curves[f"valid_{branch}"].min()
        assert lowest == pytest.approx(-(weights * chosen).sum() / weights.sum(), rel=1e-4)
        assert abs(lowest + chosen.mean()) > 1e-3


def test_an_epoch_has_each_row_once_on_either_strand() -> None:
    truth = np.arange(50)
    data = SequenceData(Examples(CODES, Scanner([])), truth, batch_size=10, seed=3, either_strand=True)
    batches = [data.batch(step) for step in range(data.steps_per_epoch)]
    rows = np.concatenate([batch.truth for batch in batches if batch.truth is not None])
    assert sorted(rows) == list(range(50))
    codes = np.concatenate([batch.codes for batch in batches])
    forward = (codes == CODES[rows]).all(axis=1)
    assert 10 < forward.sum() < 40
    np.testing.assert_array_equal(codes[~forward], reverse_complement(CODES[rows])[~forward])


def test_oriented_windows_are_read_as_given() -> None:
    data = SequenceData(Examples(CODES, Scanner([])), np.arange(50), batch_size=10)
    batch = data.batch(7)
    np.testing.assert_array_equal(batch.codes, CODES[batch.truth])


def test_the_best_epoch_is_kept_and_training_stops_after_it(task: Callable[..., Any]) -> None:
    toy = task("classes")
    shuffled = replace(toy.valid, truth=1 - toy.valid.truth)  # the more is learned, the worse it gets
    fitted = small_deepbind(epochs=20, patience=2).fit(toy.train, shuffled, toy.target, 0)
    losses = fitted.curves["valid_prediction"].dropna().to_list()
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 20
    assert toy.target.loss(shuffled.truth, fitted.predict(shuffled)) == pytest.approx(losses[best])


def test_training_that_diverges_says_so(task: Callable[..., Any]) -> None:
    toy = task("value")
    with pytest.raises(UserError, match=r"learning.rate: with 1e\+30"):
        small_deepbind(learning_rate=1e30).fit(toy.train, toy.valid, toy.target, 0)


def test_an_epoch_without_a_loss_is_worse_than_any_other(
    task: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was no number in the first epoch once made all others unusable."""
    toy, real = task("classes"), Target.loss
    seen: list[float] = []

    def first_is_none(self: Target, *given: Any) -> float:
        seen.append(real(self, *given))
        return seen[-1] if len(seen) > 1 else float("nan")

    monkeypatch.setattr(Target, "loss", first_is_none)
    fitted = small_deepbind(epochs=4, patience=4).fit(toy.train, toy.valid, toy.target, 0)
    assert real(toy.target, toy.valid.truth, fitted.predict(toy.valid)) == pytest.approx(min(seen[1:]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize("method", [DeepBind, GeneBert])
def test_what_a_gpu_has_trained_predicts_there_as_on_the_cpu(method: Any, task: Callable[..., Any]) -> None:
    toy = task("classes")
    fitted = method(epochs=2, batch_size=32, device="cuda").fit(toy.train, toy.valid, toy.target, 0)
    network = fitted.model if method is GeneBert else fitted.network
    assert all(parameter.is_cuda for parameter in network.parameters())
    there = fitted.predict(toy.test)
    network.cpu()
    np.testing.assert_allclose(there, fitted.predict(toy.test), atol=1e-4)
