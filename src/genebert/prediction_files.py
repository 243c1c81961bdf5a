"""Predictions on disk, chunk by chunk: TSV, Parquet, BED or bigWig."""

import csv
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyBigWig
from numpy.typing import NDArray

from genebert.errors import UserError, problem
from genebert.settings import PredictionFormat
from genebert.target import HALF, Target, Threshold

Numbers = NDArray[np.float64]
STEM, PREDICTED = "predictions", "predicted"
NO_CELL_TYPE = ""
_NO_NAME = ("", ".")


class PredictionFile(ABC):
    """Takes predictions chunk by chunk.

    Args:
        folder: to write into.
        target: what is predicted.
        lengths: chromosome -> length in bp; empty for sequences without coordinates.
        threshold: by which a class is predicted.
    """

    def __init__(self, folder: Path, target: Target, lengths: Mapping[str, int], threshold: Threshold = HALF) -> None:
        self.folder = folder
        self.target = target
        self.lengths = lengths
        self.threshold = threshold

    @abstractmethod
    def write(self, table: pd.DataFrame, predicted: Numbers) -> None:
        """Add rows: windows as `Windows.table` has them, and their predictions, shape (n, names)."""

    @abstractmethod
    def close(self) -> list[Path]:
        """Finish; return the files."""

    @abstractmethod
    def release(self) -> None:
        """Let go of files and memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def with_columns(self, table: pd.DataFrame, predicted: Numbers) -> pd.DataFrame:
        """Return the windows with a column per class or label, `p(NAME)`, and `predicted`, the class or the number."""
        titles = self.titles
        found = pd.DataFrame(predicted, columns=titles[: predicted.shape[1]])
        if self.target.kind == "classes":
            found[PREDICTED] = np.array(self.target.names, object)[self.target.guesses(predicted, self.threshold)]
        given = table.drop(columns=[name for name in titles if name in table])
        return pd.concat([given.reset_index(drop=True), found], axis=1)

    @property
    def titles(self) -> list[str]:
        """The columns that are written beside those of the windows."""
        probabilities = [f"p({name})" for name in self.target.names]
        return {"value": [PREDICTED], "labels": probabilities, "classes": [*probabilities, PREDICTED]}[self.target.kind]

    def intervals(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return chrom, start, end of windows, without what lies beyond the ends of their chromosomes."""
        ends = table["chrom"].map(self.lengths)
        return table[["chrom"]].assign(start=table["start"].clip(lower=0), end=table["end"].clip(upper=ends))

    def tracks(self) -> list[int]:
        """Return which outputs are worth a track: of two classes the second alone, else all."""
        return [1] if self.target.is_binary else list(range(len(self.target.names)))


