"""What a training loop prints when its numbers are read once per line only, as on a GPU."""

from __future__ import annotations

import re

import pytest
import torch

from causalclip.engine.session import TrainingLog

LINE = re.compile(r"batch \[(\d+)/\d+\].* loss \S+ \((\S+)\) acc \S+ \((\S+)\) lr")


@pytest.fixture
def lines(make_trainer, tmp_path, capsys, monkeypatch):
    """A function (reads every step?, PRINT_FREQ) -> (batch, mean loss, mean accuracy) printed."""

    def run(every_step, frequency):
        options = ["TRAIN.PRINT_FREQ", frequency, "DATALOADER.TRAIN_X.BATCH_SIZE", 2]
        trainer = make_trainer("CoOp", tmp_path / f"{every_step}-{frequency}", *options)
        monkeypatch.setattr(trainer.session.log, "every_step", every_step)
        capsys.readouterr()
        trainer.train()
        found = LINE.findall(capsys.readouterr().out)
        return [tuple(map(float, line)) for line in found]

    return run


@pytest.mark.parametrize("frequency", [2, 9])
def test_the_averages_printed_are_those_of_all_steps(frequency, lines):
    every, seldom = lines(True, frequency), lines(False, frequency)
    assert len(seldom) == {2: 2, 9: 5}[frequency]  # ten images: five batches
    assert [line[0] for line in seldom] == [line[0] for line in every]
    for one, other in zip(seldom, every, strict=True):
        assert one[1:] == pytest.approx(other[1:], abs=2e-4)


def test_a_loss_that_is_nan_stops_the_run_at_the_next_line(make_trainer, tmp_path, monkeypatch):
    options = ["TRAIN.PRINT_FREQ", 3, "DATALOADER.TRAIN_X.BATCH_SIZE", 2]
    trainer = make_trainer("CoOp", tmp_path, *options)
    monkeypatch.setattr(trainer.session.log, "every_step", False)
    loss = trainer.loss

    def nan(images, labels):
        value, scores = loss(images, labels)
        return (value * torch.nan if trainer.batch_idx == 3 else value), scores

    monkeypatch.setattr(trainer, "loss", nan)
    with pytest.raises(FloatingPointError, match=r"\(epoch 1, batches 4 to 5\)"):
        trainer.train()  # the fifth batch is the last: no checkpoint is written after it
    assert not (tmp_path / "prompt_learner").exists()


def test_the_curve_has_the_mean_of_each_epoch_whatever_was_printed():
    report = TrainingLog()
    for epoch, losses in ((1, (1.0, 2.0, 6.0)), (2, (4.0, 0.0, 2.0))):
        for batch, loss in enumerate(losses, start=1):
            report.add(torch.tensor(loss), torch.tensor([10 * loss]))
            if batch != 1:  # the first two at once, then the third
                report.read(epoch=epoch, batch=batch)
    assert report.curve() == {"epoch": [1, 2], "loss": [3.0, 2.0], "accuracy": [30.0, 20.0]}
