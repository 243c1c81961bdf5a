"""Scores of variants by a pre-trained model alone, which has seen no label.

Three questions are put to the model, on both strands, whose answers are averaged:

* likelihood ratio: how much more likely does it find the alternate bases than the reference bases, where they are
  hidden from it? For masked models of proteins this is the masked marginal of Meier et al. (2021, NeurIPS 34:29287).
* embedding distance: how far does the alternate allele move the pooled states of the sequence?
* matching shift: does the window, with its motifs scanned again, match its own region matrix (SRM) better or worse, in
  each cell type?
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from genebert.batches import neighbourhood
from genebert.corpus.store import Corpus
from genebert.inputs.genome import Genome
from genebert.model.genebert import GeneBertForPreTraining
from genebert.pretrained import check_motifs, load_weights, read_scanner
from genebert.schema import N, Variant, reverse_complement
from genebert.settings import Device
from genebert.stage import read_manifest
from genebert.tokens import can_be_hidden, hide, segments, sequence_tokens
from genebert.training import pick_device
from genebert.variants.windows import Pair, VariantWindows

_BATCH = 64
_NO_BASE = np.log(4)
"""What a base costs of which nothing is known, in nats: indels are compared with random bases."""
Numbers = NDArray[np.float64]
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class ZeroShotEffect:
    """What the pre-trained model makes of an alternate allele.

    Attributes:
        likelihood_ratio: log p of the alternate bases minus log p of the reference bases, in nats.
        embedding_distance: L2 distance of the pooled states of both windows.
        matching_shift: change of SRM's logit (cosine times scale), float64, shape (cell types,).
    """

    likelihood_ratio: float
    embedding_distance: float
    matching_shift: Numbers


class ZeroShotScorer:
    """Scores windows of both alleles with a pre-trained model.

    Args:
        model_folder: made by `genebert pretrain`.
        genome: the genome.
        corpus: whose regions surround the windows; it has the motif collection of the model.
        cell_types: names; all of the corpus if empty.
        device: where the model is to run.

    Raises:
        UserError: the folder cannot be used, or the corpus has another motif collection or no such cell type.
    """

    def __init__(
        self, model_folder: Path, genome: Genome, corpus: Corpus, cell_types: Sequence[str], device: Device = "auto"
    ) -> None:
        self.manifest = read_manifest(model_folder, "pretrain", verify=True)
        self.scanner = read_scanner(model_folder)
        check_motifs(self.scanner, corpus, f"the model {model_folder}")
        self.corpus = corpus
        self.cell_types = list(dict.fromkeys(cell_types or corpus.cell_types))
        self._indices = corpus.cell_type_indices(self.cell_types)
        self.windows = VariantWindows(genome, corpus, corpus.width)
        self.model: GeneBertForPreTraining = load_weights(GeneBertForPreTraining, model_folder)
        self.model.to(pick_device(device)).eval()

    def effects(self, variants: Iterable[Variant]) -> dict[str, ZeroShotEffect]:
        """Return name -> effect; a variant that is given twice is scored once."""
        unique = {variant.name: variant for variant in variants}
        if not unique:
            return {}
        found = self.scores([self.windows.pair(variant) for variant in unique.values()])
        rows = zip(found["likelihood_ratio"], found["embedding_distance"], found["matching_shift"], strict=True)
        return {
            name: ZeroShotEffect(float(ratio), float(distance), shift)
            for name, (ratio, distance, shift) in zip(unique, rows, strict=True)
        }

    def scores(self, pairs: Sequence[Pair]) -> dict[str, Numbers]:
        """Return the scores of n pairs of windows by name; see `ZeroShotEffect`.

        Returns:
            likelihood_ratio and embedding_distance, float64, shape (n,); matching_shift, shape (n, cell types).
        """
        chroms = [pair.variant.chrom for pair in pairs]
        centres = np.array([pair.start for pair in pairs], dtype=np.int64) + self.corpus.width // 2
        return self.scores_at(pairs, self.corpus.line_positions(chroms, centres))

    def scores_at(self, pairs: Sequence[Pair], position: NDArray[np.int64]) -> dict[str, Numbers]:
        """Return what `scores` does, of windows at places of choice.

        Args:
            pairs: n pairs.
            position: of the windows' centres, as `Corpus.line_positions` gives them, int64, shape (n,).
        """
        codes = np.stack([pair.reference for pair in pairs] + [pair.alternate for pair in pairs])
        places = np.concatenate([position, position])
        windows = np.concatenate([codes, places[:, None].view(np.uint8)], axis=1)  # equal ones are encoded once
        _, first, which = np.unique(windows, axis=0, return_index=True, return_inverse=True)
        pooled, logits = self._encoded(codes[first], places[first])
        before, after = np.split(which.reshape(-1), 2)
        return {
            "likelihood_ratio": self._likelihood_ratios(pairs),
            "embedding_distance": np.linalg.norm(pooled[:, after] - pooled[:, before], axis=2).mean(axis=0),
            "matching_shift": logits[after] - logits[before],
        }

    def _encoded(self, codes: Codes, position: NDArray[np.int64]) -> tuple[Numbers, Numbers]:
        """Return pooled states of n windows, shape (strands, n, width), and SRM's logits, shape (n, cell types)."""
        pooled, logits = [], []
        evidence, head = self.scanner.scan(codes), self.model.matching_head
        for rows in _batches(len(codes)):
            with torch.inference_mode():
                strands = [self._sequence(one) for one in (codes[rows], reverse_complement(codes[rows]))]
                sequence = torch.stack([head.project_sequence(one) for one in strands]).mean(dim=0)
                regions = [self._region(evidence[rows], position[rows], index) for index in self._indices]
                matches = [head.scale * (sequence * head.project_region(one)).sum(dim=1) for one in regions]
            pooled.append(torch.stack(strands).double().cpu().numpy())
            logits.append(torch.stack(matches, dim=1).double().cpu().numpy())
        return np.concatenate(pooled, axis=1), np.concatenate(logits)

    def _sequence(self, codes: Codes) -> torch.Tensor:
        ids, segment_ids = (torch.from_numpy(one).to(self.model.device) for one in sequence_tokens(codes, self._k))
        pooled: torch.Tensor = self.model.genebert(ids, segment_ids).sequence
        return pooled

    def _region(self, evidence: NDArray[np.uint8], position: NDArray[np.int64], cell_type: np.int64) -> torch.Tensor:
        columns, width = self.model.config.region_columns, self.corpus.width
        cell_types = np.full(len(position), cell_type)
        matrix = neighbourhood(self.corpus, cell_types, position, evidence, columns, width)
        pooled: torch.Tensor = self.model.genebert(matrix=matrix.to(self.model.device)).region
        return pooled

    def _likelihood_ratios(self, pairs: Sequence[Pair]) -> Numbers:
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
        for sign, allele, codes in zip((-1, 1), alleles, (pair.reference, pair.alternate), strict=True):
            for place in range(start - pair.start, min(start - pair.start + len(allele), len(codes))):
                moved = self._moves[place]
                yield sign, _moved(codes, moved), place + moved

    @cached_property
    def _moves(self) -> NDArray[np.int64]:
        """By how much to move a window so that the base at a place can be hidden on both strands: shape (width,)."""
        possible = can_be_hidden(self.corpus.width, self._k)
        targets = np.flatnonzero(possible & possible[::-1])
        places = np.arange(self.corpus.width)
        return targets[np.abs(targets[:, None] - places).argmin(axis=0)] - places

    def _log_probability(self, codes: Codes, hidden: NDArray[np.bool_]) -> Numbers:
        """Return log p of the one base of each sequence that is hidden: shape (n,); equal inputs are encoded once."""
        masked = hide(codes, self._k, hidden)
        _, first, which = np.unique(masked.ids, axis=0, return_index=True, return_inverse=True)
        ids, token = masked.ids[first], masked.token[first]
        found = []
        for rows in _batches(len(ids)):
            inputs = ids[rows], segments(len(ids[rows]), codes.shape[1], self._k)
            with torch.inference_mode():
                states = self.model.genebert(*(torch.from_numpy(one).to(self.model.device) for one in inputs))
                scored = states.last_hidden_state[torch.arange(len(ids[rows])), torch.from_numpy(token[rows])]
                found.append(self.model.base_head(scored, self.model.genebert.token_embeddings).double().cpu().numpy())
        known: Numbers = np.concatenate(found)[which.reshape(-1), masked.target]
        return known

    @property
    def _k(self) -> int:
        return int(self.model.config.k)


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, start + _BATCH) for start in range(0, count, _BATCH))


def _differing(variant: Variant) -> tuple[int, str, str]:
    """Return the alleles without the bases that they share at either end, and where they begin on the genome."""
    position, ref, alt = variant.position, variant.ref, variant.alt
    while ref and alt and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    while ref and alt and ref[0] == alt[0]:
        position, ref, alt = position + 1, ref[1:], alt[1:]
    return position, ref, alt


def _moved(codes: Codes, by: int) -> Codes:
    """Return a window whose bases lie some places further right, or left if negative; what comes in is N."""
    moved = np.full_like(codes, N)
    moved[max(by, 0) : len(codes) + min(by, 0)] = codes[max(-by, 0) : len(codes) - max(by, 0)]
    return moved
