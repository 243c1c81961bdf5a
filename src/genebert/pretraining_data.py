"""Corpus to pre-training batches: tokens, masks, segment pairs, region matrices (bulk numpy; tensors at the end)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.region_matrix import RegionMatrix, region_matrix
from genebert.sampling import BalancedShuffle, Shuffle, Stream, below, keys, uniform
from genebert.schema import SPLITS, C, G, Split
from genebert.settings import Masking
from genebert.tensors import Tensors
from genebert.tokens import hide_bases, mask_kmers, reverse_tokens, segments

CANDIDATES = 128
"""A negative next segment is, of 128 random ones of the cell type, the nearest in GC content.

Half of them then have as many G and C as the segment they replace, and nine of ten at most one more or less, of 256
bases (measured on peaks of blood cell types and on a simulated atlas); one in a hundred differs by six or seven.
"""
HIDDEN_PATCHES = 0.15
"""Fraction of the columns of Swin patches, and of their rows, that masked region modelling hides."""
_ROWS = 1 << 12  # looked at together


@dataclass(frozen=True)
class Extras:
    """What a batch holds for the tasks beyond the paper's three.

    Attributes:
        patch_grid: Swin patches along (motifs, regions), for masked region modelling; None for no hidden patches.
        patch: size of a patch, (motifs, regions); wanted with `patch_grid`.
        hard_negatives: with the matrices of the same regions in cell types where they are not accessible.
        reverse_complement: with the tokens of the reverse complement.
    """

    patch_grid: tuple[int, int] | None = None
    patch: tuple[int, int] | None = None
    hard_negatives: bool = False
    reverse_complement: bool = False

    def __post_init__(self) -> None:
        if self.patch_grid and not self.patch:
            raise ValueError("patch_grid needs patch, the size of a patch")


NO_EXTRAS = Extras()


@dataclass
class PretrainingBatch(Tensors):
    """A batch of examples for MGM, NGSP and SRM, and for the extras that are on (else None).

    Attributes:
        input_ids, segment_ids: int64, shape (b, tokens).
        matrix: region matrices of the examples.
        scored_row, scored_token: int64, shape (s,): where hidden bases (or whole k-mers) are predicted.
        scored_target: int64, shape (s,): the hidden bases in the vocabulary's base order, or, if `whole_kmers`, the
            k-mers from 0.
        adjacent: float32, shape (b,): 1 if the second segment follows the first on the genome, else 0.
        region, second_region, cell_type: int64, shape (b,); second_region is the one that the second segment
            comes from.
        signal: float32, shape (b,): log1p signal per million of the region in the cell type.
        whole_kmers: predict k-mers (masking as in DNABERT) instead of bases.
        hidden: bool, shape (b, patch rows, patch columns): Swin patches that the region encoder does not see. A
            hidden column is hidden for all motifs, a hidden group of motifs in all columns but the window's own;
            columns of the window itself and padding are never hidden.
        reverse_ids: int64, shape (b, tokens): tokens of the reverse complement of both segments, with the same
            bases hidden.
        closed: matrices of the same windows in another cell type, where the region is not accessible.
        has_closed: bool, shape (b,): False where the region is accessible in every training cell type.
    """

    input_ids: torch.Tensor
    segment_ids: torch.Tensor
    matrix: RegionMatrix
    scored_row: torch.Tensor
    scored_token: torch.Tensor
    scored_target: torch.Tensor
    adjacent: torch.Tensor
    region: torch.Tensor
    second_region: torch.Tensor
    cell_type: torch.Tensor
    signal: torch.Tensor
    whole_kmers: bool = False
    hidden: torch.Tensor | None = None
    reverse_ids: torch.Tensor | None = None
    closed: RegionMatrix | None = None
    has_closed: torch.Tensor | None = None


class PretrainingData:
    """Makes pre-training batches of one split from an endless stream of shuffled examples.

    Everything random about an example depends on the seed and its position in the stream alone (see `sampling`). So
    the batch of a step is the same whatever was asked for before it, and its shards are the same together as the
    whole batch.

    Args:
        corpus: the corpus.
        split: of the regions whose examples to use.
        cell_types: part of the cell types whose examples to use.
        k: length of a k-mer.
        columns: R.
        batch_size: examples per batch; at most as many as there are.
        mask_fraction: fraction of bases to hide, or of tokens to mask.
        seed: seed of order, masks and negatives.
        longest_run: see `tokens.hide_bases`.
        masking: "hidden-bases" or "dnabert", see `tokens.hide_bases` and `tokens.mask_kmers`.
        balanced: draw all cell types equally often; else every example comes once in each pass.
        extras: what the batches hold for further tasks.

    Attributes:
        examples: int64, ascending: see `Corpus.examples`.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: Split,
        cell_types: Split = "train",
        *,
        k: int,
        columns: int,
        batch_size: int,
        mask_fraction: float,
        seed: int,
        longest_run: int = 6,
        masking: Masking = "hidden-bases",
        balanced: bool = False,
        extras: Extras = NO_EXTRAS,
    ) -> None:
        self.corpus = corpus
        self.examples = corpus.examples(split, cell_types)
        self.k = k
        self.columns = columns
        self.batch_size = min(batch_size, len(self.examples))
        self.mask_fraction = mask_fraction
        self.longest_run = longest_run
        self.seed = seed
        self.masking = masking
        self.extras = extras
        self._bounds = np.searchsorted(self.examples, corpus.accessible_offsets)  # of the cell types' examples
        order = BalancedShuffle(np.diff(self._bounds), seed) if balanced else Shuffle(len(self.examples), seed)
        self._order: BalancedShuffle | Shuffle = order

    @cached_property
    def _second_gc(self) -> NDArray[np.uint16]:
        """Bases of each region's second half that are G or C: uint16, shape (regions,)."""
        sequence, half = self.corpus.sequence, self.corpus.width // 2
        blocks = [sequence[i : i + _ROWS, half:] for i in range(0, len(sequence), _ROWS)]
        return np.concatenate([((block == C) | (block == G)).sum(axis=1, dtype=np.uint16) for block in blocks])

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in one pass; what is left over begins the next one."""
        return max(1, len(self.examples) // self.batch_size)

    def batches(self, first: int, last: int) -> Iterator[PretrainingBatch]:
        """Yield the batches of the steps first .. last - 1."""
        for step in range(first, last):
            yield self.batch(step)

    def batch(self, step: int, shard: int = 0, shards: int = 1) -> PretrainingBatch:
        """Return the batch of one step, counted over all passes, or one of the parts that it is cut into.

        Args:
            step: from 0; a batch begins in the stream where the one before ends.
            shard, shards: which of how many parts; in order they are the whole batch. They are of the same size if
                `shards` divides `batch_size`.
        """
        first, last = (self.batch_size * (step * shards + i) // shards for i in (shard, shard + 1))
        positions = np.arange(first, last)
        return self.collate(self.examples[self._order(positions)], keys(self.seed, 0, positions))

    def keys(self, examples: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return keys that depend on seed and example alone, for evaluation: uint64, shape (b,)."""
        return keys(self.seed, 1, examples)

    def collate(
        self, examples: NDArray[np.int64], keys: NDArray[np.uint64], *, corrupt: bool = True
    ) -> PretrainingBatch:
        """Make a batch of given examples.

        Args:
            examples: some of this object's, int64, shape (b,).
            keys: source of randomness of each, uint64, shape (b,); see the method `keys`.
            corrupt: hide bases and patches, and replace the second segment of half of the examples by one of
                another region.
        """
        corpus = self.corpus
        region = corpus.accessible_regions[examples].astype(np.int64)
        cell_type = corpus.cell_types_of(examples)
        second_region = self._second_regions(region, cell_type, keys) if corrupt else region
        codes, fraction = self._codes(region, second_region), self.mask_fraction if corrupt else 0.0
        if self.masking == "dnabert":
            masked = mask_kmers(codes, self.k, fraction, keys)
        else:
            masked = hide_bases(codes, self.k, fraction, keys, self.longest_run)
        matrix = self._matrix(region, cell_type)
        tensor = torch.from_numpy
        return PretrainingBatch(
            input_ids=tensor(masked.ids),
            segment_ids=tensor(segments(len(region), corpus.width, self.k)),
            matrix=matrix,
            scored_row=tensor(masked.row),
            scored_token=tensor(masked.token),
            scored_target=tensor(masked.target),
            adjacent=tensor((region == second_region).astype(np.float32)),
            region=tensor(region),
            second_region=tensor(second_region),
            cell_type=tensor(cell_type),
            signal=tensor(corpus.accessible_values[examples].astype(np.float32)),
            whole_kmers=self.masking == "dnabert",
            hidden=tensor(self._hidden_patches(matrix, keys)) if corrupt and self.extras.patch_grid else None,
            reverse_ids=tensor(reverse_tokens(masked.ids, self.k)) if self.extras.reverse_complement else None,
            **(self._closed_matrices(region, cell_type, keys) if self.extras.hard_negatives else {}),
        )

    def _codes(self, region: NDArray[np.int64], second_region: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the bases of both segments: uint8, shape (b, width)."""
        codes, half = self.corpus.sequence[region], self.corpus.width // 2
        rows = np.flatnonzero(region != second_region)
        codes[rows, half:] = self.corpus.sequence[second_region[rows], half:]
        return codes

    def _matrix(self, region: NDArray[np.int64], cell_type: NDArray[np.int64]) -> RegionMatrix:
        return region_matrix(self.corpus, region, cell_type, self.columns)

    def _second_regions(
        self, region: NDArray[np.int64], cell_type: NDArray[np.int64], key: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """Return the regions that second segments come from; half of them are other ones, with a similar GC content.

        They are of the same cell type and split: of the candidates, drawn at random, those with the nearest number of
        G and C in the second segment.
        """
        second = region.copy()
        rows = np.flatnonzero(uniform(key, 1, Stream.ADJACENT)[:, 0] < 0.5)
        first, last = self._bounds[cell_type[rows]], self._bounds[cell_type[rows] + 1]
        drawn = first[:, None] + below(last - first, key[rows], CANDIDATES, Stream.CANDIDATES)
        candidates = self.corpus.accessible_regions[self.examples[drawn]]
        own = region[rows, None]
        apart = np.abs(self._second_gc[candidates] - self._second_gc[own].astype(np.int32))
        apart[candidates == own] = self.corpus.width
        second[rows] = candidates[np.arange(len(rows)), apart.argmin(axis=1)]
        return second

    def _hidden_patches(self, matrix: RegionMatrix, key: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which Swin patches to hide: bool, shape (b, patch rows, patch columns); see `PretrainingBatch`."""
        assert self.extras.patch_grid and self.extras.patch
        (rows, columns), (height, width) = self.extras.patch_grid, self.extras.patch
        padding = (0, columns * width - self.columns)
        own, present = (
            torch.nn.functional.pad(marks, padding).reshape(-1, columns, width).any(2).numpy()
            for marks in (matrix.own, matrix.present)
        )
        groups = uniform(key, rows, Stream.MOTIF_GROUPS) < HIDDEN_PATCHES
        hidden = groups[:, :, None] | (uniform(key, columns, Stream.COLUMNS) < HIDDEN_PATCHES)[:, None, :]
        hidden &= (present & ~own)[:, None, :]
        hidden[:, -(-matrix.evidence.shape[2] // height) :] = False  # below the last motif
        return hidden

    def _closed_matrices(
        self, region: NDArray[np.int64], cell_type: NDArray[np.int64], key: NDArray[np.uint64]
    ) -> dict[str, Any]:
        other, has_closed = self._closed_cell_types(region, cell_type, key)
        return {"closed": self._matrix(region, other), "has_closed": torch.from_numpy(has_closed)}

    def _closed_cell_types(
        self, region: NDArray[np.int64], cell_type: NDArray[np.int64], key: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return a random training cell type in which each region is not accessible, and whether there is one.

        Where there is none it is the example's own.
        """
        training = np.flatnonzero(self.corpus.cell_type_part == SPLITS.index("train"))
        closed = np.stack([~_contains(self.corpus.accessible(i), region) for i in training.tolist()], axis=1)
        count = closed.cumsum(axis=1)
        chosen = below(count[:, -1], key, 1, Stream.CELL_TYPE)
        return np.where(count[:, -1] > 0, training[(count > chosen).argmax(axis=1)], cell_type), count[:, -1] > 0


def _contains(ascending: NDArray[np.int32], values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which values are among others."""
    wanted = values.astype(ascending.dtype)  # of the type of the array that is searched: it would else be converted
    place = np.searchsorted(ascending, wanted)
    found = np.zeros(len(values), dtype=bool)
    inside = place < len(ascending)
    found[inside] = ascending[place[inside]] == wanted[inside]
    return found
