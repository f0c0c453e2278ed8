"""CLIP-ICM's interventions: change how an image or a caption looks, never what it is of.

Images are intervened on as PIL images, before CLIP's preprocessing; the only module of the pure
package that needs torchvision and Pillow.
"""

import hashlib
import itertools
import json
import os
import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from PIL import Image, ImageChops
from torchvision.transforms import functional as TF

from causalclip.clip.templates import spoken

ImageKind = Literal["jitter", "grayscale", "blur", "invert", "posterize", "solarize", "equalize"]
IMAGE_KINDS: tuple[ImageKind, ...] = get_args(ImageKind)

# Rounds through all kinds before giving up on an image that none of them changes.
N_ROUNDS = 8


@dataclass(frozen=True)
class ImageInterventionParams:
    """Strengths of the seven image interventions; all [ours], the published ones are not known."""

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    """Jitter: factors are uniform in [1 - x, 1 + x], the hue's shift in [-x, x] of the circle."""
    blur_kernel: int = 23
    """Kernel size in pixels for an image whose shorter side is `blur_reference`."""
    blur_reference: int = 224
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    posterize_bits: int = 4
    solarize_threshold: int = 128

    def __post_init__(self) -> None:
        """Refuse strengths out of range."""
        for name, low, high in (
            ("brightness", 0, 1),
            ("contrast", 0, 1),
            ("saturation", 0, 1),
            ("hue", 0, 0.5),
            ("blur_kernel", 1, float("inf")),
            ("blur_reference", 1, float("inf")),
            ("posterize_bits", 1, 8),
            ("solarize_threshold", 0, 255),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must be in [{low}, {high}], got {value}")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma must be 0 < low <= high, got {self.blur_sigma}")


@dataclass(frozen=True)
class ImageIntervention:
    """One intervention on an image, drawn uniformly from `kinds` by the sample's own seed.

    `intervene(image, sample_seed(path, seed))` depends on its arguments alone, so a run repeats
    whatever the number of workers and the state of any random generator. A draw that leaves every
    pixel as it was (grayscale of a grey image, say) is replaced by another: the result always
    differs from the image.
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
        """Kinds to try in turn: the first is uniform, the others stand in for identity draws."""
        for _ in range(N_ROUNDS):
            yield from rng.sample(self.kinds, len(self.kinds))


def sample_seed(key: str, seed: int) -> int:
    """Seed of one sample: a stable hash of its key (its path, say) and the run's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8], "big")


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
    return TF.gaussian_blur(image, [size, size], [rng.uniform(*params.blur_sigma)] * 2)


_APPLY = {
    "jitter": _jitter,
    "grayscale": lambda image, params, rng: TF.to_grayscale(image, num_output_channels=3),
    "blur": _blur,
    "invert": lambda image, params, rng: TF.invert(image),
    "posterize": lambda image, params, rng: TF.posterize(image, params.posterize_bits),
    "solarize": lambda image, params, rng: TF.solarize(image, params.solarize_threshold),
    "equalize": lambda image, params, rng: TF.equalize(image),
}


# --- text -----------------------------------------------------------------------------------------

# Variant factors of a picture and some of their values, each a caption around the class name.
TEXT_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "background": (
        "a photo of a {} on a sandy beach.",
        "a photo of a {} in a snowy landscape.",
        "a photo of a {} in a forest.",
        "a photo of a {} in a city street.",
        "a photo of a {} in a living room.",
        "a photo of a {} in front of a plain white wall.",
    ),
    "weather": (
        "a photo of a {} on a sunny day.",
        "a photo of a {} in the rain.",
        "a photo of a {} in thick fog.",
        "a photo of a {} in a snowstorm.",
        "a photo of a {} under a cloudy sky.",
    ),
    "light": (
        "a photo of a {} in bright daylight.",
        "a photo of a {} at sunset.",
        "a photo of a {} at night.",
        "a photo of a {} under neon lights.",
        "a photo of a {} by candlelight.",
    ),
    "medium": (
        "a photo of a {}.",
        "a painting of a {}.",
        "a pencil sketch of a {}.",
        "a sculpture of a {}.",
        "a 3D rendering of a {}.",
        "an embroidery of a {}.",
    ),
    "style": (
        "a {} in the style of a cartoon.",
        "a {} in the style of a watercolor.",
        "a {} in the style of pixel art.",
        "a {} in the style of a black and white photograph.",
        "a {} in the style of graffiti.",
        "a {} in the style of a woodcut.",
    ),
}


