"""The prediction for one image, and the uncertainty above which to abstain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from causalclip.engine.prediction import Prediction, Reading


@dataclass(frozen=True, eq=False, repr=False)
class Vote:
    """Class probabilities and their uncertainty."""

    classnames: Sequence[str]
    """K class names."""
    probabilities: NDArray[np.float32]
    """Probability of each class, (K,)."""
    uncertainty: float
    """Larger is less certain; the scale is the method's own."""
    energy: float | None = None
    """-log sum_k exp(logit_k); None if the probabilities are not a softmax of logits."""

    @property
    def label(self) -> int:
        """The index of the most probable class."""
        return int(self.probabilities.argmax())

    @property
    def classname(self) -> str:
        """The name of the most probable class."""
        return self.classnames[self.label]

    @property
    def probability(self) -> float:
        """The largest probability."""
        return float(self.probabilities[self.label])

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.classname!r}, probability={self.probability:.4f}, "
            f"uncertainty={self.uncertainty:.4g})"
        )

    def top(self, n: int) -> list[tuple[str, float]]:
        """Return the `n` most probable classes with their probabilities, in descending order."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [(self.classnames[int(i)], float(self.probabilities[i])) for i in order]


@dataclass(frozen=True, eq=False, repr=False)
class Answer(Vote):
    """The method's main prediction for an image, and its other outputs."""

    image: str = ""
    """Path of the image; empty for an image in memory."""
    readings: Mapping[str, Vote] = field(default_factory=dict)
    """Predictions of the same forward pass by name: CDC's fusion rules, CLIP_ICM's classifiers."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """Other numbers by name, for example CDC's `conflict`."""
    members: Mapping[str, Sequence[Vote]] = field(default_factory=dict)
    """One prediction per ensemble member, by the kind of member: CDC's `template`."""


def answers_of(
    prediction: Prediction, images: Sequence[str], classnames: Sequence[str]
) -> list[Answer]:
    """Return one answer per row of a prediction for B images with the paths `images`."""

    def vote(reading: Reading, *index: int) -> Vote:
        energy = None if reading.energy is None else reading.energy[index].item()
        uncertainty = reading.uncertainty[index].item()
        return Vote(classnames, reading.probabilities[index].numpy(), uncertainty, energy)

    return [
        Answer(
            **vars(vote(prediction.main, row)),
            image=image,
            readings={name: vote(reading, row) for name, reading in prediction.readings.items()},
            extras={name: values[row].item() for name, values in prediction.extras.items()},
            members={
                name: [vote(reading, row, m) for m in range(reading.uncertainty.shape[1])]
                for name, reading in prediction.members.items()
            },
        )
        for row, image in enumerate(images)
    ]


@dataclass(frozen=True)
class Threshold:
    """The largest uncertainty to answer at, chosen on validation images."""

    uncertainty: float
    risk: float
    """Errors among the answered images, in per cent."""
    coverage: float
    """Answered images, in per cent."""
    images: int
    """Number of validation images."""

    def __str__(self) -> str:
        """Return one line, with the uncertainty in full, so that `--abstain` can take it."""
        return (
            f"abstain above uncertainty {self.uncertainty!r}: {self.risk:.2f} % wrong of the "
            f"{self.coverage:.1f} % answered of {self.images} validation images"
        )


def threshold_for(uncertainty: ArrayLike, correct: ArrayLike, *, risk: float) -> Threshold:
    """Return the threshold of largest coverage with at most `risk` per cent of errors.

        t = max { t : #(wrong, u <= t) / #(u <= t) <= risk / 100 },  t among the uncertainties

    Images of equal uncertainty are answered together or not at all. This is selective
    classification (Geifman and El-Yaniv, NeurIPS 2017, arXiv 1705.08500) with the empirical risk on
    these images instead of the paper's bound for new images.

    Args:
        uncertainty: (N,), larger is less certain.
        correct: (N,) of 0 / 1.
        risk: per cent, 0 to 100.

    Raises:
        ValueError: a risk outside [0, 100], no image, unequal lengths, NaN, or a risk that no
            threshold keeps; states the lowest risk.
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
    best = allowed[-1]
    coverage = 100 * float(answered[best]) / len(u)
    return Threshold(float(values[best]), float(risks[best]), coverage, len(u))
