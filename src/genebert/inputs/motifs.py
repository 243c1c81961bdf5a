"""Motif collections, and the scan that turns sequence into motif evidence.

Scores are exact: log-odds against a uniform zero-order background are rounded to 1/100 bit, so that a score
is a sum of whole numbers, its p-value under the background is computed without approximation by convolution,
and every machine gets the same bytes. The idea of exact p-values by dynamic programming over rounded scores
is that of Touzet and Varré (2007), Algorithms Mol Biol 2:15.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import lightmotif
import numpy as np
from Bio import motifs as biopython_motifs
from numpy.typing import NDArray
from pyjaspar import jaspardb
from scipy.cluster import hierarchy

from genebert.errors import Problems, UserError, problem
from genebert.inputs.intervals import read_text
from genebert.schema import EVIDENCE_STEPS, Motif, decode

JASPAR_RELEASE = "JASPAR2026"
JASPAR_GROUPS = ("vertebrates", "plants", "insects", "nematodes", "fungi", "urochordates")
STEPS_PER_BIT = 100
SCORE_OF_N = -1_000_000
SUM_TOLERANCE = 0.02
_SCAN_BASES = 1 << 18  # fits the cache: four times as fast as 1 << 20
_STATED_WIDTH = re.compile(r"^letter-probability matrix.*\bw=\s*(\d+)", re.MULTILINE)
_HOCOMOCO_ID = re.compile(r"^(?P<name>[^.]+)\.H1\d")


def read_motifs(source: str) -> list[Motif]:
    """Read a motif collection.

    Args:
        source: a MEME or JASPAR file (plain or gzip), or "jaspar:GROUP" for a taxonomic group of JASPAR 2026
            CORE, which comes with pyjaspar and needs no download.

    Raises:
        UserError: unknown group, unreadable file, names that repeat, or columns that are no probabilities.
    """
    if source.startswith("jaspar:"):
        return _read_jaspar_core(source.removeprefix("jaspar:"))
    path = Path(source)
    text = read_text(path)
    found = Problems(f"The motifs of {path} cannot be used:")
    motifs = list(_read_meme(text, found) if text.lstrip().startswith("MEME version") else _read_jaspar(text, path))
    _check_collection(motifs, found)
    found.raise_any()
    if not motifs:
        raise UserError(problem(path, "no motif was found", "Give a MEME (version 4 or later) or JASPAR file."))
    return motifs


def _read_jaspar_core(group: str) -> list[Motif]:
    if group not in JASPAR_GROUPS:
        raise UserError(
            problem(f"jaspar:{group}", "there is no such group", f"Choose one of {', '.join(JASPAR_GROUPS)}.")
        )
    found = jaspardb(release=JASPAR_RELEASE).fetch_motifs(collection="CORE", tax_group=[group])
    return sorted((_from_counts(m.matrix_id, m.name, m.counts) for m in found), key=lambda motif: motif.id)


def _from_counts(identifier: str, name: str, counts: dict[str, Sequence[float]]) -> Motif:
    columns = np.array([counts[base] for base in "ACGT"], dtype=np.float64).T
    total = columns.sum(axis=1, keepdims=True)
    return Motif(identifier, name, columns / np.where(total > 0, total, np.nan))


def _read_jaspar(text: str, path: Path) -> Iterator[Motif]:
    try:
        parsed = biopython_motifs.parse(text.splitlines(keepends=True), "jaspar")
    except Exception as error:  # the parser raises bare Exceptions, and fails on bad input in many ways
        raise UserError(
            problem(
                path,
                f"it is neither a MEME nor a JASPAR file ({error})",
                "A MEME file starts with 'MEME version'; a JASPAR file has '>ID NAME' and rows A, C, G, T.",
            )
        ) from None
    for motif in parsed:
        yield _from_counts(motif.matrix_id, motif.name or motif.matrix_id, motif.counts)


def _read_meme(text: str, found: Problems) -> Iterator[Motif]:
    """Read MEME's minimal format. Biopython's reader rounds to whole counts, which ruins `nsites= 1`."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("MOTIF")]
    for start, end in pairwise([*starts, len(lines)]):
        words = lines[start].split()[1:]
        if not words:
            found.add(f"line {start + 1}", "MOTIF has no name", "Write `MOTIF ID NAME`.")
            continue
        rows = _probability_rows(lines, start, end, found)
        stated = _STATED_WIDTH.search("\n".join(lines[start:end]))
        if rows and stated and int(stated[1]) != len(rows):
            found.add(
                f"line {start + 1}",
                f"{lines[start]!r} has {len(rows)} rows, and says w= {stated[1]}",
                "Copy or download the file again.",
            )
        elif rows:
            yield Motif(words[0], words[1] if len(words) > 1 else _short_name(words[0]), np.array(rows))


