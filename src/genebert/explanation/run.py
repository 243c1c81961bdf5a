"""The stage `explain`: what a predictor rests on in each cell type.

```
importance.tsv    one row per cell type, motif and measure: occlusion and gradient x input, in all columns of the region
                  matrix and in the region's own; see `importance` and `tables`
pairs.tsv         pairs of the most important motifs: the effect of both, and what it has beyond the sum of single ones
motifs/           0-CELL_TYPE.meme, 1-...: the motifs with the largest absolute effect in each cell type, in MEME format
locus.tsv         in-silico mutagenesis of a locus in two cell types, if one is given
explanation.html  all of it on one page
```
Regions are drawn in one random order for all cell types, so that many are shared, and their sequences are encoded once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from genebert.console import say
from genebert.corpus.overlaps import regions_in
from genebert.corpus.parallel import ThisProcess
from genebert.corpus.store import Corpus
from genebert.corpus.training import evidence_moments
from genebert.corpus.work import Work
from genebert.errors import UserError, listed, problem
from genebert.explanation.importance import COLUMNS, Score, gradient_x_input, occlusion
from genebert.explanation.locus import Locus, mutate_locus
from genebert.explanation.scores import BATCH, LogOdds, explainable, members_without_network
from genebert.explanation.tables import Effects, importance_rows, pair_rows
from genebert.inputs.genome import Genome
from genebert.inputs.motifs import write_meme
from genebert.methods.genebert import shown_of
from genebert.model.config import GeneBertConfig
from genebert.predictor import Predictor
from genebert.pretrained import check_motifs
from genebert.region_matrix import Context, in_cell_type, region_matrix
from genebert.report.explanation import PAGE, explanation_page
from genebert.resampling import Numbers, region_weights
from genebert.settings import ExplainSettings
from genebert.stage import StageRun, open_stage
from genebert.tasks.labels import check_genome

PAIR_REGIONS = 50
"""Regions of a cell type in which pairs are occluded."""
Batch = tuple[int, slice]
"""Place of a cell type, and places in its windows."""
Shared = TypeVar("Shared")
MAIN = "occlusion, all"
"""The measure by which motifs are chosen for pairs, files and the page."""


def explain(settings: ExplainSettings) -> Path:
    """Explain a predictor; see the module. An interrupted run resumes.

    Raises:
        UserError: an input cannot be used, or inputs do not belong together.
    """
    inputs = {name: getattr(settings, name) for name in ("model", "corpus", "genome", "regions")}
    with open_stage("explain", settings, inputs, resumable=True) as run:
        if run.finished:
            return run.out
        corpus = Corpus.open(settings.corpus)
        predictor = Predictor.open(settings.model, settings.device)
        networks = explainable(predictor, corpus)
        check_motifs(predictor.scanner, corpus, f"the model {settings.model}")
        names = list(dict.fromkeys(settings.cell_types or corpus.cell_types))
        work = Work(run.scratch, ThisProcess())
        tables = _locus_table(settings, predictor, corpus, names, work)
        drawn = Drawn.of(settings, corpus, names)
        codes, evidence = corpus.sequence[drawn.regions], corpus.evidence[drawn.regions]
        say(f"encoding {len(codes):,} sequences")
        mean = torch.from_numpy(evidence_moments(corpus)[0]).float().to(networks[0].device)
        explainer = Explainer(drawn, LogOdds(networks, codes, evidence), mean, networks[0].config)
        tables |= _tables(settings, explainer, work)
        return _finish(settings, corpus, predictor, drawn, tables, run)


def _locus_table(
    settings: ExplainSettings, predictor: Predictor, corpus: Corpus, cell_types: list[str], work: Work
) -> dict[str, pd.DataFrame]:
    """Return the table locus, if one is asked for."""
    if settings.locus is None:
        return {}
    if settings.genome is None:
        raise UserError(problem("--locus", "it needs the genome", "Add --genome."))
    if len(cell_types) < 2:
        what = f"two cell types are compared, and {cell_types[0]} is the only one"
        raise UserError(problem("--locus", what, "Name two by --cell-types."))
    locus = Locus.parse(settings.locus, corpus)
    with Genome(settings.genome) as genome:
        check_genome(genome, corpus)
        return {"locus": mutate_locus(locus, predictor, corpus, genome, cell_types[:2], work)}


@dataclass(frozen=True)
class Drawn:
    """The regions looked at in each cell type.

    Attributes:
        corpus: the corpus.
        names: of the cell types.
        cell_types: their indices, int64, shape (c,).
        regions: of all cell types together, int64, ascending, shape (n,).
        windows: of each cell type, places in `regions`, int64, in random order.
    """

    corpus: Corpus
    names: list[str]
    cell_types: NDArray[np.int64]
    regions: NDArray[np.int64]
    windows: list[NDArray[np.int64]]

    @classmethod
    def of(cls, settings: ExplainSettings, corpus: Corpus, names: list[str]) -> "Drawn":
        """Draw accessible regions of each cell type.

        Raises:
            UserError: a cell type is unknown, or has fewer than two regions to draw from.
        """
        cell_types = corpus.cell_type_indices(names)
        usable = regions_in(settings.regions, corpus)
        order = np.random.default_rng(settings.seed).permutation(len(corpus.regions))
        chosen = []
        for name, cell_type in zip(names, cell_types.tolist(), strict=True):
            accessible = np.zeros(len(corpus.regions), dtype=bool)
            accessible[corpus.accessible(cell_type)] = True
            found = order[(accessible & usable)[order]][: settings.per_cell_type]
            if len(found) < 2:
                what = f"fewer than two accessible regions of {name} are left to look at"
                raise UserError(problem(settings.regions or settings.corpus, what, "Leave the cell type out."))
            chosen.append(found)
        regions = np.unique(np.concatenate(chosen))
        return cls(corpus, names, cell_types, regions, [np.searchsorted(regions, found) for found in chosen])


@dataclass(frozen=True)
class Explainer:
    """Regions of cell types, and a score of their region matrices.

    Attributes:
        drawn: the regions.
        score: of the matrices of `drawn.regions`.
        mean: of each motif's evidence in the training regions, float32, shape (motifs,).
        config: of the networks, which are alike in what they read.
    """

    drawn: Drawn
    score: Score
    mean: torch.Tensor
    config: GeneBertConfig

    def batches(self, most: int) -> list[Batch]:
        """Return (place of the cell type, places in its `windows`) of at most `most` regions of each."""
        counts = [min(most, len(windows)) for windows in self.drawn.windows]
        return [(i, slice(s, min(s + BATCH, n))) for i, n in enumerate(counts) for s in range(0, n, BATCH)]

    def effects(self, measure: Callable[..., torch.Tensor], batch: Batch, *options: Any) -> Effects:
        """Return what a measure of `importance` finds in a batch of regions."""
        place, rows = batch
        window = self.drawn.windows[place][rows]
        corpus, region = self.drawn.corpus, self.drawn.regions[window]
        cell_type = np.full(len(window), self.drawn.cell_types[place])
        matrix = region_matrix(corpus, region, cell_type, self.config.region_columns)
        where = Context(corpus, cell_type, corpus.region_positions[region])
        matrix = in_cell_type(matrix, where, corpus.width, shown_of(self.config))
        device = self.mean.device
        found = measure(self.score, matrix.to(device), torch.from_numpy(window).to(device), self.mean, *options)
        return found.float().cpu().numpy()


def _gradients(explainer: Explainer, batch: Batch) -> dict[str, Effects]:
    return {"effect": explainer.effects(gradient_x_input, batch)}


def _occlusions(shared: tuple[Explainer, Sequence[Sequence[Sequence[int]]]], batch: Batch) -> dict[str, Effects]:
    explainer, groups = shared
    return {"effect": explainer.effects(occlusion, batch, groups[batch[0]])}


def _tables(settings: ExplainSettings, explainer: Explainer, work: Work) -> dict[str, pd.DataFrame]:
    """Return the tables importance and pairs."""
    drawn, corpus = explainer.drawn, explainer.drawn.corpus
    motifs = pd.DataFrame({"motif": [m.id for m in corpus.motifs], "name": [m.name for m in corpus.motifs]})
    weights = region_weights(np.arange(len(drawn.regions)), settings.seed)
    batches = explainer.batches(settings.per_cell_type)
    gradients = _mapped(work, "gradient x input", _gradients, explainer, batches)
    occluded = _largest(gradients, settings.most_motifs)
    single = [[(motif,) for motif in occluded.tolist()]] * len(drawn.names)
    occlusions = _mapped(work, "occlusion", _occlusions, (explainer, single), batches)
    tables = [
        importance_rows(
            drawn.names, chosen, f"{what}, {columns}", weights, drawn.windows, [one[:, i] for one in effects]
        )
        for what, effects, chosen in (
            ("occlusion", occlusions, motifs.iloc[occluded]),
            ("gradient x input", gradients, motifs),
        )
        for i, columns in enumerate(COLUMNS)
    ]
    found = {"importance": pd.concat(tables, ignore_index=True)}
    pairs = [_pairs(one[:, 0], occluded, settings.pairs) for one in occlusions]
    if all(pairs):
        joint = _mapped(work, "occlusion of pairs", _occlusions, (explainer, pairs), explainer.batches(PAIR_REGIONS))
        found["pairs"] = _pair_table(drawn, motifs, pairs, weights, joint, occlusions, occluded)
    return found


def _mapped(
    work: Work, what: str, function: Callable[[Shared, Batch], dict[str, Effects]], shared: Shared, batches: list[Batch]
) -> list[Effects]:
    """Return what a function finds in the regions of each cell type: shape (n, 2, motifs or groups of them)."""
    results = work.map(what.replace(" ", "-"), what, function, shared, len(batches), lambda number: batches[number])
    parts: dict[int, list[Effects]] = {}
    for (place, _), found in zip(batches, results, strict=True):
        parts.setdefault(place, []).append(found["effect"])
    return [np.concatenate(one) for one in parts.values()]


def _largest(gradients: Sequence[Effects], most: int) -> NDArray[np.int64]:
    """Return the motifs with the largest mean absolute gradient x input in any cell type: int64, ascending."""
    sizes = np.stack([np.abs(one[:, 0]).mean(axis=0) for one in gradients]).max(axis=0)
    return np.sort(np.argsort(-sizes, kind="stable")[:most])


def _pairs(effects: Effects, occluded: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Return all pairs of the motifs with the largest mean absolute effect, by place in the collection."""
    best = np.argsort(-np.abs(effects).mean(axis=0), kind="stable")[:most]
    return list(combinations(sorted(occluded[best].tolist()), 2))


