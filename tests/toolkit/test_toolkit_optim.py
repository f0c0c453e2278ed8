"""Learning rates per epoch against golden traces of Dassl 0.6.3, and the optimizers' settings."""

from __future__ import annotations

import io

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from torch import nn

MAPLE = {"LR": 0.0035, "MAX_EPOCH": 5, "WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant"}
COCOOP = {"LR": 0.002, "MAX_EPOCH": 10, "WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant"}
LINEAR = {"LR": 0.1, "MAX_EPOCH": 6, "WARMUP_EPOCH": 3, "WARMUP_TYPE": "linear"}
STEPS = {"LR": 0.1, "MAX_EPOCH": 6, "LR_SCHEDULER": "single_step"}
GOLDEN = [
    ("MaPLe", MAPLE, "1e-5 .0035 .00316578 .00229078 .00120922"),
    ("MaPLe cross-data", {**MAPLE, "LR": 0.0026, "MAX_EPOCH": 2}, "1e-5 .0026"),
    (
        "CoCoOp",
        COCOOP,
        "1e-5 .002 .00195106 .00180902 .00158779 .00130902 .001 .00069098 .00041221 .00019098",
    ),
    ("cosine", {"LR": 0.1, "MAX_EPOCH": 5}, ".1 .09045085 .06545085 .03454915 .00954915"),
    ("linear", LINEAR, "1e-5 .03333333 .06666667 .1 .09330127 .075"),
    (
        "linear without recount",
        {**LINEAR, "WARMUP_RECOUNT": False},
        "1e-5 .03333333 .06666667 .1 .05 .01339746",
    ),
    ("single step by default", STEPS, ".1 .1 .1 .1 .1 .1"),
    ("single step 2", {**STEPS, "STEPSIZE": (2,)}, ".1 .1 .01 .01 .001"),
    (
        "multi step",
        {**STEPS, "LR_SCHEDULER": "multi_step", "STEPSIZE": (2, 4)},
        ".1 .1 .01 .01 .001 .001",
    ),
    (
        "single step 2 after a warm-up",
        {**STEPS, "STEPSIZE": (2,), "WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant"},
        "1e-5 .1 .1 .01 .01",
    ),
]


def node(**options):
    cfg = get_cfg_default().OPTIM
    cfg.NAME, cfg.LR_SCHEDULER = "sgd", "cosine"
    for key, value in options.items():
        cfg[key] = value
    return cfg


def build(options):
    layer = nn.Linear(2, 1)
    optimizer = build_optimizer(layer, node(**options))
    return layer, optimizer, build_lr_scheduler(optimizer, node(**options))


def trace(optimizer, scheduler, epochs):
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("name", "options", "expected"), GOLDEN, ids=[row[0] for row in GOLDEN])
def test_learning_rates_follow_the_golden_trace(name, options, expected):
    _, optimizer, scheduler = build(options)
    rates = [float(rate) for rate in expected.split()]
    assert trace(optimizer, scheduler, len(rates)) == pytest.approx(rates, abs=5e-9)


@pytest.mark.parametrize(("name", "options", "expected"), GOLDEN, ids=[row[0] for row in GOLDEN])
def test_learning_rates_go_on_after_a_resume_at_any_epoch(name, options, expected):
    rates = [float(rate) for rate in expected.split()]
    for done in range(1, len(rates)):
        _, optimizer, scheduler = build(options)
        trace(optimizer, scheduler, done)
        states = _through_a_file(optimizer.state_dict(), scheduler.state_dict())
        _, optimizer, scheduler = build(options)
        optimizer.load_state_dict(states[0])
        scheduler.load_state_dict(states[1])
        rest = trace(optimizer, scheduler, len(rates) - done)
        assert rest == pytest.approx(rates[done:], abs=5e-9), f"resumed after epoch {done}"


def _through_a_file(*states):
    """Save and load a state without running pickled code, as a checkpoint does."""
    buffer = io.BytesIO()
    torch.save(states, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgd", "SGD", {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": False}),
        ("adam", "Adam", {"betas": (0.9, 0.999), "weight_decay": 5e-4, "amsgrad": False}),
        ("amsgrad", "Adam", {"betas": (0.9, 0.999), "amsgrad": True}),
        ("adamw", "AdamW", {"betas": (0.9, 0.999), "weight_decay": 5e-4}),
        ("rmsprop", "RMSprop", {"momentum": 0.9, "alpha": 0.99}),
        ("radam", "RAdam", {"betas": (0.9, 0.999), "weight_decay": 5e-4}),
    ],
)
def test_optimizers_get_the_configured_settings(name, kind, settings):
    optimizer = build_optimizer(nn.Linear(2, 1), node(NAME=name, LR=0.03))
    group = optimizer.param_groups[0]
    assert type(optimizer).__name__ == kind and group["lr"] == 0.03
    assert {key: group[key] for key in settings} == settings


def test_parameters_and_groups_are_accepted_in_place_of_a_module():
    layer = nn.Linear(2, 1)
    assert len(build_optimizer([layer.weight], node()).param_groups[0]["params"]) == 1
    groups = [{"params": [layer.weight], "lr": 0.5}, {"params": [layer.bias]}]
    optimizer = build_optimizer(layer, node(LR=0.1), param_groups=groups)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]


@pytest.mark.minidassl
def test_staged_rates_are_refused():
    with pytest.raises(ValueError, match="OPTIM.STAGED_LR must be False"):
        build_optimizer(nn.Linear(2, 1), node(STAGED_LR=True))


HEAD = nn.Sequential()
HEAD.add_module("head", nn.Linear(2, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"NAME": "sdg"}, "not a known optimizer; did you mean 'sgd'"),
        ({"LR_SCHEDULER": "cosinus"}, "not a known learning-rate schedule; did you mean 'cosine'"),
        ({**LINEAR, "WARMUP_TYPE": "const"}, "warm-up type .*did you mean 'constant'"),
    ],
)
def test_unknown_parts_are_answered_with_the_nearest(options, message, is_minidassl):
    with pytest.raises(ValueError, match=message if is_minidassl else None):
        build_lr_scheduler(build_optimizer(HEAD, node(**options)), node(**options))
