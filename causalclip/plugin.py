"""The plug-in: registers CDC and CLIP_ICM into whatever Dassl is installed, and their settings.

    import causalclip.plugin            # above the first import of dassl
    causalclip.plugin.extend_cfg(cfg)

Nothing of a host checkout is replaced: only these two names are registered. No other module of
causalclip mends Dassl or registers anything when it is imported.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from yacs.config import CfgNode

from causalclip.clip.backbone import CLIP_MEAN, CLIP_STD
from causalclip.dassl_compat import mend

mend()

# isort: split
from dassl.config import get_cfg_default  # after mend(), as all that imports dassl
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, TrainerBase

import causalclip.datasets
import causalclip.trainers
from causalclip.engine import loading
from causalclip.trainers import cdc, clip_icm


def extend_cfg(cfg: CfgNode) -> CfgNode:
    """Add the settings of every registered trainer and data set of causalclip that `cfg` lacks.

    Trainers say `config_node` and `defaults`, data sets `config_defaults`.
    """
    for trainer in registered(TRAINER_REGISTRY):
        node = getattr(trainer, "config_node", None)
        if node and node not in cfg.TRAINER:
            cfg.TRAINER[node] = CfgNode(dict(trainer.defaults))
    _add(cfg.DATALOADER, loading.DEFAULTS)
    _add(cfg, {"FEATURE_CACHE": True})  # keep image features on disk, and read them there
    _add(cfg.TRAIN, {"CHECKPOINT_MINUTES": 10.0})  # beside CHECKPOINT_FREQ; 0.0: never
    _add(cfg.MODEL.BACKBONE, {"TRUST_TORCHSCRIPT": False})  # whether weights may be a program
    # quick_gelu | gelu, of weights that neither we nor OpenAI released; empty: the file is known
    _add(cfg.MODEL.BACKBONE, {"ACTIVATION": ""})
    _add(cfg.INPUT, {"RESIZE_MODE": "shortest"})  # of test images; squash loses the aspect
    _add(cfg.TEST, {"CALIBRATION": False})  # softmax methods: read after temperature and DAC too
    _add(cfg.DATASET, {"SUBSAMPLE_CLASSES": "all", "TEMPLATE": ""})
    for dataset in registered(DATASET_REGISTRY):
        _add(cfg.DATASET, getattr(dataset, "config_defaults", {}))
    return cfg


def _add(node: CfgNode, settings: Mapping[str, Any]) -> None:
    """Settings that a node lacks."""
    for key, value in settings.items():
        if key not in node:
            node[key] = value


def default_cfg() -> CfgNode:
    """Dassl's defaults and ours, with INPUT as CLIP was trained: its mean, deviation and bicubic.

    For our own train.py; in a host checkout Dassl's defaults stay, and configurations say all.
    """
    cfg = extend_cfg(get_cfg_default())
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = list(CLIP_MEAN), list(CLIP_STD)
    cfg.INPUT.INTERPOLATION = "bicubic"
    return cfg


def registered(registry: Any) -> list[type]:
    """The classes in one of Dassl's registries."""
    return [registry.get(name) for name in registry.registered_names()]


def register_all() -> None:
    """Register every trainer and data set of causalclip.

    For our own train.py; a host checkout that has its own CoOp or Caltech101 needs only the import
    of this module.

    Raises:
        KeyError: a name that another class has taken.
    """
    for package in (causalclip.trainers, causalclip.datasets):
        register_package(package)


def register_package(package: ModuleType) -> None:
    """Register what the modules of a package offer, as `register` does.

    Raises:
        KeyError: a name that another class has taken.
    """
    for module in modules_of(package):
        register(module)


def modules_of(package: ModuleType) -> list[ModuleType]:
    """Import each module that lies directly in a package; returns them."""
    names = [f"{package.__name__}.{info.name}" for info in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(name) for name in names]


def register(module: ModuleType) -> None:
    """Register the methods and data sets that a module offers; those registered already stay.

    Methods are its own trainers that name their `config_node`, data sets those it lists in
    `DATASETS`. Dassl's decorators do as well.

    Raises:
        KeyError: a name that another class has taken.
    """
    for method in methods_of(module):
        _register(TRAINER_REGISTRY, method)
    for dataset in getattr(module, "DATASETS", ()):
        _register(DATASET_REGISTRY, dataset)


def methods_of(module: ModuleType) -> list[type[TrainerBase]]:
    """The trainers that a module defines, not those it imports, with a `config_node` each."""
    return [
        item
        for item in vars(module).values()
        if isinstance(item, type)
        and issubclass(item, TrainerBase)
        and item.__module__ == module.__name__
        and "config_node" in vars(item)
    ]


def _register(registry: Any, item: type) -> None:
    name = item.__name__
    if name not in registry.registered_names() or registry.get(name) is not item:
        registry.register(item)


register(cdc)
register(clip_icm)
