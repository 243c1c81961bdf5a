import numpy as np

from genebert.schema import encode
from genebert.tasks.baselines import fit_kmer_regression, kmer_counts
from genebert.tokens import VOCABULARY_BASES


def test_kmer_counts_by_hand() -> None:
    counts = kmer_counts(np.stack([encode("AATAA").codes, encode("ANTAA").codes]), 2).toarray()
    kmers = [a + b for a in VOCABULARY_BASES for b in VOCABULARY_BASES]
    named = [{kmer: int(n) for kmer, n in zip(kmers, row, strict=True) if n} for row in counts]
    assert named == [{"AA": 2, "AT": 1, "TA": 1}, {"TA": 1, "AA": 1}]


def test_regression_finds_a_planted_kmer_and_uses_the_cell_type() -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 4, size=(400, 60), dtype=np.uint8)
    label = generator.integers(0, 2, size=400)
    codes[label == 1, 20:28] = encode("GATAAGCC").codes
    split = {"train": slice(0, 200), "valid": slice(200, 300)}
    model = fit_kmer_regression(
        {s: codes[r] for s, r in split.items()}, {s: label[r] for s, r in split.items()}, None, 0
    )
    assert (model.predict(codes[300:], None).argmax(1) == label[300:]).mean() > 0.95
    noise = generator.integers(0, 4, size=(400, 60), dtype=np.uint8)
    kinds = {s: label[r] for s, r in split.items()}
    model = fit_kmer_regression({s: noise[r] for s, r in split.items()}, kinds, kinds, 2)
    assert (model.predict(noise[300:], label[300:]).argmax(1) == label[300:]).mean() > 0.95
