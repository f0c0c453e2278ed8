"""Kill and restart runs of the toy trainer, and compare their numbers."""

from __future__ import annotations

import pytest
import torch


def folder(toy):
    return toy.output / "toy"


def run_in_two_parts(toy, killed_at, *overrides):
    """Train until `killed_at`, then train again; return the second trainer."""
    toy.kind.killed_at = killed_at
    with pytest.raises(KeyboardInterrupt):
        toy.trainer(*overrides).train()
    toy.kind.killed_at = None
    trainer = toy.trainer(*overrides)
    trainer.train()
    return trainer


def same_numbers(one, two):
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same_numbers(one[k], two[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same_numbers, one, two))
    return torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
