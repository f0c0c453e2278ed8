"""The augmentation families of CDC: each template sees its own view of the image (method 1.1).

The paper compares two sets, the second adding a random crop to each family; which transforms they
are is not published. The families here are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

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
PUBLISHED_VIEWS = ("flip_crop", "color_jitter", "gray_blur", "perspective_erasing")
CROPPED = ("flip_crop", "crop")
AS_CONFIGURED = "as_configured"  # no family: the transform that INPUT.TRANSFORMS describes


def family_view(
    family: str,
    size: Sequence[int],
    *,
    interpolation: str = "bicubic",
    mean: Sequence[float],
    std: Sequence[float],
    crop_scale: Sequence[float] = (0.08, 1.0),
    crop_all: bool = False,
) -> T.Compose:
    """Return the training transform of a family, PIL image to normalised tensor (3, H, W).

    `crop_all` is the paper's second set: a random resized crop in every family.

    Raises:
        ValueError: a family that does not exist.
    """
    if family not in FAMILIES:
        raise ValueError(
            f"augmentation family must be one of {', '.join(FAMILIES)}, got {family!r}"
        )
    mode = InterpolationMode[interpolation.upper()]
    on_image, on_tensor = FAMILIES[family]
    if crop_all or family in CROPPED:
        sized = [T.RandomResizedCrop(size, scale=tuple(crop_scale), interpolation=mode)]
    else:  # as at test: a picture keeps its proportions, and its centre is cut out
        sized = [T.Resize(max(size), interpolation=mode), T.CenterCrop(size)]
    return T.Compose([*sized, *on_image, T.ToTensor(), T.Normalize(mean, std), *on_tensor])
