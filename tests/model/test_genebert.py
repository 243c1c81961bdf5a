import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig, BertModel

from genebert.batches import PretrainingData, RegionMatrix
from genebert.corpus.store import Corpus
from genebert.model.config import GeneBertConfig
from genebert.model.genebert import (
    GeneBertForPreTraining,
    GeneBertForSequenceClassification,
    GeneBertModel,
    save_model,
)
from genebert.model.heads import HiddenBaseHead
from genebert.objectives import pretraining_losses
from genebert.settings import CONFIGS, load_preset
from genebert.tokens import VOCABULARY_BASES, sequence_tokens

SMALL = {
    "k": 3,
    "hidden_size": 16,
    "layers": 1,
    "heads": 2,
    "stem": 5,
    "region_columns": 8,
    "patch": (4, 2),
    "window": 2,
    "embed_dim": 8,
    "depths": [1, 1],
    "stage_heads": [1, 2],
    "projection_dim": 8,
}


def small(motifs: int = 6, **changes: object) -> GeneBertConfig:
    return GeneBertConfig(**{**SMALL, "motifs": motifs, "max_tokens": 256, **changes})


def random_matrix(motifs: int, columns: int = 8, rows: int = 3) -> RegionMatrix:
    generator = torch.Generator().manual_seed(0)
    own = torch.zeros(rows, columns, dtype=torch.bool)
    own[:, 3] = True
    return RegionMatrix(
        torch.randint(0, 255, (rows, columns, motifs), generator=generator, dtype=torch.uint8),
        torch.rand(rows, columns, generator=generator),
        own,
        torch.ones(rows, columns, dtype=torch.bool),
    )


def random_tokens(k: int, rows: int = 3, length: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    codes = np.random.default_rng(0).integers(0, 4, size=(rows, length), dtype=np.uint8)
    ids, segments = sequence_tokens(codes, k)
    return torch.from_numpy(ids), torch.from_numpy(segments)


def batch_of(corpus: Corpus, config: GeneBertConfig, size: int = 8) -> object:
    data = PretrainingData(
        corpus, "train", k=config.k, columns=config.region_columns, batch_size=size, mask_fraction=0.15, seed=0
    )
    return data.batch(0)


@pytest.mark.parametrize("motifs", [1, 5, 6, 9])
@pytest.mark.parametrize("columns", [7, 8])
def test_any_number_of_motifs_and_columns_makes_a_pooled_vector_of_the_stated_width(motifs: int, columns: int) -> None:
    model = GeneBertModel(small(motifs, region_columns=columns)).eval()
    with torch.no_grad():
        output = model(*random_tokens(3), random_matrix(motifs, columns))
    assert output.region.shape == (3, model.region_encoder.width)
    assert output.sequence.shape == (3, model.sequence_width)
    assert torch.isfinite(output.region).all()


def test_padding_columns_do_not_reach_the_image() -> None:
    model = GeneBertModel(small()).eval()
    matrix = random_matrix(6)
    matrix.present[:, 5:] = False
    changed = dataclasses.replace(matrix, evidence=matrix.evidence.clone())
    changed.evidence[:, 5:] = 99
    assert torch.equal(model.region_encoder.image(matrix), model.region_encoder.image(changed))
    assert not model.region_encoder.image(matrix)[..., 5:].any()


def test_image_is_standardised_evidence_accessibility_and_the_own_mark() -> None:
    model = GeneBertModel(small(motifs=4))
    model.region_encoder.evidence_mean.copy_(torch.tensor([10.0, 20, 30, 40]))
    model.region_encoder.evidence_std.copy_(torch.tensor([2.0, 4, 5, 10]))
    matrix = random_matrix(4)
    image = model.region_encoder.image(matrix)
    by_hand = (matrix.evidence[1, 2].float() - torch.tensor([10.0, 20, 30, 40])) / torch.tensor([2.0, 4, 5, 10])
    assert torch.allclose(image[1, 0, :4, 2], by_hand)
    assert torch.allclose(image[1, 1, :4, 2], (matrix.accessibility[1, 2] / 10).expand(4))
    assert image[:, 2].sum() == 3 * 4  # one column of four motifs in each of three matrices


def test_hidden_base_head_sums_the_kmer_distribution_by_the_central_base() -> None:
    config = small(k=3)
    torch.manual_seed(0)
    head = HiddenBaseHead(config)
    hidden, embeddings = torch.randn(2, 16), torch.randn(5 + 64, 16)
    found = head(hidden, embeddings).exp()
    logits = head.transform(hidden) @ embeddings[5:].T + head.bias
    kmers = [a + b + c for a in VOCABULARY_BASES for b in VOCABULARY_BASES for c in VOCABULARY_BASES]
    probability = logits.softmax(-1)
    for digit, base in enumerate(VOCABULARY_BASES):
        by_hand = probability[:, [i for i, kmer in enumerate(kmers) if kmer[1] == base]].sum(-1)
        assert torch.allclose(found[:, digit], by_hand, atol=1e-6)
    assert torch.allclose(found.sum(-1), torch.ones(2), atol=1e-5)


def test_every_parameter_gets_a_gradient_from_the_three_tasks(toy: Corpus) -> None:
    torch.manual_seed(0)
    model = GeneBertForPreTraining(small(len(toy.motifs)))
    batch = batch_of(toy, model.config)
    sum(pretraining_losses(model(batch), batch).values()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == set()


def test_saved_and_loaded_model_computes_the_same(tmp_path: Path, toy: Corpus) -> None:
    torch.manual_seed(0)
    model = GeneBertForPreTraining(small(len(toy.motifs)))
    model.genebert.region_encoder.evidence_mean.fill_(40)
    model.eval()
    save_model(model, tmp_path)
    loaded = GeneBertForPreTraining.from_pretrained(tmp_path).eval()
    batch = batch_of(toy, model.config)
    with torch.no_grad():
        ours, theirs = model(batch), loaded(batch)
    for name in ("base_log_probs", "adjacent_logits", "sequence", "region", "scale"):
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
    logits = classifier(*random_tokens(3), random_matrix(6))
    assert logits.shape == (3, 3)
    assert torch.isfinite(logits).all()
    assert isinstance(AutoModel.from_pretrained(tmp_path), GeneBertModel)
    assert isinstance(AutoModelForSequenceClassification.from_pretrained(tmp_path), GeneBertForSequenceClassification)


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
    ids, segments = random_tokens(3, rows=1, length=20)
    with torch.no_grad():
        hidden, pooled = encoder(ids, segments)
    first = hidden[0, 1 : (segments[0] == 0).sum()]
    second = hidden[0, segments[0] == 1]
    expected = torch.cat([hidden[0, 0], first.mean(0), second.mean(0), hidden[0, 1:].amax(0)])
    assert torch.allclose(pooled[0], expected, atol=1e-6)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_preset_builds_a_model(path: Path) -> None:
    preset = load_preset(path.stem)
    with torch.device("meta"):
        model = GeneBertForPreTraining(GeneBertConfig(**preset.model.model_dump(), max_tokens=512, motifs=100))
    assert sum(p.numel() for p in model.parameters()) > 100_000
    assert any(isinstance(module, nn.MultiheadAttention | nn.Linear) for module in model.modules())
