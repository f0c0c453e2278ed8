"""Build our trainers as in a golden case: with the published CLIP, class names and start."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from golden import weights
from safetensors.torch import save_file
from yacs.config import CfgNode

import causalclip.trainers
from causalclip import plugin
from causalclip.clip.backbone import build_clip
from causalclip.clip.published import our_name

# isort: split
from dassl.config import get_cfg_default

GOLDEN = Path(__file__).parent
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
TRAINERS = {
    kind.__name__.lower(): kind
    for module in plugin.modules_of(causalclip.trainers)
    for kind in plugin.methods_of(module)
}
CASES = [(m, case) for m, spec in MANIFEST["methods"].items() for case in spec["cases"]]


class WithoutData:
    """A trainer with class names and no data loaders; the test provides the batches."""

    def build_data_loader(self):
        dataset = SimpleNamespace(classnames=list(weights.CLASSNAMES))
        self.dm = SimpleNamespace(dataset=dataset)
        self.lab2cname = dict(enumerate(weights.CLASSNAMES))
        self.train_loader_x = self.val_loader = self.test_loader = None


def defaults(rows) -> dict:
    """Return the defaults of a table of settings by key."""
    return {key: row.default for key, row in rows.items()}


def write_clips(folder: Path) -> dict[str, str]:
    """Write a safetensors file per CLIP shape, with the weights of the published runs."""
    for shape, sizes in weights.CLIP_SHAPES.items():
        names = {name: value.shape for name, value in build_clip(**sizes).state_dict().items()}
        path, said = folder / f"{shape}.safetensors", {"activation": "quick_gelu"}
        save_file(weights.clip_state(names), path, metadata=said)
    return {shape: str(folder / f"{shape}.safetensors") for shape in weights.CLIP_SHAPES}


def golden_file(method: str) -> dict[str, np.ndarray]:
    """Return all recorded outputs of a published trainer."""
    with np.load(GOLDEN / f"{method}.npz") as file:
        return dict(file)


def settings_of(method: str, case: str) -> dict:
    """Return the published settings of a case that our trainer has too."""
    config = dict(MANIFEST["methods"][method]["cases"][case]["config"])
    if method in ("kgcoop", "tcp") and config["CTX_INIT"]:
        config["CTX_INIT"] = "a photo of a"  # in the published code True means these words
    return {key: value for key, value in config.items() if key in TRAINERS[method].settings_table}


def without_data(trainer_class, backbone: str, *, dataset=(), optim=(), **settings):
    """Return a trainer without data, with keys of DATASET, OPTIM and its own node."""
    cfg = get_cfg_default()
    cfg.TRAINER.NAME, cfg.USE_CUDA = trainer_class.__name__, False
    cfg.TRAINER[trainer_class.config_node] = CfgNode(
        {**defaults(trainer_class.settings_table), **settings}
    )
    cfg.MODEL.BACKBONE.NAME, cfg.INPUT.SIZE = backbone, (32, 32)
    cfg.DATASET.update({"NAME": "OxfordPets", **dict(dataset)})
    cfg.OPTIM.update({"NAME": "sgd", "MAX_EPOCH": 3, **dict(optim)})
    return type(trainer_class.__name__, (WithoutData, trainer_class), {})(cfg)


def build(method: str, case: str, clip_files: dict[str, str]):
    """Return our trainer of a golden case, with the published values of random parameters."""
    trainer_class, spec = TRAINERS[method], MANIFEST["methods"][method]
    known = defaults(trainer_class.settings_table)
    settings = {k: type(known[k])(value) for k, value in settings_of(method, case).items()}
    cupl = spec["cases"][case]["config"].get("INPUT_PROMPTS") == "cupl"
    dataset = {"DESCRIPTIONS": str(GOLDEN / "sentences.json")} if cupl else {}
    backbone, optim = clip_files[case.split("/")[0]], {"LR": spec["lr"]}
    trainer = without_data(trainer_class, backbone, dataset=dataset, optim=optim, **settings)
    start_from_published(trainer, method, case)
    return trainer


def start_from_published(trainer, method: str, case: str) -> None:
    parameters = dict(trainer.model.named_parameters())
    spec = MANIFEST["methods"][method]["cases"][case]
    assert {our_name(name) for name in spec["learnable"]} == set(parameters)
    for name, shape in spec["learnable"].items():
        assert tuple(shape) == tuple(parameters[our_name(name)].shape), name
        if name != "prompt_learner.ctx" or not settings_of(method, case).get("CTX_INIT"):
            parameters[our_name(name)].data.copy_(weights.learnable(name, tuple(shape)))


def take_step(trainer, i: int, num_batches: int = 99) -> float:
    """Train on the batch of a step; return the loss."""
    trainer.set_model_mode("train")
    trainer.epoch, trainer.batch_idx = divmod(i, num_batches)
    trainer.num_batches = num_batches
    batch = {"img": weights.images(i), "label": weights.labels(i)}
    return trainer.forward_backward(batch)["loss"]


def logits_of(trainer, step: int = 0) -> torch.Tensor:
    trainer.set_model_mode("eval")
    with torch.no_grad():
        return trainer.logits(weights.images(step), trainer.evaluation_text())


def assert_close(actual, expected: np.ndarray, tolerance: float, what: str) -> None:
    actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"{what}: relative error {error:.2e}, allowed {tolerance:.0e}"
