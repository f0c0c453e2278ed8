"""Train and evaluate: the command line of CoOp's train.py, for every trainer and data set here."""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import torch
from safetensors import SafetensorError
from yacs.config import CfgNode

from causalclip import plugin
from causalclip.engine.checkpoint_file import POINTER, last_written
from causalclip.engine.distributed import is_writer, processes
from causalclip.engine.stopping import Stopped, stoppable
from causalclip.files.atomic import FULL
from causalclip.runs.configuration_file import merge_file
from causalclip.runs.flags import called, parser
from causalclip.runs.identity import (
    Identity,
    Recorded,
    described,
    differences,
    flat,
    model_digest,
    read_result,
    read_run,
    write_run,
)
from causalclip.runs.lock import holding
from causalclip.runs.run_log import end_log
from causalclip.runs.tested_model import check_tested

# isort: split
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer
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
POINTERS = f"*/{POINTER}"

# While a trainer is built, these stand for wrong settings (yacs) and missing packages as well;
# once it runs, for mistakes in the program.
BUILD_ERRORS = (*INPUT_ERRORS, KeyError, AssertionError, ImportError)


def setup_cfg(args: argparse.Namespace) -> CfgNode:
    """What the command line asks for, frozen.

    Raises:
        UserError: as `asked_cfg`, an unknown trainer or data set, or no folder of data.
    """
    cfg = asked_cfg(args)
    cfg.freeze()
    check_names(cfg)
    return cfg


def asked_cfg(args: argparse.Namespace) -> CfgNode:
    """Defaults, then data set file, method file, flags and KEY VALUE pairs.

    Raises:
        UserError: a file that is not there, or options that are no pairs.
    """
    cfg = plugin.default_cfg()
    cfg.PROTOCOL = cfg.PROTOCOL_PART = ""
    for path in (args.dataset_config_file, *args.config_file):
        if path:
            if not Path(path).is_file():
                raise UserError(f"no configuration file {path}")
            merge_file(cfg, path)
    cfg.CONFIG_NAME = "+".join(Path(path).stem for path in args.config_file)  # for results.json
    apply_flags(cfg, args)
    if len(args.opts) % 2:
        raise UserError(f"options must come as KEY VALUE pairs, got {' '.join(args.opts)}")
    cfg.merge_from_list(args.opts)
    return cfg


