"""Prompts inside an unmodified CLIP, and nothing computed that is not read.

A tower that is OpenAI's runs through our own forward, with its weights; any other through its own,
with prompts in hooks and text cut behind its end. Hooks are here and in additions.py alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from causalclip.clip.additions import NOTHING, Additions, Args, check_additions, hooked
from causalclip.clip.image_tower import (
    encode_patches,
    encode_patches_twice,
    projected,
    read_tokens,
)
from causalclip.clip.kinds import backbone_of, openai_model
from causalclip.clip.layout import TextLayout, text_layout
from causalclip.clip.model import CLIPModel
from causalclip.clip.plain import has_plain_image_tower, has_plain_text_tower
from causalclip.clip.protocol import Tower
from causalclip.clip.text_tower import Apart, encode_layout
from causalclip.clip.texts import ClassTokens

_prompted_models: WeakSet[CLIPModel] = WeakSet()


def encode_text(model: CLIPModel, tokens: Tensor, *, truncate: bool = True) -> Tensor:
    """Return the text features (N, E) of `tokens` (N, L), not normalised.

    Under a causal mask nothing after the end-of-text token reaches it, and a common start has the
    same states in all texts. So by default neither padding nor a start that was computed already is
    computed: the same features and gradients for less work. Without the mask all is computed.

    Raises:
        ValueError: a model under nn.DataParallel.
    """
    _check_model(model)
    if not truncate:
        return backbone_of(model).encode_text(tokens)
    if has_plain_text_tower(model):
        return encode_layout(model, text_layout(tokens))[0]
    return backbone_of(model).encode_text_cut(tokens)


def encode_texts(
    model: CLIPModel,
    texts: ClassTokens,
    prompts: Sequence[Tensor | None],
    additions: Additions = NOTHING,
) -> Tensor:
    """Return the features (G, K, E) of K texts under G sets of prompts, not normalised.

    What `encode_text` gives under `prompted` for each set, for less work.

    Args:
        model: the CLIP.
        texts: the K texts, with the places of the prompts.
        prompts: one tensor per depth, (G, n, D), or (G, K, n, D) where each text has its own, or
            None at a depth that is left as it is; none for the texts as they read, with G = 1.
        additions: to the blocks of the text tower.

    Raises:
        ValueError: prompts or additions that do not fit the tower or the texts, or a model under
            nn.DataParallel.
        RuntimeError: prompts for a model that is prompted already.
    """
    _check_model(model)
    of_first_set = _of_set(prompts, 0)
    if prompts or additions:
        _check_prompts("text", of_first_set, _tower(model, "text", additions), additions)
    _check_positions(of_first_set, texts.positions)
    _check_classes(prompts, len(texts))
    if prompts or additions:
        _refuse_prompted(model)
    texts = texts.to(model.logit_scale.device)
    if has_plain_text_tower(model) and not additions.per_sample:
        return encode_layout(model, *_tabled(texts, prompts), additions)
    positions, features = None if texts.leading else texts.positions, []
    for g in range(len(_first(prompts)) if prompts else 1):
        own = _of_set(prompts, g)
        with prompted(model, text=own, text_positions=positions, text_additions=additions):
            features.append(encode_text(model, texts.tokens))
    return torch.stack(features)


def encode_image(
    model: CLIPModel,
    images: Tensor,
    prompts: Sequence[Tensor] = (),
    additions: Additions = NOTHING,
) -> Tensor:
    """Return the image features (B, E) of `images` (B, 3, R, R), not normalised.

    Args:
        model: the CLIP.
        images: what the backbone reads.
        prompts: one tensor per depth, (n, D) or (B, n, D), as `prompted` takes them for images.
        additions: to the blocks of the image tower.

    Raises:
        ValueError: images that do not have the size the backbone reads, prompts or additions that
            do not fit, or a model under nn.DataParallel.
        RuntimeError: prompts for a model that is prompted already.
    """
    _check_images(model, images, prompts, additions)
    if not has_plain_image_tower(model):
        with prompted(model, image=prompts, image_additions=additions):
            return backbone_of(model).encode_image(images)
    return encode_patches(model.visual, images.type(model.dtype), prompts, additions)


def encode_image_twice(
    model: CLIPModel, images: Tensor, prompts: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return `encode_image` with prompts and, without a graph, with none; (B, E) each.

    Args:
        model: the CLIP.
        images: (B, 3, R, R).
        prompts: one tensor per depth, as in `encode_image`.

    Raises:
        ValueError: as `encode_image`.
        RuntimeError: as `encode_image`.
    """
    if has_plain_image_tower(model):
        _check_images(model, images, prompts, NOTHING)
        return encode_patches_twice(model.visual, images.type(model.dtype), prompts)
    with torch.no_grad():
        plain = encode_image(model, images)
    return encode_image(model, images, prompts), plain


