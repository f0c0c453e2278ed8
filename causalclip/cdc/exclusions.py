"""Settings of CDC that are allowed each, and not together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from causalclip.cdc.objective import WITHOUT_EVIDENCE
from causalclip.cdc.views import AS_CONFIGURED


def excluded(settings: Mapping[str, Any]) -> Iterator[str]:
    """Complaints about a method's settings: the key, what suits the others, and what came."""
    yield from _of_fusion(settings)
    yield from _of_losses(settings)
    if settings["CROP_ALL_VIEWS"] and AS_CONFIGURED in settings["VIEWS"]:
        yield (
            f"CROP_ALL_VIEWS must be False where VIEWS holds {AS_CONFIGURED}, whose crop "
            "INPUT.TRANSFORMS says, got True"
        )


def _of_fusion(settings: Mapping[str, Any]) -> Iterator[str]:
    eta, n_templates = settings["DISCOUNT"], settings["N_TEMPLATES"]
    if isinstance(eta, (int, float)) and eta < 1 / n_templates:
        allowed = f"None or geometric, fit or a number in [{1 / n_templates:g}, 1]"
        yield f"DISCOUNT must be {allowed}, got {eta}"
    trusted, fusion = settings["LOSS"] == "trusted", settings["FUSION"]
    if trusted and settings["FUSED_LOSS"] and fusion in WITHOUT_EVIDENCE:
        yield (
            f"FUSED_LOSS must be False where LOSS is trusted and FUSION is {fusion}, which gives "
            "no opinion, got True"
        )


def _of_losses(settings: Mapping[str, Any]) -> Iterator[str]:
    if settings["KL_WEIGHT"] and settings["LOSS"] != "trusted":
        yield f"KL_WEIGHT must be 0 where LOSS is {settings['LOSS']}, got {settings['KL_WEIGHT']}"
    if settings["VISION"] == "none":  # nothing that learns shapes the image features
        for key in ("BETA_IMAGE", "GAMMA_IMAGE"):
            if settings[key]:
                yield f"{key} must be 0 where VISION is none, got {settings[key]}"
