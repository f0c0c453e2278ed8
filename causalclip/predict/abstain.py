"""When to say nothing: the uncertainty up to which a wanted error rate was kept.

Selective classification after Geifman and El-Yaniv, "Selective Classification for Deep Neural
Networks", NeurIPS 2017 (arXiv 1705.08500), with the empirical risk in place of their bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Threshold:
    """An answer less certain than this is withheld."""

    uncertainty: float
    """The largest that is answered."""
    risk: float
    """Error in per cent among the answered images it was chosen on."""
    coverage: float
    """Per cent of those images that are answered."""
    images: int
    """How many images it was chosen on."""

    def __str__(self) -> str:
        """The choice in a line; the threshold can be given to --abstain as it is."""
        return (
            f"abstain above uncertainty {self.uncertainty!r}: {self.risk:.2f} % wrong of the "
            f"{self.coverage:.1f} % answered of {self.images} validation images"
        )


def threshold_for(uncertainty: ArrayLike, correct: ArrayLike, *, risk: float) -> Threshold:
    """The threshold that answers most with at most `risk` per cent wrong among the answered.

        t = max { t : #(wrong, u <= t) / #(u <= t) <= risk / 100 },  t among the uncertainties

    Images of equal uncertainty are answered together or not at all. It is what was seen on these
    images, no bound for others.

    Args:
        uncertainty: (N,), larger is less certain.
        correct: (N,) of 0 / 1.
        risk: per cent, 0 to 100.

    Raises:
        ValueError: a risk outside [0, 100], no image, two lengths, NaN, or a risk that no threshold
            keeps; says the lowest.
    """
    if not 0 <= risk <= 100:
        raise ValueError(f"risk must be in [0, 100] per cent, got {risk:g}")
    u, right = np.asarray(uncertainty, np.float64), np.asarray(correct, bool)
    if u.ndim != 1 or u.shape != right.shape or not len(u) or np.isnan(u).any():
        raise ValueError(
            "uncertainty and correct must be vectors of one length, not empty and without NaN, "
            f"got shapes {u.shape} and {right.shape}"
        )
    values, tie, size = np.unique(u, return_inverse=True, return_counts=True)
    answered = size.cumsum()
    risks = 100 * np.bincount(tie, weights=~right).cumsum() / answered
    allowed = np.flatnonzero(risks <= risk)
    if not len(allowed):
        raise ValueError(
            f"no threshold keeps the error at {risk:g} % on the {len(u)} validation images: the "
            f"lowest is {risks.min():.3g} %"
        )
    last = allowed[-1]
    return Threshold(
        float(values[last]), float(risks[last]), 100 * float(answered[last]) / len(u), len(u)
    )
