"""The corpus on disk, and the only code that knows its format.

```
corpus/
  corpus.json               format (3), cell types, chromosomes and their lengths, region width, splits, signal, scan
  regions.tsv               chrom, start, end (0-based, half-open), split; sorted by chromosome and start
  motifs.json               the motif collection, in the order of the evidence's columns
  sequence.npy              uint8 (regions, width): base codes
  evidence.npy              uint8 (regions, motifs): -log10 p of the best hit, in steps of 1/16
  accessible_offsets.npy    int64 (cell types + 1,): where each cell type begins in the next two
  accessible_regions.npy    int32 (examples,): region of each example, ascending within a cell type
  accessible_values.npy     float32 (examples,): log1p signal per million
  reference_regions.npy     int32: the training regions that thresholds and signal per million are made of, ascending
  manifest.json             provenance, checksums
```
An example is a position in the last two arrays: one (cell type, accessible region). Arrays are memory-mapped,
so that loader workers share them, and a corpus may exceed the memory. For the same reason nothing as long as the
examples is computed when a corpus is opened or examples are looked up.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from genebert.corpus import splits
from genebert.corpus.usage import Usage
from genebert.errors import UserError, problem
from genebert.inputs.scan import Scanner
from genebert.schema import SPLITS, Motif, Split, split_of
from genebert.stage import Manifest, read_manifest, write_json

FORMAT = 3
STAGES = ("prepare", "add-cell-type")
"""The verbs that make a corpus."""
FACTS = (
    "signal",
    "cell_types",
    "valid_cell_types",
    "test_cell_types",
    "lengths",
    "width",
    "valid_chromosomes",
    "test_chromosomes",
    "archetypes",
    "pseudocount",
    "gc_background",
)
"""The attributes of a corpus that are kept in corpus.json."""
_ACCESSIBILITY = ("accessible_offsets", "accessible_regions", "accessible_values", "reference_regions")
_PER_REGION = ("sequence", "evidence")
_ARRAYS = (*_PER_REGION, *_ACCESSIBILITY)
_REGION_COLUMNS = {"chrom": pa.string(), "start": pa.int64(), "end": pa.int64(), "split": pa.string()}
_CHROMOSOME_STRIDE = 1 << 40
"""Distance between chromosomes on the line on which neighbours are sought; longer than any chromosome."""


@dataclass(frozen=True)
class Corpus:
    """An opened corpus.

    Attributes:
        folder: where it lies.
        manifest: its provenance.
        signal: what accessibility was measured from: "peaks", "bigwig", "fragments" or "h5ad".
        cell_types: names, sorted.
        valid_cell_types, test_cell_types: held out from training.
        lengths: chromosome -> length in bp, of the whole genome.
        width: of a region, in bp.
        valid_chromosomes, test_chromosomes: held out from training.
        regions: DataFrame with chrom, start, end, split (one of `splits.NAMES`); n rows.
        motifs: the collection; m of them.
        archetypes: id of a motif -> ids of the motifs that it stands for; empty if each stands for itself.
        pseudocount, gc_background: of the motif scan.
        sequence: uint8, shape (n, width).
        evidence: uint8, shape (n, m).
        accessible_offsets, accessible_regions, accessible_values, reference_regions: see the module's description.
    """

    folder: Path
    manifest: Manifest
    signal: str
    cell_types: list[str]
    valid_cell_types: list[str]
    test_cell_types: list[str]
    lengths: dict[str, int]
    width: int
    valid_chromosomes: list[str]
    test_chromosomes: list[str]
    regions: pd.DataFrame
    motifs: list[Motif]
    archetypes: dict[str, list[str]]
    pseudocount: float
    gc_background: float
    sequence: NDArray[np.uint8]
    evidence: NDArray[np.uint8]
    accessible_offsets: NDArray[np.int64]
    accessible_regions: NDArray[np.int32]
    accessible_values: NDArray[np.float32]
    reference_regions: NDArray[np.int32]

    @classmethod
    def open(cls, folder: Path) -> "Corpus":
        """Open a corpus.

        Raises:
            UserError: no finished corpus is there, it has another format, or its files are missing or damaged.
        """
        return cls.read(folder, read_manifest(folder, STAGES))

    @classmethod
    def read(cls, folder: Path, manifest: Manifest) -> "Corpus":
        """Read the files of a corpus, whose manifest is known.

        Raises:
            UserError: see `open`.
        """
        try:
            facts = json.loads((folder / "corpus.json").read_text())
            _check_format(folder, facts.pop("format", 1))
            motifs = [Motif.from_json(value) for value in json.loads((folder / "motifs.json").read_text())]
            regions = _read_regions(folder / "regions.tsv")
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
            return cls(folder=folder, manifest=manifest, regions=regions, motifs=motifs, **facts, **arrays)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                problem(
                    folder,
                    f"the corpus is damaged ({error})",
                    f"Remove {folder} and run `genebert {manifest.stage}` again.",
                )
            ) from None

    @property
    def fingerprint(self) -> str:
        """Identifies the corpus' content."""
        return self.manifest.fingerprint

    @property
    def ancestors(self) -> list[str]:
        """SHA-256 of the manifests of the corpora that it was made from by adding cell types, the last one first."""
        return self.manifest.metrics.get("added", {}).get("ancestors", [])

    @cached_property
    def scanner(self) -> Scanner:
        """Scans further sequence as the corpus' regions were scanned."""
        return Scanner(self.motifs, self.pseudocount, self.gc_background)

    @cached_property
    def split(self) -> NDArray[np.uint8]:
        """Index into `splits.NAMES` of each region: uint8, shape (n,)."""
        return pd.Categorical(self.regions["split"], categories=splits.NAMES).codes.astype(np.uint8)

    @cached_property
    def cell_type_part(self) -> NDArray[np.uint8]:
        """Index into `SPLITS` of each cell type: uint8, shape (cell types,)."""
        return splits.cell_type_split(self.cell_types, self.valid_cell_types, self.test_cell_types)

    def cell_types_of(self, examples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the cell type index of given examples: int64, same shape."""
        return np.searchsorted(self.accessible_offsets, examples, side="right") - 1

    def examples(self, split: Split, cell_types: Split = "train") -> NDArray[np.int64]:
        """Return the examples whose region is in a split and whose cell type is in a part: int64, ascending.

        Args:
            split: of the region.
            cell_types: part of the cell type; held-out cell types are in no example unless they are asked for.
        """
        wanted = self.split == SPLITS.index(split)
        found = [
            self.accessible_offsets[i] + np.flatnonzero(wanted[self.accessible(i)])
            for i in np.flatnonzero(self.cell_type_part == SPLITS.index(cell_types)).tolist()
        ]
        return np.concatenate([np.empty(0, dtype=np.int64), *found])

    def count_examples(self) -> NDArray[np.int64]:
        """Count examples by split of the region and part of the cell type: int64, shape (4, 3)."""
        counts = np.zeros((len(splits.NAMES), len(SPLITS)), dtype=np.int64)
        for cell_type, part in enumerate(self.cell_type_part):
            counts[:, part] += np.bincount(self.split[self.accessible(cell_type)], minlength=len(counts))
        return counts

    def accessible(self, cell_type: int) -> NDArray[np.int32]:
        """Return the regions accessible in a cell type: int32, ascending."""
        return self.accessible_regions[self.accessible_offsets[cell_type] : self.accessible_offsets[cell_type + 1]]

    def split_of(self, chromosomes: Sequence[str]) -> list[str]:
        """Return the split that each chromosome belongs to."""
        return [SPLITS[i] for i in split_of(chromosomes, self.valid_chromosomes, self.test_chromosomes)]

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
    def chromosome_index(self) -> dict[str, int]:
        """Chromosome -> its place in their order by name."""
        return {name: i for i, name in enumerate(sorted(self.lengths))}

    def line_positions(self, chroms: Sequence[str], centres: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place centres of windows on one line on which chromosomes are far apart: int64, shape (n,)."""
        index = np.array([self.chromosome_index[chrom] for chrom in chroms], dtype=np.int64)
        return index * _CHROMOSOME_STRIDE + centres

    @cached_property
    def usage(self) -> Usage:
        """TF usage of the cell types."""
        return Usage.of(self)

    def chromosomes_at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of the chromosome on which each place on that line lies: int64, same shape."""
        return positions // _CHROMOSOME_STRIDE

    @cached_property
    def region_positions(self) -> NDArray[np.int64]:
        """Places of the regions' centres on that line: int64, ascending, shape (n,)."""
        return self.line_positions(self.regions["chrom"].tolist(), self.regions["start"].to_numpy() + self.width // 2)

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
        reach = count + 2 + window // self.width  # more than the regions that can overlap the window
        slots = self._first_examples_from(cell_types, positions)[:, None] + np.arange(-reach, reach)
        first, last = self.accessible_offsets[cell_types], self.accessible_offsets[cell_types + 1]
        inside = (slots >= first[:, None]) & (slots < last[:, None])
        distance = self.region_positions[self.accessible_regions[np.where(inside, slots, 0)]] - positions[:, None]
        near = inside & (np.abs(distance) < _CHROMOSOME_STRIDE // 2)
        usable = near & (2 * np.abs(distance) >= self.width + window)
        remoteness = np.where(usable, np.abs(distance), _CHROMOSOME_STRIDE)
        order = np.argsort(remoteness, axis=1, kind="stable")[:, :count]
        found = np.take_along_axis(np.where(usable, slots, -1), order, axis=1)
        found[np.arange(count) >= near.sum(axis=1, keepdims=True) - 1] = -1
        return found, np.take_along_axis(distance, order, axis=1)

    def signal_at(
        self, cell_types: NDArray[np.int64], positions: NDArray[np.int64], window: int
    ) -> NDArray[np.float32]:
        """Return how accessible windows are in a cell type: the highest value of the regions that they overlap.

        Args:
            cell_types, positions, window: see `nearest_examples`.

        Returns:
            log1p signal per million, 0 where no region of the cell type overlaps: float32, shape (b,).
        """
        reach = 1 + window // self.width  # regions that can overlap the window, to either side
        slots = self._first_examples_from(cell_types, positions)[:, None] + np.arange(-reach, reach)
        first, last = self.accessible_offsets[cell_types], self.accessible_offsets[cell_types + 1]
        inside = (slots >= first[:, None]) & (slots < last[:, None])
        known = np.where(inside, slots, 0)
        distance = self.region_positions[self.accessible_regions[known]] - positions[:, None]
        overlaps = inside & (2 * np.abs(distance) < self.width + window)
        found: NDArray[np.float32] = np.where(overlaps, self.accessible_values[known], np.float32(0)).max(axis=1)
        return found

    def _first_examples_from(self, cell_types: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first example of a cell type that lies at a position or after it: int64, shape (b,)."""
        # of the type of the array that is searched, which would else be converted as a whole
        region = np.searchsorted(self.region_positions, positions).astype(self.accessible_regions.dtype)
        found = self.accessible_offsets[cell_types]
        for cell_type in np.unique(cell_types).tolist():
            rows = cell_types == cell_type
            found[rows] += np.searchsorted(self.accessible(cell_type), region[rows])
        return found


def _check_format(folder: Path, found: object) -> None:
    if found != FORMAT:
        raise UserError(
            problem(
                folder,
                f"the corpus has format {found!r}, and this version of genebert reads format {FORMAT}",
                "Run `genebert prepare` again with this version, into another --out.",
            )
        )


def _read_regions(path: Path) -> pd.DataFrame:
    read = pa.csv.read_csv(
        path,
        pa.csv.ReadOptions(use_threads=False),
        pa.csv.ParseOptions(delimiter="\t"),
        pa.csv.ConvertOptions(column_types=_REGION_COLUMNS, include_columns=list(_REGION_COLUMNS)),
    )
    return read.to_pandas(use_threads=False)  # equal strings are one object


class CorpusWriter:
    """Writes the files of a corpus, all but the manifest: blocks of regions first, then `finish`.

    Args:
        folder: an existing folder.
        regions, width, motifs: numbers of regions, of bp of a region, and of motifs.
    """

    def __init__(self, folder: Path, regions: int, width: int, motifs: int) -> None:
        self._folder = folder
        self._begin: dict[str, int] = {}
        for name, columns in (("sequence", width), ("evidence", motifs)):
            header = {"descr": "|u1", "fortran_order": False, "shape": (regions, columns)}
            with self._path(name).open("wb") as handle:
                np.lib.format.write_array_header_1_0(handle, header)
                self._begin[name] = handle.tell()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npy"

    def write_block(self, start: int, sequence: NDArray[np.uint8], evidence: NDArray[np.uint8]) -> None:
        """Write the rows from `start` on; every region is to be written once.

        A file is written to, and not mapped: a full disk is then an error and not the end of the process.

        Args:
            start: index of the first region.
            sequence: uint8, shape (b, width).
            evidence: uint8, shape (b, motifs).
        """
        for name, rows in (("sequence", sequence), ("evidence", evidence)):
            with self._path(name).open("r+b") as handle:
                handle.seek(self._begin[name] + start * rows.shape[1])
                handle.write(np.ascontiguousarray(rows).data)

    def finish(
        self,
        facts: Mapping[str, Any],
        regions: pd.DataFrame,
        motifs: Sequence[Motif],
        accessibility: Mapping[str, NDArray[Any]],
    ) -> None:
        """Write what is left; see `write_rest`."""
        write_rest(self._folder, facts, regions, motifs, accessibility)


def write_rest(
    folder: Path,
    facts: Mapping[str, Any],
    regions: pd.DataFrame,
    motifs: Sequence[Motif],
    accessibility: Mapping[str, NDArray[Any]],
) -> None:
    """Write the files of a corpus beside sequence and evidence, all but the manifest.

    Args:
        folder: of the corpus.
        facts: the `FACTS`.
        regions: DataFrame with chrom, start, end, split.
        motifs: the collection.
        accessibility: accessible_offsets, accessible_regions, accessible_values, reference_regions.
    """
    write_json(folder / "corpus.json", {"format": FORMAT, **{name: facts[name] for name in FACTS}})
    write_json(folder / "motifs.json", [motif.to_json() for motif in motifs])
    regions[list(_REGION_COLUMNS)].to_csv(folder / "regions.tsv", sep="\t", index=False)
    for name in _ACCESSIBILITY:
        np.save(folder / f"{name}.npy", accessibility[name], allow_pickle=False)


def link_arrays(corpus: Corpus, folder: Path) -> None:
    """Put the sequence and evidence of a corpus into the folder of another one with the same regions.

    The files are hard links, that is, the same bytes, which stay if either folder is removed; copies where the disk
    has no links or is another one.
    """
    for name in _PER_REGION:
        source, place = corpus.folder / f"{name}.npy", folder / f"{name}.npy"
        place.unlink(missing_ok=True)  # an interrupted run may have left it, and a copy would write into its source
        try:
            place.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, place)
