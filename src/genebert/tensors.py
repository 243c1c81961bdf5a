"""What batches are made of: tensors that move between memories together."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Self

import torch


class Tensors:
    """Base of dataclasses of tensors, which move between memories as one; what is no tensor stays as it is."""

    def to(self, device: torch.device, non_blocking: bool = False) -> Self:
        """Return a copy on a device."""
        return self._each(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory, from which a GPU reads without waiting."""
        return self._each(lambda value: value.pin_memory())

    def _each(self, change: Callable[[Any], Any]) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        moved = {name: change(v) if isinstance(v, torch.Tensor | Tensors) else v for name, v in values.items()}
        return type(self)(**moved)
