"""model.safetensors: what a run has learned, as tensors and JSON, to pass on to others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from causalclip.files.atomic import replacing
from causalclip.files.reading import require_regular

PRETRAINED_FILE = "model.safetensors"
FORMAT = "causalclip.model/1"


def write_pretrained(path: Path, checkpoints: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the checkpoints of a run's models by name, without the state of their training."""
    tensors: dict[str, Tensor] = {}
    facts = {}
    for name, checkpoint in checkpoints.items():
        state = checkpoint["state_dict"]
        own = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        tensors |= {f"{name}/{key}": value.contiguous().clone() for key, value in own.items()}
        extra = {key: value for key, value in state.items() if key not in own}
        identity = dict(checkpoint.get("identity") or {})
        if "backbone" in identity:  # its path is nobody else's affair
            identity["backbone"] = shown_backbone(identity["backbone"])
        facts[name] = {"epoch": checkpoint["epoch"], "identity": identity, "extra": extra}
    with replacing(path) as part:
        save_file(tensors, part, {"format": FORMAT, "models": json.dumps(facts)})


def shown_backbone(name: str) -> str:
    """Return a backbone's name; of a file, without its folder."""
    return Path(name).name if Path(name).is_file() else name


def read_pretrained(path: Path) -> dict[str, dict[str, Any]]:
    """Return the checkpoints by the name of their model.

    Raises:
        ValueError: no such file of causalclip's; names it.
        SafetensorError: no safetensors.
    """
    require_regular(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        try:
            if metadata["format"] != FORMAT:
                raise ValueError(f"format {metadata['format']:.80}")
            checkpoints = {}
            for name, facts in json.loads(metadata["models"]).items():
                epoch, identity, extra = (facts[key] for key in ("epoch", "identity", "extra"))
                if not isinstance(identity, dict) or not isinstance(identity.get("trainer"), str):
                    raise ValueError(f"{name} does not say whose it is")
                checkpoints[name] = {"epoch": epoch, "identity": identity, "state_dict": {**extra}}
            for key in file.keys():  # noqa: SIM118 (no mapping)
                name, _, own = key.partition("/")
                checkpoints[name]["state_dict"][own] = file.get_tensor(key)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} must be a {FORMAT} of causalclip: {error}") from error
    return checkpoints
