from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toys
from numpy.typing import NDArray
from scipy.optimize import minimize

from genebert.cell_type_distance import FILE, KnownCellTypes, _distance, new_cell_types
from genebert.corpus.store import Corpus
from genebert.errors import UserError

MOTIFS = 40
ON_CHROMOSOME = 900


def atlas(programmes: NDArray[np.float64], generator: np.random.Generator, accessible: int = 250) -> Corpus:
    """A corpus whose cell types c0, c1, ... open regions by the TFs that they express.

    Evidence is independent of cell types; a region is open where its evidence fits a programme best, with noise.

    Args:
        programmes: weight of each TF in each cell type, shape (c, MOTIFS).
        generator: makes evidence and noise.
        accessible: regions that are open in each cell type.
    """
    regions = [(chrom, 20 * i) for chrom in toys.CHROMOSOMES for i in range(ON_CHROMOSOME)]
    evidence = generator.integers(0, 256, size=(len(regions), MOTIFS), dtype=np.uint8)
    activity = (evidence / 255 - 0.5) @ programmes.T + generator.normal(0, 0.3, (len(regions), len(programmes)))
    order = np.argsort(-activity, axis=0)[: 3 * accessible]
    corpus = toys.corpus_of(
        regions,
        {f"c{i}": dict.fromkeys(order[:, i].tolist(), 1.0) for i in range(len(programmes))},
        width=20,
        test=["chr3"],
        motifs=[toys.random_motif(f"m{i}", 4, generator) for i in range(MOTIFS)],
    )
    corpus.evidence[:] = evidence
    return corpus


