"""The training loop: order of the hooks, lines printed, learning rates, and losses that diverge."""

from __future__ import annotations

import random
import re

import pytest
import torch
from dassl.engine import TrainerBase
from torch.nn import functional as F

EPOCH_LINE = re.compile(
    r"^epoch \[(\d+)/5\] batch \[(\d+)/3\] time \d+\.\d{3} \(\d+\.\d{3}\) "
    r"data \d+\.\d{3} \(\d+\.\d{3}\) loss (\d+\.\d{4}) \(\d+\.\d{4}\) "
    r"acc \d+\.\d{4} \(\d+\.\d{4}\) lr (\d\.\d{4}e-\d\d) eta \d:\d\d:\d\d$"
)


def epoch_lines(text):
    return [EPOCH_LINE.match(line).groups() for line in text.splitlines() if line[:7] == "epoch ["]


def test_a_run_prints_the_lines_of_the_family(toy, capsys):
    toy.trainer().train()
    out = capsys.readouterr().out
    positions = [(int(epoch), int(batch)) for epoch, batch, _, _ in epoch_lines(out)]
    assert positions == [(epoch, batch) for epoch in range(1, 6) for batch in range(1, 4)]
    expected = [
        *("Loading trainer: ToyTrainer", "Loading dataset: ToyImages"),
        *("Building transform_train", "Building transform_test"),
        *("Loading evaluator: Classification", "No checkpoint found, train from scratch"),
        *(f"Checkpoint saved to {toy.output}/toy/model.pth.tar-5", "Finish training"),
        *("Deploy the last-epoch model", "Evaluate on the *test* set"),
        *("=> result", "* total: 12"),
    ]
    places = [out.index(f"{line}\n") for line in expected]
    assert places == sorted(places)
    assert re.search(r"^\* accuracy: \d+\.\d%$", out, re.MULTILINE)
    assert re.search(r"^Elapsed: \d:\d\d:\d\d$", out, re.MULTILINE)
    # 1e-5, then 0.1 * (1 + cos(pi * k / 5)) / 2; the trainer steps at the end of an epoch, so that
    # the rate printed with the last batch is the next epoch's
    epochs = [1e-5, 0.1, 0.090451, 0.065451, 0.034549, 0.0095492]
    rates = [rate for i in range(5) for rate in (epochs[i], epochs[i], epochs[i + 1])]
    assert [float(rate) for *_, rate in epoch_lines(out)] == pytest.approx(rates, rel=1e-4)


@pytest.mark.parametrize(("frequency", "batches"), [(2, [2]), (3, [3]), (4, [1, 2, 3])])
def test_progress_comes_every_few_batches_or_always_when_there_are_fewer(
    toy, capsys, frequency, batches
):
    toy.trainer("TRAIN.PRINT_FREQ", frequency, "OPTIM.MAX_EPOCH", 1).train()
    printed = re.findall(r"^epoch \[1/1\] batch \[(\d)/3\]", capsys.readouterr().out, re.MULTILINE)
    assert [int(batch) for batch in printed] == batches


def test_hooks_run_in_their_documented_order(toy, monkeypatch):
    called = []
    start = ["check_cfg", "build_data_loader", "build_model", "before_train"]
    epoch = ["before_epoch", "run_epoch", "after_epoch"]
    for hook in (*start, *epoch, "after_train", "test"):
        inherited = getattr(toy.kind, hook)

        def recorded(self, *args, hook=hook, inherited=inherited, **kwargs):
            called.append(hook)
            return inherited(self, *args, **kwargs)

        monkeypatch.setattr(toy.kind, hook, recorded)
    toy.trainer("OPTIM.MAX_EPOCH", 2).train()
    assert called == [*start, *epoch, *epoch, "after_train", "test"]


def test_a_trainer_has_the_documented_attributes(toy):
    trainer = toy.trainer()
    assert trainer.device.type == "cpu" and trainer.get_model_names() == ["toy"]
    assert (trainer.start_epoch, trainer.epoch, trainer.max_epoch) == (0, 0, 5)
    assert trainer.dm.dataset.classnames == ["ant", "bee", "cat"]
    assert (trainer.num_classes, trainer.lab2cname[2]) == (3, "cat")
    assert trainer.best_result == float("-inf")
    assert trainer.train_loader_u is None and len(trainer.val_loader.dataset) == 6


def test_building_a_trainer_draws_as_documented(toy):
    # few-shot draws come first, then those of the model; loaders draw nothing
    random.seed(1)
    kept = [random.sample(toy.items[start : start + 4], 2) for start in (0, 4, 8)]
    expected, after = [item.impath for items in kept for item in items], random.random()
    trainer = toy.trainer("DATASET.NUM_SHOTS", 2)
    assert [item.impath for item in trainer.dm.dataset.train_x] == expected
    assert random.random() == after


def test_the_same_seed_gives_the_same_weights_and_seed_zero_is_a_seed(toy, tmp_path):
    def weights(seed, folder):
        trainer = toy.trainer("OUTPUT_DIR", str(tmp_path / folder), "SEED", seed, seed=seed)
        trainer.train()
        return trainer.model[2].weight

    assert torch.equal(weights(0, "a"), weights(0, "b"))
    assert not torch.equal(weights(0, "c"), weights(1, "d"))


