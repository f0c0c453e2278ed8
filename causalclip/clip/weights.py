"""Weights in files: TorchScript archives, state dicts, safetensors, and the bundled format."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from causalclip.clip.activation import is_released, uses_gelu
from causalclip.clip.kinds import backbone_of
from causalclip.clip.model import CLIPModel, is_vit
from causalclip.files.atomic import replacing
from causalclip.files.digests import is_vouched_for, require_vouched_for
from causalclip.files.json_file import parse_json

# What safetensors, torch and zipfile raise on damaged bytes.
DAMAGE = (
    SafetensorError,
    OSError,
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    zipfile.BadZipFile,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    AssertionError,
)
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
LARGEST = 1 << 20  # of a vocabulary or a width
TOKEN_STD = 0.02  # CLIP's own initialisation of the token embedding


def weights_digest(model: CLIPModel) -> str:
    """Return the sha256, in hexadecimal, of all weights: names, types, shapes and values.

    And of what its features follow from beside them, such as the activation.
    """
    digest = hashlib.sha256(backbone_of(model).architecture.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def save_tiny(
    model: CLIPModel,
    token_rows: Sequence[int] | Tensor,
    path: str | os.PathLike,
    *,
    fill_seed: int = 0,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a ViT CLIP made by `build_clip(seed=fill_seed)`, leaving out untrained token rows.

    Of the token embedding (vocabulary, D) only `token_rows` (N,) are stored; `load_clip` draws the
    others again, so the loaded model equals the saved one bit for bit.

    Raises:
        ValueError: a ResNet tower, GELU, or a row outside `token_rows` that is not as it was drawn.
    """
    if not is_vit(model):
        raise ValueError("save_tiny stores ViT models only, got a ResNet image tower")
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    table = state.pop("token_embedding.weight")
    rows = torch.as_tensor(token_rows, dtype=torch.long).unique()
    drawn = random_tokens(len(table), table.shape[1], fill_seed)
    drawn[rows] = table[rows]
    if changed := (drawn != table).any(dim=1).nonzero().flatten().tolist():
        raise ValueError(
            f"token rows {changed[:5]} are not in token_rows, but differ from those drawn with "
            f"fill_seed {fill_seed}"
        )
    state |= {"token_embedding.rows": rows, "token_embedding.values": table[rows]}
    if uses_gelu(model):
        raise ValueError("save_tiny stores QuickGELU models only, got one with GELU")
    header = {"architecture": json.dumps(_architecture(model)), "fill_seed": str(fill_seed)}
    with replacing(path) as part:
        save_file(state, part, metadata={**(metadata or {}), **header})


def random_tokens(rows: int, width: int, seed: int) -> Tensor:
    """Return a token embedding (rows, width) as CLIP starts it, the same for the same seed."""
    return _drawn_tokens(rows, width, seed).clone()


