"""causalclip/engine/checkpoints.py, on either toolkit: exact resuming, of one's own runs only.

The tests use the toy trainer of this folder, which is written like any trainer for Dassl.
"""

from __future__ import annotations

import pytest
import torch
from dassl.utils import load_checkpoint, save_checkpoint
from torch import nn
from toy_runs import folder, run_in_two_parts, same_numbers


def uninterrupted(toy, tmp_path, *overrides):
    trainer = toy.trainer("OUTPUT_DIR", str(tmp_path / "whole"), *overrides)
    trainer.train()
    return trainer


@pytest.mark.parametrize("killed_at", [(1, 0), (2, 1), (4, 2)])
@pytest.mark.parametrize("sampler", ["RandomSampler", "RandomDomainSampler"])
def test_a_killed_run_ends_in_the_same_bits_as_an_uninterrupted_one(
    exact, tmp_path, killed_at, sampler
):
    options = ("TRAIN.CHECKPOINT_FREQ", 1, "DATALOADER.TRAIN_X.SAMPLER", sampler)
    resumed = run_in_two_parts(exact, killed_at, *options)
    whole = uninterrupted(exact, tmp_path, *options)
    assert same_numbers(resumed.model.state_dict(), whole.model.state_dict())
    assert same_numbers(resumed.optim.state_dict(), whole.optim.state_dict())
    assert resumed.get_current_lr() == whole.get_current_lr()


both = pytest.mark.parametrize(
    "trainer", [pytest.param("ToyTrainer", marks=pytest.mark.minidassl), "ExactToyTrainer"]
)


@both
def test_the_best_result_survives_a_kill(toy, tmp_path, monkeypatch, trainer):
    options = ("TRAINER.NAME", trainer, "TRAIN.CHECKPOINT_FREQ", 1, "TEST.FINAL_MODEL", "best_val")
    results = {0: 10.0, 1: 90.0, 2: 20.0, 3: 30.0, 4: 40.0}
    inherited = toy.kind.test

    def test(self, split=None):
        inherited(self, split)  # draws random numbers, as every evaluation does
        return results[self.epoch]

    monkeypatch.setattr(toy.kind, "test", test)
    resumed = run_in_two_parts(toy, (3, 0), *options)
    assert resumed.best_result == 90.0
    assert load_checkpoint(str(folder(toy) / "model-best.pth.tar"))["epoch"] == 2
    whole = uninterrupted(toy, tmp_path, *options)  # both test the best model
    assert same_numbers(resumed.model.state_dict(), whole.model.state_dict())


@both
def test_a_run_killed_before_its_first_checkpoint_starts_from_scratch(toy, capsys, trainer):
    run_in_two_parts(toy, (0, 1), "TRAINER.NAME", trainer)
    assert capsys.readouterr().out.count("No checkpoint found, train from scratch") == 2
    for path in folder(toy).iterdir():
        path.unlink()  # an empty folder is not a checkpoint either
    fresh = toy.trainer("TRAINER.NAME", trainer)
    assert fresh.resume_model_if_exist(str(toy.output)) == 0


@both
def test_models_at_different_epochs_are_refused(toy, trainer):
    built = toy.trainer("TRAINER.NAME", trainer, "OPTIM.MAX_EPOCH", 1)
    built.register_model("second", nn.Linear(2, 1))
    built.train()
    path = toy.output / "second" / "model.pth.tar-1"
    later = {**load_checkpoint(str(path)), "epoch": 3}
    save_checkpoint(later, str(path.parent), model_name=path.name)
    with pytest.raises(ValueError, match="different epochs: \\[1, 3\\]"):
        built.resume_model_if_exist(str(toy.output))


def test_the_loss_scale_of_mixed_precision_survives_a_kill(exact):
    trainer = exact.trainer("OPTIM.MAX_EPOCH", 1)
    trainer.checkpointer.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.train()
    fresh = exact.trainer("OPTIM.MAX_EPOCH", 1)
    fresh.checkpointer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    assert fresh.resume_model_if_exist(str(exact.output)) == 1
    assert fresh.checkpointer.scaler.get_scale() == 1024.0


