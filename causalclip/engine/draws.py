"""Random draws that depend on what they are for (seed, epoch, image), not on when they are made."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from causalclip.icm.interventions import sample_seed


@contextmanager
def generators_kept() -> Iterator[None]:
    """Give Python's, NumPy's and torch's CPU generators back as they were found.

    CUDA's are left out: no transform of an image draws from them, and reading them would wait for
    the device.
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

    Args:
        seed: the run's.
        what: numbers that tell the purpose: (epoch,) for an order of images, (epoch, image, view)
            for an augmentation.
    """
    derived = sample_seed("/".join(map(str, what)), seed)
    random.seed(derived)
    np.random.seed(derived % 2**32)
    torch.default_generator.manual_seed(derived)  # torch.manual_seed would seed CUDA's as well
