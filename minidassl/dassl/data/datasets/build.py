"""The registry of data sets."""

from __future__ import annotations

from typing import Any

from dassl.utils import Registry

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: Any) -> Any:
    """Build the data set that DATASET.NAME names.

    Raises:
        UnknownNameError: nobody registered it.
    """
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.VERBOSE:
        print(f"Loading dataset: {cfg.DATASET.NAME}")
    return dataset(cfg)
