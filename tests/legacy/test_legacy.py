"""What version 87e1c13 wrote is still read: checkpoints of both toolkits, and a few-shot set.

`make.py` made the files; the oracle is what the old code predicted and learned from them.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
TWO_EPOCHS = ("OPTIM.MAX_EPOCH", 2, "TRAIN.CHECKPOINT_FREQ", 1)
written_by = pytest.mark.parametrize("toolkit", ["minidassl", "dassl"])


@pytest.fixture
def old_run(tmp_path):
    """A function toolkit -> a copy of the output folder that 87e1c13 left after one epoch."""

    def copy(toolkit: str) -> Path:
        return Path(shutil.copytree(HERE / toolkit, tmp_path / "run"))

    return copy


@written_by
def test_an_old_checkpoint_predicts_what_it_predicted(toolkit, old_run, make_trainer, tmp_path):
    trainer = make_trainer("CoOp", tmp_path / "evaluation", *TWO_EPOCHS)
    trainer.load_model(str(old_run(toolkit)), epoch=1)
    trainer.test()
    ours = np.load(tmp_path / "evaluation" / "predictions.npz")
    theirs = np.load(HERE / toolkit / "predictions.npz")
    assert np.array_equal(ours["label"][:50], theirs["label"])
    assert ours["probabilities"][:50] == pytest.approx(theirs["probabilities"], abs=1e-6)


@written_by
def test_an_old_run_goes_on_as_it_went_on(toolkit, old_run, make_trainer, capsys):
    then = ("DATALOADER.DRAWS", "dassl", "OPTIM.LR", 0.002)  # as every run drew, and the recipe's
    trainer = make_trainer("CoOp", old_run(toolkit), *TWO_EPOCHS, *then)
    trainer.train()
    out = capsys.readouterr().out
    assert "(epoch=1)" in out and "no random state" not in out
    theirs = np.load(HERE / toolkit / "learned.npz")["ctx"]
    assert trainer.model.ctx.detach().numpy() == pytest.approx(theirs, abs=1e-6)


@written_by
def test_an_old_checkpoint_of_other_classes_is_still_refused(toolkit, old_run, make_trainer):
    other = (*TWO_EPOCHS, "DATASET.SUBSAMPLE_CLASSES", "new")
    trainer = make_trainer("CoOp", old_run(toolkit), *other)
    with pytest.raises(ValueError, match="learned for the classes zero, one.*this run has five"):
        trainer.train()


def test_an_old_few_shot_set_is_used_and_not_drawn_again(make_cfg, data_root, tmp_path, capsys):
    from dassl.data.datasets import build_dataset

    options = ("DATASET.ROOT", str(tmp_path), "DATASET.SUBSAMPLE_CLASSES", "all")
    folder = tmp_path / "handwritten_digits"
    unused = shutil.ignore_patterns("split_fewshot")
    shutil.copytree(data_root / folder.name, folder, copy_function=os.link, ignore=unused)
    (stored,) = HERE.rglob("causalclip_shot_2-seed_1.json")
    content = json.loads(stored.read_text(encoding="utf-8"))
    content["train"].reverse()  # an order that no draw gives
    (folder / "split_fewshot").mkdir()
    (folder / "split_fewshot" / stored.name).write_text(json.dumps(content), encoding="utf-8")
    dataset = build_dataset(make_cfg("CoOp", tmp_path, *options))
    assert "Loading preprocessed few-shot data" in capsys.readouterr().out
    names = [Path(path).name for path, _, _ in content["train"]]
    assert [Path(item.impath).name for item in dataset.train_x] == names
