"""Read and validate one checkpoint file; write and read model.safetensors."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dassl.utils import load_checkpoint
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from causalclip.files.atomic import replacing
from causalclip.files.digests import is_vouched_for, require_vouched_for
from causalclip.files.reading import read_bounded, require_regular

POINTER = "checkpoint"
"""Dassl's text file next to the checkpoints, which contains the name of the newest one."""

SCHEDULED = {"params", "lr", "verbose", "cons_lr", "min_lr", "kind", "start_lr"}
"""Entries of an optimizer or schedule that depend on the epoch, torch's version or the toolkit."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint of causalclip or of another trainer of the CoOp family.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is damaged, contains code, has neither checksums nor a digest file, or lacks
            an entry that every checkpoint has.
    """
    if path.exists():  # a missing file is reported by Dassl
        require_regular(path)
    checkpoint = load_checkpoint(str(path))
    if not zipfile.is_zipfile(path):
        require_vouched_for(path)
    else:
        is_vouched_for(path)  # if there is a digest file, it must match
    content = checkpoint if isinstance(checkpoint, dict) else {}
    epoch = content.get("epoch")
    has_epoch = isinstance(epoch, int) and not isinstance(epoch, bool) and epoch >= 0
    if not isinstance(content.get("state_dict"), dict) or not has_epoch:
        raise ValueError(
            f"{path} is no checkpoint, it lacks state_dict or epoch; it holds "
            f"{', '.join(map(str, list(content)[:5])) or type(checkpoint).__name__}"
        )
    for name, value in content["state_dict"].items():
        if str(name).endswith("_extra_state"):  # torch's key for state that is not a tensor
            continue
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.is_complex():
            raise ValueError(
                f"{path} is no checkpoint, its state_dict holds {name!r:.80}, {value!r:.80}"
            )
    identity = content.get("identity")  # other code bases write none
    if identity and not (isinstance(identity, dict) and isinstance(identity.get("trainer"), str)):
        raise ValueError(f"{path} is no checkpoint, its identity is {identity!r:.80}")
    return content


def last_written(directory: Path) -> str:
    """Return the name of the checkpoint written last, from the file `checkpoint` in its folder.

    Raises:
        ValueError: the file does not contain the name of a file in the folder.
    """
    pointer = directory / POINTER
    name = read_bounded(pointer, most=10_000).decode("utf-8", errors="replace").strip()
    if not name.isprintable() or not name or Path(name).name != name:
        raise ValueError(
            f"{pointer} must hold the name of a checkpoint in its folder, got {name!r:.80}; "
            f"there are: {', '.join(sorted(p.name for p in directory.glob('model*'))) or 'none'}"
        )
    return name


def checkpoint_path(directory: Path, epoch: int | None) -> Path:
    """Return the checkpoint of `epoch`; for None model-best if it exists, else the newest one.

    Raises:
        FileNotFoundError: it is missing; lists the files of the folder.
    """
    if epoch is not None:
        path = directory / f"model.pth.tar-{epoch}"
    else:
        path = directory / "model-best.pth.tar"
        if not path.exists() and (directory / POINTER).exists():
            path = directory / last_written(directory)
    if not path.exists():
        files = sorted(p.name for p in directory.glob("model*")) if directory.exists() else []
        raise FileNotFoundError(f"no checkpoint {path}; {directory} holds: {files or 'nothing'}")
    return path


def check_identity(checkpoint: Mapping[str, Any], identity: Mapping[str, Any], path: Path) -> None:
    """Raise if a checkpoint is of another method or backbone than `identity`.

    Raises:
        ValueError: names both.
    """
    recorded = checkpoint.get("identity")
    if not recorded:  # of another code base: strict loading reports what does not fit
        return
    if recorded["trainer"] != identity["trainer"]:
        raise ValueError(
            f"{path}: a checkpoint of {recorded['trainer']}, this run is {identity['trainer']}"
        )
    # One match is enough: a file may have two names, and two precisions have two digests.
    known = [key for key in ("backbone", "weights") if recorded.get(key) is not None]
    if known and all(recorded[key] != identity[key] for key in known):
        raise ValueError(
            f"{path}: learned on the backbone {recorded['backbone']}, "
            f"this run has {identity['backbone']}"
        )