def _probability_rows(lines: list[str], start: int, end: int, found: Problems) -> list[list[float]]:
    rows: list[list[float]] = []
    inside = False
    for number in range(start + 1, end):
        line = lines[number].strip()
        if line.startswith("letter-probability matrix"):
            inside = True
        elif inside and (not line or line.startswith(("URL", "-"))):
            if rows:
                break
        elif inside:
            try:
                rows.append([float(word) for word in line.split()])
            except ValueError:
                found.add(
                    f"line {number + 1}",
                    f"{line!r} is no row of probabilities",
                    "Write four numbers: A C G T.",
                )
                return []
            if len(rows[-1]) != 4:
                found.add(f"line {number + 1}", f"it has {len(rows[-1])} numbers", "Write four numbers: A C G T.")
                return []
    if not rows:
        found.add(
            f"line {start + 1}",
            f"{lines[start]!r} has no letter-probability matrix",
            "Add it, or remove the motif.",
        )
    return rows


def _short_name(identifier: str) -> str:
    match = _HOCOMOCO_ID.match(identifier)
    return match["name"] if match else identifier


def _check_collection(motifs: list[Motif], found: Problems) -> None:
    seen: set[str] = set()
    for motif in motifs:
        if motif.id in seen:
            found.add(f"motif {motif.id}", "the name occurs more than once", "Rename or remove the repetition.")
        seen.add(motif.id)
        sums = motif.probabilities.sum(axis=1)
        wrong = np.flatnonzero(~(np.abs(sums - 1) <= SUM_TOLERANCE) | (motif.probabilities < 0).any(axis=1))
        for row in wrong[:1]:
            values = " ".join(f"{value:g}" for value in motif.probabilities[row])
            found.add(
                f"motif {motif.id}, row {row + 1}",
                f"{values} are no probabilities (their sum is {sums[row]:g})",
                "Make the rows sum to 1.",
            )


