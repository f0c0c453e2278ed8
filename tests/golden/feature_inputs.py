"""Inputs for features.npz, which contains outputs of published methods on frozen features.

Recorded in float64 from mrflogs/ICLR24 @560fe21 (gda), FereshteShakeri/FewShot-CLIP-Strong-Baseline
@f81054f (lpp; the bias starts at zero), astra-vision/ProLIP @b43e795 (prolip), kdiAAA/TDA @e697fb0
(tda: run_test_tda with configs/imagenet.yaml on 120 features; texts times 0.12, so that its
100 z t' is 12 times the cosine) and azshue/TPT @63ecbac (tpt: test_time_tuning, 1 and 3 steps on
two images of 64 views, with the small CLIP of weights.py).
"""

from __future__ import annotations

import math

import torch
from golden.weights import unit_stream
from torch import Tensor


def labelled(name: str, classes: int, shots: int, width: int) -> tuple[Tensor, Tensor]:
    """Return features (N, E) around a centre for each class, and labels (N,)."""
    labels = torch.arange(classes).repeat(shots)
    noise = unit_stream(name, (len(labels), width))
    return _centres(name, classes, width)[labels] + 1.5 * torch.from_numpy(noise), labels


def texts(name: str, classes: int, width: int) -> Tensor:
    """Return text features (K, E) near the centres."""
    noise = unit_stream(f"{name}.text", (classes, width))
    return _centres(name, classes, width) + torch.from_numpy(noise)


def projection(name: str, width: int, embed_dim: int) -> Tensor:
    """Return an image projection (D, E)."""
    unit = unit_stream(f"{name}.projection", (width, embed_dim))
    return torch.from_numpy(unit) / math.sqrt(width)


def _centres(name: str, classes: int, width: int) -> Tensor:
    return torch.from_numpy(unit_stream(f"{name.partition('.')[0]}.centres", (classes, width)))
