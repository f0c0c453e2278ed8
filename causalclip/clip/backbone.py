"""CLIP by a released name, a bundled one or a file, in a precision; and CLIPs built at random."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from causalclip.clip.activation import Activation, activation_of_file, check_activation, use_gelu
from causalclip.clip.model import CLIPModel, image_size, is_vit
from causalclip.clip.open_clip_loading import PREFIX, load_open_clip, preprocessing
from causalclip.clip.openai_clip import (
    CLIP,
    RELEASED,
    build_model,
    convert_weights,
    token_ids,
    tokenize,
)
from causalclip.clip.undrawn import undrawn
from causalclip.clip.weights import (
    WEIGHT_SUFFIXES,
    random_tokens,
    read_weights,
    save_tiny,
    weights_digest,
)
from causalclip.files.caches import at_home
from causalclip.files.download import Known, fetch

__all__ = [
    "BUNDLED",
    "CLIP",
    "CLIP_MEAN",
    "CLIP_STD",
    "RELEASED",
    "Precision",
    "available_models",
    "build_clip",
    "image_size",
    "is_vit",
    "load_clip",
    "save_tiny",
    "token_ids",
    "tokenize",
    "weights_digest",
    "weights_file",
]

Precision = Literal["fp32", "fp16", "bf16", "amp"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_ASSETS = Path(__file__).parent / "assets"
# What is confounded in which: the model cards beside them.
BUNDLED: Mapping[str, Path] = {
    name: _ASSETS / f"{name}.safetensors" for name in ("tiny", "tiny-coloured")
}

# The released key layout, and what the TorchScript archives add to it.
_SCRIPT_ONLY_KEYS = ("input_resolution", "context_length", "vocab_size")
_TEXT_KEYS = (
    "text_projection",
    "positional_embedding",
    "token_embedding.weight",
    "ln_final.weight",
    "logit_scale",
)
_VIT_KEYS = ("visual.conv1.weight", "visual.positional_embedding")
_RESNET_KEYS = ("visual.layer1.0.conv1.weight", "visual.attnpool.positional_embedding")


def available_models() -> list[str]:
    """Return the names `load_clip` knows: the released and the bundled ones."""
    return [*RELEASED, *BUNDLED]


def load_clip(
    name: str,
    *,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    download_root: str | os.PathLike | None = None,
    trust_torchscript: bool = False,
    activation: str = "",
) -> CLIPModel:
    """Load a frozen CLIP in evaluation mode.

    Args:
        name: a released or bundled name (`available_models()`), the path of a TorchScript archive,
            a state dict or a safetensors file in the released key layout, or a model of open_clip,
            `open_clip:MODEL/TAG`, `open_clip:MODEL/FILE`.
        device: where the model goes.
        precision: `fp32`; `fp16` and `bf16` cast the weights CLIP itself casts (its LayerNorms and
            embeddings stay fp32); `amp` keeps fp32 weights for autocast.
        download_root: the folder of released weights, by default `~/.cache/clip` as OpenAI's.
        trust_torchscript: whether a TorchScript archive may run that OpenAI did not release.
        activation: `quick_gelu` or `gelu`, which a file learned with that neither this package nor
            OpenAI wrote.

    Raises:
        ValueError: an unknown name, precision or activation, or a file that holds no CLIP.
        FileNotFoundError: no file at the given path.
        ConnectionError: released weights that are neither here nor reachable.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}")
    check_activation(activation)
    if str(name).startswith(PREFIX):
        model = load_open_clip(name, device=device, precision=precision, activation=activation)
        return cast(CLIPModel, model)  # whatever reads more than the protocol asks for OpenAI's
    path = weights_file(str(name), download_root)
    state, architecture = read_weights(path, trust_torchscript=trust_torchscript)
    model = _build(state, architecture, path)
    if _activation(name, path, activation, bundled_format=architecture is not None) == "gelu":
        use_gelu(model)
    return _cast(model, precision).to(device).eval().requires_grad_(False)


def preprocessing_of(name: str) -> dict[str, Any]:
    """What a model's images were in training, by the keys of INPUT; empty where it does not say.

    Raises:
        ValueError: an unknown model of open_clip's; names the nearest.
        FileNotFoundError: no file of weights at the path.
    """
    return preprocessing(name) if name.startswith(PREFIX) else {}


