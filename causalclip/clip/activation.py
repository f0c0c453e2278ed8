"""QuickGELU or GELU: the same numbers load as either, and a file seldom says which it learned with.

OpenAI, DFN and MetaCLIP train with QuickGELU, x sigmoid(1.702 x); LAION and DataComp with GELU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from safetensors import safe_open
from torch import nn

from causalclip.clip.model import CLIPModel, is_vit
from causalclip.clip.openai_clip import RELEASED
from causalclip.files.download import file_digest

Activation = Literal["quick_gelu", "gelu"]
UNKNOWN = ""


def check_activation(given: str) -> None:
    """Refuse a name that is no activation; an empty one leaves it to the file.

    Raises:
        ValueError: names MODEL.BACKBONE.ACTIVATION, what is allowed and what came.
    """
    if given not in (UNKNOWN, *get_args(Activation)):
        raise ValueError(
            "MODEL.BACKBONE.ACTIVATION must be quick_gelu, gelu or empty (where the file is "
            f"known), got {given!r}"
        )


def activation_of_file(path: Path, given: str, *, bundled_format: bool) -> Activation:
    """The activation that the weights in a file of OpenAI's layout learned with.

    Args:
        path: the file; a safetensors file may say `activation` in its header.
        given: MODEL.BACKBONE.ACTIVATION, or empty.
        bundled_format: whether `save_tiny` wrote it, of a model of OpenAI's classes.

    Raises:
        ValueError: it is neither given nor known, or given otherwise than known.
    """
    known = "quick_gelu" if bundled_format else _said_in_header(path)
    if not (known or given) and is_released(path):
        known = "quick_gelu"
    check_activation(known)
    if known and given not in (known, UNKNOWN):
        raise ValueError(
            f"MODEL.BACKBONE.ACTIVATION must be {known} or empty for {path}, got {given!r}"
        )
    if not (known or given):
        raise ValueError(
            f"{path} does not say its activation, and its numbers load as either: set "
            "MODEL.BACKBONE.ACTIVATION to quick_gelu (OpenAI, DFN, MetaCLIP) or gelu (LAION, "
            "DataComp); or name its open_clip model, open_clip:ViT-B-16/FILE"
        )
    return "gelu" if "gelu" in (known, given) else "quick_gelu"


def _said_in_header(path: Path) -> str:
    if path.suffix != ".safetensors":
        return UNKNOWN
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("activation", UNKNOWN)


def is_released(path: Path) -> bool:
    """Tell by its digest whether OpenAI released a file."""
    return file_digest(path) in {url.split("/")[-2] for url in RELEASED.values()}


def use_gelu(model: CLIPModel) -> None:
    """Give the blocks of a model of OpenAI's classes, whose QuickGELU is fixed, GELU instead."""
    towers = [model.transformer, *([model.visual.transformer] if is_vit(model) else [])]
    for tower in towers:
        for block in tower.resblocks:
            block.mlp.gelu = nn.GELU()  # the name it has in either


def uses_gelu(model: CLIPModel) -> bool:
    """Tell whether `use_gelu` was called on a model of OpenAI's classes."""
    return isinstance(model.transformer.resblocks[0].mlp.gelu, nn.GELU)
