"""States of regions, and of regions in cell types, by a network that is only read."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from genebert.corpus.store import Corpus
from genebert.device import pick_device
from genebert.errors import UserError, problem
from genebert.methods.genebert import FittedGeneBert
from genebert.methods.networks import evaluating
from genebert.model.genebert import GeneBertForPreTraining, GeneBertForSequenceClassification, GeneBertModel
from genebert.predictor import Predictor
from genebert.pretrained import check_motifs, check_width, load_weights, read_scanner
from genebert.region_matrix import region_matrix
from genebert.settings import Device, Precision
from genebert.stage import read_manifest
from genebert.tensors import Tensors
from genebert.tokens import sequence_tokens

BATCH = 32
Fuse = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
States = NDArray[np.float32]


@dataclass(frozen=True)
class Encoder:
    """A network, and what is read of it.

    Sequences are read on the strand of the genome.

    Attributes:
        network: both encoders, in eval mode, on its device.
        fuse: makes states of examples, shape (b, width), of pooled sequences, shape (b, 4 * hidden), and pooled region
            matrices, shape (b, region width).
        width: of these states.
        what: these states, in words.
        precision: of the arithmetic; sums and results are float32.
    """

    network: GeneBertModel
    fuse: Fuse
    width: int
    what: str
    precision: Precision = "fp32"

    @classmethod
    def open(cls, folder: Path, corpus: Corpus, device: Device, precision: Precision = "fp32") -> Self:
        """Open a folder made by `genebert pretrain` or `genebert finetune`, to read regions of a corpus with.

        A pre-trained network gives the vectors of region matrices in the space of SRM. A predictor gives the hidden
        layer of its head, which reads both modalities; of several networks, that of the first.

        Raises:
            UserError: the folder cannot be used, does not fit the corpus, or its network does not read both modalities
                of regions in cell types.
        """
        if read_manifest(folder).stage == "finetune":
            found = cls._of_predictor(Predictor.open(folder, device), corpus)
        else:
            read_manifest(folder, "pretrain", verify=True)
            check_motifs(read_scanner(folder), corpus, f"the model {folder}")
            found = cls.of_pretrained(load_weights(GeneBertForPreTraining, folder).to(pick_device(device)), folder)
        check_width(found.network.config.k, found.network.config.max_tokens, corpus, folder)
        return cls(found.network, found.fuse, found.width, found.what, precision)

    @classmethod
    def of_pretrained(cls, model: GeneBertForPreTraining, folder: Path) -> Self:
        """Return the encoder of a pre-trained network.

        Raises:
            UserError: it was pre-trained without SRM, so that nothing was learned about region matrices.
        """
        head = model.matching_head.eval()
        if not head.region.get_buffer("0.num_batches_tracked").item():  # its batch normalisation has seen nothing
            what = "it was pre-trained without SRM, and has no space in which region matrices lie"
            raise UserError(problem(folder, what, "Give a model that was pre-trained with SRM, or a predictor."))
        width = model.config.projection_dim
        what = "vectors of region matrices in the space of sequence-region matching"
        return cls(model.genebert.eval(), lambda _, region: head.project_region(region), width, what)

    @classmethod
    def _of_predictor(cls, predictor: Predictor, corpus: Corpus) -> Self:
        folder = predictor.manifest.folder
        check_motifs(predictor.scanner, corpus, f"the model {folder}")
        models = [fitted.model for _, fitted in predictor.ensemble.members if isinstance(fitted, FittedGeneBert)]
        if not predictor.per_cell_type or not models:
            what = "it has no network" if not models else "it knows no cell types"
            remedy = "Give a model that was fine-tuned per cell type, with its network, or pre-trained."
            raise UserError(problem(folder, what, remedy))
        if predictor.width != corpus.width:
            what = f"it reads windows of {predictor.width} bp, and regions of the corpus have {corpus.width}"
            raise UserError(problem(folder, what, "Use a corpus of that --region-width."))
        return cls.of_classifier(models[0], folder)

    @classmethod
    def of_classifier(cls, model: GeneBertForSequenceClassification, folder: Path) -> Self:
        """Return the encoder of a fine-tuned network.

        Raises:
            UserError: it does not read the states of both encoders, or reads positions too, or its head has no hidden
                layer.
        """
        if model.positions is not None:
            what = "its windows are oriented, so that its head reads their positions, and regions have no strand"
            raise UserError(problem(folder, what, "Give one that was fine-tuned without --oriented, or pre-trained."))
        head = model.classifier
        if head is None or not model.reads_region_states or not model.config.reads_sequence or len(head.layers) < 3:
            what = "its head has no hidden layer over the states of both encoders"
            raise UserError(problem(folder, what, "Give one of both modalities that is no linear probe."))
        hidden = nn.Sequential(*list(head.layers)[:3]).eval()  # batch normalisation, a linear layer, its activation
        what = "hidden layer of the predictor's head over the states of both encoders"
        return cls(
            model.genebert.eval(),
            lambda sequence, region: hidden(torch.cat([sequence, region], dim=-1)),
            model.config.hidden_size,
            what,
        )

    @property
    def evidence_moments(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of each motif's evidence in the training regions, in steps: shape (motifs,)."""
        encoder = self.network.region_encoder
        return encoder.evidence_mean.cpu().numpy(), encoder.evidence_std.cpu().numpy()

    def sequences(self, corpus: Corpus, region: NDArray[np.int64]) -> States:
        """Return the pooled states of the sequences of regions, int64, shape (n,): float32, shape (n, 4 * hidden)."""

        def encode(rows: slice) -> torch.Tensor:
            ids, segments = sequence_tokens(corpus.sequence[region[rows]], self.network.config.k)
            return self.network(self._here(torch.from_numpy(ids)), self._here(torch.from_numpy(segments))).sequence

        return self._encoded(encode, len(region), self.network.sequence_width)

    def examples(
        self, corpus: Corpus, region: NDArray[np.int64], cell_type: NDArray[np.int64], sequence: States
    ) -> States:
        """Return the states of regions in cell types: float32, shape (n, width).

        Args:
            corpus: the corpus.
            region, cell_type: indices, int64, shape (n,).
            sequence: what `sequences` returned of each, shape (n, 4 * hidden).
        """

        def encode(rows: slice) -> torch.Tensor:
            matrix = region_matrix(corpus, region[rows], cell_type[rows], self.network.config.region_columns)
            pooled = self.network(matrix=self._here(matrix)).region
            return self.fuse(self._here(torch.from_numpy(sequence[rows])), pooled)

        return self._encoded(encode, len(region), self.width)

    def _here(self, value: Any) -> Any:
        assert isinstance(value, torch.Tensor | Tensors)
        return value.to(self.network.device)

    def _encoded(self, encode: Callable[[slice], torch.Tensor], count: int, width: int) -> States:
        """Encode rows in batches."""
        found = np.empty((count, width), dtype=np.float32)
        with evaluating(self.network), self._arithmetic():
            for start in range(0, count, BATCH):
                rows = slice(start, start + BATCH)
                found[rows] = encode(rows).float().cpu().numpy()
        return found

    def _arithmetic(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.network.device.type, torch.bfloat16, enabled=self.precision == "bf16")
