"""Learnable prompts: CoOp's, CoCoOp's, TCP's, MaPLe's, IVLP's and VPT's, and M sets of them (CDC).

Parameters are named as in the published code. `width` is the width of the text tower.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from causalclip.clip.interface import backbone_of
from causalclip.clip.openai_clip import CLIPModel
from causalclip.clip.prompt_set import IMAGE_PROJECTION, PromptSet
from causalclip.clip.texts import check_count, readable

STD = 0.02  # standard deviation of random starts, as published by all methods
Init = Tensor | None  # (n_ctx, width) start of the first depth; None for N(0, STD)


def embed_words(model: CLIPModel, words: str, n_ctx: int) -> Tensor:
    """Return the token embeddings (n_ctx, D) of the first `n_ctx` tokens of `words`.

    Raises:
        ValueError: words that have fewer tokens than `n_ctx`, or a text tower without prompts.
    """
    backbone = backbone_of(model)
    ids = backbone.tokenizer.ids(readable(words))
    if len(ids) < n_ctx:
        raise ValueError(f"{words!r} has {len(ids)} tokens, fewer than n_ctx {n_ctx}")
    return backbone.text_tower().entry.weight[ids[:n_ctx]].detach().clone()


class TextPrompts(nn.Module):
    """CoOp: context tokens before the class name (Zhou et al., IJCV 2022, section 3.1).

    With `n_classes`, learn a context per class (n_classes, n_ctx, width), for these classes only.
    """

    def __init__(
        self, n_ctx: int, width: int, *, init: Init = None, n_classes: int | None = None
    ) -> None:
        super().__init__()
        self.ctx = _tokens(n_ctx, width, init, lead=() if n_classes is None else (n_classes,))

    def forward(self) -> PromptSet:
        """Return the context as text prompts of depth 1."""
        return PromptSet(text=(self.ctx,))


class ConditionalPrompts(nn.Module):
    """CoCoOp: a context shifted by the image (Zhou et al., CVPR 2022, section 3.2).

    ctx(z) = ctx + W2 relu(W1 z), with z the normalised image features (E,), E >= 16, and a
    bottleneck of width E // 16.
    """

    def __init__(self, n_ctx: int, width: int, embed_dim: int, *, init: Init = None) -> None:
        super().__init__()
        if embed_dim < 16:
            raise ValueError(f"embed_dim must be at least 16 for the meta-net, got {embed_dim}")
        self.ctx = _tokens(n_ctx, width, init)
        self.meta_net = nn.Sequential()
        self.meta_net.add_module("linear1", nn.Linear(embed_dim, embed_dim // 16))
        self.meta_net.add_module("relu", nn.ReLU())
        self.meta_net.add_module("linear2", nn.Linear(embed_dim // 16, width))

    def forward(self, image_features: Tensor) -> PromptSet:
        """Return text prompts (B, n_ctx, width) for normalised image features (B, E)."""
        shift = self.meta_net(image_features.to(self.ctx.dtype))
        return PromptSet(text=(self.ctx + shift.unsqueeze(1),))


class ClassAwarePrompts(nn.Module):
    """TCP: tokens computed from CLIP's text feature of each class (Yao et al., CVPR 2024).

    All classes share a context before their names; on entering block `depth` (counted from 1, at
    least 2), tokens of each class replace it. The meta-net computes them from the class's frozen
    text feature w_k, through a bottleneck of width E // 4:

        T_k = W2 gelu(W1 w_k + b1) + b2,   gelu(x) = x sigmoid(1.702 x)

    `class_features`, the unit text features (K, E) with E >= 4, are not saved in a checkpoint.
    """

    class_features: Tensor

    def __init__(
        self, n_ctx: int, depth: int, width: int, class_features: Tensor, *, init: Init = None
    ) -> None:
        super().__init__()
        embed_dim = class_features.shape[1]
        if depth < 2:
            raise ValueError(f"depth must be an int of at least 2, got {depth!r}")
        if embed_dim < 4:
            raise ValueError(f"class_features must have at least 4 numbers each, got {embed_dim}")
        self.skipped = depth - 2
        self.ctx = _tokens(n_ctx, width, init)
        self.meta_net = nn.ModuleDict()
        self.meta_net["linear1"] = nn.Linear(embed_dim, embed_dim // 4)
        self.meta_net["linear2"] = nn.Linear(embed_dim // 4, n_ctx * width)
        self.register_buffer("class_features", class_features, persistent=False)

    def forward(self, class_features: Tensor | None = None) -> PromptSet:
        """Return the shared context and the tokens (K, n_ctx, width) of the classes.

        With `class_features` (K', E), return the tokens of those K' classes. Blocks between the
        context and the tokens are left as they are.
        """
        features = self.class_features if class_features is None else class_features
        hidden = self.meta_net["linear1"](features.to(self.ctx.dtype))
        own = self.meta_net["linear2"](hidden * torch.sigmoid(1.702 * hidden))
        return PromptSet((self.ctx, *[None] * self.skipped, own.unflatten(-1, self.ctx.shape)))


class CoupledPrompts(nn.Module):
    """MaPLe: deep text prompts, projected to image prompts (Khattak et al., CVPR 2023, sec. 3.2).

    Both towers have `n_ctx` tokens in each of their first `depth` blocks.
    """

    def __init__(
        self, n_ctx: int, depth: int, text_width: int, vision_width: int, *, init: Init = None
    ) -> None:
        super().__init__()
        check_count("depth", depth)
        self.ctx = _tokens(n_ctx, text_width, init)
        self.proj = nn.Linear(text_width, vision_width)
        self.compound_prompts_text = _deep_tokens(n_ctx, depth, text_width)
        # The published code copies one layer, so all projections start with the same weights.
        layer = nn.Linear(text_width, vision_width)
        self.compound_prompt_projections = copies(layer, depth - 1)

    def forward(self) -> PromptSet:
        """Return text prompts and their projections, one pair per depth."""
        text = (self.ctx, *self.compound_prompts_text)
        layers = (self.proj, *self.compound_prompt_projections)
        return PromptSet(text, tuple(f(prompt) for f, prompt in zip(layers, text, strict=True)))


class IndependentPrompts(nn.Module):
    """IVLP and PromptSRC: deep prompts in both towers, not coupled; VPT: in the image tower only.

    (Rasheed et al., CVPR 2023; Jia et al., ECCV 2022.) Each tower has `n_ctx` tokens in its first
    `depth` blocks; a tower without prompts has 0 tokens and depth 0.
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
        init: Init = None,
    ) -> None:
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
        """Return the prompts of each tower that has any."""
        return PromptSet(
            text=(self.ctx, *self.deep_text) if self.n_text else (),
            image=(self.ctx_vision, *self.deep_vision) if self.n_vision else (),
        )


