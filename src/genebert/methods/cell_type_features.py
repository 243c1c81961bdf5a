"""Features of windows in a cell type, for methods without a network of their own; they say nothing of its name.

So what was learned from them holds in a cell type that was never seen.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from genebert.corpus.surroundings import surroundings
from genebert.corpus.usage import PARTS
from genebert.errors import Problems
from genebert.methods.base import Examples, blocks_of
from genebert.region_matrix import Context

AGREEMENT = 0.999
"""From this fraction of the rows on, labels are taken for accessibility itself."""


def usage_products(examples: Examples) -> NDArray[np.float32]:
    """Return the evidence of each motif times its usage in the cell type, and their sum: float32, shape (n, m + 1).

    Both are differences from the mean evidence over all training regions; see `corpus.usage`.
    """
    context = _context(examples)
    usage, everywhere = context.corpus.usage, context.corpus.usage.everywhere[PARTS]
    found = np.empty((len(examples), len(everywhere) + 1), dtype=np.float32)
    for rows in blocks_of(len(examples)):
        own = context.rows(rows)
        enriched = usage.at(own.corpus, own.cell_type, own.position) - everywhere
        found[rows, :-1] = (examples.evidence[rows] - everywhere) * enriched
        found[rows, -1] = found[rows, :-1].sum(axis=1)
    return found


def accessibility_columns(examples: Examples, *, own: bool) -> NDArray[np.float32]:
    """Return how accessible the surroundings of windows are in their cell types: float32, shape (n, features).

    See `corpus.surroundings`; if it is to be shown, the last column is the signal of the window itself.
    """
    context, width, parts = _context(examples), examples.codes.shape[1], []
    for rows in blocks_of(len(examples)):
        where = context.rows(rows)
        parts.append(surroundings(where.corpus, where.cell_type, where.position, width))
        if own:
            signal = where.corpus.signal_at(where.cell_type, where.position, width)[:, None]
            parts[-1] = np.concatenate([parts[-1], signal], axis=1)
    return np.concatenate(parts)


def note_own_accessibility(examples: Examples, found: Problems) -> None:
    """Note why windows cannot be shown with their own accessibility, if so: a label that it gives away, for one."""
    what = ""
    if examples.context is None:
        what = "the rows name no cell types, so that there is no accessibility to show"
    elif _is_its_own_answer(examples):
        what = "it is what the rows are labelled by, and would give the answer away"
    if what:
        found.add("own_accessibility", what, "Turn it off.")


def _is_its_own_answer(examples: Examples) -> bool:
    """Tell whether any label or number of windows is whether they are accessible in their cell types, or how much."""
    context, truth = _context(examples), examples.known_truth
    signal = context.corpus.signal_at(context.cell_type, context.position, examples.codes.shape[1])
    columns = truth[:, None] if truth.ndim == 1 else truth
    return any(_agrees(column[np.isfinite(column)], signal[np.isfinite(column)]) for column in columns.T)


def _agrees(truth: NDArray[Any], signal: NDArray[Any]) -> bool:
    """Tell whether 0 and 1, or numbers, go with the signal in (nearly) all rows, or against it."""
    if set(np.unique(truth).tolist()) == {0, 1}:
        agree = float(((signal > 0) == (truth > 0)).mean())
        return max(agree, 1 - agree) >= AGREEMENT
    if not np.issubdtype(truth.dtype, np.floating) or len(truth) < 2 or np.ptp(truth) == 0 or np.ptp(signal) == 0:
        return False
    return bool(abs(spearmanr(signal, truth).statistic) >= AGREEMENT)


def _context(examples: Examples) -> Context:
    assert examples.context is not None
    return examples.context
