"""Damaged pictures: read, or named as broken with a reason."""

from __future__ import annotations

import io
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from damage import damaged, faults
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from causalclip.data.pictures import unreadable
from causalclip.predict.pictures import BrokenImage, open_image


def encoded(format: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


PICTURES = {
    name: encoded(name)
    for name in ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")
    if name not in ("WEBP", "AVIF") or features.check(name.lower())
}


@pytest.mark.parametrize("kind", PICTURES)
@faults
@given(data=st.data())
def test_a_damaged_picture_is_read_or_named(kind, data):
    content = data.draw(damaged(PICTURES[kind]))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about the damage
        path = str(Path(folder) / f"a.{kind.lower()}")
        Path(path).write_bytes(content)
        picture = open_image(path)
        if isinstance(picture, BrokenImage):
            assert picture.image == path and picture.reason
        else:
            assert picture.mode == "RGB" and np.asarray(picture).ndim == 3
        assert set(unreadable([path])) <= {path}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_that_is_cut_in_the_middle_is_left_out(kind, tmp_path):
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(PICTURES[kind])
    assert not unreadable([str(path)]) and not isinstance(open_image(path), BrokenImage)
    path.write_bytes(PICTURES[kind][: len(PICTURES[kind]) // 3])
    assert unreadable([str(path)]) and isinstance(open_image(path), BrokenImage)
