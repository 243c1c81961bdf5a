"""Processes that begin with all of genebert imported, which takes each about 15 seconds if it starts from nothing."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import multiprocessing

METHOD = "forkserver"
"""A process that imports, and does nothing else, is forked for each that is started."""


def spawn(function: Callable[..., None], args: tuple[Any, ...], nprocs: int) -> None:
    """Do what `torch.multiprocessing.spawn` does; what the processes write to stderr comes out here."""
    # Modules of the tests could not be preloaded: before Python 3.12 the server does not look where pytest does.
    multiprocessing.get_context(METHOD).set_forkserver_preload(["genebert.pretrain"])
    with TemporaryDirectory() as folder:
        said = Path(folder) / "stderr"
        said.touch()
        try:
            multiprocessing.start_processes(_work, (function, args, said), nprocs=nprocs, start_method=METHOD)
        finally:
            sys.stderr.write(said.read_text())


def _work(place: int, function: Callable[..., None], args: tuple[Any, ...], said: Path) -> None:
    os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), sys.stderr.fileno())
    function(place, *args)
