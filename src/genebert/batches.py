"""Corpus to batches: tokens, masks, segment pairs and region matrices, all vectorised (numpy; tensors at the end)."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.inputs.motifs import Scanner
from genebert.schema import Split, gc_fraction
from genebert.tokens import MASK, assemble, hide_bases, sequence_tokens, tokenize

GC_NEIGHBOURS = 16
"""A negative next segment is drawn from the 16 regions of the cell type that are nearest in GC content, 8 on either side."""


@dataclass
class RegionMatrix:
    """The second modality: TFs x regions, before normalisation.

    Attributes:
        evidence: uint8, shape (b, R, motifs): motif evidence of each column's region.
        accessibility: float32, shape (b, R): log1p signal per million; 0 for the column of the window itself, whose accessibility
            is never shown.
        present: bool, shape (b, R): False for padding, where a chromosome has too few regions.
    """

    evidence: torch.Tensor
    accessibility: torch.Tensor
    present: torch.Tensor

    def to(self, device: torch.device) -> "RegionMatrix":
        """Return the matrix on a device."""
        return RegionMatrix(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass
class PretrainingBatch:
    """A batch of examples for MGM, NGSP and SRM.

    Attributes:
        input_ids, segment_ids: int64, shape (b, tokens).
        matrix: region matrices of the examples.
        scored_row, scored_token: int64, shape (s,): where hidden bases are predicted.
        scored_digit: int64, shape (s,): the hidden bases, in the vocabulary's base order.
        adjacent: float32, shape (b,): 1 if the second segment follows the first on the genome, else 0.
        region, cell_type: int64, shape (b,).
    """

    input_ids: torch.Tensor
    segment_ids: torch.Tensor
    matrix: RegionMatrix
    scored_row: torch.Tensor
    scored_token: torch.Tensor
    scored_digit: torch.Tensor
    adjacent: torch.Tensor
    region: torch.Tensor
    cell_type: torch.Tensor

    def to(self, device: torch.device) -> "PretrainingBatch":
        """Return the batch on a device."""
        return PretrainingBatch(*(getattr(self, f.name).to(device) for f in fields(self)))


def neighbourhood(
    corpus: Corpus,
    cell_type: NDArray[np.int64],
    position: NDArray[np.int64],
    own: NDArray[np.uint8],
    columns: int,
    window: int,
) -> RegionMatrix:
    """Return the region matrices of windows on the genome in given cell types.

    The columns are the window itself and the R - 1 nearest accessible regions of the cell type on its chromosome that do not
    overlap it, in genomic order, then padding.

    Args:
        corpus: the corpus.
        cell_type: cell type index of each window, int64, shape (b,).
        position: place of each window's centre, as `Corpus.line_positions` gives it, int64, shape (b,).
        own: motif evidence of the windows themselves, uint8, shape (b, motifs).
        columns: R.
        window: width of the windows in bp.
    """
    examples, distance = corpus.nearest_examples(cell_type, position, columns - 1, window)
    rows = len(examples)
    examples = np.concatenate([np.full((rows, 1), -2), examples], axis=1)  # -2 stands for the window itself
    distance = np.concatenate([np.zeros((rows, 1), dtype=np.int64), distance], axis=1)
    order = np.argsort(np.where(examples == -1, np.iinfo(np.int64).max, distance), axis=1, kind="stable")
    examples = np.take_along_axis(examples, order, axis=1)
    known = examples >= 0
    slots = np.where(known, examples, 0)
    regions = corpus.accessible_regions[slots]
    evidence = corpus.evidence[regions]
    evidence[~known] = 0
    evidence[examples == -2] = own
    accessibility = np.where(known, corpus.accessible_values[slots], 0).astype(np.float32)
    return RegionMatrix(*map(torch.from_numpy, (evidence, accessibility, examples != -1)))


def tiles(scanner: Scanner, codes: NDArray[np.uint8], columns: int) -> RegionMatrix:
    """Return the region matrices of sequences without genomic context: the columns are tiles of the sequence.

    A tile is twice as wide as the step between tiles, so that a motif up to one step wide lies wholly in one of them.

    Args:
        scanner: of the collection that the model was trained with.
        codes: base codes, uint8, shape (b, length), length > R.
        columns: R.
    """
    rows, length = codes.shape
    starts = np.linspace(0, length, columns + 2).astype(int)[:-2]
    width = 2 * length // (columns + 1)
    places = np.minimum(starts, length - width)[:, None] + np.arange(width)
    evidence = scanner.scan(codes[:, places].reshape(-1, width)).reshape(rows, columns, -1)
    return RegionMatrix(torch.from_numpy(evidence), torch.zeros(rows, columns), torch.ones(rows, columns, dtype=torch.bool))


class PretrainingData:
    """Makes pre-training batches of one split; the batch of a step depends on the seed and the step alone.

    Args:
        corpus: the corpus.
        split: whose examples to use.
        k: length of a k-mer.
        columns: R.
        batch_size: examples per batch.
        mask_fraction: fraction of bases to hide.
        seed: seed of order, masks and negatives.
    """

    def __init__(
        self, corpus: Corpus, split: Split, *, k: int, columns: int, batch_size: int, mask_fraction: float, seed: int
    ) -> None:
        self.corpus = corpus
        self.examples = corpus.examples(split)
        self.k = k
        self.columns = columns
        self.batch_size = min(batch_size, len(self.examples))
        self.mask_fraction = mask_fraction
        self.seed = seed
        self._by_gc, self._place = self._order_by_gc()

    def _order_by_gc(self) -> tuple[NDArray[np.int64], dict[int, int]]:
        """Return the split's examples sorted by cell type and GC content of their region, and the place of each."""
        gc = gc_fraction(self.corpus.sequence)[self.corpus.accessible_regions[self.examples]]
        ordered = self.examples[np.lexsort((gc, self.corpus.cell_type_of_example[self.examples]))]
        return ordered, {int(example): place for place, example in enumerate(ordered)}

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in one pass."""
        return max(1, len(self.examples) // self.batch_size)

    def batches(self, first: int, last: int) -> Iterator[PretrainingBatch]:
        """Yield the batches of the steps first .. last - 1."""
        for step in range(first, last):
            yield self.batch(step)

    def batch(self, step: int) -> PretrainingBatch:
        """Return the batch of one step, counted over all passes."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.examples))
        chosen = self.examples[order[place * self.batch_size : (place + 1) * self.batch_size]]
        return self.collate(chosen, np.random.default_rng([self.seed, 1, step]))

    def collate(self, examples: NDArray[np.int64], generator: np.random.Generator, *, negatives: bool = True) -> PretrainingBatch:
        """Make a batch of given examples.

        Args:
            examples: int64, shape (b,).
            generator: of masks and negatives.
            negatives: replace the second segment of half of the examples by one of another region.
        """
        corpus = self.corpus
        region = corpus.accessible_regions[examples].astype(np.int64)
        cell_type = corpus.cell_type_of_example[examples]
        half = corpus.width // 2
        adjacent = generator.random(len(examples)) < 0.5 if negatives else np.ones(len(examples), dtype=bool)
        partner = self._partners(examples, cell_type, generator)
        adjacent |= corpus.accessible_regions[partner] == region  # no other region of this cell type to draw from
        second_region = np.where(adjacent, region, corpus.accessible_regions[partner])
        first, second = corpus.sequence[region][:, :half], corpus.sequence[second_region][:, half:]
        ids, segments, row, token, digit = self._masked_tokens(first, second, generator)
        matrix = neighbourhood(corpus, cell_type, corpus.region_positions[region], corpus.evidence[region], self.columns, corpus.width)
        return PretrainingBatch(
            *map(torch.from_numpy, (ids, segments)), matrix, *map(torch.from_numpy, (row, token, digit)),
            torch.from_numpy(adjacent.astype(np.float32)), torch.from_numpy(region), torch.from_numpy(cell_type),
        )

    def _masked_tokens(
        self, first: NDArray[np.uint8], second: NDArray[np.uint8], generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], ...]:
        parts, rows, places, digits, begin = [], [], [], [], 1
        for codes in (first, second):
            hidden = hide_bases(codes, self.k, self.mask_fraction, generator)
            parts.append(np.where(hidden.masked, MASK, tokenize(codes, self.k)))
            rows.append(hidden.row)
            places.append(hidden.token + begin)
            digits.append(hidden.digit)
            begin += parts[-1].shape[1] + 1
        ids, segments = assemble(*parts)
        return ids, segments, np.concatenate(rows), np.concatenate(places), np.concatenate(digits)

    def _partners(
        self, examples: NDArray[np.int64], cell_type: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return for each example another one of its cell type and split with similar GC content."""
        place = np.array([self._place[int(example)] for example in examples])
        step = generator.integers(1, GC_NEIGHBOURS // 2 + 1, size=len(examples)) * generator.choice([-1, 1], size=len(examples))
        for sign in (1, -1):  # at the end of a cell type's list, look the other way
            other = np.clip(place + sign * step, 0, len(self._by_gc) - 1)
            inside = self.corpus.cell_type_of_example[self._by_gc[other]] == cell_type
            if sign == 1:
                chosen = np.where(inside, other, place)
            else:
                chosen = np.where((chosen == place) & inside, other, chosen)
        return self._by_gc[chosen]


def sequence_batch(codes: NDArray[np.uint8], k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token and segment ids of sequences, int64, shape (b, tokens); codes: uint8, shape (b, length)."""
    ids, segments = sequence_tokens(codes, k)
    return torch.from_numpy(ids), torch.from_numpy(segments)
