"""Random generators: their state, and draws that depend on (seed, epoch, image) alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from yacs.config import CfgNode

from causalclip.seeding import sample_seed


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restore Python's, NumPy's and torch's CPU generators at the end.

    CUDA's generators are left out: no image transform draws from them, and reading them would wait
    for the device.
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)


def draw_for(seed: int, *what: int) -> None:
    """Seed Python's, NumPy's and torch's CPU generators for one purpose.

    torchvision draws from torch's generator, Dassl's transforms and samplers from all three.
    `what` is (epoch,) for an order of images, (epoch, image, view) for an augmentation.
    """
    derived = sample_seed("/".join(map(str, what)), seed)
    random.seed(derived)
    np.random.seed(derived % 2**32)
    torch.default_generator.manual_seed(derived)  # torch.manual_seed would seed CUDA's as well


def training_seed(cfg: CfgNode) -> int:
    """Return the seed of training: SEED, or a seed derived from it for TRAIN.START above 0."""
    start = cfg.TRAIN.get("START", 0)  # a configuration may lack it
    return sample_seed(f"start {start}", cfg.SEED) % 2**63 if start else cfg.SEED


def random_state() -> dict[str, Any]:
    """Return the state of all global generators as tensors, numbers and strings."""
    state: Any = np.random.get_state()  # a tuple, unless a dictionary is asked for
    name, keys, *position = state
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *position),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore all global generators; CUDA's only if the number of devices is the same."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *position = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *position))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])
