"""What a method fitted without gradient descent found, and the module its checkpoint is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

EXTRA = "_extra_state"  # the name that torch gives to what is no tensor


FitT = TypeVar("FitT", bound="Fit")


class Fit(Protocol):
    """The frozen result of a fit: tensors by name and JSON facts are all there is to it."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """How it was found, JSON values: the `details` of results.json."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What was learned, by name."""
        ...

    @classmethod
    def from_state(
        cls: type[FitT], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> FitT:
        """The fit that `state` and `facts` were taken of.

        Shapes are those of the fit, such as (D, k) for a basis.

        Raises:
            KeyError: a tensor or a fact is missing.
        """
        ...


class FitModule(nn.Module, Generic[FitT]):
    """Holds a fit as Dassl holds a model: its state dict is the fit and what it was fitted with."""

    def __init__(self, kind: type[FitT], device: torch.device | str = "cpu") -> None:
        """Hold nothing yet; a fit of this kind will come, from a fit or a checkpoint."""
        super().__init__()
        self.kind, self.device = kind, device
        self.fit: FitT | None = None
        self.fitted_with: Mapping[str, Any] = {}

    def hold(self, fit: FitT, fitted_with: Mapping[str, Any]) -> None:
        """Take over a fit in place of an earlier one, exactly as a checkpoint would give it back.

        Args:
            fit: of this module's kind.
            fitted_with: everything it depends on, JSON values.
        """
        tensors = {name: tensor.detach().to(self.device) for name, tensor in fit.state().items()}
        self.fit = self.kind.from_state(tensors, fit.facts)
        self.fitted_with = fitted_with

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The fit's tensors by name and, as `_extra_state`, its facts; nothing before a fit."""
        if self.fit is None:
            return {}
        facts = {"details": self.fit.facts, "fitted_with": self.fitted_with}
        return {**self.fit.state(), EXTRA: facts}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take over the fit of a state dict, always strictly; there is nothing to return.

        Raises:
            RuntimeError: it is not of this kind; names what is missing or not known.
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
