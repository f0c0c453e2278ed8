"""Trainers of published checkouts, unmodified, on minidassl and beside ours; skipped without them.

    CAUSALCLIP_TCP=/path/to/Textual-based_Class-aware_prompt_tuning \\
    CAUSALCLIP_MMA=/path/to/VLM-MultiModalAdapter CAUSALCLIP_MMRL=/path/to/MMRL \\
        python -m pytest tests/trainers/test_published_checkouts.py

The images are real ones of Caltech101 (caltech101_mini.tar, in the folder CAUSALCLIP_TEST_DATA).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from causalclip.clip.backbone import build_clip
from causalclip.files.download import unpack
from causalclip.runs import convert, train

ROOT = Path(__file__).parents[2]
IMAGES = Path(os.environ.get("CAUSALCLIP_TEST_DATA", ROOT / ".." / "shared" / "data"))
ARCHIVE = IMAGES / "caltech101_mini.tar"
CLASSES = ("Faces", "Leopards", "Motorbikes", "accordion", "airplanes", "anchor")
SETTINGS = [
    *("INPUT.SIZE", "(32, 32)", "DATASET.NUM_SHOTS", "4", "OPTIM.MAX_EPOCH", "2"),
    *("DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "4"),
]
PUBLISHED = ["DATALOADER.TEST.BATCH_SIZE", "50"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not ARCHIVE.is_file(), reason=f"no {ARCHIVE}")]

# The process around their train.py: a CPU that stays in fp32, and a CLIP that is not downloaded.
AROUND = """
    import importlib, runpy, sys
    import torch
    checkout, own_clip, weights, *arguments = sys.argv[1:]
    for kind in (torch.Tensor, torch.nn.Module):
        kind.half = kind.cuda = lambda self, *args, **options: self
    sys.path.insert(0, checkout)
    clip = importlib.import_module(own_clip)
    clip._MODELS["small"], clip._download = weights, lambda url: url
    sys.argv = ["train.py", *arguments]
    runpy.run_path(checkout + "/train.py", run_name="__main__")
"""


@dataclass(frozen=True)
class Published:
    """A published repository, and what it needs on a small CLIP without a GPU."""

    method: str
    """Our name of it; CAUSALCLIP_<method> names the checkout."""
    trainer: str
    clip: str
    """The module of its own copy of CLIP."""
    config: str
    """Its configuration, below configs/trainers."""
    recipe: str
    """Ours of the same protocol."""
    learned: str
    """The folder of its checkpoints."""
    theirs: tuple[str, ...]
    ours: tuple[str, ...] = ()
    on_base: tuple[str, ...] = ()
    """What ours must be told because the checkpoint does not say its classes."""

    @property
    def checkout(self) -> str:
        """Where it is, or ""."""
        return os.environ.get(f"CAUSALCLIP_{self.method}", "")


PUBLISHED_CODE = [
    Published(
        *("TCP", "TCP", "trainers.clip_text.clip", "TCP/vit_b16_ep100_ctxv1", "vit_b16_ep50"),
        "prompt_learner",
        theirs=("TRAINER.COOP.N_CTX", "4", "TRAINER.COOP.PREC", "fp32")
        + ("TRAINER.COCOOP.PREC", "fp32"),
    ),
    Published(
        *("MMA", "MultiModalAdapter", "clip.clip", "MultiModalAdapter/vit_b16_ep5", "vit_b16_ep5"),
        "adapter_learner",
        theirs=("TRAINER.MMADAPTER.ADAPTER_START", "1", "TRAINER.MMADAPTER.ADAPTER_END", "2")
        + ("TRAINER.MMADAPTER.PREC", "fp32"),
        ours=("TRAINER.MMA.ADAPTER_START", "1", "TRAINER.MMA.ADAPTER_END", "2")
        + ("TRAINER.MMA.PREC", "fp32"),
    ),
    Published(
        *("MMRL", "MMRL", "clip.clip", "MMRL/vit_b16", "vit_b16"),
        "MultiModalRepresentationLearner",
        theirs=("TRAINER.MMRL.REP_LAYERS", "[1, 2]", "TRAINER.MMRL.PREC", "fp32", "TASK", "B2N"),
        ours=("TRAINER.MMRL.REP_LAYERS", "[1, 2]", "TRAINER.MMRL.PREC", "fp32"),
        on_base=("TRAINER.MMRL.INFERENCE", "both"),
    ),
]


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> str:
    """A CLIP that their code takes: texts of width 512 and a ninth block (TCP), as many blocks for
    images (MMA)."""
    text = {"transformer_width": 512, "transformer_heads": 8, "transformer_layers": 9}
    model = build_clip(embed_dim=32, vision_layers=9, **text)
    path = tmp_path_factory.mktemp("clip") / "small.pt"
    torch.save(model.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Six classes of Caltech101, without CoOp's split, which names images of all classes."""
    root = tmp_path_factory.mktemp("data")
    unpack(ARCHIVE, root, most_bytes=10**8)
    (root / "caltech-101" / "split_zhou_Caltech101.json").unlink(missing_ok=True)
    for folder in (root / "caltech-101" / "101_ObjectCategories").iterdir():
        if folder.name not in CLASSES:
            shutil.rmtree(folder)
    return str(root)


