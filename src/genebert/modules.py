"""Packages each of whose modules holds one class of a kind: a method, a task.

A module's name, with dashes, is its key. Modules are imported only when their class is asked for.
"""

import inspect
from collections.abc import Collection, Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def module_keys(path: Iterable[str], shared: Collection[str]) -> list[str]:
    """Return the keys of a package's modules, sorted.

    Args:
        path: of the package, its `__path__`.
        shared: names of modules that hold what the others share.
    """
    return sorted(module.name.replace("_", "-") for module in iter_modules(path) if module.name not in shared)


def module_name(package: str, key: str) -> str:
    """Return the full name of the module with a key."""
    return f"{package}.{key.replace('-', '_')}"


def class_in(package: str, key: str, base: type, keys: Collection[str]) -> Any:
    """Return the one subclass of a class that a module of a package defines.

    Args:
        package: its full name.
        key: of the module.
        base: the class.
        keys: of all modules that define one.

    Raises:
        KeyError: no module has this key.
    """
    if key not in keys:
        raise KeyError(key)
    module = import_module(module_name(package, key))
    found = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, base) and kind.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} holds {len(found)} subclasses of {base.__name__}"
    return found[0]
