"""Running averages of the numbers that a training loop reports."""

from __future__ import annotations

from collections import defaultdict

import torch


class AverageMeter:
    """The last value (`val`) and the average (`avg`) of a series."""

    def __init__(self) -> None:
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val: float | torch.Tensor, n: int = 1) -> None:
        """Add a value for `n` samples: a number or a tensor (...) of one element."""
        self.val = val.item() if isinstance(val, torch.Tensor) else val
        self.sum += self.val * n
        self.count += n
        self.avg = self.sum / self.count


class MetricMeter:
    """One AverageMeter per name; prints as `loss 1.1155 (1.1155) acc 25.0000 (25.0000)`."""

    def __init__(self) -> None:
        self.meters: dict[str, AverageMeter] = defaultdict(AverageMeter)

    def update(self, input_dict: dict | None) -> None:
        """Add a value for each name; raise TypeError for anything but a dictionary or None."""
        if input_dict is not None and not isinstance(input_dict, dict):
            raise TypeError(
                "Input to MetricMeter.update() must be a dictionary, "
                f"got {type(input_dict).__name__}"
            )
        for name, value in (input_dict or {}).items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return " ".join(
            f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items()
        )
