"""Where networks run: the CPU or a GPU, and what it can do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from genebert.errors import ResumableError, UserError, problem
from genebert.settings import Device


def pick_device(device: Device) -> torch.device:
    """Return the torch device to run on.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            problem("--device cuda", "torch finds no CUDA device here", "Use --device cpu, or a CUDA build of torch.")
        )
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def bf16_is_native(device: torch.device) -> bool:
    """Has the processor instructions for bf16?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


@contextmanager
def no_tf32() -> Iterator[None]:
    """Convolve in fp32 on a GPU, where torch would shorten fp32 to TF32 (matrix products it leaves as they are)."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """Say what to do where a GPU's memory is too small; checkpoints are kept, for when others leave more of it free."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).split(". ")[0]
        raise ResumableError(problem("memory of the GPU", f"it is too small ({first})", remedy)) from None
