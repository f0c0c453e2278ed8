"""The style of every figure, and figures as files or as SVG elements of a page."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from causalclip.files.atomic import replacing

STYLE_FILE = Path(__file__).with_name("figures.mplstyle")
WIDTHS = {"column": 3.35, "page": 6.9}
"""Widths of figures in inches, for a paper with two columns."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")

# Placeholder colours of figures.mplstyle; an SVG element replaces them with those of its page.
INK, FAINT = "#010203", "#a1a2a3"
STYLE: dict[Any, Any] = dict(matplotlib.rc_params_from_file(STYLE_FILE, use_default_template=False))
PALETTE = tuple(f"#{colour.strip('#')}" for colour in STYLE["axes.prop_cycle"].by_key()["color"])
PRINT_STYLE: dict[Any, Any] = {
    **{key: "black" if value == INK else value for key, value in STYLE.items()},
    "grid.color": "#dddddd",
    "svg.hashsalt": "c",  # makes the file reproducible
}


def series_colour(number: int) -> str:
    """Return the colour of the series `number`, from 0; colours repeat.

    The first colour is that of the figure's method.
    """
    colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    return colours[number % len(colours)]


def marker_style(number: int) -> dict[str, Any]:
    """Return colour, marker and line style of a series, so that it is not marked by colour only."""
    again = number // len(PALETTE)
    marker, line = MARKERS[(number + again) % len(MARKERS)], DASHES[again % len(DASHES)]
    return {"color": series_colour(number), "marker": marker, "linestyle": line}


def dash_style(number: int) -> dict[str, Any]:
    """Return colour and line style of a series without markers."""
    return {"color": series_colour(number), "linestyle": DASHES[number % len(DASHES)]}


def literal_text(text: str) -> str:
    """Escape dollar signs, because matplotlib reads the text between two of them as a formula."""
    return text.replace("$", r"\$")


def write_figure(
    path: Path,
    draw: Callable[..., None],
    *data: Any,
    size: tuple[float, float] = (WIDTHS["column"], 2.5),
    first: int = 0,
) -> Path:
    """Write `draw(figure, *data)` to a pdf, png or svg file without a date, so it is reproducible.

    `size` is width and height in inches, `first` the number of the first colour.
    """
    first %= len(PALETTE)
    colours = cycler(color=[*PALETTE[first:], *PALETTE[:first]])
    with matplotlib.rc_context({**PRINT_STYLE, "axes.prop_cycle": colours}):
        figure = Figure(figsize=size)
        draw(figure, *data)
        undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix)
        save_figure(figure, path, dpi=300, metadata=undated)
    return path


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Write a figure atomically; `options` are those of `Figure.savefig`.

    Raises:
        OSError: it cannot be written. matplotlib's own writers raise other errors on a full disk.
    """
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."), **options)
    with replacing(path) as part:
        part.write_bytes(content.getvalue())


def inline_svg(
    draw: Callable[..., None], *data: Any, label: str, name: str, size: tuple[float, float]
) -> str:
    """Return `draw(figure, *data)` as an <svg> element in the text colour of its page.

    `size` is in inches, `label` is the text for a screen reader. Ids are hashed with `name`, which
    must be unique in the page.
    """
    width, height = size
    transparent = {"figure.facecolor": "none", "axes.facecolor": "none"}
    own: dict[Any, Any] = {**transparent, "svg.hashsalt": name}
    with matplotlib.rc_context({**STYLE, **own}):
        figure = Figure(figsize=size)
        draw(figure, *data)
        file = io.StringIO()
        no_metadata = dict.fromkeys(["Date", "Creator", "Format", "Type"])
        FigureCanvasSVG(figure).print_svg(file, metadata=no_metadata)  # savefig draws twice
    head = (
        f'<svg viewBox="0 0 {72 * width:g} {72 * height:g}" style="max-width:{72 * width:g}pt"'
        f' role="img" aria-label="{html.escape(label)}" xmlns="http://www.w3.org/2000/svg"'
        ' xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    body = re.split(r"<svg[^>]*>", file.getvalue(), maxsplit=1)[1]
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # figure_1, axes_1: repeated in every figure
    body = re.sub(r"\s*\n\s*", "\n", body)
    return head + body.replace(INK, "currentColor").replace(FAINT, "var(--grid)")
