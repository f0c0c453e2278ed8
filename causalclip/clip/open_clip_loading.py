"""open_clip's models by name: `open_clip:MODEL/TAG`, or `open_clip:MODEL/FILE` for own weights.

Weights and tokenizers come by open_clip's own download, into its cache. open_clip is an extra:
nothing here imports it before a model of its is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from causalclip.clip.open_clip_backbone import OpenCLIP, OpenCLIPTokenizer
from causalclip.clip.weights import WEIGHT_SUFFIXES, read_weights

PREFIX = "open_clip:"
# What open_clip raises of weights that are not the model's.
MISFIT = (RuntimeError, KeyError, AttributeError, AssertionError, TypeError, IndexError)
# INPUT keys, by the names that open_clip has for them
READ = {
    "PIXEL_MEAN": "mean",
    "PIXEL_STD": "std",
    "INTERPOLATION": "interpolation",
    "RESIZE_MODE": "resize_mode",
}


@dataclass(frozen=True)
class Source:
    """Where a model comes from."""

    model: str
    tag: str = ""
    file: Path | None = None

    @property
    def name(self) -> str:
        """As MODEL.BACKBONE.NAME says it."""
        return f"{PREFIX}{self.model}/{self.tag or self.file}"

    @property
    def config(self) -> dict[str, Any]:
        """open_clip's configuration of the model."""
        return _open_clip().get_model_config(self.model)

    @property
    def released(self) -> dict[str, Any]:
        """What open_clip knows of the tag; empty for a file."""
        return _open_clip().get_pretrained_cfg(self.model, self.tag) if self.tag else {}


def source_of(name: str) -> Source:
    """Read `open_clip:MODEL/TAG` or `open_clip:MODEL/FILE`.

    Raises:
        ValueError: open_clip is not installed, or knows no such model or tag; says the nearest.
        FileNotFoundError: no file at the path.
    """
    open_clip = _open_clip()
    model, _, weights = name.removeprefix(PREFIX).partition("/")
    if model not in open_clip.list_models():
        raise ValueError(
            f"unknown open_clip model {model!r} in {name!r}; nearest names: "
            f"{_nearest(model, open_clip.list_models())}; it must be {PREFIX}MODEL/TAG or "
            f"{PREFIX}MODEL/FILE"
        )
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights in tags:
        return Source(model, tag=weights)
    path = Path(weights).expanduser()
    if weights and path.is_file():
        return Source(model, file=path)
    if path.suffix in WEIGHT_SUFFIXES:
        raise FileNotFoundError(f"no weights of {model} at {path}")
    raise ValueError(
        f"unknown weights {weights!r} of open_clip's {model}; nearest tags: "
        f"{_nearest(weights, tags)}; all tags: {', '.join(tags) or 'none'}; or give the path of a "
        f"file: {PREFIX}{model}/FILE"
    )


def preprocessing(name: str) -> dict[str, Any]:
    """What a model's images were in training, by the keys of INPUT; without loading it.

    The size is the model's. The rest is the tag's; for a file, what all tags of its model agree on.

    Raises:
        ValueError: as in `source_of`, or a model that reads images in another way than we can.
    """
    source = source_of(name)
    size = source.config["vision_cfg"].get("image_size", 224)
    said: dict[str, Any] = {"SIZE": (size, size) if isinstance(size, int) else tuple(size)}
    known = _open_clip().get_pretrained_cfg
    tags = [source.tag] if source.tag else _open_clip().list_pretrained_tags_by_model(source.model)
    for key, theirs in READ.items():
        values = [known(source.model, tag).get(theirs) for tag in tags]
        if values and values[0] is not None and all(value == values[0] for value in values):
            said[key] = list(values[0]) if isinstance(values[0], tuple) else values[0]
    if said.get("RESIZE_MODE", "squash") not in ("shortest", "squash"):
        raise ValueError(f"{name} resizes images as {said['RESIZE_MODE']!r}, which is not offered")
    return said


