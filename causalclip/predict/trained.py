"""A finished run's folder, and its method built again from it, with or without its data set."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from yacs.config import CfgNode

from causalclip import plugin
from causalclip.clip.templates import spoken
from causalclip.engine.backbone_input import image_transform
from causalclip.engine.base import CLIPTrainer
from causalclip.engine.common_settings import check_sayable
from causalclip.engine.draws import generators_kept
from causalclip.report.results import RESULTS_FILE, Result
from causalclip.runs.identity import read_run

# isort: split
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import set_random_seed

# What training alone reads, and what may be gone since: the start that a checkpoint replaces, and
# twins, which a data set has and a picture has not.
UNREAD = {"MODEL.INIT_WEIGHTS": "", "TRAINER.CLIP_ICM.TWINS": False, "FEATURE_CACHE": False}


def read_result(folder: str | Path) -> Result:
    """What the run in `folder` says of itself.

    Raises:
        FileNotFoundError: no such folder, or no results.json in it.
        ValueError: a results.json that cannot be read, or one that does not name its classes.
    """
    path = Path(folder) / RESULTS_FILE
    if not path.is_file():
        there = "there is no such folder" if not Path(folder).is_dir() else f"no {RESULTS_FILE}"
        raise FileNotFoundError(f"{folder} must be the output folder of a finished run: {there}")
    result = Result.read(path)
    if not result.classnames:
        raise ValueError(f"{path}: says no class names")
    return result


def trained(
    folder: str | Path,
    *,
    classes: Sequence[str] | None = None,
    backbone: str = "",
    data: str = "",
) -> CLIPTrainer:
    """The method of the run in `folder` with what it has learned, ready to predict.

    The random generators are left as they were, and nothing is printed.

    Args:
        folder: a run's output folder, with its checkpoints where the method learns.
        classes: K class names in place of the run's, where the method can.
        backbone: a file of the run's CLIP that lies elsewhere now.
        data: the folder of the data sets; only then is the run's data set read.

    Raises:
        FileNotFoundError: no results.json, or no checkpoint.
        ValueError: a run of something else, another backbone, or class names the method cannot
            take; says which and why.
    """
    result = read_result(folder)
    with contextlib.redirect_stdout(io.StringIO()), generators_kept():
        trainer = _build(result, classes, backbone, data)
        _check_weights(Path(folder), trainer)
        if trainer.get_model_names() and result.trained_on is not None:
            raise ValueError(
                f"{folder} holds the evaluation of a model that lies in {_model_dir(result)}: give "
                "that folder, and --classes for other class names"
            )
        trainer.load_model(str(folder))
    trainer.set_model_mode("eval")
    return trainer


def check_classnames(classnames: Sequence[str]) -> list[str]:
    """Class names as a list, each once.

    Raises:
        ValueError: fewer than two, an empty one, or one that reads as another (`_` is a space).
    """
    names = list(classnames)
    read = [" ".join(spoken(name).split()).lower() for name in names]
    twice = {name for name, text in zip(names, read, strict=True) if read.count(text) > 1}
    if twice:
        raise ValueError(f"class names must differ, given twice: {', '.join(sorted(twice))}")
    if len(names) < 2 or not all(read):
        raise ValueError(f"there must be two class names or more, none of them empty, got {names}")
    check_sayable(names, "class names")
    return names


# Building


def _build(result: Result, classes: Sequence[str] | None, backbone: str, data: str) -> CLIPTrainer:
    plugin.register_all()
    method = _method(result.trainer)
    cfg = configuration(result.config, method.config_node)
    if backbone:
        cfg.MODEL.BACKBONE.NAME = backbone
    if data:
        return _with_data(method, cfg, result, data)
    for key, value in UNREAD.items():
        cfg.merge_from_list([key, value])
    cfg.freeze()
    names = result.classnames if classes is None else check_classnames(classes)
    images = (result.training or {}).get("images", 0)
    return type(method.__name__, (_WithoutData, method), {"known": (names, images)})(cfg)


def _with_data(method: type[CLIPTrainer], cfg: CfgNode, result: Result, data: str) -> CLIPTrainer:
    cfg.DATASET.ROOT = data
    cfg.freeze()
    if cfg.SEED >= 0:  # it decides which images are in a few-shot split
        set_random_seed(cfg.SEED)
    trainer = method(cfg)
    if trainer.classnames != result.classnames:
        raise ValueError(
            f"{data} must hold the {result.dataset} of the run, with its {len(result.classnames)} "
            f"classes, got {len(trainer.classnames)} others"
        )
    return trainer


def _method(name: str) -> type[CLIPTrainer]:
    known = TRAINER_REGISTRY.registered_names()
    if name not in known:
        raise ValueError(f"a run of {name}, known are {', '.join(known)}: --import its module")
    method = TRAINER_REGISTRY.get(name)
    if not issubclass(method, CLIPTrainer):
        raise ValueError(f"a run of {name}, which is no trainer of causalclip")
    return method


def configuration(recorded: Mapping[str, Any], node: str) -> CfgNode:
    """The configuration that results.json recorded; keys that this version lacks are left out.

    Args:
        recorded: the configuration.
        node: the method's own node below TRAINER.

    Raises:
        ValueError: a setting of the method that was not recorded: today's default need not be what
            the run did.
    """
    cfg = plugin.default_cfg()
    said = recorded.get("TRAINER", {}).get(node, {})
    if unsaid := [f"TRAINER.{node}.{key}" for key in cfg.TRAINER[node] if key not in said]:
        raise ValueError(
            f"a run of an earlier version, which does not say {', '.join(unsaid)}: train it again"
        )
    cfg.PROTOCOL = cfg.PROTOCOL_PART = cfg.CONFIG_NAME = ""
    cfg.merge_from_other_cfg(CfgNode(_known(recorded, cfg)))
    return cfg


def _known(given: Mapping[str, Any], node: CfgNode) -> dict[str, Any]:
    return {
        key: _known(value, node[key]) if isinstance(value, Mapping) else value
        for key, value in given.items()
        if key in node and isinstance(value, Mapping) == isinstance(node[key], CfgNode)
    }


class _WithoutData(CLIPTrainer):
    """A trainer that has its class names from a run's record, and no data set."""

    known: tuple[list[str], int]
    """The class names, and how many images the run was trained on."""

    def build_data_loader(self) -> None:
        """What a method asks of its data set before it predicts; nothing can be iterated over."""
        names, images = self.known
        transform = image_transform(self.cfg) or build_transform(self.cfg, is_train=False)
        if transform is None:
            raise ValueError("INPUT.NO_TRANSFORM must be False to predict from pictures, got True")
        # CLIP_ICM counts its images before it predicts; what they were does not matter any more.
        image = SimpleNamespace(impath=".", label=0, domain=0)
        dataset = SimpleNamespace(classnames=names, train_x=[image] * images, val=(), test=())
        self.dm: Any = SimpleNamespace(dataset=dataset)
        self.test_loader: Any = SimpleNamespace(
            dataset=SimpleNamespace(data_source=(), transform=transform)
        )
        self.train_loader_x = self.train_loader_u = self.val_loader = None
        self.num_classes, self.num_source_domains = len(names), 0
        self.lab2cname = dict(enumerate(names))


# Whose model it is


def _check_weights(folder: Path, trainer: CLIPTrainer) -> None:
    recorded = read_run(folder)
    digest = recorded.identity.weights if recorded else None
    if digest and digest != trainer.digest:
        raise ValueError(
            f"{folder}: learned on another backbone, digest {digest[:12]}, than "
            f"{trainer.cfg.MODEL.BACKBONE.NAME}, digest {str(trainer.digest)[:12]}: name its "
            "file with --backbone"
        )


def _model_dir(result: Result) -> str:
    words = result.command
    named = "--model-dir" in words[:-1]
    return words[words.index("--model-dir") + 1] if named else "another folder"
