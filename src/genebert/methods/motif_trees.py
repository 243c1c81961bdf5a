"""Boosted trees on the best evidence of each motif, on k-mer counts of both strands, and on composition."""

from typing import ClassVar

from pydantic import Field

from genebert.methods.boosting import BoostedTrees
from genebert.methods.features import DenseFeatures, KmerLengths


class MotifTrees(BoostedTrees):
    """Trees that see what binds, not where: for windows in which sites lie anywhere, on either strand."""

    title: ClassVar[str] = "boosted trees on motifs"

    kmers: KmerLengths = Field((4, 5), description="lengths of k-mers to count on both strands")

    @property
    def features(self) -> DenseFeatures:
        """See `BoostedTrees`."""
        return DenseFeatures(motifs=True, kmers=self.kmers, both_strands=True, bases=False, composition=True)
