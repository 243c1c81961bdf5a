"""Ways to predict a target from windows: GeneBERT and its baselines, each in a module, all under one interface.

A new method is one file here: a module whose name, with dashes, is the method's key, and which holds one subclass of
`Method`.
"""

import inspect
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genebert.methods.base import Method

_SHARED = {"base", "boosting", "features", "linear", "networks", "one_vs_rest", "saving"}
"""Modules here that hold what methods share."""


def method_keys() -> list[str]:
    """Return the keys of all methods, by name."""
    return sorted(name.replace("_", "-") for name in _modules())


def _modules() -> Iterator[str]:
    return (module.name for module in iter_modules(__path__) if module.name not in _SHARED)


def method_class(key: str) -> "type[Method]":
    """Return the class of a method.

    Raises:
        KeyError: there is no such method.
    """
    if key not in method_keys():
        raise KeyError(key)
    from genebert.methods.base import Method

    module = import_module(f"{__name__}.{key.replace('-', '_')}")
    found = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Method) and kind.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} holds {len(found)} methods"
    return found[0]
