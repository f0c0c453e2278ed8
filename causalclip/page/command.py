"""The command `causalclip report`: one HTML file of everything below a folder of results.

    causalclip report output
    causalclip report output --to study.html --images 1000
    causalclip report output --watch 60

The page needs no network and no server: it opens from the disk. What cannot be read is named in it,
and everything else is shown.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from causalclip.page.render import IMAGES, PAGE_FILE, Renderer, write_page
from causalclip.page.study import Study
from causalclip.report.predictions import PREDICTIONS_FILE
from causalclip.report.results import EXPLAINED_FOLDER, RESULTS_FILE

NOTICE_SECONDS = 2.0
"""How often a watch looks for new results."""


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("output", type=Path, help="folder with results.json files below it")
    add("--to", type=Path, metavar="FILE", help=f"where to write (default: OUTPUT/{PAGE_FILE})")
    add("--images", type=int, default=IMAGES, metavar="N", help="at most N pictures in the gallery")
    add(
        "--watch",
        type=float,
        nargs="?",
        const=30.0,
        metavar="SECONDS",
        help="write it again whenever there are new results, until Ctrl-C; the open page loads "
        "itself again (default: every 30 s)",
    )
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; 2 for a folder without results."""
    args = parser().parse_args(arguments)
    path = args.to or args.output / PAGE_FILE
    try:
        if args.images < 0 or (args.watch is not None and args.watch <= 0):
            raise ValueError(
                "--images must be 0 or more and --watch positive, "
                f"got {args.images} and {args.watch}"
            )
        renderer = Renderer(images=args.images)
        if args.watch:
            return watch(renderer, args.output, path, seconds=args.watch)
        write(renderer, args.output, path)
    except (ValueError, OSError) as error:
        print(f"causalclip report: {error}", file=sys.stderr)
        return 2
    return 0


def write(renderer: Renderer, output: Path, path: Path, *, refresh: float = 0) -> Study:
    """Read the folder, write the page, and say so; the study.

    Raises:
        ValueError: nothing that can be read.
    """
    study = Study.read(output)
    html = renderer.page(
        study, refresh=refresh, progress=lambda runs: tqdm(runs, "draw", unit="run", leave=False)
    )
    write_page(html, path)
    for problem in study.problems:
        print(f"not shown: {problem}", file=sys.stderr)
    megabytes = len(html.encode()) / 1e6
    print(f"wrote {path} ({len(study.runs)} results, {megabytes:.1f} MB): open it in a browser")
    return study


def watch(renderer: Renderer, output: Path, path: Path, *, seconds: float) -> int:
    """Write the page when results come, every `seconds` at most; at the end once more, at rest."""
    seen: object = None
    print(f"watching {output}; Ctrl-C ends it", flush=True)
    try:
        while True:
            found = stamps(output)
            if found and found != seen:
                seen = found
                study = write(renderer, output, path, refresh=seconds)
                print(best_so_far(study), flush=True)
                time.sleep(seconds)
            time.sleep(min(NOTICE_SECONDS, seconds))
    except KeyboardInterrupt:
        if seen:
            write(renderer, output, path)
        return 0


def stamps(output: Path) -> dict[Path, int]:
    """When each file of results below a folder was written, and each explained picture."""
    names = (RESULTS_FILE, PREDICTIONS_FILE, f"{EXPLAINED_FOLDER}/*.png")
    files = [file for name in names for file in output.rglob(name)]
    return {file: file.stat().st_mtime_ns for file in files}


def best_so_far(study: Study) -> str:
    """The best method of each table by what the table compares last, a line each."""
    rows = study.scores[study.scores.compared != ""]
    if rows.empty:
        return "no protocol has a score yet"
    last = rows.groupby("table", sort=False)["compared"].transform("last")
    means = rows[rows.compared == last].groupby(["table", "method"], sort=False)["value"].mean()
    lines = []
    for table in dict.fromkeys(rows.table):
        part = means[table]
        lines.append(f"{table}: best so far {part.idxmax()}, {part.max():.1f}")
    return "\n".join(lines)
