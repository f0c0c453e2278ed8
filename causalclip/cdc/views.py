"""The augmentation families of CDC: each template sees its own view of the image (method 1.1).

The paper compares two sets, the second adding a random crop to each family; which transforms they
are is not published. The four families here are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

# Each family: (transforms of the PIL image, transforms of the normalised tensor).
FAMILIES: dict[str, tuple[list[nn.Module], list[nn.Module]]] = {
    "flip_crop": ([T.RandomHorizontalFlip()], []),
    "crop": ([], []),
    "color_jitter": ([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], []),
    "gray_blur": ([T.RandomGrayscale(0.5), T.GaussianBlur(3, (0.1, 2.0))], []),
    "perspective_erasing": ([T.RandomPerspective(0.3, p=0.5)], [T.RandomErasing(p=0.5)]),
    "plain": ([], []),
}
CROPPED = ("flip_crop", "crop")
AS_CONFIGURED = "as_configured"  # no family: the transform that INPUT.TRANSFORMS describes


def template_views(
    families: Sequence[str],
    size: tuple[int, int],
    *,
    interpolation: str = "bicubic",
    mean: Sequence[float],
    std: Sequence[float],
    crop_scale: tuple[float, float] = (0.08, 1.0),
    crop_all: bool = False,
) -> list[T.Compose]:
    """One training transform per family name, PIL image in, normalised (3, H, W) tensor out.

    `crop_all` is the paper's second set: a random resized crop in every family. Raises ValueError
    for a family that does not exist.
    """
    mode = InterpolationMode[interpolation.upper()]
    views = []
    for family in families:
        if family not in FAMILIES:
            raise ValueError(
                f"augmentation family must be one of {', '.join(FAMILIES)}, got {family!r}"
            )
        on_image, on_tensor = FAMILIES[family]
        if crop_all or family in CROPPED:
            sized = [T.RandomResizedCrop(size, scale=crop_scale, interpolation=mode)]
        else:  # as at test: a picture keeps its proportions, and its centre is cut out
            sized = [T.Resize(max(size), interpolation=mode), T.CenterCrop(size)]
        steps = [*sized, *on_image, T.ToTensor(), T.Normalize(mean, std), *on_tensor]
        views.append(T.Compose(steps))
    return views


def family_view(family: str, inputs: Mapping[str, Any], *, crop_all: bool) -> T.Compose:
    """The view of one family for images as the settings below INPUT describe them.

    Raises:
        ValueError: a family that does not exist.
    """
    (transform,) = template_views(
        [family],
        tuple(inputs["SIZE"]),
        interpolation=inputs["INTERPOLATION"],
        mean=inputs["PIXEL_MEAN"],
        std=inputs["PIXEL_STD"],
        crop_scale=tuple(inputs["RRCROP_SCALE"]),
        crop_all=crop_all,
    )
    return transform
