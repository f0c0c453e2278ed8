"""`causalclip explain`: which patches of a picture speak for its class.

    causalclip explain output/first my.png
    causalclip explain output/first my.png --class three --output why.png

Orange patches speak for the class, purple ones against it; each map has a scale of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from causalclip.predict.command import explained, loaded, model_parser


def parser() -> argparse.ArgumentParser:
    """Whose answer about which picture is explained."""
    p = model_parser("explain", __doc__)
    p.add_argument("image", metavar="IMAGE", help="the picture's file")
    p.add_argument("--class", dest="classname", default="", help="default: the predicted one")
    p.add_argument("--output", help="the PNG to write; default: IMAGE's name.explained.png here")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Explain and draw; 2 for a mistake in the input."""
    return explained("explain", perform, parser().parse_args(argv))


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
    explanation = explain(loaded(args), image, classname=args.classname)
    path = args.output or f"{Path(args.image).stem}.explained.png"
    save(explanation, path)
    answer = explanation.answer
    print(
        f"{answer.classname}, p {answer.probability:.3f}, uncertainty {answer.uncertainty:.4g}; "
        f"what speaks for {explanation.classname}: {path}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
