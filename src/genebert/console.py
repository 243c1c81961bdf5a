"""What the user sees while a stage works: lines and progress bars on standard error."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")


@cache
def console() -> Console:
    """Return the console of the process; standard output stays free for results."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print a line, as it is: names from files are neither markup nor emoji (`:100:`)."""
    console().print(text, markup=False, emoji=False)


def size_of(size: float) -> str:
    """Return a number of bytes in GB, or MB if it is small."""
    return f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def duration_of(seconds: float) -> str:
    """Return a time in the unit that fits it."""
    for longest, factor, name in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < longest:
            return f"{seconds / factor:,.0f} {name}"
    return f"{seconds / 86400:,.1f} days"


def progress_bar() -> Progress:
    """Return a progress display with elapsed and remaining time; `{task.fields[note]}` follows the bar."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console(),
    )


def track(items: list[Item], description: str) -> Iterator[Item]:
    """Yield the items with a progress bar."""
    with progress_bar() as progress:
        task = progress.add_task(description, total=len(items), note="")
        for item in items:
            yield item
            progress.advance(task)


def table(title: str, header: Iterable[str], rows: Iterable[Iterable[object]], *, words: bool = False) -> None:
    """Print a table to standard output; its columns but the first are numbers, or words if so said."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_justify="left", header_style="bold")
    for i, name in enumerate(header):
        made.add_column(name, justify="left" if i == 0 or words else "right")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    Console(highlight=False).print(made)
