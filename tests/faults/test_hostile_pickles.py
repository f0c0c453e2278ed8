"""Pickles that would run code, where weights and arrays are read: none of it is executed."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import damaged, faults
from hypothesis import given
from hypothesis import strategies as st

from causalclip.clip.weights import read_weights
from causalclip.engine.checkpoint_file import read_checkpoint
from causalclip.files.digests import write_digest
from causalclip.icm.projection import InvariantProjection
from causalclip.records.predictions import Predictions

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
# One for all: a pickle holds its address, and Hypothesis needs the same bytes each time.
TENSOR = torch.zeros(2)


class Runs:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(marker: str) -> list[Runs]:
    """Objects that make a folder, or try to, each by another function."""
    return [
        Runs(os.mkdir, marker),
        Runs(os.system, f"mkdir '{marker}'"),
        Runs(eval, f"__import__('os').mkdir({marker!r})"),
        Runs(exec, f"import os; os.mkdir({marker!r})"),
        Runs(map, os.mkdir, [marker]),
        Runs(torch.load, marker),
    ]


def contents(value: object) -> list[object]:
    """Places for an object in what a file of weights may hold."""
    return [
        value,
        {"state_dict": {"a": value}, "epoch": 1},
        {"state_dict": {"a": TENSOR}, "epoch": 1, "extra": [value]},
        {"a": TENSOR, "b": value},
    ]


def as_pickle(content: object, protocol: int) -> bytes:
    return pickle.dumps(content, protocol)


def as_zip(content: object, protocol: int) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_protocol=max(protocol, 2))
    return buffer.getvalue()


def as_legacy(content: object, protocol: int) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


READERS = {
    "weights": ("a.pt", read_weights),
    "checkpoint": ("model.pth.tar-1", read_checkpoint),
    "safetensors": ("a.safetensors", read_weights),
    "projection": ("projection.safetensors", InvariantProjection.load),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", [as_pickle, as_zip, as_legacy])
@faults
@given(data=st.data())
def test_code_in_a_pickle_is_refused_and_not_run(reader, form, data):
    name, read = READERS[reader]
    with tempfile.TemporaryDirectory() as folder:
        path, marker = Path(folder) / name, Path(folder) / "ran"
        value = data.draw(st.sampled_from(hostile(str(marker))))
        content = form(
            data.draw(st.sampled_from(contents(value))), data.draw(st.sampled_from(PROTOCOLS))
        )
        intact = data.draw(st.booleans())
        path.write_bytes(content if intact else data.draw(damaged(content)))
        if data.draw(st.booleans()):
            write_digest(path)  # its maker vouches for it: that is no leave to run it
        try:
            read(path)
            assert not intact
        except (ValueError, OSError) as error:
            assert str(error) and "Traceback" not in str(error)
        assert not marker.exists()


@faults
@given(data=st.data())
def test_code_in_an_array_of_predictions_is_not_run(data):
    with tempfile.TemporaryDirectory() as folder:
        path, marker = Path(folder) / "predictions.npz", Path(folder) / "ran"
        buffer, value = io.BytesIO(), data.draw(st.sampled_from(hostile(str(marker))))
        np.lib.format.write_array(buffer, np.array([value], dtype=object), allow_pickle=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("uncertainty.npy", buffer.getvalue())
        with pytest.raises(ValueError, match="predictions.npz"):
            Predictions.read(path).uncertainty()
        assert not marker.exists()
