"""The INPUT that a backbone learned with, in place of the configuration's, and its test images."""

from __future__ import annotations

from collections.abc import Callable

from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor
from yacs.config import CfgNode

from causalclip.clip.backbone import preprocessing_of
from causalclip.engine.distributed import is_writer


def as_the_backbone_reads(cfg: CfgNode) -> CfgNode:
    """The configuration with the backbone's own preprocessing under INPUT, said in the log.

    Where the backbone does not say it, as OpenAI's, the configuration's stays.

    Raises:
        ValueError: a backbone of an unknown name.
    """
    backbone = cfg.MODEL.BACKBONE.NAME
    asked = preprocessing_of(backbone)
    changed = {key: value for key, value in asked.items() if _differ(cfg.INPUT.get(key), value)}
    if not changed:
        return cfg
    if is_writer():
        said = ", ".join(f"INPUT.{key} {value}" for key, value in changed.items())
        print(f"As {backbone} learned: {said}, in place of the configuration's")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.update(changed)
    cfg.freeze()
    return cfg


def _differ(one: object, other: object) -> bool:
    """Whether two settings differ; a list and a tuple of the same numbers do not."""
    return _plain(one) != _plain(other)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value


def image_transform(cfg: CfgNode) -> Callable | None:
    """What test images go through under INPUT.RESIZE_MODE squash; None: the toolkit's own."""
    inputs = cfg.INPUT
    if inputs.get("RESIZE_MODE", "shortest") == "shortest":
        return None
    mode = InterpolationMode(inputs.INTERPOLATION)
    steps = [Resize(tuple(inputs.SIZE), interpolation=mode), ToTensor()]
    if "normalize" in inputs.TRANSFORMS:
        steps.append(Normalize(mean=inputs.PIXEL_MEAN, std=inputs.PIXEL_STD))
    return Compose(steps)
