"""Checkpoints as Dassl's: content, resuming, atomic writing, and errors for files of other runs."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal

import pytest
import torch
from dassl.utils import load_checkpoint, load_pretrained_weights, save_checkpoint
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from toy_runs import folder, run_in_two_parts, same_numbers

EVERY_EPOCH = ("TRAIN.CHECKPOINT_FREQ", 1)


def test_a_checkpoint_holds_weights_optimizer_schedule_epoch_and_result(toy):
    trainer = toy.trainer("TRAIN.CHECKPOINT_FREQ", 2)
    trainer.train()
    files = sorted(path.name for path in folder(toy).iterdir())
    assert files == ["checkpoint", "model.pth.tar-2", "model.pth.tar-4", "model.pth.tar-5"]
    assert (folder(toy) / "checkpoint").read_text() == "model.pth.tar-5\n"
    saved = torch.load(folder(toy) / "model.pth.tar-5", weights_only=True)
    assert {"state_dict", "epoch", "optimizer", "scheduler", "val_result"} <= set(saved)
    assert (saved["epoch"], saved["val_result"]) == (5, None)
    assert torch.equal(saved["state_dict"]["2.weight"], trainer.model[2].weight)


def test_parallel_prefixes_are_removed(tmp_path):
    state = {"state_dict": {"module.weight": torch.ones(2)}, "epoch": 1}
    save_checkpoint(state, str(tmp_path), is_best=True)
    for name in ("model.pth.tar-1", "model-best.pth.tar"):
        assert list(load_checkpoint(str(tmp_path / name))["state_dict"]) == ["weight"]


def test_the_learning_rate_goes_on_falling_after_a_resume(toy, capsys):
    rates = []
    toy.kind.before_epoch = lambda self: rates.append(self.get_current_lr())
    try:
        run_in_two_parts(toy, (2, 1), *EVERY_EPOCH)
    finally:
        del toy.kind.before_epoch
    # the epoch that was killed is run again
    assert rates == pytest.approx([1e-5, 0.1, 0.0904508, 0.0904508, 0.0654508, 0.0345491], rel=1e-5)
    out = capsys.readouterr().out
    assert f"Found checkpoint at {toy.output} (will resume training)" in out
    assert "Loaded model weights\nLoaded optimizer\nLoaded scheduler\nPrevious epoch: 2\n" in out


@pytest.mark.minidassl
def test_a_resume_prints_what_it_resumes(toy, capsys):
    run_in_two_parts(toy, (2, 1), *EVERY_EPOCH, "MODEL.BACKBONE.NAME", "net")
    out = capsys.readouterr().out
    assert "Resuming at epoch 3 of 5: trainer ToyTrainer, backbone net, 3 classes (ant, " in out
    toy.trainer("MODEL.BACKBONE.NAME", "net").train()
    out = capsys.readouterr().out
    assert "All 5 epochs were trained before, nothing to train" in out
    assert "epoch [" not in out and "Evaluate on the *test* set" in out


@pytest.mark.minidassl
def test_an_explicit_resume_without_a_checkpoint_is_an_error(toy, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from in RESUME"):
        toy.trainer("RESUME", str(tmp_path)).train()


class Prompts(nn.Module):
    """A prompt learner like CoOp's: a learned context, and buffers made from the class names."""

    def __init__(self, fill, *, names=0.0):
        super().__init__()
        self.ctx = nn.Parameter(torch.full((2,), fill))
        self.register_buffer("token_prefix", torch.full((3,), names))


@pytest.mark.minidassl
def test_as_many_other_class_names_are_refused(toy):
    def trainer(names):
        built = toy.trainer("OPTIM.MAX_EPOCH", 1)
        built.register_model("prompts", Prompts(0.0, names=names))
        return built

    trainer(0.01).train()
    assert trainer(0.01).resume_model_if_exist(str(toy.output)) == 1
    message = "prompts/model.pth.tar-1.*other class names.*its token_prefix"
    with pytest.raises(ValueError, match=message):
        trainer(0.02).train()


