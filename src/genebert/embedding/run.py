"""The stage `embed`: a corpus as a network sees it, as AnnData, with maps.

```
regions.h5ad      regions x dimensions: X is the pooled states of the sequence encoder
examples.h5ad     examples (cell type, accessible region) x dimensions: X is the states of regions in cell types, cell
                  type by cell type, so that one cell type is a slice of rows
cell_types.h5ad   cell types x dimensions: X is the mean state of a cell type's regions, each less its mean over the
                  cell types that it is accessible in
joined.h5ad       the user's own cells x peaks, if given, with embeddings of peaks in varm
embedding.html    maps of cell types and of regions
```
All have principal components (X_pca) and, but for examples, UMAP (X_umap) in obsm. A sequence is encoded once, whatever
number of cell types its region is accessible in. Memory does not grow with the number of examples but for their names
and principal components.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.console import say
from genebert.corpus.overlaps import regions_in
from genebert.corpus.parallel import ThisProcess
from genebert.corpus.store import Corpus
from genebert.corpus.work import Results, Work
from genebert.embedding.coordinates import LEAST_ROWS, Components, principal_components, umap_module, umap_of
from genebert.embedding.encoder import Encoder
from genebert.embedding.files import Block, dimensions, join, region_of_peaks, write_embedding
from genebert.errors import UserError, listed, problem
from genebert.export import cell_type_table, region_table
from genebert.report.embedding import PAGE, Map, embedding_page
from genebert.settings import EmbedSettings
from genebert.stage import StageRun, open_stage

PART = 256
"""Regions encoded between two saves."""
_ROWS = 1 << 12  # looked at together


def embed(settings: EmbedSettings) -> Path:
    """Embed regions, examples and cell types; see the module. An interrupted run resumes.

    Raises:
        UserError: an input cannot be used, inputs do not belong together, or umap-learn is not installed.
    """
    inputs = {name: getattr(settings, name) for name in ("model", "corpus", "regions", "anndata")}
    with open_stage("embed", settings, inputs, resumable=True) as run:
        if run.finished:
            return run.out
        if settings.umap:
            umap_module()  # not after hours
        corpus = Corpus.open(settings.corpus)
        chosen = Chosen.of(settings, corpus)
        peaks = settings.anndata
        source = None if peaks is None else region_of_peaks(peaks, corpus, chosen.regions)
        encoder = Encoder.open(settings.model, corpus, settings.device, settings.precision)
        return _embed(settings, chosen, encoder, source, run)


@dataclass(frozen=True)
class Chosen:
    """The regions and cell types to embed, and their order.

    Attributes:
        corpus: the corpus.
        regions: indices, int64, ascending, shape (n,).
        cell_types: indices, int64, shape (c,).
    """

    corpus: Corpus
    regions: NDArray[np.int64]
    cell_types: NDArray[np.int64]

    @classmethod
    def of(cls, settings: EmbedSettings, corpus: Corpus) -> "Chosen":
        """Choose what the settings say.

        Raises:
            UserError: the corpus has no such cell type, or no region is left.
        """
        cell_types = corpus.cell_type_indices(list(dict.fromkeys(settings.cell_types or corpus.cell_types)))
        accessible = np.zeros(len(corpus.regions), dtype=bool)
        for cell_type in cell_types.tolist():
            accessible[corpus.accessible(cell_type)] = True
        regions = np.flatnonzero(accessible & regions_in(settings.regions, corpus))
        if not len(regions):
            what = "no region of the corpus is accessible in these cell types and overlaps these intervals"
            raise UserError(problem(settings.regions or settings.corpus, what, "Choose others."))
        if settings.sample is not None:
            drawn = np.random.default_rng(settings.seed).permutation(regions)[: settings.sample]
            regions = np.sort(drawn)
        return cls(corpus, regions, cell_types)

    def part(self, number: int) -> NDArray[np.int64]:
        """Return the regions of a part."""
        return self.regions[number * PART : (number + 1) * PART]

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-len(self.regions) // PART)

    @cached_property
    def members(self) -> list[NDArray[np.int64]]:
        """Rows (places in `regions`) that are accessible in each cell type: int64, ascending."""
        found = []
        for cell_type in self.cell_types.tolist():
            accessible = self.corpus.accessible(cell_type).astype(np.int64)
            found.append(np.searchsorted(self.regions, accessible[np.isin(accessible, self.regions)]))
        return found

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Row of examples.h5ad at which each cell type begins, and its end: int64, shape (c + 1,)."""
        return np.cumsum([0, *map(len, self.members)])

    def members_of_part(self, number: int) -> list[slice]:
        """Return which places in `members` are in a part, for each cell type."""
        edges = number * PART, (number + 1) * PART
        return [slice(*np.searchsorted(members, edges).tolist()) for members in self.members]


