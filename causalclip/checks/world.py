"""The test data of the checks, a random CLIP and a few images; runs of a trainer on them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from yacs.config import CfgNode

from causalclip import plugin
from causalclip.clip.backbone import build_clip
from causalclip.clip.weights import save_tiny
from causalclip.engine.feature_trainer import FeatureTrainer
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.records.identity import Identity
from causalclip.records.predictions import PREDICTIONS_FILE
from causalclip.runs.configuration import merge_file, settings_of_cfg

# isort: split
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import set_random_seed

if TYPE_CHECKING:
    from causalclip.engine import CLIPTrainer

CLASSES = ("ant", "bee", "cat", "dog")
IMAGES_A_CLASS = {"train": 4, "val": 1, "test": 2}
RESOLUTION = 32
EPOCHS = 2
WEIGHTS_FILE = "clip.safetensors"

# The method's configuration files override BASE_SETTINGS; FIXED_SETTINGS override the files.
BASE_SETTINGS = ["INPUT.TRANSFORMS", ["random_resized_crop", "random_flip", "normalize"]]
FIXED_SETTINGS = [
    *("DATASET.NAME", "ImageFolder", "DATASET.PATH", "images"),
    *("DATASET.NUM_SHOTS", IMAGES_A_CLASS["train"], "DATASET.SUBSAMPLE_CLASSES", "base"),
    *("DATALOADER.TRAIN_X.BATCH_SIZE", 5, "DATALOADER.TEST.BATCH_SIZE", 3),
    *("DATALOADER.NUM_WORKERS", 0, "INPUT.SIZE", (RESOLUTION, RESOLUTION)),
    *("OPTIM.MAX_EPOCH", EPOCHS, "TRAIN.CHECKPOINT_FREQ", 1),
    *("FEATURE_CACHE", False, "USE_CUDA", False, "SEED", 1),
]


def make_world(root: Path, *, blocks: int = 12) -> Path:
    """Write the CLIP and two data sets, of four classes and of one, below `root`; return `root`.

    Both towers have `blocks` blocks: with 12, as in ViT-B/16, published prompt depths are valid.
    """
    clip = build_clip(
        vision_layers=blocks,
        vision_patch_size=16,
        transformer_layers=blocks,
        embed_dim=32,
        image_resolution=RESOLUTION,
    )
    save_tiny(clip, [], root / WEIGHTS_FILE)
    _write_images(root / "images", CLASSES)
    _write_images(root / "alone", CLASSES[:1])
    return root


def _write_images(folder: Path, classes: Sequence[str]) -> None:
    """Write class folders in train/, val/ and test/; an image is its class's colour with noise."""
    random = np.random.default_rng(0)
    for split, n_images in IMAGES_A_CLASS.items():
        for name in classes:
            place = folder / split / name
            place.mkdir(parents=True)
            colour = 255 * np.random.default_rng(CLASSES.index(name)).random(3)
            for number in range(n_images):
                pixels = colour + random.normal(0, 40, (RESOLUTION, RESOLUTION, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(place / f"{number}.png")


@dataclass(frozen=True)
class CheckedRun:
    """A trainer after its training and test, and the output folder."""

    trainer: CLIPTrainer
    folder: Path

    @cached_property
    def answers(self) -> dict[str, np.ndarray]:
        """The arrays of predictions.npz, N rows each."""
        with np.load(self.folder / PREDICTIONS_FILE) as arrays:
            return dict(arrays)

    @property
    def learned(self) -> dict[str, Any]:
        """The state of all models, with the keys "<model> <name>"."""
        models = self.trainer._models
        states = {name: model.state_dict() for name, model in models.items()}
        return {f"{name} {key}": v for name, state in states.items() for key, v in state.items()}

    def differences(self, other: CheckedRun) -> list[str]:
        """Return the names of the learned tensors and the answers that are not bitwise equal."""
        learned = different_values(self.learned, other.learned)
        return learned + different_values(self.answers, other.answers)


def different_values(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the keys whose values, of any shape (...), are different in two dictionaries."""

    def equal(a: Any, b: Any) -> bool:
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else np.array_equal(a, b)

    names = one.keys() | other.keys()
    return sorted(n for n in names if n not in one or n not in other or not equal(one[n], other[n]))


class Subject:
    """The registered trainer to check, with its configuration files and folders for its runs."""

    def __init__(self, name: str, world: Path, files: Sequence[str] = ()) -> None:
        """Look up the trainer `name`; `world` is a folder of `make_world`.

        Raises:
            ValueError: a trainer that is no PromptTrainer or FeatureTrainer, or a wrong file.
            OSError: a configuration file that cannot be read.
        """
        self.name, self.world = name, world
        self.kind: type[CLIPTrainer] = TRAINER_REGISTRY.get(name)
        if not issubclass(self.kind, (PromptTrainer, FeatureTrainer)):
            raise ValueError(f"the trainer must be a PromptTrainer or a FeatureTrainer, got {name}")
        self.node = f"TRAINER.{self.kind.config_node}"
        self._defaults = plugin.default_cfg()
        self._defaults.merge_from_list(BASE_SETTINGS)
        for path in files:
            merge_file(self._defaults, path)
        self._defaults.CONFIG_NAME = "+".join(Path(path).stem for path in files)

    def new_folder(self) -> Path:
        """Create and return a new folder for a run."""
        return Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=self.world))

    def cfg(self, *options: Any, folder: Path | None = None) -> CfgNode:
        """Return the frozen configuration; `options` are KEY, VALUE, ... and override the rest."""
        cfg = self._defaults.clone()
        cfg.DATASET.ROOT, cfg.OUTPUT_DIR = str(self.world), str(folder or self.new_folder())
        cfg.TRAINER.NAME, cfg.MODEL.BACKBONE.NAME = self.name, str(self.world / WEIGHTS_FILE)
        cfg.merge_from_list([*FIXED_SETTINGS, *options])
        cfg.freeze()
        return cfg

    def build(self, *options: Any, folder: Path | None = None) -> CLIPTrainer:
        """Build the trainer of `cfg(*options)` after seeding."""
        return self.build_from(self.cfg(*options, folder=folder))

    def build_from(self, cfg: CfgNode) -> CLIPTrainer:
        """Build the trainer of a complete configuration after seeding."""
        set_random_seed(cfg.SEED)
        return self.kind(cfg)

    def run(self, *options: Any, folder: Path | None = None) -> CheckedRun:
        """Train and test in `folder`, by default a new one."""
        trainer = self.build(*options, folder=folder)
        trainer.train()
        return CheckedRun(trainer, Path(trainer.output_dir))

    @cached_property
    def reference(self) -> CheckedRun:
        """The run with which other runs are compared."""
        return self.run()

    def learns_by_steps(self) -> bool:
        """Return whether an optimizer trains the method, epoch by epoch."""
        return any(optim is not None for optim in self.reference.trainer._optims.values())

    def fingerprint(self, *options: Any) -> str:
        """Return the fingerprint of a run of `cfg(*options)`, as in run.json."""
        return Identity(settings_of_cfg(self.cfg(*options, folder=self.world))).fingerprint
