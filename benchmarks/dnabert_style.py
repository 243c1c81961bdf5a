"""A rival to measure against: BERT pre-training as DNABERT describes it, with what the transformers library offers.

Written from the description (Ji et al. 2021, Bioinformatics 37:2112, and its supplement): a sequence becomes text, its
k-mers with spaces between; a tokenizer makes tokens of the text, padded to 512; for each batch the centres of masked
runs are drawn, and each is extended to k contiguous tokens, of which 80 % become [MASK], 10 % random k-mers, and 10 %
stay. The network is `transformers.BertForPreTraining`: masked tokens and next segment, with logits at all positions.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForPreTraining, BertTokenizer, BertTokenizerLegacy

from genebert.tokens import vocabulary

MASK_FRACTION = 0.15
TOKENS = 512
IGNORED = -100
Tensors = dict[str, torch.Tensor]


def slow_tokenizer(k: int, folder: Path) -> Any:
    """Return BERT's tokenizer in Python, which DNABERT's is derived from; its vocabulary is written into a folder."""
    path = folder / f"vocabulary-{k}.txt"
    path.write_text("".join(f"{word}\n" for word in vocabulary(k)))
    return BertTokenizerLegacy(str(path), do_lower_case=False, model_max_length=TOKENS)


def fast_tokenizer(k: int) -> Any:
    """Return BERT's tokenizer in Rust."""
    words = {word: i for i, word in enumerate(vocabulary(k))}
    return BertTokenizer(vocab=words, do_lower_case=False, model_max_length=TOKENS)


def kmer_text(sequence: str, k: int) -> str:
    """Return the overlapping k-mers of a sequence, with spaces between."""
    return " ".join(sequence[i : i + k] for i in range(len(sequence) - k + 1))


def tokenized(pairs: Sequence[tuple[str, str]], k: int, tokenizer: Any) -> dict[str, list[list[int]]]:
    """Return token ids and segments of pairs of sequences, [CLS] A [SEP] B [SEP] and padding, as lists."""
    texts = [[kmer_text(half, k) for half in halves] for halves in zip(*pairs, strict=True)]
    found = tokenizer(*texts, truncation=True, padding="max_length", max_length=TOKENS, return_token_type_ids=True)
    return {name: found[name] for name in ("input_ids", "token_type_ids")}


