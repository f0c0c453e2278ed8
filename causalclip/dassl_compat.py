"""Make whichever `dassl` is installed run on current torch, without touching its files.

Dassl 0.6.3 (2022) breaks in five places on current torch, and its log closes the caller's stdout.
The embedded toolkit has neither problem. A torchvision built for another torch (no `nms` operator)
is patched for both.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler

from causalclip.files.torch_files import load_without_code, save_whole

logger = logging.getLogger(__name__)

_patches: list[str] | None = None
_libraries: list[torch.library.Library] = []  # an operator exists as long as its library


def patch_dassl() -> list[str]:
    """Patch what is broken and return a list of it; later calls only return the list."""
    global _patches
    if _patches is None:
        _patches = [*patch_torchvision(), *_patch_dassl()]
        if _patches:
            logger.warning("patched Dassl for torch %s: %s", torch.__version__, "; ".join(_patches))
    return _patches


def patch_torchvision() -> list[str]:
    """Define the operators that a torchvision built for another torch declares but cannot load."""
    try:
        importlib.import_module("torchvision")
        return []
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # remains of the failed import
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    importlib.import_module("torchvision")
    return ["torchvision without its nms operator"]


def _patch_dassl() -> list[str]:
    if importlib.import_module("dassl").__version__.endswith("+mini"):
        return []
    patches = _import_with_placeholders()
    if "verbose" not in inspect.signature(LRScheduler.__init__).parameters:
        patches.append("warm-up schedules that pass `verbose` to torch's scheduler")
    warm_up = importlib.import_module("dassl.optim.lr_scheduler")._BaseWarmupScheduler
    warm_up.__init__ = _init_warm_up
    warm_up.state_dict = _warm_up_state
    warm_up.load_state_dict = _load_warm_up_state
    # Patch the names inside the module: its functions may already be imported elsewhere.
    checkpoints = importlib.import_module("dassl.utils.torchtools")
    vars(checkpoints)["torch"] = _Overridden(torch, load=_safe_load, save=save_whole)
    patches.append("checkpoints that pickle the scheduler")
    log = importlib.import_module("dassl.utils.logger").Logger
    log.close, log.isatty = _close_log, lambda self: self.console.isatty()
    patches.append("a log that closes the caller's stdout")
    if not hasattr(np, "int"):
        for name in ("autoaugment", "randaugment"):
            transforms = importlib.import_module(f"dassl.data.transforms.{name}")
            vars(transforms)["np"] = _Overridden(np, int=int)
        patches.append("augmentations that use np.int")
    return patches


class _Overridden:
    """A module with some of its names overridden."""

    def __init__(self, module: ModuleType, **names: Any) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _import_with_placeholders() -> list[str]:
    """Import dassl.engine, with placeholder modules for missing packages that it imports.

    The placeholder for TensorBoard is removed again: other code would use it as the real one.
    """
    patches = []
    if find_spec("wilds") is None and "dassl.data" not in sys.modules:
        sys.modules["dassl.data.datasets.dg.wilds"] = _module("dassl.data.datasets.dg.wilds")
        patches.append("the WILDS data sets without the package wilds")
    board = "torch.utils.tensorboard"
    is_missing = find_spec("tensorboard") is None and board not in sys.modules
    if is_missing:
        sys.modules[board] = _module(board, SummaryWriter=_NoWriter)
        patches.append("the import of TensorBoard where it is not installed")
    try:
        importlib.import_module("dassl.engine")
    finally:
        if is_missing:
            del sys.modules[board]
    return patches


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content, __all__=list(content))
    return module


class _NoWriter:
    """A SummaryWriter that writes nothing."""

    def __init__(self, log_dir: str | None = None) -> None:
        self.log_dir = log_dir

    def add_scalar(self, *arguments: Any) -> None:
        pass

    def close(self) -> None:
        pass


def _close_log(self: Any) -> None:
    if self.file is not None:
        self.file.close()
    if sys.stdout is self:
        sys.stdout = self.console


# Warm-up schedules that torch >= 2.7 accepts, and whose state contains numbers instead of objects.
# Dassl saves the schedule that follows the warm-up as an object. When it is loaded, this object
# changes a copy of the optimizer, and the learning rate stays constant.


def _init_warm_up(
    self: Any,
    optimizer: Any,
    successor: Any,
    warmup_epoch: int,
    last_epoch: int = -1,
    verbose: bool = False,  # noqa: ARG001 (removed from torch, but Dassl's callers pass it)
) -> None:
    self.successor = successor
    self.warmup_epoch = warmup_epoch
    LRScheduler.__init__(self, optimizer, last_epoch)


def _warm_up_state(self: Any) -> dict:
    return {**LRScheduler.state_dict(self), "successor": self.successor.state_dict()}


def _load_warm_up_state(self: Any, state_dict: dict) -> None:
    own = dict(state_dict)
    successor = own.pop("successor")
    if not isinstance(successor, dict):
        successor = successor.state_dict()
    self.successor.load_state_dict(successor)
    LRScheduler.load_state_dict(self, own)


# Checkpoints


def _safe_load(path: str, map_location: Any = None, **_options: Any) -> Any:
    """Load a file as torch.load does, but run no code; allow Dassl's scheduler objects.

    All options except `map_location` are ignored, so that no caller can allow code.

    Raises:
        ValueError: a file that cannot be read; names it, which torch's errors do not.
    """
    return load_without_code(path, map_location)
