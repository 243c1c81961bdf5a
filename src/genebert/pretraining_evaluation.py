"""How well a model does its pre-training tasks on held-out examples, against chance and simple baselines."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from genebert.console import say
from genebert.context_models import (
    MARKOV_ORDER,
    UNSEEN,
    FlankingBases,
    majority_base,
    markov_table,
    visible_bases,
)
from genebert.corpus.training import training_rows
from genebert.distributed import gather, total
from genebert.metrics import auroc as plain_auroc
from genebert.model.genebert import GeneBertForPreTraining, PretrainingOutput
from genebert.objectives import pretraining_losses
from genebert.pretraining_data import NO_EXTRAS, PretrainingBatch, PretrainingData
from genebert.probes import Frozen, Probes, row_of
from genebert.probes import Row as Row  # for those who call `evaluate_pretraining`
from genebert.resampling import Numbers, auroc, estimate, mean, ratio, region_weights
from genebert.schema import gc_fraction
from genebert.settings import Masking
from genebert.tokens import DIGIT_OF_CODE

MOST_EXAMPLES = 1024
CANDIDATES = 64
"""SRM retrieval: each sequence is to find its region matrix among those of 64 different regions."""
GAP = 5
"""Between the two segments, where bases are laid out side by side; no context reaches across it."""
_BATCH = 32
Guess = Callable[[PretrainingData, PretrainingBatch], NDArray[np.int64]]
"""Guesses what a batch scores (bases or k-mers): int64, shape (s,)."""


@dataclass(frozen=True)
class Fitted:
    """What an evaluation fits on training examples, once per pre-training.

    Attributes:
        majority, markov, flanks: count models of bases.
        adjacency: of the GC content of both segments; None if all segments drawn for it are adjacent, or none.
        gc_of_motifs: GC content of a region, by its motif evidence.
        frozen: the model's encoders.
        probes: of its pooled vectors.
    """

    majority: int
    markov: NDArray[np.int64]
    flanks: FlankingBases
    adjacency: LogisticRegression | None
    gc_of_motifs: Ridge
    frozen: Frozen
    probes: Probes

    @classmethod
    def on(cls, model: GeneBertForPreTraining, training: PretrainingData) -> "Fitted":
        """Fit on the examples that a model was trained with; it is in eval mode, on its device."""
        corpus, generator = training.corpus, np.random.default_rng([training.seed, 2])
        frozen = Frozen(model.genebert, corpus)
        return cls(
            majority_base(training_rows(corpus, corpus.sequence)),
            markov_table(training_rows(corpus, corpus.sequence)),
            FlankingBases.fit(training_rows(corpus, corpus.sequence)),
            _gc_classifier(plain(training, "hidden-bases"), generator),
            _gc_of_motifs(training, generator),
            frozen,
            Probes(frozen, training, training.seed),
        )


def evaluate_pretraining(
    model: GeneBertForPreTraining, held_out: PretrainingData, training: PretrainingData, fitted: Fitted | None = None
) -> list[Row]:
    """Measure the tasks that the model was trained on, and what its frozen vectors tell.

    Bases are hidden as by the masking "hidden-bases", whatever the model was trained with; a model trained with
    "dnabert" is measured on that masking too. What is hidden of an example depends on the example alone.

    Args:
        model: in eval mode, on its device.
        held_out: examples to measure on.
        training: examples that the model was trained with, on which the baselines are fitted.
        fitted: what `Fitted.on(model, training)` returned, so that several parts can share it.

    Returns:
        one row per metric that is defined: {"task", "metric", "model": estimate, "baselines": name -> estimate,
            "n": number of examples}. Intervals are over regions: see `resampling`.
    """
    fitted = fitted or Fitted.on(model, training)
    generator = np.random.default_rng([held_out.seed, 2])
    examples = one_example_per_region(held_out, held_out.examples, generator)[:MOST_EXAMPLES]
    rows = _segment_rows(model, plain(held_out, "hidden-bases"), examples, fitted)
    if training.masking == "dnabert":
        rows += _token_rows(model, plain(held_out, "dnabert"), examples, fitted)
    if "srm" in model.tasks:
        rows += _matching_rows(model, held_out, fitted, generator)
    rows += fitted.probes.rows(held_out)
    return [row for row in rows if np.isfinite([row["model"]["value"], row["model"]["low"]]).all()]


def plain(data: PretrainingData, masking: Masking) -> PretrainingData:
    """Return the same examples with a masking of choice, and with nothing for further tasks."""
    changed = copy.copy(data)
    changed.masking, changed.extras = masking, NO_EXTRAS
    return changed


def one_example_per_region(
    data: PretrainingData, examples: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return, in random order, one random example of each region among the given ones."""
    shuffled = generator.permutation(examples)
    _, first = np.unique(data.corpus.accessible_regions[shuffled], return_index=True)
    return shuffled[np.sort(first)]


