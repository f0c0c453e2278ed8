"""build_transform: the chosen transforms in Dassl's fixed order, not in the order of the list."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as F
from dassl.utils.registry import check_availability
from torch import Tensor
from torchvision.transforms import (
    AutoAugment,
    AutoAugmentPolicy,
    CenterCrop,
    ColorJitter,
    Compose,
    GaussianBlur,
    InterpolationMode,
    Normalize,
    RandAugment,
    RandomApply,
    RandomChoice,
    RandomCrop,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToTensor,
)

MAGNITUDES = 31  # RANDAUGMENT_M counts from 0 to 30
INTERPOLATION_MODES = {name: InterpolationMode(name) for name in ("bilinear", "bicubic", "nearest")}


def interpolation_mode(cfg: Any) -> InterpolationMode:
    """Return the resizing mode that INPUT.INTERPOLATION names."""
    name = cfg.INPUT.INTERPOLATION
    check_availability(name, list(INTERPOLATION_MODES), "interpolation (INPUT.INTERPOLATION)")
    return INTERPOLATION_MODES[name]


# Transforms that torchvision lacks. They draw from the same random generators as Dassl (Python's,
# and NumPy's for cutout), in the same order.


class RandomTranslation:
    """With probability p, resize to 9/8 and crop a random (height, width); else only resize."""

    def __init__(self, height: int, width: int, p: float = 0.5) -> None:
        self.height, self.width, self.p = height, width, p

    def __call__(self, image: Any) -> Any:  # a PIL image; torchvision's hints list tensors only
        """Return a resized image, or a crop of a larger one."""
        if random.uniform(0, 1) > self.p:
            return F.resize(image, [self.height, self.width])
        tall, wide = round(self.height * 1.125), round(self.width * 1.125)
        left = round(random.uniform(0, wide - self.width))
        top = round(random.uniform(0, tall - self.height))
        return F.crop(F.resize(image, [tall, wide]), top, left, self.height, self.width)


class InstanceNormalization:
    """Give each channel of one image zero mean and unit standard deviation."""

    def __init__(self, eps: float = 1e-8) -> None:
        self.eps = eps  # for a constant channel, whose deviation is 0

    def __call__(self, image: Tensor) -> Tensor:
        """Return the normalised image (C, H, W)."""
        pixels = image.flatten(1)  # (C, H * W)
        mean, std = pixels.mean(1), pixels.std(1)
        return (image - mean[:, None, None]) / (std[:, None, None] + self.eps)


class Cutout:
    """Set n_holes squares of `length` pixels to 0, at random centres; they may cross the border.

    DeVries and Taylor, arXiv 1708.04552.
    """

    def __init__(self, n_holes: int = 1, length: int = 16) -> None:
        self.n_holes, self.length = n_holes, length

    def __call__(self, image: Tensor) -> Tensor:
        """Return a copy of the image (C, H, W) with squares of 0."""
        height, width = image.shape[1:]
        half = self.length // 2
        image = image.clone()
        for _ in range(self.n_holes):
            y, x = np.random.randint(height), np.random.randint(width)
            image[:, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0.0
        return image


class GaussianNoise:
    """With probability p add noise N(mean, std^2) to every pixel."""

    def __init__(self, mean: float = 0.0, std: float = 0.15, p: float = 0.5) -> None:
        self.mean, self.std, self.p = mean, std, p

    def __call__(self, image: Tensor) -> Tensor:
        """Return the image (C, H, W), or a noisy copy."""
        if random.uniform(0, 1) > self.p:
            return image
        return image + (torch.randn(image.shape) * self.std + self.mean)


Step = tuple[str, Callable[[], Callable]]
"""The line to print, and a function that builds the transform."""
AVAI_CHOICES = (
    "random_flip random_resized_crop normalize instance_norm random_crop random_translation "
    "center_crop cutout imagenet_policy cifar10_policy svhn_policy randaugment "
    "randaugment_fixmatch randaugment2 gaussian_noise colorjitter randomgrayscale gaussian_blur"
).split()  # center_crop has no effect, as in Dassl: tests always crop, training never does


def _image_steps(node: Any) -> dict[str, Step]:
    """Return the steps for PIL images, in their order, from the INPUT node."""
    size, n, m = node.SIZE, node.RANDAUGMENT_N, node.RANDAUGMENT_M
    b, c, s, h = (node[f"COLORJITTER_{letter}"] for letter in "BCSH")
    mode = INTERPOLATION_MODES[node.INTERPOLATION]
    return {
        "random_translation": ("random translation", lambda: RandomTranslation(*size)),
        "random_crop": (
            f"random crop (padding = {node.CROP_PADDING})",
            lambda: RandomCrop(size, padding=node.CROP_PADDING),
        ),
        "random_resized_crop": (
            f"random resized crop (size={size}, scale={node.RRCROP_SCALE})",
            lambda: RandomResizedCrop(size, scale=node.RRCROP_SCALE, interpolation=mode),
        ),
        "random_flip": ("random flip", RandomHorizontalFlip),
        **{f"{policy.value}_policy": _policy(policy) for policy in AutoAugmentPolicy},
        "randaugment": (f"randaugment (n={n}, m={m})", lambda: _randaugment(n, m)),
        "randaugment_fixmatch": (f"randaugment_fixmatch (n={n})", lambda: _any_magnitude(n)),
        "randaugment2": (f"randaugment2 (n={n})", lambda: _any_magnitude(n, p=0.6)),
        "colorjitter": (
            f"color jitter (brightness={b}, contrast={c}, saturation={s}, hue={h})",
            lambda: ColorJitter(brightness=b, contrast=c, saturation=s, hue=h),
        ),
        "randomgrayscale": ("random gray scale", lambda: RandomGrayscale(p=node.RGS_P)),
        "gaussian_blur": (
            f"gaussian blur (kernel={node.GB_K})",
            lambda: RandomApply([GaussianBlur(node.GB_K)], p=node.GB_P),
        ),
    }


def _tensor_steps(node: Any) -> dict[str, Step]:
    """Return the steps for tensors, in their order."""
    return {
        "cutout": (
            f"cutout (n_holes={node.CUTOUT_N}, length={node.CUTOUT_LEN})",
            lambda: Cutout(node.CUTOUT_N, node.CUTOUT_LEN),
        ),
        "normalize": (
            f"normalization (mean={node.PIXEL_MEAN}, std={node.PIXEL_STD})",
            lambda: Normalize(mean=node.PIXEL_MEAN, std=node.PIXEL_STD),
        ),
        "gaussian_noise": (
            f"gaussian noise (mean={node.GN_MEAN}, std={node.GN_STD})",
            lambda: GaussianNoise(node.GN_MEAN, node.GN_STD),
        ),
        "instance_norm": ("instance normalization", InstanceNormalization),
    }


def _policy(policy: AutoAugmentPolicy) -> Step:
    return f"{policy.value} policy", lambda: AutoAugment(policy, fill=[128, 128, 128])


def _randaugment(n: int, m: int) -> RandAugment:
    """Return n operations at magnitude m (Cubuk et al., arXiv 1909.13719)."""
    if not 0 <= m < MAGNITUDES:
        raise ValueError(f"INPUT.RANDAUGMENT_M must be from 0 to {MAGNITUDES - 1}, got {m}")
    return RandAugment(n, m, MAGNITUDES)


def _any_magnitude(n: int, p: float = 1.0) -> Compose:
    """Return n operations at random magnitudes, as in FixMatch (Sohn et al., arXiv 2001.07685)."""
    one = RandomChoice([RandAugment(1, m, MAGNITUDES) for m in range(MAGNITUDES)])
    return Compose([RandomApply([one], p)] * n)


def build_transform(
    cfg: Any, is_train: bool = True, choices: Sequence[str] | None = None
) -> Compose | None:
    """Build the training or test transform, printing each step; None with INPUT.NO_TRANSFORM.

    `choices` replaces INPUT.TRANSFORMS.

    Raises:
        UnknownNameError: a choice that does not exist.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    chosen: Sequence[str] = cfg.INPUT.TRANSFORMS if choices is None else choices
    for choice in chosen:
        check_availability(choice, AVAI_CHOICES, "transform (INPUT.TRANSFORMS)")
    print(f"Building transform_{'train' if is_train else 'test'}")
    interpolation_mode(cfg)  # raises for an unknown name before it is used as a key
    transforms = []
    for line, make in (_train_steps if is_train else _test_steps)(cfg, chosen):
        print(f"+ {line}")
        transforms.append(make())
    return Compose(transforms)


def _train_steps(cfg: Any, choices: Sequence[str]) -> Iterator[Step]:
    size = cfg.INPUT.SIZE
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        resize = partial(Resize, size, interpolation=interpolation_mode(cfg))
        yield f"resize to {size[0]}x{size[1]}", resize
    yield from (step for name, step in _image_steps(cfg.INPUT).items() if name in choices)
    yield "to torch tensor of range [0, 1]", ToTensor
    yield from (step for name, step in _tensor_steps(cfg.INPUT).items() if name in choices)


def _test_steps(cfg: Any, choices: Sequence[str]) -> Iterator[Step]:
    size, larger = cfg.INPUT.SIZE, max(cfg.INPUT.SIZE)
    resize = partial(Resize, larger, interpolation=interpolation_mode(cfg))
    yield f"resize the smaller edge to {larger}", resize
    yield f"{size[0]}x{size[1]} center crop", partial(CenterCrop, size)
    yield "to torch tensor of range [0, 1]", ToTensor
    steps = _tensor_steps(cfg.INPUT)
    yield from (steps[name] for name in ("normalize", "instance_norm") if name in choices)
