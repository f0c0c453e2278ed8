"""causalclip/calibration.py: temperatures against torch's own optimiser, DAC against its text."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from causalclip.calibration import class_factors, distance_aware, fit_temperature


def drawn(
    temperature: float, n: int = 20_000, classes: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose labels follow softmax(logits / temperature)."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
    return logits, labels.squeeze(-1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found(temperature):
    # The standard error of 20,000 samples is below 2 %.
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.06)


def test_the_temperature_is_where_torchs_lbfgs_ends():
    logits, labels = drawn(2.0, n=500)
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, tolerance_grad=1e-10)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(logits / log_t.exp(), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(logits, labels) == pytest.approx(log_t.exp().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (torch.zeros(3), torch.zeros(3), "shape"),
        (torch.zeros(0, 4), torch.zeros(0), "at least one"),
        (torch.full((2, 3), math.nan), torch.zeros(2), "finite"),
    ],
)
def test_what_gives_no_temperature_is_refused(logits, labels, said):
    with pytest.raises(ValueError, match=said):
        fit_temperature(logits, labels)


def slow_factors(base_zs, zs, base_ft, ft, k):
    """DAC's definition, class by class and neighbour by neighbour (section 5 of the paper)."""
    found = []
    for i in range(len(zs)):
        tuned = sorted(float(np.sqrt(((ft[i] - other) ** 2).sum())) for other in base_ft)[:k]
        plain = sorted(float(np.sqrt(((zs[i] - other) ** 2).sum())) for other in base_zs)[:k]
        ratio = math.exp(-sum(tuned) / k) / math.exp(-sum(plain) / k)
        found.append(1.0 if tuned[0] < 0.05 else ratio)
    return found


def unit(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_factors_are_those_of_the_definition(k):
    base_zs, zs, base_ft = unit(5, 8, seed=1), unit(4, 8, seed=2), unit(5, 8, seed=3)
    ft = torch.cat([unit(3, 8, seed=4), base_ft[2:3]])  # the last one is a trained class
    factors = class_factors(base_zs, zs, base_ft, ft, neighbours=k)
    expected = slow_factors(base_zs.numpy(), zs.numpy(), base_ft.numpy(), ft.numpy(), k)
    assert factors.tolist() == pytest.approx(expected, rel=1e-12)
    assert factors[-1] == 1 and (factors[:3] != 1).all()


def test_the_predicted_class_stays_and_a_far_class_loses_confidence():
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    calibrated = distance_aware(logits, torch.tensor([1.0, 0.5, 2.0]))
    assert calibrated.tolist() == [[3.0, 1.0, 0.0], [0.0, 1.0, 0.5]]
    assert (calibrated.argmax(-1) == logits.argmax(-1)).all()


def test_bad_neighbours_and_shapes_are_named():
    with pytest.raises(ValueError, match=r"neighbours must be in \[1, 2\], .* got 3"):
        class_factors(*[unit(2, 4, seed=0)] * 4, neighbours=3)
    with pytest.raises(ValueError, match="equal shapes"):
        class_factors(*[unit(2, 4, seed=0)] * 3, unit(3, 4, seed=0), neighbours=1)
