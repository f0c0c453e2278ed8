"""Whether a tower is OpenAI's and nothing hangs on it, so that our forward equals its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from causalclip.clip.model import CLIPModel
from causalclip.clip.openai_clip import CLIP, ResidualAttentionBlock, VisionTransformer

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def has_plain_text_tower(model: CLIPModel) -> bool:
    """Tell whether the text tower is OpenAI's, without hooks where our forward passes by."""
    if type(model) is not CLIP or not _unhooked([model.token_embedding]):
        return False
    text = model.transformer  # its only child is the sequence of blocks
    return _unhooked([text, *text.children()]) and _are_plain(text.resblocks)


def has_plain_image_tower(model: CLIPModel) -> bool:
    """Tell whether the image tower is OpenAI's ViT, without hooks where our forward passes by."""
    if type(model) is not CLIP or type(model.visual) is not VisionTransformer:
        return False
    visual = model.visual
    blocks = visual.transformer.resblocks
    return _unhooked([visual, visual.transformer, blocks]) and _are_plain(blocks)


def _are_plain(blocks: Iterable[nn.Module]) -> bool:
    return all(
        type(block) is ResidualAttentionBlock
        and type(block.attn) is nn.MultiheadAttention
        and _unhooked([block, block.attn])
        for block in blocks
    )


def _unhooked(modules: Iterable[Any]) -> bool:
    return not any(
        "forward" in vars(module) or any(getattr(module, hooks) for hooks in _HOOKS)
        for module in modules
    )
