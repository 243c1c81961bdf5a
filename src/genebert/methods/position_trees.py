"""Boosted trees on the base at each position and on k-mer counts of the strand as given."""

from typing import ClassVar

from pydantic import Field

from genebert.methods.boosting import BoostedTrees
from genebert.methods.features import DenseFeatures, KmerLengths


class PositionTrees(BoostedTrees):
    """Trees for windows that are aligned at something, such as a start of transcription or a splice site."""

    title: ClassVar[str] = "boosted trees on positions"
    strand_as_given: ClassVar[bool] = True

    kmers: KmerLengths = Field((4,), description="lengths of k-mers to count on the strand as given")

    @property
    def features(self) -> DenseFeatures:
        """See `BoostedTrees`."""
        return DenseFeatures(motifs=False, kmers=self.kmers, both_strands=False, bases=True)
