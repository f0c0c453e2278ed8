"""Models of open_clip: `open_clip:MODEL/TAG`, or `open_clip:MODEL/FILE` for your own weights.

open_clip is an extra, imported when one of its models is loaded; it downloads to its own cache. How
a model works is read from the model: the text tower has a causal mask or none, and pools at the end
token, at the last position or at a class token after the text. The image tower is open_clip's own
ViT, timm's ViT, or no ViT.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from causalclip.clip.interface import (
    PREFIX,
    Backbone,
    Tokenizer,
    Tower,
    closest_models,
    run_with,
)
from causalclip.clip.openai_clip import resolve_activation
from causalclip.clip.weights import WEIGHT_SUFFIXES, read_weights
from causalclip.files.caches import at_home

# Errors that open_clip raises for weights that do not fit the model.
_MISFIT = (RuntimeError, KeyError, AttributeError, AssertionError, TypeError, IndexError)
_SETTINGS = ("mean", "std", "interpolation", "resize_mode")  # preprocessing, besides the size


@dataclass(frozen=True)
class ModelSource:
    """A model of open_clip and its weights: a tag or a file."""

    name: str  # as `load_clip` takes it
    model: str
    config: dict[str, Any]  # open_clip's configuration of the model
    released: dict[str, Any] = field(default_factory=dict)  # the tag's configuration
    file: Path | None = None


def parse_source(name: str) -> ModelSource:
    """Parse `open_clip:MODEL/TAG` or `open_clip:MODEL/FILE`.

    Raises:
        ValueError: open_clip is not installed, or has no such model or tag; names the nearest.
        FileNotFoundError: no file at the path.
    """
    open_clip = _open_clip()
    model, _, weights = name.removeprefix(PREFIX).partition("/")
    if model not in open_clip.list_models():
        raise ValueError(
            f"unknown open_clip model {model!r} in {name!r}; nearest names: "
            f"{closest_models(model, open_clip.list_models())}; it must be {PREFIX}MODEL/TAG or "
            f"{PREFIX}MODEL/FILE"
        )
    config, tags = open_clip.get_model_config(model), open_clip.list_pretrained_tags_by_model(model)
    if weights in tags:
        return ModelSource(name, model, config, open_clip.get_pretrained_cfg(model, weights))
    path = at_home(weights)
    if weights and path.is_file():
        return ModelSource(name, model, config, file=path)
    if path.suffix in WEIGHT_SUFFIXES:
        raise FileNotFoundError(f"no weights of {model} at {path}")
    raise ValueError(
        f"unknown weights {weights!r} of open_clip's {model}; nearest tags: "
        f"{closest_models(weights, tags)}; all tags: {', '.join(tags) or 'none'}; or give the path "
        f"of a file: {PREFIX}{model}/FILE"
    )


def preprocessing_of(name: str) -> dict[str, Any]:
    """Return the image preprocessing that a model of open_clip was trained with.

    The keys are size and open_clip's mean, std, interpolation and resize_mode. For a file, only the
    values on which all tags of its model agree are returned.

    Raises:
        ValueError: as `parse_source`, or another resize mode than shortest and squash.
    """
    source, open_clip = parse_source(name), _open_clip()
    size = source.config["vision_cfg"].get("image_size", 224)
    settings: dict[str, Any] = {"size": (size, size) if isinstance(size, int) else tuple(size)}
    configs = [source.released]
    if source.file:
        tags = open_clip.list_pretrained_tags_by_model(source.model)
        configs = [open_clip.get_pretrained_cfg(source.model, tag) for tag in tags]
    for key in _SETTINGS:
        values = [config.get(key) for config in configs]
        if values and values[0] is not None and all(value == values[0] for value in values):
            settings[key] = list(values[0]) if isinstance(values[0], tuple) else values[0]
    mode = settings.get("resize_mode", "squash")
    if mode not in ("shortest", "squash"):
        raise ValueError(f"{name} resizes images as {mode!r}, which is not offered")
    return settings


def load_open_clip(
    name: str, *, device: str | torch.device, precision: str, activation: str
) -> OpenCLIP:
    """Load a frozen model of open_clip in evaluation mode; arguments as in `load_clip`.

    Raises:
        ActivationError: another activation than the tag's.
        ValueError: as `parse_source`, a missing package of a tokenizer, or other weights.
        ConnectionError: weights or a tokenizer that are neither here nor reachable.
    """
    source = parse_source(name)
    quick = source.released.get("quick_gelu") or source.config.get("quick_gelu")
    recorded = "quick_gelu" if quick else "gelu"
    # open_clip would use the model's activation and only warn if the tag was trained with another.
    given = resolve_activation(activation, recorded if source.released else "", source.name)
    config = {**source.config, "quick_gelu": (given or recorded) == "quick_gelu"}
    tokenizer = _tokenizer(source)
    if source.file:
        read_weights(source.file)  # raises an error for damage, code and NaN
    file = source.file or _download(source)
    model = _create(source.model, file, precision, quick_gelu=config["quick_gelu"])
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    wrapped = OpenCLIP(model, tokenizer, source.name, config, dtype)
    return wrapped.to(device).eval().requires_grad_(False)


def _open_clip() -> ModuleType:
    try:
        return importlib.import_module("open_clip")
    except ImportError as error:
        raise ValueError(
            f"open_clip models need an extra: pip install 'causalclip[open_clip]' ({error})"
        ) from error


def _create(model: str, file: Path, precision: str, *, quick_gelu: bool) -> nn.Module:
    precision = precision if precision in ("fp16", "bf16") else "fp32"
    try:
        with torch.random.fork_rng(devices=[]):
            return _open_clip().create_model(
                model, pretrained=str(file), precision=precision, quick_gelu=quick_gelu
            )
    except _MISFIT as error:
        raise ValueError(
            f"{file} holds no {model}, or one of an image size that it cannot be "
            f"interpolated from: {error}"
        ) from error


def _hub_cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def _tokenizer(source: ModelSource) -> OpenCLIPTokenizer:
    name = source.config.get("text_cfg", {}).get("hf_tokenizer_name") or source.model
    try:
        return OpenCLIPTokenizer(_open_clip().get_tokenizer(source.model))
    except ImportError as error:
        raise ValueError(
            f"the tokenizer {name} of {source.model} needs another package: pip install "
            f"transformers sentencepiece ({error})"
        ) from error
    except OSError as error:
        raise ConnectionError(
            f"the tokenizer {name} of {source.model} is neither in {_hub_cache()} nor reachable: "
            f"{error}. Where there is a network, hf download {name} --include '*token*' "
            "'*.model' '*.json', and copy that folder here"
        ) from error


def _download(source: ModelSource) -> Path:
    hub, url = source.released.get("hf_hub", ""), source.released.get("url", "")
    try:
        return Path(_open_clip().download_pretrained(source.released))
    except (OSError, RuntimeError) as error:
        repo, _, file = hub.rpartition("/") if hub else ("", "", url.rpartition("/")[2])
        file = file or "open_clip_model.safetensors"
        how, folder = f"fetch {url}", at_home("~/.cache/clip")
        if hub:
            how, folder = f"hf download {repo} {file}", _hub_cache()
        raise ConnectionError(
            f"{file} of {source.name} is neither in {folder} nor reachable: {error}. Where there "
            f"is a network, {how}; copy it into that folder, or name the file: "
            f"{PREFIX}{source.model}//path/to/{file}"
        ) from error


class OpenCLIPTokenizer(Tokenizer):
    """A tokenizer of open_clip; its special tokens are counted in a row that it returns."""

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a tokenizer; raise ValueError if its rows do not contain the ids it encodes."""
        self.tokenizer = tokenizer
        full = self.pad(["a" + 100 * " a"], 32)[0]  # all but special tokens are "a"
        own = torch.isin(full, torch.tensor(self.ids("a a"))).nonzero().flatten()
        if not len(own):
            raise ValueError(f"{type(tokenizer).__name__} gives rows without the ids it encodes")
        self.start = int(own[0])
        self.added = len(full) - len(own)

    def ids(self, text: str) -> list[int]:
        """Return the ids of the tokens of `text`, without special ones."""
        if hasattr(self.tokenizer, "encode"):
            return list(self.tokenizer.encode(text))
        clean = getattr(self.tokenizer, "clean_fn", None) or _canonical
        return list(self.tokenizer.tokenizer(clean(text), add_special_tokens=False).input_ids)

    def pad(self, texts: list[str], context_length: int) -> Tensor:
        """Return token ids (N, context_length), padded as in the model's training."""
        return self.tokenizer(texts, context_length=context_length)


