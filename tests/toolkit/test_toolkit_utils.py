"""Logger, meters, JSON, images, seeds, registries and unknown names."""

from __future__ import annotations

import io
import json
import os
import random
import sys

import numpy as np
import pytest
import torch
from dassl.data.datasets import build_dataset
from dassl.engine import build_trainer
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    Registry,
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
from PIL import Image, features


def own_console(monkeypatch):
    """A separate stdout for the test, because Dassl's logger closes its stdout."""
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


@pytest.mark.parametrize("mode", ["P", "L", "LA", "RGBA"])
def test_images_are_read_as_rgb(mode, tmp_path):
    Image.new(mode, (3, 2)).save(tmp_path / "p.png")
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
@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.full((4, 4), 0.5, np.float32), "its pixels are floats"),
        (np.full((4, 4), 9, np.int32), "its pixels are 32-bit integers"),
        (np.zeros((64, 64), np.uint8), "decompression bomb"),
        (b"hello", "cannot identify"),
        (b"\x89PNG\r\n\x1a\n cut", ""),
    ],
)
def test_images_that_cannot_be_read_are_named(pixels, reason, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    if isinstance(pixels, bytes):
        (tmp_path / "a.tif").write_bytes(pixels)
    else:
        Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(OSError, match=f"a.tif.*{reason}"):
        read_image(str(tmp_path / "a.tif"))


@pytest.mark.minidassl
def test_an_orientation_that_is_not_applied_is_a_warning(tmp_path):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    with pytest.warns(UserWarning, match="EXIF orientation: they are read as they are stored"):
        read = read_image(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(np.asarray(read), np.asarray(image))


@pytest.mark.minidassl
def test_a_damaged_exif_header_does_not_matter(tmp_path):
    image, path = Image.new("RGB", (48, 40), "red"), tmp_path / "a.jpg"
    image.save(path, dpi=(72, 72), exif=b"Exif\0\0" + bytes(16))
    expected = Image.open(path).convert("RGB")  # what torchvision's loader returns
    np.testing.assert_array_equal(np.asarray(read_image(str(path))), np.asarray(expected))


@pytest.mark.minidassl
def test_a_pipe_and_an_elongated_image_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("1", (1_000_000, 1)).save(tmp_path / "long.png")
    with pytest.raises(OSError, match=r"pipe\.png.*no regular file"):
        read_image(str(tmp_path / "pipe.png"))
    with pytest.raises(OSError, match="at most 1000 times the other, got 1000000 x 1 pixels"):
        read_image(str(tmp_path / "long.png"))


@pytest.mark.minidassl
@pytest.mark.skipif(not features.check("avif"), reason="needs a Pillow with AVIF")
def test_no_error_of_a_codec_is_without_its_file(tmp_path):
    path, raised = tmp_path / "a.avif", set()
    Image.new("RGB", (48, 40), "red").save(path)
    whole = path.read_bytes()
    for place in range(60, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_image(str(path))
        except OSError as error:
            assert str(path) in str(error)
            raised.add(type(error.__cause__))
            if RuntimeError in raised:
                break
    assert RuntimeError in raised  # raised by Pillow; it once ended a command


def test_hidden_files_are_not_listed(tmp_path):
    for name in ("b", ".hidden", "a"):
        mkdir_if_missing(str(tmp_path / name))
    assert listdir_nohidden(str(tmp_path), sort=True) == ["a", "b"]


def test_a_seed_fixes_all_three_generators():
    def draws():
        set_random_seed(0)
        return random.random(), np.random.rand(), float(torch.rand(()))

    assert draws() == draws()


def test_the_environment_is_described():
    assert torch.__version__ in collect_env_info()


def test_the_numbers_of_a_model_are_counted():
    assert count_num_param(torch.nn.Linear(3, 2)) == 8


def test_a_registry_gives_back_what_was_registered_once_unless_forced():
    registry = Registry("THING")

    @registry.register()
    class First:
        pass

    class Second:
        pass

    registry.register(Second)
    assert registry.get("First") is First and registry.get("Second") is Second
    assert registry.registered_names() == ["First", "Second"]
    with pytest.raises(KeyError, match="already registered"):
        registry.register(First)
    registry.register(First, force=True)


def test_an_unknown_trainer_is_an_error_that_lists_the_known_ones(toy):
    with pytest.raises(ValueError, match="ToyTrainer"):
        build_trainer(toy.cfg("TRAINER.NAME", "ToyTrayner"))


@pytest.mark.minidassl
def test_unknown_names_come_with_the_nearest_known_ones(toy):
    with pytest.raises(KeyError, match="'toytrainr' is not a known trainer; did you mean 'ToyTra"):
        build_trainer(toy.cfg("TRAINER.NAME", "toytrainr"))
    with pytest.raises(ValueError, match="not a known dataset; did you mean 'ToyImages'"):
        build_dataset(toy.cfg("DATASET.NAME", "ToyImage"))
    with pytest.raises(KeyError, match="not a known evaluator; did you mean 'Classification'"):
        build_trainer(toy.cfg("TEST.EVALUATOR", "Clasification"))
    with pytest.raises(KeyError, match="none \\(import the module that registers it\\)"):
        Registry("EMPTY").get("x")
