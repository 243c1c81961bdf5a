"""Tasks that labelled windows are made for, each in a module.

A new task is one file here: a module whose name, with dashes, is the task's name on the command line, whose first line
says in a few words what it is, and which holds one subclass of `Task`.
"""

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from genebert.modules import class_in, module_keys, module_name

if TYPE_CHECKING:
    from genebert.tasks.base import Task

_SHARED = {"base", "labels", "on_genome", "windows"}
"""Modules here that hold what tasks share."""


def task_names() -> list[str]:
    """Return the names of all tasks, sorted."""
    return module_keys(__path__, _SHARED)


def task_help(task: str) -> str:
    """Return in one line what a task is: the first of its module's description, which is read and not imported."""
    spec = find_spec(module_name(__name__, task))
    assert spec is not None and spec.origin is not None
    description = ast.get_docstring(ast.parse(Path(spec.origin).read_text()))
    return (description or "").partition("\n")[0]


def task_class(task: str) -> "type[Task]":
    """Return the class of a task.

    Raises:
        KeyError: there is no such task.
    """
    from genebert.tasks.base import Task

    return class_in(__name__, task, Task, task_names())
