"""Prompts inside an unmodified CLIP: hooks on its own modules, within a context manager."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from causalclip.clip.interface import Args, Kwargs, Tower, backbone_of, fit_mask
from causalclip.clip.openai_clip import CLIPModel
from causalclip.clip.prompt_set import (
    NO_ADDITIONS,
    Additions,
    check_model,
    check_positions,
    checked_tower,
    per_sample,
    prompted_models,
)


@contextmanager
def prompted(
    model: CLIPModel,
    *,
    text: Sequence[Tensor | None] = (),
    text_positions: Tensor | None = None,
    image: Sequence[Tensor] = (),
    text_additions: Additions = NO_ADDITIONS,
    image_additions: Additions = NO_ADDITIONS,
) -> Iterator[None]:
    """Run both towers of `model` with prompts inside the `with` block.

    `text[0]` replaces the token embeddings at `text_positions`; `text[i]` replaces the same
    positions on entering text block i. `image[0]` is appended to the patches after the positional
    embedding and before `ln_pre`; `image[i]` replaces these last tokens on entering image block i
    (MaPLe, section 3). Prompts are cast to the type of the activations where they enter. A tower
    that pools its patches pools them without prompts; rotary positions are not applied to prompts.

    Args:
        model: the CLIP, whose weights and code are not changed.
        text: prompts of n tokens, one entry per depth: (n, D), or (N, n, D), one set per text;
            None leaves a block as it is, but cannot be the first entry.
        text_positions: (n,), or (N, n) with one row per text; by default after the start token.
        image: prompts of n tokens, one entry per depth: (n, D), or (B, n, D), one set per image.
        text_additions: additions to the blocks of the text tower.
        image_additions: additions to the blocks of the image tower.

    Raises:
        ValueError: prompts or additions that do not fit the towers, or a model under
            nn.DataParallel.
        RuntimeError: a model that is prompted already.
    """
    check_model(model)
    towers, given = {}, (("text", text, text_additions), ("image", image, image_additions))
    for kind, prompts, additions in given:
        if prompts or additions:
            towers[kind] = checked_tower(model, kind, prompts, additions)
    check_positions(text, text_positions)
    with ExitStack() as stack:
        if towers:
            prompted_models.add(model)
            stack.callback(prompted_models.discard, model)
        for kind, _, additions in given:
            if additions:
                stack.enter_context(with_additions(towers[kind], additions))
        start = backbone_of(model).tokenizer.start
        handles = chain(
            _hook_text(towers["text"], text, text_positions, start) if text else (),
            _hook_image(towers["image"], image) if image else (),
        )
        for handle in handles:
            stack.callback(handle.remove)
        yield


@contextmanager
def with_additions(tower: Tower, additions: Additions) -> Iterator[list[Tensor]]:
    """Run a tower with additions; each forward sets the list to its inserted tokens (n, N, D)."""
    left: list[Tensor] = []
    n = additions.n_tokens

    def remove(_module: nn.Module, _args: Args, x: Tensor) -> Tensor:
        left[:] = [x[1 : 1 + n]]
        return torch.cat([x[:1], x[1 + n :]]) if n else x

    with ExitStack() as stack:
        for i, block in enumerate(tower.blocks):
            for handle in _hook_block(block, additions, i, tower.norm):
                stack.callback(handle.remove)
        stack.callback(tower.blocks[-1].register_forward_hook(remove).remove)
        yield left


def _hook_block(block: Any, additions: Additions, i: int, norm: str) -> Iterator[RemovableHandle]:
    def insert(_module: nn.Module, args: Args) -> Args:
        return (additions.insert_tokens(args[0], i, axis=0), *args[1:])

    def adapt(_module: nn.Module, args: Args, output: Tensor) -> Tensor:
        return additions.adapt(output, i, args[0], getattr(block, norm))

    if i in additions.tokens:
        yield block.register_forward_pre_hook(insert)
    if additions.tokens and i >= additions.first:
        yield block.attn.register_forward_pre_hook(fit_mask, with_kwargs=True)
    if i in additions.adapters:
        yield block.register_forward_hook(adapt)


def _hook_text(
    tower: Tower, prompts: Sequence[Tensor | None], positions: Tensor | None, start: int
) -> Iterator[RemovableHandle]:
    def embed(prompt: Tensor, _module: nn.Module, _args: Args, output: Tensor) -> Tensor:  # N L D
        return _replace(output, prompt, positions, start, axis=1)

    def replace(prompt: Tensor, _module: nn.Module, args: Args) -> Args:
        return (_replace(args[0], prompt, positions, start, axis=tower.axis), *args[1:])

    given = [(i, prompt) for i, prompt in enumerate(prompts) if prompt is not None]
    yield tower.entry.register_forward_hook(partial(embed, given[0][1]))
    for i, prompt in given[1:]:
        yield tower.blocks[i].register_forward_pre_hook(partial(replace, prompt))


def _replace(
    x: Tensor, prompt: Tensor, positions: Tensor | None, start: int, *, axis: int
) -> Tensor:
    """Put prompts into `x` along its token axis (1: N L D, 0: L N D), by default at `start`."""
    prompt = per_sample(prompt, x, axis=axis)
    n = prompt.shape[axis]
    if positions is None:
        before = x.narrow(axis, 0, start)
        after = x.narrow(axis, start + n, x.shape[axis] - start - n)
        return torch.cat([before, prompt, after], dim=axis)
    index = positions.expand(x.shape[1 - axis], -1)
    index = index if axis == 1 else index.T
    return x.scatter(axis, index.unsqueeze(-1).expand_as(prompt), prompt)


def _hook_image(tower: Tower, prompts: Sequence[Tensor]) -> Iterator[RemovableHandle]:
    n, axis = prompts[0].shape[-2], tower.axis

    def without_last(x: Tensor) -> Tensor:
        return x.narrow(axis, 0, x.shape[axis] - n)

    def append(prompt: Tensor, _module: nn.Module, args: Args) -> Tensor:  # N L D
        return torch.cat([args[0], per_sample(prompt, args[0], axis=1)], dim=1)

    def replace(prompt: Tensor, _module: nn.Module, args: Args) -> Args:
        x = without_last(args[0])
        return (torch.cat([x, per_sample(prompt, x, axis=axis)], dim=axis), *args[1:])

    def remove(_module: nn.Module, _args: Args, x: Tensor) -> Tensor:
        return without_last(x)

    def pad_rope(_module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        sin, cos = kwargs["rope"].chunk(2, dim=-1)  # (L', d) each
        still = sin.new_zeros(*sin.shape[:-2], n, sin.shape[-1])
        rope = torch.cat([torch.cat([sin, still], -2), torch.cat([cos, still + 1], -2)], -1)
        return args, {**kwargs, "rope": rope}

    yield tower.entry.register_forward_pre_hook(partial(append, prompts[0]))
    for block, prompt in zip(tower.blocks[1:], prompts[1:], strict=False):
        yield block.register_forward_pre_hook(partial(replace, prompt))
    if tower.pools_patches:
        yield tower.blocks[-1].register_forward_hook(remove)
    for block in tower.blocks if tower.rotary else ():
        yield block.register_forward_pre_hook(pad_rope, with_kwargs=True)
