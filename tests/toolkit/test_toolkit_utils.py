"""Logger, meters, JSON, images and seeds."""

from __future__ import annotations

import io
import json
import random
import sys

import numpy as np
import pytest
import torch
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    collect_env_info,
    count_num_param,
    listdir_nohidden,
    mkdir_if_missing,
    read_image,
    read_json,
    set_random_seed,
    setup_logger,
    write_json,
)
from PIL import Image


def own_console(monkeypatch):
    """A stdout of the test's own, because Dassl's logger closes the one it finds."""
    console = io.StringIO()
    monkeypatch.setattr(sys, "stdout", console)  # in the test: pytest resets it between phases
    return console


def test_stdout_goes_to_the_log_too(tmp_path, monkeypatch):
    console = own_console(monkeypatch)
    setup_logger(str(tmp_path / "run"))
    print("hello")
    sys.stdout.flush()
    assert (tmp_path / "run" / "log.txt").read_text() == console.getvalue() == "hello\n"


def test_an_existing_log_is_kept(tmp_path, monkeypatch):
    own_console(monkeypatch)
    (tmp_path / "log.txt").write_text("old\n")
    setup_logger(str(tmp_path))
    print("new")
    sys.stdout.flush()
    assert (tmp_path / "log.txt").read_text() == "old\n"
    (stamped,) = tmp_path.glob("log.txt-????-??-??-??-??-??")
    assert stamped.read_text() == "new\n"


@pytest.mark.minidassl
def test_a_second_logger_ends_the_first_and_leaves_stdout_open(tmp_path, monkeypatch):
    console = own_console(monkeypatch)
    for run in ("one", "two", "two"):
        setup_logger(str(tmp_path / run))
        print(run)
    sys.stdout.close()
    print("after")
    assert sys.stdout is console and not console.closed
    assert (tmp_path / "one" / "log.txt").read_text() == "one\n"
    assert sorted(p.read_text() for p in (tmp_path / "two").iterdir()) == ["two\n", "two\n"]
    assert console.getvalue() == "one\ntwo\ntwo\nafter\n"


@pytest.mark.minidassl
def test_a_log_is_utf8_line_by_line_and_answers_like_a_stream(tmp_path, monkeypatch):
    own_console(monkeypatch)
    setup_logger(str(tmp_path / "run.log"))
    print("naïve ✓")
    assert (tmp_path / "run.log").read_bytes() == "naïve ✓\n".encode()  # without a flush
    assert sys.stdout.isatty() is False
    sys.stdout.close()


def test_meters_show_the_last_value_and_the_average():
    meter = AverageMeter()
    for value, n in ((1.0, 1), (torch.tensor(4.0), 3)):
        meter.update(value, n)
    assert (meter.val, meter.avg) == (4.0, 3.25)
    smooth = AverageMeter(ema=True)
    smooth.update(10)
    smooth.update(20)
    assert smooth.avg == pytest.approx(0.9 * 1 + 0.1 * 20)
    metrics = MetricMeter()
    metrics.update({"loss": 1.25, "acc": torch.tensor(50.0)})
    metrics.update({"loss": 0.75, "acc": 100.0})
    metrics.update(None)
    assert str(metrics) == "loss 0.7500 (1.0000) acc 100.0000 (75.0000)"
    with pytest.raises(TypeError, match="must be a dictionary"):
        metrics.update([1.0])


def test_json_goes_out_and_comes_back(tmp_path):
    path = str(tmp_path / "new" / "split.json")
    write_json({"train": [["a.jpg", 0, "ä"]]}, path)
    assert read_json(path) == {"train": [["a.jpg", 0, "ä"]]}
    assert open(path).read() == json.dumps(read_json(path), indent=4)


@pytest.mark.minidassl
def test_broken_json_is_named_and_a_failed_write_keeps_the_old_file(tmp_path):
    path = str(tmp_path / "split.json")
    write_json([1], path)
    with pytest.raises(TypeError):
        write_json([object()], path)
    assert read_json(path) == [1]
    open(path, "w").write("{")
    with pytest.raises(ValueError, match="split.json.* is not valid JSON"):
        read_json(path)


def test_images_are_read_as_rgb(tmp_path):
    Image.new("P", (3, 2)).save(tmp_path / "p.png")
    assert read_image(str(tmp_path / "p.png")).mode == "RGB"
    with pytest.raises(FileNotFoundError, match="gone.png"):
        read_image(str(tmp_path / "gone.png"))


@pytest.mark.minidassl
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_upper_bits(suffix, tmp_path):
    grey = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16) + 255
    path = tmp_path / f"grey.{suffix}"
    Image.fromarray(grey).save(path)
    read = np.asarray(read_image(str(path)))
    np.testing.assert_array_equal(read, np.stack([np.arange(256).reshape(16, 16)] * 3, -1))


@pytest.mark.minidassl
@pytest.mark.parametrize(("dtype", "said"), [(np.float32, "floats"), (np.int32, "32-bit integers")])
def test_pixels_without_a_known_range_are_refused_by_name(dtype, said, tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, dtype)).save(tmp_path / "a.tif")
    with pytest.raises(OSError, match=f"a.tif.*its pixels are {said}"):
        read_image(str(tmp_path / "a.tif"))


@pytest.mark.minidassl
def test_an_orientation_that_is_not_applied_is_said(tmp_path):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    with pytest.warns(UserWarning, match="EXIF orientation: they are read as they are stored"):
        read = read_image(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(np.asarray(read), np.asarray(image))


@pytest.mark.minidassl
def test_an_image_of_too_many_pixels_is_named(tmp_path, monkeypatch):
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(OSError, match="a.png.*decompression bomb"):
        read_image(str(tmp_path / "a.png"))


def test_hidden_files_are_not_listed(tmp_path):
    for name in ("b", ".hidden", "a"):
        mkdir_if_missing(str(tmp_path / name))
    assert listdir_nohidden(str(tmp_path), sort=True) == ["a", "b"]


def test_a_seed_fixes_all_three_generators():
    def draws():
        set_random_seed(0)
        return random.random(), np.random.rand(), float(torch.rand(()))

    assert draws() == draws()


def test_parameters_are_counted_and_the_environment_is_described():
    assert count_num_param(torch.nn.Linear(3, 2)) == 8
    assert torch.__version__ in collect_env_info()
