"""Which code decides what a method predicts: its own, that of how rows are read, and whatever these import."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from genebert import __version__
from genebert.methods import method_class
from genebert.stage import digest, sha256_of

ROWS = "genebert.labelled"
"""How rows are read, divided, and given to methods."""
NEUTRAL = {
    f"genebert{name}"
    for name in ("", ".checkpoints", ".console", ".errors", ".launch", ".resampling", ".settings", ".stage")
} | {"genebert.corpus.parallel", "genebert.tasks.labels"}
"""Modules that say, check, keep or measure what others compute. Settings count as the options that come of them."""


def code_of(key: str, rows: str = ROWS) -> dict[str, str]:
    """Return what tells the code of a method: the version of genebert, and a digest of the modules that decide.

    Args:
        key: of the method.
        rows: the module that gives it its rows.
    """
    sources = {name: sha256_of(source_of(name)) for name in sorted(deciding(method_class(key).__module__, rows))}
    return {"genebert": __version__, "modules": digest(sources)}


def deciding(module: str, rows: str = ROWS) -> set[str]:
    """Return the names of both modules, of what they import, and so on, but for what is neutral."""
    found: set[str] = set()
    waiting = {module, rows}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= _imported(source_of(name).read_text(encoding="utf-8")) - found - NEUTRAL
    return found


def source_of(module: str) -> Path:
    """Return the file of a module of genebert."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return Path(spec.origin)


@cache  # many methods share their modules
def _imported(source: str) -> frozenset[str]:
    """Return the names of the modules of genebert that a source text imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(_module_of(name) for name in names if name.split(".")[0] == "genebert")


def _module_of(name: str) -> str:
    """Return the module that an imported name is, or lies in."""
    within = name.rpartition(".")[0]
    try:
        return name if find_spec(name) else within
    except ModuleNotFoundError:  # `within` is no package
        return within
