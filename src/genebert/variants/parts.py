"""Scores on disk, part by part, so that a run that was interrupted scores nothing twice."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from genebert.variants.scorer import Scores


class Parts:
    """Keeps scores as .npz files.

    Args:
        folder: where to; what an interrupted run of the same fingerprint left there is used.
        kind: of the scores.
    """

    def __init__(self, folder: Path, kind: type[Scores] = Scores) -> None:
        self.folder = folder
        self.kind = kind
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, compute: Callable[[], Scores]) -> Scores:
        """Return the scores of a part: those that are kept, or else what `compute` returns, which is kept."""
        path = self.folder / f"{name}.npz"
        if not path.exists():
            draft = path.with_suffix(".draft")
            with draft.open("wb") as handle:
                np.savez(handle, **asdict(compute()))
                handle.flush()
                os.fsync(handle.fileno())  # or else, after a power cut, the name may be there and the bytes not
            draft.rename(path)  # so that a part is absent or complete
        with np.load(path, allow_pickle=False) as arrays:
            return self.kind(**arrays)
