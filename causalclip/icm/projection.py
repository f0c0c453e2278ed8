"""CLIP-ICM's invariant projection: z -> A' z, cosines inside the subspace, and its file.

Song et al., "Learning Invariant Causal Mechanism from Vision-Language Models", ICML 2025.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from causalclip.files.atomic import replacing
from causalclip.files.caches import NotJSONError, parse_json

Estimator = Literal["difference", "generalized"]
Keep = Literal["invariant", "reference"]

FORMAT = "causalclip.InvariantProjection/1"
TENSORS = ("basis", "spectrum", "intervention_energy", "feature_energy")


@dataclass(frozen=True)
class ProjectionSettings:
    """The arguments that an `InvariantProjection` was solved with."""

    estimator: Estimator
    strength: float
    """lambda of `difference`, eps of `generalized`."""
    keep: Keep
    orthonormal: bool
    normalize: bool
    """Whether the features were L2-normalised before their moments were taken."""
    n_pairs: int


@dataclass(frozen=True)
class InvariantProjection:
    """The linear map z -> A' z to the invariant subspace, with the energies that it keeps."""

    basis: Tensor
    """A, shape (D, k), float64; column j belongs to `spectrum[j]`."""
    spectrum: Tensor
    """All D eigenvalues, those of the kept columns first."""
    intervention_energy: Tensor
    """Share of E|d|^2 inside the span of the first j + 1 columns, shape (k,): best near 0."""
    feature_energy: Tensor
    """Share of E|z|^2 inside the span of the first j + 1 columns, shape (k,): best near 1."""
    settings: ProjectionSettings

    @property
    def dim_inv(self) -> int:
        """Number of kept dimensions k."""
        return self.basis.shape[1]

    @property
    def turns_only(self) -> bool:
        """Whether the projection is a rotation: an orthonormal basis of all dimensions."""
        return self.settings.orthonormal and self.dim_inv == len(self.basis)

    @property
    def intervention_energy_kept(self) -> float:
        """Share of the interventions' change that survives the projection."""
        return self.intervention_energy[-1].item()

    @property
    def feature_energy_kept(self) -> float:
        """Share of the features' energy that survives the projection."""
        return self.feature_energy[-1].item()

    def __call__(self, features: Tensor) -> Tensor:
        """Project features (..., D) to (..., k), in their own dtype and on their own device.

        Raises:
            ValueError: the features do not end in D.
        """
        if features.shape[-1:] != self.basis.shape[:1]:
            raise ValueError(
                f"features must have shape (..., {self.basis.shape[0]}), "
                f"got {tuple(features.shape)}"
            )
        return features @ self.basis.to(features)

    def cosine_logits(
        self,
        image_features: Tensor,
        text_features: Tensor,
        scale: float | Tensor,
        *,
        normalize: bool = True,
    ) -> Tensor:
        """Return zero-shot logits scale * cos(A' z, A' t_k), (..., D) and (K, D) -> (..., K).

        `normalize=False` leaves out both norms, as the published code does.
        """
        z, t = self(image_features), self(text_features)
        if normalize:
            z, t = F.normalize(z, dim=-1), F.normalize(t, dim=-1)
        return scale * z @ t.mT

    def first(self, dim_inv: int) -> InvariantProjection:
        """Return the projection on the first `dim_inv` columns, which equals `solve(dim_inv)`.

        Raises:
            ValueError: `dim_inv` is no int in [1, k].
        """
        check_dim_inv(dim_inv, self.dim_inv)
        return replace(
            self,
            basis=self.basis[:, :dim_inv],
            intervention_energy=self.intervention_energy[:dim_inv],
            feature_energy=self.feature_energy[:dim_inv],
        )

    def to(self, *args: Any, **kwargs: Any) -> InvariantProjection:
        """Return the same projection with its tensors moved as by `Tensor.to`."""
        return replace(self, **{k: t.to(*args, **kwargs) for k, t in self.tensors().items()})

    def save(self, path: str | os.PathLike) -> None:
        """Write the projection to a safetensors file, atomically."""
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors().items()}
        metadata = {"format": FORMAT, "settings": json.dumps(asdict(self.settings))}
        with replacing(path) as part:
            save_file(tensors, part, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike) -> InvariantProjection:
        """Read a projection that `save` wrote.

        Raises:
            ValueError: a safetensors file of something else, or a damaged one; names it.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(f"{path} must hold {FORMAT}, got {metadata.get('format')!r}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
            return cls(**tensors, settings=ProjectionSettings(**parse_json(metadata["settings"])))
        except (SafetensorError, TypeError, KeyError, NotJSONError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name: `basis`, `spectrum` and both energies."""
        return {name: getattr(self, name) for name in TENSORS}


def check_dim_inv(dim_inv: int, dim: int) -> None:
    """Raise ValueError if `dim_inv` is no int in [1, dim]."""
    if not isinstance(dim_inv, int) or not 1 <= dim_inv <= dim:
        raise ValueError(f"dim_inv must be an int in [1, {dim}], got {dim_inv!r}")
