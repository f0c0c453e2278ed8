"""Checkpoints: written atomically, and read without running code."""

from __future__ import annotations

import os.path as osp
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from dassl.utils.tools import mkdir_if_missing
from torch import nn

from causalclip.files.atomic import remove_abandoned, replacing
from causalclip.files.torch_files import load_without_code, save_whole


def save_checkpoint(
    state: dict,
    save_dir: str,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Write `state` to save_dir/model_name (default model.pth.tar-<epoch>) atomically.

    The text file `checkpoint` next to it names the last one written; `is_best` also copies it to
    model-best.pth.tar.

    Raises:
        OSError: it cannot be written, as on a full disk; earlier files stay intact.
    """
    mkdir_if_missing(save_dir)
    remove_abandoned(Path(save_dir))
    if remove_module_from_keys:
        state["state_dict"] = _without_module(state["state_dict"])
    fpath = osp.join(save_dir, model_name or f"model.pth.tar-{state['epoch']}")
    save_whole(state, fpath)
    print(f"Checkpoint saved to {fpath}")
    with replacing(osp.join(save_dir, "checkpoint")) as part:
        part.write_text(f"{osp.basename(fpath)}\n", encoding="utf-8")
    if is_best:
        best = osp.join(save_dir, "model-best.pth.tar")
        with replacing(best) as part:
            shutil.copyfile(fpath, part)
        print(f'Best checkpoint saved to "{best}"')


def _without_module(state_dict: dict) -> OrderedDict:
    """Undo the key prefix that DataParallel adds."""
    return OrderedDict((key.removeprefix("module."), value) for key, value in state_dict.items())


def load_checkpoint(fpath: str | None) -> dict:
    """Read a checkpoint onto the CPU with weights_only=True.

    Raises:
        FileNotFoundError: no file.
        ValueError: no path, a damaged file, or one that contains pickled code.
    """
    if fpath is None:
        raise ValueError("File path is None")
    if not osp.exists(fpath):
        raise FileNotFoundError(f'File is not found at "{fpath}"')
    return load_without_code(fpath, "cpu")


# Buffers that CoOp and its successors compute from the class names; they are not learned.
_CLASS_BUFFERS = ("token_prefix", "token_suffix")


def resume_from_checkpoint(
    fdir: str,
    model: nn.Module,
    optimizer: Any = None,
    scheduler: Any = None,
    file_name: str | None = None,
) -> int:
    """Restore everything from a checkpoint in `fdir`, by default the last one; return its epoch.

    Raise ValueError for a damaged file, or one that was learned for other class names.
    """
    fpath = osp.join(fdir, file_name or last_checkpoint_name(fdir))
    print(f'Loading checkpoint from "{fpath}"')
    checkpoint = load_checkpoint(fpath)
    _check_class_buffers(checkpoint["state_dict"], model, fpath)
    model.load_state_dict(checkpoint["state_dict"])
    print("Loaded model weights")
    for name, part in (("optimizer", optimizer), ("scheduler", scheduler)):
        if part is not None and checkpoint.get(name) is not None:
            part.load_state_dict(checkpoint[name])
            print(f"Loaded {name}")
    print(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def last_checkpoint_name(fdir: str) -> str:
    """Return the file name that the text file `checkpoint` in `fdir` contains."""
    with open(osp.join(fdir, "checkpoint"), encoding="utf-8") as file:
        return file.readline().strip("\n")


def _check_class_buffers(state_dict: dict, model: nn.Module, fpath: str) -> None:
    """Raise ValueError for buffers of other class names that fit: they would replace `model`'s."""
    for key, own in model.state_dict().items():
        stored = state_dict.get(key)
        if not key.endswith(_CLASS_BUFFERS) or stored is None or stored.shape != own.shape:
            continue
        # The tolerance allows for a change of precision; embeddings of two words differ by more.
        if not torch.allclose(stored.float(), own.float().cpu(), rtol=1e-2, atol=1e-3):
            raise ValueError(
                f'"{fpath}" was learned for other class names (or another CLIP): its {key} is not '
                "this run's. Choose another output folder, or delete the old checkpoints"
            )


def load_pretrained_weights(model: nn.Module, weight_path: str) -> None:
    """Load the tensors of a checkpoint that fit `model` by name and shape; print the others.

    Class-name buffers (token_prefix, token_suffix) are never loaded: for the same number of
    classes they would fit, and silently replace the model's class names.

    Raises:
        ValueError: an unreadable file, or a file of which no tensor fits.
    """
    checkpoint = load_checkpoint(weight_path)
    stored = _without_module(checkpoint.get("state_dict", checkpoint))
    own = model.state_dict()
    matched = {
        key: value
        for key, value in stored.items()
        if key in own and own[key].shape == value.shape and not key.endswith(_CLASS_BUFFERS)
    }
    if not matched:
        raise ValueError(
            f'no tensor of "{weight_path}" fits the model: '
            f"the file has {_some(stored)}, the model has {_some(own)}"
        )
    model.load_state_dict({**own, **matched})
    print(f"Successfully loaded pretrained weights from {weight_path}")
    if discarded := [key for key in stored if key not in matched]:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")


def count_num_param(model: nn.Module) -> int:
    """Return the number of elements of all parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def _some(tensors: dict) -> str:
    names = [f"{key} {tuple(value.shape)}" for key, value in list(tensors.items())[:5]]
    return ", ".join(names) + (", ..." if len(tensors) > 5 else "")
