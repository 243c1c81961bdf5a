"""The nouns of a page: panels, figures, tables, verdicts, sections. The template knows nothing else."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from markupsafe import Markup


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure.

    Attributes:
        svg: a complete `<svg>` element with its description in aria-label.
        inches: its width; all panels are shown at one scale, so that their letters are equally large.
        wide: it needs the whole width, and on a narrow screen it scrolls instead of becoming illegible.
    """

    svg: Markup
    inches: float
    wide: bool = False


@dataclass(frozen=True)
class Figure:
    """Panels, lettered if there is more than one, with a caption.

    Attributes:
        title: one sentence in bold that opens the caption.
        panels: the drawings, in order.
        parts: what each panel shows, after its letter; or nothing.
        caption: what holds for all panels.
        columns: how many panels stand side by side on a wide screen.
    """

    kind: ClassVar[str] = "figure"
    title: str
    panels: Sequence[Panel]
    parts: Sequence[str] = ()
    caption: str = ""
    columns: int = 1


@dataclass(frozen=True)
class Table:
    """A table; its first `text` columns are words, the others are numbers and stand to the right.

    Attributes:
        title: what it shows.
        header: name of each column.
        rows: cells, as they are to be printed.
        text: number of columns of words.
        note: what a reader must know to read it.
        strong: (row, column) of cells that stand out.
        soft: rows that stand back, such as those of others.
    """

    kind: ClassVar[str] = "table"
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: int = 1
    note: str = ""
    strong: Collection[tuple[int, int]] = ()
    soft: Collection[int] = ()


@dataclass(frozen=True)
class Folded:
    """A table that opens on demand."""

    kind: ClassVar[str] = "folded"
    summary: str
    table: Table


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    kind: ClassVar[str] = "prose"
    text: str


@dataclass(frozen=True)
class Terms:
    """Words and what they mean here."""

    kind: ClassVar[str] = "terms"
    items: Sequence[tuple[str, str]]


Standing = Literal["above", "level", "below"]


@dataclass(frozen=True)
class Verdict:
    """One sentence, computed from numbers, that says whether a model beats what it must beat."""

    standing: Standing
    sentence: str


@dataclass(frozen=True)
class Verdicts:
    """The sentences of a section."""

    kind: ClassVar[str] = "verdicts"
    items: Sequence[Verdict]


@dataclass(frozen=True)
class Provenance:
    """How one stage came about: its command, and tables that open on demand."""

    kind: ClassVar[str] = "provenance"
    stage: str
    folder: str
    fingerprint: str
    command: str
    tables: Sequence[Table]


Block = Figure | Table | Folded | Prose | Terms | Verdicts | Provenance


@dataclass
class Section:
    """A titled part of the page."""

    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Tile:
    """A headline number."""

    value: str
    label: str
    note: str = ""
