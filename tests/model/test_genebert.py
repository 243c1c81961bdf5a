import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from toy_models import batch_of, random_matrix, random_tokens, small, with_extras
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
)
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.swin.modeling_swin import SwinStage

from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.model.config import GeneBertConfig
from genebert.model.genebert import (
    DEFAULT_TASKS,
    REGION_TASKS,
    SEQUENCE_TASKS,
    TASKS,
    GeneBertForPreTraining,
    GeneBertForSequenceClassification,
    GeneBertModel,
    PretrainingOutput,
    save_model,
)
from genebert.model.heads import PositionReadout
from genebert.objectives import pretraining_losses
from genebert.region_matrix import RegionMatrix
from genebert.settings import CONFIGS, load_preset

COMPARED = ("base_log_probs", "adjacent_logits", "sequence", "region", "scale")


def model_with_extras(motifs: int) -> GeneBertForPreTraining:
    torch.manual_seed(0)
    model = GeneBertForPreTraining(with_extras(motifs, dropout=0.0))
    model.genebert.region_encoder.evidence_mean.fill_(128)
    model.genebert.region_encoder.evidence_std.fill_(74)
    model.genebert.region_encoder.signal_mean.fill_(4)
    model.genebert.region_encoder.signal_std.fill_(2)
    return model


def random_codes(rows: int = 3, length: int = 60) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 4, size=(rows, length), dtype=np.uint8))


def classifier_of(**changes: Any) -> GeneBertForSequenceClassification:
    torch.manual_seed(0)
    model = GeneBertForSequenceClassification(small(num_labels=3, dropout=0.0, **changes))
    if model.summary is not None:
        generator = torch.Generator().manual_seed(0)
        codes = torch.randint(0, 4, (50, 60), generator=generator, dtype=torch.uint8)
        model.summary.fit(codes, torch.randint(0, 255, (50, 6), generator=generator, dtype=torch.uint8))
    return model.eval()


def run(model: nn.Module, batch: Any) -> PretrainingOutput:
    with torch.no_grad():
        return model(batch)


@pytest.mark.parametrize("tasks", [TASKS, TASKS[:3], *((task,) for task in TASKS)], ids="+".join)
def test_exactly_the_parameters_that_are_not_frozen_get_a_gradient(tasks: set[str], toy: Corpus) -> None:
    model = model_with_extras(len(toy.motifs))
    model.select(tasks)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    model.requires_grad_(True)
    batch = batch_of(toy, model.config, extras=True)
    losses = pretraining_losses(model(batch), batch)
    assert set(losses) == set(tasks)
    sum(losses.values()).backward()
    assert trained == {name for name, p in model.named_parameters() if p.grad is not None} != set()


@pytest.mark.parametrize("task", TASKS)
def test_no_encoder_runs_on_what_no_task_needs(task: str, toy: Corpus) -> None:
    model = model_with_extras(len(toy.motifs))
    model.select({task})
    rows = {}
    for name, swin_or_bert in (("s", model.genebert.sequence_encoder.bert), ("r", model.genebert.region_encoder.swin)):
        swin_or_bert.register_forward_hook(lambda m, i, output, name=name: rows.update({name: len(output[0])}))
    run(model, batch_of(toy, model.config, extras=True))
    twice = 2 if task in ("rc", "srm", "accessibility") else 1  # strands, or cell types
    sequences = {"s": 8 * (twice if task == "rc" else 1)} if task in SEQUENCE_TASKS else {}
    assert rows == sequences | ({"r": 8 * twice} if task in REGION_TASKS else {})


def test_tasks_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match=r"has no task accessibility, nsp\. Choose of mgm, ngsp, srm, rc"):
        GeneBertForPreTraining(small()).select({"mgm", "nsp", "accessibility"})
    with pytest.raises(UserError, match="none is on"):
        GeneBertForPreTraining(small()).select([])


