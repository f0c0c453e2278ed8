"""What was run: the settings that results must share to be seeds of one method.

Two results of one trainer and configuration file are of different methods where a setting differs
that could change the figure; the differing settings then stand in the method's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from causalclip.report.results import Result
from causalclip.runs.identity import FILES

Settings = dict[str, Any]
"""Dotted keys of the configuration and their values."""

IGNORED = {
    "SEED": "what the mean is over",
    "OUTPUT_DIR": "where results go",
    "RESUME": "where a checkpoint lies",
    "DATASET.ROOT": "where the data lie",
    "DATASET.NAME": "a column of its own",
    "DATASET.NUM_SHOTS": "a column of its own; an evaluation takes that of its training",
    "DATASET.SUBSAMPLE_CLASSES": "base and new are halves of one figure",
    "DATASET.SOURCE_DOMAINS": "all but the target",
    "DATASET.TARGET_DOMAINS": "a column of its own",
    "DATASET.ALL_AS_UNLABELED": "no method here reads unlabelled images",
    "CONFIG_NAME": "names the method already",
    "PROTOCOL": "a table of its own",
    "PROTOCOL_PART": "base and new, source and target are parts of one figure",
    "TRAINER.NAME": "names the method already",
    "DATALOADER.NUM_WORKERS": "how fast",
    "DATALOADER.TEST.BATCH_SIZE": "how fast",
    "USE_CUDA": "where",
    "VERBOSE": "what is printed",
    "VERSION": "of the configuration's layout",
    "TRAIN.PRINT_FREQ": "what is printed",
    "TRAIN.CHECKPOINT_FREQ": "what is kept",
    "TRAIN.CHECKPOINT_MINUTES": "what is kept",
    "MODEL.BACKBONE.TRUST_TORCHSCRIPT": "whether weights are loaded, not which",
    "TEST.CALIBRATION": "adds readings and changes none",
    "TEST.COMPUTE_CMAT": "what is printed",
    "TEST.PER_CLASS_RESULT": "what is printed",
    "TEST.NO_TEST": "there is a result",
}
"""Settings that results may differ in and still be seeds of one method, each with the reason."""

OF_THE_MODEL = ("TRAINER.", "MODEL.")
# A model's own settings hold for all that it is tested on: base and new, targets, domains.
SAME_MODEL = ["protocol", "source", "shots"]
# The others may belong to the data set. Those of a training are not read by an evaluation, and the
# files may be of one domain.
SAME_RUN = [*SAME_MODEL, "dataset", "domain", "trains"]


def settings_of(result: Result) -> Settings:
    """The settings that may have shaped a result: without IGNORED and without other trainers'."""
    config = dict(result.config)
    trainers = config.get("TRAINER")
    if isinstance(trainers, dict):
        own = {name: node for name, node in trainers.items() if same_name(name, result.trainer)}
        config["TRAINER"] = own or trainers  # a host's method may have a node of any name
    settings = dict(flat(config))
    domains = settings.get("DATASET.TARGET_DOMAINS")
    domains = domains if isinstance(domains, list) else []
    return {
        key: of_any_run(value, result.seed, domains) if isinstance(value, str) else value
        for key, value in settings.items()
        if key not in IGNORED
    }


def of_any_run(value: str, seed: int, domains: Sequence[str]) -> str:
    """A value without the seed and the left-out domain that a path may hold: `*` in their place."""
    if "/" not in value:
        return value
    value = re.sub(rf"\bseed{seed}\b", "seed*", value)
    return "/".join("*" if part in domains else part for part in value.split("/"))


def same_name(node: str, trainer: str) -> bool:
    """Whether a node below TRAINER is that of a trainer: CLIP_ADAPTER is CLIPAdapter's."""
    return node.replace("_", "").lower() == trainer.replace("_", "").lower()


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys and values of a nested configuration."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def name_settings(runs: pd.DataFrame) -> pd.Series:
    """For each run "KEY=value, ..." of the settings in which its method differs; else empty.

    A method is a trainer and a configuration file; `settings` of the runs are `settings_of`'s.
    """
    names = pd.Series("", index=runs.index, dtype=object)
    for _, part in runs.groupby(["trainer", "config"], sort=False):
        keys = differing(part)
        shown = [said(settings, keys) for settings in part["settings"]]
        names[part.index] = np.array(shown, dtype=object)
    return names


def differing(runs: pd.DataFrame) -> list[str]:
    """The settings that differ between runs that should be seeds of one method."""
    keys = list(dict.fromkeys(key for settings in runs["settings"] for key in settings))
    model = [key for key in keys if is_of_the_model(key)]
    others = [key for key in keys if not is_of_the_model(key)]
    return [*differing_within(runs, SAME_MODEL, model), *differing_within(runs, SAME_RUN, others)]


def is_of_the_model(key: str) -> bool:
    """Whether a setting belongs to the method, and names no file."""
    return key.startswith(OF_THE_MODEL) and not key.endswith(FILES)


def differing_within(runs: pd.DataFrame, place: list[str], keys: Sequence[str]) -> list[str]:
    """Those of the keys that differ between two runs of the same place."""
    groups = [list(part) for _, part in runs.groupby(place, sort=False)["settings"]]
    return [key for key in keys if any(differs(key, group) for group in groups)]


def differs(key: str, several: Iterable[Settings]) -> bool:
    """Whether a setting has several values; one that a run did not know yet counts as off."""
    known = [settings.get(key) for settings in several]
    if all(key in settings for settings in several):
        return len({str(value) for value in known}) > 1
    return any(known)


def said(settings: Settings, keys: Sequence[str]) -> str:
    """The settings as they are typed; of the trainer's own node without its name."""
    return ", ".join(
        f"{re.sub(r'^TRAINER[.][^.]+[.]', '', key)}={settings.get(key, '-')}" for key in keys
    )
