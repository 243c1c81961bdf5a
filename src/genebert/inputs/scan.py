"""The scan that turns sequence into motif evidence.

Scores are exact: log-odds against a zero-order background are rounded to 1/100 bit, so that a score is a sum of
whole numbers, its p-value under the background is computed without approximation by convolution, and every
machine gets the same bytes. The idea of exact p-values by dynamic programming over rounded scores is that of
Touzet and Varré (2007), Algorithms Mol Biol 2:15.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import lightmotif
import numpy as np
from numpy.typing import NDArray

from genebert.errors import UserError, problem
from genebert.schema import EVIDENCE_STEPS, Motif, N, decode

STEPS_PER_BIT = 100
SCORE_OF_N = -1_000_000
_SCAN_BASES = 1 << 17  # the scores of so many places are reduced while they are in the cache
_ROWS_AT_ONCE = 16


def parse_background(text: str) -> float | None:
    """Return the GC fraction that the setting `background` asks for.

    Args:
        text: "uniform", "regions", or a number between 0 and 1.

    Returns:
        the GC fraction: 0.5 for "uniform", None for "regions" (it is to be measured).

    Raises:
        UserError: it is none of these.
    """
    if text == "regions":
        return None
    try:
        gc = 0.5 if text == "uniform" else float(text)
    except ValueError:
        gc = float("nan")
    if not 0 < gc < 1:
        remedy = "Give `uniform`, `regions`, or the fraction of G and C between 0 and 1, such as 0.41."
        raise UserError(problem("--background", f"{text!r} is no background", remedy))
    return gc


def base_frequencies(gc: float) -> NDArray[np.float64]:
    """Return the background probabilities of A, C, G, T, shape (4,).

    A and T are equal, and so are C and G: either strand of double-stranded DNA then has the same composition, so
    that a site and its reverse complement have one p-value.
    """
    return np.array([1 - gc, gc, gc, 1 - gc]) / 2


def log_odds(motif: Motif, pseudocount: float, gc: float = 0.5) -> NDArray[np.int64]:
    """Return the rounded log2 odds of a motif against the background: int64, shape (width, 4), in 1/100 bit.

    Args:
        motif: the motif.
        pseudocount: weight of the background mixed into each column.
        gc: fraction of G and C in the background.
    """
    background = base_frequencies(gc)
    smoothed = (motif.probabilities + pseudocount * background) / (1 + pseudocount)
    smoothed /= smoothed.sum(axis=1, keepdims=True)
    return np.round(STEPS_PER_BIT * np.log2(smoothed / background)).astype(np.int64)


def evidence_table(scores: NDArray[np.int64], gc: float = 0.5) -> NDArray[np.uint8]:
    """Return the quantised -log10 p of every reachable score, indexed by score minus the lowest one.

    Args:
        scores: rounded log-odds, int64, shape (width, 4).
        gc: fraction of G and C in the background.

    Returns:
        uint8, shape (highest - lowest + 1,): round(16 * -log10 P(score of a random site >= s)), at most 255.
    """
    background = base_frequencies(gc)
    distribution = np.ones(1)
    for row in scores - scores.min(axis=1, keepdims=True):
        spread = np.zeros(len(distribution) + int(row.max()))
        for shift, probability in zip(row, background, strict=True):
            spread[shift : shift + len(distribution)] += probability * distribution
        distribution = spread
    survival = np.cumsum(distribution[::-1])[::-1]
    return np.clip(np.round(-EVIDENCE_STEPS * np.log10(np.minimum(survival, 1.0))), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Scanner:
    """Scans sequence for the best hit of each motif on either strand.

    Attributes:
        motifs: the collection.
        pseudocount: weight of the background mixed into each column before taking log-odds.
        gc: fraction of G and C in the background.
    """

    motifs: Sequence[Motif]
    pseudocount: float = 0.01
    gc: float = 0.5

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds; what is computed from it is computed again."""
        return {"motifs": self.motifs, "pseudocount": self.pseudocount, "gc": self.gc}

    @cached_property
    def scores(self) -> list[NDArray[np.int64]]:
        """Rounded log-odds of each motif, int64, shape (width, 4), in 1/100 bit."""
        return [log_odds(motif, self.pseudocount, self.gc) for motif in self.motifs]

    @cached_property
    def _strands(self) -> list[list[lightmotif.ScoringMatrix]]:
        """The matrices to look for per motif: of both strands, or the one that reads the same on either."""
        found = []
        for scores in self.scores:
            columns = {base: scores[:, i].astype(float).tolist() for i, base in enumerate("ACGT")}
            forward = lightmotif.ScoringMatrix({**columns, "N": [float(SCORE_OF_N)] * len(scores)})
            palindrome = np.array_equal(scores, scores[::-1, ::-1])
            found.append([forward] if palindrome else [forward, forward.reverse_complement()])
        return found

    @cached_property
    def _lowest(self) -> NDArray[np.float32]:
        """Lowest score of each motif, shape (motifs, 1)."""
        return np.array([[scores.min(axis=1).sum()] for scores in self.scores], dtype=np.float32)

    @cached_property
    def _tables(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The evidence tables of all motifs in one array, and where each begins, shape (motifs, 1)."""
        tables = [evidence_table(scores, self.gc) for scores in self.scores]
        starts = np.cumsum([0, *map(len, tables[:-1])])
        return np.concatenate(tables), starts[:, None]

    def scan(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the motif evidence of sequences of equal length.

        Args:
            codes: base codes, uint8, shape (n, length).

        Returns:
            uint8, shape (n, motifs): -log10 p of the best hit that lies wholly inside the sequence and covers
            no N, on either strand, in steps of 1/16, clipped at 255; 0 where there is no such hit.
        """
        return self.scan_tiles(codes, 1)[:, 0]

    def scan_tiles(self, codes: NDArray[np.uint8], tiles: int) -> NDArray[np.uint8]:
        """Return the motif evidence of consecutive tiles of sequences of equal length.

        A sequence is cut into tiles of equal length, and a hit belongs to the tile that holds its centre (to both where
        it lies on their border), whichever tiles it covers else. So the reverse complement of a sequence has the same
        evidence, its tiles in reverse order.

        Args:
            codes: base codes, uint8, shape (n, length).
            tiles: number of tiles.

        Returns:
            uint8, shape (n, tiles, motifs): as `scan` returns it, of the best hit of each tile.
        """
        n, length = codes.shape
        evidence = np.zeros((n, tiles, len(self.motifs)), dtype=np.uint8)
        lanes = _lanes()
        step = lanes * max(1, _SCAN_BASES // max(1, lanes * length))
        for start in range(0, n if evidence.size and length else 0, step):
            block = codes[start : start + step]
            padded = np.full((-(-len(block) // lanes) * lanes, length), N, dtype=np.uint8)
            padded[: len(block)] = block
            evidence[start : start + step] = self._evidence(self._best_scores(padded, tiles))[: len(block)]
        return evidence

    def _best_scores(self, codes: NDArray[np.uint8], tiles: int) -> NDArray[np.float32]:
        """Return the best score of each motif in each tile of n sequences, float32, shape (tiles, motifs, n).

        n is a multiple of the number of lanes, so that every sequence lies in one lane of lightmotif's layout,
        where scores of the same place in different lanes are neighbours in memory.

        Args:
            codes: base codes, uint8, shape (n, length).
            tiles: number of tiles.
        """
        length, lanes = codes.shape[1], _lanes()
        striped = lightmotif.EncodedSequence(decode(codes.reshape(-1))).stripe()
        either = np.empty((len(codes) // lanes, length, lanes), dtype=np.float32)
        best = np.full((tiles, len(self.motifs), len(codes)), SCORE_OF_N, dtype=np.float32)
        for i, motif in enumerate(self.motifs):
            places = length - motif.width + 1
            if places <= 0:
                continue
            strands = [np.asarray(matrix.calculate(striped)).T for matrix in self._strands[i]]
            np.maximum(strands[0].reshape(either.shape), strands[-1].reshape(either.shape), out=either)
            for tile in range(tiles):
                first, end = _hits_in(tile, tiles, length, motif.width)
                if first < end:
                    best[tile, i] = _maximum(either[:, first:end]).T.reshape(-1)
        return best

    def _evidence(self, best: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the evidence of scores: uint8, shape (n, tiles, motifs); best: shape (tiles, motifs, n)."""
        tables, starts = self._tables
        steps = np.maximum(best - self._lowest, 0).astype(np.int64)
        return tables[starts + steps].transpose(2, 0, 1)


@cache
def _lanes() -> int:
    """Return the number of stretches that lightmotif scores side by side, which depends on the processor."""
    return len(np.asarray(lightmotif.stripe("N")))


def _hits_in(tile: int, tiles: int, length: int, width: int) -> tuple[int, int]:
    """Return where the hits begin whose centres lie in a tile: the first place, and the one after the last."""
    left, right = (2 * length * edge - width * tiles for edge in (tile, tile + 1))  # of a place times 2 * tiles
    return max(-(-left // (2 * tiles)), 0), min(right // (2 * tiles), length - width) + 1


def _maximum(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the maximum over axis 1 of an array of shape (a, b, c), as shape (a, c).

    Several rows are compared with several rows at a time, for numpy is fast where what it compares is long.
    """
    a, b, c = values.shape
    rows = min(b, _ROWS_AT_ONCE)
    whole = b - b % rows
    best = values[:, :whole].reshape(a, -1, rows * c).max(axis=1).reshape(a, rows, c)
    np.maximum(best[:, : b - whole], values[:, whole:], out=best[:, : b - whole])
    return best.max(axis=1)