def _canonical(text: str) -> str:
    from open_clip.tokenizer import basic_clean, canonicalize_text  # as SigLipTokenizer does

    return canonicalize_text(basic_clean(text))


class OpenCLIP(nn.Module, Backbone):
    """An unmodified CLIP, CustomTextCLIP or CoCa of open_clip, with its tokenizer.

    Raises ValueError if the model's images are not square. `name` is for error messages, `config`
    is open_clip's, and `input_dtype` is the dtype of the images.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: OpenCLIPTokenizer,
        name: str,
        config: dict[str, Any],
        input_dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer, self.name, self.input_dtype = tokenizer, name, input_dtype
        self.embed_dim, self.architecture = config["embed_dim"], json.dumps(config, sort_keys=True)
        size = self.model.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        if height != width:
            raise ValueError(f"{name} reads images of {height} x {width} pixels, not square ones")
        self.image_size = int(height)
        # A text tower of another library has no context_length.
        own = hasattr(self._text, "token_embedding")
        self.context_length = (self._text if own else tokenizer.tokenizer).context_length

    @property
    def _text(self) -> Any:
        """The module that contains the parts of the text tower: `text`, or the CLIP itself."""
        return getattr(self.model, "text", self.model)

    @property
    def logit_scale(self) -> Tensor:
        """Logarithm of the cosines' scale. A bias is left out: it does not change a softmax."""
        return self.model.logit_scale.squeeze()

    def text_tower(self) -> Tower:
        """Return open_clip's text transformer; raise ValueError for another library's."""
        text = self._text
        if not hasattr(text, "token_embedding"):
            raise ValueError(
                f"text prompts need a text tower of open_clip's own, {self.name} has a "
                f"{type(text).__name__}: use a method without text prompts"
            )
        return _tower(text.transformer, text.token_embedding)

    def image_tower(self) -> Tower:
        """Return open_clip's or timm's Vision Transformer; raise ValueError for another tower."""
        visual = self.model.visual
        if hasattr(visual, "transformer"):
            return _tower(visual.transformer, visual.ln_pre, pools_patches=True)
        trunk = getattr(visual, "trunk", visual)
        if (rotary := _rotary(trunk)) is None:
            raise ValueError(
                f"image prompts need a ViT backbone, {self.name} has a {type(trunk).__name__}: use "
                "a method with text prompts alone"
            )
        tower = Tower(trunk.embed_dim, trunk.blocks, trunk.norm_pre, axis=1, norm="norm1")
        return replace(tower, pools_patches=True, rotary=rotary)

    def encode_image(self, images: Tensor) -> Tensor:
        """Return features (B, E) of images (B, 3, R, R), not normalised."""
        return self.model.encode_image(images.to(self.input_dtype), normalize=False)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return features (N, E) of tokens (N, L), not normalised."""
        return self.model.encode_text(tokens, normalize=False)

    def encode_text_truncated(self, tokens: Tensor) -> Tensor:
        """Return `encode_text`, cut to the longest text if nothing after its end is used."""
        ends = self._ends(tokens)
        if ends is None:
            return self.encode_text(tokens)
        length, text = int(ends.max()) + 1, self._text
        where = "model." if text is self.model else "model.text."
        shorter = {
            f"{where}attn_mask": text.attn_mask[:length, :length],
            f"{where}positional_embedding": text.positional_embedding[:length],
        }
        return run_with(self, shorter, lambda clip: clip.encode_text(tokens[:, :length]))

    def _ends(self, tokens: Tensor) -> Tensor | None:
        """Return the end (N,) of each text; None if tokens after the end are used as well."""
        text = self._text
        pool = getattr(text, "text_pool_type", getattr(text, "pool_type", ""))
        masked = getattr(text, "attn_mask", None) is not None
        if not masked or getattr(text, "cls_emb", None) is not None:
            return None
        if pool == "argmax":
            return tokens.argmax(dim=-1)
        if pool != "eos":
            return None
        is_end = tokens == (text.text_eos_id if hasattr(text, "text_eos_id") else text.eos_id)
        return is_end.int().argmax(dim=-1) if bool(is_end.any(dim=-1).all()) else None


def _tower(transformer: Any, entry: nn.Module, *, pools_patches: bool = False) -> Tower:
    axis = 1 if transformer.batch_first else 0
    return Tower(transformer.width, transformer.resblocks, entry, axis, pools_patches)


def _rotary(trunk: nn.Module) -> bool | None:
    """Return whether a tower of timm has rotary positions; None if it is not a plain ViT."""
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(trunk, VisionTransformer):
        plain = type(trunk).forward_features is VisionTransformer.forward_features
        return False if plain else None
    if isinstance(trunk, Eva) and type(trunk).forward_features is Eva.forward_features:
        return None if getattr(trunk, "rope_mixed", False) else trunk.rope is not None
    return None
