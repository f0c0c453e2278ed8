"""Sizes of CLIP, randomly initialised models, class names and a trainer for the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from causalclip.clip.backbone import build_clip
from causalclip.clip.interface import backbone_of
from causalclip.runs.configuration import cfg_from
from causalclip.runs.cost import CLASSNAMES
from causalclip.runs.recipes import CONFIGS

# isort: split
from dassl.engine import build_trainer

SHAPES = {
    "tiny": {
        "embed_dim": 64,
        "vision_layers": 4,
        "vision_width": 128,
        "transformer_width": 128,
        "transformer_heads": 2,
        "transformer_layers": 4,
    },
    "vit-b32": {
        "embed_dim": 512,
        "image_resolution": 224,
        "vision_layers": 12,
        "vision_width": 768,
        "vision_patch_size": 32,
        "transformer_width": 512,
        "transformer_heads": 8,
        "transformer_layers": 12,
    },
}
SHAPES["vit-b16"] = {**SHAPES["vit-b32"], "vision_patch_size": 16}
DIGITS = "zero one two three four five six seven eight nine".split()
# The class names of Caltech101, which has 100 classes.
CALTECH = """
accordion airplane anchor ant barrel bass beaver binocular bonsai brain brontosaurus buddha
butterfly camera cannon car_side ceiling_fan cellphone chair chandelier cougar_body cougar_face
crab crayfish crocodile crocodile_head cup dalmatian dollar_bill dolphin dragonfly electric_guitar
elephant emu euphonium ewer face ferry flamingo flamingo_head garfield gerenuk gramophone
grand_piano hawksbill headphone hedgehog helicopter ibis inline_skate joshua_tree kangaroo ketch
lamp laptop leopard llama lobster lotus mandolin mayfly menorah metronome minaret motorbike
nautilus octopus okapi pagoda panda pigeon pizza platypus pyramid revolver rhino rooster saxophone
schooner scissors scorpion sea_horse snoopy soccer_ball stapler starfish stegosaurus stop_sign
strawberry sunflower tick trilobite umbrella watch water_lilly wheelchair wild_cat windsor_chair
wrench yin_yang
""".split()
NAMES = {10: DIGITS, 100: CALTECH, 1000: CLASSNAMES}


def saved_clip(shape: str, folder: str) -> tuple[str, int]:
    """Return the file of a random CLIP, and the side of its images in pixels."""
    torch.manual_seed(0)
    model, file = build_clip(**SHAPES[shape]), Path(folder) / "clip.safetensors"
    save_file(model.state_dict(), file, metadata={"activation": "quick_gelu"})
    return str(file), backbone_of(model).image_size


def digits_trainer(
    method: str, folder: Path, pairs: Mapping[str, Any], recipe: str = "tiny"
) -> Any:
    """Return a trainer with a bundled configuration on the digits, which go to `folder`."""
    files = ["datasets/handwritten_digits.yaml", f"trainers/{method}/{recipe}.yaml"]
    own = {"DATASET.ROOT": str(folder), "OUTPUT_DIR": str(folder / method)}
    own |= {"TRAINER.NAME": method, "SEED": 1, **pairs}
    with redirect_stdout(StringIO()):
        return build_trainer(cfg_from([CONFIGS / file for file in files], own))
