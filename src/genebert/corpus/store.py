"""The corpus on disk, and the only code that knows its format.

```
corpus/
  corpus.json               cell types, chromosomes and their lengths, region width, splits, pseudocount
  regions.tsv               chrom, start, end (0-based, half-open), split; sorted by chromosome and start
  motifs.json               the motif collection, in the order of the evidence's columns
  sequence.npy              uint8 (regions, width): base codes
  evidence.npy              uint8 (regions, motifs): -log10 p of the best hit, in steps of 1/16
  accessible_offsets.npy    int64 (cell types + 1,): where each cell type begins in the next two
  accessible_regions.npy    int32 (examples,): region of each example, ascending within a cell type
  accessible_values.npy     float32 (examples,): log1p signal per million
  manifest.json             provenance, checksums
```
An example is a position in the last two arrays: one (cell type, accessible region). Arrays are memory-mapped,
so that loader workers share them, and a corpus may exceed the memory.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.errors import UserError, problem
from genebert.inputs.motifs import Scanner
from genebert.schema import SPLITS, Motif, Split
from genebert.stage import Manifest, read_manifest, write_json

_ARRAYS = ("sequence", "evidence", "accessible_offsets", "accessible_regions", "accessible_values")
_CHROMOSOME_STRIDE = 1 << 40
"""Distance between chromosomes on the line on which neighbours are sought; longer than any chromosome."""


@dataclass(frozen=True)
class Corpus:
    """An opened corpus.

    Attributes:
        folder: where it lies.
        manifest: its provenance.
        cell_types: names, sorted.
        lengths: chromosome -> length in bp, of the whole genome.
        width: of a region, in bp.
        valid_chromosomes, test_chromosomes: held out from training.
        regions: DataFrame with chrom, start, end, split (name); n rows.
        motifs: the collection; m of them.
        pseudocount: of the motif scan.
        sequence: uint8, shape (n, width).
        evidence: uint8, shape (n, m).
        accessible_offsets, accessible_regions, accessible_values: see the module's description.
    """

    folder: Path
    manifest: Manifest
    cell_types: list[str]
    lengths: dict[str, int]
    width: int
    valid_chromosomes: list[str]
    test_chromosomes: list[str]
    regions: pd.DataFrame
    motifs: list[Motif]
    pseudocount: float
    sequence: NDArray[np.uint8]
    evidence: NDArray[np.uint8]
    accessible_offsets: NDArray[np.int64]
    accessible_regions: NDArray[np.int32]
    accessible_values: NDArray[np.float32]

    @classmethod
    def open(cls, folder: Path) -> "Corpus":
        """Open a corpus.

        Raises:
            UserError: no finished corpus is there, or its files are missing or damaged.
        """
        manifest = read_manifest(folder, "prepare")
        try:
            facts = json.loads((folder / "corpus.json").read_text())
            motifs = [Motif.from_json(value) for value in json.loads((folder / "motifs.json").read_text())]
            regions = pd.read_csv(folder / "regions.tsv", sep="\t", dtype={"chrom": str})
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                problem(
                    folder,
                    f"the corpus is damaged ({error})",
                    f"Remove {folder} and run `genebert prepare` again.",
                )
            ) from None
        return cls(folder=folder, manifest=manifest, regions=regions, motifs=motifs, **facts, **arrays)

    @property
    def fingerprint(self) -> str:
        """Identifies the corpus' content."""
        return self.manifest.fingerprint

    @cached_property
    def scanner(self) -> Scanner:
        """Scans further sequence as the corpus' regions were scanned."""
        return Scanner(self.motifs, self.pseudocount)

    @cached_property
    def split(self) -> NDArray[np.uint8]:
        """Index into `SPLITS` of each region: uint8, shape (n,)."""
        index = {name: i for i, name in enumerate(SPLITS)}
        return np.array([index[name] for name in self.regions["split"]], dtype=np.uint8)

    @cached_property
    def cell_type_of_example(self) -> NDArray[np.int64]:
        """Cell type index of each example: int64, shape (examples,)."""
        return np.repeat(np.arange(len(self.cell_types)), np.diff(self.accessible_offsets))

    def examples(self, split: Split) -> NDArray[np.int64]:
        """Return the examples whose region is in a split: int64, ascending."""
        return np.flatnonzero(self.split[self.accessible_regions] == SPLITS.index(split))

    def accessible(self, cell_type: int) -> NDArray[np.int32]:
        """Return the regions accessible in a cell type: int32, ascending."""
        return self.accessible_regions[self.accessible_offsets[cell_type] : self.accessible_offsets[cell_type + 1]]

    def split_of(self, chromosomes: Sequence[str]) -> list[str]:
        """Return the split that each chromosome belongs to."""
        held_out = dict.fromkeys(self.valid_chromosomes, "valid")
        held_out |= dict.fromkeys(self.test_chromosomes, "test")
        return [held_out.get(chrom, "train") for chrom in chromosomes]

    def cell_type_indices(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the index of each named cell type.

        Raises:
            UserError: the corpus has no such cell type.
        """
        unknown = sorted(set(names) - set(self.cell_types))
        if unknown:
            raise UserError(
                problem(
                    self.folder,
                    f"the corpus has no cell type {', '.join(map(repr, unknown))}; it has {', '.join(self.cell_types)}",
                    "Correct the name.",
                )
            )
        index = {name: i for i, name in enumerate(self.cell_types)}
        return np.array([index[name] for name in names], dtype=np.int64)

    @cached_property
    def _chromosome_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(sorted(self.lengths))}

    def line_positions(self, chroms: Sequence[str], centres: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place centres of windows on one line on which chromosomes are far apart: int64, shape (n,)."""
        index = np.array([self._chromosome_index[chrom] for chrom in chroms], dtype=np.int64)
        return index * _CHROMOSOME_STRIDE + centres

    @cached_property
    def region_positions(self) -> NDArray[np.int64]:
        """Places of the regions' centres on that line: int64, ascending, shape (n,)."""
        return self.line_positions(self.regions["chrom"].tolist(), self.regions["start"].to_numpy() + self.width // 2)

    @cached_property
    def _example_keys(self) -> NDArray[np.int64]:
        stride = len(self.lengths) * _CHROMOSOME_STRIDE
        return self.cell_type_of_example * stride + self.region_positions[self.accessible_regions]

    def nearest_examples(
        self, cell_types: NDArray[np.int64], positions: NDArray[np.int64], count: int, window: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the accessible regions of a cell type that are nearest to windows, on their chromosomes.

        Regions that overlap the window itself are left out, so that what is to be predicted about it is not
        given away. For the same reason one region less than the chromosome has is found at most: an accessible window
        has lost itself, and the number of columns must not tell it from one that is not.

        Args:
            cell_types: index of the cell type of each query, int64, shape (b,).
            positions: place of each window's centre, as `line_positions` gives it, int64, shape (b,).
            count: how many regions to find.
            window: width of the query windows in bp.

        Returns:
            examples, int64, shape (b, count), nearest first, -1 where there are no more; signed distances of
            their centres in bp, int64, same shape.
        """
        keys = self._example_keys
        query = cell_types * len(self.lengths) * _CHROMOSOME_STRIDE + positions
        reach = count + 2 + window // self.width  # more than the regions that can overlap the window
        slots = np.searchsorted(keys, query)[:, None] + np.arange(-reach, reach)
        inside = (slots >= 0) & (slots < len(keys))
        distance = keys[np.clip(slots, 0, max(len(keys) - 1, 0))] - query[:, None]
        near = inside & (np.abs(distance) < _CHROMOSOME_STRIDE // 2)
        usable = near & (2 * np.abs(distance) >= self.width + window)
        remoteness = np.where(usable, np.abs(distance), _CHROMOSOME_STRIDE)
        order = np.argsort(remoteness, axis=1, kind="stable")[:, :count]
        found = np.take_along_axis(np.where(usable, slots, -1), order, axis=1)
        found[np.arange(count) >= near.sum(axis=1, keepdims=True) - 1] = -1
        return found, np.take_along_axis(distance, order, axis=1)


def write_corpus(
    folder: Path,
    facts: dict[str, Any],
    regions: pd.DataFrame,
    motifs: Sequence[Motif],
    arrays: dict[str, NDArray[Any]],
) -> None:
    """Write the files of a corpus, all but the manifest, into an existing folder.

    Args:
        folder: where to.
        facts: the attributes of `Corpus` that are kept in corpus.json.
        regions: DataFrame with chrom, start, end, split.
        motifs: the collection.
        arrays: name -> array, as in the module's description.
    """
    write_json(folder / "corpus.json", facts)
    write_json(folder / "motifs.json", [motif.to_json() for motif in motifs])
    regions.to_csv(folder / "regions.tsv", sep="\t", index=False)
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", arrays[name], allow_pickle=False)
