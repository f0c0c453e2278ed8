"""One checkpoint file, read whole or refused by name: its bytes, its entries, and who it is of."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from dassl.utils import load_checkpoint
from torch import Tensor

from causalclip.files.digests import is_vouched_for, require_vouched_for

POINTER = "checkpoint"
"""The file beside the checkpoints that names the one written last, as Dassl has it."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint of ours or of the family's holds.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, holds code, is of a format without checksums and not vouched for,
            or lacks what every checkpoint has.
    """
    checkpoint = load_checkpoint(str(path))
    if not zipfile.is_zipfile(path):
        require_vouched_for(path)
    else:
        is_vouched_for(path)  # where a digest stands beside it, it must be its own
    found = checkpoint if isinstance(checkpoint, dict) else {}
    if not isinstance(found.get("state_dict"), dict) or not _is_epoch(found.get("epoch")):
        raise ValueError(
            f"{path} is no checkpoint, it lacks state_dict or epoch; it holds "
            f"{', '.join(map(str, list(found)[:5])) or type(checkpoint).__name__}"
        )
    _require_learned_numbers(found["state_dict"], path)
    _require_identity(found.get("identity"), path)
    return found


def _is_epoch(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _require_learned_numbers(state: dict[Any, Any], path: Path) -> None:
    for name, value in state.items():
        if str(name).endswith("_extra_state"):  # torch's name of what a module adds to its tensors
            continue
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.is_complex():
            raise ValueError(
                f"{path} is no checkpoint, its state_dict holds {name!r:.80}, {value!r:.80}"
            )


def _require_identity(identity: Any, path: Path) -> None:
    """Who it is of: nothing in a file of another code base."""
    if identity and not (isinstance(identity, dict) and isinstance(identity.get("trainer"), str)):
        raise ValueError(f"{path} is no checkpoint, its identity is {identity!r:.80}")


def last_written(directory: Path) -> str:
    """The name of the checkpoint written last, from the file `checkpoint` in its folder.

    Raises:
        ValueError: the file does not hold the name of a file beside it.
    """
    pointer = directory / POINTER
    name = pointer.read_bytes().decode("utf-8", errors="replace").strip()
    if not name.isprintable() or not name or Path(name).name != name:
        raise ValueError(
            f"{pointer} must hold the name of a checkpoint beside it, got {name!r:.80}; "
            f"there are: {', '.join(sorted(p.name for p in directory.glob('model*'))) or 'none'}"
        )
    return name