def _pair_table(
    drawn: Drawn,
    motifs: pd.DataFrame,
    pairs: Sequence[Sequence[tuple[int, int]]],
    weights: Numbers,
    joint: Sequence[Effects],
    single: Sequence[Effects],
    occluded: NDArray[np.int64],
) -> pd.DataFrame:
    tables = []
    for name, some, window, both, alone in zip(drawn.names, pairs, drawn.windows, joint, single, strict=True):
        place = np.searchsorted(occluded, np.array(some))
        sums = alone[: len(both), 0][:, place].sum(axis=2)
        tables.append(pair_rows(name, motifs, some, weights, window[: len(both)], both[:, 0], both[:, 0] - sums))
    return pd.concat(tables, ignore_index=True)


def _finish(
    settings: ExplainSettings,
    corpus: Corpus,
    predictor: Predictor,
    drawn: Drawn,
    tables: dict[str, pd.DataFrame],
    run: StageRun,
) -> Path:
    target = predictor.target.names[1]
    for name, table in tables.items():
        table.to_csv(run.folder / f"{name}.tsv", sep="\t", index=False, float_format="%.6g")
    main = tables["importance"][tables["importance"]["measure"] == MAIN]
    files = _write_motifs(run.folder / "motifs", corpus, drawn.names, main, settings.top)
    page = explanation_page(tables, drawn.names, MAIN, target, settings.top, _about(settings, predictor, drawn))
    (run.folder / PAGE).write_text(page, encoding="utf-8")
    metrics = {
        "class": target,
        "regions": {name: len(windows) for name, windows in zip(drawn.names, drawn.windows, strict=True)},
        "motifs_occluded": main["motif"].nunique(),
        "motif_files": files,
    }
    out = run.finish(metrics)
    for name in drawn.names:
        best = main[main["cell_type"] == name].sort_values("rank", kind="stable").head(5)
        say(f"{name}: {', '.join(f'{row.name_} ({row.effect:+.3f})' for row in _named(best))}")
    return out


