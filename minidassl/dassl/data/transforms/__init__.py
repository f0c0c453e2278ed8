"""Image transforms, chosen by name."""

from __future__ import annotations

from dassl.data.transforms.transforms import (
    AVAI_CHOICES,
    INTERPOLATION_MODES,
    build_transform,
    interpolation_mode,
)

__all__ = ["AVAI_CHOICES", "INTERPOLATION_MODES", "build_transform", "interpolation_mode"]