@dataclass(frozen=True)
class CaptionedImage:
    """A caption of an image and rewrites of it in which only variant factors differ."""

    image: str
    caption: str
    rewrites: tuple[str, ...]


def text_pairs(
    classnames: Sequence[str],
    *,
    attributes: Mapping[str, Sequence[str]] = TEXT_ATTRIBUTES,
    kinds: Iterable[str] | None = None,
) -> list[tuple[str, str]]:
    """Caption pairs in which one variant attribute changes and the class stays [ours].

    Every class (with "_" read as a space), every attribute of `kinds` (default all) and every
    ordered pair of its values: sum_a V_a (V_a - 1) pairs a class, over only sum_a V_a captions.

    Raises:
        ValueError: no class name, an unknown kind, an attribute without two different values, a
            value without exactly one {} for the class name.
    """
    if isinstance(classnames, str) or not len(classnames):
        raise ValueError(f"classnames must be a non-empty list of names, got {classnames!r}")
    chosen = list(attributes) if kinds is None else list(kinds)
    unknown = [kind for kind in chosen if kind not in attributes]
    if unknown or not chosen:
        raise ValueError(f"kinds must be some of {', '.join(attributes)}, got {chosen}")
    for kind in chosen:
        _check_values(kind, attributes[kind])
    return [
        (before.format(name), after.format(name))
        for name in map(spoken, classnames)
        for kind in chosen
        for before, after in itertools.permutations(attributes[kind], 2)
    ]


def load_captions(
    path: str | os.PathLike, *, images: Collection[str] | None = None
) -> list[CaptionedImage]:
    """Read captions of images and their rewrites, made by any captioner or language model.

    The file is a JSON list; each row is an object with exactly these keys:

        {"image": "dog/001.jpg", "caption": "a dog", "rewrites": ["a dog on a sandy beach", ...]}

    `images`, where given, are the paths a caption may be for.

    Raises:
        ValueError: no JSON, or a row that breaks the schema (rows count from 1) or repeats its own
            caption as a rewrite, or captions for images that are not in `images`.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # of the encoding or of the JSON; both say where
        raise ValueError(f"{path} must be a UTF-8 JSON file: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path} must hold a non-empty JSON list, got {type(rows).__name__}")
    captions = [_captioned_image(row, f"{path}, row {i}") for i, row in enumerate(rows, start=1)]
    if images is not None:
        _check_known(captions, images, path)
    return captions


def caption_pairs(captions: Iterable[CaptionedImage]) -> list[tuple[str, str]]:
    """Every caption with each of its rewrites: the interventional pairs of a caption file."""
    return [(row.caption, rewrite) for row in captions for rewrite in row.rewrites]


def _check_values(kind: str, values: Sequence[str]) -> None:
    if isinstance(values, str) or len(set(values)) != len(values) or len(values) < 2:
        raise ValueError(f"attribute {kind!r} must have two or more different values, got {values}")
    for value in values:
        if value.count("{}") != 1:
            raise ValueError(
                f"values of {kind!r} must hold one {{}} for the class name, got {value!r}"
            )


def _captioned_image(row: object, where: str) -> CaptionedImage:
    keys = {"image", "caption", "rewrites"}
    if not isinstance(row, dict) or set(row) != keys:
        got = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"{where}: must be an object with keys {sorted(keys)}, got {got}")
    for key in ("image", "caption"):
        if not _is_text(row[key]):
            raise ValueError(f"{where}: {key} must be a non-empty string, got {row[key]!r}")
    rewrites = row["rewrites"]
    if not isinstance(rewrites, list) or not rewrites or not all(map(_is_text, rewrites)):
        raise ValueError(
            f"{where}: rewrites must be a non-empty list of non-empty strings, got {rewrites!r}"
        )
    if row["caption"].strip() in (rewrite.strip() for rewrite in rewrites):
        raise ValueError(f"{where}: rewrites must differ from the caption {row['caption']!r}")
    return CaptionedImage(row["image"], row["caption"], tuple(rewrites))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _check_known(
    captions: list[CaptionedImage], images: Collection[str], path: str | os.PathLike
) -> None:
    known = set(images)
    unknown = [row.image for row in captions if row.image not in known]
    if unknown:
        raise ValueError(
            f"{path} must caption images of the data set only, got {len(unknown)} unknown ones, "
            f"the first: {', '.join(unknown[:5])}"
        )