# ------------------------------------------------------------------------------------------ masked bases, segments


class Answers(NamedTuple):
    """What a model and the baselines answered about examples.

    Attributes:
        region: int64, shape (n,).
        right: name -> number of scored bases (or k-mers) that were right, float64, shape (n,).
        scored: how many there were, float64, shape (n,).
        adjacent: whether the second segment follows the first: bool, shape (n,).
        logit: of adjacency, float64, shape (n,); None if the model was not trained for it.
        gc: features of the GC baseline, float64, shape (n, 3).
    """

    region: NDArray[np.int64]
    right: dict[str, Numbers]
    scored: Numbers
    adjacent: NDArray[np.bool_]
    logit: Numbers | None
    gc: Numbers


def _answers(
    model: GeneBertForPreTraining, data: PretrainingData, examples: NDArray[np.int64], guesses: Mapping[str, Guess]
) -> Answers:
    right: dict[str, list[Numbers]] = {}
    scored, adjacent, logits, gc = [], [], [], []
    for batch, output in _outputs(model, data, examples):
        row, truth, rows = batch.scored_row.numpy(), batch.scored_target.numpy(), len(batch.region)
        answers = {name: guess(data, batch) for name, guess in guesses.items()}
        if output.base_log_probs is not None:
            answers["model"] = output.base_log_probs.argmax(dim=1).cpu().numpy()
        for name, answer in answers.items():
            right.setdefault(name, []).append(np.bincount(row, answer == truth, rows).astype(np.float64))
        scored.append(np.bincount(row, minlength=rows).astype(np.float64))
        adjacent.append(batch.adjacent.numpy() > 0)
        if output.adjacent_logits is not None:
            logits.append(output.adjacent_logits.double().cpu().numpy())
        gc.append(segment_gc(data, batch))
    return Answers(
        data.corpus.accessible_regions[examples].astype(np.int64),
        {name: np.concatenate(parts) for name, parts in right.items()},
        np.concatenate(scored),
        np.concatenate(adjacent),
        np.concatenate(logits) if logits else None,
        np.concatenate(gc),
    )


def _outputs(
    model: GeneBertForPreTraining, data: PretrainingData, examples: NDArray[np.int64]
) -> Iterator[tuple[PretrainingBatch, PretrainingOutput]]:
    """Yield batches, on the CPU, and what the model says about them."""
    for start in range(0, len(examples), _BATCH):
        chosen = examples[start : start + _BATCH]
        batch = data.collate(chosen, data.keys(chosen))
        with torch.no_grad():
            yield batch, model(batch.to(model.device))


def _segment_rows(
    model: GeneBertForPreTraining, data: PretrainingData, examples: NDArray[np.int64], fitted: Fitted
) -> list[Row]:
    """Measure MGM on hidden bases, and NGSP."""
    guesses: dict[str, Guess] = {
        "majority base": lambda _, batch: np.full(len(batch.scored_target), fitted.majority),
        f"order-{MARKOV_ORDER} Markov": lambda data, batch: markov_guess(fitted.markov, data, batch),
        "visible flanking bases": lambda data, batch: flanks_guess(fitted.flanks, data, batch),
    }
    answers = _answers(model, data, examples, guesses)
    weights = region_weights(answers.region)
    return _accuracy_rows(answers, weights, "MGM", "accuracy on hidden bases") + _adjacency_rows(
        answers, weights, fitted.adjacency
    )


def _token_rows(
    model: GeneBertForPreTraining, data: PretrainingData, examples: NDArray[np.int64], fitted: Fitted
) -> list[Row]:
    """Measure the published masking, and what it gives away: k-mers put together from visible neighbours."""
    guesses: dict[str, Guess] = {"read off the neighbours": lambda data, batch: kmer_guess(fitted.flanks, data, batch)}
    answers = _answers(model, data, examples, guesses)
    return _accuracy_rows(answers, region_weights(answers.region), "MGM (DNABERT masking)", "accuracy on masked tokens")


