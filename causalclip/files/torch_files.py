"""Files of torch.save: write them atomically, and read them, also Dassl's, without running code."""

from __future__ import annotations

import pickle
import struct
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch

from causalclip.files.atomic import replacing


def save_whole(content: Any, path: str) -> None:
    """Write a file as torch.save does, but atomically.

    Raises:
        OSError: it cannot be written, as on a full disk; names it.
    """
    with replacing(path) as part, open(part, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's error for a write that failed
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


class PickledState:
    """Stand-in for a pickled scheduler or optimizer, with its attributes but not its code."""

    def __setstate__(self, state: dict) -> None:
        self.state = {key: value for key, value in state.items() if key != "optimizer"}

    def state_dict(self) -> dict:
        """Return the attributes, without the optimizer among them."""
        return self.state


def _plain_dict(_factory: type) -> dict:
    """Replace the defaultdict in which an optimizer keeps its state."""
    return {}


# Dassl 0.6.3 pickles the scheduler that follows a warm-up, and the optimizer inside it.
_PICKLED = "sgd.SGD adam.Adam adamw.AdamW rmsprop.RMSprop lr_scheduler.StepLR"
_PICKLED += " lr_scheduler.MultiStepLR lr_scheduler.CosineAnnealingLR"
_SAFE = [
    *((PickledState, f"torch.optim.{name}") for name in _PICKLED.split()),
    (PickledState, "dassl.optim.radam.RAdam"),
    (_plain_dict, "collections.defaultdict"),
    dict,  # the argument of defaultdict
]
# Errors of torch and zipfile on damaged bytes.
_DAMAGE = (RuntimeError, pickle.UnpicklingError, BadZipFile, EOFError, OSError, ValueError)
_DAMAGE += (LookupError, TypeError, AttributeError, OverflowError, AssertionError, struct.error)


def load_without_code(path: str, map_location: Any = None) -> Any:
    """Return the content of a file of torch.save, after verifying its checksums.

    Raises:
        FileNotFoundError, PermissionError: the file is missing, or may not be read.
        ValueError: a damaged file, or one that holds pickled code; names it.
    """
    try:
        if is_zipfile(path):
            with ZipFile(path) as archive:
                if damaged := archive.testzip():  # torch writes checksums but does not read them
                    raise BadZipFile(f"the checksum of {damaged} does not match")
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location=map_location, weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise
    except _DAMAGE as error:
        raise ValueError(f'Unable to load checkpoint from "{path}": {_reason(error)}') from error


def _reason(error: Exception) -> str:
    if code := code_in(error):
        return f"{code}. Ask its maker for the state_dict alone"
    message = str(error).rpartition("WeightsUnpickler error: ")[2].strip()  # without torch's advice
    reason = message.splitlines()[0].split(". ")[0] if message else type(error).__name__
    return f"the file is damaged, cut short, or no checkpoint ({reason})"


def code_in(error: BaseException) -> str:
    """Return a message about code in a pickle; "" if torch's reader raised another error."""
    message = str(error)
    for mark in ("GLOBAL ", "Unsupported class "):
        if mark in message:
            name = message.split(mark, 1)[1].split()[0].rstrip(".,")
            return f"it holds a pickled {name}, which could run code; only tensors are read"
    return ""