def _encode_part(shared: tuple[Encoder, Chosen], number: int) -> dict[str, NDArray[np.float32]]:
    """Return the states of a part's regions, and of its examples, cell type by cell type."""
    encoder, chosen = shared
    sequence = encoder.sequences(chosen.corpus, chosen.part(number))
    rows = [members[some] for members, some in zip(chosen.members, chosen.members_of_part(number), strict=True)]
    row = np.concatenate(rows)
    cell_type = np.repeat(chosen.cell_types, [len(one) for one in rows])
    states = encoder.examples(chosen.corpus, chosen.regions[row], cell_type, sequence[row - number * PART])
    return {"sequence": sequence, "state": states}


def _embed(
    settings: EmbedSettings, chosen: Chosen, encoder: Encoder, source: NDArray[np.int64] | None, run: StageRun
) -> Path:
    work = Work(run.scratch, ThisProcess())
    found = work.map("part", "embedding regions", _encode_part, (encoder, chosen), chosen.parts, lambda number: number)
    about = {
        "corpus": chosen.corpus.fingerprint,
        "model": run.inputs["model"]["sha256"],
        "coordinates": "0-based, half-open",
    }
    seed = settings.seed if settings.umap else None
    regions = _write_regions(run.folder / "regions.h5ad", chosen, encoder, found, about, seed)
    _write_examples(run.folder / "examples.h5ad", chosen, encoder, found, about)
    cell_types = _write_cell_types(run.folder / "cell_types.h5ad", chosen, found, about, seed)
    metrics: dict[str, Any] = {
        "regions": len(chosen.regions),
        "examples": int(chosen.first[-1]),
        "cell_types": [chosen.corpus.cell_types[i] for i in chosen.cell_types],
        "sequence_dimensions": encoder.network.sequence_width,
        "state_dimensions": encoder.width,
        "states": encoder.what,
    }
    if settings.anndata is not None and source is not None:
        metrics |= _join(settings.anndata, source, run.folder)
    page = embedding_page(cell_types, regions, encoder.what, _which(settings, chosen))
    (run.folder / PAGE).write_text(page, encoding="utf-8")
    out = run.finish(metrics)
    say(f"{out}: {metrics['regions']:,} regions, {metrics['examples']:,} examples; open {PAGE} in a browser")
    return out


def _which(settings: EmbedSettings, chosen: Chosen) -> str:
    """Say which regions of the corpus are embedded; nothing if all are."""
    every = len(chosen.corpus.regions)
    if len(chosen.regions) == every:
        return ""
    return f"{'drawn at random ' if settings.sample is not None else ''}of {every:,} of the corpus"


