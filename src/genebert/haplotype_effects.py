"""What haplotypes change: a predictor's log-odds, its network's states, and the motifs near each variant."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class HaplotypeEffects:
    """Changes that the haplotypes of a cohort make, each against the reference of its region.

    Attributes:
        change: of the log-odds (natural) of the second class, per haplotype and cell type, float32, shape (haplotypes,
            cell types).
        embedding: change of the pooled states that the classifiers read, all networks of the ensemble side by side,
            averaged over the cell types and both strands, float32, shape (haplotypes, width); None where the predictor
            has no network with encoders.
        cell_types: names; "all" for a predictor without cell types.
    """

    change: NDArray[np.float32]
    embedding: NDArray[np.float32] | None
    cell_types: list[str]
