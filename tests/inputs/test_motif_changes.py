from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from toys import write_fasta

from genebert.inputs.genome import Genome
from genebert.inputs.motif_changes import MOTIF_FLANK, best_site, binding, binding_changes, motif_changes
from genebert.inputs.scan import Scanner
from genebert.schema import EVIDENCE_STEPS, Motif, Variant, decode, encode, reverse_complement

SITE = "GATTACA"
FAR = "TTGCCGGAATTC"


def motif(name: str, site: str) -> Motif:
    probabilities = np.full((len(site), 4), 0.01)
    probabilities[np.arange(len(site)), encode(site).codes] = 0.97
    return Motif(name, name, probabilities)


@pytest.fixture
def scanner() -> Scanner:
    return Scanner([motif("site", SITE), motif("far", FAR)])


@pytest.fixture
def genome(tmp_path: Path) -> Iterator[Genome]:
    random = "".join(np.random.default_rng(0).choice(list("ACGT"), 400).tolist())
    sequence = random[:100] + SITE + random[107:300] + FAR + random[312:]
    with Genome(write_fasta(tmp_path / "genome.fa", {"chr1": sequence})) as opened:
        yield opened


def by_hand(genome: Genome, scanner: Scanner, variant: Variant) -> list[float]:
    """Edit the chromosome's letters, and scan what lies within reach."""
    letters = decode(genome.fetch("chr1", 0, genome.lengths["chr1"]))
    at, end = variant.position, variant.position + len(variant.ref)
    first, last = max(at - MOTIF_FLANK, 0), end + MOTIF_FLANK
    alternate = letters[first:at] + variant.alt + letters[end:last]
    hits = [scanner.scan(encode(text).codes[None])[0].astype(float) for text in (letters[first:last], alternate)]
    return list((hits[1] - hits[0]) / EVIDENCE_STEPS)


@pytest.mark.parametrize(
    "variant",
    [
        Variant("chr1", 103, "T", "C"),
        Variant("chr1", 99, "", ""),
        Variant("chr1", 101, "ATT", "A"),
        Variant("chr1", 305, "G", "GACGT"),
        Variant("chr1", 0, "", "A"),
        Variant("chr1", 399, "", "T"),
    ],
)
def test_changes_are_those_of_the_edited_letters(variant: Variant, genome: Genome, scanner: Scanner) -> None:
    found = motif_changes(genome, scanner, [variant])
    assert found.dtype == np.float32
    assert found[0].tolist() == by_hand(genome, scanner, variant)


def test_a_broken_site_is_lost_and_a_planted_one_gained(genome: Genome, scanner: Scanner) -> None:
    base = decode(genome.fetch("chr1", 200, 201))
    planted = decode(reverse_complement(encode(SITE).codes))
    broken, gained = motif_changes(
        genome, scanner, [Variant("chr1", 103, "T", "G"), Variant("chr1", 200, base, base + planted)]
    )
    assert broken[0] < 0 and broken[1] == 0
    assert gained[0] > 0


def test_changes_do_not_depend_on_the_other_variants(genome: Genome, scanner: Scanner) -> None:
    variants = [Variant("chr1", 103, "T", "TACGTTGCAACGT"), Variant("chr1", 104, "A", "C")]
    together = motif_changes(genome, scanner, variants)
    apart = [motif_changes(genome, scanner, [variant])[0] for variant in variants]
    assert np.array_equal(together, np.stack(apart))


def test_no_variants_have_no_changes(genome: Genome, scanner: Scanner) -> None:
    assert motif_changes(genome, scanner, []).shape == (0, 2)


def test_the_best_site_is_where_it_was_planted_on_either_strand(genome: Genome, scanner: Scanner) -> None:
    base = decode(genome.fetch("chr1", 200, 201))
    planted = decode(reverse_complement(encode(SITE).codes))
    assert best_site(genome, scanner, Variant("chr1", 103, "T", "G"), 0, alternate=False) == (-3, False)
    assert best_site(genome, scanner, Variant("chr1", 200, base, base + planted), 0, alternate=True) == (1, True)
    assert best_site(genome, scanner, Variant("chr1", 305, "G", "C"), 1, alternate=False) == (-5, False)


def test_binding_is_nothing_for_chance_hits_and_linear_from_there_on() -> None:
    evidence = np.array([0, 16, 64, 128, 255], dtype=np.uint8)
    expected = [np.log1p(10 ** (e / 16 - 4.0)) for e in evidence.tolist()]
    np.testing.assert_allclose(binding(evidence), expected, rtol=1e-5)
    assert binding(evidence)[2] == pytest.approx(np.log(2))


def test_binding_changes_are_those_of_the_best_hits(genome: Genome, scanner: Scanner) -> None:
    broken = Variant("chr1", 103, "T", "C")
    before, after = (
        scanner.scan(encode(letters).codes[None])[0]
        for letters in (
            decode(genome.fetch("chr1", 73, 134)),
            decode(genome.fetch("chr1", 73, 103)) + "C" + decode(genome.fetch("chr1", 104, 134)),
        )
    )
    found = binding_changes(genome, scanner, [broken])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], binding(after) - binding(before), atol=1e-6)
    assert found[0, 0] < -0.2
    assert abs(found[0, 1]) < abs(found[0, 0])
