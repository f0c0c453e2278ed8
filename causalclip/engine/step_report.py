"""Loss and accuracy of training steps, left on the device until they are printed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from causalclip.engine.training_curve import TrainingCurve


class StepReport:
    """Sums the numbers of training steps where they are; reading them is what waits for a GPU."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._steps = 0
        self.curve = TrainingCurve()

    def add(self, loss: Tensor, accuracy: Tensor) -> None:
        """Take in one step's loss and accuracy, tensors (...) of one element each."""
        step = torch.stack([loss.detach().float().squeeze(), accuracy.float().squeeze()])
        self._sum = step if self._sum is None else self._sum + step
        self._steps += 1

    def read(self, *, epoch: int, batch: int) -> dict[str, float]:
        """The means since the last reading, as Dassl's meters take them.

        Args:
            epoch: of the last step, from 1.
            batch: of the last step, from 1.

        Raises:
            FloatingPointError: a loss among them that is NaN or infinite; names the batches.
        """
        assert self._sum is not None, "read after a step at least"
        loss, accuracy = (self._sum / self._steps).tolist()
        first, self._sum, self._steps = batch - self._steps + 1, None, 0
        if not math.isfinite(loss):
            where = f"batch {batch}" if first == batch else f"batches {first} to {batch}"
            raise FloatingPointError(f"Loss is infinite or NaN! (epoch {epoch}, {where})")
        self.curve.add(epoch, batch - first + 1, loss=loss, accuracy=accuracy)
        return {"loss": loss, "acc": accuracy}
