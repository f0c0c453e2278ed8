"""Options of `causalclip report` and `plot`; this module imports no plotting library."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

PAGE_FILE = "report.html"
GALLERY_IMAGES = 300
TABLES, ALL, PAPER = "tables", "all", "paper"
FIGURE_KINDS = {
    "overview": "each protocol's main quantity: mean and 95 % interval of each method",
    "comparison": "mean and 95 % interval of each method",
    "cost": "score over the seconds of a training; dashed: the Pareto front",
    "fewshot": "accuracy by training images a class",
    "training": "loss and accuracy of each epoch",
    "reliability": "accuracy against confidence of each reading, and images by confidence",
    "risk": "error against coverage of each reading",
    "confusion": "confusion matrix (up to 20 classes)",
    "uncertainty": "histograms for right, wrong and new classes",
    "templates": "CDC: accuracy of each template",
    "opinions": "CDC: histograms of each template's uncertainty",
    "conflict": "CDC: histograms of the templates' conflict for right and wrong answers",
    "spectrum": "CLIP-ICM: eigenvalues and the number of kept directions",
    "energy": "CLIP-ICM: energy kept of features and interventions",
    "choice": "CLIP-ICM: accuracy of every cell of the grid, the chosen one framed",
    "angles": "CLIP-ICM: angle between the subspace and those of resampled images",
}
"""Kinds of figures and their descriptions."""
REPORT = """Write the results below a folder as one HTML page.

    causalclip report output
    causalclip report output --to study.html --images 1000
    causalclip report output --watch 60

The page needs no network and no server: open the file in a browser. It lists the files that cannot
be read and shows all other results.
"""
PLOT = """Write figures and LaTeX tables of the results below a folder as files for a paper.

    causalclip plot paper output --width page
    causalclip plot reliability output --format pdf --width column
    causalclip plot fewshot output --format svg --to figures
    causalclip plot all output --methods CDC
    causalclip plot tables output

All figures have the same style and colours for colour-blind readers. Text in pdf and svg files is
stored as text, not as outlines. Tables use booktabs.
"""


def report_parser() -> argparse.ArgumentParser:
    """Return the options of `causalclip report`."""
    p = argparse.ArgumentParser(
        description=REPORT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("output", type=Path, help="folder with results.json files below it")
    add("--to", type=Path, metavar="FILE", help=f"where to write (default: OUTPUT/{PAGE_FILE})")
    add("--images", type=int, default=GALLERY_IMAGES, metavar="N", help="at most N test images")
    add(
        "--data",
        type=Path,
        nargs="+",
        default=[Path(os.environ.get("DATA") or "data")],
        metavar="DIR",
        help="folders of the data sets, whose pictures may be shown (default: $DATA, else data)",
    )
    add(
        "--watch",
        type=float,
        nargs="?",
        const=30.0,
        metavar="SECONDS",
        help="write the page again when there are new results, until Ctrl-C; an open page reloads "
        "(default: every 30 s)",
    )
    return p


def plot_parser() -> argparse.ArgumentParser:
    """Return the options of `causalclip plot`."""
    kinds = "\n".join(f"  {name:12} {text}" for name, text in FIGURE_KINDS.items())
    p = argparse.ArgumentParser(
        description=PLOT,
        epilog=f"kinds:\n{kinds}\n  {TABLES:12} every table, in LaTeX with booktabs\n"
        f"  {ALL:12} all of these\n"
        f"  {PAPER:12} comparisons, and one figure of each other kind, of the leading method",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add(
        "kind",
        choices=[*FIGURE_KINDS, TABLES, ALL, PAPER],
        metavar="KIND",
        help="what to draw, see below",
    )
    add("output", type=Path, help="folder with results.json files below it")
    add("--format", choices=["pdf", "png", "svg"], default="pdf", help="default: pdf")
    add(
        "--width",
        choices=["column", "page"],
        default="column",
        help="width of a column (3.35 inches) or a page (6.9)",
    )
    add("--to", type=Path, metavar="DIR", help="where to write (default: OUTPUT/figures)")
    add("--methods", "--method", nargs="+", metavar="NAME", default=[], help="these methods only")
    return p
