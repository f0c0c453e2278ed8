"""One style for every figure: sizes of a column or a page, colours that all eyes tell apart."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure

from causalclip.files.atomic import replacing

Width = Literal["column", "page"]
WIDTHS: dict[str, float] = {"column": 3.35, "page": 6.9}
"""Inches, of a paper in two columns."""

# Okabe and Ito's palette without its yellow and black, which vanish on white and on dark paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")

# Drawn in these two, and put in place by the page's own colours.
INK, FAINT = "#010203", "#a1a2a3"

STYLE: dict[Any, Any] = {  # matplotlib's own annotation is a list of all its names
    "font.size": 8,
    "font.family": "DejaVu Sans",  # matplotlib's own: the same everywhere
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 8,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,  # text stays text, in fonts that publishers accept
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
    **dict.fromkeys(
        ["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], INK
    ),
    "grid.color": FAINT,
}

Draw = Callable[[Figure], None]
"""Fills an empty figure; takes no more room than it is given."""


def colour(number: int) -> str:
    """The colour of the series `number`, from 0; they repeat."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """Its marker, so that no series is told by colour alone."""
    return MARKERS[number % len(MARKERS)]


def dash(number: int) -> str:
    """Its line, where there are no markers; changes each time that the colours repeat."""
    return DASHES[number % len(DASHES)]


def plain(text: str) -> str:
    """The text as it is: matplotlib would read a pair of $ as a formula."""
    return text.replace("$", r"\$")


def drawn(draw: Draw, *, width: float, height: float) -> Figure:
    """A figure of width x height inches in the style; call under `styled`."""
    figure = Figure(figsize=(width, height))
    draw(figure)
    return figure


def on_paper() -> dict[Any, Any]:
    """The style with black ink, the same file from every run."""
    ink = {key: "black" for key, value in STYLE.items() if value == INK}
    return {**STYLE, **ink, "grid.color": "#dddddd", "svg.hashsalt": "c"}


def write_figure(draw: Draw, path: Path, *, width: Width = "column", ratio: float = 0.75) -> Path:
    """Draw into a file, pdf, png or svg by its suffix; without the date, so that it is the same.

    Args:
        draw: fills the figure.
        path: where to write.
        width: of a paper's column, or its page.
        ratio: height by width.
    """
    inches = WIDTHS[width]
    with matplotlib.rc_context(on_paper()):
        figure = drawn(draw, width=inches, height=inches * ratio)
        kind = path.suffix.removeprefix(".")
        undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
        save_figure(figure, path, dpi=300, metadata=undated)
    return path


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Write a figure, whole or not at all; `options` are matplotlib's.

    Raises:
        OSError: it cannot be written. matplotlib's own writers end in other errors on a full disk.
    """
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."), **options)
    with replacing(path) as part:
        part.write_bytes(content.getvalue())


def inline_svg(draw: Draw, *, label: str, name: str, width: float, height: float) -> str:
    """The figure as an <svg> element for a page, which takes its ink from the text around it.

    Args:
        draw: fills the figure.
        label: what a screen reader says.
        name: unlike that of every other figure of the page; ids are made of it.
        width: inches.
        height: inches.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = drawn(draw, width=width, height=height)
        file = io.StringIO()
        nothing = dict.fromkeys(["Date", "Creator", "Format", "Type"])
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _embedded(file.getvalue(), label, name)


def _embedded(svg: str, label: str, name: str) -> str:
    """The element alone: without prolog and size, with ids of its own, in the page's colours."""
    from markupsafe import escape

    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<g id=\"[^\"]*\">", "<g>", body)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)  # the text again, for glyphs
    body = re.sub(r'(<\w+ )id="', rf'\g<1>id="{name}-', body)
    body = re.sub(r'(url\(|xlink:href=")#', rf"\g<1>#{name}-", body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    body = body.replace(INK, "currentColor").replace(FAINT, "var(--grid)")
    opening = re.match(r"<svg[^>]*>", body)
    assert opening, "matplotlib writes an svg element"
    box = re.search(r'viewBox="[^"]*"', opening[0])
    wide = re.search(r' width="([\d.]+)pt"', opening[0])
    assert box, "matplotlib says its box"
    assert wide, "and its size"
    head = (
        f'<svg {box[0]} role="img" aria-label="{escape(label)}" style="max-width:{wide[1]}pt" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return head + body[opening.end() :]
