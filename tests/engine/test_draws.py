"""causalclip/engine/draws.py: the state of the random generators in a checkpoint."""

from __future__ import annotations

import random

import numpy as np
import torch

from causalclip.engine.draws import random_state, set_random_state


def test_the_random_state_goes_through_a_file_and_back(tmp_path):
    random.gauss(0, 1), np.random.randn()  # leaves half a pair in both generators
    torch.save(random_state(), tmp_path / "state.pt")

    def draws():
        return random.gauss(0, 1), np.random.randn(), float(torch.randn(()))

    first = draws()
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draws() == first
