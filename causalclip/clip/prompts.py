"""The learnable numbers: prompts of CoOp, CoCoOp, MaPLe, IVLP, VPT, and M sets of any of them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from causalclip.clip.backbone import CLIP, token_ids, tokenize
from causalclip.clip.injection import encode_image, encode_text, prompted
from causalclip.clip.templates import spoken

STD = 0.02  # of random starts, as published by all four methods
Position = Literal["end", "middle", "front"]


@dataclass(frozen=True)
class PromptSet:
    """Prompts of both towers, one tensor per depth; (n, D), with a leading M, B or K axis or none.

    See `causalclip.clip.injection.prompted` for what each depth does.
    """

    text: tuple[Tensor, ...] = ()
    image: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class ClassTokens:
    """The texts of K classes, with placeholders where the learnable context goes."""

    tokens: Tensor
    """(K, L) token ids."""
    positions: Tensor
    """(K, n_ctx) where the context stands in each row."""
    leading: bool = False
    """Whether the context stands at 1..n_ctx in every row, which needs no gather."""

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: str | torch.device) -> ClassTokens:
        """Return the same texts on `device`."""
        return replace(self, tokens=self.tokens.to(device), positions=self.positions.to(device))


def class_tokens(
    classnames: Sequence[str],
    *,
    n_ctx: int,
    prefix: str = "",
    position: Position = "end",
    context_length: int = 77,
) -> ClassTokens:
    """Tokenise "<prefix> <name>." for each class and say where the context goes.

    With position `end` the context takes the first `n_ctx` tokens of the prefix (MaPLe keeps four
    words and learns two). `middle` puts half of it in front of the name and half behind, `front`
    all of it behind the name (CoOp, section 3.1). Without a prefix, `n_ctx` placeholders stand in.

    Raises:
        ValueError: no class, a prefix that does not fit `n_ctx`, or a class name too long for the
            context length; the message names the class.
    """
    if position not in get_args(Position):
        raise ValueError(f"position must be one of {get_args(Position)}, got {position!r}")
    if not classnames:
        raise ValueError("class_tokens needs at least one class name")
    _check_count("n_ctx", n_ctx, least=0)
    prefix = spoken(prefix) or " ".join(["X"] * n_ctx)
    _check_prefix(prefix, n_ctx, position)
    names = [spoken(name) for name in classnames]
    for name in names:
        if (length := len(token_ids(f"{prefix} {name}.")) + 2) > context_length:
            raise ValueError(
                f"class name {name!r} with its context takes {length} tokens, more than the "
                f"context length {context_length}"
            )
    tokens = tokenize([f"{prefix} {name}." for name in names], context_length)
    positions = [_context_positions(name, n_ctx, position) for name in names]
    rows = [_reorder(row, where) for row, where in zip(tokens, positions, strict=True)]
    where = torch.tensor(positions, dtype=torch.long)
    return ClassTokens(torch.stack(rows), where, leading=position == "end")


def embed_words(model: CLIP, words: str, n_ctx: int) -> Tensor:
    """Return the token embeddings (n_ctx, D) of the first `n_ctx` tokens of `words`.

    Raises:
        ValueError: words that have fewer tokens than `n_ctx`.
    """
    ids = token_ids(spoken(words))
    if len(ids) < n_ctx:
        raise ValueError(f"{words!r} has {len(ids)} tokens, fewer than n_ctx {n_ctx}")
    return model.token_embedding.weight[ids[:n_ctx]].detach().clone()


class TextPrompts(nn.Module):
    """CoOp: context tokens in front of the class name (Zhou et al., IJCV 2022, section 3.1).

    Args:
        n_ctx: number of tokens.
        width: width of the text tower.
        init: (n_ctx, width) start, by default N(0, 0.02).
        n_classes: one context per class, (n_classes, n_ctx, width); cannot move to other classes.
    """

    def __init__(
        self, n_ctx: int, width: int, *, init: Tensor | None = None, n_classes: int | None = None
    ):
        super().__init__()
        lead = () if n_classes is None else (n_classes,)
        self.ctx = _tokens(n_ctx, width, init, lead=lead)

    def forward(self) -> PromptSet:
        """Return the context as text prompts of depth 1."""
        return PromptSet(text=(self.ctx,))


class ConditionalPrompts(nn.Module):
    """CoCoOp: a context shifted by the image (Zhou et al., CVPR 2022, section 3.2).

    ctx(z) = ctx + W2 relu(W1 z), with z the normalised image features and a bottleneck of a
    sixteenth of their width.
    """

    def __init__(self, n_ctx: int, width: int, embed_dim: int, *, init: Tensor | None = None):
        super().__init__()
        self.ctx = _tokens(n_ctx, width, init)
        hidden = embed_dim // 16
        if hidden < 1:
            raise ValueError(f"embed_dim must be at least 16 for the meta-net, got {embed_dim}")
        self.meta_net = nn.Sequential(
            OrderedDict(
                linear1=nn.Linear(embed_dim, hidden),
                relu=nn.ReLU(),
                linear2=nn.Linear(hidden, width),
            )
        )

    def forward(self, image_features: Tensor) -> PromptSet:
        """Return text prompts (B, n_ctx, width) for normalised image features (B, E)."""
        shift = self.meta_net(image_features.to(self.ctx.dtype))
        return PromptSet(text=(self.ctx + shift.unsqueeze(1),))


class CoupledPrompts(nn.Module):
    """MaPLe: deep text prompts, projected to image prompts (Khattak et al., CVPR 2023, sec. 3.2).

    Args:
        n_ctx: tokens per depth and tower.
        depth: blocks with prompts, in both towers; 1 is shallow.
        text_width: width of the text tower.
        vision_width: width of the image tower.
        init: (n_ctx, text_width) start of the first depth, by default N(0, 0.02).
    """

    def __init__(
        self,
        n_ctx: int,
        depth: int,
        text_width: int,
        vision_width: int,
        *,
        init: Tensor | None = None,
    ):
        super().__init__()
        _check_count("depth", depth)
        self.ctx = _tokens(n_ctx, text_width, init)
        self.proj = nn.Linear(text_width, vision_width)
        self.compound_prompts_text = _deep_tokens(n_ctx, depth, text_width)
        # The published code copies one layer, so all projections start with the same weights.
        layer = nn.Linear(text_width, vision_width)
        self.compound_prompt_projections = nn.ModuleList(
            copy.deepcopy(layer) for _ in range(depth - 1)
        )

    def forward(self) -> PromptSet:
        """Return text prompts and their projections, one pair per depth."""
        text = (self.ctx, *self.compound_prompts_text)
        layers = (self.proj, *self.compound_prompt_projections)
        image = tuple(layer(prompt) for layer, prompt in zip(layers, text, strict=True))
        return PromptSet(text, image)


class IndependentPrompts(nn.Module):
    """IVLP, PromptSRC's too: deep prompts in both towers, not coupled; VPT without the text ones.

    (Rasheed et al., CVPR 2023; Jia et al., ECCV 2022.) A tower without prompts has 0 tokens and
    depth 0.

    Args:
        n_ctx_text: tokens per depth in the text tower.
        n_ctx_vision: tokens per depth in the image tower.
        depth_text: text blocks with prompts.
        depth_vision: image blocks with prompts.
        text_width: width of the text tower.
        vision_width: width of the image tower.
        init: (n_ctx_text, text_width) start of the first text depth, by default N(0, 0.02).
    """

    def __init__(
        self,
        n_ctx_text: int,
        n_ctx_vision: int,
        depth_text: int,
        depth_vision: int,
        text_width: int,
        vision_width: int,
        *,
        init: Tensor | None = None,
    ):
        super().__init__()
        self.n_text = _check_tower("text", n_ctx_text, depth_text)
        self.n_vision = _check_tower("vision", n_ctx_vision, depth_vision)
        if self.n_text:
            self.ctx = _tokens(n_ctx_text, text_width, init)
            self.deep_text = _deep_tokens(n_ctx_text, depth_text, text_width)
        if self.n_vision:
            self.ctx_vision = _tokens(n_ctx_vision, vision_width, None)
            self.deep_vision = _deep_tokens(n_ctx_vision, depth_vision, vision_width)

    def forward(self) -> PromptSet:
        """Return the prompts of the towers that have some."""
        return PromptSet(
            text=(self.ctx, *self.deep_text) if self.n_text else (),
            image=(self.ctx_vision, *self.deep_vision) if self.n_vision else (),
        )


class DecoupledPrompts(nn.Module):
    """CDC: M prompt modules of one kind, stacked (Zhang et al., NeurIPS 2024).

    What `make` starts from given words is the same in all M; without a difference the diversity
    loss has no gradient that could separate them. So those numbers, and only those, get
    independent N(0, noise).

    Args:
        make: builds one module whose forward returns a `PromptSet`.
        n_templates: M.
        noise: standard deviation of the noise.
        shared: names of submodules that all templates have in common, such as MaPLe's projections.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        n_templates: int,
        *,
        noise: float = STD,
        shared: Sequence[str] = (),
    ):
        super().__init__()
        _check_count("n_templates", n_templates)
        self.templates = nn.ModuleList(make() for _ in range(n_templates))
        if n_templates > 1:
            self._separate(noise)
        for name in shared:
            for template in self.templates[1:]:
                setattr(template, name, getattr(self.templates[0], name))

    @torch.no_grad()
    def _separate(self, noise: float) -> None:
        names = [name for name, _ in self.templates[0].named_parameters()]
        for name in names:
            copies = [template.get_parameter(name) for template in self.templates]
            if all(torch.equal(copies[0], other) for other in copies[1:]):
                for weight in copies:
                    weight.add_(torch.randn_like(weight), alpha=noise)

    def forward(self, *inputs: Tensor) -> PromptSet:
        """Return the M prompt sets in one, each tensor with a leading M axis."""
        sets = [template(*inputs) for template in self.templates]
        return PromptSet(
            text=tuple(torch.stack(depth) for depth in zip(*(s.text for s in sets), strict=True)),
            image=tuple(torch.stack(depth) for depth in zip(*(s.image for s in sets), strict=True)),
        )


