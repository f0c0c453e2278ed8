"""What a trainer answers about test images: readings of probabilities and uncertainty, and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """One way to read a model's answer: class probabilities and how uncertain they are."""

    probabilities: Tensor
    """(B, K), rows sum to 1."""
    uncertainty: Tensor
    """(B,), larger is less certain; of any scale, only its order is used."""

    @classmethod
    def of_logits(cls, logits: Tensor) -> Reading:
        """Softmax of class logits (B, K); a softmax knows no other uncertainty than 1 - max p."""
        probabilities = logits.softmax(-1)
        return cls(probabilities, 1 - probabilities.amax(-1))


@dataclass(frozen=True)
class Prediction:
    """The answer a method is judged by, other readings of the same model by name, and extras."""

    main: Reading
    readings: Mapping[str, Reading] = field(default_factory=dict)
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """Further arrays, one row an image: CDC's conflict (B,), each template's opinion, ..."""

    @classmethod
    def joined(cls, parts: Sequence[Prediction]) -> Prediction:
        """The predictions of consecutive batches as one, on the CPU, in their own precision."""

        def join(tensors: list[Tensor]) -> Tensor:
            return torch.cat([tensor.cpu() for tensor in tensors])

        def reading(several: list[Reading]) -> Reading:
            return Reading(
                join([r.probabilities for r in several]), join([r.uncertainty for r in several])
            )

        first = parts[0]
        return cls(
            main=reading([part.main for part in parts]),
            readings={
                name: reading([part.readings[name] for part in parts]) for name in first.readings
            },
            extras={name: join([part.extras[name] for part in parts]) for name in first.extras},
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The flat arrays of predictions.npz (docs/results.md); the only place that names them.

        Probabilities go to fp32; uncertainty keeps fp64, in which very certain samples still differ
        (u of eight fused templates reaches 1e-69, which fp32 rounds to 0).
        """
        named = {"": self.main, **{f"{name}/": r for name, r in self.readings.items()}}
        flat = {}
        for prefix, reading in named.items():
            flat[f"{prefix}probabilities"] = reading.probabilities.float().numpy()
            flat[f"{prefix}uncertainty"] = reading.uncertainty.double().numpy()
        for name, tensor in self.extras.items():
            flat[name] = tensor.numpy() if tensor.dtype == torch.float64 else tensor.float().numpy()
        flat["prediction"] = self.main.probabilities.argmax(-1).numpy()
        return flat
