"""The stage `export`: a corpus as AnnData or Parquet, for other tools.

```
anndata/
  regions_motifs.h5ad         regions x motifs: X is the motif evidence, uint8; -log10 p = X / 16
  cell_types_regions.h5ad     cell types x regions: X is the accessibility, log1p signal per million, sparse
parquet/
  regions.parquet             region (its number), chrom, start, end, split, sequence
  motifs.parquet              id, name, width, consensus, members, probabilities
  evidence.parquet            region, and a column of uint8 per motif id
  examples.parquet            cell_type, region, value
```
Both are written block by block from the mapped arrays: memory grows with the numbers of regions and of motifs, but not
with their product, nor with the number of examples.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray
from scipy import sparse

from genebert.console import say
from genebert.corpus import splits
from genebert.corpus.store import Corpus
from genebert.schema import BASES, EVIDENCE_STEPS, SPLITS, Motif
from genebert.settings import ExportSettings
from genebert.stage import open_stage

_BLOCK_BYTES = 1 << 26
_LETTERS = np.frombuffer(BASES.encode(), dtype=np.uint8)


def export(settings: ExportSettings) -> Path:
    """Write a corpus as AnnData or Parquet.

    Returns:
        the folder made; see the module's description.

    Raises:
        UserError: the corpus cannot be used.
    """
    corpus = Corpus.open(settings.corpus)
    with open_stage("export", settings, {"corpus": settings.corpus}) as run:
        if run.finished:
            return run.out
        write = _write_anndata if settings.format == "anndata" else _write_parquet
        write(corpus, run.folder)
        out = run.finish({"regions": len(corpus.regions), "examples": len(corpus.accessible_regions)})
        size = sum(path.stat().st_size for path in out.iterdir()) / 1e6
        say(f"{out}: {len(corpus.regions):,} regions as {settings.format}, {size:,.1f} MB")
        return out


def consensus(motif: Motif) -> str:
    """Return the most probable base of each position."""
    return "".join(BASES[i] for i in motif.probabilities.argmax(axis=1))


def _write_anndata(corpus: Corpus, folder: Path) -> None:
    about = {
        "corpus": corpus.fingerprint,
        "coordinates": "0-based, half-open",
        "X": f"motif evidence: -log10 p of the best hit on either strand = X / {EVIDENCE_STEPS}",
        "pseudocount": corpus.pseudocount,
        "gc_background": corpus.gc_background,
    }
    regions = region_table(corpus)
    evidence = anndata.AnnData(X=np.asarray(corpus.evidence), obs=regions, var=_motif_table(corpus), uns=about)
    evidence.write_h5ad(folder / "regions_motifs.h5ad", compression="gzip")
    del about["pseudocount"], about["gc_background"]
    about |= {"X": "accessibility: log1p of signal per million", "signal": corpus.signal}
    values = (corpus.accessible_values, corpus.accessible_regions, corpus.accessible_offsets)
    shape = len(corpus.cell_types), len(regions)
    matrix = sparse.csr_matrix(tuple(map(np.asarray, values)), shape=shape)
    accessible = anndata.AnnData(X=matrix, obs=cell_type_table(corpus), var=regions, uns=about)
    accessible.write_h5ad(folder / "cell_types_regions.h5ad", compression="gzip")


def region_table(corpus: Corpus) -> pd.DataFrame:
    """Return chrom, start, end and split of the regions, which are named chrom:start-end."""
    table = corpus.regions
    names = table["chrom"] + ":" + table["start"].astype(str) + "-" + table["end"].astype(str)
    columns = {
        "chrom": pd.Categorical(table["chrom"]),
        "start": table["start"].to_numpy(),
        "end": table["end"].to_numpy(),
        "split": pd.Categorical(table["split"], categories=splits.NAMES),
    }
    return pd.DataFrame(columns, index=names.to_numpy())


def _motif_table(corpus: Corpus) -> pd.DataFrame:
    columns = {
        "name": [motif.name for motif in corpus.motifs],
        "width": [motif.width for motif in corpus.motifs],
        "consensus": [consensus(motif) for motif in corpus.motifs],
        "members": [" ".join(_members(corpus, motif)) for motif in corpus.motifs],
    }
    return pd.DataFrame(columns, index=[motif.id for motif in corpus.motifs])


def _members(corpus: Corpus, motif: Motif) -> list[str]:
    """Return the ids of the motifs that a motif stands for."""
    return corpus.archetypes.get(motif.id, [motif.id])


def cell_type_table(corpus: Corpus) -> pd.DataFrame:
    """Return the part of each cell type, and how many regions are accessible in it."""
    columns = {
        "part": pd.Categorical([SPLITS[part] for part in corpus.cell_type_part], categories=SPLITS),
        "accessible_regions": np.diff(corpus.accessible_offsets),
    }
    return pd.DataFrame(columns, index=corpus.cell_types)


def _write_parquet(corpus: Corpus, folder: Path) -> None:
    _write_groups(folder / "regions.parquet", _region_groups(corpus))
    _write_groups(folder / "motifs.parquet", [_motif_group(corpus)])
    _write_groups(folder / "evidence.parquet", _evidence_groups(corpus))
    _write_groups(folder / "examples.parquet", _example_groups(corpus))


def _write_groups(path: Path, groups: Iterable[pa.Table]) -> None:
    """Write tables of one schema as the row groups of one file."""
    writer: Any = None
    try:
        for group in groups:
            writer = writer or pa.parquet.ParquetWriter(path, group.schema, compression="zstd")
            writer.write_table(group)
    finally:
        if writer is not None:
            writer.close()


def _blocks(corpus: Corpus) -> Iterator[slice]:
    rows = _BLOCK_BYTES // max(corpus.width, len(corpus.motifs))
    return (slice(start, start + rows) for start in range(0, len(corpus.regions), rows))


def _numbers(corpus: Corpus, rows: slice) -> pa.Array:
    return pa.array(np.arange(*rows.indices(len(corpus.regions)), dtype=np.int32))


def _region_groups(corpus: Corpus) -> Iterator[pa.Table]:
    for rows in _blocks(corpus):
        table = corpus.regions.iloc[rows]
        columns = {
            "region": _numbers(corpus, rows),
            "chrom": pa.array(table["chrom"], pa.string()).dictionary_encode(),
            "start": pa.array(table["start"], pa.int64()),
            "end": pa.array(table["end"], pa.int64()),
            "split": pa.array(table["split"], pa.string()).dictionary_encode(),
            "sequence": _as_strings(corpus.sequence[rows]),
        }
        yield pa.table(columns)


def _as_strings(codes: NDArray[np.uint8]) -> pa.Array:
    """Return base codes, shape (n, width), as n strings."""
    rows, width = codes.shape
    ends = np.arange(0, (rows + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(ends), pa.py_buffer(_LETTERS[codes]))


def _motif_group(corpus: Corpus) -> pa.Table:
    rows = [
        {
            "id": motif.id,
            "name": motif.name,
            "width": motif.width,
            "consensus": consensus(motif),
            "members": _members(corpus, motif),
            "probabilities": motif.probabilities.tolist(),
        }
        for motif in corpus.motifs
    ]
    return pa.Table.from_pylist(rows)


def _evidence_groups(corpus: Corpus) -> Iterator[pa.Table]:
    names = [motif.id for motif in corpus.motifs]
    for rows in _blocks(corpus):
        columns = np.ascontiguousarray(corpus.evidence[rows].T)
        yield pa.Table.from_arrays([_numbers(corpus, rows), *map(pa.array, columns)], ["region", *names])


def _example_groups(corpus: Corpus) -> Iterator[pa.Table]:
    names = pa.array(corpus.cell_types, pa.string())
    for index in range(len(names)):
        rows = slice(*corpus.accessible_offsets[index : index + 2])
        cell_type = pa.array(np.full(rows.stop - rows.start, index, dtype=np.int32))
        columns = {
            "cell_type": pa.DictionaryArray.from_arrays(cell_type, names),
            "region": pa.array(np.asarray(corpus.accessible_regions[rows])),
            "value": pa.array(np.asarray(corpus.accessible_values[rows])),
        }
        yield pa.table(columns)
