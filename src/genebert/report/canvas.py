"""How every figure looks: type, colours, and the way to an inline SVG whose bytes do not vary."""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from genebert.report.content import Panel

WIDE, HALF, THIRD = 7.2, 3.5, 2.3
"""Widths of panels in inches: one, two or three side by side."""
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
"""The colours of Okabe and Ito, which the colour-blind can tell apart."""
GREY, PALE, PALE_LINE = "#7a7a7a", "#ececec", "#dddddd"
LONGEST_NAME = 30
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
STYLE: dict[str, Any] = {
    "text.parse_math": False,  # a $ in a name is a $
    "axes.formatter.use_mathtext": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "genebert",
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that layouts are the same everywhere
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "axes.titlepad": 4,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#333333",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "patch.linewidth": 0.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def sequential(colour: str) -> Colormap:
    """Return a colour map from white over a colour to a dark shade of it."""
    red, green, blue = (0.35 * part for part in to_rgb(colour))
    dark = to_hex((red, green, blue))
    return LinearSegmentedColormap.from_list(f"white to {colour}", ["#ffffff", colour, dark])


def diverging() -> Colormap:
    """Return a colour map from blue (negative) over white to vermilion (positive); what is absent is grey."""
    colours = LinearSegmentedColormap.from_list("blue to vermilion", [BLUE, "#ffffff", RED])
    return colours.with_extremes(bad=PALE)


def shorten(name: str, most: int = LONGEST_NAME) -> str:
    """Return a name, with an ellipsis in its middle if it is longer than `most` characters."""
    if len(name) <= most:
        return name
    tail = (most - 1) // 3
    return f"{name[: most - 1 - tail]}…{name[len(name) - tail :]}"


def panel(alt: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> Panel:
    """Draw a panel.

    Args:
        alt: what it shows, for those who do not see it.
        size: width and height in inches.
        draw: draws on the empty figure that it is given.
    """
    with style.context(STYLE, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has other fonts
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(buffer, metadata=NO_METADATA)  # savefig draws twice, for the same bytes
    return Panel(Markup(inline_svg(buffer.getvalue(), alt)), size[0], wide=size[0] > HALF)


def inline_svg(document: str, alt: str) -> str:
    """Return the svg element of an SVG document, without what would clash with other figures on a page."""
    body = document[document.index("<svg") :].strip()
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    head, rest = body.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    return (
        f'<svg {view.group()} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' role="img" aria-label="{escape(alt)}">{rest}'
    )


def own_ids(svg: Markup, number: int) -> Markup:
    """Return an svg element whose ids, and references to them, bear a number, so that none occurs twice."""
    return Markup(
        re.sub(
            r"<[^<>]*>",  # within tags only: a name may hold anything but angle brackets
            lambda tag: re.sub(r'( id="|href="#|url\(#)', rf"\g<1>p{number}-", tag.group()),
            svg,
        )
    )


def heat_map(
    axes: Axes,
    values: NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    colours: Colormap,
    limits: tuple[float, float],
    label: str,
) -> None:
    """Draw values, shape (rows, columns), as a heat map with named rows and columns and a colour bar."""
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="none")
    axes.set_yticks(range(len(rows)), [shorten(name) for name in rows])
    axes.set_xticks(
        range(len(columns)),
        [shorten(name) for name in columns],
        rotation=90,
        rotation_mode="anchor",
        ha="right",
        va="center",
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure = axes.get_figure()
    assert figure is not None
    bar = figure.colorbar(
        image,
        ax=axes,
        fraction=0.05,
        pad=0.015,
        aspect=12,
        shrink=min(1.0, 1.6 / max(axes.bbox.height / 100, 1.6)),
    )
    bar.set_label(label)
    bar.outline.set_visible(False)


def annotate_cells(axes: Axes, values: NDArray[Any], texts: Iterable[Iterable[str]], dark: float) -> None:
    """Write a text into each cell of a heat map, in white where the value is above `dark`."""
    for i, line in enumerate(texts):
        for j, text in enumerate(line):
            axes.text(
                j,
                i,
                text,
                ha="center",
                va="center",
                fontsize=6,
                color="white" if values[i, j] > dark else "black",
            )


def symmetric(values: NDArray[Any]) -> tuple[float, float]:
    """Return limits around 0 that hold all values, and are not empty."""
    most = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    return -most, most


def minus(text: str) -> str:
    """Return a number with a minus sign in place of a hyphen."""
    return text.replace("-", "\N{MINUS SIGN}")


def thousands(value: float, _: object = None) -> str:
    """Format a tick as an integer with separators."""
    return f"{value:,.0f}"
