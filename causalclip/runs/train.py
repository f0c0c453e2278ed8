"""Train and evaluate: the command line of CoOp's train.py, for every trainer and data set."""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from yacs.config import CfgNode

from causalclip import plugin
from causalclip.engine.data import data_digests
from causalclip.engine.distributed import is_main, processes, world_size
from causalclip.engine.evaluation import measure_zero_shot
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.engine.stopping import Stopped, stoppable
from causalclip.errors import (
    CONFIGURATION_ERRORS,
    INPUT_ERRORS,
    UserError,
    is_shared_memory_full,
    sentence,
)
from causalclip.files.atomic import FULL
from causalclip.files.lock import holding
from causalclip.files.text import end_log, print_any_text
from causalclip.records.identity import Identity, model_digest, write_run
from causalclip.runs.configuration import configure, settings_of_cfg
from causalclip.runs.flags import called, parser
from causalclip.runs.run_folder import (
    check_folder,
    check_inputs,
    check_tested,
    saved_checkpoints,
)

# isort: split
from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer
from dassl.utils import collect_env_info, set_random_seed, setup_logger

environment = functools.cache(collect_env_info)  # takes a second


def main(argv: Sequence[str] | None = None) -> int:
    """Run one training or evaluation; return 2 for invalid input, with a message of one line."""
    args = parser().parse_args(argv)
    print_any_text()
    name, folder = called(), Path(args.output_dir or ".")
    try:
        with stoppable():
            train_from_args(args)
    except Stopped as stop:
        if is_main():
            print(f"{name}: {stop}: {saved_checkpoints(folder)}", file=sys.stderr)
        return 128 + stop.number
    except (*INPUT_ERRORS, RuntimeError) as error:
        of_input = isinstance(error, INPUT_ERRORS) or is_shared_memory_full(error)
        if args.debug or not of_input:
            raise
        end_log(error)
        print(f"{name}: error: {explained(error, folder)}", file=sys.stderr)
        return 2
    return 0


def explained(error: BaseException, folder: Path) -> str:
    """Return one sentence for an error; for a full disk, also which checkpoints are saved."""
    if is_shared_memory_full(error):
        hint = "/dev/shm is full, which loading processes need: give DATALOADER.NUM_WORKERS 0"
        return f"{hint}, or make it larger"
    saved = getattr(error, "errno", None) in FULL
    return sentence(error) + (f"; {saved_checkpoints(folder)}" if saved else "")


def train_from_args(args: argparse.Namespace) -> TrainerX:
    """Train or evaluate as the parsed flags say; see `train`."""
    plugin.register_all()
    return train(
        configure(args),
        eval_only=args.eval_only,
        model_dir=args.model_dir,
        load_epoch=args.load_epoch,
        train_model=not args.no_train,
        arguments=vars(args),
    )


def train(
    cfg: CfgNode,
    *,
    eval_only: bool = False,
    model_dir: str = "",
    load_epoch: int | None = None,
    train_model: bool = True,
    arguments: Mapping[str, Any] | None = None,
    on_epoch: Callable[[PromptTrainer], None] | None = None,
) -> TrainerX:
    """Train and test in OUTPUT_DIR, or evaluate there; return the trainer.

    Args:
        cfg: the frozen configuration.
        eval_only: load a model and evaluate it.
        model_dir: the output folder of the model's training.
        load_epoch: the model's epoch; None: the best one in validation, else the last.
        train_model: False: build everything, do not train.
        arguments: the parsed command line, for the log.
        on_epoch: called after each epoch of a method that learns by gradient descent.

    Raises:
        UserError: a wrong setting or a missing package.
        ValueError, OSError, FloatingPointError: wrong data, files or numbers.
        Stopped: a signal; an epoch that had begun is saved.
    """
    start, folder = time.perf_counter(), Path(cfg.OUTPUT_DIR)
    gpu = torch.cuda.is_available() and cfg.USE_CUDA
    tested = Path(model_dir) if eval_only and model_dir else None
    with processes(seed=cfg.SEED, gpu=gpu), held(folder):
        model = model_digest(tested) if tested and tested.resolve() != folder.resolve() else None
        identity = Identity(settings_of_cfg(cfg), load_epoch, model=model)
        check_folder(folder, identity)
        note = check_tested(tested, identity) if tested else ""
        trainer = build(cfg, arguments or {})
        if note:
            print(note)
        backbone = getattr(trainer, "backbone", None)  # a trainer that is not ours has none
        identity = replace(
            identity,
            weights=getattr(backbone, "digest", None),
            data=data_digests(trainer.dm.dataset, cfg.DATASET.ROOT),
        )
        check_inputs(folder, identity)
        facts = {"command": sys.argv}
        if is_main():
            if backbone is not None and (eval_only or train_model):
                zero_shot = measure_zero_shot(cast(Any, trainer))
                if zero_shot is not None:
                    facts |= zero_shot.as_fact()
                    if zero_shot.warning:
                        print(f"Note: {zero_shot.warning}")
            write_run(folder, identity, facts)
        if eval_only:
            trainer.load_model(model_dir, epoch=load_epoch)
            trainer.test()
        elif train_model:
            if isinstance(trainer, PromptTrainer):
                trainer.on_epoch = on_epoch
            trainer.train()
        if is_main():
            seconds = round(time.perf_counter() - start, 3)
            write_run(folder, identity, {**facts, "seconds": seconds})
    return trainer


def build(cfg: CfgNode, arguments: Mapping[str, Any]) -> TrainerX:
    """Start the log and build the trainer; see `trainer_for`."""
    if cfg.SEED >= 0:
        print(f"Setting fixed seed: {cfg.SEED}")
    if is_main():
        setup_logger(cfg.OUTPUT_DIR)
    if torch.cuda.is_available() and cfg.USE_CUDA:
        torch.backends.cudnn.benchmark = True
    print("***************\n** Arguments **\n***************")
    print("\n".join(f"{key}: {value}" for key, value in sorted(arguments.items())))
    print(f"************\n** Config **\n************\n{cfg}")
    print(f"Collecting env info ...\n** System info **\n{environment()}\n")
    return trainer_for(cfg)


def trainer_for(cfg: CfgNode) -> TrainerX:
    """Build the trainer of a configuration under its seed.

    Raises:
        UserError: a setting that the trainer cannot be built with, or a missing package.
        ValueError: data or files that cannot be used.
    """
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    kind = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if world_size() > 1 and not getattr(kind, "several_processes", False):
        raise UserError(f"{cfg.TRAINER.NAME} runs in one process: call it without torchrun")
    try:
        return build_trainer(cfg)
    except CONFIGURATION_ERRORS as error:
        raise UserError(sentence(error)) from error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock a folder, in the main process of a run only.

    Raises:
        Busy: another run has locked it.
    """
    if not is_main():
        yield
        return
    with holding(folder) as died:
        if died:
            print(f"{folder}: its last process died; continuing")
        yield
