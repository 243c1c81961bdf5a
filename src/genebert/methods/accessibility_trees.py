"""Boosted trees on accessibility alone: that around a window in its cell type, and, if asked for, its own."""

from typing import ClassVar, Literal

from pydantic import Field

from genebert.errors import UserError, problem
from genebert.methods.base import Examples, Fitted
from genebert.methods.boosting import BoostedTrees
from genebert.methods.features import DenseFeatures
from genebert.target import Target


class AccessibilityTrees(BoostedTrees):
    """Trees that see no sequence: how much can be told from where the cell type is open."""

    title: ClassVar[str] = "boosted trees on accessibility"
    cell_types_by_name: ClassVar[bool] = False
    needs_cell_types: ClassVar[bool] = True

    accessibility: Literal["around", "own"] = Field(
        "around", description="how accessible the window's surroundings are is seen, or also the window itself"
    )

    @property
    def features(self) -> DenseFeatures:
        """See `BoostedTrees`."""
        return DenseFeatures(
            motifs=False,
            kmers=(),
            both_strands=True,
            bases=False,
            accessibility=self.accessibility,
        )

    def fit(self, train: Examples, valid: Examples, target: Target, seed: int, description: str = "") -> Fitted:
        """See `Method`.

        Raises:
            UserError: the rows name no cell types; see also `BoostedTrees`.
        """
        if train.context is None:
            what = "the rows name no cell types, so that there is no accessibility to look at"
            raise UserError(problem(self.title, what, "Choose another method."))
        return super().fit(train, valid, target, seed, description)
