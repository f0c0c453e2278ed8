"""`causalclip export`: class features and image tower of a trained run, for use elsewhere.

    causalclip export output/first
    causalclip export output/first --classes cat dog --output cats
    causalclip export output/first --format onnx

Writes classes.safetensors and, where prompts stand in the image tower, image.pt2 (torch.export); in
ONNX the image tower of any method. Both are read again and compared with the run's own answers.
docs/predict.md shows how to use them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from causalclip.predict.command import exit_status, loaded, model_parser


def parser() -> argparse.ArgumentParser:
    """Which run, and where to."""
    p = model_parser("export", __doc__)
    p.add_argument(
        "--format", choices=("torch", "onnx"), default="torch", help="of the image tower's program"
    )
    p.add_argument("--output", help="folder to write; default: MODEL_DIR/export")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files and say where; 2 for a mistake in the input."""
    return exit_status("export", perform, parser().parse_args(argv))


def perform(args: argparse.Namespace) -> int:
    """Write and check the files.

    Raises:
        ImportError: ONNX without its packages.
        ValueError: a method that cannot be exported.
        RuntimeError: files that answer otherwise than the run.
    """
    from causalclip.predict.export import export

    predictor = loaded(args)
    folder = args.output or Path(args.model_dir) / "export"
    for path in export(predictor, folder, form=args.format):
        print(f"{path}: checked, answers as the run does")
    return 0
