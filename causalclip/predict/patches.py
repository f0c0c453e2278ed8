"""Where an image tower sees its patches apart for the last time, and how they lie in a picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from causalclip.clip.kinds import openai_model
from causalclip.clip.model import CLIPModel, is_vit
from causalclip.clip.plain import has_plain_image_tower


def last_layer(clip: CLIPModel) -> nn.Module:
    """Where patches are last seen apart: the last block's input of attention, or stage."""
    if not is_vit(openai_model(clip, "a map of patches")):
        return clip.visual.layer4
    return clip.visual.transformer.resblocks[-1].ln_1


@contextmanager
def cut(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Begin the graph at the output of a layer while the context lasts; gives that output."""
    seen: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    handle = layer.register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def tokens_of(clip: CLIPModel, values: Tensor) -> Tensor:
    """Values at `last_layer` of a ViT as (S, L, D), whichever way its blocks take them."""
    return values if has_plain_image_tower(clip) else values.transpose(0, 1)


def in_place(clip: CLIPModel, tokens: Tensor, midway: int = 0) -> Tensor:
    """The patches (..., h, w) of numbers a token (..., L).

    Class token first, then those that entered `midway` (MMRL's), patches, and prompts last.
    """
    patches = len(clip.visual.positional_embedding) - 1
    side = round(patches**0.5)
    return tokens.narrow(-1, 1 + midway, patches).unflatten(-1, (side, side))