class TsvFile(PredictionFile):
    """predictions.tsv: one row per window (and cell type), see `with_columns`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.path = self.folder / f"{STEM}.tsv"
        self._handle = self.path.open("w")
        self._begun = False

    def write(self, table: pd.DataFrame, predicted: Numbers) -> None:
        """Add rows."""
        rows = self.with_columns(table, predicted)
        rows.to_csv(self._handle, sep="\t", index=False, header=not self._begun, float_format="%.6g")
        self._begun = True

    def close(self) -> list[Path]:
        """Finish."""
        self.release()
        return [self.path]

    def release(self) -> None:
        """Close the file."""
        self._handle.close()


class ParquetFile(PredictionFile):
    """predictions.parquet: the same columns as in TSV."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.path = self.folder / f"{STEM}.parquet"
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pd.DataFrame, predicted: Numbers) -> None:
        """Add rows."""
        rows = pa.Table.from_pandas(self.with_columns(table, predicted), preserve_index=False)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, rows.schema)
        self._writer.write_table(rows)

    def close(self) -> list[Path]:
        """Finish."""
        self.release()
        return [self.path]

    def release(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class BedFile(PredictionFile):
    """predictions.bed: BED6, whose score is 1000 times the probability, and the prediction itself as column 7.

    Column 8 says of what it is: the class or label, after the cell type where there is one. The name is that of the
    window, and where it has none, the same as column 8.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.path = self.folder / f"{STEM}.bed"
        self._handle = self.path.open("w")

    def write(self, table: pd.DataFrame, predicted: Numbers) -> None:
        """Add rows."""
        for index in self.tracks():
            value, name = predicted[:, index], self.target.names[index]
            score = np.zeros(len(value)) if self.target.kind == "value" else np.rint(1000 * value)
            of = table["cell_type"] + f": {name}" if "cell_type" in table else pd.Series(name, index=table.index)
            given = table.get("name", of)
            rows = self.intervals(table).assign(
                name=_cells(given.mask(given.isin(_NO_NAME), of)),
                score=score.astype(int),
                strand=table.get("strand", "."),
                value=value,
                of=_cells(of),
            )
            plain = {"quoting": csv.QUOTE_NONE, "quotechar": None}  # BED has no quotation marks
            rows.to_csv(self._handle, sep="\t", index=False, header=False, float_format="%.6g", **plain)

    def close(self) -> list[Path]:
        """Finish."""
        self.release()
        return [self.path]

    def release(self) -> None:
        """Close the file."""
        self._handle.close()


def _cells(texts: pd.Series) -> pd.Series:
    """Return texts for columns of a BED, in which nothing marks that a tab or a line's end belongs to them."""
    return texts.str.replace(r"\s", " ", regex=True)


class BigWigFile(PredictionFile):
    """predictions[.CLASS][.CELL_TYPE].bw: where windows overlap, the mean of those that cover a base."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._cell_types: dict[str, int] = {}
        self._chunks: list[pd.DataFrame] = []

    def write(self, table: pd.DataFrame, predicted: Numbers) -> None:
        """Add rows; they are kept (about 24 bytes each, and 8 per file) to the end, since bigWig has to be sorted.

        Raises:
            UserError: two cell types or classes would have the same file name.
        """
        rows = self.intervals(table)
        named = table["cell_type"].astype(str) if "cell_type" in table else [NO_CELL_TYPE] * len(table)
        seen = len(self._cell_types)
        codes = [self._cell_types.setdefault(name, len(self._cell_types)) for name in named]
        if len(self._cell_types) > seen:
            self._check_names()
        kept = {"chrom": pd.Categorical(rows["chrom"], list(self.lengths)), "cell_type": np.array(codes, np.int32)}
        values = {index: predicted[:, index] for index in self.tracks()}
        self._chunks.append(rows[["start", "end"]].assign(**kept).join(pd.DataFrame(values, index=rows.index)))

    def close(self) -> list[Path]:
        """Sort and write."""
        made = self._made()
        paths = [self._path(index, name) for name, index in made]
        of_cell_type = dict(list(pd.concat(self._chunks).groupby("cell_type"))) if made else {}
        for path, (name, index) in zip(paths, made, strict=True):
            write_bigwig(path, of_cell_type[self._cell_types[name]].rename(columns={index: "value"}), self.lengths)
        return paths

    def release(self) -> None:
        """Let go of the rows."""
        self._chunks.clear()

    def _made(self) -> list[tuple[str, int]]:
        """Return the cell type and the track of each file."""
        return [(name, index) for name in self._cell_types for index in self.tracks()]

    def _check_names(self) -> None:
        counts = Counter(self._path(index, name) for name, index in self._made())
        if names := sorted(path.name for path, count in counts.items() if count > 1):
            what = (
                f"names of classes or cell types differ only in letters that no file name can have: {', '.join(names)}"
            )
            raise UserError(problem("--format bigwig", what, "Use --format tsv or parquet."))

    def _path(self, index: int, cell_type: str) -> Path:
        names = [] if len(self.tracks()) == 1 else [self.target.names[index]]
        names += [cell_type] if cell_type else []
        safe = ("".join(c if c.isalnum() or c in "-_" else "_" for c in name) for name in names)
        return self.folder / ".".join([STEM, *safe, "bw"])


def write_bigwig(path: Path, windows: pd.DataFrame, lengths: Mapping[str, int]) -> None:
    """Write the mean value of the windows that cover each base.

    Args:
        path: to write.
        windows: DataFrame with chrom, start, end (0-based, half-open), value.
        lengths: chromosome -> length in bp.
    """
    by_chrom = dict(list(windows.groupby("chrom", observed=True)))
    file = pyBigWig.open(str(path), "w")
    file.addHeader([(chrom, int(length)) for chrom, length in lengths.items()])
    for chrom in lengths:
        if chrom in by_chrom:
            rows = by_chrom[chrom]
            starts, ends, values = mean_over(*(rows[name].to_numpy() for name in ("start", "end", "value")))
            file.addEntries([chrom] * len(starts), starts.tolist(), ends=ends.tolist(), values=values.tolist())
    file.close()


def mean_over(
    start: NDArray[np.int64], end: NDArray[np.int64], value: Numbers
) -> tuple[NDArray[np.int64], NDArray[np.int64], Numbers]:
    """Return where intervals cover a chromosome and the mean of those that do, as intervals that do not overlap.

    Args:
        start, end: 0-based, half-open, int64, shape (n,).
        value: float64, shape (n,).

    Returns:
        starts, ends, means, ascending; bases that no interval covers are left out.
    """
    edges, where = np.unique(np.concatenate([start, end]), return_inverse=True)
    sums, counts = np.zeros(len(edges)), np.zeros(len(edges), dtype=np.int64)
    np.add.at(sums, where, np.concatenate([value, -value]))
    np.add.at(counts, where, np.repeat([1, -1], len(value)))
    total, cover = np.cumsum(sums)[:-1], np.cumsum(counts)[:-1]
    covered = cover > 0
    return edges[:-1][covered], edges[1:][covered], total[covered] / cover[covered]


FILES: Mapping[PredictionFormat, Callable[..., PredictionFile]] = {
    "tsv": TsvFile,
    "parquet": ParquetFile,
    "bed": BedFile,
    "bigwig": BigWigFile,
}
ON_GENOME: frozenset[PredictionFormat] = frozenset({"bed", "bigwig"})
"""Formats that need coordinates."""
