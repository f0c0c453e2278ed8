"""The trainer that is checked, in a small world: its configurations and its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from yacs.config import CfgNode

from causalclip import plugin
from causalclip.checks.world import IMAGES, SIZE
from causalclip.engine.base import CLIPTrainer
from causalclip.report.predictions import PREDICTIONS_FILE
from causalclip.runs.configuration_file import merge_file
from causalclip.runs.flags import parser
from causalclip.runs.train import identify

# isort: split
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import set_random_seed

EPOCHS = 2
# A method's own configuration may say otherwise; what follows it may not be said otherwise.
BEFORE = ["INPUT.TRANSFORMS", ["random_resized_crop", "random_flip", "normalize"]]
BEHIND = [
    *("DATASET.NAME", "ImageFolder", "DATASET.PATH", "images"),
    *("DATASET.NUM_SHOTS", IMAGES["train"], "DATASET.SUBSAMPLE_CLASSES", "base"),
    *("DATALOADER.TRAIN_X.BATCH_SIZE", 5, "DATALOADER.TEST.BATCH_SIZE", 3),
    *("DATALOADER.NUM_WORKERS", 0, "INPUT.SIZE", (SIZE, SIZE), "OPTIM.MAX_EPOCH", EPOCHS),
    *("TRAIN.CHECKPOINT_FREQ", 1, "FEATURE_CACHE", False, "USE_CUDA", False, "SEED", 1),
]


@dataclass(frozen=True)
class Run:
    """A training and its test."""

    trainer: CLIPTrainer
    folder: Path

    @cached_property
    def answers(self) -> dict[str, np.ndarray]:
        """What predictions.npz holds, N rows each."""
        with np.load(self.folder / PREDICTIONS_FILE) as arrays:
            return dict(arrays)

    @property
    def learned(self) -> dict[str, Any]:
        """The state of every model, by "<model> <name>"."""
        models = self.trainer._models
        states = {name: model.state_dict() for name, model in models.items()}
        return {f"{name} {key}": v for name, state in states.items() for key, v in state.items()}

    def differences(self, other: Run) -> list[str]:
        """The learned tensors and the answers that are not equal, bit by bit."""
        found = different(self.learned, other.learned)
        return found + different(self.answers, other.answers)


def different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of values, of any shape (...), that two dictionaries do not share."""

    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b

    shared = one.keys() & other.keys()
    unequal = {name for name in shared if not equal(one[name], other[name])}
    return sorted(unequal | (one.keys() ^ other.keys()))


class Subject:
    """A registered trainer, its configuration files, and folders for its runs."""

    def __init__(self, name: str, world: Path, files: Sequence[str] = ()) -> None:
        """Check the trainer `name` in a world that `make_world` has written.

        Raises:
            ValueError: a trainer that is not on causalclip's `CLIPTrainer`, or a wrong file.
            OSError: a configuration file that cannot be read.
        """
        self.name, self.world, self.files = name, world, files
        self.kind: type[CLIPTrainer] = TRAINER_REGISTRY.get(name)
        if not issubclass(self.kind, CLIPTrainer):
            raise ValueError(
                f"the trainer must be a CLIPTrainer (PromptTrainer, FeatureTrainer), got {name}"
            )
        self._numbers = count()
        self.cfg(folder=world)  # a mistake in the files is no finding

    @property
    def node(self) -> str:
        """Where its settings are."""
        return f"TRAINER.{self.kind.config_node}"

    def new_folder(self) -> Path:
        """A folder for a run."""
        folder = self.world / "runs" / f"{self.name}-{next(self._numbers)}"
        folder.mkdir(parents=True)
        return folder

    def cfg(self, *options: Any, folder: Path | None = None) -> CfgNode:
        """Its configuration, KEY, VALUE, ... last; frozen."""
        cfg = self._configured.clone()
        here = ["DATASET.ROOT", str(self.world), "OUTPUT_DIR", str(folder or self.new_folder())]
        clip = [
            "TRAINER.NAME",
            self.name,
            "MODEL.BACKBONE.NAME",
            str(self.world / "clip.safetensors"),
        ]
        cfg.merge_from_list([*BEHIND, *here, *clip, *options])
        cfg.freeze()
        return cfg

    @cached_property
    def _configured(self) -> CfgNode:
        """Its configuration as far as the files say it."""
        cfg = plugin.default_cfg()
        cfg.PROTOCOL = cfg.PROTOCOL_PART = ""
        cfg.merge_from_list(BEFORE)
        for path in self.files:
            merge_file(cfg, path)
        cfg.CONFIG_NAME = "+".join(Path(path).stem for path in self.files)
        return cfg

    def build(self, *options: Any, folder: Path | None = None) -> CLIPTrainer:
        """The trainer under a configuration and its seed."""
        return self.of(self.cfg(*options, folder=folder))

    def of(self, cfg: CfgNode) -> CLIPTrainer:
        """The trainer of a configuration, under its seed."""
        set_random_seed(cfg.SEED)
        return self.kind(cfg)

    def run(self, *options: Any, folder: Path | None = None) -> Run:
        """A training with its test, in a folder of its own unless one is named."""
        trainer = self.build(*options, folder=folder)
        trainer.train()
        return Run(trainer, Path(trainer.output_dir))

    @cached_property
    def whole(self) -> Run:
        """The run that others are compared with."""
        return self.run()

    def learns_by_steps(self) -> bool:
        """Whether an optimizer trains it, epoch by epoch."""
        return any(optim is not None for optim in self.whole.trainer._optims.values())

    def fingerprint(self, *options: Any) -> str:
        """That of a run under a configuration, as `run.json` has it."""
        return identify(
            parser().parse_args([]), self.cfg(*options, folder=self.world)
        ).identity.fingerprint
