"""Boosted trees on k-mer counts of both strands and on composition: what can be had without a motif collection."""

from typing import ClassVar

from pydantic import Field

from genebert.methods.boosting import BoostedTrees
from genebert.methods.features import DenseFeatures, KmerLengths


class KmerTrees(BoostedTrees):
    """Trees that see which short words a window holds, on either strand, wherever they lie."""

    title: ClassVar[str] = "boosted trees on k-mers"

    kmers: KmerLengths = Field((4, 5), min_length=1, description="lengths of k-mers to count on both strands")

    @property
    def features(self) -> DenseFeatures:
        """See `BoostedTrees`."""
        return DenseFeatures(motifs=False, kmers=self.kmers, both_strands=True, bases=False, composition=True)