def test_load_model_reads_a_named_epoch_or_the_best_or_nothing(toy, capsys):
    trained = toy.trainer(*EVERY_EPOCH, "TEST.FINAL_MODEL", "best_val")
    trained.train()
    fresh = toy.trainer(seed=2)
    fresh.load_model("")
    assert "Note that load_model() is skipped" in capsys.readouterr().out
    fresh.load_model(str(toy.output))  # model-best
    assert same_numbers(fresh.model.state_dict(), trained.model.state_dict())
    with pytest.raises(FileNotFoundError, match="No model at .*model.pth.tar-9"):
        fresh.load_model(str(toy.output), epoch=9)


@pytest.mark.minidassl
def test_checkpoints_of_the_last_epoch_load_although_they_have_no_result(toy, capsys):
    trained = toy.trainer()
    trained.train()
    fresh = toy.trainer(seed=2)
    fresh.load_model(str(toy.output), epoch=5)
    assert same_numbers(fresh.model.state_dict(), trained.model.state_dict())
    assert "(epoch=5, val_result=None)" in capsys.readouterr().out


# Writing


def half_written(monkeypatch, end):
    """Let torch.save write half of the file, then call `end()`."""
    whole = torch.save

    def save(state, file, *args, **kwargs):
        buffer = io.BytesIO()
        whole(state, buffer, *args, **kwargs)
        file.write(buffer.getvalue()[: buffer.tell() // 2])
        file.flush()
        end()

    monkeypatch.setattr(torch, "save", save)


@pytest.fixture
def saved(tmp_path):
    """A folder with the checkpoint of epoch 1, and its bytes."""
    save_checkpoint({"state_dict": {"w": torch.ones(3)}, "epoch": 1}, str(tmp_path))
    path = tmp_path / "model.pth.tar-1"
    return tmp_path, path, path.read_bytes()


def disk_full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def full_in_torch(*_):
    try:
        disk_full()
    finally:
        raise RuntimeError("unexpected pos 704 vs 640")


@pytest.mark.minidassl
@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize("step", ["half", "torch", "fsync", "replace"])
def test_a_full_disk_leaves_the_previous_checkpoint_whole(saved, monkeypatch, step, epoch):
    directory, path, content = saved
    if step == "half":
        half_written(monkeypatch, disk_full)
    elif step == "torch":
        monkeypatch.setattr(torch, "save", full_in_torch)
    else:
        monkeypatch.setattr(os, step, disk_full)
    message = f"No space left to write .*model.pth.tar-{epoch}; the previous file is kept"
    with pytest.raises(OSError, match=message):
        save_checkpoint({"state_dict": {"w": torch.zeros(3)}, "epoch": epoch}, str(directory))
    assert path.read_bytes() == content
    assert sorted(p.name for p in directory.iterdir()) == ["checkpoint", "model.pth.tar-1"]
    assert (directory / "checkpoint").read_text() == "model.pth.tar-1\n"


@pytest.mark.minidassl
def test_a_disk_that_is_full_but_for_the_checkpoint_itself_is_named_as_well(saved, monkeypatch):
    directory, _, _ = saved
    sync = os.fsync

    def only_one(handle, seen=[]):  # noqa: B006 (counts)
        seen.append(handle)
        return disk_full() if len(seen) > 1 else sync(handle)

    monkeypatch.setattr(os, "fsync", only_one)
    with pytest.raises(OSError, match=f"No space left to write {directory}/checkpoint"):
        save_checkpoint({"state_dict": {}, "epoch": 2}, str(directory))
    assert (directory / "checkpoint").read_text() == "model.pth.tar-1\n"


@pytest.mark.minidassl
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork with torch's threads
def test_a_kill_while_writing_leaves_the_previous_checkpoint_whole(saved, monkeypatch):
    directory, path, content = saved
    half_written(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    child = os.fork()
    if child == 0:
        save_checkpoint({"state_dict": {"w": torch.zeros(3)}, "epoch": 1}, str(directory))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    monkeypatch.undo()
    assert path.read_bytes() == content
    assert len(list(directory.glob(".model.pth.tar-1.*.part"))) == 1
    save_checkpoint({"state_dict": {"w": torch.zeros(3)}, "epoch": 2}, str(directory))
    names = sorted(p.name for p in directory.iterdir())
    assert names == ["checkpoint", "model.pth.tar-1", "model.pth.tar-2"]


# Reading


def test_no_path_and_no_file_are_told_apart():
    with pytest.raises(ValueError, match="File path is None"):
        load_checkpoint(None)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_checkpoint("/nowhere/model.pth.tar-1")


@pytest.mark.minidassl
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.99])
def test_a_file_cut_short_is_named(saved, keep):
    _, path, content = saved
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match="Unable to load checkpoint from .*model.pth.tar-1.*dam"):
        load_checkpoint(str(path))