@lru_cache(maxsize=1)  # run after run, or a test of many, loads the same bundled CLIP
def _drawn_tokens(rows: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(rows, width).normal_(std=TOKEN_STD, generator=generator)


def _architecture(model: CLIPModel) -> dict[str, int]:
    """The arguments of `CLIP` that give a ViT model of this shape."""
    return {
        "embed_dim": model.text_projection.shape[1],
        "image_resolution": model.visual.input_resolution,
        "vision_layers": model.visual.transformer.layers,
        "vision_width": model.visual.conv1.out_channels,
        "vision_patch_size": model.visual.conv1.kernel_size[0],
        "context_length": model.context_length,
        "vocab_size": model.vocab_size,
        "transformer_width": model.transformer.width,
        "transformer_heads": model.transformer.resblocks[0].attn.num_heads,
        "transformer_layers": model.transformer.layers,
    }


def read_weights(
    path: Path, *, trust_torchscript: bool = False
) -> tuple[dict[str, Tensor], dict[str, int] | None]:
    """Return the state dict in `path` and, when the file tells it, the architecture.

    Raises:
        ValueError: a file that cannot be read as weights, that is damaged as far as its format or
            a digest beside it can tell, that would run code, or that holds a NaN.
    """
    vouched = is_vouched_for(path)
    architecture = None
    try:
        if path.suffix == ".safetensors":
            state, architecture = _read_safetensors(path)
        elif _is_torchscript(path):
            require_trusted(path, trust_torchscript)
            state = _read_torchscript(path)
        else:
            state = _read_pickle(path)
    except DAMAGE as error:
        raise ValueError(f"{path} cannot be read as weights: {_reason(error)}") from error
    if not (vouched or path.suffix == ".safetensors" or zipfile.is_zipfile(path)):
        require_vouched_for(path)
    _require_finite(state, path)
    return state, architecture


def require_trusted(path: Path, trust: bool) -> None:
    """Refuse a TorchScript archive, which is a program, unless OpenAI released it or `trust`.

    Raises:
        ValueError: it is neither; says how to get at its weights.
    """
    if trust or is_released(path):
        return
    raise ValueError(
        f"{path} is TorchScript, a program that runs when it is loaded, and none that OpenAI "
        "released. Ask its maker for a state dict or safetensors; or, if you trust who made it, "
        "give --trust-torchscript"
    )


def _reason(error: BaseException) -> str:
    """What an error says, without torch's advice to read the file with its code."""
    said = str(error)
    if "Weights only load failed" in said:
        return code_in(error) or "it is a pickle of something else than tensors"
    return said or "it is empty"


def code_in(error: BaseException) -> str:
    """What an error of torch's reader says of code in a pickle; "" where it is another error."""
    said = str(error)
    for mark in ("GLOBAL ", "Unsupported class "):
        if mark in said:
            name = said.split(mark, 1)[1].split()[0].rstrip(".,")
            return f"it holds a pickled {name}, which could run code; only tensors are read"
    return ""


def _require_finite(state: Mapping[str, Tensor], path: Path) -> None:
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{path}: {name} must be a tensor, got a {type(value).__name__}")
        if value.is_complex():
            raise ValueError(f"{path}: {name} must be real numbers, got {value.dtype}")
        if value.is_floating_point() and value.numel() and not _bounded(value):
            raise ValueError(f"{path} is damaged: {name} holds NaN or infinity")


def _bounded(value: Tensor) -> bool:
    """Whether all is finite: the extremes hand a NaN on, and need no copy of all values."""
    return all(bool(extreme.isfinite()) for extreme in value.aminmax())


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, int] | None]:
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no iterator)
    if "token_embedding.rows" not in state:
        return state, None
    try:
        architecture = parse_json(header["architecture"])
        _require_sizes(architecture, state)
        size = architecture["vocab_size"], architecture["transformer_width"]
        table = random_tokens(*size, int(header["fill_seed"]))
        table[state.pop("token_embedding.rows")] = state.pop("token_embedding.values")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its header or token rows: {error}") from error
    state["token_embedding.weight"] = table
    return state, architecture


def _require_sizes(architecture: Any, state: Mapping[str, Tensor]) -> None:
    """The header decides what is built, so it must say what the tensors are."""
    columns, width = state["visual.conv1.weight"], state["text_projection"].shape[0]
    allowed = {
        "embed_dim": state["text_projection"].shape[1],
        "vision_layers": _blocks(state, "visual.transformer.resblocks."),
        "vision_width": columns.shape[0],
        "vision_patch_size": columns.shape[-1],
        "context_length": state["positional_embedding"].shape[0],
        "transformer_width": width,
        "transformer_layers": _blocks(state, "transformer.resblocks."),
    }
    for name in (*allowed, "image_resolution", "vocab_size", "transformer_heads"):
        size = architecture[name]
        if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= LARGEST:
            raise ValueError(f"{name} must be an int in [1, {LARGEST}], got {size!r:.80}")
        if size != allowed.get(name, size):
            raise ValueError(f"{name} must be {allowed[name]}, as its tensors are, got {size}")


def _blocks(state: Mapping[str, Tensor], start: str) -> int:
    return len({name.removeprefix(start).split(".")[0] for name in state if name.startswith(start)})


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # The released files are TorchScript; only their weights are taken.
        warnings.filterwarnings("ignore", message=".*torch.jit.load.*deprecated")
        return torch.jit.load(str(path), map_location="cpu").state_dict()


def _read_pickle(path: Path) -> dict[str, Tensor]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch writes checksums, but does not read them
                raise zipfile.BadZipFile(f"the checksum of {damaged} does not match")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state
