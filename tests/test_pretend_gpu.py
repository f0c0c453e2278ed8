"""Every method on a pretended GPU: its whole life, precisions, and how often the host waits."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import open_clips
import pytest
import torch
from pretend_gpu import GPUTensor, pretended_gpu
from small_world import CONFIGS, METHODS, recipe

from causalclip.checks.checks import _kill_after_first_epoch
from causalclip.checks.world import Subject
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.predict.predictor import Predictor
from causalclip.trainers.coop import CoOp

GPU = ["USE_CUDA", True]


@pytest.fixture
def subject(request, small_world) -> Subject:
    return subject_of(request.param, small_world)


def subject_of(name: str, world: Path) -> Subject:
    return Subject(name, world, recipe(name, world))


every_method = pytest.mark.parametrize("subject", METHODS, indirect=True)


# The device


def test_operations_stay_on_the_gpu_and_mixing_devices_is_an_error():
    with pretended_gpu() as host:
        layer = torch.nn.Linear(4, 5).to("cuda")
        y = layer(torch.ones(3, 4, device="cuda"))
        y.sum().backward()
        assert isinstance(y, GPUTensor) and layer.weight.grad.device.type == "gpu"
        with pytest.raises(RuntimeError, match=r"on gpu:0, aten.add.Tensor has \[\(5,\)\] on the"):
            y + torch.ones(5)
        with pytest.raises(RuntimeError, match="generator of gpu:0"):
            torch.rand(3, device="cuda", generator=torch.Generator())
        with pytest.raises((RuntimeError, TypeError), match="numpy"):
            y.detach().numpy()
        host.clear()
        assert torch.equal(y.detach().cpu(), y.detach().cpu())
        assert host == {"download": 2}
    assert not torch.cuda.is_available()


@pytest.mark.parametrize(
    ("wait", "kind"),
    [
        (lambda x: x.sum().item(), "read"),
        (lambda x: bool(x.any()), "read"),
        (lambda x: x.tolist(), "read"),
        (lambda x: x[x > 0], "read"),
        (lambda x: x.unique(), "read"),
        (lambda x: x.to("cpu"), "download"),
        (lambda x: torch.ones(3).to(x.device), "upload"),
        (lambda x: torch.ones(3).to(x.device, non_blocking=True), "upload"),  # it is not pinned
        (lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True), None),
        (lambda x: (x + 1).softmax(-1).max(), None),
    ],
)
def test_waits_of_the_host_are_counted(wait, kind):
    with pretended_gpu() as host:
        x = torch.ones(3, device="cuda")
        host.clear()
        wait(x)
        assert +host == ({} if kind is None else {kind: 1})


def test_autocast_has_cudas_types():
    with pretended_gpu(), torch.autocast("cuda", torch.float16):
        x = torch.ones(2, 4, device="cuda")
        products = (torch.nn.Linear(4, 4).to("cuda")(x), x @ x.T)
        assert {y.dtype for y in products} == {torch.float16}
        assert {products[0].softmax(-1).dtype, x.half().exp().dtype} == {torch.float32}


# Every method


@every_method
def test_a_method_does_on_a_gpu_what_it_does_on_the_cpu(subject):
    options = ["TEST.CALIBRATION", True]
    with pretended_gpu():
        folder = subject.new_folder()
        if issubclass(subject.kind, PromptTrainer):
            _kill_after_first_epoch(subject.build(*GPU, *options, folder=folder))
        on_gpu = subject.run(*GPU, *options, folder=folder)  # resumed
        models = on_gpu.trainer._models.values()
        assert all(isinstance(p, GPUTensor) for each in models for p in each.parameters())
        pictures = on_gpu.answers["path"].tolist()  # in the order of the test
        predictor = Predictor.load(folder)
        found, map_of = predictor(pictures), predictor.explain(pictures[0]).maps
    on_cpu = subject.run(*options)
    # Eight images leave CLIP-ICM's subspace undetermined: rounding turns it.
    plain = [n for n in on_cpu.answers if subject.name != "CLIP_ICM" or n in OUTSIDE_THE_SUBSPACE]
    for name in plain:
        values = on_cpu.answers[name]
        if values.dtype.kind == "f":
            np.testing.assert_allclose(on_gpu.answers[name], values, atol=1e-3, err_msg=name)
    answers = np.stack([answer.probabilities for answer in found])
    np.testing.assert_allclose(answers, on_gpu.answers["probabilities"], atol=1e-4)
    assert all(np.isfinite(values).all() for values in map_of.values())


OUTSIDE_THE_SUBSPACE = ("zeroshot/probabilities", "linear_probe/probabilities")

BATCHES = {8: 1, 4: 2}
"""Batches an epoch of the eight training images, by their size."""


def waits_of(subject: Subject, precision: str, size: int) -> dict[str, int]:
    """Train for two epochs with a log line each; return the waits."""
    options = ["TRAIN.PRINT_FREQ", BATCHES[size], "DATALOADER.TRAIN_X.BATCH_SIZE", size]
    options += [f"{subject.node}.PREC", precision]
    with pretended_gpu() as host:
        trainer = subject.build(*GPU, *options)
        trainer.test = lambda: 0.0
        host.clear()
        trainer.train()
        return dict(+host)


@every_method
def test_the_host_waits_once_a_log_line_and_for_no_step_in_fp16_and_amp(subject):
    many, few = waits_of(subject, "fp16", 4), waits_of(subject, "amp", 8)
    if issubclass(subject.kind, PromptTrainer):
        assert many.pop("read") == 2  # a line an epoch
        # GradScaler reads after a step whether a gradient overflowed; checkpoints hold its state.
        state = 2 * 2
        assert few.pop("read") == 2 + 2 * BATCHES[8] + state
        assert few == many
    else:
        # A search, and an epoch of Tip-Adapter-F, is a read.
        reads = {"TipAdapter": 1, "TipAdapterF": 1 + 2, "GDA": 3, "LPPlusPlus": 4, "ProLIP": 2}
        assert [each.get("read", 0) for each in (few, many)] == [reads.get(subject.name, 0)] * 2


@pytest.mark.parametrize("name", ["CoOp", "MaPLe"])
@pytest.mark.parametrize("kind", ["vit", "map"])
def test_models_of_open_clip_run_on_a_gpu(name, kind, small_world, open_clip_names):
    subject = subject_of(name, small_world)
    with pretended_gpu():
        run = subject.run(*GPU, "MODEL.BACKBONE.NAME", open_clip_names[kind])
    on_cpu = subject.run("MODEL.BACKBONE.NAME", open_clip_names[kind])
    found, expected = (each.answers["probabilities"] for each in (run, on_cpu))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.fixture(scope="module")
def open_clip_names(tmp_path_factory) -> dict[str, str]:
    return open_clips.write(tmp_path_factory.mktemp("open_clip"))


# Planted faults


class ReadsEachStep(CoOp):
    def loss(self, images, labels):
        loss, scores = super().loss(images, labels)
        self.last = loss.item()
        return loss, scores


class UploadsEachStep(CoOp):
    def loss(self, images, labels):
        weights = torch.ones(len(labels)).to(self.device)
        loss, scores = super().loss(images, labels)
        return loss * weights.mean(), scores


class TextOnTheCPU(CoOp):
    def text_features(self, prompts):
        return super().text_features(prompts).cpu()


@pytest.mark.parametrize(("kind", "wait"), [(ReadsEachStep, "read"), (UploadsEachStep, "upload")])
def test_a_wait_for_each_step_is_found(kind, wait, small_world):
    subject = subject_of("CoOp", small_world)
    subject.kind = kind
    few, many = waits_of(subject, "fp32", 8), waits_of(subject, "fp32", 4)
    steps = 2 * (BATCHES[4] - BATCHES[8])
    assert {key: many[key] - few[key] for key in many if many[key] != few[key]} == {wait: steps}


def test_a_tensor_that_stays_on_the_cpu_is_found(small_world):
    subject = subject_of("CoOp", small_world)
    subject.kind = TextOnTheCPU
    with pretended_gpu(), pytest.raises(RuntimeError, match="expected all tensors on gpu:0"):
        subject.run(*GPU)


# The check to run on a real one


def test_a_benchmark_compares_a_device_with_the_cpu(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(CONFIGS.parents[1] / "benchmarks"))
    check = importlib.import_module("device_check")
    monkeypatch.setattr(sys, "argv", ["device_check.py", "--methods", "CoOp"])
    with pretended_gpu():
        assert check.main() == 0
    assert "| CoOp | " in capsys.readouterr().out
    monkeypatch.setattr(check, "MOST", -1.0)
    with pretended_gpu():
        assert check.main() == 1
    assert "differ by more than -1: CoOp" in capsys.readouterr().err
