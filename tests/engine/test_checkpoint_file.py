"""causalclip/engine/checkpoint_file.py: which file is meant, and what is in it."""

from __future__ import annotations

import pytest
import torch

from causalclip.engine.checkpoint_file import POINTER, last_written, read_checkpoint


@pytest.mark.parametrize("content", [b"", b" \n", b"../x", b"/etc/passwd", b"a\0b", b"\xff/\xfe"])
def test_a_damaged_pointer_is_named_with_what_is_there(content, tmp_path):
    (tmp_path / POINTER).write_bytes(content)
    (tmp_path / "model.pth.tar-3").touch()
    with pytest.raises(ValueError, match=r"checkpoint must hold the name .*: model.pth.tar-3"):
        last_written(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": 1, "epoch": 2}, "lacks state_dict or epoch; it holds model, epoch"),
        ({"state_dict": {}, "epoch": "two"}, "lacks state_dict or epoch"),
        ([1, 2], "it holds list"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named_with_what_it_lacks(content, said, tmp_path):
    path = tmp_path / "model.pth.tar-1"
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"model.pth.tar-1 is no checkpoint, .*{said}"):
        read_checkpoint(path)
