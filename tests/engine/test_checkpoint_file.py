"""causalclip/engine/checkpoint_file.py: which file is meant, and what is in it."""

from __future__ import annotations

import os

import pytest
import torch

from causalclip.engine.checkpoint_file import POINTER, last_written, read_checkpoint


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"../x", b"/etc/passwd", b"a\0b", b"\xff/\xfe", b"a\nb"]
)
def test_a_damaged_pointer_is_named_with_what_is_there(content, tmp_path):
    (tmp_path / POINTER).write_bytes(content)
    (tmp_path / "model.pth.tar-3").touch()
    with pytest.raises(ValueError, match=r"checkpoint must hold the name .*: model.pth.tar-3"):
        last_written(tmp_path)


def test_a_pipe_in_place_of_a_checkpoint_or_a_pointer_is_named(tmp_path):
    for name, read in (("model.pth.tar-1", read_checkpoint), (POINTER, None)):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} must be a regular file, got a pipe"):
            read(tmp_path / name) if read else last_written(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": 1, "epoch": 2}, "lacks state_dict or epoch; it holds model, epoch"),
        ({"state_dict": {}, "epoch": "two"}, "lacks state_dict or epoch"),
        ([1, 2], "it holds list"),
        ({"state_dict": {}, "epoch": -1}, "lacks state_dict or epoch"),
        ({"state_dict": {1: torch.zeros(2)}, "epoch": 1}, "its state_dict holds 1"),
        ({"state_dict": {"ctx": 5}, "epoch": 1}, "its state_dict holds 'ctx', 5"),
        ({"state_dict": {"ctx": torch.zeros(2) + 1j}, "epoch": 1}, "its state_dict holds 'ctx'"),
        ({"state_dict": {}, "epoch": 1, "identity": [1]}, r"its identity is \[1\]"),
        ({"state_dict": {}, "epoch": 1, "identity": {"backbone": "x"}}, "its identity is {'back"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named_with_what_it_lacks(content, said, tmp_path):
    path = tmp_path / "model.pth.tar-1"
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"model.pth.tar-1 is no checkpoint, .*{said}"):
        read_checkpoint(path)


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_with_code_is_named_as_that_and_not_run(new_format, tmp_path):
    path = tmp_path / "model.pth.tar-1"
    content = {"state_dict": {"ctx": Code(tmp_path / "ran")}, "epoch": 1}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(ValueError, match=r"a pickled (posix|nt)\.system, which could run code"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()
