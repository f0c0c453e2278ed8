"""Checkpoints of the published trainers: their names for the learnable numbers, and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from causalclip.clip.adapters import CoupledAdapters, layers_of
from causalclip.clip.kinds import openai_model
from causalclip.clip.model import CLIPModel
from causalclip.clip.prompts import (
    ClassAwarePrompts,
    ConditionalPrompts,
    CoupledPrompts,
    IndependentPrompts,
    TextPrompts,
)
from causalclip.clip.representation import RepresentationTokens

# Frozen tensors that tell one CLIP from another; a prompt learner alone saves the start token.
FROZEN = {
    "image_encoder.class_embedding": "visual.class_embedding",
    "image_encoder.positional_embedding": "visual.positional_embedding",
    "text_encoder.positional_embedding": "positional_embedding",
    "text_encoder.text_projection": "text_projection",
}
INSIDE = {"image_encoder.VPT": "ctx_vision", "image_encoder.proj_rep": "proj_rep"}
DEEP = re.compile(r"(image|text)_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow")
LEARNED = re.compile(
    r"ctx|meta_net\..*|proj\..*|compound_prompts_text\..*|compound_prompt_proj.*"
    r"|compound_rep_tokens.*|(text|visual|shared)_adapter\..*"
)


def our_name(published: str) -> str | None:
    """Our name of a published learnable tensor; None for buffers and the frozen CLIP.

    Independent prompts live inside the published encoders: `image_encoder.VPT`, and
    `resblocks.i.VPT_shallow` for the tokens that enter block i >= 1; so does MMRL's projection.
    """
    if published in INSIDE:
        return INSIDE[published]
    if deep := DEEP.fullmatch(published):
        tower = "vision" if deep[1] == "image" else "text"
        return f"deep_{tower}.{int(deep[2]) - 1}"
    name = published.removeprefix("prompt_learner.").removeprefix("representation_learner.")
    return name if LEARNED.fullmatch(name) else None


def learned_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The learnable tensors of a published state dict under our names, in fp32.

    Their shapes stay, such as `ctx` (n, D) or (K, n, D); numbers that are not learned are left out.
    """
    named = {our_name(name): value for name, value in state.items()}
    return {name: value.float() for name, value in named.items() if name is not None}


def check_backbone(state: Mapping[str, Tensor], clip: CLIPModel, backbone: str) -> None:
    """Raise ValueError unless the frozen numbers saved beside the prompts are this CLIP's.

    Compared by direction, because the published files round them to fp16 (and PromptSRC averages
    them as well).
    """
    ours = openai_model(clip, "a published checkpoint").state_dict()
    found = {name: (state[name], ours.get(FROZEN[name])) for name in FROZEN if name in state}
    for name in ("token_prefix", "prompt_learner.token_prefix", "token_embedding"):
        if name in state:  # (K, 1 or 77, D): the start-of-text embedding first, once per class
            found[name] = (state[name][0, 0], clip.token_embedding.weight[49406])
    for name, (theirs, mine) in found.items():
        if mine is None or theirs.shape != mine.shape:
            shape = None if mine is None else tuple(mine.shape)
            raise ValueError(
                f"published checkpoint of another backbone: {name} is {tuple(theirs.shape)}, "
                f"{backbone} has {shape}"
            )
        if F.cosine_similarity(theirs.float().flatten(), mine.float().flatten(), dim=0) < 0.99:
            raise ValueError(
                f"published checkpoint of another backbone: {name} has other numbers than "
                f"{backbone}'s"
            )


def convert(trainer: str, state: Mapping[str, Tensor], clip: CLIPModel, backbone: str) -> nn.Module:
    """The prompts of a published checkpoint as our module, sizes read from its tensors.

    Its `ctx` is (n, D), or (K, n, D) with a context a class.

    Raises:
        ValueError: a checkpoint of another backbone or of another method.
    """
    check_backbone(state, clip, backbone)
    learned = learned_tensors(state)
    if trainer not in BUILDERS:
        raise ValueError(f"trainer must be one of {', '.join(BUILDERS)}, got {trainer!r}")
    try:
        module = BUILDERS[trainer](learned, clip)
        module.load_state_dict(learned, strict=True)
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"not a published {trainer} checkpoint for {backbone}: {error}; it learns "
            f"{', '.join(sorted(learned)) or 'nothing'}"
        ) from error
    if trainer == "PromptSRC":
        module.register_buffer("average", parameters_to_vector(module.parameters()).detach())
    return module


