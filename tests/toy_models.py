"""Small networks and their inputs, and how inputs are compared, for tests of models."""

import numpy as np
import torch

from genebert.corpus.store import Corpus
from genebert.model.config import GeneBertConfig
from genebert.pretraining_data import Extras, PretrainingBatch, PretrainingData
from genebert.region_matrix import RegionMatrix
from genebert.tokens import sequence_tokens

SMALL = {
    "k": 3,
    "max_tokens": 256,
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
    return GeneBertConfig(**{**SMALL, "motifs": motifs, **changes})


def with_extras(motifs: int = 6, **changes: object) -> GeneBertConfig:
    return small(motifs, region_decoder=True, signal_head=True, **changes)


def random_matrix(motifs: int, columns: int = 8, rows: int = 3, seed: int = 0) -> RegionMatrix:
    """Region matrices whose own column is the fourth."""
    generator = torch.Generator().manual_seed(seed)
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


def batch_of(corpus: Corpus, config: GeneBertConfig, size: int = 8, *, extras: bool = False) -> PretrainingBatch:
    """The first training batch of a corpus, with what all extras need or nothing of it."""
    wanted = Extras(config.patch_grid, tuple(config.patch), hard_negatives=True, reverse_complement=True)
    return PretrainingData(
        corpus,
        "train",
        k=config.k,
        columns=config.region_columns,
        batch_size=size,
        mask_fraction=0.15,
        seed=0,
        extras=wanted if extras else Extras(),
    ).batch(0)


def tensors(value: object) -> dict[str, torch.Tensor]:
    """The tensors of a batch by the names of their fields; matrix.evidence is one in a matrix."""
    found = {}
    for name, part in vars(value).items():
        if isinstance(part, torch.Tensor):
            found[name] = part
        elif isinstance(part, RegionMatrix):
            found |= {f"{name}.{inner}": tensor for inner, tensor in tensors(part).items()}
    return found


def differing(a: object, b: object) -> set[str]:
    """The fields in which two batches differ."""
    first, second = tensors(a), tensors(b)
    assert first.keys() == second.keys()
    return {name for name, tensor in first.items() if not torch.equal(tensor, second[name])}


def equal(a: object, b: object) -> bool:
    return not differing(a, b)
