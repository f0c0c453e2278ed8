"""The steps that every data set with train, val and test shares once these are read."""

from __future__ import annotations

import os

from dassl.data.datasets import DatasetBase
from yacs.config import CfgNode

from causalclip.data.fewshot import fewshot_split
from causalclip.data.splits import ROUNDING_DEFAULTS, Items, halves, subsample_classes
from causalclip.data.unreadable import UNREADABLE_DEFAULTS, leave_out_unreadable


class SplitSet(DatasetBase):
    """A data set by the family's protocols: few-shot sets first, then base or new classes."""

    config_defaults = {**UNREADABLE_DEFAULTS, **ROUNDING_DEFAULTS}
    """Keys below cfg.DATASET that the set reads and Dassl does not have."""

    def build(
        self,
        cfg: CfgNode,
        train: Items,
        val: Items,
        test: Items,
        *,
        root: str | os.PathLike,
        fewshot_dir: str | os.PathLike,
    ) -> None:
        """Take the parts as the settings ask for them.

        These are NUM_SHOTS, SUBSAMPLE_CLASSES with SUBSAMPLE_ROUNDING, and UNREADABLE.

        `root` is the folder that stored paths are relative to, `fewshot_dir` where few-shot sets
        are stored.

        Raises:
            ValueError: for a value of one of them that is not allowed.
        """
        train, val = fewshot_split(self, train, val, cfg, fewshot_dir, root=root)
        parts = subsample_classes(train, val, test, **halves(cfg))
        train, val, test = leave_out_unreadable(cfg, *parts)
        super().__init__(train_x=train, val=val, test=test)
