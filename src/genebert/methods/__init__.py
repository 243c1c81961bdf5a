"""Ways to predict a target from windows: GeneBERT and its baselines, each in a module, all under one interface.

A new method is one file here: a module whose name, with dashes, is the method's key, and which holds one subclass of
`Method`.
"""

from typing import TYPE_CHECKING

from genebert.modules import class_in, module_keys

if TYPE_CHECKING:
    from genebert.methods.base import Method

_SHARED = {
    "base",
    "boosting",
    "cell_type_features",
    "features",
    "learning",
    "linear",
    "networks",
    "one_vs_rest",
    "saving",
}
"""Modules here that hold what methods share."""


def method_keys() -> list[str]:
    """Return the keys of all methods, sorted."""
    return module_keys(__path__, _SHARED)


def method_class(key: str) -> "type[Method]":
    """Return the class of a method.

    Raises:
        KeyError: there is no such method.
    """
    from genebert.methods.base import Method

    return class_in(__name__, key, Method, method_keys())
