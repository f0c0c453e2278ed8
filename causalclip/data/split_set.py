"""The steps that all data sets share after train, val and test have been read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from yacs.config import CfgNode

from causalclip.data.fewshot import fewshot_split
from causalclip.data.listing import relative
from causalclip.data.pictures import say_left_out, unreadable
from causalclip.data.splits import Items, halves, subsample_classes


class SplitSet(DatasetBase):
    """A data set in CoOp's protocols: first choose the few-shot set, then base or new classes."""

    left_out: Mapping[str, Any]
    """Files that exist but are not used: their `count`, and the `first` with their reasons."""

    def build(
        self,
        cfg: CfgNode,
        train: Items,
        val: Items,
        test: Items,
        *,
        root: str | os.PathLike,
        fewshot_dir: str | os.PathLike,
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        """Apply NUM_SHOTS, SUBSAMPLE_CLASSES, SUBSAMPLE_ROUNDING and UNREADABLE to the parts.

        `val` may be empty. Few-shot sets are stored in `fewshot_dir`, with paths relative to
        `root`. `left_out` has the files that are not used, path -> reason.

        Raises:
            ValueError: if one of these settings has a value that is not allowed.
        """
        train, val = fewshot_split(self, train, val, cfg, fewshot_dir, root=root)
        parts = subsample_classes(train, val, test, **halves(cfg))
        (train, val, test), bad = leave_out_unreadable(cfg, *parts, root=root)
        self.left_out = say_left_out({**(left_out or {}), **bad})
        super().__init__(train_x=train, val=val, test=test)


def leave_out_unreadable(
    cfg: CfgNode, *splits: Items, root: str | os.PathLike
) -> tuple[tuple[Items, ...], dict[str, str]]:
    """Return the splits without images that cannot be decoded, and those images, path -> reason.

    `DATASET.UNREADABLE skip` reads every chosen image once here, because batches and predictions
    would have unexpected sizes if the loader dropped images. With `error`, the default, nothing is
    read here, and the loader raises OSError with the path.

    Raises:
        ValueError: for another value of `DATASET.UNREADABLE`.
    """
    policy = cfg.DATASET.get("UNREADABLE", "error")
    if policy not in ("error", "skip"):
        raise ValueError(f"DATASET.UNREADABLE must be 'error' or 'skip', got {policy!r}")
    if policy == "error":
        return splits, {}
    bad = unreadable(list(dict.fromkeys(item.impath for items in splits for item in items)))
    kept = tuple([item for item in items if item.impath not in bad] for items in splits)
    return kept, {relative(path, root): reason for path, reason in bad.items()}


# Data sets without their test images, to choose settings on training and validation images


LEAST_CLASSES = 4
"""Fewest base classes that can be split in two halves; each half needs two classes."""


@contextmanager
def without_test_images(name: str) -> Iterator[None]:
    """Build the registered data set `name` without its test images inside this context.

    The validation images replace them. SUBSAMPLE_CLASSES `all` keeps all classes. `base` and `new`
    split the base classes in two halves again: `base` is the first half, and `new` the second half,
    whose training images are validation images too.
    """
    kind = DATASET_REGISTRY.get(name)
    DATASET_REGISTRY.register(_without_test(kind), force=True)
    try:
        yield
    finally:
        DATASET_REGISTRY.register(kind, force=True)


def _without_test(kind: type[DatasetBase]) -> type[DatasetBase]:
    class WithoutTest(kind):
        def __init__(self, cfg: CfgNode) -> None:
            whole = cfg.clone()
            whole.defrost()
            part = cfg.DATASET.SUBSAMPLE_CLASSES
            whole.DATASET.SUBSAMPLE_CLASSES = "all" if part == "all" else "base"
            whole.DATASET.UNREADABLE = "error"  # `skip` would read test images too
            super().__init__(whole)  # pyright: ignore[reportArgumentType]  # as data sets do
            train, val = self.train_x, self.val or ()
            tested = {item.impath for item in self.test or ()}
            if any(item.impath in tested for item in val):
                raise ValueError(
                    f"{kind.__name__} validates on its test images: nothing to tune on"
                )
            (train, val), _ = leave_out_unreadable(cfg, train, val, root=cfg.DATASET.ROOT)
            if part != "all":
                if len(self.classnames) < LEAST_CLASSES:
                    raise ValueError(
                        f"base2new halves the base classes: {kind.__name__} needs {LEAST_CLASSES} "
                        f"of them or more, got {len(self.classnames)}"
                    )
                train, val = subsample_classes(train, val, **halves(cfg))
            if part == "new":
                val = [*train, *val]
            DatasetBase.__init__(self, train_x=train, val=val, test=val)

    WithoutTest.__name__ = kind.__name__
    return WithoutTest
