"""The contract of the module `dassl`: a toy data set and trainer that run on whichever provides it.

Tests of a fault that Dassl 0.6.3 has and minidassl fixes are marked `minidassl`.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from causalclip.dassl_compat import patch_dassl

patch_dassl()

import dassl  # noqa: E402
from dassl.config import get_cfg_default  # noqa: E402
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum  # noqa: E402
from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer  # noqa: E402
from dassl.metrics import compute_accuracy  # noqa: E402
from dassl.optim import build_lr_scheduler, build_optimizer  # noqa: E402
from dassl.utils import set_random_seed  # noqa: E402

from causalclip.engine.checkpoints import Checkpointer  # noqa: E402

CLASSES = ["ant", "bee", "cat"]
IMAGES_PER_CLASS = 4


@pytest.fixture
def is_minidassl() -> bool:
    return dassl.__version__.endswith("+mini")


def items_below(root):
    return [
        Datum(f"{root}/{name}_{number}.png", label, number % 2, name)
        for label, name in enumerate(CLASSES)
        for number in range(IMAGES_PER_CLASS)
    ]


@DATASET_REGISTRY.register(force=True)
class ToyImages(DatasetBase):
    """`<root>/<class>_<number>.png`, in two domains; val is every second image."""

    def __init__(self, cfg):
        items = items_below(cfg.DATASET.ROOT)
        train = self.generate_fewshot_dataset(items, num_shots=cfg.DATASET.NUM_SHOTS)
        super().__init__(train_x=train, val=items[::2], test=items)


@TRAINER_REGISTRY.register(force=True)
class ToyTrainer(TrainerX):
    """A linear classifier that draws from all three generators in every step."""

    killed_at: tuple[int, int] | None = None  # (epoch, batch) of a kill, counted from 0

    def build_model(self):
        self.model = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.LazyLinear(self.num_classes))
        self.model(torch.zeros(1, 3, *self.cfg.INPUT.SIZE))
        self.model.to(self.device)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("toy", self.model, self.optim, self.sched)

    def forward_backward(self, batch):
        if (self.epoch, self.batch_idx) == self.killed_at:
            raise KeyboardInterrupt
        image, label, _ = self.parse_batch_train(batch)
        logits = self.model(image) * (1 + 0.1 * random.random() + 0.1 * np.random.rand())
        loss = self.loss(logits, label)
        self.step(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(logits, label)[0].item()}

    def loss(self, logits, label):
        return F.cross_entropy(logits, label)

    def step(self, loss):
        self.model_backward_and_update(loss)


@TRAINER_REGISTRY.register(force=True)
class ExactToyTrainer(ToyTrainer):
    """The same trainer with a Checkpointer: it resumes exactly, and checks what it loads."""

    config_node = ""

    def build_model(self):
        super().build_model()
        self.classnames = list(self.dm.dataset.classnames)
        self.backbone = SimpleNamespace(digest=None)
        self.checkpointer = Checkpointer(self)

    def save_model(self, *args, **kwargs):
        self.checkpointer.save(*args, **kwargs)

    def resume_model_if_exist(self, directory):
        return self.checkpointer.resume(directory)

    def load_model(self, directory, epoch=None):
        self.checkpointer.load(directory, epoch)


@pytest.fixture(scope="session")
def image_root(tmp_path_factory):
    """Twelve random 10x9 PNG files."""
    root = tmp_path_factory.mktemp("toy")
    pixels = np.random.default_rng(0)
    for name in CLASSES:
        for number in range(IMAGES_PER_CLASS):
            noise = pixels.integers(0, 256, (9, 10, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / f"{name}_{number}.png")
    return root


@pytest.fixture
def toy(image_root, tmp_path, monkeypatch):
    """`cfg(*overrides)`, `trainer(*overrides, **class attributes)`, `items`, `output`."""
    monkeypatch.setattr(ToyTrainer, "killed_at", None)
    output = tmp_path / "out"

    def make_cfg(*overrides):
        cfg = get_cfg_default()
        cfg.merge_from_list(
            ["DATASET.ROOT", str(image_root), "DATASET.NAME", "ToyImages", "SEED", 1]
            + ["TRAINER.NAME", "ToyTrainer", "OUTPUT_DIR", str(output), "USE_CUDA", False]
            + ["INPUT.SIZE", (8, 8), "INPUT.TRANSFORMS", ("random_flip", "normalize")]
            + ["DATALOADER.NUM_WORKERS", 0, "DATALOADER.TRAIN_X.BATCH_SIZE", 4]
            + ["OPTIM.NAME", "sgd", "OPTIM.LR", 0.1, "OPTIM.MAX_EPOCH", 5]
            + ["OPTIM.LR_SCHEDULER", "cosine", "OPTIM.WARMUP_EPOCH", 1]
            + ["OPTIM.WARMUP_TYPE", "constant", *overrides]
        )
        cfg.freeze()
        return cfg

    def make_trainer(*overrides, seed=1):
        set_random_seed(seed)
        return build_trainer(make_cfg(*overrides))

    return SimpleNamespace(
        cfg=make_cfg,
        trainer=make_trainer,
        items=items_below(image_root),
        output=output,
        kind=ToyTrainer,
    )


@pytest.fixture
def exact(toy):
    """As `toy`, but its trainer resumes exactly, by causalclip/engine/checkpoints.py."""

    def make_trainer(*overrides, **options):
        return toy.trainer("TRAINER.NAME", "ExactToyTrainer", *overrides, **options)

    return SimpleNamespace(**{**vars(toy), "trainer": make_trainer})
