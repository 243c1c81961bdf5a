"""Toy tasks for methods: a word planted in random windows says what they are."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import toys
from numpy.typing import NDArray

from genebert.inputs.scan import Scanner
from genebert.methods.base import Examples
from genebert.region_matrix import Context
from genebert.schema import encode
from genebert.target import Kind, Target

WORDS = [encode(letters).codes for letters in ("TGACTCAGCATG", "CCGGAAGTACCG")]
SCANNER = Scanner([toys.consensus_motif("GATA", "GATAAG", 0.9), toys.consensus_motif("ETS", "CCGGAAGT", 0.9)])
ROWS = 400
PARTS = np.split(np.arange(ROWS), [240, 320])
"""Rows for training, validation and testing."""


@dataclass(frozen=True)
class Task:
    """Windows of 60 bp and what they are."""

    train: Examples
    valid: Examples
    test: Examples
    target: Target


def plant(codes: NDArray[np.uint8], rows: NDArray[np.bool_], word: NDArray[np.uint8], start: int) -> None:
    codes[rows, start : start + len(word)] = word


def split(codes: NDArray[np.uint8], truth: NDArray[np.generic], target: Target) -> Task:
    return Task(*(Examples(codes[rows], SCANNER, truth[rows]) for rows in PARTS), target)


@cache
def planted_task(kind: Kind, classes: int = 2) -> Task:
    """Which of two words a window holds, each at its place; a fifth of the labels is unknown."""
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 4, size=(ROWS, 60), dtype=np.uint8)
    which = generator.integers(0, classes, size=ROWS)
    holds = np.stack([which == 1, which == 2], axis=1) if kind == "classes" else generator.random((ROWS, 2)) < 0.5
    for column, (word, start) in enumerate(zip(WORDS, (10, 35), strict=True)):
        plant(codes, holds[:, column], word, start)
    if kind == "classes":
        return split(codes, which, Target("classes", tuple("abc"[:classes])))
    if kind == "labels":
        unknown = generator.random((ROWS, 2)) < 0.2
        return split(codes, np.where(unknown, np.nan, holds), Target("labels", ("first", "second")))
    value = 5 + 2 * holds[:, :1] + generator.normal(scale=0.3, size=(ROWS, 1))
    return split(codes, value, Target("value", ("value",), float(value[PARTS[0]].mean()), float(value[PARTS[0]].std())))


@pytest.fixture(scope="session")
def task() -> Callable[..., Task]:
    return planted_task


@pytest.fixture(scope="session")
def cell_type_task() -> Task:
    """Random windows that are what the cell type says, which differ in what is accessible and in the motifs there."""
    generator = np.random.default_rng(1)
    places = [("chr1", start) for start in (1000, 3000, 20_000, 30_000)] + [("chr2", 100), ("chr2", 5000)]
    members = {"B": {0: 1.0, 1: 1.0, 4: 1.0}, "T": {2: 1.0, 3: 1.0, 5: 1.0}}
    corpus = toys.corpus_of(places, members, motifs=SCANNER.motifs)
    codes = generator.integers(0, 4, size=(ROWS, 60), dtype=np.uint8)
    cell_type = generator.integers(0, 2, size=ROWS)
    parts = [
        Examples(codes[rows], SCANNER, cell_type[rows], Context(corpus, cell_type[rows], np.zeros(len(rows), int)), 2)
        for rows in PARTS
    ]
    return Task(*parts, Target("classes", ("B", "T")))