def mask_tokens(ids: torch.Tensor, k: int, tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask runs of k tokens.

    Args:
        ids: int64, shape (b, tokens); is changed.
        k: length of a k-mer; a fraction 0.15 / k of the tokens are centres of runs.
        tokenizer: names the special tokens.

    Returns:
        ids, and the labels: the token where something is predicted, -100 elsewhere.
    """
    labels = ids.clone()
    special = [tokenizer.get_special_tokens_mask(row, already_has_special_tokens=True) for row in ids.tolist()]
    ordinary = ~torch.tensor(special, dtype=torch.bool) & (ids != tokenizer.pad_token_id)
    centres = torch.bernoulli(torch.full(ids.shape, MASK_FRACTION / k).masked_fill(~ordinary, 0.0)).bool()
    masked = centres.clone()
    for row, marks in enumerate(centres):
        run: set[int] = set()
        for centre in marks.nonzero().flatten().tolist():
            run.update(range(centre - (k - 1) // 2, centre + k // 2 + 1))
        masked[row, [place for place in run if 0 <= place < ids.shape[1]]] = True
    masked &= ordinary
    labels[~masked] = IGNORED
    hidden = torch.bernoulli(torch.full(ids.shape, 0.8)).bool() & masked
    random = torch.bernoulli(torch.full(ids.shape, 0.5)).bool() & masked & ~hidden
    ids[hidden] = tokenizer.mask_token_id
    ids[random] = torch.randint(len(tokenizer), ids.shape)[random]
    return ids, labels


@dataclass(frozen=True)
class Pipeline:
    """Makes batches of sequences.

    Attributes:
        pairs: both halves of each sequence; the second one is another sequence's where `adjacent` is 0.
        adjacent: 1 or 0 for each.
        k: length of a k-mer.
        tokenizer: slow or fast.
        beforehand: what `tokenized` returned for all pairs, if that is not to be done again for each batch.
    """

    pairs: Sequence[tuple[str, str]]
    adjacent: Sequence[int]
    k: int
    tokenizer: Any
    beforehand: dict[str, list[list[int]]] | None = None

    def batch(self, first: int, size: int) -> Tensors:
        """Return the arguments of `BertForPreTraining` for some pairs, from the first one on."""
        rows = [i % len(self.pairs) for i in range(first, first + size)]
        if self.beforehand is None:
            lists = tokenized([self.pairs[i] for i in rows], self.k, self.tokenizer)
        else:
            lists = {name: [values[i] for i in rows] for name, values in self.beforehand.items()}
        ids, labels = mask_tokens(torch.tensor(lists["input_ids"]), self.k, self.tokenizer)
        return {
            "input_ids": ids,
            "token_type_ids": torch.tensor(lists["token_type_ids"]),
            "labels": labels,
            "next_sentence_label": torch.tensor([1 - self.adjacent[i] for i in rows]),  # 0: B follows A
        }


def without_padding(batch: Tensors, tokens: int) -> Tensors:
    """Return a batch without the tokens from some place on, which are padding."""
    assert (batch["labels"][:, tokens:] == IGNORED).all(), "only padding may be cut off"
    return {name: values[:, :tokens].contiguous() if values.ndim == 2 else values for name, values in batch.items()}


@dataclass(frozen=True)
class Options:
    """What can be chosen about training; as it comes by default.

    Attributes:
        attention_dropout, hidden_dropout: of BERT.
        attention: implementation.
        fused: AdamW in one kernel.
        scored_only: logits only where something is predicted; the library does not offer it.
        compiled: run through torch.compile.
    """

    attention_dropout: float = 0.1
    hidden_dropout: float = 0.1
    attention: str = "sdpa"
    fused: bool = False
    scored_only: bool = False
    compiled: bool = False


class Network:
    """`BertForPreTraining` and its AdamW, which is trained with changing options.

    Args:
        k: length of a k-mer.
        sizes: further arguments of `BertConfig`.
        device: where to run.
        bf16: run under autocast.
    """

    def __init__(self, k: int, device: torch.device, *, bf16: bool, **sizes: Any) -> None:
        torch.manual_seed(0)
        self.model = BertForPreTraining(BertConfig(vocab_size=len(vocabulary(k)), **sizes)).to(device).train()
        self.device = device
        self.bf16 = bf16
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01)
        self.loss: Callable[[Tensors, bool], torch.Tensor] = self._loss
        self.options: Options | None = None

    def step(self, batch: Tensors, options: Options) -> None:
        """Train on a batch."""
        if options != self.options:
            self._set(options)
        on_device = {name: values.to(self.device) for name, values in batch.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self.loss(on_device, options.scored_only)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _set(self, options: Options) -> None:
        self.options = options
        self.loss = torch.compile(self._loss) if options.compiled else self._loss
        self.model.set_attn_implementation(options.attention)
        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = options.attention_dropout if name.endswith("self.dropout") else options.hidden_dropout
        for group in self.optimizer.param_groups:
            group["fused"] = options.fused

    def _loss(self, batch: Tensors, scored_only: bool) -> torch.Tensor:
        if not scored_only:
            loss: torch.Tensor = self.model(**batch).loss
            return loss
        states = self.model.bert(input_ids=batch["input_ids"], token_type_ids=batch["token_type_ids"])
        scored = batch["labels"] != IGNORED
        logits = self.model.cls.predictions(states.last_hidden_state[scored])
        adjacent = self.model.cls.seq_relationship(states.pooler_output)
        entropy = torch.nn.functional.cross_entropy
        return entropy(logits.float(), batch["labels"][scored]) + entropy(
            adjacent.float(), batch["next_sentence_label"]
        )


def seconds_per_step(network: Network, batch: Callable[[int], Tensors], options: Options, steps: int) -> float:
    """Train some steps and one before, which is not counted; return the mean time of a step, its data included."""
    began = 0.0
    for step in range(steps + 1):
        network.step(batch(step), options)
        if step == 0:
            began = time.perf_counter()
    return (time.perf_counter() - began) / steps
