"""Our trainers against the published ones, on golden tensors made by running those (golden/)."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dassl.config import get_cfg_default
from golden import weights
from safetensors.torch import save_file
from yacs.config import CfgNode

from causalclip.backbone import CLIP, build_clip, load_clip
from causalclip.published import our_name
from causalclip.trainers.cocoop import CoCoOp
from causalclip.trainers.coop import CoOp
from causalclip.trainers.ivlp import IVLP
from causalclip.trainers.kgcoop import KgCoOp
from causalclip.trainers.maple import MaPLe
from causalclip.trainers.promptsrc import PromptSRC
from causalclip.trainers.vpt import VPT

GOLDEN = Path(__file__).parent / "golden"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
TRAINERS = {
    "coop": CoOp,
    "cocoop": CoCoOp,
    "maple": MaPLe,
    "vpt": VPT,
    "ivlp": IVLP,
    "kgcoop": KgCoOp,
    "promptsrc": PromptSRC,
}
CASES = [(m, case) for m, spec in MANIFEST["methods"].items() for case in spec["cases"]]
AT_ONCE = 1e-5  # relative to a tensor's largest entry: logits, losses, gradients
AFTER_STEPS = 1e-4  # the same after three optimiser steps


class WithoutData:
    """A trainer that knows class names only; batches come from the test."""

    def build_data_loader(self):
        dataset = SimpleNamespace(classnames=list(weights.CLASSNAMES))
        self.dm = SimpleNamespace(dataset=dataset)
        self.lab2cname = dict(enumerate(weights.CLASSNAMES))
        self.train_loader_x = self.val_loader = self.test_loader = None


@pytest.fixture(scope="module")
def clip_files(tmp_path_factory) -> dict[str, str]:
    """One safetensors file per CLIP shape, with the numbers the published trainers had."""
    folder = tmp_path_factory.mktemp("clip")
    for shape, sizes in weights.CLIP_SHAPES.items():
        names = {name: value.shape for name, value in build_clip(**sizes).state_dict().items()}
        save_file(weights.clip_state(names), folder / f"{shape}.safetensors")
    return {shape: str(folder / f"{shape}.safetensors") for shape in weights.CLIP_SHAPES}


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, np.ndarray]]:
    files = {method: np.load(GOLDEN / f"{method}.npz") for method in TRAINERS}
    return {method: {name: file[name] for name in file.files} for method, file in files.items()}


def settings_of(method: str, case: str) -> dict:
    """The published settings of a case, those that our trainer has too."""
    config = dict(MANIFEST["methods"][method]["cases"][case]["config"])
    if method == "kgcoop" and config["CTX_INIT"]:
        config["CTX_INIT"] = "a photo of a"  # there CTX_INIT True means these words
    return {key: value for key, value in config.items() if key in TRAINERS[method].defaults}


def build(method: str, case: str, clip_files: dict[str, str]):
    """Our trainer of a golden case, with the published start of what is drawn at random."""
    trainer_class, spec = TRAINERS[method], MANIFEST["methods"][method]
    cfg = get_cfg_default()
    cfg.TRAINER.NAME, cfg.USE_CUDA = spec["trainer"], False
    defaults = dict(trainer_class.defaults)
    for key, value in settings_of(method, case).items():
        defaults[key] = type(defaults[key])(value)
    cfg.TRAINER[trainer_class.config_node] = CfgNode(defaults)
    cfg.MODEL.BACKBONE.NAME = clip_files[case.split("/")[0]]
    cfg.INPUT.SIZE, cfg.DATASET.NAME = (32, 32), "OxfordPets"
    cfg.OPTIM.NAME, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH = "sgd", spec["lr"], 3
    trainer = type(trainer_class.__name__, (WithoutData, trainer_class), {})(cfg)
    start_from_published(trainer, method, case)
    return trainer


def start_from_published(trainer, method: str, case: str) -> None:
    parameters = dict(trainer.model.named_parameters())
    spec = MANIFEST["methods"][method]["cases"][case]
    assert {our_name(name) for name in spec["learnable"]} == set(parameters)
    for name, shape in spec["learnable"].items():
        assert tuple(shape) == tuple(parameters[our_name(name)].shape), name
        if name != "prompt_learner.ctx" or not settings_of(method, case)["CTX_INIT"]:
            parameters[our_name(name)].data.copy_(weights.learnable(name, tuple(shape)))


def logits_of(trainer, step: int = 0) -> torch.Tensor:
    with torch.no_grad(), trainer.evaluating():
        return trainer.logits(weights.images(step))


def step(trainer, i: int, num_batches: int) -> float:
    trainer.set_model_mode("train")
    trainer.epoch, trainer.batch_idx = divmod(i, num_batches)
    trainer.num_batches = num_batches
    batch = {"img": weights.images(i), "label": weights.labels(i)}
    return trainer.forward_backward(batch)["loss"]


def assert_close(actual, expected: np.ndarray, tolerance: float, what: str) -> None:
    actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"{what}: relative error {error:.2e}, allowed {tolerance:.0e}"


def assert_kept(file, prefix: str, tensor: torch.Tensor, tolerance: float) -> None:
    """Compare a tensor with the golden one, or its sketches where it was too large to keep."""
    for name, value in weights.kept(prefix, tensor).items():
        assert_close(value, file[name], tolerance, name)


def test_the_clip_is_the_one_the_published_trainers_ran_on(clip_files):
    for shape, path in clip_files.items():
        state = load_clip(path).state_dict()
        assert weights.digest(state) == MANIFEST["clip_sha256"][shape], (
            f"{shape}: the rule in golden/weights.py gives other numbers here"
        )


def test_the_clip_has_no_width_of_the_released_models(clip_files):
    model = load_clip(clip_files["small"])
    assert isinstance(model, CLIP)
    widths = {model.visual.conv1.weight.shape[0], *model.text_projection.shape}
    assert len(widths) == 3 and not widths & {512, 768}


@pytest.mark.parametrize(("method", "case"), CASES)
def test_logits_loss_and_gradients_equal_the_published_ones(method, case, clip_files, golden):
    trainer, file = build(method, case, clip_files), golden[method]
    if f"{case}/start/prompt_learner.ctx" in file:
        assert_close(trainer.model.ctx, file[f"{case}/start/prompt_learner.ctx"], 0, "start")
    assert_close(logits_of(trainer), file[f"{case}/logits"], AT_ONCE, "logits")
    loss, _ = trainer.loss(weights.images(0), weights.labels(0))
    assert_close(loss, file[f"{case}/losses"][:1], AT_ONCE, "loss")
    loss.backward()
    for name in MANIFEST["methods"][method]["cases"][case]["learnable"]:
        gradient = trainer.model.get_parameter(our_name(name)).grad
        assert_kept(file, f"{case}/gradient/{name}", gradient, AT_ONCE)


@pytest.mark.parametrize(("method", "case"), CASES)
def test_three_steps_end_in_the_published_weights(method, case, clip_files, golden):
    trainer, file = build(method, case, clip_files), golden[method]
    losses = [step(trainer, i, num_batches=99) for i in range(3)]
    assert_close(losses, file[f"{case}/losses"], AFTER_STEPS, "losses")
    for name in MANIFEST["methods"][method]["cases"][case]["learnable"]:
        weight = trainer.model.get_parameter(our_name(name))
        assert_kept(file, f"{case}/after/{name}", weight, AFTER_STEPS)
    assert_close(logits_of(trainer), file[f"{case}/logits_after"], AFTER_STEPS, "logits")


@pytest.mark.parametrize("case", MANIFEST["methods"]["promptsrc"]["cases"])
def test_promptsrc_ends_in_the_published_gaussian_average(case, clip_files, golden):
    trainer, file = build("promptsrc", case, clip_files), golden["promptsrc"]
    for i in range(3):  # three epochs of one batch
        step(trainer, i, num_batches=1)
    for name in MANIFEST["methods"]["promptsrc"]["cases"][case]["learnable"]:
        weight = trainer.model.get_parameter(our_name(name))
        assert_kept(file, f"{case}/gpa/{name}", weight, AFTER_STEPS)
    assert_close(logits_of(trainer), file[f"{case}/logits_gpa"], AFTER_STEPS, "logits")
