"""Boosted trees on the best evidence of each motif and on k-mer counts."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from genebert.methods.boosting import BoostedTrees
from genebert.methods.features import DenseFeatures


class MotifTrees(BoostedTrees):
    """Trees that see what binds, not where: for windows in which sites lie anywhere, on either strand."""

    title: ClassVar[str] = "boosted trees on motifs"

    motifs: bool = Field(True, description="see the evidence of each motif")
    kmers: int = Field(4, ge=0, le=7, description="length of k-mers to count on both strands, 0 for none")

    @model_validator(mode="after")
    def _check_features(self) -> Self:
        if not self.motifs and not self.kmers:
            raise ValueError("without motifs and k-mers there is nothing to see")
        return self

    @property
    def features(self) -> DenseFeatures:
        """See `BoostedTrees`."""
        return DenseFeatures(motifs=self.motifs, kmers=self.kmers, both_strands=True, bases=False)