def configuration(trainer: str, module: nn.Module) -> dict[str, Any]:
    """The settings of our trainer that build a module of these sizes."""
    if isinstance(module, (TextPrompts, ConditionalPrompts, ClassAwarePrompts)):
        csc = {"CSC": module.ctx.dim() == 3} if trainer == "CoOp" else {}
        return {"N_CTX": module.ctx.shape[-2], **csc}
    if isinstance(module, CoupledPrompts):
        return {
            "N_CTX": module.ctx.shape[0],
            "PROMPT_DEPTH": 1 + len(module.compound_prompts_text),
        }
    if isinstance(module, RepresentationTokens):
        n_tokens, dim = module.compound_rep_tokens.shape
        return {"N_REP_TOKENS": n_tokens, "REP_DIM": dim, "REP_LAYERS": f'"{list(module.layers)}"'}
    if isinstance(module, CoupledAdapters):
        layers = {"ADAPTER_START": module.layers[0], "ADAPTER_END": module.layers[-1]}
        return {**layers, "ADAPTER_DIM": module.dim}
    assert isinstance(module, IndependentPrompts), "BUILDERS makes nothing else"
    settings: dict[str, Any] = {
        "N_CTX_VISION": module.n_vision,
        "PROMPT_DEPTH_VISION": 1 + len(module.deep_vision) if module.n_vision else 0,
    }
    if trainer == "VPT":
        return settings
    return settings | {"N_CTX_TEXT": module.n_text, "PROMPT_DEPTH_TEXT": 1 + len(module.deep_text)}


def _text(learned: dict[str, Tensor], _clip: CLIPModel) -> nn.Module:
    for name in [name for name in learned if name.startswith("meta_net.")]:
        del learned[name]  # KgCoOp saves a meta-net that it never uses
    *classes, n_ctx, width = learned["ctx"].shape
    return TextPrompts(n_ctx, width, n_classes=classes[0] if classes else None)


def _conditional(learned: dict[str, Tensor], _clip: CLIPModel) -> nn.Module:
    embed_dim = learned["meta_net.linear1.weight"].shape[1]
    n_ctx, width = learned["ctx"].shape
    return ConditionalPrompts(n_ctx, width, embed_dim)


def _class_aware(learned: dict[str, Tensor], _clip: CLIPModel) -> nn.Module:
    (n_ctx, width), embed_dim = learned["ctx"].shape, learned["meta_net.linear1.weight"].shape[1]
    return ClassAwarePrompts(n_ctx, 2, width, learned["ctx"].new_empty(0, embed_dim))


def _coupled(learned: dict[str, Tensor], _clip: CLIPModel) -> nn.Module:
    depth = 1 + _count(learned, "compound_prompts_text.")
    return CoupledPrompts(
        learned["ctx"].shape[0], depth, learned["ctx"].shape[1], learned["proj.weight"].shape[0]
    )


def _independent(learned: dict[str, Tensor], clip: CLIPModel) -> nn.Module:
    text, vision = learned.get("ctx"), learned.get("ctx_vision")
    return IndependentPrompts(
        0 if text is None else len(text),
        0 if vision is None else len(vision),
        0 if text is None else 1 + _count(learned, "deep_text."),
        0 if vision is None else 1 + _count(learned, "deep_vision."),
        clip.token_embedding.weight.shape[1],
        clip.visual.conv1.weight.shape[0],
    )


def _representation(learned: dict[str, Tensor], clip: CLIPModel) -> nn.Module:
    """Of its layers the checkpoint says how many; they are taken to be the last ones."""
    count, depth = _count(learned, "compound_rep_tokens_r2vproj.") // 2, clip.transformer.layers
    n_tokens, dim = learned["compound_rep_tokens"].shape
    vision_width, embed_dim = learned["proj_rep"].shape
    return RepresentationTokens(
        n_tokens,
        dim,
        range(depth - count + 1, depth + 1),
        clip.transformer.width,
        vision_width,
        embed_dim,
    )


def _adapters(learned: dict[str, Tensor], clip: CLIPModel) -> nn.Module:
    """Its scale is not in the checkpoint; 0.001 is the published one."""
    layers = layers_of(learned)
    dim, text_width = learned[f"text_adapter.{layers[0]}.down.0.weight"].shape
    width = clip.visual.conv1.weight.shape[0]
    return CoupledAdapters(layers[0], layers[-1], dim, text_width, width, scale=0.001)


def _count(learned: Mapping[str, Tensor], prefix: str) -> int:
    return sum(name.startswith(prefix) for name in learned)


BUILDERS = {
    "CoOp": _text,
    "CoCoOp": _conditional,
    "KgCoOp": _text,
    "ProGrad": _text,
    "TCP": _class_aware,
    "MaPLe": _coupled,
    "IVLP": _independent,
    "VPT": _independent,
    "PromptSRC": _independent,
    "MMRL": _representation,
    "MMA": _adapters,
}