@dataclass(frozen=True)
class Scanner:
    """Scans sequence for the best hit of each motif on either strand.

    Attributes:
        motifs: the collection.
        pseudocount: weight of the uniform background mixed into each column before taking log-odds.
    """

    motifs: Sequence[Motif]
    pseudocount: float = 0.01

    @cached_property
    def scores(self) -> list[NDArray[np.int64]]:
        """Rounded log-odds of each motif, int64, shape (width, 4), in 1/100 bit."""
        return [log_odds(motif, self.pseudocount) for motif in self.motifs]

    @cached_property
    def _tables(self) -> list[NDArray[np.uint8]]:
        return [evidence_table(scores) for scores in self.scores]

    @cached_property
    def _matrices(self) -> list[tuple[lightmotif.ScoringMatrix, lightmotif.ScoringMatrix]]:
        pairs = []
        for scores in self.scores:
            columns = {base: scores[:, i].astype(float).tolist() for i, base in enumerate("ACGT")}
            forward = lightmotif.ScoringMatrix({**columns, "N": [float(SCORE_OF_N)] * len(scores)})
            pairs.append((forward, forward.reverse_complement()))
        return pairs

    def scan(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the motif evidence of sequences of equal length.

        Args:
            codes: base codes, uint8, shape (n, length).

        Returns:
            uint8, shape (n, motifs): -log10 p of the best hit that lies wholly inside the sequence and covers
            no N, on either strand, in steps of 1/16, clipped at 255; 0 where there is no such hit.
        """
        evidence = np.zeros((len(codes), len(self.motifs)), dtype=np.uint8)
        rows = max(1, _SCAN_BASES // max(1, codes.shape[1]))
        for start in range(0, len(codes), rows):
            block = codes[start : start + rows]
            # A tail of N makes room for the last places, so that every position has a score.
            striped = lightmotif.EncodedSequence(decode(block.reshape(-1)) + "N" * self._widest).stripe()
            for i in range(len(self.motifs)):
                evidence[start : start + rows, i] = self._best_evidence(i, striped, block.shape)
        return evidence

    @cached_property
    def _widest(self) -> int:
        return max(motif.width for motif in self.motifs)

    def _best_evidence(
        self, i: int, striped: lightmotif.StripedSequence, shape: tuple[int, ...]
    ) -> NDArray[np.uint8] | int:
        n, length = shape
        places = length - self.motifs[i].width + 1
        if places < 1:
            return 0
        forward, reverse = (np.asarray(matrix.calculate(striped)) for matrix in self._matrices[i])
        either = np.maximum(forward.T, reverse.T).T.reshape(-1)  # .T is the layout in memory
        best = either[: n * length].reshape(n, length)[:, :places].max(axis=1)
        lowest = int(self.scores[i].min(axis=1).sum())
        steps: NDArray[np.int64] = np.maximum(best - lowest, 0).astype(np.int64)
        return self._tables[i][steps]


def log_odds(motif: Motif, pseudocount: float) -> NDArray[np.int64]:
    """Return log2 odds of a motif against a uniform background: int64, shape (width, 4), in 1/100 bit."""
    smoothed = (motif.probabilities + pseudocount * 0.25) / (1 + pseudocount)
    smoothed /= smoothed.sum(axis=1, keepdims=True)
    return np.round(STEPS_PER_BIT * np.log2(smoothed / 0.25)).astype(np.int64)


def evidence_table(scores: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the quantised -log10 p of every reachable score, indexed by score minus the lowest one.

    Args:
        scores: rounded log-odds, int64, shape (width, 4).

    Returns:
        uint8, shape (highest - lowest + 1,): round(16 * -log10 P(score of a random site >= s)), at most 255.
    """
    distribution = np.ones(1)
    for row in scores - scores.min(axis=1, keepdims=True):
        spread = np.zeros(len(distribution) + int(row.max()))
        for shift in row:
            spread[shift : shift + len(distribution)] += 0.25 * distribution
        distribution = spread
    survival = np.cumsum(distribution[::-1])[::-1]
    return np.clip(np.round(-EVIDENCE_STEPS * np.log10(np.minimum(survival, 1.0))), 0, 255).astype(np.uint8)


def order_by_similarity(motifs: list[Motif], pseudocount: float) -> list[Motif]:
    """Order motifs so that similar ones are neighbours, as a Swin transformer's local windows want it.

    Two motifs are similar if their best hits correlate over the same 1,000 random sequences of 64 bp (drawn
    with a fixed seed, so that no data of the user enters); the order is that of the leaves of average
    linkage.
    """
    if len(motifs) < 3:
        return motifs
    random = np.random.default_rng(0).integers(0, 4, size=(1000, 64), dtype=np.uint8)
    evidence = Scanner(motifs, pseudocount).scan(random).T.astype(np.float64)
    evidence += 1e-9 * np.arange(evidence.shape[1])  # a motif longer than the sequences has constant evidence
    leaves = hierarchy.leaves_list(hierarchy.linkage(evidence, method="average", metric="correlation"))
    return [motifs[i] for i in leaves]
