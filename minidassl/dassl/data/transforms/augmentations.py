"""The augmentations that torchvision does not have: translation, cutout, noise, instance norm.

Random numbers are drawn from the generators that Dassl draws from (Python's, and NumPy's for
cutout), in the same order.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as F
from torch import Tensor


class RandomTranslation:
    """With probability p enlarge to 9/8 and cut out a random (height, width); else only resize."""

    def __init__(self, height: int, width: int, p: float = 0.5) -> None:
        self.height, self.width, self.p = height, width, p

    def __call__(self, image: Any) -> Any:  # a PIL image; torchvision's hints know tensors alone
        """A resized image, or a crop of a larger one."""
        if random.uniform(0, 1) > self.p:
            return F.resize(image, [self.height, self.width])
        tall, wide = round(self.height * 1.125), round(self.width * 1.125)
        left = round(random.uniform(0, wide - self.width))
        top = round(random.uniform(0, tall - self.height))
        return F.crop(F.resize(image, [tall, wide]), top, left, self.height, self.width)


class InstanceNormalization:
    """Give each channel of one image zero mean and unit standard deviation."""

    def __init__(self, eps: float = 1e-8) -> None:
        self.eps = eps  # for a channel of one colour

    def __call__(self, image: Tensor) -> Tensor:
        """An image (C, H, W) and the same normalised."""
        pixels = image.flatten(1)  # (C, H * W)
        mean, std = pixels.mean(1), pixels.std(1)
        return (image - mean[:, None, None]) / (std[:, None, None] + self.eps)


class Cutout:
    """Blank n_holes squares of `length` pixels around random centres; they may cross the border.

    DeVries and Taylor, arXiv 1708.04552.
    """

    def __init__(self, n_holes: int = 1, length: int = 16) -> None:
        self.n_holes, self.length = n_holes, length

    def __call__(self, image: Tensor) -> Tensor:
        """An image (C, H, W) and a copy with its squares blank."""
        height, width = image.shape[1:]
        half = self.length // 2
        image = image.clone()
        for _ in range(self.n_holes):
            y, x = np.random.randint(height), np.random.randint(width)
            image[:, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 0.0
        return image


class GaussianNoise:
    """With probability p add noise N(mean, std^2) to every pixel."""

    def __init__(self, mean: float = 0.0, std: float = 0.15, p: float = 0.5) -> None:
        self.mean, self.std, self.p = mean, std, p

    def __call__(self, image: Tensor) -> Tensor:
        """An image (C, H, W) and the same, or a noisy copy."""
        if random.uniform(0, 1) > self.p:
            return image
        return image + (torch.randn(image.shape) * self.std + self.mean)
