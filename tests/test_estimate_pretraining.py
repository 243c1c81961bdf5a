from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from genebert import estimate_pretraining as module
from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.estimate_pretraining import PretrainingEstimate, flops_per_example
from genebert.model.genebert import GeneBertForPreTraining
from genebert.objectives import pretraining_losses
from genebert.pretrain import Job, model_config, pretrain, task_weights, training_data
from genebert.settings import PretrainSettings, load_preset

ALL = {"mrm_weight": 1.0, "rc_weight": 1.0, "accessibility_weight": 1.0, "hard_negatives": True}
ROWS = 8


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("tiny", {}),
        ("tiny", ALL),
        ("tiny", ALL | {"mgm_weight": 0.0, "ngsp_weight": 0.0, "rc_weight": 0.0}),
        ("paper", {"srm_weight": 0.0}),
        ("small", {"masking": "dnabert"}),
    ],
)
def test_flops_are_those_that_torch_counts(preset: str, changes: dict[str, object], toy: Corpus) -> None:
    chosen = load_preset(preset)
    training = chosen.training.model_copy(update={"batch_size": ROWS, **changes})
    chosen = chosen.model_copy(update={"training": training})
    batch, fake = training_data(chosen, toy, "train", 0).batch(0), FakeTensorMode(allow_non_fake_inputs=True)
    with fake:  # shapes without numbers
        model = GeneBertForPreTraining(model_config(chosen, toy, "eager")).train()  # torch counts no fused kernels
    model.select(task_weights(training))
    with fake, FlopCounterMode(display=False) as counter:
        torch.stack(list(pretraining_losses(model(batch), batch).values())).sum().backward()
    assert flops_per_example(model, batch) == pytest.approx(counter.get_total_flops() / ROWS, rel=1e-3)


def test_bytes_kept_are_those_of_what_the_backward_pass_needs() -> None:
    network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    batch = torch.randn(7, 3)
    with module._saved_bytes(network) as sizes:
        network(batch).sum()
    assert sum(sizes.values()) == 4 * 7 * (3 + 5)  # the input, and the result of the ReLU, which two layers keep


ESTIMATE = PretrainingEstimate(
    parameters=2_000_000,
    trained=1_000_000,
    examples=12_800,
    batch_size=128,
    flops=2e9,
    processes=2,
    share=32,
    states={"weights": 4_000_000, "gradients": 4_000_000, "AdamW": 8_000_000},
    activations=2e6,
    measured=16,
    seconds=0.01,
    loading=0.002,
    workers=0,
)


@pytest.mark.parametrize(
    ("workers", "loading", "duration"),
    [(0, 0.002, 12_800 * 0.012 / 2), (1, 0.002, 12_800 * 0.01 / 2), (2, 0.04, 12_800 * 0.02 / 2)],
)
def test_batches_are_made_in_between_or_meanwhile(workers: int, loading: float, duration: float) -> None:
    assert replace(ESTIMATE, workers=workers, loading=loading).duration == pytest.approx(duration)


def test_the_estimate_in_words() -> None:
    words = dict(ESTIMATE.rows())
    assert words["parameters"] == "2,000,000, of which 1,000,000 are trained"
    assert words["examples, steps"] == "12,800, 100"
    assert words["FLOPs per example"] == "2.00 GFLOP, forward and backward"
    assert words["memory per device"].startswith("80.0 MB: weights 4.0 MB, gradients 4.0 MB, AdamW 8.0 MB, activations")
    assert words["speed per device"] == "100 examples/s, 200.00 GFLOP/s (measured with 16 at a time)"
    assert words["time"] == "77 s on 2 devices like this one, and the evaluation"
    assert (
        dict(replace(ESTIMATE, seconds=60.0, processes=1).rows())["time"]
        == "8.9 days on this device, and the evaluation"
    )
    assert dict(replace(ESTIMATE, seconds=7.0).rows())["speed per device"].startswith("0.143 examples/s")


def seconds_of(size: int, *, fits: int = 1000) -> float:
    if size > fits:
        raise torch.cuda.OutOfMemoryError
    return 0.5 * size


@pytest.mark.parametrize(
    ("most", "fits", "expected"),
    [(4, 1000, (4, 0.5)), (3, 1000, (3, 0.5)), (64, 1000, (16, 0.5)), (64, 4, (4, 0.5)), (1, 1000, (1, 0.5))],
)
def test_batches_are_doubled_until_they_are_whole_or_slow_or_too_large(
    toy_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, most: int, fits: int, expected: tuple[int, float]
) -> None:
    job = toy_job()
    stepper = module._Stepper(job.learner(job.new_model()), job.data, torch.device("cpu"), "fp32")
    monkeypatch.setattr(stepper, "_seconds", lambda size: seconds_of(size, fits=fits))
    assert stepper.speed(most) == expected  # 8 examples take 4 seconds, which is not too long; 16 take 8


def test_what_fits_nowhere_is_said(toy_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Stepper, "_seconds", lambda _, size: seconds_of(size, fits=0))
    with pytest.raises(UserError, match="cpu: not even a few examples fit"):
        toy_job().estimate()


@pytest.fixture
def toy_job(toy_folder: Path, tmp_path: Path) -> Callable[..., Job]:
    def make(**changes: object) -> Job:
        given = {"corpus": toy_folder, "out": tmp_path / "out", "batch_size": 16, "device": "cpu", **changes}
        return Job.of(PretrainSettings(**given))

    return make


def test_an_estimate_is_measured_and_writes_nothing(
    toy_job: Callable[..., Job],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    before = torch.are_deterministic_algorithms_enabled()
    job = toy_job(estimate=True, accumulate=2, epochs=4, **ALL)
    pretrain(job.settings)
    printed = capsys.readouterr().out
    model = job.new_model()
    assert f"{sum(p.numel() for p in model.parameters()):,}" in printed
    assert f"{job.steps * 16:,}, {job.steps:,}" in printed
    assert "activations of 8 examples" in printed and "measured with 8 at a time" in printed
    assert not list(tmp_path.iterdir())
    assert torch.are_deterministic_algorithms_enabled() == before
