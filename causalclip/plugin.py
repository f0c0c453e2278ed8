"""The plug-in: register CDC and CLIP_ICM, with their settings, in the installed Dassl.

    import causalclip.plugin            # above the first import of dassl
    causalclip.plugin.extend_cfg(cfg)

Nothing in your checkout of CoOp or MaPLe is replaced: only these two names are registered. No other
module of causalclip patches Dassl or registers anything when it is imported.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from yacs.config import CfgNode

from causalclip.dassl_compat import patch_dassl
from causalclip.errors import UserError
from causalclip.settings.table import SETTINGS, TOOLKIT

patch_dassl()

# isort: split
from dassl.config import get_cfg_default  # after patch_dassl(), like all imports of torchvision
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, TrainerBase

import causalclip.datasets
import causalclip.trainers
from causalclip.clip.backbone import CLIP_MEAN, CLIP_STD
from causalclip.trainers import cdc, clip_icm


def extend_cfg(cfg: CfgNode) -> CfgNode:
    """Add the settings of causalclip and of every registered trainer and data set that `cfg` lacks.

    A trainer defines its settings in `config_node` and `settings_table`, your own data set in
    `config_defaults`.
    """
    for key, row in SETTINGS.items():
        if row.default is not TOOLKIT:
            _add(cfg, key, row.default)
    for trainer in registered(TRAINER_REGISTRY):
        if node := getattr(trainer, "config_node", None):
            for key, row in trainer.settings_table.items():
                _add(cfg.TRAINER, f"{node}.{key}", row.default)
    for dataset in registered(DATASET_REGISTRY):
        for key, value in getattr(dataset, "config_defaults", {}).items():
            _add(cfg.DATASET, key, value)
    return cfg


def _add(node: CfgNode, key: str, value: Any) -> None:
    """Add a setting by its dotted key, unless the node has it."""
    *parents, last = key.split(".")
    for name in parents:
        node = node.setdefault(name, CfgNode())
    node.setdefault(last, value)


def default_cfg() -> CfgNode:
    """Return Dassl's defaults and ours, with INPUT as CLIP was trained: mean, deviation, bicubic.

    For our own train.py. In a checkout of CoOp, INPUT keeps Dassl's defaults, and
    configuration files set it.
    """
    cfg = extend_cfg(get_cfg_default())
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = list(CLIP_MEAN), list(CLIP_STD)
    cfg.INPUT.INTERPOLATION = "bicubic"
    return cfg


def registered(registry: Any) -> list[type]:
    """Return the classes in one of Dassl's registries."""
    return [registry.get(name) for name in registry.registered_names()]


def register_all() -> None:
    """Register every trainer and data set of causalclip.

    For our own train.py. A checkout with its own CoOp or Caltech101 needs only the import of this
    module.

    Raises:
        KeyError: a name that another class has taken.
    """
    for package in (causalclip.trainers, causalclip.datasets):
        for module in modules_of(package):
            register(module)


def modules_of(package: ModuleType) -> list[ModuleType]:
    """Import and return the modules that are directly in a package."""
    names = [f"{package.__name__}.{info.name}" for info in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(name) for name in names]


def register(module: ModuleType) -> None:
    """Register the methods and data sets of a module, unless they are registered already.

    Methods are the trainers that it defines with a `config_node`; data sets are listed in its
    `DATASETS`. You can use Dassl's decorators as well.

    Raises:
        KeyError: a name that another class has taken.
    """
    for method in methods_of(module):
        _register(TRAINER_REGISTRY, method)
    for dataset in getattr(module, "DATASETS", ()):
        _register(DATASET_REGISTRY, dataset)


def methods_of(module: ModuleType) -> list[type[TrainerBase]]:
    """Return the trainers with a `config_node` that a module defines, without those it imports."""
    return [
        item
        for item in vars(module).values()
        if isinstance(item, type)
        and issubclass(item, TrainerBase)
        and item.__module__ == module.__name__
        and "config_node" in vars(item)
    ]


def register_imports(modules: Sequence[str]) -> None:
    """Import the user's modules, also from the current folder, and register their classes.

    Raises:
        UserError: a module that is missing, or that imports a missing one.
    """
    if modules and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # which an installed command does not add
    for name in modules:
        try:
            register(importlib.import_module(name))
        except ImportError as error:
            raise UserError(f"--import {name}: {error}") from error


def _register(registry: Any, item: type) -> None:
    name = item.__name__
    if name not in registry.registered_names() or registry.get(name) is not item:
        registry.register(item)


register(cdc)
register(clip_icm)
