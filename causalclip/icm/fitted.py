"""What CLIP-ICM found: a subspace for each reading, the linear probes, and how it was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from causalclip.icm.certainty import UNDETERMINED, Certainty
from causalclip.icm.folds import Fold
from causalclip.icm.probe import Probe, fit_probe
from causalclip.icm.projection import TENSORS, InvariantProjection, ProjectionSettings
from causalclip.icm.selection import Choice, Scored
from causalclip.icm.standard_error import Gain

PROBES = ("plain", "icm")


@dataclass(frozen=True)
class Chosen:
    """A subspace, the cell of the grid that gave it, and the cells it was chosen from."""

    choice: Choice
    projection: InvariantProjection
    scored: Sequence[Scored] = ()
    """Empty where nothing was to be chosen."""
    gain: Gain | None = None
    """Over the plain features, on folds that had no part in the choice; None if not asked for."""
    certainty: Certainty | None = None
    """How far resampled images turn it; None if not asked for."""

    def record(self) -> dict[str, Any]:
        """The choice as JSON values."""
        asked = {"gain": self.gain, "certainty": self.certainty}
        return {
            "choice": asdict(self.choice),
            "source_accuracy": self.source_accuracy,
            "grid": [cell.record() for cell in self.scored],
            "settings": asdict(self.projection.settings),
            "intervention_energy_kept": self.projection.intervention_energy_kept,
            "feature_energy_kept": self.projection.feature_energy_kept,
            "spectrum": self.projection.spectrum.tolist(),
            **{name: found.record() for name, found in asked.items() if found is not None},
        }

    @property
    def source_accuracy(self) -> float | None:
        """Mean accuracy of the choice on the held-out folds, per cent; None if not chosen."""
        means = (cell.mean for cell in self.scored if cell.choice == self.choice)
        return next(means, None)

    def lines(self) -> list[str]:
        """The choice, and what else was asked about it, a line each."""
        lines = [str(self)]
        if self.gain is not None:
            stays = "" if self.choice.dim_inv < len(self.projection.basis) else "; all are kept"
            lines.append(
                f"choosing gains {self.gain.points:.2f} points on sources left out, standard error "
                f"{self.gain.standard_error:.2f}{stays}"
            )
        if self.certainty is not None:
            lines.append(f"k = {self.choice.dim_inv}: {self.certainty}")
            if not self.certainty.determined:
                lines.append(
                    "warning: the subspace is not determined, half of the resamples turn it by "
                    f"more than {UNDETERMINED:g} degrees: use more images or another dimension"
                )
        return lines

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

    @classmethod
    def of(
        cls,
        chosen: Mapping[str, Chosen],
        probes: Mapping[str, Probe],
        facts: Mapping[str, Any],
        *,
        twins: Mapping[str, Mapping[str, float]],
    ) -> FittedICM:
        """The fit of the subspaces chosen for each reading; `twins` are theirs from `compared`."""
        heads = {head: found.record() for head, found in chosen.items()}
        for head, angles in twins.items():
            heads[head]["twins"] = angles
        projections = {head: found.projection for head, found in chosen.items()}
        return cls(projections, probes, {**facts, "heads": heads})

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

    def zeroshot_logits(
        self, features: Tensor, text: Tensor, scale: Tensor | float, *, normalize: bool = True
    ) -> dict[str, Tensor]:
        """Logits (B, K) of features (B, D) against class texts (K, D) in the subspace, by reading.

        `scale` and `normalize` as in `InvariantProjection.cosine_logits`.
        """
        inside = self.projections["zeroshot"]
        return {"zeroshot_icm": inside.cosine_logits(features, text, scale, normalize=normalize)}

    def probe_logits(self, features: Tensor) -> dict[str, Tensor]:
        """Logits (B, K) of the probes, plain and in the subspace, on features (B, D), by reading.

        Raises:
            KeyError: a fit without probes.
        """
        inside = self.projections["linear_probe"](features)
        return {
            "linear_probe": self.probes["plain"].logits(features),
            "linear_probe_icm": self.probes["icm"].logits(inside),
        }


def probes_of(
    folds: Sequence[Fold],
    projection: InvariantProjection,
    n_classes: int,
    *,
    c: float = 0.316,
    max_iter: int = 1000,
) -> dict[str, Probe]:
    """The plain probe and the one in the subspace, both on all folds; options as in `fit_probe`.

    Where the projection only turns the features (D, D), so does the plain probe's weight: L-BFGS
    would stop elsewhere, and plain features that stay are to cost nothing.

    Raises:
        ValueError: c or max_iter out of range, images of one class only.
    """
    features = torch.cat([fold.features for fold in folds])
    labels = torch.cat([fold.labels for fold in folds])
    plain = fit_probe(features, labels, n_classes, c=c, max_iter=max_iter)
    if projection.turns_only:
        return {"plain": plain, "icm": Probe(projection(plain.weight), plain.bias)}
    inside = fit_probe(projection(features), labels, n_classes, c=c, max_iter=max_iter)
    return {"plain": plain, "icm": inside}
