"""Scores of variants by a pre-trained model alone, which has seen no label.

Three questions are put to the model, on both strands, whose answers are averaged:

* likelihood ratio: how much more likely does it find the alternate bases than the reference bases, where they are
  hidden from it? For masked models of proteins this is the masked marginal of Meier et al. (2021, NeurIPS 34:29287).
* embedding distance: how far does the alternate allele move the pooled states of the sequence?
* matching shift: does the window, with its motifs scanned again, match its own region matrix (SRM) better or worse, in
  each cell type?
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.device import pick_device
from genebert.errors import Problems, UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.scan import Scanner
from genebert.methods.networks import evaluating
from genebert.model.genebert import GeneBertForPreTraining
from genebert.pretrained import check_motifs, check_width, load_weights, read_scanner
from genebert.region_matrix import neighbourhood
from genebert.schema import N, Variant, reverse_complement
from genebert.settings import Device
from genebert.stage import Manifest, read_manifest
from genebert.tokens import can_be_hidden, hide, segments, sequence_tokens
from genebert.variants.scorer import CHUNK, Scores, WindowScorer
from genebert.variants.windows import Pair

FURTHER = ("likelihood_ratio", "embedding_distance")
_NO_BASE = np.log(4)
"""What a base costs of which nothing is known, in nats: indels are compared with random bases."""
Numbers = NDArray[np.float64]
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Pretrained:
    """What `genebert pretrain` made, and a corpus to use it with.

    Attributes:
        manifest: of `genebert pretrain`.
        model: in eval mode, on its device.
        scanner: of its motif collection, which is the corpus' too.
        corpus: whose regions surround windows.
    """

    manifest: Manifest
    model: GeneBertForPreTraining
    scanner: Scanner
    corpus: Corpus

    @classmethod
    def open(cls, folder: Path, corpus: Path | None, device: Device = "auto") -> Self:
        """Open the folder of a model, and that of a corpus.

        Raises:
            UserError: a folder cannot be used, they do not belong together, or the model was pre-trained without MGM or
                SRM.
        """
        manifest = read_manifest(folder, "pretrain", verify=True)
        if corpus is None:
            what = "a pre-trained model compares sequences with region matrices"
            raise UserError(problem(folder, what, "Add --corpus, a folder made by prepare."))
        opened, scanner = Corpus.open(corpus), read_scanner(folder)
        check_motifs(scanner, opened, f"the model {folder}")
        found = Problems(f"The model {folder} cannot score variants by itself:")
        for task in ("mgm", "srm"):
            if manifest.settings[f"{task}_weight"] == 0:
                found.add(task.upper(), "it was pre-trained without it", "Pre-train with it, or give a predictor.")
        found.raise_any()
        model: GeneBertForPreTraining = load_weights(GeneBertForPreTraining, folder)
        check_width(model.config.k, model.config.max_tokens, opened, folder)
        return cls(manifest, model.to(pick_device(device)).eval(), scanner, opened)

    @property
    def width(self) -> int:
        """Length of the corpus' regions, in bp."""
        return self.corpus.width


@dataclass(frozen=True)
class ZeroShotScores(Scores):
    """Scores of n variants by a pre-trained model; reference and alternate are SRM's logits, cosine times scale.

    Attributes:
        likelihood_ratio: log p of the alternate bases minus log p of the reference bases, in nats, float64, shape (n,).
        embedding_distance: L2 distance of the pooled states of both windows, float64, shape (n,).
    """

    likelihood_ratio: Numbers
    embedding_distance: Numbers

    @property
    def further(self) -> dict[str, Numbers]:
        """See `Scores`."""
        return {name: getattr(self, name) for name in FURTHER}