def _write_regions(
    path: Path, chosen: Chosen, encoder: Encoder, found: Results, about: dict[str, Any], seed: int | None
) -> Map:
    """Write regions.h5ad, and return its map, with strongest_tf."""

    def blocks() -> Iterator[Block]:
        for number, part in enumerate(found):
            yield slice(number * PART, number * PART + len(part["sequence"])), part["sequence"]

    obs = region_table(chosen.corpus).iloc[chosen.regions].copy()
    obs["strongest_tf"] = pd.Categorical(strongest_motifs(chosen, encoder))
    obs["cell_types"] = np.bincount(np.concatenate(chosen.members), minlength=len(obs))
    components = principal_components(lambda: (values for _, values in blocks()))
    obsm = _coordinates(components, seed)
    what = {"X": "pooled states of the sequence encoder: [CLS], the means of both halves, the highest of all"}
    write_embedding(path, obs, dimensions("sequence", encoder.network.sequence_width), blocks(), obsm, about | what)
    return Map(_places_of(obsm, strongest_tf=obs["strongest_tf"].astype(str)), _axes(components, seed))


def strongest_motifs(chosen: Chosen, encoder: Encoder) -> NDArray[Any]:
    """Return the name of the motif whose evidence is most standard deviations above its mean: shape (n,)."""
    mean, deviation = encoder.evidence_moments
    names = np.array([motif.name for motif in chosen.corpus.motifs])
    starts = range(0, len(chosen.regions), _ROWS)
    rows = (chosen.corpus.evidence[chosen.regions[start : start + _ROWS]] for start in starts)
    return names[np.concatenate([((block - mean) / deviation).argmax(axis=1) for block in rows])]


def _write_examples(path: Path, chosen: Chosen, encoder: Encoder, found: Results, about: dict[str, Any]) -> None:
    names = region_table(chosen.corpus).index[chosen.regions]
    row = np.concatenate(chosen.members)
    cell_types = [chosen.corpus.cell_types[i] for i in chosen.cell_types]
    code = np.repeat(np.arange(len(cell_types)), np.diff(chosen.first))
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(code, cell_types),
            "region": pd.Categorical.from_codes(row, names),
            "accessibility": _accessibility(chosen),
        },
        index=np.array(cell_types, dtype=object)[code] + "|" + names.to_numpy(object)[row],
    )
    scores = principal_components(lambda: (part["state"] for part in found)).scores
    pca = np.empty_like(scores)
    begin = 0
    for number in range(chosen.parts):
        for place, size in _places(chosen, number):
            pca[place] = scores[begin : begin + size]
            begin += size

    def blocks() -> Iterator[Block]:
        for number, part in enumerate(found):
            begin = 0
            for place, size in _places(chosen, number):
                yield place, part["state"][begin : begin + size]
                begin += size

    write_embedding(
        path, obs, dimensions("state", encoder.width), blocks(), {"X_pca": pca}, about | {"X": encoder.what}
    )


def _places(chosen: Chosen, number: int) -> Iterator[tuple[slice, int]]:
    """Yield the rows of examples.h5ad that a part's examples of each cell type take, and how many there are."""
    for first, some in zip(chosen.first[:-1].tolist(), chosen.members_of_part(number), strict=True):
        if some.stop > some.start:
            yield slice(first + some.start, first + some.stop), some.stop - some.start


def _accessibility(chosen: Chosen) -> NDArray[np.float32]:
    """Return log1p signal per million of each example: float32, shape (examples,)."""
    corpus, found = chosen.corpus, []
    for cell_type in chosen.cell_types.tolist():
        values = corpus.accessible_values[slice(*corpus.accessible_offsets[cell_type : cell_type + 2])]
        found.append(values[np.isin(corpus.accessible(cell_type), chosen.regions)])
    return np.concatenate(found)


def _write_cell_types(path: Path, chosen: Chosen, found: Results, about: dict[str, Any], seed: int | None) -> Map:
    """Write cell_types.h5ad, and return its map, with cell_type."""
    centred, plain, counted = cell_type_states(chosen, found)
    obs = cell_type_table(chosen.corpus).iloc[chosen.cell_types].copy()
    obs["regions"] = counted
    known = counted > 0
    if known.any() and not known.all():
        names = listed(obs.index[~known])
        say(f"warning: no embedded region is accessible both in {names} and in another cell type")
    known |= not known.any()  # as of one cell type alone, whose vector is 0
    centred[~known] = np.nan
    plain[np.diff(chosen.first) == 0] = np.nan
    components = principal_components(lambda: [centred[known]])
    where = _coordinates(components, seed)
    obsm = {"X_mean": plain} | {name: _spread(values, known) for name, values in where.items()}
    what = {"X": "mean over regions of the state in the cell type, less the region's mean over its cell types"}
    var = dimensions("state", centred.shape[1])
    write_embedding(path, obs, var, [(slice(0, len(obs)), centred)], obsm, about | what)
    return Map(_places_of(obsm, cell_type=obs.index)[known], _axes(components, seed))


