import math
import signal
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from genebert.checkpoints import Checkpoint, Checkpoints, newest_checkpoint
from genebert.errors import Problems, ResumableError, UserError
from genebert.settings import PretrainSettings
from genebert.training import (
    Curves,
    Learner,
    ProgressBar,
    Schedule,
    StepBatches,
    decayed_parameters,
    loader,
    machine_problems,
    numerics,
    open_loggers,
    train,
)

STEPS = 24
CPU = torch.device("cpu")


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def batch(index: int) -> torch.Tensor:
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(index))


def losses(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"square": ((model(x) - x.sum(1, keepdim=True)) ** 2).mean(), "unused": model(x).mean()}


def learner(seed: int = 0, **changes: Any) -> Learner:
    torch.manual_seed(seed)
    return Learner(Toy(), losses, {"square": 1.0, "unused": 0.0}, Schedule(STEPS, 0.01, seed=seed), **changes)


def run(folder: Path, stop_at: int | None = None, accumulate: int = 1, keep: int = 2) -> tuple[Learner, pd.DataFrame]:
    def stopping(index: int) -> torch.Tensor:
        if index == stop_at:
            raise KeyboardInterrupt("killed")
        return batch(index)

    made = learner()
    checkpoints = Checkpoints(folder, 5, keep, newest_checkpoint(folder))
    options = {"description": "toy", "batch_size": 16, "accumulate": accumulate, "device": "cpu"}
    return made, train(made, stopping, checkpoints=checkpoints, **options)


def assert_equal_weights(first: Learner, second: Learner) -> None:
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


@pytest.mark.parametrize(("stop_at", "accumulate"), [(7, 1), (12, 1), (23, 1), (2 * 12 + 1, 2)])
def test_a_killed_and_resumed_run_equals_one_that_never_was(tmp_path: Path, stop_at: int, accumulate: int) -> None:
    whole, curve = run(tmp_path / "whole", accumulate=accumulate)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "killed", stop_at, accumulate)
    assert list((tmp_path / "killed").glob("*.ckpt"))
    resumed, resumed_curve = run(tmp_path / "killed", accumulate=accumulate)
    assert_equal_weights(whole, resumed)
    pd.testing.assert_frame_equal(curve, resumed_curve)


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    whole, curve = run(tmp_path)
    again, same = run(tmp_path, stop_at=0)
    assert_equal_weights(whole, again)
    pd.testing.assert_frame_equal(curve, same)


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_checkpoints_are_kept(tmp_path: Path, keep: int) -> None:
    run(tmp_path, keep=keep)
    steps = [5, 10, 15, 20, 24][-keep:]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:09d}.ckpt" for step in steps]
    assert newest_checkpoint(tmp_path) == Checkpoint(
        tmp_path / "step-000000024.ckpt", 24, 1, torch.get_num_threads(), "ddp"
    )


@pytest.mark.parametrize("damage", ["cut", "empty", "changed"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, _ = run(tmp_path / "whole")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "killed", stop_at=13)
    last = tmp_path / "killed" / "step-000000010.ckpt"
    content = last.read_bytes()
    with zipfile.ZipFile(last) as archive:  # torch would load weights of which a bit has changed
        weights = archive.read(max(archive.infolist(), key=lambda entry: "/data/" in entry.filename))
    changed = content.replace(weights, bytes([weights[0] ^ 1]) + weights[1:])
    last.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "changed": changed}[damage])
    assert last.read_bytes() != content
    resumed, _ = run(tmp_path / "killed")
    assert f"{last} is damaged" in capsys.readouterr().err.replace("\n", "")
    assert_equal_weights(whole, resumed)