class ZeroShotScorer(WindowScorer):
    """Scores windows with a pre-trained model, in all chosen cell types.

    Args:
        pretrained: the model and the corpus.
        genome, cell_types, shifts: see `WindowScorer`.
    """

    kind = ZeroShotScores
    further = FURTHER
    what = "logits of the match of sequence and region matrix"

    def __init__(self, pretrained: Pretrained, genome: Genome, cell_types: Sequence[str], shifts: int = 1) -> None:
        super().__init__(pretrained, genome, pretrained.corpus, cell_types, shifts)
        self.network, self.around = pretrained.model, pretrained.corpus
        self._states = self.network.genebert.sequence_width

    def named(self, pairs: list[Pair]) -> dict[str, Numbers]:
        """See `ZeroShotScores`."""
        before, after = self.of_both(pairs, self.encoded)
        strands = 2 * self._states
        moved = (after - before)[:, :strands].reshape(len(pairs), 2, -1)
        return {
            "reference": before[:, strands:],
            "alternate": after[:, strands:],
            "likelihood_ratio": self.likelihood_ratios(pairs),
            "embedding_distance": np.linalg.norm(moved, axis=2).mean(axis=1),
        }

    def encoded(self, codes: Codes, chroms: list[str], starts: NDArray[np.int64]) -> Numbers:
        """Return what the model makes of windows.

        Returns:
            float64, shape (n, 2 * width + cell types): pooled states of both strands, and SRM's logits.
        """
        return self.in_batches(codes, chroms, starts, partial(self._encode, indices=self._indices))

    def _batch(self, codes: Codes, position: NDArray[np.int64], indices: NDArray[np.int64]) -> Numbers:
        return self._encode(codes, position, indices)[:, 2 * self._states :]

    def _encode(self, codes: Codes, position: NDArray[np.int64], indices: NDArray[np.int64]) -> Numbers:
        evidence, head = self.model.scanner.scan(codes), self.network.matching_head
        with evaluating(self.network):
            strands = [self._sequence(one) for one in (codes, reverse_complement(codes))]
            sequence = torch.stack([head.project_sequence(one) for one in strands]).mean(dim=0)
            regions = (head.project_region(self._region(evidence, position, index)) for index in indices)
            logits = [head.scale * (sequence * region).sum(dim=1) for region in regions]
            return torch.cat([*strands, torch.stack(logits, dim=1)], dim=1).double().cpu().numpy()

    def _sequence(self, codes: Codes) -> torch.Tensor:
        ids, segment_ids = (torch.from_numpy(one).to(self.network.device) for one in sequence_tokens(codes, self._k))
        pooled: torch.Tensor = self.network.genebert(ids, segment_ids).sequence
        return pooled

    def _region(self, evidence: NDArray[np.uint8], position: NDArray[np.int64], cell_type: np.int64) -> torch.Tensor:
        columns, cell_types = self.network.config.region_columns, np.full(len(position), cell_type)
        matrix = neighbourhood(self.around, cell_types, position, evidence, columns, self.around.width)
        pooled: torch.Tensor = self.network.genebert(matrix=matrix.to(self.network.device)).region
        return pooled

    def likelihood_ratios(self, pairs: Sequence[Pair]) -> Numbers:
        """Return log p of the alternate minus log p of the reference bases, each hidden by itself: shape (n,).

        Only bases that differ count, and those that an allele has more than the other are compared with random bases.
        So that a single base can be hidden at all where tokens are k-mers, windows are moved by a few bases.
        """
        ratios = np.zeros(len(pairs))
        asked = [(i, sign, *base) for i, pair in enumerate(pairs) for sign, *base in self._bases(pair)]
        if not asked:
            return ratios
        pair, sign, codes, place = map(np.array, zip(*asked, strict=True))
        hidden = place[:, None] == np.arange(codes.shape[1])
        strands = (codes, hidden), (reverse_complement(codes), hidden[:, ::-1])
        known = np.mean([self._log_probability(*strand) for strand in strands], axis=0)
        np.add.at(ratios, pair, sign * (known + _NO_BASE))
        return ratios

    def _bases(self, pair: Pair) -> Iterator[tuple[int, Codes, int]]:
        """Yield sign (alternate: 1, reference: -1), window and place of each base in which the alleles differ."""
        start, *alleles = _differing(pair.variant)
        first, same = start - pair.start, _alike(*alleles)
        for sign, allele, codes in zip((-1, 1), alleles, (pair.reference, pair.alternate), strict=True):
            places = range(max(first, 0), min(first + len(allele), len(codes)))
            for place in (place for place in places if place - first not in same):
                moved = self._moves[place]
                yield sign, _moved(codes, moved), place + moved

    @cached_property
    def _moves(self) -> NDArray[np.int64]:
        """By how much to move a window so that the base at a place can be hidden on both strands: shape (width,)."""
        possible = can_be_hidden(self.model.width, self._k)
        targets = np.flatnonzero(possible & possible[::-1])
        places = np.arange(self.model.width)
        return targets[np.abs(targets[:, None] - places).argmin(axis=0)] - places

    def _log_probability(self, codes: Codes, hidden: NDArray[np.bool_]) -> Numbers:
        """Return log p of the one base of each sequence that is hidden: shape (n,); equal inputs are encoded once."""
        masked = hide(codes, self._k, hidden)
        _, first, which = np.unique(masked.ids, axis=0, return_index=True, return_inverse=True)
        batches = (first[begin : begin + CHUNK] for begin in range(0, len(first), CHUNK))
        found = np.concatenate([self._base_log_probs(masked.ids[rows], masked.token[rows]) for rows in batches])
        known: Numbers = found[which.reshape(-1), masked.target]
        return known

    def _base_log_probs(self, ids: NDArray[np.int64], token: NDArray[np.int64]) -> Numbers:
        """Return log p of the bases at one token of each sequence: shape (n, 4)."""
        network, rows = self.network, np.arange(len(ids))
        inputs = ids, segments(len(ids), self.model.width, self._k)
        with evaluating(self.network):
            states = network.genebert(*(torch.from_numpy(one).to(network.device) for one in inputs)).last_hidden_state
            found: torch.Tensor = network.base_head(states[rows, token], network.genebert.token_embeddings)
        return found.double().cpu().numpy()

    @property
    def _k(self) -> int:
        return int(self.network.config.k)


def _differing(variant: Variant) -> tuple[int, str, str]:
    """Return the alleles without the bases that they share at either end, and where they begin on the genome."""
    position, ref, alt = variant.position, variant.ref, variant.alt
    while ref and alt and ref[0] == alt[0]:  # first, as windows may begin after what alleles share
        position, ref, alt = position + 1, ref[1:], alt[1:]
    while ref and alt and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    return position, ref, alt


def _alike(ref: str, alt: str) -> set[int]:
    """Return the places in which alleles of one length agree; which bases of others correspond is not known."""
    return {i for i, (a, b) in enumerate(zip(ref, alt, strict=True)) if a == b} if len(ref) == len(alt) else set()


def _moved(codes: Codes, by: int) -> Codes:
    """Return a window whose bases lie some places further right, or left if negative; what comes in is N."""
    moved = np.full_like(codes, N)
    moved[max(by, 0) : len(codes) + min(by, 0)] = codes[max(-by, 0) : len(codes) - max(by, 0)]
    return moved