class DecoupledPrompts(nn.Module):
    """CDC: M prompt modules of one kind, stacked (Zhang et al., NeurIPS 2024).

    Parameters that start from given words are equal in all M modules, and the diversity loss has no
    gradient that could separate them. So they, and no others, get independent Gaussian noise.

    `make` builds a module whose forward returns a `PromptSet`. `noise` is the standard deviation;
    with `relative` it is in units of the parameter's own. `shared` names submodules that all
    templates share, such as MaPLe's projections. With `projection`, the shape (D, E) of CLIP's
    image projection, each template learns a change of it, from zero, with the factor `scale`.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        n_templates: int,
        *,
        noise: float = STD,
        relative: bool = False,
        shared: Sequence[str] = (),
        projection: Sequence[int] | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_count("n_templates", n_templates)
        self.templates = nn.ModuleList(make() for _ in range(n_templates))
        if n_templates > 1:
            self._separate(noise, relative)
        for name in shared:
            for template in self.templates[1:]:
                setattr(template, name, getattr(self.templates[0], name))
        self.image_projection, self.scale = None, scale
        if projection is not None:
            self.image_projection = nn.Parameter(torch.zeros(n_templates, *projection))

    @torch.no_grad()
    def _separate(self, noise: float, relative: bool) -> None:
        for name in [name for name, _ in self.templates[0].named_parameters()]:
            copies = [template.get_parameter(name) for template in self.templates]
            if all(torch.equal(copies[0], other) for other in copies[1:]):
                std = noise * copies[0].std().item() if relative else noise
                for weight in copies:
                    weight.add_(torch.randn_like(weight), alpha=std)

    def forward(self, *inputs: Tensor) -> PromptSet:
        """Return the M prompt sets as one, each tensor with a leading M axis."""
        sets, change = [template(*inputs) for template in self.templates], self.image_projection
        return PromptSet(
            text=tuple(torch.stack(depth) for depth in zip(*(s.text for s in sets), strict=True)),
            image=tuple(torch.stack(depth) for depth in zip(*(s.image for s in sets), strict=True)),
            weights={} if change is None else {IMAGE_PROJECTION: self.scale * change},
        )


def copies(layer: nn.Module, count: int) -> nn.ModuleList:
    """Return copies of one layer, which start with the same weights."""
    return nn.ModuleList(copy.deepcopy(layer) for _ in range(count))


def _tokens(n_ctx: int, width: int, init: Init, *, lead: tuple[int, ...] = ()) -> nn.Parameter:
    """Return learnable tokens (*lead, n_ctx, width), from `init` or random."""
    check_count("n_ctx", n_ctx)
    if init is None:
        return nn.Parameter(torch.empty(*lead, n_ctx, width).normal_(std=STD))
    if init.shape != (n_ctx, width):
        raise ValueError(f"init must have shape ({n_ctx}, {width}), got {tuple(init.shape)}")
    return nn.Parameter(init.detach().to(torch.float32).expand(*lead, -1, -1).clone())


def _deep_tokens(n_ctx: int, depth: int, width: int) -> nn.ParameterList:
    return nn.ParameterList(_tokens(n_ctx, width, None) for _ in range(depth - 1))


def _check_tower(tower: str, n_ctx: int, depth: int) -> int:
    check_count(f"n_ctx_{tower}", n_ctx, least=0)
    check_count(f"depth_{tower}", depth, least=0)
    if bool(n_ctx) != bool(depth):
        raise ValueError(
            f"n_ctx_{tower} and depth_{tower} must both be positive or both 0, "
            f"got {n_ctx} and {depth}"
        )
    return n_ctx