def encode_image_tokens(
    model: CLIPModel, images: Tensor, additions: Additions
) -> tuple[Tensor, Tensor]:
    """Return the image features (B, E), and the n tokens that entered midway, (B, n, D).

    The tokens as they leave the last block and `ln_post`; the rest as `encode_image`.

    Args:
        model: the CLIP, a ViT.
        images: (B, 3, R, R).
        additions: to the blocks of the image tower, tokens among them.

    Raises:
        ValueError: as `encode_image`.
        RuntimeError: a model that is prompted already.
    """
    _check_images(model, images, (), additions)
    if has_plain_image_tower(model):
        x = read_tokens(model.visual, images.type(model.dtype), (), additions)
        return projected(model.visual, x), x[:, 1:]
    tower = _tower(model, "image", additions)
    with _claimed(model), hooked(tower, additions) as left:
        features = model.encode_image(images)
    return features, model.visual.ln_post(left[-1].transpose(0, 1))


def _check_images(
    model: CLIPModel, images: Tensor, prompts: Sequence[Tensor], additions: Additions
) -> None:
    _check_model(model)
    size = backbone_of(model).image_size
    if images.dim() != 4 or tuple(images.shape[1:]) != (3, size, size):
        raise ValueError(
            f"images must have shape (B, 3, {size}, {size}) for this backbone, "
            f"got {tuple(images.shape)}"
        )
    if prompts or additions:
        _refuse_prompted(model)
        _check_prompts("image", prompts, _tower(model, "image", additions), additions)
    for depth in prompts:
        _check_sets(depth, len(images))


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
    _check_model(model)
    towers, start = {}, backbone_of(model).tokenizer.start
    for kind, prompts, additions in (
        ("text", text, text_additions),
        ("image", image, image_additions),
    ):
        if prompts or additions:
            towers[kind] = _tower(model, kind, additions)
            _check_prompts(kind, prompts, towers[kind], additions)
    _check_positions(text, text_positions)
    with ExitStack() as stack:
        if text or image or text_additions or image_additions:
            stack.enter_context(_claimed(model))
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
    _check_sets(prompt, samples)
    prompt = prompt.to(x.dtype).expand(samples, -1, -1)
    return prompt if axis == 1 else prompt.transpose(0, 1)


def _tabled(
    texts: ClassTokens, prompts: Sequence[Tensor | None]
) -> tuple[TextLayout, list[Tensor | None], Apart | None]:
    """The layout of the texts, each depth's prompts as one table (G, R, D), what is of each text.

    Up to the first prompts that each text has for itself, the context is shared.
    """
    if not prompts:
        return texts.layout_of_words, [], None
    own = [i for i, depth in enumerate(prompts) if depth is not None and depth.dim() == 4]
    if not own:
        return texts.layout, list(prompts), None
    first, classes = own[0], len(texts)
    tables = [*prompts[:first], *(p if p is None else _table(p, classes) for p in prompts[first:])]
    if first == 0:
        return texts.layout_per_class, tables, None
    return texts.layout, tables, Apart(first, texts.layout_per_class)


