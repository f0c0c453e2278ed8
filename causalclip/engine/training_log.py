"""Loss and accuracy of training steps: for Dassl's log lines and as a curve for results.json."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class TrainingLog:
    """Sums the numbers of steps on the device; reading them is what waits for a GPU."""

    def __init__(self, *, every_step: bool = True) -> None:
        """Start empty; `every_step`: return each step's numbers, which waits for no CPU."""
        self.every_step = every_step
        self._sum: Tensor | None = None
        self._steps = 0
        self._epochs: dict[int, tuple[int, float, float]] = {}

    def add(self, loss: Tensor, accuracy: Tensor) -> None:
        """Add one step's loss and accuracy, tensors (...) of one element each."""
        step = torch.stack([loss.detach().float().squeeze(), accuracy.float().squeeze()])
        self._sum = step if self._sum is None else self._sum + step
        self._steps += 1

    def due(self, *, epoch: int, batch: int, batches: int, every: int) -> dict[str, float] | None:
        """Return the means for Dassl's next log line, or None where no line comes.

        Epoch and batch are of the last step, from 1; a line comes after `every` batches.

        Raises:
            FloatingPointError: a loss since the last reading is NaN or infinite.
        """
        is_printed = self.every_step or batches < every or batch % every == 0
        if not is_printed and batch < batches:
            return None
        means = self.read(epoch=epoch, batch=batch)  # finds a NaN at the end, too
        return means if is_printed else None

    def read(self, *, epoch: int, batch: int) -> dict[str, float]:
        """Return the means since the last reading, as Dassl's meters take them.

        Raises:
            FloatingPointError: a loss among them is NaN or infinite; names the batches.
        """
        assert self._sum is not None, "read after a step at least"
        loss, accuracy = (self._sum / self._steps).tolist()
        first, steps = batch - self._steps + 1, self._steps
        self._sum, self._steps = None, 0
        if not math.isfinite(loss):
            where = f"batch {batch}" if first == batch else f"batches {first} to {batch}"
            raise FloatingPointError(f"Loss is infinite or NaN! (epoch {epoch}, {where})")
        n, losses, accuracies = self._epochs.get(epoch, (0, 0.0, 0.0))
        self._epochs[epoch] = (n + steps, losses + steps * loss, accuracies + steps * accuracy)
        return {"loss": loss, "acc": accuracy}

    def curve(self) -> dict[str, list[float]]:
        """Return the means of each epoch: lists `epoch`, `loss` and `accuracy` of one length."""
        sums = self._epochs.values()
        return {
            "epoch": list(self._epochs),
            "loss": [loss / n for n, loss, _ in sums],
            "accuracy": [accuracy / n for n, _, accuracy in sums],
        }
