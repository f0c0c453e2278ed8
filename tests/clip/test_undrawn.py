"""Inside `undrawn` nothing is drawn, and what a model computes by itself it still has."""

from __future__ import annotations

import torch
from torch import nn

from causalclip.clip.undrawn import undrawn


def layers() -> list[nn.Module]:
    return [nn.Linear(3, 4), nn.Conv2d(3, 4, 2), nn.Embedding(3, 4), nn.MultiheadAttention(4, 2)]


def test_layers_are_made_without_a_draw_inside_and_with_them_outside():
    before = torch.get_rng_state()
    with undrawn():
        made = layers()
        nn.init.normal_(made[0].weight, std=0.1)
        nn.init.uniform_(tensor=made[0].weight)
    assert torch.equal(torch.get_rng_state(), before)
    shapes = [[p.shape for p in layer.parameters()] for layer in made]
    assert shapes == [[p.shape for p in layer.parameters()] for layer in layers()]
    assert not torch.equal(torch.get_rng_state(), before)


def test_values_that_are_not_drawn_are_as_outside():
    with undrawn():
        norm, mask = nn.LayerNorm(3), torch.full((2, 2), float("-inf")).triu_(1)
    assert norm.weight.eq(1).all() and norm.bias.eq(0).all()
    assert mask.tolist() == [[0, float("-inf")], [0, 0]]
