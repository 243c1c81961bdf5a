from dataclasses import dataclass

import torch

from genebert.tensors import Tensors


@dataclass
class Inner(Tensors):
    numbers: torch.Tensor


@dataclass
class Outer(Tensors):
    numbers: torch.Tensor
    inner: Inner
    name: str = "a"
    absent: Inner | None = None


def test_tensors_move_together_and_what_is_none_stays() -> None:
    here = Outer(torch.arange(3), Inner(torch.arange(2.0)), name="b")
    moved = here.to(torch.device("meta"))
    assert isinstance(moved, Outer) and isinstance(moved.inner, Inner)
    assert (moved.numbers.device.type, moved.inner.numbers.device.type) == ("meta", "meta")
    assert (moved.numbers.dtype, moved.inner.numbers.dtype) == (torch.int64, torch.float32)
    assert (moved.name, moved.absent) == ("b", None)
    assert (here.numbers.tolist(), here.inner.numbers.tolist()) == ([0, 1, 2], [0.0, 1.0])  # as it was
