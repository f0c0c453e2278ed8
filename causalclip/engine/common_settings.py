"""Allowed values of the toolkit's own settings, for every method: Dassl itself checks few."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dassl.data.datasets import DatasetBase
from yacs.config import CfgNode

from causalclip.engine.loading import DRAWS
from causalclip.engine.settings import (
    Constraint,
    Fixed,
    Interval,
    ListOf,
    Number,
    OneOf,
    Text,
    Whole,
)

END_TOKENS = ("<|startoftext|>", "<|endoftext|>")  # as OpenAI's tokenizer takes them
ABSENT = CfgNode()  # a host's configuration may lack ours
BATCH = Whole(1, 1_000_000)
SETTINGS: Mapping[str, Constraint] = {
    "DATALOADER.DECODED_MB": Whole(0, 10_000_000),
    "DATALOADER.DRAWS": OneOf(DRAWS),
    "DATALOADER.K_TRANSFORMS": Whole(1, 100),
    "DATALOADER.NUM_WORKERS": Whole(0, 1024),
    "DATALOADER.TEST.BATCH_SIZE": BATCH,
    "DATALOADER.TRAIN_X.BATCH_SIZE": BATCH,
    "DATALOADER.TRAIN_X.N_INS": Whole(),
    "DATASET.UNREADABLE": OneOf(("error", "skip")),
    "INPUT.CROP_PADDING": Whole(0, 10_000),
    "INPUT.CUTOUT_LEN": Whole(0, 10_000),
    "INPUT.CUTOUT_N": Whole(0, 1000),
    "INPUT.GB_K": Whole(1, 1001),  # pixels of a kernel, whose memory is their square
    "INPUT.GB_P": Number(0, 1),
    "INPUT.GN_STD": Number(0),
    "INPUT.INTERPOLATION": OneOf(("bilinear", "bicubic", "nearest")),
    "INPUT.NO_TRANSFORM": Fixed(False),  # these methods read tensors
    "INPUT.PIXEL_MEAN": ListOf(Number(), least=3),
    "INPUT.PIXEL_STD": ListOf(Number(0, open_low=True), least=3),
    "INPUT.RANDAUGMENT_M": Whole(0, 30),
    "INPUT.RANDAUGMENT_N": Whole(0, 100),
    "INPUT.RESIZE_MODE": OneOf(("shortest", "squash")),
    "INPUT.RGS_P": Number(0, 1),
    "INPUT.RRCROP_SCALE": Interval(Number(0, 1, open_low=True)),
    "INPUT.SIZE": ListOf(Whole(1, 10_000), least=2),
    "INPUT.TRANSFORMS": ListOf(Text(), least=0),
    "MODEL.BACKBONE.ACTIVATION": OneOf(("", "quick_gelu", "gelu")),
    "OPTIM.GAMMA": Number(0),
    "OPTIM.LR": Number(0),
    "OPTIM.MAX_EPOCH": Whole(1, 1_000_000),
    "OPTIM.MOMENTUM": Number(0, 1),
    "OPTIM.STEPSIZE": ListOf(Whole(-1)),
    "OPTIM.WARMUP_EPOCH": Whole(-1),
    "OPTIM.WEIGHT_DECAY": Number(0),
    "TEST.FINAL_MODEL": OneOf(("last_step", "best_val")),
    "TEST.SPLIT": OneOf(("test", "val")),
    "TRAIN.CHECKPOINT_MINUTES": Number(0),
    "TRAIN.PRINT_FREQ": Whole(1),
}


def check_common(cfg: CfgNode) -> None:
    """Refuse what no method can run with, before any work.

    Raises:
        ValueError: names the key, what is allowed and what came.
    """
    for key, constraint in SETTINGS.items():
        value = _value(cfg, key)
        if value is not ABSENT and not constraint.allows(value):
            raise ValueError(f"{key} must be {constraint.words}, got {value!r}")


def check_domains_known(cfg: CfgNode, dataset: DatasetBase) -> None:
    """Refuse domains for a data set that has none, which would ignore them.

    Raises:
        ValueError: names both.
    """
    asked = [*cfg.DATASET.SOURCE_DOMAINS, *cfg.DATASET.TARGET_DOMAINS]
    if asked and not getattr(dataset, "domains", ()):
        raise ValueError(
            f"DATASET.SOURCE_DOMAINS and TARGET_DOMAINS must be empty for {cfg.DATASET.NAME}, "
            f"which has no domains, got {', '.join(map(str, asked))}"
        )


def check_several_classes(cfg: CfgNode, dataset: DatasetBase) -> None:
    """Refuse a data set of one class, whose answer is known before any work, and bad names.

    Raises:
        ValueError: names the class.
    """
    if len(dataset.classnames) < 2:
        raise ValueError(
            f"{cfg.TRAINER.NAME} needs two classes or more, got {list(dataset.classnames)}"
        )
    check_sayable(dataset.classnames, f"the class names of {cfg.DATASET.NAME}")


def check_sayable(names: Iterable[Any], what: str) -> None:
    """Refuse class names that no prompt can hold.

    Raises:
        ValueError: names the first; `what` they are is for the message.
    """
    for name in names:
        if not _can_be_said(name):
            raise ValueError(
                f"{what} must be printed text in UTF-8 without {' and '.join(END_TOKENS)}, "
                f"got {name!r:.80}"
            )


def _can_be_said(name: Any) -> bool:
    """Whether a prompt can hold a class name: behind an end token no word of it is read."""
    if not isinstance(name, str) or not name.strip() or any(token in name for token in END_TOKENS):
        return False
    return all(letter >= " " and not "\ud800" <= letter <= "\udfff" for letter in name)


def _value(cfg: CfgNode, key: str) -> Any:
    node: Any = cfg
    for name in key.split("."):
        node = node.get(name, ABSENT)
    return node
