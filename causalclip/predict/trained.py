"""Rebuild the trained method of a finished run, with or without its data set."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yacs.config import CfgNode

from causalclip import plugin
from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.texts import readable
from causalclip.engine.data import check_printable
from causalclip.engine.draws import generators_kept
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.records.identity import counted_value, read_run
from causalclip.records.results import RESULTS_FILE, Result
from causalclip.settings.check import flatten
from causalclip.settings.config_file import as_text
from causalclip.settings.table import SETTINGS

# isort: split
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import set_random_seed

if TYPE_CHECKING:
    from causalclip.engine import CLIPTrainer

MOST_CLASSES = 100_000
"""Limit of class names, each of which is a text to encode; ImageNet-21k has 21,841."""


def read_result(folder: str | Path) -> Result:
    """Return the results.json of the run in `folder`.

    Raises:
        FileNotFoundError: no such folder, or no results.json in it.
        ValueError: a damaged results.json, or one without class names that can be printed.
    """
    path = Path(folder) / RESULTS_FILE
    if not path.is_file():
        reason = f"no {RESULTS_FILE}" if Path(folder).is_dir() else "there is no such folder"
        raise FileNotFoundError(f"{folder} must be the output folder of a finished run: {reason}")
    result = Result.read(path)
    if not result.classnames:
        raise ValueError(f"{path}: has no class names")
    check_printable(result.classnames, f"{path}: class names")
    return result


def load_trainer(
    folder: str | Path,
    classes: Sequence[str] | None,
    backbone: str,
    data: str,
    trust_torchscript: bool,
) -> CLIPTrainer:
    """Return the trainer of the run in `folder` with its checkpoint loaded, in evaluation mode.

    The random generators keep their state, and nothing is printed. Arguments and errors are those
    of `Predictor.load`.
    """
    if classes is not None and data:
        raise ValueError("a data set has the run's classes: give other classes or data")
    result = read_result(folder)
    with contextlib.redirect_stdout(io.StringIO()), generators_kept():
        method = _method(result.trainer)
        cfg = _configuration(result.config, method.config_node)
        # Only the user of this command may permit this, not a file of the run.
        cfg.MODEL.BACKBONE.TRUST_TORCHSCRIPT = trust_torchscript
        cfg.MODEL.BACKBONE.NAME = backbone or cfg.MODEL.BACKBONE.NAME
        if data:
            trainer = _build_on_data(method, cfg, data, result)
        else:
            cfg.freeze()
            names = result.classnames if classes is None else check_classnames(classes)
            try:
                trainer = method(cfg, classnames=names)
            except FileNotFoundError as error:
                message = f"{error}: if the run's CLIP was moved, name its file with --backbone"
                raise FileNotFoundError(message) from error
        _check_files(Path(folder), trainer)
        _load_model(trainer, folder, result)
    trainer.set_model_mode("eval")
    return trainer


def check_classnames(classnames: Sequence[str]) -> list[str]:
    """Return class names as a list.

    Raises:
        ValueError: fewer than two names or more than `MOST_CLASSES`, an empty one, or two that
            differ only in case, spaces or `_`.
    """
    names = list(classnames)
    texts = [" ".join(readable(name).split()).lower() for name in names]
    if len(names) > MOST_CLASSES:
        raise ValueError(f"there must be at most {MOST_CLASSES:,} class names, got {len(names):,}")
    counts = Counter(texts)
    repeated = {name for name, text in zip(names, texts, strict=True) if counts[text] > 1}
    if repeated:
        raise ValueError(f"class names must differ, given twice: {', '.join(sorted(repeated))}")
    if len(names) < 2 or not all(texts):
        raise ValueError(f"there must be two class names or more, none of them empty, got {names}")
    check_printable(names, "class names")
    return names


def prompts_of(trainer: CLIPTrainer) -> PromptSet:
    """Return the learned prompts; an empty set where the image tower has none."""
    if trainer.image_tower_untouched or not isinstance(trainer, PromptTrainer):
        return PromptSet()
    return trainer.model()


# Building


def _method(name: str) -> type[CLIPTrainer]:
    plugin.register_all()
    methods = [kind for kind in plugin.registered(TRAINER_REGISTRY) if hasattr(kind, "config_node")]
    by_name = {kind.__name__: kind for kind in methods}
    if name not in by_name:
        raise ValueError(f"a run of {name}, known are {', '.join(by_name)}: --import its module")
    return by_name[name]


def _configuration(recorded: Mapping[str, Any], node: str) -> CfgNode:
    """Return a recorded configuration, in which settings for training only have their defaults.

    Every setting of the method, below TRAINER.`node`, must be recorded: the run may have used
    another value than the present default.
    """
    cfg = plugin.default_cfg()
    defaults, settings = dict(flatten(cfg)), recorded.get("TRAINER", {}).get(node, {})
    if missing := [f"TRAINER.{node}.{key}" for key in cfg.TRAINER[node] if key not in settings]:
        raise ValueError(
            f"a run of an earlier version, which does not say {', '.join(missing)}: train it again"
        )
    cfg.set_new_allowed(True)  # CoOp's and other checkouts have their own settings
    cfg.merge_from_other_cfg(CfgNode(as_text("", cfg, recorded)))
    for key, row in SETTINGS.items():
        if row.training_only:
            cfg.merge_from_list([key, defaults[key]])
    return cfg


def _build_on_data(
    method: type[CLIPTrainer], cfg: CfgNode, data: str, result: Result
) -> CLIPTrainer:
    cfg.DATASET.ROOT = data
    own = cfg.DATASET
    for place in (Path(own.PATH), Path(own.TABLE), Path(own.PATH, own.SPLIT)):
        # The files of a run must not select a folder outside of --data.
        if not Path(data, place).resolve().is_relative_to(Path(data).resolve()):
            raise ValueError(f"the run's data, {place}, must be below --data, got {data}")
    cfg.freeze()
    if cfg.SEED >= 0:  # the seed determines the images of a few-shot split
        set_random_seed(cfg.SEED)
    trainer = method(cfg)
    if trainer.classnames != result.classnames:
        raise ValueError(
            f"{data} must hold the {result.dataset} of the run, with its {len(result.classnames)} "
            f"classes, got {len(trainer.classnames)} others"
        )
    return trainer


# The model


def _check_files(folder: Path, trainer: CLIPTrainer) -> None:
    """Raise if the backbone or the projection is not the one that the run has recorded."""
    recorded = read_run(folder)
    if recorded is None:
        return
    digest = recorded.weights
    if digest and digest != trainer.backbone.digest:
        raise ValueError(
            f"{folder}: learned on another backbone, digest {digest[:12]}, than "
            f"{trainer.cfg.MODEL.BACKBONE.NAME}, digest {trainer.backbone.digest[:12]}: name "
            "its file with --backbone"
        )
    key = f"TRAINER.{trainer.config_node}.PROJECTION"
    path = dict(flatten(trainer.cfg)).get(key)
    if path and key in recorded.settings and recorded.settings[key] != counted_value(key, path):
        raise ValueError(f"{folder}: learned with another projection than {path}; it has changed")


def _load_model(trainer: CLIPTrainer, folder: str | Path, result: Result) -> None:
    try:
        trainer.load_model(str(folder))
    except FileNotFoundError as error:
        if result.trained_on is None:
            raise
        words = dict(zip(result.command, result.command[1:], strict=False))
        raise ValueError(
            f"{folder} holds the evaluation of a model that lies in "
            f"{words.get('--model-dir', 'another folder')}: give that folder, and --classes for "
            "other class names"
        ) from error
