"""What the doctor finds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from genebert.errors import UserError

Verdict = Literal["ok", "look", "wrong"]
"""`look`: it may be meant so; `wrong`: `prepare` refuses it, or what it makes of it is of no use."""
Read = TypeVar("Read")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what it is about, such as "genome" or "peaks: B".
        check: what was looked at.
        found: what was found, in words and numbers.
        verdict: see `Verdict`.
        remedy: what to do if the verdict is not ok.
    """

    subject: str
    check: str
    found: str
    verdict: Verdict = "ok"
    remedy: str = ""

    @property
    def group(self) -> str:
        """The subject without the name of a file or cell type."""
        return self.subject.partition(": ")[0]

    @property
    def name(self) -> str:
        """Of the file or cell type; empty if there is none."""
        return self.subject.partition(": ")[2]


def attempt(found: list[Finding], subject: str, read: Callable[[], Read]) -> Read | None:
    """Return what `read` returns; if that is refused, note why, and return None."""
    try:
        return read()
    except UserError as error:
        found.append(Finding(subject, "use", str(error), "wrong", "See there"))
        return None


def judge(subject: str, check: str, found: str, faults: Iterable[tuple[bool, Verdict, str]]) -> Finding:
    """Return a finding with the verdict and remedy of the first of `faults` that holds, or "ok"."""
    for holds, verdict, remedy in faults:
        if holds:
            return Finding(subject, check, found, verdict, remedy)
    return Finding(subject, check, found)


def percent(fraction: float) -> str:
    """Return a fraction as a percentage: 2 %, 0.13 %."""
    return f"{100 * fraction:.3g} %"
