import pytest
import torch
from toy_models import small

from genebert.model.sequence_encoder import SequenceEncoder
from genebert.tokens import PAD, vocabulary_size

ROWS, TOKENS = 5, 23


@pytest.fixture(params=[1, 5, 15])
def encoder(request: pytest.FixtureRequest) -> SequenceEncoder:
    """One that has more channels than there are tokens, in float64, with filters of 1, 5 or 15 tokens."""
    torch.manual_seed(0)
    made = SequenceEncoder(small(k=1, stem=request.param, dropout=0.0)).double().eval()
    torch.nn.init.normal_(made.stem.norm.weight)
    torch.nn.init.normal_(made.stem.norm.bias)
    torch.nn.init.normal_(made.bert.embeddings.word_embeddings.weight)  # the padding's row, too
    return made


def tokens(padded: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Random tokens and, where the last ones of each row are padding, the mask that says so."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, vocabulary_size(1), (ROWS, TOKENS), generator=generator)
    if not padded:
        return ids, None
    mask = torch.arange(TOKENS) < torch.tensor([[23], [22], [15], [2], [1]])
    return ids.masked_fill(~mask, PAD), mask


def plainly(encoder: SequenceEncoder, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The encoder's states where the stem's convolution reads the embeddings themselves."""
    embedded = encoder.bert.embeddings.word_embeddings(ids)
    embedded = embedded + encoder.stem(embedded, mask)
    segments = torch.zeros_like(ids)
    return encoder.bert(inputs_embeds=embedded, token_type_ids=segments, attention_mask=mask).last_hidden_state


def gradients(encoder: SequenceEncoder, states: torch.Tensor) -> dict[str, torch.Tensor]:
    encoder.zero_grad()
    weights = torch.linspace(-1, 1, states.numel(), dtype=states.dtype).view_as(states)
    (states * weights).sum().backward()
    return {name: one.grad.clone() for name, one in encoder.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("padded", [False, True])
def test_a_stem_that_reads_tokens_is_the_convolution_of_their_embeddings(
    padded: bool, encoder: SequenceEncoder
) -> None:
    ids, mask = tokens(padded)
    found = encoder(ids, torch.zeros_like(ids), mask).hidden
    expected = plainly(encoder, ids, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    after, before = gradients(encoder, found), gradients(encoder, expected)
    assert after.keys() == before.keys() >= {"stem.norm.bias", "stem.convolution.weight", "stem.convolution.bias"}
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, rtol=0, atol=1e-11, msg=name)


def test_padding_without_a_mask_is_a_token_whose_embedding_is_not_trained(encoder: SequenceEncoder) -> None:
    """As in torch's embedding; a product with all embeddings could well give that of the padding a gradient."""
    ids, _ = tokens(padded=True)
    found, expected = encoder(ids, torch.zeros_like(ids)).hidden, plainly(encoder, ids, None)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    name = "bert.embeddings.word_embeddings.weight"
    after, before = gradients(encoder, found)[name], gradients(encoder, expected)[name]
    torch.testing.assert_close(after, before, rtol=0, atol=1e-11)
    assert (after[PAD] == 0).all()


@pytest.mark.parametrize(("k", "reads_tokens"), [(1, True), (3, False)])
def test_tokens_are_read_where_they_are_fewer_than_channels(
    k: int, reads_tokens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SequenceEncoder(small(k=k))  # 16 channels; 9 tokens, or 69
    called = []
    monkeypatch.setattr(encoder.stem, "of_tokens", lambda ids, *_: called.append(ids) or torch.zeros(()))
    ids = torch.full((2, 9), 6)
    encoder(ids, torch.zeros_like(ids))
    assert bool(called) is reads_tokens
