"""The data of a trainer: Dassl's DataManager with the backbone's preprocessing, checked."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dassl.data import DataManager
from dassl.data.datasets import DatasetBase, Datum, build_dataset
from dassl.data.transforms import build_transform
from dassl.utils import set_random_seed
from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor
from yacs.config import CfgNode

from causalclip.clip.interface import PREFIX
from causalclip.engine.draws import generators_kept
from causalclip.engine.loading import training_loader
from causalclip.files.digests import content_digests
from causalclip.files.text import has_controls

INPUT_KEYS = {"mean": "PIXEL_MEAN", "std": "PIXEL_STD"}
END_TOKENS = ("<|startoftext|>", "<|endoftext|>")  # OpenAI's tokenizer ends the text there


def attach_data(trainer: Any, views: list | None = None) -> None:
    """Set the loaders and the classes of a trainer, as Dassl's `build_data_loader` does.

    If the backbone states its preprocessing, it replaces INPUT of `trainer.cfg`.
    `views` are training transforms, one per view; None uses INPUT.TRANSFORMS.

    Raises:
        ValueError: fewer than two classes, a class name that no prompt can contain, domains for a
            data set that has none, or an unknown backbone.
    """
    trainer.cfg = cfg = with_preprocessing(trainer.cfg)
    trainer.dm = dm = DataManager(
        cfg, custom_tfm_train=views, custom_tfm_test=squashing_transform(cfg)
    )
    check_dataset(cfg, dm.dataset)
    trainer.train_loader_x = training_loader(dm.train_loader_x, cfg)
    for name in ("train_loader_u", "val_loader", "test_loader", "num_classes"):
        setattr(trainer, name, getattr(dm, name))
    trainer.num_source_domains, trainer.lab2cname = dm.num_source_domains, dm.lab2cname


def build_seeded_dataset(cfg: CfgNode) -> DatasetBase:
    """Build a data set under its seed, as training does; restore generators, print nothing.

    Building may draw and store a split or few shots, which must be the same as in training.

    Raises:
        ValueError, OSError: data that cannot be used.
    """
    with generators_kept(), contextlib.redirect_stdout(io.StringIO()):
        if cfg.SEED >= 0:
            set_random_seed(cfg.SEED)
        return build_dataset(cfg)


def views_kept(cfg: CfgNode) -> int:
    """Return DATALOADER.VIEWS_KEPT; 0 if a configuration lacks it."""
    return cfg.DATALOADER.get("VIEWS_KEPT", 0)


def check_views_kept(cfg: CfgNode, *, encodable: bool) -> None:
    """Raise if DATALOADER.VIEWS_KEPT is set and training images cannot be encoded once.

    Raises:
        ValueError: not `encodable`, or draws that do not repeat.
    """
    if not (views := views_kept(cfg)):
        return
    if not encodable:
        raise ValueError(
            "DATALOADER.VIEWS_KEPT must be 0 for a method that learns in the image tower or has a "
            f"view for each template, as {cfg.TRAINER.NAME} here, got {views}"
        )
    if (draws := cfg.DATALOADER.DRAWS) != "item":
        raise ValueError(f"DATALOADER.VIEWS_KEPT {views} needs DATALOADER.DRAWS item, got {draws}")


def attach_classes(trainer: Any, classnames: Sequence[str]) -> None:
    """Set K classes, in the order of their labels, and the test transform, without a data set."""
    cfg = trainer.cfg
    transform = squashing_transform(cfg) or build_transform(cfg, is_train=False)
    empty = SimpleNamespace(classnames=list(classnames), train_x=(), val=(), test=())
    trainer.dm = SimpleNamespace(dataset=empty)
    trainer.test_loader = SimpleNamespace(
        dataset=SimpleNamespace(data_source=(), transform=transform)
    )
    trainer.train_loader_x = trainer.train_loader_u = trainer.val_loader = None
    trainer.num_classes, trainer.num_source_domains = len(classnames), 0
    trainer.lab2cname = dict(enumerate(classnames))


def check_dataset(cfg: CfgNode, dataset: DatasetBase) -> None:
    """Raise for a data set that no method can use.

    Raises:
        ValueError: domains for a data set without any, fewer than two classes, or a class name that
            no prompt can contain.
    """
    domains = [*cfg.DATASET.SOURCE_DOMAINS, *cfg.DATASET.TARGET_DOMAINS]
    if domains and not getattr(dataset, "domains", ()):
        raise ValueError(
            f"DATASET.SOURCE_DOMAINS and TARGET_DOMAINS must be empty for {cfg.DATASET.NAME}, "
            f"which has no domains, got {', '.join(map(str, domains))}"
        )
    names = list(dataset.classnames)
    if len(names) < 2:
        raise ValueError(f"{cfg.TRAINER.NAME} needs two classes or more, got {names}")
    check_printable(names, f"the class names of {cfg.DATASET.NAME}")


def check_printable(names: Iterable[Any], what: str) -> None:
    """Raise for the first class name that no prompt can contain.

    Raises:
        ValueError: names it; the message begins with `what`.
    """
    for name in names:
        is_text = isinstance(name, str) and bool(name.strip()) and not has_controls(name)
        if not is_text or any(token in name for token in END_TOKENS):
            raise ValueError(
                f"{what} must be printed text in UTF-8 without {' and '.join(END_TOKENS)}, "
                f"got {name!r:.80}"
            )


def with_preprocessing(cfg: CfgNode) -> CfgNode:
    """Return the configuration with the backbone's preprocessing under INPUT; print changes.

    OpenAI's backbones state none, so that INPUT is unchanged.

    Raises:
        ValueError: a backbone of an unknown name.
    """
    backbone = cfg.MODEL.BACKBONE.NAME
    if not backbone.startswith(PREFIX):
        return cfg
    from causalclip.clip.open_clip_backbone import preprocessing_of

    changed = {}
    for name, value in preprocessing_of(backbone).items():
        key = INPUT_KEYS.get(name, name.upper())
        if _as_list(cfg.INPUT.get(key)) != _as_list(value):
            changed[key] = value
    if not changed:
        return cfg
    values = ", ".join(f"INPUT.{key} {value}" for key, value in changed.items())
    print(f"Preprocessing of {backbone}: {values}, in place of the configuration's")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.update(changed)
    cfg.freeze()
    return cfg


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value


def squashing_transform(cfg: CfgNode) -> Callable | None:
    """Return the test transform of INPUT.RESIZE_MODE squash; None: use the toolkit's own."""
    inputs = cfg.INPUT
    if inputs.get("RESIZE_MODE", "shortest") == "shortest":
        return None
    mode = InterpolationMode(inputs.INTERPOLATION)
    steps = [Resize(tuple(inputs.SIZE), interpolation=mode), ToTensor()]
    if "normalize" in inputs.TRANSFORMS:
        steps.append(Normalize(mean=inputs.PIXEL_MEAN, std=inputs.PIXEL_STD))
    return Compose(steps)


