import numpy as np
import toys

from genebert.corpus.surroundings import COLUMNS, NEAREST, surroundings

PLACES = [("chr1", 1000), ("chr1", 1500), ("chr1", 4000), ("chr1", 15_000), ("chr2", 100)]
CORPUS = toys.corpus_of(PLACES, {"B": {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 5.0}, "T": {1: 6.0, 3: 7.0, 4: 8.0}})


def at(cell_type: int, chrom: str, centre: int) -> np.ndarray:
    return surroundings(CORPUS, np.array([cell_type]), CORPUS.line_positions([chrom], np.array([centre])), 100)[0]


def test_surroundings_by_hand() -> None:
    """The window is the second region of 100 bp itself, so that one of the other four may be found less."""
    found = at(0, "chr1", 1550)
    assert found.dtype == np.float32 and len(found) == COLUMNS == 10
    np.testing.assert_allclose(10 ** found[:NEAREST], [500, 2500, 13_500, 20_000], rtol=1e-5)
    assert found[NEAREST:].tolist() == [1, 3, 4, 0, 2, 3]


def test_the_window_itself_tells_nothing() -> None:
    """In T the first region is not accessible, and in a cell type that is else the same it is."""
    other = toys.corpus_of(PLACES, {"B": {0: 1.0}, "T": {0: 9.0, 1: 6.0, 3: 7.0, 4: 8.0}})
    place, cell_type = CORPUS.line_positions(["chr1"], np.array([1050])), np.array([1])
    closed, opened = (surroundings(one, cell_type, place, 100)[0] for one in (CORPUS, other))
    assert closed[:1].tolist() == opened[:1].tolist() and closed[NEAREST] == opened[NEAREST] == 6


def test_where_nothing_is_accessible() -> None:
    found = at(1, "chr3", 5000)
    np.testing.assert_allclose(found, [np.log10(20_000)] * NEAREST + [0] * (NEAREST + 2), rtol=1e-6)
