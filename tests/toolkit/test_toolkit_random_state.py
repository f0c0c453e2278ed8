"""The state of the random generators in a checkpoint: ours and minidassl's, one and the same.

Neither may import the other: ours also runs on Dassl, minidassl without us.
"""

import importlib
import random

import numpy as np
import pytest
import torch

OURS = "causalclip.engine.checkpoints"
TOOLKITS = pytest.param("dassl.engine.random_state", marks=pytest.mark.minidassl)


def functions_of(module):
    found = importlib.import_module(module)
    return found.random_state, found.set_random_state


@pytest.mark.parametrize("reader", [OURS, TOOLKITS])
@pytest.mark.parametrize("writer", [OURS, TOOLKITS])
def test_the_random_state_goes_through_a_file_and_back(writer, reader, tmp_path):
    random_state, _ = functions_of(writer)
    _, set_random_state = functions_of(reader)
    random.gauss(0, 1), np.random.randn()  # leaves half a pair in both generators
    torch.save(random_state(), tmp_path / "state.pt")

    def draws():
        return random.gauss(0, 1), np.random.randn(), float(torch.randn(()))

    first = draws()
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draws() == first
