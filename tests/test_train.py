"""train.py: an input error prints one line, an error in the program its traceback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import dassl
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from causalclip.engine import feature_cache
from causalclip.engine.checkpoints import Checkpointer
from causalclip.records.identity import model_digest
from causalclip.runs import train
from causalclip.runs.configuration import trainer_class

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
MINIDASSL = dassl.__version__.endswith("+mini")


@pytest.fixture
def images(tmp_path) -> Path:
    """A data root with class folders of noise, and their short configuration."""
    for name in ("ant", "bee"):
        for index in range(10):
            path = tmp_path / "mine" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    (tmp_path / "mine.yaml").write_text("DATASET:\n  NAME: ImageFolder\n  PATH: mine\n")
    return tmp_path


@pytest.fixture
def call(images, random_clip, monkeypatch, capsys):
    """A function (trainer, *more arguments) -> (exit status, lines on stderr), one epoch."""

    def call(trainer, *more, config="tiny.yaml", stopped=""):
        monkeypatch.setattr(sys, "stdout", sys.stdout)  # the logger takes its place
        shutil.rmtree(images / "out", ignore_errors=True)
        flags = ["--trainer", trainer, "--root", images, "--output-dir", images / "out"]
        flags += ["--seed", 1, "--dataset-config-file", images / "mine.yaml"]
        flags += ["--config-file", CONFIGS / "trainers" / trainer / config]
        options = ["MODEL.BACKBONE.NAME", random_clip, "USE_CUDA", False, "OPTIM.MAX_EPOCH", 1]
        keys = (i for i, word in enumerate(more) if "." in str(word) and str(word).isupper())
        split = next(keys, len(more))  # KEY VALUE pairs end the flags
        status = train.main([str(x) for x in (*flags, *more[:split], *options, *more[split:])])
        if stopped:
            return status, sum(stopped in line for line in capsys.readouterr().err.splitlines())
        return status, [x for x in capsys.readouterr().err.splitlines() if "error" in x.lower()]

    return call


def damage(images: Path) -> Path:
    """Cut an image of the training part short."""
    split = json.loads((images / "mine" / "split_causalclip.json").read_text())
    path = images / "mine" / split["train"][0][0]
    path.write_bytes(path.read_bytes()[:500])
    return path


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_ends_the_training_with_its_name(call, images, workers):
    assert call("CoOp", "--no-train") == (0, [])
    path = damage(images)
    status, (line,) = call("CoOp", "DATALOADER.NUM_WORKERS", workers)
    assert status == 2
    assert line.startswith("train.py: error: ")
    if MINIDASSL:  # Dassl's own reader of images says what is wrong and not with which
        assert f'cannot read the image "{path}": ' in line
    assert "Traceback" in (images / "out" / "log.txt").read_text()


def test_captions_that_break_the_schema_are_named_with_their_row(call, images):
    captions = images / "captions.json"
    captions.write_text('[{"image": "mine/ant/0.png", "caption": "an ant"}]')
    settings = ["TRAINER.CLIP_ICM.INTERVENTIONS", "TEXT", "TRAINER.CLIP_ICM.CAPTIONS", captions]
    status, (line,) = call("CLIP_ICM", *settings)
    assert status == 2
    assert line.startswith(f"train.py: error: {captions}, row 1: must be an object with keys")
    captions.unlink()
    status, (line,) = call("CLIP_ICM", *settings)
    assert status == 2 and str(captions) in line


def test_features_that_are_not_finite_are_named_by_their_images(call, monkeypatch):
    check = feature_cache._check_finite

    def overflown(features, paths):
        features[1] = np.nan
        check(features, paths)

    monkeypatch.setattr(feature_cache, "_check_finite", overflown)
    status, (line,) = call("LinearProbe")
    assert status == 2
    assert "image features must be finite, got NaN or infinity for 1 images" in line


def test_a_loss_that_is_not_finite_is_said_with_its_place(call):
    status, (line,) = call("CoOp", "OPTIM.LR", 1e30, "OPTIM.WARMUP_EPOCH", 0, "OPTIM.MAX_EPOCH", 3)
    assert status == 2
    assert line.startswith("train.py: error: Loss is infinite or NaN!")


@pytest.mark.parametrize("content", [None, b"no tensors"])
def test_a_projection_that_cannot_be_read_is_said(call, images, content):
    path = images / "projection.safetensors"
    if content:
        path.write_bytes(content)
    status, (line,) = call("CoOp", "TRAINER.COOP.PROJECTION", path)
    assert status == 2 and str(path) in line


def test_a_damaged_checkpoint_is_named(call, images):
    assert call("CoOp") == (0, [])
    learned = images / "learned"
    (images / "out").rename(learned)
    (file,) = (learned / "prompt_learner").glob("model.pth.tar-1")
    file.write_bytes(file.read_bytes()[:300])
    status, (line,) = call("CoOp", "--eval-only", "--model-dir", learned)
    assert status == 2 and str(file) in line


def test_a_result_says_its_protocol_and_part(call, images):
    assert call("ZeroshotCLIP", "--protocol", "base2new", "--part", "train_base") == (0, [])
    config = json.loads((images / "out" / "results.json").read_text())["config"]
    assert (config["PROTOCOL"], config["PROTOCOL_PART"]) == ("base2new", "train_base")


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize("error", [KeyError, TypeError, AssertionError, IndexError, RuntimeError])
def test_a_mistake_in_the_program_keeps_its_traceback(call, monkeypatch, error, debug):
    def broken(self):
        raise error("a mistake")

    monkeypatch.setattr(trainer_class("ZeroshotCLIP"), "train", broken)
    with pytest.raises(error, match="a mistake"):
        call("ZeroshotCLIP", *debug)


def test_a_full_shared_memory_is_one_line_that_says_what_to_set(call, monkeypatch):
    def full(self):  # as torch words it in a loading process
        raise RuntimeError("unable to write to file </torch_9_1_0>: No space left on device (28)")

    monkeypatch.setattr(trainer_class("ZeroshotCLIP"), "train", full)
    status, (line,) = call("ZeroshotCLIP")
    assert status == 2 and "/dev/shm is full" in line and "DATALOADER.NUM_WORKERS 0" in line


def test_debug_shows_where_an_input_error_comes_from(call, images):
    call("CoOp", "--no-train")
    damage(images)
    with pytest.raises(OSError, match="cannot read the image" if MINIDASSL else "truncated"):
        call("CoOp", "--debug")


# Signals that stop a run


@pytest.fixture
def signals_of_a_shell():
    """Set the signal handlers of a process started by a shell, and restore them after the test."""
    plain = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in plain.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_of_a_shell")
@pytest.mark.parametrize(("number", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_stop_is_one_line_that_says_what_is_saved_and_the_same_command_goes_on(
    call, images, monkeypatch, number, status, capsys
):
    method = trainer_class("CoOp")
    learn = method.forward_backward

    def stopped(self, batch):
        os.kill(os.getpid(), getattr(signal, number))
        return learn(self, batch)

    options = ["OPTIM.MAX_EPOCH", 3, "DATALOADER.NUM_WORKERS", 0]
    whole = call("CoOp", *options), prompts(images, 3)
    before = [signal.getsignal(x) for x in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(method, "forward_backward", stopped)
        assert call("CoOp", *options, stopped=number) == (status, 1)
    assert [signal.getsignal(x) for x in (signal.SIGINT, signal.SIGTERM)] == before
    files = sorted(path.name for path in (images / "out" / "prompt_learner").glob("model*"))
    assert files == ["model-step.pth.tar"]
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
    assert (call("CoOp", *options), prompts(images, 3)) == whole
    files = sorted(path.name for path in (images / "out" / "prompt_learner").glob("model*"))
    assert files == ["model.pth.tar-3"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the disk that is always full")
def test_a_full_disk_of_the_log_is_one_line_that_says_what_is_saved(call, images, monkeypatch):
    method = trainer_class("CoOp")
    learn = method.forward_backward

    def filled(self, batch):
        if self.epoch == 1 and sys.stdout.file.name != "/dev/full":
            sys.stdout.file = open("/dev/full", "w", buffering=1)
        return learn(self, batch)

    options = ["OPTIM.MAX_EPOCH", 2, "TRAIN.CHECKPOINT_FREQ", 1, "TRAIN.PRINT_FREQ", 1]
    with monkeypatch.context() as patch:
        patch.setattr(method, "forward_backward", filled)
        status, (line,) = call("CoOp", *options)
    assert status == 2 and "No space left on device" in line
    if MINIDASSL:  # Dassl's own logger does not say which file
        assert "/dev/full" in line
    assert f"{images / 'out'} holds prompt_learner/model.pth.tar-1; repeat the command" in line
    assert getattr(sys.stdout, "file", None) is None  # nothing is tried again as Python ends
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
    assert call("CoOp", *options) == (0, [])


def prompts(images: Path, epoch: int) -> list[float]:
    path = images / "out" / "prompt_learner" / f"model.pth.tar-{epoch}"
    return torch.load(path, weights_only=True)["state_dict"]["ctx"].flatten().tolist()


def test_a_long_training_saves_by_time_until_its_end(call, images, monkeypatch):
    kept = []

    def noted(self, epochs, step):
        save_step(self, epochs, step)
        kept.append((epochs, step))

    save_step = Checkpointer.save_step
    monkeypatch.setattr(Checkpointer, "save_step", noted)
    options = ["OPTIM.MAX_EPOCH", 2, "TRAIN.CHECKPOINT_MINUTES", 1e-9]
    assert call("CoOp", *options, "DATALOADER.TRAIN_X.BATCH_SIZE", 2) == (0, [])
    assert kept[0] == (0, 1) and kept[-1][0] == 1 and kept == sorted(kept)
    files = [path.name for path in (images / "out" / "prompt_learner").glob("model*")]
    assert files == ["model.pth.tar-2"]


# Identity of an output folder


def run_file(images: Path) -> dict:
    return json.loads((images / "out" / "run.json").read_text())


def test_a_run_says_who_it_is_from_the_start_and_in_its_result(call, images):
    assert call("ZeroshotCLIP") == (0, [])
    said = run_file(images)
    assert said["identity"]["settings"]["TRAINER.NAME"] == "ZeroshotCLIP"
    assert len(said["fingerprint"]) == len(said["identity"]["weights"]) == 64
    assert not {"DATASET.ROOT", "TRAINER.COOP.N_CTX"} & set(said["identity"]["settings"])
    result = json.loads((images / "out" / "results.json").read_text())
    assert result["identity"] == said["fingerprint"]


@pytest.mark.parametrize(
    ("more", "same"),
    [
        (["DATALOADER.NUM_WORKERS", 1, "TRAIN.PRINT_FREQ", 3], True),
        (["OPTIM.LR", 0.02], False),
        (["DATASET.NUM_SHOTS", 2], False),
        (["TRAINER.COOP.N_CTX", 2], True),  # a setting of another method
    ],
)
def test_the_fingerprint_follows_the_settings_that_change_the_result(call, images, more, same):
    call("ZeroshotCLIP", "--no-train")
    before = run_file(images)["fingerprint"]
    call("ZeroshotCLIP", "--no-train", *more)
    assert (run_file(images)["fingerprint"] == before) == same


def test_a_folder_of_another_run_is_refused_with_both_values(call, images, monkeypatch):
    assert call("CoOp", "--no-train", "OPTIM.LR", 0.02) == (0, [])
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
    status, (line,) = call("CoOp", "OPTIM.LR", 0.5, "TRAINER.COOP.N_CTX", 7)
    assert status == 2
    assert "OPTIM.LR is 0.02 there, 0.5 here; TRAINER.COOP.N_CTX is " in line
    assert not (images / "out" / "results.json").exists()
    assert len(list((images / "out").glob("log.txt*"))) == 1  # nothing was written
    assert call("CoOp", "OPTIM.LR", 0.02) == (0, [])  # the same goes on


def test_another_backbone_of_the_same_name_is_refused(call, images, random_clip, monkeypatch):
    here = images / "clip.safetensors"
    shutil.copy(random_clip, here)
    key = ["MODEL.BACKBONE.NAME", here]
    assert call("ZeroshotCLIP", *key) == (0, [])
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
    tensors = safetensors.torch.load_file(here)
    with safetensors.safe_open(here, "pt") as file:
        facts = file.metadata()
    tensors["logit_scale"] += 1
    safetensors.torch.save_file(tensors, here, facts)
    status, (line,) = call("ZeroshotCLIP", *key)
    assert status == 2 and "holds another run: MODEL.BACKBONE.NAME is 'a file of sha256 " in line


def test_a_test_names_the_checkpoints_it_was_made_from(call, images):
    assert call("CoOp") == (0, [])
    learned = images / "learned"
    (images / "out").rename(learned)
    assert call("CoOp", "--eval-only", "--model-dir", learned) == (0, [])
    assert run_file(images)["identity"]["model"] == model_digest(learned)


def test_a_model_is_tested_as_it_was_trained_and_what_differs_is_said(call, images, capsys):
    assert call("CoOp") == (0, [])
    learned = images / "learned"
    (images / "out").rename(learned)
    test = ["CoOp", "--eval-only", "--model-dir", learned]
    status, (line,) = call(*test, "INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]")
    assert status == 2 and "INPUT.PIXEL_MEAN is [0.48" in line and "[0.5, 0.5, 0.5] here" in line
    assert call(*test, "SEED", 2) == (0, [])
    sys.stdout.flush()  # Dassl's log keeps the last lines until its process ends
    note = next(
        x for x in (images / "out" / "log.txt").read_text().splitlines() if "Note: the" in x
    )
    assert note.endswith("SEED is 1 there, 2 here")


def test_a_test_in_the_folder_of_its_training_keeps_what_the_training_took(
    call, images, monkeypatch
):
    assert call("CoOp") == (0, [])
    before = json.loads((images / "out" / "results.json").read_text()), run_file(images)
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
    assert call("CoOp", "--eval-only", "--model-dir", images / "out") == (0, [])
    after = json.loads((images / "out" / "results.json").read_text())
    assert after["training"] == before[0]["training"] and after["training"]["seconds"] > 0
    assert run_file(images)["fingerprint"] == before[1]["fingerprint"]