def test_a_folder_without_a_sound_checkpoint_has_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "absent") is None
    (tmp_path / "step-000000005.ckpt").write_bytes(b"PK no archive")
    assert newest_checkpoint(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_training_lowers_the_loss_and_records_it() -> None:
    curve = train(learner(), batch, description="toy", batch_size=16, device="cpu")
    assert list(curve["step"]) == [10, 20, 24]
    assert curve["square"].iloc[-1] < curve["square"].iloc[0]
    assert set(curve) == {"step", "learning_rate", "square", "unused", "loss"}
    assert (curve["loss"] == curve["square"]).all()  # a loss of weight 0 is no part of the total


def test_losses_are_means_over_ten_steps() -> None:
    seen: list[float] = []

    def noted(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found = losses(model, x)
        seen.append(found["square"].item())
        return found

    made = Learner(Toy(), noted, {"square": 1.0, "unused": 0.0}, Schedule(STEPS, 0.01))
    curve = train(made, batch, description="toy", batch_size=16, device="cpu")
    means = [sum(seen[i:j]) / (j - i) for i, j in ((0, 10), (10, 20), (20, 24))]
    assert curve["square"].tolist() == pytest.approx(means, rel=1e-12)


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    def whole(index: int) -> torch.Tensor:
        return torch.cat([batch(2 * index), batch(2 * index + 1)])

    def mean_square(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"square": ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()}

    trained = []
    for make, accumulate in ((whole, 1), (batch, 2)):
        torch.manual_seed(0)
        made = Learner(nn.Linear(4, 1), mean_square, {"square": 1.0}, Schedule(STEPS, 0.01))
        curve = train(made, make, description="toy", batch_size=32, accumulate=accumulate, device="cpu")
        trained.append((made.model.weight.detach(), curve))
    assert torch.allclose(trained[0][0], trained[1][0], rtol=1e-5)
    pd.testing.assert_frame_equal(trained[0][1], trained[1][1], rtol=1e-5)


def test_validation_is_recorded_at_its_steps() -> None:
    curves = Curves(lambda: {"square": 2.0}, validate_steps=8)
    table = train(learner(), batch, description="toy", batch_size=16, curves=curves, device="cpu")
    measured = table.dropna(subset=["valid_square"])
    assert list(measured["step"]) == [8, 16, 24]


def test_learning_rate_rises_linearly_and_falls_to_a_tenth() -> None:
    schedule = Schedule(steps=100, learning_rate=1.0, warmup=0.1)
    assert [schedule.factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert schedule.factor(54) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 0.5)) / 2)
    assert schedule.factor(99) == pytest.approx(0.1)
    assert schedule.factor(100) == pytest.approx(0.1)  # asked for after the last step
    assert Schedule(steps=10, learning_rate=1.0, warmup=0.0).factor(0) < 1


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.37])
def test_learning_rate_depends_on_the_examples_seen_whatever_the_batch_size(warmup: float) -> None:
    large, small = (Schedule(steps, 1.0, warmup) for steps in (30, 240))
    for step in range(30):  # the large batch ends where its eighth small one ends
        assert large.factor(step) == pytest.approx(small.factor(8 * step + 7))


def test_only_matrices_of_layers_have_weight_decay() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(5, 4)
            self.convolution = nn.Conv1d(4, 4, 3)
            self.batch_norm, self.norm = nn.BatchNorm1d(4), nn.LayerNorm(4)
            self.linear, self.frozen = nn.Linear(4, 4), nn.Linear(4, 4)
            self.mask_token, self.temperature = nn.Parameter(torch.zeros(1, 1, 4)), nn.Parameter(torch.zeros(()))
            self.frozen.requires_grad_(False)

    model = Mixed()
    assert len(decayed_parameters(model)) == 3
    made = Learner(model, losses, {}, Schedule(STEPS, 0.01, weight_decay=0.3))
    decayed, exempt = made.configure_optimizers()["optimizer"].param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert {names[p] for p in decayed["params"]} == {"convolution.weight", "linear.weight"}
    expected = set(names.values()) - {"convolution.weight", "linear.weight", "frozen.weight", "frozen.bias"}
    assert {names[p] for p in exempt["params"]} == expected
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.3, 0.0)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_workers_share_the_steps_and_keep_their_order(workers: int) -> None:
    found = list(loader(StepBatches(batch, 3, 10), CPU, workers))
    assert len(found) == 7
    assert all(torch.equal(found[i], batch(3 + i)) for i in range(7))


