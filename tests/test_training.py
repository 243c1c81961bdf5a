import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from genebert.training import LAST_CHECKPOINT, Curves, Learner, Schedule, StepBatches, train

STEPS = 24


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def batch(step: int) -> torch.Tensor:
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(step))


def losses(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"square": ((model(x) - x.sum(1, keepdim=True)) ** 2).mean(), "unused": model(x).mean()}


def learner(seed: int = 0) -> Learner:
    torch.manual_seed(seed)
    return Learner(Toy(), losses, {"square": 1.0, "unused": 0.0}, Schedule(STEPS, 0.01, seed=seed))


def run(folder: Path | None = None, stop_at: int | None = None) -> tuple[Learner, pd.DataFrame]:
    def stopping(step: int) -> torch.Tensor:
        if step == stop_at:
            raise KeyboardInterrupt("killed")
        return batch(step)

    made = learner()
    return made, train(
        made, stopping, description="toy", batch_size=16, folder=folder, checkpoint_steps=5, device="cpu"
    )


@pytest.mark.parametrize("stop_at", [7, 12, 23])
def test_a_killed_and_resumed_run_equals_one_that_never_was(tmp_path: Path, stop_at: int) -> None:
    whole, curve = run(tmp_path / "whole")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(tmp_path / "killed", stop_at=stop_at)
    assert (tmp_path / "killed" / LAST_CHECKPOINT).exists()
    resumed, resumed_curve = run(tmp_path / "killed")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    pd.testing.assert_frame_equal(curve, resumed_curve)


def test_training_lowers_the_loss_and_records_it() -> None:
    _, curve = run()
    assert list(curve["step"]) == [10, 20, 24]
    assert curve["square"].iloc[-1] < curve["square"].iloc[0]
    assert set(curve) == {"step", "learning_rate", "square", "unused", "loss"}
    assert (curve["loss"] == curve["square"]).all()  # a loss of weight 0 is no part of the total


def test_two_runs_are_equal() -> None:
    first, second = run()[1], run()[1]
    pd.testing.assert_frame_equal(first, second)


def test_validation_is_recorded_at_its_steps() -> None:
    made = learner()
    curves = Curves(lambda: {"square": 2.0}, validate_steps=8)
    table = train(made, batch, description="toy", batch_size=16, curves=curves, device="cpu")
    measured = table.dropna(subset=["valid_square"])
    assert list(measured["step"]) == [8, 16, 24]


def test_learning_rate_rises_linearly_and_falls_to_a_tenth() -> None:
    schedule = Schedule(steps=100, learning_rate=1.0, warmup=0.1)
    assert [schedule.factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert schedule.factor(55) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 0.5)) / 2)
    assert schedule.factor(100) == pytest.approx(0.1)


def test_vectors_have_no_weight_decay() -> None:
    made = learner()
    matrices, vectors = made.configure_optimizers()["optimizer"].param_groups
    assert {p.ndim for p in matrices["params"]} == {2}
    assert {p.ndim for p in vectors["params"]} == {1}
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.01, 0.0)


def test_loader_workers_share_the_steps_and_keep_their_order() -> None:
    loader = torch.utils.data.DataLoader(StepBatches(batch, 3, 10), batch_size=None, num_workers=2)
    found = list(loader)
    assert len(found) == 7
    assert all(torch.equal(found[i], batch(3 + i)) for i in range(7))


def test_a_model_in_eval_mode_is_trained_in_train_mode() -> None:
    # Loaded models come in eval mode; batch statistics stayed at their initial values, and fine-tuning hardly learned.
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1)).eval()
    made = Learner(model, losses, {"square": 1.0, "unused": 0.0}, Schedule(STEPS, 0.01))
    train(made, batch, description="toy", batch_size=16, device="cpu")
    assert model[0].num_batches_tracked == 2 * STEPS  # `losses` calls the model twice
