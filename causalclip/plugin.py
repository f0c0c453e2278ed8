"""The plug-in: registers CDC and CLIP_ICM into whatever Dassl is installed, and their settings.

    import causalclip.plugin            # above the first import of dassl
    causalclip.plugin.extend_cfg(cfg)

Nothing of a host checkout is replaced: only these two names are registered.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from yacs.config import CfgNode

from causalclip.dassl_compat import mend

mend()

import causalclip.trainers.cdc  # after mend(): they import dassl
import causalclip.trainers.clip_icm  # noqa: F401

# isort: split
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

from causalclip.engine import loading


def extend_cfg(cfg: CfgNode) -> CfgNode:
    """Add the settings of every registered trainer and data set of causalclip that ``cfg`` lacks.

    Trainers say ``config_node`` and ``defaults``, data sets ``config_defaults``.
    """
    for trainer in registered(TRAINER_REGISTRY):
        node = getattr(trainer, "config_node", None)
        if node and node not in cfg.TRAINER:
            cfg.TRAINER[node] = CfgNode(dict(trainer.defaults))
    for key, value in loading.DEFAULTS.items():
        if key not in cfg.DATALOADER:
            cfg.DATALOADER[key] = value
    if "SUBSAMPLE_CLASSES" not in cfg.DATASET:
        cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    for dataset in registered(DATASET_REGISTRY):
        for key, value in getattr(dataset, "config_defaults", {}).items():
            if key not in cfg.DATASET:
                cfg.DATASET[key] = value
    return cfg


def registered(registry) -> list[type]:
    """The classes in one of Dassl's registries."""
    return [registry.get(name) for name in registry.registered_names()]


def register_all() -> None:
    """Import every trainer and data set of causalclip, which registers them.

    For our own train.py; a host checkout that has its own CoOp or Caltech101 needs only the import
    of this module.
    """
    import causalclip.datasets
    import causalclip.trainers

    for package in (causalclip.trainers, causalclip.datasets):
        import_modules(package)


def import_modules(package: ModuleType) -> list[str]:
    """Import each module that lies directly in a package; their names."""
    names = [f"{package.__name__}.{info.name}" for info in pkgutil.iter_modules(package.__path__)]
    for name in names:
        importlib.import_module(name)
    return names