def _table(prompt: Tensor, classes: int) -> Tensor:
    """(G, K n, D) of one depth's prompts, which all classes have in common or each its own."""
    own = prompt if prompt.dim() == 4 else prompt.unsqueeze(1).expand(-1, classes, -1, -1)
    return own.flatten(1, 2)


def _of_set(prompts: Sequence[Tensor | None], g: int) -> list[Tensor | None]:
    """The prompts of every depth of one set."""
    return [depth if depth is None else depth[g] for depth in prompts]


def _first(prompts: Sequence[Tensor | None]) -> Tensor:
    """The prompts of the first depth, which are always there."""
    first = prompts[0]
    assert first is not None, "_check_prompts refuses it"
    return first


def _refuse_prompted(model: CLIPModel) -> None:
    if model in _prompted_models:
        raise RuntimeError("this model is prompted already; leave the outer prompted() first")


@contextmanager
def _claimed(model: CLIPModel) -> Iterator[None]:
    _refuse_prompted(model)
    _prompted_models.add(model)
    try:
        yield
    finally:
        _prompted_models.discard(model)


def _tower(model: CLIPModel, kind: str, additions: Additions) -> Tower:
    """The tower that gets prompts or additions; tokens ask more of it than the protocol has."""
    if additions.tokens:
        openai_model(model, "a token that enters midway")
    backbone = backbone_of(model)
    return backbone.text_tower() if kind == "text" else backbone.image_tower()


def _check_model(model: object) -> None:
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    # Replicas are shallow copies that share one dictionary of hooks across threads.
    if isinstance(model, parallel) or getattr(model, "_is_replica", False):
        raise ValueError(
            "prompts do not work under nn.DataParallel: run one process per GPU (torchrun, with "
            "only the prompt module in DistributedDataParallel) and pass the bare CLIP"
        )


def _check_prompts(
    kind: str, prompts: Sequence[Tensor | None], tower: Tower, additions: Additions
) -> None:
    check_additions(kind, additions, tower)
    if prompts and additions.tokens:
        raise ValueError(f"{kind} prompts and tokens that enter midway do not go together")
    if len(prompts) > tower.layers:
        raise ValueError(
            f"{kind} prompt depth must be at most {tower.layers}, the depth of the {kind} tower, "
            f"got {len(prompts)}"
        )
    if prompts and prompts[0] is None:
        raise ValueError(f"{kind}[0] must be prompts: they make the places of the deeper ones")
    given = {i: prompt for i, prompt in enumerate(prompts) if prompt is not None}
    for i, prompt in given.items():
        n, width = prompt.shape[-2:] if prompt.dim() in (2, 3) else (0, 0)
        if n < 1 or width != tower.width:
            raise ValueError(
                f"{kind}[{i}] must have shape (n, {tower.width}) or (N, n, {tower.width}) with "
                f"n >= 1, got {tuple(prompt.shape)}"
            )
    if len({prompt.shape[-2] for prompt in given.values()}) > 1:
        raise ValueError(f"{kind} prompts of all depths must have the same number of tokens")


def _check_sets(prompt: Tensor, samples: int) -> None:
    if prompt.dim() == 3 and prompt.shape[0] != samples:
        raise ValueError(
            f"per-sample prompts must match the batch of {samples}, got {prompt.shape[0]} sets"
        )


def _check_classes(prompts: Sequence[Tensor | None], classes: int) -> None:
    for depth in prompts:
        if depth is not None and depth.dim() == 4 and depth.shape[1] != classes:
            raise ValueError(
                f"class-specific contexts of {depth.shape[1]} classes cannot encode {classes} "
                "classes; they do not transfer (CoOp, section 3.1)"
            )


def _check_positions(text: Sequence[Tensor | None], positions: Tensor | None) -> None:
    if text and positions is not None and positions.shape[-1] != (n := _first(text).shape[-2]):
        raise ValueError(
            f"text_positions must name {n} positions, one per prompt token, "
            f"got {positions.shape[-1]}"
        )
