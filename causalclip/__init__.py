"""Causal adaptation of vision-language models: CDC and CLIP-ICM for code like CoOp and MaPLe.

The names below are loaded at their first use, so that `import causalclip` is fast.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causalclip.cdc.evidence import (
        Opinion,
        conflict,
        evidence_from_logits,
        fit_discount,
        fuse,
        opinion,
        probabilities,
        uncertainty,
    )
    from causalclip.cdc.losses import (
        consistency_loss,
        dirichlet_kl,
        diversity_loss,
        trusted_cross_entropy,
    )
    from causalclip.checks.trainer import check_trainer
    from causalclip.clip.backbone import available_models, load_clip
    from causalclip.clip.encode import encode_image, encode_text
    from causalclip.clip.injection import prompted
    from causalclip.clip.interface import tokenize
    from causalclip.clip.prompt_set import Additions, PromptSet
    from causalclip.clip.zeroshot import class_features, cosine_logits
    from causalclip.icm.interventions import ImageIntervention
    from causalclip.icm.subspace import InterventionMoments, InvariantProjection
    from causalclip.metrics import classification_metrics, novelty_auroc
    from causalclip.predict.predictor import Predictor
    from causalclip.predict.training import train

    __version__: str

__all__ = [
    "Additions",
    "ImageIntervention",
    "InterventionMoments",
    "InvariantProjection",
    "Opinion",
    "Predictor",
    "PromptSet",
    "__version__",
    "available_models",
    "check_trainer",
    "class_features",
    "classification_metrics",
    "conflict",
    "consistency_loss",
    "cosine_logits",
    "dirichlet_kl",
    "diversity_loss",
    "encode_image",
    "encode_text",
    "evidence_from_logits",
    "fit_discount",
    "fuse",
    "load_clip",
    "novelty_auroc",
    "opinion",
    "probabilities",
    "prompted",
    "tokenize",
    "train",
    "trusted_cross_entropy",
    "uncertainty",
]

_HOMES = {
    "cdc.evidence": "Opinion conflict evidence_from_logits fit_discount fuse opinion probabilities "
    "uncertainty",
    "cdc.losses": "consistency_loss dirichlet_kl diversity_loss trusted_cross_entropy",
    "checks.trainer": "check_trainer",
    "clip.backbone": "available_models load_clip",
    "clip.encode": "encode_image encode_text",
    "clip.injection": "prompted",
    "clip.interface": "tokenize",
    "clip.prompt_set": "Additions PromptSet",
    "clip.zeroshot": "class_features cosine_logits",
    "icm.interventions": "ImageIntervention",
    "icm.subspace": "InterventionMoments InvariantProjection",
    "metrics": "classification_metrics novelty_auroc",
    "predict.predictor": "Predictor",
    "predict.training": "train",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562) and store it in this module."""
    if name == "__version__":
        value = _version()
    elif name in _HOME_OF:
        value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("causalclip")
    except PackageNotFoundError:  # a checkout that is on the path and not installed
        return "0+unknown"


def _require_links() -> None:
    """Raise with a remedy if git wrote the links to the top-level folders as text files."""
    for name in ("trainers", "datasets", "configs", "minidassl"):
        if (link := Path(__file__).with_name(name)).is_file():
            raise ImportError(
                f"{link} must be a link to the folder {name}/, got a file: this checkout has no "
                "symbolic links. Either `git config core.symlinks true; git checkout -- causalclip`"
                ", or `pip install .` and run from elsewhere"
            )


def _provide_dassl() -> None:
    """Add minidassl's `dassl` to the end of the import path if no `dassl` is installed."""
    if "dassl" in sys.modules:
        return
    spec = find_spec("dassl")
    if spec is None or spec.origin is None:  # no origin: a folder of that name without __init__.py
        sys.path.append(str(Path(__file__).with_name("minidassl")))


_require_links()
_provide_dassl()
