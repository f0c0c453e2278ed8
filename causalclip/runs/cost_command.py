"""Predict what methods cost: memory and arithmetic of a training step and of a test image.

    causalclip cost MaPLe CDC --backbone ViT-B/16 --classes 10 1000 --batch 4
    causalclip cost CDC --backbone tiny --set TRAINER.CDC.N_TEMPLATES 2

No weights are read and nothing is computed: a method runs on PyTorch's fake tensors, which have
shapes only, in fp32. Class names are ImageNet's. A FLOP is half a multiply-add of a matrix product.
MiB are the most that tensors take at one time in addition to the weights: in a step with gradients,
and in the test of one batch with its text features.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate

from causalclip.errors import UserError, prints_errors

if TYPE_CHECKING:
    from causalclip.runs.cost import Cost

COLUMNS = ["method", "classes", "learnable", "GFLOPs a step", "MiB a step"]
COLUMNS += ["GFLOPs an image", "MiB of a test"]


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("methods", nargs="+", metavar="METHOD")
    add("--backbone", default="ViT-B/16", metavar="NAME", help="default: ViT-B/16")
    add("--classes", nargs="+", type=int, default=[10, 100, 1000], metavar="K")
    add("--batch", type=int, default=4, metavar="B", help="images of a step and of a test batch")
    add("--recipe", default="", metavar="NAME", help="default: the one for the backbone")
    add("--set", nargs="+", default=[], metavar="KEY VALUE", help="settings, as `run` takes them")
    return p


@prints_errors("cost")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 2 for invalid input, with a message of one line."""
    args = parser().parse_args(argv)
    if args.batch < 1:
        raise UserError(f"--batch must be 1 or more, got {args.batch}")
    rows, weights = _rows(args)
    print(f"{args.backbone}, weights {weights / 2**20:,.0f} MiB in fp32; batch {args.batch}\n")
    aligned = ("left", *["right"] * 6)
    print(tabulate(rows, COLUMNS, "github", colalign=aligned, disable_numparse=True))
    return 0


def _rows(args: argparse.Namespace) -> tuple[list[list[str]], int]:
    from causalclip.runs.cost import cost_of, trainer_without_weights

    rows, weights = [], 0
    for method in args.methods:
        for classes in args.classes:
            with contextlib.redirect_stdout(io.StringIO()):  # hide what the trainer prints
                trainer = trainer_without_weights(
                    method, args.backbone, classes, recipe=args.recipe, pairs=args.set
                )
                cost = cost_of(trainer, args.batch)
            rows.append([method, f"{classes:,}", *_texts(cost, args.batch)])
            weights = cost.weights
    return rows, weights


def _texts(cost: Cost, batch: int) -> list[str]:
    step = ["-", "-", "-"]
    if cost.step:
        step = [f"{cost.learnable:,}", _number(cost.step.flops / 1e9), _mib(cost.step.peak)]
    return [*step, _number(cost.test.flops / batch / 1e9), _mib(cost.test.peak)]


def _mib(size: int) -> str:
    return _number(size / 2**20)


def _number(value: float) -> str:
    """Return a number with three significant digits, or without decimals from 100 on."""
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
