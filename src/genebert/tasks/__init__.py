"""Tasks that labelled windows are made for, each in a module.

A new task is one file here: a module whose name, with dashes, is the task's name on the command line, whose first line
says in a few words what it is, and which holds one subclass of `Task`.
"""

import ast
import inspect
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genebert.tasks.base import Task

_SHARED = {"base", "labels", "on_genome", "windows"}
"""Modules here that hold what tasks share."""


def task_names() -> list[str]:
    """Return the names of all tasks, sorted."""
    return sorted(module.name.replace("_", "-") for module in iter_modules(__path__) if module.name not in _SHARED)


def _module_of(task: str) -> str:
    return f"{__name__}.{task.replace('-', '_')}"


def task_help(task: str) -> str:
    """Return in one line what a task is: the first of its module's description, which is read and not imported."""
    spec = find_spec(_module_of(task))
    assert spec is not None and spec.origin is not None
    description = ast.get_docstring(ast.parse(Path(spec.origin).read_text()))
    return (description or "").partition("\n")[0]


def task_class(task: str) -> "type[Task]":
    """Return the class of a task.

    Raises:
        KeyError: there is no such task.
    """
    if task not in task_names():
        raise KeyError(task)
    from genebert.tasks.base import Task

    module = import_module(_module_of(task))
    found = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Task) and kind.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} holds {len(found)} tasks"
    return found[0]
