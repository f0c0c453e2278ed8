"""`causalclip explain`: which patches of a picture speak for its class, or are attended to.

    causalclip explain output/first my.png
    causalclip explain output/first my.png --class three --output why.png
    causalclip explain output/first my.png --kind attention

Orange patches speak for the class, purple ones against it; each map has a scale of its own. The PNG
goes to MODEL_DIR/explained/, where `causalclip report` finds it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from causalclip.predict.command import exit_status, loaded, model_parser
from causalclip.report.results import EXPLAINED_FOLDER


def parser() -> argparse.ArgumentParser:
    """Whose answer about which picture is explained."""
    p = model_parser("explain", __doc__)
    p.add_argument("image", metavar="IMAGE", help="the picture's file")
    p.add_argument("--class", dest="classname", default="", help="default: the predicted one")
    p.add_argument(
        "--kind",
        choices=("gradient", "attention"),
        default="gradient",
        help="what speaks for the class (default), or where the class token attends to",
    )
    p.add_argument("--output", help=f"the PNG to write; default: in MODEL_DIR/{EXPLAINED_FOLDER}/")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Explain and draw; 2 for a mistake in the input."""
    return exit_status("explain", perform, parser().parse_args(argv))


def perform(args: argparse.Namespace) -> int:
    """Write the PNG and say where.

    Raises:
        ValueError: an image or a class that there is not.
        OSError: an image that cannot be read, or an output that cannot be written.
    """
    from causalclip.predict.drawing import save
    from causalclip.predict.explain import explain
    from causalclip.predict.pictures import found

    image, *others = found([args.image])
    if others:
        raise ValueError(f"explain takes one picture, got a folder of {1 + len(others)}")
    explanation = explain(loaded(args), image, classname=args.classname, kind=args.kind)
    path = args.output or default_output(args)
    save(explanation, path)
    print(f"{explanation}: {path}")
    return 0


def default_output(args: argparse.Namespace) -> Path:
    """In the run's folder, by the picture, the kind, and the class that is asked for."""
    parts = [Path(args.image).stem, args.kind, re.sub(r"[^\w-]+", "_", args.classname)]
    return Path(args.model_dir) / EXPLAINED_FOLDER / f"{'.'.join(filter(None, parts))}.png"
