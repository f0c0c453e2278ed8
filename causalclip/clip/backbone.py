"""CLIP itself: released names, bundled ones or local files; the only import of `clip`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import json
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from causalclip.clip.model import CLIPModel
from causalclip.files.atomic import replacing
from causalclip.files.download import fetch

Precision = Literal["fp32", "fp16", "bf16", "amp"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

PRIVATE_NAME = "_causalclip_openai_clip"
_ASSETS = Path(__file__).parent / "assets"
# What is confounded in which: the model cards beside them.
BUNDLED: Mapping[str, Path] = {
    name: _ASSETS / f"{name}.safetensors" for name in ("tiny", "tiny-coloured")
}
TOKEN_STD = 0.02  # CLIP's own initialisation of the token embedding
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")

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


def _distribution_file() -> Path:
    """Where the installed distribution of OpenAI's CLIP keeps its package."""
    for name in ("openai-clip", "clip"):  # the package index, and an install from OpenAI's git
        try:
            path = Path(metadata.distribution(name).locate_file("clip/__init__.py"))
        except metadata.PackageNotFoundError:
            continue
        if path.with_name("simple_tokenizer.py").is_file():
            return path
    raise ImportError("OpenAI's CLIP is not installed: pip install openai-clip==1.0.1")


def _first_on_path() -> Path | None:
    """The file that `import clip` gives here, which may be a checkout's vendored fork."""
    if "clip" in sys.modules:
        origin = getattr(sys.modules["clip"], "__file__", None)
    else:
        spec = importlib.util.find_spec("clip")
        origin = spec.origin if spec else None
    return Path(origin) if origin else None


def _load_by_location(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        PRIVATE_NAME, path, submodule_search_locations=[str(path.parent)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[PRIVATE_NAME] = module  # its relative imports look themselves up here
    spec.loader.exec_module(module)
    return module


def _import_clip() -> ModuleType:
    """Import OpenAI's package, whatever else is called `clip` on this machine."""
    path = _distribution_file()
    first = _first_on_path()
    shadowed = first is None or first.resolve() != path.resolve()
    with warnings.catch_warnings():
        # Not ours to mend: OpenAI's clip.py takes `packaging` out of pkg_resources.
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
ResidualAttentionBlock = _clip_model.ResidualAttentionBlock
VisionTransformer = _clip_model.VisionTransformer
RELEASED: Mapping[str, str] = dict(_clip_clip._MODELS)  # name -> URL .../<sha256>/<file>


def available_models() -> list[str]:
    """Return the names `load_clip` knows: the released and the bundled ones."""
    return [*RELEASED, *BUNDLED]


def load_clip(
    name: str,
    *,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    download_root: str | os.PathLike | None = None,
) -> CLIPModel:
    """Load a frozen CLIP in evaluation mode.

    Args:
        name: a released or bundled name (`available_models()`), or the path of a TorchScript
            archive, a state dict or a safetensors file in the released key layout.
        device: where the model goes.
        precision: `fp32`; `fp16` and `bf16` cast the weights CLIP itself casts (its LayerNorms and
            embeddings stay fp32); `amp` keeps fp32 weights for autocast.
        download_root: the folder of released weights, by default `~/.cache/clip` as OpenAI's.

    Raises:
        ValueError: an unknown name or precision, or a file that holds no CLIP.
        FileNotFoundError: no file at the given path.
        ConnectionError: released weights that are neither here nor reachable.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}")
    path = _weights_path(str(name), download_root)
    model = _cast(_build(*_read_weights(path), path), precision)
    return model.to(device).eval().requires_grad_(False)


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
    model.token_embedding.weight.data = _random_tokens(vocab_size, transformer_width, seed)
    return model.eval()


def tokenize(texts: str | Sequence[str], context_length: int = 77, *, cut: bool = False) -> Tensor:
    """Return the token ids (N, context_length) of `texts`, int64, padded with zeros.

    With `cut` a text that is longer than the context loses its last tokens but the end token.

    Raises:
        ValueError: a text longer than the context without `cut`; the message quotes it.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    for text in () if cut else texts:
        if (length := n_tokens(text)) > context_length:
            raise ValueError(
                f"{text!r} takes {length} tokens, more than the context length {context_length}"
            )
    return _clip.tokenize(texts, context_length, truncate=cut).long()


def n_tokens(text: str) -> int:
    """Return how many tokens `text` takes, the start and end tokens among them."""
    return len(token_ids(text)) + 2


def token_ids(text: str) -> list[int]:
    """Return the ids of the tokens of `text`, without the start and end tokens."""
    return _clip_clip._tokenizer.encode(text)


def image_size(model: CLIPModel) -> int:
    """Return the side of the square images `model` reads, in pixels."""
    return model.visual.input_resolution


def is_vit(model: CLIPModel) -> bool:
    """Tell whether the image tower is a Vision Transformer (else it is CLIP's ResNet)."""
    return hasattr(model.visual, "transformer")


def weights_digest(model: nn.Module) -> str:
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
    drawn = _random_tokens(*table.shape, fill_seed)
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


def _random_tokens(rows: int, width: int, seed: int) -> Tensor:
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


def _weights_path(name: str, download_root: str | os.PathLike | None) -> Path:
    if name in BUNDLED:
        path = BUNDLED[name]
        if not path.is_file():
            raise FileNotFoundError(
                f"the bundled weights {path} are missing; scripts/pretrain_tiny.py makes them"
            )
        return path
    if name in RELEASED:
        url = RELEASED[name]
        folder = Path(download_root or "~/.cache/clip").expanduser()
        return fetch(url, folder, sha256=url.split("/")[-2])
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


def _read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, int] | None]:
    """Return the state dict in `path` and, when the file tells it, the architecture."""
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
    table = _random_tokens(
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


def _build(state: dict[str, Tensor], architecture: dict[str, int] | None, path: Path) -> CLIPModel:
    """Build the fp32 model of a state dict."""
    state = {key: value for key, value in state.items() if key not in _SCRIPT_ONLY_KEYS}
    _check_keys(state, path)
    try:
        with torch.random.fork_rng(devices=[]):
            # build_model rounds to fp16, which is exact for released weights only.
            model = CLIP(**architecture) if architecture else _clip_model.build_model(dict(state))
        model.float().load_state_dict(state)
    except (RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise ValueError(f"{path} holds no CLIP in the released layout: {error}") from error
    return model


def _check_keys(state: Mapping[str, Tensor], path: Path) -> None:
    needed = _TEXT_KEYS + (_VIT_KEYS if "visual.proj" in state else _RESNET_KEYS)
    if missing := [key for key in needed if key not in state]:
        raise ValueError(f"{path} holds no CLIP in the released layout: missing {missing}")


def _cast(model: CLIPModel, precision: Precision) -> CLIPModel:
    if precision in ("fp32", "amp"):
        return model
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    full = {name: weight.data for name, weight in model.named_parameters()}
    _clip_model.convert_weights(model)  # OpenAI's choice of what is cast
    for name, weight in model.named_parameters():
        if weight.dtype == torch.float16:
            weight.data = full[name].to(dtype)
    return model
