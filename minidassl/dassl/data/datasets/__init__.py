"""Data sets: the registry, and the base classes that data sets extend."""

from __future__ import annotations

from typing import Any

from dassl.data.datasets.base_dataset import DatasetBase, Datum
from dassl.utils import Registry

__all__ = ["DATASET_REGISTRY", "DatasetBase", "Datum", "build_dataset"]

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: Any) -> Any:
    """Build the data set that DATASET.NAME names; raise UnknownNameError if there is none."""
    dataset = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.VERBOSE:
        print(f"Loading dataset: {cfg.DATASET.NAME}")
    return dataset(cfg)
