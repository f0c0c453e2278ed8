"""OpenAI's CLIP package, found by its distribution, as a checkout may contain another `clip`.

Its classes have no annotations; the types below are for annotations only.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

PRIVATE_NAME = "_causalclip_openai_clip"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _distribution_file() -> Path:
    for name in ("openai-clip", "clip"):  # on PyPI, and installed from OpenAI's repository
        try:
            path = Path(str(metadata.distribution(name).locate_file("clip/__init__.py")))
        except metadata.PackageNotFoundError:
            continue
        if path.with_name("simple_tokenizer.py").is_file():
            return path
    raise ImportError("OpenAI's CLIP is not installed: pip install openai-clip==1.0.1")


def _load_by_location(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        PRIVATE_NAME, path, submodule_search_locations=[str(path.parent)]
    )
    assert spec is not None, "a file has a spec"
    assert spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[PRIVATE_NAME] = module  # for its relative imports
    spec.loader.exec_module(module)
    return module


def _import_clip() -> ModuleType:
    path = _distribution_file()
    # `import clip` may find a modified copy in a checkout.
    first = sys.modules.get("clip") or importlib.util.find_spec("clip")
    origin = getattr(first, "__file__", None) or getattr(first, "origin", None)
    shadowed = origin is None or Path(origin).resolve() != path.resolve()
    with warnings.catch_warnings():
        # OpenAI's clip.py imports `packaging` from pkg_resources.
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        try:
            return _load_by_location(path) if shadowed else importlib.import_module("clip")
        except ImportError as error:
            if error.name != "pkg_resources":
                raise
            raise ImportError(
                "OpenAI's CLIP needs pkg_resources, which setuptools dropped in release 81 (and "
                'broke in 70.0.0): pip install "setuptools<81"'
            ) from error


_clip = _import_clip()
_clip_clip = sys.modules[f"{_clip.__name__}.clip"]
_clip_model = sys.modules[f"{_clip.__name__}.model"]
CLIP = _clip_model.CLIP
RELEASED: Mapping[str, str] = dict(_clip_clip._MODELS)  # name -> URL .../<sha256>/<file>
build_model = _clip_model.build_model
convert_weights = _clip_model.convert_weights
byte_pairs = _clip_clip._tokenizer
padded_tokens = _clip.tokenize


class Block(nn.Module):
    """A residual attention block on tokens (L, N, D)."""

    attn: nn.MultiheadAttention
    ln_1: nn.LayerNorm
    mlp: nn.Sequential
    ln_2: nn.LayerNorm


class Transformer(nn.Module):
    """The blocks of a tower."""

    width: int  # D
    layers: int
    resblocks: Sequence[Block]


class VisionTransformer(nn.Module):
    """The image tower of a ViT: images (B, 3, R, R) to features (B, E)."""

    conv1: nn.Conv2d
    class_embedding: nn.Parameter  # (D,)
    positional_embedding: nn.Parameter  # (1 + number of patches, D)
    ln_pre: nn.LayerNorm
    transformer: Transformer
    ln_post: nn.LayerNorm
    proj: nn.Parameter | None  # (D, E)


class CLIPModel(nn.Module):
    """OpenAI's CLIP: text tower of width D and context length L, joint space of E dimensions."""

    context_length: int  # L
    vocab_size: int
    token_embedding: nn.Embedding  # (vocabulary, D)
    positional_embedding: nn.Parameter  # (L, D)
    transformer: Transformer
    ln_final: nn.LayerNorm
    text_projection: nn.Parameter  # (D, E)
    visual: Any  # a VisionTransformer, or CLIP's ResNet
    logit_scale: nn.Parameter
    dtype: torch.dtype  # of the weights that CLIP casts
    encode_text: Callable[[Tensor], Tensor]  # token ids (N, L) to features (N, E)
    encode_image: Callable[[Tensor], Tensor]  # images (B, 3, R, R) to features (B, E)


def is_vit(model: CLIPModel) -> bool:
    """Return whether the image tower is a Vision Transformer (else it is CLIP's ResNet)."""
    return hasattr(model.visual, "transformer")


# OpenAI, DFN and MetaCLIP train with QuickGELU, x sigmoid(1.702 x); LAION and DataComp with GELU.
# Weights load with either, and few files record which one they were trained with.
Activation = Literal["quick_gelu", "gelu"]


class ActivationError(ValueError):
    """An activation that is unknown, missing or not that of the weights."""


def resolve_activation(given: str, recorded: str, name: str) -> str:
    """Return the activation of the weights `name`: `given` or `recorded`; either may be empty.

    Raises:
        ActivationError: another activation than recorded, or an unknown one.
    """
    for activation in (given, recorded):
        if activation not in ("", *get_args(Activation)):
            raise ActivationError(
                "activation must be quick_gelu, gelu or empty (where the weights record it), got "
                f"{activation!r}"
            )
    if given and recorded not in ("", given):
        raise ActivationError(f"activation must be {recorded} or empty for {name}, got {given!r}")
    return given or recorded


def use_gelu(model: CLIPModel) -> None:
    """Replace the QuickGELU of OpenAI's classes by GELU in every block."""
    towers = [model.transformer, *([model.visual.transformer] if is_vit(model) else [])]
    for tower in towers:
        for block in tower.resblocks:
            block.mlp.gelu = nn.GELU()  # the name in OpenAI's classes


def uses_gelu(model: CLIPModel) -> bool:
    """Return whether `use_gelu` was called on a model."""
    return isinstance(model.transformer.resblocks[0].mlp.gelu, nn.GELU)


def has_plain_text_tower(model: CLIPModel) -> bool:
    """Return whether no module that `text_tower.encode_layout` bypasses is hooked or overridden."""
    return type(model) is CLIP and _is_plain(model.transformer, model.token_embedding)


def has_plain_image_tower(model: CLIPModel) -> bool:
    """Return whether no module that `image_tower.read_tokens` bypasses is hooked or overridden."""
    if type(model) is not CLIP or type(model.visual) is not _clip_model.VisionTransformer:
        return False
    return _is_plain(model.visual.transformer, model.visual)


def _is_plain(transformer: Transformer, other: nn.Module) -> bool:
    blocks = transformer.resblocks
    return all(
        type(block) is _clip_model.ResidualAttentionBlock
        and type(block.attn) is nn.MultiheadAttention
        and not _is_hooked(block)
        and not _is_hooked(block.attn)
        for block in blocks
    ) and not any(_is_hooked(module) for module in (other, transformer, blocks))


def _is_hooked(module: Any) -> bool:
    return "forward" in vars(module) or any(getattr(module, hooks) for hooks in _HOOKS)
