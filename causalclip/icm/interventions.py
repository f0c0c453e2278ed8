"""CLIP-ICM's interventions on PIL images, before CLIP's preprocessing; they keep the class."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from PIL import Image, ImageChops
from torchvision.transforms import functional as TF

ImageKind = Literal["jitter", "grayscale", "blur", "invert", "posterize", "solarize", "equalize"]
IMAGE_KINDS: tuple[ImageKind, ...] = get_args(ImageKind)

# Number of rounds through all kinds before an image that none of them changes is an error.
N_ROUNDS = 8


@dataclass(frozen=True)
class ImageInterventionParams:
    """Strengths of the seven image interventions; all [ours], the published ones are unknown."""

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    """Jitter: factors are uniform in [1 - x, 1 + x], the hue's shift in [-x, x] of a full turn."""
    blur_kernel: int = 23
    """Kernel size in pixels for an image whose shorter side is `blur_reference`."""
    blur_reference: int = 224
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    posterize_bits: int = 4
    solarize_threshold: int = 128

    def scaled(self, strength: float) -> ImageInterventionParams:
        """Return these strengths times a positive factor, clipped to their ranges.

        A posterized image loses `strength` times as many of its 8 bits, a solarized one is inverted
        from a threshold that is `strength` times as far below 256. Grayscale, invert and equalize
        have no strength.
        """
        threshold = 256 - (256 - self.solarize_threshold) * strength
        return replace(
            self,
            brightness=min(1.0, self.brightness * strength),
            contrast=min(1.0, self.contrast * strength),
            saturation=min(1.0, self.saturation * strength),
            hue=min(0.5, self.hue * strength),
            blur_kernel=max(1, round(self.blur_kernel * strength)),
            blur_sigma=(self.blur_sigma[0] * strength, self.blur_sigma[1] * strength),
            posterize_bits=max(1, round(8 - (8 - self.posterize_bits) * strength)),
            solarize_threshold=min(255, max(0, round(threshold))),
        )


@dataclass(frozen=True)
class ImageIntervention:
    """One intervention on an image, drawn uniformly from `kinds` by the sample's own seed.

    `intervene(image, sample_seed(path, seed))` depends on its arguments only. A draw that changes
    no pixel, such as grayscale of a grey image, is replaced by another draw.
    """

    params: ImageInterventionParams = field(default_factory=ImageInterventionParams)
    kinds: tuple[ImageKind, ...] = IMAGE_KINDS

    def __post_init__(self) -> None:
        """Refuse unknown kinds."""
        unknown = sorted(set(self.kinds) - set(IMAGE_KINDS))
        if unknown or not self.kinds:
            raise ValueError(
                f"kinds must be some of {', '.join(IMAGE_KINDS)}, got {list(self.kinds)}"
            )

    def __call__(self, image: Image.Image, seed: int) -> Image.Image:
        """Return an RGB image of the same size that differs from `image`.

        Raises:
            ValueError: no kind changes this image, as with grayscale alone on a grey one.
        """
        before, rng = image.convert("RGB"), random.Random(seed)
        for kind in self._draws(rng):
            after = _APPLY[kind](before, self.params, rng)
            if ImageChops.difference(before, after).getbbox():
                return after
        raise ValueError(
            f"kinds must change the image, but none of {', '.join(self.kinds)} does: got a "
            f"{image.size[0]}x{image.size[1]} image in mode {image.mode}"
        )

    def _draws(self, rng: random.Random) -> Iterator[ImageKind]:
        """Yield kinds to try in turn: a uniform one, then others in case it changes no pixel."""
        for _ in range(N_ROUNDS):
            yield from rng.sample(self.kinds, len(self.kinds))


def _jitter(image: Image.Image, params: ImageInterventionParams, rng: random.Random) -> Image.Image:
    """Colour jitter with its four steps in random order, as torchvision's ColorJitter."""
    steps = [
        (TF.adjust_brightness, 1 + rng.uniform(-params.brightness, params.brightness)),
        (TF.adjust_contrast, 1 + rng.uniform(-params.contrast, params.contrast)),
        (TF.adjust_saturation, 1 + rng.uniform(-params.saturation, params.saturation)),
        (TF.adjust_hue, rng.uniform(-params.hue, params.hue)),
    ]
    rng.shuffle(steps)
    for adjust, amount in steps:
        image = adjust(image, amount)
    return image


def _blur(image: Image.Image, params: ImageInterventionParams, rng: random.Random) -> Image.Image:
    # The nearest odd size below the scaled one, at least 3: a kernel of 1 blurs nothing.
    scaled = params.blur_kernel * min(image.size) / params.blur_reference
    size = max(3, 2 * int((scaled - 1) // 2) + 1)
    # The kernel pads by reflection, which must fit inside the image.
    size = min(size, 2 * min(image.size) - 1)
    sigma = [rng.uniform(*params.blur_sigma)] * 2
    # torchvision annotates tensors only, but returns an image for an image.
    return cast(Image.Image, TF.gaussian_blur(cast(Any, image), [size, size], sigma))


_APPLY = {
    "jitter": _jitter,
    "grayscale": lambda image, params, rng: TF.to_grayscale(image, num_output_channels=3),
    "blur": _blur,
    "invert": lambda image, params, rng: TF.invert(image),
    "posterize": lambda image, params, rng: TF.posterize(image, params.posterize_bits),
    "solarize": lambda image, params, rng: TF.solarize(image, params.solarize_threshold),
    "equalize": lambda image, params, rng: TF.equalize(image),
}
