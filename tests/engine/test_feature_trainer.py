"""A fit as a module: what is saved is what comes back, and what does not fit is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from causalclip.engine.fit import FitModule


@dataclass(frozen=True, eq=False)
class Mean:
    """The smallest fit there is."""

    mean: Tensor
    facts: Mapping[str, Any]

    def state(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Mean:
        return cls(tensors["mean"], facts)


def fitted() -> FitModule:
    module = FitModule(Mean)
    module.hold(Mean(torch.arange(3.0, requires_grad=True), {"n": 4}), {"seed": 1})
    return module


def test_nothing_is_saved_before_a_fit():
    assert FitModule(Mean).state_dict() == {}


def test_a_state_dict_is_the_fit_and_what_it_was_fitted_with(tmp_path):
    torch.save(fitted().state_dict(), tmp_path / "fit")
    other = FitModule(Mean)
    other.load_state_dict(torch.load(tmp_path / "fit", weights_only=True))
    assert other.fit is not None and other.fit.mean.tolist() == [0, 1, 2]
    assert not other.fit.mean.requires_grad
    assert other.fit.facts == {"n": 4} and other.fitted_with == {"seed": 1}
    with pytest.raises(FrozenInstanceError):
        other.fit.mean = torch.zeros(3)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("mean"), "a Mean needs 'mean', which is missing"),
        (lambda state: state.pop("_extra_state"), "needs '_extra_state', which is missing"),
        (lambda state: state["_extra_state"].pop("details"), "needs 'details', which is missing"),
        (lambda state: state.update(deviation=torch.ones(3)), "a Mean has no deviation"),
    ],
)
def test_a_state_dict_of_something_else_is_refused_and_the_fit_kept(change, message):
    module, state = fitted(), fitted().state_dict()
    change(state)
    before = module.fit
    with pytest.raises(RuntimeError, match=message):
        module.load_state_dict(state)
    assert module.fit is before