def load_open_clip(
    name: str, *, device: str | torch.device, precision: str, activation: str
) -> OpenCLIP:
    """Load a frozen model of open_clip's in evaluation mode.

    Raises:
        ValueError: an unknown name, an activation that is not the tag's, a tokenizer that is
            missing, or weights that are not the model's.
        FileNotFoundError: no file at the given path.
        ConnectionError: weights or a tokenizer that are neither here nor reachable.
    """
    source = source_of(name)
    quick = _quick_gelu(source, activation)
    tokenizer = _tokenizer(source)
    if source.file:
        read_weights(source.file)  # refuses damage, code and NaN in words
    file = source.file or _downloaded(source)
    model = _created(source, file, precision, quick_gelu=quick)
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    wrapped = OpenCLIP(
        model,
        tokenizer,
        name=source.name,
        embed_dim=source.config["embed_dim"],
        architecture=json.dumps({**source.config, "quick_gelu": quick}, sort_keys=True),
        input_dtype=dtype,
    )
    return wrapped.to(device).eval().requires_grad_(False)


def _open_clip() -> ModuleType:
    try:
        return importlib.import_module("open_clip")
    except ImportError as error:
        raise ValueError(
            f"open_clip models need an extra: pip install 'causalclip[open_clip]' ({error})"
        ) from error


def _nearest(name: str, known: Iterable[str]) -> str:
    lower = {model.lower(): model for model in known}
    near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.4)
    return ", ".join(lower[found] for found in near) or "none"


def _quick_gelu(source: Source, activation: str) -> bool:
    """The tag's activation, or the model's own; a file's may be given otherwise than its model's.

    open_clip would take the model's and warn of a tag that learned with the other.
    """
    known = bool(source.released.get("quick_gelu") or source.config.get("quick_gelu"))
    if source.tag and activation and (activation == "quick_gelu") != known:
        raise ValueError(
            f"MODEL.BACKBONE.ACTIVATION must be {'quick_gelu' if known else 'gelu'} or empty for "
            f"{source.name}, got {activation!r}"
        )
    return activation == "quick_gelu" if activation else known


def _created(source: Source, file: Path, precision: str, *, quick_gelu: bool) -> torch.nn.Module:
    try:
        with torch.random.fork_rng(devices=[]):
            return _open_clip().create_model(
                source.model,
                pretrained=str(file),
                precision=precision if precision in ("fp16", "bf16") else "fp32",
                quick_gelu=quick_gelu,
            )
    except MISFIT as error:
        raise ValueError(
            f"{file} holds no {source.model}, or one of an image size that it cannot be "
            f"interpolated from: {error}"
        ) from error


def _tokenizer(source: Source) -> OpenCLIPTokenizer:
    wanted = source.config.get("text_cfg", {}).get("hf_tokenizer_name") or source.model
    try:
        return OpenCLIPTokenizer(_open_clip().get_tokenizer(source.model))
    except ImportError as error:
        raise ValueError(
            f"the tokenizer {wanted} of {source.model} needs another package: pip install "
            f"transformers sentencepiece ({error})"
        ) from error
    except OSError as error:
        raise ConnectionError(
            f"the tokenizer {wanted} of {source.model} is neither in {_hub_cache()} nor "
            f"reachable: {error}. Where there is a network, hf download {wanted} --include "
            f"'*token*' '*.model' '*.json', and copy that folder here"
        ) from error


def _downloaded(source: Source) -> Path:
    hub, url = source.released.get("hf_hub", ""), source.released.get("url", "")
    try:
        return Path(_open_clip().download_pretrained(source.released))
    except (OSError, RuntimeError) as error:
        repo, _, file = hub.rpartition("/") if hub else ("", "", url.rpartition("/")[2])
        file = file or "open_clip_model.safetensors"
        how = f"hf download {repo} {file}" if hub else f"fetch {url}"
        folder = _hub_cache() if hub else Path("~/.cache/clip").expanduser()
        raise ConnectionError(
            f"{file} of {source.name} is neither in {folder} nor reachable: {error}. Where there "
            f"is a network, {how}; copy it into that folder, or name the file: "
            f"{PREFIX}{source.model}//path/to/{file}"
        ) from error


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