def test_a_model_in_eval_mode_is_trained_in_train_mode() -> None:
    # Loaded models come in eval mode; batch statistics stayed at their initial values, and fine-tuning hardly learned.
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1)).eval()
    made = Learner(model, losses, {"square": 1.0, "unused": 0.0}, Schedule(STEPS, 0.01))
    train(made, batch, description="toy", batch_size=16, device="cpu")
    assert model[0].num_batches_tracked == 2 * STEPS  # `losses` calls the model twice


def test_numerics_are_set_and_left_as_found() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32
    resumed = Checkpoint(Path("c"), 5, 1, before[0] + 1, "ddp")
    with pytest.raises(KeyError), numerics(CPU, resumed):
        assert torch.get_num_threads() == before[0] + 1
        assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.allow_tf32
        raise KeyError
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32
    assert after == before
    with numerics(CPU, resumed._replace(processes=2)):  # they shared the cores otherwise
        assert torch.get_num_threads() == before[0]


def test_more_threads_than_cores_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    with numerics(CPU, Checkpoint(Path("folder/c"), 5, 1, 64, "ddp")):
        pass
    printed = capsys.readouterr().err.replace("\n", " ")
    assert "64 threads are used" in printed and "remove folder" in printed


def test_a_loss_that_is_no_number_stops_training() -> None:
    made, steps = learner(), []
    made.schedule = replace(made.schedule, learning_rate=1e30)

    def counted(index: int) -> torch.Tensor:
        steps.append(index)
        return batch(index)

    with pytest.raises(UserError, match=r"with 1e.30 training diverged: at step 10 .*loss is no number"):
        train(made, counted, description="toy", batch_size=16, device="cpu")
    assert max(steps) < STEPS - 1


def test_a_validation_loss_that_is_no_number_stops_training_and_a_measure_that_is_none_does_not() -> None:
    def validated(found: dict[str, float]) -> pd.DataFrame:
        curves = Curves(lambda: found, validate_steps=3)
        return train(learner(), batch, description="toy", batch_size=16, device="cpu", curves=curves)

    with pytest.raises(UserError, match="at step 3 valid_other_square is no number"):
        validated({"square": 1.0, "other_square": float("nan"), "auroc": float("nan")})
    assert len(validated({"square": 1.0, "auroc": float("nan")})) == STEPS / 3 + 2  # and steps 10 and 20


def test_what_there_was_before_training_diverged_is_kept_and_nothing_is_written_after(tmp_path: Path) -> None:
    def spoiled(index: int) -> torch.Tensor:
        return batch(index) * (float("inf") if index == 6 else 1)

    checkpoints = Checkpoints(tmp_path, 4)
    with pytest.raises(ResumableError, match=r"at step 8 a weight, .*square.* is no number") as raised:
        train(learner(), spoiled, description="toy", batch_size=16, checkpoints=checkpoints, device="cpu")
    kept = tmp_path / "step-000000004.ckpt"
    assert f"with another --out. What there was before is kept: {kept}." in str(raised.value)
    assert list(tmp_path.iterdir()) == [kept]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT interrupt, which what a shell started in the background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_training_as_a_failure_that_the_same_command_mends(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def signalled(index: int) -> torch.Tensor:
        if index == 7:
            signal.raise_signal(getattr(signal, name))
        return batch(index)

    options = {"description": "toy", "batch_size": 16, "device": "cpu"}
    whole = train(learner(), batch, **options)
    with pytest.raises(SystemExit) as ended:
        train(learner(), signalled, checkpoints=Checkpoints(tmp_path, 5), **options)
    assert ended.value.code == 128 + getattr(signal, name)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # and not ignored from now on
    assert f"toy: stopped by {name}; the same command goes on" in capsys.readouterr().err
    resumed = train(learner(), batch, checkpoints=Checkpoints(tmp_path, 5, 2, newest_checkpoint(tmp_path)), **options)
    pd.testing.assert_frame_equal(whole, resumed)


def test_progress_is_told_in_lines_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("genebert.training.LINE_SECONDS", 0)
    train(learner(), batch, description="toy", batch_size=16, device="cpu")
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("toy: step 24 of 24") for line in lines) == 1
    assert any("examples/s" in line and "square" in line for line in lines)


