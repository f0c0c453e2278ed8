"""Every method on every kind of backbone: what runs, and what is refused in words: a page's table.

A cell trains one step on six random pictures and answers about three.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import open_clips
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from causalclip import plugin
from causalclip.clip.backbone import build_clip, load_clip
from causalclip.engine import frozen_clip
from causalclip.engine.evaluation import collect

# isort: split
from dassl.engine import build_trainer

PAGE = Path(__file__).parents[2] / "docs" / "backbones.md"
KINDS = {
    "openai": "OpenAI ViT",
    "resnet": "OpenAI ResNet",
    "vit": "open_clip ViT",
    "map": "SigLIP-like",
    "eva": "EVA-like",
}
FIXED = ["TRAINER.CLIP_ICM.SELECT", "fixed", "TRAINER.CLIP_ICM.DIM_INV", 4]
FIXED += ["TRAINER.CLIP_ICM.SELECT_MARGIN", 0.0, "TRAINER.CLIP_ICM.DRAWS", 9]
METHODS = {
    "ZeroshotCLIP": [],
    "LinearProbe": ["TRAINER.LINEARPROBE.C", 0.3],
    "TipAdapter": ["TRAINER.TIPADAPTER.AUGMENT_EPOCHS", 1, "TRAINER.TIPADAPTER.SEARCH_STEP", []],
    "TipAdapterF": ["TRAINER.TIPADAPTERF.SEARCH_STEP", []],
    "TDA": [],
    "TPT": ["TRAINER.TPT.N_VIEWS", 10],
    "GDA": ["TRAINER.GDA.AUGMENT_EPOCHS", 1],
    "LPPlusPlus": ["TRAINER.LPPLUSPLUS.STEPS", 2],
    "ProLIP": ["TRAINER.PROLIP.STEPS", 2],
    "CLIP_Adapter": [],
    "CLIP_ICM": [*FIXED, "TRAINER.CLIP_ICM.PROBE", False],
    "CIPT": [],
    "CoOp": [],
    "CoCoOp": [],
    "KgCoOp": [],
    "ProGrad": [],
    "TCP": [],
    "CDC, text alone": ["TRAINER.CDC.VISION", "none", "TRAINER.CDC.N_TEMPLATES", 2],
    "VPT": [],
    "IVLP": [],
    "MaPLe": [],
    "PromptSRC": [],
    "CDC": ["TRAINER.CDC.N_TEMPLATES", 2],
    "CLIP_LoRA": [],
    "TwoSFS": [],
    "MMA": ["TRAINER.MMA.ADAPTER_START", 1, "TRAINER.MMA.ADAPTER_END", 2],
    "MMApp": ["TRAINER.MMAPP.ADAPTER_START", 1, "TRAINER.MMAPP.ADAPTER_END", 2],
    "MMRL": ["TRAINER.MMRL.REP_LAYERS", [1, 2], "TRAINER.MMRL.REP_DIM", 16],
    "MMRLpp": ["TRAINER.MMRLPP.REP_LAYERS", [1, 2], "TRAINER.MMRLPP.REP_DIM", 16],
}
NO_VIT = "image prompts need a ViT backbone"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A data root with three classes of a few pictures."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for name in ("cat", "dog", "grey parrot"):
            folder = root / "folder" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """One model of each kind by what MODEL.BACKBONE.NAME says of it, and its weights."""
    folder = tmp_path_factory.mktemp("clips")
    shapes = {"openai": {"vision_layers": 2}, "resnet": {"vision_layers": (1, 1, 1, 1)}}
    for kind, shape in shapes.items():
        width = 16 if kind == "resnet" else 64
        model = build_clip(embed_dim=48, transformer_layers=2, vision_width=width, **shape)
        said = {"activation": "gelu"}
        save_file(model.state_dict(), folder / f"{kind}.safetensors", metadata=said)
    names = {kind: str(folder / f"{kind}.safetensors") for kind in shapes}
    names |= open_clips.write(folder)
    models = {name: load_clip(name) for name in names.values()}
    return names, models, {name: deepcopy(model.state_dict()) for name, model in models.items()}


def configuration(method: str, backbone: str, root: Path, output: Path):
    cfg = plugin.default_cfg()
    name = method.partition(",")[0]
    deep = [f"TRAINER.{n}.{k}" for n in cfg.TRAINER if n != "NAME" for k in cfg.TRAINER[n]]
    for key in deep:
        if ".PROMPT_DEPTH" in key:
            cfg.merge_from_list([key, 2])
    cfg.merge_from_list(
        ["DATASET.NAME", "ImageFolder", "DATASET.ROOT", str(root / "folder"), "SEED", 1]
        + ["OUTPUT_DIR", str(output), "TRAINER.NAME", name, "MODEL.BACKBONE.NAME", backbone]
        + ["INPUT.SIZE", (32, 32), "INPUT.TRANSFORMS", ["normalize"], "USE_CUDA", False]
        + ["DATALOADER.NUM_WORKERS", 0, "DATALOADER.TRAIN_X.BATCH_SIZE", 6, "OPTIM.NAME", "sgd"]
        + ["OPTIM.MAX_EPOCH", 1, "OPTIM.LR", 0.002, "TEST.NO_TEST", True, *METHODS[method]]
    )
    cfg.freeze()
    return cfg


@pytest.fixture(scope="module")
def table(pictures, clips, tmp_path_factory):
    """What each cell gives: `runs`, or why not."""
    names, models, _ = clips
    found = {}
    plugin.register_all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen_clip, "load_clip", lambda name, **_: models[name])
        for method in METHODS:
            for kind in KINDS:
                output = tmp_path_factory.mktemp("run")
                cfg = configuration(method, names[kind], pictures, output)
                try:
                    trainer = build_trainer(cfg)
                    if trainer.get_model_names():
                        trainer.train()
                    assert len(collect(trainer, trainer.test_loader).labels) == 3
                    found[method, kind] = "runs"
                except ValueError as error:
                    found[method, kind] = str(error)
    return found


def test_every_method_runs_on_every_backbone_or_is_refused_in_words(table):
    deep = (
        "VPT",
        "IVLP",
        "MaPLe",
        "PromptSRC",
        "CDC",
        "CLIP_LoRA",
        "TwoSFS",
        "MMA",
        "MMApp",
        "MMRL",
        "MMRLpp",
        "ProLIP",
    )
    for (method, kind), answer in table.items():
        expected = "runs"
        if method in deep and kind == "resnet":
            expected = NO_VIT
        elif method in ("MMRL", "MMRLpp", "ProLIP") and kind != "openai":
            expected = f"{method} needs a CLIP of OpenAI's classes"
        assert answer.startswith(expected), (method, kind, answer)


def test_the_pages_table_says_what_the_cells_gave(table):
    rows = ["| methods | " + " | ".join(KINDS.values()) + " |", "|---" * (len(KINDS) + 1) + "|"]
    same: dict[str, list[str]] = {}
    for method in METHODS:
        cells = ["runs" if table[method, kind] == "runs" else "no" for kind in KINDS]
        same.setdefault(" | ".join(cells), []).append(method)
    rows += [f"| {'; '.join(methods)} | {cells} |" for cells, methods in same.items()]
    assert "\n".join(rows) in PAGE.read_text(encoding="utf-8"), "\n".join(rows)


def test_a_run_leaves_the_models_as_they_were(table, clips):
    for name, model in clips[1].items():
        own = clips[2][name]
        assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())
