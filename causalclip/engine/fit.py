"""The result of a fit, and the module that keeps it in Dassl's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

EXTRA = "_extra_state"  # torch's key for state that is not a tensor

FitT = TypeVar("FitT", bound="Fit")
TensorFitT = TypeVar("TensorFitT", bound="TensorFit")


class Fit(Protocol):
    """The frozen result of a fit: tensors by name, and JSON facts."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """How it was fitted, as JSON values: the `details` of results.json."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return the fitted tensors by name."""
        ...

    @classmethod
    def from_state(
        cls: type[FitT], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> FitT:
        """Return the fit of a `state` and `facts`; shapes are the fit's, such as (D, k) of a basis.

        Raises:
            KeyError: a tensor or a fact is missing.
        """
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class TensorFit:
    """A fit whose fields are tensors, and its facts."""

    facts: Mapping[str, Any]
    """As in `Fit`."""

    def state(self) -> dict[str, Tensor]:
        """Return the tensors by the names of their fields."""
        return {name: getattr(self, name) for name in self._names()}

    @classmethod
    def from_state(
        cls: type[TensorFitT], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> TensorFitT:
        """Return the fit of a `state`, its tensors of any shape, and `facts`.

        Raises:
            KeyError: a tensor is missing.
        """
        return cls(**{name: tensors[name] for name in cls._names()}, facts=facts)

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls) if field.name != "facts"]


class FitModule(nn.Module, Generic[FitT]):
    """A fit as a module that Dassl can register; its state dict contains the fit and its inputs."""

    def __init__(self, kind: type[FitT], device: torch.device | str = "cpu") -> None:
        """Start without a fit; `hold` or `load_state_dict` sets it."""
        super().__init__()
        self.kind, self.device = kind, device
        self.fit: FitT | None = None
        self.fitted_with: Mapping[str, Any] = {}

    def hold(self, fit: FitT, fitted_with: Mapping[str, Any]) -> None:
        """Store a fit and its inputs, JSON values, in the form that a checkpoint returns."""
        tensors = {name: tensor.detach().to(self.device) for name, tensor in fit.state().items()}
        self.fit = self.kind.from_state(tensors, fit.facts)
        self.fitted_with = fitted_with

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the fit's tensors and, as `_extra_state`, its facts; nothing before a fit."""
        if self.fit is None:
            return {}
        facts = {"details": self.fit.facts, "fitted_with": self.fitted_with}
        return {**self.fit.state(), EXTRA: facts}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Store the fit of a state dict, always strictly.

        Raises:
            RuntimeError: it is not of this kind; names what is missing or unknown.
        """
        tensors = {name: value for name, value in state_dict.items() if name != EXTRA}
        try:
            facts = state_dict[EXTRA]
            fit = self.kind.from_state(tensors, facts["details"])
            fitted_with = facts["fitted_with"]
        except KeyError as error:
            raise RuntimeError(f"a {self.kind.__name__} needs {error}, which is missing") from error
        if unknown := sorted(set(tensors) - set(fit.state())):
            raise RuntimeError(f"a {self.kind.__name__} has no {', '.join(unknown)}")
        self.hold(fit, fitted_with)
