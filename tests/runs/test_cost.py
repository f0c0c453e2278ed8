"""Predicted memory and arithmetic against runs on real tensors, and against published numbers."""

from __future__ import annotations

import contextlib
import importlib
import re
from pathlib import Path

import pytest
import torch

from causalclip.records.results import Result
from causalclip.runs import cost, cost_command
from causalclip.runs.configuration import trainer_class
from causalclip.runs.cost import cost_of, counted, step_of, trainer_without_weights

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# Of the released models; published with them.
PARAMETERS = {
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336px": 427_944_193,
}


@pytest.mark.parametrize(
    "method", ["CoCoOp", "MaPLe", "MMRL", "CLIP_LoRA", "CDC", "TwoSFS", "LinearProbe"]
)
def test_a_prediction_is_what_a_run_on_the_cpu_takes(method, monkeypatch):
    fake = trainer_without_weights(method, "tiny", 4)
    predicted = cost_of(fake, 2)
    real = trainer_class(method)(fake.cfg, classnames=fake.classnames)
    monkeypatch.setattr(cost, "FAKE", contextlib.nullcontext())  # images are real now
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    peak_of = importlib.import_module("setting").Setting().peak_bytes  # by torch's profiler
    if predicted.step:
        step = step_of(real, 2)
        assert predicted.step.peak == pytest.approx(peak_of(step), rel=0.1)
        assert predicted.step.flops == pytest.approx(counted(step).flops, rel=0.01)
        assert predicted.learnable == real.learned
        real.model.requires_grad_(False)
    assert predicted.test.peak == pytest.approx(peak_of(lambda: cost.test_of(real, 2)), rel=0.1)
    assert predicted.test.flops == cost.test_of(real, 2).flops
    assert predicted.weights == sum(p.nbytes for p in real.clip.parameters())


def test_every_view_of_a_test_image_is_counted():
    def flops(method, *pairs):
        return cost_of(trainer_without_weights(method, "tiny", 4, pairs=pairs), 1).test.flops

    few, many = (flops("TPT", "TRAINER.TPT.N_VIEWS", str(n)) for n in (10, 20))
    assert many - few == pytest.approx(10 * flops("ZeroshotCLIP"), rel=0.001)


def test_a_training_records_the_flops_of_a_step(make_trainer, tmp_path):
    trainer = make_trainer("CoOp", tmp_path, "DATALOADER.TRAIN_X.BATCH_SIZE", 2)
    trainer.train()
    images, labels = torch.rand(2, 3, *trainer.cfg.INPUT.SIZE), torch.tensor([0, 1])

    def step():
        trainer.set_model_mode("train")
        trainer.loss(images, labels)[0].backward()

    assert Result.read(tmp_path / "results.json").training["step_flops"] == counted(step).flops


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_clip_without_weights_has_the_released_parameters(name):
    model = cost.clip_without_weights(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


def test_an_image_of_vit_b_16_takes_the_published_arithmetic_without_what_is_not_read():
    width, tokens = 768, 197
    token, attention = 12 * width**2, 2 * tokens * width  # multiply-adds
    whole = 12 * tokens * (token + attention) + 196 * width**2 + width * 512
    assert whole == pytest.approx(17.6e9, rel=0.01)  # Touvron et al., ICML 2021, table 5: ViT-B
    read = whole - 196 * (10 * width**2 + attention)  # in the last block the class token alone
    work = cost_of(trainer_without_weights("LinearProbe", "ViT-B/16", 10), 2).test
    assert work.flops / 2 / 2 == pytest.approx(read, rel=0.001)


def test_all_classes_differ():
    assert len({name.lower() for name in cost.CLASSNAMES}) == 1000


def test_memory_is_that_of_the_tensors_alive():
    def run():
        a = torch.ones(1000)  # 4,000 bytes
        b = a * 2
        view = b[:10]
        del a, b
        return view + torch.ones(10)

    assert counted(run).peak == 8000
    assert counted(lambda: torch.ones(4, 5) @ torch.ones(5, 6)).flops == 2 * 4 * 5 * 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CDCC"], "unknown trainer CDCC; known: .*did you mean CDC"),
        (["CoOp", "--backbone", "ViT-B/15"], "unknown BACKBONE ViT-B/15.*did you mean ViT-B/16"),
        (["CoOp", "--classes", "1001"], "classes must be 2 to 1,000, ImageNet's, got 1,001"),
        (["CoOp", "--classes", "0"], "classes must be 2 to 1,000, ImageNet's, got 0"),
        (["CoOp", "--batch", "0"], "--batch must be 1 or more, got 0"),
        (["CoOp", "--recipe", "none"], "unknown recipe none of CoOp"),
        (["CoOp", "--set", "TRAINER.COOP.NONE", "1"], "NONE"),
        (["TDA", "--backbone", "tiny", "--classes", "10"], "the cost of TDA cannot be predicted"),
        (["CoOp", "--set", "TRAINER.COOP.PREC", "fp16"], "PREC must be fp32 or amp.*got fp16"),
        (["MaPLe", "--backbone", "RN50"], "RN50|ViT"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, capsys):
    assert cost_command.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("causalclip cost: ")
    assert re.search(message, line)


def test_the_table_has_a_row_for_each_number_of_classes(capsys):
    assert cost_command.main(["ZeroshotCLIP", "--backbone", "tiny", "--classes", "2", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny, weights 30 MiB in fp32; batch 4")
    assert [line.split("|")[2].strip() for line in lines[-2:]] == ["2", "10"]
