"""How accessible the surroundings of a window are in a cell type; the window itself is left out."""

import numpy as np
from numpy.typing import NDArray

from genebert.corpus.store import Corpus

NEAREST = 4
"""Nearest accessible regions whose distance and signal are looked at."""
REACHES = 10_000, 100_000
"""In bp: accessible regions within them are counted."""
COLUMNS = 2 * NEAREST + len(REACHES)
_MOST = 32
"""Regions that are looked for."""


def surroundings(
    corpus: Corpus, cell_type: NDArray[np.int64], position: NDArray[np.int64], window: int
) -> NDArray[np.float32]:
    """Return how accessible the surroundings of windows are: float32, shape (b, COLUMNS).

    log10 of the distance in bp to each of the nearest accessible regions that do not overlap the window, and their
    signal (log1p per million); then how many there are within each of `REACHES`, of at most 32. Where there are no
    more regions, the distance is the length of the longest chromosome, and the signal 0.

    Args:
        corpus: the corpus.
        cell_type: cell type index of each window, int64, shape (b,).
        position: place of each window's centre, as `Corpus.line_positions` gives it, int64, shape (b,).
        window: width of the windows in bp.
    """
    examples, distance = corpus.nearest_examples(cell_type, position, _MOST, window)
    known = examples >= 0
    away = np.where(known, np.abs(distance), max(corpus.lengths.values()))
    signal = np.where(known, corpus.accessible_values[np.maximum(examples, 0)], 0)
    within = [(known & (away <= reach)).sum(axis=1) for reach in REACHES]
    columns = [np.log10(away[:, :NEAREST]), signal[:, :NEAREST], np.stack(within, axis=1)]
    return np.concatenate(columns, axis=1).astype(np.float32)
