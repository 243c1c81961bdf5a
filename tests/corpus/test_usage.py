import numpy as np
import pytest
import toys

from genebert.corpus.store import Corpus
from genebert.corpus.usage import PARTS, Usage, evidence_sums

PLACES = [(chrom, start) for chrom in ("chr1", "chr2", "chr3") for start in (100, 400, 700)]
MEMBERS = {"B": {0: 1.0, 3: 1.0, 4: 1.0}, "T": {1: 1.0, 2: 1.0, 8: 1.0}}


def corpus_of(**changes: object) -> Corpus:
    motifs = [toys.consensus_motif("GATA", "GATAAG", 0.9), toys.consensus_motif("ETS", "CCGGAAGT", 0.9)]
    return toys.corpus_of(PLACES, MEMBERS, motifs=motifs, **changes)


def at(corpus: Corpus, cell_type: int, chrom: str) -> np.ndarray:
    return corpus.usage.at(corpus, np.array([cell_type]), corpus.line_positions([chrom], np.array([450])))[0]


def test_usage_is_the_mean_evidence_of_accessible_regions_on_other_chromosomes() -> None:
    corpus = corpus_of()
    expected = {("B", "chr1"): [3, 4], ("B", "chr2"): [0], ("B", "chr3"): [0, 3, 4], ("T", "chr1"): [8]}
    for (name, chrom), regions in expected.items():
        found = at(corpus, corpus.cell_types.index(name), chrom)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, corpus.evidence[regions].mean(axis=0))


def test_a_window_is_not_told_whether_it_is_accessible() -> None:
    """What is accessible on a chromosome does not change the usage that goes with windows on it."""
    first = corpus_of()
    second = toys.corpus_of(PLACES, {**MEMBERS, "B": {1: 2.0, 2: 1.0, 3: 1.0, 4: 1.0}}, motifs=first.motifs)
    assert np.array_equal(first.evidence, second.evidence)
    assert np.array_equal(at(first, 0, "chr1"), at(second, 0, "chr1"))
    assert not np.array_equal(at(first, 0, "chr3"), at(second, 0, "chr3"))


def test_held_out_chromosomes_are_in_no_usage() -> None:
    corpus = corpus_of(test=["chr3"])
    np.testing.assert_allclose(at(corpus, 0, "chr3"), corpus.evidence[[0, 3, 4]].mean(axis=0))
    np.testing.assert_allclose(at(corpus, 1, "chr3"), corpus.evidence[[1, 2]].mean(axis=0))
    np.testing.assert_allclose(at(corpus, 0, "chr1"), corpus.evidence[[3, 4]].mean(axis=0))
    np.testing.assert_allclose(at(corpus, 1, "chr2"), corpus.evidence[[1, 2]].mean(axis=0))
    assert corpus.usage.part.tolist() == [0, 1, PARTS]


def test_with_one_training_chromosome_cell_types_use_motifs_alike() -> None:
    """Windows on it must not be told of their own chromosome, and those held out not of more than these."""
    corpus = corpus_of(valid=["chr2"], test=["chr3"])
    assert corpus.usage.part.tolist() == [0, PARTS, PARTS]
    everywhere = corpus.evidence[[0, 1, 2]].mean(axis=0)
    for chrom in ("chr1", "chr2", "chr3"):
        for cell_type in (0, 1):
            np.testing.assert_allclose(at(corpus, cell_type, chrom), everywhere)
    assert np.array_equal(corpus.usage.everywhere, np.tile(corpus.usage.everywhere[PARTS], (PARTS + 1, 1)))


def test_without_regions_elsewhere_usage_is_that_of_all_training_regions() -> None:
    corpus = corpus_of()
    np.testing.assert_allclose(at(corpus, 1, "chr3"), corpus.evidence[[1, 2]].mean(axis=0))
    alone = toys.corpus_of(PLACES, {"B": {0: 1.0, 1: 1.0}, "T": {3: 1.0, 7: 1.0}}, motifs=corpus.motifs)
    np.testing.assert_allclose(at(alone, 0, "chr1"), alone.evidence[[3, 7]].mean(axis=0))
    np.testing.assert_allclose(alone.usage.everywhere[PARTS], alone.evidence[[0, 1, 3, 7]].mean(axis=0))


def test_a_cell_type_that_joins_changes_nothing_of_others() -> None:
    """It is held out for testing, and the regions that it brings along are in no split."""
    before = corpus_of()
    joined = {**MEMBERS, "X": {0: 1.0, 5: 1.0, 6: 1.0}}
    after = toys.corpus_of(PLACES, joined, motifs=before.motifs, test_cell_types=["X"])
    assert np.array_equal(after.usage.mean[:, :2], before.usage.mean)
    assert np.array_equal(after.usage.everywhere, before.usage.everywhere)


def test_chromosomes_are_divided_evenly_by_length() -> None:
    lengths = {f"chr{i}": 1000 - i for i in range(1, 23)}
    corpus = toys.corpus_of([("chr1", 10)], {"B": {0: 1.0}}, lengths=lengths)
    part = Usage.of(corpus).part
    total = np.bincount(part, [lengths[name] for name in sorted(lengths)], minlength=PARTS)
    assert total.max() - total.min() <= 1000


@pytest.mark.parametrize("rows", [1, 7])
def test_sums_are_those_of_all_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = corpus_of()
    member = np.random.default_rng(0).random((3, len(PLACES))) < 0.5
    monkeypatch.setattr("genebert.corpus.usage._ROWS", rows)
    total, count = evidence_sums(corpus, member)
    assert np.array_equal(total, member.astype(int) @ corpus.evidence.astype(int))
    assert np.array_equal(count, member.sum(axis=1))


def test_alternative_sequences_are_with_their_chromosome() -> None:
    """They hold its sequence: usage of a window was told by its own copy, and by copies of held-out regions."""
    lengths = {"chr1": 10_000, "chr2": 9_000, "chr3": 8_000, "chr1_X1v1_alt": 3_000, "chr3_X2v1_alt": 2_000}
    places = [(chrom, 100) for chrom in lengths]
    everywhere = {"B": dict.fromkeys(range(5), 1.0)}
    motifs = corpus_of().motifs
    corpus = toys.corpus_of(
        sorted(places), everywhere, lengths=dict(sorted(lengths.items())), motifs=motifs, test=["chr3"]
    )
    part = {name: int(corpus.usage.part[i]) for name, i in corpus.chromosome_index.items()}
    assert part["chr1_X1v1_alt"] == part["chr1"] != part["chr2"]
    assert part["chr3_X2v1_alt"] == part["chr3"] == PARTS