def theirs(code: Published, weights: str, data: str, output: Path, *arguments: str) -> int:
    """Run their train.py; how many test images it got right."""
    configs = Path(code.checkout, "configs")
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c", textwrap.dedent(AROUND)),
            *(code.checkout, code.clip, weights, "--root", data, "--seed", "1"),
            *("--trainer", code.trainer, "--backbone", "small"),
            *("--dataset-config-file", str(configs / "datasets" / "caltech101.yaml")),
            *("--config-file", str(configs / "trainers" / f"{code.config}.yaml")),
            *("--output-dir", str(output), *arguments, *SETTINGS, *PUBLISHED, *code.theirs),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "minidassl")},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return int(re.findall(r"\* correct: ([\d,]+)", done.stdout)[-1].replace(",", ""))


def ours(code: Published, weights: str, data: str, output: Path, *arguments: str) -> int:
    """Run our train.py; how many test images it got right."""
    configs = ROOT / "configs"
    recipe = configs / "trainers" / code.method / f"{code.recipe}.yaml"
    status = train.main(
        [
            *("--root", data, "--seed", "1", "--trainer", code.method, "--backbone", weights),
            *("--dataset-config-file", str(configs / "datasets" / "caltech101.yaml")),
            *("--config-file", str(recipe), "--output-dir", str(output)),
            *(*arguments, *SETTINGS, *code.ours, "USE_CUDA", "False"),
            *("MODEL.BACKBONE.ACTIVATION", "quick_gelu"),
        ]
    )
    assert status == 0
    metrics = json.loads((output / "results.json").read_text())["metrics"]
    return round(metrics["accuracy"] * metrics["n"] / 100)


@pytest.mark.parametrize("code", PUBLISHED_CODE, ids=lambda code: code.method)
def test_it_trains_and_evaluates_unmodified_and_ours_reads_what_it_learned(
    code, weights_file, data, tmp_path
):
    if not code.checkout:
        pytest.skip(f"set CAUSALCLIP_{code.method} to a checkout of {code.method} to run this")
    base, new = (["DATASET.SUBSAMPLE_CLASSES", half] for half in ("base", "new"))
    learned, converted = tmp_path / "theirs", tmp_path / "converted"
    tested = ["--eval-only", "--load-epoch", "2", "--model-dir"]
    on_base = theirs(code, weights_file, data, learned, *base)
    on_new = theirs(code, weights_file, data, tmp_path / "new", *tested, str(learned), *new)
    file = learned / code.learned / "model.pth.tar-2"
    arguments = [code.method, weights_file, str(file), str(converted)]
    assert convert.main([*arguments, "--activation", "quick_gelu"]) == 0
    for half, right in (([*base, *code.on_base], on_base), (new, on_new)):
        output = tmp_path / f"ours_{half[1]}"
        assert right == ours(code, weights_file, data, output, *tested, str(converted), *half)
    trained = tmp_path / "trained"
    assert ours(code, weights_file, data, trained, *base) > 0
    assert (trained / code.learned / "model.pth.tar-2").is_file()