def _accuracy_rows(answers: Answers, weights: Numbers, task: str, metric: str) -> list[Row]:
    if "model" not in answers.right:
        return []
    found = {name: estimate(ratio(weights, right, answers.scored)) for name, right in answers.right.items()}
    return [row_of(task, metric, found, len(answers.region))]


def _adjacency_rows(answers: Answers, weights: Numbers, baseline: LogisticRegression | None) -> list[Row]:
    if answers.logit is None:
        return []
    scores = {"model": answers.logit}
    if baseline is not None:
        scores["GC content only"] = baseline.decision_function(answers.gc)
    label, n = answers.adjacent, len(answers.region)
    areas = {name: estimate(auroc(weights, label, score)) for name, score in scores.items()}
    right = {name: estimate(mean(weights, (score > 0) == label)) for name, score in scores.items()}
    share = float(label.mean())
    return [
        row_of("NGSP", "AUROC", areas, n, chance=0.5),
        row_of("NGSP", "accuracy", right, n, chance=max(share, 1 - share)),
    ]


def markov_guess(markov: NDArray[np.int64], data: PretrainingData, batch: PretrainingBatch) -> NDArray[np.int64]:
    """Guess hidden bases from the five true bases before them, even where those are hidden from the model."""
    half = data.corpus.width // 2
    first = data.corpus.sequence[batch.region.numpy()][:, :half]
    second = data.corpus.sequence[batch.second_region.numpy()][:, half:]
    bases = np.pad(_side_by_side(DIGIT_OF_CODE[first], DIGIT_OF_CODE[second], 0), ((0, 0), (MARKOV_ORDER, 0)))
    place = _first_bases(data, batch) + data.k // 2
    context = bases[batch.scored_row.numpy()[:, None], place[:, None] + np.arange(MARKOV_ORDER)]
    return markov[context @ 4 ** np.arange(MARKOV_ORDER - 1, -1, -1)]