def test_every_parameter_gets_a_gradient_from_the_three_tasks(toy: Corpus) -> None:
    torch.manual_seed(0)
    model = GeneBertForPreTraining(small(len(toy.motifs)))
    batch = batch_of(toy, model.config)
    sum(pretraining_losses(model(batch), batch).values()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == set()


def test_padding_and_hidden_patches_do_not_blow_up_the_first_gradients(toy: Corpus) -> None:
    # Layer norms of states that are exactly 0 once made them 1e18 times as large.
    model = model_with_extras(20)  # 3 patch rows of padding
    model.select({"srm", "mrm"})
    batch = batch_of(toy, model.config, extras=True)
    matrix = random_matrix(20, rows=8)
    matrix.present[:, 4:] = False
    hidden = torch.zeros(8, *model.config.patch_grid, dtype=torch.bool)
    for rows in (0, 2):
        hidden[:, :rows] = True
        given = dataclasses.replace(batch, matrix=matrix, hidden=hidden, closed=None, has_closed=None)
        model.zero_grad()
        sum(pretraining_losses(model(given), given).values()).backward()
        norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
        assert max(norms.values()) < 1000, norms


def test_what_the_extras_add_is_what_the_encoders_return_for_it_alone(toy: Corpus) -> None:
    model = model_with_extras(len(toy.motifs)).eval()
    model.select(TASKS)
    batch = dataclasses.replace(batch_of(toy, model.config, extras=True), hidden=None)
    output = run(model, batch)
    assert output.decoded is None
    alone = dataclasses.replace(batch, reverse_ids=None, closed=None)
    plain = run(model, alone)
    assert plain.reverse is None and plain.closed is None and plain.signal.shape == (8,)
    for name in COMPARED:
        assert torch.allclose(getattr(output, name), getattr(plain, name), atol=1e-5), name
    reverse = run(model, dataclasses.replace(alone, input_ids=batch.reverse_ids))
    closed = run(model, dataclasses.replace(alone, matrix=batch.closed))
    assert torch.allclose(output.reverse, reverse.sequence, atol=1e-5)
    assert torch.allclose(output.closed, closed.region, atol=1e-5)
    assert torch.allclose(output.signal, torch.cat([plain.signal, closed.signal]), atol=1e-5)
    assert torch.allclose(output.signal_target, torch.cat([(batch.signal - 4) / 2, torch.full((8,), -2.0)]))
    model.genebert.region_encoder.signal_mean.fill_(40.0)  # no signal is 20 standard deviations below it
    assert (run(model, batch).signal_target[8:] == -3).all()


def test_what_is_in_a_batch_for_tasks_that_are_off_changes_nothing(toy: Corpus) -> None:
    model = model_with_extras(len(toy.motifs)).eval()
    batch = batch_of(toy, model.config, extras=True)
    plain = dataclasses.replace(batch, hidden=None, reverse_ids=None, closed=None, has_closed=None)
    for tasks, names in ((DEFAULT_TASKS - {"srm"}, COMPARED[:2]), (DEFAULT_TASKS, COMPARED)):
        model.select(tasks)
        output, expected = run(model, batch), run(model, plain)
        assert set(output) - {"closed"} == set(expected) == set(names)
        assert all(torch.allclose(output[name], expected[name], atol=1e-5) for name in names)


def test_the_signal_to_predict_is_not_in_the_input(toy: Corpus) -> None:
    model = model_with_extras(len(toy.motifs)).eval()
    model.select(TASKS)
    batch = batch_of(toy, model.config, extras=True)
    found, other = (
        run(model, dataclasses.replace(batch, signal=signal)) for signal in (batch.signal, 0 * batch.signal)
    )
    assert torch.equal(found.signal, other.signal)
    assert not torch.equal(found.signal_target, other.signal_target)


def test_what_is_hidden_cannot_be_told_from_the_reconstruction(toy: Corpus) -> None:
    model = model_with_extras(len(toy.motifs)).eval()
    model.select({"mrm"})
    batch = batch_of(toy, model.config, extras=True)
    output = run(model, batch)
    hidden, dark = output.hidden.unbind(dim=1)
    assert hidden.any() and dark.any() and not (output.hidden & batch.matrix.own[:, None, None]).any()
    evidence, signal = batch.matrix.evidence.clone(), batch.matrix.accessibility.clone()
    evidence[hidden.transpose(1, 2)] = 0
    signal[dark[:, 0]] = 0
    matrix = dataclasses.replace(batch.matrix, evidence=evidence, accessibility=signal)
    other = run(model, dataclasses.replace(batch, matrix=matrix))
    assert torch.equal(output.decoded, other.decoded)
    assert not torch.equal(output.pixels, other.pixels)


def test_a_matrix_in_another_cell_type_has_patches_hidden_too(toy: Corpus) -> None:
    # Else the one that is whole would give itself away.
    model = model_with_extras(len(toy.motifs)).eval()
    model.select({"mrm", "srm"})
    batch = batch_of(toy, model.config, extras=True)
    same = run(model, dataclasses.replace(batch, closed=batch.matrix))
    assert torch.allclose(same.region, same.closed, atol=1e-5)


def test_outputs_under_autocast_are_float32_and_near(toy: Corpus) -> None:
    model = model_with_extras(len(toy.motifs)).eval()
    model.select(TASKS)
    batch = batch_of(toy, model.config, extras=True)
    exact = pretraining_losses(run(model, batch), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(model, batch)
        losses = pretraining_losses(output, batch)
    assert {value.dtype for name, value in output.items() if name != "hidden"} == {torch.float32}
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(exact[name].item(), rel=0.05), name


def test_whole_kmers_are_predicted_where_the_batch_asks_for_them(toy: Corpus) -> None:
    model = model_with_extras(len(toy.motifs)).eval()
    batch = batch_of(toy, model.config)
    bases, kmers = (run(model, dataclasses.replace(batch, whole_kmers=whole)).base_log_probs for whole in (False, True))
    assert kmers.shape == (len(batch.scored_row), 64)
    by_base = kmers.exp().view(-1, 4, 4, 4).sum(dim=(1, 3))  # digits of a 3-mer; the middle one is the base
    assert torch.allclose(by_base, bases.exp(), atol=1e-6)


def test_saved_and_loaded_model_computes_the_same(tmp_path: Path, toy: Corpus) -> None:
    model = model_with_extras(len(toy.motifs)).eval()
    save_model(model, tmp_path)
    loaded = GeneBertForPreTraining.from_pretrained(tmp_path).eval()
    batch = batch_of(toy, model.config, extras=True)
    model.select(TASKS)
    loaded.select(TASKS)
    ours, theirs = run(model, batch), run(loaded, batch)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_a_folder_from_before_the_extras_still_loads(tmp_path: Path, toy: Corpus) -> None:
    torch.manual_seed(0)
    model = GeneBertForPreTraining(small(len(toy.motifs))).eval()
    save_model(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["region_decoder"], config["signal_head"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "signal" not in name}
    assert len(kept) == len(weights) - 2
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = GeneBertForPreTraining.from_pretrained(tmp_path).eval()
    assert (loaded.genebert.region_encoder.signal_mean, loaded.genebert.region_encoder.signal_std) == (0, 1)
    batch = batch_of(toy, model.config)
    ours, theirs = run(model, batch), run(loaded, batch)
    for name in COMPARED:
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_pretrained_encoders_load_into_a_classifier_and_through_the_auto_classes(tmp_path: Path) -> None:
    # Heads that a checkpoint lacks once came up with uninitialised batch statistics, and every loss was NaN.
    torch.manual_seed(0)
    pretrained = GeneBertForPreTraining(small()).eval()
    pretrained.genebert.region_encoder.evidence_mean.fill_(40)
    save_model(pretrained, tmp_path)
    classifier = GeneBertForSequenceClassification.from_pretrained(tmp_path, num_labels=3).eval()
    for name, value in pretrained.genebert.state_dict().items():
        assert torch.equal(value, classifier.genebert.state_dict()[name]), name
    for name, module in (("centre", 0), ("scale", 1), ("knots", 0)):  # of the summary, to be fitted
        assert (getattr(classifier.summary, name) == module).all(), name
    logits = classifier(*random_tokens(3), random_matrix(6), random_codes())
    assert logits.shape == (3, 3)
    assert torch.isfinite(logits).all()
    assert isinstance(AutoConfig.from_pretrained(tmp_path), GeneBertConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path), GeneBertModel)
    assert isinstance(AutoModelForPreTraining.from_pretrained(tmp_path), GeneBertForPreTraining)
    assert isinstance(AutoModelForSequenceClassification.from_pretrained(tmp_path), GeneBertForSequenceClassification)


def windows() -> tuple[torch.Tensor, torch.Tensor, RegionMatrix, torch.Tensor]:
    return *random_tokens(3), random_matrix(6), random_codes()


OPTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "oriented": {"oriented": True, "window_length": 60},
    "sequence": {"modalities": "sequence"},
    "motifs": {"modalities": "motifs"},
    "no region states": {"region_states": False},
    "no summary": {"summary": False},
    "no encoders": {"encoders": False},
    "motifs of the window alone": {"encoders": False, "modalities": "motifs"},
    "linear probe": {"summary": False, "linear_head": True},
}
options = pytest.mark.parametrize("name", OPTIONS)


@options
def test_a_classifier_adds_up_its_branches_with_their_weights(name: str) -> None:
    changes = OPTIONS[name]
    model = classifier_of(**changes)
    ids, segments, matrix, codes = windows()
    with torch.no_grad():
        branches = model.branches(ids, segments, matrix, codes)
        assert branches.shape == (3, changes.get("summary", True) + changes.get("encoders", True), 3)
        weights = torch.arange(1.0, len(branches[0]) + 1)
        weights /= weights.sum()
        assert torch.allclose(model(ids, segments, matrix, codes), branches.mean(dim=1), atol=1e-6)  # if not chosen
        model.branch_weights.copy_(weights)
        joined = torch.einsum("k,bkl->bl", weights, branches)
        assert torch.allclose(model(ids, segments, matrix, codes), joined, atol=1e-6)
        encoded = model.sequence_states(ids, segments)
        summary, cell_type = model.summary_logits(codes, matrix), model.cell_type_logits(matrix)
        again = model.combine(encoded, model.region_states(matrix), summary, cell_type)
        assert torch.equal(again, branches)
        second = RegionMatrix(*(part[1:2] for part in vars(matrix).values() if part is not None))
        one = model(ids[1:2], segments[1:2], second, codes[1:2])
    assert torch.allclose(one, joined[1:2], atol=1e-5)


def test_branches_have_equal_weights_where_a_file_does_not_tell(tmp_path: Path) -> None:
    """Encoders alone, or an older file: what it lacks is made on no device first, and was once left as memory was."""
    model = classifier_of()
    model.genebert.save_pretrained(tmp_path)
    for _ in range(3):
        found = GeneBertForSequenceClassification.from_pretrained(tmp_path)
        assert found.branch_weights.tolist() == [0.5, 0.5]


@options
def test_branches_share_no_parameter(name: str) -> None:
    """Each keeps the weights of its own best epoch."""
    model = classifier_of(**OPTIONS[name])
    ids, segments, matrix, codes = windows()
    assert len(model.branch_names) == len(model.branch_weights)
    for i, branch in enumerate(model.branch_names):
        model.zero_grad()
        model.branches(ids, segments, matrix, codes)[:, i].sum().backward()
        touched = {name for name, one in model.named_parameters() if one.grad is not None and one.grad.any()}
        assert touched
        assert {model.branch_of(name) for name in touched} == {branch}


@options
def test_exactly_what_a_classifier_reads_is_trained(name: str) -> None:
    model = classifier_of(**OPTIONS[name]).train()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    model.requires_grad_(True)
    model(*windows()).square().sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == with_gradient != set()


@options
def test_a_classifier_is_moved_by_exactly_what_it_reads(name: str) -> None:
    model = classifier_of(**OPTIONS[name])
    ids, segments, matrix, codes = windows()
    evidence = matrix.evidence.clone()
    neighbours, own = ~matrix.own, matrix.own
    evidence[neighbours] = 255 - evidence[neighbours]
    around = dataclasses.replace(matrix, evidence=evidence)
    evidence = matrix.evidence.clone()
    evidence[own] = 255 - evidence[own]
    centre = dataclasses.replace(matrix, evidence=evidence)
    changed = {
        "tokens": (ids.flip(0), segments, matrix, codes),
        "codes": (ids, segments, matrix, codes.flip(0)),
        "neighbours": (ids, segments, around, codes),
        "own motifs": (ids, segments, centre, codes),
    }
    with torch.no_grad():
        plain = model(*windows())
        moved = {what for what, inputs in changed.items() if not torch.equal(model(*inputs), plain)}
    reads = {"all": {"tokens", "codes", "neighbours", "own motifs"}}
    reads |= {
        "oriented": reads["all"],
        "sequence": {"tokens", "codes"},
        "motifs": {"neighbours", "own motifs"},
        "no region states": {"tokens", "codes", "own motifs"},
        "no summary": {"tokens", "neighbours", "own motifs"},
        "no encoders": {"codes", "own motifs"},
        "motifs of the window alone": {"own motifs"},
        "linear probe": {"tokens", "neighbours", "own motifs"},
    }
    assert moved == reads[name]


@options
def test_a_saved_classifier_computes_the_same(name: str, tmp_path: Path) -> None:
    model = classifier_of(**OPTIONS[name])
    save_model(model, tmp_path)
    loaded = GeneBertForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.allclose(loaded(*windows()), model(*windows()), atol=1e-6)


def test_the_evidence_of_a_window_is_the_highest_of_its_own_columns() -> None:
    matrix = random_matrix(6)
    assert torch.equal(matrix.own_evidence, matrix.evidence[:, 3])
    every = dataclasses.replace(matrix, own=torch.ones_like(matrix.own))
    assert torch.equal(every.own_evidence, matrix.evidence.amax(dim=1))
    assert matrix.own_evidence.dtype == torch.uint8


def test_the_readout_of_positions_keeps_their_order() -> None:
    torch.manual_seed(0)
    readout = PositionReadout(16)
    states = torch.randn(2, 10, 16)
    found = readout(states).view(2, 10, PositionReadout.CHANNELS)
    assert torch.allclose(readout(states.flip(1)).view_as(found), found.flip(1))
    norm, narrow = readout.narrow
    assert torch.allclose(found[1, 4], narrow(norm(states[1, 4])), atol=1e-6)
    assert classifier_of().positions is None  # where windows have no direction, no place is like another's


def test_without_a_stem_the_sequence_encoder_is_bert() -> None:
    config = small(stem=0)
    torch.manual_seed(0)
    encoder = GeneBertModel(config).eval().sequence_encoder
    reference = BertModel(
        BertConfig(
            vocab_size=69,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=256,
        ),
        add_pooling_layer=False,
    ).eval()
    reference.load_state_dict(encoder.bert.state_dict())
    ids, segments = random_tokens(3)
    with torch.no_grad():
        expected = reference(input_ids=ids, token_type_ids=segments).last_hidden_state
        assert torch.allclose(encoder(ids, segments).hidden, expected, atol=1e-6)


def test_pooled_sequence_is_cls_segment_means_and_maximum() -> None:
    encoder = GeneBertModel(small()).eval().sequence_encoder
    ids, segments = random_tokens(3, rows=2, length=20)
    with torch.no_grad():
        hidden, pooled, *_ = encoder(ids, segments)
    first = hidden[1, 1 : (segments[1] == 0).sum()]
    second = hidden[1, segments[1] == 1]
    expected = torch.cat([hidden[1, 0], first.mean(0), second.mean(0), hidden[1, 1:].amax(0)])
    assert torch.allclose(pooled[1], expected, atol=1e-6)


def test_padding_changes_no_vector() -> None:
    model = GeneBertModel(small()).eval()
    ids, segments = random_tokens(3, rows=2, length=20)
    padded = {"input_ids": ids, "token_type_ids": segments, "attention_mask": torch.ones_like(ids)}
    padded = {name: nn.functional.pad(values, (0, 7)) for name, values in padded.items()}
    with torch.no_grad():
        plain, found = model(ids, segments), model(**padded)
        wrong = model(padded["input_ids"], padded["token_type_ids"])
    assert torch.allclose(found.sequence, plain.sequence, atol=1e-5)
    assert torch.allclose(found.last_hidden_state[:, :-7], plain.last_hidden_state, atol=1e-5)
    assert not torch.allclose(wrong.sequence, plain.sequence, atol=1e-2)
    with pytest.raises(UserError, match=r"there are \d+ tokens, and the model reads at most \d+"):
        model(ids.repeat(1, model.config.max_tokens), segments.repeat(1, model.config.max_tokens))
    with pytest.raises(UserError, match="segment_ids: they are missing"):
        model(ids)


def test_states_and_attentions_of_all_layers_are_returned_on_request() -> None:
    config = small(layers=2, attn_implementation="eager")
    model = GeneBertModel(config).eval()
    ids, segments = random_tokens(3)
    with torch.no_grad():
        plain = model(ids, segments, random_matrix(6))
        full = model(ids, segments, random_matrix(6), output_hidden_states=True, output_attentions=True)
    assert plain.hidden_states is plain.attentions is plain.region_hidden_states is plain.region_attentions is None
    assert torch.equal(plain.sequence, full.sequence) and torch.equal(plain.region, full.region)
    assert len(full.hidden_states) == 3 and torch.equal(full.hidden_states[-1], full.last_hidden_state)
    assert [tuple(a.shape) for a in full.attentions] == [(3, 2, ids.shape[1], ids.shape[1])] * 2
    assert len(full.region_hidden_states) == 3 and len(full.region_attentions) == 2
    for attention in (*full.attentions, *full.region_attentions):
        assert torch.allclose(attention.sum(-1), torch.ones(()), atol=1e-5)


def test_attentions_that_are_not_kept_cannot_be_returned() -> None:
    with pytest.raises(UserError, match=r'keeps no attentions.*attn_implementation="eager"'):
        GeneBertModel(small())(*random_tokens(3), output_attentions=True)


def test_one_modality_can_be_encoded_alone() -> None:
    model = GeneBertModel(small()).eval()
    with torch.no_grad():
        both = model(*random_tokens(3), random_matrix(6))
        sequence, region = model(*random_tokens(3)), model(matrix=random_matrix(6))
    assert torch.equal(sequence.sequence, both.sequence) and sequence.region is None
    assert torch.equal(region.region, both.region) and region.sequence is None


def test_attention_implementations_agree_and_reach_both_encoders(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model(GeneBertModel(small()), tmp_path)
    outputs = {}
    for name in ("sdpa", "eager"):
        model = GeneBertModel.from_pretrained(tmp_path, attn_implementation=name).eval()
        parts = model, model.sequence_encoder.bert, model.region_encoder.swin
        assert {part.config._attn_implementation for part in parts} == {name}
        outputs[name] = model(*random_tokens(3), random_matrix(6))
    assert AutoModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
    for name in ("sequence", "region"):
        assert torch.allclose(outputs["sdpa"][name], outputs["eager"][name], atol=1e-5)
    model.set_attn_implementation("sdpa")
    assert {part.config._attn_implementation for part in parts} == {"sdpa"}


def test_bert_runs_the_fused_kernel_without_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    masks, fused = [], F.scaled_dot_product_attention

    def attention(*args: Any, **options: Any) -> torch.Tensor:
        masks.append((options["attn_mask"], options["dropout_p"]))
        return fused(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attention)
    GeneBertModel(small(layers=2)).train()(*random_tokens(3))
    assert masks == [(None, 0.0)] * 2


def test_activation_checkpointing_recomputes_the_layers_and_changes_no_gradient(
    toy: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_with_extras(len(toy.motifs)).train()
    model.select(TASKS)
    batch = batch_of(toy, model.config, extras=True)
    layers = [m for m in model.modules() if isinstance(m, BertLayer | SwinStage)]
    ran: list[nn.Module] = []
    for layer in layers:
        next(m for m in layer.modules() if isinstance(m, nn.Linear)).register_forward_hook(lambda m, *_: ran.append(m))
    gradients = []
    for times in (1, 2):
        if times == 2:
            model.activation_checkpointing_enable()
        ran.clear()
        sum(pretraining_losses(model(batch), batch).values()).backward()
        assert len(ran) >= times * len(layers) and (times == 2 or len(ran) == len(layers))
        gradients.append({name: p.grad for name, p in model.named_parameters()})
        model.zero_grad()
    assert caplog.text == ""
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name
    model.activation_checkpointing_disable()
    ran.clear()
    sum(pretraining_losses(model(batch), batch).values()).backward()
    assert len(ran) == len(layers)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_preset_builds_a_model(path: Path) -> None:
    preset = load_preset(path.stem)
    with torch.device("meta"):
        model = GeneBertForPreTraining(GeneBertConfig(**preset.model.model_dump(), max_tokens=512, motifs=100))
    assert sum(p.numel() for p in model.parameters()) > 100_000
    assert any(isinstance(module, nn.MultiheadAttention | nn.Linear) for module in model.modules())