# The identity of a data set: digests of its splits, labels, class names and images


MOST_CONTENTS = 100_000
"""Number of images of a split whose content is hashed; of all further images, only the size is."""
SPLIT_ATTRIBUTES = {"train": "train_x", "val": "val", "test": "test"}


def data_digests(dataset: DatasetBase, root: str | os.PathLike) -> dict[str, str]:
    """Return the sha256 of each non-empty split of a data set.

    Paths are hashed relative to `root`, so that you can move the data.

    Raises:
        OSError: an image that cannot be read.
    """
    splits = {name: getattr(dataset, part) or () for name, part in SPLIT_ATTRIBUTES.items()}
    return {name: _split_digest(items, root) for name, items in splits.items() if items}


def _split_digest(items: Sequence[Datum], root: str | os.PathLike) -> str:
    digest = hashlib.sha256()
    paths = [item.impath for item in items]
    contents = content_digests(paths[:MOST_CONTENTS])
    contents += [str(os.stat(path).st_size) for path in paths[MOST_CONTENTS:]]
    for item, content in zip(items, contents, strict=True):
        place = Path(os.path.relpath(item.impath, root)).as_posix()
        row = [place, item.label, item.domain, item.classname, content]
        digest.update(json.dumps(row).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def changed_splits(recorded: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """Return the names of the splits that differ."""
    return [name for name in SPLIT_ATTRIBUTES if recorded.get(name) != current.get(name)]
