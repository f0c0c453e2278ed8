"""causalclip/files/atomic.py: whole files, with the mode that the umask asks for."""

from __future__ import annotations

import errno
import os
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from causalclip.clip.backbone import build_clip, save_tiny
from causalclip.engine.cache_size import feature_home
from causalclip.engine.feature_cache import Encoder
from causalclip.files.atomic import replacing
from causalclip.files.caches import store_json
from causalclip.icm.subspace import InterventionMoments
from causalclip.report.predictions import Predictions
from causalclip.report.results import Result

FACTS = {
    "trainer": "CDC",
    "backbone": "tiny",
    "dataset": "Set",
    "seed": 1,
    "shots": 16,
    "metrics": {"accuracy": 1.0},
}


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "numbers"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("half")
        assert path.read_text() == "old"
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_last_writer_wins_or_the_first_where_asked(tmp_path):
    path = tmp_path / "new" / "numbers"  # in a folder that is made
    for keep_existing, kept in ((False, "one"), (False, "two"), (True, "two")):
        with replacing(path, keep_existing=keep_existing) as part:
            part.write_text(kept if not keep_existing else "three")
        assert path.read_text() == kept
    assert list(path.parent.iterdir()) == [path]


def test_the_mode_is_the_umasks_even_where_a_writer_puts_a_private_file(tmp_path, umask):
    path = tmp_path / "w.safetensors"
    with replacing(path) as part:
        save_file({"a": torch.zeros(2)}, part)
        os.chmod(part, 0o600)
    assert mode_of(path) == 0o666 & ~umask


def encode_one(folder):
    image = folder / "grey.ppm"
    image.write_bytes(b"P6 1 1 255\n\x80\x80\x80")
    encoder = Encoder(
        encode=lambda images: images,
        dim=1,
        identity="none",
        transform=lambda image: torch.tensor([float(image.getpixel((0, 0))[0])]),
        root=str(folder),
        cache=feature_home(),
    )
    encoder.features([str(image)])


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: save_tiny(
            build_clip(vision_layers=1, transformer_layers=1), [], folder / "tiny.safetensors"
        ),
        lambda folder: (
            InterventionMoments(4)
            .update(torch.randn(50, 4), torch.randn(50, 4))
            .solve(dim_inv=1)
            .save(folder / "projection.safetensors")
        ),
        lambda folder: store_json(folder / "split.json", [1]),
        lambda folder: Result(**FACTS).write(folder),
        lambda folder: Predictions({"label": np.zeros(1)}).write(folder),
        encode_one,
    ],
    ids=["weights", "projection", "json", "results", "predictions", "features"],
)
def test_what_is_written_can_be_read_by_whom_the_umask_lets(
    tmp_path, tmp_path_factory, umask, write, monkeypatch
):
    monkeypatch.setenv("CAUSALCLIP_CACHE", str(tmp_path / "cache"))
    write(tmp_path)
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".ppm"]
    assert len(written) == 1
    assert mode_of(written[0]) == 0o666 & ~umask


def test_without_hard_links_the_first_of_two_writers_still_wins(tmp_path, monkeypatch):
    def refused(source, target):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refused)
    for text in ("first", "second"):
        with replacing(tmp_path / "file", keep_existing=True) as part:
            part.write_text(text)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "first")]