def test_a_checkpoint_of_another_code_base_is_resumed_with_a_note(toy, exact, capsys):
    toy.trainer("OPTIM.MAX_EPOCH", 1).train()
    path = folder(toy) / "model.pth.tar-1"
    known = {"state_dict", "epoch", "optimizer", "scheduler", "val_result"}
    assert load_checkpoint(str(path)).keys() == known  # the keys are Dassl's with either toolkit
    fresh = exact.trainer(seed=2)
    assert fresh.resume_model_if_exist(str(toy.output)) == 1
    assert "the run continues with other draws" in capsys.readouterr().out
    state = load_checkpoint(str(path))["state_dict"]
    assert same_numbers(dict(fresh.model.state_dict()), dict(state))


def test_other_class_names_are_refused_although_they_are_as_many(exact):
    exact.trainer("OPTIM.MAX_EPOCH", 1).train()
    other = exact.trainer()
    other.classnames = ["dog", "bee", "cat"]
    with pytest.raises(ValueError) as error:
        other.train()
    message = str(error.value)
    assert "learned for the classes ant, bee, cat, ..., this run has dog, bee, cat" in message
    assert "model.pth.tar-1" in message


@pytest.mark.parametrize("start", ["resume_model_if_exist", "load_model"])
def test_another_backbone_or_method_is_refused(exact, start):
    options = ("OPTIM.MAX_EPOCH", 1, "MODEL.BACKBONE.NAME")
    trained = exact.trainer(*options, "ViT-B/16")
    trained.train()
    fresh = exact.trainer(*options, "ViT-B/16", seed=2)
    getattr(fresh, start)(str(exact.output))
    assert same_numbers(fresh.model.state_dict(), trained.model.state_dict())
    with pytest.raises(ValueError, match="on the backbone ViT-B/16, this run has RN50"):
        getattr(exact.trainer(*options, "RN50"), start)(str(exact.output))
    fresh.checkpointer.identity = lambda: {"trainer": "CoOp"}
    with pytest.raises(ValueError, match="a checkpoint of ExactToyTrainer, this run is CoOp"):
        getattr(fresh, start)(str(exact.output))


def test_the_same_weights_under_another_name_are_the_same_backbone(exact):
    first = exact.trainer("OPTIM.MAX_EPOCH", 1, "MODEL.BACKBONE.NAME", "ViT-B/16")
    first.backbone.digest = "0123"
    first.train()
    other = exact.trainer("OPTIM.MAX_EPOCH", 1, "MODEL.BACKBONE.NAME", "/a/file.pt")
    other.backbone.digest = "0123"
    other.load_model(str(exact.output))
    assert same_numbers(other.model.state_dict(), first.model.state_dict())


def test_other_settings_are_refused_unless_the_checkpoint_is_named(exact):
    exact.trainer("OPTIM.MAX_EPOCH", 1).train()
    with pytest.raises(
        ValueError, match="other settings: OPTIM.MAX_EPOCH is 1 there, 2 here.*--ou"
    ):
        exact.trainer("OPTIM.MAX_EPOCH", 2).train()
    longer = exact.trainer("OPTIM.MAX_EPOCH", 2, "RESUME", str(exact.output))
    longer.train()
    assert longer.start_epoch == 1


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        # torch itself loads each of these: one causes a KeyError in the first step, the others
        # train on with wrong numbers.
        (("NAME", "adam"), ("NAME", "sgd"), "optimizer is not of this run's SGD: it has .*betas"),
        (("NAME", "adam"), ("NAME", "adamw"), "decoupled_weight_decay is False there, True here"),
        (("MOMENTUM", 0.9), ("MOMENTUM", 0.5), "momentum is 0.9 there, 0.5 here"),
        (("LR", 0.1), ("LR", 0.2), "initial_lr is 0.1 there, 0.2 here"),
        (("LR_SCHEDULER", "cosine"), ("LR_SCHEDULER", "multi_step"), "scheduler .* it has .*T_max"),
    ],
    ids=lambda x: x[1] if isinstance(x, tuple) else "",
)
def test_another_optimizer_or_schedule_is_refused_by_name(exact, before, after, said):
    common = ["TRAIN.CHECKPOINT_FREQ", 1, "OPTIM.NAME", "sgd", "OPTIM.STEPSIZE", (1, 2)]
    exact.trainer(*common, f"OPTIM.{before[0]}", before[1], "OPTIM.MAX_EPOCH", 2).train()
    common += ["RESUME", str(exact.output), "OPTIM.MAX_EPOCH", 3]
    other = exact.trainer(*common, f"OPTIM.{after[0]}", after[1])
    with pytest.raises(ValueError, match=f"model.pth.tar-2: .*{said}.*choose another"):
        other.train()
