"""build_transform: the chosen transforms in Dassl's fixed order, however they are listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dassl.data.transforms.augmentations import (
    Cutout,
    GaussianNoise,
    InstanceNormalization,
    RandomTranslation,
)
from dassl.data.transforms.randaugment import RandAugment, RandAugment2, RandAugmentFixMatch
from dassl.utils.names import check_availability
from torchvision.transforms import (
    AutoAugment,
    AutoAugmentPolicy,
    CenterCrop,
    ColorJitter,
    Compose,
    GaussianBlur,
    InterpolationMode,
    Normalize,
    RandomApply,
    RandomCrop,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToTensor,
)

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}

# A step is (line printed, transform), made from the INPUT node. Dictionaries give the order.
Step = tuple[str, Callable]


def interpolation_mode(cfg: Any) -> InterpolationMode:
    """Return the resizing mode that INPUT.INTERPOLATION names."""
    name = cfg.INPUT.INTERPOLATION
    check_availability(name, list(INTERPOLATION_MODES), "interpolation (INPUT.INTERPOLATION)")
    return INTERPOLATION_MODES[name]


def _random_crop(node: Any) -> Step:
    crop = RandomCrop(node.SIZE, padding=node.CROP_PADDING)
    return f"random crop (padding = {node.CROP_PADDING})", crop


def _random_resized_crop(node: Any) -> Step:
    crop = RandomResizedCrop(
        node.SIZE, scale=node.RRCROP_SCALE, interpolation=INTERPOLATION_MODES[node.INTERPOLATION]
    )
    return f"random resized crop (size={node.SIZE}, scale={node.RRCROP_SCALE})", crop


def _policy(name: str, policy: AutoAugmentPolicy) -> Callable[[Any], Step]:
    return lambda node: (f"{name} policy", AutoAugment(policy, fill=[128, 128, 128]))


def _randaugment(node: Any) -> Step:
    n, m = node.RANDAUGMENT_N, node.RANDAUGMENT_M
    return f"randaugment (n={n}, m={m})", RandAugment(n, m)


def _color_jitter(node: Any) -> Step:
    b, c, s, h = (getattr(node, f"COLORJITTER_{letter}") for letter in "BCSH")
    jitter = ColorJitter(brightness=b, contrast=c, saturation=s, hue=h)
    return f"color jitter (brightness={b}, contrast={c}, saturation={s}, hue={h})", jitter


def _gaussian_blur(node: Any) -> Step:
    blur = RandomApply([GaussianBlur(node.GB_K)], p=node.GB_P)
    return f"gaussian blur (kernel={node.GB_K})", blur


def _cutout(node: Any) -> Step:
    n, length = node.CUTOUT_N, node.CUTOUT_LEN
    return f"cutout (n_holes={n}, length={length})", Cutout(n, length)


def _normalize(node: Any) -> Step:
    normalize = Normalize(mean=node.PIXEL_MEAN, std=node.PIXEL_STD)
    return f"normalization (mean={node.PIXEL_MEAN}, std={node.PIXEL_STD})", normalize


def _gaussian_noise(node: Any) -> Step:
    noise = GaussianNoise(node.GN_MEAN, node.GN_STD)
    return f"gaussian noise (mean={node.GN_MEAN}, std={node.GN_STD})", noise


def _instance_norm(_node: Any) -> Step:
    return "instance normalization", InstanceNormalization()


IMAGE_STEPS: dict[str, Callable[[Any], Step]] = {
    "random_translation": lambda node: ("random translation", RandomTranslation(*node.SIZE)),
    "random_crop": _random_crop,
    "random_resized_crop": _random_resized_crop,
    "random_flip": lambda node: ("random flip", RandomHorizontalFlip()),
    "imagenet_policy": _policy("imagenet", AutoAugmentPolicy.IMAGENET),
    "cifar10_policy": _policy("cifar10", AutoAugmentPolicy.CIFAR10),
    "svhn_policy": _policy("svhn", AutoAugmentPolicy.SVHN),
    "randaugment": _randaugment,
    "randaugment_fixmatch": lambda node: (
        f"randaugment_fixmatch (n={node.RANDAUGMENT_N})",
        RandAugmentFixMatch(node.RANDAUGMENT_N),
    ),
    "randaugment2": lambda node: (
        f"randaugment2 (n={node.RANDAUGMENT_N})",
        RandAugment2(node.RANDAUGMENT_N),
    ),
    "colorjitter": _color_jitter,
    "randomgrayscale": lambda node: ("random gray scale", RandomGrayscale(p=node.RGS_P)),
    "gaussian_blur": _gaussian_blur,
}
TENSOR_STEPS: dict[str, Callable[[Any], Step]] = {
    "cutout": _cutout,
    "normalize": _normalize,
    "gaussian_noise": _gaussian_noise,
    "instance_norm": _instance_norm,
}
# center_crop may be named, as in Dassl: testing always does it, training never.
AVAI_CHOICES = [*IMAGE_STEPS, *TENSOR_STEPS, "center_crop"]


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
    steps = _train_steps(cfg, chosen) if is_train else _test_steps(cfg, chosen)
    return Compose([_announced(step) for step in steps])


def _announced(step: Step) -> Callable:
    line, transform = step
    print(f"+ {line}")
    return transform


def _train_steps(cfg: Any, choices: Sequence[str]) -> Iterator[Step]:
    node, mode = cfg.INPUT, interpolation_mode(cfg)
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        yield f"resize to {node.SIZE[0]}x{node.SIZE[1]}", Resize(node.SIZE, interpolation=mode)
    yield from (make(node) for name, make in IMAGE_STEPS.items() if name in choices)
    yield "to torch tensor of range [0, 1]", ToTensor()
    yield from (make(node) for name, make in TENSOR_STEPS.items() if name in choices)


def _test_steps(cfg: Any, choices: Sequence[str]) -> Iterator[Step]:
    node, mode = cfg.INPUT, interpolation_mode(cfg)
    larger = max(node.SIZE)
    yield f"resize the smaller edge to {larger}", Resize(larger, interpolation=mode)
    yield f"{node.SIZE[0]}x{node.SIZE[1]} center crop", CenterCrop(node.SIZE)
    yield "to torch tensor of range [0, 1]", ToTensor()
    for name in ("normalize", "instance_norm"):
        if name in choices:
            yield TENSOR_STEPS[name](node)