def test_test_returns_the_accuracy_of_the_split_or_of_test(toy, capsys, is_minidassl):
    trainer = toy.trainer()
    accuracy = trainer.test()
    assert f"* accuracy: {accuracy:.1f}%" in capsys.readouterr().out
    assert not trainer.model.training
    trainer.test(split="val")
    out = capsys.readouterr().out
    assert "Evaluate on the *val* set" in out and "* total: 6" in out
    trainer.val_loader = None
    trainer.test(split="val")
    out = capsys.readouterr().out
    assert "Evaluate on the *test* set" in out
    assert ("Note: the data set has no val split" in out) == is_minidassl


def test_the_best_model_on_val_is_kept_and_deployed(toy, monkeypatch, capsys):
    results = iter([40.0, 70.0, 70.0, 50.0, 60.0])
    inherited = toy.kind.test
    monkeypatch.setattr(
        toy.kind, "test", lambda self, split=None: next(results) if split else inherited(self)
    )
    trainer = toy.trainer("TEST.FINAL_MODEL", "best_val")
    trainer.train()
    out = capsys.readouterr().out
    assert out.count(f"Checkpoint saved to {toy.output}/toy/model-best.pth.tar\n") == 2
    assert "Deploy the model with the best val performance" in out
    assert re.search(r"Load .*model-best.pth.tar to toy \(epoch=2, val_result=70.0\)", out)


def test_no_test_means_no_test(toy, capsys):
    toy.trainer("TEST.NO_TEST", True, "OPTIM.MAX_EPOCH", 1).train()
    assert "Evaluate" not in capsys.readouterr().out


def test_only_registered_modules_change_their_mode(toy):
    trainer = toy.trainer()
    trainer.frozen = torch.nn.Dropout().eval()
    trainer.set_model_mode("train")
    assert trainer.model.training and not trainer.frozen.training
    trainer.set_model_mode("eval", "toy")
    assert not trainer.model.training
    with pytest.raises(KeyError):
        trainer.set_model_mode("trian")


def test_model_names_are_unique_and_known(toy):
    trainer = toy.trainer()
    with pytest.raises((ValueError, AssertionError), match="Found duplicate model names"):
        trainer.register_model("toy", trainer.model)
    with pytest.raises((ValueError, AssertionError)):
        trainer.get_model_names(["toys"])

    class Early(TrainerBase):
        def __init__(self):
            self.register_model("early")

    with pytest.raises(AttributeError, match="before super"):
        Early()


def test_forward_backward_may_report_nothing(toy, monkeypatch, capsys):
    inherited = toy.kind.forward_backward
    monkeypatch.setattr(toy.kind, "forward_backward", lambda s, b: inherited(s, b) and None)
    toy.trainer("OPTIM.MAX_EPOCH", 1).train()
    assert re.search(r"data \S+ \(\S+\)  lr ", capsys.readouterr().out)


def test_a_loss_that_is_not_finite_stops_the_backward_pass(toy, monkeypatch):
    monkeypatch.setattr(
        toy.kind, "loss", lambda self, logits, label: F.cross_entropy(logits, label) / 0
    )
    with pytest.raises(FloatingPointError, match="Loss is infinite or NaN!"):
        toy.trainer().train()


@pytest.mark.minidassl
def test_a_diverged_loss_stops_trainers_that_bypass_the_check_and_says_where(toy, monkeypatch):
    def loss(self, logits, label):
        bad = float("nan") if (self.epoch, self.batch_idx) == (1, 2) else 1.0
        return bad * F.cross_entropy(logits, label)

    def step(self, loss):
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()

    monkeypatch.setattr(toy.kind, "loss", loss)
    monkeypatch.setattr(toy.kind, "step", step)
    trainer = toy.trainer("TRAIN.CHECKPOINT_FREQ", 1)
    with pytest.raises(FloatingPointError, match=r"infinite or NaN! \(epoch 2, batch 3\): loss is"):
        trainer.train()
    assert [path.name for path in sorted((toy.output / "toy").glob("model*"))] == [
        "model.pth.tar-1"  # nothing was saved after the loss diverged
    ]


@pytest.mark.minidassl
def test_the_rate_also_falls_when_a_sampler_gives_fewer_batches_than_estimated(toy, monkeypatch):
    # Two of three classes per batch: the number of batches, 4 to 6, is random.
    trainer = toy.trainer(
        *("DATALOADER.TRAIN_X.SAMPLER", "RandomClassSampler", "DATALOADER.TRAIN_X.BATCH_SIZE", 2),
        *("DATALOADER.TRAIN_X.N_INS", 1, "OPTIM.MAX_EPOCH", 12),
    )
    rates, batches = [], []
    monkeypatch.setattr(trainer, "before_epoch", lambda: rates.append(trainer.get_current_lr()))
    inherited = trainer.after_epoch
    monkeypatch.setattr(
        trainer, "after_epoch", lambda: (batches.append(trainer.batch_idx + 1), inherited())
    )
    trainer.train()
    assert len(set(batches)) > 1  # otherwise this test shows nothing
    assert len(set(rates)) == 12
