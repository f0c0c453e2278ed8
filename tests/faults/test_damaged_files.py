"""Damaged files are read or raise an error with a message; no other file is written."""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from archives import plain_tar, zip_of
from damage import damaged, faults
from hypothesis import given
from hypothesis import strategies as st

from causalclip.data.splits import check_labels, read_split_rows
from causalclip.engine.checkpoint_file import last_written, read_checkpoint
from causalclip.files.digests import is_vouched_for
from causalclip.files.download import unpack
from causalclip.records.identity import Identity, read_run
from causalclip.records.results import Result

MOST_SECONDS = 20.0
FILES = {f"set/{number}.txt": bytes([number]) * 2000 for number in range(3)}


def checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"ctx": torch.zeros(4, 8)}, "epoch": 1, "identity": {}}, buffer)
    return buffer.getvalue()


SPLIT = {part: [[f"a/{n}.jpg", n % 2, "ab"[n % 2]] for n in range(4)] for part in ("train", "test")}
RESULT = {"schema": 2, "trainer": "CoOp", "backbone": "tiny", "dataset": "X", "seed": 1}
RESULT |= {"shots": 2, "metrics": {"accuracy": 0.5}, "config": {"OPTIM": {"LR": 0.1}}}
IDENTITY = Identity({"OPTIM.LR": 0.1})
RUN = {"schema": 1, "identity": {"settings": IDENTITY.settings}, "configuration": {}}
RUN["fingerprint"] = IDENTITY.fingerprint

KINDS: dict[str, tuple[bytes, str, Callable[[Path], object]]] = {
    "tar.gz": (
        plain_tar(FILES),
        "a.tar.gz",
        lambda p: unpack(p, p.parent / "target", most_bytes=10**6),
    ),
    "zip": (zip_of(FILES), "a.zip", lambda p: unpack(p, p.parent / "target", most_bytes=10**6)),
    "checkpoint": (checkpoint(), "model.pth.tar-1", read_checkpoint),
    "pointer": (b"model.pth.tar-1\n", "checkpoint", lambda p: last_written(p.parent)),
    "split": (
        json.dumps({**SPLIT, "val": []}).encode(),
        "split.json",
        lambda p: check_labels(read_split_rows(p), str(p)),
    ),
    "result": (json.dumps(RESULT).encode(), "results.json", Result.read),
    "run": (json.dumps(RUN).encode(), "run.json", lambda p: read_run(p.parent)),
    "digest": (b"0" * 64 + b"  a\n", "a.sha256", lambda p: is_vouched_for(p.with_suffix(""))),
}
"""By kind: an undamaged file, its name, and its reader."""


@pytest.mark.parametrize("kind", KINDS)
@faults
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_words(kind, data):
    content, name, read = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inside" / name
        path.parent.mkdir()
        path.with_suffix("").touch()
        path.write_bytes(data.draw(damaged(content)))
        begun = time.process_time()
        try:
            read(path)
        except (ValueError, OSError) as error:
            assert str(error)
        assert time.process_time() - begun < MOST_SECONDS
        assert os.listdir(folder) == ["inside"]
        assert not list(path.parent.rglob("*.part*"))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "digest"])
def test_an_undamaged_file_is_read(kind, tmp_path):
    content, name, read = KINDS[kind]
    (tmp_path / name).write_bytes(content)
    read(tmp_path / name)
