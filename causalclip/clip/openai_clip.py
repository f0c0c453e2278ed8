"""OpenAI's package, whatever else is called `clip` here: its classes and its tokenizer.

This is the only import of `clip`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType

from torch import Tensor

PRIVATE_NAME = "_causalclip_openai_clip"


def _distribution_file() -> Path:
    """Where the installed distribution of OpenAI's CLIP keeps its package."""
    for name in ("openai-clip", "clip"):  # the package index, and an install from OpenAI's git
        try:
            path = Path(str(metadata.distribution(name).locate_file("clip/__init__.py")))
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
    assert spec is not None, "a file has a spec"
    assert spec.loader is not None, "and a .py file a loader"
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
build_model = _clip_model.build_model
convert_weights = _clip_model.convert_weights


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
