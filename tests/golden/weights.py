"""Weights and inputs of the golden runs, computed by a rule so that none has to be stored.

A tensor is drawn from the raw PCG64 stream (stable across NumPy releases by policy) seeded by the
SHA-256 of its name. The published trainers were run on exactly these numbers; see manifest.json.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

SHAPE = {
    "image_resolution": 32,
    "vision_patch_size": 8,
    "context_length": 77,
    "vocab_size": 49408,
    "transformer_width": 128,
    "transformer_heads": 2,
}
CLIP_SHAPES = {
    # Text and vision widths differ from each other and from 512 and 768.
    "small": SHAPE
    | {"embed_dim": 48, "vision_layers": 3, "vision_width": 64, "transformer_layers": 3},
    # The shape of the bundled `tiny` checkpoint.
    "tiny": SHAPE
    | {"embed_dim": 64, "vision_layers": 4, "vision_width": 128, "transformer_layers": 4},
}
CLASSNAMES = ["forest_path", "grand piano", "T-shirt", "zebra", "hot_air_balloon"]
SPOKEN = [name.replace("_", " ") for name in CLASSNAMES]  # as written in a text
LABELS = [0, 3, 1, 4]
LOGIT_SCALE = math.log(
    10.0
)  # moderate, so that rounding errors of the logits stay small in the gradients
LEARNABLE = "first"  # prefix of the streams' names, chosen so that no gradient nearly cancels
SKETCHED_ABOVE = 4096  # entries; larger tensors are stored as two random projections


def unit_stream(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform float64 numbers of mean 0 and variance 1, determined by `name` alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    raw = np.random.PCG64(seed).random_raw(math.prod(shape))
    uniform = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return ((2 * uniform - 1) * math.sqrt(3)).reshape(shape)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def clip_parameter(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return one parameter of CLIP, of about the size of CLIP's own initialisation."""
    if name == "logit_scale":
        return torch.tensor(LOGIT_SCALE, dtype=torch.float32)
    unit = unit_stream(f"clip.{name}", shape)
    if len(shape) == 1 and name.endswith("weight"):  # a LayerNorm
        return _tensor(1 + 0.1 * unit)
    if len(shape) == 1:
        return _tensor(0.1 * unit)
    if name == "token_embedding.weight":
        return _tensor(0.05 * unit)
    if name == "positional_embedding":
        return _tensor(0.02 * unit)
    # Projections are stored (in, out); linear and convolution weights (out, in, ...).
    fan_in = shape[0] if name.endswith("proj") else math.prod(shape[1:])
    return _tensor(unit / math.sqrt(fan_in))


def clip_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return a CLIP state dict for the given parameter names and shapes."""
    return {name: clip_parameter(name, tuple(shape)) for name, shape in shapes.items()}


def learnable(name: str, shape: tuple[int, ...]) -> Tensor:
    """Return the initial value of a learnable tensor by its published state-dict name."""
    unit = unit_stream(f"{LEARNABLE}.{name}", shape)
    is_matrix = len(shape) == 2 and name.endswith("weight")
    return _tensor(unit / math.sqrt(shape[1]) if is_matrix else 0.02 * unit)


def images(step: int) -> Tensor:
    """Return the images (4, 3, 32, 32) of optimiser step `step`, counted from 0."""
    return _tensor(unit_stream(f"images.{step}", (len(LABELS), 3, 32, 32)))


def labels(step: int) -> Tensor:
    """Return the labels (4,) of step `step`: LABELS, shifted by one class a step."""
    return torch.tensor([(label + step) % len(CLASSNAMES) for label in LABELS])


def digest(state: Mapping[str, Tensor]) -> str:
    """Return SHA-256 of names and float32 bytes, to detect a change of the rule."""
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(name.encode())
        sha.update(state[name].detach().cpu().numpy().astype("<f4").tobytes())
    return sha.hexdigest()


def kept(name: str, tensor: Tensor) -> dict[str, np.ndarray]:
    """Return the arrays that a golden file stores of a tensor: all of it, or two sketches.

    A sketch is the product with four random sign vectors, from the left or from the right; a
    difference anywhere in the tensor shows in it.
    """
    array = tensor.detach().cpu().numpy().copy()  # not a view: training changes the tensor
    if array.size <= SKETCHED_ABOVE:
        return {name: array}
    rows, columns = array.shape
    left = np.sign(unit_stream(f"left.{rows}", (4, rows)))
    right = np.sign(unit_stream(f"right.{columns}", (columns, 4)))
    wide = array.astype(np.float64)
    return {
        f"{name}@left": (left @ wide).astype(np.float32),
        f"{name}@right": (wide @ right).astype(np.float32),
    }