def lineages(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Programmes that share most TFs, and differ somewhat in how they weigh them: shape (count, MOTIFS)."""
    shared = np.zeros(MOTIFS)
    shared[:8] = 1
    return shared + generator.normal(0, 0.25, size=(count, MOTIFS)) * (np.arange(MOTIFS) < 16)


def test_usage_is_mean_standardised_evidence_on_training_chromosomes() -> None:
    corpus = atlas(lineages(2, np.random.default_rng(0)), np.random.default_rng(1))
    known = KnownCellTypes.of(corpus, ["c0"])
    train = np.flatnonzero(corpus.split == 0)
    evidence = corpus.evidence.astype(float)
    z = (evidence - evidence[train].mean(axis=0)) / evidence[train].std(axis=0)
    held_out = (corpus.regions["chrom"] == "chr3").to_numpy()
    own = [region for region in corpus.accessible(0) if not held_out[region]]
    assert known.usage[0] == pytest.approx(z[own].mean(axis=0))
    assert known.regions.tolist() == [len(own)]


def test_held_out_regions_have_no_say() -> None:
    corpus = atlas(lineages(3, np.random.default_rng(0)), np.random.default_rng(1))
    before = KnownCellTypes.of(corpus, corpus.cell_types)
    corpus.evidence[corpus.regions["chrom"] == "chr3"] = 255
    after = KnownCellTypes.of(corpus, corpus.cell_types)
    assert np.array_equal(before.usage, after.usage)


def test_a_cell_type_without_regions_on_training_chromosomes_is_measured_where_it_has_some() -> None:
    regions = [("chr1", 100), ("chr3", 100), ("chr3", 300)]
    corpus = toys.corpus_of(regions, {"a": {0: 1.0, 1: 1.0}, "b": {1: 1.0, 2: 1.0}}, test=["chr3"])
    corpus.evidence[:, 0] = [10, 20, 30]
    assert KnownCellTypes.of(corpus, ["a", "b"]).usage[:, 0].tolist() == [0.0, 15.0]


@pytest.mark.parametrize("seed", range(5))
def test_distance_is_that_from_the_convex_hull(seed: int) -> None:
    generator = np.random.default_rng(seed)
    known, usage = generator.normal(size=(4, 6)), generator.normal(size=6)

    def squared(weights: NDArray[np.float64]) -> float:
        return float(((weights @ known - usage) ** 2).mean())

    one = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    found = minimize(squared, np.full(4, 0.25), bounds=[(0, 1)] * 4, constraints=one, options={"ftol": 1e-12})
    assert _distance(usage, known) == pytest.approx(np.sqrt(found.fun), abs=1e-4)


def test_distance_of_a_square_by_hand() -> None:
    square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert _distance(np.array([0.3, 0.6]), square) == pytest.approx(0, abs=1e-9)
    assert _distance(np.array([3.0, 0.5]), square) == pytest.approx(2 / np.sqrt(2))
    assert _distance(np.array([2.0, 2.0]), square) == pytest.approx(1)


def test_an_odd_cell_type_is_flagged_and_replicates_and_mixtures_are_not() -> None:
    generator = np.random.default_rng(3)
    programmes = lineages(10, generator)
    odd = np.where(np.arange(MOTIFS) >= 32, 1.0, 0.0)
    others = np.stack([programmes[0], (programmes[1] + programmes[2]) / 2, odd])
    corpus = atlas(np.concatenate([programmes, others]), generator)
    known = KnownCellTypes.of(corpus, [f"c{i}" for i in range(10)])
    replicate, mixture, strange, trained = known.distances(corpus, ["c10", "c11", "c12", "c4"])
    assert [one.unlike for one in (replicate, mixture, strange, trained)] == [False, False, True, False]
    assert replicate.nearest == "c0"
    assert strange.p == pytest.approx(1 / 11)
    assert (trained.distance, trained.p) == (pytest.approx(0, abs=1e-6), 1)
    assert strange.distance > 3 * max(replicate.distance, mixture.distance)


def test_a_replicate_of_few_regions_is_not_flagged_for_its_noise() -> None:
    """Without regard to their number, 30 regions of a known cell type once were farther than any other cell type."""
    generator = np.random.default_rng(4)
    corpus = atlas(lineages(10, generator), generator)
    own = corpus.accessible(0)
    own = own[(corpus.regions["chrom"] != "chr3").to_numpy()[own]]
    known = KnownCellTypes.of(corpus, corpus.cell_types)
    z = (corpus.evidence.astype(float) - known.mean) / known.deviation
    thinned = [z[generator.choice(own, 30, replace=False)].mean(axis=0) for _ in range(20)]
    assert all(_distance(usage, known.usage) > known.left_out.max() for usage in thinned)
    assert sum(known._judge("thinned", usage, 30).unlike for usage in thinned) <= 1


def test_under_the_null_a_new_cell_type_is_flagged_as_often_as_its_p_says() -> None:
    """Each of 11 cell types of one kind in turn is new: 1 in 11 is as far as the farthest, whichever it is."""
    flagged, p_values = [], []
    for seed in range(8):
        generator = np.random.default_rng(seed)
        corpus = atlas(lineages(11, generator), generator, accessible=100)
        for name in corpus.cell_types:
            others = [other for other in corpus.cell_types if other != name]
            (one,) = KnownCellTypes.of(corpus, others).distances(corpus, [name])
            flagged.append(one.unlike)
            p_values.append(one.p)
    assert np.mean(flagged) <= 0.2
    assert 0.35 < np.mean(p_values) < 0.75


def test_few_known_cell_types_tell_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    corpus = atlas(lineages(3, np.random.default_rng(0)), np.random.default_rng(1))
    found = new_cell_types(KnownCellTypes.of(corpus, ["c0", "c1"]).distances(corpus, corpus.cell_types))
    assert [(one["cell_type"], one["p"], one["unlike"]) for one in found] == [("c2", None, False)]
    assert "too few to say whether that is far" in capsys.readouterr().err


def test_a_cell_type_of_no_region_tells_nothing_and_nothing_is_told_of_it() -> None:
    corpus = toys.random_corpus(np.random.default_rng(0), regions=60)
    full = KnownCellTypes.of(corpus, corpus.cell_types)
    ends = corpus.accessible_offsets.copy()
    last = ends[-2]
    ends[-1] = last
    shut = replace(
        corpus,
        accessible_offsets=ends,
        accessible_regions=corpus.accessible_regions[:last],
        accessible_values=corpus.accessible_values[:last],
    )
    known = KnownCellTypes.of(shut, shut.cell_types)
    assert known.names == full.names[:-1]
    np.testing.assert_array_equal(known.usage, full.usage[:-1])
    found = known.distances(shut, shut.cell_types)
    assert found[-1].p is None and not found[-1].unlike
    assert [one.distance for one in found[:-1]] == pytest.approx([0] * len(known.names), abs=1e-6)


def test_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(3)
    odd = np.where(np.arange(MOTIFS) >= 32, 1.0, 0.0)
    programmes = lineages(5, generator)
    corpus = atlas(np.concatenate([programmes, odd[None], programmes[:1]]), generator)
    new_cell_types(KnownCellTypes.of(corpus, corpus.cell_types[:5]).distances(corpus, ["c0", "c5", "c6"]))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("warning: c5: its TF usage is ")
    assert lines[0].endswith("predictions may be wrong; they are few, so that this says little")
    assert lines[1].endswith("nearest c0), as they are from each other")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    corpus = atlas(lineages(4, np.random.default_rng(0)), np.random.default_rng(1))
    known = KnownCellTypes.of(corpus, ["c0", "c1", "c2"])
    assert KnownCellTypes.load(tmp_path) is None
    known.save(tmp_path)
    written = (tmp_path / FILE).read_bytes()
    read = KnownCellTypes.load(tmp_path)
    assert read is not None
    assert read.distances(corpus, corpus.cell_types) == known.distances(corpus, corpus.cell_types)
    known.save(tmp_path)
    assert (tmp_path / FILE).read_bytes() == written
    (tmp_path / FILE).write_bytes(written[:100])
    with pytest.raises(UserError, match="Fine-tune again"):
        KnownCellTypes.load(tmp_path)
