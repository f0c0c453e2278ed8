"""Configuration of each method for small towers, with few candidates to try."""

from __future__ import annotations

from pathlib import Path

import yaml

import causalclip.trainers
from causalclip import plugin

# isort: split
from dassl.engine import TRAINER_REGISTRY

CONFIGS = Path(__file__).parents[1] / "configs" / "trainers"
METHODS = sorted(
    kind.__name__
    for module in plugin.modules_of(causalclip.trainers)
    for kind in plugin.methods_of(module)
)
BLOCKS = 2
DEPTHS = ("PROMPT_DEPTH", "PROMPT_DEPTH_TEXT", "PROMPT_DEPTH_VISION", "ADAPTER_END")
SMALL = {
    **dict.fromkeys(DEPTHS, BLOCKS),
    "ADAPTER_START": 1,
    "REP_LAYERS": [1, 2],
    "AUGMENT_EPOCHS": 2,
    "SEARCH_STEP": [6, 5],
    "STEPS": 4,
    "SELECT": "fixed",
    "SELECT_MARGIN": 0.0,
    "DIM_INV": 16,
    "DRAWS": 4,
    "N_VIEWS": 10,
}


def recipe(method: str, folder: Path) -> list[str]:
    """Return the configuration files of a method; write the last of them to the folder."""
    kind = TRAINER_REGISTRY.get(method)
    settings = {key: SMALL[key] for key in SMALL.keys() & kind.settings_table.keys()}
    small = folder / f"{method}.yaml"
    small.write_text(yaml.safe_dump({"TRAINER": {kind.config_node: settings}}))
    return [str(min((CONFIGS / method).glob("tiny*.yaml"))), str(small)]
