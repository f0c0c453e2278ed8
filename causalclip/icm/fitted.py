"""What CLIP-ICM found: a subspace for each reading, the linear probes, and how it was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from causalclip.icm.folds import Fold
from causalclip.icm.probe import Probe, fit_probe
from causalclip.icm.projection import TENSORS, InvariantProjection, ProjectionSettings
from causalclip.icm.selection import Choice, Scored, best

PROBES = ("plain", "icm")


@dataclass(frozen=True)
class Chosen:
    """A subspace, the cell of the grid that gave it, and the cells it was chosen from."""

    choice: Choice
    projection: InvariantProjection
    scored: Sequence[Scored] = ()
    """Empty where nothing was to be chosen."""

    def record(self) -> dict[str, Any]:
        """The choice as JSON values."""
        return {
            "choice": asdict(self.choice),
            "source_accuracy": best(self.scored).mean if self.scored else None,
            "grid": [cell.record() for cell in self.scored],
            "settings": asdict(self.projection.settings),
            "intervention_energy_kept": self.projection.intervention_energy_kept,
            "feature_energy_kept": self.projection.feature_energy_kept,
            "spectrum": self.projection.spectrum.tolist(),
        }

    def __str__(self) -> str:
        """The choice in a line."""
        return (
            f"{self.choice.estimator}, strength {self.choice.strength:g}, {self.choice.dim_inv} of "
            f"{len(self.projection.basis)} dimensions; keeps "
            f"{100 * self.projection.intervention_energy_kept:.1f} % of the interventions' change "
            f"and {100 * self.projection.feature_energy_kept:.1f} % of the features' energy"
        )


@dataclass(frozen=True, eq=False)
class FittedICM:
    """The result of a fit; `state` and `facts` are all there is to it."""

    projections: Mapping[str, InvariantProjection]
    """By the reading they were chosen for: `zeroshot`, `linear_probe`."""
    probes: Mapping[str, Probe] = field(default_factory=dict)
    """`plain` on features (..., D) and `icm` on projected ones (..., k), or none."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON values: the folds, the number of pairs and, below `heads`, each `Chosen.record()`."""

    def state(self) -> dict[str, Tensor]:
        """What was learned, by name."""
        heads = {
            f"{head}_{name}": tensor
            for head, projection in self.projections.items()
            for name, tensor in projection.tensors().items()
        }
        probes = {
            f"probe_{name}_{part}": tensor
            for name, probe in self.probes.items()
            for part, tensor in (("weight", probe.weight), ("bias", probe.bias))
        }
        return heads | probes

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FittedICM:
        """The fit that `state` and `facts` were taken of, its basis (D, k) among the tensors.

        Raises:
            KeyError: a tensor or a fact is missing.
        """
        projections = {
            head: InvariantProjection(
                **{name: tensors[f"{head}_{name}"] for name in TENSORS},
                settings=ProjectionSettings(**described["settings"]),
            )
            for head, described in facts["heads"].items()
        }
        probes = {
            name: Probe(tensors[f"probe_{name}_weight"], tensors[f"probe_{name}_bias"])
            for name in PROBES
            if "linear_probe" in projections
        }
        return cls(projections, probes, facts)


def probes_of(
    folds: Sequence[Fold],
    projection: InvariantProjection,
    n_classes: int,
    *,
    c: float = 0.316,
    max_iter: int = 1000,
) -> dict[str, Probe]:
    """The plain probe and the one in the subspace, both on all folds; options as in `fit_probe`.

    Raises:
        ValueError: c or max_iter out of range, images of one class only.
    """
    features = torch.cat([fold.features for fold in folds])
    labels = torch.cat([fold.labels for fold in folds])
    inputs = {"plain": features, "icm": projection(features)}
    return {
        name: fit_probe(x, labels, n_classes, c=c, max_iter=max_iter) for name, x in inputs.items()
    }
