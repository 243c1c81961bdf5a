"""Pre-training in processes that were started, several times in a row."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

import torch
from pytest import raises

from genebert import launch
from genebert.errors import UserError
from genebert.pretrain import Share, pretrain
from genebert.pretraining_data import PretrainingBatch
from genebert.settings import PretrainSettings


def pretrain_all(given: tuple[Sequence[PretrainSettings], PretrainSettings]) -> list[Path | str]:
    """Pre-train each of several, and one that is interrupted; starting processes takes longer than either."""
    each, stopped = given
    return [*pretrain_each(each), pretrain_interrupted(stopped)]


def pretrain_each(given: Sequence[PretrainSettings]) -> list[Path | str]:
    """Return for each of several settings the folder made, or what the user is told."""
    found: list[Path | str] = []
    for settings in given:
        os.environ[launch._STORE] += "."  # a store serves one group
        try:
            found.append(pretrain(settings))
        except UserError as error:
            found.append(str(error))
            launch.leave()
    return found


class InterruptionError(Exception):
    """Ends a training."""


def pretrain_interrupted(settings: PretrainSettings) -> Path:
    """Pre-train, end amid it in all processes, and resume."""
    os.environ[launch._STORE] += "."
    make = Share.__call__

    def stopping(share: Share, index: int) -> PretrainingBatch:
        if index == 3:
            raise InterruptionError
        return make(share, index)

    Share.__call__ = stopping  # type: ignore[method-assign]
    with raises(InterruptionError):
        pretrain(settings)
    Share.__call__ = make  # type: ignore[method-assign]
    launch.leave()
    os.environ[launch._STORE] += "."
    return pretrain(settings)


def pretrain_killed(_: int, settings: PretrainSettings, places: Sequence[int | Literal["writing"]]) -> None:
    """Pre-train until killed in each of several places, then to the end; starting a process takes longer than that."""
    for place in places:
        child = os.fork()
        if child == 0:
            _killed_at(place)
            pretrain(settings)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, place
    torch.set_num_threads(torch.get_num_threads() + 1)  # as if OMP_NUM_THREADS had changed meanwhile
    pretrain(settings)


def _killed_at(place: int | Literal["writing"]) -> None:
    """Let this process be killed as it makes the batch of a step, or as it writes a file."""
    make = Share.__call__

    def die(*_: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    if place == "writing":
        os.fsync = die
    else:
        Share.__call__ = lambda share, step: die() if step == place else make(share, step)  # type: ignore[method-assign]
