"""Command-line flags: those of CoOp's train.py, and those that several commands share."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from causalclip.errors import UserError

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+|USE_CUDA|VERBOSE")
"""Pattern of a configuration key: TRAINER.CDC.M is a key, CDC is not."""


EXAMPLE = """example:
  causalclip train --trainer CDC --root data --output-dir output/first --seed 1 \\
      --dataset-config-file configs/datasets/handwritten_digits.yaml \\
      --config-file configs/trainers/CDC/tiny_m4.yaml \\
      DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of `causalclip train`: CoOp's flags and ours, then KEY VALUE pairs."""
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
        help="print the traceback of an input error (it is always in log.txt)",
    )
    add("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, for example OPTIM.LR 0.002")
    return p


def called() -> str:
    """Return the name of the command for error messages: `causalclip train` or `train.py`."""
    return sys.argv[0] if sys.argv[0].startswith("causalclip ") else "train.py"


def add_imports(p: argparse.ArgumentParser) -> None:
    """Add --import, which imports modules with the user's trainers and data sets."""
    p.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module to import first, for your own trainers and data sets, in the current folder "
        "too; may be repeated",
    )


# Shared by commands that plan runs


def methods_flags() -> argparse.ArgumentParser:
    """Return the flags of commands that take several methods, as a parent parser."""
    p = argparse.ArgumentParser(add_help=False)
    p.add_argument("--methods", nargs="+", metavar="NAME", default=[], help="trainers")
    p.add_argument("--source", default="imagenet", help="data set to train on for xd and dg")
    add_imports(p)
    return p


def request_flags() -> argparse.ArgumentParser:
    """Return the flags that select the runs, as a parent parser."""
    p = argparse.ArgumentParser(add_help=False)
    add = p.add_argument
    add(
        "--backbone",
        default="",
        metavar="CLIP",
        help="in place of the recipe's: a file of configs/backbones/, ViT-B/32, "
        "open_clip:MODEL/TAG, weights or a YAML",
    )
    add(
        *("--recipe", "--cfg"),
        default="",
        metavar="RECIPE",
        help="tiny, published, tuned, a configuration of the method, or a YAML of your own "
        "(default: by the backbone)",
    )
    add(
        "--datasets",
        nargs="+",
        metavar="DATA",
        default=[],
        help="names, YAMLs, folders CLASS/IMAGE or DOMAIN/CLASS/IMAGE, tables (.csv, .parquet), or "
        "hf:OWNER/NAME of the Hugging Face Hub; default: the published table's",
    )
    add("--seeds", nargs="+", metavar="N", default=[], help="default: 1 2 3")
    add("--shots", nargs="+", metavar="N", default=[], help="images a class (default: published)")
    add("--data", type=Path, help="folder of the data sets (default: $DATA; for bundled sets data)")
    return p


def output_flags() -> argparse.ArgumentParser:
    """Return the flags of commands that write results, as a parent parser."""
    p = argparse.ArgumentParser(add_help=False)
    add = p.add_argument
    add("--output", type=Path, default=Path("output"), help="where results go (default: output)")
    add("--dry-run", action="store_true", help="print the plan and run nothing")
    add("--commands", action="store_true", help="print the plan as `causalclip train` commands")
    return p


def executor_flags() -> argparse.ArgumentParser:
    """Return the flags for where runs are performed, and how many at a time, as a parent parser."""
    p = argparse.ArgumentParser(add_help=False)
    add = p.add_argument
    add("--engine", choices=["local", "ray"], default="local", help="this machine, or a cluster")
    add(
        "--address",
        default="",
        metavar="HOST:PORT",
        help="address of a Ray cluster (docs/scale.md)",
    )
    add("--jobs", type=int, metavar="N", help="runs at a time (default: 1; ray: as many as fit)")
    add("--threads", type=int, default=1, metavar="N", help="threads of a process (default: 1)")
    add(
        "--gpus-per-run",
        type=float,
        default=0,
        metavar="X",
        help="GPUs of a run, or a fraction of one",
    )
    return p


def add_settings(p: argparse.ArgumentParser) -> None:
    """Add KEY VALUE pairs as the last positional argument, for `parse`."""
    text = "for example OPTIM.LR 0.002; {dataset}, {seed}, {shots} and {target} are the run's"
    p.add_argument("settings", nargs="*", metavar="KEY VALUE", help=text)


def parse(arguments: Sequence[str], p: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse a command line; the KEY VALUE pairs of `add_settings` may be anywhere in it.

    Raises:
        UserError: a key without its value, or a word outside of options and pairs.
    """
    words, pairs = _divided(arguments)
    args = p.parse_args(words)
    if args.settings:
        raise UserError(f"KEY VALUE pairs begin with a key, got {' '.join(args.settings)}")
    args.settings = pairs
    return args


def _divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return a command line without its KEY VALUE pairs, and the pairs."""
    words, pairs, rest = [], [], iter(arguments)
    for word in rest:
        key, _, value = word.partition("=")
        if words[-1:] == ["--grid"] or not KEY.fullmatch(key):
            words.append(word)
        elif key != word:
            raise UserError(f"settings come as KEY VALUE: write {key} {value}, not {word}")
        else:
            value = next(rest, None)
            if value is None or value.startswith("--"):
                raise UserError(f"options must come as KEY VALUE pairs, got {word} alone")
            pairs += [word, value]
    return words, pairs
