"""Training-time metrics."""

from __future__ import annotations

from dassl.metrics.accuracy import compute_accuracy

__all__ = ["compute_accuracy"]
