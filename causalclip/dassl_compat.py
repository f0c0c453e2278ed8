"""Makes whichever `dassl` is installed run on current torch, without touching its files.

Dassl 0.6.3 (2022) breaks in five places on the torch of today, and its log closes the stdout of
who called; the embedded toolkit does neither.
A torchvision built for another torch (no `nms` operator) is mended for both.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import pickle
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from torch.optim.lr_scheduler import LRScheduler

from causalclip.files.atomic import replacing

logger = logging.getLogger(__name__)

_mended: list[str] | None = None
_libraries: list[torch.library.Library] = []  # operators live as long as these


def mend() -> list[str]:
    """Mend what is broken and return what that was; safe to call first thing, and again.

    Raises:
        ImportError: no `dassl` is installed; says how to get one.
    """
    global _mended
    if _mended is None:
        if find_spec("dassl") is None:
            raise ImportError(
                "no module named dassl: install the embedded toolkit (pip install ./minidassl) "
                "or Dassl itself (https://github.com/KaiyangZhou/Dassl.pytorch)"
            )
        _mended = [*mend_torchvision(), *_mend_dassl()]
        if _mended:
            logger.warning("mended Dassl for torch %s: %s", torch.__version__, "; ".join(_mended))
    return _mended


def mend_torchvision() -> list[str]:
    """Define the operators that a torchvision built for another torch declares but cannot load."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return []
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # halves of the failed import
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
    importlib.import_module("torchvision")
    return ["torchvision without its nms operator"]


def _mend_dassl() -> list[str]:
    if importlib.import_module("dassl").__version__.endswith("+mini"):
        return []
    done = _import_with_stand_ins()
    if "verbose" not in inspect.signature(LRScheduler.__init__).parameters:
        done.append("warm-up schedules that pass `verbose` to torch's scheduler")
    _mend_warm_up()
    _mend_checkpoints()
    done.append("checkpoints that pickle the scheduler")
    importlib.import_module("dassl.utils.logger").Logger.close = _close_log
    done.append("a log that closes the stdout of who called")
    return done + _mend_numpy_names()


# Imports


def _import_with_stand_ins() -> list[str]:
    """Import dassl.engine, with empty modules where a package that it imports is missing.

    The stand-in for TensorBoard is gone afterwards, so that nobody else takes it for the real one.
    """
    done = []
    if find_spec("wilds") is None and "dassl.data" not in sys.modules:
        sys.modules["dassl.data.datasets.dg.wilds"] = _module("dassl.data.datasets.dg.wilds")
        done.append("the WILDS data sets without the package wilds")
    board = "torch.utils.tensorboard"
    stands_in = find_spec("tensorboard") is None and board not in sys.modules
    if stands_in:
        sys.modules[board] = _module(board, SummaryWriter=_NoWriter)
        done.append("the import of TensorBoard where it is not installed")
    try:
        importlib.import_module("dassl.engine")
    finally:
        if stands_in:
            del sys.modules[board]
    return done


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


# The log


def _close_log(self: Any) -> None:
    if self.file is not None:
        self.file.close()
    if sys.stdout is self:
        sys.stdout = self.console


# Schedules


def _mend_warm_up() -> None:
    """Warm-up that torch >= 2.7 accepts, and whose state holds numbers in place of objects.

    Dassl saves the schedule that follows the warm-up as an object; read back, it steers a copy of
    the optimizer and the learning rate stands still.
    """
    warm_up = importlib.import_module("dassl.optim.lr_scheduler")._BaseWarmupScheduler
    warm_up.__init__ = _warm_up_init
    warm_up.state_dict = _warm_up_state
    warm_up.load_state_dict = _load_warm_up_state


def _warm_up_init(
    self: Any,
    optimizer: Any,
    successor: Any,
    warmup_epoch: int,
    last_epoch: int = -1,
    verbose: bool = False,  # noqa: ARG001 (torch's scheduler lost it, Dassl's callers pass it)
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


class _Numbers:
    """Stands for a pickled object of an old checkpoint: its attributes, none of its code.

    minidassl, a distribution of its own, has the same: where Dassl itself is, minidassl is not.
    """

    def __setstate__(self, state: dict) -> None:
        self.state = {key: value for key, value in state.items() if key != "optimizer"}

    def state_dict(self) -> dict:
        """Return the attributes, but for the copy of an optimizer among them."""
        return self.state


def _plain_dict(_factory: type) -> dict:
    """Stands for the defaultdict in which an optimizer keeps its state."""
    return {}


_SAFE = [
    *(
        (_Numbers, f"torch.optim.{name}")
        for name in (
            "sgd.SGD",
            "adam.Adam",
            "adamw.AdamW",
            "rmsprop.RMSprop",
            "lr_scheduler.StepLR",
            "lr_scheduler.MultiStepLR",
            "lr_scheduler.CosineAnnealingLR",
        )
    ),
    (_Numbers, "dassl.optim.radam.RAdam"),
    (_plain_dict, "collections.defaultdict"),
    dict,  # the argument of defaultdict
]


class _Instead:
    """A module with some of its names replaced."""

    def __init__(self, module: ModuleType, **replaced: Any) -> None:
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _mend_checkpoints() -> None:
    """Give the module that reads and writes checkpoints a torch with a safe load and save.

    Its functions stay what they are, so they work for whoever imported them before.
    """
    module = importlib.import_module("dassl.utils.torchtools")
    vars(module)["torch"] = _Instead(torch, load=_safe_load, save=_whole_save)


# What torch and zipfile raise on damaged bytes.
_DAMAGE = (
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    AssertionError,
    BadZipFile,
)


def _safe_load(path: str, map_location: Any = None, **_options: Any) -> Any:
    """torch.load without code, which also reads the scheduler objects of old checkpoints.

    No option of the caller's can allow code; where tensors go is the only one that is heard.

    Raises:
        ValueError: a file that cannot be read; names it, which torch's errors do not.
    """
    try:
        _check_sums(path)
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location=map_location, weights_only=True)
    except _DAMAGE as error:
        from causalclip.clip.weights import code_in  # not before torchvision is mended

        said = str(error).rpartition("WeightsUnpickler error: ")[2].strip()  # before it, advice
        plain = said.splitlines()[0].split(". ")[0] if said else type(error).__name__
        reason = code_in(error) or plain
        raise ValueError(f'unable to load checkpoint from "{path}": {reason}') from error


def _check_sums(path: str) -> None:
    """Compare the checksums that torch writes but does not read (minidassl does the same)."""
    if is_zipfile(path):
        with ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise BadZipFile(f"the checksum of {damaged} does not match")


def _whole_save(state: Any, path: str) -> None:
    """torch.save to a neighbour that then takes the file's place: whole, or not at all."""
    with replacing(path) as part, open(part, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's word for a write that failed
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


# NumPy


def _mend_numpy_names() -> list[str]:
    """Give the two modules that use `np.int` a NumPy that has it."""
    import numpy as np

    if hasattr(np, "int"):
        return []
    for name in ("autoaugment", "randaugment"):
        module = importlib.import_module(f"dassl.data.transforms.{name}")
        vars(module)["np"] = _Instead(np, int=int)
    return ["augmentations that use np.int"]