def _about(settings: ExplainSettings, predictor: Predictor, drawn: Drawn) -> str:
    """Say what is explained, and on which regions."""
    counts = sorted({len(windows) for windows in drawn.windows})
    regions = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    others = members_without_network(predictor)
    rest = f" Its networks are explained, and {listed(others)} is not." if others else ""
    return f"Of {settings.model}, on {regions} accessible regions of each cell type of {settings.corpus}.{rest}"


def _named(table: pd.DataFrame) -> list[Any]:
    """Return rows whose `name` is `name_`: a named tuple's own attribute it cannot be."""
    return list(table.rename(columns={"name": "name_"}).itertuples(index=False))


def _write_motifs(folder: Path, corpus: Corpus, names: list[str], main: pd.DataFrame, top: int) -> dict[str, str]:
    """Write the most important motifs of each cell type, and return the names of the files."""
    folder.mkdir(exist_ok=True)
    by_id, files = {motif.id: motif for motif in corpus.motifs}, {}
    for i, name in enumerate(names):
        best = main[main["cell_type"] == name].sort_values("rank", kind="stable").head(top)
        safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
        files[name] = f"motifs/{i}-{safe}.meme"
        write_meme(folder.parent / files[name], [by_id[key] for key in best["motif"]], corpus.gc_background)
    return files