def flanks_guess(flanks: FlankingBases, data: PretrainingData, batch: PretrainingBatch) -> NDArray[np.int64]:
    """Guess hidden bases from what the model can see beside them."""
    return flanks.guess(_seen(data, batch), batch.scored_row.numpy(), _first_bases(data, batch) + data.k // 2)


def kmer_guess(flanks: FlankingBases, data: PretrainingData, batch: PretrainingBatch) -> NDArray[np.int64]:
    """Guess masked k-mers from the bases that visible tokens show, and guess only the others."""
    bases = _seen(data, batch)
    row, place = np.nonzero(bases == UNSEEN)
    filled = bases.copy()
    filled[row, place] = flanks.guess(bases, row, place)
    kmers = _first_bases(data, batch)[:, None] + np.arange(data.k)
    return filled[batch.scored_row.numpy()[:, None], kmers] @ 4 ** np.arange(data.k - 1, -1, -1)


def _side_by_side(first: NDArray[Any], second: NDArray[Any], between: int) -> NDArray[np.int64]:
    gap = np.full((len(first), GAP), between)
    return np.concatenate([first, gap, second], axis=1)


def _seen(data: PretrainingData, batch: PretrainingBatch) -> NDArray[np.int64]:
    """Return the bases of both segments that the tokens of a batch show, side by side."""
    ids, tokens = batch.input_ids.numpy(), data.corpus.width // 2 - data.k + 1
    first, second = ids[:, 1 : tokens + 1], ids[:, tokens + 2 : -1]
    return _side_by_side(visible_bases(first, data.k), visible_bases(second, data.k), UNSEEN)


def _first_bases(data: PretrainingData, batch: PretrainingBatch) -> NDArray[np.int64]:
    """Return where, of bases side by side, the scored tokens begin: int64, shape (s,)."""
    token, tokens = batch.scored_token.numpy(), data.corpus.width // 2 - data.k + 1
    return token - 1 + (token > tokens) * (GAP + data.k - 2)


def segment_gc(data: PretrainingData, batch: PretrainingBatch) -> Numbers:
    """Return the features of the GC baseline: GC of both segments and their absolute difference, shape (b, 3)."""
    half = data.corpus.width // 2
    first = gc_fraction(data.corpus.sequence[batch.region.numpy()][:, :half])
    second = gc_fraction(data.corpus.sequence[batch.second_region.numpy()][:, half:])
    return np.stack([first, second, np.abs(first - second)], axis=1)


def _gc_classifier(training: PretrainingData, generator: np.random.Generator) -> LogisticRegression | None:
    chosen = generator.permutation(training.examples)[: 4 * MOST_EXAMPLES]
    parts = np.array_split(chosen, -(-len(chosen) // 256))
    batches = [training.collate(part, training.keys(part)) for part in parts]
    features = np.concatenate([segment_gc(training, batch) for batch in batches])
    adjacent = np.concatenate([batch.adjacent.numpy() for batch in batches])
    return LogisticRegression().fit(features, adjacent) if len(np.unique(adjacent)) > 1 else None


# ----------------------------------------------------------------------------------------------------- matching


def _matching_rows(
    model: GeneBertForPreTraining, data: PretrainingData, fitted: Fitted, generator: np.random.Generator
) -> list[Row]:
    rows = []
    for name, make in {"across cell types": _rounds_across, "within a cell type": _rounds_within}.items():
        rounds = make(data, generator)
        if not rounds:
            say(f"SRM {name} is not measured: fewer than {CANDIDATES} regions")
            continue
        region = [data.corpus.accessible_regions[examples].astype(np.int64) for examples in rounds]
        cell_type = [data.corpus.cell_types_of(examples) for examples in rounds]
        ranks = {
            "model": [_ranks(_similarity(model, fitted.frozen, *pair)) for pair in zip(region, cell_type, strict=True)],
            "GC content only": [_ranks(_gc_similarity(data, fitted.gc_of_motifs, one)) for one in region],
        }
        rows += _retrieval_rows(f"SRM, {name}", np.concatenate(region), ranks)
    return rows


def _retrieval_rows(task: str, region: NDArray[np.int64], ranks: Mapping[str, list[NDArray[np.int64]]]) -> list[Row]:
    weights, n = region_weights(region), len(region)
    found = {name: np.concatenate(parts) for name, parts in ranks.items()}
    return [
        row_of(
            task,
            f"retrieval at {top} of {CANDIDATES}",
            {name: estimate(mean(weights, rank < top)) for name, rank in found.items()},
            n,
            chance=top / CANDIDATES,
        )
        for top in (1, 10)
    ]


def _ranks(similarity: Numbers) -> NDArray[np.int64]:
    """Return how many candidates rank before the right one; a tie counts against the query."""
    return (similarity >= np.diag(similarity)[:, None]).sum(axis=1) - 1


def _similarity(
    model: GeneBertForPreTraining, frozen: Frozen, region: NDArray[np.int64], cell_type: NDArray[np.int64]
) -> Numbers:
    """Return the similarity of each sequence to each region matrix: shape (b, b)."""
    sequences, matrices = (
        torch.from_numpy(vectors).to(model.device)
        for vectors in (frozen.sequences(region), frozen.matrices(region, cell_type))
    )
    with torch.no_grad():
        queries = model.matching_head.project_sequence(sequences)
        candidates = model.matching_head.project_region(matrices)
    similarity: Numbers = (queries @ candidates.T).double().cpu().numpy()
    return similarity


def _gc_similarity(data: PretrainingData, baseline: Ridge, region: NDArray[np.int64]) -> Numbers:
    """Compare the GC content of each sequence with what the motif evidence of each region suggests: shape (b, b)."""
    gc = gc_fraction(data.corpus.sequence[region])
    return -np.abs(gc[:, None] - baseline.predict(own_evidence(data, region)))


def own_evidence(data: PretrainingData, region: NDArray[np.int64]) -> Numbers:
    """Return the motif evidence of regions, which their region matrices contain: float64, shape (b, motifs)."""
    return data.corpus.evidence[region].astype(np.float64)


def _gc_of_motifs(training: PretrainingData, generator: np.random.Generator) -> Ridge:
    chosen = one_example_per_region(training, training.examples, generator)[: 4 * MOST_EXAMPLES]
    region = training.corpus.accessible_regions[chosen].astype(np.int64)
    return Ridge(alpha=100.0).fit(own_evidence(training, region), gc_fraction(training.corpus.sequence[region]))


def _rounds_across(data: PretrainingData, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return rounds of 64 examples of different regions and any cell types."""
    return _chunks(one_example_per_region(data, data.examples, generator))


def _rounds_within(data: PretrainingData, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return rounds of 64 examples of different regions and one cell type each."""
    rounds = []
    cell_type = data.corpus.cell_types_of(data.examples)
    for index in range(len(data.corpus.cell_types)):
        rounds += _chunks(generator.permutation(data.examples[cell_type == index]))[:2]
    return rounds


def _chunks(examples: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    count = min(len(examples), MOST_EXAMPLES) // CANDIDATES
    return [examples[i * CANDIDATES : (i + 1) * CANDIDATES] for i in range(count)]


# ----------------------------------------------------------------------------------------------- during training


def validation_metrics(model: GeneBertForPreTraining, batches: Iterable[PretrainingBatch]) -> dict[str, float]:
    """Measure the tasks on a few batches, cheaply enough to be done during training.

    Args:
        model: in eval mode, on its device.
        batches: on any device.

    Returns:
        mean losses by task, as `pretraining_losses` names them, and what of these the tasks that are on define:
        mgm_accuracy (of hidden bases) or mgm_token_accuracy (of masked k-mers), ngsp_auroc, and srm_retrieval, the
        share of intact sequences that find their region matrix first, among 64 (fewer if there are fewer), not
        counting other matrices of the same region.
    """
    losses: dict[str, list[float]] = {}
    kept: dict[str, list[torch.Tensor]] = {}
    for batch in batches:
        here = batch.to(model.device)
        with torch.no_grad():
            output = model(here)
            found, said = pretraining_losses(output, here), _said(output, here)
        for name, loss in found.items():
            losses.setdefault(name, []).append(loss.item())
        for name, tensor in said.items():
            kept.setdefault(name, []).append(tensor.cpu())
    joined = {name: torch.cat(parts).numpy() for name, parts in kept.items()}
    return {name: float(np.mean(values)) for name, values in losses.items()} | _metrics(joined)


def _said(output: PretrainingOutput, batch: PretrainingBatch) -> dict[str, torch.Tensor]:
    """Return what metrics are computed from, of all processes that train together."""
    found = {}
    if output.base_log_probs is not None:
        right = output.base_log_probs.argmax(dim=1) == batch.scored_target
        name = "mgm_token_accuracy" if batch.whole_kmers else "mgm_accuracy"
        found[name] = total(torch.stack([right.sum(), torch.ones_like(right).sum()])[None])
    if output.adjacent_logits is not None:
        found["logit"] = gather(output.adjacent_logits.float())
    if output.region is not None and output.sequence is not None:
        found |= {"sequence": gather(output.sequence), "matrix": gather(output.region), "region": gather(batch.region)}
    return found and found | {"adjacent": gather(batch.adjacent) > 0}


def _metrics(joined: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    found = {}
    for name in ("mgm_accuracy", "mgm_token_accuracy"):
        if name in joined:
            right, scored = joined[name].sum(axis=0)
            found[name] = float(right / max(scored, 1))
    if "logit" in joined:  # of training that diverges, logits are no numbers
        sound = np.isfinite(joined["logit"]).all()
        found["ngsp_auroc"] = plain_auroc(joined["adjacent"], joined["logit"]) if sound else float("nan")
    if "matrix" in joined:
        intact = joined["adjacent"]
        found["srm_retrieval"] = _retrieval(*(joined[name][intact] for name in ("sequence", "matrix", "region")))
    return found


def _retrieval(sequence: NDArray[Any], matrix: NDArray[Any], region: NDArray[np.int64]) -> float:
    """Return the share of sequences that find their matrix first, in rounds of 64; NaN if there is none."""
    first = []
    for start in range(0, max(1, len(region) // CANDIDATES) * CANDIDATES, CANDIDATES):
        part = slice(start, start + CANDIDATES)
        similarity = sequence[part] @ matrix[part].T
        same = region[part][:, None] == region[part]
        similarity[same & ~np.eye(len(same), dtype=bool)] = -np.inf
        first.append(_ranks(similarity) == 0)
    found = np.concatenate(first)
    return float(found.mean()) if len(found) else float("nan")
