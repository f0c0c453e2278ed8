"""Load a CLIP by name or from a file, in a chosen precision, or build a random one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from causalclip.clip.interface import PREFIX, closest_models
from causalclip.clip.openai_clip import (
    CLIP,
    RELEASED,
    ActivationError,
    CLIPModel,
    build_model,
    convert_weights,
    resolve_activation,
    use_gelu,
)
from causalclip.clip.weights import WEIGHT_SUFFIXES, is_released, random_tokens, read_weights
from causalclip.files.caches import at_home
from causalclip.files.digests import Known

Precision = Literal["fp32", "fp16", "bf16", "amp"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# The model cards of the bundled CLIPs are in the same folder.
_ASSETS = Path(__file__).parent / "assets"
BUNDLED_CLIPS = {name: _ASSETS / f"{name}.safetensors" for name in ("tiny", "tiny-coloured")}
_SCRIPT_ONLY_KEYS = ("input_resolution", "context_length", "vocab_size")  # of TorchScript archives


def available_models() -> list[str]:
    """Return the released and the bundled names that `load_clip` takes."""
    return [*RELEASED, *BUNDLED_CLIPS]


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
            `open_clip:MODEL/TAG` or `open_clip:MODEL/FILE`.
        device: device of the model.
        precision: `fp32`; `fp16` and `bf16` cast the weights that CLIP itself casts (LayerNorms and
            embeddings stay fp32); `amp` keeps fp32 weights for autocast.
        download_root: folder of released weights; by default OpenAI's, `~/.cache/clip`.
        trust_torchscript: whether to run a TorchScript archive that OpenAI did not release.
        activation: `quick_gelu` or `gelu`; needed only for a file whose activation is unknown.

    Raises:
        ActivationError: an activation that is unknown, missing or not that of the weights.
        ValueError: an unknown name or precision, or a file that holds no CLIP.
        FileNotFoundError: no file at the given path.
        ConnectionError: released weights that are neither here nor reachable.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}")
    if str(name).startswith(PREFIX):
        from causalclip.clip.open_clip_backbone import load_open_clip

        model = load_open_clip(name, device=device, precision=precision, activation=activation)
        return cast(CLIPModel, model)  # code that needs OpenAI's classes calls openai_model
    path = weights_file(str(name), download_root)
    state, recorded = read_weights(path, trust_torchscript=trust_torchscript)
    model = _build(state, path)
    if name in RELEASED or (not (recorded or activation) and is_released(path)):
        recorded = "quick_gelu"
    activation = resolve_activation(activation, recorded, str(name))
    if not activation:
        raise ActivationError(
            f"{path} does not record its activation, and its weights load as either: give "
            "quick_gelu (OpenAI, DFN, MetaCLIP) or gelu (LAION, DataComp), as MODEL.BACKBONE."
            "ACTIVATION quick_gelu; or name its open_clip model, open_clip:ViT-B-16/FILE"
        )
    if activation == "gelu":
        use_gelu(model)
    return _cast(model, precision).to(device).eval().requires_grad_(False)


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

    Four numbers as `vision_layers` build a ResNet tower. The token embedding is drawn from a
    separate generator, so that `save_tiny` can leave out rows that were never trained.
    """
    image = (image_resolution, vision_layers, vision_width, vision_patch_size)
    text = (context_length, vocab_size, transformer_width, transformer_heads, transformer_layers)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also reseed every accelerator.
        torch.default_generator.manual_seed(seed)
        model = CLIP(embed_dim, *image, *text)
    model.token_embedding.weight.data = random_tokens(vocab_size, transformer_width, seed)
    return model.eval()


def weights_file(name: str, download_root: str | os.PathLike | None = None) -> Path:
    """Return the path of the weights that `load_clip` loads for a name; download released ones.

    Raises:
        ValueError: an unknown name, or what was fetched is not what was released.
        FileNotFoundError: no file at the given path.
        ConnectionError: released weights that are neither here nor reachable.
    """
    if name in BUNDLED_CLIPS:
        path = BUNDLED_CLIPS[name]
        if not path.is_file():
            raise FileNotFoundError(
                f"the bundled weights {path} are missing; scripts/pretrain_tiny.py makes them"
            )
        return path
    if name in RELEASED:
        from causalclip.files.download import fetch

        url = RELEASED[name]
        folder = at_home(download_root or "~/.cache/clip", "HOME")
        return fetch(url, folder, known=Known(sha256=url.split("/")[-2]))
    path = at_home(name)
    if path.is_file():
        return path
    if path.suffix in WEIGHT_SUFFIXES or path.is_absolute():
        raise FileNotFoundError(f"no weights at {path}")
    raise ValueError(
        f"unknown CLIP {name!r}; nearest names: {closest_models(name, available_models())}; all "
        f"names: {', '.join(available_models())}; or give the path of a weights file"
    )


def _build(state: Mapping[str, Tensor], path: Path) -> CLIPModel:
    """Return the fp32 model of a state dict in the released layout."""
    state = {key: value for key, value in state.items() if key not in _SCRIPT_ONLY_KEYS}
    try:
        for name, value in state.items():  # integers are quantised weights
            if not (value.is_floating_point() or name.endswith("num_batches_tracked")):
                raise RuntimeError(f"{name} must be of a floating type, got {value.dtype}")
        with torch.device("meta"):  # skips an initialisation that would be overwritten
            model = build_model({key: value.to("meta") for key, value in state.items()})
        model = model.to_empty(device="cpu").float()  # build_model rounds to fp16
        mask = model.build_attention_mask()
        for block in model.transformer.resblocks:
            block.attn_mask = mask  # not in the state dict
        model.load_state_dict(state)
    except (KeyError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        reason = f"missing {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} holds no CLIP in the released layout: {reason}") from error
    return model


def _cast(model: CLIPModel, precision: Precision) -> CLIPModel:
    if precision in ("fp32", "amp"):
        return model
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    full = {name: weight.data for name, weight in model.named_parameters()}
    convert_weights(model)  # casts to fp16 what OpenAI casts
    for name, weight in model.named_parameters():
        if weight.dtype == torch.float16:
            weight.data = full[name].to(dtype)
    return model
