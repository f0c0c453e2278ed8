"""The family's flags: the command line of CoOp's train.py, and what we added."""

from __future__ import annotations

import argparse
import sys

EXAMPLE = """example:
  causalclip train --trainer CDC --root data --output-dir output/first --seed 1 \\
      --dataset-config-file configs/datasets/handwritten_digits.yaml \\
      --config-file configs/trainers/CDC/tiny_m4.yaml \\
      DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base
"""


def parser() -> argparse.ArgumentParser:
    """The family's flags; what follows them is KEY VALUE pairs for the configuration."""
    p = argparse.ArgumentParser(
        description="Train and evaluate: the command line of CoOp's train.py, for every trainer "
        "and data set here.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("--root", default="", help="folder of the data sets")
    add("--output-dir", default="", help="where log, checkpoints and results go")
    add("--resume", default="", help="checkpoint folder to resume from")
    add("--seed", type=int, default=None, help="random seed; 0 is a seed, negative means none")
    add("--source-domains", nargs="+", help="domains to train on")
    add("--target-domains", nargs="+", help="domains to test on")
    add("--transforms", nargs="+", help="training augmentations")
    add(
        "--config-file",
        action="append",
        default=[],
        help="configuration of the method; given again, the later file overrides the earlier",
    )
    add("--dataset-config-file", default="", help="configuration of the data set")
    add("--trainer", default="", help="name of the method, for example CDC")
    add(
        "--backbone",
        default="",
        help="CLIP to use: tiny, ViT-B/16, open_clip:MODEL/TAG, ..., or a file",
    )
    add("--head", default="", help="unused by CLIP methods; kept for Dassl's command line")
    add("--eval-only", action="store_true", help="load --model-dir and evaluate")
    add("--model-dir", default="", help="output folder of the training run to evaluate")
    add("--load-epoch", type=int, help="epoch to load (default: best, else last)")
    add("--no-train", action="store_true", help="build everything, do not train")
    add_imports(p)
    add("--protocol", default="", help="the protocol this run belongs to, for results.json")
    add("--part", default="", help="its part of the protocol, for example train_base")
    add("--no-cache", action="store_true", help="do not keep or read image features on disk")
    add(
        "--trust-torchscript",
        action="store_true",
        help="load a TorchScript backbone that OpenAI did not release: it runs as a program",
    )
    add(
        "--debug",
        action="store_true",
        help="show the traceback of an input error, which else goes to log.txt alone",
    )
    add("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, for example OPTIM.LR 0.002")
    return p


def called(script: str) -> str:
    """What the user has called, as errors begin: `causalclip COMMAND`, or the script instead."""
    return sys.argv[0] if sys.argv[0].startswith("causalclip ") else script


def add_imports(p: argparse.ArgumentParser) -> None:
    """The flag by which a command learns of trainers and data sets that are not ours."""
    p.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module to import first, for your own trainers and data sets; may be repeated",
    )