def build_clip(
    *,
    embed_dim: int = 32,
    image_resolution: int = 32,
    vision_layers: int | tuple[int, int, int, int] = 3,
    vision_width: int = 64,
    vision_patch_size: int = 8,
    context_length: int = 77,
    vocab_size: int = 49408,
    transformer_width: int = 64,
    transformer_heads: int = 1,
    transformer_layers: int = 3,
    seed: int = 0,
) -> CLIPModel:
    """Build a randomly initialised CLIP in fp32, the same for the same seed, with gradients on.

    Four numbers as `vision_layers` give a ResNet tower. The token embedding is drawn from a
    generator of its own, so that `save_tiny` need not store rows that were never trained.

    Raises:
        ValueError: a ViT width that 64-wide heads do not divide, or an image size that patches do
            not.
    """
    vit = isinstance(vision_layers, int)
    if vit and (vision_width < 64 or vision_width % 64):
        raise ValueError(f"vision_width must be a multiple of 64, got {vision_width}")
    step = vision_patch_size if vit else 32
    if image_resolution % step:
        raise ValueError(f"image_resolution must be a multiple of {step}, got {image_resolution}")
    if transformer_width % transformer_heads:
        raise ValueError(
            f"transformer_heads must divide transformer_width {transformer_width}, "
            f"got {transformer_heads}"
        )
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also reseed every accelerator.
        torch.default_generator.manual_seed(seed)
        model = CLIP(
            embed_dim,
            image_resolution,
            vision_layers,
            vision_width,
            vision_patch_size,
            context_length,
            vocab_size,
            transformer_width,
            transformer_heads,
            transformer_layers,
        )
    model.token_embedding.weight.data = random_tokens(vocab_size, transformer_width, seed)
    return model.eval()


def weights_file(name: str, download_root: str | os.PathLike | None = None) -> Path:
    """Where the weights of a name are, as `load_clip` takes it; released ones are fetched.

    Raises:
        ValueError: an unknown name, or what was fetched is not what was released.
        FileNotFoundError: no file at the given path.
        ConnectionError: released weights that are neither here nor reachable.
    """
    if name in BUNDLED:
        path = BUNDLED[name]
        if not path.is_file():
            raise FileNotFoundError(
                f"the bundled weights {path} are missing; scripts/pretrain_tiny.py makes them"
            )
        return path
    if name in RELEASED:
        url = RELEASED[name]
        folder = at_home(download_root or "~/.cache/clip", "HOME")
        return fetch(url, folder, known=Known(sha256=url.split("/")[-2]))
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.suffix in WEIGHT_SUFFIXES:
        raise FileNotFoundError(f"no weights at {path}")
    known = {model.lower(): model for model in available_models()}
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    raise ValueError(
        f"unknown CLIP {name!r}; nearest names: {', '.join(known[n] for n in near) or 'none'}; "
        f"all names: {', '.join(available_models())}; or give the path of a weights file"
    )


def _activation(name: str, path: Path, given: str, *, bundled_format: bool) -> Activation:
    if name not in RELEASED:
        return activation_of_file(path, given, bundled_format=bundled_format)
    if given == "gelu":
        raise ValueError(
            f"MODEL.BACKBONE.ACTIVATION must be quick_gelu or empty for {name}, got 'gelu'"
        )
    return "quick_gelu"


def _build(state: dict[str, Tensor], architecture: dict[str, int] | None, path: Path) -> CLIPModel:
    """Build the fp32 model of a state dict."""
    state = {key: value for key, value in state.items() if key not in _SCRIPT_ONLY_KEYS}
    _check_keys(state, path)
    try:
        with torch.random.fork_rng(devices=[]), undrawn():
            # build_model rounds to fp16, which is exact for released weights only.
            model = CLIP(**architecture) if architecture else build_model(dict(state))
        model.float().load_state_dict(state)
        _require_floats(model, state)
    except (RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise ValueError(f"{path} holds no CLIP in the released layout: {error}") from error
    return model


def _require_floats(model: CLIPModel, state: Mapping[str, Tensor]) -> None:
    """Whole numbers in place of weights are codes of some quantisation, and mean nothing here."""
    for name, weight in model.state_dict().items():
        if weight.is_floating_point() and not state[name].is_floating_point():
            raise RuntimeError(f"{name} must be of a floating type, got {state[name].dtype}")


def _check_keys(state: Mapping[str, Tensor], path: Path) -> None:
    needed = _TEXT_KEYS + (_VIT_KEYS if "visual.proj" in state else _RESNET_KEYS)
    if missing := [key for key in needed if key not in state]:
        raise ValueError(f"{path} holds no CLIP in the released layout: missing {missing}")


def _cast(model: CLIPModel, precision: Precision) -> CLIPModel:
    if precision in ("fp32", "amp"):
        return model
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    full = {name: weight.data for name, weight in model.named_parameters()}
    convert_weights(model)  # OpenAI's choice of what is cast
    for name, weight in model.named_parameters():
        if weight.dtype == torch.float16:
            weight.data = full[name].to(dtype)
    return model
