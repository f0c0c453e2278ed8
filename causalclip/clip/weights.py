"""Weights in files: TorchScript archives, state dicts, safetensors, and the bundled format."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from causalclip.clip.model import CLIPModel, is_vit
from causalclip.files.atomic import replacing

TOKEN_STD = 0.02  # CLIP's own initialisation of the token embedding


def weights_digest(model: CLIPModel) -> str:
    """Return the sha256, in hexadecimal, of all weights: names, types, shapes and values."""
    digest = hashlib.sha256()
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

    Of the token embedding only `token_rows` are stored; `load_clip` draws the others again, so the
    loaded model equals the saved one bit for bit.

    Raises:
        ValueError: a ResNet tower, or a row outside `token_rows` that is not as it was drawn.
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
    header = {"architecture": json.dumps(_architecture(model)), "fill_seed": str(fill_seed)}
    with replacing(path) as part:
        save_file(state, part, metadata={**(metadata or {}), **header})


def random_tokens(rows: int, width: int, seed: int) -> Tensor:
    """Return a token embedding (rows, width) as CLIP starts it, the same for the same seed."""
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


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, int] | None]:
    """Return the state dict in `path` and, when the file tells it, the architecture.

    Raises:
        ValueError: a file that cannot be read as weights.
    """
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        state = _read_torchscript(path) if _is_torchscript(path) else _read_pickle(path)
    except (
        SafetensorError,
        OSError,
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(f"{path} cannot be read as weights: {error}") from error
    return state, None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, int] | None]:
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no iterator)
    if "token_embedding.rows" not in state:
        return state, None
    architecture = json.loads(header["architecture"])
    table = random_tokens(
        architecture["vocab_size"], architecture["transformer_width"], int(header["fill_seed"])
    )
    table[state.pop("token_embedding.rows")] = state.pop("token_embedding.values")
    state["token_embedding.weight"] = table
    return state, architecture


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
    state = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state