def encode_classes(model: CLIP, texts: ClassTokens, prompts: PromptSet) -> Tensor:
    """Return the text features (K, E) of all classes under one prompt set, not normalised.

    Text prompts are (n, D), or (K, n, D) for class-specific contexts.

    Raises:
        ValueError: contexts that belong to another number of classes.
    """
    for depth in prompts.text:
        if depth.dim() == 3 and len(depth) != len(texts):
            raise ValueError(
                f"class-specific contexts of {len(depth)} classes cannot encode {len(texts)} "
                "classes; they do not transfer (CoOp, section 3.1)"
            )
    return _encode_texts(model, texts, prompts.text)


def encode_text_sets(
    model: CLIP, texts: ClassTokens, prompts: PromptSet, *, texts_at_once: int | None = None
) -> Tensor:
    """Return the text features (M, K, E) of all classes under M prompt sets, not normalised.

    One forward of M * K texts, in the order m * K + k. The M sets are templates (CDC) or images
    (CoCoOp); each text prompt is (M, n, D), or (M, K, n, D) for class-specific contexts.

    Args:
        model: the CLIP.
        texts: the K classes.
        prompts: the M sets; their image prompts are not used here.
        texts_at_once: splits the forward so that at most about so many texts run together.
    """
    if not prompts.text:
        return _encode_texts(model, texts, ()).expand(_count_sets(prompts), -1, -1)
    texts = texts.to(model.positional_embedding.device)
    classes, sets = len(texts), _count_sets(prompts)
    step = sets if texts_at_once is None else max(1, texts_at_once // classes)
    features = []
    for chunk in zip(*(depth.split(step) for depth in prompts.text), strict=True):
        text = tuple(_per_text(depth, classes) for depth in chunk)
        features.append(_encode_texts(model, _tiled(texts, len(chunk[0])), text))
    return torch.cat(features).unflatten(0, (sets, classes))


def encode_image_sets(model: CLIP, images: Tensor, prompts: PromptSet) -> Tensor:
    """Return the image features (B, M, E) under M prompt sets, not normalised.

    One forward of B * M images, in the order b * M + m.

    Args:
        model: the CLIP.
        images: (B, M, 3, R, R), a view of its own for each set, or (B, 3, R, R), the same for all;
            without image prompts the latter are encoded once.
        prompts: the M sets.
    """
    sets = _count_sets(prompts)
    if images.dim() == 5 and images.shape[1] != sets:
        raise ValueError(f"images must have {sets} views, one per template, got {images.shape[1]}")
    if images.dim() == 4 and not prompts.image:
        return encode_image(model, images).unsqueeze(1).expand(-1, sets, -1)
    if images.dim() == 4:
        images = images.unsqueeze(1).expand(-1, sets, -1, -1, -1)
    batch = len(images)
    tiled = tuple(depth.expand(batch, *depth.shape).flatten(0, 1) for depth in prompts.image)
    with prompted(model, image=tiled):
        return encode_image(model, images.flatten(0, 1)).unflatten(0, (batch, sets))


def _encode_texts(model: CLIP, texts: ClassTokens, text: tuple[Tensor, ...]) -> Tensor:
    texts = texts.to(model.positional_embedding.device)
    with prompted(model, text=text, text_positions=None if texts.leading else texts.positions):
        return encode_text(model, texts.tokens)


def _tiled(texts: ClassTokens, sets: int) -> ClassTokens:
    return replace(
        texts, tokens=texts.tokens.repeat(sets, 1), positions=texts.positions.repeat(sets, 1)
    )


def _per_text(depth: Tensor, classes: int) -> Tensor:
    """Repeat each set's prompts (M, n, D) for its classes: (M * K, n, D)."""
    if depth.dim() == 3:
        depth = depth.unsqueeze(1).expand(-1, classes, -1, -1)
    return depth.flatten(0, 1)


def _count_sets(prompts: PromptSet) -> int:
    sets = {len(depth) if depth.dim() > 2 else 0 for depth in (*prompts.text, *prompts.image)}
    if len(sets) != 1 or sets == {0}:
        raise ValueError("prompts must have one leading axis of M sets in every tensor")
    return sets.pop()


def _tokens(
    n_ctx: int, width: int, init: Tensor | None, *, lead: tuple[int, ...] = ()
) -> nn.Parameter:
    """Learnable tokens (*lead, n_ctx, width), from `init` or N(0, 0.02)."""
    _check_count("n_ctx", n_ctx)
    if init is None:
        return nn.Parameter(torch.empty(*lead, n_ctx, width).normal_(std=STD))
    if init.shape != (n_ctx, width):
        raise ValueError(f"init must have shape ({n_ctx}, {width}), got {tuple(init.shape)}")
    return nn.Parameter(init.detach().to(torch.float32).expand(*lead, -1, -1).clone())


def _deep_tokens(n_ctx: int, depth: int, width: int) -> nn.ParameterList:
    return nn.ParameterList(_tokens(n_ctx, width, None) for _ in range(depth - 1))


def _check_count(what: str, value: int, *, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        kind = "a positive int" if least else "an int of at least 0"
        raise ValueError(f"{what} must be {kind}, got {value!r}")


def _check_tower(tower: str, n_ctx: int, depth: int) -> int:
    _check_count(f"n_ctx_{tower}", n_ctx, least=0)
    _check_count(f"depth_{tower}", depth, least=0)
    if bool(n_ctx) != bool(depth):
        raise ValueError(
            f"n_ctx_{tower} and depth_{tower} must both be positive or both 0, "
            f"got {n_ctx} and {depth}"
        )
    return n_ctx


def _check_prefix(prefix: str, n_ctx: int, position: Position) -> None:
    found = len(token_ids(prefix))
    if found < n_ctx or (position != "end" and found != n_ctx):
        need = f"at least {n_ctx}" if position == "end" else f"exactly {n_ctx}"
        raise ValueError(
            f"prefix {prefix!r} must have {need} tokens for n_ctx {n_ctx} and position "
            f"{position!r}, got {found}"
        )


def _context_positions(name: str, n_ctx: int, position: Position) -> list[int]:
    """Where the context stands: behind the start token, the name in its middle or before it."""
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    after = 1 + before + len(token_ids(name))
    return [*range(1, 1 + before), *range(after, after + n_ctx - before)]


def _reorder(row: Tensor, positions: list[int]) -> Tensor:
    """Move the context, which tokenising put at 1..n, to `positions`; the rest keeps its order."""
    context = row[1 : 1 + len(positions)]
    rest = torch.cat([row[:1], row[1 + len(positions) :]])
    moved = torch.empty_like(row)
    others = torch.ones(len(row), dtype=torch.bool)
    others[positions] = False
    moved[positions], moved[others] = context, rest
    return moved
