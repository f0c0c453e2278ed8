"""Results as data: results.json and predictions.npz of one evaluation (docs/results.md)."""

from __future__ import annotations

import datetime
import json
import math
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dassl
import numpy as np
import torch
import yaml
from yacs.config import CfgNode

from causalclip.files.atomic import replacing

SCHEMA = 1
RESULTS_FILE = "results.json"
PREDICTIONS_FILE = "predictions.npz"
RECORDED_PACKAGES = ("causalclip", "torch", "torchvision", "openai-clip", "numpy")


def run_record(cfg: CfgNode, *, classnames: list[str], split: str) -> dict[str, Any]:
    """Who produced a result: method, data, seed, versions, command line and configuration."""
    return {
        "schema": SCHEMA,
        "trainer": cfg.TRAINER.NAME,
        "config_name": cfg.get("CONFIG_NAME"),  # a host checkout's train.py does not say
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "dataset": cfg.DATASET.NAME,
        "seed": cfg.SEED,
        "shots": cfg.DATASET.NUM_SHOTS,
        "subsample_classes": cfg.DATASET.SUBSAMPLE_CLASSES,
        "source_domains": list(cfg.DATASET.SOURCE_DOMAINS),
        "target_domains": list(cfg.DATASET.TARGET_DOMAINS),
        "split": split,
        "classnames": classnames,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "command": sys.argv,
        "config": yaml.safe_load(cfg.dump()),
    }


def training_facts(directory: str | Path) -> dict[str, Any] | None:
    """What the run in ``directory`` was trained on, from its results.json; None without one."""
    path = Path(directory) / RESULTS_FILE
    if not path.is_file():
        return None
    record = json.loads(path.read_text())
    keys = ("dataset", "shots", "seed", "subsample_classes", "source_domains", "classnames")
    return {key: record[key] for key in keys}


def package_versions() -> dict[str, str | None]:
    """Versions of Python and of the packages a result depends on; None where not installed."""
    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        # The one that runs, not one that is installed: Dassl is often only on the path.
        "dassl": dassl.__version__,
    }
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None  # a checkout can be on the path without being installed
    return versions


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: of the process on a CPU, of the tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def write_results(directory: str | Path, record: dict[str, Any]) -> Path:
    """Write results.json atomically; numbers that are not finite become null."""
    path = Path(directory) / RESULTS_FILE
    text = json.dumps(finite(record), indent=1, allow_nan=False)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def write_predictions(directory: str | Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write predictions.npz atomically: one row a test image in every array."""
    path = Path(directory) / PREDICTIONS_FILE
    with replacing(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def finite(value: Any) -> Any:
    """The same JSON value with every NaN and infinity replaced by None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value
