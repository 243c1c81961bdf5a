import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import toys

from genebert.inputs.scan import Scanner
from genebert.methods import base
from genebert.methods.base import Examples, blocks_of
from genebert.region_matrix import Context

SCANNER = Scanner([toys.consensus_motif(word, word, 0.9) for word in ("GATAAG", "CACGTG", "TGACTCA")])


def examples(rows: int = 50) -> Examples:
    return Examples(np.random.default_rng(0).integers(0, 5, size=(rows, 40), dtype=np.uint8), SCANNER)


@pytest.fixture
def in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Motif evidence of more than 100 bytes lies in a file in this folder, and is written 7 rows at a time."""
    monkeypatch.setattr(base, "MOST_IN_MEMORY", 100)
    monkeypatch.setattr(base, "_ROWS", 7)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_blocks_are_all_rows_once() -> None:
    rows = np.arange(10_000)
    assert [len(rows[block]) for block in blocks_of(len(rows))] == [4096, 4096, 1808]
    assert np.concatenate([rows[block] for block in blocks_of(len(rows))]).tolist() == rows.tolist()
    assert list(blocks_of(0)) == []


@pytest.mark.parametrize("tiles", [1, 4])
def test_large_evidence_lies_in_a_file_that_does_not_stay(tiles: int, in_a_file: Path) -> None:
    large = examples()
    evidence = large.tiled(tiles)
    assert isinstance(evidence, np.memmap) and not isinstance(examples(5).tiled(tiles), np.memmap)
    np.testing.assert_array_equal(evidence, SCANNER.scan_tiles(large.codes, tiles))
    assert large.tiled(tiles) is evidence  # scanned once
    assert list(in_a_file.iterdir()) == []


@pytest.mark.parametrize("limit", [100, 1 << 30])
def test_a_window_that_recurs_in_other_cell_types_is_scanned_once(
    limit: int, in_a_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MOST_IN_MEMORY", limit)
    corpus = toys.random_corpus(np.random.default_rng(0), regions=60)
    codes = np.repeat(examples(7).codes, 4, axis=0)
    where = Context(corpus, np.tile(np.arange(4), 7), np.repeat(corpus.region_positions[:7], 4))
    expected, scanned, scan = SCANNER.scan_tiles(codes, 2), [], Scanner.scan_tiles

    def counting(self: Scanner, codes: np.ndarray, tiles: int) -> np.ndarray:
        scanned.append(len(codes))
        return scan(self, codes, tiles)

    monkeypatch.setattr(Scanner, "scan_tiles", counting)
    np.testing.assert_array_equal(Examples(codes, SCANNER, None, where, 4).tiled(2), expected)
    assert sum(scanned) == (7 if limit > 100 else 10)  # a window on either side of a block of 7 rows is scanned twice


def test_evidence_in_a_file_is_read_as_one_in_memory_is(in_a_file: Path) -> None:
    large = examples()
    evidence, rows = large.tiled(4), np.array([3, 3, 20])
    some = evidence[rows]
    some[:] = 0  # what a batch does with its rows is not done to the others
    np.testing.assert_array_equal(evidence, SCANNER.scan_tiles(large.codes, 4))
    np.testing.assert_array_equal(torch.from_numpy(evidence).numpy(), evidence)
    chosen = large.rows(rows)
    np.testing.assert_array_equal(chosen.tiled(4), SCANNER.scan_tiles(large.codes[rows], 4))
    assert large.evidence.shape == (50, 3)