@pytest.mark.minidassl
def test_a_flipped_bit_in_a_weight_is_noticed(saved):
    _, path, content = saved
    ones = torch.ones(3).numpy().tobytes()
    assert content.count(ones) == 1
    path.write_bytes(content.replace(ones, ones[:-1] + b"\x3e"))  # 1.0 -> 0.25
    with pytest.raises(ValueError, match="checksum"):
        load_checkpoint(str(path))


@pytest.mark.minidassl
def test_pickled_code_is_refused_by_name(tmp_path):
    path = tmp_path / "model.pth.tar-1"
    torch.save({"state_dict": {}, "epoch": 1, "extra": shutil.rmtree}, path)
    with pytest.raises(ValueError, match="pickled shutil.rmtree, which could run code"):
        load_checkpoint(str(path))


def test_the_scheduler_object_of_dassls_checkpoint_is_read_as_numbers(toy):
    trainer = toy.trainer(*EVERY_EPOCH)
    trainer.train()
    path = folder(toy) / "model.pth.tar-3"
    old = load_checkpoint(str(path))
    successor = CosineAnnealingLR(trainer.optim, 5.0)
    successor.load_state_dict(old["scheduler"]["successor"])
    old["scheduler"]["successor"] = successor  # as Dassl 0.6.3 writes it
    torch.save(old, path)
    (path.parent / "checkpoint").write_text(f"{path.name}\n")
    fresh = toy.trainer(seed=2)
    assert fresh.resume_model_if_exist(str(toy.output)) == 3
    rates = [fresh.get_current_lr()]
    for _ in range(2):
        fresh.optim.step()
        fresh.update_lr()
        rates.append(fresh.get_current_lr())
    assert rates == pytest.approx([0.0654508, 0.0345491, 0.0095492], rel=1e-5)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop"])
@pytest.mark.parametrize(
    ("schedule", "argument"), [("StepLR", 2), ("MultiStepLR", [2, 4]), ("CosineAnnealingLR", 5.0)]
)
def test_pickled_schedulers_and_optimizers_are_read_as_numbers(
    optimizer, schedule, argument, tmp_path
):
    weight = torch.ones(2, requires_grad=True)
    optim = getattr(torch.optim, optimizer)([weight], lr=0.1)
    sched = getattr(torch.optim.lr_scheduler, schedule)(optim, argument)
    weight.sum().backward()
    optim.step()
    sched.step()
    torch.save({"state_dict": {}, "epoch": 1, "scheduler": sched}, tmp_path / "old")
    read = load_checkpoint(str(tmp_path / "old"))["scheduler"]
    assert not isinstance(read, type(sched))
    assert read.state_dict() == sched.state_dict()


def test_pretrained_weights_load_where_name_and_shape_fit(tmp_path, capsys):
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    state = {"module.weight": source.weight.detach(), "bias": torch.zeros(4)}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    before = target.bias.clone()
    load_pretrained_weights(target, str(tmp_path / "w.pt"))
    assert torch.equal(target.weight, source.weight) and torch.equal(target.bias, before)
    assert "Layers discarded due to unmatched keys or size: ['bias']" in capsys.readouterr().out


@pytest.mark.minidassl
def test_pretrained_weights_never_replace_the_class_names_and_some_must_fit(tmp_path):
    torch.save({"state_dict": Prompts(1.0, names=1.0).state_dict()}, tmp_path / "w.pt")
    prompts = Prompts(0.0)
    load_pretrained_weights(prompts, str(tmp_path / "w.pt"))
    assert prompts.ctx.sum() == 2 and prompts.token_prefix.sum() == 0
    message = r"the file has ctx \(2,\), token_prefix \(3,\), the model has weight \(3, 2\), bias"
    with pytest.raises(ValueError, match=message):
        load_pretrained_weights(nn.Linear(2, 3), str(tmp_path / "w.pt"))
