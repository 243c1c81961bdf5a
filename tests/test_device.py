import pytest
import torch
from torch import nn

from genebert.device import enough_memory
from genebert.errors import ResumableError
from genebert.methods.networks import evaluating


class Large(nn.Module):
    """Is too large for any GPU."""

    def forward(self) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


def test_a_gpu_that_is_too_small_is_said() -> None:
    with pytest.raises(ResumableError, match=r"GPU: it is too small \(CUDA out of memory\)"), enough_memory("Buy one."):
        Large()()


def test_so_it_is_where_a_network_predicts() -> None:
    network = Large().train()
    with (
        pytest.raises(ResumableError, match=r"it is too small \(CUDA out of memory\). Use --device cpu"),
        evaluating(network),
    ):
        network()
    assert network.training
