"""Train and evaluate: the command line of CoOp's train.py, for every trainer and data set here."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import torch
from safetensors import SafetensorError
from yacs.config import CfgNode

from causalclip import plugin

# isort: split
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import collect_env_info, set_random_seed, setup_logger


class UserError(Exception):
    """Something on the command line or in a file it names is wrong; the message says what."""


# What we, Dassl and Pillow raise for wrong data, files and numbers, before training and during it.
INPUT_ERRORS = (
    UserError,
    ValueError,
    OSError,
    FloatingPointError,  # a loss or an output that is NaN
    SafetensorError,
)
# While a trainer is built, these stand for wrong settings (yacs) and missing packages as well;
# once it runs, for mistakes in the program.
BUILD_ERRORS = (*INPUT_ERRORS, KeyError, AssertionError, ImportError)


def parser() -> argparse.ArgumentParser:
    """The family's flags; what follows them is KEY VALUE pairs for the configuration."""
    p = argparse.ArgumentParser(description=__doc__)
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
    add("--backbone", default="", help="CLIP to use: tiny, ViT-B/16, ..., or a file")
    add("--head", default="", help="unused by CLIP methods; kept for Dassl's command line")
    add("--eval-only", action="store_true", help="load --model-dir and evaluate")
    add("--model-dir", default="", help="output folder of the training run to evaluate")
    add("--load-epoch", type=int, help="epoch to load (default: best, else last)")
    add("--no-train", action="store_true", help="build everything, do not train")
    add(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module to import first, for your own trainers and data sets; may be repeated",
    )
    add("--no-cache", action="store_true", help="do not keep or read image features on disk")
    add(
        "--debug",
        action="store_true",
        help="show the traceback of an input error, which else goes to log.txt alone",
    )
    add("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, for example OPTIM.LR 0.002")
    return p


def setup_cfg(args: argparse.Namespace) -> CfgNode:
    """Defaults, then data set file, method file, flags and KEY VALUE pairs; frozen."""
    cfg = plugin.extend_cfg(get_cfg_default())
    for path in (args.dataset_config_file, *args.config_file):
        if path:
            if not Path(path).is_file():
                raise UserError(f"no configuration file {path}")
            cfg.merge_from_file(path)
    cfg.CONFIG_NAME = "+".join(Path(path).stem for path in args.config_file)  # for results.json
    apply_flags(cfg, args)
    if len(args.opts) % 2:
        raise UserError(f"options must come as KEY VALUE pairs, got {' '.join(args.opts)}")
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    check_names(cfg)
    return cfg


def apply_flags(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Flags that were given override what the files say."""
    flags = [
        (cfg.DATASET, "ROOT", args.root),
        (cfg, "OUTPUT_DIR", args.output_dir),
        (cfg, "RESUME", args.resume),
        (cfg.DATASET, "SOURCE_DOMAINS", args.source_domains),
        (cfg.DATASET, "TARGET_DOMAINS", args.target_domains),
        (cfg.INPUT, "TRANSFORMS", args.transforms),
        (cfg.TRAINER, "NAME", args.trainer),
        (cfg.MODEL.BACKBONE, "NAME", args.backbone),
        (cfg.MODEL.HEAD, "NAME", args.head),
    ]
    for node, key, value in flags:
        if value:
            node[key] = value
    if args.seed is not None:
        cfg.SEED = args.seed
    if args.no_cache:
        cfg.FEATURE_CACHE = False


def check_names(cfg: CfgNode) -> None:
    """Raise UserError for an unknown trainer or data set, or a data root that is not there."""
    for what, name, registry in (
        ("trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY),
        ("data set", cfg.DATASET.NAME, DATASET_REGISTRY),
    ):
        known = registry.registered_names()
        if name not in known:
            near = get_close_matches(name, known, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(known)}"
            raise UserError(f"unknown {what} {name!r}; {hint}")
    if not Path(cfg.DATASET.ROOT).is_dir():
        raise UserError(
            f"data root {cfg.DATASET.ROOT!r} is not a folder: create it, or give --root"
        )


def prepare(args: argparse.Namespace):
    """Everything that can be wrong before any work starts; returns the trainer."""
    for module in args.imports:
        plugin.register(importlib.import_module(module))
    cfg = setup_cfg(args)
    if cfg.SEED >= 0:
        print(f"Setting fixed seed: {cfg.SEED}")
        set_random_seed(cfg.SEED)
    setup_logger(cfg.OUTPUT_DIR)
    if torch.cuda.is_available() and cfg.USE_CUDA:
        torch.backends.cudnn.benchmark = True
    print("***************\n** Arguments **\n***************")
    print("\n".join(f"{key}: {value}" for key, value in sorted(vars(args).items())))
    print(f"************\n** Config **\n************\n{cfg}")
    print(f"Collecting env info ...\n** System info **\n{collect_env_info()}\n")
    return build_trainer(cfg)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one training or evaluation; 2 for a mistake in the input, which is said in one line."""
    args = parser().parse_args(argv)
    plugin.register_all()
    input_errors = BUILD_ERRORS
    try:
        trainer = prepare(args)
        if args.eval_only:
            trainer.load_model(args.model_dir, epoch=args.load_epoch)
        input_errors = INPUT_ERRORS
        if args.eval_only:
            trainer.test()
        elif not args.no_train:
            trainer.train()
    except input_errors as error:
        if args.debug:
            raise
        if log := getattr(sys.stdout, "file", None):  # Dassl's logger is there
            traceback.print_exception(error, file=log)
            log.flush()  # what follows may be the end of the process
        print(f"train.py: error: {sentence(error)}", file=sys.stderr)
        return 2
    return 0


def sentence(error: BaseException) -> str:
    """What the error says; of one in a loading process, what was said there."""
    said = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if said.startswith("Caught ") and "DataLoader worker" in said:
        said = said.strip().splitlines()[-1].partition(": ")[2]  # the end of its traceback
    return said or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
