"""Prompts inside an unmodified CLIP while a context lasts: hooks on its own modules.

Hooks are here and in additions.py alone; encode.py needs none where a tower is OpenAI's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from causalclip.clip.additions import NOTHING, Additions, Args, hooked
from causalclip.clip.kinds import backbone_of
from causalclip.clip.model import CLIPModel
from causalclip.clip.prompt_checks import (
    check_model,
    check_positions,
    check_prompts,
    check_sets,
    tower_for,
)
from causalclip.clip.protocol import Tower

_prompted_models: WeakSet[CLIPModel] = WeakSet()


@contextmanager
def prompted(
    model: CLIPModel,
    *,
    text: Sequence[Tensor | None] = (),
    text_positions: Tensor | None = None,
    image: Sequence[Tensor] = (),
    text_additions: Additions = NOTHING,
    image_additions: Additions = NOTHING,
) -> Iterator[None]:
    """Run both towers of `model` with prompts while the context lasts.

    `text[0]` takes the place of the token embeddings at `text_positions`; `text[i]` replaces the
    same positions on entering text block i. `image[0]` is appended to the patches behind the
    positional embedding and before `ln_pre`; `image[i]` replaces these last tokens on entering
    image block i (MaPLe, section 3). Prompts are cast to the activations' type where they enter.
    A tower that pools its patches pools them alone; rotary positions turn no prompt.

    Args:
        model: the CLIP, left as it is.
        text: prompts of n tokens, each (n, D) or one set a text (N, n, D); None, not at first,
            leaves a block as it is.
        text_positions: (n,) or one row a text (N, n); by default behind the start token, 1..n.
        image: prompts of n tokens, each (n, D) or one set an image (B, n, D).
        text_additions: to the blocks of the text tower: tokens that enter midway, adapters.
        image_additions: to those of the image tower.

    Raises:
        ValueError: prompts or additions that do not fit the towers, or a model under
            nn.DataParallel.
        RuntimeError: a model that is prompted already.
    """
    check_model(model)
    towers, start = {}, backbone_of(model).tokenizer.start
    for kind, prompts, additions in (
        ("text", text, text_additions),
        ("image", image, image_additions),
    ):
        if prompts or additions:
            towers[kind] = tower_for(model, kind, additions)
            check_prompts(kind, prompts, towers[kind], additions)
    check_positions(text, text_positions)
    with ExitStack() as stack:
        if text or image or text_additions or image_additions:
            stack.enter_context(claimed(model))
        if text_additions:
            stack.enter_context(hooked(towers["text"], text_additions))
        if image_additions:
            stack.enter_context(hooked(towers["image"], image_additions))
        for handle in _hook_texts(towers, text, text_positions, start):
            stack.callback(handle.remove)
        for i, prompt in enumerate(image):
            stack.callback(_hook_image(towers["image"], i, prompt).remove)
        if image:
            for handle in _hooks_around(towers["image"], image[0].shape[-2]):
                stack.callback(handle.remove)
        yield


def _hook_texts(
    towers: Mapping[str, Tower],
    prompts: Sequence[Tensor | None],
    positions: Tensor | None,
    start: int,
) -> Iterator[RemovableHandle]:
    for i, prompt in enumerate(prompts):
        if prompt is not None:
            yield _hook_text(towers["text"], i, prompt, positions, start)


def _hook_text(
    tower: Tower, i: int, prompt: Tensor, positions: Tensor | None, start: int
) -> RemovableHandle:
    if i == 0:

        def hook(_module: nn.Module, _args: Args, output: Tensor) -> Tensor:  # N L D
            return _replace(output, prompt, positions, start, axis=1)

        return tower.entry.register_forward_hook(hook)

    def pre_hook(_module: nn.Module, args: Args) -> Args:
        return (_replace(args[0], prompt, positions, start, axis=tower.axis), *args[1:])

    return tower.blocks[i].register_forward_pre_hook(pre_hook)


def _hook_image(tower: Tower, i: int, prompt: Tensor) -> RemovableHandle:
    if i == 0:

        def append(_module: nn.Module, args: Args) -> Tensor:  # N L D
            x = args[0]
            return torch.cat([x, _per_sample(prompt, x, axis=1)], dim=1)

        return tower.entry.register_forward_pre_hook(append)

    def replace(_module: nn.Module, args: Args) -> Args:
        x = _without_last(args[0], prompt.shape[-2], tower.axis)
        own = _per_sample(prompt, x, axis=tower.axis)
        return (torch.cat([x, own], dim=tower.axis), *args[1:])

    return tower.blocks[i].register_forward_pre_hook(replace)


def _hooks_around(tower: Tower, n: int) -> Iterator[RemovableHandle]:
    """What n appended prompts ask of a tower that pools its patches or turns them."""

    def pool_without(_module: nn.Module, _args: Args, output: Tensor) -> Tensor:
        return _without_last(output, n, tower.axis)

    def turn_none(_module: nn.Module, args: Args, kwargs: dict[str, Any]) -> tuple[Args, dict]:
        sin, cos = kwargs["rope"].chunk(2, dim=-1)  # (L', d) each
        still = sin.new_zeros(*sin.shape[:-2], n, sin.shape[-1])
        rope = torch.cat([torch.cat([sin, still], -2), torch.cat([cos, still + 1], -2)], -1)
        return args, {**kwargs, "rope": rope}

    if tower.reads_all:
        yield tower.blocks[-1].register_forward_hook(pool_without)
    for block in tower.blocks if tower.rotary else ():
        yield block.register_forward_pre_hook(turn_none, with_kwargs=True)


def _without_last(x: Tensor, n: int, axis: int) -> Tensor:
    return x.narrow(axis, 0, x.shape[axis] - n)


def _replace(
    x: Tensor, prompt: Tensor, positions: Tensor | None, start: int, *, axis: int
) -> Tensor:
    """Put prompts into `x` along its token axis (1: N L D, 0: L N D), by default at `start`."""
    prompt = _per_sample(prompt, x, axis=axis)
    n = prompt.shape[axis]
    if positions is None:
        before = x.narrow(axis, 0, start)
        behind = x.narrow(axis, start + n, x.shape[axis] - start - n)
        return torch.cat([before, prompt, behind], dim=axis)
    index = positions.expand(x.shape[1 - axis], -1)
    index = index if axis == 1 else index.T
    return x.scatter(axis, index.unsqueeze(-1).expand_as(prompt), prompt)


def _per_sample(prompt: Tensor, x: Tensor, *, axis: int) -> Tensor:
    """Give each sample of `x` its prompts, in the layout and type of `x`."""
    samples = x.shape[1 - axis]
    check_sets(prompt, samples)
    prompt = prompt.to(x.dtype).expand(samples, -1, -1)
    return prompt if axis == 1 else prompt.transpose(0, 1)


def refuse_prompted(model: CLIPModel) -> None:
    """Refuse a model that `prompted` holds already.

    Raises:
        RuntimeError: it does.
    """
    if model in _prompted_models:
        raise RuntimeError("this model is prompted already; leave the outer prompted() first")


@contextmanager
def claimed(model: CLIPModel) -> Iterator[None]:
    """Keep a model to one owner of hooks while the context lasts.

    Raises:
        RuntimeError: it has one.
    """
    refuse_prompted(model)
    _prompted_models.add(model)
    try:
        yield
    finally:
        _prompted_models.discard(model)