def test_speed_is_that_of_the_last_minutes() -> None:
    clock = SimpleNamespace(now=0.0)
    bar = ProgressBar("toy", 16, Curves())
    bar.progress.get_time = lambda: clock.now
    trainer, module = SimpleNamespace(global_step=0), SimpleNamespace(schedule=Schedule(1000, 0.1))
    bar.on_train_start(trainer, module)
    for step in range(1, 201):
        clock.now += 100.0 if step < 100 else 10.0  # the first hours were slow
        trainer.global_step = step
        bar.on_train_batch_end(trainer, module, None, None, 0)
    bar.on_train_end(trainer, module)
    assert bar.progress.tasks[0].fields["note"].startswith("1.6 examples/s")


def settings(**changes: Any) -> PretrainSettings:
    return PretrainSettings(corpus=Path("corpus"), out=Path("out"), device="cpu", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "fsdp"}, "--strategy fsdp: one device has nothing to share"),
        ({"attention": "flash_attention_2"}, "needs a GPU, --precision bf16 and the package flash-attn"),
        ({"tensorboard": True}, "pip install 'genebert[tensorboard]'"),
        ({"wandb": "project"}, "pip install 'genebert[wandb]'"),
        ({"compile": True}, "C++ compiler"),
        ({"precision": "bf16"}, "slower than fp32. Use fp32"),
    ],
)
def test_what_the_machine_lacks_is_said(changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genebert.training.find_spec", lambda name: None)
    monkeypatch.setattr("genebert.training.which", lambda name: None)
    monkeypatch.setattr("genebert.training.bf16_is_native", lambda device: False)
    monkeypatch.delenv("CXX", raising=False)
    found = Problems("no")
    machine_problems(settings(**changes), found)
    assert len(found.lines) == 1 and message in found.lines[0]


def test_a_gpu_that_is_not_there_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="torch finds no CUDA device here"):
        machine_problems(PretrainSettings(corpus=Path("c"), out=Path("o"), device="cuda"), Problems("no"))


def test_losses_go_to_tensorboard(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    made = open_loggers(settings(tensorboard=True), tmp_path)
    curve = train(learner(), batch, description="toy", batch_size=16, loggers=made, device="cpu")
    events = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("square")]
    assert found == [(step, pytest.approx(value)) for step, value in zip(curve["step"], curve["square"], strict=True)]


def test_losses_go_to_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    logged: list[tuple[dict[str, float], int]] = []

    class Recorder:
        def __init__(self, **kwargs: Any) -> None:
            given.update(kwargs)
            self.experiment = SimpleNamespace(finish=lambda: logged.append(({}, -1)))

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: None

        def log_metrics(self, row: dict[str, float], step: int) -> None:
            logged.append((row, step))

    monkeypatch.setattr("genebert.training.WandbLogger", Recorder)
    made = open_loggers(settings(wandb="atlas"), tmp_path)
    train(learner(), batch, description="toy", batch_size=16, loggers=made, device="cpu")
    assert given["project"] == "atlas" and given["resume"] == "allow" and given["name"] == "out"
    assert [step for _, step in logged] == [10, 20, 24, -1]
