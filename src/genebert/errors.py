"""What a user did wrong, said once, in full, with the remedy."""

from collections.abc import Iterable
from dataclasses import dataclass, field

SHOWN = 10


class UserError(Exception):
    """A mistake in the user's input or call. The CLI prints it without a traceback and exits with code 2."""


class ResumableError(UserError):
    """Work stopped that can go on later: the same call resumes it."""


def problem(where: object, what: str, remedy: str) -> str:
    """One line of an error: the file (and line or record), what is wrong with which value, and what to do."""
    return f"{where}: {what}. {remedy}"


def listed(names: Iterable[object], most: int = 6, separator: str = ", ") -> str:
    """Return the first names, and how many more there are."""
    shown = [str(name) for name in names]
    rest = f" and {len(shown) - most} more" if len(shown) > most else ""
    return separator.join(shown[:most]) + rest


@dataclass
class Problems:
    """Collects the problems of one input, to report them together.

    Args:
        heading: first line of the error, such as "peaks of B cannot be used".
    """

    heading: str
    lines: list[str] = field(default_factory=list)

    def add(self, where: object, what: str, remedy: str) -> None:
        """Note one problem."""
        self.lines.append(problem(where, what, remedy))

    def extend(self, lines: Iterable[str]) -> None:
        """Note problems that were already put into words."""
        self.lines.extend(lines)

    def raise_any(self) -> None:
        """Raise a `UserError` that lists what was noted, or return if nothing was."""
        if not self.lines:
            return
        shown = [f"  - {line}" for line in self.lines[:SHOWN]]
        if len(self.lines) > SHOWN:
            shown.append(f"  - and {len(self.lines) - SHOWN} more problems")
        raise UserError("\n".join([self.heading, *shown]))
