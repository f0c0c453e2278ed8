"""The learnable numbers: prompts of CoOp, CoCoOp, TCP, MaPLe, IVLP, VPT, and M sets of them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from causalclip.clip.kinds import backbone_of
from causalclip.clip.model import CLIPModel
from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.templates import spoken
from causalclip.clip.texts import check_count

STD = 0.02  # of random starts, as published by all four methods


def embed_words(model: CLIPModel, words: str, n_ctx: int) -> Tensor:
    """Return the token embeddings (n_ctx, D) of the first `n_ctx` tokens of `words`.

    Raises:
        ValueError: words that have fewer tokens than `n_ctx`, or a text tower without prompts.
    """
    backbone = backbone_of(model)
    ids = backbone.tokenizer.ids(spoken(words))
    if len(ids) < n_ctx:
        raise ValueError(f"{words!r} has {len(ids)} tokens, fewer than n_ctx {n_ctx}")
    return backbone.text_tower().entry.weight[ids[:n_ctx]].detach().clone()


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
    ) -> None:
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

    Raises:
        ValueError: features of fewer than 16 numbers.
    """

    def __init__(
        self, n_ctx: int, width: int, embed_dim: int, *, init: Tensor | None = None
    ) -> None:
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


class ClassAwarePrompts(nn.Module):
    """TCP: tokens made of what CLIP knows of each class (Yao et al., CVPR 2024).

    A context that all classes share stands in front of the names; on entering one block, tokens of
    each class take its place. They are the meta-net's reading of the class's frozen text feature,
    through a bottleneck of a quarter of its width:

        T_k = W2 gelu(W1 w_k + b1) + b2,   gelu(x) = x sigmoid(1.702 x)

    Args:
        n_ctx: number of tokens, of the context and of each class.
        depth: the block that the class's tokens enter, counted from 1; at least 2.
        width: width of the text tower.
        class_features: (K, E) unit text features w_k of the classes; no part of a checkpoint.
        init: (n_ctx, width) start of the context, by default N(0, 0.02).

    Raises:
        ValueError: a count or depth that is none, or features of fewer than 4 numbers.
    """

    class_features: Tensor

    def __init__(
        self,
        n_ctx: int,
        depth: int,
        width: int,
        class_features: Tensor,
        *,
        init: Tensor | None = None,
    ) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"depth must be an int of at least 2, got {depth!r}")
        self.skipped = depth - 2
        self.ctx = _tokens(n_ctx, width, init)
        embed_dim = class_features.shape[1]
        hidden = embed_dim // 4
        if hidden < 1:
            raise ValueError(f"class_features must have at least 4 numbers each, got {embed_dim}")
        self.meta_net = nn.ModuleDict(
            OrderedDict(
                linear1=nn.Linear(embed_dim, hidden),
                linear2=nn.Linear(hidden, n_ctx * width),
            )
        )
        self.register_buffer("class_features", class_features, persistent=False)

    def forward(self, class_features: Tensor | None = None) -> PromptSet:
        """Return the context and the tokens (K, n_ctx, width) of the classes, or of others (K', E).

        The blocks between them are left as they are.
        """
        known = self.class_features if class_features is None else class_features
        hidden = self.meta_net["linear1"](known.to(self.ctx.dtype))
        own = self.meta_net["linear2"](hidden * torch.sigmoid(1.702 * hidden))
        return PromptSet((self.ctx, *[None] * self.skipped, own.unflatten(-1, self.ctx.shape)))


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
    ) -> None:
        super().__init__()
        check_count("depth", depth)
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
        relative: `noise` is in units of the standard deviation of the numbers it disturbs.
        shared: names of submodules that all templates have in common, such as MaPLe's projections.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        n_templates: int,
        *,
        noise: float = STD,
        relative: bool = False,
        shared: Sequence[str] = (),
    ) -> None:
        super().__init__()
        check_count("n_templates", n_templates)
        self.templates = nn.ModuleList(make() for _ in range(n_templates))
        if n_templates > 1:
            self._separate(noise, relative)
        for name in shared:
            for template in self.templates[1:]:
                setattr(template, name, getattr(self.templates[0], name))

    @torch.no_grad()
    def _separate(self, noise: float, relative: bool) -> None:
        names = [name for name, _ in self.templates[0].named_parameters()]
        for name in names:
            copies = [template.get_parameter(name) for template in self.templates]
            if all(torch.equal(copies[0], other) for other in copies[1:]):
                std = noise * copies[0].std().item() if relative else noise
                for weight in copies:
                    weight.add_(torch.randn_like(weight), alpha=std)

    def forward(self, *inputs: Tensor) -> PromptSet:
        """Return the M prompt sets in one, each tensor with a leading M axis."""
        sets = [template(*inputs) for template in self.templates]
        return PromptSet(
            text=tuple(torch.stack(depth) for depth in zip(*(s.text for s in sets), strict=True)),
            image=tuple(torch.stack(depth) for depth in zip(*(s.image for s in sets), strict=True)),
        )


def _tokens(
    n_ctx: int, width: int, init: Tensor | None, *, lead: tuple[int, ...] = ()
) -> nn.Parameter:
    """Learnable tokens (*lead, n_ctx, width), from `init` or N(0, 0.02)."""
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
