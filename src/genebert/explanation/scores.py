"""The log-odds of a predictor as a function of region matrices, for windows whose sequences are encoded once."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from genebert.console import say
from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.methods.genebert import FittedGeneBert, sequence_states_of
from genebert.model.genebert import GeneBertForSequenceClassification
from genebert.predictor import Predictor
from genebert.region_matrix import RegionMatrix
from genebert.window_data import WindowData

BATCH = 32


def members_without_network(predictor: Predictor) -> list[str]:
    """Return the methods of a predictor that are no GeneBERT."""
    return sorted({key for key, fitted in predictor.ensemble.members if not isinstance(fitted, FittedGeneBert)})


def explainable(predictor: Predictor, corpus: Corpus) -> list[GeneBertForSequenceClassification]:
    """Return the networks of a predictor, frozen.

    Raises:
        UserError: it has no network, or not two classes, does not read motifs in cell types, or reads windows of
            another width than the corpus' regions.
    """
    folder = predictor.manifest.folder
    networks = [fitted.model for _, fitted in predictor.ensemble.members if isinstance(fitted, FittedGeneBert)]
    wrong = [
        (not networks, "it has no network to look into", "Fine-tune without --no-network."),
        (not predictor.target.is_binary, "it predicts no two classes", "Fine-tune on labels of two classes."),
        (not predictor.per_cell_type, "it knows no cell types", "Fine-tune on labels with a cell_type column."),
        (
            any(not network.config.reads_motifs for network in networks),
            "it reads no motifs",
            "Fine-tune with --modalities both or motifs.",
        ),
        (
            predictor.width != corpus.width,
            f"it reads windows of {predictor.width} bp, and regions of the corpus have {corpus.width}",
            "Fine-tune on windows as wide as the corpus' regions.",
        ),
    ]
    for is_wrong, what, remedy in wrong:
        if is_wrong:
            raise UserError(problem(folder, what, remedy))
    if others := members_without_network(predictor):
        say(f"{folder}: its networks are explained, and {', '.join(others)} is not")
    return [network.requires_grad_(False).eval() for network in networks]


class LogOdds:
    """Scores region matrices of given windows: the mean log-odds of the second class over networks and strands.

    It is not calibrated, since calibration changes the scale of a difference, and not what it rests on.

    Args:
        networks: in eval mode, on their device.
        codes: base codes of the windows, uint8, shape (n, length).
        evidence: their motif evidence, uint8, shape (n, motifs).
    """

    def __init__(
        self,
        networks: Sequence[GeneBertForSequenceClassification],
        codes: NDArray[np.uint8],
        evidence: NDArray[np.uint8],
    ) -> None:
        self.networks = networks
        self.device = networks[0].device
        self.states = [self._states(network, codes) for network in networks]
        self.features = [self._features(network, codes, evidence) for network in networks]

    @torch.no_grad()
    def _states(self, network: GeneBertForSequenceClassification, codes: NDArray[np.uint8]) -> list[torch.Tensor]:
        """Return what the classifier reads of the sequences, on each strand that counts; nothing if it does not."""
        data = WindowData(codes, k=network.config.k, batch_size=BATCH)
        found: list[torch.Tensor] = []
        for reverse in (False,) if network.config.oriented else (False, True):
            batches = (batch.to(self.device) for batch in data.in_order(reverse=reverse))
            states = [sequence_states_of(network, batch) for batch in batches]
            read = [one for one in states if one is not None]
            found += [torch.cat(read)] if read else []
        return found

    @torch.no_grad()
    def _features(
        self, network: GeneBertForSequenceClassification, codes: NDArray[np.uint8], evidence: NDArray[np.uint8]
    ) -> torch.Tensor | None:
        if network.summary is None:
            return None
        starts = range(0, len(codes), BATCH)
        pairs = ((torch.from_numpy(one[start : start + BATCH]) for one in (codes, evidence)) for start in starts)
        return torch.cat([network.summary(*(one.to(self.device) for one in pair)) for pair in pairs])

    def __call__(self, matrix: RegionMatrix, window: torch.Tensor) -> torch.Tensor:
        """See `importance.Score`; the matrices and `window` are on the networks' device."""
        each = zip(self.networks, self.states, self.features, strict=True)
        return torch.stack([self._of(*one, matrix, window) for one in each]).mean(dim=0)

    def _of(
        self,
        network: GeneBertForSequenceClassification,
        states: list[torch.Tensor],
        features: torch.Tensor | None,
        matrix: RegionMatrix,
        window: torch.Tensor,
    ) -> torch.Tensor:
        summary = None
        if network.summary is not None and network.summary_classifier is not None and features is not None:
            summary = network.summary_classifier(network.summary.with_evidence(features[window], matrix.own_evidence))
        region, cell_type = network.region_states(matrix), network.cell_type_logits(matrix)
        sequences: list[torch.Tensor | None] = [one[window] for one in states]
        every = [network.joined(network.combine(one, region, summary, cell_type)) for one in sequences or [None]]
        logits = torch.stack(every).mean(dim=0)
        return logits[:, 1] - logits[:, 0]
