"""Checkpoints: written whole or not at all, and read without running code."""

from __future__ import annotations

import glob
import os
import os.path as osp
import pickle
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from dassl.utils.files import mkdir_if_missing, replacing
from torch import nn


class PickledState:
    """Stands for an object that an old checkpoint pickled: its attributes, none of its code.

    causalclip/dassl_compat.py has the same for Dassl itself: there this module does not exist.
    """

    def __setstate__(self, state: dict) -> None:
        self.state = {key: value for key, value in state.items() if key != "optimizer"}

    def state_dict(self) -> dict:
        """Return the attributes, but for the copy of an optimizer among them."""
        return self.state


def _plain_dict(_factory: type) -> dict:
    """Stands for the defaultdict in which an optimizer keeps its state."""
    return {}


# Dassl 0.6.3 pickles the scheduler that follows a warm-up, and the optimizer inside it.
_SAFE = [
    *(
        (PickledState, f"torch.optim.{name}")
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
    (PickledState, "dassl.optim.radam.RAdam"),
    (_plain_dict, "collections.defaultdict"),
    dict,  # the argument of defaultdict
]

# Buffers that CoOp and its successors compute from the class names; they are no learned numbers.
_CLASS_BUFFERS = ("token_prefix", "token_suffix")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that belongs to another run."""


def save_checkpoint(
    state: dict,
    save_dir: str,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Write `state` to save_dir/model_name (default model.pth.tar-<epoch>), atomically.

    The file `checkpoint` beside it names the last one written; `is_best` also copies it to
    model-best.pth.tar.

    Raises:
        OSError: it cannot be written, as on a full disk; files written earlier stay whole.
    """
    mkdir_if_missing(save_dir)
    for left in glob.glob(osp.join(glob.escape(save_dir), "model*.partial")):
        os.remove(left)  # by a run that was killed as it wrote; one run at a time has the folder
    if remove_module_from_keys:
        state["state_dict"] = _without_module(state["state_dict"])
    fpath = osp.join(save_dir, model_name or f"model.pth.tar-{state['epoch']}")
    with _named(fpath), replacing(fpath) as file:
        torch.save(state, file)
    print(f"Checkpoint saved to {fpath}")
    pointer = osp.join(save_dir, "checkpoint")
    with _named(pointer), replacing(pointer, "w", encoding="utf-8") as file:
        file.write(f"{osp.basename(fpath)}\n")
    if is_best:
        best = osp.join(save_dir, "model-best.pth.tar")
        with _named(best), open(fpath, "rb") as source, replacing(best) as target:
            shutil.copyfileobj(source, target)
        print(f'Best checkpoint saved to "{best}"')


def _without_module(state_dict: dict) -> OrderedDict:
    """Undo the key prefix that DataParallel adds."""
    return OrderedDict((key.removeprefix("module."), value) for key, value in state_dict.items())


@contextmanager
def _named(fpath: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch turns a failed write into a RuntimeError, which says nothing of a full disk.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(
            f'could not write the checkpoint "{fpath}" ({reason}); earlier checkpoints are whole'
        ) from error


def load_checkpoint(fpath: str | None) -> dict:
    """Read a checkpoint onto the CPU with weights_only=True.

    Raises:
        ValueError: no path.
        FileNotFoundError: no file.
        CheckpointError: a damaged file, or one that holds pickled code.
    """
    if fpath is None:
        raise ValueError("File path is None")
    if not osp.exists(fpath):
        raise FileNotFoundError(f'File is not found at "{fpath}"')
    try:
        _check_sums(fpath)
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(fpath, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except _DAMAGE as error:
        raise CheckpointError(_unreadable(fpath, error)) from error


# What torch and zipfile raise on damaged bytes.
_DAMAGE = (
    RuntimeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    AssertionError,
)


def _check_sums(fpath: str) -> None:
    """Compare the checksums that torch writes but does not read: a flipped bit is still a number.

    Files of torch before 1.6 are no zip archives and have none.
    """
    if not zipfile.is_zipfile(fpath):
        return
    with zipfile.ZipFile(fpath) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} does not match")


def _unreadable(fpath: str, error: Exception) -> str:
    message = f'Unable to load checkpoint from "{fpath}": '
    if "unsupported global" in str(error).lower():  # one that is blocked is said in capitals
        name = str(error).split("GLOBAL ", 1)[-1].split(" ", 1)[0]
        return message + (
            f"it holds a pickled {name}, which could run code; only tensors, numbers and text are "
            "read. Ask its maker for the state_dict alone"
        )
    reason = str(error).split(". ")[0] or type(error).__name__
    return message + f"the file is damaged, cut short, or no checkpoint ({reason})"


def resume_from_checkpoint(
    fdir: str, model: nn.Module, optimizer: Any = None, scheduler: Any = None
) -> int:
    """Restore everything from the last checkpoint in `fdir`; return its epoch.

    Raises:
        CheckpointError: as `resume_from_file`.
    """
    return resume_from_file(osp.join(fdir, last_checkpoint_name(fdir)), model, optimizer, scheduler)


def last_checkpoint_name(fdir: str) -> str:
    """Return the file name that the text file `checkpoint` in `fdir` holds."""
    with open(osp.join(fdir, "checkpoint"), encoding="utf-8") as file:
        return file.readline().strip("\n")


def resume_from_file(
    fpath: str, model: nn.Module, optimizer: Any = None, scheduler: Any = None
) -> int:
    """Load one checkpoint into model, optimizer and scheduler; return its epoch.

    Raises:
        CheckpointError: a damaged file, or one that was learned for other class names.
    """
    print(f'Loading checkpoint from "{fpath}"')
    checkpoint = load_checkpoint(fpath)
    _check_class_buffers(checkpoint["state_dict"], model, fpath)
    model.load_state_dict(checkpoint["state_dict"])
    print("Loaded model weights")
    if optimizer is not None and checkpoint.get("optimizer") is not None:
        optimizer.load_state_dict(checkpoint["optimizer"])
        print("Loaded optimizer")
    if scheduler is not None and checkpoint.get("scheduler") is not None:
        scheduler.load_state_dict(checkpoint["scheduler"])
        print("Loaded scheduler")
    print(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def _check_class_buffers(state_dict: dict, model: nn.Module, fpath: str) -> None:
    """Refuse what was learned for other class names: as many of them would fit, and replace ours.

    The file need not say whose it is; its buffers show it. Those of another shape never fit.
    """
    for key, own in model.state_dict().items():
        given = state_dict.get(key)
        if not _is_class_buffer(key) or given is None or given.shape != own.shape:
            continue
        # The tolerance is a change of precision's; the embeddings of two words differ by more.
        if not torch.allclose(given.float(), own.float().cpu(), rtol=1e-2, atol=1e-3):
            raise CheckpointError(
                f'"{fpath}" was learned for other class names (or another CLIP): its {key} is not '
                "this run's. Choose another output folder, or delete the old checkpoints"
            )


def _is_class_buffer(key: str) -> bool:
    return key.rsplit(".", 1)[-1] in _CLASS_BUFFERS


def load_pretrained_weights(model: nn.Module, weight_path: str) -> None:
    """Load the tensors of a checkpoint that fit `model` by name and shape; print the others.

    Class-name buffers (token_prefix, token_suffix) are never loaded: with as many classes as
    the model they would fit and silently replace its class names.

    Raises:
        CheckpointError: an unreadable file, or one of which no tensor fits.
    """
    checkpoint = load_checkpoint(weight_path)
    given = _without_module(checkpoint.get("state_dict", checkpoint))
    own = model.state_dict()
    matched = {
        key: value
        for key, value in given.items()
        if key in own and own[key].shape == value.shape and not _is_class_buffer(key)
    }
    if not matched:
        raise CheckpointError(
            f'no tensor of "{weight_path}" fits the model: '
            f"the file has {_some(given)}, the model has {_some(own)}"
        )
    model.load_state_dict({**own, **matched})
    print(f"Successfully loaded pretrained weights from {weight_path}")
    discarded = [key for key in given if key not in matched]
    if discarded:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")


def _some(tensors: dict, limit: int = 5) -> str:
    names = [f"{key} {tuple(value.shape)}" for key, value in list(tensors.items())[:limit]]
    return ", ".join(names) + (", ..." if len(tensors) > limit else "")


def count_num_param(model: nn.Module | None = None, params: Any = None) -> int:
    """Count the numbers in a model's parameters, or in an iterable of them (or of groups).

    Raises:
        ValueError: neither is given.
    """
    if model is not None:
        return sum(parameter.numel() for parameter in model.parameters())
    if params is None:
        raise ValueError("model and params must provide at least one.")
    return sum((p["params"] if isinstance(p, dict) else p).numel() for p in params)
