"""A data set without its test images, to choose settings on training and validation images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from yacs.config import CfgNode

from causalclip.data.split_set import leave_out_unreadable
from causalclip.data.splits import halves, subsample_classes

LEAST_CLASSES = 4
"""Base classes that can be halved: a half needs two."""


@contextmanager
def without_test_images(name: str) -> Iterator[None]:
    """Build the registered data set `name` without its test images inside this context.

    Its validation images stand in their place. SUBSAMPLE_CLASSES all keeps all classes. base and
    new halve the base classes once more: base trains, and all images of new validate.
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
            whole.DATASET.UNREADABLE = "error"  # skip reads test images too
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
