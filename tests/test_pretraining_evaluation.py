from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toys
from processes import PROCESSES, run_in_processes
from validating import validate_together

from genebert import pretraining_evaluation
from genebert.context_models import UNSEEN
from genebert.corpus.store import Corpus
from genebert.model.config import GeneBertConfig
from genebert.model.genebert import GeneBertForPreTraining, PretrainingOutput
from genebert.objectives import pretraining_losses
from genebert.pretraining_data import Extras, PretrainingBatch, PretrainingData
from genebert.pretraining_evaluation import (
    Fitted,
    evaluate_pretraining,
    flanks_guess,
    kmer_guess,
    markov_guess,
    plain,
    segment_gc,
    validation_metrics,
)
from genebert.report.sections.pretraining import BASELINES
from genebert.schema import decode, gc_fraction
from genebert.tokens import MASK

LETTERS = "ATCG"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    made = toys.random_corpus(np.random.default_rng(0), regions=200, cell_types=3, test_cell_types=["cell1"])
    sequence = made.sequence.copy()
    sequence[::7, 30:33] = 4
    return replace(made, sequence=sequence)


@pytest.fixture(scope="module")
def model(corpus: Corpus) -> GeneBertForPreTraining:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "layers": 1, "heads": 2, "region_columns": 6, "patch": (1, 1), "window": 2}
    swin = {"embed_dim": 8, "depths": (1, 1), "stage_heads": (1, 2), "projection_dim": 8}
    config = GeneBertConfig(k=3, max_tokens=128, motifs=len(corpus.motifs), region_decoder=True, **sizes, **swin)
    return GeneBertForPreTraining(config).eval()


def examples(
    corpus: Corpus, split: Any = "test", cell_types: Any = "train", k: int = 3, **more: Any
) -> PretrainingData:
    settings = {"k": k, "columns": 6, "batch_size": 16, "mask_fraction": 0.15, "seed": 1, **more}
    return PretrainingData(corpus, split, cell_types, **settings)


def batch_of(data: PretrainingData) -> PretrainingBatch:
    return data.collate(data.examples, data.keys(data.examples))


def scored(data: PretrainingData, batch: PretrainingBatch) -> Iterator[tuple[str, list[bool], int]]:
    """Yield for each scored token the letters of its segment, which of them are visible, and its first base."""
    half, k = data.corpus.width // 2, data.k
    tokens = half - k + 1
    for row, token in zip(batch.scored_row.tolist(), batch.scored_token.tolist(), strict=True):
        second = token > tokens
        region = (batch.second_region if second else batch.region)[row]
        letters = decode(data.corpus.sequence[region])[half:] if second else decode(data.corpus.sequence[region])[:half]
        begin = tokens + 2 if second else 1
        shown = (batch.input_ids[row, begin : begin + tokens] > MASK).tolist()
        visible = [any(shown[max(0, i - k + 1) : i + 1]) for i in range(half)]
        yield letters, visible, token - begin


def told(answer: Callable[..., np.ndarray]) -> Any:
    """Stands for a model of flanking bases: (bases, row, place) -> guesses."""
    return SimpleNamespace(guess=answer)


def neighbour(offset: int) -> Any:
    """Guesses what it is shown so many bases away."""
    padding = ((0, 0), (2, 2))
    return told(lambda bases, row, place: np.pad(bases, padding, constant_values=UNSEEN)[row, place + 2 + offset])


