"""Convert checkpoints of the published trainers to the prompt modules of this package."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from causalclip.clip.adapters import ComposedTokens, CoupledAdapters, RepresentationTokens
from causalclip.clip.interface import openai_model
from causalclip.clip.openai_clip import CLIPModel
from causalclip.clip.prompts import (
    ClassAwarePrompts,
    ConditionalPrompts,
    CoupledPrompts,
    IndependentPrompts,
    TextPrompts,
)

# Frozen tensors that identify the CLIP; the prompt learner alone saves only the start token.
FROZEN = {
    "image_encoder.class_embedding": "visual.class_embedding",
    "image_encoder.positional_embedding": "visual.positional_embedding",
    "text_encoder.positional_embedding": "positional_embedding",
    "text_encoder.text_projection": "text_projection",
}
# Parameters inside the published encoders; DEEP: prompts that enter block i >= 1.
INSIDE = {"image_encoder.VPT": "ctx_vision", "image_encoder.proj_rep": "proj_rep"}
INSIDE |= {f"image_encoder.{factor}": f"change.{factor}" for factor in "AB"}  # MMRL++'s
DEEP = re.compile(r"(image|text)_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow")
LEARNED = re.compile(
    r"ctx|meta_net\..*|proj\..*|compound_prompts_text\..*|compound_prompt_proj.*"
    r"|compound_rep_tokens.*|srra_r2[vt]proj\..*|(text|visual|shared)_adapter\..*"
)

Learned = dict[str, Tensor]
Built = tuple[nn.Module, dict[str, Any]]


def our_name(published: str) -> str | None:
    """Return our name for a published parameter; None for buffers and the frozen CLIP."""
    if published in INSIDE:
        return INSIDE[published]
    if deep := DEEP.fullmatch(published):
        tower = "vision" if deep[1] == "image" else "text"
        return f"deep_{tower}.{int(deep[2]) - 1}"
    name = published.removeprefix("prompt_learner.").removeprefix("representation_learner.")
    return name if LEARNED.fullmatch(name) else None


def check_backbone(state: Mapping[str, Tensor], clip: CLIPModel, backbone: str) -> None:
    """Raise ValueError unless the frozen tensors saved with the prompts are this CLIP's.

    Tensors are compared by cosine: published files round them to fp16, and PromptSRC averages them.
    """
    ours = openai_model(clip, "a published checkpoint").state_dict()
    pairs = {name: (state[name], ours.get(FROZEN[name])) for name in FROZEN if name in state}
    for name in ("token_prefix", "prompt_learner.token_prefix", "token_embedding"):
        if name in state:  # (K, 1 or 77, D): the start-of-text embedding first, once per class
            pairs[name] = (state[name][0, 0], clip.token_embedding.weight[49406])
    for name, (saved, own) in pairs.items():
        if own is None or saved.shape != own.shape:
            shape = None if own is None else tuple(own.shape)
            raise ValueError(
                f"published checkpoint of another backbone: {name} is {tuple(saved.shape)}, "
                f"{backbone} has {shape}"
            )
        if F.cosine_similarity(saved.float().flatten(), own.float().flatten(), dim=0) < 0.99:
            raise ValueError(
                f"published checkpoint of another backbone: {name} has other numbers than "
                f"{backbone}'s"
            )


def convert(trainer: str, state: Mapping[str, Tensor], clip: CLIPModel, backbone: str) -> Built:
    """Return the prompts of a published checkpoint as our module, and its sizes by setting.

    The sizes are read from the tensors. The settings are those of our trainer, in lower case.

    Raises:
        ValueError: a checkpoint of another backbone or of another method.
    """
    check_backbone(state, clip, backbone)
    if trainer not in BUILDERS:
        raise ValueError(f"trainer must be one of {', '.join(BUILDERS)}, got {trainer!r}")
    named = {our_name(name): value for name, value in state.items()}
    learned = {name: value.float() for name, value in named.items() if name is not None}
    try:
        module, sizes = BUILDERS[trainer](learned, clip)
        module.load_state_dict(learned, strict=True)
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"not a published {trainer} checkpoint for {backbone}: {error}; it learns "
            f"{', '.join(sorted(learned)) or 'nothing'}"
        ) from error
    if trainer == "PromptSRC":
        module.register_buffer("average", parameters_to_vector(module.parameters()).detach())
    return module, sizes


def _coop(learned: Learned, _clip: CLIPModel) -> Built:
    *classes, n_ctx, width = learned["ctx"].shape
    module = TextPrompts(n_ctx, width, n_classes=classes[0] if classes else None)
    return module, {"n_ctx": n_ctx, "csc": bool(classes)}


def _text(learned: Learned, clip: CLIPModel) -> Built:
    for name in [name for name in learned if name.startswith("meta_net.")]:
        del learned[name]  # KgCoOp saves a meta-net that it never uses
    module, sizes = _coop(learned, clip)
    return module, {"n_ctx": sizes["n_ctx"]}


def _conditional(learned: Learned, _clip: CLIPModel) -> Built:
    (n_ctx, width), embed_dim = learned["ctx"].shape, learned["meta_net.linear1.weight"].shape[1]
    return ConditionalPrompts(n_ctx, width, embed_dim), {"n_ctx": n_ctx}


def _class_aware(learned: Learned, _clip: CLIPModel) -> Built:
    (n_ctx, width), embed_dim = learned["ctx"].shape, learned["meta_net.linear1.weight"].shape[1]
    features = learned["ctx"].new_empty(0, embed_dim)
    return ClassAwarePrompts(n_ctx, 2, width, features), {"n_ctx": n_ctx}


def _coupled(learned: Learned, _clip: CLIPModel) -> Built:
    depth = 1 + _count(learned, "compound_prompts_text.")
    (n_ctx, width), vision_width = learned["ctx"].shape, learned["proj.weight"].shape[0]
    module = CoupledPrompts(n_ctx, depth, width, vision_width)
    return module, {"n_ctx": n_ctx, "prompt_depth": depth}


def _independent(learned: Learned, clip: CLIPModel) -> Built:
    n_text, n_vision = (len(learned.get(name, ())) for name in ("ctx", "ctx_vision"))
    depth_text = 1 + _count(learned, "deep_text.") if n_text else 0
    depth_vision = 1 + _count(learned, "deep_vision.") if n_vision else 0
    widths = clip.token_embedding.weight.shape[1], clip.visual.conv1.weight.shape[0]
    module = IndependentPrompts(n_text, n_vision, depth_text, depth_vision, *widths)
    vision = {"n_ctx_vision": n_vision, "prompt_depth_vision": depth_vision}
    return module, {**vision, "n_ctx_text": n_text, "prompt_depth_text": depth_text}


def _vision(learned: Learned, clip: CLIPModel) -> Built:
    module, sizes = _independent(learned, clip)
    return module, {name: size for name, size in sizes.items() if name.endswith("vision")}


def _representation(learned: Learned, clip: CLIPModel) -> Built:
    """Assume the last layers: the checkpoint shows only their number."""
    count, depth = _count(learned, "compound_rep_tokens_r2vproj.") // 2, clip.transformer.layers
    n_tokens, dim = learned["compound_rep_tokens"].shape
    layers, widths = range(depth - count + 1, depth + 1), learned["proj_rep"].shape
    module = RepresentationTokens(n_tokens, dim, layers, clip.transformer.width, *widths)
    return module, {"n_rep_tokens": n_tokens, "rep_dim": dim, "rep_layers": list(layers)}


def _composed(learned: Learned, clip: CLIPModel) -> Built:
    """Assume the last layers and MMRL++'s default share of new tokens, 0.9."""
    count, depth = _count(learned, "srra_r2vproj.") // 3, clip.transformer.layers
    n_tokens, dim = learned["compound_rep_tokens"].shape
    layers = range(depth - count + 1, depth + 1)
    ranks = learned["srra_r2vproj.srra.0.A"].shape[1], learned["change.A"].shape[1]
    module = ComposedTokens(
        *(n_tokens, dim, layers, clip.transformer.width, clip.visual.proj),
        rank=ranks[0],
        projection_rank=ranks[1],
        new_share=0.9,
    )
    sizes = {"n_rep_tokens": n_tokens, "rep_dim": dim, "rep_layers": list(layers)}
    return module, {**sizes, "res_lora_dim": ranks[0], "proj_lora_dim": ranks[1]}


def _adapters(learned: Learned, clip: CLIPModel) -> Built:
    """Use MMA's published scale 0.001, which is not in the checkpoint."""
    numbers = {int(name.split(".")[1]) for name in learned if name.startswith("shared_adapter.")}
    start, end = min(numbers, default=0), max(numbers, default=0)
    dim, text_width = learned[f"text_adapter.{start}.down.0.weight"].shape
    width = clip.visual.conv1.weight.shape[0]
    module = CoupledAdapters(start, end, dim, text_width, width, scale=0.001)
    return module, {"adapter_start": start, "adapter_end": end, "adapter_dim": dim}


def _count(learned: Mapping[str, Tensor], prefix: str) -> int:
    return sum(name.startswith(prefix) for name in learned)


BUILDERS: Mapping[str, Callable[[Learned, CLIPModel], Built]] = {
    "CoOp": _coop,
    "CoCoOp": _conditional,
    "KgCoOp": _text,
    "ProGrad": _text,
    "TCP": _class_aware,
    "MaPLe": _coupled,
    "IVLP": _independent,
    "VPT": _vision,
    "PromptSRC": _independent,
    "MMRL": _representation,
    "MMRLpp": _composed,
    "MMA": _adapters,
    "MMApp": _adapters,
}