def apply_flags(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Flags that were given override what the files say."""
    flags = [
        (cfg.DATASET, "ROOT", args.root),
        (cfg, "OUTPUT_DIR", args.output_dir),
        (cfg, "RESUME", args.resume),
        (cfg, "PROTOCOL", args.protocol),
        (cfg, "PROTOCOL_PART", args.part),
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
    if args.trust_torchscript:
        cfg.MODEL.BACKBONE.TRUST_TORCHSCRIPT = True


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


def configure(args: argparse.Namespace) -> CfgNode:
    """The configuration, checked: everything that can be wrong before a file is written."""
    for module in args.imports:
        plugin.register(importlib.import_module(module))
    return setup_cfg(args)


def prepare(args: argparse.Namespace, cfg: CfgNode) -> TrainerX:
    """Seed, log and trainer of one run."""
    if cfg.SEED >= 0:
        print(f"Setting fixed seed: {cfg.SEED}")
        set_random_seed(cfg.SEED)
    if is_writer():
        setup_logger(cfg.OUTPUT_DIR)
    if torch.cuda.is_available() and cfg.USE_CUDA:
        torch.backends.cudnn.benchmark = True
    print("***************\n** Arguments **\n***************")
    print("\n".join(f"{key}: {value}" for key, value in sorted(vars(args).items())))
    print(f"************\n** Config **\n************\n{cfg}")
    print(f"Collecting env info ...\n** System info **\n{environment()}\n")
    return build_trainer(cfg)


@functools.cache
def environment() -> str:
    """What Dassl prints of the system; asked once a process, it takes a second."""
    return collect_env_info()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one training or evaluation; 2 for a mistake in the input, which is said in one line."""
    args = parser().parse_args(argv)
    plugin.register_all()
    name, stage = called("train.py"), Stage()
    try:
        cfg = configure(args)
        gpu = torch.cuda.is_available() and cfg.USE_CUDA
        with stoppable(), processes(seed=cfg.SEED, gpu=gpu), held(Path(cfg.OUTPUT_DIR)):
            run_once(args, cfg, stage)
    except Stopped as stop:
        if is_writer():
            print(f"{name}: {stop}: {what_is_saved(Path(cfg.OUTPUT_DIR))}", file=sys.stderr)
        return 128 + stop.number
    except stage.errors as error:
        if args.debug:
            raise
        end_log(error)
        saved = _if_full(error, Path(args.output_dir or "."))
        print(f"{name}: error: {sentence(error)}{saved}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder; of several processes of one run, the one that writes holds it.

    Raises:
        Busy: another run has it.
    """
    if not is_writer():
        yield
        return
    with holding(folder) as died:
        if died:
            print(f"{folder}: its last process died at work; going on")
        yield


@dataclass
class Stage:
    """Which errors are the user's: fewer once the trainer is built."""

    errors: tuple[type[Exception], ...] = BUILD_ERRORS


def run_once(args: argparse.Namespace, cfg: CfgNode, stage: Stage) -> None:
    """Train or evaluate in a folder that this process holds."""
    start, folder = time.perf_counter(), Path(cfg.OUTPUT_DIR)
    mine = identify(args, cfg)
    check_folder(folder, mine)
    tests = args.eval_only and args.model_dir
    note = check_tested(Path(args.model_dir), mine) if tests else ""
    trainer = prepare(args, cfg)
    if note:  # now there is a log
        print(note)
    mine = replace(mine, identity=replace(mine.identity, weights=getattr(trainer, "digest", None)))
    check_weights(folder, mine)
    facts = {"command": sys.argv}
    if is_writer():
        write_run(folder, mine, facts)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
    stage.errors = INPUT_ERRORS
    if args.eval_only:
        trainer.test()
    elif not args.no_train:
        trainer.train()
    if is_writer():
        write_run(folder, mine, {**facts, "seconds": round(time.perf_counter() - start, 3)})


# Whose folder it is


def identify(args: argparse.Namespace, cfg: CfgNode) -> Recorded:
    """What this run's result follows from; the backbone's weights are not known yet."""
    node = getattr(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), "config_node", "")
    default = flat(plugin.default_cfg(), node=node)
    everything = flat(cfg, node=node)
    given = {key: value for key, value in everything.items() if default.get(key, "") != value}
    folder = Path(args.model_dir) if args.eval_only and args.model_dir else None
    own = folder is not None and folder.resolve() == Path(cfg.OUTPUT_DIR).resolve()
    model = None if own or folder is None else model_digest(folder)
    return Recorded(Identity(given, args.load_epoch, model=model), everything)


def check_folder(folder: Path, mine: Recorded) -> None:
    """Raise where a folder holds a run of other settings: it is never overwritten.

    Raises:
        ValueError: names the settings, with both values.
    """
    there = read_run(folder)
    if there is None:  # lost, or from before runs had an identity; nothing, where it is empty
        there, mine = read_result(folder), replace(mine, identity=Identity({}))
    if there is None:
        return
    known = {k: v for k, v in mine.configuration.items() if k in there.configuration}
    found = differences(there, {**known, **mine.identity.settings})
    if there.identity.epoch != mine.identity.epoch:
        found.append(("--load-epoch", there.identity.epoch, mine.identity.epoch))
    if found:
        raise ValueError(
            f"{folder} holds another run: {described(found)}. Choose another --output-dir, or "
            "delete the old run"
        )


def check_weights(folder: Path, mine: Recorded) -> None:
    """Raise where a folder holds a run on other weights of the backbone.

    Raises:
        ValueError: names both digests.
    """
    there = read_run(folder)
    digests = [run.identity.weights for run in (there, mine) if run and run.identity.weights]
    if len(set(digests)) > 1:
        raise ValueError(
            f"{folder} holds a run on other weights of {mine.configuration['MODEL.BACKBONE.NAME']}:"
            f" digest {digests[0]} there, {digests[1]} here. Choose another --output-dir"
        )


def what_is_saved(folder: Path) -> str:
    """Of a run that was stopped, and how to go on."""
    saved = sorted(
        f"{path.parent.name}/{last_written(path.parent)}" for path in folder.glob(POINTERS)
    )
    what = f"{folder} holds {', '.join(saved)}" if saved else f"nothing is saved in {folder} yet"
    return f"{what}; the same command goes on from there"


def _if_full(error: BaseException, folder: Path) -> str:
    """On a full disk, what is safe all the same."""
    return f"; {what_is_saved(folder)}" if getattr(error, "errno", None) in FULL else ""


def sentence(error: BaseException) -> str:
    """What the error says; of one in a loading process, what was said there."""
    said = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if said.startswith("Caught ") and "DataLoader worker" in said:
        said = said.strip().splitlines()[-1].partition(": ")[2]  # the end of its traceback
    return said or type(error).__name__