@pytest.mark.parametrize("k", [1, 3, 4, 6])
def test_the_markov_chain_is_shown_the_true_bases_before(corpus: Corpus, k: int) -> None:
    data = examples(corpus, k=k)
    batch = batch_of(data)
    context = np.array([markov_guess(np.arange(4**5) // 4**i % 4, data, batch) for i in range(5)])  # digit i + 1 before
    for (letters, _, first), digits, target in zip(scored(data, batch), context.T, batch.scored_target, strict=True):
        base = first + k // 2
        assert letters[base] == LETTERS[target]
        before = "AAAAA" + letters.replace("N", "A")
        assert "".join(LETTERS[digit] for digit in digits) == before[base : base + 5][::-1]


@pytest.mark.parametrize("k", [1, 3, 4, 6])
def test_the_model_of_flanking_bases_is_shown_what_the_network_is_shown(corpus: Corpus, k: int) -> None:
    data = examples(corpus, k=k)
    batch = batch_of(data)
    hidden = 0
    for offset in (-2, -1, 1, 2):
        found = flanks_guess(neighbour(offset), data, batch)
        for (letters, visible, first), digit in zip(scored(data, batch), found, strict=True):
            place = first + k // 2 + offset
            seen = 0 <= place < len(letters) and visible[place]
            assert digit == (LETTERS.index(letters[place]) if seen else UNSEEN)
            hidden += not seen
    assert hidden > 100  # runs of hidden bases


@pytest.mark.parametrize("k", [3, 4, 6])
def test_masked_kmers_are_put_together_from_what_is_visible_and_only_the_rest_is_guessed(
    k: int,
) -> None:
    data = examples(toys.random_corpus(np.random.default_rng(0)), k=k, masking="dnabert")
    batch = batch_of(data)
    batch.input_ids[batch.scored_row, batch.scored_token] = MASK
    wanted = [
        (letters[first : first + k], visible[first : first + k]) for letters, visible, first in scored(data, batch)
    ]
    guesses = kmer_guess(told(lambda bases, row, place: np.full(len(row), LETTERS.index("G"))), data, batch)
    for (kmer, visible), guess, target in zip(wanted, guesses, batch.scored_target.tolist(), strict=True):
        assert [LETTERS.index(letter) for letter in kmer] == [target // 4**i % 4 for i in reversed(range(k))]
        filled = [letter if seen else "G" for letter, seen in zip(kmer, visible, strict=True)]
        assert [LETTERS[guess // 4**i % 4] for i in reversed(range(k))] == filled
    gaps = [k - sum(visible) for _, visible in wanted]
    assert np.mean(np.array(gaps) <= 1) > 0.5  # the published masking hides one base of most k-mers


def test_gc_of_segments(corpus: Corpus) -> None:
    data = examples(corpus)
    batch = batch_of(data)
    first = gc_fraction(corpus.sequence[batch.region.numpy(), :50])
    second = gc_fraction(corpus.sequence[batch.second_region.numpy(), 50:])
    assert np.allclose(segment_gc(data, batch), np.stack([first, second, abs(first - second)], axis=1))


def by_metric(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["task"], row["metric"]): row for row in rows}


def test_every_task_that_is_on_is_measured_whatever_the_masking_of_the_training(
    corpus: Corpus, model: GeneBertForPreTraining
) -> None:
    model.select(["mgm", "ngsp", "srm"])
    held_out, training = examples(corpus), examples(corpus, "train")
    fitted = Fitted.on(model, training)
    rows = evaluate_pretraining(model, held_out, training, fitted)
    assert rows == evaluate_pretraining(model, held_out, training, fitted)
    assert [row["task"] for row in rows if not row["task"].startswith("SRM")] == [
        *("MGM", "NGSP", "NGSP", "Probe, cell type", "Probe, cell type", "Probe, accessibility")
    ]
    assert set(rows[0]["baselines"]) == {"majority base", "order-5 Markov", "visible flanking bases"}
    assert rows[0]["n"] == len(np.unique(corpus.accessible_regions[held_out.examples]))
    published = {"masking": "dnabert", "extras": Extras(hard_negatives=True, reverse_complement=True)}
    others = by_metric(
        evaluate_pretraining(model, examples(corpus, **published), examples(corpus, "train", **published))
    )
    tokens = others.pop(("MGM (DNABERT masking)", "accuracy on masked tokens"))
    assert others == by_metric(rows)
    explained = {name for row in [*rows, tokens] for name in row["baselines"]} - {"chance"}
    assert explained <= set(BASELINES)
    neighbours = tokens["baselines"]["read off the neighbours"]["value"]
    assert neighbours > 0.25 > 4 * tokens["model"]["value"]  # one base of three is hidden, and the network is untrained


def test_without_two_kinds_of_segments_ngsp_has_no_baseline_of_gc_content(
    corpus: Corpus, model: GeneBertForPreTraining
) -> None:
    places = [("chr1", 100), *(("chr3", start) for start in range(0, 4000, 100))]
    accessible = {f"cell{i}": dict.fromkeys(range(len(places)), 1.0) for i in range(8)}
    single = toys.corpus_of(places, accessible, test=["chr3"], motifs=corpus.motifs)
    training = examples(single, "train")  # a segment's stand-in would be of another region, and there is none
    rows = by_metric(evaluate_pretraining(model, examples(single), training))
    assert set(rows["NGSP", "AUROC"]["baselines"]) == {"chance"}


def test_a_task_that_is_off_is_not_measured(corpus: Corpus, model: GeneBertForPreTraining) -> None:
    training = examples(corpus, "train")
    for task, name in (("mgm", "MGM"), ("ngsp", "NGSP")):
        model.select([task])
        rows = evaluate_pretraining(model, examples(corpus), training)
        assert {row["task"] for row in rows if not row["task"].startswith("Probe")} == {name}


def test_retrieval_is_that_of_the_models_own_vectors(
    model: GeneBertForPreTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one cell type and as many candidates as regions there is one round, whose order does not matter."""
    gc = np.tile(np.arange(4, 64, 3), 3)
    sequence = ["G" * count + "A" * (100 - count) for count in gc]
    slots = [(chrom, 300 * i) for chrom in ("chr1", "chr2", "chr3") for i in range(20)]
    made = toys.corpus_of(slots, {"a": dict.fromkeys(range(60), 2.0)}, test=["chr3"], sequence=sequence)
    corpus = replace(made, evidence=np.repeat(3 * gc[:, None], 3, axis=1).astype(np.uint8), motifs=[None] * 3)
    monkeypatch.setattr(pretraining_evaluation, "CANDIDATES", 20)
    model.select(["srm"])
    held_out = examples(corpus)
    batch = held_out.collate(held_out.examples, held_out.keys(held_out.examples), corrupt=False)
    with torch.no_grad():
        output = model(batch)
    similarity = (output.sequence @ output.region.T).numpy()
    rank = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
    rows = by_metric(evaluate_pretraining(model, held_out, examples(corpus, "train")))
    for task in ("SRM, across cell types", "SRM, within a cell type"):
        for top in (1, 10):
            row = rows[task, f"retrieval at {top} of 20"]
            assert row["n"] == 20
            assert row["model"]["value"] == pytest.approx((rank < top).mean())
            assert row["baselines"]["chance"]["value"] == top / 20
            assert row["baselines"]["GC content only"]["value"] == 1  # the motif evidence here is the GC content


def test_what_is_hidden_depends_on_the_example_alone(
    corpus: Corpus, model: GeneBertForPreTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.select(["mgm", "ngsp"])
    found = []
    for size in (32, 5):
        monkeypatch.setattr(pretraining_evaluation, "_BATCH", size)
        rows = by_metric(evaluate_pretraining(model, examples(corpus), examples(corpus, "train")))
        found.append((rows["MGM", "accuracy on hidden bases"]["baselines"], rows["NGSP", "AUROC"]["baselines"]))
    assert found[0] == found[1]


def test_the_callers_data_are_left_as_they_are(corpus: Corpus) -> None:
    extras = Extras(hard_negatives=True)
    data = examples(corpus, masking="dnabert", extras=extras)
    batch = batch_of(plain(data, "hidden-bases"))
    assert batch.closed is None and not batch.whole_kmers
    assert (data.masking, data.extras) == ("dnabert", extras)
    same = batch_of(examples(corpus))
    assert torch.equal(batch.input_ids, same.input_ids) and torch.equal(batch.scored_target, same.scored_target)


# ------------------------------------------------------------------------------------------------ during training


def test_validation_gives_the_mean_losses_and_a_measure_of_each_task(
    corpus: Corpus, model: GeneBertForPreTraining
) -> None:
    data = examples(corpus, "valid")
    batches = [data.batch(step) for step in range(3)]
    model.select(["mgm", "ngsp", "srm"])
    found = validation_metrics(model, batches)
    with torch.no_grad():
        outputs = [model(batch) for batch in batches]
    losses = [pretraining_losses(output, batch) for output, batch in zip(outputs, batches, strict=True)]
    for name in ("mgm", "ngsp", "srm"):
        assert found[name] == pytest.approx(np.mean([loss[name].item() for loss in losses]))
    right = [
        output.base_log_probs.argmax(dim=1) == batch.scored_target
        for output, batch in zip(outputs, batches, strict=True)
    ]
    assert found["mgm_accuracy"] == pytest.approx(torch.cat(right).float().mean().item())
    assert 0 <= found["ngsp_auroc"] <= 1 and 0 <= found["srm_retrieval"] <= 1
    assert set(found) == {"mgm", "ngsp", "srm", "mgm_accuracy", "ngsp_auroc", "srm_retrieval"}
    model.select(["mgm"])
    whole = examples(corpus, "valid", masking="dnabert")
    assert set(validation_metrics(model, [whole.batch(0)])) == {"mgm", "mgm_token_accuracy"}


def test_processes_that_train_together_measure_their_joint_batches(
    corpus: Corpus, model: GeneBertForPreTraining, tmp_path: Path
) -> None:
    """Their parts hold different numbers of hidden bases and of intact sequences."""
    model.select(["mgm", "ngsp", "srm"])
    data = examples(corpus, "valid")
    parts = [[data.batch(step, place, PROCESSES) for place in range(PROCESSES)] for step in range(2)]
    assert len({len(part.scored_row) for step in parts for part in step}) > 1
    expected = validation_metrics(model, [data.batch(step) for step in range(2)])
    for found in run_in_processes(validate_together, (model, parts), tmp_path):
        assert found == pytest.approx(expected, rel=1e-5)


def matched(region: list[int], intact: list[bool], answers: list[int]) -> float:
    """Retrieval by a model that takes the answers-th region matrix for that of each sequence."""
    size = len(region)
    vectors = torch.eye(size)
    output = PretrainingOutput(sequence=vectors[answers], region=vectors, scale=torch.tensor(1.0))
    batch = SimpleNamespace(region=torch.tensor(region), adjacent=torch.tensor(intact).float(), has_closed=None)
    batch.to = lambda _: batch
    model: Any = torch.nn.Module()
    model.device, model.forward = torch.device("cpu"), lambda _: output
    return validation_metrics(model, [batch])["srm_retrieval"]


def test_retrieval_by_hand() -> None:
    every = [True] * 4
    assert matched([0, 1, 2, 3], every, [0, 1, 2, 3]) == 1
    assert matched([0, 1, 2, 3], every, [0, 1, 3, 2]) == 0.5
    assert matched([0, 1, 2, 3], [True, True, False, False], [0, 1, 3, 2]) == 1  # only intact sequences count
    # a tie counts against the query; the matrix of the same region in another cell type is no candidate
    assert matched([0, 1, 2, 2], every, [0, 1, 3, 2]) == 0.5
    assert np.isnan(matched([0, 1], [False, False], [0, 1]))


def test_retrieval_is_among_64_where_there_are_as_many() -> None:
    """Of 130 sequences two rounds of 64 are looked at; each answer is one place off, across the round's end too."""
    ahead = [(i + 1) % 130 for i in range(130)]
    assert matched(list(range(130)), [True] * 130, ahead) == 0
    only_first = [i if i < 32 else (i + 1) % 130 for i in range(130)]
    assert matched(list(range(130)), [True] * 130, only_first) == 32 / 128
