"""What a trained method says of one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from causalclip.engine.prediction import Prediction, Reading


@dataclass(frozen=True, eq=False)
class Vote:
    """Class probabilities and how uncertain they are."""

    classnames: Sequence[str]
    """K of them."""
    probabilities: NDArray[np.float32]
    """(K,)."""
    uncertainty: float
    """Larger is less certain; of the method's own scale."""

    @property
    def label(self) -> int:
        """The class of the largest probability, from 0."""
        return int(self.probabilities.argmax())

    @property
    def classname(self) -> str:
        """Its name."""
        return self.classnames[self.label]

    @property
    def probability(self) -> float:
        """Its probability."""
        return float(self.probabilities[self.label])

    def top(self, n: int) -> list[tuple[str, float]]:
        """The `n` classes of the largest probabilities, with these; the largest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [(self.classnames[int(i)], float(self.probabilities[i])) for i in order]


@dataclass(frozen=True, eq=False)
class Answer(Vote):
    """The vote a method is judged by, and what else it knows of the picture."""

    image: str = ""
    """Its path; empty for a picture in memory."""
    readings: Mapping[str, Vote] = field(default_factory=dict)
    """Other readings of the same model by name: CDC's rules of fusion, CLIP_ICM's classifiers."""
    extras: Mapping[str, float] = field(default_factory=dict)
    """CDC's `conflict`."""
    members: Mapping[str, Sequence[Vote]] = field(default_factory=dict)
    """The votes of an ensemble's members: CDC's `template`."""


def answers(
    prediction: Prediction, images: Sequence[str], classnames: Sequence[str]
) -> list[Answer]:
    """One answer a row of a prediction about B pictures, named `images`, in K classes."""

    def votes_of(reading: Reading) -> list[Vote]:
        rows = zip(reading.probabilities.numpy(), reading.uncertainty.tolist(), strict=True)
        return [Vote(classnames, probabilities, u) for probabilities, u in rows]

    main = votes_of(prediction.main)
    readings = {name: votes_of(reading) for name, reading in prediction.readings.items()}
    members = {
        name: list(zip(*map(votes_of, reading.each()), strict=True))
        for name, reading in prediction.members.items()
    }
    return [
        Answer(
            classnames=classnames,
            probabilities=main[row].probabilities,
            uncertainty=main[row].uncertainty,
            image=image,
            readings={name: votes[row] for name, votes in readings.items()},
            extras={name: values[row].item() for name, values in prediction.extras.items()},
            members={name: votes[row] for name, votes in members.items()},
        )
        for row, image in enumerate(images)
    ]
