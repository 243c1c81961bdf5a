"""In-silico mutagenesis of a locus: every base, changed to each other base, in several cell types side by side."""

import re
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.corpus.work import Work
from genebert.errors import UserError, listed, problem
from genebert.inputs.genome import Genome, match_chromosomes
from genebert.methods.base import Place
from genebert.predictor import Predictor
from genebert.schema import BASES, N, substituted
from genebert.target import second_log_odds

_LOCUS = re.compile(r"(?P<chrom>.+):(?P<start>\d[\d,]*)-(?P<end>\d[\d,]*)")
_WINDOWS = 128  # scored together


@dataclass(frozen=True)
class Locus:
    """An interval and the window that it is seen in; 0-based, half-open.

    Attributes:
        chrom: chromosome.
        start, end: the interval whose bases are mutated.
        window: start of the window.
    """

    chrom: str
    start: int
    end: int
    window: int

    @classmethod
    def parse(cls, text: str, corpus: Corpus) -> Self:
        """Read chrom:start-end; it is seen in the region that holds it, else in a window around it.

        Raises:
            UserError: it is no interval, lies outside the genome, or is wider than a region.
        """
        match = _LOCUS.fullmatch(text.strip())
        if match is None:
            raise UserError(
                problem(f"--locus {text}", "it is no interval", "Write chrom:start-end, 0-based, half-open.")
            )
        chrom = match_chromosomes([match["chrom"]], corpus.lengths).get(match["chrom"], match["chrom"])
        start, end = (int(match[name].replace(",", "")) for name in ("start", "end"))
        length = corpus.lengths.get(chrom)
        if length is None:
            what = f"the genome has no chromosome {chrom}; it has {listed(corpus.lengths, 12)}"
            raise UserError(problem(f"--locus {text}", what, "Correct it."))
        if not 0 <= start < end <= length:
            what = f"it is empty, or not within {chrom}, which has {length:,} bp"
            raise UserError(problem(f"--locus {text}", what, "Correct it."))
        if end - start > corpus.width:
            what = f"it has {end - start:,} bp, and the model sees {corpus.width:,} at a time"
            raise UserError(problem(f"--locus {text}", what, "Give a shorter one."))
        regions = corpus.regions
        holding = (regions["chrom"] == chrom) & (regions["start"] <= start) & (regions["end"] >= end)
        window = int(regions["start"][holding].iloc[0]) if holding.any() else (start + end - corpus.width) // 2
        return cls(chrom, start, end, window)


def mutate_locus(
    locus: Locus, predictor: Predictor, corpus: Corpus, genome: Genome, cell_types: list[str], work: Work
) -> pd.DataFrame:
    """Mutate every base of a locus.

    Args:
        locus: the locus.
        predictor, corpus, genome: which belong together.
        cell_types: names.
        work: computes, and keeps what an interrupted run has computed.

    Returns:
        DataFrame with cell_type, chrom, position (0-based), base, mutated_to, difference (of the log-odds of the second
        class, mutated minus not). Bases that are N are left out.

    Raises:
        UserError: the whole locus is N.
    """
    codes = genome.fetch(locus.chrom, locus.window, locus.window + corpus.width)
    places = [p for p in range(locus.start - locus.window, locus.end - locus.window) if codes[p] != N]
    changes, mutated = substituted(codes, places)
    if not changes:
        where = f"--locus {locus.chrom}:{locus.start}-{locus.end}"
        raise UserError(problem(where, "all of its bases are N", "Give another locus."))
    centre = int(corpus.line_positions([locus.chrom], np.array([locus.window + corpus.width // 2]))[0])
    scored = _Scored(predictor, corpus, centre, corpus.cell_type_indices(cell_types))
    blocks = range(0, len(mutated), _WINDOWS)
    found = work.map(
        "locus", "mutating the locus", _log_odds, scored, len(blocks), lambda i: mutated[blocks[i] :][:_WINDOWS]
    )
    odds = np.concatenate([one["log_odds"] for one in found])
    columns: dict[str, Any] = {
        "chrom": locus.chrom,
        "position": [locus.window + place for place, _ in changes],
        "base": [BASES[codes[place]] for place, _ in changes],
        "mutated_to": [BASES[base] for _, base in changes],
    }
    differences = (odds[1:] - odds[0]).T
    tables = [
        pd.DataFrame({"cell_type": name, **columns, "difference": difference})
        for name, difference in zip(cell_types, differences, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class _Scored:
    """What scores sequences, at a place as `Corpus.line_positions` gives it, in cell types by index."""

    predictor: Predictor
    corpus: Corpus
    centre: int
    cell_types: NDArray[np.int64]


def _log_odds(by: _Scored, codes: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Return calibrated log-odds of the second class: float64, shape (n, cell types)."""
    place = Place(by.corpus, np.full(len(codes), by.centre), by.predictor.scanner.scan(codes))
    each = by.predictor.ensemble.predict_in_cell_types(codes, place, by.cell_types)
    return {"log_odds": np.stack([second_log_odds(one) for one in each], axis=1)}
