"""How the training went: the mean loss and accuracy of each epoch, for results.json."""

from __future__ import annotations


class TrainingCurve:
    """Collects means over some steps each and gives the means of whole epochs."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[int, float, float]] = {}

    def add(self, epoch: int, steps: int, *, loss: float, accuracy: float) -> None:
        """Take in the mean loss and accuracy (per cent) of `steps` steps of an epoch, from 1."""
        n, losses, accuracies = self._sums.get(epoch, (0, 0.0, 0.0))
        self._sums[epoch] = (n + steps, losses + steps * loss, accuracies + steps * accuracy)

    def record(self) -> dict[str, list[float]]:
        """Lists of one length: `epoch`, `loss` and `accuracy`; a resumed run's from its resume."""
        sums = self._sums.values()
        return {
            "epoch": list(self._sums),
            "loss": [loss / n for n, loss, _ in sums],
            "accuracy": [accuracy / n for n, _, accuracy in sums],
        }