def load_state(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict strictly, by name and shape (...).

    Raises:
        ValueError: a tensor that does not fit; names the file.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit this configuration: {error}") from error


def load_initial(module: nn.Module, path: str) -> None:
    """Load the weights of a checkpoint of any toolkit; do nothing for an empty path.

    Raises:
        ValueError: tensors that do not fit.
    """
    if path:
        load_state(module, load_checkpoint(path)["state_dict"], Path(path))


# Optimizer and schedule


def load_part(part: Any, state: dict[str, Any], where: str) -> None:
    """Load the state of an optimizer or schedule; check that it fits, which torch does not.

    Raises:
        ValueError: the state is of another optimizer or schedule, of other settings, or damaged.
    """
    try:
        problems = _differences(state, part.state_dict())
        if not problems:
            part.load_state_dict(state)
            groups, needed = getattr(part, "param_groups", ()), getattr(part, "defaults", {})
            missing = sorted({key for group in groups for key in needed if key not in group})
            problems = [f"it lacks {', '.join(missing)}"] if missing else []
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        problems = [str(error)]
    if problems:
        raise ValueError(
            f"{where} is not of this run's {type(part).__name__}: {'; '.join(problems)}; resume "
            "with its settings, or choose another --output-dir"
        )


def _differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    if "param_groups" not in current:  # a schedule: its progress and number of epochs may differ
        return _unknown(recorded, current)
    problems: list[str] = []
    for old, new in zip(recorded["param_groups"], current["param_groups"], strict=True):
        problems += _unknown(old, new)
        problems += [
            f"{key} is {old[key]!r} there, {new[key]!r} here"
            for key in sorted(old.keys() & new.keys() - SCHEDULED)
            if old[key] != new[key]
        ]
    return problems


def _unknown(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    keys = {key for key in recorded if not str(key).startswith("_")}
    names = sorted(map(str, keys - current.keys() - SCHEDULED))
    problems = [f"it has {', '.join(names)}"] if names else []
    for key in recorded.keys() & current.keys():  # a warm-up contains the schedule that follows it
        if isinstance(recorded[key], Mapping) and isinstance(current[key], Mapping):
            problems += _unknown(recorded[key], current[key])
    return problems


# model.safetensors: what a run has learned, as tensors and JSON, to share with others


PRETRAINED_FILE = "model.safetensors"
PRETRAINED_FORMAT = "causalclip.model/1"


def write_pretrained(path: Path, checkpoints: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the checkpoints of a run's models, by name, without optimizer and training state."""
    tensors: dict[str, Tensor] = {}
    facts = {}
    for name, checkpoint in checkpoints.items():
        state = checkpoint["state_dict"]
        own = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        tensors |= {f"{name}/{key}": value.contiguous().clone() for key, value in own.items()}
        extra = {key: value for key, value in state.items() if key not in own}
        identity = dict(checkpoint.get("identity") or {})
        if "backbone" in identity:  # without the local folder
            identity["backbone"] = shown_backbone(identity["backbone"])
        facts[name] = {"epoch": checkpoint["epoch"], "identity": identity, "extra": extra}
    with replacing(path) as part:
        save_file(tensors, part, {"format": PRETRAINED_FORMAT, "models": json.dumps(facts)})


def shown_backbone(name: str) -> str:
    """Return a backbone's name; for a file, its name without the folder."""
    return Path(name).name if Path(name).is_file() else name


def read_pretrained(path: Path) -> dict[str, dict[str, Any]]:
    """Return the checkpoints by the name of their model.

    Raises:
        ValueError: not a model.safetensors of causalclip; names the file.
        SafetensorError: not a safetensors file.
    """
    require_regular(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        try:
            if metadata["format"] != PRETRAINED_FORMAT:
                raise ValueError(f"format {metadata['format']:.80}")
            checkpoints = {}
            for name, facts in json.loads(metadata["models"]).items():
                epoch, identity, extra = (facts[key] for key in ("epoch", "identity", "extra"))
                if not isinstance(identity, dict) or not isinstance(identity.get("trainer"), str):
                    raise ValueError(f"{name} does not name its trainer")
                checkpoints[name] = {"epoch": epoch, "identity": identity, "state_dict": {**extra}}
            for key in file.keys():  # noqa: SIM118 (not a mapping)
                name, _, own = key.partition("/")
                checkpoints[name]["state_dict"][own] = file.get_tensor(key)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} must be a {PRETRAINED_FORMAT} of causalclip: {error}"
            ) from error
    return checkpoints
