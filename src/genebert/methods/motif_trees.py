"""Boosted trees on the best evidence of each motif, on k-mer counts of both strands, and on composition.

Of rows that name cell types, they see which of the motifs the cell type uses, and not its name.
"""

from typing import ClassVar, Literal

from pydantic import Field

from genebert.methods.boosting import BoostedTrees
from genebert.methods.features import DenseFeatures, KmerLengths


class MotifTrees(BoostedTrees):
    """Trees that see what binds, not where: for windows in which sites lie anywhere, on either strand."""

    title: ClassVar[str] = "boosted trees on motifs"
    cell_types_by_name: ClassVar[bool] = False

    kmers: KmerLengths = Field((4, 5), description="lengths of k-mers to count on both strands")
    accessibility: Literal["none", "around", "own"] = Field(
        "around",
        description="of rows that name cell types: how accessible the window's surroundings are is seen, or also the "
        "window itself, or nothing",
    )

    @property
    def features(self) -> DenseFeatures:
        """See `BoostedTrees`."""
        return DenseFeatures(
            motifs=True,
            kmers=self.kmers,
            both_strands=True,
            bases=False,
            composition=True,
            usage=True,
            accessibility=self.accessibility,
        )