def _spread(values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return rows in the places where something is known, NaN in the others."""
    spread = np.full((len(known), values.shape[1]), np.nan, dtype=np.float32)
    spread[known] = values
    return spread


def cell_type_states(
    chosen: Chosen, found: Results
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Average the states of each cell type's regions.

    Returns:
        means of what is left of each state after the region's mean over the cell types that it is accessible in,
        float32, shape (c, width), over the regions that are accessible in two or more; plain means over all regions,
        float32, same shape; number of the former regions, int64, shape (c,).
    """
    count = len(chosen.cell_types)
    width = found[0]["state"].shape[1]
    centred, plain = np.zeros((count, width)), np.zeros((count, width))
    counted, all_regions = np.zeros(count, dtype=np.int64), np.diff(chosen.first)
    for number, part in enumerate(found):
        sizes = [some.stop - some.start for some in chosen.members_of_part(number)]
        cell_type = np.repeat(np.arange(count), sizes)
        rows = [members[some] for members, some in zip(chosen.members, chosen.members_of_part(number), strict=True)]
        row, states = np.concatenate(rows) - number * PART, part["state"].astype(np.float64)
        times = np.bincount(row, minlength=PART)
        sums = np.zeros((PART, width))
        np.add.at(sums, row, states)
        np.add.at(plain, cell_type, states)
        shared = times[row] > 1
        np.add.at(centred, cell_type[shared], states[shared] - (sums / np.maximum(times, 1)[:, None])[row[shared]])
        counted += np.bincount(cell_type[shared], minlength=count)
    centred /= np.maximum(counted, 1)[:, None]
    plain /= np.maximum(all_regions, 1)[:, None]
    return centred.astype(np.float32), plain.astype(np.float32), counted


def _coordinates(components: Components, seed: int | None) -> dict[str, NDArray[np.float32]]:
    """Return X_pca and, if there is a seed, X_umap."""
    scores = components.scores
    return {"X_pca": scores} | ({} if seed is None else {"X_umap": umap_of(scores, seed)})


def _axes(components: Components, seed: int | None) -> tuple[str, str]:
    """Name what `_places_of` returns; of few rows X_umap, too, is their components."""
    if seed is not None and len(components.scores) >= LEAST_ROWS:
        return "UMAP 1", "UMAP 2"
    first, second = components.shares[:2]
    return f"PC 1 ({first:.0%})", f"PC 2 ({second:.0%})"


def _places_of(obsm: dict[str, NDArray[np.float32]], **names: Any) -> pd.DataFrame:
    """Return where rows are on a map, x and y, and what they are called."""
    places = pd.DataFrame(obsm.get("X_umap", obsm["X_pca"])[:, :2], columns=["x", "y"])
    return places.assign(**{column: np.asarray(own) for column, own in names.items()})


def _join(path: Path, source: NDArray[np.int64], folder: Path) -> dict[str, int]:
    with h5py.File(folder / "regions.h5ad", "r") as file:
        matrices = {"X_genebert": file["X"], "X_genebert_pca": file["obsm/X_pca"]}
        join(path, folder / "joined.h5ad", source, matrices)
    matched, peaks = int((source >= 0).sum()), len(source)
    say(f"{path}: {matched:,} of {peaks:,} peaks overlap a region that was embedded")
    return {"peaks": peaks, "peaks_matched": matched}
