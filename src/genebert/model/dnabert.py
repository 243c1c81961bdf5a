"""Published weights for the sequence encoder: checkpoints of DNABERT (Ji et al. 2021, Bioinformatics 37:2112)."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig

from genebert.errors import Problems, UserError, problem
from genebert.model.genebert import GeneBertForPreTraining
from genebert.tokens import SPECIAL_TOKENS, vocabulary, vocabulary_size

CONFIG, VOCABULARY, WEIGHTS, PICKLED = "config.json", "vocab.txt", "model.safetensors", "pytorch_model.bin"
SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "type_vocab_size",
    "hidden_act",
    "layer_norm_eps",
)
"""These have to be the same in both."""
HEAD = "cls.predictions"
ANOTHER = "Choose a checkpoint, or a preset, with which they are the same."


def load_dnabert(model: GeneBertForPreTraining, folder: Path) -> None:
    """Copy a DNABERT checkpoint into the sequence encoder and the head of hidden bases.

    The folder holds config.json, vocab.txt (checked if it is there) and the weights of a `BertForMaskedLM`, as
    model.safetensors, or as pytorch_model.bin, of which tensors alone are read, so that no code in it runs. The
    decoder is tied to the token embeddings, and what it says of special tokens is not needed.

    Raises:
        UserError: a file is missing or damaged, or k, the vocabulary or the sizes are not the model's.
    """
    given = _read_config(folder / CONFIG)
    found = Problems(f"the checkpoint {folder} does not fit the sequence encoder:")
    _check_sizes(given, model, folder / CONFIG, found)
    _check_vocabulary(folder / VOCABULARY, model.config.k, found)
    found.raise_any()
    path = folder / WEIGHTS if (folder / WEIGHTS).exists() else folder / PICKLED
    weights = _read_weights(path)
    targets = _targets(model)
    _check_weights(weights, targets, path, found)
    found.raise_any()
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(_fitting(name, weights[name], target))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        given = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(problem(path, f"it cannot be read ({error})", "Give the folder of a checkpoint.")) from None
    if not isinstance(given, dict):
        raise UserError(problem(path, "it is no configuration", "Give the folder of a checkpoint."))
    return BertConfig().to_dict() | given


def _check_sizes(given: dict[str, Any], model: GeneBertForPreTraining, path: Path, found: Problems) -> None:
    wanted, k, size = model.genebert.sequence_encoder.bert.config, model.config.k, given["vocab_size"]
    if size != vocabulary_size(k):
        its_k = {vocabulary_size(k): k for k in range(1, 9)}.get(size)
        what = f"its vocabulary has {size} tokens" + (f" (k = {its_k})" if its_k else ", as for no k")
        found.add(path, f"{what}, and the model's {vocabulary_size(k)} (k = {k})", ANOTHER)
    for name in SIZES:
        if given[name] != getattr(wanted, name):
            found.add(path, f"{name} is {given[name]}, and the model's is {getattr(wanted, name)}", ANOTHER)
    positions = given["max_position_embeddings"]
    if not isinstance(positions, int) or positions < model.config.max_tokens:
        what = f"it has {positions} positions, and the model needs {model.config.max_tokens}"
        found.add(path, what, "Use shorter regions, or another checkpoint.")


def _check_vocabulary(path: Path, k: int, found: Problems) -> None:
    if not path.exists():
        return
    wanted = vocabulary(k)
    lines = path.read_text(errors="replace").split()
    if len(lines) != len(wanted):
        found.add(path, f"it has {len(lines)} tokens, and DNABERT {len(wanted)} for k = {k}", ANOTHER)
    elif lines != wanted:
        number = [line == token for line, token in zip(lines, wanted, strict=True)].index(False)
        what = f"line {number + 1} is {lines[number]}, where DNABERT has {wanted[number]}"
        found.add(path, what, "Use a checkpoint of its vocabulary.")


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.name == WEIGHTS:
            return load_file(path)
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        what, remedy = f"neither {WEIGHTS} nor {PICKLED} is there", "Give the folder of a checkpoint."
        raise UserError(problem(path.parent, what, remedy)) from None
    except (OSError, TypeError, ValueError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0]
        remedy = f"Download it again, or save the model as {WEIGHTS} with `save_pretrained`."
        raise UserError(problem(path, f"it is damaged, or holds more than tensors ({first})", remedy)) from None


def _targets(model: GeneBertForPreTraining) -> dict[str, torch.Tensor]:
    """Return our parameters by their names in the checkpoint."""
    head = model.base_head
    parts: dict[str, nn.Module] = {
        "bert": model.genebert.sequence_encoder.bert,
        f"{HEAD}.transform.dense": head.transform[0],
        f"{HEAD}.transform.LayerNorm": head.transform[2],
    }
    ours = {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters()}
    return {**ours, f"{HEAD}.bias": head.bias}


def _fitting(name: str, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return what of a weight is the target's: the first positions, the biases of k-mers."""
    if name == f"{HEAD}.bias":
        return weight[len(SPECIAL_TOKENS) :]
    return weight[: len(target)] if "position_embeddings" in name else weight


def _check_weights(
    weights: dict[str, torch.Tensor], targets: dict[str, torch.Tensor], path: Path, found: Problems
) -> None:
    again = "Save the model as a BertForMaskedLM."
    for name, target in targets.items():
        if name not in weights:
            found.add(path, f"it has no {name}", again)
        elif _fitting(name, weights[name], target).shape != target.shape:
            found.add(path, f"{name} is of shape {tuple(weights[name].shape)}, unlike its configuration", again)
    decoder, embeddings = weights.get(f"{HEAD}.decoder.weight"), weights.get("bert.embeddings.word_embeddings.weight")
    if decoder is not None and embeddings is not None and not torch.equal(decoder, embeddings):
        found.add(path, "its decoder is not tied to the token embeddings", "Use a checkpoint in which it is.")
