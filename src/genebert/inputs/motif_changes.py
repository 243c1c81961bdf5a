"""How alternate alleles change the motif hits around them.

Only a hit that overlaps a variant can change, so that a short stretch around it tells all: both alleles of it are
scanned, and the best hits compared.
"""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from genebert.inputs.genome import Genome
from genebert.inputs.scan import SCORE_OF_N, Scanner
from genebert.schema import EVIDENCE_STEPS, N, Variant, encode

MOTIF_FLANK = 30
"""Hits are sought within 30 bp of the variant, or farther if a motif is longer."""
HALF_BOUND = np.float32(4)
"""-log10 p of sites that are bound half of the time; see `binding_changes`."""


def motif_changes(genome: Genome, scanner: Scanner, variants: Sequence[Variant]) -> NDArray[np.float32]:
    """Return how the best hit of each motif near each variant changes.

    Args:
        genome: the genome.
        scanner: of the motif collection.
        variants: n alternate alleles, whose REF is what the genome has.

    Returns:
        float32, shape (n, motifs): -log10 p of the best hit within `MOTIF_FLANK` bp of the alternate allele, minus that
        of the reference allele; positive where the alternate allele strengthens it.
    """
    hits = motif_hits(genome, scanner, variants).astype(np.float32)
    return (hits[:, 1] - hits[:, 0]) / np.float32(EVIDENCE_STEPS)


def binding_changes(genome: Genome, scanner: Scanner, variants: Sequence[Variant]) -> NDArray[np.float32]:
    """Return how the binding of each motif near each variant changes, weak hits counting for little.

    Binding is ln(1 + 10^(e - 4)), e being -log10 p of the best hit: nothing for hits that chance finds everywhere, and
    linear in the score from p = 1e-4 on, as the free energy of a site is to which a TF binds at a concentration that
    fills half of the sites of that strength. Summed over the motifs, or weighted, it tells more of measured effects
    than the largest change of a single motif; see benchmarks/variant_effects.py.

    Args:
        genome, scanner, variants: see `motif_changes`.

    Returns:
        float32, shape (n, motifs): of the alternate allele minus that of the reference allele.
    """
    bound = binding(motif_hits(genome, scanner, variants))
    return bound[:, 1] - bound[:, 0]


def binding(evidence: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the binding that motif evidence stands for, see `binding_changes`: float32, same shape."""
    return np.logaddexp(0, (evidence / np.float32(EVIDENCE_STEPS) - HALF_BOUND) * np.log(10), dtype=np.float32)


def motif_hits(genome: Genome, scanner: Scanner, variants: Sequence[Variant]) -> NDArray[np.uint8]:
    """Return the evidence of each motif near each variant: uint8, shape (n, 2, motifs), reference allele first.

    Args:
        genome, scanner, variants: see `motif_changes`.
    """
    motifs, flank = scanner.motifs, flank_of(scanner)
    stretches = [codes for variant in variants for codes in _stretches(genome, variant, flank)]
    padded = np.full((len(stretches), max(map(len, stretches), default=0)), N, dtype=np.uint8)  # no hit covers N
    for row, codes in zip(padded, stretches, strict=True):
        row[: len(codes)] = codes
    return scanner.scan(padded).reshape(len(variants), 2, len(motifs))


def flank_of(scanner: Scanner) -> int:
    """Return how far from a variant hits are sought, in bp."""
    return max([MOTIF_FLANK, *(motif.width - 1 for motif in scanner.motifs)])


def best_site(genome: Genome, scanner: Scanner, variant: Variant, motif: int, alternate: bool) -> tuple[int, bool]:
    """Return where the best hit of a motif near a variant lies.

    Args:
        genome: the genome.
        scanner: of the motif collection.
        variant: the variant.
        motif: index of the motif.
        alternate: whether to look at the alternate allele, else at the reference.

    Returns:
        bp from the variant to the first base of the hit, in the sequence of that allele; whether the hit is on the
        reverse strand. Of equal hits it is the first one, on the forward strand rather than on the reverse.
    """
    flank = flank_of(scanner)
    codes = _stretches(genome, variant, flank)[alternate]
    scores = np.pad(scanner.scores[motif], ((0, 0), (0, 1)), constant_values=SCORE_OF_N)
    reverse = scores[::-1, [3, 2, 1, 0, 4]]
    places = sliding_window_view(codes, len(scores))
    columns = np.arange(len(scores))
    strands = np.stack([one[columns, places].sum(axis=1) for one in (scores, reverse)], axis=1)
    place, strand = np.unravel_index(strands.argmax(), strands.shape)
    return int(place) - flank, bool(strand)


def _stretches(genome: Genome, variant: Variant, flank: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the base codes near a variant, of both alleles."""
    after = flank + len(variant.ref)
    reference = genome.fetch(variant.chrom, variant.position - flank, variant.position + after)
    return reference, np.concatenate([reference[:flank], encode(variant.alt).codes, reference[after:]])
