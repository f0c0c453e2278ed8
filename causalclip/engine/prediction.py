"""Predictions for test images: readings of probabilities and uncertainty, and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to read a model's answer: class probabilities and how uncertain they are."""

    probabilities: Tensor
    """(B, K), rows sum to 1."""
    uncertainty: Tensor
    """(B,), larger is less certain; on any scale, as only the order is used."""
    energy: Tensor | None = None
    """(B,), -log sum_k exp(logit_k); None if the probabilities are not a softmax of logits."""

    @classmethod
    def of_logits(cls, logits: Tensor) -> Reading:
        """Return the softmax of class logits (B, K), with the uncertainty 1 - max p."""
        # Logits may come in bf16 (PREC amp), in which 1 - max p would have two digits.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        probabilities = logits.softmax(-1)
        return cls(probabilities, 1 - probabilities.amax(-1), -logits.logsumexp(-1))

    def each(self) -> list[Reading]:
        """Split a reading of M members, (B, M, K) and (B, M), into a list of M readings."""
        pairs = zip(self.probabilities.unbind(1), self.uncertainty.unbind(1), strict=True)
        return [Reading(*pair) for pair in pairs]

    @classmethod
    def joined(cls, parts: Sequence[Reading]) -> Reading:
        """Return the rows of consecutive batches as one reading, on the CPU.

        Probabilities become fp32, as they are saved and measured; uncertainty keeps its precision.
        """
        energies = [part.energy for part in parts if part.energy is not None]
        return cls(
            _joined([part.probabilities.float() for part in parts]),
            _joined([part.uncertainty for part in parts]),
            _joined(energies) if energies else None,
        )


@dataclass(frozen=True, eq=False)
class Prediction:
    """The reading that gives a method's accuracy, other readings by name, and extra arrays."""

    main: Reading
    readings: Mapping[str, Reading] = field(default_factory=dict)
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """Further arrays, one row per image: CDC's conflict (B,), ..."""
    members: Mapping[str, Reading] = field(default_factory=dict)
    """Readings of the M members of an ensemble: probabilities (B, M, K), uncertainty (B, M)."""

    def distinct(self) -> list[Reading]:
        """Return each reading once, `main` first, which may also be one of `readings`."""
        return list(dict.fromkeys([self.main, *self.readings.values()]))

    @classmethod
    def joined(cls, parts: Sequence[Prediction]) -> Prediction:
        """Return the predictions of consecutive batches as one, on the CPU; see `Reading.joined`.

        If `main` is one of `readings`, it is joined and stored once.

        Raises:
            ValueError: no batch at all.
        """
        if not parts:
            raise ValueError("there is nothing to evaluate: the split holds no image")
        rows = zip(*(part.distinct() for part in parts), strict=True)
        joined = [Reading.joined(several) for several in rows]
        of = dict(zip(parts[0].distinct(), joined, strict=True))
        return cls(
            main=joined[0],
            readings={name: of[reading] for name, reading in parts[0].readings.items()},
            extras={
                name: _joined([part.extras[name] for part in parts]) for name in parts[0].extras
            },
            members={
                name: Reading.joined([part.members[name] for part in parts])
                for name in parts[0].members
            },
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the flat arrays of predictions.npz by name (docs/results.md).

        Probabilities are stored in fp32; uncertainty in fp64, in which very certain samples still
        differ (u of eight fused templates reaches 1e-69, which fp32 rounds to 0).
        """
        named = {
            "": self.main,
            **{f"{name}/": reading for name, reading in self.readings.items()},
            **{f"{name}_": members for name, members in self.members.items()},
        }
        flat = {}
        for prefix, reading in named.items():
            flat[f"{prefix}probabilities"] = reading.probabilities.float().numpy()
            flat[f"{prefix}uncertainty"] = reading.uncertainty.double().numpy()
        if self.main.energy is not None:
            flat["energy"] = self.main.energy.double().numpy()
        for name, tensor in self.extras.items():
            flat[name] = tensor.numpy() if tensor.dtype == torch.float64 else tensor.float().numpy()
        flat["prediction"] = self.main.probabilities.argmax(-1).numpy()
        return flat


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The predictions for a whole split with labels and paths, a row for each of N images."""

    prediction: Prediction
    labels: Tensor
    """(N,) int64."""
    paths: tuple[str, ...]
    """(N,) image files."""

    @classmethod
    def joined(cls, parts: Sequence[Evaluated]) -> Evaluated:
        """Return the predictions of consecutive batches as one.

        Raises:
            ValueError: no batch at all.
        """
        return cls(
            Prediction.joined([part.prediction for part in parts]),
            torch.cat([part.labels for part in parts]),
            tuple(path for part in parts for path in part.paths),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything that predictions.npz contains, by name, N rows each."""
        flat = self.prediction.arrays()
        return {**flat, "label": self.labels.numpy(), "path": np.array(self.paths)}


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate the rows of several tensors on the CPU."""
    return torch.cat([tensor.cpu() for tensor in tensors])
